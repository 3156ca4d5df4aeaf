"""Samples of pooling, the winning taps, and the way back through them."""

from __future__ import annotations

import numpy as np

from irconv.ops.pool import AvgPoolAdjointAttributes, AvgPoolAttributes
from irconv.ops.pool_taps import PoolAttributes, WindowScatterAttributes
from tests.samples import Sample, numbers

# about, shape [N, C, *S], kernel, stride, padding, dilation, ceil_mode; then the number of windows along each axis
WINDOWS = [
    ("1-D", (2, 2, 5), (2,), (2,), ((0, 0),), (1,), False, (2,)),
    ("2-D overlapping", (2, 1, 3, 4), (2, 2), (1, 1), ((0, 0), (0, 0)), (1, 1), False, (2, 3)),
    ("1x1", (1, 2, 2, 3), (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), False, (2, 3)),
    ("stride larger than the kernel", (1, 1, 5, 7), (2, 1), (3, 4), ((0, 0), (0, 0)), (1, 1), False, (2, 2)),
    ("1x1, padding, dilation", (1, 1, 2, 2), (1, 1), (1, 1), ((0, 1), (1, 0)), (2, 3), False, (3, 3)),
    ("padding", (1, 2, 3, 3), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), False, (3, 3)),
    ("stride and padding", (1, 1, 4, 4), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), False, (2, 2)),
    ("padding larger than the window", (1, 1, 2, 3), (2, 2), (2, 1), ((3, 4), (0, 3)), (1, 1), False, (4, 5)),
    ("negative padding", (1, 1, 6, 5), (2, 2), (1, 2), ((-2, -1), (1, -1)), (1, 1), False, (2, 2)),
    ("dilation", (1, 1, 5, 6), (2, 3), (1, 1), ((0, 0), (0, 0)), (3, 2), False, (2, 2)),
    ("dilation, stride and padding", (1, 1, 6), (3,), (2,), ((1, 2),), (2,), False, (3,)),
    ("ceil", (1, 2, 5), (2,), (2,), ((0, 0),), (1,), True, (3,)),
    ("ceil drops a window in the padding", (1, 1, 3), (2,), (2,), ((1, 1),), (1,), True, (2,)),
    ("ceil and padding", (1, 1, 4, 6), (3, 3), (2, 3), ((1, 1), (1, 0)), (1, 1), True, (3, 3)),
    ("ceil and negative padding", (1, 1, 7), (2,), (2,), ((0, -2),), (1,), True, (3,)),
    ("ceil over a whole window", (1, 1, 1, 2), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), True, (1, 1)),
    ("ceil and dilation", (1, 1, 6), (2,), (2,), ((0, 0),), (2,), True, (3,)),
    ("everything", (2, 2, 5, 6), (2, 3), (3, 2), ((1, 2), (1, 1)), (2, 1), True, (2, 4)),
    ("3-D", (1, 1, 3, 2, 4), (2, 1, 2), (1, 2, 2), ((0, 0), (0, 1), (1, 1)), (1, 1, 1), False, (2, 2, 3)),
    ("size-1 axes", (1, 2, 1, 4), (1, 2), (5, 2), ((0, 0), (0, 0)), (3, 1), False, (1, 2)),
    ("batch 0", (0, 2, 4), (2,), (2,), ((0, 0),), (1,), False, (2,)),
    ("ceil drops a window in what was cropped", (1, 1, 5), (1,), (4,), ((0, -2),), (1,), True, (1,)),
    ("ceil over an input that was cropped", (1, 1, 3), (4,), (3,), ((6, -4),), (1,), True, (2,)),
]

CASTS = ("f4", "f2", "i4", "u1")


def _extremum(op: str, about, shape, *window, cast="f8", gradient=True):
    """One row of max_pool, min_pool, argmax_pool or argmin_pool."""
    values = numbers(*shape, low=0, high=200) if cast == "u1" else numbers(*shape) * (50 if cast == "i4" else 1)
    gradient = gradient and cast == "f8" and not op.startswith("arg")
    return Sample(op, (values.astype(cast),), PoolAttributes(*window[:5]), about, gradient=gradient)


