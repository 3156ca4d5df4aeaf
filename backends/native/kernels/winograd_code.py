"""Code of Winograd's algorithm for one tile, one product and one result; :mod:`winograd` puts them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from irconv.backends.codegen.access import gather, vector_store
from irconv.backends.codegen.body import Body
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
from irconv.backends.native.kernels.contraction import Axis, Contraction
from irconv.backends.native.kernels.epilogue import Epilogue
from irconv.backends.native.kernels.folds import narrowed
from irconv.backends.native.kernels.packing import least, unravel, weighted
from irconv.backends.native.kernels.pooled import Pooled
from irconv.backends.native.kernels.prologue import Prologue
from irconv.backends.native.kernels.strips import Written
from irconv.backends.native.kernels.winograd_plan import LINE, WinogradPlan
from irconv.backends.native.kernels.winograd_transforms import (
    input_transform,
    on_both_axes,
    output_transform,
    weight_transform,
)
from irconv.types import F32, DType

Buffers = tuple[tuple[str, DType, bool], ...]

Read = Callable[[int, int], Expression]
"""``read(i, j)``: a vector of the input in row i and column j of a tile."""

Reads = Callable[[Expression, int | None], Read]
"""``reads(channel, count)``: how to read the channels from one on, all lanes or the first ``count``."""

WEIGHT_CHANNELS = 32
"""Input channels of one block whose weights a task transforms."""


@dataclass(frozen=True)
class Steps:
    """Distances in elements.

    inputs, outputs: of transformed inputs, and of what they are multiplied to, from one product to the next.
    row: of the latter from one tile to the next.
    panels: from one panel of weights to the one that is used after it.
    """

    inputs: Expression
    outputs: Expression
    row: int
    panels: int


@dataclass(frozen=True)
class WinogradCode:
    """One convolution to be written."""

    c: Contraction
    plan: WinogradPlan
    epilogue: Epilogue
    out: Pointer
    steps: Steps
    sizes: tuple[str, ...]
    pooled: Pooled | None = None
    prologue: Prologue | None = None

    @property
    def vector(self) -> Type:
        return Type(F32, self.plan.lanes)

    # --- weights ---------------------------------------------------------------------------------------------------------

    def weights(self, buffers: Buffers) -> Function:
        """Transform the weights; a task is some input channels of a block of output channels."""
        c, plan, body = self.c, self.plan, Body()
        source, target = Pointer("w", F32), Pointer("weights", F32)
        slices = -(-plan.channels // WEIGHT_CHANNELS)
        with body.tasks() as task:
            block, part = unravel(task, [0, slices])
            first = body.let("first_channel", part * WEIGHT_CHANNELS)
            last = body.let("last_channel", least(first + WEIGHT_CHANNELS, plan.channels))
            with body.loop("channel", first, last) as channel, body.loop("lane", 0, plan.width, plan.lanes) as lane:
                column = body.let("column", block * plan.width + lane)
                corner = body.let("corner", channel * c.w_channel + column * c.w_column)
                count = None
                if plan.columns % plan.width:
                    left = body.let("left", plan.columns - column)
                    count = body.let("count", select(left < 0, 0, least(left, plan.lanes)))
                place = body.let("place", block * plan.panel + channel * plan.width + lane)
                on_both_axes(
                    body,
                    3,
                    lambda body, g: weight_transform(body, g, plan.inputs),
                    partial(self._weight, body, source, corner, count),
                    partial(self._keep, body, target, place),
                )
        return body.function(f"{c.name}_winograd_weights", buffers, self.sizes)

    def _weight(
        self, body: Body, source: Pointer, corner: Expression, count: Expression | None, i: int, j: int
    ) -> Expression:
        """A vector of the weights that meet row i and column j of the inputs."""
        c = self.c
        tap = (i if c.axes[0].tap_shift > 0 else 2 - i, j if c.axes[1].tap_shift > 0 else 2 - j)
        at = corner + sum(t * s for t, s in zip(tap, c.w_taps, strict=True))
        if c.w_column == 1:
            return body.let("g", load(source, at, self.plan.lanes, count))
        return body.let("g", gather(source, at, c.w_column, self.plan.lanes, count))

    def _keep(self, body: Body, target: Pointer, place: Expression, number: int, value: Expression) -> None:
        """Store a vector of transformed weights in its product's panel."""
        body.store(target, place + number * self.plan.panel_step, value)

    # --- tiles -----------------------------------------------------------------------------------------------------------

    def blank(self, body: Body, count: Expression, padded: Expression, v: Pointer) -> None:
        """Zeros for the tiles that fill up the last group of accumulators."""
        plan = self.plan
        with (
            body.loop("blank", count, padded) as tile,
            body.loop("k", 0, plan.products) as k,
            body.loop("channel", 0, plan.channels) as channel,
        ):
            body.store(v, k * self.steps.inputs + tile * plan.channels + channel, Literal(0.0, Type(F32)))

    def place(self, body: Body, tile: Expression) -> tuple[Expression, Expression, Expression]:
        """The image of a tile, and the first row and column of its outputs."""
        image, row, column = unravel(body.let("place", tile), [0, self.plan.down, self.plan.along])
        image = body.let("image", image)
        outputs = self.plan.outputs
        return image, body.let("row", row * outputs), body.let("column", column * outputs)

    def transform(self, body: Body, number: Expression, tile: Expression, v: Pointer, copied: Pointer) -> None:
        """B' x B of one tile, all channels."""
        c, plan = self.c, self.plan
        image, row, column = self.place(body, number)
        top = body.let("top", row + low_end(c.axes[0]))
        left = body.let("left", column + low_end(c.axes[1]))
        corner = [image, top, left]
        conditions = [
            limit
            for at, axis in ((top, c.axes[0]), (left, c.axes[1]))
            for limit in (at >= 0, at + plan.inputs <= axis.size)
        ]
        inside = conditions[0]
        for condition in conditions[1:]:
            inside = both(inside, condition)
        rows = literal(plan.inputs * plan.channels), literal(plan.channels)
        if self.prologue is not None:
            with body.when(inside):
                self._transform_vectors(body, self._computed(body, self.prologue, corner), tile, v)
            with body.otherwise():
                self._copy_tile(body, corner, copied)
                self._transform_vectors(body, self._stored(body, copied, rows), tile, v)
            return
        from_x = body.pointer("source", Pointer("x", F32), 0, mutable=True)
        down, along = (body.variable(name, literal(s)) for name, s in zip(("down", "along"), c.x_strides[1:], strict=True))
        with body.when(inside):
            body.move(from_x, Pointer("x", F32), weighted(corner, c.x_strides))
        with body.otherwise():
            self._copy_tile(body, corner, copied)
            body.move(from_x, copied, 0)
            for step, row in zip((down, along), rows, strict=True):
                body.assign(step, row)
        self._transform_vectors(body, self._stored(body, from_x, (down, along)), tile, v)

    def _stored(self, body: Body, source: Pointer, strides: tuple[Expression, Expression]) -> Reads:
        """Inputs that lie in memory."""
        down, along = strides

        def reads(channel: Expression, count: int | None) -> Read:
            starts = [body.let("start", down * i + channel) for i in range(self.plan.inputs)]
            return lambda i, j: load(source, starts[i] + along * j, self.plan.lanes, count)

        return reads

    def _computed(self, body: Body, prologue: Prologue, corner: Sequence[Expression]) -> Reads:
        """Inputs that are computed, from those at a logical index (but for the channel) on."""
        image, top, left = corner

        def reads(channel: Expression, count: int | None) -> Read:
            known = prologue.constants(body, [image, channel, top, left], 1, count)
            return lambda i, j: prologue.value(body, [image, channel, top + i, left + j], 1, count, known)

        return reads

    def _transform_vectors(self, body: Body, reads: Reads, tile: Expression, v: Pointer) -> None:
        """All channels, vector by vector."""
        plan = self.plan
        whole = plan.channels // plan.lanes * plan.lanes
        if whole:
            with body.loop("channel", 0, whole, plan.lanes) as channel:
                self._transform_vector(body, reads, tile, channel, None, v)
        if whole < plan.channels:
            self._transform_vector(body, reads, tile, literal(whole), plan.channels - whole, v)

    def _transform_vector(
        self, body: Body, reads: Reads, tile: Expression, channel: Expression, count: int | None, v: Pointer
    ) -> None:
        plan = self.plan
        read = reads(channel, count)
        place = body.let("place", tile * plan.channels + channel)
        on_both_axes(
            body,
            plan.inputs,
            input_transform,
            lambda i, j: body.let("d", read(i, j)),
            lambda number, value: body.store(v, place + self.steps.inputs * number, value, count),
        )

    def _copy_tile(self, body: Body, corner: Sequence[Expression], copied: Pointer) -> None:
        """The inputs of a tile at the border, with zeros around."""
        c, plan = self.c, self.plan
        image, top, left = corner
        with body.loop("i", 0, plan.inputs) as i, body.loop("j", 0, plan.inputs) as j:
            row, column = body.let("y", top + i), body.let("z", left + j)
            inside = both(both(row >= 0, row < c.axes[0].size), both(column >= 0, column < c.axes[1].size))
            place = body.let("place", (i * plan.inputs + j) * plan.channels)
            with body.when(inside):
                body.fence()
                self._copy_pixel(body, [image, row, column], copied, place)
            with body.otherwise(), body.loop("channel", 0, plan.channels) as channel:
                body.store(copied, place + channel, Literal(0.0, Type(F32)))

    def _copy_pixel(self, body: Body, pixel: Sequence[Expression], copied: Pointer, place: Expression) -> None:
        if self.prologue is not None:
            image, row, column = pixel
            for channel, count in self.prologue.each(body, 0, self.plan.channels):
                value = self.prologue.value(body, [image, channel, row, column], 1, count)
                body.store(copied, place + channel, value, count)
            return
        start = body.let("start", weighted(pixel, self.c.x_strides))
        with body.loop("channel", 0, self.plan.channels) as channel:
            body.store(copied, place + channel, load(Pointer("x", F32), start + channel))

    def _column(self, block: Expression) -> Expression:
        """Where a block's products lie in a row of them."""
        return literal(0) if self.steps.row == self.plan.width else block * self.plan.width

    def product(
        self, body: Body, block: Expression, k: Expression, padded: Expression, v: Pointer, m: Pointer
    ) -> None:
        """One of the (m + 2)^2 products: tiles by channels times channels by a block of output channels."""
        plan = self.plan
        u = body.pointer("u", Pointer("weights", F32), k * plan.panel_step + block * plan.panel)
        turns = body.let("turns", padded // plan.pixels)
        step = body.let("step", (turns + (plan.width - 1)) // turns) if plan.is_far else None
        with body.loop("turn", 0, turns) as turn:
            row = body.let("row", turn * plan.pixels)
            rows = body.pointer("rows", v, k * self.steps.inputs + row * plan.channels)
            target = body.pointer("target", m, k * self.steps.outputs + row * self.steps.row + self._column(block))
            zero = Literal(0.0, self.vector)
            sums = [[body.variable(f"sum{p}_{n}", zero) for n in range(plan.vectors)] for p in range(plan.pixels)]
            if step is not None:
                following = body.pointer("following", u, turn * (step * plan.channels) + self.steps.panels)
            with body.loop("c", 0, plan.channels) as c:
                parts = [
                    body.let("weight", load(u, c * plan.width + n * plan.lanes, plan.lanes)) for n in range(plan.vectors)
                ]
                if step is not None:
                    for line in range(0, plan.width, LINE):
                        body.prefetch(following, c * step + line)
                for p, accumulators in enumerate(sums):
                    value = body.let("value", splat(load(rows, c + p * plan.channels), plan.lanes))
                    for accumulator, weight in zip(accumulators, parts, strict=True):
                        body.assign(accumulator, accumulator + value * weight)
            for p, accumulators in enumerate(sums):
                for n, accumulator in enumerate(accumulators):
                    body.store(target, p * self.steps.row + n * plan.lanes, accumulator)

    def result(
        self,
        body: Body,
        block: Expression,
        number: Expression,
        tile: Expression,
        m: Pointer,
        part: Expression,
        seen: Variable,
    ) -> None:
        """A' M A of one tile and block, and what follows the convolution.

        part: of statistics that the tile goes to, after ``seen`` other pixels (which are counted up).
        """
        c, plan = self.c, self.plan
        image, row, column = self.place(body, number)
        height = body.let("height", least(literal(c.axes[0].only.count) - row, plan.outputs))
        length = body.let("length", least(literal(c.axes[1].only.count) - column, plan.outputs))
        kept = body.array("kept", F32, plan.outputs**2 * plan.lanes)
        with body.loop("lane", 0, plan.width, plan.lanes) as lane:
            output = body.let("output", block * plan.width + lane)

            def write(count: Expression | None) -> None:
                place = body.let("place", tile * self.steps.row + lane + self._column(block))
                on_both_axes(
                    body,
                    plan.inputs,
                    output_transform,
                    lambda i, j: body.let("p", load(m, place + self.steps.outputs * (i * plan.inputs + j), plan.lanes)),
                    lambda number, value: body.store(kept, number * plan.lanes, value),
                )
                with body.loop("y", 0, height) as y, body.loop("z", 0, length) as z:
                    at = body.let("at", (y * plan.outputs + z) * plan.lanes)
                    value = body.let("value", load(kept, at, plan.lanes))
                    index = [image, output, row + y, column + z]
                    if self.pooled is None:
                        self.epilogue.apply(body, value, index, 1, count, self.out)
                    else:
                        strides = {i: tuple(s) for i, s in self.epilogue.strides.items()}
                        body.store(kept, at, self.epilogue.value(body, value, strides, index, 1, count))
                if self.pooled is not None:
                    self._windows(body, self.pooled, kept, (height, length), [image, output, row, column], count)

            if plan.columns % plan.width == 0:
                write(None)
            else:
                with body.when(output < plan.columns):
                    ragged = plan.columns % plan.lanes != 0
                    write(body.let("count", least(literal(plan.columns) - output, plan.lanes)) if ragged else None)
        statistics = self.epilogue.statistics
        if statistics is not None:
            strides = self.epilogue.strides[self.epilogue.result]
            corner = image * strides[0] + row * strides[2] + column * strides[3]
            first, last = block * plan.width, least((block + 1) * plan.width, plan.columns)
            loops, exact = ((height, strides[2]), (length, strides[3])), plan.columns % plan.lanes == 0
            statistics.add(body, Written(self.out, first, last, corner, loops, height * length, part, seen, exact))

    def _windows(
        self,
        body: Body,
        pooled: Pooled,
        kept: Pointer,
        size: tuple[Expression, Expression],
        corner: list[Expression],
        count: Expression | None,
    ) -> None:
        """Fold and write the windows of a tile of ``size`` results that begins at the logical index ``corner``."""
        plan = self.plan
        high, wide = pooled.kernel
        image, output, row, column = corner
        with body.loop("i", 0, size[0] // high) as i, body.loop("j", 0, size[1] // wide) as j:
            first = body.let("first_tap", (i * (high * plan.outputs) + j * wide) * plan.lanes)
            offsets = [(y * plan.outputs + z) * plan.lanes for y in range(high) for z in range(wide)]
            taps = [body.let("tap", load(kept, first + offset, plan.lanes)) for offset in offsets]
            index = [image, output, row // high + i, column // wide + j]
            for place, value in zip(pooled.outputs, pooled.folded(body, taps), strict=True):
                vector_store(body, place.pointer, place.strides, index, 1, narrowed(value, place.pointer.dtype), count)


def low_end(axis: Axis) -> int:
    """Where the first output of an axis reads first."""
    return axis.only.shift + min(0, 2 * axis.tap_shift)
