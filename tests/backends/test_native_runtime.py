"""The native backend's executables, on kernels written by hand: results, views, batches, states, guards, allocation."""

from __future__ import annotations

import os
import resource
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

import irconv
from irconv.backends.base import Executable
from irconv.backends.native.backend import NativeBackend
from irconv.backends.native.base import NATIVE, NativeKernel, Phase, native_kernel
from irconv.backends.native.library import library
from irconv.backends.native.runtime import Pool
from irconv.builder import Builder
from irconv.errors import BackendError, DTypeError, ShapeError
from irconv.graph import Graph
from irconv.interpret import evaluate
from irconv.ops.contract import matmul
from irconv.ops.elementwise import add, multiply, relu, square, tanh
from irconv.ops.layout import relayout
from irconv.ops.reduce import reduce_sum
from irconv.ops.shape import broadcast, flip, reshape, slice_, transpose
from irconv.types import channels_last, tensor_type
from tests.backends.executables import (
    WithArray,
    WithDlpack,
    check_that_out_is_enough,
    convolutional_step,
    images,
    network,
    unaligned,
)
from tests.backends.handwritten import build, compiler_or_skip, one_op, only, random
from tests.passes.programs import compiled, graphs


@pytest.fixture(autouse=True)
def _handwritten_kernels():
    compiler_or_skip()
    with only():
        yield


def total(x):
    return reduce_sum(x, (0,))


# --- results -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 6, 7, 8, 100_003])
def test_a_sum_in_two_phases(size):
    exe = build(one_op(total, (size,)))
    assert list(exe.sources) == [exe.kernels[0].name]
    x = random(size)
    np.testing.assert_allclose(exe(x), x.astype(np.float64).sum(), rtol=1e-6, atol=1e-6)


def test_a_kernel_runs_on_arrays_by_itself():
    graph = one_op(total, (1000,))
    backend = NativeBackend()
    target = replace(backend.target(), kinds=frozenset())
    program = compiled(graph, target)
    made = backend._lowering().lower(graph, program.schedule.kernels[0])
    assert isinstance(made, NativeKernel)
    x, out, partial = random(1000), np.empty((), np.float32), np.empty(7)
    made.run(out, x, partial)
    np.testing.assert_allclose(out, x.astype(np.float64).sum(), rtol=1e-6)
    np.testing.assert_allclose(partial.sum(), x.astype(np.float64).sum())


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_random_graphs_half_native_equal_the_reference(graph):
    rng = np.random.default_rng(3)
    leaves = {i: rng.normal(size=graph[i].type.shape).astype(np.float32) for i in graph.inputs}
    values = evaluate(graph, leaves)
    expected = {path: values[i].copy() for path, i in graph.outputs.items()}
    new = {graph[s].name: values[i].copy() for s, i in graph.updates.items()}
    exe = build(graph)
    arena = exe.allocate_arena(exe.memory.arena_bytes)
    arena.fill(255)
    exe.allocate_arena = lambda size: arena  # every float in it is NaN
    found = exe(*leaves.values())
    for path, array in expected.items():
        np.testing.assert_allclose(found[path], array, rtol=1e-5, atol=1e-5)
    for name, array in new.items():
        np.testing.assert_allclose(graph.state[name].array, array, rtol=1e-5, atol=1e-5)


def test_a_network_partly_native():
    graph, x = network(), images()
    values = evaluate(graph, {graph.inputs[0]: x})
    expected = {path: values[i] for path, i in graph.outputs.items()}
    exe = build(graph)
    assert isinstance(exe, Executable) and exe.backend == "native"
    assert {k.kind for k in exe.kernels if k.name in exe.sources} == {"relu", "matmul"}
    found = exe(x)
    for path, array in expected.items():
        np.testing.assert_allclose(found[path], array, rtol=1e-4, atol=1e-5)
    rows = exe.profile(x, repeat=2)
    assert [row.name for row in rows] == [k.name for k in exe.kernels if not k.is_view]
    assert all(row.seconds > 0 for row in rows)


