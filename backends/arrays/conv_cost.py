"""About how long each way to compute a convolution takes on one core: what the choice between them goes by.

The constants are seconds on one AVX-512 core, measured on the layers of ResNet-18, U-Net and LeNet in float32.  A tile's
transform counts more than it takes on one thread (0.35 ns): its many short calls slow each other down on two.
"""

from __future__ import annotations

from irconv.backends.arrays.geometry import Geometry

PLAIN_PRODUCT = 2 / 120e9
WINDOW_COPY = 0.3e-9
"""An element of the window matrix: copied by its kernel, and again by BLAS."""

STACKED_PRODUCT = 2 / 140e9
STACKED_SUM = 0.1e-9
WEIGHT_COPY = 2e-9
TILED_PRODUCT = 2 / 105e9
TILE_TRANSFORM = 0.5e-9
WEIGHT_TRANSFORM = 20e-9
PASSES = 66
"""Additions on a channel of a Winograd tile."""


def plain_seconds(g: Geometry) -> float:
    """Through the window matrix."""
    pairs = g.channels // g.groups * g.out_channels
    return g.batch * g.area * g.taps * (pairs * PLAIN_PRODUCT + g.channels * WINDOW_COPY)


def stacked_seconds(g: Geometry, rows: int, reach: int) -> float:
    """With the rows of taps stacked, in pieces of ``rows`` whose windows reach ``reach`` further."""
    positions = g.batch * g.area * (rows + reach) / rows
    copied, summed = g.channels * g.taps // g.kernel[0], g.out_channels * g.kernel[0]
    product = g.channels * g.out_channels * g.taps * STACKED_PRODUCT
    weight = g.channels * g.out_channels * g.taps * WEIGHT_COPY
    return weight + positions * (product + copied * WINDOW_COPY + summed * STACKED_SUM)


def winograd_seconds(g: Geometry, tiles: int, products: int) -> float:
    """In so many tiles, those at the edges included, of so many products."""
    pairs = g.channels * g.out_channels
    transforms = tiles * PASSES * (g.channels + g.out_channels) * TILE_TRANSFORM
    return tiles * products * pairs * TILED_PRODUCT + transforms + pairs * WEIGHT_TRANSFORM
