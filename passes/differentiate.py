"""Reverse-mode differentiation: graph in, joint graph (forward and backward) out.

Walks the nodes that lie between the wanted leaves and the output, last first.  Each node hands its adjoint (the gradient
of the scalar by its value) to its gradient rule, which emits ordinary ops; contributions to one value are added.  The
adjoint of ``%v`` is named ``%d_v``, a step on the way to it ``%d_v.op``, and their provenance says of which node's rule they
are the backward.  Nothing is emitted for values that no wanted leaf feeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from irconv.batches import has_no_batch
from irconv.builder import Builder, GraphValue
from irconv.errors import GradientError, IrconvError
from irconv.graph import Graph, Node
from irconv.op import NoGradient, Site, Value
from irconv.ops.elementwise import add
from irconv.ops.reduce import sum_to_shape
from irconv.ops.shape import broadcast


def differentiate(
    graph: Graph, output: int, wanted: Sequence[int], seed: int | None = None
) -> dict[int, int]:
    """Append to ``graph`` (in place) the gradients of ``output`` by each of the ``wanted`` ids, and return their ids.

    ``seed`` is the id of the gradient to start from, of the output's type; without one the output must be a scalar of a
    float type and starts from 1.  A value that the output does not depend on gets a gradient of zeros.
    Raises GradientError when the output is not differentiable.
    """
    return _Reverse(graph, output, wanted).run(seed)


class _Reverse:
    """One run of reverse mode: the adjoints found so far."""

    def __init__(self, graph: Graph, output: int, wanted: Sequence[int]):
        self.graph = graph
        self.output = graph[output]
        self.wanted = [graph[i] for i in wanted]
        self.builder = Builder(graph)
        self.adjoints: dict[int, GraphValue] = {}
        self.own: set[int] = set()  # adjoints that bear the name of their value
        self.steps: set[int] = set()  # nodes emitted here that bear the name of what they are a step to

    def run(self, seed: int | None) -> dict[int, int]:
        graph = self.graph
        for leaf in self.wanted:
            if not leaf.type.dtype.is_float:
                raise GradientError(
                    f"%{leaf.name} has element type {leaf.type.dtype}; only floating-point values have gradients",
                    location=leaf.provenance.location,
                )
        active = self._active()
        order = [i for i in graph.order() if i in active]
        self.first_own = graph._next_id
        self.adjoints[self.output.id] = self._seed(seed)
        for node_id in reversed(order):
            if node_id in self.adjoints:
                node = graph[node_id]
                self._name(node)
                if not node.is_leaf:
                    self._propagate(node, active)
        return {leaf.id: self._result(leaf).id for leaf in self.wanted}

    def _active(self) -> set[int]:
        """Values between a wanted leaf and the output: the only ones whose adjoints are needed."""
        graph = self.graph
        upstream = graph.ancestors([self.output.id])
        reached = {leaf.id for leaf in self.wanted}
        for node_id in graph.order():
            node = graph[node_id]
            if isinstance(node.op.gradient, NoGradient) or not node.type.dtype.is_float:
                continue
            if any(i in reached for i in node.operands):
                reached.add(node_id)
        return reached & upstream

    def _seed(self, seed: int | None) -> GraphValue:
        output = self.output
        if seed is not None:
            given = self.graph[seed]
            if given.type.logical != output.type.logical:
                raise GradientError(
                    f"the gradient of %{output.name} must have its type {output.type}, got {given.type}",
                    location=output.provenance.location,
                )
            return self.builder.value(seed)
        if output.type.size != 1 or not output.type.dtype.is_float:
            raise GradientError(
                f"%{output.name} is {output.type}; only a floating-point scalar can be differentiated without a gradient",
                location=output.provenance.location,
                hint="reduce it to a scalar (sum or mean), or pass the gradient to start from",
            )
        with self.builder.at(replace(output.provenance, origin=output.name), f"d_{output.name}"):
            return self._filled(output, 1)

    def _propagate(self, node: Node, active: set[int]) -> None:
        gradient = node.op.gradient
        if isinstance(gradient, NoGradient):
            return
        wanted = tuple(i in active for i in node.operands)
        site = Site(
            node.attributes,
            tuple(self.builder.value(i) for i in node.operands),
            self.builder.value(node.id),
            wanted,
        )
        place = replace(node.provenance, origin=node.name)
        first = self.graph._next_id
        with self.builder.at(place):
            try:
                parts = gradient(site, self.adjoints[node.id])
            except IrconvError as error:
                raise error.at(location=node.provenance.location) from None
            for operand, part, want in zip(node.operands, parts, wanted, strict=True):
                if want and part is not None:
                    self._accumulate(operand, part)
                    self._name_steps(operand, first)

    def _name_steps(self, operand: int, first: int) -> None:
        """Call what was emitted, from the node ``first`` on, for the adjoint of ``%v`` ``%d_v.op``."""
        stack = [self.adjoints[operand].id]
        found = []
        while stack:
            step = self.graph[stack.pop()]
            if step.id >= first and step.id not in self.steps:
                self.steps.add(step.id)
                found.append(step)
                stack.extend(step.operands)
        for step in sorted(found, key=lambda step: step.id):
            self.graph.rename(step.id, f"d_{self.graph[operand].name}.{step.op.name}")

    def _accumulate(self, operand: int, part: Value) -> None:
        # a rule may leave the gradient of a broadcast operand in the result's shape
        lead = 1 if has_no_batch(self.graph, self.graph[operand]) else 0  # as in any other batch
        part = sum_to_shape(part, self.graph[operand].type.shape, lead)
        before = self.adjoints.get(operand)
        total = part if before is None else add(before, part)
        assert isinstance(total, GraphValue)
        if total.type.logical != self.graph[operand].type.logical:
            raise GradientError(
                f"the gradient rule made a {total.type} for %{self.graph[operand].name} of type {self.graph[operand].type}"
            )
        self.adjoints[operand] = total

    def _name(self, node: Node) -> None:
        """Call the complete adjoint of ``%v`` ``%d_v``, unless it is already the adjoint of another value."""
        adjoint = self.graph[self.adjoints[node.id].id]
        if adjoint.id >= self.first_own and adjoint.id not in self.own and not adjoint.is_leaf:
            self.own.add(adjoint.id)
            self.graph.rename(adjoint.id, f"d_{node.name}")

    def _result(self, leaf: Node) -> GraphValue:
        found = self.adjoints.get(leaf.id)
        if found is not None:
            return found
        with self.builder.at(replace(leaf.provenance, origin=leaf.name), f"d_{leaf.name}"):
            return self._filled(leaf, 0)

    def _filled(self, like: Node, number: int) -> GraphValue:
        """The adjoint of ``like`` where it is one number everywhere."""
        scalar = self.builder.constant(np.full((), number, like.type.dtype.numpy))
        if like.type.rank == 0:
            self.graph.rename(scalar.id, f"d_{like.name}")
        return self.builder.adopt(broadcast(scalar, like.type.shape))
