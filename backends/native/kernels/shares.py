"""How tiles and blocks of a contraction are shared out among threads: large tasks, but none that the others wait for.

The number of threads is not known, and results must not depend on it: tasks are cut such that two and four have as much to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

THREADS = (2, 4)
"""Threads that few tasks should keep busy."""

TASK = 8_000
"""Products that take as long as beginning a task."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Tiles of an image and blocks, which tasks take some of.

    products:  of one tile for one block.
    by_pixels: neighbouring tasks have the same pixels, as far as there are several; else the same blocks.
    """

    tiles: int
    blocks: int
    groups: int
    products: int
    by_pixels: bool

    def cut(self, shares: Sequence[int], cuts: Sequence[int], least: int) -> tuple[int, int]:
        """Tiles and blocks of a task, both out of those given, such that few threads wait for the last task.

        A task has at least so many products, if it can.  Of tasks that are equally good the largest are taken.
        """
        tiles, blocks = _even(self.tiles, shares), _even(self.blocks, cuts)
        options = [(n, b) for n in tiles for b in blocks if n * b * self.products >= least]
        return min(options or [(tiles[0], blocks[0])], key=lambda each: self._wait(*each))

    def idle(self, share: int, cut: int) -> float:
        """What tasks of so many tiles and blocks take, as a multiple of what they would if they could be shared out evenly."""
        whole = self.tiles * self.blocks * self.groups * self.products
        return self._wait(share, cut) / (whole * sum(1 / threads for threads in THREADS))

    def _wait(self, share: int, cut: int) -> float:
        """The products of the busiest thread, for two and for four of them; each begins with neighbouring tasks."""
        tasks = -(-self.tiles // share) * -(-self.blocks // cut) * self.groups
        total = 0
        for threads in THREADS:
            ends = [self.before(tasks * thread // threads, share, cut) for thread in range(threads + 1)]
            busiest = max(end - start for start, end in pairwise(ends))
            total += busiest * self.products + -(-tasks // threads) * TASK
        return total

    def before(self, task: int, share: int, cut: int) -> int:
        """Tiles of one block that come before a task."""
        parts, chunks = -(-self.blocks // cut), -(-self.tiles // share)
        group, rest = task // (parts * chunks), task % (parts * chunks)
        part, chunk = (rest % parts, rest // parts) if self.by_pixels else (rest // chunks, rest % chunks)
        blocks, tiles = min(part * cut, self.blocks), min(chunk * share, self.tiles)
        if self.by_pixels:
            whole = tiles * self.blocks + min(share, self.tiles - tiles) * blocks
        else:
            whole = blocks * self.tiles + min(cut, self.blocks - blocks) * tiles
        return group * self.blocks * self.tiles + whole


def _even(total: int, shares: Sequence[int]) -> list[int]:
    """Different shares of ``total``, the largest first: each as much as there is in the largest of so many of them.

    One that is more than all stays as it is; of several only the largest.
    """
    found = {-(-total // -(-total // share)) for share in shares if share < total}
    return [max(shares)] * (max(shares) >= total) + sorted(found, reverse=True)
