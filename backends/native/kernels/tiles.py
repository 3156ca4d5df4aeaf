"""Where the pixels of a tile read: a local array of pointers, one for each pixel, or one for each tap and pixel.

Without padding a pixel has one pointer and its taps lie at known distances from it.  With padding each tap has a pointer of its
own, which shows a row of zeros where the tap falls outside; filled once for a tile, it serves all blocks of columns.  Tiles that
lie inside one row, which most do, are filled without looking at each pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import Expression, Pointer, Variable, both, compare, literal, load
from irconv.backends.codegen.statements import PointerArray
from irconv.backends.native.kernels.contraction import Contraction, linear
from irconv.backends.native.kernels.packing import least, unravel
from irconv.backends.native.kernels.plan import Plan
from irconv.types import I64


@dataclass(frozen=True)
class Place:
    """What is known of an axis while one of its residues is worked on: numbers, or locals where it has several."""

    start: Expression
    count: Expression
    first_tap: Expression
    taps: Expression
    shift: Expression


ENTRIES = ("start", "count", "first_tap", "taps", "shift")
"""What is kept of a residue."""


def residue_tables(body: Body, c: Contraction) -> list[Pointer | None]:
    """For each axis that has several residues a local array of what is known of each."""
    tables: list[Pointer | None] = []
    for axis in c.axes:
        if len(axis.residues) == 1:
            tables.append(None)
            continue
        table = body.array("residues", I64, len(ENTRIES) * len(axis.residues))
        for number, residue in enumerate(axis.residues):
            for entry, name in enumerate(ENTRIES):
                body.store(table, len(ENTRIES) * number + entry, literal(getattr(residue, name)))
        tables.append(table)
    return tables


def places(body: Body, c: Contraction, tables: Sequence[Pointer | None], residue: Expression) -> list[Place]:
    """The axes for one combination of residues, counted through."""
    numbers = unravel(residue, [len(axis.residues) for axis in c.axes]) if c.axes else []
    found = []
    for axis, table, number in zip(c.axes, tables, numbers, strict=True):
        row = body.let("row", number * len(ENTRIES))
        known = []
        for entry, name in enumerate(ENTRIES):
            values = {getattr(r, name) for r in axis.residues}
            # what all residues have in common is known now
            same = literal(values.pop()) if len(values) == 1 or table is None else None
            known.append(same or body.let(name, load(_known(table), row + entry)))
        found.append(Place(*known))
    return found


def _known(table: Pointer | None) -> Pointer:
    assert table is not None
    return table


@dataclass(frozen=True)
class Cursor:
    """The position of a pixel, as locals that move to the next one."""

    body: Body
    counts: tuple[Expression, ...]
    batch: Variable
    position: tuple[Variable, ...]

    def advance(self) -> None:
        """Move to the next pixel."""
        self._carry(len(self.position) - 1)

    def _carry(self, axis: int) -> None:
        if axis < 0:
            self.body.assign(self.batch, self.batch + 1)
            return
        at = self.position[axis]
        self.body.assign(at, at + 1)
        with self.body.when(compare("==", at, self.counts[axis])):
            self.body.assign(at, literal(0))
            self._carry(axis - 1)


def start_of(body: Body, axes: Sequence[Place], pixel: Expression) -> list[Expression]:
    """The position of pixel number ``pixel``: batch, then the other axes."""
    parts = unravel(pixel, [literal(0), *(axis.count for axis in axes)])
    return [body.let(name, e) for name, e in zip(["image", *(["at"] * len(axes))], parts, strict=True)]


def cursor(body: Body, axes: Sequence[Place], start: Sequence[Expression]) -> Cursor:
    """A cursor that begins at a position."""
    n, *position = (body.variable(name, e) for name, e in zip(["n", *(["o"] * len(axes))], start, strict=True))
    return Cursor(body, tuple(axis.count for axis in axes), n, tuple(position))


@dataclass(frozen=True)
class Filler:
    """Writes the code that fills a tile's pointers.

    source: the input from the group's first channel on;  ``zeros``: the row of zeros, where there is one.
    """

    body: Body
    c: Contraction
    plan: Plan
    axes: Sequence[Place]
    array: PointerArray
    source: Pointer
    zeros: Pointer | None

    def fill(self, tile: Expression, stop: Expression, start: Sequence[Expression]) -> None:
        """The pointers of the pixels from ``tile`` at ``start`` on; behind ``stop`` the last pixel is repeated."""
        step = self._single_stride()
        if step is not None:
            self._fill_linear(tile, stop, step)
            return
        body, pixels = self.body, self.plan.pixels
        position = cursor(body, self.axes, start)
        if pixels == 1:
            self._fill_each(position, tile, stop)
            return
        with body.when(self._is_simple(position, tile, stop)):
            self._fill_row(position)
        with body.otherwise():
            self._fill_each(position, tile, stop)

    def _single_stride(self) -> int | None:
        """The distance of all neighbouring pixels where it is one and the same."""
        if self.plan.table:
            return None
        steps = [self.c.x_strides[0], *(s * a.step for s, a in zip(self.c.x_strides[1:], self.c.axes, strict=True))]
        return linear([a.only.count for a in self.c.axes], steps)

    def _fill_linear(self, tile: Expression, stop: Expression, step: int) -> None:
        body, pixels = self.body, self.plan.pixels
        first = sum(a.only.shift * s for a, s in zip(self.c.axes, self.c.x_strides[1:], strict=True))
        with body.when(compare("<=", tile + pixels, stop)):
            start = body.pointer("start", self.source, tile * step + first)
            for number in range(pixels):
                body.set_pointer(self.array, number, start, number * step)
        with body.otherwise(), body.loop("p", 0, pixels) as p:
            pixel = body.let("pixel", least(tile + p, stop - 1))
            body.set_pointer(self.array, p, self.source, pixel * step + first)

    def _is_simple(self, position: Cursor, tile: Expression, stop: Expression) -> Expression:
        """Whether the tile lies in one row and no tap outside."""
        pixels, c = self.plan.pixels, self.c
        if not c.axes:
            return compare("<=", tile + pixels, stop)
        held = both(
            compare("<=", tile + pixels, stop), compare("<=", position.position[-1] + pixels, position.counts[-1])
        )
        if not self.plan.table:
            return held
        for number, (axis, place, at) in enumerate(zip(c.axes, self.axes, position.position, strict=True)):
            more = (pixels - 1) * axis.step if number == len(c.axes) - 1 else 0
            reach = (place.taps - 1) * axis.tap_shift
            first = self.body.let("first", at * axis.step + place.shift)
            last = self.body.let("last", first + reach)
            for end in (first, last):
                held = both(held, both(compare(">=", end, 0), compare("<", end + more, axis.size)))
        return held

    def _offset(self, position: Cursor) -> Expression:
        """Elements to where a pixel's first tap falls."""
        offset: Expression = position.batch * self.c.x_strides[0]
        for axis, place, at, stride in zip(self.c.axes, self.axes, position.position, self.c.x_strides[1:], strict=True):
            offset = offset + (at * axis.step + place.shift) * stride
        return offset

    def _fill_row(self, position: Cursor) -> None:
        body, c = self.body, self.c
        step = c.x_strides[-1] * c.axes[-1].step if c.axes else c.x_strides[0]
        start = body.pointer("start", self.source, self._offset(position))
        if not self.plan.table:
            for p in range(self.plan.pixels):
                body.set_pointer(self.array, p, start, p * step)
            return

        def taps(axis: int, number: Expression, offset: Expression) -> None:
            if axis < len(c.axes):
                with body.loop("i", 0, self.axes[axis].taps) as i:
                    moved = body.let("offset", offset + i * (c.axes[axis].tap_shift * c.x_strides[axis + 1]))
                    taps(axis + 1, body.let("tap", number * self.axes[axis].taps + i), moved)
                return
            for p in range(self.plan.pixels):
                body.set_pointer(self.array, number * self.plan.pixels + p, start, offset + p * step)

        taps(0, literal(0), literal(0))

    def _fill_each(self, position: Cursor, tile: Expression, stop: Expression) -> None:
        body = self.body
        with body.loop("p", 0, self.plan.pixels) as p:
            if self.plan.table:
                self._fill_taps(position, p)
            else:
                body.set_pointer(self.array, p, self.source, self._offset(position))
            if self.plan.pixels > 1:
                with body.when(compare("<", tile + p + 1, stop)):
                    position.advance()

    def _fill_taps(self, position: Cursor, p: Expression) -> None:
        """The pointers of all taps of one pixel."""
        body, c = self.body, self.c

        def taps(axis: int, number: Expression, offset: Expression, inside: Expression | None) -> None:
            if axis == len(c.axes):
                body.set_pointer(self.array, number * self.plan.pixels + p, self.source, offset, inside, self.zeros)
                return
            shape, place = c.axes[axis], self.axes[axis]
            first = body.let("first", position.position[axis] * shape.step + place.shift)
            with body.loop("i", 0, place.taps) as i:
                at = body.let("at", first + i * shape.tap_shift)
                here = both(compare(">=", at, 0), compare("<", at, shape.size))
                here = body.let("inside", here if inside is None else both(inside, here))
                moved = body.let("offset", offset + at * c.x_strides[axis + 1])
                taps(axis + 1, body.let("tap", number * place.taps + i), moved, here)

        taps(0, literal(0), body.let("image", position.batch * c.x_strides[0]), None)
