"""Strides of views worked out in advance, against NumPy's."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.builder import Builder
from irconv.graph import Graph
from irconv.interpret import evaluate
from irconv.ops.elementwise import relu
from irconv.ops.shape import broadcast, flip, reshape, slice_, transpose
from irconv.strides import covers, is_contiguous, reshape_strides, row_major, value_strides
from irconv.types import tensor_type


def _shapes_of(size: int):
    """Factorisations of a size, with ones strewn in."""
    twelve = [(12,), (3, 4), (2, 6), (2, 1, 2, 3), (1, 12, 1), (4, 3), (2, 2, 3)]
    return {12: twelve, 1: [(), (1,), (1, 1)], 0: [(0, 3), (2, 0)]}[size]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_reshapes_that_numpy_does_without_copying(data):
    size = data.draw(st.sampled_from([12, 12, 12, 1, 0]))
    array = np.arange(size).reshape(data.draw(st.sampled_from(_shapes_of(size))))
    array = array.transpose(data.draw(st.permutations(range(array.ndim))))
    if array.ndim and data.draw(st.booleans()):
        array = array[::-1]
    target = data.draw(st.sampled_from(_shapes_of(size)))
    found = reshape_strides(array.shape, tuple(s // array.itemsize for s in array.strides), target)
    view = np.reshape(array, target)
    assert (found is not None) == (np.shares_memory(view, array) or size == 0)
    if found is not None and size:
        wanted = tuple(s // array.itemsize for s in view.strides)
        assert all(n == 1 or a == b for n, a, b in zip(target, found, wanted, strict=True))


def test_chains_of_views_have_numpys_strides():
    graph = Graph()
    x = Builder(graph).input("x", tensor_type("f32", (4, 6)))
    y = relu(x)
    values = [y, transpose(y), flip(y, (1,)), slice_(y, (1, 0), (4, 6), (2, 3)), broadcast(y, (2, 4, 6))]
    values += [slice_(transpose(flip(y)), (0, 1), (6, 4)), reshape(flip(y, (0,)), (4, 2, 3))]
    values.append(broadcast(slice_(y, (0, 0), (4, 1)), (4, 5)))
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    results = evaluate(graph, {x.id: array})
    for value in values:
        strides, is_view = value_strides(graph)[value.id]
        assert is_view == (value is not y)
        shown = results[value.id]
        assert is_contiguous(value.shape, strides) == shown.flags.c_contiguous
        assert all(n == 1 or 4 * s == t for n, s, t in zip(value.shape, strides, shown.strides, strict=True))


def test_contiguity():
    assert row_major((2, 3, 4)) == (12, 4, 1)
    assert is_contiguous((2, 1, 4), (4, 99, 1))
    assert is_contiguous((0, 4), (7, 7))
    assert not is_contiguous((2, 3), (1, 2))
    assert covers(tensor_type("f32", (6,)), (1,), tensor_type("f32", (2, 3)))
    assert not covers(tensor_type("f32", (3,)), (1,), tensor_type("f32", (2, 3)))
