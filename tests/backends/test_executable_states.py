"""Executables that write states: updates, derived states, guards, errors, and calls from several threads."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.backends.numpy.backend import NumpyBackend
from irconv.builder import Builder
from irconv.errors import BackendError, NumericsError, StateError
from irconv.graph import Graph, Provenance
from irconv.interpret import evaluate
from irconv.kernel import Program
from irconv.op import Fusion, OpDef
from irconv.ops.elementwise import add, divide, log, multiply, tanh
from irconv.ops.index import take
from irconv.ops.reduce import reduce_sum
from irconv.ops.shape import flip
from irconv.places import Location
from irconv.state import DerivedVariable, Variable
from irconv.types import tensor_type
from tests.backends.executables import (
    build,
    images,
    in_threads,
    network,
    training,
    training_data,
)
from tests.passes.programs import compiled, state

# --- states ------------------------------------------------------------------------------------------------------------------


def test_a_training_step_learns_and_counts():
    graph, _ = training()
    w, steps = graph.state["w"], graph.state["steps"]
    exe = build(graph)
    x, target = training_data()
    expected = evaluate(graph, dict(zip(graph.inputs, (x, target, np.float32(0.1)), strict=True)))
    new = {graph[s].name: expected[v].copy() for s, v in graph.updates.items()}
    array, version = w.array, w.version
    first = float(exe(x, target, 0.1))
    np.testing.assert_allclose(w.array, new["w"], rtol=1e-5)
    assert w.array is array
    assert w.version > version
    for _ in range(20):
        last = float(exe(x, target, 0.1))
    assert last < first
    assert steps.array == 21
    assert not exe.memory.commits


def test_an_input_that_is_the_state_itself():
    graph = Graph()
    builder = Builder(graph)
    x = builder.input("x", tensor_type("f32", (4,)))
    w = state(builder, "w", np.arange(4, dtype=np.float32))
    new = add(w, 1.0)
    graph.set_update(w.id, new.id)
    graph.set_output("", add(flip(x), tanh(new)).id)
    array = graph.state["w"].array
    expected = array[::-1].copy() + np.tanh(array + 1)
    np.testing.assert_allclose(build(graph, fused=False)(array), expected, rtol=1e-6)


def test_profiling_leaves_states_alone():
    graph, _ = training()
    before = graph.state["w"].array.copy()
    build(graph).profile(*training_data(), 0.1)
    np.testing.assert_array_equal(graph.state["w"].array, before)
    assert graph.state["steps"].array == 0


def test_states_without_or_with_another_array():
    graph, _ = training()
    variable = graph.state.pop("w")
    with pytest.raises(StateError, match="%w of graph 'train' has no array"):
        build(graph)
    graph.state["w"] = Variable(np.ones((2, 3), np.float32))
    with pytest.raises(StateError, match=r"%w is f32\[3,2\]"):
        build(graph)
    graph.state["w"] = variable
    build(graph)


def test_derived_states_follow_their_sources():
    graph = Graph()
    builder = Builder(graph)
    x = builder.input("x", tensor_type("f32", (2,)))
    source = Variable(np.ones(2, np.float32))
    doubled = DerivedVariable([source], lambda array: array * 2)
    w = builder.wrap(graph.add_state("w", doubled.type, "frozen", doubled))
    graph.set_output("", multiply(x, w).id)
    exe = build(graph)
    one = np.ones(2, np.float32)
    np.testing.assert_array_equal(exe(one), [2, 2])
    source.assign(np.array([3, 4], np.float32))
    np.testing.assert_array_equal(exe(one), [6, 8])


# --- guards and errors -------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_changes_nothing():
    graph, loss = training()
    location = Location("train.py", 7)
    graph.set_provenance(loss, Provenance(location))
    exe = build(graph, guards=[loss])
    x, target = training_data()
    before = graph.state["w"].array.copy()
    x[0, 0] = np.inf
    with pytest.raises(NumericsError) as caught:
        exe(x, target, 0.1)
    assert caught.value.location == location
    assert f"%{graph[loss].name} is not finite" in str(caught.value)
    assert "learning rate" in str(caught.value)
    np.testing.assert_array_equal(graph.state["w"].array, before)
    assert graph.state["steps"].array == 0
    x[0, 0] = 1
    exe(x, target, 0.1)  # it goes on
    assert graph.state["steps"].array == 1


def test_without_a_guard_nothing_is_checked():
    graph, _ = training()
    x, target = training_data()
    x[0, 0] = np.nan
    assert np.isnan(build(graph)(x, target, 0.1))


def test_an_error_in_a_kernel_says_where():
    graph = Graph()
    builder = Builder(graph)
    x, i = builder.input("x", tensor_type("f32", (4,))), builder.input("i", tensor_type("i64", (2,)))
    with builder.at(Provenance(Location("model.py", 3))):
        y = take(x, i, 0)
    graph.set_output("", y.id)
    exe = build(graph)
    with pytest.raises(Exception, match=r"model\.py:3"):
        exe(np.zeros(4, np.float32), np.array([1, 9]))
    assert exe(np.zeros(4, np.float32), np.array([1, 3])).shape == (2,)


def test_an_op_without_a_kernel():
    strange = OpDef("strange", ("x",), lambda a, x: x, lambda a, x: x, lambda site, d: (d,), Fusion.MOVEMENT)
    graph = Graph()
    x = Builder(graph).input("x", tensor_type("f32", (4,)))
    graph.set_output("", graph.add(strange, strange.attributes(), (x.id,)).id)
    with pytest.raises(BackendError, match="no array kernel for strange"):
        build(graph)


def test_no_warnings_from_the_arithmetic(recwarn):
    graph = Graph()
    x = Builder(graph).input("x", tensor_type("f32", (2,)))
    graph.set_output("", divide(log(x), x).id)
    build(graph)(np.array([0, -1], np.float32))
    assert not recwarn.list


# --- threads -----------------------------------------------------------------------------------------------------------------


def test_calls_from_several_threads():
    exe = build(network())
    inputs = [images() * (i + 1) for i in range(4)]
    expected = [exe(x)["logits"] for x in inputs]

    def work(index):
        for _ in range(20):
            np.testing.assert_array_equal(exe(inputs[index])["logits"], expected[index])

    in_threads(4, work)
    assert 1 <= len(exe._idle) <= 4


def test_evaluation_beside_training_sees_whole_steps():
    graph = Graph("step")
    builder = Builder(graph)
    states = [state(builder, f"w{i}", np.zeros(2000, np.float32)) for i in range(4)]
    for each in states:
        graph.set_update(each.id, add(each, 1.0).id)
    graph.set_output("", builder.constant(np.zeros((), np.float32)).id)
    step = build(graph)
    reading = Graph("read")
    builder = Builder(reading)
    values = [builder.wrap(reading.add_state(n, v.type, "param", v)) for n, v in graph.state.items()]
    for value in values:
        reading.set_output(graph[states[0].id].name + value.node.name, reduce_sum(value, (0,)).id)
    read = build(reading)

    def work(index):
        for _ in range(100):
            if index < 2:
                step()
            else:
                sums = {float(s) for s in read().values()}
                assert len(sums) == 1, "a step was seen half done"

    in_threads(4, work)
    assert all(v.array[0] == 200 for v in graph.state.values())


def test_a_program_is_all_that_a_backend_needs():
    backend = NumpyBackend()
    program = compiled(network(), backend.target())
    again = Program(program.graph, program.schedule, program.plan, stages=("traced",))
    assert backend.build(again).stages == ("traced",)
