"""What a graph costs: arithmetic, memory traffic, parameters, activation memory; and receptive fields.

All of it is read off the types and the op definitions, before any scheduling or fusion: the graph run node by node in
program order, each result in a buffer of its own, views free.
"""

from __future__ import annotations

from dataclasses import dataclass

from irconv.graph import Graph, Node
from irconv.op import Fusion
from irconv.receptive_field import AxisField, receptive_field

__all__ = ["LIGHT", "AxisField", "GraphCost", "NodeCost", "cost", "graph_cost", "receptive_field"]


LIGHT = frozenset(
    {
        *("add", "subtract", "multiply", "negative", "square", "absolute", "copy", "stop_gradient", "attach_gradient"),
        *("relu", "maximum", "minimum", "clip", "where"),
        *("greater", "greater_equal", "less", "less_equal"),
    }
)
"""Elementwise ops of an instruction or two: to write their code several times, or to run them again, costs next to nothing."""


@dataclass(frozen=True, slots=True)
class NodeCost:
    """What one node costs.

    macs:          multiply-adds of contractions.
    flops:         all arithmetic; two per multiply-add.
    bytes_read:    of distinct operands, each counted once; 0 for views.
    bytes_written: of the result; 0 for leaves and views.
    parameters:    elements of the parameters that the node reads.
    """

    macs: int = 0
    flops: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    parameters: int = 0


@dataclass(frozen=True, slots=True)
class GraphCost:
    """What one run of a graph costs.

    nodes:            by name, in program order, without leaves.
    macs, flops, bytes_read, bytes_written: the sums over the nodes.
    parameters:       number of elements of parameters, trained and frozen; parameter_bytes: their size.
    state_bytes:      size of all states: parameters, buffers, optimiser state.
    constant_bytes:   size of all constants.
    activation_bytes: size of all computed values together; views take none.
    peak_bytes:       the most that computed values take at one time, freed after their last reader.
    """

    nodes: dict[str, NodeCost]
    macs: int
    flops: int
    bytes_read: int
    bytes_written: int
    parameters: int
    parameter_bytes: int
    state_bytes: int
    constant_bytes: int
    activation_bytes: int
    peak_bytes: int


def cost(node: Node, graph: Graph) -> NodeCost:
    """The cost of one node of ``graph``."""
    if node.is_leaf:
        return NodeCost()
    operands = graph.operands(node)
    distinct = list(dict.fromkeys(operands))
    work = node.op.cost(node.attributes, tuple(operand.type for operand in operands), node.type)
    moves = node.op.fusion is not Fusion.VIEW
    return NodeCost(
        macs=work.macs,
        flops=work.flops,
        bytes_read=sum(operand.type.bytes for operand in distinct) if moves else 0,
        bytes_written=node.type.bytes if moves else 0,
        parameters=sum(operand.type.size for operand in distinct if is_parameter(operand)),
    )


def graph_cost(graph: Graph) -> GraphCost:
    """The cost of a whole graph."""
    nodes = {node.name: cost(node, graph) for node in graph if not node.is_leaf}
    states = [graph[i] for i in graph.states]
    parameters = [node for node in states if is_parameter(node)]
    return GraphCost(
        nodes=nodes,
        macs=sum(c.macs for c in nodes.values()),
        flops=sum(c.flops for c in nodes.values()),
        bytes_read=sum(c.bytes_read for c in nodes.values()),
        bytes_written=sum(c.bytes_written for c in nodes.values()),
        parameters=sum(node.type.size for node in parameters),
        parameter_bytes=sum(node.type.bytes for node in parameters),
        state_bytes=sum(node.type.bytes for node in states),
        constant_bytes=sum(node.type.bytes for node in graph if node.op.name == "constant"),
        activation_bytes=sum(c.bytes_written for c in nodes.values()),
        peak_bytes=_peak(graph),
    )


def is_parameter(node: Node) -> bool:
    """Whether a node is a parameter, trained or frozen."""
    return node.op.name == "state" and node.attributes.role in ("param", "frozen")


def _peak(graph: Graph) -> int:
    """The most bytes of computed values alive at once in program order; a view keeps alive what it looks at."""
    order = list(graph)
    owner: dict[int, int] = {}  # the node whose buffer holds the value
    last_use: dict[int, int] = {}
    for position, node in enumerate(order):
        is_view = node.op.fusion is Fusion.VIEW
        owner[node.id] = owner[node.operands[0]] if is_view else node.id
        for i in (node.id, *node.operands):
            last_use[owner[i]] = position
    for i in (*graph.outputs.values(), *graph.updates.values()):
        last_use[owner[i]] = len(order)
    dying: dict[int, int] = {}  # bytes freed after a position
    for node in order:
        if owner[node.id] == node.id and not node.is_leaf:
            dying[last_use[node.id]] = dying.get(last_use[node.id], 0) + node.type.bytes
    alive = peak = 0
    for position, node in enumerate(order):
        if owner[node.id] == node.id and not node.is_leaf:
            alive += node.type.bytes
        peak = max(peak, alive)
        alive -= dying.get(position, 0)
    return peak
