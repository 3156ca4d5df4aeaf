"""Indexing by a tensor of indices along one axis: take and gather, and the ops that add back where they read.

Indices are integers of any type; negative ones count from the back.  They are only known when the graph runs, so an index
out of range raises an IrconvError there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv.errors import DTypeError, IrconvError, ShapeError
from irconv.op import Fusion, OpDef, Site, Value, Work, emit, no_work, register
from irconv.ops.shape import check_axes, normalize_axis
from irconv.types import BOOL, TensorType, as_dtype, tensor_type

# --- shared by the sections below --------------------------------------------------------------------------------------


def check_index_type(indices: TensorType) -> None:
    """DTypeError unless the indices are integers."""
    if not indices.dtype.is_integer:
        raise DTypeError(f"indices must be integers, got {indices.dtype}", hint="cast them, or use where for a mask")


def _check_numbers(x: TensorType) -> None:
    if x.dtype is BOOL:
        raise DTypeError("needs numbers to add, got bool", hint="cast first, for example x.astype('float32')")


def wrapped_indices(indices: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Indices with the negative ones counted from the front, as int64; IrconvError for one out of range."""
    numbers = indices.astype(np.int64)
    outside = (numbers < -size) | (numbers >= size)
    if outside.any():
        raise IrconvError(
            f"index {numbers[outside][0]} is out of range for axis {axis} of size {size}",
            hint=f"indices go from {-size} to {size - 1}" if size else "the axis is empty",
        )
    return np.where(numbers < 0, numbers + size, numbers)


def flat_places(indices: np.ndarray, axis: int, shape: tuple[int, ...]) -> np.ndarray:
    """Flat places, in a row-major array of ``shape``, that ``indices`` along an axis mean; of ``shape`` on every other axis."""
    outer, size, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    wrapped = wrapped_indices(indices, size, axis).reshape(outer, indices.shape[axis], inner)
    rows = np.arange(outer)[:, None, None] * size + wrapped
    return rows * inner + np.arange(inner)


