"""take, gather, scatter_add and take_adjoint against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.errors import AttributeValueError, DTypeError, IrconvError, ShapeError
from irconv.ops.index import gather, scatter_add, take, take_adjoint
from tests.ops.evaluating import apply, gradients

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4, 5))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("shape", [(), (0,), (6,), (2, 3)])
def test_take_reads_and_its_gradient_adds_back(axis, shape):
    indices = RNG.integers(-X.shape[axis], X.shape[axis], shape)
    expected = np.take(X, indices, axis)
    np.testing.assert_array_equal(apply(lambda x, i: take(x, i, axis), X, indices), expected)
    d = RNG.normal(size=expected.shape)
    back = np.zeros_like(X)
    first = axis % X.ndim
    for place in np.ndindex(*expected.shape):
        index = indices[place[first : first + indices.ndim]]
        back[(*place[:first], index, *place[first + indices.ndim :])] += d[place]
    np.testing.assert_allclose(gradients(lambda x, i: take(x, i, axis), d, X, indices)[0], back, atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2, -2])
def test_gather_reads_and_its_gradient_adds_back(axis):
    shape = tuple(7 if i == axis % 3 else n for i, n in enumerate(X.shape))
    indices = RNG.integers(-X.shape[axis], X.shape[axis], shape).astype(np.int32)
    expected = np.take_along_axis(X, indices, axis)
    np.testing.assert_array_equal(apply(lambda x, i: gather(x, i, axis), X, indices), expected)
    d = RNG.normal(size=shape)
    back = np.zeros_like(X)
    for place in np.ndindex(*shape):
        source = list(place)
        source[axis] = indices[place]
        back[tuple(source)] += d[place]
    np.testing.assert_allclose(gradients(lambda x, i: gather(x, i, axis), d, X, indices)[0], back, atol=1e-12)


def test_scatter_add_adds_where_indices_meet():
    updates, indices = np.array([[1.0, 2.0, 4.0]]), np.array([[0, 2, 0]])
    np.testing.assert_array_equal(apply(lambda u, i: scatter_add(u, i, 1, 4), updates, indices), [[5, 0, 2, 0]])
    (d,) = gradients(lambda u, i: scatter_add(u, i, 1, 4), np.array([[10.0, 20, 30, 40]]), updates, indices)
    np.testing.assert_array_equal(d, [[10, 30, 10]])


def test_float16_sums_accumulate_in_float32():
    indices = np.zeros(4000, np.int64)
    found = apply(lambda u, i: scatter_add(u, i, 0, 1), np.ones(4000, np.float16), indices)
    np.testing.assert_array_equal(found, np.array([4000], np.float16))


def test_strided_operands():
    x, indices = X[::-1, ::2, ::-2], np.array([[2, 0], [1, 1]])[:, ::-1]
    np.testing.assert_array_equal(apply(lambda v, i: take(v, i, 2), x, indices), np.take(x, indices, 2))


@pytest.mark.parametrize(
    ("build", "operands", "error", "message"),
    [
        (lambda x, i: take(x, i, 1), (X, np.array([0, 4])), IrconvError, "index 4 is out of range for axis 1 of size 4"),
        (lambda x, i: take(x, i, 1), (X, np.array([-5])), IrconvError, "index -5 is out of range"),
        (lambda x, i: take(x, i, 0), (X[:0], np.array([0])), IrconvError, "the axis is empty"),
        (lambda x, i: take(x, i, 3), (X, np.array([0])), AttributeValueError, "axis 3 is out of range"),
        (lambda x, i: take(x, i, 0), (X, np.array([0.0])), DTypeError, "indices must be integers, got f64"),
        (lambda x, i: take(x, i, 0), (X, np.array([True])), DTypeError, "indices must be integers, got bool"),
        (lambda x, i: gather(x, i, 0), (X, np.array([0])), ShapeError, r"\[1\] do not match \[3, 4, 5\] on every axis but 0"),
        (lambda x, i: gather(x, i, 0), (X[:, 0], np.array([[9] * 5])), IrconvError, "index 9 is out of range"),
        (lambda x, i: scatter_add(x, i, 0, 3), (X[0, 0], np.array([0, 1])), ShapeError, r"updates \[5\] and indices \[2\]"),
        (lambda x, i: scatter_add(x, i, 0, -1), (X[0, 0], np.arange(5)), ShapeError, "negative dimension"),
        (lambda x, i: scatter_add(x, i, 0, 3), (np.ones(2, bool), np.arange(2)), DTypeError, "needs numbers to add, got bool"),
        (lambda x, i: take_adjoint(x, i, 0, 3), (X, np.arange(2)), ShapeError, r"does not hold the shape of the indices \[2\]"),
    ],
)
def test_bad_input_is_explained(build, operands, error, message):
    with pytest.raises(error, match=message):
        apply(build, *operands)
