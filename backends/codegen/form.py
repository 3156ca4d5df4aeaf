"""The loop-level form from which C (and CUDA) is printed: its typed expressions; loops and stores are in :mod:`.statements`.

A function of this form has sizes and strides baked in as literals where they are known.  Values are scalars or vectors of
``lanes`` elements; a vector is as wide as the machine's registers, the printer maps it to the compiler's vector type.  Arithmetic
on expressions builds expressions (``i * 4 + j``) and folds what is known.

Comparisons of scalars give ``bool``; of vectors a *mask*: a vector of integers as wide as what was compared, all bits set where
it holds.  :func:`select` takes either.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

from irconv.backends.codegen.value import DOUBLE as DOUBLE
from irconv.backends.codegen.value import FLOAT as FLOAT
from irconv.backends.codegen.value import INDEX as INDEX
from irconv.backends.codegen.value import TRUTH as TRUTH
from irconv.backends.codegen.value import Type as Type
from irconv.errors import BackendError
from irconv.types import DType


class Expression:
    """A value computed at run time.  Every kind has a ``type``."""

    __slots__ = ()
    type: Type

    def __add__(self, other: Operand) -> Expression:
        return arithmetic("+", self, other)

    def __radd__(self, other: Operand) -> Expression:
        return arithmetic("+", other, self)

    def __sub__(self, other: Operand) -> Expression:
        return arithmetic("-", self, other)

    def __rsub__(self, other: Operand) -> Expression:
        return arithmetic("-", other, self)

    def __mul__(self, other: Operand) -> Expression:
        return arithmetic("*", self, other)

    def __rmul__(self, other: Operand) -> Expression:
        return arithmetic("*", other, self)

    def __truediv__(self, other: Operand) -> Expression:
        return arithmetic("/", self, other)

    def __floordiv__(self, other: Operand) -> Expression:
        """Integer division as C does it: towards zero.  Use it where neither side is negative."""
        return arithmetic("/", self, other)

    def __mod__(self, other: Operand) -> Expression:
        """Remainder of C's division; see ``//``."""
        return arithmetic("%", self, other)

    def __lt__(self, other: Operand) -> Expression:
        return compare("<", self, other)

    def __le__(self, other: Operand) -> Expression:
        return compare("<=", self, other)

    def __gt__(self, other: Operand) -> Expression:
        return compare(">", self, other)

    def __ge__(self, other: Operand) -> Expression:
        return compare(">=", self, other)

    def __and__(self, other: Operand) -> Expression:
        return arithmetic("&", self, other)

    def __or__(self, other: Operand) -> Expression:
        return arithmetic("|", self, other)

    def __xor__(self, other: Operand) -> Expression:
        return arithmetic("^", self, other)

    def __lshift__(self, other: Operand) -> Expression:
        return arithmetic("<<", self, other)

    def __rshift__(self, other: Operand) -> Expression:
        return arithmetic(">>", self, other)

    def __neg__(self) -> Expression:
        return Unary("-", self, self.type)

    def __invert__(self) -> Expression:
        """Bits (or lanes of a mask) turned round; of a scalar truth value its negation."""
        return Unary("!" if self.type == TRUTH else "~", self, self.type)


Operand = Expression | int | float


@dataclass(frozen=True, slots=True)
class Literal(Expression):
    """A number known now; of a vector type, the same in every lane."""

    value: int | float | bool
    type: Type


@dataclass(frozen=True, slots=True)
class Variable(Expression):
    """A local, a loop index or a parameter."""

    name: str
    type: Type


@dataclass(frozen=True, slots=True)
class Pointer:
    """A named address of elements."""

    name: str
    dtype: DType


@dataclass(frozen=True, slots=True)
class Unary(Expression):
    """Minus, the complement of bits, or the negation of a truth value."""

    operator: str  # - ~ !
    operand: Expression
    type: Type


@dataclass(frozen=True, slots=True)
class Binary(Expression):
    """Arithmetic or bits of two values of one type; a right shift keeps the sign of signed integers."""

    operator: str  # + - * / % & | ^ << >>
    left: Expression
    right: Expression
    type: Type


@dataclass(frozen=True, slots=True)
class Compare(Expression):
    """A truth value, or a mask if vectors are compared."""

    operator: str  # < <= > >= == !=
    left: Expression
    right: Expression
    type: Type


@dataclass(frozen=True, slots=True)
class Select(Expression):
    """``yes`` where the condition (a truth value or a mask) holds, else ``no``."""

    condition: Expression
    yes: Expression
    no: Expression
    type: Type


@dataclass(frozen=True, slots=True)
class Splat(Expression):
    """A scalar in every lane."""

    value: Expression
    type: Type


@dataclass(frozen=True, slots=True)
class Convert(Expression):
    """The value as another element type, lane by lane, rounding as C does."""

    value: Expression
    type: Type


@dataclass(frozen=True, slots=True)
class Bits(Expression):
    """The same bits read as another type of the same size."""

    value: Expression
    type: Type


@dataclass(frozen=True, slots=True)
class Lane(Expression):
    """One lane of a vector."""

    value: Expression
    index: Expression
    type: Type


