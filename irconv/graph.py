"""The op graph: typed nodes in static single assignment, held by a networkx MultiDiGraph.

A graph node is a value; an edge ``operand -> user`` has the operand slot as its key, so ``x + x`` and operand order
survive.  Only the methods of :class:`Graph` change a graph: each checks the op's type rule and keeps nodes, edges, names
and signature consistent.

The *signature* is flat: ``inputs`` (ids, in call order), ``states`` (parameters, buffers, optimiser and random state),
``outputs`` (path name -> id) and ``updates`` (state id -> id of its new value).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import networkx as nx

from irconv.errors import GraphError
from irconv.op import OPS, OpDef, describe
from irconv.places import Location
from irconv.state import Variable
from irconv.types import Layout, TensorType


@dataclass(frozen=True, slots=True)
class Composite:
    """Which layer-level function a primitive belongs to: ``batch_norm`` of instance ``bn1``."""

    kind: str
    instance: str

    def __str__(self) -> str:
        return f"{self.kind} {self.instance}"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a node comes from.  Rewrites copy it from the node they replace.

    location:  the user's line.
    scope:     path of the module whose forward made it ("layer1.0.conv1").
    composite: the layer-level function it belongs to, if any.
    origin:    for a backward node, the name of the forward node whose gradient rule made it.
    """

    location: Location | None = None
    scope: str = ""
    composite: Composite | None = None
    origin: str | None = None


NOWHERE = Provenance()


@dataclass(frozen=True, slots=True)
class Node:
    """One value: the op that computes it, its operands' ids, its type and name, and where it comes from."""

    id: int
    op: OpDef
    attributes: Any
    operands: tuple[int, ...]
    type: TensorType
    name: str
    provenance: Provenance = NOWHERE

    @property
    def is_leaf(self) -> bool:
        """Input, state or constant: a value that no kernel computes."""
        return not self.op.operands


