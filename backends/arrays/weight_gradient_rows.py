"""The weight gradient of a two-dimensional convolution at stride 1, with windows copied along the rows only.

Planes are laid out with zeros between rows and between samples, all rows at one pitch, so that a window moves down a row by
moving on one pitch.  Then one tap row of all windows is a stretch of x itself: x is copied once for each tap *along* a row,
[channels, taps along, positions], and every tap row is a product of a slice of that with d [positions, out], d having the same
pitch and zeros in the gaps.  A third of the copies of a 3x3 window matrix, each in one long run.

The work is cut into units, by input channels and by positions, that do not depend on the number of threads; units of
different positions are added up in order at the end.

Measured on one AVX-512 core against the whole window matrix, milliseconds: 8 samples of 64 channels of 56x56, 3x3: 22.6, 19.7;
128 of 28x28: 19.1, 16.8; 4 of 64 of 128x128 to 32: 37.2, 31.7; LeNet's 5x5, 64 samples: 1.21, 0.51 and 1.24, 0.82.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from irconv.backends.arrays.base import Array, Parallel, Scratch, spans
from irconv.backends.arrays.geometry import Geometry
from irconv.backends.arrays.work import copy_turned, run_pieces
from irconv.types import DType

UNITS = 8
"""Into how many units the work is cut, about."""

HEIGHT = 192
"""Rows of a product (channels times taps along) that make a cut by channels worth while."""

WINDOW_BYTES = 1024 * 1024
"""The copies of x for one product stay in a core's second-level cache."""

SMALL_PRODUCT, NARROW = 1_000_000, 32
"""OpenBLAS does so many multiplications at most without rearranging the matrices first: up to three times as fast where there are
fewer output channels than NARROW."""

TURNED = 16
"""From so many output channels on, d is better turned to [positions, out] first."""

WASTE, NARROW_WASTE = 1.1, 2.0
"""How many times as many positions the zeros may make."""


@dataclass(frozen=True)
class Block:
    """Samples ``first`` to ``last``, rows ``start`` to ``stop`` of d; rows ``low`` to ``high`` of x are what they read.

    plane: rows from one sample to the next.  above: rows of zeros before row ``low``.
    """

    first: int
    last: int
    start: int
    stop: int
    low: int
    high: int
    plane: int
    above: int

    @property
    def samples(self) -> int:
        return self.last - self.first

    @property
    def rows(self) -> int:
        """Rows from the first row of d to the last, with those between samples."""
        return (self.samples - 1) * self.plane + self.stop - self.start


def _plane(g: Geometry) -> tuple[int, int]:
    """Rows and columns of a sample with the zeros that it shares with the next."""
    return g.size[0] + max(g.padding[0]), g.size[1] + max(g.padding[1])


def suits_rows(g: Geometry) -> bool:
    """Whether the gradient can be computed this way, and without too many zeros."""
    if len(g.size) != 2 or g.groups != 1 or g.stride != (1, 1) or min(map(min, g.padding)) < 0 or g.kernel[1] == 1:
        return False
    reach = [d * (k - 1) for d, k in zip(g.dilation, g.kernel, strict=True)]
    if not g.batch or any(max(pair) > most for pair, most in zip(g.padding, reach, strict=True)):
        return False
    rows, pitch = _plane(g)
    return rows * pitch <= (WASTE if g.out_channels >= NARROW else NARROW_WASTE) * g.area


