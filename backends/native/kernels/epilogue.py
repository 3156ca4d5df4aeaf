"""Elementwise work on the result of a contraction while it is in registers: bias, scale, activation, residual.

Vectors run along the columns (output channels).  An operand is read where the result is written: at the same pixel and column,
or repeated along the axes where it has one element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from irconv.backends.codegen.access import as_stored, broadcast_strides, vector_load, vector_store
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.expressions import can_evaluate, evaluate, values_read
from irconv.backends.codegen.form import Expression, Operand, Pointer
from irconv.backends.native.base import NativeRequest
from irconv.backends.native.kernels.contraction import Contraction, linear
from irconv.backends.native.kernels.statistics import statistics_of
from irconv.backends.native.kernels.strips import Addition, Strips
from irconv.backends.native.kernels.sums import sums_of
from irconv.cost import LIGHT
from irconv.graph import Graph
from irconv.kernel import Kernel
from irconv.op import Fusion
from irconv.types import DType

MOST_BEHIND = 24
"""Values behind a parameter that are looked at: a normalisation's scale is made of six."""

LIGHT_OPS = 8
"""So many light ops may stand once for each accumulator."""


@dataclass(frozen=True)
class Epilogue:
    """What follows a contraction.

    nodes:    ids of its elementwise ops, in topological order; none for a contraction by itself.
    product:  id of the contraction; ``result``: of what is written.
    pointers: the buffers of values from outside, by id.
    strides:  of those values and of the result, by the axes of the result.
    statistics: what else is made of the result, if anything.
    """

    request: NativeRequest
    nodes: tuple[int, ...]
    product: int
    result: int
    pointers: dict[int, Pointer]
    strides: Mapping[int, tuple[int, ...]]
    statistics: Strips | None = None

    @property
    def further(self) -> Addition:
        """Names of what the kernel has for its statistics."""
        return Addition() if self.statistics is None else self.statistics.names()

    def addition(self, parts: int, buffers: Sequence[tuple[str, DType, bool]], sizes: Sequence[str]) -> Addition:
        """What the kernel has for its statistics, where its tasks make so many parts."""
        return Addition() if self.statistics is None else self.statistics.addition(parts, buffers, sizes)

    @property
    def is_light(self) -> bool:
        """Whether its code may be repeated."""
        graph = self.request.graph
        return len(self.nodes) <= LIGHT_OPS and all(graph[i].op.name in LIGHT for i in self.nodes)

    def pixel_strides(self, c: Contraction) -> dict[int, int] | None:
        """For each value its stride over all pixels counted through; None if one has no such stride."""
        found = {}
        for i, strides in self.strides.items():
            step = linear([axis.outputs for axis in c.axes], [strides[axis] for axis in c.out_axes])
            if step is None:
                return None
            found[i] = step
        return found

    def apply(
        self, body: Body, value: Expression, index: Sequence[Operand], axis: int, count: Operand | None, out: Pointer
    ) -> None:
        """Go on with a vector of the product at a logical index of the result along ``axis``, and write what comes of it."""
        self.write(body, value, {i: tuple(s) for i, s in self.strides.items()}, index, axis, count, out)

    def write(
        self,
        body: Body,
        value: Expression,
        strides: Mapping[int, tuple[int, ...]],
        index: Sequence[Operand],
        axis: int,
        count: Operand | None,
        out: Pointer,
    ) -> None:
        """The same with the strides of each value by the entries of ``index``."""
        stored = as_stored(self.value(body, value, strides, index, axis, count), out.dtype)
        vector_store(body, out, strides[self.result], index, axis, stored, count)

    def value(
        self,
        body: Body,
        value: Expression,
        strides: Mapping[int, tuple[int, ...]],
        index: Sequence[Operand],
        axis: int,
        count: Operand | None,
    ) -> Expression:
        """What comes of a vector of the product (a mask, where that is truth values)."""
        lanes = value.type.lanes
        known = {self.product: value}
        if self.nodes:
            evaluate(
                body,
                self.request.graph,
                self.nodes,
                known,
                lambda i: vector_load(self.pointers[i], strides[i], index, axis, lanes, count),
                lanes,
            )
        return known[self.result]


def make_epilogue(request: NativeRequest, product: int, pointers: dict[int, Pointer], lanes: int) -> Epilogue | None:
    """The epilogue of the contraction ``product`` in the kernel, or None where there is no code for it."""
    graph, kernel = request.graph, request.kernel
    ahead = {product, *nodes_ahead(graph, kernel, product)}
    nodes = tuple(i for i in kernel.nodes if i not in ahead)
    statistics = statistics_of(request, lanes) or sums_of(request, pointers, lanes)
    if statistics is not None:
        nodes = tuple(i for i in nodes if i not in statistics.nodes)
    elif len(kernel.outputs) != 1:
        return None
    if not can_evaluate(graph, nodes, lanes):
        return None
    result = kernel.outputs[0]
    shape = graph[product].type.shape
    if graph[result].type.shape != shape:
        return None
    strides = {result: tuple(request.strides[result])}
    for i in values_read(graph, nodes):
        if i != product:
            strides[i] = operand_strides(request, i, shape)
    return Epilogue(request, nodes, product, result, pointers, strides, statistics)


def nodes_ahead(graph: Graph, kernel: Kernel, product: int) -> tuple[int, ...]:
    """The kernel's ops that the contraction's operands are made by, in topological order."""
    found: set[int] = set()
    waiting = list(graph[product].operands)
    while waiting:
        i = waiting.pop()
        if i in kernel.nodes and i not in found:
            found.add(i)
            waiting += graph[i].operands
    return tuple(i for i in kernel.nodes if i in found)


def operand_strides(request: NativeRequest, i: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides over a value of ``shape`` of one from outside that goes into it.

    A batch of one must not give other code than any other: what is repeated along some axis, or is a parameter, does not move
    along axes where it has one element.
    """
    graph = request.graph
    own = graph[i].type.shape
    strides = broadcast_strides(own, request.strides[i], shape)
    if own == shape and not _is_parameter(graph, i):
        return strides
    added = len(shape) - len(own)
    return tuple(0 if axis >= added and own[axis - added] == 1 else s for axis, s in enumerate(strides))


def _is_parameter(graph: Graph, i: int) -> bool:
    """Whether a value is a constant or a state, or a few ops make it from such: no batch is in it."""
    seen, waiting = {i}, [i]
    while waiting:
        node = graph[waiting.pop()]
        if node.is_leaf and not (node.id in graph.states or node.op.name == "constant"):
            return False
        if len(node.operands) > 1 and node.op.fusion is not Fusion.ELEMENTWISE:
            return False
        fresh = set(node.operands) - seen
        seen |= fresh
        waiting += fresh
        if len(seen) > MOST_BEHIND:
            return False
    return True
