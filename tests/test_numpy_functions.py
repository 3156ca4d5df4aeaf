"""NumPy's functions and Python's operators on tensors give what they give on arrays."""

from __future__ import annotations

import operator

import numpy as np
import pytest

import irconv

WHOLE = np.array([[3, 1, 2], [0, -1, 5]])
FRACTIONS = np.array([[0.3, -0.5, 0.9], [0.1, -0.2, 0.6]])

OF_INTEGERS = {
    "sort": np.sort,
    "argsort": lambda x: np.argsort(x, axis=0),
    "cumsum of all": np.cumsum,
    "cumsum": lambda x: np.cumsum(x, axis=1),
    "cumprod": lambda x: np.cumprod(x, axis=0),
    "einsum": lambda x: np.einsum("ij,kj->ik", x, x),
    "and": lambda x: x & 3,
    "or": lambda x: 4 | x,
    "xor": lambda x: x ^ 1,
    "not": operator.invert,
    "left": lambda x: x << 2,
    "right": lambda x: x >> 1,
    "shifted": lambda x: (x * 0 + 8) >> (x * 0 + 1),
    "bitwise_xor": lambda x: np.bitwise_xor(x, x + 1),
}
OF_FRACTIONS = [np.tan, np.arcsin, np.arccos, np.arctan, np.sinh, np.cosh, np.arcsinh, np.arctanh, np.isnan, np.isinf]


@pytest.mark.parametrize("name", OF_INTEGERS)
def test_integers(name):
    function = OF_INTEGERS[name]
    np.testing.assert_array_equal(function(irconv.tensor(WHOLE)).numpy(), function(WHOLE))


@pytest.mark.parametrize("function", OF_FRACTIONS, ids=lambda f: f.__name__)
def test_fractions(function):
    np.testing.assert_allclose(function(irconv.tensor(FRACTIONS)).numpy(), function(FRACTIONS))


def test_operators_on_bools_stay_logical():
    x, y = np.array([True, True, False]), np.array([True, False, False])
    for function in (operator.and_, operator.or_, operator.xor):
        np.testing.assert_array_equal(function(irconv.tensor(x), irconv.tensor(y)).numpy(), function(x, y))
    np.testing.assert_array_equal((~irconv.tensor(x)).numpy(), ~x)
