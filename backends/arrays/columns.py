"""Window matrices for blocks of samples, channels and rows: what the convolution kernels multiply.

A *band* is a range of windows along the first spatial axis.  ``fill`` copies the windows of a band into columns laid out
[channels, taps, samples, *windows of the band], so that the block is a matrix [channels taps, samples windows].

Given a temporary for the padded input of the band, it copies all taps in one call, through a view whose windows overlap.
Tap by tap, the many short calls of two threads wait for each other's turn at the interpreter: 49 taps of a 7x7 kernel took
100 us on one thread and 206 us each on two; one call takes 57 us on either.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from irconv.backends.arrays.base import Array, spans
from irconv.backends.arrays.taps import Slices, Tap, window_taps
from irconv.ops.window import Ints, Pairs


@dataclass(frozen=True)
class Band:
    """Windows ``start`` to ``stop`` along the first spatial axis.

    counts: windows of the band along each axis.
    taps:   which of them read inside the input, and where.
    blanks: (tap, windows of the band) that read padding.
    plane:  the padded input that its windows read; None for windows of a single element.
    """

    start: int
    stop: int
    counts: Ints
    taps: tuple[Tap, ...]
    blanks: tuple[tuple[int, Slices], ...]
    plane: Plane | None = None

    @property
    def area(self) -> int:
        """How many windows the band has."""
        return math.prod(self.counts)


@dataclass(frozen=True)
class Plane:
    """The padded input of a band as single elements, and how the band's windows step through it."""

    elements: Band
    kernel: Ints
    stride: Ints
    dilation: Ints


def plane_elements(all_bands: Iterable[Band]) -> int:
    """The most elements that the input of a band with padding has, for each channel and sample: what ``fill`` needs room for."""
    planes = (band.plane.elements for band in all_bands if band.plane is not None)
    return max((elements.area for elements in planes if elements.blanks), default=0)


def bands(
    size: Ints, counts: Ints, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints, rows: int
) -> tuple[Band, ...]:
    """The windows of an input of spatial ``size`` in bands of at most ``rows``."""
    found = []
    for start, stop in spans(counts[0], rows):
        shape = (stop - start, *counts[1:])
        # the band's first window starts this much later
        first = (padding[0][0] - start * stride[0], padding[0][1])
        taps = window_taps(size, shape, kernel, stride, (first, *padding[1:]), dilation)
        blanks = _blanks(taps, shape, math.prod(kernel))
        plane = None
        if math.prod(kernel) > 1:
            elements = padded_plane(size, shape, kernel, stride, (first, *padding[1:]), dilation)
            plane = Plane(elements, tuple(kernel), tuple(stride), tuple(dilation))
        found.append(Band(start, stop, shape, tuple(taps), blanks, plane))
    return tuple(found)


def _blanks(taps: Sequence[Tap], counts: Ints, tap_count: int) -> tuple[tuple[int, Slices], ...]:
    """What the taps leave out, as slabs that do not overlap."""
    found: list[tuple[int, Slices]] = []
    everything = tuple(slice(0, count) for count in counts)
    present = {tap.index: tap for tap in taps}
    for index in range(tap_count):
        if index not in present:
            found.append((index, everything))
            continue
        inside = present[index].windows
        for axis, (part, count) in enumerate(zip(inside, counts, strict=True)):
            slabs = (slice(0, part.start), slice(part.stop, count))
            front, behind = inside[:axis], everything[axis + 1 :]
            found += [(index, (*front, slab, *behind)) for slab in slabs if slab.start < slab.stop]
    return tuple(found)


def fill(xp: Any, columns: Array, x: Array, band: Band, padding: Any = 0, spare: Array | None = None) -> None:
    """Copy the windows of a band of x [samples, channels, *size] into columns [channels, taps, samples, *counts].

    spare: a flat temporary for the padded input (see :func:`plane_elements`), which makes it one long copy.
    """
    if spare is not None and band.plane is not None and columns.size:
        _fill_at_once(xp, columns, x, band, band.plane, padding, spare)
        return
    source = x.swapaxes(0, 1)
    for index, windows in band.blanks:
        columns[(slice(None), index, slice(None), *windows)] = padding
    for tap in band.taps:
        xp.copyto(
            columns[(slice(None), tap.index, slice(None), *tap.windows)],
            source[(slice(None), slice(None), *tap.positions)],
        )


def _fill_at_once(xp: Any, columns: Array, x: Array, band: Band, plane: Plane, padding: Any, spare: Array) -> None:
    elements, (samples, channels) = plane.elements, x.shape[:2]
    if elements.blanks:
        source = spare[: channels * samples * elements.area].reshape(channels, samples, *elements.counts)
        fill(xp, source.reshape(channels, 1, samples, *elements.counts), x, elements, padding)
    else:
        source = x.swapaxes(0, 1)[(slice(None), slice(None), *elements.taps[0].positions)]
    of_channels, of_samples, *along = source.strides
    shape = (channels, *plane.kernel, samples, *band.counts)
    taps = (s * d for s, d in zip(along, plane.dilation, strict=True))
    steps = (s * step for s, step in zip(along, plane.stride, strict=True))
    windows = xp.lib.stride_tricks.as_strided(source, shape, (of_channels, *taps, of_samples, *steps))
    xp.copyto(columns.reshape(shape), windows, casting="same_kind")


def padded_plane(size: Ints, counts: Ints, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints) -> Band:
    """The input with as much padding as the windows reach, as windows of a single tap."""
    ones = (1,) * len(size)
    rows = zip(counts, kernel, stride, dilation, strict=True)
    extent = tuple((count - 1) * s + d * (k - 1) + 1 for count, k, s, d in rows)
    (plane,) = bands(size, extent, ones, ones, padding, ones, extent[0])
    return plane


@dataclass(frozen=True)
class Piece:
    """A piece of a convolution's result: samples ``first`` to ``last``, and the windows of one band."""

    first: int
    last: int
    band: Band

    @property
    def samples(self) -> int:
        return self.last - self.first

    @property
    def columns(self) -> int:
        """How many columns of the window matrix the piece takes."""
        return self.samples * self.band.area


def pieces(batch: int, all_bands: Sequence[Band], samples: int) -> tuple[Piece, ...]:
    """Every band of every group of at most ``samples`` samples."""
    groups = spans(batch, samples)
    return tuple(Piece(first, last, band) for (first, last), band in itertools.product(groups, all_bands))
