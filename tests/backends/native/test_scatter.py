"""Scattered updates against loops in Python: reductions, types, axes, batches, and indices out of range."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import irconv
from irconv.errors import IrconvError
from irconv.ops.scatter import REDUCTIONS, ScatterAttributes, scatter
from tests.backends.handwritten import compiler_or_skip
from tests.backends.native.elements import RUNNABLE, one_op


@pytest.fixture(autouse=True)
def _with_compiler():
    compiler_or_skip()


def scattered(x: np.ndarray, indices: np.ndarray, updates: np.ndarray, axis: int, reduction: str) -> np.ndarray:
    """One update after the other."""
    result = x.copy()
    for place in itertools.product(*map(range, indices.shape)):
        target = (*place[:axis], indices[place], *place[axis + 1 :])
        old, new = result[target], updates[place]
        match reduction:
            case "add":
                new = old + new
            case "mul":
                new = old * new
            case "max" | "min":
                better = new > old if reduction == "max" else new < old
                new = new if better or new != new or (old == old and new == old) else old
        result[target] = new
    return result


def operands(batch: int, dtype: type, axis: int, index_dtype: type = np.int64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(batch)
    shape = (batch, 5, 37)
    picked = tuple(9 if i == axis else n for i, n in enumerate(shape))
    x, updates = (rng.integers(-3, 4, s).astype(dtype) for s in (shape, picked))
    low = 0 if np.dtype(index_dtype).kind == "u" else -shape[axis]
    return x, rng.integers(low, max(shape[axis], low + 1), picked).astype(index_dtype), updates


@pytest.mark.parametrize("machine", RUNNABLE)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_batches_share_a_source_and_tasks_do_not_matter(reduction: str, machine: str) -> None:
    sources = set()
    for batch in (1, 4, 90):
        x, indices, updates = operands(batch, np.float32, 1)
        case = one_op("scatter", ScatterAttributes(1, reduction), (x, indices, updates), machine)
        (first,), (second,) = case.run(), case.run(backwards=True)
        np.testing.assert_array_equal(first, scattered(x, indices, updates, 1, reduction))
        assert first.tobytes() == second.tobytes()
        sources.add(case.made.source)
    assert len(sources) == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", [np.float64, np.int8, np.uint16, np.int32, np.int64])
def test_axes_and_types(dtype: type, axis: int) -> None:
    for reduction in REDUCTIONS:
        given = operands(3, dtype, axis, np.uint8)
        with np.errstate(over="ignore"):
            wanted = scattered(*given, axis, reduction)
        np.testing.assert_array_equal(one_op("scatter", ScatterAttributes(axis, reduction), given).run()[0], wanted)


def test_nan_stays_the_largest_and_the_smallest() -> None:
    x = np.array([np.nan, 1, 2, 3], np.float32)
    updates = np.array([5, np.nan, -1, 9], np.float32)
    places = np.array([0, 1, 2, 3])
    for reduction, wanted in (("max", [np.nan, np.nan, 2, 9]), ("min", [np.nan, np.nan, -1, 3])):
        found = one_op("scatter", ScatterAttributes(0, reduction), (x, places, updates)).run()[0]
        np.testing.assert_array_equal(found, np.array(wanted, np.float32))


def test_a_program_refuses_indices_out_of_range_and_goes_on() -> None:
    program = irconv.compile(lambda x, at, to: scatter(x * 2.0, at, to, 0, "add") - 1.0, backend="native")
    x, updates = np.arange(4, dtype=np.float32), np.ones(2, np.float32)
    for bad in (4, -5):
        with pytest.raises(IrconvError, match=f"index {bad} is out of range for axis 0 of size 4"):
            program(x, np.array([0, bad]), updates)
    np.testing.assert_array_equal(program(x, np.array([-1, 0]), updates), [0, 1, 3, 6])
