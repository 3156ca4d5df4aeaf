"""The operand of a pool that is computed while it is read, from one value of its size and from numbers per channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.expressions import can_evaluate, evaluate, values_read
from irconv.backends.codegen.form import Expression, literal
from irconv.backends.native.base import NativeRequest
from irconv.backends.native.kernels.epilogue import operand_strides
from irconv.backends.native.kernels.places import Place
from irconv.graph import Graph


@dataclass(frozen=True)
class ComputedPlace(Place):
    """A place whose elements go through elementwise ops as they are read.

    nodes:  ids of the ops, in topological order;  ``source``: of the value that lies at the place.
    beside: the other values they read, which differ along the channels at the most.
    body:   where the ops are written.
    """

    body: Body
    graph: Graph
    nodes: tuple[int, ...]
    source: int
    beside: Mapping[int, Place]

    def load(self, offset: Expression, channel: Expression, lanes: int, count: int | None) -> Expression:
        known = {self.source: self.body.let("value", super().load(offset, channel, lanes, count))}

        def fetch(i: int) -> Expression:
            return self.beside[i].load(literal(0), channel, lanes, count)

        evaluate(self.body, self.graph, self.nodes, known, fetch, lanes)
        return known[self.nodes[-1]]


def computed_place(
    request: NativeRequest, body: Body, nodes: Sequence[int], places: Mapping[int, Place], lanes: int
) -> ComputedPlace | None:
    """The place of the value that ``nodes`` make, given those of the kernel's inputs by id; None where there is no code for it.

    One of the inputs has its size.  Others may differ along the channels if the work is by vectors of those (``lanes`` > 1).
    """
    graph = request.graph
    shape = graph[nodes[-1]].type.shape
    strides = {i: operand_strides(request, i, shape) for i in values_read(graph, nodes)}
    large = [i for i, s in strides.items() if any(step and axis != 1 for axis, step in enumerate(s))]
    if len(large) != 1 or not can_evaluate(graph, nodes, lanes):
        return None
    (source,) = large
    beside = {i: Place(places[i].pointer, s) for i, s in strides.items() if i != source}
    if lanes == 1 and any(any(place.strides) for place in beside.values()):
        return None
    return ComputedPlace(places[source].pointer, strides[source], body, graph, tuple(nodes), source, beside)
