"""Sums in which rows are moved as they are and a little is added: the adjoints of padding, where the last axis is contiguous.

Place i of the last axis reads element i + shift with weight 1, and few places read more.  So rows are added up by vectors, and
then, number by number, what else is read of them.  Along the other axes every place has its list, as in resizing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from irconv.backends.codegen.form import Bits, Expression, Literal, Pointer, Type, convert, load, splat
from irconv.backends.native.base import NativeKernel, NativeRequest
from irconv.backends.native.kernels.resize import SIZES, Frame, Table, TableWriter, Tap, bits_of, free_axes
from irconv.strides import Strides
from irconv.types import F32, F64, DType

NUMBERS = 3
"""Of each element that is added by itself: its place, what it reads, the bits of its weight."""


def shifted_rows(request: NativeRequest, axes: Sequence[Sequence[Sequence[Tap]]], shift: int) -> NativeKernel | None:
    """The last axes of the result from what their places read: along the last one i + shift, first of all.

    None where the last axis is not contiguous or there is an axis for vectors outside, and for other types than float32 and
    float64.
    """
    node = request.graph[request.kernel.nodes[0]]
    out, source, count = request.strides[node.id], request.strides[node.operands[0]], len(axes)
    dtype = node.type.dtype
    frame = free_axes(node.type.shape[:-count], out[:-count], source[:-count])
    if frame.vector is not None or not out[-1] == source[-1] == 1 or dtype not in (F32, F64):
        return None
    return _ShiftedRows(dtype, request.machine.lanes(dtype.bytes), frame, out[-count:], source[-count:], shift).kernel(axes)


class _ShiftedRows(TableWriter):
    """Writes a row at a time."""

    def __init__(self, dtype: DType, vector: int, frame: Frame, out: Strides, source: Strides, shift: int) -> None:
        super().__init__(dtype, False, 1, frame, out, source)
        self.vector = vector
        self.shift = shift

    def last_table(self, axis: Sequence[Sequence[Tap]], stride: int) -> Table:
        """The shift, how many elements are added by themselves, and their numbers."""
        rest = []
        for place, taps in enumerate(axis):
            others = list(taps)
            others.remove((place + self.shift, 1.0))
            rest += [(place, index, weight) for index, weight in others]
        made = Table(len(self.values), 0)
        self.values += [self.shift, len(rest)]
        for place, index, weight in rest:
            self.values += [place, index, bits_of(weight)]
        return made

    def row(
        self,
        tables: Sequence[Table],
        places: Sequence[Expression],
        pointers: tuple[Pointer, Pointer],
        counts: tuple[Expression, Expression, Expression],
    ) -> None:
        target, origin = pointers
        length = counts[0]
        start = self._start(len(tables) - 1)
        shift, others = self.body.let("shift", load(SIZES, start)), self.body.let("others", load(SIZES, start + 1))
        self._vectors(length, partial(self._clear, target))

        def add(offset: Expression, weight: Expression | None) -> None:
            row = self.body.pointer("read", origin, offset)
            self._vectors(length, partial(self._add_vector, row, shift, weight, target))
            with self.body.loop("other", 0, others) as number:
                self._add_one(target, row, self.body.let("numbers", start + 2 + number * NUMBERS), weight)

        self.through(tables[:-1], places, add)

    def _vectors(self, length: Expression, each: Callable[[Expression, Expression | None], None]) -> None:
        """All elements of a row: whole vectors, then what is left."""
        body, lanes = self.body, self.vector
        whole = body.let("whole", length // lanes * lanes)
        with body.loop("i", 0, whole, lanes) as i:
            each(i, None)
        with body.when(whole < length):
            each(whole, body.let("part", length - whole))

    def _clear(self, target: Pointer, at: Expression, part: Expression | None) -> None:
        """-0.0, to which any number may be added without a change."""
        self.body.store(target, at, Literal(-0.0, Type(self.dtype, self.vector)), part)

    def _add_vector(
        self,
        row: Pointer,
        shift: Expression,
        weight: Expression | None,
        target: Pointer,
        at: Expression,
        part: Expression | None,
    ) -> None:
        moved: Expression = load(row, at + shift, self.vector, part)
        if weight is not None:
            moved = moved * splat(weight, self.vector)
        self.body.store(target, at, load(target, at, self.vector, part) + moved, part)

    def _add_one(self, target: Pointer, row: Pointer, numbers: Expression, weight: Expression | None) -> None:
        body = self.body
        place = body.let("place", load(SIZES, numbers))
        factor = body.let("factor", convert(Bits(load(SIZES, numbers + 2), Type(F64)), self.dtype))
        if weight is not None:
            factor = body.let("factor", factor * weight)
        body.store(target, place, load(target, place) + factor * load(row, load(SIZES, numbers + 1)))
