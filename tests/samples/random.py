"""Samples of random_bits."""

from __future__ import annotations

import numpy as np

from irconv.ops.random import RandomBitsAttributes
from tests.samples import Sample

KEY = np.array([0xA4093822, 0x299F31D0], np.uint32)


def _row(about: str, stream: tuple[int, int], shape: tuple[int, ...], step: int = 0, key: np.ndarray = KEY) -> Sample:
    return Sample("random_bits", (key, np.array(step, np.uint64)), RandomBitsAttributes(stream, shape), about, gradient=False)


SAMPLES = [
    _row("whole blocks", (0, 0), (2, 8)),
    _row("a part of a block", (1, 2), (3,)),
    _row("three blocks and a part", (2**32 - 1, 5), (1, 13, 1)),
    _row("scalar", (7, 0), ()),
    _row("empty", (7, 0), (0, 4)),
    _row("large step", (7, 1), (5,), step=2**40 + 3),
    _row("largest step and key", (7, 2**32 - 1), (6,), step=2**64 - 1, key=np.array([2**32 - 1] * 2, np.uint32)),
]
