"""Runs a function of ours and PyTorch's on the same arrays: values and gradients must agree, traced and define-by-run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import irconv
from irconv.interpret import evaluate
from irconv.tensor import Tensor

torch = pytest.importorskip("torch")


def array(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    """Reproducible float64 numbers, all different."""
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape)


def check(
    ours: Callable[..., Any], theirs: Callable[..., Any], *arrays: Any, tolerance: float = 1e-10, gradient: bool = True
) -> None:
    """Compare results and, for every float array, gradients; then the traced program with the eager one."""
    mine = [irconv.tensor(a, requires_grad=gradient and np.asarray(a).dtype.kind == "f") for a in arrays]
    reference = [torch.tensor(a, requires_grad=gradient and np.asarray(a).dtype.kind == "f") for a in arrays]
    y, expected = ours(*mine), theirs(*reference)
    for found, wanted in zip(_several(y), _several(expected), strict=True):
        assert found.shape == tuple(wanted.shape)
        np.testing.assert_allclose(found.numpy(), wanted.detach().numpy(), rtol=tolerance, atol=tolerance)
    first, wanted = _several(y)[0], _several(expected)[0]
    if gradient and wanted.requires_grad:
        seed = np.random.default_rng(1).uniform(-1, 1, first.shape).astype(first.dtype)
        first.backward(seed)
        wanted.backward(torch.tensor(seed))
        for tensor, other in zip(mine, reference, strict=True):
            if other.grad is not None:
                assert tensor.grad is not None
                np.testing.assert_allclose(tensor.grad.numpy(), other.grad.numpy(), rtol=tolerance, atol=tolerance)
    check_traced(ours, arrays, y)


def check_traced(ours: Callable[..., Any], arrays: Any, eager: Any) -> None:
    """The graph of a program computes what the program computes define-by-run, bit for bit."""
    graph = irconv.trace(lambda *xs: ours(*xs), *[np.asarray(a) for a in arrays])
    values = evaluate(graph, dict(zip(graph.inputs, map(np.asarray, arrays), strict=True)))
    for found, wanted in zip(graph.outputs.values(), _several(eager), strict=True):
        np.testing.assert_array_equal(values[found], wanted.numpy())


def _several(result: Any) -> list[Any]:
    return list(result) if isinstance(result, tuple) else [result]


def parameters_of(theirs: Any) -> dict[str, np.ndarray]:
    """A PyTorch module's state."""
    return {name: value.detach().numpy().copy() for name, value in theirs.state_dict().items()}


def as_numpy(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.numpy())
