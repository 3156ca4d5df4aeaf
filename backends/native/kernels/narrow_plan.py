"""Contractions of few columns: when to put neighbouring pixels of a row into the lanes of a vector, and how to cut them.

With 6 columns a vector of 16 columns is mostly padding.  Here a tile is a few rows by a few vectors of pixels, by all columns;
each product multiplies a vector of the input, which lies in padded planes, by one number of the weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from irconv.backends.codegen.machine import Machine
from irconv.backends.native.kernels.contraction import Axis, Contraction, Residue
from irconv.backends.native.kernels.plan import PENALTY

MACS = 500_000
"""Products in a task, about: 8 us on one core."""

OWN = 256 * 1024
"""Bytes of planes that a thread may keep, so that they stay in its second-level cache."""

TURNED = 1.0
"""What it takes to lay an element of a channels-last input out in planes, in products of a vector."""

LINES = 0.2
"""The same for an input that lies in rows."""

GAIN, WORTH_A_TRY = 0.8, 1.5
"""The direct algorithm is left where this one takes less than so much of it, and measured against it up to so much."""

ONE_ROW = Axis(1, 1, 1, 1, 1, (Residue(0, 1, 0, 1, 0),))
"""The axis of rows of a signal, which has none."""


@dataclass(frozen=True, slots=True)
class Narrow:
    """How a contraction of few columns is cut.

    lanes:   of a vector.
    rows, vectors: of a tile.
    row_axis, line_axis: the axes of pixels; ``row_stride`` the input's along the first.
    images, band: images and rows of a task; several images only where the band is a whole one.
    share:   of the time of the direct algorithm that it is likely to take.
    """

    lanes: int
    rows: int
    vectors: int
    row_axis: Axis
    line_axis: Axis
    row_stride: int
    images: int
    band: int
    share: float

    @property
    def name(self) -> str:
        return f"pixels in lanes, tiles of {self.rows} x {self.vectors}"

    @property
    def is_preferred(self) -> bool:
        """Whether it is to be taken without measuring."""
        return self.share < GAIN

    @property
    def bands(self) -> int:
        """Tasks of an image."""
        return -(-self.row_axis.only.count // self.band)

    @property
    def line(self) -> int:
        """Elements of a row of the planes: what the last vector of the last tap reads."""
        return -(-self.line_axis.only.count // self.lanes) * self.lanes + reach(self.line_axis)

    @property
    def plane(self) -> int:
        """Elements of a plane: the rows that a band's tiles read, those behind its last row included."""
        rows = -(-self.band // self.rows) * self.rows
        return ((rows - 1) * self.row_axis.step + reach(self.row_axis) + 1) * self.line


def narrow_plan(c: Contraction, machine: Machine, step: int = 1) -> Narrow | None:
    """The plan; None where the contraction is of another kind, or the direct algorithm surely as fast.

    step: what the rows of a tile are to be a multiple of.
    """
    lanes = machine.lanes(c.dtype.bytes)
    if not _is_possible(c) or not 0 < 2 * c.columns <= lanes:
        return None
    row_axis, row_stride = (c.axes[0], c.x_strides[1]) if len(c.axes) == 2 else (ONE_ROW, 0)
    line_axis = c.axes[-1]
    rows, count = row_axis.only.count, line_axis.only.count
    most = max(1, (machine.registers - 1) // (c.columns + 1))
    if step > min(most, rows):
        return None
    vectors = min(most // step, -(-count // lanes))
    heights = range(min(max(1, most // vectors), rows) // step * step, 0, -step)
    tile_rows = min(heights, key=lambda r: _row_cost(rows, r))
    waste = -(-count // lanes) * lanes / count * _row_cost(rows, tile_rows)
    laid_out = (LINES if c.x_strides[-1] == 1 else TURNED) * row_axis.step / c.taps
    share = (c.columns / lanes * waste + laid_out) / PENALTY[1]
    if share > WORTH_A_TRY:
        return None
    macs = c.columns * c.taps * c.channels * count
    band = min(rows, -(-max(1, MACS // macs) // tile_rows) * tile_rows)
    images = max(1, MACS // (macs * rows)) if band == rows else 1
    plan = Narrow(lanes, tile_rows, vectors, row_axis, line_axis, row_stride, images, band, share)
    while plan.plane * c.channels * c.dtype.bytes > OWN:
        if band <= tile_rows:
            return None
        band = -(-(band // 2) // tile_rows) * tile_rows
        plan = Narrow(lanes, tile_rows, vectors, row_axis, line_axis, row_stride, 1, band, share)
    return plan


def _is_possible(c: Contraction) -> bool:
    """Whether neighbouring pixels of a row read neighbours of the input, tap by tap."""
    if len(c.axes) not in (1, 2) or c.groups or c.long or c.has_residues:
        return False
    return c.axes[-1].step == 1 and all(axis.only.taps > 0 for axis in c.axes)


def _row_cost(rows: int, of_tile: int) -> float:
    """What a row takes in tiles of so many: rows of the last tile that are not there, weights read once per tile."""
    return -(-rows // of_tile) * of_tile / rows * (1 + 0.15 / of_tile)


def low(axis: Axis) -> int:
    """The first position that pixels of an axis read; negative in the padding."""
    only = axis.only
    return min(only.shift, only.shift + (only.taps - 1) * axis.tap_shift)


def reach(axis: Axis) -> int:
    """From the first to the last position that one pixel reads."""
    return (axis.only.taps - 1) * abs(axis.tap_shift)


def task_count(c: Contraction, plan: Narrow) -> int:
    """Tasks of the main phase."""
    return math.ceil(c.batch / plan.images) * plan.bands
