"""Initialisers: bounds, moments and PyTorch's gains."""

from __future__ import annotations

import math

import numpy as np
import pytest

import irconv
from irconv import nn, random
from irconv.errors import AttributeValueError, ShapeError
from irconv.nn import init


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(np.zeros(shape, np.float32))


def test_moments() -> None:
    random.manual_seed(1)
    fan_in, fan_out = 32 * 9, 64 * 9
    for fill, bound in [
        (init.xavier_uniform_, math.sqrt(6 / (fan_in + fan_out))),
        (init.kaiming_uniform_, math.sqrt(6 / fan_in)),
        (lambda w: init.kaiming_uniform_(w, a=1.0, mode="fan_out"), math.sqrt(3 / fan_out)),
        (lambda w: init.uniform_(w, -2, 2), 2.0),
    ]:
        values = fill(weight(64, 32, 3, 3)).numpy()
        assert np.abs(values).max() <= bound
        assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    for fill, deviation in [
        (init.xavier_normal_, math.sqrt(2 / (fan_in + fan_out))),
        (lambda w: init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"), math.sqrt(2 / fan_out)),
        (lambda w: init.normal_(w, 0, 0.3), 0.3),
    ]:
        values = fill(weight(64, 32, 3, 3)).numpy()
        assert values.std() == pytest.approx(deviation, rel=0.02)
        assert abs(values.mean()) < 4 * deviation / math.sqrt(values.size)


def test_gains_are_torchs() -> None:
    torch = pytest.importorskip("torch")
    for name in ("linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    assert init.calculate_gain("leaky_relu", 0.3) == pytest.approx(torch.nn.init.calculate_gain("leaky_relu", 0.3))


def test_orthogonal() -> None:
    for shape in ((4, 8), (8, 4), (6, 2, 3, 3)):
        w = init.orthogonal_(nn.Parameter(np.zeros(shape)), gain=2.0).numpy().reshape(shape[0], -1)
        gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
        np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-12)


def test_truncated_normal() -> None:
    values = init.trunc_normal_(weight(100, 100), std=2.0, a=-1.0, b=3.0).numpy()
    assert -1 <= values.min() < -0.9
    assert 2.9 < values.max() <= 3
    with pytest.raises(AttributeValueError, match="lies too far"):
        init.trunc_normal_(weight(3), a=50, b=60)


def test_constants_and_dirac() -> None:
    assert (init.constant_(weight(3), 2.5).numpy() == 2.5).all()
    assert (init.ones_(weight(3)).numpy() == 1).all()
    assert (init.zeros_(weight(3)).numpy() == 0).all()
    x = irconv.tensor(np.random.default_rng(0).normal(size=(2, 4, 5, 5)).astype(np.float32))
    w = init.dirac_(weight(4, 4, 3, 3))
    np.testing.assert_array_equal(nn.functional.conv2d(x, w, padding=1).numpy(), x.numpy())
    w = init.dirac_(weight(4, 2, 3, 3), groups=2)
    np.testing.assert_array_equal(nn.functional.conv2d(x, w, padding=1, groups=2).numpy(), x.numpy())


def test_initialisation_follows_the_seed() -> None:
    random.manual_seed(7)
    first = nn.Conv2d(3, 4, 3).state_dict()
    second = nn.Conv2d(3, 4, 3).state_dict()
    random.manual_seed(7)
    again = nn.Conv2d(3, 4, 3).state_dict()
    np.testing.assert_array_equal(first["weight"], again["weight"])
    np.testing.assert_array_equal(first["bias"], again["bias"])
    assert not np.array_equal(first["weight"], second["weight"])
    own = random.Generator(7)
    np.testing.assert_array_equal(
        init.normal_(weight(5), generator=own).numpy(), init.normal_(weight(5), generator=random.Generator(7)).numpy()
    )


def test_layers_can_be_made_while_tracing() -> None:
    def program(x: irconv.Tensor) -> irconv.Tensor:
        return nn.Linear(3, 2)(x)

    graph = irconv.trace(program, irconv.TensorSpec((1, 3)))
    assert "random_bits" not in {node.op.name for node in graph}


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"at least 2 axes, got shape \[3\]"):
        init.kaiming_uniform_(weight(3))
    with pytest.raises(AttributeValueError, match="mode 'fan' is neither"):
        init.kaiming_uniform_(weight(3, 3), mode="fan")
    with pytest.raises(AttributeValueError, match="no gain is known for 'swish'"):
        init.kaiming_uniform_(weight(3, 3), nonlinearity="swish")
