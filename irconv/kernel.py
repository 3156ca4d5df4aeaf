"""What passes hand to backends: kernels, their order, where their values live, and all of it as one program.

A *kernel* is a set of nodes that a backend runs as one piece of code.  The kernels of a graph are a partition of its
nodes (leaves excepted) whose quotient graph is acyclic; most hold one node, fused ones several, and they may have several
results.  A kernel of a single view op (a transpose, a slice, ...) has no code: its value is another view of the operand's
buffer.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from irconv.errors import GraphError
from irconv.graph import Graph, Node
from irconv.op import describe
from irconv.strides import value_strides


@dataclass(frozen=True, slots=True)
class Kernel:
    """A group of nodes that runs as one.

    name:    unique in its graph; the name of its last value.
    kind:    the op's name for a kernel of one node, else what it fuses ("elementwise", "conv_epilogue", ...).
    nodes:   ids in topological order.
    inputs:  ids of the values read from outside (leaves included), in order of first use, each once.
    outputs: ids of the values read outside or mentioned in the signature, in topological order.
    is_view: one view op whose value shares the operand's buffer: nothing is executed.
    """

    name: str
    kind: str
    nodes: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    is_view: bool = False


@dataclass(frozen=True, slots=True)
class Schedule:
    """Kernels in execution order, and the values to be checked before any state is written.

    guards: ids of values (the loss) whose kernels come before every kernel that writes a state in place.
    """

    kernels: tuple[Kernel, ...]
    guards: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Allocation:
    """Bytes ``offset`` to ``offset + bytes`` of the arena."""

    offset: int
    bytes: int


@dataclass(frozen=True)
class MemoryPlan:
    """Where every value lives.

    arena_bytes:     size of the arena.
    buffers:         value id -> its place in the arena; values that share a place are computed in place.
    aliases:         id of a view -> id of the value whose buffer it shows.
    outputs:         value id -> output path: written straight into the array handed to the caller.
    update_in_place: value id -> state id: written straight into the state's array.
    commits:         (value id, state id) pairs copied into the states when all kernels have run.
    scratch:         kernel name -> places of its temporaries.
    peak_bytes:      the most that is in use at once; the arena is this plus what is lost between buffers.
    naive_bytes:     what the arena would take if every value had a place of its own.
    """

    arena_bytes: int
    buffers: dict[int, Allocation]
    aliases: dict[int, int]
    outputs: dict[int, str]
    update_in_place: dict[int, int]
    commits: tuple[tuple[int, int], ...]
    scratch: dict[str, tuple[Allocation, ...]]
    peak_bytes: int
    naive_bytes: int

    def __str__(self) -> str:
        return (
            f"arena {self.arena_bytes:,} bytes (peak {self.peak_bytes:,}, without sharing {self.naive_bytes:,}), "
            f"{len(self.update_in_place)} states written in place, {len(self.commits)} copied at the end"
        )


@dataclass(frozen=True)
class Program:
    """A graph cut into kernels, ordered and planned: everything a backend needs.

    stages:  what the passes left on the way here, carried along for people to read.
    reasons: (producer id, user id) -> why the edge between their kernels was not fused; likewise for people.
    """

    graph: Graph
    schedule: Schedule
    plan: MemoryPlan
    stages: tuple[Any, ...] = ()
    reasons: Mapping[tuple[int, int], str] = field(default_factory=dict)

    @property
    def unfused_bytes(self) -> int:
        """Bytes that would cross kernels if every node were a kernel of its own."""
        uses, strides = Uses(self.graph), value_strides(self.graph)
        alone = (make_kernel(uses, [i], is_view=strides[i][1]) for i in uses.order if not self.graph[i].is_leaf)
        return sum(kernel_bytes(self.graph, kernel) for kernel in alone)

    @property
    def fused_bytes(self) -> int:
        """Bytes that cross kernels."""
        return sum(kernel_bytes(self.graph, kernel) for kernel in self.schedule.kernels)


class Uses:
    """Who reads what in a graph that no longer changes.

    order, position: topological order of the ids, and the place of each in it.
    readers:         id -> ids of the nodes that read it, each once, in order.
    kept:            outputs and new state values: read by the world outside.
    new_states:      new state values.
    """

    def __init__(self, graph: Graph):
        self.graph = graph
        self.order = graph.order()
        self.position = {node: i for i, node in enumerate(self.order)}
        self.new_states = set(graph.updates.values())
        self.kept = self.new_states | set(graph.outputs.values())
        self.readers: dict[int, list[int]] = {node: [] for node in self.order}
        for node in self.order:
            for operand in dict.fromkeys(graph[node].operands):
                self.readers[operand].append(node)

    def only_reader(self, node_id: int) -> Node | None:
        """The single node that reads a value which nobody outside sees."""
        readers = self.readers[node_id]
        return self.graph[readers[0]] if len(readers) == 1 and node_id not in self.kept else None


def make_kernel(uses: Uses, nodes: Sequence[int], kind: str | None = None, *, is_view: bool = False) -> Kernel:
    """The kernel of these node ids (in topological order), with inputs and outputs read off the graph.

    Raises GraphError for an empty list and for several nodes without a kind.
    """
    if not nodes or (kind is None and len(nodes) > 1):
        raise GraphError(f"a kernel of {len(nodes)} nodes needs {'a kind' if nodes else 'at least one'}")
    members = set(nodes)
    inputs = dict.fromkeys(i for node in nodes for i in uses.graph[node].operands if i not in members)
    outputs = tuple(i for i in nodes if i in uses.kept or not members.issuperset(uses.readers[i]))
    last = uses.graph[nodes[-1]]
    return Kernel(last.name, kind or last.op.name, tuple(nodes), tuple(inputs), outputs or (last.id,), is_view)


def separate_parts(graph: Graph, nodes: Sequence[int]) -> list[tuple[int, ...]]:
    """Nodes, given in topological order, by the parts of a kernel that no edge joins; parts in the order of their first nodes."""
    homes: dict[int, list[int]] = {}
    for node in nodes:
        joined = {id(homes[i]): homes[i] for i in graph[node].operands if i in homes}
        home = [i for part in joined.values() for i in part] + [node]
        homes.update(dict.fromkeys(home, home))
    position = {node: at for at, node in enumerate(nodes)}
    parts = {id(home): tuple(sorted(home, key=position.__getitem__)) for home in homes.values()}
    return sorted(parts.values(), key=lambda part: position[part[0]])


def made_by(graph: Graph, nodes: Sequence[int], value: int) -> tuple[int, ...]:
    """Those of the nodes that a value is made by, itself among them, in their order."""
    found: set[int] = set()
    waiting = [value]
    while waiting:
        i = waiting.pop()
        if i in nodes and i not in found:
            found.add(i)
            waiting += graph[i].operands
    return tuple(i for i in nodes if i in found)


def kernel_bytes(graph: Graph, kernel: Kernel) -> int:
    """Bytes that cross the kernel's border: its inputs and outputs once each; none for a view."""
    if kernel.is_view:
        return 0
    return sum(graph[i].type.bytes for i in (*kernel.inputs, *kernel.outputs))


