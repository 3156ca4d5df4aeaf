"""Typed construction of graphs, used by tracing, gradient rules and rewrites alike.

A :class:`Builder` appends nodes to one graph and says of each where it comes from.  The constructors in ``irconv/ops``
call :func:`irconv.op.emit`, which calls :meth:`Builder.emit`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from irconv.errors import GraphError, IrconvError
from irconv.graph import NOWHERE, Graph, Node, Provenance
from irconv.op import OPS, OpDef, Value
from irconv.types import TensorType


class GraphValue(Value):
    """A node of a graph under construction."""

    __slots__ = ("builder", "id", "type")

    builder: Builder
    id: int
    type: TensorType

    def __init__(self, builder: Builder, node: Node):
        self.builder = builder
        self.id = node.id
        self.type = node.type

    @property
    def node(self) -> Node:
        return self.builder.graph[self.id]

    def __repr__(self) -> str:
        return f"%{self.node.name}: {self.type}"


class Builder:
    """Appends nodes to ``graph`` with the current provenance and name.

    Naming: nodes emitted under one ``name`` belong together; the last of them bears the name (it is the result), the ones
    before are renamed to ``name.op``.  Without a name, a node is called after its op.
    """

    priority = 1

    def __init__(self, graph: Graph):
        self.graph = graph
        self.provenance = NOWHERE
        self.name: str | None = None
        self._named: int | None = None

    @contextmanager
    def at(self, provenance: Provenance, name: str | None = None) -> Iterator[None]:
        """Nodes emitted inside the block come from there and are named so."""
        previous = self.provenance, self.name, self._named
        self.provenance, self.name, self._named = provenance, name, None
        try:
            yield
        finally:
            self.provenance, self.name, self._named = previous

    def emit(self, op: OpDef, attributes: Any, operands: Sequence[Value]) -> GraphValue:
        """Append a node; errors of its type rule carry the user's line."""
        ids = [self.adopt(operand).id for operand in operands]
        return self.wrap(self.append(op, attributes, ids))

    def append(self, op: OpDef, attributes: Any, ids: Sequence[int]) -> Node:
        """Append a node on operand ids, named and placed as the builder stands."""
        name = self.name
        if name is not None and self._named is not None and self._named in self.graph:
            previous = self.graph[self._named]
            name = previous.name  # with its suffix, if the name was taken when the block began
            self.graph.rename(previous.id, f"{name}.{previous.op.name}")
        try:
            node = self.graph.add(op, attributes, ids, name=name, provenance=self.provenance)
        except IrconvError as error:
            raise error.at(location=self.provenance.location) from None
        if self.name is not None:
            self._named = node.id
        return node

    def constant(self, array: Any) -> GraphValue:
        """A constant node holding a copy of ``array``."""
        return self.wrap(self.constant_node(array))

    def constant_node(self, array: Any) -> Node:
        """The node behind :meth:`constant`."""
        op = OPS["constant"]
        return self.graph.add(op, op.attributes(np.array(array)), provenance=self.provenance)

    def input(self, name: str, type_: TensorType) -> GraphValue:
        """Append an input."""
        return self.wrap(self.graph.add_input(name, type_))

    def value(self, node_id: int) -> GraphValue:
        """A handle on a node that exists."""
        return self.wrap(self.graph[node_id])

    def wrap(self, node: Node) -> GraphValue:
        return GraphValue(self, node)

    def adopt(self, value: Value) -> GraphValue:
        """A value of this graph; GraphError for one of another."""
        if isinstance(value, GraphValue) and value.builder.graph is self.graph:
            return value
        raise GraphError(f"a value of another graph was used while building {self.graph.name!r}")
