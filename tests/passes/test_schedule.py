"""Orders of kernels: operands first, guards before writers, readers of a state before its writer, and a low peak."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings

from irconv.builder import Builder
from irconv.errors import GraphError
from irconv.graph import Graph
from irconv.kernel import Kernel, Uses, make_kernel
from irconv.ops.contract import matmul
from irconv.ops.elementwise import add, exp, multiply, relu, subtract, tanh
from irconv.ops.reduce import reduce_sum
from irconv.ops.shape import broadcast, flip
from irconv.passes.fuse import fuse
from irconv.passes.schedule import _Problem as Problem
from irconv.passes.schedule import schedule
from irconv.types import tensor_type
from tests.counting import assert_near_linear
from tests.passes.programs import PLAIN, SHARING, graphs, state


def new_graph(*shape: int):
    builder = Builder(Graph("schedule"))
    return builder.graph, builder, builder.input("x", tensor_type("f32", shape))


def peak(graph, order):
    kernels = list(order)
    return Problem(graph, kernels, ()).peak(range(len(kernels)))


@settings(max_examples=80, deadline=None)
@given(graphs())
def test_operands_come_first_and_every_kernel_once(graph):
    for target in (PLAIN, SHARING):
        kernels = fuse(graph, target).kernels
        order = schedule(graph, kernels).kernels
        assert sorted(k.name for k in order) == sorted(k.name for k in kernels)
        ready = {i for i in graph.order() if graph[i].is_leaf}
        for kernel in order:
            assert set(kernel.inputs) <= ready
            ready.update(kernel.outputs)
        assert graph.updates or peak(graph, order) <= peak(graph, kernels)  # a writer that waits may cost memory
        assert order == schedule(graph, kernels).kernels


def test_small_results_are_made_before_more_large_ones():
    graph, _, x = new_graph(100, 100)
    large = [multiply(exp(x), float(i)) for i in range(6)]
    total = reduce_sum(large[0], (0, 1))
    for each in large[1:]:
        total = add(total, reduce_sum(each, (0, 1)))
    graph.set_output("y", total.id)
    kernels = fuse(graph, PLAIN).kernels
    # as written, all six large values would be there at once
    assert peak(graph, schedule(graph, kernels).kernels) < 2.5 * 40_000
    assert peak(graph, kernels) > 6 * 40_000


def test_the_best_of_all_orders_on_small_graphs():
    graph, _, x = new_graph(64)
    a, b = tanh(x), broadcast(relu(x), (8, 64))
    wide = multiply(b, 2.0)
    graph.set_output("y", add(reduce_sum(wide, (0,)), multiply(a, reduce_sum(exp(wide), (0,)))).id)
    kernels = fuse(graph, PLAIN).kernels
    found = peak(graph, schedule(graph, kernels).kernels)
    best = min(peak(graph, order) for order in _orders(graph, kernels))
    assert found == best


def _orders(graph, kernels):
    makers = {v: i for i, k in enumerate(kernels) for v in k.outputs}
    needs = [{makers[v] for v in k.inputs if v in makers} for k in kernels]
    for order in itertools.permutations(range(len(kernels))):
        place = {k: i for i, k in enumerate(order)}
        if all(place[n] < place[k] for k in order for n in needs[k]):
            yield [kernels[k] for k in order]


def test_a_writer_waits_for_readers_of_the_old_state():
    graph, builder, x = new_graph(4)
    w = state(builder, "w", np.ones(4, np.float32))
    new = subtract(w, x)
    graph.set_update(w.id, new.id)
    late = exp(flip(w))
    graph.set_output("y", late.id)
    names = [k.name for k in schedule(graph, fuse(graph, PLAIN).kernels).kernels]
    assert names.index(graph[late.id].name) < names.index(graph[new.id].name)


def test_circular_wishes_do_not_stop_the_schedule():
    graph, builder, x = new_graph(4)
    a, b = (state(builder, name, np.ones(4, np.float32)) for name in "ab")
    graph.set_update(a.id, exp(b).id)
    graph.set_update(b.id, exp(a).id)
    graph.set_output("y", relu(x).id)
    assert len(schedule(graph, fuse(graph, PLAIN).kernels).kernels) == 3


def test_every_writer_comes_after_the_guard():
    graph, builder, x = new_graph(4)
    states = [state(builder, name, np.ones(4, np.float32)) for name in "abc"]
    for each in states:
        graph.set_update(each.id, add(each, x).id)
    loss = reduce_sum(tanh(tanh(tanh(x))), (0,))
    graph.set_output("loss", loss.id)
    ordered = schedule(graph, fuse(graph, PLAIN).kernels, [loss.id])
    names = [k.name for k in ordered.kernels]
    assert ordered.guards == (loss.id,)
    assert all(names.index("sum") < names.index(graph[i].name) for i in graph.updates.values())


def test_a_guard_that_nothing_computes():
    graph, _, x = new_graph(4)
    graph.set_output("y", relu(x).id)
    with pytest.raises(GraphError, match="cannot be a guard"):
        schedule(graph, fuse(graph, PLAIN).kernels, [x.id])


def test_kernels_that_need_each_other():
    graph, _, x = new_graph(4)
    y = tanh(x)
    z = exp(reduce_sum(y, (0,), keepdims=True))
    last = multiply(y, z)
    graph.set_output("y", last.id)
    inner = [i for i in graph.order() if graph[i].op.name in ("sum", "exp")]
    circle = [make_kernel(Uses(graph), [y.id, last.id], "elementwise"), make_kernel(Uses(graph), inner, "elementwise_reduce")]
    with pytest.raises(GraphError, match="waits for its own result"):
        schedule(graph, circle)


def test_ordering_takes_near_linear_time():
    def ordering(layers):
        graph, builder, x = new_graph(4, 8)
        w = state(builder, "w", np.ones((8, 8), np.float32))
        kept = []
        for i in range(layers):
            x = tanh(matmul(x, w))
            if i % 3 == 0:
                kept.append(x)
        for each in reversed(kept):
            x = multiply(add(x, each), 0.5)
        graph.set_output("y", x.id)
        kernels = fuse(graph, PLAIN).kernels
        assert len(kernels) > 2 * layers
        return lambda: schedule(graph, kernels)

    assert_near_linear(ordering, 60, 480)


def test_a_kernel_is_named_after_its_last_value():
    graph, _, x = new_graph(4)
    y = tanh(relu(x))
    graph.set_output("y", y.id)
    ids = [i for i in graph.order() if not graph[i].is_leaf]
    assert make_kernel(Uses(graph), ids, "elementwise") == Kernel("tanh", "elementwise", tuple(ids), (x.id,), (y.id,))
    with pytest.raises(GraphError):
        make_kernel(Uses(graph), ids)
