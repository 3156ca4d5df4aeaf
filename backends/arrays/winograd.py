"""3x3 convolution at stride 1 with a third of the multiplications: Winograd's F(4,3) down the rows times F(2,3) along them.

A tile is 4 rows by 2 columns of the result.  Its 6x4 inputs are combined into 24 numbers, the weights into 24 matrices once
per call; 24 products [out, channels] x [channels, tiles] replace one with nine times the depth, and 24 numbers are combined
into the 8 results:  Y = A4' [ (G4 w G2') * (B4' x B2) ] A2.  With the tiles at the edges that is 3.3 to 5 multiplications
per result and channel instead of 9.

The input is split into planes by (row mod 4, column mod 2), padding included, so that every step of a transform is one
operation on whole contiguous planes: a neighbouring tile is a shift.  The last row and column of a plane hold no tile; what
is computed there is never read.

Measured on one AVX-512 core: 1.15 to 1.25 times as fast as the window matrix with 64 to 256 channels.  NumPy's additions, not
the products, are what bounds it; with 32 channels they eat up the gain.

Rounding: the largest error stays below 1e-5 times the largest of (|x| convolved with |w|) for float32 (measured: 5e-7), against
3e-7 for the plain product.  A strict request does not come here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv.backends.arrays.base import Array, Parallel, Scratch, even_step, spans
from irconv.backends.arrays.columns import Band, bands, fill
from irconv.backends.arrays.conv_cost import plain_seconds, winograd_seconds
from irconv.backends.arrays.geometry import Geometry
from irconv.backends.arrays.work import Work
from irconv.types import F32, DType

ROWS, COLUMNS = 4, 2
"""Size of a tile of the result."""

G_ROWS = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
G_COLUMNS = np.array([[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]])
PRODUCTS = 24

BLOCK = 128 * 1024
"""Elements of a plane in a block of channels.  With 16 Ki two threads wait for each other's calls: ResNet-18 took 4% longer."""

TILES, TILE_BYTES = 448, 6 * 1024 * 1024
"""Tiles multiplied at once, about: fewer where the 24 numbers of all channels would take more memory than this."""


