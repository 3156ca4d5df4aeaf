"""Semantics that go wrong easily, in windows; the numbers are those of the list in which they are agreed.

 1. ties in max pooling          6. weights of transposed convolution
 3. windows in ceil mode         7. gradients of padding
 4. divisors of average pooling  11. windows of adaptive pooling
 5. tails of input gradients     12. 'same' for transposed convolution
14. strides and paddings beyond kernel and input
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn
from irconv.errors import AttributeValueError, IrconvError
from irconv.ops import pad as pad_op
from irconv.ops import pool as pool_op
from tests.differences import central_differences
from tests.ops import window_oracles as oracle
from tests.worked_examples.ways import check, check_gradients, image, normal, shape_of

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
