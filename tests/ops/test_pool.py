"""Pooling against loops, SciPy and PyTorch: values, winning taps, gradients, and the corners that go wrong."""

from __future__ import annotations

import itertools
import operator

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.errors import AttributeValueError, DTypeError, IrconvError, ShapeError
from irconv.op import OPS, Work
from irconv.ops.conv import conv
from irconv.ops.pool import (
    argmax_pool,
    argmin_pool,
    avg_pool,
    avg_pool_adjoint,
    max_pool,
    min_pool,
    pool_positions,
    window_gather,
    window_scatter,
)
from irconv.ops.pool_taps import PoolAttributes, WindowScatterAttributes
from irconv.types import tensor_type
from tests.ops import window_oracles as oracle
from tests.ops.evaluating import apply, gradients
from tests.ops.window_strategies import Window, random, windows
from tests.samples.pool import SAMPLES

TOLERANCE = {"float16": 2e-2, "float32": 1e-5, "float64": 1e-12}
INF, NAN = np.inf, np.nan


def samples(*ops: str) -> list:
    return [s for s in SAMPLES if s.op in ops]


def window_of(a: PoolAttributes) -> tuple:
    return a.kernel, a.stride, a.padding, a.dilation, a.ceil_mode


def close(result, expected):
    tolerance = TOLERANCE[result.dtype.name]
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


def bound(dtype, lowest: bool):
    if dtype.kind == "f":
        return -INF if lowest else INF
    return np.iinfo(dtype).min if lowest else np.iinfo(dtype).max


# --- loops -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", samples("max_pool", "min_pool", "argmax_pool", "argmin_pool"), ids=lambda s: s.id)
def test_extrema_and_their_taps_are_the_loops(sample):
    (x,), window = sample.operands, window_of(sample.attributes)
    largest = "max" in sample.op
    values, taps = oracle.extremum_pool(
        x, operator.gt if largest else operator.lt, bound(x.dtype, lowest=largest), *window
    )
    result = OPS[sample.op].reference(sample.attributes, x)
    np.testing.assert_array_equal(result, taps if sample.op.startswith("arg") else values)


@pytest.mark.parametrize("sample", samples("window_scatter"), ids=lambda s: s.id)
def test_window_scatter_is_the_loops(sample):
    d, taps = sample.operands
    like = np.zeros((*d.shape[:2], *sample.attributes.size))
    expected = oracle.scatter_taps(d, taps, like, *window_of(sample.attributes))
    result = OPS["window_scatter"].reference(sample.attributes, d, taps)
    assert result.dtype == d.dtype
    np.testing.assert_allclose(result, expected, rtol=TOLERANCE.get(d.dtype.name, 0), atol=1e-3 * (d.dtype == "f2"))


@pytest.mark.parametrize("sample", samples("window_gather"), ids=lambda s: s.id)
def test_window_gather_is_the_loops(sample):
    x, taps = sample.operands
    result = OPS["window_gather"].reference(sample.attributes, x, taps)
    np.testing.assert_array_equal(result, oracle.gather_taps(x, taps, *window_of(sample.attributes)))


@pytest.mark.parametrize("sample", samples("avg_pool"), ids=lambda s: s.id)
def test_avg_pool_is_the_loops(sample):
    (x,), a = sample.operands, sample.attributes
    divisor = {"count_include_pad": a.count_include_pad, "divisor_override": a.divisor_override}
    close(OPS["avg_pool"].reference(a, x), oracle.avg_pool(x.astype("f8"), *window_of(a), **divisor))


@pytest.mark.parametrize("sample", samples("avg_pool_adjoint"), ids=lambda s: s.id)
def test_avg_pool_adjoint_is_the_loops(sample):
    (d,), a = sample.operands, sample.attributes
    divisor = {"count_include_pad": a.count_include_pad, "divisor_override": a.divisor_override}
    like = np.zeros((*d.shape[:2], *a.size))
    close(OPS["avg_pool_adjoint"].reference(a, d), oracle.avg_pool_gradient(d.astype("f8"), like, *window_of(a), **divisor))


