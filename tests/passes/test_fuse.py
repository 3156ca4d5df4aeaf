"""Fusion: which kernels are formed, that the quotient stays acyclic, reasons, and linear time."""

from __future__ import annotations

from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.builder import Builder
from irconv.graph import Graph, Provenance
from irconv.kernel import kernel_bytes, print_kernels
from irconv.ops.contract import im2col, matmul
from irconv.ops.conv import conv
from irconv.ops.elementwise import add, exp, greater, multiply, relu, sigmoid, square, subtract, tanh, where
from irconv.ops.pool import argmax_pool, max_pool
from irconv.ops.reduce import reduce_mean, reduce_sum, variance
from irconv.ops.shape import flip, reshape, transpose
from irconv.passes.differentiate import differentiate
from irconv.passes.fuse import fuse, single_nodes
from irconv.passes.plan_memory import plan_memory
from irconv.passes.quotient import Quotient
from irconv.passes.schedule import schedule
from irconv.types import tensor_type
from tests.counting import assert_near_linear
from tests.passes.programs import PLAIN, SHARING, compiled, graphs, state


def new_graph(*shape: int):
    builder = Builder(Graph("fuse"))
    return builder.graph, builder, builder.input("x", tensor_type("f32", shape))


def kinds(partition) -> list[str]:
    return [kernel.kind for kernel in partition.kernels]


def ops_of(graph, kernel) -> list[str]:
    return [graph[i].op.name for i in kernel.nodes]


# --- legality --------------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_a_partition_into_an_acyclic_whole(graph):
    partition = fuse(graph, SHARING)
    computed = [i for i in graph.order() if not graph[i].is_leaf]
    assert sorted(i for k in partition.kernels for i in k.nodes) == sorted(computed)
    home = {i: k.name for k in partition.kernels for i in k.nodes}
    quotient = nx.DiGraph()
    quotient.add_nodes_from(home.values())
    for i in computed:
        for operand in graph[i].operands:
            if operand in home and home[operand] != home[i]:
                quotient.add_edge(home[operand], home[i])
                assert partition.reasons[operand, i]
    assert nx.is_directed_acyclic_graph(quotient)
    seen: set[str] = set()
    for kernel in partition.kernels:  # in topological order
        assert set(quotient.predecessors(kernel.name)) <= seen
        seen.add(kernel.name)
    assert fuse(graph, SHARING) == partition


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_merging_keeps_a_topological_order(data):
    count = data.draw(st.integers(2, 14))
    operands = {i: data.draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else set() for i in range(count)}
    quotient = Quotient(range(count), operands)
    for _ in range(data.draw(st.integers(1, 12))):
        first, second = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, count - 1))
        before = {i: quotient.find(i) for i in range(count)}
        refused = quotient.merge(first, second)
        assert bool(refused) == _would_be_cyclic(operands, before, first, second)
        place = {i: n for n, group in enumerate(quotient.groups()) for i in group}
        assert sorted(place) == list(range(count))
        assert all(place[o] <= place[i] for i in operands for o in operands[i])


def _would_be_cyclic(operands, home, first, second) -> bool:
    merged = {i: home[first] if h == home[second] else h for i, h in home.items()}
    graph = nx.DiGraph((merged[o], merged[i]) for i in operands for o in operands[i] if merged[o] != merged[i])
    return not nx.is_directed_acyclic_graph(graph)


def test_what_needs_a_kernel_in_between_is_not_merged():
    graph, _, x = new_graph(4, 4)
    y = tanh(x)
    z = multiply(y, reduce_sum(y, (1,), keepdims=True))
    graph.set_output("z", z.id)
    partition = fuse(graph, SHARING)
    assert kinds(partition) == ["tanh", "sum", "multiply"]
    assert "has to run in between" in partition.reasons[y.id, z.id]


# --- kinds -----------------------------------------------------------------------------------------------------------------


def test_without_kinds_every_node_is_a_kernel():
    graph, _, x = new_graph(4)
    graph.set_output("y", tanh(relu(exp(x))).id)
    assert kinds(single_nodes(graph)) == ["exp", "relu", "tanh"] == kinds(fuse(graph, PLAIN))


