"""The arithmetic of resizing one axis, shared by the ops and the kernels: which elements each place reads, and their weights.

Place i of an axis resized from n to m elements (scale s = m / n and width w = m, or s as given and w = s n) reads position p
of the operand:

    half_pixel:            p = (i + 1/2) / s - 1/2
    half_pixel_symmetric:  the same, moved by n / 2 (1 - m / w), which centres it where s n is not a whole number
    pytorch_half_pixel:    as half_pixel, but 0 if m = 1
    tf_half_pixel_for_nn:  p = (i + 1/2) / s
    align_corners:         p = i (n - 1) / (w - 1), 0 if m = 1
    asymmetric:            p = i / s
    tf_crop_and_resize:    p = (n - 1) (start + i (end - start) / (w - 1)), the middle of the region if m = 1; a place whose p
                           lies outside the operand reads nothing (it is 0)

Mode 'nearest' takes one element, p rounded.  'linear' and 'cubic' weigh the elements around p by a kernel of their distance t:
1 - |t|, and Keys' cubic convolution with coefficient a.  Elements outside the operand are those at its edge; with
``exclude_outside`` they are left out and the other weights made to add up to 1.  With ``antialias`` the kernel of an axis that
shrinks is widened by 1 / s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from irconv.errors import AttributeValueError

MODES = ("nearest", "linear", "cubic")
COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "tf_half_pixel_for_nn",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
)
ROUNDINGS = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")


@dataclass(frozen=True, slots=True)
class ResizeAttributes:
    """How the last axes are resized.

    size:            of those axes in the result (of resize_adjoint: in the result that goes back to the operand).
    mode:            'nearest', 'linear' or 'cubic'.
    coordinates:     one of COORDINATES.
    scales:          result size / operand size to compute positions with, where it is not the ratio of the sizes; or None.
    rounding:        of positions in mode 'nearest', one of ROUNDINGS; None: 'floor' with asymmetric coordinates,
                     'round_prefer_ceil' with the others.
    coefficient:     a of the cubic kernel.
    exclude_outside: whether elements outside the operand are left out, rather than taken from its edge.
    antialias:       whether the kernel is widened where an axis shrinks.
    region:          of tf_crop_and_resize: the start on each axis, then the end on each, 0 and 1 being the outer elements.
    """

    size: tuple[int, ...]
    mode: str
    coordinates: str
    scales: tuple[float, ...] | None
    rounding: str | None = None
    coefficient: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    region: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        count = len(self.size)
        if self.mode not in MODES:
            raise AttributeValueError(f"resize mode {self.mode!r} is not one of {', '.join(MODES)}")
        if self.coordinates not in COORDINATES:
            raise AttributeValueError(f"coordinates {self.coordinates!r} are not one of {', '.join(COORDINATES)}")
        if self.rounding is not None and self.rounding not in ROUNDINGS:
            raise AttributeValueError(f"rounding {self.rounding!r} is not one of {', '.join(ROUNDINGS)}")
        if not self.size or min(self.size) < 1:
            raise AttributeValueError(f"cannot resize to {list(self.size)}: give at least one size, each at least 1")
        if self.scales is not None and len(self.scales) != count:
            raise AttributeValueError(f"{len(self.scales)} scales do not match the {count} sizes {list(self.size)}")
        if self.scales is not None and not all(0 < s < math.inf for s in self.scales):
            raise AttributeValueError(f"scales {list(self.scales)} must be positive and finite")
        if not math.isfinite(self.coefficient):
            raise AttributeValueError(f"the cubic coefficient {self.coefficient} is not finite")
        if self.mode == "nearest" and self.antialias:
            raise AttributeValueError("antialias has no meaning in mode 'nearest'", hint="use 'linear' or 'cubic'")
        if (self.coordinates == "tf_crop_and_resize") != (self.region is not None):
            raise AttributeValueError("a region goes with the coordinates 'tf_crop_and_resize', and they need one")
        if self.region is not None and (len(self.region) != 2 * count or not all(map(math.isfinite, self.region))):
            raise AttributeValueError(f"a region has a finite start and end for each of {count} axes, got {list(self.region)}")


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis to be resized: n to m elements, and its entries of the attributes (``region``: start and end)."""

    n: int
    m: int
    scale: float | None
    region: tuple[float, float]

    @property
    def width(self) -> float:
        """The size of the result before it was made whole."""
        return self.m if self.scale is None else self.scale * self.n


@dataclass(frozen=True, slots=True)
class AxisTaps:
    """What each place of a resized axis reads: elements ``indices`` [m, taps], each times its weight in ``weights`` [m, taps]."""

    indices: np.ndarray
    weights: np.ndarray

    def matrix(self, n: int) -> np.ndarray:
        """The same as a matrix [m, n], in float64."""
        m = len(self.indices)
        dense = np.zeros((m, n))
        np.add.at(dense, (np.arange(m)[:, None], self.indices), self.weights)
        return dense


def taps_by_axis(a: ResizeAttributes, small: Sequence[int], large: Sequence[int]) -> list[tuple[int, AxisTaps]]:
    """(axis counted from the back, its taps) for resizing the last axes of sizes ``small`` to ``large``."""
    count = len(a.size)
    return [(k - count, axis_taps(a, axis)) for k, axis in enumerate(_axes(a, small, large))]