@settings(max_examples=80, deadline=None)
@given(windows(ceil=True), st.booleans(), st.sampled_from(["f4", "i1", "ties"]))
def test_extrema_of_any_window(window: Window, largest: bool, elements: str):
    ties = np.random.default_rng(1).choice([0.0, 1.0, -INF, INF, NAN], window.shape)
    x = ties if elements == "ties" else (random(window.shape) * 60).astype(elements)
    pool, argpool = (max_pool, argmax_pool) if largest else (min_pool, argmin_pool)
    values, taps = oracle.extremum_pool(
        x, operator.gt if largest else operator.lt, bound(x.dtype, lowest=largest), *window.pool
    )
    np.testing.assert_array_equal(apply(lambda v: pool(v, *window.pool), x), values)
    np.testing.assert_array_equal(apply(lambda v: argpool(v, *window.pool), x), taps)
    if x.dtype.kind == "f":
        d = random(values.shape, 2).astype(x.dtype)
        (by_x,) = gradients(lambda v: pool(v, *window.pool), d, x)
        close(by_x, oracle.scatter_taps(d, taps, x, *window.pool))
        # and once more: the gradient of the gradient by d reads d's gradient at the winning taps
        g = random(x.shape, 3).astype(x.dtype)
        (by_d,) = gradients(lambda v, t: window_scatter(v, t, window.size, *window.pool), g, d, taps)
        np.testing.assert_array_equal(by_d, oracle.gather_taps(g, taps, *window.pool))
        (by_g,) = gradients(lambda v, t: window_gather(v, t, *window.pool), d, g, taps)
        np.testing.assert_array_equal(by_g, by_x)


@settings(max_examples=60, deadline=None)
@given(windows(ceil=True), st.booleans(), st.sampled_from([None, 1, 7]))
def test_avg_pool_of_any_window(window: Window, count_include_pad: bool, divisor: int | None):
    x = random(window.shape)
    named = {"count_include_pad": count_include_pad, "divisor_override": divisor}
    result = apply(lambda v: avg_pool(v, *window.pool, **named), x)
    close(result, oracle.avg_pool(x, *window.pool, **named))
    d = random(result.shape, 1)
    (by_x,) = gradients(lambda v: avg_pool(v, *window.pool, **named), d, x)
    close(by_x, oracle.avg_pool_gradient(d, x, *window.pool, **named))
    (by_d,) = gradients(lambda v: avg_pool_adjoint(v, window.size, *window.pool, **named), x, d)
    close(by_d, result)


# --- worked examples ---------------------------------------------------------------------------------------------------


def test_small_pools_by_hand():
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    np.testing.assert_array_equal(apply(lambda v: max_pool(v, 2, 1), x)[0, 0], [[4, 5], [7, 8]])
    np.testing.assert_array_equal(apply(lambda v: min_pool(v, 2, 1), x)[0, 0], [[0, 1], [3, 4]])
    np.testing.assert_array_equal(apply(lambda v: avg_pool(v, 2, 1), x)[0, 0], [[2, 3], [5, 6]])
    y = np.arange(16.0).reshape(1, 1, 4, 4)
    y = np.concatenate([y, y + 1], 1)
    assert apply(lambda v: max_pool(v, 3), y)[0, 0] == [[10]]
    pooled = apply(lambda v: max_pool(v, 3, 2, 1), y)[0]
    np.testing.assert_array_equal(pooled, [[[5, 7], [13, 15]], [[6, 8], [14, 16]]])
    pooled = apply(lambda v: max_pool(v, (2, 3), (2, 3), (1, 1)), y)[0, 0]
    np.testing.assert_array_equal(pooled, [[1, 3], [9, 11], [13, 15]])


def test_the_default_stride_is_the_kernel():
    x = random((1, 2, 9, 8))
    for pool in (max_pool, min_pool, argmax_pool, argmin_pool, avg_pool):
        np.testing.assert_array_equal(apply(lambda v, p=pool: p(v, (3, 2)), x), apply(lambda v, p=pool: p(v, (3, 2), (3, 2)), x))


def test_average_pooling_is_a_convolution_with_a_constant_kernel():
    x = random((2, 3, 6, 5))
    for stride, padding in ((1, 0), (2, 1)):
        by_pool = apply(lambda v, s=stride, p=padding: avg_pool(v, (2, 3), s, p), x)
        kernel = np.full((3, 1, 2, 3), 1 / 6)
        by_conv = apply(lambda v, w, s=stride, p=padding: conv(v, w, s, p, 1, 3), x, kernel)
        close(by_pool, by_conv)
    doubled = apply(lambda v: max_pool(v, 2), x + x[::-1])
    assert not np.allclose(doubled, apply(lambda v: max_pool(v, 2), x) + apply(lambda v: max_pool(v, 2), x[::-1]))


