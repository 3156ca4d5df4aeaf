"""Convolution with the rows of the kernel stacked: the window matrix holds the taps along a row only.

The convolutions with each row of taps are one product: their weights stand below each other, [rows of taps * out_channels,
channels * taps along a row], and the window matrix [channels * taps along a row, positions] covers as many more rows of the
input as the kernel reaches.  What the rows of taps give is then added up, each as many rows further on.

Against the full window matrix there is a third as much to copy (with 3x3 taps), BLAS packs a third as much, and its product
has three times as many rows, which matters where there are few output channels.  Against Winograd's algorithm the rounding is
plain.  Measured on one AVX-512 core, batch 1, 3x3, float32, in GFLOP/s (full window matrix or Winograd's, then stacked):
32 to 32 channels at 128x128: 61, 92; 64 to 32: 62, 94; 32 to 64 at 64x64: 82, 110; 64 to 64 at 56x56: 111, 118;
128 to 128 at 28x28: 135, 135.
"""

from __future__ import annotations

import math
from typing import Any

from irconv.backends.arrays.base import Array, Parallel, Scratch, even_step, spans
from irconv.backends.arrays.columns import Band, bands, fill, plane_elements
from irconv.backends.arrays.geometry import Geometry
from irconv.backends.arrays.work import Work
from irconv.types import DType

BLOCK_BYTES = 2 * 1024 * 1024
"""Window matrix and products of a piece: they stay in, or near, a core's second-level cache."""

MAX_ROWS = 32
"""Rows of the result in a piece of one sample: more save little of what neighbours compute twice."""


def can_stack(g: Geometry, dtype: DType) -> bool:
    """Whether the rows of taps can be stacked: several of them, moving on by one row, summed in the element type."""
    plain = g.groups == 1 and g.stride[0] == 1 and g.kernel[0] > 1 and len(g.kernel) > 1
    return plain and dtype.is_float and dtype.accumulator is dtype


def stacked_rows(g: Geometry, shares: int) -> tuple[int, int, int]:
    """(samples, rows of the result) of a piece, and the further rows that its windows reach."""
    reach = g.dilation[0] * (g.kernel[0] - 1)
    row = math.prod(g.counts[1:]) * (g.channels * g.taps // g.kernel[0] + g.kernel[0] * g.out_channels) * 4
    fitting = max(1, BLOCK_BYTES // row)
    if g.counts[0] + reach <= fitting and g.batch >= shares:
        samples = max(1, min(fitting // (g.counts[0] + reach), -(-g.batch // shares)))
        return samples, g.counts[0], reach
    share = -(-g.counts[0] // max(1, -(-shares // max(1, g.batch))))
    rows = max(1, min(share, MAX_ROWS, fitting - reach))
    return 1, even_step(g.counts[0], rows, shares) if g.batch % shares else rows, reach


def stacked_work(xp: Any, g: Geometry, dtype: DType, parallel: Parallel | None, scratch: Scratch) -> Work:
    """The convolution in pieces of some rows, or of some samples."""
    threads = parallel.threads if parallel else 1
    samples, rows, reach = stacked_rows(g, parallel.shares if parallel else 1)
    plan = [
        (first, last, start, stop, _band(g, start, stop + reach))
        for start, stop in spans(g.counts[0], rows)
        for first, last in spans(g.batch, samples)
    ]
    taps, depth = g.taps // g.kernel[0], g.channels * g.taps // g.kernel[0]
    widest = max(((last - first) * band.area for first, last, _, _, band in plan), default=1)
    stacked = scratch.add(dtype, g.kernel[0], g.out_channels, g.channels, taps)
    matrix = scratch.add(dtype, threads, depth * widest)
    padded = scratch.add(dtype, threads, g.channels * samples * plane_elements(band for *_, band in plan))
    product = scratch.add(dtype, threads, g.kernel[0] * g.out_channels * widest)
    everything = tuple(slice(None) for _ in g.counts[1:])
    regions = tuple(
        (slice(first, last), slice(None), slice(start, stop), *everything) for first, last, start, stop, _ in plan
    )

    def before(x: Array, w: Array, buffers: tuple[Array, ...]) -> Array:
        rows_first = w.reshape(g.out_channels, g.channels, g.kernel[0], taps).transpose(2, 0, 1, 3)
        xp.copyto(buffers[stacked], rows_first)
        return buffers[stacked].reshape(-1, depth)

    def piece(i: int, worker: int, out: Array, x: Array, weight: Array, buffers: tuple[Array, ...]) -> None:
        first, last, start, stop, band = plan[i]
        columns = (last - first) * band.area
        windows = buffers[matrix][worker, : depth * columns]
        shaped = windows.reshape(g.channels, taps, last - first, *band.counts)
        fill(xp, shaped, x[first:last], band, spare=buffers[padded][worker])
        made = buffers[product][worker, : weight.shape[0] * columns]
        xp.matmul(weight, windows.reshape(depth, columns), out=made.reshape(-1, columns))
        sums = made.reshape(g.kernel[0], g.out_channels, last - first, *band.counts)
        rows = [sums[t, :, :, t * g.dilation[0] :][:, :, : stop - start] for t in range(g.kernel[0])]
        target = out[regions[i]].swapaxes(0, 1)
        xp.add(rows[0], rows[1], target)
        for row in rows[2:]:
            xp.add(target, row, target)

    return Work(regions, before, piece)


def _band(g: Geometry, start: int, stop: int) -> Band:
    """The windows of one row of taps, those of result rows ``start`` to ``stop``."""
    counts, kernel = (stop - start, *g.counts[1:]), (1, *g.kernel[1:])
    padding = ((g.padding[0][0] - start, g.padding[0][1]), *g.padding[1:])
    stride, dilation = (1, *g.stride[1:]), (1, *g.dilation[1:])
    (band,) = bands(g.size, counts, kernel, stride, padding, dilation, stop - start)
    return band
