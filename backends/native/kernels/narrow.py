"""Convolutions of few output channels as kernels: vectors run along the pixels of a row (see :mod:`.narrow_plan`).

A task takes a band of rows of an image, or a few images.  It lays the input out in planes of its thread, padded with zeros,
and goes through the tiles of all columns; results are interleaved on their way out where channels lie last.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from irconv.backends.arrays.base import scratch
from irconv.backends.arrays.lower import operand_ids
from irconv.backends.codegen.access import element_offset
from irconv.backends.codegen.body import WORKER, Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import (
    INDEX,
    Expression,
    Literal,
    Pointer,
    Type,
    Variable,
    both,
    compare,
    literal,
    load,
    splat,
)
from irconv.backends.codegen.statements import Function, TransposeTile
from irconv.backends.native.base import Candidate, NativeKernel, NativeRequest, Phase, Prepared, native_kernel
from irconv.backends.native.kernels.contraction import Contraction
from irconv.backends.native.kernels.epilogue import Epilogue, make_epilogue
from irconv.backends.native.kernels.narrow_plan import Narrow, low, narrow_plan, task_count
from irconv.backends.native.kernels.narrow_store import (
    lies_dense,
    store_interleaved,
    store_windows,
    takes_windows,
)
from irconv.backends.native.kernels.packing import Buffers, least
from irconv.backends.native.kernels.pooled import Pooled
from irconv.backends.native.kernels.prologue import Prologue, make_prologue
from irconv.backends.native.kernels.windows import nested
from irconv.graph import Node

Make = Callable[[NativeRequest, Node, Contraction, Narrow], NativeKernel | None]
"""Makes the kernel of a plan."""

UNROLLED = 7
"""Taps of a row that are written out one by one."""


def narrow_candidates(
    request: NativeRequest, node: Node, c: Contraction, pooled: Pooled | None = None, kernel: Make | None = None
) -> tuple[list[Candidate], list[Candidate]]:
    """The way of this module, if there is one: among what is to be taken, or among what may be tried.

    pooled: what to do with the results;  kernel: makes the kernel of a plan, if not :func:`narrow_kernel`.
    """
    plan = narrow_plan(c, request.machine, 1 if pooled is None else pooled.over(2)[0])
    if plan is None or (pooled is not None and not takes_windows(plan, pooled)):
        return [], []
    make = kernel or partial(narrow_kernel, pooled=pooled)
    found = [Candidate(plan.name, partial(make, request, node, c, plan))]
    return (found, []) if plan.is_preferred else ([], found)


def narrow_kernel(
    request: NativeRequest,
    node: Node,
    c: Contraction,
    plan: Narrow,
    pooled: Pooled | None = None,
    also: Sequence[Function] = (),
) -> NativeKernel | None:
    """The kernel, which stores the results or what they are pooled to; None where there is no code for the epilogue.

    also: functions to stand in the same source.
    """
    operands = operand_ids(request.graph, request.kernel)
    x, w = node.operands
    if x == w:
        return None
    names = {i: "x" if i == x else "w" if i == w else f"operand{number}" for number, i in enumerate(operands)}
    pointers = {i: Pointer(name, request.graph[i].type.dtype) for i, name in names.items()}
    epilogue = make_epilogue(request, node.id, pointers, plan.lanes)
    if epilogue is None or epilogue.statistics is not None:
        return None
    prologue = make_prologue(request, node.id, pointers, plan.lanes)
    if prologue is not None and is_turned(c):  # channels side by side, which it would have to compute one by one
        return None
    out = Pointer("out", request.graph[epilogue.result].type.dtype)
    outs = [out] if pooled is None else pooled.pointers
    outer = [*outs, *(pointers[i] for i in operands), Pointer("packed", c.dtype), Pointer("planes", c.dtype)]

    def written(*wanted: str) -> Buffers:
        return [(pointer.name, pointer.dtype, pointer.name in wanted) for pointer in outer]

    pack = _pack(c, written("packed"))
    sums = _Sums(c, plan, epilogue, out, pooled, prologue).function(written("planes", *(pointer.name for pointer in outs)))
    first = len(outs) + len(operands)
    return native_kernel(
        print_c([pack, sums, *also]),
        (Phase(pack.name, 1), Phase(sums.name, task_count(c, plan))),
        (c.batch,),
        (
            scratch(c.dtype, c.channels * c.taps * c.columns),
            scratch(c.dtype, request.threads, c.channels * plan.plane),
        ),
        machine=request.machine,
        prepared=(Prepared(len(outs) + operands.index(w), first, 0),),
    )


def _pack(c: Contraction, buffers: Buffers) -> Function:
    """The weight as [channel][tap][column], taps in the order in which the sums run over them."""
    body = Body()
    source, target = Pointer("w", c.dtype), Pointer("packed", c.dtype)
    with body.tasks(), body.loop("c", 0, c.channels) as channel:
        place: Expression = channel
        offset: Expression = channel * c.w_channel
        with nested([body.loop("tap", 0, axis.only.taps) for axis in c.axes]) as taps:
            for axis, tap, stride in zip(c.axes, taps, c.w_taps, strict=True):
                place = place * axis.only.taps + tap
                offset = offset + (tap * axis.tap_step + axis.only.first_tap) * stride
            with body.loop("k", 0, c.columns) as column:
                body.store(target, place * c.columns + column, load(source, offset + column * c.w_column))
    return body.function(f"{c.name}_narrow_pack", buffers, ["batch"])


@dataclass
class _Position:
    """Where a task is: its image, the first row of its band, and one behind the band's last."""

    image: Expression
    start: Expression
    stop: Expression


