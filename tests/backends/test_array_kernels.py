"""Array kernels on NumPy against the ops' references: every sample, every float type, strided operands, no allocation."""

from __future__ import annotations

import numpy as np
import pytest

import irconv.ops  # noqa: F401  registers the ops
from irconv.backends.arrays import KERNELS
from irconv.backends.arrays.base import Serial
from irconv.backends.numpy.parallel import Pool
from irconv.errors import IrconvError
from irconv.op import OPS, Fusion
from tests.backends.executing import check, execute, expected
from tests.samples import Sample
from tests.samples.table import all_samples

SAMPLES = all_samples()
POOL = Pool(2)


def converted(sample: Sample, dtype: str) -> tuple[np.ndarray, ...] | None:
    """The sample's operands with floats of another type; None where the op has its type as an attribute or no floats."""
    if not any(x.dtype.kind == "f" for x in sample.operands):
        return None if dtype != "float64" else sample.operands
    with np.errstate(over="ignore"):  # float16 ends at 65504
        return tuple(x.astype(dtype) if x.dtype.kind == "f" else x for x in sample.operands)


def strided(x: np.ndarray, how: int) -> np.ndarray:
    """The same numbers behind other strides: reversed, every second element, or Fortran order."""
    if how == 0:
        return np.asarray(np.flip(np.flip(x).copy()))
    if how == 1:
        wide = np.zeros(tuple(2 * n for n in x.shape), x.dtype)
        view = wide[(*(slice(None, None, 2) for _ in x.shape), ...)]
        view[...] = x
        return view
    return np.asfortranarray(x) if x.ndim else x


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.id)
def test_samples(sample: Sample, dtype: str) -> None:
    operands = converted(sample, dtype)
    if operands is None:
        pytest.skip("no floats")
    try:
        wanted = expected(sample.op, sample.attributes, operands)
    except IrconvError:
        with pytest.raises(IrconvError):
            execute(sample.op, sample.attributes, operands)
        return
    for parallel in (None, Serial(256), POOL):
        check(execute(sample.op, sample.attributes, operands, parallel), wanted)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.id)
def test_strided_operands(sample: Sample) -> None:
    try:
        wanted = expected(sample.op, sample.attributes, sample.operands)
    except IrconvError:
        return
    for how in range(3):
        operands = tuple(strided(x, how) for x in sample.operands)
        check(execute(sample.op, sample.attributes, operands, Serial(256), contiguous=False), wanted)


def test_every_op_has_a_kernel_and_a_sample() -> None:
    ops = {name for name, op in OPS.items() if op.fusion is not Fusion.LEAF}
    assert ops == set(KERNELS)
    assert ops - {sample.op for sample in SAMPLES} <= {"attach_gradient"}