def tile_counts(counts: tuple[int, ...]) -> tuple[int, int]:
    """Tiles down and along a result of these spatial counts."""
    return -(-counts[0] // ROWS), -(-counts[1] // COLUMNS)


def suits(g: Geometry, dtype: DType, parallel: Parallel | None) -> bool:
    """Whether a convolution can be computed this way, and by estimate faster than by its window matrix."""
    fixed = (g.kernel, g.stride, g.dilation, g.groups) == ((3, 3), (1, 1), (1, 1), 1)
    if parallel is None or dtype is not F32 or not fixed:
        return False
    return seconds(g, parallel) < plain_seconds(g)


def seconds(g: Geometry, parallel: Parallel) -> float:
    """About how long it takes."""
    return winograd_seconds(g, sum(tiles.size for tiles in _plan(g, parallel)), PRODUCTS)


@dataclass(frozen=True)
class Tiles:
    """A piece of the result: samples ``first`` to ``last``, rows of tiles ``start`` to ``stop``, and its eight planes."""

    first: int
    last: int
    start: int
    stop: int
    along: int
    planes: tuple[Band, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """A plane of one channel: samples, rows and columns of tiles, with one more row and column of input."""
        return (self.last - self.first, self.stop - self.start + 1, self.along + 1)

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def _plan(g: Geometry, parallel: Parallel) -> tuple[Tiles, ...]:
    """Groups of small samples, or bands of rows of tiles of large ones."""
    down, along = tile_counts(g.counts)
    plane = (down + 1) * (along + 1)
    most = max(128, min(TILES, TILE_BYTES // (PRODUCTS * 4 * max(g.channels, g.out_channels))))
    samples = max(1, min(most // plane, -(-g.batch // parallel.shares)))
    rows = max(1, min(down, -(-g.batch * down // parallel.shares), most // (along + 1)))
    if g.batch % parallel.shares:
        rows = even_step(down, rows, parallel.shares)
    found = []
    for start, stop in spans(down, rows):
        planes = _planes(g, start, stop, along)
        found += [Tiles(first, last, start, stop, along, planes) for first, last in spans(g.batch, samples)]
    return tuple(found)


def _planes(g: Geometry, start: int, stop: int, along: int) -> tuple[Band, ...]:
    """The planes (row mod 4, column mod 2) of the padded input under some rows of tiles, each as windows of a single tap."""
    extent = (stop - start + 1, along + 1)
    found: list[Band] = []
    for row in range(ROWS):
        for column in range(COLUMNS):
            before = (g.padding[0][0] - row - start * ROWS, g.padding[1][0] - column)
            padding = tuple((amount, 0) for amount in before)
            found += bands(g.size, extent, (1, 1), (ROWS, COLUMNS), padding, (1, 1), extent[0])
    return tuple(found)


def winograd_work(xp: Any, g: Geometry, dtype: DType, parallel: Parallel, scratch: Scratch) -> Work:
    """The convolution as transforms and 24 products."""
    plan = _plan(g, parallel)
    threads = parallel.threads
    most = max((tiles.size for tiles in plan), default=1)
    channels = max(1, min(max(g.channels, g.out_channels), BLOCK // most))
    weights_at = scratch.add(dtype, PRODUCTS, g.out_channels, g.channels)
    spare_at = scratch.add(dtype, g.out_channels, g.channels, *g.kernel)
    inputs_at = scratch.add(dtype, threads, PRODUCTS * g.channels * most)
    products_at = scratch.add(dtype, threads, PRODUCTS * g.out_channels * most)
    block_at = scratch.add(dtype, threads, 24 * channels * most)
    matrix = xp.asarray(np.kron(G_ROWS, G_COLUMNS).astype(dtype.numpy))
    regions = tuple(
        (slice(t.first, t.last), slice(None), slice(t.start * ROWS, min(t.stop * ROWS, g.counts[0])), slice(None))
        for t in plan
    )

    def before(x: Array, w: Array, buffers: tuple[Array, ...]) -> Array:
        if not w.flags.c_contiguous:
            xp.copyto(buffers[spare_at], w)
            w = buffers[spare_at]
        transformed = buffers[weights_at]
        xp.matmul(matrix, w.reshape(-1, 9).T, out=transformed.reshape(PRODUCTS, -1))
        return transformed

    def piece(i: int, worker: int, out: Array, x: Array, weights: Array, buffers: tuple[Array, ...]) -> None:
        tiles = plan[i]
        size = tiles.size
        inputs = buffers[inputs_at][worker, : PRODUCTS * g.channels * size].reshape(PRODUCTS, g.channels, size)
        products = buffers[products_at][worker, : PRODUCTS * g.out_channels * size].reshape(
            PRODUCTS, g.out_channels, size
        )
        block = buffers[block_at][worker]
        for start, stop in spans(g.channels, channels):
            source = x[tiles.first : tiles.last, start:stop]
            _transform_input(xp, source, tiles, inputs[:, start:stop], block[: 24 * (stop - start) * size])
        xp.matmul(weights, inputs, out=products)
        target = out[regions[i]]
        for start, stop in spans(g.out_channels, channels):
            spare = block[: 8 * (stop - start) * size]
            _transform_output(xp, products[:, start:stop], tiles, target[:, start:stop], spare)

    return Work(regions, before, piece)


def _transform_input(xp: Any, x: Array, tiles: Tiles, inputs: Array, block: Array) -> None:
    """B4' x B2 for a block of channels: x [samples, channels, *size] into inputs [24, channels, plane]."""
    channels = inputs.shape[1]
    planes = block.reshape(24, -1)
    for plane, band in zip(planes, tiles.planes, strict=False):
        fill(xp, plane.reshape(channels, 1, *tiles.shape), x, band)
    below = tiles.along + 1
    length = planes.shape[1] - below
    spare = planes[20:]
    for column in range(COLUMNS):
        d = [planes[row * COLUMNS + column] for row in range(ROWS)]
        rows = [d[0], d[1], d[2], d[3], d[0][below:], d[1][below:]]
        _rows_in(
            xp, [r[:length] for r in rows], [planes[8 + 6 * column + i][:length] for i in range(6)], spare[:, :length]
        )
    flat = inputs.reshape(PRODUCTS, channels, -1)
    for i in range(6):
        even, odd = planes[8 + i], planes[14 + i]
        _columns_in(xp, even, odd, [flat[4 * i + j].reshape(-1) for j in range(4)], length)


def _rows_in(xp: Any, d: list[Array], v: list[Array], spare: Array) -> None:
    """v = B4' d for six rows."""
    a, b, c, e = spare
    xp.multiply(d[2], -4.0, a)
    xp.add(a, d[4], a)
    xp.multiply(d[1], -4.0, b)
    xp.add(b, d[3], b)
    xp.add(a, b, v[1])
    xp.subtract(a, b, v[2])
    xp.subtract(d[4], d[2], c)
    xp.subtract(d[3], d[1], e)
    xp.add(e, e, e)
    xp.add(c, e, v[3])
    xp.subtract(c, e, v[4])
    xp.subtract(d[0], d[2], a)
    xp.multiply(a, 4.0, a)
    xp.add(a, c, v[0])
    xp.subtract(d[5], d[3], b)
    xp.subtract(b, e, b)
    xp.subtract(b, e, v[5])


def _columns_in(xp: Any, even: Array, odd: Array, v: list[Array], length: int) -> None:
    """v = B2' d for columns (even, odd, next even, next odd)."""
    n = length - 1
    now_even, now_odd, next_even, next_odd = even[:n], odd[:n], even[1 : n + 1], odd[1 : n + 1]
    xp.subtract(now_even, next_even, v[0][:n])
    xp.add(now_odd, next_even, v[1][:n])
    xp.subtract(next_even, now_odd, v[2][:n])
    xp.subtract(now_odd, next_odd, v[3][:n])


def _transform_output(xp: Any, products: Array, tiles: Tiles, out: Array, block: Array) -> None:
    """A4' M A2 for a block of channels: products [24, channels, plane], overwritten, into out [samples, channels, *rows]."""
    channels = products.shape[1]
    spare = block.reshape(8, channels, -1)
    for i in range(6):
        m0, m1, m2, m3 = products[4 * i : 4 * i + 4]
        # even column into m0, odd one into m3
        xp.add(m0, m1, m0)
        xp.add(m0, m2, m0)
        xp.subtract(m1, m2, m1)
        xp.subtract(m1, m3, m3)
    for column in range(COLUMNS):
        m = [products[4 * i + 3 * column] for i in range(6)]
        _rows_out(xp, m, spare)
        for row in range(ROWS):
            target = out[:, :, row::ROWS, column::COLUMNS]
            shaped = spare[4 + row].reshape(channels, *tiles.shape).swapaxes(0, 1)
            xp.copyto(target, shaped[:, :, : target.shape[2], : target.shape[3]])


def _rows_out(xp: Any, m: list[Array], spare: Array) -> None:
    """spare[4:8] = A4' m for six rows."""
    a, b, c, d, y0, y1, y2, y3 = spare
    xp.add(m[1], m[2], a)
    xp.subtract(m[1], m[2], b)
    xp.add(m[3], m[4], c)
    xp.subtract(m[3], m[4], d)
    xp.add(m[0], a, y0)
    xp.add(y0, c, y0)
    xp.add(d, d, d)
    xp.add(b, d, y1)
    xp.multiply(c, 4.0, c)
    xp.add(a, c, y2)
    xp.multiply(d, 4.0, d)
    xp.add(b, d, y3)
    xp.add(y3, m[5], y3)
