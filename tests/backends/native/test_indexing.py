"""Indexing by values: against the references, and indices out of range refused before anything is read."""

from __future__ import annotations

import numpy as np
import pytest

import irconv
from irconv.errors import IrconvError
from irconv.ops.index import GatherAttributes, ScatterAddAttributes, TakeAdjointAttributes, TakeAttributes
from irconv.tensor import Tensor
from tests.backends.executing import check
from tests.backends.native.elements import RUNNABLE, Case, one_op, reference
from tests.samples.table import all_samples

OPS = ("take", "gather", "take_adjoint", "scatter_add")
SAMPLES = [s for s in all_samples() if s.op in OPS]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.id)
def test_samples(sample) -> None:
    case = one_op(sample.op, sample.attributes, sample.operands)
    assert (case.made is None) == ("float16 sums" in sample.about)
    if case.made is not None:
        (actual,) = case.run()
        check(actual, reference(sample.op, sample.attributes, sample.operands))


def cases(batch: int, index_dtype=np.int64):
    rng = np.random.default_rng(batch)
    x = rng.standard_normal((batch, 7, 300)).astype(np.float32)
    same = rng.integers(-7, 7, (batch, 40, 300)).astype(index_dtype)
    rows = rng.integers(-7, 7, (40,)).astype(index_dtype)
    d = rng.standard_normal((batch, 40, 300)).astype(np.float32)
    return [
        ("gather", GatherAttributes(1), (x, same)),
        ("scatter_add", ScatterAddAttributes(1, 7), (d, same)),
        ("take", TakeAttributes(1), (x, rows)),
        ("take_adjoint", TakeAdjointAttributes(1, 7), (d, rows)),
    ]


@pytest.mark.parametrize("machine", RUNNABLE)
def test_batches_share_a_source_and_tasks_do_not_matter(machine: str) -> None:
    for position in range(4):
        sources = set()
        for batch in (0, 1, 3, 9):
            op, attributes, operands = cases(batch)[position]
            case = one_op(op, attributes, operands, machine)
            wanted = reference(op, attributes, operands)
            first, second = case.run()[0], case.run(backwards=True)[0]
            check(first, wanted)
            assert first.tobytes() == second.tobytes()
            sources.add(case.made.source)
        assert len(sources) == 1


@pytest.mark.parametrize("bad", [7, -8, 2**40])
def test_an_index_out_of_range_leaves_nan_and_is_refused(bad: int) -> None:
    for op, attributes, operands in cases(2):
        indices = operands[1].copy()
        indices.reshape(-1)[-1] = bad
        case = one_op(op, attributes, (operands[0], indices))
        with pytest.raises(IrconvError, match=f"index {bad} is out of range"):
            case.made.check.refuse(None, operands[0], indices)


def test_a_program_refuses_them_and_goes_on_with_good_ones() -> None:
    """In place of the row that was asked for, an error that names the line; the next call works."""

    def pick(x: Tensor, rows: Tensor) -> Tensor:
        return (x * 2.0).take(rows, 0) + 1.0

    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    program = irconv.compile(pick, x, np.array([0, 1]), backend="native")
    for rows in ([0, 3], [-1, -4]):
        np.testing.assert_array_equal(program(x, np.array(rows)), (x * 2)[rows] + 1)
    for rows in ([0, 4], [-5, 1]):
        with pytest.raises(IrconvError, match="out of range"):
            program(x, np.array(rows))
    np.testing.assert_array_equal(program(x, np.array([2, 2])), (x * 2)[[2, 2]] + 1)


def test_kept_values_do_not_name_the_case() -> None:
    """Two layers of other sizes, one source."""
    sources = set()
    for shape, axis in (((3, 5), 0), ((2, 9, 4), 1)):
        x = np.ones(shape, np.float32)
        sources.add(Case(lambda v, i, a=axis: [_take(v, i, a)], [x, np.zeros(6, np.int64)]).made.source)
    assert len(sources) == 1


def _take(x, indices, axis):
    return x.builder.emit(irconv.op.OPS["take"], TakeAttributes(axis), (x, indices))
