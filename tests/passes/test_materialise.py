"""Outputs and new state values that have a kernel of their own."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from irconv.builder import Builder
from irconv.graph import Graph
from irconv.interpret import evaluate
from irconv.ops.elementwise import relu
from irconv.ops.shape import flip, reshape
from irconv.passes.base import parse_pass
from irconv.passes.materialise import Materialise
from irconv.types import tensor_type
from irconv.verify import verify
from tests.passes.programs import graphs, state


def new_graph():
    builder = Builder(Graph("materialise"))
    return builder.graph, builder, builder.input("x", tensor_type("f32", (2, 3)))


def test_computed_values_are_left_alone():
    graph, _, x = new_graph()
    y = relu(x)
    graph.set_output("y", y.id)
    assert not Materialise().run(graph)
    assert graph.outputs == {"y": y.id}


def test_leaves_views_and_second_names_are_copied():
    graph, builder, x = new_graph()
    y = relu(x)
    one = builder.constant(np.ones(3, np.float32))
    for path, value in {"x": x, "one": one, "y": y, "again": y, "flipped": flip(y), "flat": reshape(y, (6,))}.items():
        graph.set_output(path, value.id)
    assert Materialise().run(graph)
    verify(graph)
    ops = {path: graph[i].op.name for path, i in graph.outputs.items()}
    assert ops == {"x": "copy", "one": "copy", "y": "relu", "again": "copy", "flipped": "copy", "flat": "copy"}
    assert len(set(graph.outputs.values())) == 6
    assert not Materialise().run(graph)


def test_new_states_are_copied_alike():
    graph, builder, x = new_graph()
    a, b, c, d = (state(builder, name, np.zeros((2, 3), np.float32)) for name in "abcd")
    y = relu(x)
    for each, value in ((a, b), (b, y), (c, y), (d, flip(a))):
        graph.set_update(each.id, value.id)
    Materialise().run(graph)
    verify(graph)
    assert [graph[graph.updates[each.id]].op.name for each in (a, b, c, d)] == ["copy", "relu", "copy", "copy"]
    assert graph[graph.updates[d.id]].name == "new_d"


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_the_numbers_stay(graph):
    after = graph.copy()
    Materialise().run(after)
    verify(after)
    rng = np.random.default_rng(1)
    leaves = {i: rng.normal(size=graph[i].type.shape).astype(np.float32) for i in graph.inputs}
    old, new = evaluate(graph, leaves), evaluate(after, leaves)
    for path, i in graph.outputs.items():
        np.testing.assert_array_equal(old[i], new[after.outputs[path]])
    for each, i in graph.updates.items():
        np.testing.assert_array_equal(old[i], new[after.updates[each]])


def test_its_spelling():
    assert parse_pass("materialise") == Materialise()
