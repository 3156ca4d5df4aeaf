"""Samples of top_k."""

from __future__ import annotations

import itertools

import numpy as np

from irconv.ops.sort import TopKAttributes
from tests.samples import Sample, numbers

TIES = np.array([[3, 1, 3, 2, 1], [0, 0, 0, 5, 5]])
SPECIAL = np.array([1.0, np.nan, -np.inf, np.inf, -0.0, 0.0, np.nan])

SAMPLES = [
    *(
        Sample(
            "top_k",
            (numbers(3, 4, 2),),
            TopKAttributes(axis, 2, largest),
            about=f"axis {axis}, {'largest' if largest else 'smallest'}",
        )
        for axis, largest in itertools.product(range(3), (False, True))
    ),
    Sample("top_k", (TIES,), TopKAttributes(1, 5, True), about="ties, falling"),
    Sample("top_k", (TIES.astype(np.uint8),), TopKAttributes(1, 4, False), about="ties, rising, u8"),
    Sample("top_k", (SPECIAL,), TopKAttributes(0, 7, True), about="special values, falling"),
    Sample("top_k", (SPECIAL,), TopKAttributes(0, 7, False), about="special values, rising"),
    Sample("top_k", (np.array([True, False, True]),), TopKAttributes(0, 2, True), about="bool"),
    Sample("top_k", (numbers(2, 3),), TopKAttributes(1, 0, True), about="none"),
    Sample("top_k", (np.zeros((0, 3)),), TopKAttributes(1, 1, False), about="empty batch"),
]
