"""Sorted places against Python's sort, which is stable: axes, lengths, ties, NaN, batches, orders of tasks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from irconv.ops.sort import TopKAttributes
from tests.backends.handwritten import compiler_or_skip
from tests.backends.native.elements import RUNNABLE, one_op


@pytest.fixture(autouse=True)
def _with_compiler():
    compiler_or_skip()


def best(x: np.ndarray, k: int, axis: int, largest: bool) -> np.ndarray:
    """Row by row, NaN as the largest number."""
    rows = np.moveaxis(x, axis, -1)
    found = np.zeros((*rows.shape[:-1], k), np.int64)
    for place in itertools.product(*map(range, rows.shape[:-1])):
        row = rows[place].tolist()
        sign = -1 if largest else 1
        order = sorted(range(len(row)), key=lambda i: (sign * (row[i] != row[i]), 0 if row[i] != row[i] else sign * row[i]))
        found[place] = order[:k]
    return np.moveaxis(found, -1, axis)


def values(shape: tuple[int, ...], dtype: type, spread: int) -> np.ndarray:
    """Few different numbers, so that many are equal, and some NaN among floats."""
    rng = np.random.default_rng(spread)
    x = rng.integers(0, spread, shape).astype(dtype)
    if x.dtype.kind == "f":
        x[rng.random(shape) < 0.1] = np.nan
    return x


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.uint8, np.bool_])
def test_axes_and_types(dtype: type, axis: int, largest: bool) -> None:
    x = values((6, 7, 5), dtype, 2 if dtype is np.bool_ else 4)
    for k in range(x.shape[axis] + 1):
        (found,) = one_op("top_k", TopKAttributes(axis, k, largest), (x,)).run()
        np.testing.assert_array_equal(found, best(x, k, axis, largest))


@pytest.mark.parametrize("machine", RUNNABLE)
def test_lengths_share_a_source_and_tasks_do_not_matter(machine: str) -> None:
    sources = set()
    for batch, length, k in ((1, 1, 1), (40, 2, 1), (3, 1000, 5), (2, 1023, 1023), (70, 65, 64), (0, 4, 2)):
        x = values((batch, length), np.float32, 50)
        case = one_op("top_k", TopKAttributes(1, k, True), (x,), machine)
        (first,), (second,) = case.run(), case.run(backwards=True)
        np.testing.assert_array_equal(first, best(x, k, 1, True))
        assert first.tobytes() == second.tobytes()
        sources.add(case.made.source)
    assert len(sources) == 1


def test_infinities_and_zeros() -> None:
    x = np.array([0.0, -np.inf, np.nan, -0.0, np.inf, np.nan, 1.0])
    for largest, wanted in ((True, [2, 5, 4, 6, 0, 3, 1]), (False, [1, 0, 3, 6, 4, 2, 5])):
        (found,) = one_op("top_k", TopKAttributes(0, 7, largest), (x,)).run()
        assert found.tolist() == wanted
