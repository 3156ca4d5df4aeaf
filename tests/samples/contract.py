"""Samples of matmul, im2col and col2im."""

from __future__ import annotations

import numpy as np

from irconv.ops.contract import Col2imAttributes, Im2colAttributes
from tests.samples import Sample, numbers

MATMUL = [
    Sample("matmul", (numbers(3, 4), numbers(4, 2, seed=1)), about="matrices"),
    Sample("matmul", (numbers(2, 3, 4), numbers(2, 4, 2, seed=1)), about="batches"),
    Sample("matmul", (numbers(2, 1, 3, 2), numbers(3, 2, 2, seed=1)), about="batches broadcast"),
    Sample("matmul", (numbers(2, 2, 3), numbers(3, 2, seed=1)), about="one matrix for all batches"),
    Sample("matmul", (numbers(2, 3), numbers(2, 3, 2, seed=1)), about="one matrix on the left"),
    Sample("matmul", (numbers(1, 1), numbers(1, 1, seed=1)), about="one element"),
    Sample("matmul", (numbers(0, 3), numbers(3, 2, seed=1)), about="no rows"),
    Sample("matmul", (numbers(2, 0), numbers(0, 3)), about="nothing to sum"),
    Sample("matmul", (numbers(4, 3).T, numbers(4, 3, seed=1)[::-1]), about="strided operands"),
    Sample("matmul", (numbers(3, 9).astype("f4"), numbers(9, 4, seed=1).astype("f4")), about="f32", gradient=False),
    Sample("matmul", (numbers(2, 40).astype("f2"), numbers(40, 3, seed=1).astype("f2")), about="f16", gradient=False),
    Sample("matmul", (np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2) - 2), about="i64", gradient=False),
]

# about, shape [N, C, *S], kernel, stride, padding, dilation, groups
WINDOWS = [
    ("1-D", (2, 1, 5), (3,), (1,), ((0, 0),), (1,), 1),
    ("1-D of the band matrix", (1, 1, 5), (3,), (1,), ((1, 1),), (1,), 1),
    ("2-D", (2, 2, 4, 3), (2, 2), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    ("1x1", (2, 2, 3, 2), (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    ("stride beyond the kernel, cropped", (1, 2, 7, 8), (2, 1), (3, 2), ((0, 0), (-1, 0)), (1, 1), 1),
    ("tail of two", (1, 1, 6), (2,), (4,), ((0, 0),), (1,), 1),
    ("stride and padding", (1, 2, 5, 4), (3, 2), (2, 1), ((1, 1), (0, 1)), (1, 1), 1),
    ("padding larger than the input", (1, 1, 2, 1), (2, 3), (2, 2), ((3, 4), (4, 2)), (1, 1), 1),
    ("negative padding", (1, 2, 6), (2,), (1,), ((-2, -1),), (2,), 2),
    ("dilation and groups", (1, 4, 5, 6), (2, 2), (1, 1), ((0, 0), (0, 0)), (2, 3), 2),
    ("depthwise, stride", (2, 3, 4), (2,), (2,), ((1, 0),), (1,), 3),
    ("everything", (2, 4, 5, 4), (2, 3), (2, 1), ((1, 2), (2, -1)), (2, 1), 2),
    ("3-D", (1, 2, 3, 2, 3), (2, 1, 2), (1, 1, 2), ((0, 0), (0, 1), (1, 0)), (1, 1, 1), 1),
    ("size-1 axes", (1, 1, 1, 4), (1, 2), (5, 1), ((0, 0), (0, 0)), (3, 1), 1),
    ("batch 0", (0, 2, 4), (2,), (1,), ((1, 0),), (1,), 2),
]


def _windows_of(shape, kernel, stride, padding, dilation, groups):
    """Shape of the columns, from the definition: windows that end inside the padded input."""
    windows = 1
    for n, k, s, (before, after), d in zip(shape[2:], kernel, stride, padding, dilation, strict=True):
        windows *= len(range(0, n + before + after - d * (k - 1), s))
    return (groups, shape[0] * windows, shape[1] // groups * int(np.prod(kernel)))


def _im2col(about, shape, *window, cast="f8", gradient=True):
    return Sample("im2col", (numbers(*shape).astype(cast),), Im2colAttributes(*window), about, gradient=gradient)


def _col2im(about, shape, *window, cast="f8", gradient=True):
    attributes = Col2imAttributes(shape[0], shape[1], shape[2:], *window)
    columns = numbers(*_windows_of(shape, *window)).astype(cast)
    return Sample("col2im", (columns,), attributes, about, gradient=gradient)


IM2COL = [_im2col(*row) for row in WINDOWS]
COL2IM = [_col2im(*row) for row in WINDOWS]
_ROW = WINDOWS[6][1:]
IM2COL += [_im2col(cast, *_ROW, cast=cast, gradient=False) for cast in ("f4", "f2", "i4")]
COL2IM += [_col2im(cast, *_ROW, cast=cast, gradient=False) for cast in ("f4", "f2", "i4")]

SAMPLES = MATMUL + IM2COL + COL2IM
