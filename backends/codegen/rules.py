"""What the rules of elementwise ops share: what they are given, and when they apply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import Bits, Expression, Literal, Type, arithmetic, convert
from irconv.types import BOOL, F32, F64, U32, U64, DType


@dataclass(frozen=True)
class Application:
    """An op applied to expressions.

    body:       where locals can be declared that the rule uses twice.
    attributes: the op's.
    operands:   expressions of one number of lanes; truth values are masks if there is more than one.
    dtypes:     element types of the operands; dtype: of the result.
    numbers:    the operands that are constants, as Python numbers, None for the others.
    stored:     the first operand's element type in the graph (float16 comes as float32).
    """

    body: Body
    attributes: Any
    operands: tuple[Expression, ...]
    dtypes: tuple[DType, ...]
    dtype: DType
    numbers: tuple[Any, ...]
    stored: DType
    lanes: int

    @property
    def x(self) -> Expression:
        return self.operands[0]

    @property
    def y(self) -> Expression:
        return self.operands[1]

    @property
    def type(self) -> Type:
        """Of the result (as numbers; a truth value in vectors is a mask)."""
        return Type(self.dtype, self.lanes)

    def number(self, value: float) -> Literal:
        """A number of the first operand's type in every lane."""
        return Literal(value, self.operands[0].type)


Test = Callable[[tuple[DType, ...], DType, tuple[Any, ...]], bool]


def always(operands: tuple[DType, ...], result: DType, numbers: tuple[Any, ...]) -> bool:
    return True


def never(operands: tuple[DType, ...], result: DType, numbers: tuple[Any, ...]) -> bool:
    return False


def floats_only(operands: tuple[DType, ...], result: DType, numbers: tuple[Any, ...]) -> bool:
    """float32 and float64 operands."""
    return all(d in (F32, F64) for d in operands)


@dataclass(frozen=True)
class Rule:
    """How an op becomes an expression.

    make:    the expression.
    vectors: for which element types and constant operands it has code on vectors; scalars: on scalars.
    """

    make: Callable[[Application], Expression]
    vectors: Test = always
    scalars: Test = always

    def applies(self, operands: tuple[DType, ...], result: DType, numbers: tuple[Any, ...], lanes: int) -> bool:
        return (self.scalars if lanes == 1 else self.vectors)(operands, result, numbers)


def wrapping(sign: str, left: Expression, right: Expression) -> Expression:
    """``left sign right`` of integers, modulo 2 to the number of bits: as unsigned numbers, which C lets wrap."""
    if left.type.lanes > 1:
        unsigned = left.type.unsigned
        return Bits(arithmetic(sign, Bits(left, unsigned), Bits(right, unsigned)), left.type)
    wide = U64 if left.type.dtype.bytes == 8 else U32  # smaller ones would be computed as signed int
    return convert(arithmetic(sign, convert(left, wide), convert(right, wide)), left.type.dtype)


def is_truth(application: Application) -> bool:
    """Whether the operands are truth values."""
    return application.dtypes[0] is BOOL