@dataclass(slots=True, eq=False, weakref_slot=True)
class Graph:
    """A named op graph with its signature.

    ``state`` binds state names to the arrays behind them (shared by reference, not part of the text form).
    ``version`` counts changes: caches compare it.
    """

    name: str = "graph"
    inputs: list[int] = field(default_factory=list)
    states: list[int] = field(default_factory=list)
    outputs: dict[str, int] = field(default_factory=dict)
    updates: dict[int, int] = field(default_factory=dict)
    state: dict[str, Variable] = field(default_factory=dict)
    version: int = 0
    _nodes: dict[int, Node] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict)
    _edges: nx.MultiDiGraph = field(default_factory=nx.MultiDiGraph)
    _next_id: int = 0
    _next_suffix: dict[str, int] = field(default_factory=dict)
    _results: set[int] | None = None  # values of outputs and updates; None when not known
    _order: tuple[int, list[int]] | None = None
    _view: tuple[int, nx.MultiDiGraph] | None = None

    # --- reading -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, node_id: int) -> bool:
        return node_id in self._nodes

    def __getitem__(self, key: int | str) -> Node:
        """The node with this id or name; GraphError if there is none."""
        node = self._nodes.get(self._names.get(key, -1) if isinstance(key, str) else key)
        if node is None:
            raise GraphError(f"graph {self.name!r} has no node {key!r}")
        return node

    def __iter__(self) -> Iterator[Node]:
        """Nodes in a deterministic topological order that keeps program order where it can."""
        nodes = self._nodes
        return iter([nodes[i] for i in self.order()])

    def has_name(self, name: str) -> bool:
        return name in self._names

    def order(self) -> list[int]:
        """Ids, operands first; otherwise in order of creation.  O(nodes + edges), cached until the next change."""
        if self._order is None or self._order[0] != self.version:
            self._order = (self.version, _depth_first_order(self._nodes))
        return list(self._order[1])

    def operands(self, node: Node) -> tuple[Node, ...]:
        return tuple(self._nodes[i] for i in node.operands)

    def users(self, node_id: int) -> list[tuple[Node, int]]:
        """The (node, operand slot) pairs that read a value, in order of creation."""
        edges = self._edges.out_edges(self[node_id].id, keys=True)
        return [(self._nodes[user], slot) for user, slot in sorted((user, slot) for _, user, slot in edges)]

    def use_count(self, node_id: int) -> int:
        """How many operand slots read a value."""
        return int(self._edges.out_degree(self[node_id].id))

    def ids(self) -> list[int]:
        """Ids in order of creation."""
        return list(self._nodes)

    def edges(self) -> Iterator[tuple[int, int, int]]:
        """The (operand, user, slot) triples."""
        return iter(self._edges.edges(keys=True))

    def wanted(self) -> set[int]:
        """Ids that the signature mentions: inputs, states, outputs, and the values of updates."""
        return {*self.inputs, *self.states, *self.outputs.values(), *self.updates.values()}

    def ancestors(self, ids: Iterable[int]) -> set[int]:
        """The given ids and everything they are computed from."""
        seen: set[int] = set()
        stack = list(ids)
        while stack:
            current = stack.pop()
            if current not in seen:
                seen.add(current)
                stack.extend(self._nodes[current].operands)
        return seen

    @property
    def nx(self) -> nx.MultiDiGraph:
        """A frozen networkx view with scalar attributes, keyed by value name: fit for every algorithm and exporter.

        Node attributes: op, type, attributes, role (input, state, output, update, value), scope, composite, origin, location.
        Edge attributes: slot (also the edge key).
        """
        if self._view is None or self._view[0] != self.version:
            self._view = (self.version, nx.freeze(_scalar_view(self)))
        return self._view[1]

    def __str__(self) -> str:
        """The IR text (see :mod:`irconv.text`)."""
        return PRINTERS["text"](self)

    def __repr__(self) -> str:
        return f"<Graph {self.name}: {len(self.inputs)} inputs, {len(self.states)} states, {len(self)} nodes>"

    # --- changing ----------------------------------------------------------------------------------------------------

    def add(
        self,
        op: OpDef,
        attributes: Any,
        operands: Sequence[int] = (),
        *,
        name: str | None = None,
        provenance: Provenance = NOWHERE,
    ) -> Node:
        """Append a node.  Runs the op's type rule; a name that is taken gets a numeric suffix."""
        nodes = self._nodes
        for i in operands:
            if i not in nodes:
                raise GraphError(f"{op.name}: operand {i} is not a node of graph {self.name!r}")
        result = op.result_type(attributes, [nodes[i].type for i in operands])
        node_id = self._next_id
        self._next_id += 1
        unique = self._unique(name or op.name)
        node = Node(node_id, op, attributes, tuple(operands), result, unique, provenance)
        nodes[node_id] = node
        self._names[unique] = node_id
        self._edges.add_node(node_id)
        for slot, operand in enumerate(operands):
            self._edges.add_edge(operand, node_id, key=slot)
        self.version += 1
        return node

    def add_input(self, name: str, type_: TensorType) -> Node:
        """Append an input to the signature."""
        from_leaf = OPS["input"]
        node = self.add(from_leaf, from_leaf.attributes(type_), name=name)
        self.inputs.append(node.id)
        return node

    def add_state(self, name: str, type_: TensorType, role: str, variable: Variable | None = None) -> Node:
        """Append a state (role: param, frozen, buffer or state), bound to ``variable`` if one is given."""
        from_leaf = OPS["state"]
        node = self.add(from_leaf, from_leaf.attributes(type_, role), name=name)
        self.states.append(node.id)
        if variable is not None:
            self.state[node.name] = variable
        return node

    def set_output(self, path: str, node_id: int) -> None:
        """Make a value an output under a path name; an output of that name is replaced."""
        self.outputs[path] = self[node_id].id
        self._results = None
        self.version += 1

    def drop_outputs(self) -> None:
        """Forget all outputs (their values stay until they are removed as dead)."""
        self.outputs.clear()
        self._results = None
        self.version += 1

    def set_update(self, state_id: int, value_id: int) -> None:
        """Give a state its new value, written when the graph has run.  Types must agree."""
        state, value = self[state_id], self[value_id]
        if state_id not in self.states:
            raise GraphError(f"%{state.name} is not a state of graph {self.name!r}, so it cannot be updated")
        if state.type.logical != value.type.logical:
            raise GraphError(f"update of %{state.name}: {state.type} cannot take a value of type {value.type}")
        self.updates[state_id] = value_id
        self._results = None
        self.version += 1

    def set_operands(self, node_id: int, operands: Sequence[int]) -> Node:
        """Rewire a node.  The type rule must give the same type as before."""
        node = self[node_id]
        new = tuple(self[i].id for i in operands)
        result = node.op.result_type(node.attributes, [self._nodes[i].type for i in new])
        if result.logical != node.type.logical:
            raise GraphError(f"rewiring %{node.name} would change its type from {node.type} to {result}")
        for slot, old in enumerate(node.operands):
            self._edges.remove_edge(old, node_id, key=slot)
        for slot, operand in enumerate(new):
            self._edges.add_edge(operand, node_id, key=slot)
        self._nodes[node_id] = replace(node, operands=new)
        self.version += 1
        return self._nodes[node_id]

    def replace(self, old_id: int, new_id: int) -> None:
        """Let every user, output and update of ``old`` read ``new`` instead.  Types must agree; ``old`` stays, unused.

        ``new`` itself may read ``old`` and keeps doing so; a longer way from ``old`` to ``new`` would close a cycle, which
        the next :meth:`order` reports.
        """
        old, new = self[old_id], self[new_id]
        if old.type.logical != new.type.logical:
            raise GraphError(f"%{new.name} of type {new.type} cannot replace %{old.name} of type {old.type}")
        if old_id == new_id:
            return
        readers = {user.id for user, _ in self.users(old_id)} - {new_id}
        for user_id in sorted(readers):
            user = self._nodes[user_id]
            operands = tuple(new_id if i == old_id else i for i in user.operands)
            for slot, i in enumerate(user.operands):
                if i == old_id:
                    self._edges.remove_edge(old_id, user_id, key=slot)
                    self._edges.add_edge(new_id, user_id, key=slot)
            self._nodes[user_id] = replace(user, operands=operands)
        if self._is_result(old_id):
            self.outputs = {path: new_id if i == old_id else i for path, i in self.outputs.items()}
            self.updates = {state: new_id if i == old_id else i for state, i in self.updates.items()}
            self._results = None
        self.version += 1

    def remove(self, node_id: int) -> None:
        """Remove a node that nothing reads and the signature does not mention."""
        node = self[node_id]
        if self.use_count(node_id):
            raise GraphError(f"%{node.name} is still read by %{self.users(node_id)[0][0].name}")
        if (node.is_leaf and node_id in self.inputs) or self._is_result(node_id):
            raise GraphError(f"%{node.name} is part of the signature of graph {self.name!r}")
        if node.is_leaf and node_id in self.states:
            if node_id in self.updates:
                raise GraphError(f"%{node.name} still has an update")
            self.states.remove(node_id)
            self.state.pop(node.name, None)
        self._discard(node)
        self.version += 1

    def remove_all(self, ids: Iterable[int]) -> None:
        """Remove nodes none of which is in the signature and which only each other read, users before operands."""
        doomed = {self[i].id for i in ids}
        mentioned = self.wanted() & doomed
        if mentioned:
            raise GraphError(f"%{self[min(mentioned)].name} is part of the signature of graph {self.name!r}")
        for node_id in sorted(doomed):
            for user, _ in self.users(node_id):
                if user.id not in doomed:
                    raise GraphError(f"%{self[node_id].name} is still read by %{user.name}")
        for node_id in doomed:
            self._discard(self._nodes[node_id])
        self.version += 1

    def _discard(self, node: Node) -> None:
        del self._nodes[node.id]
        del self._names[node.name]
        self._edges.remove_node(node.id)

    def rename(self, node_id: int, name: str) -> Node:
        """Give a node another name; one that is taken gets a numeric suffix.  States keep their binding."""
        node = self[node_id]
        del self._names[node.name]
        unique = self._unique(name or node.op.name)
        self._nodes[node_id] = replace(node, name=unique)
        self._names[unique] = node_id
        if node.name in self.state:
            self.state[unique] = self.state.pop(node.name)
        self.version += 1
        return self._nodes[node_id]

    def set_layout(self, node_id: int, layout: Layout | None) -> Node:
        """Say how a computed value is stored (None: row-major).  What it is, and what its readers are, stays the same."""
        node = self[node_id]
        if node.is_leaf:
            raise GraphError(f"%{node.name} is a leaf: its array is row-major")
        if layout is not None:
            layout.check(node.type.rank)
        self._nodes[node_id] = replace(node, type=replace(node.type, layout=layout))
        self.version += 1
        return self._nodes[node_id]

    def set_provenance(self, node_id: int, provenance: Provenance) -> None:
        """Say where a node comes from."""
        self._nodes[node_id] = replace(self[node_id], provenance=provenance)
        self.version += 1

    def copy(self) -> Graph:
        """An independent graph with the same nodes and ids; state arrays stay shared."""
        return Graph(
            name=self.name,
            inputs=list(self.inputs),
            states=list(self.states),
            outputs=dict(self.outputs),
            updates=dict(self.updates),
            state=dict(self.state),
            version=self.version,
            _nodes=dict(self._nodes),
            _names=dict(self._names),
            _edges=_copy_edges(self._edges),
            _next_id=self._next_id,
            _next_suffix=dict(self._next_suffix),
        )

    def _is_result(self, node_id: int) -> bool:
        """Whether a value is an output or the new value of a state."""
        if self._results is None:
            self._results = {*self.outputs.values(), *self.updates.values()}
        return node_id in self._results

    def _unique(self, name: str) -> str:
        """``name``, or with the first free suffix ``_1``, ``_2``, ... if it is taken."""
        names = self._names
        if name not in names:
            return name
        suffix = self._next_suffix.get(name, 1)
        while f"{name}_{suffix}" in names:
            suffix += 1
        self._next_suffix[name] = suffix + 1
        return f"{name}_{suffix}"


