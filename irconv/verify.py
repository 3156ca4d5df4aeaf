"""Checking a graph against the rules that its methods keep: structure, types and signature."""

from __future__ import annotations

from collections import Counter
from typing import NoReturn

from irconv.errors import GraphError
from irconv.graph import Graph, Node
from irconv.op import OPS


def verify(graph: Graph) -> None:
    """Raise GraphError, naming the node, if the graph breaks a rule.

    Structure: ids and names are unique and agree, operands exist, edges are the operands, nothing depends on itself.
    Types:     every op is registered, and its type rule gives the node's type.
    Signature: inputs and states are leaves of that op and listed once, outputs and updates exist, updates have the
               type of their state, and no array that is updated stands behind two states.
    """
    _structure(graph)
    for node in graph:
        _types(graph, node)
    _leaves(graph, "input", graph.inputs)
    _leaves(graph, "state", graph.states)
    _results(graph)
    _bindings(graph)


def _fail(node: Node, problem: str) -> NoReturn:
    raise GraphError(f"%{node.name} {problem}", location=node.provenance.location)


def _structure(graph: Graph) -> None:
    edges = set()
    for node_id in graph.ids():
        node = graph[node_id]
        if node.id != node_id:
            _fail(node, f"has id {node.id} but is stored under {node_id}")
        if not node.name or not graph.has_name(node.name) or graph[node.name].id != node_id:
            _fail(node, "is not the value that its name stands for")
        for slot, operand in enumerate(node.operands):
            if operand not in graph:
                _fail(node, f"reads value {operand}, which does not exist")
            edges.add((operand, node_id, slot))
    found = set(graph.edges())
    for operand, user, slot in sorted(found ^ edges):
        if user not in graph:
            raise GraphError(f"graph {graph.name!r} has an edge to value {user}, which does not exist")
        problem = "has an edge" if (operand, user, slot) in found else "has no edge"
        _fail(graph[user], f"{problem} from value {operand} to slot {slot}, but its operands are {list(graph[user].operands)}")
    graph.order()  # raises on a cycle


def _types(graph: Graph, node: Node) -> None:
    if OPS.get(node.op.name) is not node.op:
        _fail(node, f"has an op {node.op.name!r} that is not registered")
    result = node.op.result_type(node.attributes, [operand.type for operand in graph.operands(node)])
    if result not in (node.type, node.type.logical):
        _fail(node, f"has type {node.type}, but the rule of {node.op.name} gives {result}")


def _leaves(graph: Graph, op: str, listed: list[int]) -> None:
    for node_id in listed:
        if node_id not in graph:
            raise GraphError(f"graph {graph.name!r} lists {op} {node_id}, which does not exist")
        if graph[node_id].op.name != op:
            _fail(graph[node_id], f"is listed as {op}, but is a {graph[node_id].op.name}")
    counts = Counter(listed)
    for node in graph:
        if node.op.name == op and counts[node.id] != 1:
            _fail(node, f"stands {counts[node.id]} times among the {op}s of graph {graph.name!r}")


def _results(graph: Graph) -> None:
    for path, node_id in graph.outputs.items():
        if node_id not in graph:
            raise GraphError(f"output {path!r} of graph {graph.name!r} is value {node_id}, which does not exist")
    states = set(graph.states)
    for state_id, value_id in graph.updates.items():
        if state_id not in states:
            raise GraphError(f"graph {graph.name!r} updates value {state_id}, which is not one of its states")
        if value_id not in graph:
            _fail(graph[state_id], f"is updated with value {value_id}, which does not exist")
        if graph[state_id].type.logical != graph[value_id].type.logical:
            _fail(graph[state_id], f"of type {graph[state_id].type} is updated with a {graph[value_id].type}")


def _bindings(graph: Graph) -> None:
    """Arrays bound to states fit them, and an updated one is bound once."""
    owners: dict[int, Node] = {}
    for name, variable in graph.state.items():
        if not graph.has_name(name) or graph[name].op.name != "state":
            raise GraphError(f"graph {graph.name!r} binds a variable to {name!r}, which is not one of its states")
        node = graph[name]
        if variable.type != node.type:
            _fail(node, f"is {node.type}, but the variable behind it is {variable.type}")
        other = owners.setdefault(id(variable), node)
        if other is not node and (node.id in graph.updates or other.id in graph.updates):
            _fail(node, f"and %{other.name} are one variable under two names, and it is updated")
