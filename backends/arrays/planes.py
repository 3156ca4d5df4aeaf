"""Work on [batch, channels, *spatial] cut into groups of planes that stay in cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from irconv.backends.arrays.base import Array, Parallel, Scratch, spans
from irconv.backends.arrays.work import run_pieces
from irconv.types import DType

Group = tuple[slice, slice]
"""Samples and channels."""


@dataclass(frozen=True)
class Planes:
    """How the planes are cut, and how many planes the largest group has."""

    groups: tuple[Group, ...]
    largest: int
    parallel: Parallel | None

    @property
    def threads(self) -> int:
        return self.parallel.threads if self.parallel and len(self.groups) > 1 else 1

    def temporary(self, scratch: Scratch, dtype: DType, size: tuple[int, ...]) -> int:
        """Ask for one array [samples, channels, *size] per thread."""
        return scratch.add(dtype, self.threads, self.largest * math.prod(size))

    def view(self, buffer: Array, worker: int, group: int, size: tuple[int, ...]) -> Array:
        """A thread's temporary in the shape of a group."""
        samples, channels = self.groups[group]
        shape = (samples.stop - samples.start, channels.stop - channels.start, *size)
        return buffer[worker, : math.prod(shape)].reshape(shape)

    def run(self, task: Callable[[int, int], None]) -> None:
        """Call ``task(group, worker)`` for every group."""
        run_pieces(self.parallel, task, len(self.groups))


def cut_planes(batch: int, channels: int, size: Sequence[int], itemsize: int, parallel: Parallel | None) -> Planes:
    """Groups of planes of spatial ``size`` (the larger of input and result) of the pool's block size."""
    plane = math.prod(size) * itemsize
    if parallel is None or batch * channels * plane <= parallel.block_bytes // 4:
        groups = [(slice(0, batch), slice(0, channels))] if batch else []
        return Planes(tuple(groups), batch * channels, parallel)
    wanted = max(1, min(parallel.block_bytes // max(1, plane), -(-batch * channels // parallel.threads)))
    samples = max(1, wanted // channels)
    step = min(channels, wanted)
    cut = [(slice(*s), slice(*c)) for s in spans(batch, samples) for c in spans(channels, step)]
    largest = max(((s.stop - s.start) * (c.stop - c.start) for s, c in cut), default=1)
    return Planes(tuple(cut), largest, parallel)
