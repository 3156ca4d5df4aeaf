"""The pattern for several reductions at once: what it groups, what it leaves alone, and that groups are legal."""

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
from irconv.kernel import kernel_bytes, make_kernel
from irconv.ops.contract import matmul
from irconv.ops.elementwise import add, exp, greater, multiply, relu, square, subtract, where
from irconv.ops.reduce import reduce_max, reduce_mean, reduce_sum
from irconv.passes.patterns import Search
from irconv.passes.sibling_reductions import MOST_REDUCTIONS, reductions
from irconv.strides import row_major
from irconv.target import Target
from irconv.types import tensor_type
from tests.counting import assert_near_linear

AXES = (0, 2, 3)
SHAPE = (4, 8, 6, 6)
KINDS = frozenset({"elementwise", "elementwise_reduce", "matmul_epilogue", "reductions"})


def graph_of(build, *shapes) -> Graph:
    graph = Graph("siblings")
    builder = Builder(graph)
    inputs = [builder.input(f"x{i}", tensor_type("f32", s)) for i, s in enumerate(shapes)]
    for i, value in enumerate(build(*inputs)):
        graph.set_output(f"y{i}", value.id)
    return graph


def groups(graph: Graph) -> list[list[str]]:
    return [[graph[i].op.name for i in g.nodes] for g in reductions(Search(graph))]


def check_acyclic(graph: Graph, partition) -> None:
    home = {i: k.name for k in partition.kernels for i in k.nodes}
    quotient = nx.DiGraph()
    quotient.add_nodes_from(home.values())
    for i in home:
        quotient.add_edges_from((home[o], home[i]) for o in graph[i].operands if o in home and home[o] != home[i])
    assert nx.is_directed_acyclic_graph(quotient)


def batch_norm_backward(y, d, x, scale):
    """The mask of a ReLU, both sums, and the gradient of the input, which needs them."""
    masked = where(greater(y, 0.0), d, 0.0)
    total = reduce_sum(masked, AXES, True)
    product = reduce_sum(multiply(masked, x), AXES, True)
    return [subtract(multiply(masked, scale), add(total, multiply(x, product)))]


