"""Putting tensors together along an axis, and taking them apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv.errors import AttributeValueError, DTypeError, ShapeError
from irconv.op import Fusion, OpDef, Site, Value, emit, no_work, register
from irconv.ops.shape import check_axes, expand_dims, int_tuple, narrow, normalize_axis
from irconv.types import TensorType, tensor_type

# --- concat --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConcatAttributes:
    """axis: the one along which the operands are put one after another."""

    axis: int


def concat(values: Sequence[Value], axis: int = 0) -> Value:
    """The values one after another along an axis; all other dimensions and the element types agree."""
    if not values:
        raise ShapeError("concat needs at least one tensor")
    axis = normalize_axis(axis, values[0].rank)
    return values[0] if len(values) == 1 else emit(CONCAT, ConcatAttributes(axis), *values)


def stack(values: Sequence[Value], axis: int = 0) -> Value:
    """Values of one shape side by side along a new axis, which stands at ``axis`` in the result."""
    if not values:
        raise ShapeError("stack needs at least one tensor")
    for value in values[1:]:
        if value.shape != values[0].shape:
            raise ShapeError(f"stack needs equal shapes, got {list(values[0].shape)} and {list(value.shape)}")
    return concat([expand_dims(value, axis) for value in values], normalize_axis(axis, values[0].rank + 1))


def _concat_type(attributes: ConcatAttributes, *operands: TensorType) -> TensorType:
    axis, first = attributes.axis, operands[0]
    check_axes((axis,), first.rank)
    frame = (*first.shape[:axis], *first.shape[axis + 1 :])
    for x in operands[1:]:
        if x.dtype is not first.dtype:
            raise DTypeError(f"cannot concatenate {first.dtype} with {x.dtype}", hint="cast them to one element type")
        if x.rank != first.rank or (*x.shape[:axis], *x.shape[axis + 1 :]) != frame:
            raise ShapeError(
                f"cannot concatenate {list(first.shape)} with {list(x.shape)} along axis {axis}",
                hint="all other dimensions must be equal",
            )
    total = sum(x.shape[axis] for x in operands)
    return tensor_type(first.dtype, (*first.shape[:axis], total, *first.shape[axis + 1 :]))


def _concat_gradient(site: Site, d: Value) -> tuple[Value | None, ...]:
    axis = site.attributes.axis
    parts: list[Value | None] = []
    end = 0
    for operand, want in zip(site.operands, site.wanted, strict=True):
        start, end = end, end + operand.shape[axis]
        parts.append(narrow(d, axis, start, end) if want else None)
    return tuple(parts)


CONCAT = register(
    OpDef(
        "concat",
        ("*",),
        infer=_concat_type,
        reference=lambda attributes, *operands: np.concatenate(operands, attributes.axis),
        gradient=_concat_gradient,
        fusion=Fusion.MOVEMENT,
        attributes=ConcatAttributes,
        cost=no_work,
    )
)

# --- split ---------------------------------------------------------------------------------------------------------------


def split(x: Value, sizes_or_sections: Any, axis: int = 0) -> tuple[Value, ...]:
    """x cut along an axis: into that many equal sections, or into pieces of the given sizes (which must add up)."""
    axis = normalize_axis(axis, x.rank)
    size = x.shape[axis]
    if not isinstance(sizes_or_sections, Iterable):
        (sections,) = int_tuple(sizes_or_sections, "sections")
        if sections < 1 or size % sections:
            raise AttributeValueError(f"axis {axis} of {list(x.shape)} does not split into {sections} equal sections")
        sizes: tuple[int, ...] = (size // sections,) * sections
    else:
        sizes = int_tuple(sizes_or_sections, "sizes")
        if any(n < 0 for n in sizes) or sum(sizes) != size:
            raise AttributeValueError(f"sizes {list(sizes)} do not add up to the {size} of axis {axis} of {list(x.shape)}")
    ends = np.cumsum(sizes).tolist()
    return tuple(narrow(x, axis, end - n, end) for n, end in zip(sizes, ends, strict=True))
