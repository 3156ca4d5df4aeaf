"""What convolutions, transposed convolutions and matrix products have in common, as data.

Each is a sum over taps and channels for every *pixel* (a place in the result, whatever its number of axes) and *column*
(an output channel)::

    out[n, p, k] = sum over t, c of x[n, position(p, t), c] * w[t, c, k]

Along one axis a pixel reads at ``p * step + shift + i * tap_shift`` for its taps i = 0, 1, ...  A transposed convolution with
stride s is s such convolutions along each axis: outputs whose place has the same remainder use the same taps, so that nothing
is multiplied by zeros.  Those are the :class:`Residue` of an axis; all other axes have a single one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from irconv.types import DType


@dataclass(frozen=True, slots=True)
class Residue:
    """Outputs ``start + q * out_step`` (q < ``count``) along an axis, which share their taps.

    first_tap: the first of ``taps`` in the weight; ``shift``: where in the input that tap falls for q = 0.
    """

    start: int
    count: int
    first_tap: int
    taps: int
    shift: int


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of pixels other than the first.

    size:     of the input.
    step:     input elements from one output of a residue to the next.
    out_step: outputs from one of a residue to the next.
    tap_step, tap_shift: from one tap of a residue to the next, in the weight and in the input.
    """

    size: int
    step: int
    out_step: int
    tap_step: int
    tap_shift: int
    residues: tuple[Residue, ...]

    @property
    def only(self) -> Residue:
        """The single residue of all axes but those of a transposed convolution with a stride."""
        return self.residues[0]

    @property
    def most_taps(self) -> int:
        return max(r.taps for r in self.residues)

    @property
    def outputs(self) -> int:
        return sum(r.count for r in self.residues)

    @property
    def is_inside(self) -> bool:
        """Whether no tap falls outside the input."""
        for r in self.residues:
            ends = (r.shift, r.shift + (r.taps - 1) * self.tap_shift)
            if r.taps and r.count and (min(ends) < 0 or max(ends) + (r.count - 1) * self.step >= self.size):
                return False
        return True


@dataclass(frozen=True, slots=True)
class Group:
    """An axis along which independent contractions are repeated (groups of channels, batches of matrices).

    x, w: element strides.  ``out``: by which of the result's axes it moves, and how far: (axis, indices per group).
    """

    count: int
    x: int
    w: int
    out: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Contraction:
    """A contraction of x and w with one element type.

    batch:      places along the first pixel axis, a run-time number: the code does not depend on it.
    axes:       the other pixel axes.
    channels, columns: per group.
    x_strides:  of the first pixel axis, then of ``axes``; x_channel: from one channel to the next.
    w_taps, w_channel, w_column: element strides of the weight.
    out_axes:   the result's axes of batch and ``axes``; out_column: that of the columns.
    outer:      whether the count of the first group is a run-time number too (a batch of matrices).
    long:       whether the number of channels is (the sum is over a batch).
    """

    name: str
    dtype: DType
    batch: int
    axes: tuple[Axis, ...]
    channels: int
    columns: int
    x_strides: tuple[int, ...]
    x_channel: int
    w_taps: tuple[int, ...]
    w_channel: int
    w_column: int
    out_axes: tuple[int, ...]
    out_column: int
    groups: tuple[Group, ...] = ()
    outer: bool = False
    long: bool = False

    @property
    def places(self) -> int:
        """Outputs per batch entry (of the residue that has most)."""
        return math.prod(max(r.count for r in axis.residues) for axis in self.axes)

    @property
    def taps(self) -> int:
        """Taps of the weight."""
        return math.prod(sum(r.taps for r in axis.residues) for axis in self.axes)

    @property
    def most_taps(self) -> int:
        """Taps of the residue that has most."""
        return math.prod(axis.most_taps for axis in self.axes)

    @property
    def is_inside(self) -> bool:
        return all(axis.is_inside for axis in self.axes)

    @property
    def has_residues(self) -> bool:
        return any(len(axis.residues) > 1 for axis in self.axes)

    @property
    def group_count(self) -> int:
        return math.prod(g.count for g in self.groups)


def forward_axis(size: int, count: int, taps: int, stride: int, dilation: int, before: int) -> Axis:
    """An axis of a convolution."""
    return Axis(size, stride, 1, 1, dilation, (Residue(0, count, 0, taps, -before),))


def transposed_axis(size: int, count: int, taps: int, stride: int, dilation: int, before: int) -> Axis:
    """An axis of a transposed convolution: out[j] collects x[p] w[t] where p * stride + t * dilation = j + before."""
    common = math.gcd(stride, dilation)
    period = stride // common
    found = []
    for remainder in range(stride):
        start = (remainder - before) % stride
        places = max(0, -(-(count - start) // stride))
        tap = next((t for t in range(min(period, taps)) if (t * dilation - remainder) % stride == 0), None)
        if tap is None:
            found.append(Residue(start, places, 0, 0, 0))
        else:
            shift = (start + before - tap * dilation) // stride
            found.append(Residue(start, places, tap, -(-(taps - tap) // period), shift))
    return Axis(size, 1, stride, period, -(period * dilation // stride), tuple(found))


def linear(counts: Sequence[int], strides: Sequence[int]) -> int | None:
    """The stride of all axes read as one, the first of which may be of any length; None where they cannot be.

    ``strides`` has one more entry than ``counts``: that of the first axis.
    """
    step: int | None = None
    reach = 1
    for count, stride in zip(reversed(counts), reversed(strides[1:]), strict=True):
        if count == 1:
            continue
        if step is None:
            step = stride
        elif stride != step * reach:
            return None
        reach *= count
    if step is None:
        return strides[0]
    return step if strides[0] == step * reach else None
