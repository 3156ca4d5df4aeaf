"""Indexing by tuples against plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from irconv.errors import AttributeValueError, IrconvError, ShapeError
from irconv.ops.index_nd import gather_nd, scatter_nd
from tests.ops.evaluating import apply, gradients

X = np.random.default_rng(0).normal(size=(3, 4, 2, 5))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (0,)])
def test_gather_nd(k, shape):
    indices = np.random.default_rng(1).integers(-2, 2, (*shape, k))
    expected = X[tuple(np.moveaxis(indices, -1, 0))]
    np.testing.assert_array_equal(apply(gather_nd, X, indices), expected)
    d = np.random.default_rng(2).normal(size=expected.shape)
    wanted = np.zeros_like(X)
    np.add.at(wanted, tuple(np.moveaxis(indices, -1, 0)), d)
    np.testing.assert_allclose(gradients(gather_nd, d, X, indices)[0], wanted)


@pytest.mark.parametrize(("b", "k"), [(1, 1), (1, 3), (2, 1), (2, 2)])
def test_gather_nd_with_batch_axes(b, k):
    indices = np.random.default_rng(1).integers(-2, 2, (*X.shape[:b], 3, k))
    expected = np.empty((*X.shape[:b], 3, *X.shape[b + k :]))
    for place in np.ndindex(*X.shape[:b], 3):
        expected[place] = X[(*place[:b], *indices[place])]
    np.testing.assert_array_equal(apply(lambda x, i: gather_nd(x, i, b), X, indices), expected)


COMBINE = {"set": lambda old, new: new, "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


@pytest.mark.parametrize(("k", "reduction"), [*itertools.product([1, 2, 4], COMBINE)])
def test_scatter_nd(k, reduction):
    rng = np.random.default_rng(1)
    indices = rng.integers(-2, 2, (2, 3, k))
    updates = rng.normal(size=(2, 3, *X.shape[k:]))
    expected = X.copy()
    for place in np.ndindex(2, 3):
        where = tuple(indices[place])
        expected[where] = COMBINE[reduction](expected[where], updates[place])
    found = apply(lambda x, i, u: scatter_nd(x, i, u, reduction), X, indices, updates)
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("bad", [[0, 4], [3, 0], [-4, 0], [0, -5]])
def test_every_index_of_a_tuple_is_checked(bad):
    with pytest.raises(IrconvError, match="out of range"):
        apply(gather_nd, X, np.array([bad]))
    with pytest.raises(IrconvError, match="out of range"):
        apply(lambda x, i: gather_nd(x, i, 1), X, np.array([[[0, 2]], [[0, 0]], [[0, 0]]]))
    with pytest.raises(IrconvError, match="out of range"):
        apply(scatter_nd, X, np.array([bad]), np.zeros((1, 2, 5)))


def test_bad_shapes_are_explained():
    with pytest.raises(ShapeError, match="tuples of 1 to 4"):
        apply(gather_nd, X, np.zeros((2, 5), np.int64))
    with pytest.raises(AttributeValueError, match="2 batch axes"):
        apply(lambda x, i: gather_nd(x, i, 2), X, np.zeros((3, 4), np.int64))
    with pytest.raises(ShapeError, match="the first 1 axes"):
        apply(lambda x, i: gather_nd(x, i, 1), X, np.zeros((2, 1), np.int64))
    with pytest.raises(ShapeError, match=r"updates must have shape \[2, 4, 2, 5\]"):
        apply(scatter_nd, X, np.zeros((2, 1), np.int64), np.zeros((2, 4)))
