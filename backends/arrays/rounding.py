"""Rounding to narrow floating-point formats: bfloat16 by its bits, the others by their exponents."""

from __future__ import annotations

import math
from typing import Any

from irconv.backends.arrays.base import Array
from irconv.backends.arrays.blocks import Step
from irconv.ops.elementwise import FLOAT_FORMATS, ClipAttributes, RoundToAttributes, clip_bounds
from irconv.types import BOOL, F32, I32, U32, TensorType


def round_to_step(xp: Any, attributes: RoundToAttributes, operands: tuple[TensorType, ...]) -> Step:
    """The step of ``round_to``."""
    if attributes.format == "bf16" and operands[0].dtype is F32 and not attributes.saturate:
        return _bfloat16(xp)
    return _by_exponent(xp, attributes, operands[0])


def _bfloat16(xp: Any) -> Step:
    """The upper half of a float32's bits, one more where the lower half is more than 1/2, or 1/2 and the upper half odd."""
    nan = xp.asarray(math.nan, F32.numpy)

    def apply(x: Array, out: Array, bits: Array, undefined: Array) -> None:
        whole = x.view(U32.numpy)
        xp.not_equal(x, x, undefined)
        xp.right_shift(whole, 16, bits)
        xp.bitwise_and(bits, 1, bits)
        xp.add(bits, 0x7FFF, bits)
        xp.add(bits, whole, bits)
        xp.bitwise_and(bits, 0xFFFF0000, out.view(U32.numpy))
        xp.copyto(out, nan, where=undefined)

    return Step(apply, (U32, BOOL), (0,))


def _by_exponent(xp: Any, attributes: RoundToAttributes, x_type: TensorType) -> Step:
    f, dtype = FLOAT_FORMATS[attributes.format], x_type.dtype
    beyond = f.largest if attributes.saturate else f.overflow
    low, high = (xp.asarray(bound) for bound in clip_bounds(ClipAttributes(-f.largest, f.largest), dtype))
    zero, one, factor = (xp.asarray(dtype.numpy.type(value)) for value in (0, 1, beyond if math.isinf(beyond) else math.nan))

    def apply(x: Array, out: Array, exponent: Array, shift: Array, other: Array, flag: Array) -> None:
        xp.frexp(x, out, exponent)
        # out 2^shift has the bits of the mantissa before the point, fewer where x is subnormal
        xp.subtract(exponent, f.least_exponent, shift)
        xp.minimum(shift, 1, out=shift)
        xp.add(shift, f.mantissa, shift)
        xp.subtract(exponent, shift, exponent)
        xp.ldexp(out, shift, out)
        xp.rint(out, out)
        xp.ldexp(out, exponent, out)
        if math.isfinite(beyond):
            out.clip(low, high, out=out)
        else:
            xp.absolute(out, other)
            xp.greater(other, high, flag)
            xp.copyto(other, one)
            xp.copyto(other, factor, where=flag)
            xp.multiply(out, other, out)
        if not f.has_nan:
            xp.not_equal(out, out, flag)
            xp.copyto(out, zero, where=flag)
        if not f.signed_zero:
            xp.add(out, zero, out)

    return Step(apply, (I32, I32, dtype, BOOL), (0,))
