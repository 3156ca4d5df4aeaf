"""Executables on NumPy: results, out=, allocation, threads, inputs of every kind, guards, updates, derived states."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.backends.base import Executable
from irconv.builder import Builder
from irconv.errors import DTypeError, ShapeError
from irconv.graph import Graph
from irconv.interpret import evaluate
from irconv.ops.elementwise import add, relu, square, subtract, tanh
from irconv.ops.reduce import reduce_mean
from irconv.ops.shape import flip, reshape
from irconv.types import tensor_type
from tests.backends.executables import (
    SMALL,
    WithArray,
    WithDlpack,
    build,
    check_that_out_is_enough,
    convolutional_step,
    images,
    network,
    outputs_for,
    read_only,
    unaligned,
)
from tests.passes.programs import graphs, state

# --- results -----------------------------------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(graphs(), st.booleans())
def test_random_graphs_equal_the_reference(graph, fused):
    rng = np.random.default_rng(3)
    leaves = {i: rng.normal(size=graph[i].type.shape).astype(np.float32) for i in graph.inputs}
    expected = evaluate(graph, leaves)
    results = {path: expected[i].copy() for path, i in graph.outputs.items()}
    new = {graph[s].name: expected[i].copy() for s, i in graph.updates.items()}
    exe = build(graph, fused=fused)
    exe._idle.append(_poisoned(exe))
    found = exe(*leaves.values())
    for path, array in results.items():
        np.testing.assert_allclose(found[path], array, rtol=1e-5, atol=1e-5)
    for name, array in new.items():
        np.testing.assert_allclose(graph.state[name].array, array, rtol=1e-5, atol=1e-5)


def _poisoned(exe):
    """A context whose arena is full of NaN."""
    arena = exe.allocate_arena(exe.memory.arena_bytes)
    arena.fill(255)
    exe.allocate_arena = lambda size: arena
    return exe._take()


@pytest.mark.parametrize("fused", [False, True])
def test_a_network(fused):
    graph = network()
    x = images()
    values = evaluate(graph, {graph.inputs[0]: x})
    expected = {path: values[i] for path, i in graph.outputs.items()}
    exe = build(graph, fused=fused)
    assert isinstance(exe, Executable)
    found = exe(x)
    assert list(found) == ["logits", "features"]
    for path, array in expected.items():
        np.testing.assert_allclose(found[path], array, rtol=1e-4, atol=1e-5)
        assert found[path].flags.c_contiguous
    again = exe(x=x)
    assert again["logits"] is not found["logits"]
    np.testing.assert_array_equal(again["logits"], found["logits"])


@pytest.mark.parametrize("fused", [False, True])
def test_a_convolutional_training_step(fused):
    graph, loss = convolutional_step()
    x = np.random.default_rng(5).normal(size=(3, 2, 9, 9))
    exe = build(graph, [loss], fused)
    exe._idle.append(_poisoned(exe))
    for _ in range(2):
        values = evaluate(graph, {graph.inputs[0]: x})
        expected = {graph[s].name: values[i].copy() for s, i in graph.updates.items()}
        np.testing.assert_allclose(exe(x), values[loss], rtol=1e-10)
        for name, array in expected.items():
            np.testing.assert_allclose(graph.state[name].array, array, rtol=1e-8, atol=1e-10)
    assert not exe.memory.commits
    assert exe.memory.arena_bytes < exe.memory.naive_bytes / 2
    if fused:
        assert {"conv_epilogue", "conv_weight_gradient", "pool_indices", "elementwise"} <= {k.kind for k in exe.kernels}


def test_moments_whose_axes_are_brought_back():
    graph = Graph()
    x = Builder(graph).input("x", tensor_type("f32", (8, 4, 5)))
    mean = reduce_mean(x, (0, 2))
    centred = subtract(x, reshape(mean, (1, 4, 1)))
    spread = reduce_mean(square(centred), (0, 2))
    for i, value in enumerate((mean, spread, centred)):
        graph.set_output(str(i), value.id)
    exe = build(graph)
    assert [k.kind for k in exe.kernels] == ["mean_variance"]
    array = np.random.default_rng(6).normal(1e3, 1, size=(8, 4, 5)).astype(np.float32)
    found = exe(array)
    exact = array.astype(np.float64)
    np.testing.assert_allclose(found[0], exact.mean((0, 2)), rtol=1e-6)
    np.testing.assert_allclose(found[1], exact.var((0, 2)), rtol=1e-4)
    np.testing.assert_allclose(found[2], exact - exact.mean((0, 2), keepdims=True), atol=1e-3)


def test_what_it_tells():
    exe = build(network())
    assert exe.inputs == (("x", tensor_type("f32", (4, 3, 12, 12))),)
    assert [name for name, _ in exe.outputs] == ["logits", "features"]
    assert exe.memory.peak_bytes <= exe.memory.naive_bytes
    assert exe.graph.name == "net"
    assert exe.stages == ()
    assert "kernels" in repr(exe)
    rows = exe.profile(images(), repeat=2)
    assert [r.name for r in rows] == [k.name for k in exe.kernels if not k.is_view]
    assert all(r.seconds >= 0 and r.bytes > 0 for r in rows)
    assert max(r.flops for r in rows) >= 2 * 4 * 8 * 144 * 27


def test_an_empty_batch():
    graph = network(0)
    found = build(graph)(images(0))
    assert found["logits"].shape == (0, 5)
    assert found["features"].shape == (0, 6, 6, 8)


def test_single_and_tuple_results():
    for paths, check in (([""], lambda y: y.shape == (2,)), (["0", "1"], lambda y: isinstance(y, tuple) and len(y) == 2)):
        graph = Graph()
        x = Builder(graph).input("x", tensor_type("f32", (2,)))
        for path in paths:
            graph.set_output(path, relu(x).id)
        assert check(build(graph)(np.zeros(2, np.float32)))


# --- out= --------------------------------------------------------------------------------------------------------------------


def test_out_receives_the_results():
    exe = build(network())
    out = outputs_for(exe)
    found = exe(images(), out=out)
    assert found["logits"] is out["logits"]
    np.testing.assert_array_equal(out["features"], exe(images())["features"])


def test_a_call_with_out_allocates_nothing():
    check_that_out_is_enough(build(network(64)))


def test_a_call_without_out_allocates_its_results_only():
    exe = build(network(64))
    x = images(64)
    size = sum(a.nbytes for a in exe(x).values())
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        exe(x)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < size + SMALL


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda a: a.astype(np.float64), DTypeError, "float64"),
        (lambda a: a[:, :4], ShapeError, r"\[4, 4\]"),
        (lambda a: np.asfortranarray(a), ShapeError, "C-contiguous"),
        (lambda a: np.empty((8, 5), np.float32)[::2], ShapeError, "C-contiguous"),
        (read_only, ShapeError, "writable"),
        (lambda a: a.tolist(), ShapeError, "out= has"),
        (lambda a: 3, DTypeError, "int"),
    ],
)
def test_out_that_does_not_fit(change, error, words):
    exe = build(network())
    out = outputs_for(exe)
    out["logits"] = change(out["logits"])
    with pytest.raises(error, match=words):
        exe(images(), out=out)


def test_out_that_overlaps():
    graph = Graph()
    builder = Builder(graph)
    x = builder.input("x", tensor_type("f32", (4,)))
    w = state(builder, "w", np.ones(4, np.float32))
    graph.set_output("a", add(flip(x), w).id)
    graph.set_output("b", tanh(x).id)
    exe = build(graph)
    array, other = np.arange(4, dtype=np.float32), np.zeros(4, np.float32)
    with pytest.raises(ShapeError, match="overlaps input 'x'"):
        exe(array, out={"a": array, "b": other})
    with pytest.raises(ShapeError, match="overlaps another output"):
        exe(array, out={"a": other, "b": other})
    with pytest.raises(ShapeError, match="array of the model"):
        exe(array, out={"a": other, "b": graph.state["w"].array})
    with pytest.raises(ShapeError, match=r"out= has \['a'\]"):
        exe(array, out={"a": other})


# --- inputs ------------------------------------------------------------------------------------------------------------------


class Broken:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("it requires grad")


@pytest.mark.parametrize(
    "change",
    [
        lambda x: np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1],
        np.asfortranarray,
        lambda x: np.ascontiguousarray(x.transpose(2, 0, 3, 1)).transpose(1, 3, 0, 2),
        lambda x: np.repeat(x, 2, axis=3)[..., ::2],
        lambda x: x.astype(">f4"),
        unaligned,
        WithArray,
        WithDlpack,
        read_only,
    ],
    ids=["negative", "fortran", "transposed", "strided", "big-endian", "unaligned", "array", "dlpack", "read-only"],
)
def test_inputs_in_any_form_give_the_same_bits(change):
    exe = build(network())
    expected = exe(images())["logits"]
    given = change(images())
    for _ in range(2):
        np.testing.assert_array_equal(exe(given)["logits"], expected)


def test_a_staged_input_is_allocated_once():
    exe = build(network(64))
    x, out = np.asfortranarray(images(64)), outputs_for(exe)
    exe(x, out=out)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        exe(x, out=out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < SMALL


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    exe = build(network())
    np.testing.assert_array_equal(exe(torch.from_numpy(images()))["logits"], exe(images())["logits"])
    with pytest.raises(DTypeError, match="Tensor did not give its data"):
        exe(torch.from_numpy(images()).requires_grad_())


@pytest.mark.parametrize(
    ("args", "named", "error", "words"),
    [
        ((images()[:2],), {}, ShapeError, r"'x' is f32\[4,3,12,12\], got an array of shape \[2, 3, 12, 12\]"),
        ((images().astype(np.float64),), {}, DTypeError, r"'x' is f32\[4,3,12,12\], got elements of type float64"),
        (("text",), {}, DTypeError, "got str"),
        ((None,), {}, DTypeError, "got NoneType"),
        ((Broken(),), {}, DTypeError, "it requires grad"),
        ((1.5,), {}, ShapeError, "got the number 1.5"),
        ((), {}, ShapeError, "input 'x' is missing"),
        ((images(), images()), {}, ShapeError, "2 arrays for 1 inputs"),
        ((images(),), {"x": images()}, ShapeError, "by position and by name"),
        ((), {"z": images()}, ShapeError, "no input 'z'"),
    ],
)
def test_inputs_that_do_not_fit(args, named, error, words):
    with pytest.raises(error, match=words):
        build(network())(*args, **named)


def test_nested_inputs_and_numbers():
    graph = Graph()
    builder = Builder(graph)
    a, b, n = (builder.input(name, tensor_type(d, ())) for name, d in (("batch.a", "f32"), ("batch.b", "f32"), ("n", "i32")))
    graph.set_output("y", subtract(a, b).id)
    graph.set_output("n", add(n, 1).id)
    exe = build(graph)
    array = np.float32(5)
    nested = {"a": array, "b": 2.0}
    calls = [exe((array, 2.0), 7), exe(nested, 7), exe(batch=nested, n=np.int32(7)), exe(array, 2, 7)]
    for found in calls:
        assert (float(found["y"]), int(found["n"])) == (3.0, 8)
    with pytest.raises(DTypeError, match=r"'n' is i32\[\], got the number 1.5"):
        exe(array, 2.0, 1.5)
    with pytest.raises(DTypeError, match="cannot hold"):
        exe(array, 2.0, 2**40)
