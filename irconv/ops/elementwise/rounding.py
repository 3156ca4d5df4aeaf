"""Rounding to the values that a narrow floating-point format has: bfloat16, the 8-bit formats and the 4-bit one.

What is stored narrow elsewhere is held here in a wider type, exactly: a value of such a format is a float32 (or float64) that
:func:`round_to` leaves as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv.errors import AttributeValueError
from irconv.op import Fusion, OpDef, Site, Value, emit, register
from irconv.ops.elementwise.rules import float_only


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """A floating-point format: (-1)^s 2^(e - bias) (1 + m / 2^mantissa), with e = 0 for zero and subnormal numbers.

    exponent, mantissa: how many bits e and m have; a sign bit stands before them.
    largest:  the largest finite value.
    overflow: what values beyond it become when they are not saturated: infinity, NaN, or the largest value.
    signed_zero: whether -0 is a value.
    """

    name: str
    exponent: int
    mantissa: int
    bias: int
    largest: float
    overflow: float
    signed_zero: bool = True

    @property
    def least_exponent(self) -> int:
        """The exponent of the smallest normal number, and of all subnormal ones."""
        return 1 - self.bias

    @property
    def has_nan(self) -> bool:
        return not math.isfinite(self.overflow)


FLOAT_FORMATS: dict[str, FloatFormat] = {
    f.name: f
    for f in (
        FloatFormat("bf16", 8, 7, 127, (2 - 2**-7) * 2.0**127, math.inf),
        FloatFormat("f8e4m3fn", 4, 3, 7, 448.0, math.nan),
        FloatFormat("f8e4m3fnuz", 4, 3, 8, 240.0, math.nan, signed_zero=False),
        FloatFormat("f8e5m2", 5, 2, 15, 57344.0, math.inf),
        FloatFormat("f8e5m2fnuz", 5, 2, 16, 57344.0, math.nan, signed_zero=False),
        FloatFormat("f4e2m1", 2, 1, 1, 6.0, 6.0),
    )
}
"""The formats by name: fn has no infinity, fnuz neither that nor -0."""

# --- round_to ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RoundToAttributes:
    """format: one of ``FLOAT_FORMATS``; saturate: whether what is too large becomes the largest value."""

    format: str
    saturate: bool

    def __post_init__(self) -> None:
        if self.format not in FLOAT_FORMATS:
            raise AttributeValueError(f"format {self.format!r} is not one of {', '.join(FLOAT_FORMATS)}")


def round_to(x: Value, format: str, saturate: bool = False) -> Value:
    """The nearest value of a format, ties to the even one, in the element type of x (float16 overflows before bfloat16 does).

    With a unit u = 2^(max(floor(log2 |x|), least exponent) - mantissa) it is u rint(x / u).  NaN stays NaN; a format without
    one has 0 for it.  The gradient passes unchanged, as through a cast.
    """
    return emit(ROUND_TO, RoundToAttributes(format, saturate), x)


def _round_to_reference(attributes: RoundToAttributes, x: np.ndarray) -> np.ndarray:
    f = FLOAT_FORMATS[attributes.format]
    with np.errstate(all="ignore"):
        _, exponent = np.frexp(x)  # |x| is in [2^(exponent - 1), 2^exponent)
        unit = np.maximum(exponent - 1, f.least_exponent) - f.mantissa
        rounded = np.ldexp(np.rint(np.ldexp(x, -unit)), unit)
        beyond = f.largest if attributes.saturate else f.overflow
        rounded = np.where(np.abs(rounded) > f.largest, np.copysign(x.dtype.type(beyond), x), rounded)
    if not f.has_nan:
        rounded = np.where(np.isnan(x), x.dtype.type(0), rounded)
    return rounded if f.signed_zero else rounded + x.dtype.type(0)


def _round_to_gradient(site: Site, d: Value) -> tuple[Any]:
    return (d,)


ROUND_TO = register(
    OpDef(
        "round_to",
        ("x",),
        infer=float_only,
        reference=_round_to_reference,
        gradient=_round_to_gradient,
        fusion=Fusion.ELEMENTWISE,
        attributes=RoundToAttributes,
    )
)
