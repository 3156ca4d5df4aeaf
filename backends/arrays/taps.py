"""Where the taps of sliding windows read: the slices that kernels loop over instead of windows.

Along one axis, tap t of window o reads position ``o s + t d - before``.  For each tap the windows for which that lies
inside the input form one range, so a tap is a pair of slices: windows, and the positions they read.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

from irconv.ops.window import Ints, Pairs

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Tap:
    """One tap that some window reads inside the input.

    index:     row-major number of the tap in the kernel.
    place:     its coordinates in the kernel.
    windows:   which windows read inside the input with it, a slice per spatial axis.
    positions: what those windows read, a slice per spatial axis.
    whole:     whether these are all the windows.
    """

    index: int
    place: Ints
    windows: Slices
    positions: Slices
    whole: bool


def _axis_range(n: int, count: int, stride: int, offset: int, end: int) -> tuple[int, int]:
    """The windows o of ``count`` for which ``o stride + offset`` lies in ``range(min(n, end))``."""
    low = max(0, -(offset // stride))
    high = min(count, (min(n, end) - 1 - offset) // stride + 1)
    return low, max(low, high)


def window_taps(size: Ints, counts: Ints, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints) -> list[Tap]:
    """The taps of all windows of an input of spatial ``size``, without those that read nothing but padding."""
    found = []
    for index, place in enumerate(itertools.product(*map(range, kernel))):
        windows, positions = [], []
        rows = zip(size, counts, stride, padding, dilation, place, strict=True)
        for n, count, s, (before, after), d, t in rows:
            offset = t * d - before
            # negative padding crops: those elements are not there, not even for a window that hangs over
            low, high = _axis_range(n, count, s, offset, n + min(after, 0))
            if low == high:
                break
            windows.append(slice(low, high))
            first = low * s + offset
            positions.append(slice(first, first + (high - low - 1) * s + 1, s))
        else:
            whole = all(w == slice(0, count) for w, count in zip(windows, counts, strict=True))
            found.append(Tap(index, place, tuple(windows), tuple(positions), whole))
    return found


def first_taps(xp: Any, taps: list[Tap], counts: Ints, dtype: Any) -> Any:
    """For each window the number of its first tap inside the input, 0 where it has none."""
    first = xp.zeros(counts, dtype)
    for tap in reversed(taps):
        first[tap.windows] = tap.index
    return first


def tiles(taps: list[Tap], size: Ints) -> bool:
    """Whether windows that lie apart reach every position of ``size``: then each is reached exactly once."""
    reached = sum(math.prod(len(range(p.start, p.stop, p.step)) for p in tap.positions) for tap in taps)
    return reached == math.prod(size)


def overlaps(kernel: Ints, stride: Ints, dilation: Ints) -> bool:
    """Whether two windows may read the same position."""
    return any(d * (k - 1) + 1 > s for k, s, d in zip(kernel, stride, dilation, strict=True))
