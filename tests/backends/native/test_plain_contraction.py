"""Integer convolutions and matrix products, and sums of nothing, against loops in Python's own integers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import irconv
from irconv.ops.contract import matmul
from irconv.ops.conv import conv, conv_transpose
from irconv.ops.elementwise import maximum
from tests.backends.handwritten import compiler_or_skip

TYPES = [np.int8, np.uint8, np.int32, np.uint32, np.int64]


@pytest.fixture(autouse=True)
def _with_compiler():
    compiler_or_skip()


def integers(shape: tuple[int, ...], dtype: type, seed: int = 0) -> np.ndarray:
    """From the whole range, so that products wrap."""
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max, shape, dtype=dtype)


def wrapped(numbers: np.ndarray, dtype: type) -> np.ndarray:
    """Python's integers modulo 2 to the bits of a type."""
    bits = 8 * np.dtype(dtype).itemsize
    lowest = int(np.iinfo(dtype).min)
    return np.array([(int(n) - lowest) % 2**bits + lowest for n in numbers.ravel()], dtype).reshape(numbers.shape)


def convolved(x: np.ndarray, w: np.ndarray, stride: int, padding: int, groups: int) -> np.ndarray:
    """2-D, tap by tap, without limits to the size of numbers."""
    padded = np.zeros((*x.shape[:2], *(n + 2 * padding for n in x.shape[2:])), object)
    padded[:, :, padding : padding + x.shape[2], padding : padding + x.shape[3]] = x.astype(object)
    counts = [(n - k) // stride + 1 for n, k in zip(padded.shape[2:], w.shape[2:], strict=True)]
    out = np.zeros((x.shape[0], w.shape[0], *counts), object)
    width = w.shape[0] // groups
    for n, o, i, a, b in itertools.product(range(x.shape[0]), range(w.shape[0]), range(w.shape[1]), *map(range, w.shape[2:])):
        seen = padded[n, o // width * w.shape[1] + i, a : a + stride * counts[0] : stride, b : b + stride * counts[1] : stride]
        out[n, o] += seen[: counts[0], : counts[1]] * int(w[o, i, a, b])
    return out


def coded(program: irconv.Compiled) -> bool:
    """Whether all of a program is generated code."""
    exe = program.executable
    return exe.sources.keys() == {kernel.name for kernel in exe.kernels if not kernel.is_view}


@pytest.mark.parametrize("dtype", TYPES)
def test_convolution(dtype: type) -> None:
    for stride, padding, groups in ((1, 0, 1), (2, 1, 2), (1, 2, 4)):
        x, w = integers((3, 4, 6, 5), dtype), integers((8, 4 // groups, 3, 2), dtype, 1)
        program = irconv.compile(
            lambda x, w, s=stride, p=padding, g=groups: conv(x, w, stride=s, padding=p, groups=g), backend="native"
        )
        np.testing.assert_array_equal(program(x, w), wrapped(convolved(x, w, stride, padding, groups), dtype))
        assert coded(program)


@pytest.mark.parametrize("dtype", TYPES)
def test_transposed_convolution_is_the_adjoint(dtype: type) -> None:
    """The sum over y of conv(x) y is the sum over x of x conv_transpose(y), modulo the type."""
    x, w = integers((2, 4, 7, 5), dtype), integers((6, 2, 3, 3), dtype, 1)
    y = integers((2, 6, 4, 3), dtype, 2)
    forward = convolved(x, w, 2, 1, 2)
    program = irconv.compile(
        lambda y, w: conv_transpose(y, w, stride=2, padding=1, groups=2, output_size=(7, 5)), backend="native"
    )
    back = program(y, w)
    assert coded(program)
    sums = [np.sum(a.astype(object) * b.astype(object), keepdims=True) for a, b in ((forward, y), (x, back))]
    np.testing.assert_array_equal(wrapped(sums[0], dtype), wrapped(sums[1], dtype))


@pytest.mark.parametrize("dtype", TYPES)
def test_products_of_matrices(dtype: type) -> None:
    for left, right in (((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((1, 1), (1, 1))):
        a, b = integers(left, dtype), integers(right, dtype, 1)
        program = irconv.compile(matmul, backend="native")
        np.testing.assert_array_equal(program(a, b), wrapped(a.astype(object) @ b.astype(object), dtype))
        assert coded(program)


def test_what_follows_is_in_the_kernel() -> None:
    x, w, b = integers((2, 3, 4, 4), np.int32), integers((5, 3, 1, 1), np.int32, 1), integers((5, 1, 1), np.int32, 2)
    program = irconv.compile(lambda x, w, b: maximum(conv(x, w) + b, 7), backend="native")
    sums = wrapped(convolved(x, w, 1, 0, 1) + b.astype(object), np.int32)
    np.testing.assert_array_equal(program(x, w, b), np.maximum(sums, 7))
    assert "conv_epilogue" in {kernel.kind for kernel in program.kernels}
    assert coded(program)


def test_another_batch_is_the_same_code() -> None:
    w = integers((5, 3, 2, 2), np.int64, 1)
    program, sources = irconv.compile(lambda x, w: conv(x, w), backend="native"), set()
    for batch in (1, 2, 300):
        x = integers((batch, 3, 4, 4), np.int64)
        np.testing.assert_array_equal(program(x, w)[-1:], wrapped(convolved(x[-1:], w, 1, 0, 1), np.int64))
        source = program.executable.sources["conv"]
        sources.add(source[source.index("#include") :])
    assert len(sources) == 1


def test_sums_of_nothing_are_zero() -> None:
    for dtype in (np.float32, np.float64, np.float16, np.int32):
        program = irconv.compile(lambda a, b: matmul(a, b) + 1, backend="native")
        found = program(np.zeros((2, 0), dtype), np.zeros((0, 3), dtype))
        np.testing.assert_array_equal(found, np.ones((2, 3), dtype))
        assert coded(program)
