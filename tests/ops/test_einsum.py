"""Einstein summation against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.errors import AttributeValueError, ShapeError
from irconv.ops.einsum import einsum
from tests.differences import central_differences
from tests.ops.evaluating import apply, gradients

EQUATIONS = [
    ("ij->ji", [(2, 3)]),
    ("ij", [(2, 3)]),
    ("ba", [(2, 3)]),
    ("ij->", [(2, 3)]),
    ("ii", [(3, 3)]),
    ("ii->i", [(3, 3)]),
    ("...ii->...i", [(2, 3, 3)]),
    ("iii->i", [(3, 3, 3)]),
    ("iji->j", [(3, 2, 3)]),
    ("i,i", [(4,), (4,)]),
    ("i,j->ij", [(2,), (3,)]),
    ("ij,jk", [(2, 3), (3, 4)]),
    ("ij,jk->ki", [(2, 3), (3, 4)]),
    ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
    ("bij, bjk -> ik", [(2, 3, 4), (2, 4, 5)]),
    ("...ij,...jk->...ik", [(2, 1, 3, 4), (5, 4, 2)]),
    ("...i,...i", [(2, 3), (3,)]),
    ("i...,i...->...", [(3, 2), (3, 2)]),
    ("abc,cd,def->abef", [(2, 3, 4), (4, 5), (5, 2, 3)]),
    ("ij,ij->ij", [(2, 3), (2, 3)]),
    ("ij,ik->jk", [(2, 3), (2, 4)]),
    ("ij,kj->", [(2, 3), (4, 3)]),
    ("ij,jk->ik", [(2, 1), (3, 4)]),
    ("aab,bc->ac", [(2, 2, 3), (3, 4)]),
    (",ij->ij", [(), (2, 3)]),
    ("i,i,i->i", [(3,), (3,), (3,)]),
]


def operands(shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in shapes]


@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS)
def test_values_and_gradients(equation, shapes):
    arrays = operands(shapes)
    expected = np.einsum(equation, *arrays)
    np.testing.assert_allclose(apply(lambda *xs: einsum(equation, *xs), *arrays), expected, atol=1e-12)
    d = np.random.default_rng(1).normal(size=expected.shape)
    found = gradients(lambda *xs: einsum(equation, *xs), d, *arrays)
    for slot in range(len(arrays)):
        wanted = central_differences(lambda *xs: float(np.sum(d * np.einsum(equation, *xs))), arrays, slot)
        np.testing.assert_allclose(found[slot], wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("equation", "shapes", "error", "message"),
    [
        ("ij,jk", [(2, 3)], AttributeValueError, "describes 2 operands, there are 1"),
        ("i1", [(2, 3)], AttributeValueError, "may hold letters"),
        ("ijk", [(2, 3)], AttributeValueError, "names 3 axes for an operand of rank 2"),
        ("i...jk", [(2, 3)], AttributeValueError, "names 3 axes for an operand of rank 2"),
        ("ij->ik", [(2, 3)], AttributeValueError, "name each letter of the operands once"),
        ("ij->ii", [(2, 3)], AttributeValueError, "name each letter of the operands once"),
        ("i...->i", [(2, 3)], AttributeValueError, "not behind it"),
        ("ij,jk", [(2, 3), (4, 5)], ShapeError, "'j' has size 3 in one place and 4 in another"),
    ],
)
def test_bad_equations_are_explained(equation, shapes, error, message):
    with pytest.raises(error, match=message):
        apply(lambda *xs: einsum(equation, *xs), *operands(shapes))
