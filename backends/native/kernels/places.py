"""Values [samples, channels, *spatial] of pooling kernels, read and written by vectors of channels or element by element.

Work goes row by row: a *row* is everything along the last spatial axis, for all channels where vectors run along them, else for
one.  Rows of all samples are numbered through, so that one source serves every batch size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from irconv.backends.codegen.access import gather
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import (
    INDEX,
    Expression,
    Lane,
    Pointer,
    Type,
    Variable,
    compare,
    convert,
    literal,
    load,
    select,
    splat,
)
from irconv.backends.native.base import NativeRequest
from irconv.backends.native.kernels.folds import narrowed, tap_type
from irconv.graph import Graph
from irconv.kernel import Kernel
from irconv.ops.window import Ints
from irconv.strides import Strides
from irconv.types import F32, F64, I16, I32, I64, U16, U32, DType

TASK_BYTES = 192 * 1024
"""What a task reads and writes, about: some 20 us."""

VECTORS = 4
"""So many vectors of channels at a time, that additions of one do not wait for those of another."""


@dataclass(frozen=True)
class Lead:
    """The sample and (where the work is not by vectors of channels) the channel of a row."""

    sample: Expression
    channel: Expression


@dataclass(frozen=True)
class Place:
    """A value in memory: its first element and its strides."""

    pointer: Pointer
    strides: Strides

    @classmethod
    def of(cls, request: NativeRequest, value: int, name: str) -> Place:
        return cls(Pointer(name, request.graph[value].type.dtype), request.strides[value])

    def at(self, lead: Lead, positions: Sequence[Expression]) -> Expression:
        """The offset of a spatial position of a row."""
        offset = lead.sample * self.strides[0] + lead.channel * self.strides[1]
        for position, stride in zip(positions, self.strides[2:], strict=True):
            offset = position * stride + offset
        return offset

    def load(self, offset: Expression, channel: Expression, lanes: int, count: int | None) -> Expression:
        """The element, or a vector of channels from ``channel`` on, at an offset."""
        index = offset + channel * self.strides[1]
        if lanes == 1:
            return load(self.pointer, index)
        if self.strides[1] == 1:
            return load(self.pointer, index, lanes, count)
        if self.strides[1] == 0:
            return splat(load(self.pointer, index), lanes)
        return gather(self.pointer, index, self.strides[1], lanes, count)

    def load_taps(self, offset: Expression, channel: Expression, beside: Type, count: int | None) -> Expression:
        """Tap numbers, as wide as a mask of the values beside which they are used."""
        value = self.load(offset, channel, beside.lanes, count)
        if beside.lanes > 1:
            return _widened(value, tap_type(beside).dtype)
        return convert(value, I64 if self.pointer.dtype.bytes == 8 else I32)

    def store(self, body: Body, offset: Expression, channel: Expression, value: Expression, count: int | None) -> None:
        """Write the element, or so many channels."""
        index, lanes, value = offset + channel * self.strides[1], value.type.lanes, narrowed(value, self.pointer.dtype)
        if lanes == 1 or self.strides[1] == 1:
            body.store(self.pointer, index, value, count if lanes > 1 else None)
            return
        value = body.let("lanes", value)
        for lane in range(lanes if count is None else count):
            body.store(self.pointer, index + lane * self.strides[1], Lane(value, literal(lane), value.type.scalar))


def _widened(value: Expression, dtype: DType) -> Expression:
    """A vector of integers as wider ones, by doubling: compilers convert by more than twice the size lane by lane."""
    steps = {1: I16 if value.type.dtype.kind == "int" else U16, 2: I32 if value.type.dtype.kind == "int" else U32}
    while value.type.dtype.bytes * 2 < dtype.bytes:
        value = convert(value, steps[value.type.dtype.bytes])
    return convert(value, dtype)


def can_vectorise(main: Place, graph: Graph, kernel: Kernel) -> bool:
    """Whether vectors run along the channels of this value: they are neighbours, and no tap number is too wide for a mask."""
    channels = graph[kernel.outputs[0]].type.shape[1]
    if main.pointer.dtype not in (F32, F64) or main.strides[1] != 1:
        return False
    if channels < 4 and main.strides[-1] == 1:
        return False
    types = {graph[i].type.dtype for i in (*kernel.inputs, *kernel.outputs)}
    return all(t is main.pointer.dtype or t.bytes <= main.pointer.dtype.bytes for t in types)


@dataclass(frozen=True)
class Span:
    """Channels ``start`` to ``stop`` of a row by ``vectors`` vectors of ``lanes`` at a time, or ``count`` channels of one vector.

    condition: the truth value under which the row has them.
    """

    lanes: int
    start: Expression
    stop: Expression
    vectors: int = 1
    count: int | None = None
    condition: Expression | None = None

    @contextmanager
    def each(self, body: Body, most: int = VECTORS) -> Iterator[list[tuple[Expression, int | None]]]:
        """Statements to run for each group of vectors (``most`` at a time): the first channel of each, and its count."""
        if self.condition is not None:
            with body.when(self.condition):
                yield [(self.start, self.count)]
        elif self.count is not None or self.lanes == 1:
            yield [(self.start, self.count)]
        else:
            vectors = min(self.vectors, most)
            with body.loop("channel", self.start, self.stop, self.lanes * vectors) as channel:
                yield [(channel + v * self.lanes, None) for v in range(vectors)]


@dataclass(frozen=True)
class Rows:
    """How the rows are cut into tasks.

    count: rows of all samples; step: rows in a task; parts: pieces of the channels, each a task of its own.
    """

    count: int
    step: int
    parts: int
    channels: int
    outer: Ints
    lanes: int

    @property
    def tasks(self) -> int:
        return -(-self.count // self.step) * self.parts

    @contextmanager
    def each(self, body: Body) -> Iterator[tuple[Lead, list[Expression], list[Span]]]:
        """Statements to run for each row of each task: where it lies, its outer positions, and its channels."""
        with body.tasks() as task:
            part = body.let("part", task % self.parts)
            first = body.let("first_row", task // self.parts * self.step)
            last = body.let("last_row", first + self.step)
            rows = Variable("rows", INDEX)
            spans = self._spans(body, part)
            with body.loop("row", first, select(last < rows, last, rows)) as row:
                rest, outer = row, list[Expression]()
                for extent in reversed(self.outer):
                    outer.insert(0, body.let("position", rest % extent))
                    rest = body.let("rest", rest // extent)
                lead = Lead(rest, literal(0))
                if self.lanes == 1:
                    lead = Lead(body.let("sample", rest // self.channels), body.let("channel", rest % self.channels))
                yield lead, outer, spans

    def _spans(self, body: Body, part: Expression) -> list[Span]:
        if self.lanes == 1:
            return [Span(1, literal(0), literal(1))]
        whole, tail = self.channels // self.lanes, self.channels % self.lanes
        found = []
        if whole:
            length = whole // self.parts * self.lanes
            start = body.let("first_channel", part * length)
            found.append(Span(self.lanes, start, start + length, _group(whole // self.parts)))
        if tail:
            last = None if self.parts == 1 else compare("==", part, self.parts - 1)
            found.append(Span(self.lanes, literal(whole * self.lanes), literal(self.channels), 1, tail, last))
        return found


def _group(vectors: int) -> int:
    return next(g for g in (VECTORS, 2, 1) if vectors % g == 0)


def plan_rows(batch: int, channels: int, outer: Ints, sample_bytes: int, lanes: int) -> Rows:
    """Tasks of about TASK_BYTES.  The cut depends on the shape of a sample alone."""
    per_sample = math.prod(outer) * (1 if lanes > 1 else channels)
    row_bytes = max(1, sample_bytes // max(1, per_sample))
    step = max(1, TASK_BYTES // row_bytes)
    parts = 1
    if lanes > 1 and channels >= lanes:
        whole = channels // lanes
        groups = whole // _group(whole)
        wanted = row_bytes // TASK_BYTES
        parts = max(p for p in range(1, groups + 1) if groups % p == 0 and p <= max(1, wanted))
    return Rows(batch * per_sample, step, parts, channels, outer, lanes)