class _Sums:
    """Writes the function of the sums."""

    def __init__(
        self,
        c: Contraction,
        plan: Narrow,
        epilogue: Epilogue,
        out: Pointer,
        pooled: Pooled | None = None,
        prologue: Prologue | None = None,
    ):
        self.c, self.plan, self.epilogue, self.out, self.pooled, self.prologue = c, plan, epilogue, out, pooled, prologue
        self.body = Body()
        self.vector = Type(c.dtype, plan.lanes)
        self.planes = Pointer("planes", c.dtype)

    def function(self, buffers: Buffers) -> Function:
        """The function; a task is a band of rows, or a few images."""
        body, plan, rows = self.body, self.plan, self.plan.row_axis.only.count
        batch = Variable("batch", INDEX)
        self.planes = body.pointer("own", self.planes, WORKER * (self.c.channels * plan.plane))
        with body.tasks() as task:
            first = body.let("first_image", task // plan.bands * plan.images)
            with body.loop("image", first, least(first + plan.images, batch)) as image:
                start = body.let("start", task % plan.bands * plan.band)
                stop = body.let("stop", least(start + plan.band, rows)) if plan.bands > 1 else literal(rows)
                self._lay_out(image, start)
                self._tiles(_Position(image, start, stop))
        return body.function(f"{self.c.name}_narrow", buffers, ["batch"])

    # --- the input -----------------------------------------------------------------------------------------------------

    def _lay_out(self, image: Expression, start: Expression) -> None:
        """Copy the rows that a band reads into the planes of the thread, with zeros where there is no input."""
        body, plan, axis = self.body, self.plan, self.plan.row_axis
        with body.loop("row", 0, plan.plane // plan.line) as row:
            at = body.let("at", start * axis.step + row + low(axis))
            target = body.pointer("target", self.planes, row * plan.line)
            with body.when(both(compare(">=", at, 0), compare("<", at, axis.size))):
                body.fence()
                self._line([image, at], target)
            with body.otherwise():
                self._clear(target, 0, plan.line)

    def _line(self, position: list[Expression], target: Pointer) -> None:
        """One row of all channels; ``position``: its image, and its number there."""
        body, c, plan, axis = self.body, self.c, self.plan, self.plan.line_axis
        first = min(plan.line, max(0, -low(axis)))
        last = max(first, min(plan.line, axis.size - low(axis)))
        self._clear(target, 0, first)
        self._clear(target, last, plan.line)
        if first == last:
            return
        begin = first + low(axis)
        if self.prologue is not None:
            self._computed(self.prologue, position, target, (first, last))
            return
        step = c.x_strides[-1]
        image, row = position
        source = body.pointer("line", Pointer("x", c.dtype), image * c.x_strides[0] + row * plan.row_stride)
        if is_turned(c):
            self._turn(body.pointer("from", source, begin * step), body.pointer("to", target, first), last - first)
            return
        with body.loop("c", 0, c.channels) as channel:
            offset = body.let("offset", channel * c.x_channel + begin * step)
            place = body.let("place", channel * plan.plane + first)
            whole = (last - first) // plan.lanes * plan.lanes if step == 1 else 0
            with body.loop("j", 0, whole, plan.lanes) as j:
                body.store(target, place + j, load(source, offset + j, plan.lanes))
            with body.loop("j", whole, last - first) as j:
                body.store(target, place + j, load(source, offset + j * step))

    def _computed(self, prologue: Prologue, position: list[Expression], target: Pointer, span: tuple[int, int]) -> None:
        """The elements from the first to the last of a row that lie inside the input."""
        body, plan = self.body, self.plan
        image, *row = position[: len(self.c.axes)]
        with body.loop("c", 0, self.c.channels) as channel:
            place = body.let("place", channel * plan.plane)
            for at, count in prologue.each(body, *span):
                index = [image, channel, *row, at + low(plan.line_axis)]
                body.store(target, place + at, prologue.value(body, index, len(index) - 1, count), count)

    def _turn(self, source: Pointer, target: Pointer, count: int) -> None:
        """``count`` pixels of a channels-last row, tile by tile."""
        body, c, plan = self.body, self.c, self.plan
        lanes, step = plan.lanes, c.x_strides[-1]
        for channels, pixels in itertools.product(_parts(c.channels, lanes), _parts(count, lanes)):
            with body.loop("c", *channels, lanes) as channel, body.loop("j", *pixels, lanes) as j:
                height, width = (min(lanes, stop - start) for start, stop in (channels, pixels))
                cut = height < lanes or width < lanes
                body.add(
                    TransposeTile(
                        target,
                        channel * plan.plane + j,
                        literal(plan.plane),
                        source,
                        j * step + channel,
                        literal(step),
                        self.vector,
                        literal(height) if cut else None,
                        literal(width) if cut else None,
                    )
                )

    def _clear(self, target: Pointer, first: int, last: int) -> None:
        """Zeros from ``first`` to ``last`` - 1 in a row of all channels."""
        body, plan = self.body, self.plan
        if first == last:
            return
        with body.loop("c", 0, self.c.channels) as channel:
            for start in range(first, last, plan.lanes):
                count = literal(last - start) if last - start < plan.lanes else None
                body.store(target, channel * plan.plane + start, Literal(0.0, self.vector), count)

    # --- tiles ---------------------------------------------------------------------------------------------------------

    def _tiles(self, position: _Position) -> None:
        """All tiles of a band; those at the ends of the rows have code of their own where they are narrower."""
        body, plan = self.body, self.plan
        count, width = plan.line_axis.only.count, plan.vectors * plan.lanes
        whole = count // width * width
        with body.loop("row", position.start, position.stop, plan.rows) as row:
            if whole:
                with body.loop("pixel", 0, whole, width) as pixel:
                    self._tile(position, row, pixel, width)
            if whole < count:
                self._tile(position, row, literal(whole), count - whole)

    def _tile(self, position: _Position, row: Expression, pixel: Expression, count: int) -> None:
        """A tile of ``count`` pixels from a place on."""
        body, c, plan = self.body, self.c, self.plan
        vectors = -(-count // plan.lanes)
        zero = Literal(0.0, self.vector)
        sums = [
            [[body.variable(f"sum{k}_{r}_{v}", zero) for k in range(c.columns)] for v in range(vectors)]
            for r in range(plan.rows)
        ]
        offset = (row - position.start) * (plan.row_axis.step * plan.line) + pixel
        self._sum(sums, body.pointer("tile", self.planes, offset))
        if self.pooled is not None:
            self._pool(sums, self.pooled, position, row, pixel, count)
            return
        for r, line in enumerate(sums):
            if r == 0:
                self._write(line, position.image, row, pixel, count)
                continue
            with body.when(compare("<", row + r, position.stop)):
                self._write(line, position.image, body.let("row", row + r), pixel, count)

    def _sum(self, sums: list[list[list[Variable]]], tile: Pointer) -> None:
        """Run over channels and taps."""
        body, c, plan = self.body, self.c, self.plan
        row_axis, line_axis = plan.row_axis, plan.line_axis
        taps = line_axis.only.taps
        weights = Pointer("packed", c.dtype)
        with body.loop("c", 0, c.channels) as channel, body.loop("i", 0, row_axis.only.taps) as i:
            shift = row_axis.only.shift - low(row_axis) + i * row_axis.tap_shift
            source = body.pointer("source", tile, channel * plan.plane + shift * plan.line)
            here = body.pointer("weights", weights, (channel * row_axis.only.taps + i) * (taps * c.columns))
            with body.loop("tap", 0, taps, unroll=taps if 1 < taps <= UNROLLED else 0) as tap:
                start = body.let("at", tap * line_axis.tap_shift + (line_axis.only.shift - low(line_axis)))
                values = [
                    [
                        body.let("value", load(source, start + (r * row_axis.step * plan.line + v * plan.lanes), plan.lanes))
                        for v in range(len(sums[0]))
                    ]
                    for r in range(plan.rows)
                ]
                for k in range(c.columns):
                    weight = body.let("weight", splat(load(here, tap * c.columns + k), plan.lanes))
                    for line, read in zip(sums, values, strict=True):
                        for accumulators, value in zip(line, read, strict=True):
                            body.assign(accumulators[k], accumulators[k] + value * weight)

    # --- results -------------------------------------------------------------------------------------------------------

    def _write(
        self, line: Sequence[Sequence[Variable]], image: Expression, row: Expression, pixel: Expression, count: int
    ) -> None:
        """The epilogue for one row of a tile, and its results."""
        c, plan = self.c, self.plan
        strides = self.epilogue.strides[self.epilogue.result]
        along = c.out_axes[-1]
        all_strides = {i: tuple(s) for i, s in self.epilogue.strides.items()}
        for v, accumulators in enumerate(line):
            there = min(plan.lanes, count - v * plan.lanes)
            part = None if there == plan.lanes else there
            places = [self._index(image, row, pixel + v * plan.lanes, k) for k in range(c.columns)]
            if self.out.dtype is c.dtype and lies_dense(strides, c.out_axes[-1], c.out_column, c.columns):
                values = self._values(accumulators, image, row, pixel, v, count)
                store_interleaved(self.body, self.out, values, element_offset(strides, places[0]), there)
                continue
            for a, place in zip(accumulators, places, strict=True):
                self.epilogue.write(self.body, a, all_strides, place, along, part, self.out)

    def _pool(
        self,
        sums: list[list[list[Variable]]],
        pooled: Pooled,
        position: _Position,
        row: Expression,
        pixel: Expression,
        count: int,
    ) -> None:
        """The epilogue, and the windows of a tile; those that the last rows do not fill are none."""
        body, plan = self.body, self.plan
        high = pooled.over(2)[0]
        cut = plan.row_axis.only.count % plan.rows != 0
        for top in range(0, plan.rows, high):
            whole = [body.when(compare("<=", row + (top + high), position.stop))] if cut else []
            with nested(whole):
                lines = [
                    [self._values(vectors, position.image, row + r, pixel, v, count) for v, vectors in enumerate(sums[r])]
                    for r in range(top, top + high)
                ]
                at = body.let("window_row", (row + top) // high)
                store_windows(body, pooled, lines, (position.image, at, pixel), count, len(self.c.axes))

    def _values(
        self, accumulators: Sequence[Variable], image: Expression, row: Expression, pixel: Expression, v: int, count: int
    ) -> list[Expression]:
        """What the epilogue makes of vector ``v`` of a row, column by column."""
        lanes, along = self.plan.lanes, self.c.out_axes[-1]
        there = min(lanes, count - v * lanes)
        strides = {i: tuple(s) for i, s in self.epilogue.strides.items()}
        places = [self._index(image, row, pixel + v * lanes, k) for k in range(self.c.columns)]
        part = None if there == lanes else there
        found = (
            self.epilogue.value(self.body, a, strides, place, along, part)
            for a, place in zip(accumulators, places, strict=True)
        )
        return [self.body.let("value", value) for value in found]

    def _index(self, image: Expression, row: Expression, pixel: Expression, column: int) -> list[Expression]:
        """The logical index in the result."""
        c = self.c
        index = {c.out_axes[0]: image, c.out_axes[-1]: pixel, c.out_column: literal(column)}
        if len(c.axes) == 2:
            index[c.out_axes[1]] = row
        return [index[axis] for axis in sorted(index)]


def is_turned(c: Contraction) -> bool:
    """Whether the channels of a pixel are neighbours in the input, instead of the pixels of a row."""
    return c.x_channel == 1 and c.channels > 1


def _parts(count: int, lanes: int) -> list[tuple[int, int]]:
    """The ranges of whole vectors, and of what is left."""
    whole = count // lanes * lanes
    return [part for part in ((0, whole), (whole, count)) if part[0] < part[1]]
