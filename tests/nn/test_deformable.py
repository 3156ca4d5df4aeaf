"""Deformable convolution against convolution and against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv.errors import AttributeValueError, ShapeError
from irconv.nn.functional.deformable import deform_conv
from tests.differences import central_differences

RNG = np.random.default_rng(0)


def read(image: np.ndarray, y: float, x: float) -> float:
    """An image at a place between its elements; zero outside."""
    total = 0.0
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
                total += image[i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return total


def plain(x, w, offset, bias, mask, stride, padding, dilation, groups, offset_groups):
    (batch, channels), (outputs, depth) = x.shape[:2], w.shape[:2]
    kh, kw = w.shape[2:]
    rows, columns = offset.shape[2:]
    shifts = offset.reshape(batch, offset_groups, kh, kw, 2, rows, columns)
    factors = mask.reshape(batch, offset_groups, kh, kw, rows, columns)
    result = np.zeros((batch, outputs, rows, columns)) + bias.reshape(1, -1, 1, 1)
    for n, o, c, i, j, r, s in np.ndindex(batch, outputs, depth, rows, columns, kh, kw):
        channel = o // (outputs // groups) * depth + c
        g = channel // (channels // offset_groups)
        y = i * stride - padding + r * dilation + shifts[n, g, r, s, 0, i, j]
        z = j * stride - padding + s * dilation + shifts[n, g, r, s, 1, i, j]
        result[n, o, i, j] += w[o, c, r, s] * factors[n, g, r, s, i, j] * read(x[n, channel], y, z)
    return result


CASES = [(1, 0, 1, 1, 1), (2, 1, 1, 2, 1), (1, 1, 2, 1, 2), (1, 2, 1, 2, 4)]


def operands(stride, padding, dilation, groups, offset_groups):
    x, w = RNG.normal(size=(2, 4, 5, 6)), RNG.normal(size=(4, 4 // groups, 2, 3))
    rows = (5 + 2 * padding - dilation - 1) // stride + 1
    columns = (6 + 2 * padding - 2 * dilation - 1) // stride + 1
    offset = RNG.uniform(-1.3, 1.3, (2, offset_groups * 12, rows, columns))
    return x, w, offset, RNG.normal(size=4), RNG.normal(size=(2, offset_groups * 6, rows, columns))


@pytest.mark.parametrize("case", CASES)
def test_against_loops(case):
    arrays = operands(*case)
    np.testing.assert_allclose(deform_conv(*arrays, *case).numpy(), plain(*arrays, *case), atol=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": 2, "groups": 2}])
def test_without_offsets_it_is_convolution(rank, options):
    x, w = RNG.normal(size=(2, 4, *(5, 6, 4)[:rank])), RNG.normal(size=(6, 4 // options.get("groups", 1), *(2, 3, 2)[:rank]))
    conv = getattr(F, f"conv{rank}d")
    expected = conv(x, w, **options).numpy()
    offset = np.zeros((2, math.prod(w.shape[2:]) * rank, *expected.shape[2:]))
    np.testing.assert_allclose(deform_conv(x, w, offset, **options).numpy(), expected, atol=1e-12)


def test_gradients():
    case = CASES[2]
    arrays = operands(*case)
    tensors = [irconv.tensor(a, requires_grad=True) for a in arrays]
    result = deform_conv(*tensors, *case)
    d = RNG.normal(size=result.shape)
    result.backward(irconv.tensor(d))
    for slot, tensor in enumerate(tensors):
        expected = central_differences(lambda *xs: float(np.sum(d * deform_conv(*xs, *case).numpy())), arrays, slot)
        np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_bad_input_is_explained():
    x, w = np.ones((1, 4, 5, 5)), np.ones((2, 4, 3, 3))
    with pytest.raises(ShapeError, match=r"offsets must have shape \[1, 18, 3, 3\], got \[1, 9, 3, 3\]"):
        deform_conv(x, w, np.zeros((1, 9, 3, 3)))
    with pytest.raises(AttributeValueError, match="3 groups do not divide"):
        deform_conv(x, w, np.zeros((1, 18, 3, 3)), groups=3)
    with pytest.raises(ShapeError, match="3 offset groups"):
        deform_conv(x, w, np.zeros((1, 18, 3, 3)), offset_groups=3)
