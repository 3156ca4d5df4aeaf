"""Convolutions that give mean and variance of their channels as well, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.ops.conv import conv
from irconv.ops.elementwise import add, clip, multiply, relu, square, subtract
from irconv.ops.reduce import reduce_mean
from irconv.ops.shape import reshape
from tests.backends.native.reducing import CHANNELS_LAST, Case, channels_last

KIND = "conv_statistics"


def moments_of(y, keepdims=False):
    """Mean and variance of a value's channels, as batch norm builds them."""
    axes = (0, *range(2, len(y.shape)))
    mean = reduce_mean(y, axes, keepdims)
    back = mean if keepdims else reshape(mean, (1, y.shape[1], *[1] * (len(y.shape) - 2)))
    return mean, reduce_mean(square(subtract(y, back)), axes, keepdims)


def plain(wanted=("mean", "variance"), keepdims=False, **attributes):
    """A builder of a convolution with these of its moments."""

    def build(x, w):
        y = conv(x, w, **attributes)
        found = dict(zip(("mean", "variance"), moments_of(y, keepdims), strict=True))
        return [y, *(found[name] for name in wanted)]

    return build


def biased(**attributes):
    """A builder of a convolution with a bias and an activation ahead of its moments."""

    def build(x, w, b):
        y = relu(add(conv(x, w, **attributes), b))
        return [y, *moments_of(y)]

    return build


def ahead(**attributes):
    """A builder of a convolution of normalised and activated images, with its moments."""

    def build(x, w, mean, scale, shift):
        y = conv(clip(add(multiply(subtract(x, mean), scale), shift), 0.0, 6.0), w, **attributes)
        return [y, *moments_of(y)]

    return build


