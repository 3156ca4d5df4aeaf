"""Batches of sizes not seen before run on the code that is there; in the steady state nothing is allocated."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from models.lenet import lenet
from models.mobilenet_v2 import InvertedResidual
from models.resnet import resnet18
from models.unet import unet

import irconv
import irconv.nn.functional as F
from irconv import nn, optim
from irconv.backends.native.library import library
from tests.backends.executables import peak_of
from tests.backends.handwritten import compiler_or_skip

FIRST, OTHERS = 4, (7, 16, 1)
"""The batch that is compiled for, and those that find all the code they need."""

SMALL = 16 * 1024
"""Bytes: what a call may have in hand for the Python around it, less than any value of the networks but the smallest."""


@pytest.fixture(autouse=True)
def _with_compiler():
    compiler_or_skip()


@dataclass(frozen=True)
class Network:
    """A small network, the shape of one input without the batch, and what it is trained with."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    loss: Callable[..., Any]
    optimizer: Callable[..., Any]


def squared(y: Any, target: Any) -> Any:
    """The mean square of what the network gives (the target has no part in it)."""
    return (y * y).mean() + 0.0 * target.sum()


def classified(y: Any, target: Any) -> Any:
    """Cross entropy, and how many were right."""
    return F.cross_entropy(y, target), (y.argmax(axis=1) == target).astype("float32").mean()


def momentum(parameters: Any) -> Any:
    return optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-3)


def adam(parameters: Any) -> Any:
    return optim.Adam(parameters, lr=1e-3)


def mobile_block() -> nn.Module:
    return nn.Sequential(InvertedResidual(8, 8, 1, 6), InvertedResidual(8, 12, 2, 6))


NETWORKS = {
    "lenet": Network(lenet, (1, 28, 28), classified, momentum),
    "resnet": Network(lambda: resnet18(10, 8), (3, 64, 64), classified, momentum),
    "mobile_block": Network(mobile_block, (8, 15, 17), squared, adam),
    "unet": Network(lambda: unet(3, 2, 4, 3), (3, 32, 32), squared, adam),
}


def made(name: str) -> nn.Module:
    irconv.random.manual_seed(0)
    return NETWORKS[name].make()


def images(name: str, batch: int) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, *NETWORKS[name].shape)).astype(np.float32)


def targets(batch: int) -> np.ndarray:
    return np.random.default_rng(batch + 1).integers(0, 10, batch)


def step_of(name: str, model: nn.Module, backend: str) -> irconv.Step:
    network = NETWORKS[name]
    return irconv.compile_step(model, network.loss, network.optimizer(model.parameters()), backend=backend)


def assert_close(found: np.ndarray, expected: np.ndarray, bound: float, about: str = "") -> None:
    largest = float(np.max(np.abs(expected), initial=0.0))
    np.testing.assert_allclose(found, expected, rtol=bound, atol=bound * max(largest, 1e-6), err_msg=about)


def units(executable: Any) -> set[str]:
    """The generated code of an executable, without the comments above it: what is compiled, or found in the cache."""
    return {re.sub(r"\A(//.*\n)+", "", source) for source in executable.sources.values()}


# --- other batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_inference_at_another_batch_compiles_nothing(name: str) -> None:
    model = made(name)
    model.eval()
    program, reference = (irconv.compile(model, backend=backend) for backend in ("native", "numpy"))
    program(images(name, FIRST))
    known, before = units(program.executable), library().compilations
    assert len(program.executable.sources) == sum(not kernel.is_view for kernel in program.kernels)
    for batch in OTHERS:
        x = images(name, batch)
        assert_close(program(x), reference(x), 1e-4, f"batch {batch}")
        assert not units(program.executable) - known, f"batch {batch}"
    assert library().compilations == before


@pytest.mark.parametrize("first", [FIRST, 1])
@pytest.mark.parametrize("name", NETWORKS)
def test_training_at_another_batch_compiles_nothing(name: str, first: int) -> None:
    """Nor at a single image, over which nothing is summed, nor after one."""
    model = made(name)
    step = step_of(name, model, "native")
    step(images(name, first), targets(first))
    known, before = units(step.compiled.executable), library().compilations
    for batch in (1, 2, 4, 7):
        start = {path: array.copy() for path, array in model.state_dict().items()}
        found = step(images(name, batch), targets(batch))
        assert not units(step.compiled.executable) - known, f"batch {batch}"
        assert library().compilations == before, f"batch {batch}"
        other = made(name)
        other.load_state_dict(start)
        wanted = irconv.compile_step(
            other, NETWORKS[name].loss, optim.SGD(other.parameters(), lr=0.0), backend="numpy"
        )(images(name, batch), targets(batch))
        assert_close(np.array(found), np.array(wanted), 1e-4, f"batch {batch}")


def test_an_empty_batch() -> None:
    program = irconv.compile(made("lenet"), backend="native")
    program(images("lenet", FIRST))
    assert program(images("lenet", 0)).shape == (0, 10)


# --- memory ------------------------------------------------------------------------------------------------------------------


def growth_of(call: Callable[[], Any], times: int) -> int:
    """KiB by which the process grows over many calls."""
    for _ in range(20):
        call()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(times):
        call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def test_inference_with_out_allocates_nothing() -> None:
    model = made("lenet")
    model.eval()
    program, x = irconv.compile(model, backend="native"), images("lenet", 16)
    out = program(x)
    assert peak_of(lambda: program(x, out=out)) < SMALL
    assert program.memory.arena_bytes > 10 * SMALL
    assert growth_of(lambda: program(x, out=out), 1000) < 256


def test_training_allocates_nothing() -> None:
    step, x, target = step_of("lenet", made("lenet"), "native"), images("lenet", 16), targets(16)
    assert peak_of(lambda: step(x, target)) < SMALL
    assert step.memory.arena_bytes > 10 * SMALL
    assert growth_of(lambda: step(x, target), 1000) < 256