def test_a_training_step_partly_native():
    graph, loss = convolutional_step()
    x = np.random.default_rng(5).normal(size=(3, 2, 9, 9))
    exe = build(graph, [loss])
    assert len(exe.sources) >= 5
    for _ in range(3):
        values = evaluate(graph, {graph.inputs[0]: x})
        expected = {graph[s].name: values[i].copy() for s, i in graph.updates.items()}
        np.testing.assert_allclose(exe(x), values[loss], rtol=1e-10)
        for name, array in expected.items():
            np.testing.assert_allclose(graph.state[name].array, array, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("view", "shape"),
    [
        (transpose, (4, 3)),
        (lambda x: flip(x, (0, 1)), (3, 4)),
        (lambda x: broadcast(slice_(x, (0, 0), (1, 4)), (3, 4)), (3, 4)),
        (lambda x: slice_(x, (1, 0), (3, 4), (1, 2)), (2, 2)),
        (lambda x: reshape(transpose(x), (12,)), (12,)),
        (lambda x: reshape(x, (2, 6)), (2, 6)),
    ],
)
@pytest.mark.parametrize("of_input", [True, False])
def test_views_are_read_by_their_strides(view, shape, of_input):
    graph = Graph()
    x = Builder(graph).input("x", tensor_type("f32", (3, 4)))
    source = x if of_input else tanh(x)
    seen = view(source)
    graph.set_output("", add(seen, seen).id)
    array = random(3, 4)
    expected = evaluate(graph, {x.id: array})[graph.outputs[""]]
    found = build(graph)(array)
    assert found.shape == shape
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_laid_out_values():
    def function(x):
        turned = relayout(x, channels_last(4))
        return relu(add(tanh(turned), turned))

    graph = one_op(function, (2, 3, 4, 5))
    for node in list(graph):
        if node.op.name in ("relu", "add", "tanh"):
            graph.set_layout(node.id, channels_last(4))
    graph.set_output("", multiply(*[Builder(graph).value(graph.outputs[""])] * 2).id)  # row-major, from laid-out ones
    x = random(2, 3, 4, 5)
    exe = build(graph)
    assert {k.kind for k in exe.kernels} - {k.kind for k in exe.kernels if k.name in exe.sources} == {"relayout", "tanh"}
    np.testing.assert_allclose(exe(x), np.maximum(np.tanh(x) + x, 0) ** 2, rtol=1e-5)
    assert exe._idle[0].arrays[exe.kernels[1].outputs[0]].strides == (240, 4, 60, 12)


def test_scalars_and_empty_arrays():
    assert build(one_op(lambda x: multiply(x, x), ()))(np.float32(3)) == 9
    assert build(one_op(relu, (0, 5)))(random(0, 5)).shape == (0, 5)
    assert build(one_op(relu, (5, 0)))(random(5, 0)).shape == (5, 0)


# --- batches, threads --------------------------------------------------------------------------------------------------------


def test_another_batch_compiles_nothing():
    exe = irconv.compile(lambda x: irconv.nn.functional.relu(x) @ np.eye(5, dtype=np.float32), backend="native")
    exe(random(8, 5))
    assert exe.executable.sources
    before = library().compilations
    for batch in (1, 3, 64):
        x = random(batch, 5, seed=batch)
        np.testing.assert_allclose(exe(x), np.maximum(x, 0), rtol=1e-6)
    assert library().compilations == before


def test_the_same_kernel_is_compiled_once():
    graph = one_op(lambda x: relu(tanh(relu(tanh(relu(x))))), (7, 11))
    before = library().compilations
    exe = build(graph)
    bodies = [source.split("#include", 1)[1] for source in exe.sources.values()]  # without the IR at the top
    assert len(bodies) == 3 and len(set(bodies)) == 1
    assert library().compilations - before <= 1


def test_any_number_of_threads_gives_the_same_bits():
    x = random(100_003)
    found = [build(one_op(total, x.shape), pool=Pool(threads))(x) for threads in range(1, 6)]
    rows = random(501, 33)
    products = [build(one_op(lambda a: relu(matmul(a, transpose(a))), rows.shape), pool=Pool(n))(rows) for n in (1, 2, 5)]
    assert all(np.array_equal(found[0], other) for other in found)
    assert all(np.array_equal(products[0], other) for other in products)
    np.testing.assert_allclose(products[0], np.maximum(rows @ rows.T, 0), rtol=1e-3, atol=1e-4)


