"""Array kernels on NumPy against the ops' references: every sample, every float type, strided operands, no allocation."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import irconv.ops  # noqa: F401  registers the ops
from irconv.backends.arrays import KERNELS, Request, ViewKernel
from irconv.backends.arrays.base import Serial
from irconv.backends.numpy.parallel import Pool
from irconv.errors import IrconvError
from irconv.op import OPS, Fusion
from irconv.types import TensorType, type_of
from tests.samples import Sample

FAMILIES = (
    "concat", "contract", "conv", "custom", "elementwise", "index", "pad", "pool", "random", "reduce", "resize", "scan", "scatter",
    "shape", "sort",
)  # fmt: skip
TOLERANCE = {"f16": 4e-3, "f32": 2e-5, "f64": 1e-11}


def _samples() -> list[Sample]:
    found = []
    for family in FAMILIES:
        try:
            module = importlib.import_module(f"tests.samples.{family}")
        except ModuleNotFoundError:
            continue
        found += module.SAMPLES
    return found


SAMPLES = _samples()
POOL = Pool(2)


def execute(op: str, attributes, operands, parallel=None, strict=False, contiguous=True, prefill=np.nan):
    """Run the kernel of one op as a backend would: typed buffers, garbage in outputs and temporaries."""
    types = tuple(type_of(x) for x in operands)
    result = OPS[op].result_type(attributes, types)
    kernel = KERNELS[op](Request(np, attributes, types, result, contiguous, parallel, strict))
    if isinstance(kernel, ViewKernel):
        return np.array(kernel.view(operands[0]))
    out, *scratch = (garbage(t, prefill) for t in (result, *kernel.scratch))
    with np.errstate(all="ignore"):
        kernel.run(out, *operands, *scratch)
    return out


def garbage(t: TensorType, prefill) -> np.ndarray:
    array = np.empty(t.shape, t.dtype.numpy)
    array.fill(prefill if t.dtype.is_float else (True if t.dtype.kind == "bool" else 77))
    return array


def expected(op: str, attributes, operands) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(OPS[op].reference(attributes, *operands))


def check(actual: np.ndarray, wanted: np.ndarray, scale: float = 1.0) -> None:
    t = type_of(actual)
    assert actual.shape == wanted.shape and actual.dtype == wanted.dtype
    if not t.dtype.is_float:
        np.testing.assert_array_equal(actual, wanted)
        return
    bound = TOLERANCE[t.dtype.name] * scale
    finite = wanted[np.isfinite(wanted)].astype(np.float64)
    largest = float(np.max(np.abs(finite), initial=0.0))
    np.testing.assert_allclose(
        actual.astype(np.float64), wanted.astype(np.float64), rtol=bound, atol=bound * max(largest, 1e-3)
    )


def converted(sample: Sample, dtype: str) -> tuple[np.ndarray, ...] | None:
    """The sample's operands with floats of another type; None where the op has its type as an attribute or no floats."""
    if not any(x.dtype.kind == "f" for x in sample.operands):
        return None if dtype != "float64" else sample.operands
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
