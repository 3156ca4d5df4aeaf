"""Elementwise work on the input of a contraction, done while the input is read: normalisation, activation, masks.

By how the contraction reads:

- *copied*: an input that is copied with its padding is computed on the way; the padding stays zero, whatever the work makes of 0.
- *staged*: where each pixel is read at one place only (1x1 convolutions, matrix products), a task computes the pixels of a tile,
  or of all its tiles, into memory of its worker, from which its blocks of columns read.  A tile of 14 pixels by 256 channels
  takes 14 KiB and stays in the first-level cache.
- row by row for depthwise convolutions: see :mod:`irconv.backends.native.kernels.depthwise_rows`.
- element by element in the transforms of Winograd's algorithm and in the planes of narrow contractions.

What is the same for all pixels (a channel's scale and shift) may be fetched once: see :meth:`Prologue.constants`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from irconv.backends.arrays.base import scratch
from irconv.backends.codegen.access import vector_load
from irconv.backends.codegen.body import WORKER, Body
from irconv.backends.codegen.expressions import can_evaluate, evaluate, values_read
from irconv.backends.codegen.form import INDEX, Expression, Operand, Pointer, Variable, literal, splat
from irconv.backends.native.base import NativeRequest
from irconv.backends.native.kernels.contraction import Contraction
from irconv.backends.native.kernels.epilogue import nodes_ahead, operand_strides
from irconv.backends.native.kernels.packing import InputCopy, low_end
from irconv.backends.native.kernels.plan import Plan
from irconv.backends.native.kernels.tiles import Place, cursor
from irconv.strides import row_major
from irconv.types import BOOL, TensorType

STAGE = "stage"
"""The run-time size that says how many elements each worker holds."""

LINE = 16
"""Elements of a cache line."""

Known = Mapping[int, Expression]
"""Operands that have been fetched, by id."""


@dataclass(frozen=True)
class Prologue:
    """What comes before a contraction.

    nodes:    ids of its elementwise ops, in topological order;  ``result``: of the last one, the contraction's input.
    lanes:    of the vectors it computes on; 1 where ops have code for scalars only.
    pointers: the buffers of the values it reads, by id;  ``strides``: of those, by the axes of the input.
    """

    request: NativeRequest
    nodes: tuple[int, ...]
    result: int
    lanes: int
    pointers: dict[int, Pointer]
    strides: dict[int, tuple[int, ...]]

    def scalar(self) -> Prologue:
        """The same, element by element."""
        return replace(self, lanes=1)

    def constants(
        self, body: Body, index: Sequence[Operand], axis: int, count: Operand | None
    ) -> dict[int, Expression]:
        """A vector from ``index`` on along ``axis`` of each operand that differs along no other axis."""
        found = {}
        for i, strides in self.strides.items():
            elsewhere = any(s for number, s in enumerate(strides) if number != axis)
            if not elsewhere and self.request.graph[i].type.dtype is not BOOL:
                found[i] = body.let("constant", self._fetch(i, index, axis, count))
        return found

    def value(
        self,
        body: Body,
        index: Sequence[Operand],
        axis: int,
        count: Operand | None,
        known: Known | None = None,
    ) -> Expression:
        """A vector of the contraction's input at a logical index along ``axis``; with ``count``, only so many are right."""
        values = dict(known or {})
        evaluate(body, self.request.graph, self.nodes, values, lambda i: self._fetch(i, index, axis, count), self.lanes)
        return values[self.result]

    def _fetch(self, i: int, index: Sequence[Operand], axis: int, count: Operand | None) -> Expression:
        return splat(vector_load(self.pointers[i], self.strides[i], index, axis, self.lanes, count), self.lanes)

    def each(self, body: Body, start: int, stop: int) -> Iterator[tuple[Expression, int | None]]:
        """The vectors from ``start`` to ``stop`` - 1, in a loop: where each begins, and its elements if they are not all."""
        whole = start + (stop - start) // self.lanes * self.lanes
        if start < whole:
            with body.loop("at", start, whole, self.lanes) as at:
                yield at, None
        if whole < stop:
            yield literal(whole), stop - whole


def make_prologue(
    request: NativeRequest, product: int, pointers: dict[int, Pointer], lanes: int
) -> Prologue | None:
    """The prologue of the contraction ``product`` in the kernel; None where it has none."""
    graph = request.graph
    nodes = nodes_ahead(graph, request.kernel, product)
    if not nodes:
        return None
    result = graph[product].operands[0]
    shape = graph[result].type.shape
    strides = {i: operand_strides(request, i, shape) for i in values_read(graph, nodes)}
    return Prologue(request, nodes, result, lanes if can_evaluate(graph, nodes, lanes) else 1, pointers, strides)


# --- copied ------------------------------------------------------------------------------------------------------------------


