"""Contractions in pieces: each writes a region of the result, and elementwise work may go on from there while it is in cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from irconv.backends.arrays.base import Array, ArrayKernel, Parallel, Scratch

Region = tuple[slice, ...]
Buffers = tuple[Array, ...]


TURNED_ROWS = 64
"""Rows transposed at once."""


@dataclass(frozen=True)
class Work:
    """A contraction of two operands, x and w, in pieces that may run side by side.

    regions: for each piece, what it writes of the result, as slices of all axes; together everything, and nothing twice.
    before:  ``before(x, w, buffers)`` runs first, alone, and returns the weight as the pieces want it.
    piece:   ``piece(i, worker, out, x, weight, buffers)`` computes region i.
    """

    regions: tuple[Region, ...]
    before: Callable[[Array, Array, Buffers], Array]
    piece: Callable[[int, int, Array, Array, Array, Buffers], None]


def flat_weight(xp: Any, w: Array, spare: Array) -> Array:
    """The weight as it is if contiguous and of the type that is summed in, else copied into ``spare``."""
    if w.flags.c_contiguous and w.dtype == spare.dtype:
        return w
    xp.copyto(spare, w)
    return spare


def copy_turned(xp: Any, target: Array, source: Array) -> None:
    """Copy the transpose of ``source`` [..., rows, columns], some rows at a time.

    Rows of 2 KB apart fall into the same places of a cache: 4608 by 512 takes 1.4 ms so, all at once 16.
    """
    rows = source.shape[-2]
    for start in range(0, rows, TURNED_ROWS):
        part = slice(start, start + TURNED_ROWS)
        xp.copyto(target[..., part], source[..., part, :].swapaxes(-1, -2), casting="same_kind")


def run_pieces(parallel: Parallel | None, task: Callable[[int, int], None], count: int) -> None:
    """Run ``task(index, worker)`` for every index on the pool, or in turn where there is none."""
    if parallel is not None:
        parallel.run(task, count)
        return
    for index in range(count):
        task(index, 0)


def work_kernel(work: Work, parallel: Parallel | None, scratch: Scratch) -> ArrayKernel:
    """The kernel that runs a contraction by itself."""
    count = len(work.regions)

    def run(out: Array, x: Array, w: Array, *buffers: Array) -> None:
        if out.size:
            weight = work.before(x, w, buffers)
            run_pieces(parallel, lambda i, worker: work.piece(i, worker, out, x, weight, buffers), count)

    return ArrayKernel(run, tuple(scratch.types))
