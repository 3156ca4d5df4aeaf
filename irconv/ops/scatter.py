"""Writing into a tensor at indices along one axis: by setting, adding, multiplying, or keeping the larger or smaller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from irconv.errors import AttributeValueError, DTypeError, ShapeError
from irconv.op import Fusion, OpDef, Site, Value, Work, emit, register
from irconv.ops.elementwise import cast, divide, equal, maximum, multiply, where
from irconv.ops.index import check_frame, check_index_type, flat_places, gather
from irconv.ops.shape import broadcast, normalize_axis, zeros
from irconv.types import BOOL, TensorType, as_dtype

REDUCTIONS = ("set", "add", "mul", "max", "min")

# --- scatter -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScatterAttributes:
    """axis: the one that is indexed; reduction: how an update meets what is there, one of REDUCTIONS."""

    axis: int
    reduction: str

    def __post_init__(self) -> None:
        if self.reduction not in REDUCTIONS:
            raise AttributeValueError(f"scatter reduction {self.reduction!r} is not one of {', '.join(REDUCTIONS)}")


def scatter(x: Value, indices: Value, updates: Value, axis: int, reduction: str = "set") -> Value:
    """x with result[..., indices[..., i, ...], ...] set to, or combined with, updates[..., i, ...].

    ``indices`` and ``updates`` have one shape: x's on every axis but this one.  Of several updates for one place 'set' keeps the
    last (on a GPU any of them); the other reductions take all of them.  'max' and 'min' share their gradient among equals.
    """
    return emit(SCATTER, ScatterAttributes(normalize_axis(axis, x.rank), reduction), x, indices, updates)


def _scatter_type(attributes: ScatterAttributes, x: TensorType, indices: TensorType, updates: TensorType) -> TensorType:
    check_index_type(indices)
    if x.dtype is not updates.dtype:
        raise DTypeError(f"cannot scatter {updates.dtype} elements into a tensor of {x.dtype}", hint="cast them first")
    if x.dtype is BOOL and attributes.reduction in ("add", "mul"):
        raise DTypeError(f"scatter with reduction {attributes.reduction!r} needs numbers, got bool", hint="use max or min")
    check_frame(x, indices, attributes.axis)
    if updates.shape != indices.shape:
        raise ShapeError(f"updates {list(updates.shape)} and indices {list(indices.shape)} have different shapes")
    return TensorType(x.dtype, x.shape)


_COMBINE: dict[str, np.ufunc] = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _scatter_reference(
    attributes: ScatterAttributes, x: np.ndarray, indices: np.ndarray, updates: np.ndarray
) -> np.ndarray:
    result = np.array(x, as_dtype(x.dtype).accumulator.numpy, order="C")
    places = flat_places(indices, attributes.axis, x.shape).ravel()
    values = updates.ravel().astype(result.dtype)
    if attributes.reduction == "set":
        result.reshape(-1)[places] = values
    else:
        _COMBINE[attributes.reduction].at(result.reshape(-1), places, values)
    return result.astype(x.dtype)


Gradients = tuple[Value | None, None, Value | None]


def _add_gradient(site: Site, d: Value) -> Gradients:
    return (d, None, gather(d, site.operands[1], site.attributes.axis) if site.wanted[2] else None)


def _set_gradient(site: Site, d: Value) -> Gradients:
    x, indices, updates = site.operands
    axis = site.attributes.axis
    by_x = by_updates = None
    if site.wanted[0]:
        by_x = scatter(d, indices, zeros(updates.shape, d), axis)
    if site.wanted[2]:
        # an update that a later one replaced has no say
        count = updates.shape[axis]
        turns = x.builder.constant(np.arange(count).reshape(-1, *(1,) * (x.rank - axis - 1)))
        turn = broadcast(turns, updates.shape)
        last = scatter(zeros(x.shape, turns), indices, turn, axis, "max")
        by_updates = where(equal(gather(last, indices, axis), turn), gather(d, indices, axis), 0)
    return (by_x, None, by_updates)


def _mul_gradient(site: Site, d: Value) -> Gradients:
    """By each factor the product of the others, right also where factors are zero: of the non-zero ones, if no zero is left."""
    x, indices, updates = site.operands
    axis = site.attributes.axis
    zero_x, zero_u = equal(x, 0), equal(updates, 0)
    rest_x, rest_u = where(zero_x, 1, x), where(zero_u, 1, updates)
    product = multiply(d, scatter(rest_x, indices, rest_u, axis, "mul"))
    count = scatter(cast(zero_x, "i32"), indices, cast(zero_u, "i32"), axis, "add")
    by_x = by_updates = None
    if site.wanted[0]:
        by_x = where(equal(count, cast(zero_x, "i32")), divide(product, rest_x), 0)
    if site.wanted[2]:
        alone = equal(gather(count, indices, axis), cast(zero_u, "i32"))
        by_updates = where(alone, divide(gather(product, indices, axis), rest_u), 0)
    return (by_x, None, by_updates)


def _extremum_gradient(site: Site, d: Value) -> Gradients:
    x, indices, updates = site.operands
    axis = site.attributes.axis
    won_x = equal(x, site.result)
    won_u = equal(updates, gather(site.result, indices, axis))
    winners = scatter(cast(won_x, d.type.dtype), indices, cast(won_u, d.type.dtype), axis, "add")
    # a place that holds NaN has no winner: nothing flows, and nothing is divided by zero
    share = divide(d, maximum(winners, 1))
    return (
        where(won_x, share, 0) if site.wanted[0] else None,
        None,
        where(won_u, gather(share, indices, axis), 0) if site.wanted[2] else None,
    )


_GRADIENTS: dict[str, Callable[[Site, Value], Gradients]] = {
    "set": _set_gradient,
    "add": _add_gradient,
    "mul": _mul_gradient,
    "max": _extremum_gradient,
    "min": _extremum_gradient,
}


def _one_flop_per_update(
    attributes: ScatterAttributes, operands: tuple[TensorType, ...], result: TensorType
) -> Work:
    return Work(flops=operands[2].size if attributes.reduction != "set" else 0)


SCATTER = register(
    OpDef(
        "scatter",
        ("x", "indices", "updates"),
        infer=_scatter_type,
        reference=_scatter_reference,
        gradient=lambda site, d: _GRADIENTS[site.attributes.reduction](site, d),
        fusion=Fusion.MOVEMENT,
        attributes=ScatterAttributes,
        cost=_one_flop_per_update,
    )
)
