"""Resizing and its adjoint: every place of the result is a weighted sum of a few of the operand's.

What each place reads along each axis, and how it is weighed, are tables among the run-time sizes, so one source serves all
sizes and kinds of coordinates; it depends on the number of axes and of taps.  Where the channels are next to each other vectors
run along them, else the last axis is gone through element by element.  The weights of several axes are multiplied first.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from irconv.backends.codegen.body import FIRST, LAST, Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import (
    INDEX,
    Bits,
    Expression,
    Literal,
    Pointer,
    Type,
    Variable,
    call,
    convert,
    literal,
    load,
    splat,
)
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, native, native_kernel
from irconv.backends.native.kernels.element_loops import Sizes
from irconv.backends.native.kernels.movement import stored_dtype
from irconv.ops.resize_taps import AxisTaps, taps_by_axis
from irconv.strides import Strides
from irconv.types import F32, F64, I64, DType

FUNCTION = "resize"
UNROLLED_TAPS = 4
"""More taps along an axis are looped over."""

MOST_SIZES = 1 << 16
"""Larger tables are left to the array kernel."""

TASK_ELEMENTS = 16 * 1024
SIZES = Pointer("sizes", I64)

Tap = tuple[int, float]
Tapped = tuple[Expression, Expression | None]
"""Elements from the first one, and a weight (None: 1)."""


@dataclass(frozen=True)
class Table:
    """What the places of one axis read: place i has taps ``starts[i]`` to ``starts[i + 1]`` - 1.

    at: where its numbers stand among the sizes: starts, then for each tap elements to go and the bits of its weight.
    taps: of every place, if there are equally many; else 0.
    """

    at: int
    taps: int


@dataclass(frozen=True)
class Frame:
    """Axes that are not resized, with both strides, the vectors' axis (None: there is none) left out."""

    extents: tuple[int, ...]
    out: Strides
    source: Strides
    vector: int | None


@native("resize")
def _resize(request: NativeRequest) -> NativeKernel | None:
    """None for float16, unless single elements are taken."""
    node = request.graph[request.kernel.nodes[0]]
    x = request.graph[node.operands[0]].type
    axes = [_forward(taps) for _, taps in taps_by_axis(node.attributes, x.shape, node.type.shape)]
    return linear_map(request, axes, node.attributes.mode == "nearest" and node.attributes.region is None)


@native("resize_adjoint")
def _resize_adjoint(request: NativeRequest) -> NativeKernel | None:
    """None for float16."""
    node = request.graph[request.kernel.nodes[0]]
    d, count = request.graph[node.operands[0]].type, len(node.attributes.size)
    found = taps_by_axis(node.attributes, node.attributes.size, d.shape)
    axes = [adjoint(_forward(taps), n) for (_, taps), n in zip(found, node.type.shape[-count:], strict=True)]
    return linear_map(request, axes, False)


def _forward(taps: AxisTaps) -> list[list[Tap]]:
    rows = zip(taps.indices.tolist(), taps.weights.tolist(), strict=True)
    return [list(zip(indices, weights, strict=True)) for indices, weights in rows]


def bits_of(weight: float) -> int:
    """A weight as it stands among the sizes."""
    return int(struct.unpack("<q", struct.pack("<d", weight))[0])


def adjoint(axis: Sequence[Sequence[Tap]], n: int) -> list[list[Tap]]:
    """For every element of the operand: the places that read it."""
    found: list[list[Tap]] = [[] for _ in range(n)]
    for place, reads in enumerate(axis):
        for index, weight in reads:
            found[index].append((place, weight))
    return found


# --- code ----------------------------------------------------------------------------------------------------------------


def linear_map(request: NativeRequest, axes: Sequence[Sequence[Sequence[Tap]]], single: bool) -> NativeKernel | None:
    """The last axes of the result as weighted sums over those of the operand: for each, what its places read.

    single: one element a place, with weight 1, of any type.  None for sums of other types than float32 and float64, and for
    very large tables.
    """
    node = request.graph[request.kernel.nodes[0]]
    dtype = node.type.dtype
    if not single and dtype not in (F32, F64):
        return None
    out, source = request.strides[node.id], request.strides[node.operands[0]]
    count = len(axes)
    frame = free_axes(node.type.shape[:-count], out[:-count], source[:-count])
    writer = TableWriter(stored_dtype(dtype), single, request.machine.lanes(dtype.bytes), frame, out[-count:], source[-count:])
    return writer.kernel(axes)


