"""Padding that is computed and the adjoints of padding against the references: modes, layouts, machines, orders of tasks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.ops.pad import PadAdjointAttributes, PadAttributes
from tests.backends.executing import check
from tests.backends.native.elements import RUNNABLE, one_op, reference
from tests.samples.table import all_samples

SAMPLES = [s for s in all_samples() if s.op == "pad_adjoint" or s.id.startswith("pad:mean")]
MODES = ("edge", "reflect", "wrap", "mean")
FIRST, LAST = (0, 1, 2, 3), (0, 2, 3, 1)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.id)
def test_samples(sample) -> None:
    case = one_op(sample.op, sample.attributes, sample.operands)
    rare = sample.operands[0].dtype.kind != "f" or sample.operands[0].dtype == np.float16
    assert (case.made is None) == rare
    if case.made is not None:
        check(case.run()[0], reference(sample.op, sample.attributes, sample.operands))


def stored(x: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))


@pytest.mark.parametrize("machine", RUNNABLE)
@pytest.mark.parametrize("mode", MODES)
def test_layouts_batches_and_tasks(mode: str, machine: str) -> None:
    """Channels first, last, and one to the other; a batch and other sizes change no source."""
    attributes = PadAdjointAttributes(((0, 0), (0, 0), (2, 3), (4, 1)), mode)
    for source, target in ((FIRST, FIRST), (LAST, LAST), (LAST, FIRST)):
        sources = set()
        for batch, channels in ((1, 17), (3, 33)):
            x = np.random.default_rng(batch).standard_normal((batch, channels, 25, 31)).astype(np.float32)
            case = one_op("pad_adjoint", attributes, (stored(x, source),), machine, target)
            first, second = case.run()[0], case.run(backwards=True)[0]
            check(first, reference("pad_adjoint", attributes, (x,)))
            assert first.tobytes() == second.tobytes()
            sources.add(case.made.source)
        assert len(sources) == 1


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(MODES),
    st.lists(st.tuples(st.integers(1, 7), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=3),
)
def test_the_adjoint_is_that_of_padding(mode: str, axes: list[tuple[int, int, int]]) -> None:
    """<pad(x), d> = <x, adjoint(d)>, both by generated code, where padding moves or computes."""
    shape, padding = tuple(n for n, _, _ in axes), tuple((a, b) for _, a, b in axes)
    generator = np.random.default_rng(0)
    x, d = generator.standard_normal(shape), generator.standard_normal([n + a + b for n, a, b in axes])
    padded = one_op("pad", PadAttributes(padding, mode, 0.0), (x,)).run()[0]
    folded = one_op("pad_adjoint", PadAdjointAttributes(padding, mode), (d,)).run()[0]
    scale = np.abs(padded).sum() * np.abs(d).max()
    assert (padded * d).sum() == pytest.approx((x * folded).sum(), abs=1e-13 * scale)
