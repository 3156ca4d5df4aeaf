"""Pooling in ONNX.

MaxPool and AveragePool serve where their meaning is ours: floats in up to three spatial axes, padding narrower than the window.
Elsewhere the windows are gathered and reduced, or, for averages and their adjoint, each axis is multiplied by the matrix
that says which elements a window holds.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from irconv.frontends.onnx.export_ops.contract import window_axes, windows
from irconv.frontends.onnx.export_ops.elementwise import choose
from irconv.frontends.onnx.export_ops.index import add_at
from irconv.frontends.onnx.export_ops.reduce import comparable
from irconv.frontends.onnx.export_ops.resize import map_axis
from irconv.frontends.onnx.export_ops.shape import placed
from irconv.frontends.onnx.export_ops.writer import Writer, lowering
from irconv.graph import Node
from irconv.ops.pool import AvgPoolAttributes, pool_divisors
from irconv.ops.pool_taps import PoolAttributes, pool_counts
from irconv.ops.window import Ints, Pairs, covered
from irconv.types import F16, F32, I64, DType, TensorType

# --- what windows there are ----------------------------------------------------------------------------------------------


def _attributes(a: PoolAttributes, size: Ints) -> tuple[Ints, dict[str, Any]] | None:
    """Cropping-free attributes of a pooling operator of ONNX that has exactly our windows; None where it has not.

    The padding behind is made as long as the windows reach, so that no ``ceil_mode`` is needed.
    """
    counts = pool_counts(a, size)
    reach = covered(counts, a.kernel, a.stride, a.dilation)
    before = [b for b, _ in a.padding]
    behind = [max(0, r - n - b) for r, n, b in zip(reach, size, before, strict=True)]
    narrow = all(0 <= p < k for p, k in (*zip(before, a.kernel, strict=True), *zip(behind, a.kernel, strict=True)))
    cropping = any(after < 0 for _, after in a.padding)
    if len(size) > 3 or cropping or not narrow or any(i.min() < 1 for i in _inside(a, size)):
        return None
    window = {"kernel_shape": list(a.kernel), "strides": list(a.stride), "pads": [*before, *behind]}
    return counts, window | {"dilations": list(a.dilation)}


def _places(a: PoolAttributes, size: Ints, axis: int) -> np.ndarray:
    """Which position of the input each tap of each window reads along an axis: [count, kernel]."""
    count = pool_counts(a, size)[axis]
    taps = np.arange(count)[:, None] * a.stride[axis] + np.arange(a.kernel[axis]) * a.dilation[axis]
    return taps - a.padding[axis][0]


def _valid(a: PoolAttributes, size: Ints, axis: int) -> np.ndarray:
    """Which of those positions lie inside of the (cropped) input."""
    places, (_, after) = _places(a, size, axis), a.padding[axis]
    return (places >= 0) & (places < size[axis] + min(after, 0))


def _inside(a: PoolAttributes, size: Ints) -> list[np.ndarray]:
    """For each axis, how many taps of each window lie inside."""
    return [np.count_nonzero(_valid(a, size, axis), axis=1) for axis in range(len(size))]


def _gathered(w: Writer, x: str, type_: TensorType, a: PoolAttributes, fill: float) -> str:
    """All windows of x: [N, C, *P, taps]."""
    counts = pool_counts(a, type_.shape[2:])
    x = windows(w, x, type_, counts, a.kernel, a.stride, a.padding, a.dilation, fill)
    spatial, taps = window_axes(len(counts))
    x = w.transpose(x, [0, 1, *spatial, *taps])
    return w.reshape(x, [*type_.shape[:2], *counts, math.prod(a.kernel)])


# --- extrema -------------------------------------------------------------------------------------------------------------


@lowering("max_pool", "min_pool")
def _extremum(w: Writer, node: Node, x: str) -> str:
    a, dtype, source = node.attributes, node.type.dtype, w.graph[node.operands[0]].type
    largest = node.op.name == "max_pool"
    known = _attributes(a, source.shape[2:]) if dtype.is_float else None
    if known is not None:
        found = w.op("MaxPool", x if largest else w.op("Neg", x), **known[1])
        return found if largest else w.op("Neg", found)
    wide = comparable(dtype)
    x = w.carried(x, dtype, wide)
    fill = dtype.lowest if largest else dtype.highest
    gathered = _gathered(w, x, TensorType(wide, source.shape), a, fill)
    axis = node.type.rank
    return w.back(w.reduce("ReduceMax" if largest else "ReduceMin", gathered, [axis]), dtype, wide)


@lowering("argmax_pool", "argmin_pool")
def _winner(w: Writer, node: Node, x: str) -> str:
    a, source = node.attributes, w.graph[node.operands[0]].type
    largest = node.op.name == "argmax_pool"
    wide = comparable(source.dtype)
    x = w.carried(x, source.dtype, wide)
    fill = source.dtype.lowest if largest else source.dtype.highest
    gathered = _gathered(w, x, TensorType(wide, source.shape), a, fill)
    taps = w.op("ArgMax" if largest else "ArgMin", gathered, axis=node.type.rank, keepdims=0)
    first = _first_valid(a, source.shape[2:])
    if first.any():
        # where all that a window holds equals the padding, the first tap that is not padding has won
        best = w.reduce("ReduceMax" if largest else "ReduceMin", gathered, [node.type.rank])
        nothing = w.op("Equal", best, w.constant(fill, wide))
        taps = w.op("Where", nothing, w.constant(first, np.int64), taps)
    return w.cast(taps, node.type.dtype)


def _first_valid(a: PoolAttributes, size: Ints) -> np.ndarray:
    """The first tap of each window that is not padding, row-major [*P]; 0 where all are."""
    rank = len(size)
    valid = np.ones((1,) * (2 * rank), bool)
    for axis in range(rank):
        inside = _valid(a, size, axis)
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = inside.shape
        valid = valid & inside.reshape(shape)
    return np.argmax(valid.reshape(*valid.shape[:rank], -1), axis=-1)


# --- through the winning taps --------------------------------------------------------------------------------------------


def _positions(w: Writer, node: Node, taps: str, size: Ints) -> tuple[str, str]:
    """Tap indices as flat positions in what the windows cover, i64 [N, C, windows]; and where they are no taps ("" if never)."""
    a, maker = node.attributes, w.graph[node.operands[1]]
    counts, rank, tap_count = pool_counts(a, size), len(size), math.prod(a.kernel)
    reach = covered(counts, a.kernel, a.stride, a.dilation)
    pitch = [math.prod(reach[axis + 1 :]) for axis in range(rank)]
    offsets = [
        sum(t * d * p for t, d, p in zip(tap, a.dilation, pitch, strict=True))
        for tap in itertools.product(*map(range, a.kernel))
    ]
    origins = np.zeros((1,) * rank, np.int64)
    for axis, count in enumerate(counts):
        row = np.arange(count, dtype=np.int64) * a.stride[axis] * pitch[axis]
        origins = origins + row.reshape(-1, *(1,) * (rank - 1 - axis))
    flat = (*maker.type.shape[:2], math.prod(counts))
    taps = w.reshape(w.cast(taps, I64), flat)
    outside = ""
    if maker.op.name not in ("argmax_pool", "argmin_pool") or maker.attributes.kernel != a.kernel:
        outside = w.op(
            "Or", w.op("Less", taps, w.constant(0, I64)), w.op("GreaterOrEqual", taps, w.constant(tap_count, I64))
        )
        taps = w.op("Where", outside, w.constant(0, I64), taps)
    found = w.op("Gather", w.constant(offsets, np.int64), taps, axis=0)
    return w.op("Add", found, w.constant(origins.reshape(-1), np.int64)), outside


@lowering("window_scatter")
def _window_scatter(w: Writer, node: Node, d: str, taps: str) -> str:
    a, dtype = node.attributes, node.type.dtype
    counts = pool_counts(a, a.size)
    lead, reach = node.type.shape[:2], covered(counts, a.kernel, a.stride, a.dilation)
    places, outside = _positions(w, node, taps, a.size)
    d = w.reshape(d, (*lead, math.prod(counts)))
    if outside:
        d = choose(w, dtype, outside, w.constant(0, dtype), d)
    total = add_at(w, TensorType(dtype, (*lead, math.prod(reach))), d, places, 2)
    return _unpadded(w, w.reshape(total, (*lead, *reach)), node.type, reach, a.padding)


def _unpadded(w: Writer, total: str, type_: TensorType, reach: Ints, padding: Pairs) -> str:
    """The part of what the windows cover that is input; what negative padding cut off is zero."""
    lead, ends = type_.shape[:2], [b + n + min(a, 0) for n, (b, a) in zip(type_.shape[2:], padding, strict=True)]
    kept = [*lead, *(max(0, min(r, end)) for r, end in zip(reach, ends, strict=True))]
    total = placed(w, total, type_.dtype, [*lead, *reach], [0] * type_.rank, kept)
    return placed(w, total, type_.dtype, kept, [0, 0, *(-before for before, _ in padding)], type_.shape)


@lowering("window_gather")
def _window_gather(w: Writer, node: Node, x: str, taps: str) -> str:
    a, dtype, source = node.attributes, node.type.dtype, w.graph[node.operands[0]].type
    size = source.shape[2:]
    counts = pool_counts(a, size)
    lead, reach = source.shape[:2], covered(counts, a.kernel, a.stride, a.dilation)
    places, outside = _positions(w, node, taps, size)
    kept = [n + min(after, 0) for n, (_, after) in zip(size, a.padding, strict=True)]
    kept = [max(0, n) for n in kept]
    x = placed(w, x, dtype, source.shape, [0] * source.rank, [*lead, *kept])
    x = placed(w, x, dtype, [*lead, *kept], [0, 0, *(before for before, _ in a.padding)], [*lead, *reach])
    found = w.op("GatherElements", w.reshape(x, (*lead, math.prod(reach))), places, axis=2)
    if outside:
        found = choose(w, dtype, outside, w.constant(0, dtype), found)
    return w.reshape(found, node.type.shape)


# --- averages ------------------------------------------------------------------------------------------------------------


def _membership(a: PoolAttributes, size: Ints) -> list[np.ndarray]:
    """For each axis the matrix [count, n] of how often a window holds each element."""
    matrices = []
    for axis, n in enumerate(size):
        places, valid = _places(a, size, axis), _valid(a, size, axis)
        matrix = np.zeros((len(places), n))
        np.add.at(matrix, (np.nonzero(valid)[0], places[valid]), 1)
        matrices.append(matrix)
    return matrices


def _average_attributes(a: AvgPoolAttributes, size: Ints) -> dict[str, Any] | None:
    """Attributes of AveragePool, where it divides as we do; None where it does not."""
    known = _attributes(a, size)
    if known is None or any(d != 1 for d in a.dilation):
        return None
    window = known[1]
    padded = any(window["pads"])
    divisors = pool_divisors(a, size)
    full = math.prod(a.kernel)
    if (divisors == full).all():  # whatever is padding counts
        return window | {"count_include_pad": int(padded)}
    inside = np.ones(())
    for each in _inside(a, size):
        inside = np.multiply.outer(inside, each)
    return window if (divisors == inside).all() else None


@lowering("avg_pool")
def _average(w: Writer, node: Node, x: str) -> str:
    a, dtype, source = node.attributes, node.type.dtype, w.graph[node.operands[0]].type
    size = source.shape[2:]
    window = _average_attributes(a, size)
    if window is not None:
        window.pop("dilations")
        return w.op("AveragePool", x, **window)
    wide = _wide(dtype)
    x = w.carried(x, dtype, wide)
    for axis, matrix in enumerate(_membership(a, size)):
        x = map_axis(w, x, source.rank, 2 + axis, matrix, wide)
    return w.back(w.op("Div", x, w.constant(pool_divisors(a, size), wide)), dtype, wide)


@lowering("avg_pool_adjoint")
def _average_adjoint(w: Writer, node: Node, d: str) -> str:
    a, dtype = node.attributes, node.type.dtype
    wide = _wide(dtype)
    d = w.carried(d, dtype, wide)
    divisors, matrices = pool_divisors(a, a.size), _membership(a, a.size)
    if (divisors == divisors.flat[0]).all():
        matrices[0] /= divisors.flat[0]
    else:
        d = w.op("Div", d, w.constant(divisors, wide))
    for axis, matrix in enumerate(matrices):
        d = map_axis(w, d, node.type.rank, 2 + axis, matrix.T, wide)
    return w.back(d, dtype, wide)


def _wide(dtype: DType) -> DType:
    return F32 if dtype is F16 else dtype
