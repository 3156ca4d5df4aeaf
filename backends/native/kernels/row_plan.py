"""Products of few rows with a large weight: when it is read where it lies, and how the work is cut if that is row by row.

Such a product takes as long as it takes to read the weight once, and nothing is won by packing it first: the packed copy only
takes memory, as much as the weight itself.  Up to ``FEW`` rows it is left out; with more, each number of the weight is used often
enough for the panels of the direct algorithm to pay.  The code has both ways, and the batch decides at run time.

Where the weight lies row by row, as that of nn.Linear does, sums of ``DEEP`` products and more are done so whatever the batch:
the direct algorithm goes through all of the input for each block of columns, which does not stay in the cache then, while here
the sum is cut.

Measured with the weight beyond the second-level cache, one thread of a machine with AVX-512, time of the direct algorithm over
this one's (packing left out; 8 and 64 rows of the two smaller weights while the machine had other work):

=============  =======  =======  =======  =======  =======
rows                 1        2        4        8       64
=============  =======  =======  =======  =======  =======
1280 x 1000       0.99     0.98     1.04     0.71     0.70
4096 x 4096       1.14     1.03     1.22     0.85     0.70
25088 x 4096      1.17     1.24     1.27     0.94     1.16
=============  =======  =======  =======  =======  =======

Weights that stay in that cache (400 x 120: 0.95 with one row, 0.6 with 64; 512 x 1000: 1.01 and 0.6) are packed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from irconv.backends.codegen.machine import Machine
from irconv.backends.native.kernels.contraction import Contraction, linear

FEW = 4
"""Rows up to which a weight is read where it lies."""

DEEP = 8192
"""Products in a sum from which on this is done for any number of rows."""

CHUNK = 96
"""Rows for which a weight is read from memory once, where there are more than a few."""

PART = 64 * 1024
"""Numbers of the weight that a task reads, about, for each chunk of rows: 13 us on one core."""

STEP_BYTES = 4096
"""Bytes of a row of the input, and of the weight, that are gone through for all tiles of a task before the next so many."""

SINGLE = 8
"""Columns of a tile of one row: as many sums as are under way at once."""


@dataclass(frozen=True, slots=True)
class RowPlan:
    """How such a product is cut.

    lanes:   of a vector, which run along the sum.
    rows, columns: of a tile; ``SINGLE`` columns where there is one row.
    part, chunk: columns and rows of a task.
    step:    products of a sum that are done for all tiles of a task before the next; 0: all, there are few rows.
    row:     elements from one row of the input to the next; ``column``: from the weight of one column to that of the next.
    """

    lanes: int
    rows: int
    columns: int
    part: int
    chunk: int
    step: int
    row: int
    column: int

    @property
    def any_batch(self) -> bool:
        """Whether it serves any number of rows."""
        return self.step > 0

    @property
    def name(self) -> str:
        """What tells it from the other ways to compute a product."""
        return "the weight where it lies" + ("" if self.any_batch else f" up to {FEW} rows")

    @property
    def own(self) -> int:
        """Elements that a thread keeps the sums of a task in, a vector each."""
        return self.chunk * self.part * self.lanes


def row_step(c: Contraction, machine: Machine) -> int | None:
    """Elements from one row of the input to the next, for a plain product with a weight that exceeds the cache; else None."""
    row = linear([axis.only.count for axis in c.axes], c.x_strides)
    is_plain = c.name == "matmul" and not c.groups and not c.long and c.x_channel == 1
    is_large = c.channels * c.columns * c.dtype.bytes > machine.cache_bytes
    return row if is_plain and is_large and machine.lanes(c.dtype.bytes) > 1 else None


def row_plan(c: Contraction, machine: Machine) -> RowPlan | None:
    """The plan; None where the weight is small, or it or the input lies in another way."""
    lanes, row = machine.lanes(c.dtype.bytes), row_step(c, machine)
    if row is None or c.w_channel != 1 or c.channels < lanes:
        return None
    rows, columns = (4, 6) if machine.registers >= 32 else (4, 3)
    unit = math.lcm(lanes, columns, SINGLE)
    part = -(-min(c.columns, -(-PART // c.channels)) // unit) * unit
    chunk, step = (CHUNK, STEP_BYTES // c.dtype.bytes) if c.channels >= DEEP else (FEW, 0)
    return RowPlan(lanes, rows, columns, part, chunk, step, row, c.w_column)