def test_elementwise_with_several_results_and_broadcast_operands():
    graph, builder, x = new_graph(4, 8)
    bias = state(builder, "bias", np.zeros(8, np.float32))
    y = add(x, bias)
    graph.set_output("y", relu(y).id)
    graph.set_output("z", tanh(y).id)
    (kernel,) = fuse(graph, SHARING).kernels
    assert kernel.kind == "elementwise"
    assert (len(kernel.nodes), len(kernel.inputs), len(kernel.outputs)) == (3, 2, 2)
    assert kernel_bytes(graph, kernel) == (3 * 32 + 8) * 4


def test_no_more_nodes_than_the_target_takes():
    graph, _, x = new_graph(4)
    for _ in range(10):
        x = tanh(x)
    graph.set_output("y", x.id)
    partition = fuse(graph, replace(SHARING, max_nodes=4))
    assert max(len(k.nodes) for k in partition.kernels) <= 4
    assert any("takes at most 4" in reason for reason in partition.reasons.values())


@pytest.mark.parametrize("activation", [relu, lambda y: multiply(y, sigmoid(y))], ids=["relu", "silu"])
def test_conv_with_bias_activation_and_residual(activation):
    graph, builder, x = new_graph(2, 4, 6, 6)
    w = state(builder, "w", np.zeros((4, 4, 3, 3), np.float32))
    b = state(builder, "b", np.zeros((4, 1, 1), np.float32))
    y = add(activation(add(conv(x, w, padding=1), b)), x)
    graph.set_output("y", y.id)
    (kernel,) = fuse(graph, SHARING).kernels
    assert kernel.kind == "conv_epilogue"
    assert graph[kernel.nodes[0]].op.name == "conv"
    assert kernel.outputs == (y.id,)


def test_an_epilogue_takes_the_work_on_its_other_operands_along():
    graph, builder, x = new_graph(2, 4)
    mask = greater(x, 0)
    y = matmul(x, state(builder, "w", np.zeros((4, 4), np.float32)))
    graph.set_output("y", where(mask, y, multiply(tanh(x), 0.5)).id)
    (kernel,) = fuse(graph, SHARING).kernels
    assert ops_of(graph, kernel) == ["matmul", "greater", "tanh", "multiply", "where"]  # the contraction first


def test_two_contractions_share_what_they_are_added_by():
    graph, builder, x = new_graph(2, 4, 6, 6)
    v, w = (state(builder, name, np.zeros((4, 4, 1, 1), np.float32)) for name in "vw")
    bias = state(builder, "b", np.zeros((4, 1, 1), np.float32))
    graph.set_output("y", relu(add(add(conv(x, v), bias), add(conv(x, w), bias))).id)
    first, second = fuse(graph, SHARING).kernels
    assert {first.kind, second.kind} == {"conv_epilogue"}
    assert sorted([ops_of(graph, first), ops_of(graph, second)]) == [["conv", "add"], ["conv", "add", "add", "relu"]]


def test_a_new_weight_is_computed_where_it_can_be_written_in_place():
    graph, builder, x = new_graph(8, 4)
    w = state(builder, "w", np.zeros((4, 3), np.float32))
    d = builder.input("d", tensor_type("f32", (8, 3)))
    graph.set_update(w.id, subtract(w, multiply(matmul(transpose(x), d), 0.1)).id)
    graph.set_output("y", relu(x).id)
    kernel = next(k for k in fuse(graph, SHARING).kernels if k.outputs[0] == graph.updates[w.id])
    assert "matmul" not in ops_of(graph, kernel)


def test_an_epilogue_ends_where_the_value_is_read_elsewhere():
    graph, builder, x = new_graph(2, 4, 6, 6)
    w = state(builder, "w", np.zeros((4, 4, 3, 3), np.float32))
    y = relu(conv(x, w, padding=1))
    graph.set_output("z", tanh(conv(y, w, padding=1)).id)
    graph.set_output("y", tanh(y).id)
    partition = fuse(graph, SHARING)
    first = partition.kernels[0]
    assert ops_of(graph, first) == ["conv", "relu"]
    assert sorted(kinds(partition)) == ["conv_epilogue", "conv_epilogue", "tanh"]


