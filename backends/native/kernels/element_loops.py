"""Loops over an element space: what elementwise kernels and copies share.

Extents, strides, offsets and the cut are run-time sizes; the order of the loops and the width of vectors are written down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from irconv.backends.codegen.access import as_mask, as_stored, gather, vector_store
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import (
    INDEX,
    Expression,
    Pointer,
    Type,
    Variable,
    call,
    literal,
    load,
    splat,
)
from irconv.backends.codegen.library_tiles import LANES
from irconv.backends.codegen.statements import TransposeTile
from irconv.backends.native.kernels.element_space import Space, Term
from irconv.types import BOOL, F32, F64

TILE_COLUMNS = 64
"""Of tiles on the stack: with as many rows as a vector has lanes, 4 KiB of float32."""

MOST_TURNED = max(LANES)
"""Lanes of the longest vectors of which tiles can be turned."""

Fetch = Callable[[int], Expression]
Compute = Callable[[Body, dict[int, Expression], Fetch], None]
"""Adds the values of the results to a dictionary by number, fetching operands by theirs."""


@dataclass(frozen=True)
class Value:
    """A result or operand: its number, where it is and how it lies in the space.

    offset:    elements from the pointer to the first one.
    is_number: one element, the same everywhere.
    """

    id: int
    pointer: Pointer
    term: Term
    offset: int = 0
    is_number: bool = False


@dataclass
class Sizes:
    """Run-time numbers of a kernel, by name in order."""

    names: list[str] = field(default_factory=list)
    values: list[int] = field(default_factory=list)

    def add(self, name: str, value: int) -> Expression:
        """One more; the name gets a number if it is taken."""
        wish, number = name, 1
        while name in self.names:
            name, number = f"{wish}_{number}", number + 1
        self.names.append(name)
        self.values.append(value)
        return Variable(name, INDEX)


@dataclass(frozen=True)
class Strip:
    """Part of a nested space: from ``inner`` on ``width`` elements of rows ``middle`` to ``last``, the bases of all values there.

    strides: of every value, by its number, as run-time numbers or literals.
    """

    inner: Expression
    width: Expression
    middle: Expression
    last: Expression
    bases: dict[int, Pointer]
    strides: dict[int, list[Expression]]


class ElementLoops:
    """Writes the loops of one space into a body.

    lanes:      of the vectors, 1 for scalars; mask_bytes: of the numbers that masks are for.
    first, last: the tasks to do, of those of the space.
    """

    def __init__(
        self,
        body: Body,
        sizes: Sizes,
        space: Space,
        outputs: Sequence[Value],
        inputs: Sequence[Value],
        lanes: int,
        mask_bytes: int,
        compute: Compute,
        first: Expression,
        last: Expression,
    ) -> None:
        self.body, self.sizes, self.space = body, sizes, space
        self.outputs, self.inputs = tuple(outputs), tuple(inputs)
        self.moving = [*self.outputs, *(v for v in self.inputs if not v.is_number)]
        self.lanes, self.mask_bytes = lanes, mask_bytes
        self.staged = {v.id: v for v in self.inputs if self._is_staged(v)}
        self.compute = compute
        self.first, self.last = first, last

    def _is_staged(self, value: Value) -> bool:
        """Whether an operand is turned, tile by tile, before it is read."""
        return value.term.is_turned and value.pointer.dtype in (F32, F64) and 1 < self.lanes <= MOST_TURNED

    def write(self) -> None:
        """All of it."""
        if self.space.is_flat:
            self._flat()
        else:
            self._nested(self._rows)

    def write_transposed(self) -> None:
        """A copy from rows along the middle axis to rows along the inner one, in tiles turned in registers."""
        self._nested(self._tiles)

    # --- forms -------------------------------------------------------------------------------------------------------

    def _flat(self) -> None:
        """One run from the first task's beginning to the last one's end."""
        body = self.body
        total, piece = self.sizes.add("total", self.space.extents[0]), self.sizes.add("piece", self.space.piece)
        start = body.let("start", self.first * piece)
        stop = body.let("stop", call("smaller", self.last * piece, total))
        pointers = {v.id: self._based(v, literal(0)) for v in (*self.outputs, *self.inputs)}
        known = {v.id: self._constant(pointers[v.id]) for v in self.inputs if v.is_number}
        self._run(pointers, start, stop, known, {})

    def _nested(self, work: Callable[[Strip, dict[int, Expression]], None]) -> None:
        """Strip after strip: where each begins is worked out once."""
        body, space, size = self.body, self.space, self.sizes.add
        axes = len(space.extents)
        extents = [size(f"extent{axis}", n) for axis, n in enumerate(space.extents)]
        piece, rows = size("piece", space.piece), size("rows", space.rows)
        inner_pieces, middle_pieces = size("inner_pieces", space.inner_pieces), size("middle_pieces", space.middle_pieces)
        per_task, count = size("strips_per_task", space.strips), size("strips", space.strip_count)
        numbers = {v.id: self._constant(self._based(v, literal(0))) for v in self.inputs if v.is_number}
        strides = {v.id: self._strides(v) for v in self.moving}
        end = body.let("end", call("smaller", self.last * per_task, count))
        with body.loop("strip", self.first * per_task, end) as strip:
            inner = body.let("inner", strip % inner_pieces * piece)
            rest = body.let("rest", strip // inner_pieces)
            middle = body.let("middle", rest % middle_pieces * rows)
            outer = body.let("outer", rest // middle_pieces)
            index: list[Expression] = []
            for axis in range(axes - 3, 0, -1):
                index.insert(0, body.let("index", outer % extents[axis]))
                outer = body.let("outer", outer // extents[axis])
            index = [outer, *index]
            bases = {}
            for v in self.moving:
                offset: Expression = literal(0)
                along = [*strides[v.id][: axes - 2], strides[v.id][-1]]
                for position, stride in zip([*index, inner], along, strict=True):
                    offset = offset if stride == literal(0) else position * stride + offset
                bases[v.id] = self._based(v, offset)
            width = body.let("width", call("smaller", extents[-1] - inner, piece))
            last = body.let("last_row", call("smaller", middle + rows, extents[-2]))
            work(Strip(inner, width, middle, last, bases, strides), numbers)

    def _rows(self, strip: Strip, numbers: dict[int, Expression]) -> None:
        if self.staged:
            self._staged_rows(strip, numbers)
            return
        body = self.body
        with body.loop("row", strip.middle, strip.last) as row:
            pointers = {
                v.id: body.pointer(f"{v.pointer.name}_row", strip.bases[v.id], row * strip.strides[v.id][-2])
                for v in self.moving
            }
            constants = [v for v in self.inputs if v.term.inner == 0 and not v.is_number]
            known = numbers | {v.id: self._constant(pointers[v.id]) for v in constants}
            self._run(pointers, literal(0), strip.width, known, {i: s[-1] for i, s in strip.strides.items()})

    def _staged_rows(self, strip: Strip, numbers: dict[int, Expression]) -> None:
        """Blocks of rows and columns: operands that lie across are first turned into tiles on the stack."""
        body, lanes = self.body, self.lanes
        tiles = {i: body.array(f"{v.pointer.name}_tile", v.pointer.dtype, lanes * TILE_COLUMNS) for i, v in self.staged.items()}
        with body.loop("block", strip.middle, strip.last, lanes) as block:
            rows = body.let("block_rows", call("smaller", strip.last - block, literal(lanes)))
            with body.loop("column", 0, strip.width, TILE_COLUMNS) as column:
                columns = body.let("columns", call("smaller", strip.width - column, literal(TILE_COLUMNS)))
                for i, tile in tiles.items():
                    self._turn(tile, strip.bases[i], strip.strides[i][-1], (block, rows), (column, columns))
                with body.loop("row", block, block + rows) as row:
                    pointers = {
                        v.id: body.pointer(f"{v.pointer.name}_row", tiles[v.id], (row - block) * TILE_COLUMNS)
                        if v.id in tiles
                        else body.pointer(
                            f"{v.pointer.name}_row",
                            strip.bases[v.id],
                            row * strip.strides[v.id][-2] + column * strip.strides[v.id][-1],
                        )
                        for v in self.moving
                    }
                    constants = [v for v in self.inputs if v.term.inner == 0 and not v.is_number]
                    known = numbers | {v.id: self._constant(pointers[v.id]) for v in constants}
                    self._run(pointers, literal(0), columns, known, {i: s[-1] for i, s in strip.strides.items()})

    def _turn(
        self,
        tile: Pointer,
        base: Pointer,
        stride: Expression,
        rows: tuple[Expression, Expression],
        columns: tuple[Expression, Expression],
    ) -> None:
        """Rows and columns (first, how many) of an operand that is contiguous along the rows' axis, put into a tile."""
        body, lanes = self.body, self.lanes
        turned = Type(tile.dtype, lanes)
        with body.loop("j", 0, columns[1], lanes) as j:
            part = body.let("part", call("smaller", columns[1] - j, literal(lanes)))
            where = (tile, j, literal(TILE_COLUMNS), base, (columns[0] + j) * stride + rows[0], stride)
            with body.when(rows[1] + part >= 2 * lanes):
                body.add(TransposeTile(*where, turned))
            with body.otherwise():
                body.add(TransposeTile(*where, turned, rows[1], part))

    def _tiles(self, strip: Strip, numbers: dict[int, Expression]) -> None:
        """Rows and columns change places: the source is contiguous along the middle axis, the target along the inner one."""
        body, lanes = self.body, self.lanes
        (output,), (source,) = self.outputs, self.inputs
        turned = Type(output.pointer.dtype, lanes)
        step = lanes if lanes > 1 else 16
        to, by = strip.strides[output.id][-2], strip.strides[source.id][-1]
        with body.loop("i", strip.middle, strip.last, step) as i:
            rows = body.let("tile_rows", call("smaller", strip.last - i, literal(step)))
            with body.loop("j", 0, strip.width, step) as j:
                columns = body.let("tile_columns", call("smaller", strip.width - j, literal(step)))
                where = (strip.bases[output.id], i * to + j, to, strip.bases[source.id], j * by + i, by)
                part = TransposeTile(*where, turned, rows, columns)
                if lanes == 1:
                    body.add(part)
                else:
                    with body.when(rows + columns >= 2 * step):
                        body.add(TransposeTile(*where, turned))
                    with body.otherwise():
                        body.add(part)

    # --- parts -------------------------------------------------------------------------------------------------------

    def _based(self, value: Value, offset: Expression) -> Pointer:
        """The value's pointer moved on by its own offset and another."""
        name = value.pointer.name
        if value.offset:
            offset = self.sizes.add(f"{name}_offset", value.offset) + offset
        return value.pointer if offset == literal(0) else self.body.pointer(f"{name}_base", value.pointer, offset)

    def _strides(self, value: Value) -> list[Expression]:
        """Strides as run-time numbers, the inner one known if it is 0 or 1."""
        name, term = value.pointer.name, value.term
        outer: list[Expression] = [self.sizes.add(f"{name}_stride{axis}", s) for axis, s in enumerate(term.strides[:-1])]
        inner = self.sizes.add(f"{name}_stride", term.strides[-1]) if term.inner is None else literal(term.inner)
        return [*outer, inner]

    def _constant(self, pointer: Pointer) -> Expression:
        """The number that an operand has all along the row, in every lane."""
        value = splat(self.body.let("constant", load(pointer, 0)), self.lanes)
        if pointer.dtype is BOOL and self.lanes > 1:
            value = as_mask(value, self.mask_bytes)
        return self.body.let("constant", value)

    def _run(
        self,
        pointers: dict[int, Pointer],
        start: Expression,
        stop: Expression,
        known: dict[int, Expression],
        inner: dict[int, Expression],
    ) -> None:
        """Elements ``start`` to ``stop`` of the innermost axis: whole vectors, then what is left."""
        body, lanes = self.body, self.lanes
        if lanes == 1:
            with body.loop("i", start, stop) as i:
                self._elements(pointers, i, None, dict(known), inner)
            return
        whole = body.let("whole", start + (stop - start) // lanes * lanes)
        with body.loop("i", start, whole, lanes) as i:
            self._elements(pointers, i, None, dict(known), inner)
        with body.when(whole < stop):
            self._elements(pointers, whole, stop - whole, dict(known), inner)

    def _elements(
        self,
        pointers: dict[int, Pointer],
        at: Expression,
        count: Expression | None,
        known: dict[int, Expression],
        inner: dict[int, Expression],
    ) -> None:
        """One vector (the first ``count`` of its lanes): all is read before anything is written."""
        body, lanes = self.body, self.lanes
        count = None if count is None else body.let("count", count)
        terms = {v.id: v.term for v in self.inputs}

        def fetch(i: int) -> Expression:
            if terms[i].inner == 1 or i in self.staged:
                return load(pointers[i], at, lanes, count)
            if lanes == 1:
                return load(pointers[i], at * inner[i])
            return gather(pointers[i], at * inner[i], inner[i], lanes, count)

        self.compute(body, known, fetch)
        for output in self.outputs:
            value = as_stored(known[output.id], output.pointer.dtype)
            if output.term.inner == 1:
                body.store(pointers[output.id], at, value, count)
            else:
                stride = inner[output.id]
                vector_store(body, body.pointer("to", pointers[output.id], at * stride), [stride], [0], 0, value, count)
