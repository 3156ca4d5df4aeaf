"""Where the largest or smallest element is: the row-major index within the folded axes, the first of equals, the first NaN.

One result after the other, its elements in row-major order, whatever the strides.
"""

from __future__ import annotations

from collections.abc import Sequence

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import Expression, Pointer, Variable, compare, convert, literal, load, select
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, native, native_kernel
from irconv.backends.native.kernels.reduction_space import (
    MOST_TASKS,
    TASK,
    Sizes,
    digits_of,
    least,
    offset_of,
    result_strides,
)
from irconv.types import F16, F32


@native("argmax", "argmin")
def _position(request: NativeRequest) -> NativeKernel | None:
    """Any element type and axes."""
    graph, kernel = request.graph, request.kernel
    node = graph[kernel.nodes[0]]
    x, axes = graph[node.operands[0]].type, node.attributes.axes
    x_strides = request.strides[node.operands[0]]
    out_strides = result_strides(request.strides[node.id], axes, x.rank, node.attributes.keepdims)
    sizes = Sizes()
    # one element along an axis means nothing, but the first may be a batch
    real = [axis for axis in range(x.rank) if x.shape[axis] != 1 or axis == 0]
    kept, folded = ([axis for axis in real if (axis in axes) is wanted] for wanted in (False, True))
    extents = {axis: sizes.add(f"extent{axis}", x.shape[axis]) for axis in real}
    x_step = {axis: sizes.add(f"in0_stride{axis}", x_strides[axis]) for axis in real}
    out_step = {axis: sizes.add(f"out0_stride{axis}", out_strides[axis]) for axis in kept}
    work = max(1, x.size // max(1, node.type.size))
    group = max(1, TASK // work, -(-node.type.size // MOST_TASKS))
    results, group_size = sizes.add("results", node.type.size), sizes.add("group", group)

    source, target = Pointer("in0", x.dtype), Pointer("out0", node.type.dtype)
    body = Body()
    with body.tasks() as task:
        first = body.let("first_result", task * group_size)
        with body.loop("result", first, least(body, "last_result", first + group_size, results)) as result:
            digits = digits_of(body, result, [extents[axis] for axis in kept]) if kept else []
            row = body.pointer("row", source, offset_of(digits, [x_step[axis] for axis in kept]))
            place = offset_of(digits, [out_step[axis] for axis in kept])
            found = _search(body, row, [extents[axis] for axis in folded], [x_step[axis] for axis in folded], node.op.name)
            body.store(target, place, found)
    function = body.function("position", [("out0", node.type.dtype, True), ("in0", x.dtype, False)], tuple(sizes.values))
    phases = (Phase("position", -(-node.type.size // group)),)
    return native_kernel(print_c([function]), phases, tuple(sizes.values.values()), (), (), request.machine)


def _search(body: Body, row: Pointer, extents: Sequence[Expression], strides: Sequence[Expression], name: str) -> Variable:
    """The index of the winner among a result's elements."""

    def read(offset: Expression) -> Expression:
        value = load(row, offset)
        return convert(value, F32) if row.dtype is F16 else value

    best = body.variable("best", read(literal(0)))
    winner, index = body.variable("winner", literal(0)), body.variable("index", literal(0))

    def visit(axis: int, offset: Expression) -> None:
        if axis < len(extents):
            with body.loop("i", 0, extents[axis]) as i:
                visit(axis + 1, body.let("offset", offset + i * strides[axis]))
            return
        value = body.let("value", read(offset))
        wins = value > best if name == "argmax" else value < best
        if value.type.dtype.is_float:
            wins = wins | (compare("!=", value, value) & compare("==", best, best))
        wins = body.let("wins", wins)
        body.assign(winner, select(wins, index, winner))
        body.assign(best, select(wins, value, best))
        body.assign(index, index + 1)

    visit(0, literal(0))
    return winner