def test_stride_1_pools_are_scipys_filters():
    x = random((7, 6))
    largest = apply(lambda v: max_pool(v, 3, 1, 1), x[None, None])[0, 0]
    np.testing.assert_array_equal(largest, scipy.ndimage.maximum_filter(x, 3, mode="constant", cval=-INF))
    smallest = apply(lambda v: min_pool(v, (3, 5), 1, (1, 2)), x[None, None])[0, 0]
    np.testing.assert_array_equal(smallest, scipy.ndimage.minimum_filter(x, (3, 5), mode="constant", cval=INF))
    mean = apply(lambda v: avg_pool(v, 3, 1, 1), x[None, None])[0, 0]
    close(mean, scipy.ndimage.uniform_filter(x, 3, mode="constant"))


# --- semantics that go wrong easily --------------------------------------------------------------------------------------


def line(*values, dtype="f8") -> np.ndarray:
    return np.array([[values]], dtype)


def test_the_first_maximum_takes_the_gradient():
    x = line(1, 2, 2, 1)
    assert apply(lambda v: argmax_pool(v, 4), x).item() == 1
    (by_x,) = gradients(lambda v: max_pool(v, 4), line(5), x)
    np.testing.assert_array_equal(by_x, line(0, 5, 0, 0))
    (by_x,) = gradients(lambda v: min_pool(v, 4), line(5), x)
    np.testing.assert_array_equal(by_x, line(5, 0, 0, 0))
    zeros = line(-0.0, 0.0)
    assert apply(lambda v: argmax_pool(v, 2), zeros).item() == 0


def test_overlapping_windows_accumulate():
    (by_x,) = gradients(lambda v: max_pool(v, 2, 1), line(1, 2, 4), line(0, 9, 0, 0))
    np.testing.assert_array_equal(by_x, line(0, 3, 4, 0))


def test_a_window_of_infinities_keeps_its_first_element_beside_padding():
    x = line(-INF, -INF)
    window = (3, 1, 1)
    np.testing.assert_array_equal(apply(lambda v: max_pool(v, *window), x), x)
    np.testing.assert_array_equal(apply(lambda v: argmax_pool(v, *window), x), line(1, 0))
    (by_x,) = gradients(lambda v: max_pool(v, *window), line(2, 3), x)
    np.testing.assert_array_equal(by_x, line(5, 0))
    (by_x,) = gradients(lambda v: min_pool(v, *window), line(2, 3), -x)
    np.testing.assert_array_equal(by_x, line(5, 0))


def test_the_first_nan_wins():
    x = line(7, NAN, INF, NAN)
    for pool, argpool in ((max_pool, argmax_pool), (min_pool, argmin_pool)):
        assert np.isnan(apply(lambda v, p=pool: p(v, 4), x)).all()
        assert apply(lambda v, p=argpool: p(v, 4), x).item() == np.argmax(x)
        (by_x,) = gradients(lambda v, p=pool: p(v, 4), line(1), x)
        np.testing.assert_array_equal(by_x, line(0, 1, 0, 0))


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
def test_integer_pools_pad_with_the_extreme_value(dtype):
    limits = np.iinfo(dtype)
    x = line(limits.min, limits.min, limits.max, dtype=dtype)
    largest = apply(lambda v: max_pool(v, 2, 1, 1), x)
    np.testing.assert_array_equal(largest, line(limits.min, limits.min, limits.max, limits.max, dtype=dtype))
    np.testing.assert_array_equal(apply(lambda v: argmax_pool(v, 2, 1, 1), x), line(1, 0, 1, 0))
    smallest = apply(lambda v: min_pool(v, 2, 1, 1), x)
    np.testing.assert_array_equal(smallest, line(limits.min, limits.min, limits.min, limits.max, dtype=dtype))
    np.testing.assert_array_equal(apply(lambda v: argmin_pool(v, 2, 1, 1), x), line(1, 0, 0, 0))


def test_ceil_mode_drops_a_window_that_starts_in_the_padding():
    x = line(1, 2, 3)
    assert apply(lambda v: max_pool(v, 2, 2, 1, 1, True), x).shape == (1, 1, 2)
    assert apply(lambda v: max_pool(v, 2, 2, 0, 1, True), x).shape == (1, 1, 2)
    assert apply(lambda v: max_pool(v, 2, 2, 0, 1, False), x).shape == (1, 1, 1)
    # padding over half the window is legal here
    np.testing.assert_array_equal(apply(lambda v: max_pool(v, 2, 1, 2), x), line(-INF, 1, 2, 3, 3, -INF))


