"""Arithmetic, functions, comparisons, logic and bits, element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from irconv.errors import ModelError
from irconv.frontends.onnx.formats import Format
from irconv.frontends.onnx.narrow import carried_type, format_of, marked, narrowed
from irconv.frontends.onnx.operators.common import constant, same_type, tensor_of
from irconv.frontends.onnx.registry import Call, Handler, operator
from irconv.frontends.onnx.tensors import element_type
from irconv.op import Value
from irconv.ops import elementwise as e
from irconv.ops.shape import reshape
from irconv.tensor import Tensor
from irconv.types import BOOL, DType

# --- of one operand --------------------------------------------------------------------------------------------------------


def _unary(function: Callable[[Tensor], Value]) -> Handler:
    def handle(call: Call, x: Tensor) -> Tensor:
        return tensor_of(function(x))

    return handle


def _unsigned(function: Callable[[Tensor], Value]) -> Callable[[Tensor], Value]:
    """``function``, and nothing for unsigned integers."""
    return lambda x: x if x.type.dtype.kind == "uint" else function(x)


def _reciprocal(x: Tensor) -> Value:
    return e.divide(1.0, x)


for _name, _function in {
    "Abs": _unsigned(e.absolute),
    "Neg": e.negative,
    "Sign": e.sign,
    "Exp": e.exp,
    "Log": e.log,
    "Sqrt": e.sqrt,
    "Reciprocal": _reciprocal,
    "Floor": e.floor,
    "Ceil": e.ceil,
    "Round": e.round_,
    "Erf": e.erf,
    "Sin": e.sin,
    "Cos": e.cos,
    "Tan": e.tan,
    "Asin": e.asin,
    "Acos": e.acos,
    "Atan": e.atan,
    "Sinh": e.sinh,
    "Cosh": e.cosh,
    "Asinh": e.asinh,
    "Acosh": e.acosh,
    "Atanh": e.atanh,
    "Not": e.logical_not,
    "BitwiseNot": e.bitwise_not,
    "IsNaN": e.isnan,
}.items():
    operator(_name)(_unary(_function))


@operator("IsInf")
def is_inf(call: Call, x: Tensor) -> Tensor:
    """Where x is infinite; the attributes may leave out one sign."""
    a = call.attributes
    positive, negative = a.flag("detect_positive", True), a.flag("detect_negative", True)
    found = e.isinf(x)
    if not positive:
        found = e.logical_and(found, e.less(x, 0))
    if not negative:
        found = e.logical_and(found, e.greater(x, 0))
    return tensor_of(found)


# --- of two operands -------------------------------------------------------------------------------------------------------


def _aligned(call: Call, x: Tensor, y: Tensor) -> Tensor:
    """y to be broadcast against x: before version 7 its first axis could be aligned with one of x's."""
    if call.opset >= 7:
        return y
    axis = call.attributes.int("axis", None)
    if axis is None or not call.attributes.int("broadcast", 0):
        return y
    axis = axis + x.ndim if axis < 0 else axis
    behind = x.ndim - axis - y.ndim
    if axis < 0 or behind < 0:
        raise ModelError(f"axis {axis} does not align shape {list(y.shape)} with {list(x.shape)}")
    return tensor_of(reshape(y, (*y.shape, *(1,) * behind)))


def _binary(function: Callable[[Tensor, Tensor], Value]) -> Handler:
    def handle(call: Call, x: Tensor, y: Tensor) -> Tensor:
        return tensor_of(function(x, _aligned(call, x, y)))

    return handle


def _divide(x: Tensor, y: Tensor) -> Value:
    """The quotient; of integers its whole part, rounded toward zero."""
    if x.type.dtype.is_float:
        return e.divide(x, y)
    down = e.floor_divide(x, y)
    if x.type.dtype.kind == "uint":
        return down
    inexact = e.not_equal(e.multiply(down, y), x)
    return e.add(down, e.cast(e.logical_and(e.less(down, 0), inexact), x.dtype))


for _name, _function2 in {
    "Sub": e.subtract,
    "Div": _divide,
    "Equal": e.equal,
    "Less": e.less,
    "LessOrEqual": e.less_equal,
    "Greater": e.greater,
    "GreaterOrEqual": e.greater_equal,
    "And": e.logical_and,
    "Or": e.logical_or,
    "Xor": e.logical_xor,
    "BitwiseAnd": e.bitwise_and,
    "BitwiseOr": e.bitwise_or,
    "BitwiseXor": e.bitwise_xor,
}.items():
    operator(_name)(_binary(_function2))

