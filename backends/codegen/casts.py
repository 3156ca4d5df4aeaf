"""Conversions between element types as expressions, defined where C leaves them undefined."""

from __future__ import annotations

from typing import Any

from irconv.backends.codegen.form import (
    Bits,
    Expression,
    Literal,
    Type,
    both,
    call,
    compare,
    convert,
    select,
)
from irconv.backends.codegen.rules import Application, Rule
from irconv.ops.elementwise import FLOAT_FORMATS
from irconv.types import BOOL, F16, F32, F64, I32, I64, U64, DType


def _cast(a: Application) -> Expression:
    source, target = a.dtypes[0], a.dtype
    if source is target:
        return a.x
    if target is BOOL:
        return compare("!=", a.x, 0)
    if source is BOOL:
        return select(a.x, Literal(1, a.type), Literal(0, a.type))
    if source.is_float and target.is_integer:
        return _to_integer(a)
    if source.is_integer and target is F16:
        return convert(convert(a.x, F32), F16)  # as NumPy: twice rounded
    if source.is_integer and target.is_integer and source.bytes == target.bytes and a.lanes > 1:
        return Bits(a.x, a.type)
    return convert(a.x, target)


def _to_integer(a: Application) -> Expression:
    """Towards zero; NaN and what is too large become the smallest integer of the type it goes through, as on x86."""
    x = convert(a.x, F32) if a.dtypes[0] is F16 else a.x
    x = a.body.let("source", x)
    if a.dtype is U64:
        upper = compare(">=", x, 2.0**63)
        low = _bounded(a, select(upper, x - 2.0**63, x), I64)
        signed = a.body.let("low", low)
        return select(upper, convert(signed, U64) ^ Literal(2**63, Type(U64)), convert(signed, U64))
    through = I64 if a.dtype.name in ("u32", "i64") else I32
    return convert(_bounded(a, x, through), a.dtype)


def _bounded(a: Application, x: Expression, dtype: DType) -> Expression:
    limit = 2.0 ** (8 * dtype.bytes - 1)
    x = a.body.let("bounded", x)
    fits = a.body.let("fits", both(x >= -limit, x < limit))
    inside = convert(select(fits, x, Literal(0, x.type)), dtype)
    return select(fits, inside, Literal(dtype.lowest, Type(dtype, a.lanes)))


def _cast_vectors(operands: tuple[DType, ...], result: DType, numbers: tuple[Any, ...]) -> bool:
    """One size, and no float to unsigned: that goes through a wider type."""
    (source,) = operands
    return not (source.is_float and result.kind == "uint")


def _round_to(a: Application) -> Expression:
    """Numbers normal in the format are rounded as integers, by their bits; smaller ones by adding 1.5 * 2^p units.

    Both round ties to even.  A carry out of the fraction goes into the exponent, as it should.
    """
    f = FLOAT_FORMATS[a.attributes.format]
    fraction = {F32: 23, F64: 52}[a.dtype]
    x, type_ = a.x, a.x.type
    magnitude = a.body.let("magnitude", call("absolute", x))
    cut = fraction - f.mantissa
    bits = a.body.let("bits", Bits(magnitude, type_.unsigned))
    even = (bits >> cut) & 1
    rounded_up = bits + ((1 << (cut - 1)) - 1) + even
    kept = _bit_mask(8 * a.dtype.bytes, cut)
    normal = Bits(rounded_up & Literal(kept, type_.unsigned), type_)
    small = 1.5 * 2.0**fraction * 2.0 ** (f.least_exponent - f.mantissa)
    subnormal = (magnitude + small) - small
    rounded = a.body.let("rounded", select(magnitude < 2.0**f.least_exponent, subnormal, normal))
    beyond = f.largest if a.attributes.saturate else f.overflow
    rounded = a.body.let("rounded", select(rounded > f.largest, Literal(beyond, type_), rounded))
    signed = call("copysign", rounded, x)
    if not f.signed_zero:
        signed = signed + 0.0
    return select(compare("!=", x, x), x if f.has_nan else Literal(0, type_), signed)


def _bit_mask(width: int, cut: int) -> int:
    """All bits but the lowest ``cut``."""
    return (1 << width) - (1 << cut)


CASTS: dict[str, Rule] = {
    "cast": Rule(_cast, vectors=_cast_vectors),
    "round_to": Rule(_round_to),
}
"""Rules by op."""