PRINTERS: dict[str, Callable[[Graph], str]] = {}
"""Filled by :mod:`irconv.text`, which imports this module; ``str(graph)`` finds its printer here."""


def _copy_edges(edges: nx.MultiDiGraph) -> nx.MultiDiGraph:
    # several times faster than MultiDiGraph.copy, which expects attributes
    copied = nx.MultiDiGraph()
    copied.add_nodes_from(edges)
    for operand, user, slot in edges.edges(keys=True):
        copied.add_edge(operand, user, key=slot)
    return copied


def _depth_first_order(nodes: Mapping[int, Node]) -> list[int]:
    """Depth-first post-order from each node in order of creation; raises GraphError on a cycle."""
    order: list[int] = []
    state: dict[int, bool] = {}  # False: being visited, True: done
    for root in nodes:
        if root in state:
            continue
        stack = [(root, iter(nodes[root].operands))]
        state[root] = False
        while stack:
            current, pending = stack[-1]
            for operand in pending:
                done = state.get(operand)
                if done is None:
                    state[operand] = False
                    stack.append((operand, iter(nodes[operand].operands)))
                    break
                if not done:
                    raise GraphError(f"%{nodes[operand].name} depends on itself")
            else:
                stack.pop()
                state[current] = True
                order.append(current)
    return order


def _scalar_view(graph: Graph) -> nx.MultiDiGraph:
    view = nx.MultiDiGraph(name=graph.name)
    outputs, updates = set(graph.outputs.values()), set(graph.updates.values())
    inputs, states = set(graph.inputs), set(graph.states)
    for node in graph:
        role = "value"
        for candidate, members in (("update", updates), ("output", outputs), ("state", states), ("input", inputs)):
            if node.id in members:
                role = candidate
        where = node.provenance
        view.add_node(
            node.name,
            op=node.op.name,
            type=str(node.type),
            attributes="" if node.op.name == "constant" else describe(node.attributes),
            role=role,
            scope=where.scope,
            composite=str(where.composite or ""),
            origin=where.origin or "",
            location=str(where.location or ""),
        )
        for slot, operand in enumerate(graph.operands(node)):
            view.add_edge(operand.name, node.name, key=slot, slot=slot)
    return view
