"""What a pooling window is folded into, tap by tap: its extremum, the tap that holds it, its sum, or the tap of a given number.

State and steps are expressions over scalars or vectors of any width, so one fold serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import Bits, Expression, Literal, Type, compare, convert, literal, select, splat
from irconv.types import I16, I32, I64, DType

Read = Callable[[int], Expression]
"""``read(position)``: the element of an operand that belongs to the window itself."""


class Fold(Protocol):
    """``state`` is a tuple of expressions that have the types of ``first``'s.

    first:   the state after tap 0 with value ``x``.
    nothing: the state before any tap; ``tap`` is the number of the first one inside the input.
    step:    the state after one more tap.
    results: what is stored, one value per output, given the window's divisor as a scalar.
    """

    @property
    def divides(self) -> bool: ...

    def first(self, x: Expression, read: Read) -> tuple[Expression, ...]: ...

    def nothing(self, type_: Type, tap: Expression) -> tuple[Expression, ...]: ...

    def step(self, state: tuple[Expression, ...], x: Expression, tap: Expression, read: Read) -> tuple[Expression, ...]: ...

    def results(self, state: tuple[Expression, ...], divisor: Expression | None) -> tuple[Expression, ...]: ...


def tap_type(type_: Type) -> Type:
    """What tap numbers are kept in beside values of this type: as wide as a mask of it."""
    return type_.mask if type_.lanes > 1 else Type(I32)


def tap_number(tap: Expression, type_: Type) -> Expression:
    """A tap number of this type."""
    if isinstance(tap, Literal):
        return Literal(tap.value, type_)
    return splat(convert(tap, type_.dtype), type_.lanes)


@dataclass(frozen=True)
class Extremum:
    """The largest (or smallest) element; NaN wins."""

    largest: bool
    divides: bool = False

    def first(self, x: Expression, read: Read) -> tuple[Expression, ...]:
        return (x,)

    def nothing(self, type_: Type, tap: Expression) -> tuple[Expression, ...]:
        return (_worst(type_, self.largest),)

    def step(self, state: tuple[Expression, ...], x: Expression, tap: Expression, read: Read) -> tuple[Expression, ...]:
        (best,) = state
        return (select(_wins(x, best, self.largest), x, best),)

    def results(self, state: tuple[Expression, ...], divisor: Expression | None) -> tuple[Expression, ...]:
        return state


@dataclass(frozen=True)
class Winner:
    """The extremum and its tap, the first of equals and the first NaN; ``outputs``: the types of what is stored.

    value_at, tap_at: the places of both among the outputs, -1 for one that is not wanted.
    """

    largest: bool
    value_at: int
    tap_at: int
    divides: bool = False

    def first(self, x: Expression, read: Read) -> tuple[Expression, ...]:
        return x, Literal(0, tap_type(x.type))

    def nothing(self, type_: Type, tap: Expression) -> tuple[Expression, ...]:
        return _worst(type_, self.largest), tap_number(tap, tap_type(type_))

    def step(self, state: tuple[Expression, ...], x: Expression, tap: Expression, read: Read) -> tuple[Expression, ...]:
        best, winner = state
        wins = _wins(x, best, self.largest)
        return select(wins, x, best), select(wins, tap_number(tap, winner.type), winner)

    def results(self, state: tuple[Expression, ...], divisor: Expression | None) -> tuple[Expression, ...]:
        wanted = {self.value_at: state[0], self.tap_at: state[1]}
        return tuple(wanted[at] for at in sorted(wanted) if at >= 0)


@dataclass(frozen=True)
class Average:
    """The sum over the divisor."""

    divides: bool = True

    def first(self, x: Expression, read: Read) -> tuple[Expression, ...]:
        return (x,)

    def nothing(self, type_: Type, tap: Expression) -> tuple[Expression, ...]:
        return (Literal(0, type_),)

    def step(self, state: tuple[Expression, ...], x: Expression, tap: Expression, read: Read) -> tuple[Expression, ...]:
        return (state[0] + x,)

    def results(self, state: tuple[Expression, ...], divisor: Expression | None) -> tuple[Expression, ...]:
        assert divisor is not None
        return (state[0] / number_like(divisor, state[0].type),)


@dataclass(frozen=True)
class Chosen:
    """The element of the tap that the operand at position ``names`` names, 0 where the window has none inside."""

    names: int
    divides: bool = False

    def first(self, x: Expression, read: Read) -> tuple[Expression, ...]:
        return self.step(self.nothing(x.type, literal(0)), x, literal(0), read)

    def nothing(self, type_: Type, tap: Expression) -> tuple[Expression, ...]:
        return (Literal(0, type_),)

    def step(self, state: tuple[Expression, ...], x: Expression, tap: Expression, read: Read) -> tuple[Expression, ...]:
        named = read(self.names)
        return (select(compare("==", named, tap_number(tap, named.type)), x, state[0]),)

    def results(self, state: tuple[Expression, ...], divisor: Expression | None) -> tuple[Expression, ...]:
        return state


def fold_all(body: Body, fold: Fold, values: Sequence[Expression], read: Read) -> tuple[Expression, ...]:
    """The state after all taps of a window, given their values in order.

    The winning tap is the first one with the bits of the extremum, which is a copy of it: one comparison for each tap, where
    keeping up with the best so far takes a mask of several.
    """
    if isinstance(fold, Winner):
        (best,) = fold_all(body, Extremum(fold.largest), values, read)
        winner: Expression = Literal(len(values) - 1, tap_type(best.type))
        for number in range(len(values) - 2, -1, -1):
            same = compare("==", _bits(values[number]), _bits(best))
            winner = body.let("winner", select(same, Literal(number, winner.type), winner))
        return best, winner
    state = fold.first(values[0], read)
    for number, value in enumerate(values[1:], start=1):
        state = tuple(body.let("state", part) for part in fold.step(state, value, literal(number), read))
    return state


def _bits(value: Expression) -> Expression:
    """The bits of a number as an integer, which tells NaNs and zeros of either sign apart."""
    if not value.type.dtype.is_float:
        return value
    return Bits(value, Type(I64 if value.type.dtype.bytes == 8 else I32, value.type.lanes))


def narrowed(value: Expression, dtype: DType) -> Expression:
    """Integers as those of ``dtype``, vectors by halving: compilers convert to less than half the size lane by lane."""
    halves = {8: I32, 4: I16}
    while value.type.lanes > 1 and value.type.dtype.bytes > 2 * dtype.bytes:
        value = convert(value, halves[value.type.dtype.bytes])
    return convert(value, dtype)


def number_like(value: Expression, type_: Type) -> Expression:
    """A count as a number of this type."""
    if isinstance(value, Literal):
        return Literal(value.value, type_)
    return splat(convert(value, type_.dtype), type_.lanes)


def _wins(x: Expression, best: Expression, largest: bool) -> Expression:
    """Whether x takes the place of the best so far: it is better, or the first NaN."""
    if not x.type.dtype.is_float:
        return x > best if largest else x < best
    # unless it is no better (which NaN never is), or the best is NaN already
    return ~(x <= best if largest else x >= best) & compare("==", best, best)


def _worst(type_: Type, largest: bool) -> Expression:
    return Literal(type_.dtype.lowest if largest else type_.dtype.highest, type_)
