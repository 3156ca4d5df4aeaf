"""Indexing along one axis by indices that are known when the kernel runs: take and gather, and the ops that add back.

All values are seen as three axes, (outer, the indexed one, inner), row-major.  Before anything is read, the first phase looks at
all indices and leaves NaN in a temporary if one is out of range; the program stops there, and the op's reference says which.
Rows of the outer axis are the tasks: what is added back to one place is added in the order of the indices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from irconv.backends.codegen.body import FIRST, LAST, Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import (
    FLOAT,
    Expression,
    Literal,
    Pointer,
    Type,
    call,
    convert,
    literal,
    load,
    select,
)
from irconv.backends.codegen.rules import wrapping
from irconv.backends.codegen.statements import Function
from irconv.backends.native.base import Check, NativeKernel, NativeRequest, Phase, native, native_kernel
from irconv.backends.native.kernels.element_loops import Sizes
from irconv.backends.native.kernels.movement import stored_dtype
from irconv.ops.index import wrapped_indices
from irconv.strides import is_contiguous
from irconv.types import F16, F32, I64, DType, TensorType

CHECK, WORK = "check_indices", "indexed"
TASK_ELEMENTS = 16 * 1024

Buffer = tuple[str, DType, bool]
"""Name, element type, and whether a phase writes it."""


@dataclass(frozen=True)
class Indexed:
    """An indexed op in three axes.

    data:    the values that are read (take, gather) or added (the others); result: what is written.
    size:    of the indexed axis; picks: how many indices there are along it for each outer row.
    by_row:  one index for a whole inner row, the same in all outer rows (take); else one for every element.
    adds:    the result is zero but for what is added.
    """

    data: DType
    indices: DType
    outer: int
    size: int
    picks: int
    inner: int
    by_row: bool
    adds: bool


@native("take", "gather", "take_adjoint", "scatter_add")
def _indexed(request: NativeRequest) -> NativeKernel | None:
    """None for values that are not row-major, and for sums of float16, which are carried in float32."""
    graph = request.graph
    node = graph[request.kernel.nodes[0]]
    ids = (node.id, *node.operands)
    if not all(is_contiguous(graph[i].type.shape, request.strides[i]) for i in ids):
        return None
    data, indices = (graph[i].type for i in node.operands)
    adds = node.op.name in ("take_adjoint", "scatter_add")
    if adds and data.dtype is F16:
        return None
    full = node.type if adds else data
    axis = node.attributes.axis
    by_row = node.op.name in ("take", "take_adjoint")
    outer, inner = math.prod(full.shape[:axis]), math.prod(full.shape[axis + 1 :])
    if not by_row:
        outer, inner = math.prod(indices.shape[:axis]), math.prod(indices.shape[axis + 1 :])
    picks = indices.size if by_row else indices.shape[axis]
    moved = data.dtype if adds else stored_dtype(data.dtype)
    op = Indexed(moved, indices.dtype, outer, full.shape[axis], picks, inner, by_row, adds)
    return _kernel(op, indices, axis)


def _kernel(op: Indexed, indices: TensorType, axis: int) -> NativeKernel:
    sizes = Sizes()
    row = op.inner * (op.size + op.picks if op.adds else op.picks)
    rows = max(1, TASK_ELEMENTS // max(1, row))
    rows = op.outer if op.outer <= 2 * rows else rows
    named = {
        name: sizes.add(name, value)
        for name, value in {
            "outer": op.outer,
            "size": op.size,
            "picks": op.picks,
            "inner": op.inner,
            "rows": max(1, rows),
            "count": indices.size,
        }.items()
    }
    functions = [check_function(_buffers(op, CHECK), op.indices, sizes, named), _work(op, sizes, named)]
    tasks = max(1, -(-op.outer // max(1, rows)))

    def refuse(out: Any, data: Any, where: Any, *scratch: Any) -> None:
        wrapped_indices(where, op.size, axis)

    return native_kernel(
        print_c(functions),
        (Phase(CHECK, 1), Phase(WORK, tasks)),
        tuple(sizes.values),
        scratch=(TensorType(F32, (1,)),),
        check=Check(0, 0, refuse),
    )


def _buffers(op: Indexed, phase: str) -> list[Buffer]:
    works = phase == WORK
    return [("out", op.data, works), ("data", op.data, False), ("indices", op.indices, False), ("status", F32, not works)]


def check_function(buffers: Sequence[Buffer], indices: DType, sizes: Sizes, named: dict[str, Expression]) -> Function:
    """A phase that leaves 0 in the temporary ``status``, NaN if one of ``count`` indices lies outside ``size``."""
    body = Body()
    outside = body.variable("outside", literal(0))
    with body.loop("i", 0, named["count"]) as i:
        index = body.let("index", _index(indices, i))
        wrong = (index < -named["size"]) | (index >= named["size"])
        body.assign(outside, outside | select(wrong, literal(1), literal(0)))
    status = select(outside > 0, Literal(math.nan, FLOAT), Literal(0.0, FLOAT))
    body.store(Pointer("status", F32), 0, status)
    return body.function(CHECK, buffers, sizes.names)


def _index(indices: DType, at: Expression) -> Expression:
    return convert(load(Pointer("indices", indices), at), I64)


def _work(op: Indexed, sizes: Sizes, named: dict[str, Expression]) -> Function:
    body = Body()
    size, picks, inner = (named[name] for name in ("size", "picks", "inner"))
    out, data = Pointer("out", op.data), Pointer("data", op.data)
    full, part = ("out", "data") if op.adds else ("data", "out")
    end = body.let("end", call("smaller", LAST * named["rows"], named["outer"]))
    with body.loop("row", FIRST * named["rows"], end) as row:
        whole = body.pointer("whole", out if full == "out" else data, row * size * inner)
        picked = body.pointer("picked", out if part == "out" else data, row * picks * inner)
        if op.adds:
            with body.loop("i", 0, size * inner) as i:
                body.store(whole, i, Literal(0, Type(op.data)))
        with body.loop("pick", 0, picks) as pick:
            if op.by_row:
                place = place_at(body, op.indices, pick, size)
                with body.loop("i", 0, inner) as i:
                    _move(body, op, whole, place * inner + i, picked, pick * inner + i)
            else:
                with body.loop("i", 0, inner) as i:
                    place = place_at(body, op.indices, (row * picks + pick) * inner + i, size)
                    _move(body, op, whole, place * inner + i, picked, pick * inner + i)
    return body.function(WORK, _buffers(op, WORK), sizes.names)


def place_at(body: Body, indices: DType, at: Expression, size: Expression) -> Expression:
    """The index at ``at``, counted from the front."""
    index = body.let("index", _index(indices, at))
    return body.let("place", select(index < 0, index + size, index))


def _move(body: Body, op: Indexed, whole: Pointer, at: Expression, picked: Pointer, pick: Expression) -> None:
    """An element taken out of the whole, or added back to it."""
    if not op.adds:
        body.store(picked, pick, load(whole, at))
        return
    old, new = load(whole, at), load(picked, pick)
    total = old + new if op.data.is_float else wrapping("+", old, new)
    body.store(whole, at, total)


