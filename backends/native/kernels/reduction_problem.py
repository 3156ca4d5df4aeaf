"""What a reducing kernel is asked for, in the terms of its code: streams over one index space, elementwise work, folds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from irconv.backends.codegen.expressions import can_evaluate, values_read
from irconv.backends.codegen.form import Pointer
from irconv.backends.native.base import NativeRequest
from irconv.backends.native.kernels.reduction_folds import REDUCTIONS, Fold, fold_of
from irconv.backends.native.kernels.reduction_space import (
    Space,
    full_strides,
    merged_axes,
    result_strides,
    space_of,
)
from irconv.batches import has_no_batch
from irconv.graph import Graph, Node
from irconv.types import F32, F64, TensorType


@dataclass(frozen=True)
class Stream:
    """A value that the kernel walks over: an input, a stored elementwise value, or a result of a reduction.

    at: its position among the space's streams.
    """

    id: int
    at: int
    pointer: Pointer


@dataclass(frozen=True)
class Problem:
    """A kernel as code sees it.

    nodes:   ids of the elementwise nodes, in topological order; reductions: the reducing nodes, with the fold of each.
    inputs:  what is read, by id.
    stored:  elementwise values that are outputs;  results: reductions that are outputs.
    """

    graph: Graph
    space: Space
    nodes: tuple[int, ...]
    reductions: tuple[Node, ...]
    folds: tuple[Fold, ...]
    inputs: dict[int, Stream]
    stored: dict[int, Stream]
    results: dict[int, Stream]
    names: tuple[str, ...]

    def lanes(self, lanes_of: Sequence[tuple[int, int]]) -> int:
        """How many elements vectors may hold, 1 where only scalars are right; ``lanes_of``: the machine's by element size."""
        dtypes = {fold.source for fold in self.folds}
        if len(dtypes) != 1 or not dtypes <= {F32, F64} or any(fold.dtype is not fold.source for fold in self.folds):
            return 1
        lanes = dict(lanes_of)[next(iter(dtypes)).bytes]
        strides = self.space.vectors.strides
        if any(strides[stream.at] not in (0, 1) for stream in self.inputs.values()):
            return 1
        if any(strides[stream.at] != 1 for stream in self.stored.values()):
            return 1
        return lanes if not self.nodes or can_evaluate(self.graph, self.nodes, lanes) else 1


def problem_of(request: NativeRequest, nodes: Sequence[int]) -> Problem | None:
    """The problem of these nodes of a kernel: elementwise ones of one shape, and reductions over the same axes.

    None where there is no code for it: ops without a rule, other shapes in between, an odd pair of axes.
    """
    graph, kernel = request.graph, request.kernel
    reductions = tuple(graph[i] for i in nodes if graph[i].op.name in REDUCTIONS)
    elementwise = tuple(i for i in nodes if graph[i].op.name not in REDUCTIONS)
    if not reductions:
        return None
    shape, axes = graph[reductions[0].operands[0]].type.shape, reductions[0].attributes.axes
    alike = all(graph[r.operands[0]].type.shape == shape and r.attributes.axes == axes for r in reductions)
    if not alike or any(graph[i].type.shape != shape for i in elementwise):
        return None
    if elementwise and not can_evaluate(graph, elementwise, 1):
        return None
    members = set(nodes)
    direct = (r.operands[0] for r in reductions if r.operands[0] not in members)
    reads = tuple(dict.fromkeys((*values_read(graph, elementwise), *direct)))
    strides, names = [], []
    for i in reads:
        batched = not has_no_batch(graph, graph[i])
        strides.append(full_strides(graph[i].type.shape, request.strides[i], shape, batched))
        names.append(f"in{kernel.inputs.index(i)}")
    outputs = [i for i in kernel.outputs if i in members]
    for i in outputs:
        node = graph[i]
        own = request.strides[i]
        folded = node in reductions
        strides.append(result_strides(own, axes, len(shape), node.attributes.keepdims) if folded else own)
        names.append(f"out{kernel.outputs.index(i)}")
    main = main_strides(shape, strides)
    space = space_of(merged_axes(shape, axes, strides, main), len(strides))
    streams = {
        i: Stream(i, at, Pointer(name, graph[i].type.dtype))
        for at, (i, name) in enumerate(zip((*reads, *outputs), names, strict=True))
    }
    return Problem(
        graph,
        space,
        elementwise,
        reductions,
        tuple(fold_of(graph, r) for r in reductions),
        {i: streams[i] for i in reads},
        {i: streams[i] for i in outputs if i in elementwise},
        {i: streams[i] for i in outputs if i not in elementwise},
        tuple(names),
    )


def main_strides(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> Sequence[int]:
    """The strides by which axes are ordered: of the first stream that is repeated along the fewest axes."""

    def repeated(own: Sequence[int]) -> int:
        return math.prod(n for n, s in zip(shape, own, strict=True) if s == 0)

    return min(strides, key=repeated, default=(0,) * len(shape))


def buffers(request: NativeRequest, scratch: Sequence[TensorType], written: bool) -> list[tuple[str, TensorType, bool]]:
    """Names and types of a kernel's buffers, in order; ``written``: of the temporaries."""
    graph, kernel = request.graph, request.kernel
    found = [(f"out{at}", graph[i].type, True) for at, i in enumerate(kernel.outputs)]
    found += [(f"in{at}", graph[i].type, False) for at, i in enumerate(kernel.inputs)]
    return found + [(f"part{at}", type_, written) for at, type_ in enumerate(scratch)]
