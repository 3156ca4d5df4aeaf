"""Runs one array kernel as a backend would, and compares with the op's reference."""

from __future__ import annotations

import numpy as np

from irconv.backends.arrays import KERNELS, Request, ViewKernel
from irconv.op import OPS
from irconv.types import TensorType, type_of

TOLERANCE = {"f16": 4e-3, "f32": 2e-5, "f64": 1e-11}


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
    """A buffer as a kernel finds it: every element ``prefill``, or a number that gives itself away."""
    array = np.empty(t.shape, t.dtype.numpy)
    array.fill(prefill if t.dtype.is_float else (True if t.dtype.kind == "bool" else 77))
    return array


def expected(op: str, attributes, operands) -> np.ndarray:
    """What the op's reference computes."""
    with np.errstate(all="ignore"):
        return np.asarray(OPS[op].reference(attributes, *operands))


def check(actual: np.ndarray, wanted: np.ndarray, scale: float = 1.0) -> None:
    """Same shape and type; floats within the type's tolerance times ``scale``, the rest exactly."""
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
