"""Contractions in ONNX: matrix products, convolutions, and the matrices of windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from irconv.frontends.onnx.export_ops.elementwise import carrier
from irconv.frontends.onnx.export_ops.index import add_at
from irconv.frontends.onnx.export_ops.shape import placed
from irconv.frontends.onnx.export_ops.writer import Writer, lowering
from irconv.graph import Node
from irconv.ops.window import Ints, Pairs, covered, window_counts
from irconv.types import F16, F32, DType, TensorType


def accumulator(dtype: DType) -> DType:
    """The type that products are added up in."""
    return F32 if dtype is F16 else carrier(dtype)


@lowering("matmul")
def _matmul(w: Writer, node: Node, x: str, y: str) -> str:
    if w.graph[node.operands[0]].type.shape[-1] == 0:
        return w.filled(node.type, 0)
    dtype = node.type.dtype
    return w.op_in(accumulator(dtype), dtype, "MatMul", x, y)


# --- windows -------------------------------------------------------------------------------------------------------------


def windows(
    w: Writer,
    x: str,
    type_: TensorType,
    counts: Ints,
    kernel: Ints,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    fill: float = 0,
) -> str:
    """All windows of x [N, C, *S], with ``fill`` around it: [N, C, o1, k1, o2, k2, ...], one gather for each axis."""
    # what negative padding cuts from the end is not there for a ceil_mode overhang to read
    kept = [max(0, n + min(after, 0)) for n, (_, after) in zip(type_.shape[2:], padding, strict=True)]
    size = [*type_.shape[:2], *kept]
    x = placed(w, x, type_.dtype, type_.shape, [0] * type_.rank, size)
    start = [0, 0, *(before for before, _ in padding)]
    reach = covered(counts, kernel, stride, dilation)
    x = placed(w, x, type_.dtype, size, start, [*type_.shape[:2], *reach], fill)
    for axis, (count, k, s, d) in enumerate(zip(counts, kernel, stride, dilation, strict=True)):
        places = np.arange(count)[:, None] * s + np.arange(k) * d
        x = w.op("Gather", x, w.constant(places, np.int64), axis=2 + 2 * axis)
    return x


def window_axes(rank: int) -> tuple[list[int], list[int]]:
    """Where the counts and the taps stand in what :func:`windows` returns."""
    return [2 + 2 * axis for axis in range(rank)], [3 + 2 * axis for axis in range(rank)]


def columns(
    w: Writer,
    x: str,
    type_: TensorType,
    counts: Ints,
    kernel: Ints,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    groups: int,
) -> str:
    """The matrices of im2col, [groups, N * windows, C / groups * taps]."""
    batch, channels = type_.shape[:2]
    x = windows(w, x, type_, counts, kernel, stride, padding, dilation)
    places = [n for pair in zip(counts, kernel, strict=True) for n in pair]
    x = w.reshape(x, [batch, groups, channels // groups, *places])
    spatial, taps = ([1 + axis for axis in axes] for axes in window_axes(len(kernel)))
    x = w.transpose(x, [1, 0, *spatial, 2, *taps])
    return w.reshape(x, [groups, batch * math.prod(counts), channels // groups * math.prod(kernel)])


@lowering("im2col")
def _im2col(w: Writer, node: Node, x: str) -> str:
    a, type_ = node.attributes, w.graph[node.operands[0]].type
    counts = window_counts(type_.shape[2:], a.kernel, a.stride, a.padding, a.dilation)
    return columns(w, x, type_, counts, a.kernel, a.stride, a.padding, a.dilation, a.groups)


def fold(
    w: Writer,
    x: str,
    dtype: DType,
    groups: int,
    batch: int,
    counts: Ints,
    kernel: Ints,
    stride: Ints,
    dilation: Ints,
    each: int,
) -> str:
    """Window matrices added up over the positions that the windows cover: [N, groups * each, *covered]."""
    rank = len(counts)
    reach = covered(counts, kernel, stride, dilation)
    x = w.reshape(x, [groups, batch, *counts, each, *kernel])
    spatial, taps = range(2, 2 + rank), range(3 + rank, 3 + 2 * rank)
    x = w.transpose(x, [1, 0, 2 + rank, *spatial, *taps])
    places = ""
    for axis, (count, k, s, d) in enumerate(zip(counts, kernel, stride, dilation, strict=True)):
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = count, k
        row = (np.arange(count)[:, None] * s + np.arange(k) * d) * math.prod(reach[axis + 1 :])
        name = w.constant(row.reshape(shape), np.int64)
        places = w.op("Add", places, name) if places else name
    rows = (batch * groups * each, math.prod(counts) * math.prod(kernel))
    indices = w.expand(w.reshape(places, (1, rows[1])), rows)
    total = add_at(w, TensorType(dtype, (rows[0], math.prod(reach))), w.reshape(x, rows), indices, 1)
    return w.reshape(total, (batch, groups * each, *reach))


@lowering("col2im")
def _col2im(w: Writer, node: Node, x: str) -> str:
    a, dtype = node.attributes, node.type.dtype
    wide = accumulator(dtype)
    x = w.carried(x, dtype, wide)
    counts = window_counts(a.size, a.kernel, a.stride, a.padding, a.dilation)
    each = a.channels // a.groups
    total = fold(w, x, wide, a.groups, a.batch, counts, a.kernel, a.stride, a.dilation, each)
    reach = covered(counts, a.kernel, a.stride, a.dilation)
    before = [0, 0, *(-before for before, _ in a.padding)]
    cropped = placed(w, total, wide, [a.batch, a.channels, *reach], before, node.type.shape)
    return w.back(cropped, dtype, wide)


# --- convolution ---------------------------------------------------------------------------------------------------------


@lowering("conv")
def _conv(w: Writer, node: Node, x: str, weight: str) -> str:
    a, dtype = node.attributes, node.type.dtype
    source, kernel = w.graph[node.operands[0]].type, w.graph[node.operands[1]].type.shape[2:]
    if not dtype.is_float:
        return _integer_conv(w, node, x, weight)
    x, pads = cropped(w, x, source, a.padding)
    return w.op(
        "Conv",
        x,
        weight,
        kernel_shape=list(kernel),
        strides=list(a.stride),
        pads=pads,
        dilations=list(a.dilation),
        group=a.groups,
    )


def cropped(w: Writer, x: str, type_: TensorType, padding: Pairs) -> tuple[str, list[int]]:
    """x without what negative padding crops, and the rest of the padding as ONNX lists it."""
    size = list(type_.shape)
    start = [0, 0, *(min(before, 0) for before, _ in padding)]
    inner = [*size[:2], *(n + min(b, 0) + min(a, 0) for n, (b, a) in zip(size[2:], padding, strict=True))]
    pads = [max(before, 0) for before, _ in padding] + [max(after, 0) for _, after in padding]
    return (placed(w, x, type_.dtype, size, start, inner) if inner != size else x), pads


def _integer_conv(w: Writer, node: Node, x: str, weight: str) -> str:
    """A convolution of integers as the product of a window matrix with the weights."""
    a, dtype, source = node.attributes, node.type.dtype, w.graph[node.operands[0]].type
    shape = w.graph[node.operands[1]].type.shape
    wide = accumulator(dtype)
    x, weight = w.carried(x, dtype, wide), w.carried(weight, dtype, wide)
    counts = node.type.shape[2:]
    wide_source = TensorType(wide, source.shape)
    rows = columns(w, x, wide_source, counts, shape[2:], a.stride, a.padding, a.dilation, a.groups)
    each = shape[0] // a.groups
    weights = w.transpose(w.reshape(weight, [a.groups, each, math.prod(shape[1:])]), [0, 2, 1])
    product = w.reshape(w.op("MatMul", rows, weights), [a.groups, source.shape[0], math.prod(counts), each])
    return w.back(w.reshape(w.transpose(product, [1, 0, 3, 2]), node.type.shape), dtype, wide)


@lowering("conv_transpose")
def _conv_transpose(w: Writer, node: Node, x: str, weight: str) -> str:
    a, dtype = node.attributes, node.type.dtype
    source, shape = w.graph[node.operands[0]].type, w.graph[node.operands[1]].type.shape
    kernel = shape[2:]
    full = covered(source.shape[2:], kernel, a.stride, a.dilation)
    if not dtype.is_float:
        wide = accumulator(dtype)
        total = _integer_transpose(w, node, w.carried(x, dtype, wide), w.carried(weight, dtype, wide), wide)
        return w.back(_shifted(w, total, node.type, wide, full, a.padding), dtype, wide)
    after = [f - n - b for f, n, b in zip(full, a.output_size, a.padding, strict=True)]
    fits = all(b >= 0 and -e < s and b < f for b, e, s, f in zip(a.padding, after, a.stride, full, strict=True))
    window: dict[str, Any] = {
        "strides": list(a.stride),
        "dilations": list(a.dilation),
        "group": a.groups,
        "kernel_shape": list(kernel),
    }
    if fits:
        pads = [*a.padding, *(max(e, 0) for e in after)]
        if any(e < 0 for e in after):
            window["output_padding"] = [max(-e, 0) for e in after]
        return w.op("ConvTranspose", x, weight, pads=pads, **window)
    return _shifted(w, w.op("ConvTranspose", x, weight, **window), node.type, dtype, full, a.padding)


def _shifted(w: Writer, total: str, type_: TensorType, dtype: DType, full: Sequence[int], before: Sequence[int]) -> str:
    size = [*type_.shape[:2], *full]
    return placed(w, total, dtype, size, [0, 0, *(-b for b in before)], type_.shape)


def _integer_transpose(w: Writer, node: Node, x: str, weight: str, wide: DType) -> str:
    """The products of every element with its weights, added up where they belong."""
    a, shape = node.attributes, w.graph[node.operands[1]].type.shape
    batch, channels, *counts = w.graph[node.operands[0]].type.shape
    taken, places = channels // a.groups, math.prod(counts)
    pixels = w.transpose(w.reshape(x, [batch, a.groups, taken, places]), [1, 0, 3, 2])
    pixels = w.reshape(pixels, [a.groups, batch * places, taken])
    weights = w.reshape(weight, [a.groups, taken, math.prod(shape[1:])])
    product = w.op("MatMul", pixels, weights)
    return fold(w, product, wide, a.groups, batch, tuple(counts), shape[2:], a.stride, a.dilation, shape[1])
