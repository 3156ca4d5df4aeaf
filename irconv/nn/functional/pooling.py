"""Pooling over windows: maximum, minimum, average; and putting maxima back where they came from."""

from __future__ import annotations

import math
from typing import Any

from irconv.nn.functional.common import amounts, batched, misshapen, refused, tensor_of, with_batch
from irconv.op import Value, constant_like
from irconv.ops import pool
from irconv.ops.elementwise import divide, maximum
from irconv.ops.index import scatter_add
from irconv.ops.pool_taps import pool_positions
from irconv.ops.shape import broadcast, reshape, squeeze
from irconv.tensor import Tensor, as_tensor


def _window(rank: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any) -> tuple[tuple[int, ...], ...]:
    """Kernel, stride, padding and dilation per axis.  Raises for padding over half the dilated window, as PyTorch."""
    taps = amounts(kernel_size, rank, "kernel_size")
    no_stride = stride is None or (isinstance(stride, (tuple, list)) and not stride)
    steps = taps if no_stride else amounts(stride, rank, "stride")
    pads, gaps = amounts(padding, rank, "padding"), amounts(dilation, rank, "dilation")
    for p, k, d in zip(pads, taps, gaps, strict=True):
        span = d * (k - 1) + 1
        if p < 0 or p > span // 2:
            raise refused(
                f"pooling padding {list(pads)} must be from 0 to half the window: kernel_size {list(taps)} with dilation "
                f"{list(gaps)} spans {span}, half of it is {span // 2}",
                "pad the input first (irconv.nn.functional.pad)",
            )
    return taps, steps, pads, gaps


def _extremum(
    rank: int,
    largest: bool,
    input: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    return_indices: bool,
) -> Any:
    name = f"{'max' if largest else 'min'}_pool{rank}d"
    x, added = batched(as_tensor(input), rank, name)
    taps, steps, pads, gaps = _window(rank, kernel_size, stride, padding, dilation)
    values = (pool.max_pool if largest else pool.min_pool)(x, taps, steps, pads, gaps, ceil_mode)
    if not return_indices:
        return tensor_of(squeeze(values, 0) if added else values)
    winners = (pool.argmax_pool if largest else pool.argmin_pool)(x, taps, steps, pads, gaps, ceil_mode)
    indices = pool_positions(winners, x.shape[2:], taps, steps, pads, gaps)
    return tuple(tensor_of(squeeze(v, 0) if added else v) for v in (values, indices))


def max_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window (:func:`irconv.ops.pool.max_pool`); stride None: the kernel.

    ``return_indices`` also gives where each maximum is, as flat positions in the spatial axes (int64).
    """
    return _extremum(1, True, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window over two axes, see :func:`max_pool1d`."""
    return _extremum(2, True, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window over three axes, see :func:`max_pool1d`."""
    return _extremum(3, True, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def min_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The smallest element of each window, otherwise as :func:`max_pool1d`."""
    return _extremum(1, False, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def min_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The smallest element of each window over two axes, otherwise as :func:`max_pool1d`."""
    return _extremum(2, False, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def min_pool3d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The smallest element of each window over three axes, otherwise as :func:`max_pool1d`."""
    return _extremum(3, False, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _average(
    rank: int,
    input: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    taps, steps, pads, gaps = _window(rank, kernel_size, stride, padding, 1)

    def average(x: Tensor) -> Value:
        return pool.avg_pool(x, taps, steps, pads, gaps, ceil_mode, count_include_pad, divisor_override)

    return with_batch(input, rank, f"avg_pool{rank}d", average)


def avg_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window (:func:`irconv.ops.pool.avg_pool`); stride None: the kernel."""
    return _average(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window over two axes, or its sum over ``divisor_override``."""
    return _average(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window over three axes, or its sum over ``divisor_override``."""
    return _average(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


# --- unpooling ---------------------------------------------------------------------------------------------------------


def _unpooled_size(
    size: tuple[int, ...], taps: tuple[int, ...], steps: tuple[int, ...], pads: tuple[int, ...], output_size: Any
) -> tuple[int, ...]:
    rank = len(size)
    natural = tuple((n - 1) * s + k - 2 * p for n, s, k, p in zip(size, steps, taps, pads, strict=True))
    if output_size is None:
        return natural
    wanted = tuple(output_size)[-rank:]
    if len(wanted) != rank or any(abs(w - n) >= s for w, n, s in zip(wanted, natural, steps, strict=True)):
        raise refused(
            f"output_size {list(output_size)} must be less than the stride {list(steps)} away from {list(natural)}"
        )
    return tuple(int(n) for n in wanted)


def _unpool(
    rank: int, input: Any, indices: Any, kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> Tensor:
    taps, steps, pads, _ = _window(rank, kernel_size, stride, padding, 1)
    x, added = batched(as_tensor(input), rank, f"max_unpool{rank}d")
    places, _ = batched(as_tensor(indices), rank, f"max_unpool{rank}d")
    if places.shape != x.shape:
        raise misshapen(f"the indices have shape {list(places.shape)}, the input {list(x.shape)}")
    size = _unpooled_size(x.shape[2:], taps, steps, pads, output_size)
    elements = math.prod(size)
    rows = (*x.shape[:2], math.prod(x.shape[2:]))
    where = reshape(places, rows)
    total = scatter_add(reshape(x, rows), where, 2, elements)
    if any(s < k for s, k in zip(steps, taps, strict=True)):
        # windows that overlap name the same maximum several times: it counts once
        ones = broadcast(constant_like(x, 1), rows)
        total = divide(total, maximum(scatter_add(ones, where, 2, elements), 1))
    result = reshape(total, (*x.shape[:2], *size))
    return tensor_of(squeeze(result, 0) if added else result)


def max_unpool1d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """Zeros with each element put where ``indices`` (from ``max_pool1d(..., return_indices=True)``) says it came from.

    Elements that overlapping windows put at one place are averaged.
    """
    return _unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """Zeros with each maximum put back over two axes, see :func:`max_unpool1d`."""
    return _unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """Zeros with each maximum put back over three axes, see :func:`max_unpool1d`."""
    return _unpool(3, input, indices, kernel_size, stride, padding, output_size)