def kernel_flops(graph: Graph, kernel: Kernel) -> int:
    """Floating-point operations of all its nodes."""
    total = 0
    for i in kernel.nodes:
        node = graph[i]
        total += node.op.cost(node.attributes, tuple(o.type for o in graph.operands(node)), node.type).flops
    return total


def view_roots(kernels: Iterable[Kernel]) -> dict[int, int]:
    """The value whose buffer each view shows, for the views among ``kernels`` (operands before users)."""
    roots: dict[int, int] = {}
    for kernel in kernels:
        if kernel.is_view:
            source = kernel.inputs[0]
            roots[kernel.outputs[0]] = roots.get(source, source)
    return roots


# --- printing --------------------------------------------------------------------------------------------------------------


NAMES = textwrap.TextWrapper(120, subsequent_indent="#   ", break_long_words=False, break_on_hyphens=False)
"""How lists of names are broken into lines."""


def print_kernels(program: Program) -> str:
    """The partition as text, in execution order: each kernel with its nodes and the bytes that cross its border."""
    parts = [print_kernel(program.graph, kernel) for kernel in program.schedule.kernels]
    return "\n".join([*parts, f"# {program.plan}"])


def print_kernel(graph: Graph, kernel: Kernel) -> str:
    """One kernel as text; of many updates that are made in the same way, the first."""
    if kernel.kind == "state_updates":
        values = [f"{len(ids)} values" for ids in (kernel.inputs, kernel.outputs)]
        body = _update_lines(graph, kernel)
    else:
        values = [", ".join(f"%{graph[i].name}" for i in ids) for ids in (kernel.inputs, kernel.outputs)]
        body = [_node_line(graph, graph[i]) for i in kernel.nodes]
    effort = "view" if kernel.is_view else f"{kernel_bytes(graph, kernel):,} bytes"
    first = f"kernel @{kernel.name} = {kernel.kind} ({values[0]}) -> ({values[1]}) {{  # {effort}"
    return "\n".join([first, *(f"  {line}" for line in body), "}"])


def _update_lines(graph: Graph, kernel: Kernel) -> list[str]:
    """The parts of a kernel by what they do: the first in full, the names of what the others make."""
    alike: dict[object, list[tuple[int, ...]]] = {}
    for part in separate_parts(graph, kernel.nodes):
        places = {i: at for at, i in enumerate(part)}
        nodes = [graph[i] for i in part]
        form = tuple((n.op.name, n.attributes, n.type.dtype, tuple(places.get(o) for o in n.operands)) for n in nodes)
        alike.setdefault(form, []).append(part)
    lines = []
    for parts in alike.values():
        lines += [_node_line(graph, graph[i]) for i in parts[0]]
        others = ", ".join(f"%{graph[part[-1]].name}" for part in parts[1:])
        if others:
            lines += NAMES.wrap(f"# likewise {len(parts) - 1}: {others}")
    return lines


def _node_line(graph: Graph, node: Node) -> str:
    operands = ", ".join(f"%{operand.name}" for operand in graph.operands(node))
    attributes = describe(node.attributes)
    where = f"  # {node.provenance.location}" if node.provenance.location else ""
    return f"%{node.name} = {node.op.name}({operands}){' ' if attributes else ''}{attributes} : {node.type}{where}"
