"""Comparisons, logic and choice."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from irconv.errors import DTypeError
from irconv.op import NO_ATTRIBUTES, Site, Value, emit, lift
from irconv.ops.elementwise.rules import (
    BOOLEAN,
    Operand,
    binary,
    compare,
    define,
    float_only,
    logical,
    same,
)
from irconv.types import BOOL, TensorType, broadcast_shapes

# --- comparisons -------------------------------------------------------------------------------------------------------


def equal(x: Operand, y: Operand) -> Value:
    """x == y, as bool."""
    return binary(EQUAL, x, y)


EQUAL = define("equal", ("x", "y"), compare, np.equal, BOOLEAN)


def not_equal(x: Operand, y: Operand) -> Value:
    """x != y, as bool (true for NaN)."""
    return binary(NOT_EQUAL, x, y)


NOT_EQUAL = define("not_equal", ("x", "y"), compare, np.not_equal, BOOLEAN)


def less(x: Operand, y: Operand) -> Value:
    """x < y, as bool."""
    return binary(LESS, x, y)


LESS = define("less", ("x", "y"), compare, np.less, BOOLEAN)


def less_equal(x: Operand, y: Operand) -> Value:
    """x <= y, as bool."""
    return binary(LESS_EQUAL, x, y)


LESS_EQUAL = define("less_equal", ("x", "y"), compare, np.less_equal, BOOLEAN)


def greater(x: Operand, y: Operand) -> Value:
    """x > y, as bool."""
    return binary(GREATER, x, y)


GREATER = define("greater", ("x", "y"), compare, np.greater, BOOLEAN)


def greater_equal(x: Operand, y: Operand) -> Value:
    """x >= y, as bool."""
    return binary(GREATER_EQUAL, x, y)


GREATER_EQUAL = define("greater_equal", ("x", "y"), compare, np.greater_equal, BOOLEAN)


# --- logic -------------------------------------------------------------------------------------------------------------


def logical_and(x: Operand, y: Operand) -> Value:
    """x and y, on bool."""
    return binary(LOGICAL_AND, x, y)


LOGICAL_AND = define("logical_and", ("x", "y"), logical, np.logical_and, BOOLEAN)


def logical_or(x: Operand, y: Operand) -> Value:
    """x or y, on bool."""
    return binary(LOGICAL_OR, x, y)


LOGICAL_OR = define("logical_or", ("x", "y"), logical, np.logical_or, BOOLEAN)


def logical_xor(x: Operand, y: Operand) -> Value:
    """Exactly one of x and y, on bool."""
    return binary(LOGICAL_XOR, x, y)


LOGICAL_XOR = define("logical_xor", ("x", "y"), logical, np.logical_xor, BOOLEAN)


# --- logical_not -------------------------------------------------------------------------------------------------------


def logical_not(x: Value) -> Value:
    """Not x, on bool."""
    return emit(LOGICAL_NOT, NO_ATTRIBUTES, x)


LOGICAL_NOT = define("logical_not", ("x",), logical, np.logical_not, BOOLEAN)


# --- isnan, isinf ------------------------------------------------------------------------------------------------------


def isnan(x: Value) -> Value:
    """Whether x is not a number: the only value that differs from itself."""
    return not_equal(x, x)


def isinf(x: Value, positive: bool = True, negative: bool = True) -> Value:
    """Whether x is infinite; of the two infinities only those asked for count."""
    float_only(None, x.type)
    if positive and negative:
        return logical_or(equal(x, math.inf), equal(x, -math.inf))
    if positive or negative:
        return equal(x, math.inf if positive else -math.inf)
    return logical_and(equal(x, math.inf), equal(x, -math.inf))


# --- where -------------------------------------------------------------------------------------------------------------


def where(condition: Value, x: Operand, y: Operand) -> Value:
    """x where ``condition`` holds, y elsewhere.  The side not taken receives no gradient (not even from NaN)."""
    if isinstance(x, Value):
        return emit(WHERE, NO_ATTRIBUTES, condition, x, lift(y, x))
    if isinstance(y, Value):
        return emit(WHERE, NO_ATTRIBUTES, condition, lift(x, y), y)
    raise DTypeError("where of two plain numbers has no element type", hint="make one of them a tensor")


def _where_type(attributes: Any, condition: TensorType, x: TensorType, y: TensorType) -> TensorType:
    if condition.dtype is not BOOL:
        raise DTypeError(f"the condition of where is bool, got {condition.dtype}", hint="compare first (x != 0)")
    return TensorType(same(attributes, x, y).dtype, broadcast_shapes(condition.shape, x.shape, y.shape))


def _where_gradient(site: Site, d: Value) -> tuple[Value | None, ...]:
    condition = site.operands[0]
    return (
        None,
        where(condition, d, 0) if site.wanted[1] else None,
        where(condition, 0, d) if site.wanted[2] else None,
    )


WHERE = define("where", ("condition", "x", "y"), _where_type, np.where, _where_gradient)
