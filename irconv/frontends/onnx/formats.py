"""Element types of ONNX that irconv holds in wider ones: bfloat16, 8-bit and 4-bit floats, 4-bit and 2-bit integers.

Their values are kept exactly, in float32, int8 or uint8 (see :mod:`irconv.frontends.onnx.narrow` for what is computed with them).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from onnx import TensorProto

from irconv.ops.elementwise import FLOAT_FORMATS, FloatFormat
from irconv.types import F32, I8, U8, DType


@dataclass(frozen=True, slots=True)
class Format:
    """A narrow element type.

    name:    what it is called in messages.
    number:  ONNX's number for it.
    theirs:  the name of the NumPy element type that ml_dtypes (and so onnx) has for it.
    bits:    of one element; several share a byte where it is less than 8, the first in the lowest bits.
    carrier: the element type that its values are held in.
    rounding: how floats are rounded to it; None for integers, and for powers of two.
    """

    name: str
    number: int
    theirs: str
    bits: int
    carrier: DType
    rounding: FloatFormat | None = None


_FLOATS: tuple[tuple[str, str, str, int], ...] = (
    ("bf16", "BFLOAT16", "bfloat16", 16),
    ("f8e4m3fn", "FLOAT8E4M3FN", "float8_e4m3fn", 8),
    ("f8e4m3fnuz", "FLOAT8E4M3FNUZ", "float8_e4m3fnuz", 8),
    ("f8e5m2", "FLOAT8E5M2", "float8_e5m2", 8),
    ("f8e5m2fnuz", "FLOAT8E5M2FNUZ", "float8_e5m2fnuz", 8),
    ("f4e2m1", "FLOAT4E2M1", "float4_e2m1fn", 4),
)
_INTEGERS: tuple[tuple[str, str, int, DType], ...] = (
    ("i4", "INT4", 4, I8),
    ("u4", "UINT4", 4, U8),
    ("i2", "INT2", 2, I8),
    ("u2", "UINT2", 2, U8),
)


def _formats() -> dict[int, Format]:
    known = dict(TensorProto.DataType.items())
    floats = [Format(n, known.get(t, -1), theirs, bits, F32, FLOAT_FORMATS[n]) for n, t, theirs, bits in _FLOATS]
    integers = [Format(n, known.get(t, -1), t.lower(), bits, carrier) for n, t, bits, carrier in _INTEGERS]
    powers = Format("f8e8m0", known.get("FLOAT8E8M0", -1), "float8_e8m0fnu", 8, F32)
    return {f.number: f for f in (*floats, *integers, powers) if f.number >= 0}


FORMATS: dict[int, Format] = _formats()
"""The narrow element types by ONNX's number, as far as the installed onnx knows them."""

LEAST_POWER = -127
"""The exponent of the smallest value of f8e8m0, whose values are powers of two and NaN."""


def decode(data: bytes, form: Format, size: int) -> np.ndarray:
    """The first ``size`` elements stored in ``data``, in the format's carrier."""
    if form.bits == 16:
        wide = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return wide.view(np.float32)[:size]
    stored = np.frombuffer(data, np.uint8)
    places = np.arange(0, 8, form.bits, dtype=np.uint8)
    codes = (stored[:, None] >> places) & np.uint8(2**form.bits - 1)
    return _values(form)[codes.reshape(-1)[:size]]


def stored_bytes(form: Format, size: int) -> int:
    """How many bytes so many elements take."""
    return -(-size * form.bits // 8)


@cache
def _values(form: Format) -> np.ndarray:
    """The values of all codes of a format of at most 8 bits."""
    codes = np.arange(2**form.bits)
    if form.rounding is not None:
        return _floats(codes, form.rounding)
    if form.carrier is F32:
        return np.where(codes == codes[-1], np.nan, np.ldexp(1.0, codes + LEAST_POWER)).astype(np.float32)
    negative = form.carrier is I8
    return np.where(negative & (codes >= codes.size // 2), codes - codes.size, codes).astype(form.carrier.numpy)


def _floats(codes: np.ndarray, f: FloatFormat) -> np.ndarray:
    sign = codes >> (f.exponent + f.mantissa)
    exponent = (codes >> f.mantissa) & (2**f.exponent - 1)
    mantissa = codes & (2**f.mantissa - 1)
    normal = exponent > 0
    magnitude = np.ldexp(mantissa + normal * 2.0**f.mantissa, np.maximum(exponent, 1) - f.bias - f.mantissa)
    beyond = np.where((mantissa == 0) & np.isinf(f.overflow), np.inf, np.nan)
    values = np.where(magnitude > f.largest, beyond, magnitude) * np.where(sign, -1.0, 1.0)
    if not f.signed_zero:
        values[codes.size // 2] = np.nan
    return values.astype(np.float32)