def test_calls_from_several_threads_at_once():
    graph = network(2)
    exe = build(graph)
    inputs = [np.random.default_rng(i).normal(size=(2, 3, 12, 12)).astype(np.float32) for i in range(4)]
    expected = [exe(x)["logits"].copy() for x in inputs]
    wrong = []

    def call(i):
        for _ in range(50):
            if not np.array_equal(exe(inputs[i])["logits"], expected[i]):
                wrong.append(i)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


def test_a_forked_child_works():
    exe = build(one_op(lambda x: relu(x), (64, 100)))
    x = random(64, 100)
    expected = exe(x)
    other = build(one_op(lambda x: square(x), (64, 100)))  # compiled here, first run in the child
    for _ in range(3):
        child = os.fork()
        if child == 0:
            good = np.array_equal(exe(x), expected) and np.array_equal(other(x), x * x)
            os._exit(0 if good else 1)
        _, status = os.waitpid(child, 0)
        assert status == 0
        np.testing.assert_array_equal(exe(x), expected)


# --- arrays of the caller ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x.astype(">f4"),
        unaligned,
        WithArray,
        WithDlpack,
    ],
    ids=["fortran", "negative", "strided", "big-endian", "unaligned", "array", "dlpack"],
)
def test_inputs_in_any_form(change):
    exe, x = build(one_op(lambda x: relu(transpose(x)), (30, 70))), random(30, 70)
    for _ in range(2):
        np.testing.assert_array_equal(exe(change(x)), np.maximum(x.T, 0))


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (random(3, 5).astype(np.float64), DTypeError, "float64"),
        (random(5, 3), ShapeError, r"\[5, 3\]"),
        ([1.0, 2.0], ShapeError, "got 2 arrays"),
        (3.0, ShapeError, "number"),
        ("text", DTypeError, "str"),
    ],
)
def test_inputs_that_do_not_fit(given, error, words):
    exe = build(one_op(relu, (3, 5)))
    with pytest.raises(error, match=words):
        exe(given)
    np.testing.assert_array_equal(exe(random(3, 5)), np.maximum(random(3, 5), 0))


def test_out():
    exe, x = build(one_op(relu, (3, 5))), random(3, 5)
    out = np.full((3, 5), np.nan, np.float32)
    assert exe(x, out=out) is out
    np.testing.assert_array_equal(out, np.maximum(x, 0))
    for wrong in (np.asfortranarray(out), out.astype(np.float64), unaligned(out), x):
        with pytest.raises((ShapeError, DTypeError)):
            exe(x, out=wrong)


def test_a_call_with_out_allocates_nothing():
    check_that_out_is_enough(build(network(64)))


def test_memory_does_not_grow_with_calls():
    exe, x = build(one_op(lambda x: relu(add(x, x)), (512, 512))), random(512, 512)
    out = np.empty_like(x)
    for _ in range(20):
        exe(x, out=out)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2000):
        exe(x, out=out)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512  # KiB: half of one array


# --- kernels that are wrong --------------------------------------------------------------------------------------------------


def test_code_that_does_not_compile(monkeypatch):
    def broken(request):
        return native_kernel("#error this cannot be\n", (Phase("run", 1),))

    monkeypatch.setitem(NATIVE, "relu", broken)
    with pytest.raises(BackendError, match="this cannot be") as caught:
        build(one_op(relu, (3,)))
    assert "@relu" in caught.value.message
    kept = caught.value.hint.removeprefix("the source is kept in ")
    with open(kept) as file:
        assert file.read() == "#error this cannot be\n"
    os.unlink(kept)


def test_a_function_that_is_not_there(monkeypatch):
    monkeypatch.setitem(NATIVE, "relu", lambda request: native_kernel("int other;\n", (Phase("run", 1),)))
    with pytest.raises(BackendError, match="exports no function 'run'"):
        build(one_op(relu, (3,)))
