"""Samples of cumsum."""

from __future__ import annotations

import itertools

import numpy as np

from irconv.ops.scan import CumsumAttributes
from tests.samples import Sample, numbers


def _grid() -> list[Sample]:
    rows = []
    for axis, exclusive, reverse in itertools.product(range(3), (False, True), (False, True)):
        about = f"axis {axis}{' exclusive' if exclusive else ''}{' reverse' if reverse else ''}"
        rows.append(Sample("cumsum", (numbers(2, 3, 4),), CumsumAttributes(axis, exclusive, reverse), about=about))
    return rows


SAMPLES = [
    *_grid(),
    Sample("cumsum", (numbers(2, 1),), CumsumAttributes(1, True, False), about="one element"),
    Sample("cumsum", (np.zeros((0, 3)),), CumsumAttributes(0, True, True), about="empty axis"),
    Sample("cumsum", (np.array([100, 100, 100], np.uint8),), CumsumAttributes(0, False, False), about="u8 wraps", gradient=False),
    Sample("cumsum", (np.ones(2100, np.float16),), CumsumAttributes(0, False, True), about="f16 sums in f32", gradient=False),
]
