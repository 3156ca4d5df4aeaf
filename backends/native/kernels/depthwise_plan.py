"""What the kernels of depthwise convolutions have in common: the layer, its rows, and the tiles of a row.

Work goes by rows of the result.  The taps along all axes but the last give a list of input rows (padding is left out); along
the last axis a tile of pixels stays in registers, so that an input is loaded once for all the taps that see it.  At the ends
of a row the taps that fall into padding are left out when the code is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from irconv.backends.codegen.access import gather
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import Expression, Pointer, both, call, compare, literal, load
from irconv.backends.codegen.machine import Machine
from irconv.backends.native.kernels.contraction import Axis, Residue
from irconv.strides import Strides
from irconv.types import DType

MOST_BORDERS = 6
"""Tiles of a row that differ from the others, and have code of their own."""

MOST_PRODUCTS = 256
"""Multiplications of a tile for one outer tap, so that code stays short."""

MOST_OUTER_TAPS = 1024

FEWEST_TAPS = 9
"""A layer with fewer takes no less time: it waits for memory."""


@dataclass(frozen=True)
class Outer:
    """An axis other than the last: input ``p stride + t dilation - before`` for tap t, or, transposed, the p that lead there."""

    size: int
    count: int
    taps: int
    stride: int
    dilation: int
    before: int
    transposed: bool

    @classmethod
    def along(cls, transposed: bool, *parameters: Sequence[int]) -> tuple[Outer, ...]:
        """All axes, from the values of each field but the last for every axis."""
        every = zip(*parameters, strict=True)
        return tuple(cls(n, count, k, s, d, before, transposed) for n, count, k, s, d, before in every)

    def seen(self, place: Expression, tap: Expression) -> tuple[Expression, Expression]:
        """Where an output sees the input at a tap, and whether that is inside."""
        if not self.transposed:
            at = place * self.stride + (tap * self.dilation - self.before)
            return at, both(at >= 0, at < self.size)
        scaled = place + self.before - tap * self.dilation
        inside = both(scaled >= 0, scaled < self.size * self.stride)
        if self.stride > 1:
            inside = both(inside, compare("==", scaled % self.stride, 0))
        return scaled // self.stride, inside


@dataclass(frozen=True)
class Layer:
    """A depthwise convolution: outer axes, the last axis, and element strides.

    ring: rows of the first outer axis that are in memory at a time, each in the place of the one so many before; 0: all.
    """

    dtype: DType
    batch: int
    channels: int
    outer: tuple[Outer, ...]
    last: Axis
    width: int
    x_strides: Strides
    w_strides: Strides
    ring: int = 0

    @property
    def rows(self) -> int:
        """Rows of a sample."""
        return math.prod(axis.count for axis in self.outer)

    @property
    def outer_taps(self) -> int:
        return math.prod(axis.taps for axis in self.outer)

    def padded(self, lanes: int) -> int:
        """Weights of a tap, as they are packed."""
        return max(self.channels, lanes)


def pixels_of(layer: Layer, residue: Residue, machine: Machine) -> int:
    """Pixels of a tile: what registers hold beside the weights of a row of taps, evenly."""
    most = 14 if machine.registers >= 32 else 7
    most = max(1, min(most, MOST_PRODUCTS // max(1, residue.taps)))
    tiles = max(1, -(-residue.count // most))
    return max(1, -(-residue.count // tiles))


@dataclass(frozen=True)
class Tile:
    """``pixels`` outputs of a residue from ``start`` on, which may begin ``turns`` times, tile after tile."""

    start: int
    pixels: int
    turns: int = 1


def _is_inside(layer: Layer, residue: Residue, start: int, pixels: int) -> bool:
    axis = layer.last
    reach = (residue.taps - 1) * axis.tap_shift
    low = start * axis.step + residue.shift + min(0, reach)
    return low >= 0 and (start + pixels - 1) * axis.step + residue.shift + max(0, reach) < axis.size


def tiles_of(layer: Layer, residue: Residue, machine: Machine) -> list[Tile]:
    """The tiles of a row, those alike in one loop."""
    pixels = pixels_of(layer, residue, machine)
    found: list[Tile] = []
    was_inside = False
    for start in range(0, residue.count, pixels):
        size = min(pixels, residue.count - start)
        inside = size == pixels and _is_inside(layer, residue, start, size)
        if inside and was_inside:
            found[-1] = Tile(found[-1].start, pixels, found[-1].turns + 1)
        else:
            found.append(Tile(start, size))
        was_inside = inside
    return found


def has_code(layer: Layer, machine: Machine) -> bool:
    """Whether the code of a row is short enough to be written out."""
    if layer.outer_taps > MOST_OUTER_TAPS:
        return False
    return all(
        residue.taps <= MOST_PRODUCTS and len(tiles_of(layer, residue, machine)) <= MOST_BORDERS
        for residue in layer.last.residues
    )


def uses_of(layer: Layer, residue: Residue, tile: Tile) -> dict[int, list[tuple[int, int]]]:
    """For each place of the input that a tile sees: the pixels and taps for which it does."""
    axis = layer.last
    found: dict[int, list[tuple[int, int]]] = {}
    for pixel in range(tile.pixels):
        for t in range(residue.taps):
            position = (tile.start + pixel) * axis.step + residue.shift + t * axis.tap_shift
            if 0 <= position < axis.size:
                found.setdefault(position, []).append((pixel, t))
    return dict(sorted(found.items()))


@contextmanager
def rows_seen(
    body: Body, layer: Layer, sample: Expression, places: Sequence[Expression]
) -> Iterator[tuple[Expression, Expression, Expression]]:
    """Statements for each input row that an output row sees: its offset, the number of its outer tap, and how many came before.

    After them, the last tells how many rows there were.
    """
    seen = body.variable("seen", literal(0))
    with ExitStack() as loops:
        number: Expression = literal(0)
        offset: Expression = sample * layer.x_strides[0]
        for axis, place, stride in zip(layer.outer, places, layer.x_strides[2:-1], strict=True):
            tap = loops.enter_context(body.loop("tap", 0, axis.taps))
            at, inside = axis.seen(place, tap)
            loops.enter_context(body.when(inside))
            offset = offset + (at % layer.ring if layer.ring else at) * stride
            number = number * axis.taps + tap
        yield offset, number, seen
        body.assign(seen, seen + 1)


def output_row(body: Body, layer: Layer, row: Expression) -> tuple[Expression, list[Expression]]:
    """The sample of a row and its places along the outer axes."""
    sample, rest = body.let("sample", row // layer.rows), row % layer.rows
    places = []
    for i, axis in enumerate(layer.outer):
        inner = math.prod(other.count for other in layer.outer[i + 1 :])
        places.append(body.let("place", rest // inner % axis.count))
    return sample, places


def load_channels(
    layer: Layer, stride: int, pointer: Pointer, offset: Expression, channel: Expression, lanes: int
) -> Expression:
    """A vector of channels; where there are fewer than lanes, zeros after them."""
    count = None if layer.channels >= lanes else layer.channels
    if stride == 1:
        return load(pointer, offset + channel, lanes, count)
    return gather(pointer, offset + channel * stride, stride, lanes, count)


def first_channel(body: Body, layer: Layer, vector: Expression, lanes: int) -> Expression:
    """The first channel of a vector: the last vector repeats some channels of the one before, so that it is full."""
    channel = vector * lanes
    if layer.channels % lanes and layer.channels > lanes:
        channel = call("smaller", channel, layer.channels - lanes)
    return body.let("channel", channel)
