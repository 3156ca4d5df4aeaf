"""Running sums against NumPy's, to the last bit: axes, directions, types, machines, orders of tasks."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.ops.scan import CumsumAttributes
from tests.backends.native.elements import RUNNABLE, one_op, reference
from tests.samples.table import all_samples

SAMPLES = [s for s in all_samples() if s.op == "cumsum"]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.id)
def test_samples(sample) -> None:
    case = one_op("cumsum", sample.attributes, sample.operands)
    assert (case.made is None) == (sample.operands[0].dtype == np.float16)
    if case.made is not None:
        np.testing.assert_array_equal(case.run()[0], reference("cumsum", sample.attributes, sample.operands))


@pytest.mark.parametrize("machine", RUNNABLE)
@pytest.mark.parametrize(("exclusive", "reverse"), [(False, False), (True, True)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_sizes_and_tasks(axis: int, exclusive: bool, reverse: bool, machine: str) -> None:
    """The sums are NumPy's, one after the other; no size is in the source."""
    sources = set()
    for shape in ((1, 5, 17), (7, 300, 33), (129, 2, 500)):
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        case = one_op("cumsum", CumsumAttributes(axis, exclusive, reverse), (x,), machine)
        first, second = case.run()[0], case.run(backwards=True)[0]
        turned = np.flip(x, axis) if reverse else x
        sums = np.cumsum(turned, axis, dtype=np.float32)
        if exclusive:
            sums = np.concatenate([np.zeros_like(sums.take([0], axis)), sums.take(range(shape[axis] - 1), axis)], axis)
        np.testing.assert_array_equal(first, np.flip(sums, axis) if reverse else sums)
        assert first.tobytes() == second.tobytes()
        sources.add(case.made.source)
    assert len(sources) == 1


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.int64])
def test_integers_wrap(dtype: type) -> None:
    x = np.random.default_rng(1).integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (3, 40, 5)).astype(dtype)
    found = one_op("cumsum", CumsumAttributes(1, False, False), (x,)).run()[0]
    np.testing.assert_array_equal(found, np.cumsum(x, 1, dtype=dtype))


def test_special_values_and_nothing() -> None:
    x = np.array([[1, np.inf, -np.inf, 2], [-0.0, np.nan, 1, 1]], np.float32)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(one_op("cumsum", CumsumAttributes(1, False, False), (x,)).run()[0], np.cumsum(x, 1))
    empty = np.zeros((0, 3), np.float32)
    assert one_op("cumsum", CumsumAttributes(0, False, False), (empty,)).run()[0].shape == (0, 3)
