"""Resizing of the last axes by interpolation, one axis after another.

Along each axis the result is a linear map of the operand: see :mod:`irconv.ops.resize_taps` for the modes and coordinates.  In
PyTorch's words: 'nearest' is nearest, asymmetric; 'nearest-exact' is nearest, half_pixel; '(bi, tri)linear' and 'bicubic' are
linear and cubic, with align_corners or half_pixel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from irconv.errors import DTypeError, ShapeError
from irconv.op import Fusion, OpDef, Site, Value, Work, emit, register
from irconv.ops.elementwise import where
from irconv.ops.resize_taps import ResizeAttributes, outside_rows, taps_by_axis
from irconv.ops.shape import int_tuple
from irconv.types import TensorType, as_dtype, tensor_type

# --- shared by the sections below --------------------------------------------------------------------------------------


def _check(attributes: ResizeAttributes, x: TensorType) -> tuple[int, ...]:
    """The shape with its last axes resized."""
    count = len(attributes.size)
    if x.rank < count:
        raise ShapeError(f"cannot resize the last {count} axes of {list(x.shape)}")
    kept, resized = x.shape[: x.rank - count], x.shape[x.rank - count :]
    if 0 in resized:
        raise ShapeError(f"cannot resize {list(x.shape)}: one of its last {count} axes is empty")
    if attributes.mode != "nearest" and not x.dtype.is_float:
        raise DTypeError(
            f"{attributes.mode} resizing needs floating-point elements, got {x.dtype}", hint="cast first, or use 'nearest'"
        )
    return (*kept, *attributes.size)


def _cost(attributes: ResizeAttributes, operands: tuple[TensorType, ...], result: TensorType) -> Work:
    per_element = {"nearest": 0, "linear": 3, "cubic": 7}[attributes.mode] * len(attributes.size)
    return Work(flops=per_element * max(operands[0].size, result.size))


def _resized_back(attributes: ResizeAttributes, x: Value) -> ResizeAttributes:
    """The attributes that bring a gradient back to the shape of x."""
    return dataclasses.replace(attributes, size=x.shape[x.rank - len(attributes.size) :])


# --- resize --------------------------------------------------------------------------------------------------------------


def resize(
    x: Value,
    size: Any,
    mode: str = "nearest",
    coordinates: str = "half_pixel",
    scales: Sequence[float] | None = None,
    *,
    rounding: str | None = None,
    coefficient: float = -0.75,
    exclude_outside: bool = False,
    antialias: bool = False,
    region: Sequence[float] | None = None,
    extrapolation: float = 0.0,
) -> Value:
    """x [..., *S] with its last axes resized to ``size``, one entry for each.

    The other parameters are those of :class:`irconv.ops.resize_taps.ResizeAttributes`.  ``extrapolation`` is the result of
    tf_crop_and_resize where it reads nothing.
    """
    attributes = ResizeAttributes(
        size=int_tuple(size, "size"),
        mode=mode,
        coordinates=coordinates,
        scales=None if scales is None else tuple(map(float, scales)),
        rounding=rounding,
        coefficient=float(coefficient),
        exclude_outside=exclude_outside,
        antialias=antialias,
        region=None if region is None else tuple(map(float, region)),
    )
    result = emit(RESIZE, attributes, x)
    if region is None or not extrapolation:
        return result
    count = len(attributes.size)
    for k, outside in enumerate(outside_rows(attributes, x.shape)):
        if outside.any():
            result = where(x.builder.constant(outside.reshape(-1, *(1,) * (count - 1 - k))), extrapolation, result)
    return result


def _resize_reference(attributes: ResizeAttributes, x: np.ndarray) -> np.ndarray:
    result = x
    if attributes.mode != "nearest":
        # float16 is carried in float32 from axis to axis
        result = x.astype(as_dtype(x.dtype).accumulator.numpy, copy=False)
    for axis, taps in taps_by_axis(attributes, x.shape, attributes.size):
        weights = taps.weights.astype(result.dtype).reshape(*taps.weights.shape, *(1,) * (-axis - 1))
        terms = (np.take(result, taps.indices[:, t], axis) * weights[:, t] for t in range(taps.indices.shape[1]))
        result = sum(terms, start=result.dtype.type(0))
    return np.asarray(result).astype(x.dtype, copy=False)


RESIZE = register(
    OpDef(
        "resize",
        ("x",),
        infer=lambda attributes, x: tensor_type(x.dtype, _check(attributes, x)),
        reference=_resize_reference,
        gradient=lambda site, d: (resize_adjoint(d, _resized_back(site.attributes, site.operands[0])),),
        fusion=Fusion.WINDOW,
        attributes=ResizeAttributes,
        cost=_cost,
    )
)

# --- resize_adjoint --------------------------------------------------------------------------------------------------------


def resize_adjoint(d: Value, attributes: ResizeAttributes) -> Value:
    """The adjoint of :func:`resize` to last axes ``attributes.size``: every element of d added, weighted, where it was read."""
    return emit(RESIZE_ADJOINT, attributes, d)


def _resize_adjoint_type(attributes: ResizeAttributes, d: TensorType) -> TensorType:
    if not d.dtype.is_float:
        raise DTypeError(f"needs floating-point elements, got {d.dtype}", hint="only gradients are resized backwards")
    return tensor_type(d.dtype, _check(attributes, d))


def _resize_adjoint_reference(attributes: ResizeAttributes, d: np.ndarray) -> np.ndarray:
    result = d.astype(as_dtype(d.dtype).accumulator.numpy, copy=False)
    for (axis, taps), n in zip(taps_by_axis(attributes, attributes.size, d.shape), attributes.size, strict=True):
        rows = np.moveaxis(result, axis, 0)
        back = np.zeros((n, *rows.shape[1:]), rows.dtype)
        weights = taps.weights.astype(rows.dtype).reshape(*taps.weights.shape, *(1,) * (rows.ndim - 1))
        for t in range(taps.indices.shape[1]):
            np.add.at(back, taps.indices[:, t], rows * weights[:, t])
        result = np.moveaxis(back, 0, axis)
    return result.astype(d.dtype, copy=False)


def _resize_adjoint_gradient(site: Site, d: Value) -> tuple[Value]:
    return (emit(RESIZE, _resized_back(site.attributes, site.operands[0]), d),)


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
