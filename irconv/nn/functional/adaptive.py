"""Adaptive pooling: as many windows as asked for.

Window i of o over n elements covers floor(i n / o) up to ceil((i + 1) n / o).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from irconv.nn.functional.common import batched, refused, tensor_of, with_batch
from irconv.op import Value
from irconv.ops import pool
from irconv.ops.contract import matmul
from irconv.ops.index import gather, take
from irconv.ops.pool_taps import pool_positions
from irconv.ops.reduce import argmax, argmin, reduce_max, reduce_mean, reduce_min
from irconv.ops.shape import broadcast, reshape, squeeze, transpose
from irconv.tensor import Tensor, as_tensor
from irconv.tracing import composite


def _wanted(output_size: Any, size: tuple[int, ...]) -> tuple[int, ...]:
    """One output size per axis; None keeps an axis as it is."""
    given = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * len(size)
    if len(given) != len(size):
        raise refused(f"output_size {list(given)} does not name a size for each of {len(size)} spatial axes")
    wanted = tuple(n if o is None else int(o) for o, n in zip(given, size, strict=True))
    if min(wanted) < 1 or min(size) < 1:
        raise refused(f"cannot pool spatial axes {list(size)} to {list(wanted)}")
    return wanted


def _divides(size: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether all windows are equal and next to each other."""
    return all(n % o == 0 for n, o in zip(size, wanted, strict=True))


def _bounds(n: int, o: int) -> tuple[np.ndarray, np.ndarray]:
    """First and past-the-last element of each window."""
    places = np.arange(o)
    return places * n // o, -(-(places + 1) * n // o)


# --- average -----------------------------------------------------------------------------------------------------------


