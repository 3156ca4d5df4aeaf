"""Views, slices, embed, slice_update, concat, stack and split against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.builder import Builder
from irconv.errors import AttributeValueError, DTypeError, ShapeError
from irconv.graph import Graph
from irconv.ops import concat as c
from irconv.ops import shape as s
from irconv.types import type_of
from tests.ops.evaluating import apply, gradients

X = np.arange(24.0).reshape(2, 3, 4)


def traced(array: np.ndarray):
    return Builder(Graph()).input("x", type_of(array))


def test_reshape_works_out_minus_one():
    assert apply(lambda x: s.reshape(x, (4, -1)), X).shape == (4, 6)
    assert apply(lambda x: s.reshape(x, -1), X).shape == (24,)
    assert apply(lambda x: s.reshape(x, np.array([6, 4])), X).shape == (6, 4)
    assert apply(lambda x: s.reshape(x, (-1, 3)), np.zeros((0, 3))).shape == (0, 3)


def test_constructors_return_their_operand_where_there_is_nothing_to_do():
    x = traced(X)
    assert s.reshape(x, (2, -1, 4)) is x
    assert s.transpose(x, (0, 1, -1)) is x
    assert s.broadcast(x, (2, 3, 4)) is x
    assert s.slice_(x, (0, 0, 0), (2, 9, None)) is x
    assert s.flip(x, ()) is x
    assert c.concat([x], 1) is x


@pytest.mark.parametrize("axes", [None, (2, 0, 1), (-1, 0, -2), (0, 2, 1)])
def test_transpose(axes):
    np.testing.assert_array_equal(apply(lambda x: s.transpose(x, axes), X), np.transpose(X, axes))
    d = np.random.default_rng(0).normal(size=np.transpose(X, axes).shape)
    (found,) = gradients(lambda x: s.transpose(x, axes), d, X)
    np.testing.assert_array_equal(np.transpose(found, axes), d)


def test_broadcast_gradient_sums_what_was_repeated():
    d = np.random.default_rng(0).normal(size=(2, 3, 4))
    (found,) = gradients(lambda x: s.broadcast(x, (2, 3, 4)), d, np.ones((3, 1)))
    np.testing.assert_allclose(found, d.sum((0, 2))[:, None])


def test_squeeze_expand_and_flatten():
    x = np.zeros((1, 3, 1, 2))
    assert apply(s.squeeze, x).shape == (3, 2)
    assert apply(lambda v: s.squeeze(v, -2), x).shape == (1, 3, 2)
    assert apply(lambda v: s.expand_dims(v, (0, -1)), x).shape == (1, 1, 3, 1, 2, 1)
    assert apply(s.flatten, x).shape == (1, 6)
    assert apply(lambda v: s.flatten(v, 1, 2), x).shape == (1, 3, 2)
    assert apply(lambda v: s.flatten(v, 0), np.array(1.0)).shape == (1,)


def bounds(n):
    """Python slice bounds, also negative and beyond the size."""
    edge = st.one_of(st.none(), st.integers(-n - 2, n + 2))
    return st.tuples(edge, edge, st.integers(1, 4))


@settings(max_examples=60, deadline=None)
@given(st.tuples(bounds(2), bounds(3), bounds(4)))
def test_slices_mean_what_they_mean_in_python(spans):
    start, stop, step = zip(*spans, strict=True)
    index = tuple(slice(*span) for span in spans)
    expected = X[index]
    np.testing.assert_array_equal(apply(lambda x: s.slice_(x, start, stop, step), X), expected)
    scattered = np.zeros_like(X)
    scattered[index] = expected
    (found,) = gradients(lambda x: s.slice_(x, start, stop, step), expected, X)
    np.testing.assert_array_equal(found, scattered)


def test_equal_slices_have_equal_attributes():
    x = traced(X)
    first = s.slice_(x, (0, 0, 0), (2, 3, 3), (1, 2, 2))
    second = s.slice_(x, (None, -3, 0), (None, 4, 4), (1, 2, 2))
    assert first.node.attributes == second.node.attributes


def test_embed_undoes_slice():
    d = np.arange(6.0).reshape(2, 3)
    expected = np.zeros((4, 8))
    expected[1::2, 0:5:2] = d
    np.testing.assert_array_equal(apply(lambda v: s.embed(v, (1, 0), (2, 2), (4, 8)), d), expected)


def test_slice_update_writes_and_splits_the_gradient():
    v, d = -np.ones((1, 2, 2)), np.random.default_rng(0).normal(size=X.shape)
    expected = X.copy()
    expected[1:2, 1:3, 0:4:2] = v

    def update(x, y):
        return s.slice_update(x, y, (1, 1, 0), (1, 1, 2))

    np.testing.assert_array_equal(apply(update, X, v), expected)
    dx, dv = gradients(update, d, X, v)
    np.testing.assert_array_equal(dv, d[1:2, 1:3, 0:4:2])
    kept = d.copy()
    kept[1:2, 1:3, 0:4:2] = 0
    np.testing.assert_array_equal(dx, kept)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_concat_stack_and_split(axis):
    y = X + 100
    np.testing.assert_array_equal(apply(lambda a, b: c.concat([a, b, a], axis), X, y), np.concatenate([X, y, X], axis))
    np.testing.assert_array_equal(apply(lambda a, b: c.stack([a, b], axis), X, y), np.stack([X, y], axis))
    joined = np.concatenate([X, y], axis)
    for i, part in enumerate((X, y)):
        np.testing.assert_array_equal(apply(lambda v, i=i: c.split(v, 2, axis)[i], joined), part)
    d = np.random.default_rng(0).normal(size=joined.shape)
    for found, part in zip(gradients(lambda a, b: c.concat([a, b], axis), d, X, y), np.split(d, 2, axis), strict=True):
        np.testing.assert_array_equal(found, part)


def test_split_by_sizes():
    parts = [apply(lambda v, i=i: c.split(v, (1, 0, 3), 2)[i], X) for i in range(3)]
    for found, expected in zip(parts, np.split(X, (1, 1), 2), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_flip():
    np.testing.assert_array_equal(apply(lambda x: s.flip(x, (-1, 0)), X), X[::-1, :, ::-1])
    np.testing.assert_array_equal(apply(s.flip, X), X[::-1, ::-1, ::-1])


def test_views_of_strided_and_size_one_axes():
    x = np.lib.stride_tricks.as_strided(np.arange(6.0), (1, 3), (9999, 16))
    np.testing.assert_array_equal(apply(lambda v: s.reshape(v, 3), x), [0, 2, 4])
    np.testing.assert_array_equal(apply(lambda v: s.transpose(v), x), [[0], [2], [4]])


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda x: s.reshape(x, (5, 5)), ShapeError, r"\[2, 3, 4\] \(24 elements\) to \[5, 5\] \(25 elements\)"),
        (lambda x: s.reshape(x, (-1, 5)), ShapeError, r"24 elements\) to \[-1, 5\]"),
        (lambda x: s.reshape(x, (-1, -1)), ShapeError, "only one dimension may be -1"),
        (lambda x: s.reshape(x, (1.5, 2)), AttributeValueError, "shape must be an integer or a sequence of integers"),
        (lambda x: s.transpose(x, (0, 1)), ShapeError, r"axes \[0, 1\] do not name each axis"),
        (lambda x: s.transpose(x, (0, 0, 1)), AttributeValueError, "twice"),
        (lambda x: s.transpose(x, (0, 1, 3)), AttributeValueError, "axis 3 is out of range for a tensor of rank 3"),
        (lambda x: s.broadcast(x, (2, 3, 5)), ShapeError, r"cannot broadcast \[2, 3, 4\] to \[2, 3, 5\]"),
        (lambda x: s.broadcast(x, (4,)), ShapeError, r"cannot broadcast \[2, 3, 4\] to \[4\]"),
        (lambda x: s.squeeze(x, 1), ShapeError, "its size is 3, not 1"),
        (lambda x: s.flatten(x, 2, 1), AttributeValueError, "lies behind"),
        (lambda x: s.slice_(x, (0,), (1,)), ShapeError, "needs 3 bounds"),
        (lambda x: s.slice_(x, (0, 0, 0), (1, 1, 1), (1, 0, 1)), AttributeValueError, "must be positive"),
        (lambda x: s.embed(x, (0, 0, 2), (1, 1, 1), (2, 3, 5)), ShapeError, "4 elements from 2 by steps of 1 do not fit axis 2"),
        (lambda x: s.slice_update(x, x, (0, 1, 0)), ShapeError, "3 elements from 1 by steps of 1 do not fit axis 1"),
        (lambda x: c.split(x, 2, 1), AttributeValueError, "does not split into 2 equal sections"),
        (lambda x: c.split(x, (1, 1), 1), AttributeValueError, r"sizes \[1, 1\] do not add up to the 3"),
        (lambda x: c.concat([], 0), ShapeError, "at least one"),
        (lambda x: c.concat([x, s.transpose(x)], 0), ShapeError, r"\[2, 3, 4\] with \[4, 3, 2\] along axis 0"),
        (lambda x: c.stack([x, s.flatten(x)], 0), ShapeError, "stack needs equal shapes"),
        (lambda x: s.flip(x, 7), AttributeValueError, "axis 7 is out of range"),
    ],
)
def test_bad_input_is_explained(build, error, message):
    with pytest.raises(error, match=message):
        build(traced(X))


def test_element_types_must_agree():
    with pytest.raises(DTypeError, match="cannot concatenate f64 with f32"):
        apply(lambda a, b: c.concat([a, b]), X, X.astype(np.float32))
    with pytest.raises(DTypeError, match="cannot write f32 elements into a tensor of f64"):
        apply(lambda a, b: s.slice_update(a, b, (0, 0, 0)), X, X.astype(np.float32))
