"""The pattern for softmax and its kin: what it groups, what it leaves alone, and that groups are legal and have code."""

from __future__ import annotations

import networkx as nx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import irconv.backends.native.kernels  # noqa: F401  enters the generators
import irconv.passes.fuse as fusion
from irconv.backends.codegen.machine import MACHINES
from irconv.backends.native.base import NATIVE, NativeRequest
from irconv.builder import Builder
from irconv.graph import Graph
from irconv.interpret import evaluate
from irconv.kernel import make_kernel
from irconv.ops.elementwise import add, divide, exp, log, multiply, negative, relu, subtract
from irconv.ops.reduce import reduce_max, reduce_sum
from irconv.ops.shape import reshape
from irconv.passes.patterns import Search
from irconv.passes.row_reductions import LONGEST_ROW, row_reductions
from irconv.strides import row_major
from irconv.target import Target
from irconv.types import tensor_type

KINDS = frozenset({"elementwise", "elementwise_reduce", "row_softmax"})


def graph_of(build, *shapes) -> Graph:
    graph = Graph("rows")
    builder = Builder(graph)
    inputs = [builder.input(f"x{i}", tensor_type("f32", s)) for i, s in enumerate(shapes)]
    for i, value in enumerate(build(*inputs)):
        graph.set_output(f"y{i}", value.id)
    return graph


def groups(graph: Graph) -> list[list[str]]:
    return [[graph[i].op.name for i in g.nodes] for g in row_reductions(Search(graph))]


def softmax(x, axis=-1):
    e = exp(subtract(x, reduce_max(x, axis, True)))
    return divide(e, reduce_sum(e, axis, True))


SOFTMAX = ["max", "subtract", "exp", "sum", "divide"]


def test_softmax_is_one_kernel() -> None:
    graph = graph_of(lambda x: [softmax(x)], (6, 10))
    assert groups(graph) == [SOFTMAX]
    assert [k.kind for k in fusion.fuse(graph, Target("test", KINDS)).kernels] == ["row_softmax"]
    assert groups(graph_of(lambda x: [softmax(x, 1)], (2, 21, 4, 5))) == [SOFTMAX]


def test_work_ahead_and_behind_comes_along() -> None:
    graph = graph_of(lambda x: [relu(softmax(multiply(x, 0.5)))], (6, 10))
    assert groups(graph) == [["multiply", *SOFTMAX, "relu"]]


def test_gradients_with_row_values_in_both_forms() -> None:
    def build(d, e, total):
        share = reshape(reduce_sum(negative(d), 1), (6, 1))
        return [add(d, multiply(divide(share, total), e))]

    assert groups(graph_of(build, (6, 10), (6, 10), (6, 1))) == [["negative", "sum", "reshape", "divide", "multiply", "add"]]


def test_what_is_left_to_others() -> None:
    assert groups(graph_of(lambda x: [reduce_sum(exp(x), 1)], (6, 10))) == []  # nothing reads the sum
    assert groups(graph_of(lambda x: [softmax(x, 0)], (6, 10))) == []  # neither last nor channels
    assert groups(graph_of(lambda x: [softmax(x, (2, 3))], (2, 3, 4, 5))) == []  # two axes
    assert groups(graph_of(lambda x: [softmax(x)], (2, LONGEST_ROW + 1))) == []
    assert groups(graph_of(lambda x: [softmax(x)], (2, 1))) == []


def test_a_vector_along_the_row_is_no_row_value() -> None:
    """In a square, a scale of shape [8] has the shape of a sum without its axis."""
    graph = graph_of(lambda x, s: [multiply(softmax(x), relu(s))], (8, 8), (8,))
    assert groups(graph) == [[*SOFTMAX, "multiply"]]


def test_a_path_through_the_outside_is_not_closed() -> None:
    """e is needed before and after something that no row kernel computes."""

    def build(x):
        e = exp(subtract(x, reduce_max(x, 1, True)))
        other = reshape(reduce_sum(reshape(e, (60,)), 0, True), (1, 1))
        return [divide(e, other)]

    graph = graph_of(build, (6, 10))
    assert groups(graph) == [["max", "subtract", "exp"]]
    check_acyclic(fusion.fuse(graph, Target("test", KINDS)), graph)


