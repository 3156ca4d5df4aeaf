"""The native kernel for mean and variance against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.ops.elementwise import square, subtract
from irconv.ops.reduce import reduce_mean
from irconv.ops.shape import reshape
from tests.backends.native.reducing import CHANNELS_LAST, ROW_MAJOR, Case, channels_last


def moments(axes, wanted=("variance", "mean")):
    """A builder of the pattern, with these results."""

    def build(x):
        mean = reduce_mean(x, axes, True)
        centred = subtract(x, mean)
        found = {"mean": mean, "centred": centred, "variance": reduce_mean(square(centred), axes, True)}
        return [found[name] for name in wanted]

    return build


def flat_moments(x):
    """As batch norm builds it: results without the folded axes, the mean brought back by a reshape."""
    mean = reduce_mean(x, (0, 2, 3))
    centred = subtract(x, reshape(mean, (1, x.shape[1], 1, 1)))
    return [reduce_mean(square(centred), (0, 2, 3)), mean, centred]


def numbers(shape, seed=0, dtype="f4", mean=0.0):
    return (np.random.default_rng(seed).standard_normal(shape) + mean).astype(dtype)


def check(variance, mean, x, axes, eps=6e-8):
    """Both within a few roundings, the variance as well where the mean is large."""
    exact = x.astype("f8")
    np.testing.assert_allclose(variance, exact.var(axes, keepdims=variance.ndim == x.ndim), rtol=64 * eps)
    wanted = exact.mean(axes, keepdims=mean.ndim == x.ndim)
    np.testing.assert_allclose(mean, wanted, rtol=8 * eps, atol=8 * eps * float(np.abs(x).mean()))


SHAPES = [(3, 17, 5, 7), (4, 64, 40, 40), (2, 600, 3, 9), (1, 1, 1, 2), (5, 3, 1, 1)]


@pytest.mark.parametrize("order", [ROW_MAJOR, CHANNELS_LAST])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("axes", [(0, 2, 3), (1, 2, 3), (2, 3), (0, 1, 2, 3), (1,)])
def test_a_large_mean_costs_no_accuracy(axes, shape, order) -> None:
    x = numbers(shape, 1, mean=1e4)
    array = channels_last(x) if order == CHANNELS_LAST else x
    count = np.prod([shape[a] for a in axes])
    variance, mean = Case(moments(axes), [array], "mean_variance", order).run()
    if count > 1:
        check(variance, mean, x, axes)
    else:
        np.testing.assert_array_equal(variance, np.zeros_like(variance))
        np.testing.assert_array_equal(mean, x)


@pytest.mark.parametrize("machine", ["avx512", "avx2", "sse2", "generic"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("order", [ROW_MAJOR, CHANNELS_LAST])
def test_machines_and_types(machine, dtype, order) -> None:
    x = numbers((3, 17, 5, 7), 2, dtype, 100.0)
    array = channels_last(x) if order == CHANNELS_LAST else x
    variance, mean, centred = Case(flat_moments, [array], "mean_variance", order, machine).run()
    check(variance, mean, x, (0, 2, 3), 6e-8 if dtype == "f4" else 1.2e-16)
    np.testing.assert_array_equal(centred, x - mean.reshape(1, 17, 1, 1))


@pytest.mark.parametrize("wanted", [("variance",), ("variance", "centred"), ("variance", "mean", "centred")])
@pytest.mark.parametrize(("shape", "axes"), [((2, 5, 3), (0, 2)), ((9, 40, 200), (0, 2)), ((6, 100, 99), (1, 2))])
def test_only_what_is_wanted_is_stored(wanted, shape, axes) -> None:
    x = numbers(shape, 3, mean=-3.0)
    for order, array in ((ROW_MAJOR, x), (CHANNELS_LAST, channels_last(x))):
        found = dict(zip(wanted, Case(moments(axes, wanted), [array], "mean_variance", order).run(), strict=True))
        mean = x.astype("f8").mean(axes, keepdims=True)
        check(found["variance"], found.get("mean", mean), x, axes)
        if "centred" in found:
            np.testing.assert_allclose(found["centred"], x - mean, atol=2e-6)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_shape_axes_and_strides(data) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))))
    order = data.draw(st.permutations(range(len(shape))))
    view = numbers([shape[a] * 2 for a in order], data.draw(st.integers(0, 99)), mean=5.0).transpose(np.argsort(order))
    steps = [data.draw(st.sampled_from([1, 2, -1])) for _ in shape]
    view = view[tuple(slice(None, None, s) for s in steps)][tuple(slice(0, n) for n in shape)]
    variance, mean, centred = Case(moments(axes, ("variance", "mean", "centred")), [view], "mean_variance").run()
    exact = view.astype("f8")
    np.testing.assert_allclose(variance, exact.var(axes, keepdims=True), rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(mean, exact.mean(axes, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(centred, view - mean)


@pytest.mark.parametrize("order", [ROW_MAJOR, CHANNELS_LAST])
def test_tasks_in_any_order_and_number_give_the_same_bits(order) -> None:
    x = numbers((6, 40, 30, 31), 4)
    array = channels_last(x) if order == CHANNELS_LAST else x
    case = Case(moments((0, 2, 3), ("variance", "mean", "centred")), [array], "mean_variance", order)
    assert case.made.phases[0].tasks > 1
    first, *others = [case.run(how) for how in ("threads", "backwards", "threads")]
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_source_does_not_depend_on_sizes() -> None:
    for order in (ROW_MAJOR, CHANNELS_LAST):
        sources = set()
        for shape in ((1, 17, 5, 6), (2, 64, 9, 9), (64, 64, 5, 6)):
            x = numbers(shape)
            array = channels_last(x) if order == CHANNELS_LAST else x
            sources.add(Case(moments((0, 2, 3)), [array], "mean_variance", order).made.source)
        assert len(sources) == 1


@pytest.mark.parametrize("order", [ROW_MAJOR, CHANNELS_LAST])
def test_nan_and_infinity_are_those_of_the_formula(order) -> None:
    """One channel with NaN, one with an infinity (first or later), one with both infinities, one with huge numbers."""
    x = numbers((30, 6, 20, 21), 5)
    x[2, 0, 3, 4] = np.nan
    x[0, 1, 0, 0] = np.inf
    x[9, 2, 3, 4] = -np.inf
    x[7, 3, 0, 0], x[20, 3, 5, 5] = np.inf, -np.inf
    array = channels_last(x) if order == CHANNELS_LAST else x
    variance, mean = Case(moments((0, 2, 3)), [array], "mean_variance", order).run()
    with np.errstate(invalid="ignore"):
        wanted, exact = x.astype("f8").mean((0, 2, 3)), x.astype("f8").var((0, 2, 3))
    np.testing.assert_allclose(mean.reshape(-1), wanted, atol=1e-6)
    np.testing.assert_allclose(variance.reshape(-1), exact, rtol=1e-5)
