"""Convolutions, transposed convolutions, and windows as columns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from irconv.nn.functional.common import amounts, batched, misshapen, per_channel, refused, tensor_of, with_batch
from irconv.op import Value
from irconv.ops import contract
from irconv.ops.conv import conv, conv_transpose
from irconv.ops.elementwise import add
from irconv.ops.shape import reshape, squeeze, transpose
from irconv.tensor import Tensor, as_tensor


def _with_bias(y: Value, bias: Any) -> Value:
    if bias is None:
        return y
    offset = as_tensor(bias)
    if offset.shape != (y.shape[1],):
        raise misshapen(f"the bias has shape {list(offset.shape)}, the output {y.shape[1]} channels")
    return add(y, per_channel(offset, y.rank))


def _padding(padding: Any, rank: int) -> Any:
    """Padding for each axis: one number or pair may stand for all.  Raises AttributeValueError for negative amounts."""
    if isinstance(padding, str):
        return padding
    if np.any(np.less(padding, 0)):
        raise refused(f"padding must not be negative, got {padding}", "crop by slicing the input: x[..., 1:-1]")
    return tuple(padding) * rank if isinstance(padding, (tuple, list)) and len(padding) == 1 else padding


def _convolve(
    rank: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    if padding == "same" and any(s != 1 for s in amounts(stride, rank, "stride")):
        raise refused(
            f"padding 'same' keeps the size only at stride 1, got stride {stride}",
            "'same_upper' gives ceil(n / stride)",
        )
    w = as_tensor(weight)
    padding = _padding(padding, rank)
    step, gap = amounts(stride, rank, "stride"), amounts(dilation, rank, "dilation")
    return with_batch(input, rank, f"conv{rank}d", lambda x: _with_bias(conv(x, w, step, padding, gap, groups), bias))


def conv1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """Cross-correlation of [N, C, L] (or [C, L]) with weights [O, C / groups, K] (:func:`irconv.ops.conv.conv`).

    padding: a number, (before, after) pairs, 'valid', 'same' (stride 1), 'same_upper' or 'same_lower'.
    """
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """Cross-correlation of [N, C, H, W] (or [C, H, W]) with weights [O, C / groups, *K], see :func:`conv1d`."""
    return _convolve(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """Cross-correlation of [N, C, D, H, W] (or [C, D, H, W]) with weights [O, C / groups, *K], see :func:`conv1d`."""
    return _convolve(3, input, weight, bias, stride, padding, dilation, groups)


def _convolve_transposed(
    rank: int,
    input: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Tensor:
    w = as_tensor(weight)
    step, gap = amounts(stride, rank, "stride"), amounts(dilation, rank, "dilation")
    extra = amounts(output_padding, rank, "output_padding")
    padding = _padding(padding, rank)

    def transposed(x: Tensor) -> Value:
        return _with_bias(conv_transpose(x, w, step, padding, gap, groups, extra), bias)

    return with_batch(input, rank, f"conv_transpose{rank}d", transposed)


def conv_transpose1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """The adjoint of :func:`conv1d` by its input; weights [C, O / groups, K].

    The size is (L - 1) stride + dilation (K - 1) + 1 - 2 padding + output_padding.
    """
    return _convolve_transposed(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """The adjoint of :func:`conv2d` by its input, see :func:`conv_transpose1d`."""
    return _convolve_transposed(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """The adjoint of :func:`conv3d` by its input, see :func:`conv_transpose1d`."""
    return _convolve_transposed(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def unfold(input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """The windows of [N, C, *spatial] as columns: [N, C * taps, windows], the transpose of :func:`irconv.ops.contract.im2col`."""
    x = as_tensor(input)
    if x.ndim < 3:
        raise misshapen(f"unfold takes an input [batch, channels, *spatial], got shape {list(x.shape)}")
    rank = x.ndim - 2
    taps = amounts(kernel_size, rank, "kernel_size")
    rows = contract.im2col(
        x, taps, amounts(stride, rank, "stride"), amounts(padding, rank, "padding"), amounts(dilation, rank, "dilation")
    )
    wide = x.shape[1] * math.prod(taps)
    windows = rows.shape[1] // x.shape[0] if x.shape[0] else 0
    return tensor_of(transpose(reshape(rows, (x.shape[0], windows, wide)), (0, 2, 1)))


def fold(
    input: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """The adjoint of :func:`unfold`: columns [N, C * taps, windows] added up where they came from, [N, C, *output_size].

    A single number for every parameter means two spatial axes.
    """
    given = [v for v in (output_size, kernel_size, dilation, padding, stride) if isinstance(v, (tuple, list))]
    rank = max((len(v) for v in given), default=2)
    taps = amounts(kernel_size, rank, "kernel_size")
    columns, added = batched(as_tensor(input), 1, "fold")
    batch, wide, windows = columns.shape
    if wide % math.prod(taps):
        raise misshapen(f"{wide} rows are not a multiple of the {math.prod(taps)} taps of kernel_size {list(taps)}")
    rows = reshape(transpose(columns, (0, 2, 1)), (1, batch * windows, wide))
    result = contract.col2im(
        rows,
        batch,
        wide // math.prod(taps),
        amounts(output_size, rank, "output_size"),
        taps,
        amounts(stride, rank, "stride"),
        amounts(padding, rank, "padding"),
        amounts(dilation, rank, "dilation"),
    )
    return tensor_of(squeeze(result, 0) if added else result)
