"""Resizing of the last axes by interpolation, one axis after another.

Place i of an axis resized from n to m elements (scale s = m / n, or as given) reads position p of the operand:

    half_pixel:    p = (i + 1/2) / s - 1/2
    align_corners: p = i (n - 1) / (m - 1), 0 if m = 1
    asymmetric:    p = i / s

Mode 'linear' weighs the two neighbours of p, with p kept inside the operand.  Mode 'nearest' takes floor(p) with asymmetric
coordinates and floor(p + 1/2) with the others.  In PyTorch's words: 'nearest' is nearest, asymmetric; 'nearest-exact' is
nearest, half_pixel; '(bi, tri)linear' is linear, with align_corners or half_pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv.errors import AttributeValueError, DTypeError, ShapeError
from irconv.op import Fusion, OpDef, Site, Value, Work, emit, register
from irconv.ops.shape import int_tuple
from irconv.types import TensorType, as_dtype, tensor_type

MODES = ("nearest", "linear")
COORDINATES = ("half_pixel", "align_corners", "asymmetric")

# --- shared by the sections below --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ResizeAttributes:
    """How the last axes are resized.

    size:        of those axes in the result (of resize_adjoint: in the result that goes back to the operand).
    mode:        'nearest' or 'linear'.
    coordinates: 'half_pixel', 'align_corners' or 'asymmetric'.
    scales:      result size / operand size to compute positions with, where it is not the ratio of the sizes; or None.
    """

    size: tuple[int, ...]
    mode: str
    coordinates: str
    scales: tuple[float, ...] | None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise AttributeValueError(f"resize mode {self.mode!r} is not one of {', '.join(MODES)}")
        if self.coordinates not in COORDINATES:
            raise AttributeValueError(f"coordinates {self.coordinates!r} are not one of {', '.join(COORDINATES)}")
        if not self.size or min(self.size) < 1:
            raise AttributeValueError(f"cannot resize to {list(self.size)}: give at least one size, each at least 1")
        if self.scales is not None and len(self.scales) != len(self.size):
            raise AttributeValueError(f"{len(self.scales)} scales do not match the {len(self.size)} sizes {list(self.size)}")
        if self.scales is not None and not all(0 < s < math.inf for s in self.scales):
            raise AttributeValueError(f"scales {list(self.scales)} must be positive and finite")


def _attributes(size: Any, mode: str, coordinates: str, scales: Sequence[float] | None) -> ResizeAttributes:
    return ResizeAttributes(int_tuple(size, "size"), mode, coordinates, None if scales is None else tuple(map(float, scales)))


def _check(attributes: ResizeAttributes, x: TensorType) -> tuple[int, ...]:
    """The shape with its last axes resized."""
    count = len(attributes.size)
    if x.rank < count:
        raise ShapeError(f"cannot resize the last {count} axes of {list(x.shape)}")
    kept, resized = x.shape[: x.rank - count], x.shape[x.rank - count :]
    if 0 in resized:
        raise ShapeError(f"cannot resize {list(x.shape)}: one of its last {count} axes is empty")
    if attributes.mode == "linear" and not x.dtype.is_float:
        raise DTypeError(f"linear resizing needs floating-point elements, got {x.dtype}", hint="cast first, or use 'nearest'")
    return (*kept, *attributes.size)


@dataclass(frozen=True, slots=True)
class AxisTaps:
    """What each place of a resized axis reads: elements ``low`` (by 1 - weight) and ``high`` (by ``weight``)."""

    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray


def axis_taps(n: int, m: int, mode: str, coordinates: str, scale: float | None) -> AxisTaps:
    """The taps of an axis resized from n to m elements, positions in float64; in mode 'nearest' every weight is 0."""
    places = np.arange(m, dtype=np.float64)
    # dividing whole numbers once gives positions exact enough to floor
    if coordinates == "align_corners":
        position = places * (n - 1) / max(m - 1, 1)
    elif coordinates == "asymmetric":
        position = places * n / m if scale is None else places / scale
    else:
        position = ((2 * places + 1) * n - m) / (2 * m) if scale is None else (places + 0.5) / scale - 0.5
    if mode == "nearest":
        nearest = np.floor(position if coordinates == "asymmetric" else position + 0.5)
        low = np.clip(nearest, 0, n - 1).astype(np.int64)
        return AxisTaps(low, low, np.zeros(m))
    position = np.clip(position, 0, n - 1)
    low = np.floor(position).astype(np.int64)
    return AxisTaps(low, np.minimum(low + 1, n - 1), position - low)


def _taps_by_axis(attributes: ResizeAttributes, small: Sequence[int], large: Sequence[int]) -> list[tuple[int, AxisTaps]]:
    """(axis counted from the back, its taps) for resizing the last axes of sizes ``small`` to ``large``."""
    count = len(attributes.size)
    scales = attributes.scales or (None,) * count
    rows = zip(range(-count, 0), small[-count:], large[-count:], scales, strict=True)
    return [(axis, axis_taps(n, m, attributes.mode, attributes.coordinates, scale)) for axis, n, m, scale in rows]


def _cost(attributes: ResizeAttributes, operands: tuple[TensorType, ...], result: TensorType) -> Work:
    per_element = 3 * len(attributes.size) if attributes.mode == "linear" else 0
    return Work(flops=per_element * max(operands[0].size, result.size))


# --- resize --------------------------------------------------------------------------------------------------------------


def resize(
    x: Value, size: Any, mode: str = "nearest", coordinates: str = "half_pixel", scales: Sequence[float] | None = None
) -> Value:
    """x [..., *S] with its last axes resized to ``size``, one entry for each (see the top of the module)."""
    return emit(RESIZE, _attributes(size, mode, coordinates, scales), x)


def _resize_reference(attributes: ResizeAttributes, x: np.ndarray) -> np.ndarray:
    result = x
    for axis, taps in _taps_by_axis(attributes, x.shape, attributes.size):
        if attributes.mode == "nearest":
            result = np.take(result, taps.low, axis)
            continue
        # float16 is carried in float32 from axis to axis
        result = result.astype(as_dtype(result.dtype).accumulator.numpy, copy=False)
        weight = taps.weight.astype(result.dtype).reshape(-1, *(1,) * (-axis - 1))
        result = np.take(result, taps.low, axis) * (1 - weight) + np.take(result, taps.high, axis) * weight
    return result.astype(x.dtype, copy=False)


def _resize_gradient(site: Site, d: Value) -> tuple[Value]:
    attributes = site.attributes
    x = site.operands[0]
    size = x.shape[x.rank - len(attributes.size) :]
    return (resize_adjoint(d, size, attributes.mode, attributes.coordinates, attributes.scales),)


RESIZE = register(
    OpDef(
        "resize",
        ("x",),
        infer=lambda attributes, x: tensor_type(x.dtype, _check(attributes, x)),
        reference=_resize_reference,
        gradient=_resize_gradient,
        fusion=Fusion.WINDOW,
        attributes=ResizeAttributes,
        cost=_cost,
    )
)

# --- resize_adjoint --------------------------------------------------------------------------------------------------------


def resize_adjoint(
    d: Value, size: Any, mode: str = "nearest", coordinates: str = "half_pixel", scales: Sequence[float] | None = None
) -> Value:
    """The adjoint of :func:`resize` to last axes ``size``: every element of d added, weighted, where it was read."""
    return emit(RESIZE_ADJOINT, _attributes(size, mode, coordinates, scales), d)


def _resize_adjoint_type(attributes: ResizeAttributes, d: TensorType) -> TensorType:
    if not d.dtype.is_float:
        raise DTypeError(f"needs floating-point elements, got {d.dtype}", hint="only gradients are resized backwards")
    return tensor_type(d.dtype, _check(attributes, d))


def _resize_adjoint_reference(attributes: ResizeAttributes, d: np.ndarray) -> np.ndarray:
    result = d.astype(as_dtype(d.dtype).accumulator.numpy, copy=False)
    for (axis, taps), n in zip(_taps_by_axis(attributes, attributes.size, d.shape), attributes.size, strict=True):
        rows = np.moveaxis(result, axis, 0)
        back = np.zeros((n, *rows.shape[1:]), rows.dtype)
        weights = taps.weight.astype(rows.dtype)
        for row, low, high, weight in zip(rows, taps.low, taps.high, weights, strict=True):
            back[low] += row * (1 - weight)
            if weight:
                back[high] += row * weight
        result = np.moveaxis(back, 0, axis)
    return result.astype(d.dtype, copy=False)


def _resize_adjoint_gradient(site: Site, d: Value) -> tuple[Value]:
    attributes = site.attributes
    upstream = site.operands[0]
    size = upstream.shape[upstream.rank - len(attributes.size) :]
    return (resize(d, size, attributes.mode, attributes.coordinates, attributes.scales),)


RESIZE_ADJOINT = register(
    OpDef(
        "resize_adjoint",
        ("d",),
        infer=_resize_adjoint_type,
        reference=_resize_adjoint_reference,
        gradient=_resize_adjoint_gradient,
        fusion=Fusion.WINDOW,
        attributes=ResizeAttributes,
        cost=_cost,
    )
)
