"""Elementwise ops: ``out[i] = f(operands[i])`` with NumPy broadcasting.

The operands of one op share one element type; mixing types is the caller's business (:func:`cast`, or the promotion that
:mod:`irconv.tensor` does).  A gradient rule may leave a broadcast operand's gradient in the shape of the result: the
differentiation pass sums it over the axes that broadcasting repeated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv.errors import AttributeValueError, DTypeError
from irconv.op import NO_ATTRIBUTES, Fusion, NoGradient, OpDef, Site, Value, emit, lift, no_work, register
from irconv.types import BOOL, DType, TensorType, as_dtype, broadcast_shapes

Number = int | float | bool
Operand = Value | Number

# --- shared by the sections below --------------------------------------------------------------------------------------


def _float_only(attributes: Any, x: TensorType) -> TensorType:
    if not x.dtype.is_float:
        raise DTypeError(f"needs floating-point elements, got {x.dtype}", hint="cast first, for example x.astype('float32')")
    return TensorType(x.dtype, x.shape)


def _numeric(attributes: Any, x: TensorType) -> TensorType:
    if x.dtype is BOOL:
        raise DTypeError("needs numbers, got bool", hint="cast first, for example x.astype('float32')")
    return TensorType(x.dtype, x.shape)


def _same(attributes: Any, *operands: TensorType) -> TensorType:
    first = operands[0]
    if any(t.dtype is not first.dtype for t in operands):
        raise DTypeError(f"operands have different element types: {', '.join(str(t.dtype) for t in operands)}", hint="cast them to one")
    return TensorType(first.dtype, broadcast_shapes(*(t.shape for t in operands)))


def _same_numeric(attributes: Any, x: TensorType, y: TensorType) -> TensorType:
    if x.dtype is BOOL:
        raise DTypeError("needs numbers, got bool", hint="cast first, or use logical_and / logical_or")
    return _same(attributes, x, y)


def _compare(attributes: Any, x: TensorType, y: TensorType) -> TensorType:
    return TensorType(BOOL, _same(attributes, x, y).shape)


def _logical(attributes: Any, *operands: TensorType) -> TensorType:
    if any(t.dtype is not BOOL for t in operands):
        raise DTypeError(f"needs bool operands, got {', '.join(str(t.dtype) for t in operands)}", hint="compare first (x != 0)")
    return _same(attributes, *operands)


def _define(
    name: str,
    operands: tuple[str, ...],
    infer: Callable[..., TensorType],
    reference: Callable[..., np.ndarray],
    gradient: Callable[..., Any] | NoGradient,
) -> OpDef:
    """Register an elementwise op without attributes; ``reference`` takes the arrays alone."""
    return register(
        OpDef(
            name,
            operands,
            infer=infer,
            reference=lambda attributes, *arrays: reference(*arrays),
            gradient=gradient,
            fusion=Fusion.ELEMENTWISE,
        )
    )


_PIECEWISE_CONSTANT = NoGradient("its derivative is zero wherever it exists")
_BOOLEAN = NoGradient("its result is not a number")


def wide(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Evaluate float16 in float32 and round once."""

    def evaluate(x: np.ndarray) -> np.ndarray:
        return np.asarray(function(x.astype(np.float32)), np.float16) if x.dtype == np.float16 else np.asarray(function(x))

    return evaluate


# --- negative ------------------------------------------------------------------------------------------------------------


def negative(x: Value) -> Value:
    """-x."""
    return emit(NEGATIVE, NO_ATTRIBUTES, x)


NEGATIVE = _define("negative", ("x",), _numeric, np.negative, lambda site, d: (negative(d),))

# --- absolute ------------------------------------------------------------------------------------------------------------


def absolute(x: Value) -> Value:
    """abs(x); its derivative is sign(x), 0 at 0."""
    return emit(ABSOLUTE, NO_ATTRIBUTES, x)


