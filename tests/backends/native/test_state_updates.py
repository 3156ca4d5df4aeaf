"""Many state updates in one kernel: numbers, states that others read, tasks, and code that serves all networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn, optim
from irconv.backends.codegen.machine import MACHINES
from irconv.backends.native.backend import NativeBackend
from irconv.backends.native.kernels.element_space import TASK_BYTES
from irconv.backends.native.runtime import Pool
from irconv.builder import Builder
from irconv.graph import Graph
from irconv.ops.elementwise import add, multiply, subtract
from irconv.ops.reduce import reduce_sum
from irconv.ops.shape import transpose
from irconv.types import tensor_type
from tests.backends.handwritten import compiler_or_skip
from tests.backends.native.elements import RUNNABLE
from tests.passes.programs import compiled, state


@pytest.fixture(autouse=True)
def _compiler():
    compiler_or_skip()


class Apart(NativeBackend):
    """The native backend with a kernel for each update."""

    def target(self):
        target = super().target()
        return replace(target, kinds=target.kinds - {"state_updates"})


def built(graph: Graph, backend: NativeBackend | None = None):
    backend = backend or NativeBackend()
    return backend.build(compiled(graph, backend.target()))


def kinds(executable) -> list[str]:
    return [kernel.kind for kernel in executable.kernels if not kernel.is_view]


SHAPES = [(), (1,), (7,), (3, 5), (0, 4), (64, 9, 3), (300, 301), (17,), (2, 1, 1), (400, 400)]


def momentum(seed: int = 0) -> tuple[Graph, dict[str, np.ndarray]]:
    """Updates of arrays of all sizes, and the arrays that they have before."""
    graph = Graph("step")
    builder = Builder(graph)
    rng = np.random.default_rng(seed)
    rate = builder.input("rate", tensor_type("f32", ()))
    arrays = {}
    for number, shape in enumerate(SHAPES):
        for name in (f"w{number}", f"v{number}"):
            arrays[name] = rng.normal(size=shape).astype(np.float32)
        w, v = (state(builder, name, arrays[name].copy()) for name in (f"w{number}", f"v{number}"))
        new = add(multiply(v, 0.5), multiply(w, w))
        graph.set_update(v.id, new.id)
        graph.set_update(w.id, subtract(w, multiply(new, rate)).id)
    steps = state(builder, "steps", np.array(41))
    graph.set_update(steps.id, add(steps, 1).id)
    graph.set_output("", multiply(rate, 2.0).id)
    return graph, arrays


@pytest.mark.parametrize("machine", RUNNABLE)
def test_arrays_of_all_sizes(machine):
    graph, before = momentum()
    executable = built(graph, NativeBackend(machine=MACHINES[machine]))
    assert sorted(kinds(executable)) == ["multiply", "state_updates"]
    assert len(executable.memory.update_in_place) == len(graph.updates)
    executable(np.float32(0.25))
    for number in range(len(SHAPES)):
        w, v = (before[f"{name}{number}"].astype(np.float64) for name in "wv")
        new = 0.5 * v + w * w
        np.testing.assert_allclose(graph.state[f"v{number}"].array, new, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(graph.state[f"w{number}"].array, w - 0.25 * new, rtol=1e-6, atol=1e-6)
    assert graph.state["steps"].array == 42


def test_tasks_are_of_a_size_and_do_not_show():
    results = []
    for threads in (1, 2, 3):
        graph, _ = momentum()
        backend = NativeBackend(pool=Pool(threads))
        executable = built(graph, backend)
        kernel = next(k for k in executable.kernels if k.kind == "state_updates")
        made = backend._lowering().lower(graph, kernel)
        written = sum(graph[i].type.bytes for i in kernel.outputs)
        assert written / (3 * TASK_BYTES) < made.phases[0].tasks < written / TASK_BYTES + 2
        for _ in range(3):
            executable(np.float32(0.1))
        results.append({name: variable.array.tobytes() for name, variable in graph.state.items()})
    assert results[0] == results[1] == results[2]


def test_states_that_other_updates_read():
    """One that a later update reads as well, and two that are swapped: nobody may see a new value."""
    graph = Graph("swap")
    builder = Builder(graph)
    rng = np.random.default_rng(1)
    a, b, c, d = (rng.normal(size=(50, 60)).astype(np.float32) for _ in range(4))
    values = [state(builder, name, array.copy()) for name, array in zip("abcd", (a, b, c, d), strict=True)]
    new = [multiply(values[0], 0.5), add(values[0], values[1]), multiply(values[3], 2.0), multiply(values[2], 3.0)]
    for old, value in zip(values, new, strict=True):
        graph.set_update(old.id, value.id)
    graph.set_output("", reduce_sum(values[0]).id)
    executable = built(graph)
    assert kinds(executable).count("state_updates") == 1
    executable()
    for name, expected in zip("abcd", (a * np.float32(0.5), a + b, d * 2, c * 3), strict=True):
        np.testing.assert_array_equal(graph.state[name].array, expected)


def test_gradients_that_lie_across_and_wide_numbers():
    graph = Graph("across")
    builder = Builder(graph)
    rng = np.random.default_rng(2)
    x = rng.normal(size=(70, 40)).astype(np.float32)
    w, v = rng.normal(size=(40, 70)).astype(np.float32), rng.normal(size=(40,))
    given = builder.input("x", tensor_type("f32", x.shape))
    weights, wide = state(builder, "w", w.copy()), state(builder, "v", v.copy())
    graph.set_update(weights.id, subtract(weights, transpose(multiply(given, 2.0))).id)
    graph.set_update(wide.id, multiply(wide, 1 / 3).id)
    graph.set_output("", reduce_sum(given).id)
    executable = built(graph)
    assert kinds(executable).count("state_updates") == 1
    executable(x)
    np.testing.assert_array_equal(graph.state["w"].array, w - 2 * x.T)
    np.testing.assert_allclose(graph.state["v"].array, v / 3, rtol=1e-15)


class Net(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))


OPTIMISERS = {
    "sgd": lambda parameters: optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adam": lambda parameters: optim.Adam(parameters, 0.01),
    "adamw": lambda parameters: optim.AdamW(parameters, 0.01),
    "rmsprop": lambda parameters: optim.RMSprop(parameters, 0.01),
}


def trained(optimiser: str, backend, width: int = 6, **options):
    irconv.random.manual_seed(3)
    model = Net(width)
    made = OPTIMISERS[optimiser](model.parameters())
    step = irconv.compile_step(model, F.cross_entropy, made, backend=backend, **options)
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(4):
        losses.append(float(step(rng.normal(size=(8, 1, 9, 9)).astype(np.float32), rng.integers(0, 5, 8))))
    return step, losses, {**model.state_dict(), **{f"optimiser {k}": v for k, v in made.state_dict().items()}}


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.5}, {"accumulate": 2}], ids=["plain", "clipped", "accumulated"])
@pytest.mark.parametrize("optimiser", list(OPTIMISERS))
def test_training_is_what_it_is_with_a_kernel_for_each(optimiser, options):
    step, losses, found = trained(optimiser, NativeBackend(), **options)
    _, expected_losses, expected = trained(optimiser, Apart(), **options)
    assert kinds(step).count("state_updates") == 1
    assert losses == expected_losses
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    _, other_losses, other = trained(optimiser, "numpy", **options)
    np.testing.assert_allclose(losses, other_losses, rtol=1e-4)
    np.testing.assert_allclose(found["head.weight"], other["head.weight"], rtol=1e-3, atol=1e-4)


def test_one_source_for_networks_of_all_widths():
    sources = set()
    for width in (3, 6, 150):
        step, _, _ = trained("sgd", NativeBackend(), width)
        kernel = next(kernel for kernel in step.kernels if kernel.kind == "state_updates")
        sources.add(step.compiled.executable.sources[kernel.name].split("#include")[1])
    assert len(sources) == 1
