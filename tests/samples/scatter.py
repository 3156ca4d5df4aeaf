"""Samples of scatter: every reduction, with and without repeated indices."""

from __future__ import annotations

import numpy as np

from irconv.ops.scatter import REDUCTIONS, ScatterAttributes
from tests.samples import Sample, numbers

X = numbers(2, 4, 3, low=0.5, high=3.0)
UPDATES = numbers(2, 3, 3, low=-2.5, high=3.3, seed=4)
APART = np.array([[[0, 1, 2], [3, 0, 1], [-2, 3, 0]], [[1, 1, 1], [0, 2, 3], [2, -4, 2]]])
REPEATED = np.array([[[0, 1, 2], [0, 1, 1], [-4, 3, 1]], [[1, 1, 1], [1, 2, 3], [-3, 2, 2]]])


def _rows(reduction: str) -> list[Sample]:
    along_first = ScatterAttributes(0, reduction)
    half = np.full((1, 3), 1.001, np.float16)
    return [
        Sample("scatter", (X, APART, UPDATES), ScatterAttributes(1, reduction), about=f"{reduction}, apart"),
        Sample("scatter", (X, REPEATED, UPDATES), ScatterAttributes(1, reduction), about=f"{reduction}, repeated"),
        Sample(
            "scatter",
            (X[0], np.array([[3, 0, 3]], np.uint8), UPDATES[1, :1]),
            along_first,
            about=f"{reduction}, first axis, u8 indices",
        ),
        Sample(
            "scatter",
            (X, np.zeros((2, 4, 0), np.int32), np.zeros((2, 4, 0))),
            ScatterAttributes(2, reduction),
            f"{reduction}, none",
        ),
        Sample(
            "scatter",
            (np.array([7, -3, 0]), np.array([2, 0, 2]), np.array([5, -9, 4])),
            along_first,
            about=f"{reduction}, integers",
            gradient=False,
        ),
        Sample(
            "scatter",
            (half, np.zeros((1, 3), np.int64), half),
            ScatterAttributes(1, reduction),
            about=f"{reduction}, f16",
            gradient=False,
        ),
    ]


_ONE_ZERO = np.array([0.0, 2.0, 3.0]), np.array([0, 1, 1, 2, 2]), np.array([1.5, 0.0, 2.5, 0.0, 0.0])

SAMPLES = [
    *(row for reduction in REDUCTIONS for row in _rows(reduction)),
    Sample("scatter", _ONE_ZERO, ScatterAttributes(0, "mul"), about="mul, zeros", second=False),
    Sample(
        "scatter",
        (np.array([2.0, 1.0]), np.array([0, 0]), np.array([2.0, 1.0])),
        ScatterAttributes(0, "max"),
        "ties",
        gradient=False,
    ),
    Sample(
        "scatter",
        (np.array([True, False]), np.array([0, 1]), np.array([False, True])),
        ScatterAttributes(0, "min"),
        about="bool",
        gradient=False,
    ),
]
