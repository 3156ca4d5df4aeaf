"""Rounding to narrow floating-point formats in ONNX: a cast there and back where ONNX can, else arithmetic."""

from __future__ import annotations

import math

from onnx import TensorProto

from irconv.errors import AttributeValueError
from irconv.frontends.onnx.export_ops.writer import Writer, lowering
from irconv.graph import Node
from irconv.ops.elementwise import FLOAT_FORMATS, FloatFormat
from irconv.types import DType

EIGHT_BITS = {
    "f8e4m3fn": TensorProto.FLOAT8E4M3FN,
    "f8e4m3fnuz": TensorProto.FLOAT8E4M3FNUZ,
    "f8e5m2": TensorProto.FLOAT8E5M2,
    "f8e5m2fnuz": TensorProto.FLOAT8E5M2FNUZ,
}


@lowering("round_to")
def _round_to(w: Writer, node: Node, x: str) -> str:
    a, dtype = node.attributes, node.type.dtype
    f = FLOAT_FORMATS[a.format]
    if not f.has_nan:
        return _float4(w, x, f.largest, dtype)
    if a.format in EIGHT_BITS:
        if w.opset < 19:
            raise AttributeValueError(f"opset {w.opset} has no {a.format}", hint="export with opset 19 or later")
        # without saturation runtimes differ near the largest value
        rounded = w.cast(w.op("Cast", x, to=EIGHT_BITS[a.format], saturate=1), dtype)
        return rounded if a.saturate else _overflowed(w, x, rounded, f, dtype)
    rounded = w.cast(w.op("Cast", x, to=TensorProto.BFLOAT16), dtype)
    return w.op("Clip", rounded, *(w.constant(bound, dtype) for bound in (-f.largest, f.largest))) if a.saturate else rounded


def _overflowed(w: Writer, x: str, rounded: str, f: FloatFormat, dtype: DType) -> str:
    """What was rounded with saturation, with infinity or NaN where x rounds to more than the largest value."""
    unit = 2.0 ** (math.frexp(f.largest)[1] - 1 - f.mantissa)
    odd = f.largest / unit % 2 == 1  # halfway to the next value, it is the even one that is taken
    beyond = w.op("GreaterOrEqual" if odd else "Greater", w.op("Abs", x), w.constant(f.largest + unit / 2, dtype))
    return w.op("Where", beyond, w.op("Mul", x, w.constant(f.overflow, dtype)), rounded)


def _float4(w: Writer, x: str, largest: float, dtype: DType) -> str:
    """Units of 1/2 below 2, of 1 below 4, of 2 from there on; 0 for NaN."""
    half, two, four = (w.constant(number, dtype) for number in (0.5, 2, 4))
    magnitude = w.op("Abs", x)
    fine = w.op("Div", w.op("Round", w.op("Mul", x, two)), two)
    coarse = w.op("Mul", w.op("Round", w.op("Mul", x, half)), two)
    above_two = w.op("Where", w.op("Less", magnitude, four), w.op("Round", x), coarse)
    rounded = w.op("Where", w.op("Less", magnitude, two), fine, above_two)
    bounded = w.op("Clip", rounded, *(w.constant(bound, dtype) for bound in (-largest, largest)))
    return w.op("Where", w.op("IsNaN", x), w.constant(0, dtype), bounded)
