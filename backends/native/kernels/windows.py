"""Sliding windows in generated code: which taps of a window are inside the input, and which windows reach a position.

Along one axis, tap t of window o reads position ``o s + t d - before``; what lies outside ``0 .. stop - 1`` is padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import TRUTH, Expression, Literal, both, compare, literal, select
from irconv.ops.window import Ints


@dataclass(frozen=True)
class Axis:
    """Windows along one axis of ``size`` positions.

    count: how many windows; before, after: padding; stop: positions from here on are not there (negative padding crops).
    """

    size: int
    count: int
    kernel: int
    stride: int
    before: int
    after: int
    dilation: int

    @property
    def stop(self) -> int:
        return self.size + min(self.after, 0)

    @property
    def reach(self) -> int:
        """From the first to the last position of a window."""
        return (self.kernel - 1) * self.dilation

    @property
    def inside(self) -> tuple[int, int]:
        """The windows, first to last + 1, all of whose taps are inside the input."""
        first = min(self.count, max(0, -(-self.before // self.stride)))
        last = min(self.count, (self.stop - 1 - self.reach + self.before) // self.stride + 1)
        return first, max(first, last)

    @property
    def is_whole(self) -> bool:
        """Whether all taps of all windows are inside."""
        return self.inside == (0, self.count)

    @property
    def overlap(self) -> int:
        """The most windows that reach one position (without dilation)."""
        return -(-self.kernel // self.stride)

    @property
    def tiles(self) -> bool:
        """Whether the windows lie side by side from position 0 on, without padding or overhang."""
        return self.kernel == self.stride and self.dilation == 1 and self.before == 0 and self.is_whole


def window_axes(a: Any, size: Ints, counts: Ints) -> tuple[Axis, ...]:
    """The axes of a pool with these attributes over an input of spatial ``size``."""
    rows = zip(size, counts, a.kernel, a.stride, a.padding, a.dilation, strict=True)
    return tuple(Axis(n, count, k, s, before, after, d) for n, count, k, s, (before, after), d in rows)


# --- forward: the taps of a window ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Taps:
    """The taps ``low`` to ``high`` - 1 of a window are inside; tap 0 reads position ``start``."""

    start: Expression
    low: Expression
    high: Expression


def taps_inside(body: Body, axis: Axis, window: Expression) -> Taps:
    """The taps of a window (computed once, as locals)."""
    start = body.let("start", window * axis.stride - axis.before)
    low: Expression = literal(0)
    if axis.before > 0:
        low = body.let("low", select(start < 0, (axis.dilation - 1 - start) // axis.dilation, 0))
    high: Expression = literal(axis.kernel)
    if (axis.count - 1) * axis.stride - axis.before + axis.reach >= axis.stop:
        left = body.let("left", (axis.stop - start + (axis.dilation - 1)) // axis.dilation)
        high = body.let("high", select(start >= axis.stop, 0, smaller(left, axis.kernel)))
    return Taps(start, low, high)


def counted_taps(body: Body, axis: Axis, taps: Taps, with_padding: bool) -> Expression:
    """How many taps an average divides by along this axis (see :func:`irconv.ops.pool.pool_divisors`)."""
    if not with_padding:
        return body.let("counted", larger(taps.high - taps.low, 0))
    stop = axis.size + axis.after
    if (axis.count - 1) * axis.stride - axis.before + axis.reach < stop:
        return literal(axis.kernel)
    left = body.let("left", (stop - taps.start + (axis.dilation - 1)) // axis.dilation)
    return body.let("counted", larger(smaller(left, axis.kernel), 0))


def smaller(a: Expression, bound: int) -> Expression:
    """The smaller of an index and a number."""
    return select(a < bound, a, bound)


def larger(a: Expression, bound: int) -> Expression:
    """The larger of an index and a number."""
    return select(a > bound, a, bound)


def row_major_index(places: Sequence[Expression], extents: Sequence[int]) -> Expression:
    """The row-major number of a place."""
    total: Expression = literal(0)
    for place, extent in zip(places, extents, strict=True):
        total = place + total * extent
    return total


# --- backward: the windows over a position ---------------------------------------------------------------------------------


@contextmanager
def windows_over(body: Body, axis: Axis, position: Expression) -> Iterator[tuple[Expression, Expression]]:
    """Statements to run for each (tap, window) along an axis with which a window reaches the position; taps ascend."""
    if axis.dilation > 1:
        with body.loop("tap", 0, axis.kernel) as tap:
            place = body.let("place", position + axis.before - tap * axis.dilation)
            window = body.let("window", place // axis.stride)
            reached = [place >= 0, compare("==", place % axis.stride, 0), window < axis.count]
            with body.when(all_of([*reached, *_not_cropped(axis, position)])):
                yield tap, window
        return
    place = body.let("place", position + axis.before)
    last = body.let("last_window", place // axis.stride)
    first = body.let("first_tap", place - last * axis.stride)
    # turn j has tap ``first + j s`` and window ``last - j``
    low = body.let("low", larger(last - (axis.count - 1), 0))
    turns = body.let("turns", (axis.kernel - 1 - first + axis.stride) // axis.stride)
    high = body.let("high", select(last + 1 < turns, last + 1, turns))
    if axis.before < 0:
        high = select(place < 0, 0, high)
    for condition in _not_cropped(axis, position):
        high = select(condition, high, 0)
    with body.loop("turn", low, high) as turn:
        yield first + turn * axis.stride, last - turn


def full_steps(axis: Axis) -> tuple[int, int]:
    """The steps q, first to last + 1, at which no window and no position is missing.

    The positions ``q s - before`` to ``q s - before + s - 1`` lie under the windows ``q``, ``q - 1``, ...
    """
    first = max(axis.overlap - 1, -(-axis.before // axis.stride))
    last = min(axis.count, (axis.stop + axis.before) // axis.stride)
    return first, max(first, last)


def taps_over(axis: Axis, phase: int) -> list[int]:
    """The taps that reach position ``q s - before + phase``: tap ``phase + j s`` is one of window ``q - j``."""
    return list(range(phase, axis.kernel, axis.stride))


def _not_cropped(axis: Axis, position: Expression) -> list[Expression]:
    return [position < axis.stop] if axis.stop < axis.size else []


def all_of(conditions: Sequence[Expression]) -> Expression:
    """Whether all truth values hold."""
    total: Expression = Literal(True, TRUTH)
    for number, condition in enumerate(conditions):
        total = condition if number == 0 else both(total, condition)
    return total


@contextmanager
def nested(blocks: Sequence[Any]) -> Iterator[list[Any]]:
    """Several ``with`` blocks, one inside the other, and what each gives."""
    with ExitStack() as stack:
        yield [stack.enter_context(block) for block in blocks]
