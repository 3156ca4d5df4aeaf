"""Pooling over windows and over whole images, and unpooling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from irconv.errors import ModelError
from irconv.frontends.onnx.operators.common import constant, integers, pairs, spatial_rank, tensor_of
from irconv.frontends.onnx.operators.conv import padding
from irconv.frontends.onnx.registry import Call, operator
from irconv.op import Value
from irconv.ops import elementwise as e
from irconv.ops import pool, reduce
from irconv.ops.index import scatter_add
from irconv.ops.pad import pad
from irconv.ops.pool_taps import pool_positions
from irconv.ops.shape import reshape
from irconv.tensor import Tensor
from irconv.types import I64


def _window(call: Call, rank: int) -> dict[str, Any]:
    """The attributes of a pooling window as constructors take them."""
    a = call.attributes
    return {
        "kernel": a.ints("kernel_shape"),
        "stride": a.ints("strides", (1,) * rank),
        "padding": padding(call, rank),
        "dilation": a.ints("dilations", (1,) * rank),
        "ceil_mode": a.flag("ceil_mode"),
    }


@operator("MaxPool")
def max_pool(call: Call, x: Tensor) -> tuple[Tensor | None, ...]:
    """The largest element of each window, and where it is in the whole of x, flat."""
    window = _window(call, spatial_rank(x))
    values = tensor_of(pool.max_pool(x, **window))
    if not call.wants(1):
        return values, None
    taps = pool.argmax_pool(x, **window)
    return values, _flat_indices(call, x, taps, window)


def _flat_indices(call: Call, x: Tensor, taps: Value, window: dict[str, Any]) -> Tensor:
    """Positions in the whole of x, its spatial axes counted row by row or, with storage_order, column by column."""
    size = x.shape[2:]
    window = {name: value for name, value in window.items() if name != "ceil_mode"}
    inside = pool_positions(taps, size, **window)
    if call.attributes.int("storage_order", 0):
        inside = _column_major(inside, size)
    channels = np.arange(math.prod(x.shape[:2]), dtype=np.int64) * math.prod(size)
    return tensor_of(e.add(inside, constant(channels.reshape(*x.shape[:2], *(1,) * len(size)))))


def _column_major(places: Value, size: tuple[int, ...]) -> Value:
    """Row-major positions as column-major ones: the first axis runs fastest."""
    result: Value | None = None
    for axis, n in enumerate(size):
        coordinate = e.remainder(e.floor_divide(places, math.prod(size[axis + 1 :])), n)
        part = e.multiply(coordinate, math.prod(size[:axis]))
        result = part if result is None else e.add(result, part)
    assert result is not None
    return result


@operator("AveragePool")
def average_pool(call: Call, x: Tensor) -> Tensor:
    """The mean of each window."""
    window = _window(call, spatial_rank(x))
    include = call.attributes.flag("count_include_pad")
    return tensor_of(pool.avg_pool(x, count_include_pad=include, **window))


@operator("LpPool")
def lp_pool(call: Call, x: Tensor) -> Tensor:
    """The p-norm of each window."""
    p = _norm(call)
    window = _window(call, spatial_rank(x))
    return _root(tensor_of(pool.avg_pool(_power(x, p), divisor_override=1, **window)), p)


def _norm(call: Call) -> float:
    a = call.attributes
    p: float = a.float("p", 2.0) if call.opset < 2 else a.int("p", 2)
    return p


def _power(x: Tensor, p: float) -> Tensor:
    if p < 1:
        raise ModelError(f"the norm p must be at least 1, got {p}")
    return tensor_of(e.square(x) if p == 2 else e.absolute(x) if p == 1 else e.power(e.absolute(x), float(p)))


def _root(x: Tensor, p: float) -> Tensor:
    return tensor_of(e.sqrt(x) if p == 2 else x if p == 1 else e.power(x, 1.0 / p))


# --- over whole images -----------------------------------------------------------------------------------------------------


def _axes(x: Tensor) -> tuple[int, ...]:
    if x.ndim < 2:
        raise ModelError(f"an input of [batch, channels, *spatial] is needed, got shape {list(x.shape)}")
    return tuple(range(2, x.ndim))


@operator("GlobalAveragePool")
def global_average_pool(call: Call, x: Tensor) -> Tensor:
    """The mean of each channel."""
    return tensor_of(reduce.reduce_mean(x, _axes(x), keepdims=True))


@operator("GlobalMaxPool")
def global_max_pool(call: Call, x: Tensor) -> Tensor:
    """The largest element of each channel."""
    return tensor_of(reduce.reduce_max(x, _axes(x), keepdims=True))


@operator("GlobalLpPool")
def global_lp_pool(call: Call, x: Tensor) -> Tensor:
    """The p-norm of each channel."""
    p = _norm(call)
    return _root(tensor_of(reduce.reduce_sum(_power(x, p), _axes(x), keepdims=True)), p)


# --- unpooling -------------------------------------------------------------------------------------------------------------


@operator("MaxUnpool", static=(2,))
def max_unpool(call: Call, x: Tensor, indices: Tensor, output_shape: np.ndarray | None = None) -> Tensor:
    """Zeros with each element of x at its flat position in the whole result.

    Positions count in the size that follows from the window; an output_shape that is larger adds zeros behind.
    """
    rank = spatial_rank(x)
    a = call.attributes
    kernel = a.ints("kernel_shape")
    strides = a.ints("strides", (1,) * rank)
    cut = pairs(a.ints("pads", (0,) * (2 * rank)), rank)
    if not len(kernel) == len(strides) == rank:
        raise ModelError(f"kernel_shape {list(kernel)} and strides {list(strides)} do not fit {rank} spatial axes")
    natural = tuple((n - 1) * s + k - sum(c) for n, s, k, c in zip(x.shape[2:], strides, kernel, cut, strict=True))
    if indices.shape != x.shape:
        raise ModelError(f"the indices have shape {list(indices.shape)}, the input {list(x.shape)}")
    shape = (*x.shape[:2], *natural)
    places = reshape(e.cast(indices, I64), (x.size,))
    flat = scatter_add(reshape(x, (x.size,)), places, 0, math.prod(shape))
    if any(s < k for s, k in zip(strides, kernel, strict=True)):
        # windows that overlap name the same maximum several times: it counts once
        count = scatter_add(constant(np.ones(x.size), x.type.dtype), places, 0, math.prod(shape))
        flat = e.divide(flat, e.maximum(count, 1))
    result = reshape(flat, shape)
    wanted = integers(output_shape, "output_shape")
    if wanted is None or wanted == shape:
        return tensor_of(result)
    if len(wanted) != x.ndim or any(w < n for w, n in zip(wanted, shape, strict=True)):
        raise ModelError(f"output_shape {list(wanted)} is smaller than {list(shape)}, which follows from the window")
    return tensor_of(pad(result, [(0, w - n) for w, n in zip(wanted, shape, strict=True)]))
