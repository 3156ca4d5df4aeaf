"""Indexing by tuples of indices into the leading axes, ONNX's GatherND and ScatterND: composites of take and scatter."""

from __future__ import annotations

import math

import numpy as np

from irconv.errors import AttributeValueError, ShapeError
from irconv.op import Value
from irconv.ops.elementwise import add, cast, equal, greater_equal, less, logical_and, multiply, where
from irconv.ops.index import take
from irconv.ops.reduce import reduce_sum
from irconv.ops.scatter import scatter
from irconv.ops.shape import broadcast, reshape


def _flat_index(indices: Value, sizes: tuple[int, ...]) -> Value:
    """Tuples [..., k] into axes of these sizes as row-major positions [...]; one out of range becomes the number of positions.

    That position is out of range too, so that the op which reads it raises.
    """
    k = len(sizes)
    total = math.prod(sizes)
    axes = indices.rank - 1
    limits = np.array(sizes)
    strides = np.array([math.prod(sizes[i + 1 :]) for i in range(k)])
    wide = cast(indices, "i64")
    counted = where(less(wide, 0), add(wide, indices.builder.constant(limits)), wide)
    inside = logical_and(greater_equal(counted, 0), less(counted, indices.builder.constant(limits)))
    position = reduce_sum(multiply(counted, indices.builder.constant(strides)), axes)
    return where(equal(reduce_sum(cast(inside, "i64"), axes), k), position, total)


def _tuple_length(indices: Value, axes: int, what: str) -> int:
    """How many indices a tuple has.  ShapeError unless there are tuples and as many axes to index."""
    if indices.rank < 1 or not 1 <= indices.shape[-1] <= axes:
        raise ShapeError(
            f"indices {list(indices.shape)} into {what} must hold tuples of 1 to {axes} along their last axis"
        )
    return indices.shape[-1]


def gather_nd(x: Value, indices: Value, batch_axes: int = 0) -> Value:
    """x at tuples of indices: result[b..., i..., rest...] = x[b..., *indices[b..., i..., :], rest...].

    batch_axes: how many leading axes x and ``indices`` share.  Negative indices count from the back.
    """
    b = batch_axes
    if not 0 <= b < min(x.rank, indices.rank):
        raise AttributeValueError(f"{b} batch axes do not leave any of {list(x.shape)} and {list(indices.shape)} to index")
    if x.shape[:b] != indices.shape[:b]:
        raise ShapeError(f"the first {b} axes of {list(x.shape)} and {list(indices.shape)} differ")
    k = _tuple_length(indices, x.rank - b, f"{list(x.shape)}")
    batch, sizes, rest = x.shape[:b], x.shape[b : b + k], x.shape[b + k :]
    places = _flat_index(indices, sizes)
    samples, positions = math.prod(batch), math.prod(sizes)
    rows = reshape(x, (samples * positions, math.prod(rest)))
    if b:
        starts = (np.arange(samples) * positions).reshape(*batch, *(1,) * (places.rank - b))
        outside = equal(places, positions)
        places = where(outside, samples * positions, add(places, indices.builder.constant(starts)))
    return reshape(take(rows, places, 0), (*places.shape, *rest))


def scatter_nd(x: Value, indices: Value, updates: Value, reduction: str = "set") -> Value:
    """x with result[*indices[i..., :], rest...] set to, or combined with, updates[i..., rest...].

    Reductions as in :func:`irconv.ops.scatter.scatter`.
    """
    k = _tuple_length(indices, x.rank, f"{list(x.shape)}")
    sizes, rest = x.shape[:k], x.shape[k:]
    expected = (*indices.shape[:-1], *rest)
    if updates.shape != expected:
        raise ShapeError(f"updates must have shape {list(expected)}, got {list(updates.shape)}")
    count, inner = math.prod(indices.shape[:-1]), math.prod(rest)
    places = reshape(_flat_index(indices, sizes), (count, 1))
    rows = reshape(x, (math.prod(sizes), inner))
    written = scatter(rows, broadcast(places, (count, inner)), reshape(updates, (count, inner)), 0, reduction)
    return reshape(written, x.shape)
