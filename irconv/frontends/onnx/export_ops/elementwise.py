"""Elementwise ops in ONNX.

Integers narrower than 32 bits, and unsigned ones, are computed in a wider signed type where runtimes lack their own: the
results wrap around as they should when they are cast back.
"""

from __future__ import annotations

import math

from irconv.frontends.onnx.export_ops.writer import Writer, lowering
from irconv.graph import Node
from irconv.ops.elementwise import clip_bounds
from irconv.types import BOOL, I8, I16, I32, I64, U8, U16, U32, U64, DType

NARROW = (I8, I16, U8, U16)
"""Integers that runtimes compute in int32."""


def carrier(dtype: DType) -> DType:
    """The type that arithmetic modulo the width of ``dtype`` is computed in."""
    if dtype in NARROW:
        return I32
    return I64 if dtype in (U32, U64) else dtype


def operand_type(w: Writer, node: Node, slot: int = 0) -> DType:
    """Element type of an operand."""
    return w.graph[node.operands[slot]].type.dtype


# --- one ONNX operator each ----------------------------------------------------------------------------------------------

SAME = {
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "erf": "Erf",
    "sin": "Sin",
    "cos": "Cos",
    "tan": "Tan",
    "asin": "Asin",
    "acos": "Acos",
    "atan": "Atan",
    "sinh": "Sinh",
    "cosh": "Cosh",
    "asinh": "Asinh",
    "acosh": "Acosh",
    "atanh": "Atanh",
    "floor": "Floor",
    "ceil": "Ceil",
    "round": "Round",
    "absolute": "Abs",
    "copy": "Identity",
    "relayout": "Identity",
    "stop_gradient": "Identity",
    "divide": "Div",
    "logical_not": "Not",
    "logical_and": "And",
    "logical_or": "Or",
    "logical_xor": "Xor",
    "bitwise_not": "BitwiseNot",
    "bitwise_and": "BitwiseAnd",
    "bitwise_or": "BitwiseOr",
    "bitwise_xor": "BitwiseXor",
}


@lowering(*SAME)
def _same(w: Writer, node: Node, *operands: str) -> str:
    return w.op(SAME[node.op.name], *operands)


ARITHMETIC = {"add": "Add", "subtract": "Sub", "multiply": "Mul", "power": "Pow"}


@lowering(*ARITHMETIC)
def _arithmetic(w: Writer, node: Node, x: str, y: str) -> str:
    dtype = node.type.dtype
    return w.op_in(carrier(dtype), dtype, ARITHMETIC[node.op.name], x, y)


@lowering("attach_gradient")
def _attach_gradient(w: Writer, node: Node, y: str, *others: str) -> str:
    return w.op("Identity", y)


# --- one operand ---------------------------------------------------------------------------------------------------------


@lowering("sign")
def _sign(w: Writer, node: Node, x: str) -> str:
    sign = w.op("Sign", x)
    if not node.type.dtype.is_float:
        return sign
    return w.op("Where", w.op("IsNaN", x), x, sign)  # ONNX leaves open what the sign of NaN is


@lowering("negative")
def _negative(w: Writer, node: Node, x: str) -> str:
    return w.op_in(carrier(node.type.dtype), node.type.dtype, "Neg", x)


@lowering("square")
def _square(w: Writer, node: Node, x: str) -> str:
    return w.op_in(carrier(node.type.dtype), node.type.dtype, "Mul", x, x)


@lowering("relu")
def _relu(w: Writer, node: Node, x: str) -> str:
    dtype = node.type.dtype
    if dtype.kind == "uint":
        return w.op("Identity", x)
    wide = carrier(dtype)
    if wide is I64:
        return w.op("Max", x, w.constant(0, I64))
    return w.op_in(wide, dtype, "Relu", x)


@lowering("rsqrt")
def _rsqrt(w: Writer, node: Node, x: str) -> str:
    return w.op("Reciprocal", w.op("Sqrt", x))


@lowering("expm1")
def _expm1(w: Writer, node: Node, x: str) -> str:
    # exp(x) - 1 = tanh(x/2) (exp(x) + 1), which cancels nothing near 0
    dtype = node.type.dtype
    half = w.op("Tanh", w.op("Mul", x, w.constant(0.5, dtype)))
    return w.op("Mul", half, w.op("Add", w.op("Exp", x), w.constant(1, dtype)))


