"""Running sums along an axis, in the order of its elements.

All values are seen as three axes, (outer, the summed one, inner), row-major.  Where inner elements lie next to each other they
are summed side by side, a stretch of them at a time; the stretches of all outer rows are the tasks.
"""

from __future__ import annotations

import math

from irconv.backends.codegen.body import FIRST, LAST, Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import Expression, Literal, Pointer, Type, call, load
from irconv.backends.codegen.rules import wrapping
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, native, native_kernel
from irconv.backends.native.kernels.element_loops import Sizes
from irconv.strides import is_contiguous
from irconv.types import BOOL, F16, DType

FUNCTION = "running_sum"
TASK_ELEMENTS = 16 * 1024


@native("cumsum")
def _cumsum(request: NativeRequest) -> NativeKernel | None:
    """None for values that are not row-major, and for float16, which is summed in float32."""
    graph = request.graph
    node = graph[request.kernel.nodes[0]]
    type_, a = node.type, node.attributes
    if type_.dtype in (F16, BOOL) or not all(
        is_contiguous(type_.shape, request.strides[i]) for i in (node.id, node.operands[0])
    ):
        return None
    lanes = request.machine.lanes(type_.dtype.bytes) if type_.dtype.is_float else 1
    outer, size, inner = math.prod(type_.shape[: a.axis]), type_.shape[a.axis], math.prod(type_.shape[a.axis + 1 :])
    return _kernel(type_.dtype, lanes if inner > 1 else 1, outer, size, inner, a.exclusive, a.reverse)


def _kernel(dtype: DType, lanes: int, outer: int, size: int, inner: int, exclusive: bool, reverse: bool) -> NativeKernel:
    """Inner elements are cut into stretches of ``lanes``; a task is a number of stretches, counted through all outer rows."""
    stretches = -(-inner // lanes)
    total = outer * stretches
    per_task = max(1, TASK_ELEMENTS // max(1, size * lanes))
    per_task = max(1, total) if total <= 2 * per_task else per_task
    sizes, body = Sizes(), Body()
    named = [
        sizes.add(name, value)
        for name, value in (("size", size), ("inner", inner), ("stretches", stretches), ("total", total), ("per_task", per_task))
    ]
    length, width, across, count, step = named
    end = body.let("end", call("smaller", LAST * step, count))
    with body.loop("stretch", FIRST * step, end) as stretch:
        column = body.let("column", stretch % across * lanes)
        start = body.let("start", stretch // across * length * width + column)
        if lanes == 1:
            _run(body, dtype, 1, start, (length, width), None, exclusive, reverse)
        else:
            part = body.let("part", width - column)
            with body.when(part >= lanes):
                _run(body, dtype, lanes, start, (length, width), None, exclusive, reverse)
            with body.otherwise():
                _run(body, dtype, lanes, start, (length, width), part, exclusive, reverse)
    function = body.function(FUNCTION, [("out", dtype, True), ("in0", dtype, False)], sizes.names)
    return native_kernel(print_c([function]), (Phase(FUNCTION, max(1, -(-total // per_task))),), tuple(sizes.values))


def _run(
    body: Body,
    dtype: DType,
    lanes: int,
    start: Expression,
    extents: tuple[Expression, Expression],
    count: Expression | None,
    exclusive: bool,
    reverse: bool,
) -> None:
    """One stretch, from end to end of the summed axis; ``count``: so many of its lanes, None for all."""
    length, width = extents
    total = body.variable("total", Literal(0, Type(dtype, lanes)))
    with body.loop("i", 0, length) as i:
        row = length - 1 - i if reverse else i
        at = body.let("at", start + row * width)
        value = body.let("value", load(Pointer("in0", dtype), at, lanes, count))
        if exclusive:
            body.store(Pointer("out", dtype), at, total, count)
        body.assign(total, total + value if dtype.is_float else wrapping("+", total, value))
        if not exclusive:
            body.store(Pointer("out", dtype), at, total, count)
