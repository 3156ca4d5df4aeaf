"""Softmax, its logarithm, their gradients and normalisation over rows, each as one native kernel."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.ops.elementwise import add, divide, exp, log, multiply, negative, relu, square, subtract
from irconv.ops.elementwise import sqrt as square_root
from irconv.ops.reduce import reduce_max, reduce_mean, reduce_sum
from irconv.ops.shape import reshape
from tests.backends.native.reducing import CHANNELS_LAST, ROW_MAJOR, Case, channels_last


def numbers(shape, seed=0, dtype="f4", scale=3.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(dtype)


def softmax(axis):
    def build(x):
        e = exp(subtract(x, reduce_max(x, axis, True)))
        return [divide(e, reduce_sum(e, axis, True))]

    return build


def log_softmax(axis):
    def build(x):
        away = subtract(x, reduce_max(x, axis, True))
        e = exp(away)
        total = reduce_sum(e, axis, True)
        return [subtract(away, log(total)), e, total]

    return build


def log_softmax_gradient(d, e, total):
    """As the gradient rules build it: the sum without its axis, brought back by a reshape."""
    share = reshape(reduce_sum(negative(d), 1), (d.shape[0], 1))
    return [add(d, multiply(divide(share, total), e))]


def exact_softmax(x, axis):
    e = np.exp(x.astype("f8") - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@pytest.mark.parametrize("machine", ["avx512", "avx2", "sse2", "generic"])
@pytest.mark.parametrize(("shape", "axis", "order"), [
    ((7, 10), 1, ROW_MAJOR),
    ((3, 21, 5, 6), 1, CHANNELS_LAST),
    ((3, 21, 5, 6), 1, ROW_MAJOR),
    ((2, 3, 1000), 2, ROW_MAJOR),
    ((5, 1), 1, ROW_MAJOR),
])  # fmt: skip
def test_softmax(shape, axis, order, machine) -> None:
    x = numbers(shape)
    array = channels_last(x) if order == CHANNELS_LAST else x
    (y,) = Case(softmax(axis), [array], "row_softmax", order, machine).run()
    np.testing.assert_allclose(y, exact_softmax(x, axis), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("classes", [1, 2, 10, 16, 33, 1000])
def test_log_softmax_and_its_gradient(classes, dtype) -> None:
    x, d = numbers((9, classes), 1, dtype), numbers((9, classes), 2, dtype)
    eps = 1e-5 if dtype == "f4" else 1e-12
    y, e, total = Case(log_softmax(1), [x], "row_softmax").run()
    np.testing.assert_allclose(y, np.log(exact_softmax(x, 1)), rtol=eps, atol=eps)
    np.testing.assert_allclose(e / total, exact_softmax(x, 1), rtol=eps)
    (gradient,) = Case(log_softmax_gradient, [d, e, total], "row_softmax").run()
    wanted = d - d.astype("f8").sum(1, keepdims=True) * exact_softmax(x, 1)
    np.testing.assert_allclose(gradient, wanted, rtol=10 * eps, atol=30 * eps)


def test_layer_norm_with_row_values_stored() -> None:
    def layer_norm(x, scale, shift):
        mean = reduce_mean(x, 1, True)
        away = subtract(x, mean)
        variance = reduce_mean(square(away), 1)
        deviation = square_root(add(variance, 1e-5))
        return [relu(add(multiply(divide(away, reshape(deviation, (x.shape[0], 1))), scale), shift)), variance, mean]

    x, scale, shift = numbers((12, 96), 3), numbers((96,), 4), numbers((96,), 5)
    y, variance, mean = Case(layer_norm, [x, scale, shift], "row_softmax").run()
    exact = x.astype("f8")
    np.testing.assert_allclose(variance, exact.var(1), rtol=1e-5)
    np.testing.assert_allclose(mean, exact.mean(1, keepdims=True), rtol=1e-5, atol=1e-6)
    wanted = (exact - exact.mean(1, keepdims=True)) / np.sqrt(exact.var(1, keepdims=True) + 1e-5) * scale + shift
    np.testing.assert_allclose(y, np.maximum(wanted, 0), rtol=1e-4, atol=1e-5)


def test_row_values_from_outside_in_both_forms() -> None:
    """A square shape, where [8] as a row value and [8] along the row are different things."""

    def build(x, per_row, per_column):
        total = reduce_sum(multiply(x, per_column), 1)
        scaled = multiply(total, per_row)
        return [multiply(x, reshape(scaled, (8, 1))), scaled]

    x, per_row, per_column = numbers((8, 8), 6), numbers((8,), 7), numbers((8,), 8)
    y, scaled = Case(build, [x, per_row, per_column], "row_softmax").run()
    wanted = (x.astype("f8") * per_column).sum(1) * per_row
    np.testing.assert_allclose(scaled, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(y, x * wanted[:, None], rtol=1e-4, atol=1e-4)


def test_infinite_and_odd_numbers() -> None:
    x = numbers((6, 20), 9)
    x[0, 3] = -np.inf
    x[1, 4] = np.nan
    x[2] = 1e4
    x[3, 19] = np.inf
    (y,) = Case(softmax(1), [x], "row_softmax").run()
    with np.errstate(invalid="ignore"):
        wanted = exact_softmax(x, 1)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-7)


def test_any_order_of_tasks_and_any_batch() -> None:
    sources = set()
    for rows in (0, 1, 3, 5000):
        x = numbers((rows, 21), rows)
        case = Case(softmax(1), [x], "row_softmax")
        sources.add(case.made.source)
        (first,), (second,) = case.run(), case.run("backwards")
        np.testing.assert_array_equal(first, second)
        if rows:
            np.testing.assert_allclose(first.sum(1), 1, rtol=1e-5)
    assert len(sources) == 1 and case.made.phases[0].tasks > 1
