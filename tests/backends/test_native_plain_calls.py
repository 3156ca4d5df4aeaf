"""The short way through a native call: which calls take it, that it gives what the long one gives, and that it keeps up."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import TensorSpec, nn, optim
from irconv.backends.base import MISSED
from irconv.builder import Builder
from irconv.errors import IrconvError, NumericsError
from irconv.graph import Graph
from irconv.locks import writing
from irconv.ops.elementwise import add, subtract
from irconv.ops.shape import flip, reshape, slice_, transpose
from irconv.structure import leaves
from irconv.types import tensor_type
from tests.backends.executables import unaligned
from tests.backends.handwritten import compiler_or_skip, random
from tests.passes.programs import compiled, state
from tests.test_locks import wait_until


@pytest.fixture(autouse=True)
def _compiler():
    compiler_or_skip()


def build(graph):
    backend = irconv.backends.find_backend("native")
    return backend.build(compiled(graph, backend.target()))


def scaled():
    """x * w + 1 over 4x3, where w is a state."""
    graph = Graph()
    builder = Builder(graph)
    x = builder.input("x", tensor_type("f32", (4, 3)))
    w = state(builder, "w", random(4, 3, seed=1))
    graph.set_output("", add(subtract(x, w), 1.0).id)
    return graph


def read_only(x):
    x.flags.writeable = False
    return x


class Special(np.ndarray):
    """Arrays of a kind that may do anything."""


def test_a_plain_call_gives_what_any_call_gives():
    graph = scaled()
    exe = build(graph)
    x, out = random(4, 3), np.empty((4, 3), np.float32)
    found = exe.plain_call((x,), None)
    np.testing.assert_array_equal(found, x - graph.state["w"].array + 1)
    assert exe.plain_call((x,), out) is out
    np.testing.assert_array_equal(out, found)
    np.testing.assert_array_equal(exe(np.asfortranarray(x)), found)


@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: np.ascontiguousarray(x[::-1])[::-1],
        lambda x: x.astype(">f4"),
        lambda x: x.astype(np.float64),
        lambda x: x[:3],
        lambda x: x.reshape(3, 4),
        unaligned,
        read_only,
        lambda x: x.view(Special),
        lambda x: x.tolist(),
        lambda x: None,
    ],
)
def test_what_is_not_plain(change):
    exe = build(scaled())
    assert exe.plain_call((random(4, 3),), None) is not MISSED
    assert exe.plain_call((change(random(4, 3)),), None) is MISSED
    assert exe.plain_call((), None) is MISSED
    assert exe.plain_call((random(4, 3), random(4, 3)), None) is MISSED


def test_out_that_is_not_plain():
    graph = scaled()
    exe = build(graph)
    both = np.zeros((8, 3), np.float32)
    x = both[2:6]
    changes = (np.asfortranarray, unaligned, read_only, lambda a: a.astype(np.float64), lambda a: a[:3], lambda a: a.tolist())
    for change in changes:
        assert exe.plain_call((x,), change(np.zeros((4, 3), np.float32))) is MISSED
    for first in range(5):
        assert exe.plain_call((x,), both[first : first + 4]) is MISSED, "it overlaps the input"
    for _ in range(2):
        assert exe.plain_call((x,), graph.state["w"].array) is MISSED, "it is a state"
    good = np.zeros((4, 3), np.float32)
    for _ in range(2):
        assert exe.plain_call((x,), good) is good


def test_an_input_that_the_program_writes_is_copied_first():
    graph = Graph()
    builder = Builder(graph)
    x = builder.input("x", tensor_type("f32", (4,)))
    w = state(builder, "w", np.arange(4, dtype=np.float32))
    new = add(flip(x), w)
    graph.set_update(w.id, new.id)
    graph.set_output("", subtract(x, new).id)
    exe = build(graph)
    array = graph.state["w"].array
    assert exe.plain_call((np.zeros(4, np.float32),), None) is not MISSED
    before = array.copy()
    assert exe.plain_call((array,), None) is MISSED
    np.testing.assert_array_equal(array, before)
    np.testing.assert_array_equal(exe(array), before - (before[::-1] + before))
    np.testing.assert_array_equal(array, before[::-1] + before)


def test_views_of_inputs_are_found_wherever_the_input_is():
    graph = Graph()
    builder = Builder(graph)
    x, y = (builder.input(name, tensor_type("f32", (4, 6))) for name in "xy")
    graph.set_output("a", add(slice_(x, (2, 1), (4, 5)), slice_(flip(y), (0, 0), (2, 4))).id)
    graph.set_output("b", add(transpose(x), transpose(reshape(y, (4, 6)))).id)
    exe = build(graph)
    for seed in range(3):
        a, b = random(4, 6, seed=seed), random(4, 6, seed=seed + 10)
        for found in (exe(a, b), exe.bind(a, b)(), exe(np.asfortranarray(a), b)):
            np.testing.assert_array_equal(found["a"], a[2:4, 1:5] + b[::-1, ::-1][0:2, 0:4])
            np.testing.assert_array_equal(found["b"], a.T + b.T)


def test_the_table_follows_calls_of_both_kinds():
    exe = build(scaled())
    w = random(4, 3, seed=1)
    arrays = [random(4, 3, seed=seed) for seed in range(2, 6)]
    outs = [np.empty((4, 3), np.float32) for _ in range(2)]
    for turn in range(12):
        x = arrays[turn % 4]
        given = np.asfortranarray(x) if turn % 3 == 0 else x
        out = outs[turn % 2] if turn % 5 < 3 else None
        np.testing.assert_array_equal(exe(given, out=out), x - w + 1)
    assert len(exe._idle) == 1


def test_addresses_that_were_written_in_part_are_written_again():
    exe = build(scaled())
    x, out = random(4, 3), np.zeros((4, 3), np.float32)
    exe(x, out=out)
    context = exe._idle[0]
    elsewhere = np.zeros((4, 3), np.float32).ctypes.data
    for interrupted in ([elsewhere, None], [None, elsewhere]):
        with pytest.raises(TypeError):
            context.point(interrupted)
        out[...] = 0
        exe(x, out=out)
        np.testing.assert_array_equal(out, x - random(4, 3, seed=1) + 1)


# --- checks, states, locks ---------------------------------------------------------------------------------------------------


def test_a_check_that_fails():
    table, indices = random(5, 3), np.array([0, 4])
    exe = irconv.compile(lambda t, i: t[i], table, indices, backend="native").executable
    assert exe.plain_call((table, indices), None) is not MISSED
    with pytest.raises(IrconvError):
        exe.plain_call((table, indices + 1), None)
    assert [array for array in exe._idle[0].arrays if array is table] == []
    np.testing.assert_array_equal(exe.plain_call((table, indices), None), table[indices])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.last(self.first(x).relu())


def test_a_guard_and_what_is_frozen():
    model = Net()
    x, target = random(8, 6), np.arange(8) % 3
    step = irconv.compile_step(model, F.cross_entropy, optim.SGD(model.parameters(), lr=0.1), backend="native")

    def weights():
        return {name: array.copy() for name, array in model.state_dict().items()}

    losses = [float(step(x, target)) for _ in range(4)]
    assert losses == sorted(losses, reverse=True)
    before = weights()
    broken = x.copy()
    broken[1, 2] = np.nan
    with pytest.raises(NumericsError, match="not finite"):
        step(broken, target)
    for name, array in weights().items():
        np.testing.assert_array_equal(array, before[name])
    assert step(x, target) < losses[-1]
    before = weights()
    model.first.weight.requires_grad_(False)
    for _ in range(3):
        step(x, target)
    changed = {name for name, array in weights().items() if not np.array_equal(array, before[name])}
    assert changed == {"first.bias", "last.weight", "last.bias"}
    model.first.weight.requires_grad_(True)
    step(x, target)
    assert not np.array_equal(weights()["first.weight"], before["first.weight"])


def test_a_write_is_seen_after_any_number_of_calls():
    model, x = Net(), random(2, 6)
    exe = irconv.compile(model, x, backend="native")
    for turn in range(3):
        model.last.weight.assign(random(3, 5, seed=turn))
        hidden = np.maximum(x @ model.first.weight.numpy().T + model.first.bias.numpy(), 0)
        for _ in range(4):
            np.testing.assert_allclose(
                exe(x), hidden @ random(3, 5, seed=turn).T + model.last.bias.numpy(), rtol=1e-5, atol=1e-6
            )


@pytest.mark.parametrize("bound", [False, True])
def test_it_waits_while_somebody_writes(bound):
    exe, x = build(scaled()), random(4, 3)
    expected = exe(x)
    call = exe.bind(x) if bound else lambda: exe.plain_call((x,), None)
    (lock,) = exe._locks
    found = []
    with writing([lock]):
        caller = threading.Thread(target=lambda: found.append(call().copy()), daemon=True)
        caller.start()
        wait_until(lambda: lock._waiting)
        assert found == []
    caller.join(30)
    np.testing.assert_array_equal(found[0], expected)
    assert not lock._inside


@pytest.mark.parametrize("bound", [False, True])
def test_it_is_inside_the_lock_while_it_runs_and_leaves_whatever_happens(bound, monkeypatch):
    exe, x = build(scaled()), random(4, 3)
    call = exe.bind(x) if bound else lambda: exe.plain_call((x,), None)
    (lock,) = exe._locks
    seen = []

    def interrupted(row):
        seen.append(len(lock._inside))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(exe._pool, "run_row", interrupted)
        with pytest.raises(KeyboardInterrupt):
            call()
    assert seen == [1]
    assert not lock._inside
    np.testing.assert_array_equal(call(), exe(x))


# --- what comes back ---------------------------------------------------------------------------------------------------------


def test_structures_of_results():
    x = random(3)
    for program, expected in (
        (lambda x: (x + 1, x + 2), (x + 1, x + 2)),
        (lambda x: {"b": x + 1, "a": x + 2}, {"b": x + 1, "a": x + 2}),
        (lambda x: {"a": (x + 1, {"c": x + 2})}, {"a": (x + 1, {"c": x + 2})}),
    ):
        exe = irconv.compile(program, x, backend="native")
        for _ in range(3):  # the long way, and the short ones
            found, wanted = list(leaves(exe(x))), list(leaves(expected))
            assert [path for path, _ in found] == [path for path, _ in wanted]
            for (_, array), (_, other) in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(array, other)


def test_nobodys_arrays_are_kept_alive():
    exe = irconv.compile(lambda x: x * 2 + x[::-1], TensorSpec((1000,)), backend="native")
    for _ in range(3):
        x = random(1000)
        y = exe(x)
        seen = weakref.ref(x), weakref.ref(y)
        del x, y
        gc.collect()
        assert [each() for each in seen] == [None, None]


def test_scalars():
    exe = irconv.compile(lambda x, n: x * n, TensorSpec(()), TensorSpec((), "i32"), backend="native")
    for _ in range(3):
        found = exe(np.array(1.5, np.float32), np.array(4, np.int32))
        assert found.shape == ()
        assert found == 6


def test_nested_arguments_after_plain_ones():
    def program(*args):
        return args[0][0] - args[0][1] if isinstance(args[0], tuple) else args[0] + args[1]

    exe = irconv.compile(program, backend="native")
    a, b = random(3), random(3, seed=1)
    for _ in range(3):
        np.testing.assert_array_equal(exe(a, b), a + b)
        np.testing.assert_array_equal(exe((a, b)), a - b)
        np.testing.assert_array_equal(exe(a, b), a + b)
