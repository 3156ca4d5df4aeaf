"""Sorting along one axis: the places of the largest or smallest elements, and the elements by gathering them.

NaN counts as larger than every number; of equal elements the one in front comes first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from irconv.errors import AttributeValueError
from irconv.op import Fusion, NoGradient, OpDef, Value, Work, emit, register
from irconv.ops.index import gather
from irconv.ops.shape import check_axes, normalize_axis
from irconv.types import I64, TensorType

# --- top_k ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TopKAttributes:
    """axis: the one to sort along; k: how many to keep; largest: the largest, in falling order, or the smallest, in rising."""

    axis: int
    k: int
    largest: bool

    def __post_init__(self) -> None:
        if self.k < 0:
            raise AttributeValueError(f"cannot take the top {self.k}", hint="k is at least 0")


def top_k_indices(x: Value, k: int, axis: int = -1, largest: bool = True) -> Value:
    """Where the k largest (or smallest) elements along an axis are, as int64, the most extreme first."""
    return emit(TOP_K, TopKAttributes(normalize_axis(axis, x.rank), int(k), bool(largest)), x)


def _top_k_type(attributes: TopKAttributes, x: TensorType) -> TensorType:
    axis, k = attributes.axis, attributes.k
    check_axes((axis,), x.rank)
    if k > x.shape[axis]:
        raise AttributeValueError(f"cannot take the top {k} of {x.shape[axis]} elements: axis {axis} of {list(x.shape)}")
    return TensorType(I64, (*x.shape[:axis], k, *x.shape[axis + 1 :]))


def _top_k_reference(attributes: TopKAttributes, x: np.ndarray) -> np.ndarray:
    rows = np.moveaxis(x, attributes.axis, -1)
    if attributes.largest:
        # sorted backwards and read from the end, equal elements keep their order
        order = rows.shape[-1] - 1 - np.argsort(rows[..., ::-1], axis=-1, kind="stable")[..., ::-1]
    else:
        order = np.argsort(rows, axis=-1, kind="stable")
    return np.moveaxis(order[..., : attributes.k], -1, attributes.axis).astype(np.int64)


def _cost(attributes: TopKAttributes, operands: tuple[TensorType, ...], result: TensorType) -> Work:
    x = operands[0]
    return Work(flops=x.size * max(1, math.ceil(math.log2(max(x.shape[attributes.axis], 1)))))


TOP_K = register(
    OpDef(
        "top_k",
        ("x",),
        infer=_top_k_type,
        reference=_top_k_reference,
        gradient=NoGradient("its result is a position, which does not change smoothly"),
        fusion=Fusion.REDUCTION,
        attributes=TopKAttributes,
        cost=_cost,
    )
)


def top_k(x: Value, k: int, axis: int = -1, largest: bool = True) -> tuple[Value, Value]:
    """The k largest (or smallest) elements along an axis, the most extreme first, and where they are."""
    indices = top_k_indices(x, k, axis, largest)
    return gather(x, indices, axis), indices


def argsort(x: Value, axis: int = -1, descending: bool = False) -> Value:
    """The places of the elements along an axis in rising (or falling) order."""
    return top_k_indices(x, x.shape[normalize_axis(axis, x.rank)], axis, largest=descending)


def sort(x: Value, axis: int = -1, descending: bool = False) -> Value:
    """The elements along an axis in rising (or falling) order."""
    return gather(x, argsort(x, axis, descending), axis)
