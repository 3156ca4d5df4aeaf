"""Writing a tile of results where columns lie far apart and pixels are neighbours: row-major images.

The tile comes from a small array, ``[pixel][column]``, and is transposed on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from irconv.backends.codegen.access import element_offset
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import Expression, Pointer, Type, compare, literal, load
from irconv.backends.codegen.statements import TransposeTile
from irconv.backends.native.kernels.contraction import Contraction, linear
from irconv.backends.native.kernels.packing import least
from irconv.backends.native.kernels.plan import Plan


def is_planar(c: Contraction, strides: Sequence[int]) -> bool:
    """Whether results of these strides, by axis, have all pixels of an image and column one after the other."""
    if not c.axes or c.has_residues or strides[c.out_column] == 1:
        return False
    return linear([axis.outputs for axis in c.axes[1:]], [strides[axis] for axis in c.out_axes[1:]]) == 1


@dataclass(frozen=True)
class PlaneStore:
    """What is needed to write tiles.

    index: the logical index of a position (batch, then axes) and column; ``column``: of the group's column in the result.
    """

    body: Body
    c: Contraction
    plan: Plan
    out: Pointer
    strides: Sequence[int]
    index: Callable[[Sequence[Expression], Expression], Sequence[Expression]]

    def store(
        self, kept: Pointer, tile: Expression, count: Expression, start: Sequence[Expression], column: Expression
    ) -> None:
        """Write ``count`` pixels from ``tile`` at ``start`` on, for the columns of a block from ``column`` on."""
        body, c = self.body, self.c
        whole = compare("<=", tile - start[0] * c.places + count, c.places)
        with body.when(whole):
            for v in range(self.plan.vectors):
                self._vector(kept, v, count, start, column)
        with body.otherwise():
            self._each(kept, tile, count, column)

    def _vector(
        self, kept: Pointer, v: int, count: Expression, start: Sequence[Expression], column: Expression
    ) -> None:
        """A vector's columns; all pixels lie in one image."""
        body, plan, c = self.body, self.plan, self.c
        first = body.let("at", column + v * plan.lanes)

        def write(rows: Expression | None) -> None:
            place = body.let("place", element_offset(self.strides, self.index(start, first)))
            step = literal(self.strides[c.out_column])
            type_ = Type(c.dtype, plan.lanes)
            source = literal(v * plan.lanes)
            for p in range(0, plan.pixels, plan.lanes):
                columns = least(count - p, plan.lanes) if plan.pixels > p + plan.lanes else count - p
                tile = TransposeTile(
                    self.out, place + p, step, kept, source + p * plan.width, literal(plan.width), type_, rows, columns
                )
                with body.when(compare("<", literal(p), count)):
                    body.add(tile)

        if c.columns % plan.width == 0:
            write(literal(plan.lanes))
            return
        with body.when(compare("<", first, c.columns)):
            write(body.let("rows", least(literal(c.columns) - first, plan.lanes)))

    def _each(self, kept: Pointer, tile: Expression, count: Expression, column: Expression) -> None:
        """Element by element: the tile goes on in the next image."""
        body, c, plan = self.body, self.c, self.plan
        columns = body.let("columns", least(literal(c.columns) - column, plan.width))
        with body.loop("p", 0, count) as p:
            pixel = body.let("pixel", tile + p)
            image = body.let("image", pixel // c.places)
            position = [image, *([literal(0)] * (len(c.axes) - 1)), pixel % c.places]
            place = body.let("place", element_offset(self._flat(), self.index(position, column)))
            with body.loop("column", 0, columns) as k:
                body.store(self.out, place + k * self.strides[c.out_column], load(kept, p * plan.width + k))

    def _flat(self) -> list[int]:
        """Strides with which the last axis counts all pixels of an image."""
        strides = list(self.strides)
        strides[self.c.out_axes[-1]] = 1
        return strides
