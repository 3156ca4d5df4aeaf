"""Code of a contraction by the direct algorithm: tiles of accumulators over panels of packed weights.

::

    for the tiles of pixels of a task, for the blocks of columns:
        sum[p][v] = 0
        for tap, for channel:
            sum[p][v] += broadcast(pixel p, tap, channel) * panel[tap][channel][v]
        the epilogue of sum, written to the result

Sums run over taps, then channels, in order, with one accumulator for each result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import (
    Expression,
    Literal,
    Pointer,
    Type,
    Variable,
    compare,
    literal,
    load,
    splat,
)
from irconv.backends.codegen.statements import Function, PointerArray
from irconv.backends.native.kernels.contraction import Contraction
from irconv.backends.native.kernels.epilogue import Epilogue
from irconv.backends.native.kernels.fetching import Following, fetch_weights, following_panel
from irconv.backends.native.kernels.packing import least, unravel, weighted
from irconv.backends.native.kernels.plan import Plan
from irconv.backends.native.kernels.prologue import Stage
from irconv.backends.native.kernels.strips import Written
from irconv.backends.native.kernels.tile_results import TileResults
from irconv.backends.native.kernels.tiles import Filler, Place, places, residue_tables, start_of
from irconv.types import I64, DType

UNROLLED = 8
"""Loops of so many steps are written out: there is little work between their ends."""

SHORT = 32
"""Nested loops of so many steps together are written out altogether: the sums of a first layer with three colours."""


@dataclass(frozen=True)
class Names:
    """What the function calls its buffers and run-time sizes.

    buffers: (name, element type, written) of all;  ``x``: the one that is read as input.
    """

    buffers: tuple[tuple[str, DType, bool], ...]
    sizes: tuple[str, ...]
    x: str
    out: Pointer
    batch: Expression
    channels: Expression


@dataclass
class _Panel:
    """A block that is worked on: its weights and its first column in the group."""

    weights: Pointer
    column: Expression


class Direct:
    """Writes the function that does the sums."""

    def __init__(self, c: Contraction, plan: Plan, epilogue: Epilogue, names: Names, stage: Stage | None = None):
        self.c, self.plan, self.epilogue, self.names, self.stage = c, plan, epilogue, names, stage
        self.body = Body()
        self.vector = Type(c.dtype, plan.lanes)
        self.group: list[Expression] = []
        self.axes: list[Place] = []
        self.start: list[Expression] = []
        self.array: PointerArray | None = None
        self.tap_weights: Pointer | None = None
        self.following: Following | None = None
        self.results = TileResults(self.body, c, plan, epilogue, names.out)

    def function(self) -> Function:
        """The function; a task is a chunk of pixels for a few blocks of columns."""
        body, c, plan = self.body, self.c, self.plan
        tables = residue_tables(body, c)
        self.array = body.pointers("rows", c.dtype, plan.pixels * (c.most_taps if plan.table else 1))
        if c.has_residues:
            self.tap_weights = body.array("tap_weights", I64, c.most_taps)
        parts = -(-plan.blocks // plan.task_blocks)
        chunks = body.let("chunks", (self.names.batch * c.places + (plan.chunk - 1)) // plan.chunk)
        with body.tasks() as task:
            chunk = body.let("chunk", task // parts % chunks if plan.by_pixels else task % chunks)
            rest = body.let("rest", task // (parts * chunks) * parts + task % parts if plan.by_pixels else task // chunks)
            group = body.let("group", rest // parts) if c.groups else literal(0)
            self.group = [body.let("g", e) for e in unravel(group, [g.count for g in c.groups])] if c.groups else []
            self.results.group = self.group
            first = body.let("first_block", (rest % parts if c.groups else rest) * plan.task_blocks)
            last = body.let("last_block", least(first + plan.task_blocks, plan.blocks))
            panels = body.pointer("panels", Pointer("packed", c.dtype), group * self._panel_elements * plan.blocks)
            source = Pointer(self.names.x, c.dtype) if self.stage is None else self.stage.own(body, self.names.x)
            source = body.pointer("image", source, weighted(self.group, [g.x for g in c.groups]))
            self._residues(tables, chunk, first, last, panels, source)
        return body.function(c.name, self.names.buffers, self.names.sizes)

    @property
    def _panel_elements(self) -> Expression:
        return self.names.channels * (self.c.taps * self.plan.width)

    def _residues(
        self,
        tables: list[Pointer | None],
        chunk: Expression,
        first: Expression,
        last: Expression,
        panels: Pointer,
        source: Pointer,
    ) -> None:
        """The task for all combinations of residues."""
        body, c, plan = self.body, self.c, self.plan
        count = 1
        for shape in c.axes:
            count *= len(shape.residues)
        with body.loop("residue", 0, count) as residue:
            self.axes = self.results.axes = places(body, c, tables, residue)
            self._find_taps()
            pixels = self.names.batch
            for axis in self.axes:
                pixels = pixels * axis.count
            start = body.let("start_pixel", chunk * plan.chunk)
            stop = body.let("stop_pixel", least(start + plan.chunk, body.let("pixels", pixels)))
            zeros = self._zeros()
            assert self.array is not None
            filler = Filler(body, c, plan, self.axes, self.array, source, zeros)
            if plan.pixels_outer:
                tiles = self._strips(chunk, start, stop, first, last)
                with tiles as (begin, end), body.loop("tile", begin, end, plan.pixels) as tile:
                    self.start = start_of(body, self.axes, tile)
                    origin = self._compute(source, self.start, tile, least(tile + plan.pixels, end))
                    filler.fill(_distance(origin, tile), end - origin, self.start)
                    with body.loop("block", first, last) as block:
                        self._tile(tile, end, self._panel(block, panels))
            else:
                origin = self._compute(source, None, start, stop)
                with body.loop("block", first, last) as block:
                    panel = self._panel(block, panels)
                    self.following = self._following(panel, start, stop)
                    tiles = self._strips(chunk, start, stop, block, block + 1)
                    with tiles as (begin, end), body.loop("tile", begin, end, plan.pixels) as tile:
                        self.start = start_of(body, self.axes, tile)
                        filler.fill(tile - origin, end - origin, self.start)
                        self._tile(tile, end, panel)

    def _compute(
        self, source: Pointer, position: Sequence[Expression] | None, start: Expression, stop: Expression
    ) -> Expression:
        """Fill ``source`` where tasks compute the pixels that they read; the number of the pixel that then lies first there."""
        if self.stage is None:
            return literal(0)
        first = start_of(self.body, self.axes, start) if position is None else position
        self.stage.fill(self.body, source, self.axes, self.group, first, self.body.let("there", stop - start))
        return start

    @contextmanager
    def _strips(
        self, chunk: Expression, start: Expression, stop: Expression, first: Expression, last: Expression
    ) -> Iterator[tuple[Expression, Expression]]:
        """Statements for the pixels of a task and blocks from one to before another; with statistics, for some at a time.

        Those are taken of a strip of pixels as soon as it is written.
        """
        body, c, plan, statistics = self.body, self.c, self.plan, self.epilogue.statistics
        if statistics is None:
            yield start, stop
            return
        blocks = plan.task_blocks if plan.pixels_outer else 1
        size = statistics.strip(min(blocks * plan.width, c.columns), plan.pixels)
        left, right = self.results.column(first * plan.width), self.results.column(least(last * plan.width, c.columns))
        seen = body.variable("seen", literal(0))
        with body.loop("strip", start, stop, size) as strip:
            end = body.let("strip_end", least(strip + size, stop))
            yield strip, end
            loops, exact = ((end - strip, statistics.step),), c.columns % plan.lanes == 0
            corner = strip * statistics.step
            statistics.add(body, Written(self.names.out, left, right, corner, loops, end - strip, chunk, seen, exact))

    def _zeros(self) -> Pointer | None:
        if not self.plan.table:
            return None
        return self.body.pointer(
            "zeros", Pointer("packed", self.c.dtype), self._panel_elements * (self.c.group_count * self.plan.blocks)
        )

    def _panel(self, block: Expression, panels: Pointer) -> _Panel:
        weights = self.body.pointer("panel", panels, block * self._panel_elements)
        return _Panel(weights, self.body.let("column", block * self.plan.width))

    def _following(self, panel: _Panel, start: Expression, stop: Expression) -> Following | None:
        """The panel after this one, where the plan has it fetched."""
        if not self.plan.prefetched:
            return None
        return following_panel(self.body, self.plan, panel.weights, self._panel_elements, start, stop)

    def _find_taps(self) -> None:
        """Note where in a panel the taps of this combination of residues lie."""
        body, c = self.body, self.c
        if self.tap_weights is None:
            return
        table = self.tap_weights

        def taps(axis: int, number: Expression, tap: Expression) -> None:
            if axis == len(c.axes):
                body.store(table, number, tap * (self.names.channels * self.plan.width))
                return
            place, shape = self.axes[axis], c.axes[axis]
            with body.loop("i", 0, place.taps) as i:
                whole = sum(r.taps for r in shape.residues)
                at = tap * whole + (place.first_tap + i * shape.tap_step)
                taps(axis + 1, body.let("tap", number * place.taps + i), body.let("weight_tap", at))

        taps(0, literal(0), literal(0))

    # --- a tile ------------------------------------------------------------------------------------------------------

    def _tile(self, tile: Expression, stop: Expression, panel: _Panel) -> None:
        """All of one tile for one block."""
        body = self.body
        if not self.plan.single:
            self._sums_and_epilogue(self.plan.pixels, tile, stop, panel)
            return
        with body.when(compare("==", stop - tile, 1)):
            self._sums_and_epilogue(1, tile, stop, panel)
        with body.otherwise():
            self._sums_and_epilogue(self.plan.pixels, tile, stop, panel)

    def _sums_and_epilogue(self, pixels: int, tile: Expression, stop: Expression, panel: _Panel) -> None:
        body, plan = self.body, self.plan
        sums = [
            [body.variable(f"sum{p}_{v}", Literal(0.0, self.vector)) for v in range(plan.vectors)] for p in range(pixels)
        ]
        self.results.fetch(pixels, tile, panel.column)
        self._sum(sums, panel.weights)
        self.results.write(sums, tile, stop, self.start, panel.column)

    def _sum(self, sums: list[list[Variable]], weights: Pointer) -> None:
        """Run over taps and channels."""
        body, c, plan = self.body, self.c, self.plan
        pixels = len(sums)
        assert self.array is not None
        if plan.table:
            taps: Expression = literal(1)
            for axis in self.axes:
                taps = taps * axis.taps
            with body.loop("tap", 0, taps) as tap:
                rows = [body.get_pointer("row", self.array, tap * plan.pixels + p) for p in range(pixels)]
                depth = self.names.channels * plan.width
                at = tap * depth if self.tap_weights is None else load(self.tap_weights, tap)
                self._run(sums, rows, body.pointer("weights", weights, at), self.names.channels, c.x_channel, literal(0))
            return
        rows = [body.get_pointer("row", self.array, p) for p in range(pixels)]
        self._nest(sums, rows, weights, merged(c, self.names.channels, plan.planar), literal(0), literal(0))

    def _nest(
        self,
        sums: list[list[Variable]],
        rows: list[Pointer],
        weights: Pointer,
        loops: list[tuple[Expression, int]],
        offset: Expression,
        number: Expression,
    ) -> None:
        """Loops over taps at known distances around the innermost one."""
        (count, stride), *inner = loops
        if not inner:
            here = self.body.pointer("weights", weights, number * (count * self.plan.width))
            self._run(sums, rows, here, count, stride, offset)
            return
        with self.body.loop("i", 0, count, unroll=UNROLLED if _steps(loops) <= SHORT else 0) as i:
            at = self.body.let("offset", offset + i * stride)
            self._nest(sums, rows, weights, inner, at, self.body.let("number", number * count + i))

    def _run(
        self,
        sums: list[list[Variable]],
        rows: list[Pointer],
        weights: Pointer,
        count: Expression,
        stride: int,
        offset: Expression,
    ) -> None:
        """The innermost loop: one column of pixels times one row of the panel."""
        body, plan = self.body, self.plan
        short = isinstance(count, Literal) and int(count.value) <= UNROLLED
        with body.loop("c", 0, count, unroll=UNROLLED if short else 0) as channel:
            parts = [
                body.let("weight", load(weights, channel * plan.width + v * plan.lanes, plan.lanes))
                for v in range(plan.vectors)
            ]
            if plan.prefetched and not short:
                fetch_weights(body, plan, weights, channel, len(sums), self.following)
            at = offset + channel * stride
            for row, accumulators in zip(rows, sums, strict=True):
                value = body.let("value", splat(load(row, at), plan.lanes))
                for accumulator, part in zip(accumulators, parts, strict=True):
                    body.assign(accumulator, accumulator + value * part)


def _steps(loops: Sequence[tuple[Expression, int]]) -> int:
    """Steps of nested loops together; many where that is not known."""
    return math.prod(int(count.value) if isinstance(count, Literal) else SHORT + 1 for count, _ in loops)


def _distance(start: Expression, stop: Expression) -> Expression:
    return literal(0) if stop is start else stop - start


def merged(c: Contraction, channels: Expression, planar: bool) -> list[tuple[Expression, int]]:
    """(count, input stride) of the loops over taps and channels, neighbours that are one run of the input made one loop.

    ``planar``: channels are the outermost loop.
    """
    loops: list[tuple[Expression, int]] = []
    taps = [(literal(a.only.taps), a.tap_shift * s) for a, s in zip(c.axes, c.x_strides[1:], strict=True)]
    through = (channels, c.x_channel)
    for count, stride in reversed([through, *taps] if planar else [*taps, through]):
        if count == literal(1) and loops:
            continue
        inner, step = loops[0] if loops else (literal(0), 0)
        if loops and isinstance(inner, Literal) and isinstance(count, Literal) and stride == step * int(inner.value):
            loops[0] = (literal(int(inner.value) * int(count.value)), step)
        else:
            loops.insert(0, (count, stride))
    return loops