@lowering("log1p")
def _log1p(w: Writer, node: Node, x: str) -> str:
    # log(u) x / (u - 1) with u = 1 + x as rounded (Kahan); x itself where u is 1 or infinite
    dtype = node.type.dtype
    one = w.constant(1, dtype)
    u = w.op("Add", x, one)
    corrected = w.op("Mul", w.op("Log", u), w.op("Div", x, w.op("Sub", u, one)))
    plain = w.op("Or", w.op("Equal", u, one), w.op("Equal", x, w.constant(math.inf, dtype)))
    return w.op("Where", plain, x, corrected)


@lowering("cast")
def _cast(w: Writer, node: Node, x: str) -> str:
    return w.cast(x, node.type.dtype)


@lowering("clip")
def _clip(w: Writer, node: Node, x: str) -> str:
    dtype = node.type.dtype
    wide = I32 if dtype in NARROW else dtype
    low, high = clip_bounds(node.attributes, dtype)
    bounds = ["" if math.isinf(b) else w.constant(b, wide) for b in (low, high)]
    if not any(bounds):
        return w.op("Identity", x)
    return w.back(w.op("Clip", w.carried(x, dtype, wide), *bounds), dtype, wide)


# --- division of integers and its remainder ------------------------------------------------------------------------------


def _safe_divisor(w: Writer, y: str, wide: DType) -> tuple[str, str, str]:
    """y with 1 in place of 0 and -1, which processors may refuse to divide by; and where it was 0, and where -1."""
    zero, minus = w.op("Equal", y, w.constant(0, wide)), w.op("Equal", y, w.constant(-1, wide))
    return w.op("Where", w.op("Or", zero, minus), w.constant(1, wide), y), zero, minus


def _differ_in_sign(w: Writer, a: str, b: str, dtype: DType) -> str:
    """Where a is not 0 and has another sign than b."""
    zero = w.constant(0, dtype)
    other = w.op("Xor", w.op("Less", a, zero), w.op("Less", b, zero))
    return w.op("And", other, w.op("Not", w.op("Equal", a, zero)))


@lowering("floor_divide")
def _floor_divide(w: Writer, node: Node, x: str, y: str) -> str:
    dtype = node.type.dtype
    if dtype.is_float:
        return _floor_divide_floats(w, dtype, x, y)
    if dtype is U64:
        zero = w.op("Equal", w.cast(y, I64), w.constant(0, I64))
        quotient = w.op("Div", x, w.op("Where", zero, w.constant(1, U64), y))
        return w.op("Where", zero, w.constant(0, U64), quotient)
    wide = carrier(dtype)
    x, y = w.carried(x, dtype, wide), w.carried(y, dtype, wide)
    safe, by_zero, by_minus = _safe_divisor(w, y, wide)
    quotient = w.op("Div", x, safe)
    rest = w.op("Sub", x, w.op("Mul", quotient, safe))
    below = w.cast(_differ_in_sign(w, rest, safe, wide), wide)
    quotient = w.op("Where", by_minus, w.op("Neg", x), w.op("Sub", quotient, below))
    return w.back(w.op("Where", by_zero, w.constant(0, wide), quotient), dtype, wide)


def _floor_divide_floats(w: Writer, dtype: DType, x: str, y: str) -> str:
    # as NumPy: the exact remainder first, so that the quotient is off by rounding alone
    rest = w.op("Mod", x, y, fmod=1)
    quotient = w.op("Div", w.op("Sub", x, rest), y)
    below = w.cast(_differ_in_sign(w, rest, y, dtype), dtype)
    quotient = w.op("Sub", quotient, below)
    whole = w.op("Floor", quotient)
    up = w.cast(w.op("Greater", w.op("Sub", quotient, whole), w.constant(0.5, dtype)), dtype)
    by_zero = w.op("Equal", y, w.constant(0, dtype))
    return w.op("Where", by_zero, w.op("Div", x, y), w.op("Add", whole, up))