def test_batch_norm_backward_is_two_kernels() -> None:
    graph = graph_of(batch_norm_backward, SHAPE, SHAPE, SHAPE, (1, 8, 1, 1))
    assert groups(graph) == [["greater", "where", "sum", "multiply", "sum"]]
    partition = fusion.fuse(graph, Target("test", KINDS))
    assert [k.kind for k in partition.kernels if k.kind in ("reductions", "elementwise")] == ["reductions", "elementwise"]
    full = 4 * np.prod(SHAPE)
    # y, d and x are read and the masked gradient written; then that and x are read and the result written
    assert sum(kernel_bytes(graph, k) // full for k in partition.kernels) == 4 + 3
    without = fusion.fuse(graph, Target("test", KINDS - {"reductions"}))
    assert sum(kernel_bytes(graph, k) // full for k in without.kernels) >= 9


def test_a_single_reduction_with_a_stored_value() -> None:
    graph = graph_of(lambda y, d, w: [matmul(m := where(greater(y, 0.0), d, 0.0), w), reduce_sum(m, 0)], (9, 5), (9, 5), (5, 3))
    assert groups(graph) == [["greater", "where", "sum"]]


def test_a_single_reduction_of_its_own_work_is_left_to_the_others() -> None:
    assert groups(graph_of(lambda x: [reduce_sum(square(x), AXES)], SHAPE)) == []


def test_axes_shapes_and_operands_must_agree() -> None:
    assert groups(graph_of(lambda x: [reduce_sum(x, AXES), reduce_sum(x, (2, 3))], SHAPE)) == []
    assert groups(graph_of(lambda x, y: [reduce_sum(x, AXES), reduce_sum(y, AXES)], SHAPE, SHAPE)) == []
    assert groups(graph_of(lambda x, b: [reduce_sum(x, AXES), reduce_sum(b, AXES)], SHAPE, (1, 8, 6, 6))) == []
    assert groups(graph_of(lambda x: [reduce_sum(x, AXES), reduce_max(x, AXES, True)], SHAPE)) == [["sum", "max"]]


def test_a_reduction_that_needs_another_is_no_sibling() -> None:
    """Softmax: the sum of exp(x - max(x)) needs the maximum, though both reduce what comes from x."""

    def softmax(x):
        top = reduce_max(x, 1, True)
        return [reduce_sum(exp(subtract(x, top)), 1)]

    assert groups(graph_of(softmax, (6, 10))) == []

    def through_the_outside(x, w):
        first = reduce_sum(x, 0)
        return [first, reduce_sum(multiply(x, matmul(add(first, 0.0), w)), 0)]

    assert groups(graph_of(through_the_outside, (6, 5), (5, 5))) == []


def test_a_value_that_fuses_with_its_reader_is_not_stored_for_the_sum() -> None:
    """u = (x + 1) * 2 is one elementwise kernel; computing x + 1 beside its sum would store it."""
    graph = graph_of(lambda x: [multiply(v := add(x, 1.0), 2.0), reduce_sum(v, AXES)], SHAPE)
    assert all("add" not in group for group in groups(graph))


def test_no_more_reductions_than_accumulators() -> None:
    graph = graph_of(lambda x: [reduce_sum(multiply(x, float(i + 2)), AXES) for i in range(7)], SHAPE)
    sizes = [group.count("sum") for group in groups(graph)]
    assert sizes == [MOST_REDUCTIONS, 7 - MOST_REDUCTIONS]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_groups_of_random_graphs_are_legal(data) -> None:
    graph = Graph("random")
    builder = Builder(graph)
    full = [builder.input(f"x{i}", tensor_type("f32", (3, 4))) for i in range(2)]
    small = [builder.input("s", tensor_type("f32", (1, 4)))]
    for _ in range(data.draw(st.integers(3, 14))):
        a = data.draw(st.sampled_from(full))
        match data.draw(st.sampled_from(["relu", "binary", "scale", "sum", "mean", "small"])):
            case "relu":
                full.append(relu(a))
            case "binary":
                full.append(multiply(a, data.draw(st.sampled_from(full))))
            case "scale":
                full.append(multiply(a, data.draw(st.sampled_from(small))))
            case "sum":
                small.append(reduce_sum(a, 0, True))
            case "mean":
                small.append(reduce_mean(a, 0, True))
            case _:
                small.append(add(small[-1], data.draw(st.sampled_from(small))))
    for i, value in enumerate((full[-1], small[-1])):
        graph.set_output(f"y{i}", value.id)
    found = list(reductions(Search(graph)))
    assert len({i for g in found for i in g.nodes}) == sum(len(g.nodes) for g in found)
    for group in found:
        members = set(group.nodes)
        folded = {i for i in members if graph[i].op.name in ("sum", "mean")}
        assert not any(folded & set(graph[i].operands) for i in members)
    partition = fusion.fuse(graph, Target("test", KINDS))
    check_acyclic(graph, partition)
    assert sum(k.kind == "reductions" for k in partition.kernels) == len(found)
    for group in found:
        kernel = make_kernel(Search(graph), group.nodes, group.kind)
        strides = {i: row_major(graph[i].type.shape) for n in kernel.nodes for i in (n, *graph[n].operands)}
        made = NATIVE["reductions"](NativeRequest(graph, kernel, strides, MACHINES["sse2"]))
        assert made is not None
        if data.draw(st.integers(0, 3)) == 0:
            check_values(graph, kernel, made)


def check_values(graph: Graph, kernel, made) -> None:
    """The generated code by itself against the interpreter."""
    rng = np.random.default_rng(1)
    values = evaluate(graph, {i: rng.uniform(-1, 1, graph[i].type.shape).astype("f4") for i in graph.inputs})
    outputs = [np.full(graph[i].type.shape, np.nan, "f4") for i in kernel.outputs]
    made.run(*outputs, *(np.ascontiguousarray(values[i]) for i in kernel.inputs), *(np.empty(t.shape, "f4") for t in made.scratch))
    for i, out in zip(kernel.outputs, outputs, strict=True):
        np.testing.assert_allclose(out, values[i], rtol=1e-4, atol=1e-5 * (1 + np.abs(values[i]).max()))


def test_near_linear_time() -> None:
    def chain(length: int):
        def build(x):
            for _ in range(length):
                total = reduce_sum(x, AXES, True)
                x = subtract(relu(x), add(total, reduce_sum(multiply(x, x), AXES, True)))
            return [x]

        graph = graph_of(build, SHAPE)
        return lambda: list(reductions(Search(graph)))

    assert_near_linear(chain, 50, 400)
