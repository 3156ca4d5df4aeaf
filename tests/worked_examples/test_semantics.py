"""Semantics that go wrong easily, in numbers and arrays; the numbers are those of the list in which they are agreed.

 2. kinks of activations
 8. statistics of batch norm
 9. empty and oddly strided arrays
10. float16 and large indices
13. variance far from zero

The others are in test_semantics_windows.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import irconv
import irconv.nn.functional as F
from irconv import TensorSpec, nn
from irconv.errors import ShapeError
from irconv.interpret import evaluate
from irconv.ops import pool as pool_op
from irconv.ops.elementwise import maximum, minimum
from irconv.ops.reduce import reduce_max, variance
from tests.worked_examples.ways import WAYS, check, check_gradients, f64, image, normal, run_graph


def test_all_numbers_have_a_test() -> None:
    sources = (path.read_text() for path in Path(__file__).parent.glob("test_semantics*.py"))
    numbers = {int(number) for source in sources for number in re.findall(r"^def test_(\d\d)_", source, re.MULTILINE)}
    assert numbers == set(range(1, 15))


# --- 2 -----------------------------------------------------------------------------------------------------------------

KINKS = {
    "relu": (F.relu, [-1, 0, 1], [0, 0, 1]),
    "maximum of equals": (lambda x: maximum(x, f64([0, 0, 0])), [-1, 0, 1], [0, 0.5, 1]),
    "minimum of equals": (lambda x: minimum(x, f64([0, 0, 0])), [-1, 0, 1], [1, 0.5, 0]),
    "numpy.maximum": (lambda x: np.maximum(x, 0), [-1, 0, 1], [0, 0.5, 1]),
    "clip": (lambda x: np.clip(x, -1, 1), [-2, -1, 0, 1, 2], [0, 1, 1, 1, 0]),
    "relu6": (F.relu6, [-1, 0, 3, 6, 7], [0, 0, 1, 0, 0]),
    "hardtanh": (F.hardtanh, [-2, -1, 0, 1, 2], [0, 0, 1, 0, 0]),
    "leaky_relu": (F.leaky_relu, [-1, 0, 1], [0.01, 0.01, 1]),
    "absolute": (lambda x: abs(x), [-1, 0, 1], [-1, 0, 1]),
}


@pytest.mark.parametrize("name", KINKS)
def test_02_gradients_at_kinks(name: str) -> None:
    function, x, expected = KINKS[name]
    check_gradients(lambda x: irconv.concatenate([function(x)]).sum(), f64(x), expected=[f64(expected)])


def test_02_both_sides_of_a_maximum_get_their_half() -> None:
    x = f64([1, 2, 3])
    check_gradients(lambda x, y: np.maximum(x, y).sum(), x, f64([2, 2, 2]), expected=[f64([0, 0.5, 1]), f64([1, 0.5, 0])])


def test_02_reductions_give_the_whole_gradient_to_the_first() -> None:
    x = f64([[2, 5, 5], [7, 7, 1]])
    check_gradients(lambda x: x.max(axis=1).sum(), x, expected=[f64([[0, 1, 0], [1, 0, 0]])])
    check_gradients(lambda x: x.min(axis=0).sum(), f64([[1, 4], [1, 3]]), expected=[f64([[1, 0], [0, 1]])])
    assert "PyTorch" in reduce_max.__doc__ and "amax" in reduce_max.__doc__


# --- 8 -----------------------------------------------------------------------------------------------------------------


def state_of(norm: nn.Module) -> dict[str, np.ndarray]:
    return {name: array for name, array in norm.state_dict().items() if "running" in name or "tracked" in name}


def trained_by_run(norm: nn.Module, x: np.ndarray) -> np.ndarray:
    return norm.train()(irconv.tensor(x)).numpy()


def trained_by_graph(norm: nn.Module, x: np.ndarray) -> np.ndarray:
    graph = irconv.trace(norm, x, training=True)
    values = evaluate(graph, {graph.inputs[0]: x})
    for state, new in graph.updates.items():
        graph.state[graph[state].name].assign(values[new])
    return values[graph.outputs[""]]


def trained_by_executable(norm: nn.Module, x: np.ndarray) -> np.ndarray:
    return irconv.compile(irconv.trace(norm, x, training=True), backend="numpy")(x)


@pytest.mark.parametrize("train", [trained_by_run, trained_by_graph, trained_by_executable])
def test_08_batch_norm_normalises_with_the_biased_and_stores_the_unbiased_variance(train) -> None:
    norm, x = nn.BatchNorm2d(3, momentum=0.25), normal(4, 3, 2, 5, dtype=np.float32) * 3 + 2
    expected = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
    assert_allclose(train(norm, x), expected, rtol=1e-4, atol=1e-5)
    state = state_of(norm)
    assert_allclose(state["running_mean"], 0.25 * x.mean((0, 2, 3)), rtol=1e-5)
    assert_allclose(state["running_var"], 0.75 + 0.25 * x.var((0, 2, 3), ddof=1), rtol=1e-5)
    assert state["num_batches_tracked"] == 1


def test_08_evaluation_uses_what_is_stored() -> None:
    norm, x = nn.BatchNorm2d(2).eval(), normal(2, 2, 3, 3, dtype=np.float32)
    norm.load_state_dict(
        {"weight": [2, 3], "bias": [1, -1], "running_mean": [0.5, -0.5], "running_var": [4, 0.25], "num_batches_tracked": 7}
    )
    scale = np.array([2 / 2, 3 / 0.5])[:, None, None]
    expected = (x - np.array([0.5, -0.5])[:, None, None]) * scale + np.array([1, -1])[:, None, None]
    check(norm, x, expected=expected, rtol=1e-4, atol=1e-4)
    assert state_of(norm)["num_batches_tracked"] == 7


def test_08_one_value_per_channel_in_training_is_an_error() -> None:
    norm, x = nn.BatchNorm1d(3), normal(1, 3, dtype=np.float32)
    for run in (lambda: norm(irconv.tensor(x)), lambda: irconv.trace(norm, x, training=True)):
        with pytest.raises(ShapeError, match="more than one value per channel"):
            run()
    assert_array_equal(state_of(norm)["num_batches_tracked"], 0)
    assert irconv.compile(norm, x, backend="numpy")(x).shape == (1, 3)  # evaluation does not mind


def test_08_population_variance_and_momentum_of_the_old_value_can_be_expressed() -> None:
    """ONNX: running = momentum * running + (1 - momentum) * batch, with the biased variance."""
    x, momentum = normal(4, 2, 3), 0.9
    mean, var = nn.Buffer(np.zeros(2)), nn.Buffer(np.ones(2))
    F.batch_norm(irconv.tensor(x), mean, var, training=True, momentum=1 - momentum)
    count = 12
    biased = momentum + (var.numpy() - momentum) * (count - 1) / count
    assert_allclose(biased, momentum * 1 + (1 - momentum) * x.var((0, 2)), rtol=1e-12)


# --- 9 -----------------------------------------------------------------------------------------------------------------


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 4)

    def forward(self, x):
        y = F.max_pool2d(self.norm(self.conv(x)).relu(), 2)
        return self.head(F.adaptive_avg_pool2d(y, 1).flatten(1))


def empty_by_run(model: nn.Module, x: np.ndarray) -> dict[str, np.ndarray]:
    model.train()(irconv.tensor(x)).sum().backward()
    return {f"d_{name}": p.grad.numpy() for name, p in model.named_parameters()}


def empty_joint(model: nn.Module, x: np.ndarray) -> irconv.Graph:
    return irconv.differentiate(irconv.trace(lambda x: model(x).sum(), x, training=True))


def empty_by_graph(model: nn.Module, x: np.ndarray) -> dict[str, np.ndarray]:
    joint = empty_joint(model, x)
    values = evaluate(joint, {joint.inputs[0]: x})
    for state, new in joint.updates.items():
        joint.state[joint[state].name].assign(values[new])
    return {path: values[i] for path, i in joint.outputs.items() if path.startswith("d_")}


def empty_by_executable(model: nn.Module, x: np.ndarray) -> dict[str, np.ndarray]:
    joint = empty_joint(model, x)
    exe = irconv.compile(joint, backend="numpy")
    paths = [path for path, _ in exe.executable.outputs]
    flat = dict(irconv.structure.leaves(exe(x)))
    return {path: flat[path] for path in paths if path.startswith("d_")}


@pytest.mark.parametrize("run", [empty_by_run, empty_by_graph, empty_by_executable])
def test_09_an_empty_batch(run) -> None:
    model, x = Small(), np.zeros((0, 2, 8, 8), np.float32)
    before = model.state_dict()
    gradients = {name: np.asarray(g) for name, g in run(model, x).items()}
    assert {f"d_{name}" for name, _ in model.named_parameters()} == set(gradients)
    for name, parameter in model.named_parameters():
        assert_array_equal(gradients[f"d_{name}"], np.zeros(parameter.shape))
    after = model.state_dict()
    assert after.pop("norm.num_batches_tracked") == before.pop("norm.num_batches_tracked") + 1
    for name, array in after.items():
        assert_array_equal(array, before[name])


def test_09_strides_of_inputs_do_not_matter() -> None:
    model = Small().eval()
    wide = normal(4, 8, 2, 16, dtype=np.float32)
    strided = {
        "transposed": wide[..., :8].transpose(0, 2, 1, 3),
        "every other, backwards": wide.transpose(0, 2, 1, 3)[::-2, :, ::-1, ::-2],
        "broadcast": np.broadcast_to(wide[:1, :1, :, :1].transpose(0, 2, 1, 3), (2, 2, 8, 8)),
        "Fortran order": np.asfortranarray(wide[:, :, :, :8].transpose(0, 2, 1, 3)),
    }
    exe = irconv.compile(model, backend="numpy")
    for name, x in strided.items():
        assert x.shape[1:] == (2, 8, 8) and not x.flags.c_contiguous
        expected = model(irconv.tensor(np.ascontiguousarray(x))).numpy()
        assert_allclose(model(irconv.tensor(x)).numpy(), expected, rtol=1e-5, atol=1e-5, err_msg=name)
        assert_allclose(exe(x), expected, rtol=1e-5, atol=1e-5, err_msg=name)
        assert_allclose(run_graph(irconv.trace(model, x), x), expected, rtol=1e-5, atol=1e-5, err_msg=name)


def test_09_odd_strides_of_axes_of_size_one_do_not_matter() -> None:
    model = Small().eval()
    plain = normal(1, 2, 8, 8, dtype=np.float32)
    odd = np.lib.stride_tricks.as_strided(plain, plain.shape, (12345 * 4, *plain.strides[1:]))
    column = np.lib.stride_tricks.as_strided(plain[0, 0, 0], (8, 1), (4, -(2**20)))
    check(model, odd, expected=model(irconv.tensor(plain)).numpy(), rtol=1e-5, atol=1e-5)
    for way in WAYS:
        assert_allclose(way(lambda x: x @ np.ones((1, 2), np.float32), column)[:, 1], plain[0, 0, 0])


# --- 10 ----------------------------------------------------------------------------------------------------------------


def half(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float16)


@pytest.mark.parametrize(
    ("program", "arrays", "expected"),
    [
        (lambda x: x.sum(), [half(5000)], 5000),  # one by one, float16 sums of ones stop at 2048
        (lambda x: x.mean(), [half(100, 1000)], 1),  # the sum is beyond the largest float16
        (lambda x, w: F.conv2d(x, w).reshape(()), [half(1, 100, 5, 10), half(1, 100, 5, 10)], 5000),
        (lambda x, w: F.linear(x, w).reshape(()), [half(1, 5000), half(1, 5000)], 5000),
        (lambda x: F.avg_pool2d(x, (50, 100)).reshape(()), [half(1, 1, 50, 100)], 1),
        (lambda x, w: F.conv_transpose2d(x, w)[0, 0, 2, 2], [half(1, 600, 3, 3), half(600, 1, 3, 3)], 5400),
    ],
    ids=["sum", "mean", "conv", "linear", "avg_pool", "conv_transpose"],
)
def test_10_float16_accumulates_in_float32(program, arrays: list, expected: float) -> None:
    exact = np.float16(expected)
    check(program, *arrays, expected=exact)


def test_10_float16_weight_gradients_accumulate_in_float32() -> None:
    x, w = half(5, 1, 32, 32), half(1, 1, 1, 1)
    by_x, by_w = np.ones_like(x), np.float16(5120).reshape(1, 1, 1, 1)
    check_gradients(lambda x, w: F.conv2d(x, w).sum(), x, w, expected=[by_x, by_w])


def test_10_indices_go_beyond_32_bits() -> None:
    side = 70_000
    taps = np.zeros((1, 1, 2, 2), np.uint8)

    def positions(taps):
        return pool_op.pool_positions(taps, (side, side), 1, side - 1)

    last = side - 1
    check(positions, taps, expected=image([[0, last], [last * side, last * side + last]], np.int64))
    graph = irconv.trace(lambda x: F.max_pool2d(x, 2, return_indices=True), TensorSpec((1, 1, side, side)))
    assert str(graph[graph.outputs["1"]].type) == f"i64[1,1,{side // 2},{side // 2}]"
    graph = irconv.trace(lambda x: x.argmax(), TensorSpec((side, side)))
    assert str(graph[graph.outputs[""]].type) == "i64[]"


# --- 13 ----------------------------------------------------------------------------------------------------------------


def test_13_variance_far_from_zero() -> None:
    x = (10_000 + normal(64, 3, 8, 8)).astype(np.float32)
    exact = x.astype(np.float64)
    check(lambda x: variance(x, (0, 2, 3)), x, expected=exact.var((0, 2, 3)), rtol=1e-4)
    check(lambda x: np.var(x, axis=(0, 2, 3), ddof=1), x, expected=exact.var((0, 2, 3), ddof=1), rtol=1e-4)
    expected = (exact - exact.mean((0, 2, 3), keepdims=True)) / np.sqrt(exact.var((0, 2, 3), keepdims=True) + 1e-5)
    check(lambda x: F.batch_norm(x, None, None, training=True), x, expected=expected, rtol=0, atol=1e-2)  # one unit in the last place of x is 1e-3
    by_sample = (exact - exact.mean((1, 2, 3), keepdims=True)) / np.sqrt(exact.var((1, 2, 3), keepdims=True) + 1e-5)
    check(lambda x: F.layer_norm(x, (3, 8, 8)), x, expected=by_sample, rtol=0, atol=1e-2)  # one unit in the last place of x is 1e-3