@lowering("remainder")
def _remainder(w: Writer, node: Node, x: str, y: str) -> str:
    dtype = node.type.dtype
    if dtype.is_float:
        rest = w.op("Mod", x, y, fmod=1)
        return w.op("Where", _differ_in_sign(w, rest, y, dtype), w.op("Add", rest, y), rest)
    if dtype is U64:
        zero = w.op("Equal", w.cast(y, I64), w.constant(0, I64))
        rest = w.op("Mod", x, w.op("Where", zero, w.constant(1, U64), y))
        return w.op("Where", zero, w.constant(0, U64), rest)
    wide = carrier(dtype)
    x, y = w.carried(x, dtype, wide), w.carried(y, dtype, wide)
    safe, _, _ = _safe_divisor(w, y, wide)  # the remainder by 1 is 0, as it is by 0 and -1
    return w.back(w.op("Mod", x, safe), dtype, wide)


# --- extrema, comparisons, choice ----------------------------------------------------------------------------------------

EXTREMA = {"minimum": ("Min", "And"), "maximum": ("Max", "Or")}


@lowering(*EXTREMA)
def _extremum(w: Writer, node: Node, x: str, y: str) -> str:
    numbers, logic = EXTREMA[node.op.name]
    dtype = node.type.dtype
    if dtype is BOOL:
        return w.op(logic, x, y)
    wide = I32 if dtype in NARROW else dtype
    return w.op_in(wide, dtype, numbers, x, y)


COMPARISONS = {"less": "Less", "less_equal": "LessOrEqual", "greater": "Greater", "greater_equal": "GreaterOrEqual"}


@lowering(*COMPARISONS)
def _compare(w: Writer, node: Node, x: str, y: str) -> str:
    dtype = operand_type(w, node)
    wide = I32 if dtype is BOOL else carrier(dtype)
    values = [w.carried(v, dtype, wide) for v in (x, y)]
    if dtype is U64:  # moved down by 2^63, so that the order of the bits is that of signed numbers
        values = [w.op("Add", v, w.constant(I64.lowest, I64)) for v in values]
    return w.op(COMPARISONS[node.op.name], *values)


@lowering("equal", "not_equal")
def _equal(w: Writer, node: Node, x: str, y: str) -> str:
    dtype = operand_type(w, node)
    equal = w.op("Equal", *(w.carried(v, dtype, carrier(dtype)) for v in (x, y)))
    return equal if node.op.name == "equal" else w.op("Not", equal)


@lowering("where")
def _where(w: Writer, node: Node, condition: str, x: str, y: str) -> str:
    return choose(w, node.type.dtype, condition, x, y)


def choose(w: Writer, dtype: DType, condition: str, x: str, y: str) -> str:
    """x where the condition holds, y elsewhere."""
    wide = U8 if dtype in (BOOL, U8) else carrier(dtype)
    return w.back(w.op("Where", condition, w.carried(x, dtype, wide), w.carried(y, dtype, wide)), dtype, wide)


# --- shifts --------------------------------------------------------------------------------------------------------------


def _shift(w: Writer, x: str, y: str, dtype: DType, direction: str) -> str:
    """x shifted as an unsigned number."""
    wide = U64 if dtype in (I64, U64) else U32
    return w.op_in(wide, dtype, "BitShift", x, y, direction=direction)


@lowering("shift_left")
def _shift_left(w: Writer, node: Node, x: str, y: str) -> str:
    return _shift(w, x, y, node.type.dtype, "LEFT")


@lowering("shift_right")
def _shift_right(w: Writer, node: Node, x: str, y: str) -> str:
    dtype = node.type.dtype
    if dtype.kind == "uint":
        return _shift(w, x, y, dtype, "RIGHT")
    # floor(x / 2^y) of a negative x is not(not(x) / 2^y), and not(x) is not negative; x xor sign is one or the other
    wide = carrier(dtype)
    x = w.carried(x, dtype, wide)
    sign = w.op("Neg", w.cast(w.op("Less", x, w.constant(0, wide)), wide))
    y = w.carried(y, dtype, wide)
    shifted = _shift(w, w.op("BitwiseXor", x, sign), y, wide, "RIGHT")
    return w.back(w.op("BitwiseXor", shifted, sign), dtype, wide)
