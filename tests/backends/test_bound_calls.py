"""Calls with all their arrays: what they read and write, what they see of the model, what they refuse, threads."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import TensorSpec, nn, optim
from irconv.builder import Builder
from irconv.errors import DTypeError, IrconvError, NumericsError, ShapeError
from irconv.graph import Graph
from irconv.ops.elementwise import add, log, subtract
from irconv.ops.reduce import reduce_sum
from irconv.types import tensor_type
from tests.backends.executables import SMALL, in_threads, network, unaligned
from tests.backends.handwritten import compiler_or_skip, random
from tests.passes.programs import compiled, state


@pytest.fixture(params=["numpy", "native"])
def backend(request):
    if request.param == "native":
        compiler_or_skip()
    return request.param


class Net(nn.Module):
    """Something whose weights are packed, and folded with a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 6 * 6, 3)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().flatten(1))


def by_hand(model, x):
    """The same with loops over kernel taps, in float64."""
    state = {name: array.astype(np.float64) for name, array in model.state_dict().items()}
    weight, wide = state["conv.weight"], np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros((len(x), 8, 6, 6)) + state["conv.bias"].reshape(-1, 1, 1)
    for i in range(3):
        for j in range(3):
            y += np.einsum("nchw,oc->nohw", wide[:, :, i : i + 6, j : j + 6], weight[:, :, i, j])
    mean, variance, scale, shift = (
        state[f"norm.{name}"].reshape(-1, 1, 1) for name in ("running_mean", "running_var", "weight", "bias")
    )
    y = np.maximum((y - mean) / np.sqrt(variance + 1e-5) * scale + shift, 0)
    return y.reshape(len(x), -1) @ state["head.weight"].T + state["head.bias"]


def build(graph, backend, guards=()):
    found = irconv.backends.find_backend(backend)
    return found.build(compiled(graph, found.target(), guards))


# --- arrays ------------------------------------------------------------------------------------------------------------------


def test_inputs_are_read_as_they_are_and_the_same_results_are_written(backend):
    model = Net()
    x = random(4, 2, 6, 6)
    exe = irconv.compile(model, x, backend=backend)
    call = exe.bind(x)
    y = call()
    assert y is call.results
    assert call.inputs[0] is x
    np.testing.assert_allclose(y, by_hand(model, x), rtol=1e-4, atol=1e-5)
    x[...] = random(4, 2, 6, 6, seed=1)
    other = exe(x)
    assert call() is y
    np.testing.assert_array_equal(y, other)
    np.testing.assert_allclose(y, by_hand(model, x), rtol=1e-4, atol=1e-5)


def test_results_go_to_out(backend):
    def program(a, b):
        return {"sum": a + b, "both": (a * 2, b[::-1])}

    a, b = random(5, 3), random(5, 3, seed=1)
    out = {"sum": np.empty((5, 3), np.float32), "both": (np.empty((5, 3), np.float32), np.empty((5, 3), np.float32))}
    call = irconv.compile(program, backend=backend).bind(a, b=b, out=out)
    found = call()
    assert found["sum"] is out["sum"]
    assert found["both"][1] is out["both"][1]
    np.testing.assert_array_equal(out["sum"], a + b)
    np.testing.assert_array_equal(out["both"][0], a * 2)
    np.testing.assert_array_equal(out["both"][1], b[::-1])


