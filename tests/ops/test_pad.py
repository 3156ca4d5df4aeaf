"""Padding in every mode against numpy.pad, and its gradient against one linear map built from it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.errors import AttributeValueError, DTypeError, ShapeError
from irconv.ops.pad import MODES, pad, pad_adjoint
from tests.ops.evaluating import apply, gradients

REPEATING = ("edge", "reflect", "wrap", "mean")

amounts = st.tuples(st.integers(0, 9), st.integers(0, 9))


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(MODES), st.tuples(st.integers(1, 4), st.integers(1, 4)), st.tuples(amounts, amounts))
def test_values_and_gradients_are_those_of_numpy_pad(mode, shape, padding):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    np.testing.assert_allclose(apply(lambda v: pad(v, padding, mode), x), np.pad(x, padding, mode), atol=1e-14)
    # padding is linear, so its gradient is the transpose of the matrix of its values on unit vectors
    units = np.eye(x.size).reshape(-1, *shape)
    matrix = np.array([np.pad(unit, padding, mode) for unit in units])
    d = rng.normal(size=matrix.shape[1:])
    (found,) = gradients(lambda v: pad(v, padding, mode), d, x)
    np.testing.assert_allclose(found.ravel(), (matrix * d).sum((1, 2)), atol=1e-12)


@pytest.mark.parametrize("mode", ["edge", "reflect", "wrap", "mean"])
def test_integers_pad_as_numpy_pads_them(mode):
    x = np.array([[3, 8, 10], [1, -2, 5]], np.int32)
    np.testing.assert_array_equal(apply(lambda v: pad(v, ((1, 2), (4, 1)), mode), x), np.pad(x, ((1, 2), (4, 1)), mode))


def test_gradients_accumulate_at_the_element_that_is_repeated():
    x = np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(gradients(lambda v: pad(v, ((2, 2),), "edge"), np.ones(7), x)[0], [3, 1, 3])
    np.testing.assert_array_equal(gradients(lambda v: pad(v, ((2, 1),), "reflect"), np.ones(6), x)[0], [1, 3, 2])
    np.testing.assert_array_equal(gradients(lambda v: pad(v, ((4, 0),), "wrap"), np.ones(7), x)[0], [2, 2, 3])
    np.testing.assert_allclose(gradients(lambda v: pad(v, ((3, 0),), "mean"), np.ones(6), x)[0], [2, 2, 2])


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(1, 5), st.integers(1, 5)), st.lists(st.integers(-6, 4), min_size=4, max_size=4))
def test_negative_padding_crops(shape, amounts):
    padding = ((amounts[0], amounts[1]), (amounts[2], amounts[3]))
    if any(n + sum(pair) < 0 for n, pair in zip(shape, padding, strict=True)):
        return
    x = np.random.default_rng(0).normal(size=shape)
    size = tuple(n + sum(pair) for n, pair in zip(shape, padding, strict=True))
    expected = np.full(size, 0.5)
    back = np.zeros(shape)
    d = np.random.default_rng(1).normal(size=size)
    for place in np.ndindex(*size):
        source = tuple(i - before for i, (before, _) in zip(place, padding, strict=True))
        if all(0 <= i < n for i, n in zip(source, shape, strict=True)):
            expected[place] = x[source]
            back[source] += d[place]
    np.testing.assert_array_equal(apply(lambda v: pad(v, padding, value=0.5), x), expected)
    np.testing.assert_array_equal(gradients(lambda v: pad(v, padding, value=0.5), d, x)[0], back)


def test_spellings_of_the_amounts():
    x = np.ones((2, 3))
    assert apply(lambda v: pad(v, 1), x).shape == (4, 5)
    assert apply(lambda v: pad(v, (1, 2)), x).shape == (5, 6)
    assert apply(lambda v: pad(v, ((0, 0), (1, 2))), x).shape == (2, 6)
    assert apply(lambda v: pad(v, np.array([[0, 0], [1, 2]])), x).shape == (2, 6)


def test_float16_gradients_accumulate_in_float32():
    d = np.ones(3001, np.float16)
    np.testing.assert_array_equal(apply(lambda v: pad_adjoint(v, ((3000, 0),), "edge"), d), np.array([3001], np.float16))


@pytest.mark.parametrize(
    ("x", "padding", "mode", "value", "error", "message"),
    [
        (np.ones(3), ((1, 1),), "symmetric", 0, AttributeValueError, "'symmetric' is not one of constant, edge"),
        (np.ones(3), ((-1, 1),), "edge", 0, AttributeValueError, "takes no negative padding"),
        (np.ones(3), ((-2, -2),), "constant", 0, ShapeError, r"\(-2, -2\) crops more than the 3 elements of axis 0"),
        (np.ones((0, 2)), ((1, 0), (0, 0)), "edge", 0, ShapeError, "axis 0 of .* is empty"),
        (np.ones((2, 2)), ((1, 0),), "edge", 0, AttributeValueError, "not a .* pair for each of 2 axes"),
        (np.ones(3), 1.5, "edge", 0, AttributeValueError, "padding must be an integer or a sequence of integers, got 1.5"),
        (np.ones(3, np.uint8), 1, "constant", 256, AttributeValueError, "256.0 is not a number of element type u8"),
        (np.ones(3, np.int32), 1, "constant", np.inf, AttributeValueError, "inf is not a number of element type i32"),
        (np.ones(3, bool), 1, "mean", 0, DTypeError, "needs numbers, got bool"),
    ],
)
def test_bad_input_is_explained(x, padding, mode, value, error, message):
    with pytest.raises(error, match=message):
        apply(lambda v: pad(v, padding, mode, value), x)
