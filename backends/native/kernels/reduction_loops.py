"""Loops over vectors with their ends, and the folding of lanes, as reducing kernels share them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import Expression, Lane, Literal, Type, compare, convert, literal, load, select, splat
from irconv.types import I32, I64

Merge = Callable[[Expression, Expression], Expression]


def each_column(
    body: Body, width: Expression, lanes: int, emit: Callable[[Expression, Expression | None], None]
) -> None:
    """``emit(c, count)`` for vectors of columns: whole ones (count None), then what is left."""
    whole = body.let("whole", width // lanes * lanes)
    with body.loop("c", 0, whole, lanes) as c:
        emit(c, None)
    if lanes > 1:
        left = body.let("left", width - whole)
        with body.when(left > 0):
            emit(whole, left)


def each_row(body: Body, count: Expression, rows: int, emit: Callable[[Expression, int], None]) -> None:
    """``emit(row, n)`` for groups of ``rows`` rows, then for single ones."""
    groups = body.let("grouped", count // rows * rows)
    with body.loop("row", 0, groups, rows) as row:
        emit(row, rows)
    with body.loop("row", groups, count) as row:
        emit(row, 1)


def each_vector(
    body: Body, count: Expression, lanes: int, ways: int, emit: Callable[[int, Expression, Expression | None], None]
) -> None:
    """``emit(way, at, left)`` for the vectors of a row: ``ways`` side by side, then single ones, then what is left."""
    step = ways * lanes
    groups = body.let("grouped", count // step * step)
    with body.loop("at", 0, groups, step) as at:
        for way in range(ways):
            emit(way, at + way * lanes, None)
    whole = body.let("whole", count // lanes * lanes)
    with body.loop("at", groups, whole, lanes) as at:
        emit(0, at, None)
    if lanes > 1:
        left = body.let("left", count - whole)
        with body.when(left > 0):
            emit(0, whole, left)


def lane_numbers(body: Body, element_bytes: int, lanes: int) -> Expression:
    """0, 1, 2, ... in the lanes of a vector, as integers of this size."""
    dtype = I64 if element_bytes == 8 else I32
    if lanes == 1:
        return Literal(0, Type(dtype))
    array = body.array("numbers", dtype, lanes)
    for lane in range(lanes):
        body.store(array, lane, Literal(lane, Type(dtype)))
    return body.let("lane_numbers", load(array, 0, lanes))


def only(numbers: Expression, count: Expression, value: Expression, other: Expression) -> Expression:
    """The first ``count`` lanes of ``value``, and ``other`` in the rest."""
    bound = splat(convert(count, numbers.type.dtype), numbers.type.lanes)
    return select(compare("<", numbers, bound), value, other)


def paired(body: Body, merge: Merge, values: Sequence[Expression]) -> Expression:
    """Values (a power of two of them) merged in pairs, in a fixed order."""
    left = list(values)
    while len(left) > 1:
        half = len(left) // 2
        left = [body.let("pair", merge(a, b)) for a, b in zip(left[:half], left[half:], strict=True)]
    return left[0]


def across(
    body: Body, merge: Merge, together: Callable[[Body, Sequence[Expression]], Expression], value: Expression
) -> Expression:
    """The lanes of a vector merged in pairs: halves as vectors down to four lanes, those as scalars by ``together``."""
    vector = body.let("lanes", value)
    lanes = vector.type.lanes
    if lanes == 1:
        return vector
    array = body.array("half", vector.type.dtype, lanes)
    while lanes > 4:
        lanes //= 2
        body.store(array, 0, vector)
        vector = body.let("lanes", merge(body.let("lower", load(array, 0, lanes)), body.let("upper", load(array, lanes, lanes))))
    return together(body, [body.let("lane", Lane(vector, literal(lane), vector.type.scalar)) for lane in range(lanes)])
