"""What follows the sums of the direct algorithm: the epilogue of a tile, written to wherever the result lies.

A whole tile goes on from its accumulators; one that is cut off, or whose result is laid out in another way, through a small
array in memory, pixel by pixel.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from irconv.backends.codegen.access import element_offset
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import Expression, Operand, Pointer, Variable, compare, literal, load
from irconv.backends.native.kernels.contraction import Contraction
from irconv.backends.native.kernels.epilogue import Epilogue
from irconv.backends.native.kernels.packing import least
from irconv.backends.native.kernels.plan import Plan
from irconv.backends.native.kernels.planes import PlaneStore, is_planar
from irconv.backends.native.kernels.tiles import Cursor, Place, cursor


class TileResults:
    """Writes the results of tiles.

    group: the numbers of the task's group;  ``axes``: of the residues that are worked on.  Both are set before tiles are written.
    """

    def __init__(self, body: Body, c: Contraction, plan: Plan, epilogue: Epilogue, out: Pointer):
        self.body, self.c, self.plan, self.epilogue, self.out = body, c, plan, epilogue, out
        self.group: Sequence[Expression] = ()
        self.axes: Sequence[Place] = ()
        strides = epilogue.strides[epilogue.result]
        self.planes: PlaneStore | None = None
        if out.dtype is c.dtype and plan.pixels > 1 and is_planar(c, strides):
            self.planes = PlaneStore(body, c, plan, out, strides, self._index)
        self.pixel_strides = None if c.has_residues or self.planes else epilogue.pixel_strides(c)

    @property
    def _is_direct(self) -> bool:
        """Whether the accumulators of a whole tile may be written from where they are."""
        return self.pixel_strides is not None and self.epilogue.is_light

    def column(self, column: Expression) -> Expression:
        """A column of the group as one of the result."""
        for g, number in zip(self.c.groups, self.group, strict=True):
            if g.out[0] == self.c.out_column:
                column = column + number * g.out[1]
        return column

    def fetch(self, pixels: int, tile: Expression, column: Expression) -> None:
        """Fetch what the epilogue reads for each result (a residual) while the sum runs: 64 to 256 channels take 0.94 of it.

        The results themselves are written late enough: to fetch them too gains nothing.
        """
        if self.pixel_strides is None or not self._is_direct:
            return
        strides, lead = self._flat_strides(self.pixel_strides)
        for i, pointer in self.epilogue.pointers.items():
            if self.pixel_strides.get(i, 0) == 0 or strides[i][-1] != 1:
                continue
            for p, v in itertools.product(range(pixels), range(self.plan.vectors)):
                index = [*lead, tile + p, self.column(column + v * self.plan.lanes)]
                self.body.prefetch(pointer, element_offset(strides[i], index))

    def write(
        self, sums: list[list[Variable]], tile: Expression, stop: Expression, start: Sequence[Expression], column: Expression
    ) -> None:
        """The epilogue of a tile's sums, by pixel and vector, for pixels from ``tile`` (position ``start``) to before ``stop``.

        column: the first one, of the group.
        """
        body, plan, pixels = self.body, self.plan, len(sums)
        if self.pixel_strides is None or not self._is_direct:
            self._through_memory(sums, tile, stop, start, column)
            return
        whole = compare("<=", tile + pixels, stop) if pixels > 1 else None
        if plan.blocks > 1 and self.c.columns % plan.width:
            fits = compare("<=", column + plan.width, self.c.columns)
            whole = fits if whole is None else whole & fits
        if whole is None:
            self._from_registers(self.pixel_strides, sums, tile, column)
            return
        with body.when(whole):
            self._from_registers(self.pixel_strides, sums, tile, column)
        with body.otherwise():
            self._through_memory(sums, tile, stop, start, column)

    def _from_registers(
        self, steps: dict[int, int], sums: list[list[Variable]], tile: Expression, first: Expression
    ) -> None:
        """The epilogue for each accumulator where it is; the tile is whole."""
        strides, lead = self._flat_strides(steps)
        for v in range(self.plan.vectors):
            count = None
            if self.plan.blocks == 1 and (v + 1) * self.plan.lanes > self.c.columns:
                if v * self.plan.lanes >= self.c.columns:
                    continue
                count = self.c.columns - v * self.plan.lanes
            column = self.column(first + v * self.plan.lanes)
            for p, accumulators in enumerate(sums):
                index = [*lead, tile + p, column]
                self.epilogue.write(self.body, accumulators[v], strides, index, len(index) - 1, count, self.out)

    def _flat_strides(self, steps: dict[int, int]) -> tuple[dict[int, tuple[int, ...]], list[Expression]]:
        """Strides of each value by group, pixel and column, and the group's part of an index for them."""
        apart = [g for g in self.c.groups if g.out[0] != self.c.out_column]
        strides = {
            i: (*(self.epilogue.strides[i][g.out[0]] for g in apart), step, self.epilogue.strides[i][self.c.out_column])
            for i, step in steps.items()
        }
        return strides, [e for g, e in zip(self.c.groups, self.group, strict=True) if g.out[0] != self.c.out_column]

    def _through_memory(
        self, sums: list[list[Variable]], tile: Expression, stop: Expression, start: Sequence[Expression], column: Expression
    ) -> None:
        """The epilogue pixel by pixel, from a small array in memory: tiles that are cut off, results laid out in any way."""
        body, plan = self.body, self.plan
        kept = body.array("kept", self.c.dtype, len(sums) * plan.width)
        for pixel, accumulators in enumerate(sums):
            for v, accumulator in enumerate(accumulators):
                body.store(kept, pixel * plan.width + v * plan.lanes, accumulator)
        position = cursor(body, self.axes, start)
        count = body.let("count", least(stop - tile, len(sums)))
        with body.loop("p", 0, count) as p:
            for v in range(plan.vectors):
                self._vector(kept, p, v, position, column)
            position.advance()
        if self.planes is not None:
            self.planes.store(kept, tile, count, start, column)

    def _vector(self, kept: Pointer, p: Expression, v: int, position: Cursor, first: Expression) -> None:
        """One vector of a pixel."""
        body, c, plan = self.body, self.c, self.plan
        column = body.let("at", first + v * plan.lanes)

        def write(count: Operand | None) -> None:
            value = body.let("sum", load(kept, p * plan.width + v * plan.lanes, plan.lanes))
            index = self._index([position.batch, *position.position], column)
            if self.planes is None:
                self.epilogue.apply(body, value, index, c.out_column, count, self.out)
                return
            strides = {i: tuple(s) for i, s in self.epilogue.strides.items()}
            value = self.epilogue.value(body, value, strides, index, c.out_column, count)
            body.store(kept, p * plan.width + v * plan.lanes, value)

        if c.columns % plan.width == 0:
            write(None)
            return
        with body.when(compare("<", column, c.columns)):
            ragged = c.columns % plan.lanes != 0
            write(body.let("count", least(literal(c.columns) - column, plan.lanes)) if ragged else None)

    def _index(self, position: Sequence[Expression], column: Expression) -> list[Expression]:
        """The logical index in the result of a pixel (batch, then axes) and a column of the group."""
        c = self.c
        index: dict[int, Expression] = {c.out_column: self.column(column), c.out_axes[0]: position[0]}
        for number, (axis, place, at) in enumerate(zip(c.axes, self.axes, position[1:], strict=True)):
            index[c.out_axes[number + 1]] = at * axis.out_step + place.start
        for g, e in zip(c.groups, self.group, strict=True):
            if g.out[0] != c.out_column:
                index[g.out[0]] = e
        return [index[axis] for axis in sorted(index)]
