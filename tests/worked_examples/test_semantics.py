"""Semantics that go wrong easily; the numbers are those of the list in which they are agreed.

1. ties in max pooling         6. weights of transposed convolution  11. windows of adaptive pooling
2. kinks of activations        7. gradients of padding               12. 'same' for transposed convolution
3. windows in ceil mode        8. statistics of batch norm           13. variance far from zero
4. divisors of average pooling 9. empty and oddly strided arrays     14. strides and paddings beyond kernel and input
5. tails of input gradients   10. float16 and large indices
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from differences import central_differences
from numpy.testing import assert_allclose, assert_array_equal

import irconv
import irconv.nn.functional as F
from irconv import TensorSpec, nn
from irconv.errors import AttributeValueError, IrconvError, ShapeError
from irconv.ops import pad as pad_op
from irconv.ops import pool as pool_op
from irconv.ops.elementwise import maximum, minimum
from irconv.ops.reduce import reduce_max, variance
from tests.ops import window_oracles as oracle
from tests.worked_examples.ways import (
    GRADIENT_WAYS,
    WAYS,
    backward,
    check,
    check_gradients,
    f32,
    f64,
    image,
    normal,
    run_graph,
    shape_of,
)

NAN, INF = float("nan"), float("inf")


def sequence(numbers, dtype=np.float64) -> np.ndarray:
    return np.asarray(numbers, dtype)[None, None]


# --- 1 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([1, 1, 1, 1], [1, 0, 1, 0]),  # the first maximum
        ([-INF, -INF, 2, 2], [1, 0, 1, 0]),  # nothing but -inf: the first element
        ([3, NAN, NAN, 5], [0, 1, 1, 0]),  # the first NaN
    ],
)
def test_01_first_maximum_takes_the_gradient(x: list, expected: list) -> None:
    values = [np.max(x[:2]), np.max(x[2:])]
    check(lambda x: F.max_pool1d(x, 2), sequence(x), expected=sequence(values))
    check_gradients(lambda x: F.max_pool1d(x, 2).sum(), sequence(x), expected=[sequence(expected)])
    indices = [int(np.argmax(expected[:2])), 2 + int(np.argmax(expected[2:]))]
    check(lambda x: F.max_pool1d(x, 2, return_indices=True)[1], sequence(x), expected=sequence(indices, np.int64))


def test_01_a_window_of_minus_infinity_never_picks_padding() -> None:
    x = np.full((1, 1, 2, 2), -INF)
    check(lambda x: F.max_pool2d(x, 2, padding=1, return_indices=True)[1], x, expected=image([[0, 1], [2, 3]], np.int64))
    check_gradients(lambda x: F.max_pool2d(x, 3, padding=1).sum(), x, expected=[image([[1, 0], [0, 0]], float)])


def test_01_two_nans_in_a_window() -> None:
    x = image([[1, NAN], [NAN, 9]], float)
    check(lambda x: F.max_pool2d(x, 2), x, expected=image([[NAN]], float))
    check_gradients(lambda x: F.max_pool2d(x, 2).sum(), x, expected=[image([[0, 1], [0, 0]], float)])


def test_01_overlapping_windows_accumulate() -> None:
    x = sequence([1, 5, 2, 5, 5, 0])
    check_gradients(lambda x: (F.max_pool1d(x, 3, 1) * sequence([1, 10, 100, 1000])).sum(), x, expected=[sequence([0, 11, 0, 1100, 0, 0])])


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint8])
def test_01_integers_pad_with_the_lowest_value(dtype) -> None:
    lowest = np.iinfo(dtype).min
    x = sequence([lowest + 3, lowest + 1, lowest, lowest + 2], dtype)
    check(lambda x: F.max_pool1d(x, 3, 2, 1), x, expected=sequence([lowest + 3, lowest + 2], dtype))
    highest = np.iinfo(dtype).max
    check(lambda x: F.min_pool1d(x, 3, 2, 1), highest - x + lowest, expected=sequence([highest - 3, highest - 2], dtype))


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


# --- 3 -----------------------------------------------------------------------------------------------------------------


def test_03_a_last_window_that_starts_in_the_right_padding_is_dropped() -> None:
    seen = set()
    for n, k, s, p in itertools.product(range(1, 9), (1, 2, 3, 4), (1, 2, 3, 4), (0, 1, 2)):
        if p > k // 2 or n + 2 * p < k:
            continue
        expected = -(-(n + 2 * p - k) // s) + 1
        drops = (expected - 1) * s >= n + p
        seen.add(drops)
        for pool in (F.max_pool1d, F.avg_pool1d):
            found = shape_of(lambda x, pool=pool, k=k, s=s, p=p: pool(x, k, s, p, ceil_mode=True), (1, 1, n))
            assert found == (1, 1, expected - drops)
    assert seen == {True, False}


def test_03_values_in_ceil_mode() -> None:
    x = sequence([1, 2, 3, 4, 5])  # with stride 3 and padding 1 windows start at -1, 2, 5: the last lies in the padding
    check(lambda x: F.max_pool1d(x, 2, 3, 1, ceil_mode=True), x, expected=sequence([1, 4]))
    x = sequence([1, 2, 3, 4, 5, 6])  # and here on the last element
    check(lambda x: F.max_pool1d(x, 2, 3, 1, ceil_mode=True), x, expected=sequence([1, 4, 6]))
    check_gradients(lambda x: F.max_pool1d(x, 2, 3, 1, ceil_mode=True).sum(), x, expected=[sequence([1, 0, 0, 1, 0, 1])])


def test_03_padding_over_half_the_window_is_for_the_op_alone() -> None:
    x = sequence([1, 2, 3, 4, 5])
    for refused in (F.max_pool1d, F.avg_pool1d):
        with pytest.raises(AttributeValueError, match="half"):
            refused(irconv.tensor(x), 3, 1, 2)
    for layer in (nn.MaxPool1d(3, 1, 2), nn.AvgPool1d(3, 1, 2)):
        with pytest.raises(AttributeValueError, match="half"):
            layer(irconv.tensor(x))
    assert F.max_pool1d(irconv.tensor(x), 3, 1, 2, 2).shape == (1, 1, 5)  # half of the dilated window of 5
    check(lambda x: pool_op.max_pool(x, 3, 1, 2), x, expected=sequence([1, 2, 3, 4, 5, 5, 5]))
    check(lambda x: pool_op.avg_pool(x, 3, 1, 2) * 3, x, expected=sequence([1, 3, 6, 9, 12, 9, 5]), rtol=1e-14)


# --- 4 -----------------------------------------------------------------------------------------------------------------

FIVE = sequence([1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"ceil_mode": True}, [1.5, 3.5, 5]),
        ({"padding": 1}, [0.5, 2.5, 4.5]),
        ({"padding": 1, "count_include_pad": False}, [1, 2.5, 4.5]),
        ({"stride": 3, "padding": 1, "ceil_mode": True}, [0.5, 3.5]),
        ({"kernel_size": 3, "padding": 1, "ceil_mode": True}, [1, 3, 3]),  # the last covers 4, 5 and counted padding
        ({"kernel_size": 3, "padding": 1, "ceil_mode": True, "count_include_pad": False}, [1.5, 3, 4.5]),
        ({"kernel_size": 4, "padding": 1, "ceil_mode": True}, [1.5, 3.5, 3]),  # the last covers 4, 5 and one counted zero; the overhang is not counted
    ],
)
def test_04_average_pooling_divides_by_the_window_inside_the_padded_input(settings: dict, expected: list) -> None:
    given = {"kernel_size": 2, "stride": 2, **settings}
    check(lambda x: F.avg_pool1d(x, **given), FIVE, expected=sequence(expected), rtol=1e-14)
    by_x = central_differences(lambda x: F.avg_pool1d(irconv.tensor(x), **given).numpy().sum(), [FIVE], 0)
    check_gradients(lambda x: F.avg_pool1d(x, **given).sum(), FIVE, expected=[by_x], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("include", [True, False])
def test_04_divisor_override_wins(include: bool) -> None:
    x = image(np.arange(25).reshape(5, 5), float)
    sums = F.conv2d(irconv.tensor(x), irconv.tensor(image(np.ones((3, 3)), float)), stride=2, padding=1).numpy()
    check(lambda x: F.avg_pool2d(x, 3, 2, 1, False, include, 7), x, expected=sums / 7, rtol=1e-14)


# --- 5 -----------------------------------------------------------------------------------------------------------------


def check_convolution(n: int, k: int, s: int, p: int, d: int) -> None:
    """1-D, two channels in and three out, against loops: value and both gradients."""
    x, w = normal(2, 2, n), normal(3, 2, k)
    window = (s,), ((p, p),), (d,), 1
    expected = oracle.conv(x, w, *window)
    check(lambda x, w: F.conv1d(x, w, None, s, p, d), x, w, expected=expected, rtol=1e-12, atol=1e-12)
    v = normal(*expected.shape, seed=1)
    gradients = oracle.conv_gradients(v, x, w, *window)
    check_gradients(lambda x, w: (F.conv1d(x, w, None, s, p, d) * v).sum(), x, w, expected=gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("n", "k", "s", "p", "d"), [(9, 3, 4, 0, 1), (12, 2, 5, 1, 1), (12, 3, 4, 0, 2), (7, 1, 4, 0, 1)])
def test_05_tails_of_two_and_more(n: int, k: int, s: int, p: int, d: int) -> None:
    assert (n + 2 * p - d * (k - 1) - 1) % s >= 2
    check_convolution(n, k, s, p, d)


@pytest.mark.parametrize(("n", "k", "s", "p", "d"), [(5, 1, 1, 2, 1), (6, 2, 1, 3, 1), (5, 3, 2, 4, 1), (7, 2, 3, 4, 2)])
def test_05_padding_of_the_transposed_form_below_zero(n: int, k: int, s: int, p: int, d: int) -> None:
    assert d * (k - 1) - p < 0
    check_convolution(n, k, s, p, d)


# --- 6 -----------------------------------------------------------------------------------------------------------------


def test_06_weight_of_a_transposed_convolution() -> None:
    conv = nn.ConvTranspose2d(4, 6, (2, 3), groups=2)
    assert conv.weight.shape == (4, 3, 2, 3) and conv.bias.shape == (6,)
    x = normal(1, 4, 3, 3, dtype=np.float32)
    w, b = conv.weight.numpy(), conv.bias.numpy()
    expected = oracle.conv_transpose(x, w, (1, 1), (0, 0), (1, 1), 2, (4, 5)) + b[:, None, None]
    check(conv, x, expected=expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("stride", "dilation", "extra"), [(3, 1, 2), (1, 3, 2), (3, 2, 2)])
def test_06_output_padding_cells_hold_real_values(stride: int, dilation: int, extra: int) -> None:
    x, w, padding = normal(1, 2, 4), normal(2, 3, 3), 2
    size = 3 * stride + 2 * dilation + 1 - 2 * padding + extra
    expected = oracle.conv_transpose(x, w, (stride,), (padding,), (dilation,), 1, (size,))
    last = expected[..., -extra:]
    assert (last != 0).any()  # where the uncut result reaches that far, these are its values
    check(lambda x, w: F.conv_transpose1d(x, w, None, stride, padding, extra, 1, dilation), x, w, expected=expected, rtol=1e-12, atol=1e-12)
    v = normal(*expected.shape, seed=1)
    gradients = oracle.conv_transpose_gradients(v, x, w, (stride,), (padding,), (dilation,), 1, (size,))
    check_gradients(
        lambda x, w: (F.conv_transpose1d(x, w, None, stride, padding, extra, 1, dilation) * v).sum(),
        x,
        w,
        expected=gradients,
        rtol=1e-12,
        atol=1e-12,
    )


def test_06_output_padding_stays_below_stride_or_dilation() -> None:
    x, w = irconv.tensor(normal(1, 1, 4)), irconv.tensor(normal(1, 1, 3))
    for stride, dilation, extra in ((2, 1, 2), (2, 3, 3), (1, 1, 1)):
        with pytest.raises(AttributeValueError, match="output_padding"):
            F.conv_transpose1d(x, w, None, stride, 0, extra, 1, dilation)


# --- 7 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("reflect", [100, 10_001_010, 1_010_001, 100_000]),  # padded: 2 1 0 1 2 3 2 1
        ("replicate", [111, 1_000, 10_000, 11_100_000]),  # 0 0 0 1 2 3 3 3
        ("circular", [1_000_100, 10_001_000, 10_001, 100_010]),  # 2 3 0 1 2 3 0 1
    ],
)
def test_07_padding_gradients_accumulate(mode: str, expected: list) -> None:
    weights = 10.0 ** np.arange(8)
    check_gradients(lambda x: (F.pad(x, (2, 2), mode) * weights).sum(), sequence([1, 2, 3, 4]), expected=[sequence(expected)])


def test_07_reflect_needs_less_than_the_size_and_circular_at_most_it() -> None:
    x = irconv.tensor(sequence([1, 2, 3]))
    assert F.pad(x, (2, 2), "reflect").numpy()[0, 0].tolist() == [3, 2, 1, 2, 3, 2, 1]
    assert F.pad(x, (3, 3), "circular").numpy()[0, 0].tolist() == [1, 2, 3] * 3
    for mode, amount in (("reflect", 3), ("circular", 4)):
        with pytest.raises(AttributeValueError, match=f"{mode} padding"):
            F.pad(x, (amount, 0), mode)


@pytest.mark.parametrize("mode", ["reflect", "wrap"])
def test_07_the_op_wraps_further_as_numpy(mode: str) -> None:
    x, weights = sequence([1, 2, 3]), 2.0 ** np.arange(15)
    widths = ((0, 0), (0, 0), (7, 5))
    check(lambda x: pad_op.pad(x, widths, mode), x, expected=np.pad(x, widths, mode=mode))
    by_x = np.zeros(3)
    np.add.at(by_x, np.pad(np.arange(3), (7, 5), mode=mode), weights)
    check_gradients(lambda x: (pad_op.pad(x, widths, mode) * weights).sum(), x, expected=[by_x[None, None]])


# --- 8 -----------------------------------------------------------------------------------------------------------------


def state_of(norm: nn.Module) -> dict[str, np.ndarray]:
    return {name: array for name, array in norm.state_dict().items() if "running" in name or "tracked" in name}


def trained_by_run(norm: nn.Module, x: np.ndarray) -> np.ndarray:
    return norm.train()(irconv.tensor(x)).numpy()


def trained_by_graph(norm: nn.Module, x: np.ndarray) -> np.ndarray:
    graph = irconv.trace(norm, x, training=True)
    values = irconv.interpret.evaluate(graph, {graph.inputs[0]: x})
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
    values = irconv.interpret.evaluate(joint, {joint.inputs[0]: x})
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


# --- 11 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "o"), [(7, 3), (5, 4), (10, 3), (3, 5), (8, 4), (1, 2)])
def test_11_adaptive_windows(n: int, o: int) -> None:
    x, v = normal(1, 2, n), normal(1, 2, o, seed=1)
    windows = [slice(i * n // o, -(-(i + 1) * n // o)) for i in range(o)]
    check(lambda x: F.adaptive_avg_pool1d(x, o), x, expected=np.stack([x[..., w].mean(-1) for w in windows], -1), rtol=1e-12)
    check(lambda x: F.adaptive_max_pool1d(x, o), x, expected=np.stack([x[..., w].max(-1) for w in windows], -1))
    indices = np.stack([x[..., w].argmax(-1) + w.start for w in windows], -1)
    check(lambda x: F.adaptive_max_pool1d(x, o, True)[1], x, expected=indices)
    by_average, by_maximum = np.zeros_like(x), np.zeros_like(x)
    for i, w in enumerate(windows):
        by_average[..., w] += v[..., i, None] / (w.stop - w.start)
        for c in range(2):
            by_maximum[0, c, indices[0, c, i]] += v[0, c, i]
    check_gradients(lambda x: (F.adaptive_avg_pool1d(x, o) * v).sum(), x, expected=[by_average], rtol=1e-12)
    check_gradients(lambda x: (F.adaptive_max_pool1d(x, o) * v).sum(), x, expected=[by_maximum], rtol=1e-12)


# --- 12 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["upper", "lower"])
@pytest.mark.parametrize(("k", "s"), [(3, 2), (4, 2), (3, 1), (2, 1), (5, 3), (2, 3), (1, 2)])
def test_12_same_for_transposed_convolution_multiplies_the_size_by_the_stride(side: str, k: int, s: int) -> None:
    x, w = normal(1, 2, 4), normal(2, 3, k)
    total = 3 * s + k - 4 * s  # ONNX: what is cut; the odd one after for SAME_UPPER, before for SAME_LOWER
    before = max(total, 0) // 2 if side == "upper" else (max(total, 0) + 1) // 2
    expected = oracle.conv_transpose(x, w, (s,), (before,), (1,), 1, (4 * s,))
    check(lambda x, w: F.conv_transpose1d(x, w, None, s, f"same_{side}"), x, w, expected=expected, rtol=1e-12, atol=1e-12)


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


# --- 14 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "k", "s", "p", "d"), [(7, 2, 3, 0, 1), (10, 1, 4, 0, 1), (9, 2, 5, 1, 1), (8, 2, 4, 0, 2), (5, 1, 7, 0, 1)]
)
def test_14_kernels_below_the_stride(n: int, k: int, s: int, p: int, d: int) -> None:
    assert k < s
    check_convolution(n, k, s, p, d)


@pytest.mark.parametrize(("n", "k", "s", "p", "d"), [(2, 3, 1, 4, 1), (1, 3, 1, 2, 1), (3, 2, 3, 5, 1), (1, 1, 2, 3, 1), (2, 5, 1, 4, 2)])
def test_14_paddings_above_the_input(n: int, k: int, s: int, p: int, d: int) -> None:
    assert p > n
    check_convolution(n, k, s, p, d)


def test_14_a_window_that_fits_nowhere_is_an_error_with_the_numbers() -> None:
    with pytest.raises(IrconvError, match=r"4.*7|7.*4"):
        F.conv1d(irconv.tensor(normal(1, 1, 2)), irconv.tensor(normal(1, 1, 4)), padding=1, dilation=2)


def test_all_numbers_have_a_test() -> None:
    numbers = {name[5:7] for name in globals() if name.startswith("test_") and name[5:7].isdigit()}
    assert numbers == {f"{number:02}" for number in range(1, 15)}
    assert len(WAYS) == len(GRADIENT_WAYS) == 3 and backward in GRADIENT_WAYS
