"""Reductions, scans and sorting in ONNX."""

from __future__ import annotations

import math

from irconv.frontends.onnx.export_ops.elementwise import NARROW, carrier
from irconv.frontends.onnx.export_ops.writer import Writer, lowering
from irconv.graph import Node
from irconv.types import BOOL, F16, F32, I32, I64, U32, DType

FOLDS = {"sum": ("ReduceSum", 0), "prod": ("ReduceProd", 1), "mean": ("ReduceMean", 0)}
"""ONNX's operator, and what the reduction of nothing is."""


def _accumulator(dtype: DType) -> DType:
    if dtype is F16:
        return F32
    return I64 if dtype is BOOL else carrier(dtype)


@lowering(*FOLDS)
def _fold(w: Writer, node: Node, x: str) -> str:
    kind, nothing = FOLDS[node.op.name]
    source = w.graph[node.operands[0]].type
    if source.size == 0:
        return w.filled(node.type, nothing)
    wide = _accumulator(source.dtype)
    x = w.carried(x, source.dtype, wide)
    axes = node.attributes.axes
    result = w.reduce(kind, x, axes, node.attributes.keepdims) if axes else x
    return w.back(result, node.type.dtype, wide)


EXTREMA = {"max": "ReduceMax", "min": "ReduceMin"}


def comparable(dtype: DType) -> DType:
    """The type that numbers of ``dtype`` are compared in, where runtimes lack their own."""
    if dtype in (*NARROW, BOOL):
        return I32
    return I64 if dtype is U32 else dtype


@lowering(*EXTREMA)
def _extremum(w: Writer, node: Node, x: str) -> str:
    dtype, axes = node.type.dtype, node.attributes.axes
    if not axes:
        return x
    wide = comparable(dtype)
    result = w.reduce(EXTREMA[node.op.name], w.carried(x, dtype, wide), axes=axes, keepdims=node.attributes.keepdims)
    return w.back(result, dtype, wide)


POSITIONS = {"argmax": "ArgMax", "argmin": "ArgMin"}


@lowering(*POSITIONS)
def _position(w: Writer, node: Node, x: str) -> str:
    source, axes = w.graph[node.operands[0]].type, node.attributes.axes
    wide = comparable(source.dtype)
    x = w.carried(x, source.dtype, wide)
    kind, shape = POSITIONS[node.op.name], source.shape
    if len(axes) == 1:
        return w.op(kind, x, axis=axes[0], keepdims=int(node.attributes.keepdims))
    # the folded axes behind the others, as one
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    rows = [math.prod(shape[axis] for axis in part) for part in (kept, axes)]
    moved = w.reshape(w.transpose(x, [*kept, *axes]), rows)
    return w.reshape(w.op(kind, moved, axis=1, keepdims=0), node.type.shape)


@lowering("cumsum")
def _cumsum(w: Writer, node: Node, x: str) -> str:
    a, dtype = node.attributes, node.type.dtype
    wide = _accumulator(dtype)
    x = w.carried(x, dtype, wide)
    total = w.op("CumSum", x, w.constant(a.axis, I64), exclusive=int(a.exclusive), reverse=int(a.reverse))
    return w.back(total, dtype, wide)


@lowering("top_k")
def _top_k(w: Writer, node: Node, x: str) -> str:
    a, dtype = node.attributes, w.graph[node.operands[0]].type.dtype
    x = w.carried(x, dtype, comparable(dtype))
    return w.ops("TopK", x, w.ints([a.k]), axis=a.axis, largest=int(a.largest), sorted=1, outputs=2)[1]
