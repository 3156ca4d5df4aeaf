"""Executables on NumPy: results, out=, allocation, threads, inputs of every kind, guards, updates, derived states."""

from __future__ import annotations

import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.backends.base import Executable
from irconv.backends.numpy.backend import NumpyBackend
from irconv.builder import Builder
from irconv.errors import BackendError, DTypeError, NumericsError, ShapeError, StateError
from irconv.graph import Graph, Provenance
from irconv.interpret import evaluate
from irconv.kernel import Program
from irconv.op import Fusion, OpDef
from irconv.ops.contract import matmul
from irconv.ops.conv import conv
from irconv.ops.elementwise import add, divide, log, multiply, relu, rsqrt, square, subtract, tanh
from irconv.ops.index import take
from irconv.ops.pool import max_pool
from irconv.ops.reduce import reduce_mean, reduce_sum, variance
from irconv.ops.shape import flip, reshape, transpose
from irconv.passes.differentiate import differentiate
from irconv.places import Location
from irconv.state import DerivedVariable, Variable
from irconv.types import tensor_type
from tests.passes.programs import compiled, graphs, state

SMALL = 60_000
"""Bytes for tuples, views, and the buffers of fixed size that NumPy's ufuncs take for strided operands."""


def build(graph: Graph, guards=(), fused: bool = True):
    """Compile a graph for NumPy, with a kernel per op or with fused ones."""
    backend = NumpyBackend()
    target = backend.target() if fused else replace(backend.target(), kinds=frozenset())
    return backend.build(compiled(graph, target, guards))


def network(batch: int = 4) -> Graph:
    """A small convolutional network with nested outputs."""
    graph = Graph("net")
    builder = Builder(graph)
    rng = np.random.default_rng(0)
    x = builder.input("x", tensor_type("f32", (batch, 3, 12, 12)))
    w = state(builder, "w", rng.normal(size=(8, 3, 3, 3)).astype(np.float32))
    v = state(builder, "v", rng.normal(size=(8 * 36, 5)).astype(np.float32))
    y = max_pool(relu(conv(x, w, padding=1)), 2)
    graph.set_output("logits", matmul(reshape(y, (batch, 8 * 36)), v).id)
    graph.set_output("features", transpose(y, (0, 2, 3, 1)).id)
    return graph


def images(batch: int = 4) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(batch, 3, 12, 12)).astype(np.float32)


def training(rate: bool = True) -> tuple[Graph, int]:
    """Least squares by gradient descent, and the id of the loss."""
    graph = Graph("train")
    builder = Builder(graph)
    x = builder.input("x", tensor_type("f32", (8, 3)))
    target = builder.input("target", tensor_type("f32", (8, 2)))
    lr = builder.input("lr", tensor_type("f32", ()))
    w = state(builder, "w", np.ones((3, 2), np.float32))
    steps = state(builder, "steps", np.zeros((), np.int64))
    loss = reduce_mean(multiply(*[subtract(matmul(x, w), target)] * 2))
    d_w = differentiate(graph, loss.id, [w.id])[w.id]
    graph.set_update(w.id, subtract(w, multiply(lr, builder.value(d_w))).id)
    graph.set_update(steps.id, add(steps, 1).id)
    graph.set_output("", loss.id)
    return graph, loss.id


def training_data():
    rng = np.random.default_rng(2)
    return rng.normal(size=(8, 3)).astype(np.float32), rng.normal(size=(8, 2)).astype(np.float32)


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


def convolutional_step() -> tuple[Graph, int]:
    """Forward, backward and momentum update of two convolutions with batch norm, pooling and a residual; the loss's id."""
    graph = Graph("step")
    builder = Builder(graph)
    rng = np.random.default_rng(4)
    x = builder.input("x", tensor_type("f64", (3, 2, 9, 9)))
    shapes = {"w": (4, 2, 3, 3), "v": (4, 2, 3, 3), "scale": (1, 4, 1, 1), "shift": (1, 4, 1, 1), "last": (4 * 16, 5)}
    w, v, scale, shift, last = (state(builder, name, rng.normal(size=shape)) for name, shape in shapes.items())
    y = conv(x, w, padding=1)
    mean, spread = reduce_mean(y, (0, 2, 3), keepdims=True), variance(y, (0, 2, 3), keepdims=True)
    y = relu(add(multiply(multiply(subtract(y, mean), rsqrt(add(spread, 1e-5))), scale), shift))
    y = max_pool(add(y, conv(y, v, padding=1, groups=2)), 3, 2)
    loss = reduce_mean(square(matmul(reshape(y, (3, 4 * 16)), last)))
    trained = list(graph.states)
    gradients = differentiate(graph, loss.id, trained)
    for each in trained:
        momentum = state(builder, f"{graph[each].name}.momentum", rng.normal(size=graph[each].type.shape))
        new = add(multiply(momentum, 0.9), builder.value(gradients[each]))
        graph.set_update(momentum.id, new.id)
        graph.set_update(each, subtract(builder.value(each), multiply(new, 0.01)).id)
    graph.set_output("", loss.id)
    return graph, loss.id


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


def outputs_for(exe):
    return {path: np.full(t.shape, np.nan, t.dtype.numpy) for path, t in exe.outputs}


def test_out_receives_the_results():
    exe = build(network())
    out = outputs_for(exe)
    found = exe(images(), out=out)
    assert found["logits"] is out["logits"]
    np.testing.assert_array_equal(out["features"], exe(images())["features"])


def test_a_call_with_out_allocates_nothing():
    exe = build(network(64))
    x, out = images(64), outputs_for(exe)
    exe(x, out=out)
    tracemalloc.start()
    try:
        exe(x, out=out)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        exe(x, out=out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert exe.memory.arena_bytes > 20 * SMALL
    assert peak - before < SMALL


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


def _read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda a: a.astype(np.float64), DTypeError, "float64"),
        (lambda a: a[:, :4], ShapeError, r"\[4, 4\]"),
        (lambda a: np.asfortranarray(a), ShapeError, "C-contiguous"),
        (lambda a: np.empty((8, 5), np.float32)[::2], ShapeError, "C-contiguous"),
        (_read_only, ShapeError, "writable"),
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


class WithArray:
    """Something that gives its data by ``__array__``."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


class WithDlpack:
    """Something that gives its data by DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Broken:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("it requires grad")


def unaligned(array):
    """The same numbers, starting at an odd address."""
    raw = np.empty(array.nbytes + 1, np.uint8)
    result = raw[1:].view(array.dtype).reshape(array.shape)
    result[...] = array
    assert not result.flags.aligned
    return result


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
        _read_only,
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


def in_threads(count, work):
    """Run ``work(index)`` in threads and raise what any of them raised."""
    errors = []

    def run(index):
        try:
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


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