def test_a_contraction_that_is_an_output_keeps_to_itself():
    graph, builder, x = new_graph(2, 4)
    y = matmul(x, state(builder, "w", np.zeros((4, 4), np.float32)))
    graph.set_output("y", y.id)
    graph.set_output("z", relu(y).id)
    partition = fuse(graph, SHARING)
    assert kinds(partition) == ["matmul", "relu"]
    assert "also read elsewhere" in partition.reasons[y.id, graph.outputs["z"]]


def test_why_a_product_ends_before_a_new_state():
    graph, builder, x = new_graph(4, 4)
    w = state(builder, "w", np.zeros((4, 4), np.float32))
    product = matmul(x, x)
    new = subtract(w, product)
    graph.set_update(w.id, new.id)
    partition = fuse(graph, SHARING)
    assert kinds(partition) == ["matmul", "subtract"]
    assert partition.reasons[product.id, new.id].endswith("is written over the old one: the kernel of a matmul cannot")


def test_why_a_product_is_stored_for_the_next():
    graph, builder, x = new_graph(4, 4)
    w = state(builder, "w", np.zeros((4, 4), np.float32))
    product = matmul(x, w)
    second = matmul(product, w)
    graph.set_output("y", relu(second).id)
    partition = fuse(graph, SHARING)
    assert kinds(partition) == ["matmul", "matmul_epilogue"]
    assert partition.reasons[product.id, second.id] == "kernels of kind matmul_epilogue read their input from memory"


def test_matmul_epilogue():
    graph, builder, x = new_graph(2, 4)
    w = state(builder, "w", np.zeros((4, 3), np.float32))
    graph.set_output("y", relu(add(matmul(x, w), state(builder, "b", np.zeros(3, np.float32)))).id)
    assert kinds(fuse(graph, SHARING)) == ["matmul_epilogue"]


def test_max_pool_with_its_indices():
    graph, _, x = new_graph(1, 2, 8, 8)
    graph.set_output("y", relu(max_pool(x, 2)).id)
    graph.set_output("taps", argmax_pool(x, 2).id)
    graph.set_output("others", argmax_pool(x, 3).id)
    partition = fuse(graph, SHARING)
    assert sorted(kinds(partition)) == ["argmax_pool", "pool_indices", "relu"]


def test_mean_with_variance():
    graph, _, x = new_graph(8, 4, 5)
    mean = reduce_mean(x, (0, 2), keepdims=True)
    centred = subtract(x, mean)
    spread = reduce_mean(multiply(centred, centred), (0, 2), keepdims=True)  # no square: another pattern
    graph.set_output("v", variance(x, (0, 2)).id)
    graph.set_output("m", mean.id)
    graph.set_output("s", spread.id)
    found = [k for k in fuse(graph, SHARING).kernels if k.kind == "mean_variance"]
    assert [ops_of(graph, k) for k in found] == [["mean", "subtract", "square", "mean"]]


def test_mean_with_variance_whose_axes_are_brought_back():
    graph, _, x = new_graph(8, 4, 5)
    mean = reduce_mean(x, (0, 2))
    centred = subtract(x, reshape(mean, (1, 4, 1)))
    graph.set_output("v", reduce_mean(square(centred), (0, 2)).id)
    graph.set_output("m", mean.id)
    graph.set_output("c", relu(centred).id)
    first, _ = fuse(graph, SHARING).kernels
    assert (first.kind, first.outputs) == ("mean_variance", (mean.id, centred.id, graph.outputs["v"]))