operator("Add", weights=(0, 1))(_binary(e.add))
operator("Mul", weights=(0, 1))(_binary(e.multiply))


@operator("Pow")
def power(call: Call, x: Tensor, y: Tensor) -> Tensor:
    """x to the y, in the element type of x; y may have another."""
    exponent = _aligned(call, x, y)
    if x.dtype == y.dtype:
        known = exponent.item() if not y.is_traced and y.value.variable is None and y.size == 1 else None
        if known == 2 and x.type.rank >= exponent.ndim:
            return tensor_of(e.square(x))
        return tensor_of(e.power(x, exponent))
    if x.type.dtype.is_float or y.type.dtype.is_integer:
        return tensor_of(e.power(x, same_type(exponent, x)))
    wide = e.power(e.cast(x, "f64"), e.cast(exponent, "f64"))
    return same_type(wide, x)


@operator("BitShift")
def bit_shift(call: Call, x: Tensor, y: Tensor) -> Tensor:
    """The bits of x moved by y places."""
    left = call.attributes.string("direction", choices=("LEFT", "RIGHT")) == "LEFT"
    return tensor_of(e.shift_left(x, y) if left else e.shift_right(x, y))


# --- of any number of operands ---------------------------------------------------------------------------------------------


def _variadic(function: Callable[[Value, Value], Value]) -> Handler:
    def handle(call: Call, x: Tensor, *others: Tensor) -> Tensor:
        result: Value = x
        for other in others:
            result = function(result, other)
        return tensor_of(result)

    return handle


operator("Max")(_variadic(e.maximum))
operator("Min")(_variadic(e.minimum))
operator("Sum")(_variadic(e.add))


@operator("Mean")
def mean(call: Call, x: Tensor, *others: Tensor) -> Tensor:
    """The mean of the operands."""
    total: Value = x
    for other in others:
        total = e.add(total, other)
    return tensor_of(e.divide(total, len(others) + 1))


@operator("Where")
def where(call: Call, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """x where the condition holds, y elsewhere."""
    return tensor_of(e.where(condition, x, y))


# --- conversion ------------------------------------------------------------------------------------------------------------


@operator("Cast")
def cast(call: Call, x: Tensor) -> Tensor:
    """x in another element type; floats become integers toward zero."""
    return _converted(call, x, *carried_type(_target(call), "the result of Cast"))


def _converted(call: Call, x: Tensor, dtype: DType, form: Format | None) -> Tensor:
    if form is None:
        return marked(e.cast(x, dtype), None)
    mode = call.attributes.string("round_mode", "up", choices=("up", "down", "nearest"))
    return narrowed(x, form, call.attributes.flag("saturate", True), mode)


def _target(call: Call) -> Any:
    if call.opset < 6:
        # the types were given by name
        return {"FLOAT": 1, "UINT8": 2, "INT8": 3, "UINT16": 4, "INT16": 5, "INT32": 6, "INT64": 7, "BOOL": 9, "FLOAT16": 10,
                "DOUBLE": 11, "UINT32": 12, "UINT64": 13}.get(call.attributes.string("to"), 0)  # fmt: skip
    return call.attributes.int("to")


@operator("CastLike")
def cast_like(call: Call, x: Tensor, like: Tensor) -> Tensor:
    """x in the element type of another tensor."""
    return _converted(call, x, like.type.dtype, format_of(like))


@operator("BitCast", since=26, static=(0,))
def bit_cast(call: Call, x: np.ndarray) -> Tensor:
    """The bits of x, which is known at import, read as another element type of the same size."""
    dtype = element_type(call.attributes.int("to"), "the result of BitCast")
    if dtype.bytes != x.dtype.itemsize:
        raise ModelError(f"the bits of {x.dtype} do not fill {dtype}")
    bits = x.astype(x.dtype.newbyteorder("<")).view(dtype.numpy.newbyteorder("<"))
    # any other byte than 0 is true
    return constant(x.view(np.uint8) != 0 if dtype is BOOL else bits, dtype)


@operator("Identity")
def identity(call: Call, x: Tensor) -> Tensor:
    """x."""
    return x
