"""Convolution (cross-correlation) and its transpose, over any number of spatial axes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from irconv.errors import AttributeValueError, ShapeError
from irconv.op import Fusion, OpDef, Site, Value, Work, emit, register
from irconv.ops.contract import fold_windows, im2col, matmul, same_numbers, window_matrix
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
    halves,
    integer,
    per_axis,
    resolve_padding,
    shifted,
    spatial_rank,
    window_axes,
    window_counts,
)
from irconv.types import TensorType, tensor_type

# --- shared by the sections below -------------------------------------------------------------------------------------


def _check_weight(x: TensorType | Value, w: TensorType | Value) -> int:
    """The spatial rank.  Raises ShapeError unless the weight has the same, and no empty axis."""
    rank = spatial_rank(x)
    if len(w.shape) != rank + 2:
        raise ShapeError(
            f"an input of shape {list(x.shape)} needs a weight of rank {rank + 2}, got shape {list(w.shape)}",
            hint="the weight is [out, in / groups, *kernel], or [in, out / groups, *kernel] when transposed",
        )
    if 0 in w.shape:
        raise ShapeError(f"the weight of shape {list(w.shape)} is empty")
    return rank


def _by_group(x: Value, groups: int) -> Value:
    """[N, C, *S] as [groups, C / groups, N * positions], in the order of im2col's rows."""
    batch, channels, *size = x.shape
    moved = transpose(x, (1, 0, *range(2, x.rank)))
    return reshape(moved, (groups, channels // groups, batch * math.prod(size)))


# --- conv -------------------------------------------------------------------------------------------------------------


def conv(
    x: Value,
    w: Value,
    stride: int | Ints = 1,
    padding: Padding = 0,
    dilation: int | Ints = 1,
    groups: int = 1,
) -> Value:
    """Cross-correlation of x [N, C, *S] with w [O, C / groups, *K] over any number of spatial axes: [N, O, *P].

    out[n, o, p] = sum over c, t of x[n, g C / groups + c, p s + t d - before] * w[o, c, t], where g is the group of o
    and x is zero outside.  P = floor((S + before + after - d (K - 1) - 1) / s) + 1.

    ``padding``: a number, one per axis, (before, after) pairs (negative ones crop), 'valid', 'same', 'same_upper' or
    'same_lower'.  float16 accumulates in float32.  Raises ShapeError where no window fits, AttributeValueError where
    ``groups`` does not divide the channels.
    """
    rank = _check_weight(x, w)
    kernel, steps, gaps = window_axes(w.shape[2:], stride, dilation, rank)
    pairs = resolve_padding(padding, x.shape[2:], kernel, steps, gaps)
    return emit(CONV, ConvAttributes(steps, pairs, gaps, integer(groups, "groups")), x, w)


@dataclass(frozen=True, slots=True)
class ConvAttributes:
    """stride, dilation: per spatial axis; padding: (before, after) pairs; groups: of channels."""

    stride: Ints
    padding: Pairs
    dilation: Ints
    groups: int

    def __post_init__(self) -> None:
        check_window(stride=self.stride, padding=self.padding, dilation=self.dilation)
        check_groups(self.groups)


def _conv_type(a: ConvAttributes, x: TensorType, w: TensorType) -> TensorType:
    same_numbers(x, w)
    _check_weight(x, w)
    channels, out = x.shape[1], w.shape[0]
    check_divides(a.groups, channels, "input")
    check_divides(a.groups, out, "output")
    if w.shape[1] != channels // a.groups:
        raise ShapeError(
            f"the weight of shape {list(w.shape)} takes {w.shape[1]} input channels per group, "
            f"the input has {channels} in {a.groups} groups",
            hint=f"the weight must be [out, {channels // a.groups}, *kernel]",
        )
    counts = window_counts(x.shape[2:], w.shape[2:], a.stride, a.padding, a.dilation)
    return tensor_type(x.dtype, (x.shape[0], out, *counts))


def _conv_reference(a: ConvAttributes, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    batch, out, kernel = x.shape[0], w.shape[0], w.shape[2:]
    counts = window_counts(x.shape[2:], kernel, a.stride, a.padding, a.dilation)
    columns = window_matrix(accumulating(x), counts, kernel, a.stride, a.padding, a.dilation, a.groups)
    weights = accumulating(w).reshape(a.groups, out // a.groups, math.prod(w.shape[1:]))
    product = np.matmul(weights, columns.transpose(0, 2, 1))
    result = product.reshape(out, batch, *counts).swapaxes(0, 1)
    return np.ascontiguousarray(result, x.dtype)


def _conv_gradient(site: Site, d: Value) -> tuple[Value | None, ...]:
    """Input: the transposed convolution of d with w.  Weight: d times the window matrix of x."""
    a = site.attributes
    x, w = site.operands
    by_x = by_w = None
    if site.wanted[0]:
        before = tuple(before for before, _ in a.padding)
        by_x = conv_transpose(d, w, a.stride, before, a.dilation, a.groups, output_size=x.shape[2:])
    if site.wanted[1]:
        columns = im2col(x, w.shape[2:], a.stride, a.padding, a.dilation, a.groups)
        by_w = reshape(matmul(_by_group(d, a.groups), columns), w.shape)
    return by_x, by_w


def _conv_cost(a: ConvAttributes, operands: tuple[TensorType, ...], result: TensorType) -> Work:
    macs = result.size * math.prod(operands[1].shape[1:])
    return Work(macs=macs, flops=2 * macs)


CONV = register(
    OpDef(
        "conv",
        ("x", "w"),
        infer=_conv_type,
        reference=_conv_reference,
        gradient=_conv_gradient,
        fusion=Fusion.CONTRACTION,
        attributes=ConvAttributes,
        cost=_conv_cost,
    )
)

# --- conv_transpose ---------------------------------------------------------------------------------------------------


def conv_transpose(
    x: Value,
    w: Value,
    stride: int | Ints = 1,
    padding: Padding = 0,
    dilation: int | Ints = 1,
    groups: int = 1,
    output_padding: int | Ints = 0,
    output_size: int | Ints | None = None,
) -> Value:
    """The adjoint of :func:`conv` by its input: x [N, C, *S] with w [C, O / groups, *K] gives [N, O, *output_size].

    full[n, o, p s + t d] collects x[n, c, p] * w[c, o, t] over c of o's group, p and t; its size is
    (S - 1) s + d (K - 1) + 1.  out[..., j] = full[..., j + before], zero where that is outside ``full``.

    Without ``output_size`` the size is that of ``full`` less the padding (pairs; negative extends with zeros) plus
    ``output_padding``, which must be smaller than stride or dilation.  'same_upper' ('same') and 'same_lower' give
    S s, an odd position being cut after or before.  float16 accumulates in float32.
    """
    rank = _check_weight(x, w)
    kernel, steps, gaps = window_axes(w.shape[2:], stride, dilation, rank)
    extra = per_axis(output_padding, rank, "output_padding")
    if any(e < 0 or e >= max(s, d) for e, s, d in zip(extra, steps, gaps, strict=True)):
        raise AttributeValueError(
            f"output_padding {list(extra)} must be at least 0 and smaller than "
            f"stride {list(steps)} or dilation {list(gaps)}"
        )
    full = covered(x.shape[2:], kernel, steps, gaps)
    pairs = _transposed_padding(padding, x.shape[2:], kernel, steps, gaps, full)
    if output_size is None:
        size = tuple(f - before - after + e for f, (before, after), e in zip(full, pairs, extra, strict=True))
    else:
        size = per_axis(output_size, rank, "output_size")
        if any(extra):
            raise AttributeValueError(f"output_size {list(size)} and output_padding {list(extra)} exclude each other")
    before = tuple(before for before, _ in pairs)
    return emit(CONV_TRANSPOSE, ConvTransposeAttributes(steps, before, gaps, integer(groups, "groups"), size), x, w)


def _transposed_padding(
    padding: Padding, size: Ints, kernel: Ints, stride: Ints, dilation: Ints, full: Ints
) -> Pairs:
    """What is cut from ``full`` before and after; the 'same' modes leave size times stride (ONNX)."""
    if not isinstance(padding, str) or not padding.startswith("same"):
        return resolve_padding(padding, size, kernel, stride, dilation)
    resolve_padding(padding, size, kernel, stride, dilation)  # refuses an unknown name
    cuts = [f - n * s for f, n, s in zip(full, size, stride, strict=True)]
    # with fewer taps than the stride nothing is cut: the rest of the output stays zero
    return tuple(halves(cut, padding == "same_lower") if cut > 0 else (0, cut) for cut in cuts)


@dataclass(frozen=True, slots=True)
class ConvTransposeAttributes:
    """stride, dilation, padding (what is cut before), output_size: per spatial axis; groups: of channels."""

    stride: Ints
    padding: Ints
    dilation: Ints
    groups: int
    output_size: Ints

    def __post_init__(self) -> None:
        check_window(stride=self.stride, padding=self.padding, dilation=self.dilation, output_size=self.output_size)
        check_groups(self.groups)


def _conv_transpose_type(a: ConvTransposeAttributes, x: TensorType, w: TensorType) -> TensorType:
    same_numbers(x, w)
    rank = _check_weight(x, w)
    if len(a.stride) != rank:
        raise ShapeError(f"the window has {len(a.stride)} spatial axes, the input {rank}")
    if 0 in x.shape[2:]:
        raise ShapeError(f"the input of shape {list(x.shape)} has no elements, so there is nothing to spread")
    if w.shape[0] != x.shape[1]:
        raise ShapeError(
            f"the weight of shape {list(w.shape)} takes {w.shape[0]} input channels, the input has {x.shape[1]}",
            hint="the weight of a transposed convolution is [in, out / groups, *kernel]",
        )
    check_divides(a.groups, x.shape[1], "input")
    return tensor_type(x.dtype, (x.shape[0], a.groups * w.shape[1], *a.output_size))


def _conv_transpose_reference(a: ConvTransposeAttributes, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    batch, channels, *counts = x.shape
    kernel, taken = w.shape[2:], channels // a.groups
    weights = accumulating(w).reshape(a.groups, taken, math.prod(w.shape[1:]))
    pixels = accumulating(x).swapaxes(0, 1).reshape(a.groups, taken, batch * math.prod(counts))
    columns = np.matmul(pixels.transpose(0, 2, 1), weights)
    full = fold_windows(columns, batch, tuple(counts), kernel, a.stride, a.dilation)
    return shifted(full, a.padding, a.output_size).astype(x.dtype, copy=False)


def _conv_transpose_gradient(site: Site, d: Value) -> tuple[Value | None, ...]:
    """Input: the convolution of d with w.  Weight: x times the window matrix of d."""
    a = site.attributes
    x, w = site.operands
    full = covered(x.shape[2:], w.shape[2:], a.stride, a.dilation)
    # exactly as many windows over d as x has elements
    pairs = tuple((before, f - n - before) for f, n, before in zip(full, a.output_size, a.padding, strict=True))
    by_x = by_w = None
    if site.wanted[0]:
        by_x = conv(d, w, a.stride, pairs, a.dilation, a.groups)
    if site.wanted[1]:
        columns = im2col(d, w.shape[2:], a.stride, pairs, a.dilation, a.groups)
        by_w = reshape(matmul(_by_group(x, a.groups), columns), w.shape)
    return by_x, by_w


def _conv_transpose_cost(
    a: ConvTransposeAttributes, operands: tuple[TensorType, ...], result: TensorType
) -> Work:
    macs = operands[0].size * math.prod(operands[1].shape[1:])
    return Work(macs=macs, flops=2 * macs)


CONV_TRANSPOSE = register(
    OpDef(
        "conv_transpose",
        ("x", "w"),
        infer=_conv_transpose_type,
        reference=_conv_transpose_reference,
        gradient=_conv_transpose_gradient,
        fusion=Fusion.CONTRACTION,
        attributes=ConvTransposeAttributes,
        cost=_conv_transpose_cost,
    )
)