def _blocks(g: Geometry, height: int, itemsize: int) -> list[Block]:
    """Groups of samples, or bands of rows of large ones, for products of so many rows."""
    plane, pitch = _plane(g)
    positions = WINDOW_BYTES // (max(height, g.out_channels) * itemsize)
    if g.out_channels < NARROW:
        positions = min(positions, SMALL_PRODUCT // (height * g.out_channels))
    above, reach = g.padding[0][0], (g.kernel[0] - 1) * g.dilation[0]
    if positions >= plane * pitch:
        groups = spans(g.batch, positions // (plane * pitch))
        return [Block(first, last, 0, g.counts[0], 0, g.size[0], plane, above) for first, last in groups]
    found = []
    for n in range(g.batch):
        for start, stop in spans(g.counts[0], max(1, positions // pitch)):
            low, high = max(0, start - above), min(g.size[0], stop + reach - above)
            found.append(Block(n, n + 1, start, stop, low, high, high - low, max(0, above - start)))
    return found


def rows_gradient(
    xp: Any, g: Geometry, dtype: DType, parallel: Parallel | None, scratch: Scratch
) -> Callable[[Array, Array, Array, tuple[Array, ...]], None]:
    """``run(gradient [out, channels, *kernel], d [batch, out, *counts], x, buffers)``."""
    work = dtype.accumulator
    (down, across), (step_down, step), left = g.kernel, g.dilation, g.padding[1][0]
    pitch, out_channels = _plane(g)[1], g.out_channels
    reach = (down - 1) * step_down
    threads = parallel.threads if parallel else 1
    cut = max(1, min(UNITS, g.channels * across // HEIGHT))
    cuts = spans(g.channels, -(-g.channels // cut))
    widest = max(stop - start for start, stop in cuts)
    blocks = _blocks(g, widest * across, work.bytes)
    groups = spans(len(blocks), -(-len(blocks) // max(1, UNITS // len(cuts))))
    units = [(group, cut) for group in range(len(groups)) for cut in cuts]
    positions = max(b.rows for b in blocks) * pitch
    length = left + positions + (reach + _plane(g)[0]) * pitch + across * step
    turned = out_channels >= TURNED
    x_at = scratch.add(work, threads, widest * across * length)
    d_at = scratch.add(work, threads, max(b.samples * b.plane for b in blocks) * pitch * out_channels)
    part_at = scratch.add(work, threads, widest * across * out_channels)
    total_at = scratch.add(work, len(groups), g.channels, down, across * out_channels)

    def windows(block: Block, x: Array, space: Array) -> Array:
        """x [samples, channels, *size] as [channels, taps along, positions] for the first tap row and those below it."""
        channels, samples = x.shape[1], block.samples
        count, high = (block.rows + reach) * pitch, block.high - block.low
        first = left + block.above * pitch
        end = first + samples * block.plane * pitch
        length = max(count + (across - 1) * step, end)
        matrix = space[: channels * across * length].reshape(channels, across, length)
        flat = matrix[:, 0]
        inside = flat[:, first:end].reshape(channels, samples, block.plane, pitch)
        flat[:, :first] = 0
        flat[:, end:] = 0
        inside[:, :, high:] = 0
        inside[:, :, :high, g.size[1] :] = 0
        seen = x[block.first : block.last, :, block.low : block.high].swapaxes(0, 1)
        xp.copyto(inside[:, :, :high, : g.size[1]], seen)
        for tap in range(1, across):
            xp.copyto(matrix[:, tap, :count], flat[:, tap * step : tap * step + count])
        return matrix.reshape(channels * across, length)

    def spread(block: Block, d: Array, space: Array) -> Array:
        """d as [positions, out], with zeros where the gaps are."""
        samples, rows, width = block.samples, block.stop - block.start, g.counts[1]
        flat = space[: samples * block.plane * pitch * out_channels]
        if turned:
            matrix = flat.reshape(-1, out_channels)
            planes = flat.reshape(samples, block.plane, pitch, out_channels)
        else:
            matrix = flat.reshape(out_channels, -1).T
            planes = flat.reshape(out_channels, samples, block.plane, pitch).transpose(1, 2, 3, 0)
        seen = d[block.first : block.last, :, block.start : block.stop].transpose(0, 2, 3, 1)
        xp.copyto(planes[:, :rows, :width], seen)
        planes[:, :rows, width:] = 0
        planes[:, rows:] = 0
        return matrix[: block.rows * pitch]

    def run(gradient: Array, d: Array, x: Array, buffers: tuple[Array, ...]) -> None:
        totals = buffers[total_at]

        def task(i: int, worker: int) -> None:
            group, (start, stop) = units[i]
            space, spare, part = (buffers[at][worker] for at in (x_at, d_at, part_at))
            part = part[: (stop - start) * across * out_channels].reshape(-1, out_channels)
            product = part.reshape(stop - start, across * out_channels)
            total = totals[group, start:stop]
            first, last = groups[group]
            for number in range(first, last):
                block = blocks[number]
                matrix = windows(block, x[:, start:stop], space)
                right = spread(block, d, spare)
                for tap in range(down):
                    below = tap * step_down * pitch
                    xp.matmul(matrix[:, below : below + len(right)], right, out=part)
                    if number > first:
                        xp.add(total[:, tap], product, total[:, tap])
                    else:
                        xp.copyto(total[:, tap], product)

        run_pieces(parallel, task, len(units))
        for group in range(1, len(groups)):
            xp.add(totals[0], totals[group], totals[0])
        copy_turned(xp, gradient.reshape(out_channels, -1), totals[0].reshape(-1, out_channels))

    return run
