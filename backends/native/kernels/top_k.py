"""The places of the largest or smallest elements along an axis: merge sort of indices, as much of it as shows in the result.

Runs of 1, 2, 4, ... neighbours are merged in pairs; of each run only its k best are kept, so that n elements take about n log k
steps.  The left of two equal elements is taken first, which keeps their order, and NaN is larger than every number.  All values
are seen as three axes, (outer, the sorted one, inner), row-major; a result's indices lie in temporaries of its thread.
"""

from __future__ import annotations

import math

from irconv.backends.codegen.body import WORKER, Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import (
    Expression,
    Pointer,
    both,
    compare,
    convert,
    literal,
    load,
    select,
)
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, native, native_kernel
from irconv.backends.native.kernels.element_loops import Sizes
from irconv.backends.native.kernels.reduction_space import least
from irconv.strides import is_contiguous
from irconv.types import BOOL, F16, F32, I64, U8, DType, TensorType

FUNCTION = "top_k"
TASK_STEPS = 16 * 1024
"""Comparisons of a task, about."""

PLACES = Pointer("places", I64)
"""Two lists of indices for each thread."""


@native("top_k")
def _top_k(request: NativeRequest) -> NativeKernel | None:
    """None for values that are not row-major."""
    graph = request.graph
    node = graph[request.kernel.nodes[0]]
    x, a = graph[node.operands[0]].type, node.attributes
    if not all(is_contiguous(graph[i].type.shape, request.strides[i]) for i in (node.id, *node.operands)):
        return None
    outer, size, inner = math.prod(x.shape[: a.axis]), x.shape[a.axis], math.prod(x.shape[a.axis + 1 :])
    levels = max(0, size - 1).bit_length()
    per_task = max(1, TASK_STEPS // max(1, size * max(1, levels)))
    sizes = Sizes()
    numbers = {"rows": outer * inner, "per_task": per_task, "size": size, "inner": inner, "kept": a.k, "levels": levels}
    named = {name: sizes.add(name, value) for name, value in numbers.items()}
    dtype = U8 if x.dtype is BOOL else x.dtype
    buffers = [("out", I64, True), ("x", dtype, False), ("places", I64, True)]
    function = _body(dtype, a.largest, named).function(FUNCTION, buffers, sizes.names)
    phase = Phase(FUNCTION, -(-outer * inner // per_task))
    return native_kernel(print_c([function]), (phase,), tuple(sizes.values), (TensorType(I64, (request.threads, 2, size)),))


def _body(dtype: DType, largest: bool, named: dict[str, Expression]) -> Body:
    """Row after row: indices in order, merged level by level between the two lists, and the first of them stored."""
    body = Body()
    size, inner, kept, levels = (named[name] for name in ("size", "inner", "kept", "levels"))
    lists = body.pointer("lists", PLACES, WORKER * 2 * size)
    with body.tasks() as task:
        first = body.let("first_row", task * named["per_task"])
        with body.loop("row", first, least(body, "last_row", first + named["per_task"], named["rows"])) as row:
            outer, column = body.let("outer", row // inner), body.let("column", row % inner)
            source = body.pointer("source", Pointer("x", dtype), outer * size * inner + column)
            with body.loop("i", 0, size) as i:
                body.store(lists, i, i)
            with body.loop("level", 0, levels) as level:
                width = body.let("width", literal(1) << level)
                given = body.pointer("given", lists, level % 2 * size)
                made = body.pointer("made", lists, (level + 1) % 2 * size)
                with body.loop("pair", 0, (size + width * 2 - 1) // (width * 2)) as pair:
                    left = body.let("left", pair * width * 2)
                    _merge(body, (source, inner, largest), (given, made), left, width, size, kept)
            result = body.pointer("result", Pointer("out", I64), outer * kept * inner + column)
            found = body.pointer("found", lists, levels % 2 * size)
            with body.loop("i", 0, kept) as i:
                body.store(result, i * inner, load(found, i))
    return body


def _merge(
    body: Body,
    row: tuple[Pointer, Expression, bool],
    lists: tuple[Pointer, Pointer],
    left: Expression,
    width: Expression,
    size: Expression,
    kept: Expression,
) -> None:
    """Two neighbouring runs of ``width`` (or what there is) as one; each begins at its first element's place in the list."""
    given, made = lists
    source, step, largest = row
    middle = least(body, "middle", left + width, size)
    end = least(body, "end", middle + width, size)
    here_end = least(body, "here_end", middle, left + kept)
    there_end = least(body, "there_end", end, middle + kept)
    here, there = body.variable("here", left), body.variable("there", middle)
    count = least(body, "count", end - left, kept)
    with body.loop("i", 0, count) as i:
        taken = body.variable("right", literal(1))
        with body.when(here < here_end):
            body.assign(taken, literal(0))
            with body.when(there < there_end):
                ours, theirs = (_element(body, source, load(given, at) * step) for at in (here, there))
                body.assign(taken, select(_is_ahead(theirs, ours, largest), literal(1), literal(0)))
        body.store(made, left + i, load(given, select(compare("==", taken, 1), there, here)))
        body.assign(here, here + (literal(1) - taken))
        body.assign(there, there + taken)


def _element(body: Body, source: Pointer, at: Expression) -> Expression:
    value = load(source, at)
    return body.let("element", convert(value, F32) if source.dtype is F16 else value)


def _is_ahead(right: Expression, left: Expression, largest: bool) -> Expression:
    """Whether the right element comes before the left one, which stands in front of it."""
    ahead = right > left if largest else right < left
    if not right.type.dtype.is_float:
        return ahead
    larger, smaller = (right, left) if largest else (left, right)
    return ahead | both(compare("!=", larger, larger), compare("==", smaller, smaller))
