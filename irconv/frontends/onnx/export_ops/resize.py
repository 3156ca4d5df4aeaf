"""Resizing in ONNX, and linear maps along single axes, which pooling uses too."""

from __future__ import annotations

import numpy as np

from irconv.frontends.onnx.export_ops.writer import Writer, lowering
from irconv.graph import Node
from irconv.ops.resize_taps import ResizeAttributes, taps_by_axis
from irconv.types import F16, F32, DType


def map_axis(w: Writer, x: str, rank: int, axis: int, matrix: np.ndarray, dtype: DType) -> str:
    """The product of a matrix [m, n] with one axis of x, of size n."""
    if axis == rank - 1:
        return w.op("MatMul", x, w.constant(matrix.T, dtype))
    if axis == rank - 2:
        return w.op("MatMul", w.constant(matrix, dtype), x)
    order = [other for other in range(rank) if other != axis] + [axis]
    product = w.op("MatMul", w.transpose(x, order), w.constant(matrix.T, dtype))
    return w.transpose(product, sorted(range(rank), key=order.__getitem__))


def _expressible(a: ResizeAttributes, rank: int) -> bool:
    """Whether runtimes have this kind of linear resizing: images, by a factor that the sizes tell."""
    plain = a.mode == "linear" and a.scales is None and not (a.antialias or a.exclude_outside)
    return plain and rank == 4 and len(a.size) == 2 and a.coordinates in ("half_pixel", "align_corners", "asymmetric")


@lowering("resize")
def _resize(w: Writer, node: Node, x: str) -> str:
    a, dtype, rank = node.attributes, node.type.dtype, node.type.rank
    shape = w.graph[node.operands[0]].type.shape
    if dtype is F32 and _expressible(a, rank):
        sizes = w.ints(node.type.shape)
        return w.op("Resize", x, "", "", sizes, mode="linear", coordinate_transformation_mode=a.coordinates)
    taps = taps_by_axis(a, shape, a.size)
    if a.mode == "nearest" and all((each.weights == 1).all() for _, each in taps):
        for axis, each in taps:
            x = w.op("Gather", x, w.constant(each.indices[:, 0], np.int64), axis=rank + axis)
        return x
    wide = F32 if dtype is F16 else dtype
    x = w.carried(x, dtype, wide)
    for axis, each in taps:
        x = map_axis(w, x, rank, rank + axis, each.matrix(shape[axis]), wide)
    return w.back(x, dtype, wide)


@lowering("resize_adjoint")
def _resize_adjoint(w: Writer, node: Node, d: str) -> str:
    a, dtype, rank = node.attributes, node.type.dtype, node.type.rank
    shape = w.graph[node.operands[0]].type.shape
    wide = F32 if dtype is F16 else dtype
    d = w.carried(d, dtype, wide)
    for (axis, taps), n in zip(taps_by_axis(a, a.size, shape), a.size, strict=True):
        d = map_axis(w, d, rank, rank + axis, taps.matrix(n).T, wide)
    return w.back(d, dtype, wide)
