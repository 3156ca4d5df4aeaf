"""Operators that draw random numbers: their statistics, since their numbers are nobody else's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the onnx package: pip install 'irconv[onnx]'")

from onnx import TensorProto, helper, numpy_helper

import irconv
from irconv.errors import ModelError
from irconv.frontends.onnx import load_model


def one_node(
    operator: str, inputs: list[str], outputs: list[str], tensors: dict[str, Any], size: tuple[int, ...], **attributes: Any
) -> Any:
    node = helper.make_node(operator, inputs, outputs, **attributes)
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, size)] if "x" in inputs else []
    results = [helper.make_value_info(name, helper.make_tensor_type_proto(TensorProto.FLOAT, None)) for name in outputs]
    stored = [numpy_helper.from_array(np.asarray(a), n) for n, a in tensors.items()]
    graph = helper.make_graph([node], "net", given, results, stored)
    return load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)]).SerializeToString())


@pytest.mark.parametrize(("ratio", "seed"), [(None, None), (0.75, None), (0.1, 3), (0.5, 1)])
def test_training_dropout(ratio: float | None, seed: int | None) -> None:
    """As test_training_dropout* of ONNX's suite: how many are kept, by what they are scaled, and that the mask says which."""
    tensors = {"training": np.array(True)} | ({} if ratio is None else {"ratio": np.float32(ratio)})
    inputs = ["x", "" if ratio is None else "ratio", "training"]
    attributes = {} if seed is None else {"seed": seed}
    net = one_node("Dropout", inputs, ["y", "mask"], tensors, (100, 100), **attributes)
    x = np.random.default_rng(0).uniform(1, 2, (100, 100)).astype(np.float32)
    y, mask = irconv.compile(net)(x)
    p = 0.5 if ratio is None else ratio
    assert mask.dtype == bool
    assert abs(mask.mean() - (1 - p)) < 0.03
    np.testing.assert_array_equal(y[~mask], 0)
    np.testing.assert_allclose(y[mask], x[mask] / (1 - p), rtol=1e-6)


def test_dropout_of_everything_and_of_nothing() -> None:
    x = np.ones((4, 4), np.float32)
    for ratio, value in ((0.0, 1.0), (1.0, 0.0)):
        net = one_node(
            "Dropout", ["x", "ratio", "training"], ["y"], {"training": np.array(True), "ratio": np.float32(ratio)}, (4, 4)
        )
        np.testing.assert_array_equal(irconv.compile(net)(x), np.full((4, 4), value))


@pytest.mark.parametrize("attributes", [{}, {"seed": 0.0}, {"dtype": TensorProto.DOUBLE}])
def test_bernoulli(attributes: dict[str, Any]) -> None:
    net = one_node("Bernoulli", ["x"], ["y"], {}, (100, 100), **attributes)
    x = np.tile(np.linspace(0, 1, 100, dtype=np.float32), (100, 1))
    y = irconv.compile(net)(x)
    assert y.dtype == (np.float64 if "dtype" in attributes else np.float32)
    assert set(np.unique(y)) == {0, 1}
    assert (y[:, 0] == 0).all()
    assert abs(y.mean() - 0.5) < 0.03
    assert np.corrcoef(x.ravel(), y.ravel())[0, 1] > 0.5


def test_seeds_repeat() -> None:
    x = np.full((50,), 0.5, np.float32)
    first, again, other = (
        irconv.compile(one_node("Bernoulli", ["x"], ["y"], {}, (50,), seed=seed))(x) for seed in (1.0, 1.0, 2.0)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("operator", "attributes", "mean", "deviation"),
    [
        ("RandomUniform", {"low": 2.0, "high": 6.0}, 4.0, 4 / 12**0.5),
        ("RandomNormal", {"mean": -1.0, "scale": 3.0}, -1.0, 3.0),
    ],
)
def test_distributions(operator: str, attributes: dict[str, Any], mean: float, deviation: float) -> None:
    free = irconv.compile(one_node(operator, [], ["y"], {}, (), shape=[100, 100], **attributes))()
    like = irconv.compile(one_node(f"{operator}Like", ["x"], ["y"], {}, (100, 100), **attributes))(
        np.zeros((100, 100), np.float32)
    )
    for y in (free, like):
        assert y.shape == (100, 100)
        assert abs(y.mean() - mean) < 0.1
        assert abs(y.std() - deviation) < 0.1


def test_absurd_shapes_are_refused() -> None:
    with pytest.raises(ModelError):
        irconv.compile(one_node("RandomUniform", [], ["y"], {}, (), shape=[2**40, 2**40]))()
