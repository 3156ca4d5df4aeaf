"""Scans: running sums and products along one axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv.errors import DTypeError
from irconv.op import Fusion, OpDef, Site, Value, Work, emit, register
from irconv.ops.elementwise import multiply
from irconv.ops.pad import pad
from irconv.ops.shape import check_axes, flip, normalize_axis
from irconv.types import BOOL, TensorType, as_dtype

# --- cumsum --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CumsumAttributes:
    """axis: the one to sum along; exclusive: without the element itself; reverse: from the end to the start."""

    axis: int
    exclusive: bool
    reverse: bool


def cumsum(x: Value, axis: int, exclusive: bool = False, reverse: bool = False) -> Value:
    """Running sums along an axis: result[i] = x[0] + ... + x[i].

    exclusive: without x[i] itself, so that the first is 0.
    reverse:   result[i] = x[i] + ... + x[-1].
    """
    return emit(CUMSUM, CumsumAttributes(normalize_axis(axis, x.rank), bool(exclusive), bool(reverse)), x)


def _cumsum_type(attributes: CumsumAttributes, x: TensorType) -> TensorType:
    check_axes((attributes.axis,), x.rank)
    if x.dtype is BOOL:
        raise DTypeError("needs numbers to add, got bool", hint="cast first, for example x.astype('int64')")
    return TensorType(x.dtype, x.shape)


def _cumsum_reference(attributes: CumsumAttributes, x: np.ndarray) -> np.ndarray:
    rows = np.moveaxis(x, attributes.axis, 0)
    if attributes.reverse:
        rows = rows[::-1]
    sums = np.cumsum(rows, axis=0, dtype=as_dtype(x.dtype).accumulator.numpy)
    if attributes.exclusive:
        sums = np.concatenate([np.zeros_like(sums[:1]), sums[:-1]])
    if attributes.reverse:
        sums = sums[::-1]
    return np.moveaxis(sums, 0, attributes.axis).astype(x.dtype)


def _cumsum_gradient(site: Site, d: Value) -> tuple[Value]:
    # element i went into every sum from i on
    a = site.attributes
    return (cumsum(d, a.axis, a.exclusive, not a.reverse),)


def _one_flop_per_operand_element(attributes: Any, operands: tuple[TensorType, ...], result: TensorType) -> Work:
    return Work(flops=operands[0].size)


CUMSUM = register(
    OpDef(
        "cumsum",
        ("x",),
        infer=_cumsum_type,
        reference=_cumsum_reference,
        gradient=_cumsum_gradient,
        fusion=Fusion.REDUCTION,
        attributes=CumsumAttributes,
        cost=_one_flop_per_operand_element,
    )
)

# --- cumprod -------------------------------------------------------------------------------------------------------------


def cumprod(x: Value, axis: int, exclusive: bool = False, reverse: bool = False) -> Value:
    """Running products along an axis, with the parameters of :func:`cumsum`; the first exclusive one is 1.

    Doubling: after round k every place holds the product of the last 2^k elements (fewer at the start).  No element is
    divided by, so that the gradient is right also at zeros.
    """
    axis = normalize_axis(axis, x.rank)
    if reverse:
        return flip(cumprod(flip(x, axis), axis, exclusive), axis)
    size = x.shape[axis]

    def later(products: Value, places: int) -> Value:
        """Moved along the axis, with ones moving in."""
        keep = [(0, 0)] * x.rank
        keep[axis] = (places, -places)
        return pad(products, keep, value=1.0)

    products = later(x, 1) if exclusive and size else x
    reach = 1
    while reach < size - exclusive:
        products = multiply(products, later(products, reach))
        reach *= 2
    return products
