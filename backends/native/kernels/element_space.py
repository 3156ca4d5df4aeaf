"""The iteration space of elementwise kernels: axes in storage order, merged where all operands allow, and how it is cut.

Everything that a batch changes (extents, strides, the cut) is a run-time size; a source depends only on what kind of stride
each operand has along the innermost axis: 1, 0 or another.  There are two forms:

- *flat*: all operands lie alike, one axis is left; a task is a run of it.  Single numbers do not count.
- *nested*: outer axes, a middle and an inner one (at least three: missing ones have one turn).  A *strip* is a run of the middle
  axis times a run of the inner one; a task is a few strips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from irconv.strides import Strides

TASK_BYTES = 64 * 1024
"""Bytes of output per task: 10 us at memory speed, and what its operands take stays in a second-level cache."""

TURNED_PIECE, TURNED_ROWS = 256, 16
"""Strips of spaces in which an operand lies across the others: high enough to use whole cache lines of it."""

NESTED_AXES = 3
"""Spaces that are not flat have at least so many axes, so that a batch of 1 needs no other code."""


@dataclass(frozen=True)
class Term:
    """An operand or result in a space: its strides along the space's axes, and along the innermost one ``inner``.

    ``inner`` is 1 or 0 where the source is written for that, else None: a run-time stride.
    """

    strides: Strides
    inner: int | None

    @property
    def is_turned(self) -> bool:
        """Whether it is contiguous along the middle axis instead of the inner one."""
        return self.inner is None and len(self.strides) > 1 and self.strides[-2] == 1


@dataclass(frozen=True)
class Space:
    """Axes from slowest to fastest, with the terms over them, and the cut.

    piece:  elements of a run along the inner axis.
    rows:   positions of the middle axis in a strip (nested only).
    strips: in a task (nested only).
    """

    extents: tuple[int, ...]
    terms: tuple[Term, ...]
    piece: int
    rows: int = 1
    strips: int = 1

    @property
    def is_flat(self) -> bool:
        return len(self.extents) == 1

    @property
    def size(self) -> int:
        total = 1
        for n in self.extents:
            total *= n
        return total

    @property
    def inner_pieces(self) -> int:
        return max(1, -(-self.extents[-1] // self.piece))

    @property
    def middle_pieces(self) -> int:
        return max(1, -(-self.extents[-2] // self.rows))

    @property
    def strip_count(self) -> int:
        """Strips of a nested space; 0 if it is empty."""
        outer = 1
        for n in self.extents[:-2]:
            outer *= n
        return outer * self.middle_pieces * self.inner_pieces if self.size else 0

    @property
    def tasks(self) -> int:
        """At least one."""
        if self.is_flat:
            return max(1, -(-self.extents[0] // self.piece))
        return max(1, -(-self.strip_count // self.strips))


@dataclass(frozen=True)
class Extent:
    """What a value is: its own shape and strides, before it is broadcast over a space."""

    shape: tuple[int, ...]
    strides: Strides
    is_result: bool = False

    def is_number(self, shape: tuple[int, ...]) -> bool:
        """Whether it is an operand of one element, the same everywhere in ``shape``.

        What has the very shape of a result of one element does not count: with another batch it may be more.
        """
        return not self.is_result and all(n == 1 for n in self.shape) and self.shape != shape


def plan_space(shape: tuple[int, ...], values: Sequence[Extent], element_bytes: int, outputs: int = 1) -> Space:
    """The space of results of ``shape``; the first of ``values`` is the result by whose storage the axes are ordered."""
    spread = [value for value in values if not value.is_number(shape)]
    padded = [_padded(value, shape) for value in spread]
    axes = [axis for axis, n in enumerate(shape) if n != 1 or (axis == 0 and _repeats(spread, shape))]
    first = padded[0]
    axes.sort(key=lambda axis: (-abs(first[axis][0]), axis))
    extents = [shape[axis] for axis in axes]
    columns = [[value[axis] for value in padded] for axis in axes]
    extents, columns = _merged(extents, columns)
    if not extents:
        extents, columns = [1], [[(1, True)] * len(spread)]
    if len(extents) > 1 or any(stride != 1 for stride, _ in columns[0]):
        while len(extents) < NESTED_AXES:
            extents, columns = [1, *extents], [[(0, False)] * len(spread), *columns]
    found = iter(range(len(spread)))
    number = (0,) * len(extents)
    strides = [number if value.is_number(shape) else _column(columns, next(found)) for value in values]
    terms = tuple(Term(s, s[-1] if s[-1] in (0, 1) else None) for s in strides)
    return _cut(tuple(extents), terms, element_bytes * outputs)


def _padded(value: Extent, shape: tuple[int, ...]) -> list[tuple[int, bool]]:
    """Stride along each axis of the space, and whether it matters: not where value and space both have one element."""
    added = len(shape) - len(value.shape)
    own = [(s if n == m else 0, n != 1 or m != 1) for n, s, m in zip(value.shape, value.strides, shape[added:], strict=True)]
    return [(0, True)] * added + own


def _column(columns: list[list[tuple[int, bool]]], number: int) -> Strides:
    return tuple(column[number][0] for column in columns)


def _repeats(values: Sequence[Extent], shape: tuple[int, ...]) -> bool:
    """Whether a value has no axis for the first one: it is repeated along a batch, even along a batch of one."""
    return any(len(value.shape) < len(shape) for value in values)


def _merged(extents: list[int], columns: list[list[tuple[int, bool]]]) -> tuple[list[int], list[list[tuple[int, bool]]]]:
    """Neighbouring axes as one wherever every value steps from the end of a run of the inner to the next one."""
    new_extents: list[int] = []
    new_columns: list[list[tuple[int, bool]]] = []
    for n, column in zip(extents, columns, strict=True):
        if new_extents and _follows(new_columns[-1], n, column):
            new_extents[-1] *= n
            new_columns[-1] = column
        else:
            new_extents.append(n)
            new_columns.append(column)
    return new_extents, new_columns


def _follows(outer: list[tuple[int, bool]], n: int, inner: list[tuple[int, bool]]) -> bool:
    return all(not matters or o == i * n for (o, matters), (i, _) in zip(outer, inner, strict=True))


def _cut(extents: tuple[int, ...], terms: tuple[Term, ...], element_bytes: int) -> Space:
    """Tasks of about TASK_BYTES of output; one task where two would be left."""
    total = 1
    for n in extents:
        total *= n
    target = max(1, TASK_BYTES // element_bytes)
    if total <= 2 * target:
        target = max(1, total)
    if len(extents) == 1:
        return Space(extents, terms, target)
    inner, middle = extents[-1], extents[-2]
    turned = any(term.is_turned for term in terms)
    piece = max(1, min(inner, TURNED_PIECE if turned else target))
    rows = max(1, min(middle, target // piece))
    if turned and rows < middle:
        rows = max(TURNED_ROWS, rows // TURNED_ROWS * TURNED_ROWS)
    return Space(extents, terms, piece, rows, max(1, target // (piece * rows)))
