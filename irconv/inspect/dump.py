"""Graphs in other forms: JSON, DOT and GraphML for tools, a table of layers and a diff for people."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass

import networkx as nx

from irconv.cost import cost, is_parameter
from irconv.graph import Graph, Node
from irconv.types import TensorType

# --- for tools -------------------------------------------------------------------------------------------------------------


def to_json(graph: Graph) -> str:
    """networkx's node-link form of ``graph.nx``, with the signature by names beside it.

    ``networkx.node_link_graph(json.loads(text), edges="edges")`` reads it back.
    """
    data = nx.node_link_data(graph.nx, edges="edges")
    data["signature"] = {
        "inputs": [graph[i].name for i in graph.inputs],
        "states": [graph[i].name for i in graph.states],
        "outputs": {path: graph[i].name for path, i in graph.outputs.items()},
        "updates": {graph[state].name: graph[value].name for state, value in graph.updates.items()},
    }
    return json.dumps(data, indent=1)


_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_graphml(graph: Graph) -> str:
    """GraphML of ``graph.nx``; characters that XML cannot hold are written as hexadecimal escapes."""
    lines = nx.generate_graphml(graph.nx)
    return "\n".join(_NOT_XML.sub(lambda match: f"\\x{ord(match[0]):02x}", line) for line in lines) + "\n"


_SHAPES = {"input": "ellipse", "state": "cylinder", "output": "doubleoctagon"}


def to_dot(graph: Graph) -> str:
    """Graphviz DOT: a box a value, labelled with name, op and type; edges carry their slot where order matters.

    Nodes are called ``n`` and their id, so that names need no care beyond quoting.
    """
    lines = [f"digraph {dot_string(graph.name)} {{", '  node [shape=box, fontname="monospace"];']
    roles = graph.nx.nodes
    for node in graph:
        shape = _SHAPES.get(roles[node.name]["role"], "box")
        label = "\n".join((f"%{node.name}", node.op.name, str(node.type)))
        tooltip = str(node.provenance.location or "")
        lines.append(f"  n{node.id} [label={dot_string(label)}, shape={shape}, tooltip={dot_string(tooltip)}];")
    for node in graph:
        for slot, operand in enumerate(node.operands):
            label = f" [label={dot_string(str(slot))}]" if len(node.operands) > 1 else ""
            lines.append(f"  n{operand} -> n{node.id}{label};")
    lines.extend(f'  n{value} -> n{state} [style=dashed, label="update"];' for state, value in graph.updates.items())
    return "\n".join([*lines, "}"]) + "\n"


def dot_string(text: str) -> str:
    """Quotation marks around text in which every character stands for itself."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return '"' + "".join(c if c.isprintable() else f"\\\\x{ord(c):02x}" for c in escaped) + '"'


# --- for people ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer of a model.

    name:       scope (module path), instance of the composite, or name of the value where there is neither.
    kinds:      composites and ops it consists of, in order.
    output:     type of its last value.
    parameters: elements of the parameters that it is the first to read.
    macs:       its multiply-adds.
    flops:      all its arithmetic; two per multiply-add.
    bytes:      size of the values it computes; views take none.
    """

    name: str
    kinds: tuple[str, ...]
    output: TensorType
    parameters: int
    macs: int
    flops: int
    bytes: int


def layer_table(graph: Graph) -> list[LayerRow]:
    """The forward part of a graph by layer, in program order; backward nodes are left out."""
    layers: dict[tuple[str, ...], list[Node]] = {}
    for node in graph:
        if not node.is_leaf and node.provenance.origin is None:
            layers.setdefault(_layer_key(node), []).append(node)
    counted: set[int] = set()
    return [_layer_row(graph, key, nodes, counted) for key, nodes in layers.items()]


def _layer_key(node: Node) -> tuple[str, ...]:
    where = node.provenance
    if where.composite is not None:
        return (where.scope, where.composite.kind, where.composite.instance)
    return (where.scope,) if where.scope else ("", node.name)


def _layer_row(graph: Graph, key: tuple[str, ...], nodes: list[Node], counted: set[int]) -> LayerRow:
    read = [i for node in nodes for i in node.operands if is_parameter(graph[i])]
    parameters = [i for i in dict.fromkeys(read) if i not in counted]
    counted.update(parameters)
    costs = [cost(node, graph) for node in nodes]
    kinds = (node.provenance.composite.kind if node.provenance.composite else node.op.name for node in nodes)
    return LayerRow(
        name=key[-1],
        kinds=tuple(dict.fromkeys(kinds)),
        output=nodes[-1].type,
        parameters=sum(graph[i].type.size for i in parameters),
        macs=sum(c.macs for c in costs),
        flops=sum(c.flops for c in costs),
        bytes=sum(c.bytes_written for c in costs),
    )


def diff(before: Graph | str, after: Graph | str, before_name: str = "before", after_name: str = "after") -> str:
    """Unified diff of two graphs (or their texts), without colour; empty if they read the same."""
    old, new = str(before).splitlines(), str(after).splitlines()
    lines = difflib.unified_diff(old, new, before_name, after_name, lineterm="")
    return "".join(f"{line}\n" for line in lines)
