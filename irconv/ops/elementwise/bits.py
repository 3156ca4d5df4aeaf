"""Integers as rows of bits: and, or, exclusive or, not, and shifts."""

from __future__ import annotations

from typing import Any

import numpy as np

from irconv.errors import DTypeError
from irconv.op import NO_ATTRIBUTES, NoGradient, Value, emit
from irconv.ops.elementwise.rules import Operand, binary, define, same
from irconv.types import TensorType

BITS = NoGradient("bits do not change smoothly")


def _integers(attributes: Any, *operands: TensorType) -> TensorType:
    for t in operands:
        if not t.dtype.is_integer:
            hint = "use logical_and, logical_or, logical_xor, logical_not" if t.dtype.kind == "bool" else "cast first"
            raise DTypeError(f"works on the bits of integers, got {t.dtype}", hint=hint)
    return same(attributes, *operands)


# --- bitwise_and, bitwise_or, bitwise_xor, bitwise_not -----------------------------------------------------------------


def bitwise_and(x: Operand, y: Operand) -> Value:
    """The bits set in both x and y."""
    return binary(BITWISE_AND, x, y)


BITWISE_AND = define("bitwise_and", ("x", "y"), _integers, np.bitwise_and, BITS)


def bitwise_or(x: Operand, y: Operand) -> Value:
    """The bits set in x or y."""
    return binary(BITWISE_OR, x, y)


BITWISE_OR = define("bitwise_or", ("x", "y"), _integers, np.bitwise_or, BITS)


def bitwise_xor(x: Operand, y: Operand) -> Value:
    """The bits set in exactly one of x and y."""
    return binary(BITWISE_XOR, x, y)


BITWISE_XOR = define("bitwise_xor", ("x", "y"), _integers, np.bitwise_xor, BITS)


def bitwise_not(x: Value) -> Value:
    """The bits not set in x; -1 - x for a signed one."""
    return emit(BITWISE_NOT, NO_ATTRIBUTES, x)


BITWISE_NOT = define("bitwise_not", ("x",), _integers, np.invert, BITS)


# --- shift_left, shift_right -------------------------------------------------------------------------------------------


def shift_left(x: Operand, y: Operand) -> Value:
    """x times 2 to the y, bits beyond the type's width lost.  y is at least 0 and less than the number of bits of the type."""
    return binary(SHIFT_LEFT, x, y)


SHIFT_LEFT = define("shift_left", ("x", "y"), _integers, np.left_shift, BITS)


def shift_right(x: Operand, y: Operand) -> Value:
    """floor(x / 2^y): a negative x stays negative.  y is at least 0 and less than the number of bits of the type."""
    return binary(SHIFT_RIGHT, x, y)


SHIFT_RIGHT = define("shift_right", ("x", "y"), _integers, np.right_shift, BITS)
