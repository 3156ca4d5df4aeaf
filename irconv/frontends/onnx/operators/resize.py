"""Resize and Upsample."""

from __future__ import annotations

import math

import numpy as np

from irconv.errors import ModelError
from irconv.frontends.onnx.operators.common import MAX_MADE, integers, same_type, tensor_of
from irconv.frontends.onnx.registry import Call, operator
from irconv.op import Value
from irconv.ops import elementwise as e
from irconv.ops.resize import resize
from irconv.ops.resize_taps import COORDINATES, MODES, ROUNDINGS
from irconv.ops.shape import normalize_axes
from irconv.tensor import Tensor

POLICIES = ("stretch", "not_larger", "not_smaller")

# --- Upsample and the first Resize -----------------------------------------------------------------------------------------


def _plainly(call: Call, x: Tensor, factors: tuple[float, ...]) -> Tensor:
    """The resizing of old: positions p = i / scale, rounded down."""
    mode = call.attributes.string("mode", "nearest", choices=("nearest", "linear", "bilinear"))
    if len(factors) != x.ndim:
        raise ModelError(f"{len(factors)} scales for data of rank {x.ndim}")
    sizes = _scaled(x.shape, factors)
    if max(sizes) > MAX_MADE:
        raise ModelError(f"cannot resize {list(x.shape)} to {list(sizes)}")
    first = _first_changed(x.shape, sizes, factors)
    if first is None:
        return x
    kind = "nearest" if mode == "nearest" else "linear"
    result = resize(_computable(x, kind), sizes[first:], kind, "asymmetric", factors[first:])
    return _restored(result, x)


@operator("Upsample", since=7)
def upsample_by_attribute(call: Call, x: Tensor) -> Tensor:
    """x enlarged by factors."""
    return _plainly(call, x, call.attributes.floats("scales"))


@operator("Upsample", since=9, static=(1,))
@operator("Resize", since=10, static=(1,))
def upsample_by_input(call: Call, x: Tensor, scales: np.ndarray) -> Tensor:
    """x resized by factors."""
    return _plainly(call, x, tuple(map(float, scales.reshape(-1))))


# --- Resize ------------------------------------------------------------------------------------------------------------------


@operator("Resize", since=11, static=(1, 2, 3))
def resize_as_asked(
    call: Call,
    x: Tensor,
    roi: np.ndarray | None = None,
    scales: np.ndarray | None = None,
    sizes: np.ndarray | None = None,
) -> Tensor:
    """x resized by factors or to sizes, with every mode and transformation of coordinates."""
    a = call.attributes
    axes = normalize_axes(a.ints("axes", None), x.ndim)
    coordinates = a.string("coordinate_transformation_mode", "half_pixel", choices=COORDINATES)
    mode = a.string("mode", "nearest", choices=MODES)
    cropping = coordinates == "tf_crop_and_resize"
    region = _region(roi, axes, x.ndim) if cropping else None
    target, factors = _target(call, x, axes, scales, sizes, region)
    if min(target, default=1) < 1 or max(target, default=1) > MAX_MADE:
        raise ModelError(f"cannot resize {list(x.shape)} to {list(target)}")
    first = _first_changed(x.shape, target, factors, region)
    if first is None:
        return x
    result = resize(
        _computable(x, mode),
        target[first:],
        mode,
        coordinates,
        None if cropping or factors is None else factors[first:],
        rounding=a.string("nearest_mode", "round_prefer_floor", choices=ROUNDINGS) if mode == "nearest" else None,
        coefficient=a.float("cubic_coeff_a", -0.75),
        exclude_outside=a.flag("exclude_outside"),
        antialias=a.flag("antialias") and mode != "nearest",
        region=None if region is None else (*region[first : x.ndim], *region[x.ndim + first :]),
        extrapolation=a.float("extrapolation_value", 0.0),
    )
    return _restored(result, x)


