"""Writing updates into a copy of a tensor, at indices along one axis that are known when the kernel runs.

All values are seen as three axes, (outer, the indexed one, inner), row-major, as in
:mod:`irconv.backends.native.kernels.indexing`, which also says how indices are checked.  Rows of the outer axis are the tasks: of
several updates for one place the later meets what the earlier left.
"""

from __future__ import annotations

import math
from typing import Any

from irconv.backends.codegen.body import FIRST, LAST, Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import Expression, Pointer, call, load
from irconv.backends.codegen.rules import wrapping
from irconv.backends.native.base import Check, NativeKernel, NativeRequest, Phase, native, native_kernel
from irconv.backends.native.kernels.element_loops import Sizes
from irconv.backends.native.kernels.indexing import CHECK, TASK_ELEMENTS, Buffer, check_function, place_at
from irconv.backends.native.kernels.movement import stored_dtype
from irconv.backends.native.kernels.reduction_folds import Fold
from irconv.ops.index import wrapped_indices
from irconv.strides import is_contiguous
from irconv.types import F16, F32, DType, TensorType

WORK = "scatter"


@native("scatter")
def _scatter(request: NativeRequest) -> NativeKernel | None:
    """None for values that are not row-major, and for float16 that is computed with, in float32."""
    graph = request.graph
    node = graph[request.kernel.nodes[0]]
    reduction, axis = node.attributes.reduction, node.attributes.axis
    if not all(is_contiguous(graph[i].type.shape, request.strides[i]) for i in (node.id, *node.operands)):
        return None
    x, indices, _ = (graph[i].type for i in node.operands)
    if reduction != "set" and x.dtype is F16:
        return None
    dtype = stored_dtype(x.dtype) if reduction == "set" else x.dtype
    outer, size, picks = math.prod(x.shape[:axis]), x.shape[axis], indices.shape[axis]
    inner = math.prod(x.shape[axis + 1 :])
    rows = max(1, TASK_ELEMENTS // max(1, inner * (size + picks)))
    rows = max(1, outer) if outer <= 2 * rows else rows
    sizes = Sizes()
    numbers = {"outer": outer, "size": size, "picks": picks, "inner": inner, "rows": rows, "count": indices.size}
    named = {name: sizes.add(name, value) for name, value in numbers.items()}

    def buffers(written: str) -> list[Buffer]:
        types = {"out": dtype, "x": dtype, "indices": indices.dtype, "updates": dtype, "status": F32}
        return [(name, type_, name == written) for name, type_ in types.items()]

    work = _work(reduction, dtype, indices.dtype, named).function(WORK, buffers("out"), sizes.names)
    functions = [check_function(buffers("status"), indices.dtype, sizes, named), work]

    def refuse(out: Any, x: Any, where: Any, *rest: Any) -> None:
        wrapped_indices(where, size, axis)

    return native_kernel(
        print_c(functions),
        (Phase(CHECK, 1), Phase(WORK, max(1, -(-outer // rows)))),
        tuple(sizes.values),
        scratch=(TensorType(F32, (1,)),),
        check=Check(0, 0, refuse),
    )


def _work(reduction: str, dtype: DType, indices: DType, named: dict[str, Expression]) -> Body:
    """Rows copied, then updated in the order of the indices."""
    body = Body()
    size, picks, inner = (named[name] for name in ("size", "picks", "inner"))
    end = body.let("end", call("smaller", LAST * named["rows"], named["outer"]))
    with body.loop("row", FIRST * named["rows"], end) as row:
        whole = body.pointer("whole", Pointer("out", dtype), row * size * inner)
        source = body.pointer("source", Pointer("x", dtype), row * size * inner)
        with body.loop("i", 0, size * inner) as i:
            body.store(whole, i, load(source, i))
        with body.loop("pick", 0, picks) as pick, body.loop("i", 0, inner) as i:
            at = body.let("at", (row * picks + pick) * inner + i)
            place = body.let("target", place_at(body, indices, at, size) * inner + i)
            update = body.let("update", load(Pointer("updates", dtype), at))
            if reduction != "set":
                update = _met(reduction, dtype, body.let("old", load(whole, place)), update)
            body.store(whole, place, update)
    return body


def _met(reduction: str, dtype: DType, old: Expression, update: Expression) -> Expression:
    """What is there after an update."""
    if reduction in ("max", "min"):
        return Fold(reduction, dtype, dtype).merge(old, update)
    sign = "+" if reduction == "add" else "*"
    if not dtype.is_float:
        return wrapping(sign, old, update)
    return old + update if reduction == "add" else old * update
