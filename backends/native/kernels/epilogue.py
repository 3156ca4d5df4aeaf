"""Elementwise work on the result of a contraction while it is in registers: bias, scale, activation, residual.

Vectors run along the columns (output channels).  An operand is read where the result is written: at the same pixel and column,
or repeated along the axes where it has one element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from irconv.backends.codegen.access import as_stored, broadcast_strides, vector_load, vector_store
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.expressions import can_evaluate, evaluate, values_read
from irconv.backends.codegen.form import Expression, Operand, Pointer
from irconv.backends.native.base import NativeRequest
from irconv.backends.native.kernels.contraction import Contraction, linear
from irconv.graph import Graph

LIGHT = frozenset(
    {
        *("add", "subtract", "multiply", "negative", "square", "abs", "copy", "stop_gradient", "attach_gradient"),
        *("relu", "relu6", "leaky_relu", "maximum", "minimum", "clip", "where"),
        *("greater", "greater_equal", "less", "less_equal"),
    }
)
"""Ops of a few instructions: their code may stand once for each accumulator."""

LIGHT_OPS = 8
"""How many of them."""


@dataclass(frozen=True)
class Epilogue:
    """What follows a contraction.

    nodes:    ids of its elementwise ops, in topological order; none for a contraction by itself.
    product:  id of the contraction; ``result``: of what is written.
    pointers: the buffers of values from outside, by id.
    strides:  of those values and of the result, by the axes of the result.
    """

    request: NativeRequest
    nodes: tuple[int, ...]
    product: int
    result: int
    pointers: dict[int, Pointer]
    strides: dict[int, tuple[int, ...]]

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
        strides: dict[int, tuple[int, ...]],
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
        strides: dict[int, tuple[int, ...]],
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
    nodes = tuple(i for i in kernel.nodes if i != product)
    if len(kernel.outputs) != 1 or not can_evaluate(graph, nodes, lanes):
        return None
    result = kernel.outputs[0]
    shape = graph[product].type.shape
    if graph[result].type.shape != shape:
        return None
    strides = {result: tuple(request.strides[result])}
    for i in values_read(graph, nodes):
        if i != product:
            strides[i] = _strides(request, i, shape)
    return Epilogue(request, nodes, product, result, pointers, strides)


def _strides(request: NativeRequest, i: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides over the result of a value from outside.

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
    """Whether a value is a constant or a state, or that in another shape: no batch is in it."""
    while not graph[i].is_leaf and len(graph[i].operands) == 1:
        i = graph[i].operands[0]
    return i in graph.states or graph[i].op.name == "constant"