def test_average_divides_by_the_window_clipped_to_the_padded_input():
    x = line(1, 2, 3, 4, 5)
    np.testing.assert_array_equal(apply(lambda v: avg_pool(v, 2, 2, 0, 1, True), x), line(1.5, 3.5, 5))
    padded = apply(lambda v: avg_pool(v, 3, 3, 1, 1, True), line(1, 2, 3, 4))
    # windows (pad 1 2), (3 4 pad); the padding counts
    np.testing.assert_array_equal(padded, line(1, 7 / 3))
    excluded = apply(lambda v: avg_pool(v, 3, 3, 1, 1, True, False), line(1, 2, 3, 4))
    np.testing.assert_array_equal(excluded, line(1.5, 3.5))
    overridden = apply(lambda v: avg_pool(v, 3, 3, 1, 1, True, False, 2), line(1, 2, 3, 4))
    np.testing.assert_array_equal(overridden, line(1.5, 3.5))
    overhang = apply(lambda v: avg_pool(v, 3, 3, 1, 1, True), line(1, 2, 3))
    # the second window is (3 pad) and a position beyond, which never counts
    np.testing.assert_array_equal(overhang, line(1, 1.5))


def test_a_window_in_the_padding_alone_is_zero_on_average_and_has_no_gradient():
    x = line(1, 2)
    np.testing.assert_array_equal(apply(lambda v: avg_pool(v, 2, 2, 2, 1, False, False), x), line(0, 1.5, 0))
    (by_x,) = gradients(lambda v: max_pool(v, 2, 2, 2), line(7, 1, 7), x)
    np.testing.assert_array_equal(by_x, line(0, 1))


def test_average_accumulates_float16_in_float32():
    ones = np.ones((1, 1, 4096), np.float16)
    assert apply(lambda v: avg_pool(v, 4096), ones).item() == 1  # in float16 the sum would stop at 2048
    d = np.ones((1, 1, 3000), np.float16)
    spread = apply(lambda v: avg_pool_adjoint(v, 5999, 3000, 1, divisor_override=1), d)
    assert spread.max() == 3000
    taps = np.arange(3000)[::-1].astype(np.int32)[None, None]
    assert apply(lambda v, t: window_scatter(v, t, 5999, 3000, 1), d, taps)[0, 0, 2999] == 3000


def test_empty_batches_and_any_strides():
    empty = np.zeros((0, 2, 5, 5))
    for pool in (max_pool, min_pool, argmax_pool, argmin_pool, avg_pool):
        assert apply(lambda v, p=pool: p(v, 2), empty).shape == (0, 2, 2, 2)
    for pool in (max_pool, min_pool, avg_pool):
        (by_x,) = gradients(lambda v, p=pool: p(v, 2), np.zeros((0, 2, 2, 2)), empty)
        assert by_x.shape == empty.shape
    x = random((4, 3, 8, 9))[::-2, :, ::-1, 1::3].swapaxes(2, 3)
    odd = np.lib.stride_tricks.as_strided(random((3, 2, 1, 6)), strides=(96, 48, 7, 8))
    for pool in (max_pool, min_pool, argmax_pool, argmin_pool, avg_pool):
        for array in (x, odd):
            result = apply(lambda v, p=pool: p(v, (1, 2), 2, ((0, 0), (1, 0))), array)
            np.testing.assert_array_equal(
                result, apply(lambda v, p=pool: p(v, (1, 2), 2, ((0, 0), (1, 0))), array.copy())
            )


def test_taps_are_bytes_while_they_fit():
    for kernel, dtype in (((16, 16), np.uint8), ((257, 1), np.int32)):
        x = np.arange(260.0 * 16).reshape(1, 1, 260, 16)
        taps = apply(lambda v, k=kernel: argmax_pool(v, k, 1), x)
        assert taps.dtype == dtype
        np.testing.assert_array_equal(taps, kernel[0] * kernel[1] - 1)


