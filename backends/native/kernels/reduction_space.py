"""The index space of a reduction: its axes in storage order, merged where no stride tells them apart, and how it is cut.

Kernels walk the space with as few loops as it has axes left.  Extents and strides are run-time numbers, so that layers of
different sizes (and batches) share one source; only strides of 0 and the stride of the vectors' axis are known to the code.

A space is cut into *items*, the results that a task computes side by side (a block of neighbouring ones, or a single one
where the innermost axis is folded), and the folded elements of an item into *segments*: pieces of the innermost folded axis.
*Chunks*, runs of segments, become partial results where there are too few items to keep threads busy.  The cut depends on
shapes alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import INDEX, Expression, Pointer, Variable, literal, select

BLOCK = 512
"""Neighbouring results that a task computes side by side: their accumulators stay in the first-level cache."""

PIECE = 8192
"""Elements of a segment, about."""

TASK = 32768
"""Elements of a task, about: 10 to 40 microseconds at memory speed."""

MOST_TASKS = 256
"""Tasks of large kernels: enough for any number of threads, few enough for the partial results to be nothing."""


@dataclass(frozen=True)
class SpaceAxis:
    """One axis of the merged space.  strides: of each stream along it."""

    extent: int
    folded: bool
    strides: tuple[int, ...]


def full_strides(
    shape: Sequence[int], strides: Sequence[int], space: Sequence[int], batched: bool = False
) -> tuple[int, ...]:
    """Strides of a value that is read over ``space``: 0 where it is repeated.

    Axes of one element keep their stride in a value that has the whole shape, and axis 0 of a space with one element there in a
    value that is ``batched``: with batch 1 it is read like with any other.
    """
    if tuple(shape) == tuple(space):
        return tuple(strides)
    added = len(space) - len(shape)
    own = [0 if n == 1 else s for n, s in zip(shape, strides, strict=True)]
    if batched and added == 0 and space[0] == 1:
        own[0] = strides[0]
    return (0,) * added + tuple(own)


def result_strides(strides: Sequence[int], axes: Sequence[int], rank: int, keepdims: bool) -> tuple[int, ...]:
    """Strides of a reduction's result over the space: 0 along the folded axes."""
    if keepdims:
        return tuple(0 if axis in axes else s for axis, s in enumerate(strides))
    left = iter(strides)
    return tuple(0 if axis in axes else next(left) for axis in range(rank))


def merged_axes(
    shape: Sequence[int], folded: Sequence[int], streams: Sequence[Sequence[int]], main: Sequence[int]
) -> tuple[SpaceAxis, ...]:
    """The axes from slowest to fastest by the strides ``main``; neighbours that every stream walks as one are one.

    Axes of one element vanish, the first excepted: it may be a batch, and the code must not depend on its size.
    """
    kept = [axis for axis, n in enumerate(shape) if n != 1 or axis == 0]
    order = sorted(kept, key=lambda axis: (-abs(main[axis]), axis))
    merged: list[SpaceAxis] = []
    for axis in order:
        inner = SpaceAxis(shape[axis], axis in folded, tuple(s[axis] for s in streams))
        outer = merged[-1] if merged else None
        fits = outer is not None and outer.folded == inner.folded
        if outer is not None and fits and all(a == b * inner.extent for a, b in zip(outer.strides, inner.strides, strict=True)):
            merged[-1] = SpaceAxis(outer.extent * inner.extent, inner.folded, inner.strides)
        else:
            merged.append(inner)
    return tuple(merged)


@dataclass(frozen=True)
class Space:
    """The merged axes by their roles.

    outer: kept axes that items are counted along;  around: folded axes outside the innermost folded one.
    rows:    the innermost folded axis.
    columns: the kept axis that vectors run along, or None where they run along ``rows``.
    """

    outer: tuple[SpaceAxis, ...]
    around: tuple[SpaceAxis, ...]
    rows: SpaceAxis
    columns: SpaceAxis | None

    @property
    def vectors(self) -> SpaceAxis:
        """The axis that vectors run along."""
        return self.rows if self.columns is None else self.columns

    @property
    def width(self) -> int:
        return 1 if self.columns is None else self.columns.extent

    @property
    def results(self) -> int:
        """Elements of a result."""
        return math.prod(axis.extent for axis in self.outer) * self.width

    @property
    def folded(self) -> int:
        """Elements that go into each result."""
        return math.prod(axis.extent for axis in self.around) * self.rows.extent