@dataclass(frozen=True, slots=True)
class Call(Expression):
    """A function of the printer's library (see FUNCTIONS there): max, min, sqrt, exp, ..."""

    function: str
    arguments: tuple[Expression, ...]
    type: Type


@dataclass(frozen=True, slots=True)
class Load(Expression):
    """``lanes`` elements from ``pointer[index]`` on; with ``count``, only so many are read and the other lanes are 0."""

    pointer: Pointer
    index: Expression
    type: Type
    count: Expression | None = None


@dataclass(frozen=True, slots=True)
class Gather(Expression):
    """``pointer[index + i * stride]`` in lane i; with ``count``, only so many are read and the other lanes are 0."""

    pointer: Pointer
    index: Expression
    stride: Expression
    type: Type
    count: Expression | None = None


# --- constructors that fold --------------------------------------------------------------------------------------------------


def literal(value: float, type_: Type = INDEX) -> Literal:
    """A number of this type."""
    return Literal(value, type_)


def as_expression(value: Operand, like: Type) -> Expression:
    """An expression as it is, a Python number as a literal of ``like``."""
    return value if isinstance(value, Expression) else Literal(value, like)


def _pair(left: Operand, right: Operand) -> tuple[Expression, Expression]:
    """Both as expressions of one type: numbers take the other's, a scalar beside a vector is spread over its lanes."""
    if not isinstance(left, Expression):
        if not isinstance(right, Expression):
            raise BackendError("an expression needs at least one side that is computed")
        left = Literal(left, right.type)
    right = as_expression(right, left.type)
    if left.type.lanes == right.type.lanes:
        return left, right
    return (splat(left, right.type.lanes), right) if left.type.lanes == 1 else (left, splat(right, left.type.lanes))


_FOLD: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: a // b if a >= 0 and b > 0 else -(-a // b),
    "%": lambda a, b: int(math.fmod(a, b)),
}


def arithmetic(sign: str, left: Operand, right: Operand) -> Expression:
    """``left sign right``; index arithmetic with numbers is done now."""
    a, b = _pair(left, right)
    if sign in "+*" and isinstance(a, Literal):
        a, b = b, a
    if a.type == INDEX and isinstance(b, Literal):
        folded = _folded(sign, a, int(b.value))
        if folded is not None:
            return folded
    return Binary(sign, a, b, a.type)


def _folded(sign: str, a: Expression, number: int) -> Expression | None:
    """Index arithmetic with a known right side, where it need not be done at run time."""
    if isinstance(a, Literal) and sign in _FOLD:
        return Literal(_FOLD[sign](int(a.value), number), INDEX)
    if (number == 0 and sign in ("+", "-")) or (number == 1 and sign in ("*", "/")):
        return a
    if (number == 0 and sign == "*") or (number == 1 and sign == "%"):
        return Literal(0, INDEX)
    return None


def compare(operator: str, left: Operand, right: Operand) -> Expression:
    """A comparison: ``<``, ``<=``, ``>``, ``>=``, ``==`` or ``!=``."""
    a, b = _pair(left, right)
    return Compare(operator, a, b, a.type.mask)


def select(condition: Expression, yes: Operand, no: Operand) -> Expression:
    """``yes`` where the condition holds, else ``no``."""
    a, b = _pair(yes, no)
    if condition.type.lanes != a.type.lanes:
        a, b = splat(a, condition.type.lanes), splat(b, condition.type.lanes)
    return Select(condition, a, b, a.type)


def splat(value: Expression, lanes: int) -> Expression:
    """A scalar in every one of ``lanes`` lanes; a vector of so many as it is."""
    if value.type.lanes == lanes:
        return value
    if value.type.lanes != 1:
        raise BackendError(f"a vector of {value.type.lanes} lanes cannot be spread over {lanes}")
    type_ = Type(value.type.dtype, lanes)
    return Literal(value.value, type_) if isinstance(value, Literal) else Splat(value, type_)


def convert(value: Expression, dtype: DType) -> Expression:
    """The value with another element type."""
    return value if value.type.dtype == dtype else Convert(value, Type(dtype, value.type.lanes))


def call(function: str, *arguments: Operand) -> Expression:
    """A function of the printer's library; the result has the type of the first computed argument."""
    type_ = next(a.type for a in arguments if isinstance(a, Expression))
    lanes = max((a.type.lanes for a in arguments if isinstance(a, Expression)), default=1)
    spread = tuple(splat(as_expression(a, type_.scalar), lanes) for a in arguments)
    return Call(function, spread, Type(type_.dtype, lanes))


def load(pointer: Pointer, index: Operand, lanes: int = 1, count: Operand | None = None) -> Load:
    """``lanes`` neighbours from ``pointer[index]`` on (``count`` of them, the others 0)."""
    part = None if count is None else as_expression(count, INDEX)
    return Load(pointer, as_expression(index, INDEX), Type(pointer.dtype, lanes), part)


def both(first: Expression, second: Expression) -> Expression:
    """Whether both truth values (or lanes of masks) hold."""
    return Binary("&", first, second, first.type)