ABSOLUTE = _define("absolute", ("x",), _numeric, np.absolute, lambda site, d: (multiply(d, sign(site.operands[0])),))

# --- sign ----------------------------------------------------------------------------------------------------------------


def sign(x: Value) -> Value:
    """-1, 0 or 1 (NaN stays)."""
    return emit(SIGN, NO_ATTRIBUTES, x)


SIGN = _define("sign", ("x",), _numeric, np.sign, _PIECEWISE_CONSTANT)

# --- exp -----------------------------------------------------------------------------------------------------------------


def exp(x: Value) -> Value:
    """e to the x."""
    return emit(EXP, NO_ATTRIBUTES, x)


EXP = _define("exp", ("x",), _float_only, wide(np.exp), lambda site, d: (multiply(d, site.result),))

# --- expm1 ---------------------------------------------------------------------------------------------------------------


def expm1(x: Value) -> Value:
    """exp(x) - 1, accurate near 0."""
    return emit(EXPM1, NO_ATTRIBUTES, x)


EXPM1 = _define("expm1", ("x",), _float_only, wide(np.expm1), lambda site, d: (multiply(d, add(site.result, 1.0)),))

# --- log -----------------------------------------------------------------------------------------------------------------


def log(x: Value) -> Value:
    """Natural logarithm: -inf at 0, NaN below."""
    return emit(LOG, NO_ATTRIBUTES, x)


LOG = _define("log", ("x",), _float_only, wide(np.log), lambda site, d: (divide(d, site.operands[0]),))

# --- log1p ---------------------------------------------------------------------------------------------------------------


def log1p(x: Value) -> Value:
    """log(1 + x), accurate near 0."""
    return emit(LOG1P, NO_ATTRIBUTES, x)


LOG1P = _define("log1p", ("x",), _float_only, wide(np.log1p), lambda site, d: (divide(d, add(site.operands[0], 1.0)),))

# --- sqrt ----------------------------------------------------------------------------------------------------------------


def sqrt(x: Value) -> Value:
    """Square root; its derivative is 1 / (2 sqrt(x))."""
    return emit(SQRT, NO_ATTRIBUTES, x)


SQRT = _define("sqrt", ("x",), _float_only, wide(np.sqrt), lambda site, d: (divide(multiply(d, 0.5), site.result),))

# --- rsqrt ---------------------------------------------------------------------------------------------------------------


def rsqrt(x: Value) -> Value:
    """1 / sqrt(x); its derivative is -1/2 x^(-3/2) = -1/2 r^3."""
    return emit(RSQRT, NO_ATTRIBUTES, x)


def _rsqrt_gradient(site: Site, d: Value) -> tuple[Value]:
    r = site.result
    return (multiply(multiply(d, -0.5), multiply(r, square(r))),)


RSQRT = _define("rsqrt", ("x",), _float_only, wide(lambda x: 1 / np.sqrt(x)), _rsqrt_gradient)

# --- square --------------------------------------------------------------------------------------------------------------


def square(x: Value) -> Value:
    """x * x."""
    return emit(SQUARE, NO_ATTRIBUTES, x)


SQUARE = _define("square", ("x",), _numeric, np.square, lambda site, d: (multiply(d, multiply(site.operands[0], 2)),))

# --- tanh ----------------------------------------------------------------------------------------------------------------


def tanh(x: Value) -> Value:
    """Hyperbolic tangent; its derivative is 1 - tanh(x)^2."""
    return emit(TANH, NO_ATTRIBUTES, x)


TANH = _define("tanh", ("x",), _float_only, wide(np.tanh), lambda site, d: (multiply(d, subtract(1.0, square(site.result))),))

# --- sigmoid -------------------------------------------------------------------------------------------------------------


def sigmoid(x: Value) -> Value:
    """1 / (1 + exp(-x)), without overflow; its derivative is s (1 - s)."""
    return emit(SIGMOID, NO_ATTRIBUTES, x)