def _add_at(places: np.ndarray, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Zeros of ``shape`` with every value added at its flat place, one after another in row-major order."""
    result = np.zeros(math.prod(shape), as_dtype(values.dtype).accumulator.numpy)
    np.add.at(result, places.ravel(), values.ravel().astype(result.dtype))
    return result.reshape(shape).astype(values.dtype)


def _one_flop_per_update(attributes: Any, operands: tuple[TensorType, ...], result: TensorType) -> Work:
    return Work(flops=operands[0].size)


# --- take ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TakeAttributes:
    """axis: the one that is indexed."""

    axis: int


def take(x: Value, indices: Value, axis: int = 0) -> Value:
    """The entries of x at ``indices`` along an axis; the indices' shape stands in place of that axis (``numpy.take``)."""
    return emit(TAKE, TakeAttributes(normalize_axis(axis, x.rank)), x, indices)


def _take_type(attributes: TakeAttributes, x: TensorType, indices: TensorType) -> TensorType:
    check_index_type(indices)
    axis = attributes.axis
    check_axes((axis,), x.rank)
    return tensor_type(x.dtype, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _take_reference(attributes: TakeAttributes, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return np.take(x, wrapped_indices(indices, x.shape[attributes.axis], attributes.axis), attributes.axis)


def _take_gradient(site: Site, d: Value) -> tuple[Value | None, ...]:
    x, indices = site.operands
    axis = site.attributes.axis
    return (take_adjoint(d, indices, axis, x.shape[axis]), None)


TAKE = register(
    OpDef(
        "take",
        ("x", "indices"),
        infer=_take_type,
        reference=_take_reference,
        gradient=_take_gradient,
        fusion=Fusion.MOVEMENT,
        attributes=TakeAttributes,
        cost=no_work,
    )
)

# --- take_adjoint ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TakeAdjointAttributes:
    """axis, size: of the axis that was indexed."""

    axis: int
    size: int


def take_adjoint(d: Value, indices: Value, axis: int, size: int) -> Value:
    """Zeros with ``size`` entries along an axis, and every entry of d added at its index: the adjoint of :func:`take`."""
    rank = d.rank - indices.rank + 1
    return emit(TAKE_ADJOINT, TakeAdjointAttributes(normalize_axis(axis, rank), size), d, indices)


def _take_adjoint_type(attributes: TakeAdjointAttributes, d: TensorType, indices: TensorType) -> TensorType:
    check_index_type(indices)
    _check_numbers(d)
    axis, end = attributes.axis, attributes.axis + indices.rank
    if axis < 0 or d.shape[axis:end] != indices.shape:
        raise ShapeError(f"{list(d.shape)} does not hold the shape of the indices {list(indices.shape)} from axis {axis}")
    return tensor_type(d.dtype, (*d.shape[:axis], attributes.size, *d.shape[end:]))


def _take_adjoint_reference(attributes: TakeAdjointAttributes, d: np.ndarray, indices: np.ndarray) -> np.ndarray:
    axis, size = attributes.axis, attributes.size
    shape = (*d.shape[:axis], size, *d.shape[axis + indices.ndim :])
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    wrapped = wrapped_indices(indices, size, axis)
    rows = np.arange(outer)[:, None] * size + wrapped.ravel()
    return _add_at(rows[..., None] * inner + np.arange(inner), d, shape)


TAKE_ADJOINT = register(
    OpDef(
        "take_adjoint",
        ("d", "indices"),
        infer=_take_adjoint_type,
        reference=_take_adjoint_reference,
        gradient=lambda site, d: (take(d, site.operands[1], site.attributes.axis), None),
        fusion=Fusion.MOVEMENT,
        attributes=TakeAdjointAttributes,
        cost=_one_flop_per_update,
    )
)

# --- gather --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GatherAttributes:
    """axis: the one that is indexed."""

    axis: int


def gather(x: Value, indices: Value, axis: int) -> Value:
    """result[..., i, ...] = x[..., indices[..., i, ...], ...]: ``numpy.take_along_axis``.

    ``indices`` has x's rank, and x's size on every axis but this one.
    """
    return emit(GATHER, GatherAttributes(normalize_axis(axis, x.rank)), x, indices)


def check_frame(x: TensorType, indices: TensorType, axis: int) -> None:
    """ShapeError unless x and indices agree on every axis but this one."""
    check_axes((axis,), x.rank)
    agree = [a == b for other, (a, b) in enumerate(zip(x.shape, indices.shape, strict=False)) if other != axis]
    if x.rank != indices.rank or not all(agree):
        raise ShapeError(
            f"indices {list(indices.shape)} do not match {list(x.shape)} on every axis but {axis}", hint="broadcast one of them"
        )


def _gather_type(attributes: GatherAttributes, x: TensorType, indices: TensorType) -> TensorType:
    check_index_type(indices)
    check_frame(x, indices, attributes.axis)
    return TensorType(x.dtype, indices.shape)


def _gather_reference(attributes: GatherAttributes, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    axis = attributes.axis
    return np.take_along_axis(x, wrapped_indices(indices, x.shape[axis], axis), axis)


def _gather_gradient(site: Site, d: Value) -> tuple[Value | None, ...]:
    x, indices = site.operands
    axis = site.attributes.axis
    return (scatter_add(d, indices, axis, x.shape[axis]), None)


GATHER = register(
    OpDef(
        "gather",
        ("x", "indices"),
        infer=_gather_type,
        reference=_gather_reference,
        gradient=_gather_gradient,
        fusion=Fusion.MOVEMENT,
        attributes=GatherAttributes,
        cost=no_work,
    )
)

# --- scatter_add -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScatterAddAttributes:
    """axis, size: of the axis that is written to."""

    axis: int
    size: int


def scatter_add(updates: Value, indices: Value, axis: int, size: int) -> Value:
    """Zeros with ``size`` entries along an axis, and every update added at its index: the adjoint of :func:`gather`.

    ``indices`` has the shape of ``updates``.
    """
    return emit(SCATTER_ADD, ScatterAddAttributes(normalize_axis(axis, updates.rank), size), updates, indices)


def _scatter_add_type(attributes: ScatterAddAttributes, updates: TensorType, indices: TensorType) -> TensorType:
    check_index_type(indices)
    _check_numbers(updates)
    axis = attributes.axis
    check_axes((axis,), updates.rank)
    if updates.shape != indices.shape:
        raise ShapeError(f"updates {list(updates.shape)} and indices {list(indices.shape)} have different shapes")
    return tensor_type(updates.dtype, (*updates.shape[:axis], attributes.size, *updates.shape[axis + 1 :]))


def _scatter_add_reference(attributes: ScatterAddAttributes, updates: np.ndarray, indices: np.ndarray) -> np.ndarray:
    axis, size = attributes.axis, attributes.size
    shape = (*updates.shape[:axis], size, *updates.shape[axis + 1 :])
    return _add_at(flat_places(indices, axis, shape), updates, shape)


SCATTER_ADD = register(
    OpDef(
        "scatter_add",
        ("updates", "indices"),
        infer=_scatter_add_type,
        reference=_scatter_add_reference,
        gradient=lambda site, d: (gather(d, site.operands[1], site.attributes.axis), None),
        fusion=Fusion.MOVEMENT,
        attributes=ScatterAddAttributes,
        cost=_one_flop_per_update,
    )
)