# --- positions -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(windows(ceil=True))
def test_positions_point_at_the_maxima(window: Window):
    x = random(window.shape)
    kernel, stride, padding, dilation, _ = window.pool

    def positions(v):
        return pool_positions(argmax_pool(v, *window.pool), window.size, kernel, stride, padding, dilation)

    found, values = apply(positions, x), apply(lambda v: max_pool(v, *window.pool), x)
    assert found.dtype == np.int64
    for at in np.argwhere(np.isfinite(values)):
        n, c = at[:2]
        assert x[n, c].flat[found[tuple(at)]] == values[tuple(at)]


# --- PyTorch ---------------------------------------------------------------------------------------------------------

GRID = [
    row
    for row in itertools.product((2, 3, (3, 2)), (1, 2, (3, 1)), (0, 1), (1, 2), (False, True))
    if row[2] <= np.min(row[0]) // 2
]


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "ceil_mode"), GRID)
def test_max_pool_is_pytorchs(kernel, stride, padding, dilation, ceil_mode):
    torch = pytest.importorskip("torch")
    x = random((2, 3, 7, 8))
    window = (kernel, stride, padding, dilation, ceil_mode)
    tensor = torch.tensor(x, requires_grad=True)
    expected, indices = torch.nn.functional.max_pool2d(tensor, *window, return_indices=True)
    result = apply(lambda v: max_pool(v, *window), x)
    np.testing.assert_array_equal(result, expected.detach().numpy())
    positions = apply(lambda v: pool_positions(argmax_pool(v, *window), (7, 8), *window[:4]), x)
    np.testing.assert_array_equal(positions, indices.numpy())
    d = random(result.shape, 1)
    expected.backward(torch.tensor(d))
    close(gradients(lambda v: max_pool(v, *window), d, x)[0], tensor.grad.numpy())


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "ceil_mode"), [r for r in GRID if r[3] == 1])
@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("divisor", [None, 4])
def test_avg_pool_is_pytorchs(kernel, stride, padding, dilation, ceil_mode, count_include_pad, divisor):
    torch = pytest.importorskip("torch")
    x = random((2, 3, 7, 8))
    tensor = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.avg_pool2d(tensor, kernel, stride, padding, ceil_mode, count_include_pad, divisor)

    def ours(v):
        return avg_pool(v, kernel, stride, padding, dilation, ceil_mode, count_include_pad, divisor)

    result = apply(ours, x)
    close(result, expected.detach().numpy())
    d = random(result.shape, 1)
    expected.backward(torch.tensor(d))
    close(gradients(ours, d, x)[0], tensor.grad.numpy())


@pytest.mark.parametrize("rank", [1, 3])
def test_one_and_three_axes_are_pytorchs(rank):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x = random((2, 2, *[5] * rank))
    for ours, theirs in (
        (max_pool, getattr(functional, f"max_pool{rank}d")),
        (avg_pool, getattr(functional, f"avg_pool{rank}d")),
    ):
        tensor = torch.tensor(x, requires_grad=True)
        expected = theirs(tensor, 3, 2, 1, ceil_mode=True)
        result = apply(lambda v, pool=ours: pool(v, 3, 2, 1, ceil_mode=True), x)
        close(result, expected.detach().numpy())
        d = random(result.shape, 1)
        expected.backward(torch.tensor(d))
        close(gradients(lambda v, pool=ours: pool(v, 3, 2, 1, ceil_mode=True), d, x)[0], tensor.grad.numpy())


# --- bad input -------------------------------------------------------------------------------------------------------


def using(pool, shape, *arguments, **named):
    return lambda: apply(lambda v: pool(v, *arguments, **named), np.ones(shape))


