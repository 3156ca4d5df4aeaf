"""Scatter against loops; its gradients are in the table of samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.errors import AttributeValueError, DTypeError, IrconvError, ShapeError
from irconv.ops.elementwise import isinf, isnan
from irconv.ops.scatter import REDUCTIONS, scatter
from tests.ops.evaluating import apply, gradients

COMBINE = {"set": lambda old, new: new, "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


@given(st.integers(0, 2), st.sampled_from(REDUCTIONS), st.integers(0, 5), st.sampled_from(["float64", "int32", "float32"]))
@settings(max_examples=80, deadline=None)
def test_scatter(axis, reduction, count, dtype):
    rng = np.random.default_rng(count)
    x = rng.integers(-4, 5, (2, 3, 4)).astype(dtype)
    shape = tuple(count if i == axis else n for i, n in enumerate(x.shape))
    indices, updates = rng.integers(-x.shape[axis], x.shape[axis], shape), rng.integers(-4, 5, shape).astype(dtype)
    expected = x.copy()
    for place in np.ndindex(shape):
        there = (*place[:axis], indices[place], *place[axis + 1 :])
        expected[there] = COMBINE[reduction](expected[there], updates[place])
    np.testing.assert_array_equal(apply(lambda *v: scatter(*v, axis, reduction), x, indices, updates), expected)


def test_an_update_that_was_replaced_gets_no_gradient():
    x, indices, updates = np.zeros(3), np.array([1, 0, 1]), np.array([1.0, 2.0, 3.0])
    by_x, by_updates = gradients(lambda *v: scatter(*v, 0), np.array([10.0, 20.0, 30.0]), x, indices, updates)
    np.testing.assert_array_equal(by_x, [0, 0, 30])
    np.testing.assert_array_equal(by_updates, [0, 10, 20])


def test_equals_share_the_gradient_of_an_extremum():
    x, indices, updates = np.array([2.0, 1.0]), np.array([0, 0, 1]), np.array([2.0, 1.0, 5.0])
    by_x, by_updates = gradients(lambda *v: scatter(*v, 0, "max"), np.array([6.0, 8.0]), x, indices, updates)
    np.testing.assert_array_equal(by_x, [3, 0])
    np.testing.assert_array_equal(by_updates, [3, 0, 8])


@pytest.mark.parametrize(
    ("arrays", "reduction", "error", "message"),
    [
        ((np.ones(3), np.array([3]), np.ones(1)), "set", IrconvError, "index 3 is out of range for axis 0 of size 3"),
        ((np.ones(3), np.array([0]), np.ones(2)), "set", ShapeError, r"updates \[2\] and indices \[1\]"),
        ((np.ones((2, 3)), np.zeros((1, 1), int), np.ones((1, 1))), "set", ShapeError, "do not match"),
        ((np.ones(3), np.array([0.5]), np.ones(1)), "set", DTypeError, "indices must be integers"),
        ((np.ones(3), np.array([0]), np.ones(1, int)), "add", DTypeError, "cannot scatter i64 elements into a tensor of f64"),
        ((np.ones(3, bool), np.array([0]), np.ones(1, bool)), "mul", DTypeError, "needs numbers, got bool"),
        ((np.ones(3), np.array([0]), np.ones(1)), "mean", AttributeValueError, "'mean' is not one of set, add"),
    ],
)
def test_bad_input_is_explained(arrays, reduction, error, message):
    with pytest.raises(error, match=message):
        apply(lambda *v: scatter(*v, 0, reduction), *arrays)


def test_kinds_of_numbers():
    x = np.array([1.0, np.nan, np.inf, -np.inf])
    np.testing.assert_array_equal(apply(isnan, x), np.isnan(x))
    np.testing.assert_array_equal(apply(isinf, x), np.isinf(x))
    np.testing.assert_array_equal(apply(lambda v: isinf(v, negative=False), x), [False, False, True, False])
    np.testing.assert_array_equal(apply(lambda v: isinf(v, positive=False), x), [False, False, False, True])
    assert not apply(lambda v: isinf(v, positive=False, negative=False), x).any()
    with pytest.raises(DTypeError, match="needs floating-point"):
        apply(isinf, np.array([1]))