def adaptive_average(x: Tensor, output_size: Any) -> Tensor:
    """The mean of each adaptive window of x [N, C, *spatial], over any number of spatial axes."""
    size = x.shape[2:]
    wanted = _wanted(output_size, size)
    if all(o == 1 for o in wanted):
        return tensor_of(reduce_mean(x, tuple(range(2, x.ndim)), keepdims=True))
    if _divides(size, wanted):
        return tensor_of(pool.avg_pool(x, tuple(n // o for n, o in zip(size, wanted, strict=True))))
    result: Value = x
    with composite("adaptive_avg_pool"):
        for axis, (n, o) in enumerate(zip(size, wanted, strict=True), start=2):
            if n != o:
                result = _average_axis(result, axis, n, o)
    return tensor_of(result)


def _average_axis(x: Value, axis: int, n: int, o: int) -> Value:
    """The means along one axis as a product with a matrix [n, o] of one divided by the window's size."""
    first, end = _bounds(n, o)
    places = np.arange(n)[:, None]
    shares = ((places >= first) & (places < end)) / (end - first)
    swap = [i for i in range(x.rank) if i != axis] + [axis]
    back = [swap.index(i) for i in range(x.rank)]
    matrix = x.builder.constant(shares.astype(x.type.dtype.numpy))
    return transpose(matmul(transpose(x, swap), matrix), back)


def adaptive_avg_pool1d(input: Any, output_size: Any) -> Tensor:
    """The mean of each of ``output_size`` windows along the last axis."""
    return with_batch(input, 1, "adaptive_avg_pool1d", lambda x: adaptive_average(x, output_size))


def adaptive_avg_pool2d(input: Any, output_size: Any) -> Tensor:
    """The mean of each of ``output_size`` windows over the last two axes; None keeps an axis."""
    return with_batch(input, 2, "adaptive_avg_pool2d", lambda x: adaptive_average(x, output_size))


def adaptive_avg_pool3d(input: Any, output_size: Any) -> Tensor:
    """The mean of each of ``output_size`` windows over the last three axes; None keeps an axis."""
    return with_batch(input, 3, "adaptive_avg_pool3d", lambda x: adaptive_average(x, output_size))


# --- maximum, minimum --------------------------------------------------------------------------------------------------


def _extremum(rank: int, largest: bool, input: Any, output_size: Any, return_indices: bool) -> Any:
    name = f"adaptive_{'max' if largest else 'min'}_pool{rank}d"
    x, added = batched(as_tensor(input), rank, name)
    wanted = _wanted(output_size, x.shape[2:])
    if _divides(x.shape[2:], wanted):
        values, indices = _equal_windows(x, wanted, largest, return_indices)
    else:
        with composite(name):
            values, indices = _unequal_windows(x, wanted, largest, return_indices)
    parts = [tensor_of(squeeze(v, 0) if added else v) for v in (values, indices) if v is not None]
    return tuple(parts) if return_indices else parts[0]


def _equal_windows(
    x: Tensor, wanted: tuple[int, ...], largest: bool, return_indices: bool
) -> tuple[Value, Value | None]:
    kernel = tuple(n // o for n, o in zip(x.shape[2:], wanted, strict=True))
    values = pool.max_pool(x, kernel) if largest else pool.min_pool(x, kernel)
    if not return_indices:
        return values, None
    winners = pool.argmax_pool(x, kernel) if largest else pool.argmin_pool(x, kernel)
    return values, pool_positions(winners, x.shape[2:], kernel)


def _unequal_windows(
    x: Tensor, wanted: tuple[int, ...], largest: bool, return_indices: bool
) -> tuple[Value, Value | None]:
    """All windows taken out side by side.

    Shorter ones repeat their last element, which changes no extremum and never comes first.
    """
    size, rank = x.shape[2:], len(wanted)
    places = []
    for n, o in zip(size, wanted, strict=True):
        first, end = _bounds(n, o)
        places.append(np.minimum(first[:, None] + np.arange(max(end - first)), end[:, None] - 1))
    windows: Value = x
    for axis, indices in enumerate(places):
        windows = take(windows, x.builder.constant(indices), 2 + 2 * axis)
    order = (0, 1, *range(2, 2 + 2 * rank, 2), *range(3, 3 + 2 * rank, 2))
    flat = reshape(transpose(windows, order), (*x.shape[:2], *wanted, math.prod(p.shape[1] for p in places)))
    values = reduce_max(flat, -1) if largest else reduce_min(flat, -1)
    if not return_indices:
        return values, None
    winners = argmax(flat, -1, keepdims=True) if largest else argmin(flat, -1, keepdims=True)
    table = broadcast(x.builder.constant(_flat_positions(places, size)), flat.shape)
    return values, squeeze(gather(table, winners, -1), -1)


def _flat_positions(places: list[np.ndarray], size: tuple[int, ...]) -> np.ndarray:
    """int64 [*windows, taps]: the flat position of each element of each window, as :func:`_unequal_windows` lays them out."""
    rank = len(places)
    total = np.zeros((1,) * (2 * rank), np.int64)
    for axis, indices in enumerate(places):
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = indices.shape
        total = total + indices.reshape(shape) * math.prod(size[axis + 1 :])
    return total.reshape(*total.shape[:rank], -1)


def adaptive_max_pool1d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The largest element of each of ``output_size`` windows; ``return_indices`` also gives where it is (int64)."""
    return _extremum(1, True, input, output_size, return_indices)


def adaptive_max_pool2d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The largest element of each window over two axes, see :func:`adaptive_max_pool1d`."""
    return _extremum(2, True, input, output_size, return_indices)


def adaptive_max_pool3d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The largest element of each window over three axes, see :func:`adaptive_max_pool1d`."""
    return _extremum(3, True, input, output_size, return_indices)


def adaptive_min_pool1d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The smallest element of each window, otherwise as :func:`adaptive_max_pool1d`."""
    return _extremum(1, False, input, output_size, return_indices)


def adaptive_min_pool2d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The smallest element of each window over two axes, see :func:`adaptive_max_pool1d`."""
    return _extremum(2, False, input, output_size, return_indices)


def adaptive_min_pool3d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The smallest element of each window over three axes, see :func:`adaptive_max_pool1d`."""
    return _extremum(3, False, input, output_size, return_indices)
