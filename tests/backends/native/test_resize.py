"""Resizing and its adjoint against the references: all modes and coordinates, layouts, machines, orders of tasks."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.ops.resize_taps import ResizeAttributes
from tests.backends.executing import check
from tests.backends.native.elements import RUNNABLE, one_op, reference
from tests.samples.table import all_samples

SAMPLES = [s for s in all_samples() if s.op in ("resize", "resize_adjoint")]
FIRST, LAST = (0, 1, 2, 3), (0, 2, 3, 1)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.id)
def test_samples(sample) -> None:
    case = one_op(sample.op, sample.attributes, sample.operands)
    float16 = sample.operands[0].dtype == np.float16
    assert case.made is not None or float16
    if case.made is not None:
        (actual,) = case.run()
        check(actual, reference(sample.op, sample.attributes, sample.operands))


def stored(x: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))


@pytest.mark.parametrize("machine", RUNNABLE)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("op", ["resize", "resize_adjoint"])
def test_layouts_batches_and_tasks(op: str, mode: str, machine: str) -> None:
    """Channels first, last, and one to the other; a batch and other sizes change no source."""
    attributes = ResizeAttributes((41, 50), mode, "half_pixel", None)
    for source, target in ((FIRST, FIRST), (LAST, LAST), (LAST, FIRST)):
        sources = set()
        for batch, channels in ((1, 17), (3, 33)):
            x = np.random.default_rng(batch).standard_normal((batch, channels, 20, 25)).astype(np.float32)
            case = one_op(op, attributes, (stored(x, source),), machine, target)
            wanted = reference(op, attributes, (x,))
            first, second = case.run()[0], case.run(backwards=True)[0]
            check(first, wanted)
            assert first.tobytes() == second.tobytes()
            sources.add(case.made.source)
        assert len(sources) == 1


def test_single_elements_of_any_type() -> None:
    for dtype in (np.float16, np.int8, np.int64, np.bool_):
        x = (np.arange(2 * 3 * 5) % 7 > 2 if dtype is np.bool_ else np.arange(30)).reshape(2, 3, 5).astype(dtype)
        attributes = ResizeAttributes((7,), "nearest", "asymmetric", None)
        (actual,) = one_op("resize", attributes, (x,)).run()
        np.testing.assert_array_equal(actual, reference("resize", attributes, (x,)))


def test_an_empty_batch() -> None:
    attributes = ResizeAttributes((4, 6), "linear", "half_pixel", None)
    (actual,) = one_op("resize", attributes, (np.zeros((0, 3, 2, 2), np.float32),)).run()
    assert actual.shape == (0, 3, 4, 6)
