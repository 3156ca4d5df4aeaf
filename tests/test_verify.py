"""verify finds every broken rule and names the node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from irconv.errors import GraphError
from irconv.graph import Graph
from irconv.op import OPS, OpDef
from irconv.places import Location
from irconv.state import Variable
from irconv.types import tensor_type
from irconv.verify import verify
from tests.example_graphs import small_network


def change(graph: Graph, which: str, **fields: Any) -> None:
    """Replace fields of a node behind the graph's back."""
    node = graph[which]
    graph._nodes[node.id] = replace(node, **fields)
    graph.version += 1


def rebind(graph: Graph, first: str, second: str) -> None:
    graph.state[second] = graph.state[first]


def foreign_op(graph: Graph) -> None:
    relu = OPS["relu"]
    change(graph, "bn", op=OpDef("add", ("x", "y"), relu.infer, relu.reference, relu.gradient, relu.fusion))


def unlisted_input(graph: Graph) -> None:
    op = OPS["input"]
    graph.add(op, op.attributes(tensor_type("f32", ())), name="stray")


BREAKS: list[tuple[Callable[[Graph], object], str]] = [
    (lambda g: change(g, "bn", id=99), "%bn has id 99 but is stored under"),
    (lambda g: change(g, "bn", name="other"), "%other is not the value that its name stands for"),
    (lambda g: change(g, "bn", name="conv1"), "%conv1 is not the value that its name stands for"),
    (lambda g: change(g, "bn", operands=(999, 0)), "%bn reads value 999, which does not exist"),
    (lambda g: change(g, "d_conv1", operands=(0,)), "has no edge from value 0 to slot 0"),
    (lambda g: g._edges.add_edge(0, g["bn"].id, key=2), "%bn has an edge from value 0 to slot 2"),
    (lambda g: g._edges.add_edge(0, 999, key=0), "has an edge to value 999, which does not exist"),
    (lambda g: change(g, "bn", type=tensor_type("f32", (3, 2))), "%bn has type f32[3,2], but the rule of add gives f32[2,3]"),
    (foreign_op, "%bn has an op 'add' that is not registered"),
    (lambda g: g.inputs.append(0), "%x stands 2 times among the inputs"),
    (lambda g: g.inputs.append(g["bn"].id), "%bn is listed as input, but is a add"),
    (lambda g: g.inputs.append(999), "lists input 999, which does not exist"),
    (unlisted_input, "%stray stands 0 times among the inputs"),
    (lambda g: g.states.pop(), "%blur stands 0 times among the states"),
    (lambda g: g.outputs.update(z=999), "output 'z' of graph 'small' is value 999, which does not exist"),
    (lambda g: g.updates.update({0: 0}), "updates value 0, which is not one of its states"),
    (lambda g: g.updates.update({g["blur"].id: 999}), "%blur is updated with value 999"),
    (lambda g: g.updates.update({g["blur"].id: 0}), "%blur of type f32[2,2] is updated with a f32[2,3]"),
    (lambda g: g.state.update(bn=Variable(np.zeros(1))), "binds a variable to 'bn', which is not one of its states"),
    (lambda g: g.state.update(blur=Variable(np.zeros(1))), "%blur is f32[2,2], but the variable behind it is f64[1]"),
    (lambda g: rebind(g, "bn.running_mean", "conv1.weight"), "are one variable under two names, and it is updated"),
]


@pytest.mark.parametrize(("break_it", "message"), BREAKS, ids=[message for _, message in BREAKS])
def test_broken_rules_are_found(break_it: Callable[[Graph], object], message: str) -> None:
    graph = small_network()
    verify(graph)
    break_it(graph)
    with pytest.raises(GraphError) as caught:
        verify(graph)
    assert message in caught.value.message


def test_the_line_of_the_node_is_named() -> None:
    graph = small_network()
    change(graph, "conv1", type=tensor_type("f32", ()))
    with pytest.raises(GraphError) as caught:
        verify(graph)
    assert caught.value.location == Location("model.py", 12)


def test_a_cycle() -> None:
    graph = small_network()
    graph.replace(graph["conv1"].id, graph["bn"].id)  # bn is computed from conv1, by way of bn.subtract
    with pytest.raises(GraphError, match="depends on itself"):
        verify(graph)


def test_one_variable_may_stand_behind_two_states_that_nobody_updates() -> None:
    graph = small_network()
    graph.add_state("tied", tensor_type("f32", (3,)), "param", graph.state["conv1.weight"])
    verify(graph)
