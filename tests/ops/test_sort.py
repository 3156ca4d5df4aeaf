"""Sorting against NumPy's stable sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.errors import AttributeValueError
from irconv.ops.sort import argsort, sort, top_k, top_k_indices
from tests.ops.evaluating import apply, gradients

numbers = st.lists(st.one_of(st.integers(-3, 3).map(float), st.just(float("nan")), st.just(float("-inf"))), max_size=12)


@given(numbers)
@settings(max_examples=100, deadline=None)
def test_order_of_ties_and_nan(values):
    x = np.array(values)
    rising = np.argsort(x, kind="stable")
    np.testing.assert_array_equal(apply(argsort, x), rising)
    np.testing.assert_array_equal(apply(sort, x), x[rising])
    # falling: larger first, NaN before all, and of equals the one in front
    keys = [(0 if np.isnan(v) else 1, 0 if np.isnan(v) else -v, i) for i, v in enumerate(values)]
    falling = [key[2] for key in sorted(keys)]
    np.testing.assert_array_equal(apply(lambda v: argsort(v, descending=True), x), np.array(falling, np.int64))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("largest", [False, True])
def test_top_k_and_its_gradient(axis, largest):
    x = np.random.default_rng(0).normal(size=(3, 4, 5))
    order = np.argsort(-x if largest else x, axis=axis)
    wanted = np.take_along_axis(x, np.take(order, range(2), axis), axis)
    np.testing.assert_array_equal(apply(lambda v: top_k(v, 2, axis, largest)[0], x), wanted)
    np.testing.assert_array_equal(apply(lambda v: top_k(v, 2, axis, largest)[1], x), np.take(order, range(2), axis))
    d = np.random.default_rng(1).normal(size=wanted.shape)
    expected = np.zeros_like(x)
    np.put_along_axis(expected, np.take(order, range(2), axis), d, axis)
    np.testing.assert_allclose(gradients(lambda v: top_k(v, 2, axis, largest)[0], d, x)[0], expected)


def test_unsigned_numbers_are_not_negated():
    x = np.array([0, 255, 3, 255], np.uint8)
    np.testing.assert_array_equal(apply(lambda v: top_k_indices(v, 3), x), [1, 3, 2])


def test_bad_input_is_explained():
    with pytest.raises(AttributeValueError, match=r"cannot take the top 4 of 3 elements: axis 1 of \[2, 3\]"):
        apply(lambda v: top_k_indices(v, 4), np.ones((2, 3)))
    with pytest.raises(AttributeValueError, match="cannot take the top -1"):
        apply(lambda v: top_k_indices(v, -1), np.ones(3))