def test_bound_calls_and_others_do_not_disturb_each_other(backend):
    exe = irconv.compile(lambda x: (x * 2).tanh() + x[::-1], TensorSpec((40,)), backend=backend)
    inputs = [random(40, seed=seed) for seed in range(3)]
    expected = [np.tanh(2 * x.astype(np.float64)) + x[::-1] for x in inputs]
    calls = [exe.bind(x) for x in inputs]
    for _ in range(2):
        for x, call, wanted in zip(inputs, calls, expected, strict=True):
            np.testing.assert_allclose(exe(x), wanted, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(call(), wanted, rtol=1e-5, atol=1e-6)
    assert len({id(call.results) for call in calls}) == 3


def test_empty_arrays(backend):
    call = irconv.compile(lambda x: x * 2, TensorSpec((0, 3)), backend=backend).bind(np.empty((0, 3), np.float32))
    assert call().shape == (0, 3)


def test_arrays_that_are_read_only(backend):
    x = random(3)
    x.flags.writeable = False
    np.testing.assert_array_equal(irconv.compile(lambda x: x * 2, x, backend=backend).bind(x)(), x * 2)


def test_nothing_is_allocated(backend):
    exe = irconv.compile(Net(), TensorSpec((64, 2, 6, 6)), backend=backend)
    call = exe.bind(random(64, 2, 6, 6))
    call()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        call()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < SMALL


# --- states ------------------------------------------------------------------------------------------------------------------


def test_changes_of_the_model_are_seen(backend):
    model, x = Net(), random(4, 2, 6, 6)
    call = irconv.compile(model, x, backend=backend).bind(x)
    before = call().copy()
    model.norm.running_mean.assign(random(8, seed=3))
    np.testing.assert_allclose(call(), by_hand(model, x), rtol=1e-4, atol=1e-5)
    assert np.abs(call.results - before).max() > 1e-2
    state = {name: array for name, array in model.state_dict().items() if array.dtype.kind == "f"}
    model.load_state_dict({name: 1.5 * array for name, array in state.items()}, strict=False)
    np.testing.assert_allclose(call(), by_hand(model, x), rtol=1e-4, atol=1e-5)
    step = irconv.compile_step(model, F.cross_entropy, optim.SGD(model.parameters(), lr=0.1), backend=backend)
    for _ in range(2):
        step(x, np.array([0, 1, 2, 0]))
        np.testing.assert_allclose(call(), by_hand(model, x), rtol=1e-3, atol=1e-4)


def descent():
    """w <- w - log(x), with the sum of the logarithms as guarded loss."""
    graph = Graph()
    builder = Builder(graph)
    x = builder.input("x", tensor_type("f32", (4,)))
    w = state(builder, "w", np.ones(4, np.float32))
    step = log(x)
    loss = reduce_sum(step, (0,))
    graph.set_update(w.id, subtract(w, step).id)
    graph.set_output("", loss.id)
    return graph, loss.id


def test_programs_that_write_states(backend):
    graph, loss = descent()
    x = np.full(4, 2, np.float32)
    call = build(graph, backend, [loss]).bind(x)
    version = graph.state["w"].version
    for number in (1, 2):
        np.testing.assert_allclose(call(), 4 * np.log(2), rtol=1e-5)
        np.testing.assert_allclose(graph.state["w"].array, 1 - number * np.log(2), rtol=1e-5, atol=1e-6)
    assert graph.state["w"].version > version
    before = graph.state["w"].array.copy()
    x[2] = np.nan
    with pytest.raises(NumericsError, match="not finite"):
        call()
    np.testing.assert_array_equal(graph.state["w"].array, before)
    x[2] = 2
    call()
    np.testing.assert_allclose(graph.state["w"].array, before - np.log(2), rtol=1e-5, atol=1e-6)


def test_an_index_out_of_range_is_refused_and_the_next_call_runs(backend):
    table, indices = random(5, 3), np.array([0, 4])
    call = irconv.compile(lambda t, i: t[i], table, indices, backend=backend).bind(table, indices)
    np.testing.assert_array_equal(call(), table[indices])
    indices[1] = 5
    with pytest.raises(IrconvError):
        call()
    indices[1] = 2
    np.testing.assert_array_equal(call(), table[indices])


# --- what is refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda x: x[:2], ShapeError, r"'x' is f32\[4,3,12,12\], got an array of shape \[2, 3, 12, 12\]"),
        (lambda x: x.astype(np.float64), DTypeError, "elements of type float64"),
        (np.asfortranarray, ShapeError, "C-contiguous"),
        (unaligned, ShapeError, "aligned"),
        (lambda x: x.astype(">f4"), ShapeError, "byte order"),
        (lambda x: x.tolist(), ShapeError, "inputs"),
        (lambda x: 2.0, DTypeError, "got float"),
        (lambda x: None, DTypeError, "got NoneType"),
    ],
)
def test_inputs_that_cannot_be_bound(backend, change, error, words):
    exe = build(network(), backend)
    with pytest.raises(error, match=words):
        exe.bind(change(random(4, 3, 12, 12)))


def test_a_missing_input(backend):
    with pytest.raises(ShapeError, match="input 'x' is missing"):
        build(network(), backend).bind()


def test_out_that_cannot_be_bound(backend):
    model, x = Net(), random(3, 2, 6, 6)
    exe = irconv.compile(model, x, backend=backend)
    with pytest.raises(ShapeError, match=r"shape \[2, 3\]"):
        exe.bind(x, out=np.empty((2, 3), np.float32))
    with pytest.raises(DTypeError, match="float64"):
        exe.bind(x, out=np.empty((3, 3)))
    with pytest.raises(ShapeError, match="C-contiguous"):
        exe.bind(x, out=np.empty((3, 6), np.float32)[:, ::2])
    with pytest.raises(ShapeError, match="overlaps input"):
        exe.bind(x, out=x.reshape(-1)[:9].reshape(3, 3))
    weight = model.head.weight.value.variable.array
    with pytest.raises(ShapeError, match="array of the model"):
        exe.bind(x, out=weight.reshape(-1)[:9].reshape(3, 3))


def test_an_input_that_the_program_writes(backend):
    graph, _ = descent()
    with pytest.raises(ShapeError, match="'x' is an array that the program writes"):
        build(graph, backend).bind(graph.state["w"].array)


# --- threads -----------------------------------------------------------------------------------------------------------------


def test_threads_take_turns(backend):
    x = random(2000)
    exe = irconv.compile(lambda x: x.tanh() * 3 - x.exp(), x, backend=backend)
    call, expected = exe.bind(x), exe(x)
    calls = [exe.bind(x.copy()) for _ in range(4)]

    def work(index):
        for _ in range(50):
            np.testing.assert_array_equal(call(), expected)  # everybody writes the same
            np.testing.assert_array_equal(calls[index](), expected)

    in_threads(4, work)


def test_a_bound_evaluation_beside_training_sees_whole_steps(backend):
    graph = Graph("step")
    builder = Builder(graph)
    states = [state(builder, f"w{i}", np.zeros(2000, np.float32)) for i in range(4)]
    for each in states:
        graph.set_update(each.id, add(each, 1.0).id)
    graph.set_output("", builder.constant(np.zeros((), np.float32)).id)
    reading = Graph("read")
    builder = Builder(reading)
    for name, variable in graph.state.items():
        value = builder.wrap(reading.add_state(name, variable.type, "param", variable))
        reading.set_output(name, reduce_sum(value, (0,)).id)
    step, read = build(graph, backend).bind(), build(reading, backend)
    done = threading.Event()

    def work(index):
        if index == 0:
            for _ in range(100):
                step()
            done.set()
            return
        look = read.bind()
        while not done.is_set():
            sums = {float(s) for s in look().values()}
            assert len(sums) == 1, "a step was seen half done"

    in_threads(3, work)
    assert all(v.array[0] == 100 for v in graph.state.values())
