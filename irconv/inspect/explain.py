"""What fusion did and did not do: kernels, the bytes that cross between them, and for every edge left, why.

The graph, cut into one kernel a node, moves ``bytes_before`` bytes: each kernel's inputs and outputs once.  The partition that
the backend runs moves ``bytes_after``.  The edges between kernels stand in ``edges``, each with the rule that left it.
"""

from __future__ import annotations

from dataclasses import dataclass

from irconv.graph import Graph
from irconv.inspect.dump import dot_string
from irconv.kernel import Program, kernel_bytes
from irconv.passes.kinds import what_is
from irconv.places import Location


@dataclass(frozen=True, slots=True)
class Crossing:
    """A value that one kernel hands to another.

    value, user:      names of the node that makes it and the node that reads it.
    source, reader:   names of their kernels.
    bytes:            size of the value; 0 where a view hands on its operand's buffer.
    reason:           why the two were not fused.
    line, user_line:  of the user's program.
    """

    value: str
    user: str
    source: str
    reader: str
    bytes: int
    reason: str
    line: Location | None
    user_line: Location | None


@dataclass(frozen=True, slots=True)
class KindRow:
    """All kernels of one kind: how many, how many ops they hold, the bytes that cross their borders, and what they are."""

    kind: str
    kernels: int
    ops: int
    bytes: int
    what: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A partition explained.

    ops:                       computed values that are no views: the kernels there would be without fusion.
    kernels:                   of the partition, without views.
    bytes_before, bytes_after: that cross kernels, without and with fusion.
    kinds:                     the kernels by kind, most bytes first.
    edges:                     what crosses, most bytes first.
    """

    ops: int
    kernels: int
    bytes_before: int
    bytes_after: int
    kinds: tuple[KindRow, ...]
    edges: tuple[Crossing, ...]


def explain(program: Program) -> Explanation:
    """The partition of a program (``compile(...).executable.program``) in words and numbers."""
    kernels = [kernel for kernel in program.schedule.kernels if not kernel.is_view]
    return Explanation(
        ops=sum(len(kernel.nodes) for kernel in kernels),
        kernels=len(kernels),
        bytes_before=program.unfused_bytes,
        bytes_after=program.fused_bytes,
        kinds=_kinds(program),
        edges=_edges(program),
    )


def _kinds(program: Program) -> tuple[KindRow, ...]:
    rows: dict[str, list[int]] = {}
    for kernel in program.schedule.kernels:
        if not kernel.is_view:
            row = rows.setdefault(kernel.kind, [0, 0, 0])
            row[0] += 1
            row[1] += len(kernel.nodes)
            row[2] += kernel_bytes(program.graph, kernel)
    found = (KindRow(kind, kernels, ops, crossing, what_is(kind)) for kind, (kernels, ops, crossing) in rows.items())
    return tuple(sorted(found, key=lambda row: -row.bytes))


def _edges(program: Program) -> tuple[Crossing, ...]:
    graph = program.graph
    home = {i: kernel for kernel in program.schedule.kernels for i in kernel.nodes}
    edges = []
    for (value_id, user_id), reason in program.reasons.items():
        value, user = graph[value_id], graph[user_id]
        moves = not home[value_id].is_view and not home[user_id].is_view
        edges.append(
            Crossing(
                value.name,
                user.name,
                home[value_id].name,
                home[user_id].name,
                value.type.bytes if moves else 0,
                reason,
                value.provenance.location,
                user.provenance.location,
            )
        )
    return tuple(sorted(edges, key=lambda edge: -edge.bytes))


def kernels_dot(program: Program) -> str:
    """Graphviz DOT of the partition: a box around the ops of each kernel, edges between kernels labelled with their reason."""
    graph = program.graph
    lines = [f"digraph {dot_string(graph.name)} {{", '  node [shape=box, fontname="monospace"]; compound=true;']
    for number, kernel in enumerate(program.schedule.kernels):
        cost = "view" if kernel.is_view else f"{kernel_bytes(graph, kernel):,} bytes"
        lines.append(f"  subgraph cluster_{number} {{ label={dot_string(f'@{kernel.name} = {kernel.kind}, {cost}')};")
        lines += [f"    {_dot_node(graph, i)}" for i in kernel.nodes]
        lines.append("  }")
    lines += [f"  {_dot_node(graph, node.id, 'ellipse')}" for node in graph if node.is_leaf]
    for node in graph:
        for operand in dict.fromkeys(node.operands):
            reason = program.reasons.get((operand, node.id))
            shown = f" [style=bold, tooltip={dot_string(reason)}]" if reason else ""
            lines.append(f"  n{operand} -> n{node.id}{shown};")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_node(graph: Graph, node_id: int, shape: str = "box") -> str:
    node = graph[node_id]
    label = "\n".join((f"%{node.name}", node.op.name, str(node.type)))
    where = str(node.provenance.location or "")
    return f"n{node.id} [label={dot_string(label)}, shape={shape}, tooltip={dot_string(where)}];"