def numbers(shape, seed=0, dtype="f4"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def laid_out(*arrays):
    """Images channels last, weights as they are."""
    x, w, *rest = arrays
    return [channels_last(x), w, *rest]


def check(results, eps=6e-8):
    """The moments are those of the result, within a few roundings: the variance as well where the mean is large."""
    y, mean, variance = results
    exact, axes = y.astype("f8"), (0, *range(2, y.ndim))
    wanted = exact.var(axes)
    np.testing.assert_allclose(variance, wanted, rtol=64 * eps, atol=1e-30)
    # a mean is as exact as the elements that went into it
    assert np.all(np.abs(mean - exact.mean(axes)) <= 8 * eps * np.abs(exact).max(axes))


def agree(case, wanted_y=None, eps=6e-8):
    results = case.run()
    if wanted_y is not None:
        np.testing.assert_allclose(results[0], wanted_y, rtol=1e-4, atol=1e-4)
    check(results, eps)
    return results


LAYERS = {
    # name: images, weights, attributes
    "1x1": ((3, 16, 9, 7), (40, 16, 1, 1), {}),
    "1x1 to many": ((2, 64, 7, 7), (400, 64, 1, 1), {}),
    "3x3": ((2, 24, 15, 13), (33, 24, 3, 3), {"padding": 1, "stride": 2}),
    "weights beyond a cache": ((2, 512, 5, 5), (512, 512, 3, 3), {"padding": 1, "stride": 2}),
    "winograd": ((3, 32, 14, 13), (48, 32, 3, 3), {"padding": 1}),
    "winograd, ragged": ((2, 32, 14, 14), (17, 32, 3, 3), {"padding": 1}),
    "winograd by phases": ((8, 256, 14, 14), (256, 256, 3, 3), {"padding": 1}),
    "winograd by phases, few tiles": ((1, 256, 4, 4), (256, 256, 3, 3), {"padding": 1}),
    "groups": ((2, 24, 8, 8), (36, 8, 3, 3), {"padding": 1, "groups": 3}),
    "depthwise": ((2, 40, 12, 11), (40, 1, 3, 3), {"padding": 1, "groups": 40}),
    "depthwise, strided": ((2, 96, 30, 30), (96, 1, 3, 3), {"padding": 1, "stride": 2, "groups": 96}),
    "few columns": ((2, 3, 30, 31), (6, 3, 5, 5), {}),
    "a line": ((3, 20, 50), (17, 20, 3), {"padding": 1}),
    "a volume": ((2, 5, 4, 6, 5), (19, 5, 3, 3, 3), {"padding": 1}),
}


def naive(x, w, stride=1, padding=0, groups=1):
    """A convolution in float64, tap by tap."""
    rank = x.ndim - 2
    x = np.pad(x.astype("f8"), [(0, 0), (0, 0), *[(padding, padding)] * rank])
    counts = [(n - k) // stride + 1 for n, k in zip(x.shape[2:], w.shape[2:], strict=True)]
    out = np.zeros((x.shape[0], groups, w.shape[0] // groups, *counts))
    parts = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
    weights = w.astype("f8").reshape(groups, -1, *w.shape[1:])
    for tap in np.ndindex(*w.shape[2:]):
        windows = tuple(slice(t, t + (n - 1) * stride + 1, stride) for t, n in zip(tap, counts, strict=True))
        seen = parts[(slice(None),) * 3 + windows]
        out += np.einsum("ngc...,gkc->ngk...", seen, weights[(slice(None),) * 3 + tap])
    return out.reshape(x.shape[0], -1, *counts)


@pytest.mark.parametrize("name", LAYERS)
def test_every_way_to_convolve(name) -> None:
    images, weights, attributes = LAYERS[name]
    x, w = numbers(images, 1), numbers(weights, 2) / np.sqrt(np.prod(weights[1:])).astype("f4")
    agree(Case(plain(**attributes), laid_out(x, w), KIND, CHANNELS_LAST), naive(x, w, **attributes))


@pytest.mark.parametrize("machine", ["avx512", "avx2", "sse2", "generic"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", ["1x1", "3x3", "winograd", "depthwise", "few columns", "groups"])
def test_machines_and_types(name, dtype, machine) -> None:
    images, weights, attributes = LAYERS[name]
    x, w = numbers(images, 3, dtype), numbers(weights, 4, dtype)
    case = Case(plain(**attributes), laid_out(x, w), KIND, CHANNELS_LAST, machine)
    agree(case, None, 6e-8 if dtype == "f4" else 1.2e-16)


@pytest.mark.parametrize("name", LAYERS)
def test_a_large_mean_costs_no_accuracy(name) -> None:
    """A mean of 10,000 times the spread."""
    images, weights, attributes = LAYERS[name]
    x, w = numbers(images, 5), numbers(weights, 6)
    b = np.full((1, weights[0], *[1] * (len(images) - 2)), 1e4 * np.sqrt(np.prod(weights[1:])), "f4")
    agree(Case(biased(**attributes), laid_out(x, w, b), KIND, CHANNELS_LAST))


@pytest.mark.parametrize("name", LAYERS)
def test_outliers_first_and_later(name) -> None:
    """Images of zeros but for a few places, of which one lies in a corner: what padding leaves stands far from the rest."""
    images, weights, attributes = LAYERS[name]
    x, w = 1 + 1e-3 * numbers(images, 7), np.abs(numbers(weights, 8))
    x[0, :, 0] *= 1e3
    x[-1, :, -1] *= -1e3
    agree(Case(plain(**attributes), laid_out(x, w), KIND, CHANNELS_LAST))


@pytest.mark.parametrize("name", ["1x1", "winograd", "depthwise"])
def test_constant_channels_have_no_variance(name) -> None:
    images, weights, attributes = LAYERS[name]
    w = np.zeros(weights, "f4")
    b = numbers((1, weights[0], 1, 1), 9)
    _, mean, variance = Case(biased(**attributes), laid_out(numbers(images), w, b), KIND, CHANNELS_LAST).run()
    np.testing.assert_array_equal(variance, np.zeros(weights[0], "f4"))
    np.testing.assert_array_equal(mean, np.maximum(b, 0).reshape(-1))


@pytest.mark.parametrize("weights", [(17, 5, 1, 1), (20, 5, 3, 3)])
def test_a_single_pixel(weights) -> None:
    x, w = numbers((1, 5, 1, 1), 10), numbers(weights, 11)
    y, mean, variance = Case(plain(padding=weights[2] // 2), laid_out(x, w), KIND, CHANNELS_LAST).run()
    np.testing.assert_array_equal(mean, y.reshape(-1))
    np.testing.assert_array_equal(variance, np.zeros(weights[0], "f4"))


@pytest.mark.parametrize("wanted", [("mean",), ("variance",), ("variance", "mean")])
@pytest.mark.parametrize("keepdims", [False, True])
def test_only_what_is_wanted_is_stored(wanted, keepdims) -> None:
    x, w = numbers((2, 16, 9, 9), 12), numbers((24, 16, 1, 1), 13)
    y, *found = Case(plain(wanted, keepdims), laid_out(x, w), KIND, CHANNELS_LAST).run()
    exact = y.astype("f8")
    for name, value in zip(wanted, found, strict=True):
        expected = (exact.mean if name == "mean" else exact.var)((0, 2, 3), keepdims=keepdims)
        np.testing.assert_allclose(value, expected, rtol=4e-6, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_tasks_in_any_order_and_number_give_the_same_bits(name) -> None:
    images, weights, attributes = LAYERS[name]
    x, w = numbers(images, 14), numbers(weights, 15)
    case = Case(plain(**attributes), laid_out(x, w), KIND, CHANNELS_LAST)
    first, *others = [case.run(how) for how in ("threads", "backwards", "threads", "one")]
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", LAYERS)
def test_source_does_not_depend_on_the_batch(name) -> None:
    images, weights, attributes = LAYERS[name]
    sources = set()
    for batch in (1, 2, 9):
        x, w = numbers((batch, *images[1:])), numbers(weights)
        sources.add(Case(plain(**attributes), laid_out(x, w), KIND, CHANNELS_LAST).made.source)
    assert len(sources) == 1


AHEAD = ("1x1", "1x1 to many", "depthwise", "depthwise, strided")


def case_ahead(name, batch=None, dtype="f4", machine="avx512"):
    """The case of a layer with work ahead, and the float64 result of NumPy."""
    images, weights, attributes = LAYERS[name]
    x, w = numbers((batch or images[0], *images[1:]), 17, dtype), numbers(weights, 18, dtype)
    # most elements stay as they are, so that no channel is nearly constant
    mean, scale, shift = (at + numbers((1, images[1], 1, 1), 19 + at, dtype) / 8 for at in range(3))
    case = Case(ahead(**attributes), [*laid_out(x, w), mean, scale, shift], KIND, CHANNELS_LAST, machine)
    return case, naive(np.clip((x.astype("f8") - mean) * scale + shift, 0, 6), w, **attributes)


@pytest.mark.parametrize("machine", ["avx512", "avx2", "generic"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", AHEAD)
def test_work_ahead(name, dtype, machine) -> None:
    agree(*case_ahead(name, None, dtype, machine), 6e-8 if dtype == "f4" else 1.2e-16)


@pytest.mark.parametrize("name", AHEAD)
def test_work_ahead_gives_the_same_bits_in_any_order_and_one_source_for_all_batches(name) -> None:
    case, _ = case_ahead(name)
    first, *others = [case.run(how) for how in ("threads", "backwards", "one")]
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert {case_ahead(name, batch)[0].made.source for batch in (1, 7)} == {case.made.source}


def test_nan_and_infinity_are_those_of_the_formula() -> None:
    """Channels with NaN, with an infinity (first or later), and with both infinities."""
    x, w = numbers((9, 6, 20, 21), 16), np.eye(6, dtype="f4").reshape(6, 6, 1, 1)
    b = np.zeros((1, 6, 1, 1), "f4")
    big = np.float32(3e38)
    x[2, 0, 3, 4] = np.nan
    x[0, 1, 0, 0] = np.inf
    x[7, 2, 3, 4] = np.inf
    w[0, 1:] = w[3:, 0] = 0
    y, mean, variance = Case(biased(), laid_out(x, w, b), KIND, CHANNELS_LAST).run()
    with np.errstate(invalid="ignore"):
        exact = y.astype("f8")
        np.testing.assert_allclose(mean, exact.mean((0, 2, 3)), atol=1e-6)
        np.testing.assert_allclose(variance, exact.var((0, 2, 3)), rtol=1e-5)
    assert big > np.nanmax(y[:, 3:])
