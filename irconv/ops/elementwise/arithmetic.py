"""Arithmetic, rounding, bounds and conversion."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv.errors import AttributeValueError
from irconv.op import NO_ATTRIBUTES, Fusion, NoGradient, OpDef, Site, Value, emit, no_work, register
from irconv.ops.elementwise.compare import (
    equal,
    greater,
    greater_equal,
    less_equal,
    logical_and,
    logical_or,
    not_equal,
    where,
)
from irconv.ops.elementwise.rules import (
    PIECEWISE_CONSTANT,
    Number,
    Operand,
    binary,
    define,
    float_only,
    numeric,
    same,
    same_numeric,
)
from irconv.types import DType, TensorType, as_dtype

# --- negative ----------------------------------------------------------------------------------------------------------


def negative(x: Value) -> Value:
    """-x."""
    return emit(NEGATIVE, NO_ATTRIBUTES, x)


NEGATIVE = define("negative", ("x",), numeric, np.negative, lambda site, d: (negative(d),))


# --- absolute ----------------------------------------------------------------------------------------------------------


def absolute(x: Value) -> Value:
    """abs(x); its derivative is sign(x), 0 at 0."""
    return emit(ABSOLUTE, NO_ATTRIBUTES, x)


ABSOLUTE = define("absolute", ("x",), numeric, np.absolute, lambda site, d: (multiply(d, sign(site.operands[0])),))


# --- sign --------------------------------------------------------------------------------------------------------------


def sign(x: Value) -> Value:
    """-1, 0 or 1 (NaN stays)."""
    return emit(SIGN, NO_ATTRIBUTES, x)


SIGN = define("sign", ("x",), numeric, np.sign, PIECEWISE_CONSTANT)


# --- square ------------------------------------------------------------------------------------------------------------


def square(x: Value) -> Value:
    """x * x."""
    return emit(SQUARE, NO_ATTRIBUTES, x)


SQUARE = define("square", ("x",), numeric, np.square, lambda site, d: (multiply(d, multiply(site.operands[0], 2)),))


# --- floor, ceil, round ------------------------------------------------------------------------------------------------


def floor(x: Value) -> Value:
    """The largest integer not above x."""
    return emit(FLOOR, NO_ATTRIBUTES, x)


FLOOR = define("floor", ("x",), float_only, np.floor, PIECEWISE_CONSTANT)


def ceil(x: Value) -> Value:
    """The smallest integer not below x."""
    return emit(CEIL, NO_ATTRIBUTES, x)


CEIL = define("ceil", ("x",), float_only, np.ceil, PIECEWISE_CONSTANT)


def round_(x: Value) -> Value:
    """The nearest integer, ties to even (as NumPy and ONNX)."""
    return emit(ROUND, NO_ATTRIBUTES, x)


ROUND = define("round", ("x",), float_only, np.rint, PIECEWISE_CONSTANT)


# --- relu --------------------------------------------------------------------------------------------------------------


def relu(x: Value) -> Value:
    """max(x, 0), NaN kept; its derivative is 1 for x > 0 and 0 otherwise, so relu'(0) = 0 (read off the output)."""
    return emit(RELU, NO_ATTRIBUTES, x)


def _relu_gradient(site: Site, d: Value) -> tuple[Value]:
    return (where(greater(site.result, 0), d, 0),)


RELU = define("relu", ("x",), numeric, lambda x: np.maximum(x, x.dtype.type(0)), _relu_gradient)


# --- copy, stop_gradient -----------------------------------------------------------------------------------------------


def copy(x: Value) -> Value:
    """x in a buffer of its own (an output that would otherwise be a view of something else)."""
    return emit(COPY, NO_ATTRIBUTES, x)


COPY = define("copy", ("x",), lambda attributes, x: TensorType(x.dtype, x.shape), np.copy, lambda site, d: (d,))


def stop_gradient(x: Value) -> Value:
    """x, through which no gradient flows back."""
    return emit(STOP_GRADIENT, NO_ATTRIBUTES, x)


STOP_GRADIENT = define(
    "stop_gradient",
    ("x",),
    lambda attributes, x: TensorType(x.dtype, x.shape),
    np.copy,
    NoGradient("it was asked to stop the gradient"),
)


# --- cast --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CastAttributes:
    """dtype: the element type to convert to."""

    dtype: DType


def cast(x: Value, dtype: Any) -> Value:
    """x converted to ``dtype`` (float to integer truncates toward zero; to bool: x != 0).  x itself if it has that type."""
    target = as_dtype(dtype)
    return x if x.type.dtype is target else emit(CAST, CastAttributes(target), x)


