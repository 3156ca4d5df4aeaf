"""Products with a weight that lies row by row (that of nn.Linear), read where it lies: no packed copy of it is made.

::

    out[row, column] = sum over k of x[row, k] * w[column, k]

Vectors run along the sum.  A tile is a few rows by a few columns of accumulators, each a vector; its lanes are added up in the
end, for as many columns at a time as a vector has lanes, and the epilogue sees vectors along the columns.  The sums of a task lie
in memory of the thread, so that they can be gone on with; what comes out does not depend on how they are cut.

When that is done: see :mod:`.row_plan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from irconv.backends.codegen.body import WORKER, Body
from irconv.backends.codegen.form import (
    INDEX,
    Expression,
    Literal,
    Operand,
    Pointer,
    Type,
    Variable,
    compare,
    literal,
    load,
    select,
)
from irconv.backends.codegen.lanes import shuffle
from irconv.backends.codegen.statements import Function
from irconv.backends.native.kernels.contraction import Contraction
from irconv.backends.native.kernels.epilogue import Epilogue
from irconv.backends.native.kernels.packing import Buffers, least
from irconv.backends.native.kernels.row_plan import FEW, SINGLE, RowPlan

AHEAD = 256
"""Elements from the weights in use to those that are fetched.

4 rows, 4096 x 4096: as fast without; 16 rows, 25088 x 4096: 1.15 times as fast with it; 1024 elements are too many."""


@dataclass(frozen=True)
class Range:
    """From ``start`` to ``stop`` - 1."""

    start: Expression
    stop: Expression


def lines(
    body: Body, name: str, source: Pointer, first: Expression, count: int, stop: Expression, stride: int
) -> list[Pointer]:
    """``count`` neighbouring lines, ``stride`` apart; the last stands for those that are not there."""
    numbers = [first, *(least(first + i, stop - 1) for i in range(1, count))]
    return [body.pointer(name, source, number * stride) for number in numbers]


class RowProduct:
    """Writes the function."""

    def __init__(self, c: Contraction, plan: RowPlan, epilogue: Epilogue, strides: dict[int, int], out: Pointer):
        self.c, self.plan, self.epilogue, self.out = c, plan, epilogue, out
        self.strides = {i: (step, epilogue.strides[i][c.out_column]) for i, step in strides.items()}
        self.body = Body()
        self.vector = Type(c.dtype, plan.lanes)
        self.kept = Pointer("own", c.dtype)

    def function(self, buffers: Buffers) -> Function:
        """The function; a task is a chunk of rows for a part of the columns."""
        body, c, plan = self.body, self.c, self.plan
        total = body.let("rows", Variable("batch", INDEX) * c.places)
        chunks = body.let("chunks", (total + (plan.chunk - 1)) // plan.chunk)
        self.kept = body.pointer("kept", Pointer("own", c.dtype), WORKER * plan.own)
        with body.tasks() as task:
            rows = self._range("row", task % chunks, plan.chunk, total)
            columns = self._range("column", task // chunks, plan.part, literal(c.columns))
            if plan.any_batch:
                self._sums_step_by_step(total, rows, columns)
            else:
                self._sums(rows, columns, Range(literal(0), literal(c.channels)))
            self._finish(rows, columns)
        return body.function(f"{c.name}_rows", buffers, ["batch"])

    def _sums_step_by_step(self, total: Expression, rows: Range, columns: Range) -> None:
        """All sums of a task: the first products of each, then the next.

        A few rows of the input stay in the cache as a whole: the weight is then read in long runs.
        """
        body, channels = self.body, literal(self.c.channels)
        step = body.let("step", select(compare("<=", total, FEW), channels, self.plan.step))
        with body.loop("turn", 0, (step + (self.c.channels - 1)) // step) as turn:
            self._sums(rows, columns, self._range("product", turn, step, channels))

    def _sums(self, rows: Range, columns: Range, products: Range) -> None:
        """A range of the products of all sums of a task."""
        body, plan = self.body, self.plan
        with body.when(compare("==", rows.stop - rows.start, 1)):
            self._tiles(1, SINGLE, rows, columns, products)
        with body.otherwise():
            self._tiles(plan.rows, plan.columns, rows, columns, products)

    def _range(self, name: str, number: Expression, size: Operand, total: Expression) -> Range:
        """The range of this number, of ranges of a size."""
        start = self.body.let(f"first_{name}", number * size)
        return Range(start, self.body.let(f"last_{name}", least(start + size, total)))

    def _tiles(self, height: int, width: int, rows: Range, columns: Range, products: Range) -> None:
        """The same, in tiles of one size."""
        body, c, plan = self.body, self.c, self.plan
        with body.loop("tile_column", columns.start, columns.stop, width) as column:
            weights = lines(body, "weight", Pointer("w", c.dtype), column, width, columns.stop, plan.column)
            with body.loop("tile_row", rows.start, rows.stop, height) as row:
                inputs = lines(body, "input", Pointer("x", c.dtype), row, height, rows.stop, plan.row)
                place = ((row - rows.start) * plan.part + (column - columns.start)) * plan.lanes
                self._tile(inputs, weights, body.pointer("tile", self.kept, place), products)

    def _tile(self, inputs: Sequence[Pointer], weights: Sequence[Pointer], kept: Pointer, products: Range) -> None:
        """A range of the products of one tile's sums."""
        body, c, lanes = self.body, self.c, self.plan.lanes
        zero = Literal(0.0, self.vector)
        sums = [
            (body.variable(f"sum{i}_{j}", zero), (i * self.plan.part + j) * lanes)
            for i in range(len(inputs))
            for j in range(len(weights))
        ]
        if self.plan.any_batch:
            with body.when(compare(">", products.start, 0)):
                for accumulator, place in sums:
                    body.assign(accumulator, load(kept, place, lanes))
        accumulators = [accumulator for accumulator, _ in sums]
        whole, rest = c.channels // lanes * lanes, c.channels % lanes
        with body.loop("k", products.start, least(products.stop, whole) if rest else products.stop, lanes) as k:
            self._products(accumulators, inputs, weights, k, None)
        if rest:
            with body.when(compare("==", products.stop, c.channels)):
                self._products(accumulators, inputs, weights, literal(whole), rest)
        for accumulator, place in sums:
            body.store(kept, place, accumulator)

    def _products(
        self,
        sums: Sequence[Variable],
        inputs: Sequence[Pointer],
        weights: Sequence[Pointer],
        k: Expression,
        count: int | None,
    ) -> None:
        """One vector of products (``count`` of its lanes) of each sum of a tile."""
        body, lanes = self.body, self.plan.lanes
        values = [body.let("value", load(line, k, lanes, count)) for line in inputs]
        for j, line in enumerate(weights):
            weight = body.let("weights", load(line, k, lanes, count))
            if count is None:
                body.prefetch(line, k + AHEAD)
            for i, value in enumerate(values):
                accumulator = sums[i * len(weights) + j]
                body.assign(accumulator, accumulator + value * weight)

    def _finish(self, rows: Range, columns: Range) -> None:
        """Add up the lanes of a task's sums, and write what the epilogue makes of them."""
        body, c, lanes = self.body, self.c, self.plan.lanes
        with body.loop("row", rows.start, rows.stop) as row, body.loop("column", columns.start, columns.stop, lanes) as column:
            place = body.let("place", ((row - rows.start) * self.plan.part + (column - columns.start)) * lanes)
            vectors: list[Expression] = [load(self.kept, place + j * lanes, lanes) for j in range(lanes)]
            while len(vectors) > 1:
                vectors = [self._pairs(a, b) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
            count = body.let("count", least(columns.stop - column, lanes)) if c.columns % lanes else None
            self.epilogue.write(body, vectors[0], self.strides, [row, column], 1, count, self.out)

    def _pairs(self, first: Expression, second: Expression) -> Expression:
        """Neighbouring lanes of two vectors, added up: those of the first, then those of the second."""
        body, lanes = self.body, self.plan.lanes
        a, b = body.let("a", first), body.let("b", second)
        return body.let("pairs", shuffle(a, b, range(0, 2 * lanes, 2)) + shuffle(a, b, range(1, 2 * lanes, 2)))