def _sigmoid_reference(x: np.ndarray) -> np.ndarray:
    # exp of a non-positive number cannot overflow: use s(x) = e^x / (1 + e^x) on the left half
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


SIGMOID = _define(
    "sigmoid",
    ("x",),
    _float_only,
    wide(_sigmoid_reference),
    lambda site, d: (multiply(d, multiply(site.result, subtract(1.0, site.result))),),
)

# --- erf -----------------------------------------------------------------------------------------------------------------


def erf(x: Value) -> Value:
    """The error function 2/sqrt(pi) * integral of exp(-t^2) from 0 to x."""
    return emit(ERF, NO_ATTRIBUTES, x)


_math_erf = np.frompyfunc(math.erf, 1, 1)  # the reference: the C library's double-precision erf


def _erf_reference(x: np.ndarray) -> np.ndarray:
    return np.asarray(_math_erf(x.astype(np.float64)), np.float64).astype(x.dtype)


def _erf_gradient(site: Site, d: Value) -> tuple[Value]:
    x = site.operands[0]
    return (multiply(d, multiply(exp(negative(square(x))), 2 / math.sqrt(math.pi))),)


ERF = _define("erf", ("x",), _float_only, _erf_reference, _erf_gradient)

# --- sin, cos --------------------------------------------------------------------------------------------------------------


def sin(x: Value) -> Value:
    """Sine of radians."""
    return emit(SIN, NO_ATTRIBUTES, x)


SIN = _define("sin", ("x",), _float_only, wide(np.sin), lambda site, d: (multiply(d, cos(site.operands[0])),))


def cos(x: Value) -> Value:
    """Cosine of radians."""
    return emit(COS, NO_ATTRIBUTES, x)


COS = _define("cos", ("x",), _float_only, wide(np.cos), lambda site, d: (negative(multiply(d, sin(site.operands[0]))),))

# --- floor, ceil, round ------------------------------------------------------------------------------------------------------


def floor(x: Value) -> Value:
    """The largest integer not above x."""
    return emit(FLOOR, NO_ATTRIBUTES, x)


FLOOR = _define("floor", ("x",), _float_only, np.floor, _PIECEWISE_CONSTANT)


def ceil(x: Value) -> Value:
    """The smallest integer not below x."""
    return emit(CEIL, NO_ATTRIBUTES, x)


CEIL = _define("ceil", ("x",), _float_only, np.ceil, _PIECEWISE_CONSTANT)


def round_(x: Value) -> Value:
    """The nearest integer, ties to even (as NumPy and ONNX)."""
    return emit(ROUND, NO_ATTRIBUTES, x)


ROUND = _define("round", ("x",), _float_only, np.rint, _PIECEWISE_CONSTANT)

# --- relu ----------------------------------------------------------------------------------------------------------------


def relu(x: Value) -> Value:
    """max(x, 0), NaN kept; its derivative is 1 for x > 0 and 0 otherwise, so relu'(0) = 0 (read off the output)."""
    return emit(RELU, NO_ATTRIBUTES, x)


def _relu_gradient(site: Site, d: Value) -> tuple[Value]:
    return (where(greater(site.result, 0), d, 0),)


RELU = _define("relu", ("x",), _numeric, lambda x: np.maximum(x, x.dtype.type(0)), _relu_gradient)

# --- logical_not ---------------------------------------------------------------------------------------------------------


def logical_not(x: Value) -> Value:
    """Not x, on bool."""
    return emit(LOGICAL_NOT, NO_ATTRIBUTES, x)


LOGICAL_NOT = _define("logical_not", ("x",), _logical, np.logical_not, _BOOLEAN)

# --- copy, stop_gradient -----------------------------------------------------------------------------------------------------


def copy(x: Value) -> Value:
    """x in a buffer of its own (an output that would otherwise be a view of something else)."""
    return emit(COPY, NO_ATTRIBUTES, x)