def space_of(axes: Sequence[SpaceAxis], streams: int) -> Space:
    """The roles of merged axes (of ``streams`` streams)."""
    one = SpaceAxis(1, True, (0,) * streams)
    kept = [axis for axis in axes if not axis.folded]
    folded = [axis for axis in axes if axis.folded]
    columns = kept.pop() if kept and axes[-1] is kept[-1] else None
    rows = folded.pop() if folded else one
    return Space(tuple(kept), tuple(folded), rows, columns)


def widened(space: Space, walked: Sequence[int]) -> tuple[Space, int]:
    """The space with several rows of few columns seen as one wide row, and how many; each column then has so many results.

    walked: positions of the streams that have elements there: all but the results.  Without rows that follow each other, or
    with a stream that repeats whole rows, the space stays as it is (and the number is 1).
    """
    rows, columns = space.rows, space.columns
    if columns is None or space.outer:
        return space, 1
    known = ((0, 0), (columns.extent, 1))
    if any((rows.strides[at], columns.strides[at]) not in known for at in walked):
        return space, 1
    number = max((n for n in range(1, BLOCK // columns.extent + 1) if rows.extent and rows.extent % n == 0), default=1)
    wide = SpaceAxis(rows.extent // number, True, tuple(s * number for s in rows.strides))
    return Space((), space.around, wide, SpaceAxis(columns.extent * number, False, columns.strides)), number


@dataclass(frozen=True)
class Cut:
    """How a space is cut into tasks.

    block:    results of an item; piece: of the innermost folded axis in a segment.
    items, segments: how many there are; chunks: runs of ``run`` segments; group: items of a task.
    """

    block: int
    piece: int
    items: int
    segments: int
    chunks: int
    run: int
    group: int

    @property
    def tasks(self) -> int:
        return self.chunks * -(-self.items // self.group)


def cut(space: Space, step: int, piece: int = PIECE) -> Cut:
    """Cut a space; pieces are multiples of ``step``."""
    block = min(BLOCK, space.width)
    length = -(-max(1, piece // max(1, block)) // step) * step
    blocks = -(-space.width // BLOCK)
    items = math.prod(axis.extent for axis in space.outer) * blocks
    segments = math.prod(axis.extent for axis in space.around) * -(-space.rows.extent // length)
    wanted = min(MOST_TASKS, max(1, space.results * space.folded // TASK))
    if items >= wanted or segments == 0:
        return Cut(BLOCK, length, items, segments, 1, max(1, segments), max(1, -(-items // wanted)))
    run = -(-segments // min(segments, -(-wanted // max(1, items))))
    return Cut(BLOCK, length, items, segments, max(1, -(-segments // run)), run, 1)


# --- in generated code -----------------------------------------------------------------------------------------------------


@dataclass
class Sizes:
    """Run-time numbers of a kernel, by name."""

    values: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: int) -> Variable:
        self.values[name] = value
        return Variable(name, INDEX)


class Walk:
    """A space in generated code: its extents and strides as run-time numbers, and the addresses that follow from them.

    ``copies``: results of each column, where the space was widened.
    """

    def __init__(self, space: Space, cut: Cut, names: Sequence[str], copies: int = 1):
        self.space, self.names = space, tuple(names)
        self.sizes = Sizes()
        add = self.sizes.add
        self.items, self.segments = add("items", cut.items), add("segments", cut.segments)
        self.chunks, self.run, self.group = add("chunks", cut.chunks), add("run", cut.run), add("group", cut.group)
        self.piece, self.rows = add("piece", cut.piece), add("rows", space.rows.extent)
        self.width: Expression = literal(1) if space.columns is None else add("width", space.width)
        self.results, self.folded = add("results", space.results), add("folded", space.folded * copies)
        self.copies = add("copies", copies)
        self.outer = [add(f"outer{at}", axis.extent) for at, axis in enumerate(space.outer)]
        self.around = [add(f"around{at}", axis.extent) for at, axis in enumerate(space.around)]
        self.outer_strides = [self._strides(f"outer{at}", axis) for at, axis in enumerate(space.outer)]
        self.around_strides = [self._strides(f"around{at}", axis) for at, axis in enumerate(space.around)]
        self.row_strides = self._strides("row", space.rows)
        self.column_strides = self._strides("column", space.columns) if space.columns else (literal(0),) * len(names)

    def _strides(self, axis_name: str, axis: SpaceAxis) -> tuple[Expression, ...]:
        """Strides of every stream: 0, and 1 along the vectors, as literals."""
        known = (0, 1) if axis is self.space.vectors else (0,)
        return tuple(
            literal(s) if s in known else self.sizes.add(f"{name}_{axis_name}", s)
            for name, s in zip(self.names, axis.strides, strict=True)
        )

    def tasks(self, body: Body, task: Expression) -> tuple[Expression, Expression, Expression]:
        """The chunk of a task, and the first and last of its items."""
        groups = body.let("groups", (self.items + self.group - 1) // self.group)
        chunk = body.let("chunk", task / groups)
        first = body.let("first_item", (task % groups) * self.group)
        return chunk, first, least(body, "last_item", first + self.group, self.items)

    def item(self, body: Body, item: Expression) -> tuple[Expression, Expression]:
        """The outer index of an item, and the first of its columns."""
        if self.space.columns is None:
            return item, literal(0)
        blocks = body.let("blocks", (self.width + (BLOCK - 1)) // BLOCK)
        return body.let("outer_index", item / blocks), body.let("column", (item % blocks) * BLOCK)

    def item_offset(self, body: Body, stream: int, digits: Sequence[Expression], column: Expression) -> Expression:
        """Elements from a stream's first to the first of an item."""
        offset = offset_of(digits, [strides[stream] for strides in self.outer_strides])
        return offset + column * self.column_strides[stream]

    def outer_digits(self, body: Body, index: Expression) -> list[Expression]:
        return digits_of(body, index, self.outer)

    def segment(self, body: Body, segment: Expression) -> tuple[list[Expression], Expression, Expression]:
        """The place of a segment on the axes around, its first row and the row after its last."""
        digits: list[Expression] = []
        if self.around:
            pieces = body.let("pieces", (self.rows + self.piece - 1) // self.piece)
            digits = digits_of(body, body.let("place", segment / pieces), self.around)
            segment = body.let("piece_number", segment % pieces)
        first = body.let("first_row", segment * self.piece)
        return digits, first, least(body, "last_row", first + self.piece, self.rows)

    def segment_offset(self, stream: int, digits: Sequence[Expression], row: Expression) -> Expression:
        """Elements from a stream's first of an item to the first of a segment."""
        return offset_of(digits, [strides[stream] for strides in self.around_strides]) + row * self.row_strides[stream]


def digits_of(body: Body, index: Expression, extents: Sequence[Expression]) -> list[Expression]:
    """The indices on each axis, from slowest to fastest, of a row-major index."""
    digits: list[Expression] = []
    for at in range(len(extents) - 1, 0, -1):
        digits.insert(0, body.let("digit", index % extents[at]))
        index = body.let("rest", index / extents[at])
    return [index, *digits] if extents else []


def offset_of(digits: Sequence[Expression], strides: Sequence[Expression]) -> Expression:
    """The sum of index times stride."""
    offset: Expression = literal(0)
    for digit, stride in zip(digits, strides, strict=True):
        if stride != literal(0):
            offset = digit * stride + offset
    return offset


def least(body: Body, name: str, first: Expression, second: Expression) -> Expression:
    """A local that holds the smaller of two indices."""
    first, second = body.let("end", first), body.let("end", second)
    return body.let(name, select(first < second, first, second))


def moved(body: Body, name: str, pointer: Pointer, offset: Expression) -> Pointer:
    """A pointer so many elements on, or itself."""
    return pointer if offset == literal(0) else body.pointer(name, pointer, offset)
