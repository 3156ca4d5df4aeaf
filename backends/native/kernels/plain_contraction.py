"""Contractions that no network spends time on, element by element: of integers, and of nothing (no channels, no taps).

Integers are multiplied and added modulo 2^64, which is what wrapping in their own type comes to; a sum of nothing is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack

from irconv.backends.arrays.lower import operand_ids
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import Expression, Literal, Pointer, Type, convert, literal, load
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, native_kernel
from irconv.backends.native.kernels.depthwise_plan import Outer
from irconv.backends.native.kernels.element_loops import Sizes
from irconv.backends.native.kernels.epilogue import make_epilogue
from irconv.backends.native.kernels.reduction_space import digits_of, least, offset_of
from irconv.graph import Node
from irconv.types import BOOL, F16, U64, DType

FUNCTION = "plain_contraction"
TASK_PRODUCTS = 64 * 1024
"""Multiplications of a task, about."""


def plain_contraction(request: NativeRequest, node: Node) -> NativeKernel | None:
    """The kernel of a convolution, transposed convolution or matrix product with its epilogue.

    None for float16 and truth values, and where the kernel is more than that.
    """
    graph, kernel = request.graph, request.kernel
    if node.type.dtype in (F16, BOOL):
        return None
    operands = operand_ids(graph, kernel)
    pointers = {i: Pointer(f"in{at}", graph[i].type.dtype) for at, i in reversed(list(enumerate(operands)))}
    epilogue = make_epilogue(request, node.id, pointers, 1)
    if epilogue is None or {node.id, *epilogue.nodes} != set(kernel.nodes):
        return None
    out = Pointer("out", graph[epilogue.result].type.dtype)
    x, w = (pointers[i] for i in node.operands)
    body, sizes = Body(), Sizes()
    terms = _Product(request, node, sizes) if node.op.name == "matmul" else _Windows(request, node, sizes)
    per_task = max(1, TASK_PRODUCTS // max(1, terms.products))
    count, step = sizes.add("count", node.type.size), sizes.add("per_task", per_task)
    with body.tasks() as task:
        first = body.let("first_element", task * step)
        with body.loop("element", first, least(body, "last_element", first + step, count)) as element:
            index = digits_of(body, element, terms.extents)
            total = body.variable("total", Literal(0, Type(_accumulator(node.type.dtype))))
            with ExitStack() as loops:
                places = terms.pair(body, loops, index)
                a, b = (convert(load(p, at), total.type.dtype) for p, at in zip((x, w), places, strict=True))
                body.assign(total, total + a * b)
            value = body.let("value", convert(total, node.type.dtype))
            epilogue.apply(body, value, index, 0, None, out)
    buffers = [("out", out.dtype, True), *((f"in{at}", graph[i].type.dtype, False) for at, i in enumerate(operands))]
    twice = {f"in{at}" for at, i in enumerate(operands) if operands.count(i) > 1}
    function = body.function(FUNCTION, buffers, sizes.names, twice)
    phase = Phase(FUNCTION, -(-node.type.size // per_task))
    return native_kernel(print_c([function]), (phase,), tuple(sizes.values), machine=request.machine)


def _accumulator(dtype: DType) -> DType:
    return dtype if dtype.is_float else U64


class _Windows:
    """What a convolution, or a transposed one, sums for each element of its result [batch, channels, *spatial]."""

    def __init__(self, request: NativeRequest, node: Node, sizes: Sizes):
        x, w = (operand.type.shape for operand in request.graph.operands(node))
        a, counts = node.attributes, node.type.shape[2:]
        self.transposed = node.op.name == "conv_transpose"
        before = a.padding if self.transposed else tuple(before for before, _ in a.padding)
        self.axes = Outer.along(self.transposed, x[2:], counts, w[2:], a.stride, a.dilation, before)
        self.depth = x[1] // a.groups
        self.columns = node.type.shape[1] // a.groups
        self.products = self.depth * math.prod(w[2:])
        self.strides = tuple(request.strides[i] for i in node.operands)
        self.extents: list[Expression] = [sizes.add("batch", node.type.shape[0])]
        self.extents += [literal(n) for n in node.type.shape[1:]]

    def pair(self, body: Body, loops: ExitStack, index: Sequence[Expression]) -> tuple[Expression, Expression]:
        """Loops over the pairs that are multiplied for one element: where each is in x and w."""
        sample, column, *places = index
        x_strides, w_strides = self.strides
        group = body.let("group", column // max(1, self.columns))
        depth = loops.enter_context(body.loop("channel", 0, self.depth))
        channel = group * self.depth + depth
        x = sample * x_strides[0] + channel * x_strides[1]
        w = channel * w_strides[0] + column % max(1, self.columns) * w_strides[1]
        if not self.transposed:
            w = column * w_strides[0] + depth * w_strides[1]
        for axis, place, x_step, w_step in zip(self.axes, places, x_strides[2:], w_strides[2:], strict=True):
            tap = loops.enter_context(body.loop("tap", 0, axis.taps))
            at, inside = axis.seen(place, tap)
            loops.enter_context(body.when(inside))
            x, w = x + at * x_step, w + tap * w_step
        return x, w


class _Product:
    """What a product of matrices, or of batches of them, sums for each element of its result."""

    def __init__(self, request: NativeRequest, node: Node, sizes: Sizes):
        left, right = (operand.type.shape for operand in request.graph.operands(node))
        shape, rank = node.type.shape, node.type.rank
        self.products = left[-1]
        self.length = sizes.add("length", left[-1])
        self.extents: list[Expression] = [sizes.add(f"extent{axis}", n) for axis, n in enumerate(shape)]
        steps = []
        for operand, i in zip((left, right), node.operands, strict=True):
            strides = request.strides[i]
            kept = [0 if n != m else s for n, s, m in zip(operand[-3::-1], strides[-3::-1], shape[-3::-1], strict=False)]
            steps.append([0] * (rank - len(operand)) + kept[::-1] + list(strides[-2:]))
        by_name = zip(("x", "w"), steps, strict=True)
        self.x, self.w = (
            [sizes.add(f"{name}_stride{axis}", s) for axis, s in enumerate(strides)] for name, strides in by_name
        )

    def pair(self, body: Body, loops: ExitStack, index: Sequence[Expression]) -> tuple[Expression, Expression]:
        """A loop over the pairs that are multiplied for one element: where each is in x and w."""
        k = loops.enter_context(body.loop("k", 0, self.length))
        x = offset_of([*index[:-1], k], self.x)
        w = offset_of([*index[:-2], k, index[-1]], self.w)
        return x, w
