"""Pointwise, depthwise and pointwise convolutions as one kernel, against sums written with NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv.backends.codegen.machine import MACHINES
from irconv.backends.native.backend import NativeBackend
from irconv.backends.native.kernels import fused_layers as kernel
from irconv.passes import fused_layers
from tests.backends.handwritten import compiler_or_skip


@pytest.fixture(autouse=True)
def _small_images_too(monkeypatch):
    compiler_or_skip()
    monkeypatch.setattr(fused_layers, "LEAST_BYTES", 1)


def pointwise(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.einsum("nchw,kc->nkhw", x, w[:, :, 0, 0])


def depthwise(x: np.ndarray, w: np.ndarray, stride: int, before: int, after: int) -> np.ndarray:
    """The sum over taps of shifted, strided images."""
    taps = w.shape[2]
    wide = np.pad(x, ((0, 0), (0, 0), (before, after), (before, after)))
    rows, columns = ((n - taps) // stride + 1 for n in wide.shape[2:])
    return sum(
        wide[:, :, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride] * w[:, 0, i, j, None, None]
        for i in range(taps)
        for j in range(taps)
    )


def arrays(shape, wide: int, out: int, taps: int, dtype: str) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [shape, (wide, shape[1], 1, 1), (wide, 1, taps, taps), (out, wide, 1, 1), (wide, 1, 1)]
    return [rng.normal(size=s).astype(dtype) for s in shapes]


def executable(function, values, **backend):
    return irconv.compile(function, *values, backend=NativeBackend(strict=True, **backend))


def close(found: np.ndarray, wanted: np.ndarray) -> None:
    limit = 1e-12 if found.dtype == np.float64 else 2e-5
    assert np.abs(found - wanted).max() <= limit * np.abs(wanted).max()


CASES = [
    # shape, channels between, channels of the result, taps, stride, padding
    ((2, 16, 24, 24), 48, 16, 3, 1, 1),
    ((3, 5, 19, 23), 17, 7, 3, 2, 1),
    ((1, 33, 13, 11), 65, 19, 5, 1, 2),
    ((2, 8, 31, 29), 40, 24, 5, 2, 0),
    ((1, 3, 12, 40), 19, 33, 3, 1, 3),
]


@pytest.mark.parametrize("machine", ["avx512", "avx2", "generic"])
@pytest.mark.parametrize(("shape", "wide", "out", "taps", "stride", "padding"), CASES)
def test_an_inverted_residual_is_one_kernel(shape, wide, out, taps, stride, padding, machine):
    values = arrays(shape, wide, out, taps, "f4")

    def block(x, a, b, c, bias):
        y = F.relu6(F.conv2d(x, a) + bias)
        y = F.relu6(F.conv2d(y, b, stride=stride, padding=padding, groups=wide) * bias)
        return F.conv2d(y, c).tanh()

    exe = executable(lambda x, *rest: block(x * 2, *rest), values, machine=MACHINES[machine])
    assert [k.kind for k in exe.kernels if not k.is_view].count("fused_layers") == 1
    x, a, b, c, bias = (v.astype(np.float64) for v in values)
    wanted = np.clip(pointwise(2 * x, a) + bias, 0, 6)
    wanted = np.clip(depthwise(wanted, b, stride, padding, padding) * bias, 0, 6)
    wanted = np.tanh(pointwise(wanted, c))
    close(exe(*values), wanted)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_with_a_residual(dtype):
    values = arrays((3, 16, 21, 17), 32, 16, 3, dtype)

    def block(x, a, b, c, _):
        x = F.conv2d(x, c[:, :16]).relu()
        return x, F.conv2d(F.conv2d(F.conv2d(x, a), b, padding=1, groups=32).relu(), c) + x

    exe = executable(block, values)
    assert [k.kind for k in exe.kernels].count("fused_layers") == 1
    x, a, b, c, _ = (v.astype(np.float64) for v in values)
    x = np.maximum(pointwise(x, c[:, :16]), 0)
    close(exe(*values)[1], pointwise(np.maximum(depthwise(pointwise(x, a), b, 1, 1, 1), 0), c) + x)


@pytest.mark.parametrize("which", ["before", "behind"])
def test_two_layers(which):
    values = arrays((2, 24, 18, 20), 24, 10, 3, "f4")

    def before(x, a, b, c, bias):
        return F.conv2d((F.conv2d(x * 2, a) + bias).relu(), b, padding=1, groups=24, stride=2)

    def behind(x, a, b, c, bias):
        return F.conv2d((F.conv2d(x * 2, b, padding=1, groups=24, stride=2) + bias).relu(), c)

    exe = executable({"before": before, "behind": behind}[which], values)
    assert [k.kind for k in exe.kernels].count("fused_layers") == 1
    x, a, b, c, bias = (v.astype(np.float64) for v in values)
    wanted = {
        "before": lambda: depthwise(np.maximum(pointwise(2 * x, a) + bias, 0), b, 2, 1, 1),
        "behind": lambda: pointwise(np.maximum(depthwise(2 * x, b, 2, 1, 1) + bias, 0), c),
    }
    close(exe(*values), wanted[which]())


def test_bands_do_not_show(monkeypatch):
    """The same bits whatever the height of a band."""
    values = arrays((2, 16, 37, 19), 48, 20, 3, "f4")

    def block(x, a, b, c, bias):
        return F.conv2d(F.relu6(F.conv2d(F.relu6(F.conv2d(x * 2, a) + bias), b, padding=1, groups=48)), c)

    results = []
    for fewest in (1, 2, 5, 37):
        monkeypatch.setattr(kernel, "FEWEST_BANDS", fewest)
        results.append(executable(block, values)(*values))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_another_batch_compiles_nothing():
    values = arrays((4, 16, 24, 24), 48, 16, 3, "f4")

    def block(x, a, b, c, bias):
        return F.conv2d(F.conv2d(F.conv2d(x * 2, a) + bias, b, padding=1, groups=48), c)

    sources = set()
    for batch in (1, 2, 4):
        given = [values[0][:batch], *values[1:]]
        exe = executable(block, given)
        sources.add(exe.executable.sources[next(k.name for k in exe.kernels if k.kind == "fused_layers")].split("#include")[1])
        assert exe(*given).shape[0] == batch
    assert len(sources) == 1


def test_what_others_read_is_stored():
    values = arrays((2, 16, 24, 24), 48, 16, 3, "f4")

    def block(x, a, b, c, bias):
        y = F.conv2d(x * 2, a)
        z = F.conv2d(y, b, padding=1, groups=48)
        return F.conv2d(z, c), y, z

    assert "fused_layers" not in [k.kind for k in executable(block, values).kernels]


def test_small_images_are_left_alone(monkeypatch):
    monkeypatch.setattr(fused_layers, "LEAST_BYTES", 1 << 20)
    values = arrays((2, 16, 24, 24), 48, 16, 3, "f4")

    def block(x, a, b, c, bias):
        return F.conv2d(F.conv2d(F.conv2d(x * 2, a) + bias, b, padding=1, groups=48), c)

    assert "fused_layers" not in [k.kind for k in executable(block, values).kernels]
