"""Kernels of indices, sorting, integers and float16 under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import optim, random
from irconv.ops.conv import conv
from irconv.ops.scan import cumsum
from irconv.ops.scatter import REDUCTIONS, scatter
from irconv.ops.sort import top_k_indices
from tests.backends.native.sanitized import build_sanitized, check_sanitized, run_program, save_arrays
from tests.backends.native.test_depthwise_backward import Residual
from tests.backends.native.test_sanitizers import _sanitizers  # noqa: F401  a fixture that skips where there are none


def indexing(x, at, updates):
    found = {reduction: scatter(x, at, updates, 1, reduction) for reduction in REDUCTIONS}
    return found | {f"top{k}_{largest}": top_k_indices(x, k, 1, largest) for k in (1, 7, 13) for largest in (False, True)}


@pytest.mark.parametrize("machine", ["avx512", "avx2", "generic"])
def test_indices_and_sorting(machine, tmp_path):
    rng = np.random.default_rng(0)
    x, updates = (rng.standard_normal((3, n, 5)).astype(np.float32) for n in (13, 9))
    arrays = [x, rng.integers(-13, 13, (3, 9, 5)), updates]
    check_sanitized(irconv.trace(indexing, *arrays), arrays, machine, tmp_path)


@pytest.mark.parametrize("machine", ["avx512", "generic"])
def test_integers(machine, tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-9, 9, shape).astype(np.int32) for shape in ((2, 4, 5, 7), (6, 2, 3, 3))]

    def program(x, w):
        y = conv(x, w, stride=2, padding=1, groups=2)
        return y, y.reshape((2, 6, -1)) @ y.reshape((2, 6, -1)).transpose((0, 2, 1))

    check_sanitized(irconv.trace(program, *arrays), arrays, machine, tmp_path)


@pytest.mark.parametrize("machine", ["avx512", "avx2", "generic"])
def test_float16(machine, tmp_path):
    rng = np.random.default_rng(0)
    arrays = [(rng.standard_normal(shape) / 4).astype(np.float16) for shape in ((2, 3, 9, 7), (17, 3, 3, 3), (17,))]

    def program(x, w, b):
        y = F.conv2d(x, w, b, padding=1).relu()
        return F.max_pool2d(y, 2), cumsum(y, 1), y.mean((0, 2, 3))

    compiled = irconv.compile(irconv.trace(program, *arrays), backend="numpy")
    _, built = build_sanitized(compiled, machine, tmp_path)
    names = [f"{number}.out.npy" for number in range(3)]
    done = run_program(built, *(word for name in names for word in ("-o", name)), *save_arrays(arrays, tmp_path))
    assert done.returncode == 0, (done.stdout[-500:], done.stderr[:6000])
    for name, wanted in zip(names, compiled(*arrays), strict=True):
        np.testing.assert_allclose(np.load(tmp_path / name), wanted, rtol=5e-3, atol=5e-3, err_msg=name)


@pytest.mark.parametrize("machine", ["avx512", "avx2", "generic"])
@pytest.mark.parametrize("kernel, stride", [(3, 1), (5, 2)])
def test_both_gradients_of_depthwise_convolutions(kernel, stride, machine, tmp_path):
    random.manual_seed(1)
    model = Residual(37, kernel, stride)
    x, target = np.random.default_rng(0).standard_normal((3, 3, 21, 27)).astype(np.float32), np.array([0, 4, 3])
    step = irconv.compile_step(model, F.cross_entropy, optim.SGD(model.parameters(), lr=0.01), x, target, backend="numpy")
    _, program = build_sanitized(step, machine, tmp_path)
    assert any("depthwise_backward_total(" in file.read_text() for file in tmp_path.rglob("*.c"))
    done = run_program(program, "-n", "2", *save_arrays((x, target), tmp_path))
    assert done.returncode == 0, (done.stdout, done.stderr[:6000])
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines()[:2]]
    np.testing.assert_allclose(losses, [float(step(x, target)) for _ in range(2)], rtol=1e-4)
