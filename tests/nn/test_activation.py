"""Activations and softmax against PyTorch, with their values and gradients at kinks."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn
from irconv.errors import AttributeValueError, ShapeError
from irconv.nn.functional.activation import exact_softplus
from tests.nn.against_torch import array, check, parameters_of, torch

T = torch.nn.functional
CASES = [
    ("relu", {}),
    ("relu6", {}),
    ("leaky_relu", {}),
    ("leaky_relu", {"negative_slope": 0.3}),
    ("elu", {}),
    ("elu", {"alpha": 0.5}),
    ("celu", {"alpha": 2.0}),
    ("selu", {}),
    ("gelu", {}),
    ("gelu", {"approximate": "tanh"}),
    ("sigmoid", {}),
    ("tanh", {}),
    ("silu", {}),
    ("mish", {}),
    ("hardtanh", {}),
    ("hardtanh", {"min_val": -0.5, "max_val": 2.0}),
    ("hardswish", {}),
    ("hardsigmoid", {}),
    ("softplus", {}),
    ("softplus", {"beta": 2.0, "threshold": 3.0}),
    ("softsign", {}),
    ("logsigmoid", {}),
    ("threshold", {"threshold": 0.3, "value": -1.0}),
    ("glu", {"dim": 1}),
    ("softmax", {"dim": 1}),
    ("softmax", {"dim": -1}),
    ("softmin", {"dim": 0}),
    ("log_softmax", {"dim": 1}),
]


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_activation(name: str, settings: dict[str, object]) -> None:
    x = np.concatenate([array(3, 4, 5) * 4, [[[40.0, -40.0, 3.5, -3.5, 7.0]] * 4]])
    # PyTorch's hardsigmoid multiplies its gradient by a sixth in float32
    tolerance = 1e-7 if name == "hardsigmoid" else 1e-10
    check(lambda v: getattr(F, name)(v, **settings), lambda v: getattr(T, name)(v, **settings), x, tolerance=tolerance)


LAYERS = [
    ("ReLU", {}), ("ReLU6", {}), ("LeakyReLU", {"negative_slope": 0.2}), ("ELU", {"alpha": 0.7}), ("CELU", {"alpha": 0.5}),
    ("SELU", {}), ("GELU", {"approximate": "tanh"}), ("SiLU", {}), ("Mish", {}), ("Sigmoid", {}), ("LogSigmoid", {}),
    ("Tanh", {}),
    ("Hardtanh", {"min_val": -0.2}), ("Hardswish", {}), ("Hardsigmoid", {}), ("Softplus", {"beta": 3.0}), ("Softsign", {}),
    ("Threshold", {"threshold": 0.1, "value": 3.0}), ("GLU", {"dim": 1}), ("Softmax", {"dim": 1}), ("Softmin", {"dim": 1}),
    ("LogSoftmax", {"dim": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings"), LAYERS)
def test_layer(name: str, settings: dict[str, object]) -> None:
    ours, theirs = getattr(nn, name), getattr(torch.nn, name)
    check(ours(**settings), theirs(**settings), array(2, 4, 3), tolerance=1e-7 if name == "Hardsigmoid" else 1e-10)
    known = inspect.signature(theirs).parameters.keys()
    assert "args" in known or inspect.signature(ours).parameters.keys() <= known


def test_inplace_changes_nothing() -> None:
    x = irconv.tensor([-1.0, 2.0])
    assert nn.ReLU(inplace=True)(x).tolist() == F.relu(x, inplace=True).tolist() == [0, 2]
    assert x.tolist() == [-1, 2]


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("shape", [(2, 4, 3), (2, 4)])
def test_prelu(count: int, shape: tuple[int, ...]) -> None:
    check(F.prelu, T.prelu, array(*shape), array(count, seed=1))
    ours, theirs = nn.PReLU(count, dtype="f64"), torch.nn.PReLU(count, dtype=torch.float64)
    ours.load_state_dict(parameters_of(theirs))
    check(ours, theirs, array(*shape))


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("relu", [0.0]),
        ("relu6", [0.0, 6.0]),
        ("hardtanh", [-1.0, 1.0]),
        ("leaky_relu", [0.0]),
        ("elu", [0.0]),
        ("celu", [0.0]),
        ("selu", [0.0]),
        ("hardsigmoid", [-3.0, 3.0]),
        ("softplus", [0.0, 20.0]),
        ("logsigmoid", [0.0]),
    ],
)
def test_gradient_at_kinks_is_torchs(name: str, points: list[float]) -> None:
    check(getattr(F, name), getattr(T, name), np.array(points))


def test_clip_passes_the_gradient_at_its_bounds() -> None:
    x = irconv.tensor([0.0, 6.0, 7.0], requires_grad=True)
    x.clip(0, 6).sum().backward()
    assert x.grad.tolist() == [1, 1, 0]
    y = irconv.tensor([0.0, 6.0, 7.0, 3.0], requires_grad=True)
    F.relu6(y).sum().backward()
    assert y.grad.tolist() == [0, 0, 0, 1]


def test_nan_goes_through_bounded_activations() -> None:
    x = np.array([np.nan, -np.inf, np.inf])
    for name in ("relu6", "hardtanh", "softplus", "elu", "leaky_relu"):
        np.testing.assert_array_equal(getattr(F, name)(x).numpy(), getattr(T, name)(torch.tensor(x)).numpy())


def test_softmax_does_not_overflow_and_ignores_shifts() -> None:
    x = np.array([[1e4, 1e4 - 1, -1e4]])
    np.testing.assert_allclose(F.softmax(x, 1).numpy(), F.softmax(x - 1e4, 1).numpy(), rtol=1e-12)
    assert np.isfinite(F.log_softmax(np.array([[1e300, 0.0]]), 1).numpy()).all()


def test_float16_softmax_sums_in_float32() -> None:
    x = np.zeros((1, 5000), np.float16)
    y = F.softmax(x, 1)
    assert y.dtype == np.float16
    assert y.numpy().astype(np.float64).sum() == pytest.approx(1, rel=2e-3)
    np.testing.assert_allclose(F.log_softmax(x, 1).numpy(), -np.log(5000), rtol=1e-3)


@pytest.mark.parametrize("dtype", ["f16", "f32", "f64"])
def test_exact_softplus_is_exact_to_the_type(dtype: str) -> None:
    x = irconv.tensor(np.linspace(-30, 100, 500), dtype)
    wide = np.logaddexp(0, x.numpy().astype(np.float64))
    eps = np.finfo(x.dtype).eps
    np.testing.assert_allclose(
        exact_softplus(x).numpy().astype(np.float64), wide, rtol=4 * eps, atol=1e-7 if dtype == "f16" else 0
    )


def test_second_derivative_of_logsigmoid_at_zero() -> None:
    first = irconv.grad(lambda x: F.logsigmoid(x).sum())
    second = irconv.grad(lambda x: first(x).sum())
    np.testing.assert_allclose(second(irconv.tensor(np.zeros(2))).numpy(), -0.25)


def test_bad_settings_are_refused_with_numbers() -> None:
    x = irconv.zeros((2, 3))
    with pytest.raises(AttributeValueError, match="approximate 'erf'"):
        F.gelu(x, "erf")
    with pytest.raises(AttributeValueError, match=r"min_val 1 is not below max_val 0"):
        F.hardtanh(x, 1, 0)
    with pytest.raises(ShapeError, match="glu halves axis 1, which has 3 elements"):
        F.glu(x)
    with pytest.raises(ShapeError, match="prelu takes 1 or 3 weights"):
        F.prelu(x, irconv.zeros(2))
    with pytest.raises(AttributeValueError, match="axis 2 is out of range"):
        F.softmax(x, 2)
