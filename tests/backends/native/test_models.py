"""The example networks on the native backend: the numbers of the references and of the NumPy backend, the same bits always."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
from models import MODELS

import irconv
from irconv import optim, structure
from irconv.backends.codegen.machine import this_machine
from irconv.backends.native.backend import NativeBackend
from irconv.backends.native.runtime import Pool
from irconv.interpret import evaluate
from tests.backends.handwritten import compiler_or_skip
from tests.backends.native.machines import hardly_optimised

SLOW = {"resnet152", "resnet50", "resnet34", "vgg16", "mobilenet_v2", "googlenet"}
NAMES = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in MODELS]
TRAINED = [each for each in NAMES if each.values[0] != "resnet152"]
"""The blocks of ResNet-152 are those of ResNet-50, more often: its training runs the same kernels."""

BOUNDS = {"fast": 1e-4, "strict": 2e-5}
"""Of the largest number of a result, in float32: Winograd's transforms take the first a little further."""

STEPS = 10
RATE = 1e-5
"""So small that ten steps are no chaos, as they are at larger ones where batch norm sees eight numbers: each step of 1e-3 makes
differences of MobileNet a hundred times larger, in float64 too."""

RATES = {"resnet50": 1e-8}
"""For an untrained network so deep that even that is chaos."""

CHANGE = 1e-6
"""Of the largest change of a parameter in ten steps, in float64."""

FALLBACKS: dict[str, int] = {}
"""Kernels of these networks without generated code, forward and backward, by kind: there are none."""


@pytest.fixture(autouse=True)
def _with_compiler():
    compiler_or_skip()


def model_of(name: str, dtype: str = "float32") -> Any:
    irconv.random.manual_seed(0)
    return MODELS[name].small().to(dtype)


@cache
def inputs_of(name: str, dtype: str = "float32") -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(0)
    return tuple(generator.standard_normal(shape).astype(dtype) for shape in MODELS[name].small_inputs)


def fallbacks(executable: Any) -> dict[str, int]:
    coded = executable.sources.keys()  # written anew at every access
    return Counter(k.kind for k in executable.kernels if not k.is_view and k.name not in coded)


def assert_close(found: np.ndarray, expected: np.ndarray, bound: float, about: str = "") -> None:
    """Equal within ``bound`` of the largest number."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape), about
    largest = float(np.max(np.abs(expected), initial=0.0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound * largest, err_msg=about)


def loss(y: Any, target: Any) -> Any:
    return ((y - target) ** 2).mean()


@cache
def target_of(name: str, dtype: str = "float32") -> np.ndarray:
    shape = irconv.compile(model_of(name), backend="numpy")(*inputs_of(name)).shape
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def step_of(model: Any, rate: float, backend: Any) -> irconv.Step:
    optimizer = optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)
    return irconv.compile_step(model, loss, optimizer, backend=backend)


# --- forward and gradients ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_forward(name: str) -> None:
    model, inputs = model_of(name).eval(), inputs_of(name)
    graph = irconv.trace(model, *inputs)
    expected = evaluate(graph, dict(zip(graph.inputs, inputs, strict=True)))[graph.outputs[""]]
    for precision, bound in BOUNDS.items():
        program = irconv.compile(model, *inputs, backend="native", precision=precision)
        first, again = program(*inputs), program(*inputs)
        assert_close(first, expected, bound, precision)
        assert first.tobytes() == again.tobytes()
        assert fallbacks(program.executable) == FALLBACKS


@pytest.mark.parametrize("name", NAMES)
def test_gradients(name: str) -> None:
    """All outputs of the joint graph, in training mode where the network knows one, from a random gradient of the result."""
    joint = irconv.differentiate(irconv.trace(model_of(name), *inputs_of(name)))
    given = [np.random.default_rng(i).standard_normal(joint[i].type.shape).astype(np.float32) for i in joint.inputs]
    given[: len(inputs_of(name))] = inputs_of(name)
    programs = [irconv.compile(joint, backend=backend) for backend in ("native", "numpy")]
    found, expected = (dict(structure.leaves(program(*given))) for program in programs)
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        assert_close(found[path], array, BOUNDS["fast"], path)
    assert fallbacks(programs[0].executable) == FALLBACKS


# --- training ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRAINED)
def test_ten_steps(name: str) -> None:
    """In float64, where rounding is far below what a step changes."""
    quick = hardly_optimised(this_machine())
    inputs, target = inputs_of(name, "float64"), target_of(name, "float64")
    moved, losses = [], []
    for backend in (NativeBackend(machine=quick), "numpy"):
        model = model_of(name, "float64")
        before = {path: array.copy() for path, array in model.state_dict().items()}
        step = step_of(model, RATES.get(name, RATE), backend)
        irconv.random.manual_seed(1)  # dropout
        losses.append([float(step(*inputs, target)) for _ in range(STEPS)])
        moved.append({path: array - before[path] for path, array in model.state_dict().items()})
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)
    rounding = 1e-13  # of numbers near 1: parameters that have no effect change by nothing else
    for path, change in moved[1].items():
        largest = float(np.max(np.abs(change), initial=0.0))
        np.testing.assert_allclose(moved[0][path], change, rtol=0, atol=CHANGE * largest + rounding, err_msg=path)


@pytest.mark.parametrize("name", TRAINED)
def test_the_same_bits_on_any_number_of_threads(name: str) -> None:
    """Two steps in float32; that they are the right ones is seen in float64, above."""
    inputs, target = inputs_of(name), target_of(name)
    states = []
    for pool in (Pool(1), Pool(3)):
        model = model_of(name)
        step = step_of(model, 1e-2, NativeBackend(pool=pool))
        irconv.random.manual_seed(1)
        losses = [float(step(*inputs, target)) for _ in range(2)]
        assert fallbacks(step.compiled.executable) == FALLBACKS
        states.append((losses, {path: array.tobytes() for path, array in model.state_dict().items()}))
    for state in states[1:]:
        assert state == states[0]
