"""Graph and Builder: adding, rewiring, removing, naming, order, the networkx view, and errors."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings

import irconv.ops.elementwise as ops
from irconv.builder import Builder
from irconv.errors import DTypeError, GraphError, ShapeError
from irconv.graph import Composite, Graph, Provenance
from irconv.inspect.dump import diff, layer_table, to_dot, to_graphml, to_json
from irconv.op import NO_ATTRIBUTES, OPS
from irconv.places import Location
from irconv.text import parse
from irconv.types import F16, tensor_type
from irconv.verify import verify
from tests.counting import assert_near_linear
from tests.example_graphs import graphs, small_network

F32 = tensor_type("f32", (2,))


def chain(*names: str) -> Graph:
    """x -> relu -> relu ..., the last one the output."""
    graph = Graph("chain")
    last = graph.add_input("x", F32).id
    for name in names:
        last = graph.add(OPS["relu"], NO_ATTRIBUTES, [last], name=name).id
    graph.set_output("", last)
    return graph


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph]


# --- operands and order ----------------------------------------------------------------------------------------------------


def test_the_same_operand_twice_is_two_edges() -> None:
    graph = Graph()
    x, y = graph.add_input("x", F32), graph.add_input("y", F32)
    double = graph.add(OPS["add"], NO_ATTRIBUTES, [x.id, x.id])
    other = graph.add(OPS["subtract"], NO_ATTRIBUTES, [y.id, x.id])
    assert graph.users(x.id) == [(double, 0), (double, 1), (other, 1)]
    assert graph.use_count(x.id) == 3
    assert graph.operands(other) == (y, x)
    assert sorted(graph.nx.edges(keys=True)) == [("x", "add", 0), ("x", "add", 1), ("x", "subtract", 1), ("y", "subtract", 0)]


def test_order_is_program_order_with_operands_first() -> None:
    graph = chain("a", "b", "c")
    late = graph.add(OPS["negative"], NO_ATTRIBUTES, [graph["x"].id], name="late")
    assert names(graph) == ["x", "a", "b", "c", "late"]
    graph.set_operands(graph["b"].id, [late.id])
    assert names(graph) == ["x", "a", "late", "b", "c"]


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_order_is_topological_and_deterministic(graph: Graph) -> None:
    order = graph.order()
    place = {node_id: k for k, node_id in enumerate(order)}
    assert sorted(order) == graph.ids()
    assert all(place[operand] < place[node.id] for node in graph for operand in node.operands)
    assert graph.copy().order() == order
    verify(graph)
    assert nx.is_directed_acyclic_graph(graph.nx)


def test_a_cycle_is_reported() -> None:
    graph = chain("a", "b")
    graph.set_operands(graph["a"].id, [graph["b"].id])
    with pytest.raises(GraphError, match=r"%[ab] depends on itself"):
        graph.order()


# --- changing --------------------------------------------------------------------------------------------------------------


def test_replace_rewires_users_outputs_and_updates() -> None:
    graph = Graph()
    state = graph.add_state("s", F32, "state")
    old = graph.add(OPS["relu"], NO_ATTRIBUTES, [state.id], name="old")
    user = graph.add(OPS["add"], NO_ATTRIBUTES, [old.id, old.id], name="user")
    new = graph.add(OPS["exp"], NO_ATTRIBUTES, [old.id], name="new")
    graph.set_output("a", old.id)
    graph.set_update(state.id, old.id)
    graph.replace(old.id, new.id)
    assert graph[user.id].operands == (new.id, new.id)
    assert graph[new.id].operands == (old.id,)  # what replaces a value may be made from it
    assert graph.outputs == {"a": new.id}
    assert graph.updates == {state.id: new.id}
    assert graph.users(old.id) == [(graph[new.id], 0)]
    graph.replace(new.id, new.id)
    verify(graph)


def test_removing() -> None:
    graph = chain("a", "b", "c")
    graph.set_output("", graph["a"].id)
    with pytest.raises(GraphError, match="%b is still read by %c"):
        graph.remove(graph["b"].id)
    with pytest.raises(GraphError, match="%a is part of the signature"):
        graph.remove_all([graph["a"].id])
    with pytest.raises(GraphError, match="%b is still read by %c"):
        graph.remove_all([graph["b"].id])
    with pytest.raises(GraphError, match="has no node 77"):
        graph.remove_all([77])
    graph.remove_all([graph["b"].id, graph["c"].id])
    with pytest.raises(GraphError, match="%a is part of the signature"):
        graph.remove(graph["a"].id)
    with pytest.raises(GraphError, match="%x is still read"):
        graph.remove(graph["x"].id)
    assert names(graph) == ["x", "a"]
    verify(graph)


def test_removing_a_state_unbinds_it() -> None:
    graph = small_network()
    graph.remove(graph["blur"].id)
    assert "blur" not in graph.state
    assert not graph.has_name("blur")
    verify(graph)


def test_a_state_with_an_update_stays() -> None:
    graph = Graph()
    state, x = graph.add_state("s", F32, "state"), graph.add_input("x", F32)
    graph.set_update(state.id, x.id)
    with pytest.raises(GraphError, match="%s still has an update"):
        graph.remove(state.id)
    with pytest.raises(GraphError, match="%x is part of the signature"):
        graph.remove(x.id)


def test_changes_that_break_a_rule_are_refused() -> None:
    graph = chain("a")
    wide = graph.add_input("wide", tensor_type("f32", (3,)))
    half = graph.add(OPS["cast"], ops.CastAttributes(F16), [0])
    before = str(graph)
    with pytest.raises(GraphError, match=r"rewiring %a would change its type from f32\[2\] to f32\[3\]"):
        graph.set_operands(graph["a"].id, [wide.id])
    with pytest.raises(GraphError, match=r"%wide of type f32\[3\] cannot replace %a of type f32\[2\]"):
        graph.replace(graph["a"].id, wide.id)
    with pytest.raises(GraphError, match="operand 99 is not a node"):
        graph.add(OPS["relu"], NO_ATTRIBUTES, [99])
    with pytest.raises(GraphError, match=r"add takes operands \(x, y\), got 1"):
        graph.add(OPS["add"], NO_ATTRIBUTES, [0])
    with pytest.raises(GraphError, match="cast needs CastAttributes, got NoAttributes"):
        graph.add(OPS["cast"], NO_ATTRIBUTES, [0])
    with pytest.raises(ShapeError, match=r"\[2\] and \[3\] do not broadcast") as caught:
        graph.add(OPS["add"], NO_ATTRIBUTES, [0, wide.id])
    assert caught.value.excerpt == "add(f32[2], f32[3])"
    with pytest.raises(DTypeError, match="different element types"):
        graph.add(OPS["add"], NO_ATTRIBUTES, [0, half.id])
    with pytest.raises(GraphError, match="%x is not a state"):
        graph.set_update(0, 0)
    with pytest.raises(GraphError, match="has no node 'nope'"):
        graph.set_output("y", "nope")  # type: ignore[arg-type]
    assert str(graph) == before


def test_updates_take_their_states_type() -> None:
    graph = Graph()
    state, x = graph.add_state("s", F32, "state"), graph.add_input("x", tensor_type("f32", (3,)))
    with pytest.raises(GraphError, match=r"update of %s: f32\[2\] cannot take a value of type f32\[3\]"):
        graph.set_update(state.id, x.id)


# --- names -----------------------------------------------------------------------------------------------------------------


def test_names_that_are_taken_get_a_suffix() -> None:
    graph = chain("a", "a", "a_1", "a")
    assert names(graph) == ["x", "a", "a_1", "a_1_1", "a_2"]
    assert graph.rename(graph["a_2"].id, "x").name == "x_1"
    assert graph.rename(graph["x_1"].id, "x_1").name == "x_1"
    assert graph.rename(graph["x_1"].id, "").name == "relu"
    assert not graph.has_name("x_1")
    verify(graph)


def test_renaming_a_state_keeps_its_variable() -> None:
    graph = small_network()
    variable = graph.state["blur"]
    graph.rename(graph["blur"].id, "sharpen")
    assert graph.state["sharpen"] is variable
    assert "blur" not in graph.state
    verify(graph)


def test_the_builder_names_the_result_of_a_block() -> None:
    graph = Graph()
    builder = Builder(graph)
    x = builder.input("x", F32)
    for _ in range(2):
        with builder.at(Provenance(Location("m.py", 1), "act"), "act"):
            y = ops.add(ops.exp(ops.negative(x)), 1.0)
    assert [n for n in names(graph) if "constant" not in n] == [
        "x", "act.negative", "act.exp", "act", "act_1.negative", "act_1.exp", "act_1",
    ]  # fmt: skip
    assert y.node.provenance == Provenance(Location("m.py", 1), "act")
    assert repr(y) == "%act_1: f32[2]"
    assert ops.relu(x).node.name == "relu"


def test_the_builder_places_errors_and_refuses_foreign_values() -> None:
    first, second = Builder(Graph("first")), Builder(Graph("second"))
    x, wide = first.input("x", F32), first.input("w", tensor_type("f32", (3,)))
    with pytest.raises(ShapeError) as caught, first.at(Provenance(Location("m.py", 7))):
        ops.add(x, wide)
    assert caught.value.location == Location("m.py", 7)
    with pytest.raises(GraphError, match="a value of another graph was used while building 'first'"):
        ops.add(x, second.input("x", F32))


def test_builder_constants_are_copies() -> None:
    builder = Builder(Graph())
    array = np.zeros(2, np.float32)
    constant = builder.constant(array)
    array[:] = 1
    assert not constant.node.attributes.value.any()


# --- copies and speed ------------------------------------------------------------------------------------------------------


def test_a_copy_is_independent() -> None:
    graph = small_network()
    before = str(graph)
    copy = graph.copy()
    assert str(copy) == before
    copy.rename(copy["bn"].id, "other")
    copy.replace(copy["conv1"].id, copy["x"].id)
    copy.remove(copy["conv1"].id)
    copy.drop_outputs()
    copy.updates.clear()
    assert str(graph) == before
    assert copy.state["blur"] is graph.state["blur"]
    verify(graph)
    verify(copy)
    assert len({graph, copy}) == 2


def test_adding_and_copying_take_near_linear_time() -> None:
    def adding(size: int) -> Callable[[], object]:
        return lambda: chain(*(f"n{k}" for k in range(size)))

    def adding_under_one_name(size: int) -> Callable[[], object]:
        return lambda: chain(*["n"] * size)

    def copying(size: int) -> Callable[[], object]:
        return chain(*(f"n{k}" for k in range(size))).copy

    for make in (adding, adding_under_one_name, copying):
        assert_near_linear(make, 200, 1600)


# --- the networkx view -----------------------------------------------------------------------------------------------------


def test_the_view_is_frozen_and_follows_changes() -> None:
    graph = small_network()
    view = graph.nx
    assert graph.nx is view
    with pytest.raises(nx.NetworkXError):
        view.add_node("y")
    graph.rename(graph["bn"].id, "norm")
    assert "norm" in graph.nx
    assert "norm" not in view
    assert view.nodes["bn"] == {
        "op": "add", "type": "f32[2,3]", "attributes": "", "role": "output", "scope": "bn",
        "composite": "batch_norm bn", "origin": "", "location": "model.py:13",
    }  # fmt: skip
    assert [view.nodes[n]["role"] for n in ("x", "conv1.weight", "conv1")] == ["input", "state", "value"]


def test_networkx_algorithms_work() -> None:
    view = small_network().nx
    assert nx.dag_longest_path(view) == ["x", "conv1", "bn.subtract", "bn.multiply", "bn", "d_conv1"]
    assert "conv1" in nx.ancestors(view, "bn")
    assert nx.number_weakly_connected_components(view) == 3
    assert list(nx.topological_generations(view))
    assert nx.transitive_closure_dag(nx.DiGraph(view)).has_edge("x", "d_conv1")


def test_networkx_exporters_work() -> None:
    view = small_network().nx
    back = nx.node_link_graph(nx.node_link_data(view, edges="edges"), edges="edges")
    assert nx.utils.graphs_equal(nx.MultiDiGraph(back), nx.MultiDiGraph(view))
    buffer = io.BytesIO()
    nx.write_graphml(view, buffer)
    assert set(nx.parse_graphml(buffer.getvalue().decode()).nodes) == set(view.nodes)
    assert "conv1" in "".join(nx.generate_gexf(view))


def test_networkx_writes_dot_where_pydot_is_installed() -> None:
    pytest.importorskip("pydot")
    view = small_network().nx
    dot = nx.nx_pydot.to_pydot(view)
    assert len(dot.get_edges()) == view.number_of_edges()


# --- dumps -----------------------------------------------------------------------------------------------------------------


def odd_graph() -> Graph:
    graph = Graph('a"\\')
    operands = [graph.add_input(name, F32).id for name in ('x\x00"\\', "<&>\n\x1b")]
    graph.set_output("", graph.add(OPS["add"], NO_ATTRIBUTES, operands, name="b:c").id)
    return graph


@pytest.mark.parametrize("make", [small_network, odd_graph])
def test_json(make) -> None:
    graph = make()
    data = json.loads(to_json(graph))
    back = nx.node_link_graph(data, edges="edges")
    assert nx.utils.graphs_equal(nx.MultiDiGraph(back), nx.MultiDiGraph(graph.nx))
    assert data["signature"]["inputs"] == [graph[i].name for i in graph.inputs]
    assert data["signature"]["outputs"] == {path: graph[i].name for path, i in graph.outputs.items()}


@pytest.mark.parametrize("make", [small_network, odd_graph])
def test_graphml(make) -> None:
    graph = make()
    back = nx.parse_graphml(to_graphml(graph), force_multigraph=True)
    assert back.number_of_nodes() == graph.nx.number_of_nodes()
    assert back.number_of_edges() == graph.nx.number_of_edges()


@pytest.mark.parametrize("make", [small_network, odd_graph])
def test_dot(make) -> None:
    pydot = pytest.importorskip("pydot")
    graph = make()
    text = to_dot(graph)
    (dot,) = pydot.graph_from_dot_data(text)
    assert {node.get_name() for node in dot.get_nodes()} - {"node"} == {f"n{node.id}" for node in graph}
    assert len(dot.get_edges()) == graph.nx.number_of_edges() + len(graph.updates)
    assert text.count("\n") == len(graph) + len(dot.get_edges()) + 3


def test_dot_text() -> None:
    assert to_dot(parse('irconv 1\ngraph f(%"a\\"b\\\\": f32[2]) {\n  %y = relu(%"a\\"b\\\\") : f32[2]\n  return %y\n}')) == (
        'digraph "f" {\n'
        '  node [shape=box, fontname="monospace"];\n'
        '  n0 [label="%a\\"b\\\\\\ninput\\nf32[2]", shape=ellipse, tooltip=""];\n'
        '  n1 [label="%y\\nrelu\\nf32[2]", shape=doubleoctagon, tooltip=""];\n'
        "  n0 -> n1;\n"
        "}\n"
    )


def test_the_layer_table() -> None:
    rows = layer_table(small_network())
    assert [(row.name, row.kinds, str(row.output), row.parameters, row.macs) for row in rows] == [
        ("conv1", ("multiply",), "f32[2,3]", 3, 0),
        ("bn", ("batch_norm",), "f32[2,3]", 0, 0),
        ("large", ("add",), "f32[8,3]", 0, 0),
    ]


def test_parameters_are_counted_in_the_first_layer_that_reads_them() -> None:
    graph = Graph()
    builder = Builder(graph)
    x, w = builder.input("x", F32), builder.wrap(graph.add_state("w", F32, "param"))
    for scope in ("encoder", "decoder"):
        with builder.at(Provenance(scope=scope, composite=Composite("gelu", f"{scope}.act"))):
            ops.multiply(ops.exp(x), w)
    assert [(row.name, row.kinds, row.parameters) for row in layer_table(graph)] == [
        ("encoder.act", ("gelu",), 2),
        ("decoder.act", ("gelu",), 0),
    ]


def test_diff() -> None:
    before, after = chain("a"), chain("a", "b")
    assert diff(before, after, "first", "second") == (
        "--- first\n+++ second\n@@ -1,5 +1,6 @@\n irconv 1\n graph chain(%x: f32[2]) {\n   %a = relu(%x) : f32[2]\n"
        "-  return %a\n+  %b = relu(%a) : f32[2]\n+  return %b\n }\n"
    )
    assert diff(before, str(before)) == ""
