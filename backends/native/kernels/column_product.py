"""Products of few rows with a large weight that lies product by product (a Gemm's without transposition), read where it lies.

::

    out[row, column] = sum over k of x[row, k] * w[k, column]

Vectors run along the columns.  A task takes some of the products of all sums, so that it reads one run of memory from end to end:
tasks for some of the columns would read short pieces of it, pages apart, and take up to 1.5 times as long.  The sums of the tasks
are added up in a second phase, in their order, with the epilogue.

When that is done: as for the other way in which weights lie, see :mod:`.row_plan`, but for few rows only.  Time of the direct
algorithm over this one's, with 1 and 4 rows: 1280 x 1000: 1.03, 0.94; 4096 x 4096: 0.96, 1.02; 25088 x 4096: 0.98, 1.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import (
    INDEX,
    Expression,
    Literal,
    Pointer,
    Type,
    Variable,
    compare,
    literal,
    load,
    splat,
)
from irconv.backends.codegen.machine import Machine
from irconv.backends.codegen.statements import Function
from irconv.backends.native.kernels.contraction import Contraction
from irconv.backends.native.kernels.epilogue import Epilogue
from irconv.backends.native.kernels.packing import Buffers, least
from irconv.backends.native.kernels.row_plan import FEW, PART, row_step
from irconv.backends.native.kernels.row_product import Range, lines

STREAMS = 16
"""Rows of the weight that are read side by side; the sums are taken up again for each so many."""

MOST_PARTS = 16
"""Tasks at the most: each has sums of its own for all columns."""

RUN = 512
"""Columns of a task of the second phase."""


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """How such a product is cut.

    lanes:   of a vector.
    vectors: of columns, of a tile of all rows.
    parts, depth: tasks, and products of each sum in one.
    row, line: elements from one row of the input, of the weight to the next.
    width:   elements of a row of sums: the columns, and up to a whole vector.
    """

    lanes: int
    vectors: int
    parts: int
    depth: int
    row: int
    line: int
    width: int

    @property
    def name(self) -> str:
        """What tells it from the other ways to compute a product."""
        return f"the weight where it lies up to {FEW} rows"

    @property
    def sums(self) -> int:
        """Elements of the sums of all tasks."""
        return self.parts * FEW * self.width


def column_plan(c: Contraction, machine: Machine) -> ColumnPlan | None:
    """The plan; None where the weight is small, or it or the input lies in another way."""
    lanes, row = machine.lanes(c.dtype.bytes), row_step(c, machine)
    if row is None or c.w_column != 1 or c.columns < lanes:
        return None
    parts = min(MOST_PARTS, -(-c.channels * c.columns // PART))
    depth = -(-c.channels // (parts * STREAMS)) * STREAMS
    vectors = 6 if machine.registers >= 32 else 3
    width = -(-c.columns // lanes) * lanes
    return ColumnPlan(lanes, vectors, -(-c.channels // depth), depth, row, c.w_channel, width)


@dataclass(frozen=True, slots=True)
class _Sum:
    """An accumulator, and where it is kept between turns."""

    accumulator: Variable
    kept: Pointer
    place: int


class ColumnProduct:
    """Writes the functions."""

    def __init__(self, c: Contraction, plan: ColumnPlan, epilogue: Epilogue, strides: dict[int, int], out: Pointer):
        self.c, self.plan, self.epilogue, self.out = c, plan, epilogue, out
        self.strides = {i: (step, epilogue.strides[i][c.out_column]) for i, step in strides.items()}
        self.vector = Type(c.dtype, plan.lanes)
        self.body = Body()

    # --- the sums of each task -----------------------------------------------------------------------------------------

    def products(self, buffers: Buffers) -> Function:
        """The function of the first phase."""
        self.body = body = Body()
        rows = body.let("rows", Variable("batch", INDEX) * self.c.places)
        with body.tasks() as task:
            start = body.let("start", task * self.plan.depth)
            products = Range(start, body.let("stop", least(start + self.plan.depth, self.c.channels)))
            kept = body.pointer("kept", Pointer("sums", self.c.dtype), task * (FEW * self.plan.width))
            with body.when(compare("==", rows, 1)):
                self._rows(1, rows, products, kept)
            with body.otherwise():
                self._rows(FEW, rows, products, kept)
        return body.function(f"{self.c.name}_columns", buffers, ["batch"])

    def _rows(self, count: int, rows: Expression, products: Range, kept: Pointer) -> None:
        """The sums of up to ``count`` rows; the last stands for those that are not there."""
        body, c, plan, lanes = self.body, self.c, self.plan, self.plan.lanes
        inputs = lines(body, "input", Pointer("x", c.dtype), literal(0), count, rows, plan.row)
        wide = plan.vectors * lanes
        whole, full = c.columns // wide * wide, c.columns // lanes * lanes
        with body.loop("next", products.start, products.stop, STREAMS) as first:
            turn = Range(first, body.let("last", least(first + STREAMS, products.stop)))
            is_first = compare("==", first, products.start)
            for start, stop, step in ((0, whole, wide), (whole, full, lanes), (full, c.columns, lanes)):
                if start < stop:
                    count_of = c.columns - full if start == full else None
                    with body.loop("column", start, stop, step) as column:
                        sums = self._sums(len(inputs), step // lanes, body.pointer("tile", kept, column))
                        weight = body.pointer("weight", Pointer("w", c.dtype), column)
                        self._tile(sums, inputs, weight, turn, is_first, count_of)

    def _sums(self, rows: int, vectors: int, kept: Pointer) -> list[list[_Sum]]:
        """The accumulators of a tile by row, each with the place where it is kept."""
        plan, zero = self.plan, Literal(0.0, self.vector)
        return [
            [
                _Sum(self.body.variable(f"sum{i}_{v}", zero), kept, i * plan.width + v * plan.lanes)
                for v in range(vectors)
            ]
            for i in range(rows)
        ]

    def _tile(
        self,
        sums: list[list[_Sum]],
        inputs: Sequence[Pointer],
        weight: Pointer,
        turn: Range,
        is_first: Expression,
        count: int | None,
    ) -> None:
        """A few products of a tile's sums; ``count`` of the lanes."""
        body, lanes = self.body, self.plan.lanes
        every = [each for line in sums for each in line]
        with body.when(~is_first):
            for each in every:
                body.assign(each.accumulator, load(each.kept, each.place, lanes))
        with body.loop("k", turn.start, turn.stop) as k:
            row = body.let("row", k * self.plan.line)
            values = [body.let("value", splat(load(line, k), lanes)) for line in inputs]
            for v in range(len(sums[0])):
                weights = body.let("weights", load(weight, row + v * lanes, lanes, count))
                for value, line in zip(values, sums, strict=True):
                    body.assign(line[v].accumulator, line[v].accumulator + value * weights)
        for each in every:
            body.store(each.kept, each.place, each.accumulator)

    # --- all of them ---------------------------------------------------------------------------------------------------

    def total(self, buffers: Buffers) -> Function:
        """The function of the second phase."""
        self.body = body = Body()
        c, plan, lanes = self.c, self.plan, self.plan.lanes
        rows = body.let("rows", Variable("batch", INDEX) * c.places)
        with body.tasks() as task:
            stop = body.let("stop", least((task + 1) * RUN, c.columns))
            with body.loop("row", 0, rows) as row, body.loop("column", task * RUN, stop, lanes) as column:
                place = body.let("place", row * plan.width + column)
                total = body.variable("total", Literal(0.0, self.vector))
                with body.loop("part", 0, plan.parts) as part:
                    body.assign(total, total + load(Pointer("sums", c.dtype), place + part * (FEW * plan.width), lanes))
                count = body.let("count", least(stop - column, lanes)) if c.columns % lanes else None
                self.epilogue.write(body, total, self.strides, [row, column], 1, count, self.out)
        return body.function(f"{c.name}_total", buffers, ["batch"])
