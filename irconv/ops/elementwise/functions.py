"""Functions of floating-point numbers: powers, exponentials, logarithms, trigonometry."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from irconv.errors import DTypeError
from irconv.op import NO_ATTRIBUTES, Site, Value, emit
from irconv.ops.elementwise.arithmetic import add, divide, multiply, negative, square, subtract
from irconv.ops.elementwise.compare import (
    equal,
    where,
)
from irconv.ops.elementwise.rules import (
    Operand,
    binary,
    define,
    float_only,
    same_numeric,
    wide,
)
from irconv.types import TensorType

# --- exp ---------------------------------------------------------------------------------------------------------------


def exp(x: Value) -> Value:
    """e to the x."""
    return emit(EXP, NO_ATTRIBUTES, x)


EXP = define("exp", ("x",), float_only, wide(np.exp), lambda site, d: (multiply(d, site.result),))


# --- expm1 -------------------------------------------------------------------------------------------------------------


def expm1(x: Value) -> Value:
    """exp(x) - 1, accurate near 0."""
    return emit(EXPM1, NO_ATTRIBUTES, x)


EXPM1 = define("expm1", ("x",), float_only, wide(np.expm1), lambda site, d: (multiply(d, add(site.result, 1.0)),))


# --- log ---------------------------------------------------------------------------------------------------------------


def log(x: Value) -> Value:
    """Natural logarithm: -inf at 0, NaN below."""
    return emit(LOG, NO_ATTRIBUTES, x)


LOG = define("log", ("x",), float_only, wide(np.log), lambda site, d: (divide(d, site.operands[0]),))


# --- log1p -------------------------------------------------------------------------------------------------------------


def log1p(x: Value) -> Value:
    """log(1 + x), accurate near 0."""
    return emit(LOG1P, NO_ATTRIBUTES, x)


LOG1P = define("log1p", ("x",), float_only, wide(np.log1p), lambda site, d: (divide(d, add(site.operands[0], 1.0)),))


# --- sqrt --------------------------------------------------------------------------------------------------------------


def sqrt(x: Value) -> Value:
    """Square root; its derivative is 1 / (2 sqrt(x))."""
    return emit(SQRT, NO_ATTRIBUTES, x)


SQRT = define("sqrt", ("x",), float_only, wide(np.sqrt), lambda site, d: (divide(multiply(d, 0.5), site.result),))


# --- rsqrt -------------------------------------------------------------------------------------------------------------


def rsqrt(x: Value) -> Value:
    """1 / sqrt(x); its derivative is -1/2 x^(-3/2) = -1/2 r^3."""
    return emit(RSQRT, NO_ATTRIBUTES, x)


def _rsqrt_gradient(site: Site, d: Value) -> tuple[Value]:
    r = site.result
    return (multiply(multiply(d, -0.5), multiply(r, square(r))),)


RSQRT = define("rsqrt", ("x",), float_only, wide(lambda x: 1 / np.sqrt(x)), _rsqrt_gradient)


# --- tanh --------------------------------------------------------------------------------------------------------------


def tanh(x: Value) -> Value:
    """Hyperbolic tangent; its derivative is 1 - tanh(x)^2."""
    return emit(TANH, NO_ATTRIBUTES, x)


TANH = define("tanh", ("x",), float_only, wide(np.tanh), lambda site, d: (multiply(d, subtract(1.0, square(site.result))),))


# --- sigmoid -----------------------------------------------------------------------------------------------------------


def sigmoid(x: Value) -> Value:
    """1 / (1 + exp(-x)), without overflow; its derivative is s (1 - s)."""
    return emit(SIGMOID, NO_ATTRIBUTES, x)


def _sigmoid_reference(x: np.ndarray) -> np.ndarray:
    # exp of a non-positive number cannot overflow: use s(x) = e^x / (1 + e^x) on the left half
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


SIGMOID = define(
    "sigmoid",
    ("x",),
    float_only,
    wide(_sigmoid_reference),
    lambda site, d: (multiply(d, multiply(site.result, subtract(1.0, site.result))),),
)


# --- erf ---------------------------------------------------------------------------------------------------------------


def erf(x: Value) -> Value:
    """The error function 2/sqrt(pi) * integral of exp(-t^2) from 0 to x."""
    return emit(ERF, NO_ATTRIBUTES, x)


_math_erf = np.frompyfunc(math.erf, 1, 1)  # the reference: the C library's double-precision erf


def _erf_reference(x: np.ndarray) -> np.ndarray:
    return np.asarray(_math_erf(x.astype(np.float64)), np.float64).astype(x.dtype)


def _erf_gradient(site: Site, d: Value) -> tuple[Value]:
    x = site.operands[0]
    return (multiply(d, multiply(exp(negative(square(x))), 2 / math.sqrt(math.pi))),)


ERF = define("erf", ("x",), float_only, _erf_reference, _erf_gradient)


# --- sin, cos ----------------------------------------------------------------------------------------------------------


def sin(x: Value) -> Value:
    """Sine of radians."""
    return emit(SIN, NO_ATTRIBUTES, x)


SIN = define("sin", ("x",), float_only, wide(np.sin), lambda site, d: (multiply(d, cos(site.operands[0])),))


def cos(x: Value) -> Value:
    """Cosine of radians."""
    return emit(COS, NO_ATTRIBUTES, x)


COS = define("cos", ("x",), float_only, wide(np.cos), lambda site, d: (negative(multiply(d, sin(site.operands[0]))),))


# --- tan ---------------------------------------------------------------------------------------------------------------


def tan(x: Value) -> Value:
    """Tangent of radians; its derivative is 1 + tan(x)^2."""
    return emit(TAN, NO_ATTRIBUTES, x)


TAN = define("tan", ("x",), float_only, wide(np.tan), lambda site, d: (multiply(d, add(square(site.result), 1.0)),))


# --- asin, acos, atan --------------------------------------------------------------------------------------------------


def asin(x: Value) -> Value:
    """The angle in [-pi/2, pi/2] whose sine is x; NaN beyond [-1, 1].  Its derivative is 1 / sqrt(1 - x^2)."""
    return emit(ASIN, NO_ATTRIBUTES, x)


def _one_minus_square(x: Value) -> Value:
    """1 - x^2 in two factors, accurate near -1 and 1."""
    return multiply(subtract(1.0, x), add(x, 1.0))


ASIN = define(
    "asin", ("x",), float_only, wide(np.arcsin), lambda site, d: (multiply(d, rsqrt(_one_minus_square(site.operands[0]))),)
)


def acos(x: Value) -> Value:
    """The angle in [0, pi] whose cosine is x; NaN beyond [-1, 1].  Its derivative is -1 / sqrt(1 - x^2)."""
    return emit(ACOS, NO_ATTRIBUTES, x)


ACOS = define(
    "acos",
    ("x",),
    float_only,
    wide(np.arccos),
    lambda site, d: (negative(multiply(d, rsqrt(_one_minus_square(site.operands[0])))),),
)


def atan(x: Value) -> Value:
    """The angle in [-pi/2, pi/2] whose tangent is x; its derivative is 1 / (1 + x^2)."""
    return emit(ATAN, NO_ATTRIBUTES, x)


ATAN = define(
    "atan", ("x",), float_only, wide(np.arctan), lambda site, d: (divide(d, add(square(site.operands[0]), 1.0)),)
)


# --- sinh, cosh --------------------------------------------------------------------------------------------------------


def sinh(x: Value) -> Value:
    """Hyperbolic sine, (exp(x) - exp(-x)) / 2."""
    return emit(SINH, NO_ATTRIBUTES, x)


SINH = define("sinh", ("x",), float_only, wide(np.sinh), lambda site, d: (multiply(d, cosh(site.operands[0])),))


def cosh(x: Value) -> Value:
    """Hyperbolic cosine, (exp(x) + exp(-x)) / 2."""
    return emit(COSH, NO_ATTRIBUTES, x)


COSH = define("cosh", ("x",), float_only, wide(np.cosh), lambda site, d: (multiply(d, sinh(site.operands[0])),))


# --- asinh, acosh, atanh -----------------------------------------------------------------------------------------------


def asinh(x: Value) -> Value:
    """The inverse of sinh; its derivative is 1 / sqrt(x^2 + 1)."""
    return emit(ASINH, NO_ATTRIBUTES, x)


ASINH = define(
    "asinh", ("x",), float_only, wide(np.arcsinh), lambda site, d: (multiply(d, rsqrt(add(square(site.operands[0]), 1.0))),)
)


def acosh(x: Value) -> Value:
    """The inverse of cosh, from 0; NaN below 1.  Its derivative is 1 / sqrt((x - 1) (x + 1))."""
    return emit(ACOSH, NO_ATTRIBUTES, x)


def _acosh_gradient(site: Site, d: Value) -> tuple[Value]:
    x = site.operands[0]
    return (multiply(d, rsqrt(multiply(subtract(x, 1.0), add(x, 1.0)))),)


ACOSH = define("acosh", ("x",), float_only, wide(np.arccosh), _acosh_gradient)


def atanh(x: Value) -> Value:
    """The inverse of tanh: infinite at -1 and 1, NaN beyond.  Its derivative is 1 / (1 - x^2)."""
    return emit(ATANH, NO_ATTRIBUTES, x)


ATANH = define(
    "atanh", ("x",), float_only, wide(np.arctanh), lambda site, d: (divide(d, _one_minus_square(site.operands[0])),)
)


# --- power -------------------------------------------------------------------------------------------------------------


def power(x: Operand, y: Operand) -> Value:
    """x to the y.  The gradient by y is 0 where x is 0 (the limit for y > 0); NaN for negative x."""
    return binary(POWER, x, y)


def _power_gradient(site: Site, d: Value) -> tuple[Value | None, ...]:
    x, y = site.operands
    by_x = by_y = None
    if site.wanted[0]:
        # at y = 0 the derivative y * x^(y-1) is 0 even where x^(y-1) is infinite
        slope = multiply(y, power(x, subtract(y, 1)))
        by_x = multiply(d, where(equal(y, 0), 0, slope))
    if site.wanted[1]:
        safe = where(equal(x, 0), 1, x)
        by_y = multiply(d, multiply(site.result, log(safe)))
    return (by_x, by_y)


def _power_type(attributes: Any, x: TensorType, y: TensorType) -> TensorType:
    return same_numeric(attributes, x, y)


def _power_reference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind == "i" and np.any(y < 0):
        raise DTypeError("an integer to a negative power is not an integer", hint="cast to float first")
    return np.power(x, y)


POWER = define("power", ("x", "y"), _power_type, _power_reference, _power_gradient)