def _cast_reference(attributes: CastAttributes, x: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        return x.astype(attributes.dtype.numpy)


def _cast_gradient(site: Site, d: Value) -> tuple[Value | None]:
    source = site.operands[0].type.dtype
    both_float = source.is_float and site.result.type.dtype.is_float
    return (cast(d, source) if both_float else None,)


CAST = register(
    OpDef(
        "cast",
        ("x",),
        infer=lambda attributes, x: TensorType(attributes.dtype, x.shape),
        reference=_cast_reference,
        gradient=_cast_gradient,
        fusion=Fusion.ELEMENTWISE,
        attributes=CastAttributes,
        cost=no_work,
    )
)


# --- clip --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClipAttributes:
    """minimum, maximum: the bounds, infinite for none; minimum <= maximum."""

    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        if not self.minimum <= self.maximum:
            raise AttributeValueError(f"clip bounds are not in order: {self.minimum} > {self.maximum}")


def clip(x: Value, minimum: Number | None = None, maximum: Number | None = None) -> Value:
    """min(max(x, minimum), maximum); the gradient passes at the bounds themselves, and NaN stays NaN."""
    low = -math.inf if minimum is None else float(minimum)
    high = math.inf if maximum is None else float(maximum)
    return emit(CLIP, ClipAttributes(low, high), x)


def clip_bounds(attributes: ClipAttributes, dtype: DType) -> tuple[Any, Any]:
    """The bounds as numbers of ``dtype``: infinite and too large ones become the type's own extremes."""
    low, high = attributes.minimum, attributes.maximum
    if dtype.is_float:
        with np.errstate(over="ignore"):  # a bound too large for float16 is no bound
            return dtype.numpy.type(low), dtype.numpy.type(high)
    clamp = [min(max(b, dtype.lowest), dtype.highest) for b in (low, high)]
    return dtype.numpy.type(math.ceil(clamp[0])), dtype.numpy.type(math.floor(clamp[1]))


def _clip_reference(attributes: ClipAttributes, x: np.ndarray) -> np.ndarray:
    low, high = clip_bounds(attributes, as_dtype(x.dtype))
    return np.minimum(np.maximum(x, low), high)


def _clip_gradient(site: Site, d: Value) -> tuple[Value]:
    x = site.operands[0]
    inside = logical_and(greater_equal(x, site.attributes.minimum), less_equal(x, site.attributes.maximum))
    return (where(inside, d, 0),)


CLIP = register(
    OpDef(
        "clip",
        ("x",),
        infer=numeric,
        reference=_clip_reference,
        gradient=_clip_gradient,
        fusion=Fusion.ELEMENTWISE,
        attributes=ClipAttributes,
    )
)


# --- arithmetic on two operands ----------------------------------------------------------------------------------------


def add(x: Operand, y: Operand) -> Value:
    """x + y."""
    return binary(ADD, x, y)


ADD = define("add", ("x", "y"), same_numeric, np.add, lambda site, d: (d, d))


def subtract(x: Operand, y: Operand) -> Value:
    """x - y."""
    return binary(SUBTRACT, x, y)


SUBTRACT = define(
    "subtract",
    ("x", "y"),
    same_numeric,
    np.subtract,
    lambda site, d: (d, negative(d) if site.wanted[1] else None),
)


def multiply(x: Operand, y: Operand) -> Value:
    """x * y."""
    return binary(MULTIPLY, x, y)


def _multiply_gradient(site: Site, d: Value) -> tuple[Value | None, ...]:
    x, y = site.operands
    return (multiply(d, y) if site.wanted[0] else None, multiply(d, x) if site.wanted[1] else None)


MULTIPLY = define("multiply", ("x", "y"), same_numeric, np.multiply, _multiply_gradient)


def divide(x: Operand, y: Operand) -> Value:
    """x / y, on floats (integers: :func:`floor_divide`)."""
    return binary(DIVIDE, x, y)


def _divide_type(attributes: Any, x: TensorType, y: TensorType) -> TensorType:
    float_only(attributes, x)
    return same(attributes, x, y)


def _divide_gradient(site: Site, d: Value) -> tuple[Value | None, ...]:
    # d(x/y)/dy = -x/y^2 = -(x/y)/y: the quotient is there already
    y = site.operands[1]
    by_y = divide(d, y)
    return (
        by_y if site.wanted[0] else None,
        negative(multiply(by_y, site.result)) if site.wanted[1] else None,
    )


DIVIDE = define("divide", ("x", "y"), _divide_type, np.divide, _divide_gradient)


def floor_divide(x: Operand, y: Operand) -> Value:
    """floor(x / y); an integer divided by zero gives 0, as NumPy."""
    return binary(FLOOR_DIVIDE, x, y)


FLOOR_DIVIDE = define("floor_divide", ("x", "y"), same_numeric, np.floor_divide, PIECEWISE_CONSTANT)


def remainder(x: Operand, y: Operand) -> Value:
    """x - floor(x / y) * y: the remainder with the sign of y, as NumPy."""
    return binary(REMAINDER, x, y)


def _remainder_gradient(site: Site, d: Value) -> tuple[Value | None, ...]:
    x, y = site.operands
    return (d, negative(multiply(d, floor_divide(x, y))) if site.wanted[1] else None)


REMAINDER = define("remainder", ("x", "y"), same_numeric, np.remainder, _remainder_gradient)


def _extremum_gradient(site: Site, d: Value) -> tuple[Value | None, ...]:
    """The whole gradient to the operand that won, half to each where they are equal (NaN counts as the winner)."""
    half = multiply(d, 0.5)
    shares: list[Value | None] = []
    for wanted, operand, other in zip(site.wanted, site.operands, site.operands[::-1], strict=True):
        if not wanted:
            shares.append(None)
            continue
        won = logical_and(equal(operand, site.result), not_equal(operand, other))
        won = logical_or(won, not_equal(operand, operand))
        shares.append(where(won, d, where(equal(operand, other), half, 0)))
    return tuple(shares)


def minimum(x: Operand, y: Operand) -> Value:
    """The smaller of x and y, NaN if either is; equals share the gradient half and half."""
    return binary(MINIMUM, x, y)


MINIMUM = define("minimum", ("x", "y"), same, np.minimum, _extremum_gradient)


def maximum(x: Operand, y: Operand) -> Value:
    """The larger of x and y, NaN if either is; equals share the gradient half and half."""
    return binary(MAXIMUM, x, y)


MAXIMUM = define("maximum", ("x", "y"), same, np.maximum, _extremum_gradient)
