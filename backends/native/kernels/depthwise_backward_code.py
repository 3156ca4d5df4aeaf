"""The rows of a depthwise convolution's backward pass: see :mod:`irconv.backends.native.kernels.depthwise_backward`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from irconv.backends.codegen.body import WORKER, Body
from irconv.backends.codegen.expressions import evaluate
from irconv.backends.codegen.form import INDEX, Expression, Pointer, Variable, both, compare, literal, load, select
from irconv.backends.codegen.machine import Machine
from irconv.backends.codegen.statements import Function, PointerArray
from irconv.backends.native.kernels.depthwise_backward_plan import Layout, Parts, Tile, Work, tiles_of
from irconv.backends.native.kernels.packing import Buffers, least
from irconv.graph import Graph
from irconv.strides import Strides

PIXELS = 8
"""Pixels of d that are computed side by side, with the numbers of their channels in registers."""

PACKED, RING, PARTIAL = "packed", "ring", "partial"
"""What functions call the weight with its channels side by side, the rows of d, and the sums of all tasks."""

Rows = Mapping[int, tuple[Pointer, int]]
"""A row of each image, by the image's id, with the distance from one pixel to the next."""


@dataclass(frozen=True)
class _Row:
    """A row of x in the making.

    images: of the size of x, from this row on.
    d, taps, seen: rows of d that it has to do with, the taps that join them, and how many these are.
    sums:   of the task;  ``xs``, ``gs``: x and g of a tile, pixel by pixel.
    """

    images: Rows
    d: PointerArray
    taps: Pointer
    seen: Expression
    sums: Pointer
    xs: Pointer
    gs: Pointer


@dataclass(frozen=True)
class _Place:
    """A vector of channels of a tile, from the pixel ``first`` and the channel ``channel`` on."""

    tile: Tile
    first: Expression
    vector: Expression
    channel: Expression


