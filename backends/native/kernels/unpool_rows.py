"""The way back through windows side by side, for whole rows of channels-last values: vectors run on from window to window.

With 6 channels a vector of 16 would be mostly empty.  But the channels of all windows of a row follow each other, as do those of
all positions, so that each vector of positions takes its lanes from one vector of windows: in an order that repeats after a
few windows, a *group*.  Element e of a row of positions belongs to channel e mod C of window e / (C k), and is the tap
(e / C) mod k of that window along the row.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import Expression, Literal, Type, compare, literal, select
from irconv.backends.codegen.lanes import shuffle
from irconv.backends.native.kernels.folds import number_like
from irconv.backends.native.kernels.places import Place
from irconv.backends.native.kernels.windows import Axis
from irconv.types import DType

MOST_VECTORS = 12
"""Groups of more vectors than this are not written out."""


@dataclass(frozen=True)
class RunningRows:
    """Rows of windows to be written; ``operands``: what the windows give, and which tap gets it (without: all of them).

    divisor: of what a window gives.
    """

    axes: tuple[Axis, ...]
    channels: int
    lanes: int
    dtype: DType
    out: Place
    operands: list[Place]
    divisor: int

    @property
    def wide(self) -> int:
        """The extent of a window along the row."""
        return self.axes[-1].kernel

    @property
    def group(self) -> int:
        """Windows of a group: their positions are whole vectors."""
        return self.lanes // math.gcd(self.lanes, self.wide * self.channels)

    @property
    def is_possible(self) -> bool:
        """Whether everything lies dense, and vectors of channels would not be full."""
        dense = all(place.strides[1] == 1 and place.strides[-1] == self.channels for place in (self.out, *self.operands))
        total = self.group * self.wide * self.channels
        if not dense or self.lanes == 1 or self.channels % self.lanes == 0 or total > MOST_VECTORS * self.lanes:
            return False
        vectors = (self._sources(first, self.lanes) for first in range(0, total, self.lanes))
        return all(max(sources) - min(sources) < self.lanes for sources in vectors)

    def _sources(self, first: int, there: int) -> list[int]:
        """Where among what the windows of a group give the positions from ``first`` on find theirs, lane by lane."""
        lanes = (min(first + lane, first + there - 1) for lane in range(self.lanes))
        return [e // (self.wide * self.channels) * self.channels + e % self.channels for e in lanes]

    def write(self, body: Body, sources: Sequence[Expression], target: Expression) -> None:
        """A row of windows, from the offsets of its operands and of its first position."""
        group, count = min(self.group, self.axes[-1].count), self.axes[-1].count
        whole = count // group * group
        with body.loop("column", 0, whole, group) as column:
            self._group(body, sources, target, column, group)
        if whole < count:
            self._group(body, sources, target, literal(whole), count - whole)

    def _group(
        self, body: Body, sources: Sequence[Expression], target: Expression, column: Expression, windows: int
    ) -> None:
        starts = [body.let("start", source + column * self.channels) for source in sources]
        place = body.let("place", target + column * (self.wide * self.channels))
        total = windows * self.wide * self.channels
        outer = list(itertools.product(*(range(axis.kernel) for axis in self.axes[:-1])))
        for first in range(0, total, self.lanes):
            there = min(self.lanes, total - first)
            value, chosen = self._windows(body, starts, first, there, windows)
            for number, tap in enumerate(outer):
                offset = sum(t * s for t, s in zip(tap, self.out.strides[2:-1], strict=True))
                part = value if chosen is None else self._part(body, value, chosen, first, number)
                self.out.store(body, place + (offset + first), literal(0), part, there if there < self.lanes else None)

    def _windows(
        self, body: Body, starts: Sequence[Expression], first: int, there: int, windows: int
    ) -> tuple[Expression, Expression | None]:
        """What the windows give to the positions from ``first`` on, and the taps that get it."""
        type_ = Type(self.dtype, self.lanes)
        indices = self._sources(first, there)
        low = min(indices)
        left = min(self.lanes, windows * self.channels - low)
        count = None if left == self.lanes else left
        order = [index - low for index in indices]
        d = body.let("d", self.operands[0].load(starts[0] + low, literal(0), self.lanes, count))
        if len(self.operands) == 1:
            d = body.let("share", d / number_like(literal(self.divisor), type_))
            return body.let("spread", shuffle(d, d, order)), None
        chosen = body.let("chosen", self.operands[1].load_taps(starts[1] + low, literal(0), type_, count))
        return body.let("spread", shuffle(d, d, order)), body.let("taps", shuffle(chosen, chosen, order))

    def _part(self, body: Body, value: Expression, chosen: Expression, first: int, row: int) -> Expression:
        """The values where their tap is the position's own, zeros elsewhere; ``row``: of the window."""
        along = [(first + lane) // self.channels % self.wide for lane in range(self.lanes)]
        own: Expression = Literal(row * self.wide + along[0], chosen.type)
        for tap in sorted(set(along) - {along[0]}):
            other = Literal(row * self.wide + tap, chosen.type)
            own = body.let("own", shuffle(own, other, [self.lanes + i if t == tap else i for i, t in enumerate(along)]))
        return body.let("part", select(compare("==", chosen, own), value, Literal(0, value.type)))
