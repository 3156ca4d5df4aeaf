"""Indexing by a tensor in ONNX.  Its indices may be negative, as ours may."""

from __future__ import annotations

import math

from irconv.frontends.onnx.export_ops.writer import Writer, lowering
from irconv.graph import Node
from irconv.types import BOOL, F16, F32, I32, I64, TensorType


def _indices(w: Writer, node: Node, name: str) -> str:
    """The indices, operand 1, in a type that ONNX takes."""
    dtype = w.graph[node.operands[1]].type.dtype
    return name if dtype in (I32, I64) else w.cast(name, I64)


@lowering("take")
def _take(w: Writer, node: Node, x: str, indices: str) -> str:
    return w.op("Gather", x, _indices(w, node, indices), axis=node.attributes.axis)


@lowering("gather")
def _gather(w: Writer, node: Node, x: str, indices: str) -> str:
    return w.op("GatherElements", x, _indices(w, node, indices), axis=node.attributes.axis)


def add_at(w: Writer, result: TensorType, d: str, indices: str, axis: int) -> str:
    """Zeros with each element of d, of the result's element type, added at its index along an axis."""
    dtype = result.dtype
    wide = F32 if dtype is F16 else dtype
    d = w.carried(d, dtype, wide)
    zeros = w.filled(TensorType(wide, result.shape), 0)
    return w.back(w.op("ScatterElements", zeros, indices, d, axis=axis, reduction="add"), dtype, wide)


@lowering("scatter_add")
def _scatter_add(w: Writer, node: Node, updates: str, indices: str) -> str:
    if w.graph[node.operands[0]].type.size == 0:
        return w.filled(node.type, 0)
    return add_at(w, node.type, updates, _indices(w, node, indices), node.attributes.axis)


@lowering("take_adjoint")
def _take_adjoint(w: Writer, node: Node, d: str, indices: str) -> str:
    axis, shape = node.attributes.axis, node.type.shape
    count = w.graph[node.operands[1]].type.size
    if w.graph[node.operands[0]].type.size == 0:
        return w.filled(node.type, 0)
    # as [outer, indexed, inner], where one index serves a whole row
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    flat = (outer, count, inner)
    column = w.expand(w.reshape(_indices(w, node, indices), (1, count, 1)), flat)
    rows = TensorType(node.type.dtype, (outer, shape[axis], inner))
    return w.reshape(add_at(w, rows, w.reshape(d, flat), column, 1), shape)


REDUCTIONS = {"set": "none", "add": "add", "mul": "mul", "max": "max", "min": "min"}


@lowering("scatter")
def _scatter(w: Writer, node: Node, x: str, indices: str, updates: str) -> str:
    a, dtype = node.attributes, node.type.dtype
    if w.graph[node.operands[1]].type.size == 0:
        return x
    wide = F32 if dtype is F16 and a.reduction in ("add", "mul") else dtype
    if dtype is BOOL and a.reduction != "set":
        wide = I32
    x, updates = w.carried(x, dtype, wide), w.carried(updates, dtype, wide)
    indices = _indices(w, node, indices)
    return w.back(
        w.op("ScatterElements", x, indices, updates, axis=a.axis, reduction=REDUCTIONS[a.reduction]), dtype, wide
    )
