"""Contractions: matrix product, and the matrices of windows (im2col, col2im) that turn a convolution into one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv.errors import AttributeValueError, DTypeError, ShapeError
from irconv.op import NO_ATTRIBUTES, Fusion, OpDef, Site, Value, Work, emit, no_work, register
from irconv.ops.shape import reshape, transpose
from irconv.ops.window import (
    Ints,
    Padding,
    Pairs,
    accumulating,
    check_divides,
    check_groups,
    check_window,
    covered,
    integer,
    padded_input,
    per_axis,
    resolve_padding,
    spatial_rank,
    tap_views,
    unpadded,
    window_axes,
    window_counts,
    windows,
)
from irconv.types import BOOL, TensorType, broadcast_shapes, tensor_type


def same_numbers(x: TensorType, y: TensorType) -> None:
    """Raise DTypeError unless both operands have one element type, and it is not bool."""
    if x.dtype is not y.dtype:
        raise DTypeError(f"operands have different element types: {x.dtype}, {y.dtype}", hint="cast them to one")
    if x.dtype is BOOL:
        raise DTypeError("needs numbers, got bool", hint="cast first, for example x.astype('float32')")


# --- matmul -----------------------------------------------------------------------------------------------------------


def matmul(x: Value, y: Value) -> Value:
    """out[..., i, j] = sum over k of x[..., i, k] * y[..., k, j], as NumPy's ``@``.

    Axes before the last two broadcast.  A vector on the left is a row, on the right a column, and its axis is dropped
    from the result.  float16 accumulates in float32.
    """
    if x.rank == 0 or y.rank == 0:
        raise ShapeError(
            f"matmul of shapes {list(x.shape)} and {list(y.shape)}: a scalar has no axis to sum over", hint="use x * y"
        )
    left = reshape(x, (1, *x.shape)) if x.rank == 1 else x
    right = reshape(y, (*y.shape, 1)) if y.rank == 1 else y
    result = emit(MATMUL, NO_ATTRIBUTES, left, right)
    if x.rank > 1 and y.rank > 1:
        return result
    kept = result.shape[:-2] + result.shape[-2:-1] * (x.rank > 1) + result.shape[-1:] * (y.rank > 1)
    return reshape(result, kept)


def _matmul_type(attributes: Any, x: TensorType, y: TensorType) -> TensorType:
    same_numbers(x, y)
    if x.rank < 2 or y.rank < 2:
        raise ShapeError(f"needs matrices, got ranks {x.rank} and {y.rank}")
    if x.shape[-1] != y.shape[-2]:
        raise ShapeError(
            f"matmul of shapes {list(x.shape)} and {list(y.shape)}: {x.shape[-1]} columns against {y.shape[-2]} rows",
            hint="the last axis of the first operand must equal the second to last of the second",
        )
    return tensor_type(x.dtype, (*broadcast_shapes(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1]))


def _matmul_reference(attributes: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    product: np.ndarray = np.matmul(accumulating(x), accumulating(y))
    return product.astype(x.dtype, copy=False)


def transposed(x: Value) -> Value:
    """x with its last two axes exchanged."""
    return transpose(x, (*range(x.rank - 2), x.rank - 1, x.rank - 2))


def _matmul_gradient(site: Site, d: Value) -> tuple[Value | None, ...]:
    x, y = site.operands
    by_x = matmul(d, transposed(y)) if site.wanted[0] else None
    by_y = None
    if site.wanted[1]:
        if y.rank == 2 and x.rank > 2:
            # one matrix for all batches: one product of tall matrices instead of many that are then summed
            rows = x.type.size // x.shape[-1] if x.shape[-1] else 0
            x, d = reshape(x, (rows, x.shape[-1])), reshape(d, (rows, d.shape[-1]))
        by_y = matmul(transposed(x), d)
    return by_x, by_y


def _matmul_cost(attributes: Any, operands: tuple[TensorType, ...], result: TensorType) -> Work:
    macs = result.size * operands[0].shape[-1]
    return Work(macs=macs, flops=2 * macs)


MATMUL = register(
    OpDef(
        "matmul",
        ("x", "y"),
        infer=_matmul_type,
        reference=_matmul_reference,
        gradient=_matmul_gradient,
        fusion=Fusion.CONTRACTION,
        cost=_matmul_cost,
    )
)

# --- im2col -----------------------------------------------------------------------------------------------------------


def im2col(
    x: Value,
    kernel: int | Ints,
    stride: int | Ints = 1,
    padding: Padding = 0,
    dilation: int | Ints = 1,
    groups: int = 1,
) -> Value:
    """The windows of x [N, C, *spatial] as the rows of a matrix per group: [groups, N * windows, C / groups * taps].

    Rows: sample by sample, windows in row-major order.  Columns: channel by channel of the group, taps in row-major
    order.  Padding reads as zero.  For one group and one sample its transpose is PyTorch's ``unfold``.
    """
    rank = spatial_rank(x)
    taps, steps, gaps = window_axes(kernel, stride, dilation, rank)
    pairs = resolve_padding(padding, x.shape[2:], taps, steps, gaps)
    return emit(IM2COL, Im2colAttributes(taps, steps, pairs, gaps, integer(groups, "groups")), x)


@dataclass(frozen=True, slots=True)
class Im2colAttributes:
    """kernel, stride, dilation: per spatial axis; padding: (before, after) pairs; groups: of channels."""

    kernel: Ints
    stride: Ints
    padding: Pairs
    dilation: Ints
    groups: int

    def __post_init__(self) -> None:
        check_window(kernel=self.kernel, stride=self.stride, padding=self.padding, dilation=self.dilation)
        check_groups(self.groups)


def _columns_shape(a: Any, batch: int, channels: int, size: Ints) -> Ints:
    """Shape of the matrices of windows of an input [batch, channels, *size]."""
    counts = window_counts(size, a.kernel, a.stride, a.padding, a.dilation)
    check_divides(a.groups, channels, "input")
    return (a.groups, batch * math.prod(counts), channels // a.groups * math.prod(a.kernel))


def _im2col_type(attributes: Im2colAttributes, x: TensorType) -> TensorType:
    spatial_rank(x)
    return tensor_type(x.dtype, _columns_shape(attributes, x.shape[0], x.shape[1], x.shape[2:]))


def window_matrix(
    x: np.ndarray, counts: Ints, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints, groups: int
) -> np.ndarray:
    """The matrices of im2col, for window counts that are known."""
    batch, channels, rank = x.shape[0], x.shape[1], len(kernel)
    view = windows(padded_input(x, counts, kernel, stride, padding, dilation), kernel, stride, dilation)
    view = view.reshape(batch, groups, channels // groups, *counts, *kernel)
    spatial, taps = range(3, 3 + rank), range(3 + rank, 3 + 2 * rank)
    ordered = view.transpose(1, 0, *spatial, 2, *taps)
    return ordered.reshape(groups, batch * math.prod(counts), channels // groups * math.prod(kernel))


def _im2col_reference(a: Im2colAttributes, x: np.ndarray) -> np.ndarray:
    counts = window_counts(x.shape[2:], a.kernel, a.stride, a.padding, a.dilation)
    return window_matrix(x, counts, a.kernel, a.stride, a.padding, a.dilation, a.groups)


def _im2col_gradient(site: Site, d: Value) -> tuple[Value]:
    a, x = site.attributes, site.operands[0]
    return (col2im(d, x.shape[0], x.shape[1], x.shape[2:], a.kernel, a.stride, a.padding, a.dilation, a.groups),)


IM2COL = register(
    OpDef(
        "im2col",
        ("x",),
        infer=_im2col_type,
        reference=_im2col_reference,
        gradient=_im2col_gradient,
        fusion=Fusion.WINDOW,
        attributes=Im2colAttributes,
        cost=no_work,
    )
)

# --- col2im -----------------------------------------------------------------------------------------------------------


def col2im(
    columns: Value,
    batch: int,
    channels: int,
    size: Ints,
    kernel: int | Ints,
    stride: int | Ints = 1,
    padding: Padding = 0,
    dilation: int | Ints = 1,
    groups: int = 1,
) -> Value:
    """The adjoint of :func:`im2col`: every entry of the columns added where it came from, [batch, channels, *size].

    What came from the padding is dropped; positions that no window reached are zero.
    """
    extent = per_axis(size, len(size), "size")
    taps, steps, gaps = window_axes(kernel, stride, dilation, len(extent))
    pairs = resolve_padding(padding, extent, taps, steps, gaps)
    counts = integer(batch, "batch"), integer(channels, "channels")
    attributes = Col2imAttributes(*counts, extent, taps, steps, pairs, gaps, integer(groups, "groups"))
    return emit(COL2IM, attributes, columns)


@dataclass(frozen=True, slots=True)
class Col2imAttributes:
    """batch, channels, size: of the result; the rest as :class:`Im2colAttributes`."""

    batch: int
    channels: int
    size: Ints
    kernel: Ints
    stride: Ints
    padding: Pairs
    dilation: Ints
    groups: int

    def __post_init__(self) -> None:
        check_window(
            size=self.size, kernel=self.kernel, stride=self.stride, padding=self.padding, dilation=self.dilation
        )
        check_groups(self.groups)
        if self.batch < 0:
            raise AttributeValueError(f"batch must not be negative, got {self.batch}")


def _col2im_type(a: Col2imAttributes, columns: TensorType) -> TensorType:
    if columns.dtype is BOOL:
        raise DTypeError("needs numbers, got bool", hint="cast first, for example x.astype('float32')")
    expected = _columns_shape(a, a.batch, a.channels, a.size)
    if columns.shape != expected:
        raise ShapeError(
            f"the windows of {[a.batch, a.channels, *a.size]} make columns of shape {list(expected)}, "
            f"got {list(columns.shape)}"
        )
    return tensor_type(columns.dtype, (a.batch, a.channels, *a.size))


def fold_windows(
    columns: np.ndarray, batch: int, counts: Ints, kernel: Ints, stride: Ints, dilation: Ints
) -> np.ndarray:
    """Window matrices added up over all the positions that the windows cover: [batch, channels, *covered]."""
    groups, rank = columns.shape[0], len(kernel)
    per_group = columns.shape[2] // math.prod(kernel)
    parts = accumulating(columns).reshape(groups, batch, *counts, per_group, *kernel)
    spatial, taps = range(2, 2 + rank), range(3 + rank, 3 + 2 * rank)
    parts = parts.transpose(*taps, 1, 0, 2 + rank, *spatial)
    parts = parts.reshape(math.prod(kernel), batch, groups * per_group, *counts)
    total = np.zeros((batch, groups * per_group, *covered(counts, kernel, stride, dilation)), parts.dtype)
    for view, part in zip(tap_views(total, counts, kernel, stride, dilation), parts, strict=True):
        view += part
    return total


def _col2im_reference(a: Col2imAttributes, columns: np.ndarray) -> np.ndarray:
    counts = window_counts(a.size, a.kernel, a.stride, a.padding, a.dilation)
    total = fold_windows(columns, a.batch, counts, a.kernel, a.stride, a.dilation)
    return unpadded(total, a.size, a.padding).astype(columns.dtype, copy=False)


def _col2im_gradient(site: Site, d: Value) -> tuple[Value]:
    a = site.attributes
    return (im2col(d, a.kernel, a.stride, a.padding, a.dilation, a.groups),)


def _col2im_cost(attributes: Any, operands: tuple[TensorType, ...], result: TensorType) -> Work:
    return Work(flops=operands[0].size)


COL2IM = register(
    OpDef(
        "col2im",
        ("columns",),
        infer=_col2im_type,
        reference=_col2im_reference,
        gradient=_col2im_gradient,
        fusion=Fusion.WINDOW,
        attributes=Col2imAttributes,
        cost=_col2im_cost,
    )
)
