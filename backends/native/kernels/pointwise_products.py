"""The products of a strip of pixels for a weight gradient: tiles of broadcast channels times vectors of the other side's.

While a tile passes over its strip it asks memory for some of the next one.  By itself a processor looks only a few hundred
instructions ahead: making a strip would wait for memory, and memory for the products.  With it both gradients of MobileNet-V2's
large layers took 0.7 to 0.95 of the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import Expression, Pointer, Type, literal, load, splat
from irconv.backends.native.kernels.pointwise_sides import Image
from irconv.backends.native.kernels.weight_gradient_plan import Plan
from irconv.types import DType

FETCHED_LINES = 4
"""Cache lines of a pixel from which on an image is asked for: processors foresee the others."""


@dataclass(frozen=True)
class Products:
    """Writes the sums over a strip.

    wide, narrow: where the strip begins on the vectors' side and on the broadcast side, and elements from pixel to pixel.
    strip:  pixels of a strip;  ``images``: what the next one is made of.
    """

    dtype: DType
    plan: Plan
    wide: tuple[Pointer, int]
    narrow: tuple[Pointer, int]
    strip: int
    images: Sequence[Image]

    def add(self, body: Body, sums: Pointer, goes_on: Expression, start: Expression, count: Expression) -> None:
        """Add ``count`` pixels, the first of which is number ``start``, to ``sums``, or begin those unless it ``goes_on``."""
        plan = self.plan
        wanted = [image for image in self.images if image.step >= FETCHED_LINES * image.line]
        following = [(body.pointer("following", image.pointer, (start + self.strip) * image.step), image) for image in wanted]
        with body.loop("block", 0, plan.blocks) as block:
            wide = body.pointer("wide", self.wide[0], block * plan.width)
            for tile, first, rows in self._tiles(body):
                target = body.pointer("sums", sums, (block * plan.run + first) * plan.width)
                narrow = body.pointer("narrow", self.narrow[0], first)
                turn = body.let("turn", (block * plan.tiles + tile) * self.strip)
                self._tile(body, rows, target, goes_on, (wide, narrow), count, turn, following)

    def _tiles(self, body: Body) -> Iterator[tuple[Expression, Expression, int]]:
        """Loops over the tiles of a block, the larger ones first: the number of a tile, its first row, its rows."""
        small, large = divmod(self.plan.run, self.plan.tiles)
        for rows, low, high in ((small + 1, 0, large), (small, large, self.plan.tiles)):
            if low < high:
                with body.loop("tile", low, high) as tile:
                    yield tile, body.let("first_row", tile * rows + (large if rows == small else 0)), rows

    def _tile(
        self,
        body: Body,
        rows: int,
        target: Pointer,
        goes_on: Expression,
        places: tuple[Pointer, Pointer],
        count: Expression,
        turn: Expression,
        following: Sequence[tuple[Pointer, Image]],
    ) -> None:
        """The sums of one tile, in registers."""
        plan, vectors = self.plan, range(self.plan.vectors)
        wide, narrow = places
        zero = literal(0, Type(self.dtype, plan.lanes))
        sums = [[body.variable(f"s{r}_{v}", zero) for v in vectors] for r in range(rows)]
        with body.when(goes_on):
            for r, line in enumerate(sums):
                for v in vectors:
                    body.assign(line[v], load(target, r * plan.width + v * plan.lanes, plan.lanes))
        with body.loop("p", 0, count) as p:
            for pointer, image in following:
                self._ask(body, pointer, image, turn + p)
            across = [body.let(f"wide_{v}", load(wide, p * self.wide[1] + v * plan.lanes, plan.lanes)) for v in vectors]
            for r, line in enumerate(sums):
                factor = splat(body.let("factor", load(narrow, p * self.narrow[1] + r)), plan.lanes)
                for v in vectors:
                    body.assign(line[v], line[v] + factor * across[v])
        for r, line in enumerate(sums):
            for v in vectors:
                body.store(target, r * plan.width + v * plan.lanes, line[v])

    def _ask(self, body: Body, following: Pointer, image: Image, turn: Expression) -> None:
        """Ask for what falls to a turn, a pixel of a tile, of what all tiles take for a strip; some ask for the same line."""
        share = -(-image.step // (self.plan.blocks * self.plan.tiles))
        for at in range(0, share, image.line):
            body.prefetch(following, turn * share + at, far=True)
