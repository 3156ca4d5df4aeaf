"""Weight gradients of few output channels: when to put the taps of a line beside the channels in a vector, and how to cut them.

With 6 outputs a vector of 16 of them is mostly padding.  But the numbers of d that a number of x meets at all taps along the last
axis are neighbours where d's channels lie last: for x at place q, tap k meets d at place q + before - k.  So vectors run along
(tap, output), which is 30 of 32 lanes for 5 taps and 6 outputs, and rows are broadcast x, one for each outer tap and channel::

    dW[., i, ., taps - 1 - j / outputs] [j % outputs] += x[q, i] * line[(q + ...) * outputs + j]

where ``line`` is a line of d with zeros at both ends.  Time of the usual way over this one's, 1 to 6 channels of 28 x 28, windows
of 5 x 5, one thread with AVX-512: 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from irconv.backends.codegen.machine import Machine
from irconv.backends.native.kernels.weight_gradient_plan import (
    CHUNK_BYTES,
    SUM_ELEMENTS,
    Cut,
    Plan,
    Problem,
    chunk,
    most_splits,
    wanted_tasks,
)

GAIN, WORTH_A_TRY = 0.8, 1.2
"""The usual way is left where this one takes less than so much of it, and measured against it up to so much."""

LATENCY = 8
"""Multiplications that are under way at once: a tile of fewer takes as long."""

MOST_ZEROS = 4096
"""Elements that a line of zeros may have."""


@dataclass(frozen=True, slots=True)
class Line:
    """An axis of a :class:`Problem`."""

    size: int
    count: int
    taps: int
    stride: int
    before: int
    dilation: int
    x_stride: int
    d_stride: int


@dataclass(frozen=True, slots=True)
class TapPlan:
    """How such a weight gradient is cut.

    rows, line: the axes; ``rows`` of a signal has one element.
    lanes:   of a vector;  ``blocks`` tiles of ``vectors`` cover taps and outputs.
    taps, channels: outer taps and channels of a tile, each row of which is one of both.
    first, places: of a line of x that meet d at all.
    samples, span: of a chunk: so many samples of ``span`` rows.
    share:   of the time of the usual way that it is likely to take.
    """

    rows: Line
    line: Line
    lanes: int
    vectors: int
    blocks: int
    taps: int
    channels: int
    first: int
    places: int
    samples: int
    span: int
    share: float

    @property
    def name(self) -> str:
        """What tells it from other plans of the same problem."""
        return f"taps of a line in lanes, tiles of {self.taps * self.channels} x {self.vectors}"

    @property
    def is_preferred(self) -> bool:
        """Whether it is to be taken without measuring."""
        return self.share < GAIN

    @property
    def width(self) -> int:
        """Elements of a row of sums: taps and outputs, up to a whole vector."""
        return self.lanes * self.vectors * self.blocks

    def line_elements(self, outputs: int) -> int:
        """Elements of a line of d with the zeros at its ends."""
        return (self.places + self.line.taps - 1) * outputs


def taps_plan(p: Problem, machine: Machine, usual: Plan) -> TapPlan | None:
    """The plan; None where the problem is of another kind, or the ``usual`` way surely as fast."""
    if len(p.size) > 2 or p.groups > 1 or 0 in p.counts or not usual.along_rows:
        return None
    rows, line = _axes(p)
    lanes = machine.lanes(p.dtype.bytes)
    if line.taps < 2 or line.stride != 1 or line.dilation != 1 or p.rows >= lanes:
        return None
    first = max(0, -line.before)
    places = min(line.size, line.count + line.taps - 1 - line.before) - first
    if line.x_stride <= 0 or places <= 0 or places * line.x_stride + p.depth > MOST_ZEROS:
        return None
    needed = -(-line.taps * p.rows // lanes)
    found = [
        (_tile_time(machine, v, taps, channels) * (needed // v) * (rows.taps // taps) * (p.depth // channels), v, taps, channels)
        for v in _divisors(needed)
        for taps in _divisors(rows.taps)
        for channels in (_divisors(p.depth) if taps == rows.taps and p.x_strides[1] == 1 else [1])
        if taps * channels * v + v + 1 <= machine.registers
    ]
    if not found:
        return None
    time, vectors, taps, channels = min(found)
    copied = p.rows / lanes if _is_dense(p, line) else p.rows
    usual_time = p.depth * p.taps * usual.vectors * usual.blocks * (1.1 if usual.vectors == 1 else 1.0)
    share = (time * places + copied * line.count) / (usual_time * line.count)
    if share > WORTH_A_TRY:
        return None
    length = (places + line.taps - 1) * p.rows * p.dtype.bytes
    samples, span = chunk((rows.count,), max(1, CHUNK_BYTES // length))
    return TapPlan(rows, line, lanes, vectors, needed // vectors, taps, channels, first, places, samples, span, share)


def taps_cut(p: Problem, plan: TapPlan) -> Cut:
    """Tasks enough to keep several threads busy, from the shapes alone."""
    chunks = -(-p.batch // plan.samples) * -(-plan.rows.count // plan.span)
    size = plan.rows.taps * p.depth * plan.width
    products = p.batch * plan.rows.count * plan.places * size
    read = p.batch * (plan.rows.size * plan.line.size * p.depth + plan.rows.count * plan.line.count * p.rows) * p.dtype.bytes
    splits = max(1, min(most_splits(size * p.dtype.bytes, chunks), wanted_tasks(products, read)))
    return Cut(chunks, splits, 1, max(1, min(plan.rows.taps * p.depth, -(-size * splits // SUM_ELEMENTS))))


def _axes(p: Problem) -> tuple[Line, Line]:
    """The axis of rows, made up for a signal, and that of a line."""
    parts = (p.size, p.counts, p.kernel, p.stride, p.before, p.dilation, p.x_strides[2:], p.d_strides[2:])
    *rows, line = (Line(*axis) for axis in zip(*parts, strict=True))
    return rows[0] if rows else Line(1, 1, 1, 1, 0, 1, 0, 0), line


def _tile_time(machine: Machine, vectors: int, taps: int, channels: int) -> float:
    """What a tile takes for a place of x, in multiplications: these, what is read, or waiting for the last ones.

    Vectors lie at any place: those that reach into a second cache line are read twice.
    """
    rows = taps * channels
    return max(rows * vectors, vectors * (1 + machine.vector_bytes / 64) + rows, LATENCY)


def _is_dense(p: Problem, line: Line) -> bool:
    """Whether all outputs of a place, then those of its neighbour, follow each other in d."""
    return line.d_stride == p.rows and p.d_strides[1] == 1


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