def input_copy(c: Contraction, plan: Plan, prologue: Prologue | None) -> InputCopy:
    """What fills ``padded`` from the input, or with what the prologue makes, and with zeros around it."""
    return InputCopy(c, plan) if prologue is None else _ComputedCopy(c, plan, prologue)


class _ComputedCopy(InputCopy):
    """The copy of the input, each element computed on the way."""

    def __init__(self, c: Contraction, plan: Plan, prologue: Prologue):
        super().__init__(c, plan)
        self.prologue = prologue

    def pixel(self, position: list[Expression], offset: Expression, place: Expression, channels: int) -> None:
        body, prologue = self.body, self.prologue
        if self.plan.planar:
            body.store(self.target, place, prologue.scalar().value(body, position, 1, None))
            return
        image, *pixel = position
        for channel, count in prologue.each(body, 0, channels):
            body.store(self.target, place + channel, prologue.value(body, [image, channel, *pixel], 1, count), count)

    def run(self, position: list[Expression], offset: Expression, place: Expression, first: int, last: int) -> None:
        body, prologue = self.body, self.prologue
        for at, count in prologue.each(body, first, last):
            index = [*position, at + low_end(self.c.axes[-1])]
            body.store(self.target, place + at, prologue.value(body, index, len(position), count), count)


def with_copy(plan: Plan) -> Plan:
    """The plan with its input copied, so that no tap falls outside."""
    return replace(plan, copied=True, table=False)


# --- staged ------------------------------------------------------------------------------------------------------------------


def is_staged(c: Contraction) -> bool:
    """Whether each pixel is read at one place of the input, and none outside."""
    return c.taps == 1 and c.is_inside and not c.has_residues and not c.long


@dataclass(frozen=True)
class Stage:
    """Pixels of the input that a task computes before it sums over them.

    c, plan: the contraction over the input as it would be stored, and how it is cut.
    """

    c: Contraction
    plan: Plan
    prologue: Prologue

    @property
    def pixels(self) -> int:
        """The most that are held at once: of a tile where tiles are the outer loop, otherwise of a task."""
        if self.plan.pixels_outer:
            return self.plan.pixels
        pixels = max(1, self.c.batch) * self.c.places
        return min(self.plan.chunk, -(-pixels // self.plan.pixels) * self.plan.pixels)

    @property
    def memory(self) -> int:
        """Elements of a worker, whole cache lines."""
        return -(-self.pixels * self.c.channels // LINE) * LINE

    def scratch(self, threads: int) -> TensorType:
        """What all workers hold."""
        return scratch(self.c.dtype, threads, self.memory)

    @property
    def staged(self) -> Contraction:
        """The contraction over what is held: pixel by pixel, all channels of each."""
        c = self.c
        counts = [axis.only.count for axis in c.axes]
        axes = tuple(
            replace(axis, size=axis.only.count, step=1, residues=(replace(axis.only, shift=0),)) for axis in c.axes
        )
        strides = tuple(s * c.channels for s in row_major([1, *counts]))
        return replace(c, axes=axes, x_strides=strides, x_channel=1, groups=tuple(replace(g, x=0) for g in c.groups))

    def own(self, body: Body, name: str) -> Pointer:
        """The worker's memory in the temporary of this name."""
        return body.pointer("own", Pointer(name, self.c.dtype), WORKER * Variable(STAGE, INDEX))

    def fill(
        self,
        body: Body,
        target: Pointer,
        axes: Sequence[Place],
        group: Sequence[Expression],
        start: Sequence[Expression],
        count: Expression,
    ) -> None:
        """Compute ``count`` pixels from the position ``start`` on."""
        c, prologue = self.c, self.prologue
        position = cursor(body, axes, start)
        with body.loop("p", 0, count) as p:
            place = body.let("place", p * c.channels)
            for channel, part in prologue.each(body, 0, c.channels):
                index = self._index([position.batch, *position.position], group, channel)
                body.store(target, place + channel, prologue.value(body, index, c.out_column, part), part)
            position.advance()

    def _index(
        self, position: Sequence[Expression], group: Sequence[Expression], channel: Expression
    ) -> list[Expression]:
        """The logical index in the input; its axes are those of the result, with channels for columns."""
        c = self.c
        index: dict[int, Expression] = {c.out_column: channel, c.out_axes[0]: position[0]}
        for out_axis, axis, at in zip(c.out_axes[1:], c.axes, position[1:], strict=True):
            index[out_axis] = at * axis.step + axis.only.shift
        for g, number in zip(c.groups, group, strict=True):
            if g.out[0] == c.out_column:
                index[c.out_column] = index[c.out_column] + number * c.channels
            else:
                index[g.out[0]] = number
        return [index[axis] for axis in sorted(index)]