COPY = _define("copy", ("x",), lambda attributes, x: TensorType(x.dtype, x.shape), np.copy, lambda site, d: (d,))


def stop_gradient(x: Value) -> Value:
    """x, through which no gradient flows back."""
    return emit(STOP_GRADIENT, NO_ATTRIBUTES, x)


STOP_GRADIENT = _define(
    "stop_gradient",
    ("x",),
    lambda attributes, x: TensorType(x.dtype, x.shape),
    np.copy,
    NoGradient("it was asked to stop the gradient"),
)

# --- cast ----------------------------------------------------------------------------------------------------------------


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

# --- clip ----------------------------------------------------------------------------------------------------------------


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
        infer=_numeric,
        reference=_clip_reference,
        gradient=_clip_gradient,
        fusion=Fusion.ELEMENTWISE,
        attributes=ClipAttributes,
    )
)

# --- arithmetic on two operands ------------------------------------------------------------------------------------------------


def binary(op: OpDef, x: Operand, y: Operand) -> Value:
    """Apply a two-operand op; a Python number takes the other operand's element type."""
    if isinstance(x, Value):
        return emit(op, NO_ATTRIBUTES, x, lift(y, x))
    if isinstance(y, Value):
        return emit(op, NO_ATTRIBUTES, lift(x, y), y)
    raise DTypeError(f"{op.name} of two plain numbers is not an op", hint="make one of them a tensor")


def add(x: Operand, y: Operand) -> Value:
    """x + y."""
    return binary(ADD, x, y)


ADD = _define("add", ("x", "y"), _same_numeric, np.add, lambda site, d: (d, d))


def subtract(x: Operand, y: Operand) -> Value:
    """x - y."""
    return binary(SUBTRACT, x, y)


SUBTRACT = _define(
    "subtract",
    ("x", "y"),
    _same_numeric,
    np.subtract,
    lambda site, d: (d, negative(d) if site.wanted[1] else None),
)


def multiply(x: Operand, y: Operand) -> Value:
    """x * y."""
    return binary(MULTIPLY, x, y)


def _multiply_gradient(site: Site, d: Value) -> tuple[Value | None, ...]:
    x, y = site.operands
    return (
        multiply(d, y) if site.wanted[0] else None, multiply(d, x) if site.wanted[1] else None
    )


MULTIPLY = _define("multiply", ("x", "y"), _same_numeric, np.multiply, _multiply_gradient)


def divide(x: Operand, y: Operand) -> Value:
    """x / y, on floats (integers: :func:`floor_divide`)."""
    return binary(DIVIDE, x, y)


def _divide_type(attributes: Any, x: TensorType, y: TensorType) -> TensorType:
    _float_only(attributes, x)
    return _same(attributes, x, y)


def _divide_gradient(site: Site, d: Value) -> tuple[Value | None, ...]:
    # d(x/y)/dy = -x/y^2 = -(x/y)/y: the quotient is there already
    y = site.operands[1]
    by_y = divide(d, y)
    return (
        by_y if site.wanted[0] else None,
        negative(multiply(by_y, site.result)) if site.wanted[1] else None,
    )


DIVIDE = _define("divide", ("x", "y"), _divide_type, np.divide, _divide_gradient)


def floor_divide(x: Operand, y: Operand) -> Value:
    """floor(x / y); an integer divided by zero gives 0, as NumPy."""
    return binary(FLOOR_DIVIDE, x, y)


FLOOR_DIVIDE = _define("floor_divide", ("x", "y"), _same_numeric, np.floor_divide, _PIECEWISE_CONSTANT)


def remainder(x: Operand, y: Operand) -> Value:
    """x - floor(x / y) * y: the remainder with the sign of y, as NumPy."""
    return binary(REMAINDER, x, y)


def _remainder_gradient(site: Site, d: Value) -> tuple[Value | None, ...]:
    x, y = site.operands
    return (
        d, negative(multiply(d, floor_divide(x, y))) if site.wanted[1] else None
    )


