"""Memory plans: nothing live is overwritten, states are written in place where that is safe, and little memory is used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.backends.numpy.backend import NumpyBackend
from irconv.builder import Builder
from irconv.errors import GraphError
from irconv.graph import Graph
from irconv.ops.contract import matmul
from irconv.ops.elementwise import add, exp, multiply, relu, subtract, tanh
from irconv.ops.reduce import reduce_sum
from irconv.ops.shape import flip, reshape, transpose
from irconv.passes import packing
from irconv.passes.fuse import fuse
from irconv.passes.packing import ALIGNMENT, Buffer, pack, peak
from irconv.passes.plan_memory import plan_memory
from irconv.passes.schedule import schedule
from irconv.types import tensor_type
from tests.passes.programs import PLAIN, SHARING, check_program, compiled, graphs, state

X = tensor_type("f32", (3, 4))


def new_graph(*names: str):
    """A builder, an input of shape [3,4], and states of that shape."""
    builder = Builder(Graph("plan"))
    x = builder.input("x", X)
    return builder.graph, x, [state(builder, name, np.ones((3, 4), np.float32)) for name in names]


def placed(program):
    """Names of the states written in place, and of those copied at the end."""
    graph, plan = program.graph, program.plan
    return {graph[s].name for s in plan.update_in_place.values()}, {graph[s].name for _, s in plan.commits}


# --- nothing live is overwritten -----------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(graphs(), st.sampled_from(["plain", "sharing", "numpy"]))
def test_random_graphs_replay(graph, name):
    target = {"plain": PLAIN, "sharing": SHARING, "numpy": NumpyBackend().target()}[name]
    check_program(compiled(graph, target), target)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 30), st.integers(0, 10)), max_size=40))
def test_buffers_that_live_together_lie_apart(rows):
    buffers = [Buffer(size, start, start + length) for size, start, length in rows]
    offsets, arena = pack(buffers)
    for i, (a, at) in enumerate(zip(buffers, offsets, strict=True)):
        assert at % ALIGNMENT == 0
        assert at + a.bytes <= arena or not a.bytes
        for b, there in zip(buffers[:i], offsets[:i], strict=True):
            if a.start <= b.end and b.start <= a.end and a.bytes and b.bytes:
                assert at + a.bytes <= there or there + b.bytes <= at
    assert arena >= peak(buffers)


@pytest.mark.parametrize("largest", [0, 1000], ids=["best fit", "by size"])
def test_thousands_of_buffers(monkeypatch, largest):
    monkeypatch.setattr(packing, "LARGEST", largest)
    rng = np.random.default_rng(0)
    drawn = rng.integers(1, 5000, size=(3000, 2)) // (1, 50)
    buffers = [Buffer(int(size), i, i + int(life)) for i, (size, life) in enumerate(drawn)]
    offsets, arena = pack(buffers)
    assert arena < 1.3 * peak(buffers)
    assert max(offset + b.bytes for offset, b in zip(offsets, buffers, strict=True)) <= arena


def test_a_view_keeps_its_buffer_alive():
    graph, x, _ = new_graph()
    y = tanh(x)
    turned = flip(y, (0,))
    z = y
    for _ in range(4):
        z = multiply(tanh(z), 0.5)
    graph.set_output("out", add(reshape(transpose(turned), (3, 4)), z).id)
    program = compiled(graph, PLAIN)
    assert program.plan.aliases[turned.id] == y.id
    check_program(program, PLAIN)


# --- how much --------------------------------------------------------------------------------------------------------------


def test_a_chain_needs_two_buffers_and_one_in_place():
    graph, x, _ = new_graph()
    for _ in range(10):
        x = tanh(x)
    graph.set_output("y", x.id)
    assert compiled(graph, PLAIN).plan.arena_bytes == 2 * ALIGNMENT
    one = compiled(graph, replace(SHARING, kinds=frozenset())).plan
    assert (one.arena_bytes, one.peak_bytes, one.naive_bytes) == (ALIGNMENT, ALIGNMENT, 9 * 48)


def test_the_peak_is_below_one_place_per_value():
    graph = Graph("net")
    builder = Builder(graph)
    x = builder.input("x", tensor_type("f32", (8, 64)))
    for i in range(12):
        w = state(builder, f"w{i}", np.zeros((64, 64), np.float32))
        x = relu(matmul(x, w))
    graph.set_output("y", x.id)
    plan = compiled(graph, PLAIN).plan
    assert plan.peak_bytes == plan.arena_bytes == 2 * 8 * 64 * 4
    assert plan.naive_bytes == 23 * 8 * 64 * 4


def test_an_empty_batch_takes_no_room():
    graph = Graph("empty")
    builder = Builder(graph)
    x = builder.input("x", tensor_type("f32", (0, 4)))
    graph.set_output("y", relu(tanh(x)).id)
    assert compiled(graph, PLAIN).plan.arena_bytes == 0


# --- updates ---------------------------------------------------------------------------------------------------------------


def test_a_plain_update_is_written_in_place():
    graph, x, (w,) = new_graph("w")
    graph.set_output("y", multiply(x, w).id)
    graph.set_update(w.id, subtract(w, multiply(x, 0.1)).id)
    program = compiled(graph, SHARING)
    check_program(program, SHARING)
    assert placed(program) == ({"w"}, set())


def test_swapped_states():
    graph, x, (a, b) = new_graph("a", "b")
    graph.set_output("y", add(x, a).id)
    graph.set_update(a.id, b.id)
    graph.set_update(b.id, a.id)
    program = compiled(graph, SHARING)
    check_program(program, SHARING)
    in_place, copied = placed(program)
    assert len(in_place) == len(copied) == 1  # one goes through the arena


def test_an_old_state_that_is_returned():
    graph, x, (w,) = new_graph("w")
    graph.set_output("old", w.id)
    graph.set_update(w.id, subtract(w, x).id)
    program = compiled(graph, SHARING)
    check_program(program, SHARING)
    assert placed(program) == ({"w"}, set())  # after the copy for the caller


def test_an_old_state_that_a_view_still_shows():
    graph, x, (w,) = new_graph("w")
    new = subtract(w, x)
    graph.set_update(w.id, new.id)
    graph.set_output("y", reduce_sum(multiply(flip(w, (0,)), exp(new)), (0, 1)).id)
    program = compiled(graph, SHARING)
    check_program(program, SHARING)
    assert placed(program) == (set(), {"w"})


def test_a_state_read_through_a_view_by_its_own_update():
    graph, x, (w,) = new_graph("w")
    graph.set_update(w.id, add(w, flip(w, (1,))).id)
    graph.set_output("y", relu(x).id)
    program = compiled(graph, SHARING)
    check_program(program, SHARING)
    assert placed(program) == (set(), {"w"})


def test_a_weight_that_the_input_gradient_still_needs():
    graph = Graph("layer")
    builder = Builder(graph)
    x = builder.input("x", tensor_type("f32", (2, 4)))
    w = state(builder, "w", np.ones((4, 5), np.float32))
    d = tanh(matmul(x, w))
    by_w = matmul(transpose(x), d)
    graph.set_update(w.id, subtract(w, multiply(by_w, 0.1)).id)
    graph.set_output("d_x", matmul(d, transpose(w)).id)  # later in the program than the update
    program = compiled(graph, SHARING)
    check_program(program, SHARING)
    assert placed(program) == ({"w"}, set())  # the schedule lets the reader go first


def test_states_that_share_one_array():
    graph, x, (a,) = new_graph("a")
    tied = graph.add_state("tied", X, "param", graph.state["a"])
    new = subtract(a, x)
    graph.set_update(a.id, new.id)
    graph.set_output("y", multiply(Builder(graph).value(tied.id), exp(new)).id)
    program = compiled(graph, SHARING)
    assert placed(program) == (set(), {"a"})
    graph.set_update(tied.id, relu(x).id)
    with pytest.raises(GraphError, match="shares its array"):
        compiled(graph, SHARING)


def test_one_new_value_for_two_states_and_for_the_caller():
    graph, x, (a, b) = new_graph("a", "b")
    new = tanh(x)
    graph.set_update(a.id, new.id)
    graph.set_update(b.id, new.id)
    graph.set_output("y", new.id)
    program = compiled(graph, SHARING)
    check_program(program, SHARING)
    assert placed(program) == ({"b"}, {"a"})


def test_nothing_is_written_before_a_guard():
    graph, x, (w,) = new_graph("w")
    graph.set_update(w.id, subtract(w, x).id)
    loss = x
    for _ in range(5):
        loss = tanh(loss)
    loss = reduce_sum(loss, (0, 1))
    graph.set_output("loss", loss.id)
    program = compiled(graph, SHARING, guards=[loss.id])
    names = [kernel.name for kernel in program.schedule.kernels]
    assert names.index(graph[loss.id].name) < names.index(graph[graph.updates[w.id]].name)
    assert placed(program) == ({"w"}, set())


def test_a_new_value_that_the_guard_itself_needs_is_copied():
    graph, x, (w,) = new_graph("w")
    new = subtract(w, x)
    graph.set_update(w.id, new.id)
    loss = reduce_sum(new, (0, 1))
    graph.set_output("loss", loss.id)
    program = compiled(graph, PLAIN, guards=[loss.id])
    assert placed(program) == (set(), {"w"})


@pytest.mark.parametrize("what", ["output", "update"])
def test_what_is_not_materialised_is_refused(what):
    graph, x, (w,) = new_graph("w")
    graph.set_output("y", x.id if what == "output" else relu(x).id)
    graph.set_update(w.id, x.id)
    kernels = fuse(graph, PLAIN).kernels
    with pytest.raises(GraphError, match="no buffer of its own"):
        plan_memory(graph, schedule(graph, kernels), PLAIN)