def _ties(op: str, about: str, values: list[float], *window) -> Sample:
    return Sample(op, (np.array([[values]]),), PoolAttributes(*window), about, gradient=False)


INF, NAN = np.inf, np.nan
SPECIAL = [
    ("ties", [1, 1, 2, 2, 1, 1], (3,), (2,), ((1, 1),), (1,), False),
    ("lowest beside padding", [-INF, -INF, INF, INF], (2,), (1,), ((1, 1),), (1,), False),
    ("NaN", [3, NAN, NAN, 1, INF, NAN], (3,), (1,), ((0, 1),), (1,), True),
    ("padding alone", [1, 2], (2,), (2,), ((2, 2),), (1,), False),
]
POOLS = ("max_pool", "min_pool", "argmax_pool", "argmin_pool")
EXTREMA = [_extremum(op, *row) for op in POOLS for row in WINDOWS]
EXTREMA += [_extremum(op, f"everything, {cast}", *WINDOWS[17][1:], cast=cast) for op in POOLS for cast in CASTS]
EXTREMA += [_ties(op, *row) for op in POOLS for row in SPECIAL]
EXTREMA += [
    Sample(op, (numbers(1, 1, 20, 16),), PoolAttributes((17, 16), (1, 1), ((0, 0), (0, 0)), (1, 1), False), "272 taps")
    for op in ("argmax_pool", "argmin_pool")
]


def _taps(shape, kernel, counts, dtype) -> np.ndarray:
    """Tap indices of every window, some of which point into the padding."""
    count = int(np.prod(kernel))
    windows = (*shape[:2], *counts)
    return np.random.default_rng(len(windows)).integers(0, count, windows).astype(dtype)


def _scatter(about, shape, *window, cast="f8", taps="u1"):
    *window, counts = window
    d = (numbers(*shape[:2], *counts) * (50 if cast == "i4" else 1)).astype(cast)
    attributes = WindowScatterAttributes(*window, shape[2:])
    operands = (d, _taps(shape, window[0], counts, taps))
    return Sample("window_scatter", operands, attributes, about, gradient=cast == "f8")


def _gather(about, shape, *window, cast="f8", taps="u1"):
    *window, counts = window
    x = (numbers(*shape) * (50 if cast == "i4" else 1)).astype(cast)
    operands = (x, _taps(shape, window[0], counts, taps))
    return Sample("window_gather", operands, PoolAttributes(*window), about, gradient=cast == "f8")


ROUTES = [make(*row) for make in (_scatter, _gather) for row in WINDOWS]
ROUTES += [make(f"everything, {cast}", *WINDOWS[17][1:], cast=cast) for make in (_scatter, _gather) for cast in CASTS[:3]]
ROUTES += [make("i32 taps", *WINDOWS[6][1:], taps="i4") for make in (_scatter, _gather)]

# count_include_pad, divisor_override: the first two with every row of WINDOWS, the others with every third
DIVISORS = [(True, None), (False, None), (True, 3), (False, 5)]


def _average(about, shape, *window, divisor, cast="f8"):
    attributes = AvgPoolAttributes(*window[:5], *divisor)
    return Sample("avg_pool", (numbers(*shape).astype(cast),), attributes, about, gradient=cast == "f8")


def _adjoint(about, shape, *window, divisor, cast="f8"):
    *window, counts = window
    attributes = AvgPoolAdjointAttributes(*window, *divisor, shape[2:])
    d = numbers(*shape[:2], *counts).astype(cast)
    return Sample("avg_pool_adjoint", (d,), attributes, about, gradient=cast == "f8")


AVERAGES = [
    make(f"{row[0]}, {'with' if divisor[0] else 'without'} padding, divisor {divisor[1]}", *row[1:], divisor=divisor)
    for make in (_average, _adjoint)
    for index, row in enumerate(WINDOWS)
    for divisor in (DIVISORS if index % 3 == 2 else DIVISORS[:2])
]
AVERAGES += [
    make(f"everything, {cast}", *WINDOWS[17][1:], divisor=(False, None), cast=cast)
    for make in (_average, _adjoint)
    for cast in ("f4", "f2")
]

SAMPLES = EXTREMA + ROUTES + AVERAGES