class RowCode:
    """Writes the function that goes over the rows of a band; a task is a band."""

    def __init__(self, graph: Graph, layout: Layout, parts: Parts, machine: Machine):
        self.graph, self.layout, self.parts = graph, layout, parts
        self.geometry, self.roles, self.lanes = layout.geometry, layout.roles, layout.lanes
        self.dtype = layout.geometry.dtype
        self.tiles = tiles_of(layout.geometry, machine)
        self.body = Body()

    def function(self, buffers: Buffers, sizes: Sequence[str]) -> Function:
        body, g = self.body, self.geometry
        d, taps = body.pointers("rows_of_d", self.dtype, g.held), body.array("taps", INDEX.dtype, g.held)
        held = max(tile.pixels for tile in self.tiles) * self.lanes
        xs, gs = body.array("xs", self.dtype, held), body.array("gs", self.dtype, held)
        with body.tasks() as task:
            sample = body.let("sample", task // g.bands)
            start = body.let("start", task % g.bands * g.band)
            sums = body.pointer("sums", Pointer(PARTIAL, self.dtype), task * self.layout.part)
            with body.loop("z", 0, self.layout.part, self.lanes) as z:
                body.store(sums, z, self.layout.zero)
            low = start + (g.before[0] - g.kernel[0] + g.stride[0])  # less than this by a stride, rounded up
            made = body.variable("made", select(compare(">", low, 0), low, 0) // g.stride[0])
            with body.loop("row", start, least(start + g.band, g.size[0])) as row:
                if self.roles.of_d:
                    self._make_rows(sample, row, made)
                seen = self._see_rows(sample, row, d, taps)
                here = _Row(self._images(sample, row), d, taps, seen, sums, xs, gs)
                for tile in self.tiles:
                    with body.loop("tile", 0, tile.turns) as turn:
                        first = body.let("first_pixel", turn * tile.pixels + tile.start)
                        with body.loop("vector", 0, self.layout.vectors) as vector:
                            place = _Place(tile, first, vector, self.layout.channel(body, vector))
                            self._take_x(here, place)
                            self._give(here, place, self._meet(here, place))
        return body.function("depthwise_backward", buffers, sizes)

    # --- rows of d -------------------------------------------------------------------------------------------------------

    def _make_rows(self, sample: Expression, row: Expression, made: Variable) -> None:
        """The rows of d from number ``made`` on that a row of x has to do with."""
        body, g = self.body, self.geometry
        end = body.let("needed", least((row + g.before[0]) // g.stride[0] + 1, g.counts[0]))
        with body.loop("place", made, end) as place:
            self._make_row(sample, place)
        body.assign(made, select(compare(">", end, made), end, made))

    def _make_row(self, sample: Expression, place: Expression) -> None:
        """A row of d, into the ring."""
        body, g, work = self.body, self.geometry, self.parts.of_d
        to = body.pointer("to", Pointer(RING, self.dtype), self._held(place))
        rows = self._rows(work, sample, place)
        with body.loop("group", 0, g.counts[1], PIXELS) as group:
            end = body.let("group_end", least(group + PIXELS, g.counts[1]))
            with body.loop("vector", 0, self.layout.vectors) as vector:
                channel = self.layout.channel(body, vector)
                numbers = self._numbers(work, channel)
                with body.loop("pixel", group, end) as pixel:
                    known: dict[int, Expression] = {}
                    self._evaluate(work.nodes, known, rows, numbers, pixel, channel)
                    body.store(to, pixel * g.channels + channel, known[self.roles.d])

    def _held(self, place: Expression) -> Expression:
        """Where a row of d lies in the ring of the thread."""
        g = self.geometry
        return WORKER * (g.held * g.row) + place % g.held * g.row

    def _see_rows(self, sample: Expression, row: Expression, d: PointerArray, taps: Pointer) -> Variable:
        """The rows of d that a row of x has to do with, and the taps that join them; gives back how many these are."""
        body, g, roles = self.body, self.geometry, self.roles
        stride = g.stride[0]
        seen = body.variable("seen", literal(0))
        with body.loop("tap", 0, g.kernel[0]) as tap:
            scaled = body.let("scaled", row + g.before[0] - tap)
            inside = both(scaled >= 0, scaled < g.counts[0] * stride)
            if stride > 1:
                inside = both(inside, compare("==", scaled % stride, 0))
            with body.when(inside):
                place = body.let("place", scaled // stride)
                if roles.of_d:
                    body.set_pointer(d, seen, Pointer(RING, self.dtype), self._held(place))
                else:
                    strides = self.layout.strides[roles.d]
                    body.set_pointer(d, seen, self.layout.pointers[roles.d], sample * strides[0] + place * strides[2])
                body.store(taps, seen, tap)
                body.assign(seen, seen + 1)
        return seen

    # --- tiles -----------------------------------------------------------------------------------------------------------

    def _take_x(self, row: _Row, place: _Place) -> None:
        """x of a tile, read or computed, side by side; the next tile is asked for, line by line, where it lies and will lie."""
        body, work, x = self.body, self.parts.of_x, self.roles.x
        pixels, first = place.tile.pixels, place.first
        numbers = self._numbers(work, place.channel)
        with body.loop("pixel", 0, pixels) as pixel:
            for i in (self.roles.result, *(work.images or (x,))):
                image, step = row.images[i]
                body.prefetch(image, (first + pixels) * step + (place.vector * pixels + pixel) * self.lanes)
            known: dict[int, Expression] = {}
            self._evaluate(work.nodes, known, row.images, numbers, first + pixel, place.channel)
            value = known[x] if work.nodes else self._pixel(row.images[x], first + pixel, place.channel)
            body.store(row.xs, pixel * self.lanes, value)

    def _meet(self, row: _Row, place: _Place) -> list[Variable]:
        """g of a tile; what d and x of it give for dw is added to the sums of the task."""
        body, g, lanes, stored = self.body, self.geometry, self.lanes, self.layout.stored
        d_step = g.channels if self.roles.of_d else self.layout.strides[self.roles.d][3]
        uses = place.tile.uses
        taps = sorted({tap for _, joined in uses for _, tap in joined})
        found = [body.variable("g", self.layout.zero) for _ in range(place.tile.pixels)]
        with body.loop("i", 0, row.seen) as i:
            d = body.get_pointer("d_row", row.d, i)
            number = body.let("number_of_tap", load(row.taps, i) * g.kernel[1])
            corner = body.let("corner", place.first // g.stride[1] * d_step + place.channel)
            weight = body.pointer("weight", Pointer(PACKED, self.dtype), number * g.channels + place.channel)
            w = {tap: body.let("w", load(weight, tap * g.channels, lanes)) for tap in taps}
            dw = {tap: body.variable("dw", self.layout.zero) for tap in taps}
            for position, joined in uses:
                value = body.let("d", load(d, corner + position * d_step, lanes))
                for pixel, tap in joined:
                    body.assign(found[pixel], found[pixel] + value * w[tap])
                    body.assign(dw[tap], dw[tap] + value * load(row.xs, pixel * lanes, lanes))
            to = body.pointer("to", row.sums, number * stored + place.vector * lanes)
            for tap in taps:
                body.store(to, tap * stored, load(to, tap * stored, lanes) + dw[tap])
        return found

    def _give(self, row: _Row, place: _Place, found: Sequence[Variable]) -> None:
        """The work on g of a tile; its result is written, and what is summed goes to the sums of the task."""
        body, work, roles, lanes = self.body, self.parts.behind, self.roles, self.lanes
        out, step = row.images[roles.result]
        first, channel = place.first, place.channel
        if not work.nodes and not roles.sums:
            for at, g in enumerate(found):
                body.store(out, (first + at) * step + channel, g)
            return
        for at, g in enumerate(found):
            body.store(row.gs, at * lanes, g)
        numbers = self._numbers(work, channel)
        totals = [body.variable("total", self.layout.zero) for _ in roles.sums]
        with body.loop("pixel", 0, place.tile.pixels) as pixel:
            known: dict[int, Expression] = {roles.product: body.let("g", load(row.gs, pixel * lanes, lanes))}
            self._evaluate(roles.behind, known, row.images, numbers, first + pixel, channel)
            body.store(out, (first + pixel) * step + channel, known[roles.result])
            self._evaluate(roles.work, known, row.images, numbers, first + pixel, channel)
            for total, i in zip(totals, roles.summed, strict=True):
                value = known[i] if i in known else self._pixel(row.images[i], first + pixel, channel)
                body.assign(total, total + value)
        for field, total in enumerate(totals):
            slot = body.let("slot", place.vector * lanes + (self.geometry.taps + field) * self.layout.stored)
            body.store(row.sums, slot, load(row.sums, slot, lanes) + total)

    # --- what the elementwise work reads ---------------------------------------------------------------------------------

    def _images(self, sample: Expression, row: Expression) -> Rows:
        """Images of the size of x, from a row on: x or what it is made of, what the work behind reads, and the result."""
        found = self._rows(self.parts.of_x, sample, row) | self._rows(self.parts.behind, sample, row)
        for i in (self.roles.result, *(() if self.roles.of_x else (self.roles.x,))):
            found[i] = self._row(self.layout.pointers[i], self.layout.strides[i], sample, row)
        return found

    def _rows(self, work: Work, sample: Expression, row: Expression) -> dict[int, tuple[Pointer, int]]:
        """The images that the work reads, from a row on."""
        return {i: self._row(image, strides, sample, row) for i, (image, strides) in work.images.items()}

    def _row(self, image: Pointer, strides: Strides, sample: Expression, row: Expression) -> tuple[Pointer, int]:
        return self.body.pointer("image", image, sample * strides[0] + row * strides[2]), strides[3]

    def _numbers(self, work: Work, channel: Expression) -> dict[int, Expression]:
        """The numbers that the work reads for channels from this one on."""
        return {
            i: self.body.let("number", load(numbers, channel, self.lanes) if step else load(numbers, 0))
            for i, (numbers, step) in work.numbers.items()
        }

    def _evaluate(
        self,
        nodes: Sequence[int],
        known: dict[int, Expression],
        rows: Rows,
        numbers: Mapping[int, Expression],
        pixel: Expression,
        channel: Expression,
    ) -> None:
        """Elementwise ops on a vector of channels of a pixel."""

        def fetch(i: int) -> Expression:
            return numbers[i] if i in numbers else self._pixel(rows[i], pixel, channel)

        evaluate(self.body, self.graph, nodes, known, fetch, self.lanes)

    def _pixel(self, row: tuple[Pointer, int], pixel: Expression, channel: Expression) -> Expression:
        """A vector of channels of a pixel of a row."""
        image, step = row
        return load(image, pixel * step + channel, self.lanes)