def _region(roi: np.ndarray | None, axes: tuple[int, ...], rank: int) -> tuple[float, ...]:
    """Starts and ends of all axes, from those of the given ones."""
    if roi is None or roi.size != 2 * len(axes):
        raise ModelError(f"tf_crop_and_resize needs a start and an end for each of {len(axes)} axes in roi")
    region = [0.0] * rank + [1.0] * rank
    for place, axis in enumerate(axes):
        region[axis], region[rank + axis] = float(roi[place]), float(roi[len(axes) + place])
    return tuple(region)


def _target(
    call: Call,
    x: Tensor,
    axes: tuple[int, ...],
    scales: np.ndarray | None,
    sizes: np.ndarray | None,
    region: tuple[float, ...] | None,
) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
    """The shape of the result, and the factors of all axes where they are what was given."""
    given = scales if scales is not None and scales.size else None
    wanted = integers(sizes, "sizes") or None
    if (given is None) == (wanted is None):
        raise ModelError("Resize needs scales or sizes, and not both")
    policy = call.attributes.string("keep_aspect_ratio_policy", "stretch", choices=POLICIES)
    factors = [1.0] * x.ndim
    target = list(x.shape)
    if len(axes) != (len(wanted) if wanted else 0 if given is None else given.size):
        raise ModelError(f"Resize needs one scale or size for each of {len(axes)} axes")
    if given is not None:
        for axis, factor in zip(axes, given.reshape(-1), strict=True):
            factors[axis] = float(factor)
        extents = [1.0] * x.ndim if region is None else np.subtract(region[x.ndim :], region[: x.ndim]).tolist()
        return _scaled(x.shape, factors, extents), tuple(factors)
    assert wanted is not None
    if policy == "stretch":
        for axis, size in zip(axes, wanted, strict=True):
            target[axis] = size
        return tuple(target), None
    ratios = [size / max(x.shape[axis], 1) for axis, size in zip(axes, wanted, strict=True)]
    factor = min(ratios) if policy == "not_larger" else max(ratios)
    for axis in axes:
        factors[axis], target[axis] = factor, int(factor * x.shape[axis] + 0.5)
    return tuple(target), tuple(factors)


# --- sizes and factors -------------------------------------------------------------------------------------------------------


def _scaled(
    shape: tuple[int, ...], factors: list[float] | tuple[float, ...], extents: list[float] | None = None
) -> tuple[int, ...]:
    """floor(n * extent * factor) for each axis, in float32 as the factors are stored: 10 * 0.7 is 7."""
    if not all(0 < factor < math.inf for factor in factors):
        raise ModelError(f"scales {list(factors)} must be positive and finite")
    parts = extents or [1.0] * len(shape)
    return tuple(
        math.floor(np.float32(np.float32(n) * np.float32(part)) * np.float32(factor))
        for n, part, factor in zip(shape, parts, factors, strict=True)
    )


def _first_changed(
    shape: tuple[int, ...],
    target: tuple[int, ...],
    factors: tuple[float, ...] | None,
    region: tuple[float, ...] | None = None,
) -> int | None:
    """The first axis that is resized at all; None if there is none."""
    rank = len(shape)
    for axis, (n, m) in enumerate(zip(shape, target, strict=True)):
        scaled = factors is not None and factors[axis] != 1
        if n != m or scaled or (region is not None and (region[axis], region[rank + axis]) != (0.0, 1.0)):
            return axis
    return None


def _computable(x: Tensor, mode: str) -> Value:
    """x in a type that it can be interpolated in."""
    return x if mode == "nearest" or x.type.dtype.is_float else e.cast(x, "f32")


def _restored(result: Value, x: Tensor) -> Tensor:
    """An interpolated result in the element type of x: integers rounded, and kept in their range."""
    if result.type.dtype is x.type.dtype:
        return tensor_of(result)
    dtype = x.type.dtype
    return same_type(e.clip(e.round_(result), float(dtype.lowest), float(dtype.highest)), x)
