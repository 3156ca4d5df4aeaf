"""Offsets in an arena for buffers with given sizes and lifetimes."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT = 64
"""Every buffer starts at a multiple of this many bytes: a cache line, and the widest vector register."""

LARGEST = 1000
"""How many buffers are placed by size, which takes quadratic time; the others hardly matter for the size of the arena."""


@dataclass
class Buffer:
    """A place: its size, and the first and last position in the schedule at which it is in use."""

    bytes: int
    start: int
    end: int


def pack(buffers: Sequence[Buffer]) -> tuple[list[int], int]:
    """Offsets of buffers, and the size of the arena: the smallest of three ways to pack them.

    Best fit, forwards and backwards in time; and the largest buffers first, each in the tightest gap, the many small ones
    by best fit behind them.
    """
    final = max((b.end for b in buffers), default=0)
    backwards = [Buffer(b.bytes, final - b.end, final - b.start) for b in buffers]
    return min(_best_fit(buffers), _best_fit(backwards), _by_size(buffers), key=lambda packed: packed[1])


def _by_size(buffers: Sequence[Buffer]) -> tuple[list[int], int]:
    order = sorted(range(len(buffers)), key=lambda i: (-buffers[i].bytes, i))
    small = order[LARGEST:]
    behind, rest = _best_fit([buffers[i] for i in small])
    offsets = [0] * len(buffers)
    placed: list[tuple[int, int, int, int]] = []  # start, end, offset, offset behind it
    arena = 0
    for i in order[:LARGEST]:
        buffer = buffers[i]
        size = _aligned(buffer.bytes)
        taken = sorted((low, high) for start, end, low, high in placed if start <= buffer.end and buffer.start <= end)
        offsets[i] = _tightest_gap(taken, size)
        placed.append((buffer.start, buffer.end, offsets[i], offsets[i] + size))
        arena = max(arena, offsets[i] + size)
    for i, offset in zip(small, behind, strict=True):
        offsets[i] = arena + offset
    return offsets, arena + rest


def _tightest_gap(taken: Sequence[tuple[int, int]], size: int) -> int:
    """The offset of the smallest gap between sorted ranges that holds ``size`` bytes, else behind them all."""
    end = 0
    best: tuple[int, int] | None = None
    for low, high in taken:
        if low - end >= size and (best is None or low - end < best[0]):
            best = (low - end, end)
        end = max(end, high)
    return end if best is None else best[1]


def _best_fit(buffers: Sequence[Buffer]) -> tuple[list[int], int]:
    """Walk through time; each buffer that begins takes the smallest gap it fits in, the largest buffers first."""
    offsets = [0] * len(buffers)
    free = _FreeList()
    begins: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    for i, buffer in enumerate(buffers):
        if buffer.bytes:
            begins.setdefault(buffer.start, []).append(i)
            ends.setdefault(buffer.end + 1, []).append(i)
    for time in sorted({*begins, *ends}):
        for i in ends.get(time, ()):
            free.give(offsets[i], _aligned(buffers[i].bytes))
        for i in sorted(begins.get(time, ()), key=lambda i: (-buffers[i].bytes, i)):
            offsets[i] = free.take(_aligned(buffers[i].bytes))
    return offsets, free.end


class _FreeList:
    """Gaps of the arena: by offset, to join neighbours, and by size, to find the tightest."""

    def __init__(self) -> None:
        self.end = 0  # the arena so far; beyond it everything is free
        self.starts: list[int] = []
        self.sizes: dict[int, int] = {}
        self.by_size: list[tuple[int, int]] = []

    def take(self, size: int) -> int:
        """The offset of ``size`` bytes: the tightest gap, else the last gap extended, else the end."""
        at = bisect.bisect_left(self.by_size, (size, -1))
        if at < len(self.by_size):
            gap, offset = self.by_size[at]
            self._remove(offset)
            if gap > size:
                self._insert(offset + size, gap - size)
            return offset
        offset = self.end
        if self.starts and self.starts[-1] + self.sizes[self.starts[-1]] == self.end:
            offset = self.starts[-1]
            self._remove(offset)
        self.end = offset + size
        return offset

    def give(self, offset: int, size: int) -> None:
        """Free a range, joined with the gaps around it."""
        at = bisect.bisect_left(self.starts, offset)
        if at < len(self.starts) and self.starts[at] == offset + size:
            follower = self.starts[at]
            size += self.sizes[follower]
            self._remove(follower)
        if at > 0 and self.starts[at - 1] + self.sizes[self.starts[at - 1]] == offset:
            offset = self.starts[at - 1]
            size += self.sizes[offset]
            self._remove(offset)
        self._insert(offset, size)

    def _insert(self, offset: int, size: int) -> None:
        bisect.insort(self.starts, offset)
        self.sizes[offset] = size
        bisect.insort(self.by_size, (size, offset))

    def _remove(self, offset: int) -> None:
        size = self.sizes.pop(offset)
        del self.starts[bisect.bisect_left(self.starts, offset)]
        del self.by_size[bisect.bisect_left(self.by_size, (size, offset))]


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def peak(buffers: Sequence[Buffer]) -> int:
    """The most bytes in use at one position, each buffer rounded up to whole cache lines."""
    change: dict[int, int] = {}
    for buffer in buffers:
        change[buffer.start] = change.get(buffer.start, 0) + _aligned(buffer.bytes)
        change[buffer.end + 1] = change.get(buffer.end + 1, 0) - _aligned(buffer.bytes)
    live = highest = 0
    for _, difference in sorted(change.items()):
        live += difference
        highest = max(highest, live)
    return highest
