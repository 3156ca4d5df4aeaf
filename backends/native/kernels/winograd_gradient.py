"""The weight gradient of a 3x3 convolution at stride 1 by Winograd's algorithm.

F(4x4, 3x3) computes ``Y = A' [(G w G') * (B' x B)] A`` for a tile; the gradient of sum(d * Y) for w is::

    dW = G' [ sum over tiles of (A d A') * (B' x B) ] G

with the same matrices, so 36 products for each pair of channels and tile of 4x4 gradients d, where the definition takes 144.

A task is a block of output channels, a range of input channels, and a split of the tiles.  For a chunk of tiles at a time it
transforms x and d, and adds 36 small products to sums that stay in the core's cache; G' and G come last, once.  Splits are
added in order by a second phase, which is the one of the plain algorithm.

Rounding: the largest error stays below 1e-5 times the largest of (|x| with |d|) summed; see the test.  A strict request does
not come here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from irconv.backends.arrays.base import scratch
from irconv.backends.codegen.body import WORKER, Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import (
    Expression,
    Literal,
    Pointer,
    Type,
    Variable,
    both,
    literal,
    load,
    select,
    splat,
)
from irconv.backends.codegen.statements import Function
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, native_kernel
from irconv.backends.native.kernels.packing import least, unravel
from irconv.backends.native.kernels.weight_gradient_code import (
    BATCH,
    CHUNKS,
    SIZES,
    SPLITS,
    Buffers,
    Names,
)
from irconv.backends.native.kernels.weight_gradient_plan import Problem, make_plan
from irconv.backends.native.kernels.weight_gradient_sum import add_function
from irconv.backends.native.kernels.winograd_gradient_plan import (
    INPUTS,
    OUTPUTS,
    PRODUCTS,
    GradientPlan,
    cut_gradient,
)
from irconv.backends.native.kernels.winograd_transforms import (
    Transform,
    adjoint_output_transform,
    adjoint_weight_transform,
    input_transform,
    on_both_axes,
)
from irconv.types import F32, TensorType


def winograd_gradient(
    request: NativeRequest, p: Problem, plan: GradientPlan, slots: dict[int, str], d: int, x: int
) -> NativeKernel:
    """The kernel by this plan, from the values d and x; ``slots``: names of the inputs."""
    cut = cut_gradient(p, plan)
    blocks = plan.blocks
    buffers = [("gradient", F32, True)]
    buffers += [(slots[i], request.graph[i].type.dtype, False) for i in request.kernel.inputs]
    buffers += [("partial", F32, True), ("own", F32, True)]
    names = Names(*(Pointer(name, F32) for name in ("gradient", slots[d], slots[x], "partial", "own")))
    sums = replace(make_plan(p, request.machine), along_rows=True, lanes=plan.lanes, vectors=plan.vectors, blocks=blocks)
    functions = [
        WinogradGradientCode(p, plan, names).function(tuple(buffers)),
        add_function(p, sums, names, tuple(buffers)),
    ]
    phases = (Phase(functions[0].name, cut.splits * blocks * plan.ranges), Phase(functions[1].name, cut.sums))
    pieces = TensorType(F32, (cut.splits, blocks, p.taps * p.depth, plan.width))
    own = scratch(F32, request.threads, sum(plan.parts))
    sizes = (p.batch, cut.chunks, cut.splits, 1, cut.sums)
    return native_kernel(print_c(functions), phases, sizes, (pieces, own), machine=request.machine)


@dataclass(frozen=True)
class _Side:
    """One operand of a tile.

    pointer, strides: [sample, rows, columns] of its buffer, whose channels are neighbours; ``size``: of its images.
    extent:   places of a tile along each axis.
    first:    its first channel in this task; ``channels``: of all; ``width``: of those here, in whole vectors.
    transform, target, step: how a tile is transformed, to where, and elements from one product to the next.
    """

    pointer: Pointer
    strides: tuple[int, int, int]
    size: tuple[int, int]
    extent: int
    first: Expression
    channels: int
    width: int
    transform: Transform
    target: Pointer
    step: int


class WinogradGradientCode:
    """Writes the function that makes the partial gradients."""

    def __init__(self, p: Problem, plan: GradientPlan, names: Names):
        self.p, self.plan, self.names = p, plan, names
        self.body = Body()
        self.vector = Type(F32, plan.lanes)

    def function(self, buffers: Buffers) -> Function:
        p, plan, body = self.p, self.plan, self.body
        with body.tasks() as task:
            part = body.let("range", task % plan.ranges)
            block = body.let("block", task // plan.ranges % plan.blocks)
            split = body.let("split", task // (plan.ranges * plan.blocks))
            first = body.let("first_input", part * plan.channels)
            column = body.let("first_output", block * plan.width)
            starts = [sum(plan.parts[:i]) for i in range(4)]
            own = (WORKER * sum(plan.parts) + start for start in starts)
            v, e, m, copied = (
                body.pointer(name, self.names.copies, at) for name, at in zip(("v", "e", "m", "copied"), own, strict=True)
            )
            with body.loop("i", 0, plan.parts[2], plan.lanes) as i:
                body.store(m, i, self._zero())
            with body.loop("chunk", split * CHUNKS // SPLITS, (split + 1) * CHUNKS // SPLITS) as chunk:
                start = body.let("first_tile", chunk * plan.chunk)
                count = body.let("tiles", least(BATCH * plan.tiles - start, plan.chunk))
                with body.loop("tile", 0, count) as tile:
                    self._tile(start + tile, tile, self._x_side(first, v), self._d_side(column, e), copied)
                with body.loop("k", 0, PRODUCTS) as k:
                    self._product(k, count, v, e, m)
            kept = least(literal(p.depth) - first, plan.channels)
            self._finish(kept, m, (split * plan.blocks + block) * (p.taps * p.depth * plan.width), first)
        return body.function("weight_gradient_winograd", buffers, SIZES)

    def _zero(self) -> Literal:
        return Literal(0.0, self.vector)

    def _x_side(self, first: Expression, target: Pointer) -> _Side:
        p, plan = self.p, self.plan
        strides = p.x_strides[0], p.x_strides[2], p.x_strides[3]
        size = p.size[0], p.size[1]
        step = plan.steps[0]
        return _Side(self.names.x, strides, size, INPUTS, first, p.depth, plan.x_width, input_transform, target, step)

    def _d_side(self, first: Expression, target: Pointer) -> _Side:
        p, plan = self.p, self.plan
        strides = p.d_strides[0], p.d_strides[2], p.d_strides[3]
        size = p.counts[0], p.counts[1]
        step = plan.steps[1]
        return _Side(self.names.d, strides, size, OUTPUTS, first, p.rows, plan.width, adjoint_output_transform, target, step)

    # --- transforms ------------------------------------------------------------------------------------------------------

    def _tile(self, number: Expression, tile: Expression, x: _Side, d: _Side, copied: Pointer) -> None:
        """Transform both operands of a tile."""
        body, plan = self.body, self.plan
        image, row, column = unravel(body.let("place", number), [0, plan.down, plan.along])
        image = body.let("image", image)
        row, column = body.let("row", row * OUTPUTS), body.let("column", column * OUTPUTS)
        top = body.let("top", row - self.p.before[0])
        left = body.let("left", column - self.p.before[1])
        self._transform(x, image, (top, left), tile, copied)
        self._transform(d, image, (row, column), tile, copied)

    def _transform(
        self, side: _Side, image: Expression, corner: tuple[Expression, Expression], tile: Expression, copied: Pointer
    ) -> None:
        """The numbers of one tile, from the operand itself or, at a border, from a copy with zeros around it."""
        body, lanes, extent = self.body, self.plan.lanes, side.extent
        steps = zip(corner, side.strides[1:], strict=True)
        start = body.let("corner", image * side.strides[0] + side.first + sum(at * step for at, step in steps))
        source = body.pointer("source", side.pointer, 0, mutable=True)
        down, along = (body.variable(n, literal(s)) for n, s in zip(("down", "along"), side.strides[1:], strict=True))
        inside = _inside(corner, side.size, extent)
        with body.when(inside):
            body.move(source, side.pointer, start)
        with body.otherwise():
            self._copy(side, start, corner, copied)
            body.move(source, copied, 0)
            body.assign(down, literal(extent * side.width))
            body.assign(along, literal(side.width))
        with body.loop("channel", 0, side.width, lanes) as channel:
            count = self._count(side, channel)
            rows = [body.let("start", down * i + channel) for i in range(extent)]
            place = body.let("place", tile * side.width + channel)
            on_both_axes(
                body,
                extent,
                side.transform,
                partial(self._number, source, rows, along, count),
                partial(self._transformed, side, place),
            )

    def _number(
        self, source: Pointer, rows: list[Expression], along: Expression, count: Expression | None, i: int, j: int
    ) -> Expression:
        return self.body.let("n", load(source, rows[i] + along * j, self.plan.lanes, count))

    def _transformed(self, side: _Side, place: Expression, number: int, value: Expression) -> None:
        self.body.store(side.target, place + side.step * number, value)

    def _count(self, side: _Side, channel: Expression) -> Expression | None:
        """How many lanes of a vector are channels; None where all are, in every task."""
        lanes = self.plan.lanes
        ranges = self.plan.ranges if side.extent == INPUTS else self.plan.blocks
        own = self.plan.channels if side.extent == INPUTS else self.plan.width
        if own == side.width and own * ranges == side.channels:
            return None
        # a range ends at the next one's first channel, or with the channels
        left = self.body.let("left", least(literal(side.channels) - side.first, own) - channel)
        return self.body.let("count", select(left < 0, 0, least(left, lanes)))

    def _copy(
        self, side: _Side, start: Expression, corner: tuple[Expression, Expression], copied: Pointer
    ) -> None:
        body, lanes = self.body, self.plan.lanes
        with body.loop("i", 0, side.extent) as i, body.loop("j", 0, side.extent) as j:
            row, column = body.let("y", corner[0] + i), body.let("z", corner[1] + j)
            inside = both(both(row >= 0, row < side.size[0]), both(column >= 0, column < side.size[1]))
            place = body.let("place", (i * side.extent + j) * side.width)
            at = body.let("at", start + i * side.strides[1] + j * side.strides[2])
            with body.when(inside), body.loop("channel", 0, side.width, lanes) as channel:
                value = load(side.pointer, at + channel, lanes, self._count(side, channel))
                body.store(copied, place + channel, value)
            with body.otherwise(), body.loop("channel", 0, side.width, lanes) as channel:
                body.store(copied, place + channel, self._zero())

    # --- products --------------------------------------------------------------------------------------------------------

    def _product(self, k: Expression, count: Expression, v: Pointer, e: Pointer, m: Pointer) -> None:
        """Add a chunk's share of one of the 36 products to the sums."""
        body, plan = self.body, self.plan
        by_x, by_d, by_sum = plan.steps
        vectors = body.pointer("vectors", e, k * by_d)
        with body.loop("channel", 0, plan.padded, plan.rows) as channel:
            rows = body.pointer("rows", v, k * by_x + channel)
            sums = body.pointer("sums", m, k * by_sum + channel * plan.width)
            places = [[r * plan.width + n * plan.lanes for n in range(plan.vectors)] for r in range(plan.rows)]
            held: list[list[Variable]] = [
                [body.variable("sum", load(sums, at, plan.lanes)) for at in row] for row in places
            ]
            with body.loop("t", 0, count) as t:
                parts = [
                    body.let("part", load(vectors, t * plan.width + n * plan.lanes, plan.lanes)) for n in range(plan.vectors)
                ]
                for r, accumulators in enumerate(held):
                    value = body.let("value", splat(load(rows, t * plan.x_width + r), plan.lanes))
                    for accumulator, part in zip(accumulators, parts, strict=True):
                        body.assign(accumulator, accumulator + value * part)
            for row, accumulators in zip(places, held, strict=True):
                for at, accumulator in zip(row, accumulators, strict=True):
                    body.store(sums, at, accumulator)

    def _finish(self, kept: Expression, m: Pointer, start: Expression, first: Expression) -> None:
        """G' M G for each pair of channels: the partial gradient, [tap][input channel][output channel of the block]."""
        body, plan = self.body, self.plan
        target = body.pointer("target", self.names.partial, start + first * plan.width)
        step, by_tap = plan.steps[2], self.p.depth * plan.width
        with body.loop("channel", 0, kept) as channel, body.loop("lane", 0, plan.width, plan.lanes) as lane:
            place = body.let("place", channel * plan.width + lane)
            on_both_axes(
                body,
                INPUTS,
                adjoint_weight_transform,
                lambda i, j: body.let("n", load(m, place + step * (i * INPUTS + j), plan.lanes)),
                lambda number, value: body.store(target, place + number * by_tap, value),
            )


def _inside(corner: tuple[Expression, Expression], size: tuple[int, int], extent: int) -> Expression:
    """Whether a tile needs nothing beyond the image."""
    conditions = [limit for at, n in zip(corner, size, strict=True) for limit in (at >= 0, at + extent <= n)]
    inside = conditions[0]
    for condition in conditions[1:]:
        inside = both(inside, condition)
    return inside
