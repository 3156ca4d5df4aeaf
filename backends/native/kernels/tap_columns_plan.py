"""Contractions of few columns: when to put the taps of a row beside the columns in a vector, and how to cut them.

With 6 columns a vector of 16 of them is mostly padding, and vectors of pixels (:mod:`.narrow_plan`) are too where rows are short;
both multiply the zeros around an image.  Here each place q of the *input* makes its products with all taps of the row at once::

    made[q, i, k] = sum over row taps, c of x[q, c] * w[., i, c, k]          5 taps x 6 columns: 30 of 32 lanes
    out[p, k]     = sum over taps i of made[place that p reads at tap i, i, k]

Taps are put in the order in which the pixels they go to lie, so that where channels lie last the 30 numbers of a place belong to
30 neighbours of the result's row, 6 behind those of the place before: the second sum reads whole vectors at an offset.  Nothing
outside the input is read.  Time of vectors of pixels over this way's, from 16 channels of 10 x 10 to 6 of 14 x 14 with windows of
5 x 5, one thread with AVX-512: 2.2.  Up to two vectors of columns may gain, where images are small or the second is half empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from irconv.backends.codegen.machine import Machine
from irconv.backends.native.kernels.contraction import Axis, Contraction
from irconv.backends.native.kernels.narrow_plan import MACS, ONE_ROW
from irconv.backends.native.kernels.plan import NEAR, PENALTY

OWN = 24 * 1024
"""Bytes that the products of a row may take, so that they stay in the first-level cache."""

GAIN, WORTH_A_TRY = 0.75, 1.0
"""The other ways are left where this one takes less than so much of the best of them, and measured against up to so much."""

LATENCY = 8
"""Multiplications that are under way at once: a tile of fewer takes as long."""

ADD, STORE = 1.5, 4.0
"""What it takes to add a vector up that lies across cache lines, and to store one of results, in multiplications."""

FAR = 5
"""What it takes to read a vector of weights that do not stay in the first-level cache; one that does takes 1."""

MOST_BLOCKS = 4
"""Blocks of vectors, which are written out one by one."""


@dataclass(frozen=True, slots=True)
class TapColumns:
    """How such a contraction is cut.

    lanes:   of a vector;  ``blocks`` of ``vectors`` hold the taps of a row and the ``columns`` of each.
    pixels:  places of a tile.
    row_axis, line_axis: the axes of pixels; ``row_stride`` the input's along the first.
    first, places: of the input's row that reach the result at all.
    lead:    pixels that the numbers of the first place begin in front of the result's row.
    images, band: images and rows of a task; several images only where the band is a whole one.
    share:   of the time of the direct algorithm that it is likely to take.
    """

    lanes: int
    vectors: int
    blocks: int
    columns: int
    pixels: int
    row_axis: Axis
    line_axis: Axis
    row_stride: int
    first: int
    places: int
    lead: int
    images: int
    band: int
    share: float

    @property
    def name(self) -> str:
        """What tells it from the other ways to compute a contraction."""
        return f"taps of a row in lanes, tiles of {self.pixels} x {self.vectors}"

    @property
    def width(self) -> int:
        """Elements of all vectors of a place."""
        return self.lanes * self.vectors * self.blocks

    @property
    def numbers(self) -> int:
        """Products of a place that are of use."""
        return self.line_axis.only.taps * self.columns

    @property
    def pitch(self) -> int:
        """From the products of a place to those of the next, with zeros between that a vector of either may reach."""
        return -(-(self.numbers + self.lanes - 1) // self.lanes) * self.lanes

    @property
    def bands(self) -> int:
        """Tasks of an image."""
        return -(-self.row_axis.only.count // self.band)

    @property
    def before(self) -> int:
        """Places in front of the first, all zeros, that results are added up from."""
        return max(0, self.line_axis.only.taps - 1 - self.lead)

    @property
    def behind(self) -> int:
        """The same behind the last place; a vector may reach beyond the row."""
        return max(0, self.lead + self.line_axis.only.count + -(-self.lanes // self.columns) - self.places)

    @property
    def own(self) -> int:
        """Elements of a thread's memory."""
        return self.lanes + (self.before + self.places + self.behind) * self.pitch


def tap_columns_plan(c: Contraction, machine: Machine) -> TapColumns | None:
    """The plan; None where the contraction is of another kind, or the direct algorithm surely as fast."""
    if len(c.axes) not in (1, 2) or c.groups or c.long or c.has_residues:
        return None
    row_axis, row_stride = (c.axes[0], c.x_strides[1]) if len(c.axes) == 2 else (ONE_ROW, 0)
    line_axis, lanes = c.axes[-1], machine.lanes(c.dtype.bytes)
    line = line_axis.only
    if line_axis.step != 1 or abs(line_axis.tap_shift) != 1 or line.taps < 2 or not 0 < c.columns <= 2 * lanes:
        return None
    base = line.shift + (line.taps - 1 if line_axis.tap_shift > 0 else 0)
    first = max(0, base - (line.taps - 1))
    places = min(line_axis.size, base + line.count) - first
    if places <= 0 or row_axis.only.count <= 0:
        return None
    needed = -(-line.taps * c.columns // lanes)
    read = FAR if row_axis.only.taps * c.channels * needed * lanes * c.dtype.bytes > NEAR else 1
    tiles = [
        (_line_time(places, pixels, vectors, read) * (needed // vectors), -vectors, -pixels)
        for vectors in range(1, needed + 1)
        if needed % vectors == 0 and needed // vectors <= MOST_BLOCKS
        for pixels in range(1, min(places, (machine.registers - 1 - vectors) // vectors) + 1)
    ]
    if not tiles:
        return None
    time, vectors, pixels = min(tiles)
    vectors, pixels = -vectors, -pixels
    rows, pairs = row_axis.only.count, _pairs(row_axis)
    results = line.count * c.columns / lanes
    folded = results * (STORE + ADD * (line.taps + lanes / c.columns)) + places * needed
    across = -(-c.columns // lanes)
    direct = rows * line.count * c.taps * c.channels * across * PENALTY[across]
    share = (pairs * c.channels * time + rows * folded) / direct
    macs = max(1, round(pairs * c.channels * places * needed * lanes / rows))
    band = min(rows, max(1, MACS // macs))
    images = max(1, MACS // (macs * rows)) if band == rows else 1
    plan = TapColumns(
        lanes, vectors, needed // vectors, c.columns, pixels, row_axis, line_axis, row_stride, first, places, base - first,
        images, band, share,
    )  # fmt: skip
    return plan if share <= WORTH_A_TRY and plan.own * c.dtype.bytes <= OWN else None


def _line_time(places: int, pixels: int, vectors: int, read: int) -> float:
    """What the tiles of a row take for a channel and a row tap, in multiplications: these, what is read, or waiting for them.

    read: what a vector of weights takes to read.
    """
    whole, rest = divmod(places, pixels)
    return sum(
        count * max(size * vectors, size + vectors * read, LATENCY) for count, size in ((whole, pixels), (1, rest)) if size > 0
    )


def _pairs(axis: Axis) -> int:
    """Rows of the result, each with a tap that lies inside the input."""
    only = axis.only
    read = (r * axis.step + only.shift + i * axis.tap_shift for r in range(only.count) for i in range(only.taps))
    return sum(0 <= row < axis.size for row in read)


def tap_columns_tasks(c: Contraction, plan: TapColumns) -> int:
    """Tasks of the main phase."""
    return math.ceil(c.batch / plan.images) * plan.bands
