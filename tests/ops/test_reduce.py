"""Reductions against NumPy, and their semantics at ties, NaN, zeros, empty axes and low precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.builder import GraphValue
from irconv.errors import AttributeValueError, DTypeError, ShapeError
from irconv.ops import reduce as r
from irconv.passes.differentiate import differentiate
from tests.ops.evaluating import apply, gradients

X = np.random.default_rng(0).normal(size=(2, 3, 4))
AXES = [None, 0, (1,), (-1, 0), (0, 1, 2), ()]


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("keepdims", [False, True])
def test_values_are_those_of_numpy(axes, keepdims):
    pairs = [(r.reduce_sum, np.sum), (r.reduce_mean, np.mean), (r.reduce_max, np.max), (r.reduce_min, np.min)]
    pairs += [(r.reduce_prod, np.prod), (r.variance, np.var)]
    for ours, theirs in pairs:
        found = apply(lambda x, ours=ours: ours(x, axes, keepdims), X)
        np.testing.assert_allclose(found, theirs(X, axis=axes, keepdims=keepdims), rtol=1e-12, atol=1e-14)


def test_argmax_counts_in_row_major_order_of_the_folded_axes():
    for ours, theirs in ((r.argmax, np.argmax), (r.argmin, np.argmin)):
        np.testing.assert_array_equal(apply(lambda x, f=ours: f(x), X), theirs(X))
        np.testing.assert_array_equal(apply(lambda x, f=ours: f(x, 1, True), X), theirs(X, 1, keepdims=True))
        rows = X.transpose(1, 0, 2).reshape(3, 8)
        np.testing.assert_array_equal(apply(lambda x, f=ours: f(x, (2, 0)), X), theirs(rows, 1))


def test_the_first_extremum_takes_the_whole_gradient():
    x = np.array([[1.0, 3.0, 3.0], [3.0, -1.0, -1.0]])
    by_max = gradients(lambda v: r.reduce_max(v, 1), np.array([1.0, 2.0]), x)[0]
    np.testing.assert_array_equal(by_max, [[0, 1, 0], [2, 0, 0]])
    by_all = gradients(r.reduce_max, np.array(5.0), x)[0]
    np.testing.assert_array_equal(by_all, [[0, 5, 0], [0, 0, 0]])
    by_min = gradients(lambda v: r.reduce_min(v, (0, 1), True), np.array([[5.0]]), x)[0]
    np.testing.assert_array_equal(by_min, [[0, 0, 0], [0, 5, 0]])


def test_nan_wins_and_the_first_one_takes_the_gradient():
    x = np.array([7.0, np.nan, 9.0, np.nan])
    for extremum, position in ((r.reduce_max, r.argmax), (r.reduce_min, r.argmin)):
        assert np.isnan(apply(extremum, x))
        assert apply(position, x) == 1
        np.testing.assert_array_equal(gradients(extremum, np.array(1.0), x)[0], [0, 1, 0, 0])


def test_infinities_and_integers_have_extrema():
    assert apply(r.reduce_max, np.full(3, -np.inf)) == -np.inf
    assert apply(r.argmax, np.full(3, -np.inf)) == 0
    assert apply(r.reduce_min, np.array([3, -(2**31)], np.int32)) == -(2**31)
    assert apply(r.reduce_max, np.array([False, True])).dtype == np.bool_


def test_extremum_gradient_over_axes_in_the_middle():
    x, d = np.random.default_rng(1).normal(size=(2, 3, 4, 2)), np.arange(4.0).reshape(2, 2) + 1
    found = gradients(lambda v: r.reduce_max(v, (1, 2)), d, x)[0]
    expected = np.where(x == x.max((1, 2), keepdims=True), d[:, None, None, :], 0)
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.0, 1.5, -2.0, 0.5]), min_size=1, max_size=9))
def test_prod_gradient_is_the_product_of_the_others_also_with_zeros(numbers):
    x = np.array(numbers)
    (found,) = gradients(r.reduce_prod, np.array(1.0), x)
    np.testing.assert_allclose(found, [np.prod(np.delete(x, i)) for i in range(len(x))])


def test_prod_is_twice_differentiable_at_zeros():
    x = np.array([0.0, 2.0, 0.0, 5.0])

    def first(v):
        from_one = gradients_of_prod(v)
        return r.reduce_sum(from_one)

    # d/dx_j of the sum over i of the products of the others
    expected = [sum(np.prod(np.delete(x, [i, j])) for i in range(4) if i != j) for j in range(4)]
    np.testing.assert_allclose(gradients(first, np.array(1.0), x)[0], expected)


def gradients_of_prod(v):
    """The gradient rule itself, as a function of the operand."""
    assert isinstance(v, GraphValue)
    result = v.builder.adopt(r.reduce_prod(v))
    return v.builder.value(differentiate(v.builder.graph, result.id, [v.id])[v.id])


def test_sums_of_integers_keep_their_type_and_wrap():
    assert apply(r.reduce_sum, np.array([200, 100], np.uint8)) == 44
    assert apply(r.reduce_sum, np.array([True, True])).dtype == np.int64
    assert apply(r.reduce_sum, np.array([2**62, 2**61])) == 2**62 + 2**61
    assert apply(r.reduce_prod, np.array([-3, 5], np.int16)) == -15


def test_float16_accumulates_in_float32():
    x = np.ones(4096, np.float16)
    assert apply(r.reduce_sum, x) == 4096
    assert apply(r.reduce_mean, np.full(4096, 60000, np.float16)) == np.float16(60000)
    assert apply(r.reduce_prod, np.array([300, 300, 1e-4, 1], np.float16)) == np.float16(9.0)


@pytest.mark.parametrize("axes", [(0,), (0, 2)])
def test_variance_is_right_at_mean_10000_and_deviation_1(axes):
    x = (np.random.default_rng(0).normal(size=(20000, 3, 2)) + 1e4).astype(np.float32)
    expected = np.var(x.astype(np.float64), axis=axes)
    np.testing.assert_allclose(apply(lambda v: r.variance(v, axes), x), expected, rtol=1e-4)
    unbiased = np.var(x.astype(np.float64), axis=axes, ddof=1)
    np.testing.assert_allclose(apply(lambda v: r.variance(v, axes, correction=1), x), unbiased, rtol=1e-4)


@pytest.mark.parametrize("correction", [0, 1, 2])
def test_variance_divides_by_the_count_less_the_correction(correction):
    found = apply(lambda v: r.variance(v, (0, 2), True, correction), X)
    np.testing.assert_allclose(found, np.var(X, axis=(0, 2), keepdims=True, ddof=correction), rtol=1e-12)


def test_nothing_to_reduce():
    x = np.zeros((2, 0))
    np.testing.assert_array_equal(apply(lambda v: r.reduce_sum(v, 1), x), [0, 0])
    np.testing.assert_array_equal(apply(lambda v: r.reduce_prod(v, 1), x), [1, 1])
    for op in (r.reduce_max, r.reduce_min, r.reduce_mean, r.argmax, r.argmin):
        with pytest.raises(ShapeError, match=r"no elements to reduce: axes \[1\] of \[2, 0\] hold none"):
            apply(lambda v, op=op: op(v, 1), x)
        assert apply(lambda v, op=op: op(v, 0), x).shape == (0,)
        assert apply(lambda v, op=op: op(v, 1), np.zeros((0, 0))).shape == (0,)
        assert apply(lambda v, op=op: op(v, 1, True), np.zeros((0, 3))).shape == (0, 1)


def test_empty_batches_have_empty_gradients():
    x, d = np.zeros((0, 3)), np.zeros(0)
    for op in (r.reduce_sum, r.reduce_mean, r.reduce_max, r.reduce_prod, r.variance):
        assert gradients(lambda v, op=op: op(v, 1), d, x)[0].shape == (0, 3)
    np.testing.assert_array_equal(gradients(lambda v: r.reduce_sum(v, 0), np.ones(3), x)[0], x)
    np.testing.assert_array_equal(gradients(lambda v: r.reduce_prod(v, 0), np.ones(3), x)[0], x)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (1, 4), (3, 1), (2, 1, 1), (1, 3, 4), (2, 3, 4)])
def test_sum_to_shape_is_the_adjoint_of_broadcasting(shape):
    d = np.random.default_rng(0).normal(size=(2, 3, 4))
    found = apply(lambda v: r.sum_to_shape(v, shape), d)
    expected = np.zeros(shape)
    index = np.broadcast_to(np.arange(expected.size).reshape(shape), d.shape)
    np.add.at(expected.reshape(-1), index.ravel(), d.ravel())
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("build", "x", "error", "message"),
    [
        (lambda v: r.reduce_sum(v, 3), X, AttributeValueError, "axis 3 is out of range for a tensor of rank 3"),
        (lambda v: r.reduce_sum(v, (0, -3)), X, AttributeValueError, "twice"),
        (lambda v: r.reduce_mean(v), np.arange(3), DTypeError, "needs floating-point elements, got i64"),
        (lambda v: r.variance(v, 0, correction=2), X, AttributeValueError, "variance of 2 elements with correction 2"),
        (lambda v: r.sum_to_shape(v, (2, 2)), X, ShapeError, r"\[2, 3, 4\] is not a broadcast of \[2, 2\]"),
    ],
)
def test_bad_input_is_explained(build, x, error, message):
    with pytest.raises(error, match=message):
        apply(build, x)