REMAINDER = _define("remainder", ("x", "y"), _same_numeric, np.remainder, _remainder_gradient)


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
    return _same_numeric(attributes, x, y)


def _power_reference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind == "i" and np.any(y < 0):
        raise DTypeError("an integer to a negative power is not an integer", hint="cast to float first")
    return np.power(x, y)


POWER = _define("power", ("x", "y"), _power_type, _power_reference, _power_gradient)


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


MINIMUM = _define("minimum", ("x", "y"), _same, np.minimum, _extremum_gradient)


def maximum(x: Operand, y: Operand) -> Value:
    """The larger of x and y, NaN if either is; equals share the gradient half and half."""
    return binary(MAXIMUM, x, y)


MAXIMUM = _define("maximum", ("x", "y"), _same, np.maximum, _extremum_gradient)

# --- comparisons ---------------------------------------------------------------------------------------------------------------


def equal(x: Operand, y: Operand) -> Value:
    """x == y, as bool."""
    return binary(EQUAL, x, y)


EQUAL = _define("equal", ("x", "y"), _compare, np.equal, _BOOLEAN)


def not_equal(x: Operand, y: Operand) -> Value:
    """x != y, as bool (true for NaN)."""
    return binary(NOT_EQUAL, x, y)


NOT_EQUAL = _define("not_equal", ("x", "y"), _compare, np.not_equal, _BOOLEAN)


def less(x: Operand, y: Operand) -> Value:
    """x < y, as bool."""
    return binary(LESS, x, y)


LESS = _define("less", ("x", "y"), _compare, np.less, _BOOLEAN)


def less_equal(x: Operand, y: Operand) -> Value:
    """x <= y, as bool."""
    return binary(LESS_EQUAL, x, y)


LESS_EQUAL = _define("less_equal", ("x", "y"), _compare, np.less_equal, _BOOLEAN)


def greater(x: Operand, y: Operand) -> Value:
    """x > y, as bool."""
    return binary(GREATER, x, y)


GREATER = _define("greater", ("x", "y"), _compare, np.greater, _BOOLEAN)


def greater_equal(x: Operand, y: Operand) -> Value:
    """x >= y, as bool."""
    return binary(GREATER_EQUAL, x, y)


GREATER_EQUAL = _define("greater_equal", ("x", "y"), _compare, np.greater_equal, _BOOLEAN)

# --- logic ---------------------------------------------------------------------------------------------------------------------


def logical_and(x: Operand, y: Operand) -> Value:
    """x and y, on bool."""
    return binary(LOGICAL_AND, x, y)


LOGICAL_AND = _define("logical_and", ("x", "y"), _logical, np.logical_and, _BOOLEAN)


def logical_or(x: Operand, y: Operand) -> Value:
    """x or y, on bool."""
    return binary(LOGICAL_OR, x, y)


LOGICAL_OR = _define("logical_or", ("x", "y"), _logical, np.logical_or, _BOOLEAN)


def logical_xor(x: Operand, y: Operand) -> Value:
    """Exactly one of x and y, on bool."""
    return binary(LOGICAL_XOR, x, y)


LOGICAL_XOR = _define("logical_xor", ("x", "y"), _logical, np.logical_xor, _BOOLEAN)

# --- where ---------------------------------------------------------------------------------------------------------------------


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
    return TensorType(_same(attributes, x, y).dtype, broadcast_shapes(condition.shape, x.shape, y.shape))


def _where_gradient(site: Site, d: Value) -> tuple[Value | None, ...]:
    condition = site.operands[0]
    return (
        None,
        where(condition, d, 0) if site.wanted[1] else None,
        where(condition, 0, d) if site.wanted[2] else None,
    )


WHERE = _define("where", ("condition", "x", "y"), _where_type, np.where, _where_gradient)
