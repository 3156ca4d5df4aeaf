"""Running sums and products against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.errors import AttributeValueError, DTypeError
from irconv.ops.scan import cumprod, cumsum
from tests.differences import central_differences
from tests.ops.evaluating import apply, gradients

shapes = st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple)


def expected(fold, start: float, x: np.ndarray, axis: int, exclusive: bool, reverse: bool) -> np.ndarray:
    """Element by element, from the definition."""
    rows = np.moveaxis(x, axis, 0)
    result = np.empty_like(rows)
    for i in range(len(rows)):
        taken = rows[i + exclusive :] if reverse else rows[: i + 1 - exclusive]
        result[i] = fold(taken, axis=0) if len(taken) else start
    return np.moveaxis(result, 0, axis)


@given(shapes, st.integers(0, 2), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_scans(shape, axis, exclusive, reverse):
    x = np.random.default_rng(0).uniform(-2, 2, shape)
    axis %= len(shape)
    found = apply(lambda v: cumsum(v, axis, exclusive, reverse), x)
    np.testing.assert_allclose(found, expected(np.sum, 0, x, axis, exclusive, reverse), atol=1e-12)
    found = apply(lambda v: cumprod(v, axis, exclusive, reverse), x)
    np.testing.assert_allclose(found, expected(np.prod, 1, x, axis, exclusive, reverse), atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
def test_the_gradient_of_products_is_right_at_zeros(exclusive, reverse):
    x = np.array([[2.0, 0.0, 3.0, -1.0], [1.5, 0.0, 0.0, 4.0]])
    d = np.random.default_rng(0).normal(size=x.shape)
    found = gradients(lambda v: cumprod(v, 1, exclusive, reverse), d, x)[0]
    wanted = central_differences(lambda v: float(np.sum(d * expected(np.prod, 1, v, 1, exclusive, reverse))), (x,), 0)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-8)


def test_integers_and_bad_input():
    np.testing.assert_array_equal(apply(lambda v: cumprod(v, 0), np.array([1, 2, 3, 4], np.int32)), [1, 2, 6, 24])
    with pytest.raises(AttributeValueError, match="axis 2 is out of range"):
        apply(lambda v: cumsum(v, 2), np.ones((2, 3)))
    with pytest.raises(DTypeError, match="needs numbers to add, got bool"):
        apply(lambda v: cumsum(v, 0), np.ones(3, bool))