def free_axes(extents: Sequence[int], out: Strides, source: Strides) -> Frame:
    """The axis of vectors is one along which both sides are contiguous; batches of one are no such axis."""
    vector = next((a for a in range(len(extents) - 1, 0, -1) if out[a] == source[a] == 1 and extents[a] > 1), None)
    kept = [axis for axis in range(len(extents)) if axis != vector]
    return Frame(
        tuple(extents[axis] for axis in kept),
        tuple(out[axis] for axis in kept),
        tuple(source[axis] for axis in kept),
        None if vector is None else extents[vector],
    )


class TableWriter:
    """Writes the loops and collects the sizes: names for the first ones, tables behind."""

    def __init__(self, dtype: DType, single: bool, lanes: int, frame: Frame, out: Strides, source: Strides) -> None:
        self.dtype, self.single, self.frame = dtype, single, frame
        self.lanes = 1 if frame.vector is None else lanes
        self.out, self.source = out, source
        self.body, self.sizes = Body(), Sizes()
        self.values: list[int] = []
        self.tasks = 1

    def kernel(self, axes: Sequence[Sequence[Sequence[Tap]]]) -> NativeKernel | None:
        """The kernel for what the places of each axis read; None where the tables are very large."""
        self._write(axes)
        if len(self.values) > MOST_SIZES:
            return None
        buffers = [("out", self.dtype, True), ("in0", self.dtype, False)]
        function = self.body.function(FUNCTION, buffers, self.sizes.names)
        return native_kernel(print_c([function]), (Phase(FUNCTION, self.tasks),), tuple(self.values))

    def _write(self, axes: Sequence[Sequence[Sequence[Tap]]]) -> None:
        frame, size = self.frame, self.sizes.add
        channels = 1 if frame.vector is None else frame.vector
        rows = 1
        for n in (*frame.extents, *(len(axis) for axis in axes[:-1])):
            rows *= n
        per_row = len(axes[-1]) * channels
        per_task = max(1, TASK_ELEMENTS // max(1, per_row))
        per_task = max(1, rows) if rows <= 2 * per_task else per_task
        self.tasks = max(1, -(-rows // per_task))
        count, step = size("rows", rows), size("rows_per_task", per_task)
        width = size("channels", channels)
        extents = [size(f"extent{i}", n) for i, n in enumerate((*frame.extents, *(len(axis) for axis in axes)))]
        strides = (*frame.out, *self.out), (*frame.source,)
        out_strides = [size(f"out_stride{i}", s) for i, s in enumerate(strides[0])]
        source_strides = [size(f"in_stride{i}", s) for i, s in enumerate(strides[1])]
        for k in range(len(axes)):
            size(f"table{k}", 0)
        self.values = list(self.sizes.values)
        tables = [self._table(axis, stride) for axis, stride in zip(axes[:-1], self.source, strict=False)]
        tables.append(self.last_table(axes[-1], self.source[-1]))
        for k, table in enumerate(tables):
            self.values[self.sizes.names.index(f"table{k}")] = table.at
        self._rows(tables, (count, step, width), extents, out_strides, source_strides)

    def last_table(self, axis: Sequence[Sequence[Tap]], stride: int) -> Table:
        """The same as for other axes, unless rows are computed in another way."""
        return self._table(axis, stride)

    def _table(self, axis: Sequence[Sequence[Tap]], stride: int) -> Table:
        """Append an axis's numbers to the sizes."""
        lengths = [len(taps) for taps in axis]
        taps = lengths[0] if lengths and min(lengths) == max(lengths) <= UNROLLED_TAPS else 0
        flat = [tap for taps in axis for tap in taps]
        made = Table(len(self.values), taps)
        self.values += [0, *itertools.accumulate(lengths)]
        self.values += [index * stride for index, _ in flat]
        self.values += [bits_of(weight) for _, weight in flat]
        return made

    def _rows(
        self,
        tables: Sequence[Table],
        counts: tuple[Expression, Expression, Expression],
        extents: Sequence[Expression],
        out_strides: Sequence[Expression],
        source_strides: Sequence[Expression],
    ) -> None:
        body = self.body
        count, step, width = counts
        kept = len(self.frame.extents)
        end = body.let("end", call("smaller", LAST * step, count))
        with body.loop("row", FIRST * step, end) as row:
            rest: Expression = row
            index: list[Expression] = []
            for axis in range(len(extents) - 2, 0, -1):
                index.insert(0, body.let("index", rest % extents[axis]))
                rest = body.let("rest", rest // extents[axis])
            index = [rest, *index] if len(extents) > 1 else []
            to: Expression = literal(0)
            for position, stride in zip(index, out_strides, strict=False):
                to = position * stride + to
            source: Expression = literal(0)
            for position, stride in zip(index[:kept], source_strides, strict=True):
                source = position * stride + source
            target = body.pointer("target", Pointer("out", self.dtype), to)
            origin = body.pointer("origin", Pointer("in0", self.dtype), source)
            self.row(tables, index[kept:], (target, origin), (extents[-1], out_strides[-1], width))

    def row(
        self,
        tables: Sequence[Table],
        places: Sequence[Expression],
        pointers: tuple[Pointer, Pointer],
        counts: tuple[Expression, Expression, Expression],
    ) -> None:
        """All places along the last axis.  ``counts``: how many, from one to the next in the result, channels of each."""
        target, origin = pointers
        length, step, width = counts
        with self.body.loop("place", 0, length) as place:
            pixel = self.body.pointer("pixel", target, place * step)
            self._pixel(tables, [*places, place], pixel, origin, width)

    def _pixel(
        self, tables: Sequence[Table], places: Sequence[Expression], pixel: Pointer, origin: Pointer, width: Expression
    ) -> None:
        """All channels of one place, or the one element."""
        body, lanes = self.body, self.lanes
        unrolled = all(table.taps for table in tables)
        taps = self._combined(tables, places) if unrolled else []

        def value(at: Expression, part: Expression | None) -> Expression:
            if unrolled:
                return self._sum(taps, origin, at, part)
            return self._looped(tables, places, origin, at, part)

        if lanes == 1:
            body.store(pixel, 0, value(literal(0), None))
            return
        whole = body.let("whole", width // lanes * lanes)
        with body.loop("channel", 0, whole, lanes) as channel:
            body.store(pixel, channel, value(channel, None))
        with body.when(whole < width):
            part = body.let("part", width - whole)
            body.store(pixel, whole, value(whole, part), part)

    def _combined(self, tables: Sequence[Table], places: Sequence[Expression]) -> list[Tapped]:
        """The taps of all axes together: offsets added, weights multiplied."""
        found: list[Tapped] = [(literal(0), None)]
        for k, (table, place) in enumerate(zip(tables, places, strict=True)):
            own = [self._tap(k, table, place * table.taps + t) for t in range(table.taps)]
            found = [self._both(a, b) for a in found for b in own]
        return found

    def _both(self, first: Tapped, second: Tapped) -> Tapped:
        offset = self.body.let("offset", first[0] + second[0]) if first[0] != literal(0) else second[0]
        if first[1] is None or second[1] is None:
            return offset, second[1] if first[1] is None else first[1]
        return offset, self.body.let("weight", first[1] * second[1])

    def _tap(self, k: int, table: Table, number: Expression) -> Tapped:
        """One tap of an axis, by its number in the table."""
        body = self.body
        starts = body.let("starts", self._start(k))
        size = body.let("size", self._size(k))
        first = body.let("tap", starts + size + 1 + number)
        offset = body.let("offset", load(SIZES, first))
        if self.single:
            return offset, None
        total = load(SIZES, starts + size)
        weight = Bits(load(SIZES, first + total), Type(F64))
        return offset, body.let("weight", convert(weight, self.dtype))

    def _start(self, k: int) -> Expression:
        return Variable(f"table{k}", INDEX)

    def _size(self, k: int) -> Expression:
        return Variable(f"extent{len(self.frame.extents) + k}", INDEX)

    def _sum(self, taps: Sequence[Tapped], origin: Pointer, at: Expression, part: Expression | None) -> Expression:
        total: Expression | None = None
        for offset, weight in taps:
            term: Expression = load(origin, offset + at, self.lanes, part)
            if weight is not None:
                term = term * splat(weight, self.lanes)
            total = term if total is None else total + term
        assert total is not None
        return self.body.let("total", total)

    def _looped(
        self, tables: Sequence[Table], places: Sequence[Expression], origin: Pointer, at: Expression, part: Expression | None
    ) -> Expression:
        """A sum over any number of taps: a loop for each axis, one in the other."""
        body = self.body
        total = body.variable("total", Literal(0, Type(self.dtype, self.lanes)))

        def add(offset: Expression, weight: Expression | None) -> None:
            assert weight is not None
            term: Expression = load(origin, offset + at, self.lanes, part)
            body.assign(total, total + term * splat(weight, self.lanes))

        self.through(tables, places, add)
        return total

    def through(
        self, tables: Sequence[Table], places: Sequence[Expression], each: Callable[[Expression, Expression | None], None]
    ) -> None:
        """A loop for each axis, one in the other; ``each`` writes what is done for an offset and a weight."""
        body = self.body

        def nest(k: int, outer: Tapped) -> None:
            if k == len(tables):
                each(*outer)
                return
            starts = self._start(k)
            low = body.let("low", load(SIZES, starts + places[k]))
            high = body.let("high", load(SIZES, starts + places[k] + 1))
            with body.loop("tap", low, high) as number:
                nest(k + 1, self._both(outer, self._tap(k, tables[k], number)))

        nest(0, (literal(0), None))