def test_log_softmax() -> None:
    def build(x):
        away = subtract(x, reduce_max(x, 1, True))
        e = exp(away)
        return [subtract(away, log(reduce_sum(e, 1, True))), e]

    assert groups(graph_of(build, (6, 10))) == [["max", "subtract", "exp", "sum", "log", "subtract"]]


def check_acyclic(partition, graph: Graph) -> None:
    home = {i: k.name for k in partition.kernels for i in k.nodes}
    quotient = nx.DiGraph()
    quotient.add_nodes_from(home.values())
    for i in home:
        quotient.add_edges_from((home[o], home[i]) for o in graph[i].operands if o in home and home[o] != home[i])
    assert nx.is_directed_acyclic_graph(quotient)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_groups_are_legal_and_have_code(data) -> None:
    rows, length = data.draw(st.sampled_from([(5, 3), (4, 4), (1, 6)]))
    graph = Graph("random")
    builder = Builder(graph)
    full = [builder.input(f"x{i}", tensor_type("f32", (rows, length))) for i in range(2)]
    kept = [builder.input("k", tensor_type("f32", (rows, 1)))]
    dropped = [builder.input("d", tensor_type("f32", (rows,)))]
    along = [builder.input("a", tensor_type("f32", (length,)))]
    for _ in range(data.draw(st.integers(4, 16))):
        match data.draw(st.sampled_from(["full", "scale", "along", "sum", "dropped", "kept", "shape", "one"])):
            case "full":
                full.append(add(data.draw(st.sampled_from(full)), relu(full[-1])))
            case "scale":
                full.append(multiply(full[-1], data.draw(st.sampled_from(kept))))
            case "along":
                along.append(negative(along[-1]))
                full.append(subtract(full[-1], data.draw(st.sampled_from(along))))
            case "sum":
                kept.append(reduce_max(data.draw(st.sampled_from(full)), 1, True))
            case "dropped":
                dropped.append(reduce_sum(full[-1], 1))
            case "kept":
                kept.append(log(add(exp(negative(relu(kept[-1]))), 1.0)))
            case "shape":
                kept.append(reshape(data.draw(st.sampled_from(dropped)), (rows, 1)))
            case _:
                dropped.append(multiply(dropped[-1], data.draw(st.sampled_from(dropped))))
    for i, value in enumerate((full[-1], kept[-1], dropped[-1])):
        graph.set_output(f"y{i}", value.id)
    found = list(row_reductions(Search(graph)))
    assert len({i for g in found for i in g.nodes}) == sum(len(g.nodes) for g in found)
    partition = fusion.fuse(graph, Target("test", KINDS))
    check_acyclic(partition, graph)
    assert sum(k.kind == "row_softmax" for k in partition.kernels) == len(found)
    for group in found:
        kernel = make_kernel(Search(graph), group.nodes, group.kind)
        strides = {i: row_major(graph[i].type.shape) for n in kernel.nodes for i in (n, *graph[n].operands)}
        made = NATIVE["row_softmax"](NativeRequest(graph, kernel, strides, MACHINES["sse2"]))
        assert made is not None
        if data.draw(st.integers(0, 3)) == 0:
            check_values(graph, kernel, made)


def check_values(graph: Graph, kernel, made) -> None:
    """The kernel by itself against the interpreter."""
    rng = np.random.default_rng(1)
    arrays = {i: rng.uniform(-1, 1, graph[i].type.shape).astype("f4") for i in graph.inputs}
    values = evaluate(graph, arrays)
    outputs = [np.full(graph[i].type.shape, np.nan, "f4") for i in kernel.outputs]
    made.run(*outputs, *(np.ascontiguousarray(values[i]) for i in kernel.inputs))
    for i, out in zip(kernel.outputs, outputs, strict=True):
        np.testing.assert_allclose(out, values[i], rtol=1e-4, atol=1e-5 * (1 + np.abs(values[i]).max()))
