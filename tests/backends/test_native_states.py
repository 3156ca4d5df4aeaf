"""The native backend and states: guards, commits, and what is made of a weight and kept."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import irconv
from irconv.builder import Builder
from irconv.errors import BackendError, NumericsError
from irconv.graph import Graph
from irconv.ops.contract import matmul
from irconv.ops.elementwise import add, log, subtract
from irconv.ops.reduce import reduce_sum
from irconv.ops.shape import transpose
from irconv.types import tensor_type
from tests.backends.executables import unaligned
from tests.backends.handwritten import build, compiler_or_skip, only, random
from tests.passes.programs import state


@pytest.fixture(autouse=True)
def _handwritten_kernels():
    compiler_or_skip()
    with only():
        yield



def descent(dtype: str = "f32"):
    """w <- w - log(x) with the sum of the logarithms as guarded loss."""
    graph = Graph()
    builder = Builder(graph)
    x = builder.input("x", tensor_type(dtype, (4,)))
    w = state(builder, "w", np.ones(4, x.type.dtype.numpy))
    step = log(x)
    loss = reduce_sum(step, (0,))
    graph.set_update(w.id, subtract(w, step).id)
    graph.set_output("", loss.id)
    return graph, loss.id


@pytest.mark.parametrize("dtype", ["f16", "f32", "f64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_a_guard_stops_before_any_state_is_written(dtype, bad):
    graph, loss = descent(dtype)
    exe = build(graph, [loss])
    good = np.full(4, 2, graph[loss].type.dtype.numpy)
    exe(good)
    before = graph.state["w"].array.copy()
    np.testing.assert_allclose(before.astype(np.float64), 1 - np.log(2), rtol=2e-3)
    broken = good.copy()
    broken[2] = bad
    with pytest.raises(NumericsError, match="not finite"):
        exe(broken)
    np.testing.assert_array_equal(graph.state["w"].array, before)
    exe(good)
    np.testing.assert_allclose(graph.state["w"].array.astype(np.float64), 1 - 2 * np.log(2), rtol=5e-3, atol=1e-3)


def test_swapped_states_are_committed_at_the_end():
    graph = Graph()
    builder = Builder(graph)
    a, b = state(builder, "a", random(3, 4)), state(builder, "b", random(3, 4, seed=1))
    one, other = graph.state["a"].array.copy(), graph.state["b"].array.copy()
    graph.set_update(a.id, add(b, b).id)
    graph.set_update(b.id, add(a, a).id)
    exe = build(graph)
    assert exe.memory.commits
    version = graph.state["a"].version
    exe()
    np.testing.assert_array_equal(graph.state["a"].array, 2 * other)
    np.testing.assert_array_equal(graph.state["b"].array, 2 * one)
    assert graph.state["a"].version > version


def product(update: bool = False, transposed: bool = False):
    graph = Graph()
    builder = Builder(graph)
    x = builder.input("x", tensor_type("f32", (5, 3)))
    w = state(builder, "w", random(4, 3) if transposed else random(3, 4))
    graph.set_output("", matmul(x, transpose(w) if transposed else w).id)
    if update:
        graph.set_update(w.id, add(w, w).id)
    return graph


@pytest.mark.parametrize("transposed", [False, True])
def test_what_is_made_of_a_weight_is_kept_until_the_weight_changes(transposed):
    graph = product(transposed=transposed)
    exe = build(graph)
    assert exe.kept_bytes == 48 and exe.memory.arena_bytes == 0
    variable, x = graph.state["w"], random(5, 3, seed=2)

    def expected(w):
        return x @ (w.T if transposed else w)

    first = variable.array.copy()
    np.testing.assert_allclose(exe(x), expected(first), rtol=1e-5, atol=1e-6)
    variable.array[...] = 0  # behind everybody's back: what was kept is used
    np.testing.assert_allclose(exe(x), expected(first), rtol=1e-5, atol=1e-6)
    variable.assign(2 * first)
    np.testing.assert_allclose(exe(x), expected(2 * first), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(exe(x), expected(2 * first), rtol=1e-5, atol=1e-6)


def test_executables_share_what_is_made_of_a_weight():
    graph = product()
    first, second = build(graph), build(graph)
    (one,), (other,) = first._preparations, second._preparations
    assert one is other
    x = random(5, 3, seed=2)
    np.testing.assert_array_equal(first(x), second(x))
    graph.state["w"].assign(random(3, 4, seed=9))
    np.testing.assert_allclose(second(x), x @ random(3, 4, seed=9), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(first(x), second(x))
    transposed = build(product(transposed=True))
    assert transposed._preparations[0] is not one


def test_weights_that_the_program_writes_are_not_kept():
    graph = product(update=True)
    exe = build(graph)
    assert exe.kept_bytes == 0
    w, x = graph.state["w"].array.copy(), random(5, 3, seed=2)
    for factor in (1, 2, 4):
        np.testing.assert_allclose(exe(x), factor * (x @ w), rtol=1e-5, atol=1e-5)


def test_what_another_executable_writes_is_seen():
    graph = product()
    training = Graph()
    builder = Builder(training)
    w = builder.wrap(training.add_state("w", tensor_type("f32", (3, 4)), "param", graph.state["w"]))
    training.set_update(w.id, add(w, w).id)
    exe, double = build(graph), build(training)
    x = random(5, 3, seed=2)
    before = exe(x).copy()
    double()
    np.testing.assert_allclose(exe(x), 2 * before, rtol=1e-5)


def test_constants_are_kept_for_several_threads():
    exe = irconv.compile(lambda x: x @ random(30, 40), irconv.TensorSpec((50, 30)), backend="native")
    assert exe.executable.kept_bytes == 4800
    x, found = random(50, 30, seed=1), []
    callers = [threading.Thread(target=lambda: found.append(exe(x))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 4
    for each in found:
        np.testing.assert_allclose(each, x @ random(30, 40), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", [lambda a: a.astype(">f4"), unaligned], ids=["big-endian", "unaligned"])
def test_states_that_compiled_code_cannot_read(change):
    graph = product()
    graph.state["w"].array = change(graph.state["w"].array)
    with pytest.raises(BackendError, match="state %w is not"):
        build(graph)