def _axes(a: ResizeAttributes, small: Sequence[int], large: Sequence[int]) -> list[Axis]:
    count = len(a.size)
    scales = a.scales or (None,) * count
    region = a.region or (0.0,) * count + (1.0,) * count
    rows = zip(small[-count:], large[-count:], scales, zip(region[:count], region[count:], strict=True), strict=True)
    return [Axis(n, m, inexact(n, m, scale), span) for n, m, scale, span in rows]


def inexact(n: int, m: int, scale: float | None) -> float | None:
    """A scale, or None if it is the ratio of the sizes but for rounding: whole numbers then say exactly where a place reads."""
    return None if scale is None or abs(scale * n - m) <= 1e-6 * m else scale


def axis_taps(a: ResizeAttributes, axis: Axis) -> AxisTaps:
    """The taps of one axis; in mode 'nearest' there is one a place."""
    position = _positions(a.coordinates, axis)
    if a.mode == "nearest":
        indices = _rounded(position, a)[:, None]
        weights = np.ones(indices.shape)
    elif a.antialias:
        indices, weights = _antialiased(position, a, axis)
    elif a.mode == "linear":
        inside = np.clip(position, 0, axis.n - 1)
        indices, weights = _weighed(inside, 1.0, _linear_kernel, 1)
    else:
        indices, weights = _weighed(position, 1.0, lambda t: _cubic_kernel(t, a.coefficient), 2)
    outside = (indices < 0) | (indices >= axis.n)
    if a.exclude_outside and a.mode != "nearest":
        weights = np.where(outside, 0, weights)
        total = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(total == 0, 1, total)
    if a.coordinates == "tf_crop_and_resize":
        weights = np.where(reads_nothing(position, axis.n)[:, None], 0, weights)
    return AxisTaps(np.clip(indices, 0, axis.n - 1).astype(np.int64), weights)


def reads_nothing(position: np.ndarray, n: int) -> np.ndarray:
    """Which positions lie outside an axis of n elements."""
    return (position < 0) | (position > n - 1)


def outside_rows(a: ResizeAttributes, shape: Sequence[int]) -> list[np.ndarray]:
    """For each resized axis of a ``tf_crop_and_resize``, which places of the result read nothing."""
    return [reads_nothing(_positions(a.coordinates, axis), axis.n) for axis in _axes(a, shape, a.size)]


def _positions(coordinates: str, axis: Axis) -> np.ndarray:
    """Where each place of the result reads, in float64."""
    n, m, scale = axis.n, axis.m, axis.scale
    places = np.arange(m, dtype=np.float64)
    width = axis.width
    # dividing whole numbers once gives positions exact enough to floor
    if coordinates == "align_corners":
        return np.zeros(m) if m == 1 or width == 1 else places * (n - 1) / (width - 1)
    if coordinates == "asymmetric":
        return places * n / m if scale is None else places / scale
    if coordinates == "tf_crop_and_resize":
        start, end = axis.region
        if m == 1 or width == 1:
            return np.full(m, (start + end) * (n - 1) / 2)
        return start * (n - 1) + places * (end - start) * (n - 1) / (width - 1)
    if coordinates == "tf_half_pixel_for_nn":
        return (2 * places + 1) * n / (2 * m) if scale is None else (places + 0.5) / scale
    if coordinates == "pytorch_half_pixel" and m == 1:
        return np.zeros(1)
    centred = ((2 * places + 1) * n - m) / (2 * m) if scale is None else (places + 0.5) / scale - 0.5
    if coordinates == "half_pixel_symmetric":
        centred += n / 2 * (1 - m / width)
    return centred


def nearest_rounding(a: ResizeAttributes) -> str:
    """How positions are rounded in mode 'nearest'."""
    return a.rounding or ("floor" if a.coordinates == "asymmetric" else "round_prefer_ceil")


def _rounded(position: np.ndarray, a: ResizeAttributes) -> np.ndarray:
    rounding = nearest_rounding(a)
    if rounding == "floor":
        return np.floor(position)
    if rounding == "ceil":
        return np.ceil(position)
    return np.ceil(position - 0.5) if rounding == "round_prefer_floor" else np.floor(position + 0.5)


def _linear_kernel(t: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(t), 0)


def _cubic_kernel(t: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel: 1 at 0, 0 at the other whole numbers and beyond 2."""
    t = np.abs(t)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


def _weighed(
    position: np.ndarray, scale: float, kernel: Callable[[np.ndarray], np.ndarray], radius: int
) -> tuple[np.ndarray, np.ndarray]:
    """The elements less than radius / scale away from each position, and their weights."""
    reach = math.ceil(radius / scale)
    base = np.floor(position)[:, None]
    indices = base + np.arange(1 - reach, reach + 1)
    return indices, kernel((indices - position[:, None]) * scale)


def _antialiased(position: np.ndarray, a: ResizeAttributes, axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    scale = min(1.0, axis.width / axis.n)
    if a.mode == "linear":
        indices, weights = _weighed(position, scale, _linear_kernel, 1)
    else:
        indices, weights = _weighed(position, scale, lambda t: _cubic_kernel(t, a.coefficient), 2)
    return indices, weights / weights.sum(axis=1, keepdims=True)