def test_weight_gradient_of_a_convolution():
    graph, builder, x = new_graph(2, 4, 6, 6)
    w = state(builder, "w", np.zeros((8, 2, 3, 3), np.float32))
    loss = reduce_sum(conv(x, w, stride=2, padding=1, groups=2), (0, 1, 2, 3))
    gradients = differentiate(graph, loss.id, [w.id])
    graph.set_output("d_w", gradients[w.id])
    graph.set_output("loss", loss.id)
    found = [k for k in fuse(graph, SHARING).kernels if k.kind == "conv_weight_gradient"]
    assert len(found) == 1
    assert {"im2col", "matmul"} <= set(ops_of(graph, found[0]))
    assert found[0].outputs == (gradients[w.id],)
    assert x.id in found[0].inputs


def test_columns_that_are_read_elsewhere_are_stored():
    graph, builder, x = new_graph(2, 1, 6, 6)
    columns = im2col(x, (3, 3))
    left = state(builder, "left", np.zeros((1, 4, 32), np.float32))
    graph.set_output("y", matmul(left, columns).id)
    graph.set_output("z", relu(columns).id)
    assert "conv_weight_gradient" not in kinds(fuse(graph, SHARING))


def test_a_reduction_of_elementwise_work():
    graph, _, x = new_graph(4, 8)
    graph.set_output("y", reduce_sum(multiply(tanh(x), x), (0,)).id)
    (kernel,) = fuse(graph, SHARING).kernels
    assert (kernel.kind, ops_of(graph, kernel)) == ("elementwise_reduce", ["tanh", "multiply", "sum"])


def test_forward_values_do_not_pull_the_backward_pass_forward():
    graph, builder, x = new_graph(4, 8)
    y = relu(x)
    z = tanh(reshape(transpose(y), (4, 8)))
    with builder.at(Provenance(origin="relu")):
        d = where(greater(y, 0), z, 0)
    graph.set_output("y", z.id)
    graph.set_output("d", d.id)
    partition = fuse(graph, SHARING)
    backward = next(k for k in partition.kernels if d.id in k.nodes)
    assert ops_of(graph, backward) == ["greater", "where"]
    assert "backward" in partition.reasons[y.id, backward.nodes[0]]


def test_reshape_is_a_view_only_where_it_copies_nothing():
    graph, _, x = new_graph(4, 8)
    y = tanh(x)
    views = [reshape(y, (32,)), transpose(y), flip(y, (0,)), reshape(flip(y, (0,)), (4, 2, 4))]
    copies = [reshape(transpose(y), (32,)), reshape(flip(y, (0,)), (32,))]
    for i, each in enumerate(views + copies):
        graph.set_output(f"y{i}", relu(each).id)
    is_view = {k.outputs[0]: k.is_view for k in fuse(graph, PLAIN).kernels}
    assert all(is_view[v.id] for v in views)
    assert not any(is_view[v.id] for v in copies)


def test_the_partition_is_drawn():
    graph, builder, x = new_graph(1, 2, 4, 4)
    w = state(builder, "w", np.zeros((2, 2, 1, 1), np.float32))
    graph.set_output("y", relu(conv(x, w)).id)
    drawn = print_kernels(compiled(graph, SHARING))
    assert drawn.splitlines()[0] == "kernel @relu = conv_epilogue (%x, %w) -> (%relu) {  # 272 bytes"
    assert "  %relu = relu(%conv) : f32[1,2,4,4]" in drawn


# --- work ------------------------------------------------------------------------------------------------------------------


def test_long_graphs_take_near_linear_time():
    def compiling(nodes):
        graph, _, x = new_graph(4, 16)
        skipped = []
        while len(graph) < nodes:
            y = add(relu(x), x)
            y = add(y, reduce_sum(y, (1,), keepdims=True)) if len(skipped) % 3 == 0 else multiply(y, tanh(y))
            skipped.append(x)
            x = y
        for each in reversed(skipped[::2]):
            x = add(x, each)
        graph.set_output("y", x.id)

        def run():
            partition = fuse(graph, SHARING)
            plan_memory(graph, schedule(graph, partition.kernels), SHARING)
            assert len(partition.kernels) < nodes / 4

        return run

    assert_near_linear(compiling, 200, 1600)