@pytest.mark.parametrize("pool", [max_pool, min_pool, argmax_pool, argmin_pool, avg_pool])
@pytest.mark.parametrize(
    ("shape", "arguments", "error", "words"),
    [
        ((3, 4), (2,), ShapeError, ["[batch, channels, *spatial]", "[3, 4]"]),
        ((1, 1, 3), (4,), ShapeError, ["axis 0", "3 elements", "spans 4"]),
        ((1, 1, 5, 5), (3, 1, 0, 3), ShapeError, ["spans 7", "dilation 3"]),
        ((1, 1, 0), (1, 1, 1), ShapeError, ["no elements"]),
        ((1, 0, 3), (2,), ShapeError, ["[1, 0, 3]", "no channels"]),
        ((1, 1, 5), (0,), AttributeValueError, ["kernel must be at least 1"]),
        ((1, 1, 5), (2, 0), AttributeValueError, ["stride must be at least 1"]),
        ((1, 1, 5), (2, 1, 0, 0), AttributeValueError, ["dilation must be at least 1"]),
        ((1, 1, 5), ((2, 2),), AttributeValueError, ["kernel has 2 values", "1 spatial axes"]),
        ((1, 1, 5), (2, 1, "sane"), AttributeValueError, ["'sane'", "valid"]),
        ((1, 1, 5), (2, 1, -2), ShapeError, ["padding -2 before and -2 after"]),
        ((1, 1, 5), (2, None, 2**33), AttributeValueError, ["2^31"]),
    ],
)
def test_pools_refuse(pool, shape, arguments, error, words):
    with pytest.raises(error) as caught:
        using(pool, shape, *arguments)()
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (using(avg_pool, (1, 1, 5), 2, divisor_override=0), AttributeValueError, ["divisor_override", "got 0"]),
        (using(avg_pool, (1, 1, 5), 2, divisor_override=1.5), AttributeValueError, ["must be an integer", "1.5"]),
        (using(avg_pool_adjoint, (1, 1, 3), 5, 2), ShapeError, ["size [5]", "[2] windows", "[1, 1, 3]"]),
        (using(avg_pool_adjoint, (1, 1, 2), 0, 2), AttributeValueError, ["size must be at least 1"]),
        (using(avg_pool_adjoint, (1, 1, 2), (5, 5), 2), AttributeValueError, ["size has 2 values"]),
    ],
)
def test_averages_refuse(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_routes_refuse_what_does_not_fit():
    d, taps = np.ones((1, 1, 2)), np.zeros((1, 1, 2), np.uint8)
    with pytest.raises(ShapeError, match=r"\[3\] windows"):
        apply(lambda v, t: window_scatter(v, t, 6, 2), d, taps)
    with pytest.raises(ShapeError, match=r"\[1, 1, 2\], got shape \[1, 1, 3\]"):
        apply(lambda v, t: window_scatter(v, t, 4, 2), d, np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(DTypeError, match="tap indices are integers, got f64"):
        apply(lambda v, t: window_gather(v, t, 2), np.ones((1, 1, 4)), d)
    with pytest.raises(ShapeError, match="one tap index per window"):
        apply(lambda v, t: window_gather(v, t, 1), np.ones((1, 1, 4)), taps)
    with pytest.raises(AttributeValueError, match="size 2, kernel 1"):
        WindowScatterAttributes((2,), (2,), ((0, 0),), (1,), False, (4, 4))


def test_taps_that_a_window_does_not_have_read_and_write_nothing():
    x, taps = line(1, 2, 3, 4), line(9, -1, dtype="i8")
    np.testing.assert_array_equal(apply(lambda v, t: window_gather(v, t, 2), x, taps), line(0, 0))
    np.testing.assert_array_equal(apply(lambda v, t: window_scatter(v, t, 4, 2), line(5, 6), taps), line(0, 0, 0, 0))


def test_pools_refuse_element_types_that_they_do_not_order_or_divide():
    flags = np.ones((1, 1, 4), bool)
    for pool in (max_pool, min_pool, argmax_pool, argmin_pool):
        with pytest.raises(DTypeError, match="bool"):
            apply(lambda v, p=pool: p(v, 2), flags)
    for array in (flags, np.ones((1, 1, 4), np.int32)):
        with pytest.raises(DTypeError, match="floating-point"):
            apply(lambda v: avg_pool(v, 2), array)
    with pytest.raises(DTypeError, match="bool"):
        apply(lambda v, t: window_scatter(v, t, 4, 1), flags, np.zeros((1, 1, 4), np.uint8))


def test_absurd_sizes_are_refused_before_memory_is_taken():
    x = tensor_type("f32", (2**20, 2**20, 1))
    padding = ((2**20, 2**20),)
    with pytest.raises(IrconvError, match="2\\^48"):
        OPS["max_pool"].result_type(PoolAttributes((1,), (1,), padding, (1,), False), [x])


def test_cost_counts_the_taps():
    op = OPS["max_pool"]
    x = tensor_type("f32", (2, 3, 8, 8))
    attributes = PoolAttributes((3, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), False)
    result = op.result_type(attributes, [x])
    assert op.cost(attributes, (x,), result) == Work(flops=2 * 3 * 3 * 4 * 6)
