"""Sums over the channels of a gradient, taken while it is still in a cache.

Batch norm's backward needs ``sum(g)`` and ``sum(g * (x - mean))`` over batch and image of the gradient g that a transposed
convolution hands back, behind the mask of an activation that follows from x.  The gradient is stored for what comes later; for
the sums each strip of it is read once more, with x, as soon as it is written.  A part holds the sums of a task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.expressions import can_evaluate, evaluate, values_read
from irconv.backends.codegen.form import (
    INDEX,
    Expression,
    Literal,
    Operand,
    Pointer,
    Type,
    Variable,
    as_expression,
    compare,
    literal,
    load,
)
from irconv.backends.codegen.statements import Function
from irconv.backends.native.base import NativeRequest
from irconv.backends.native.kernels.contraction import linear
from irconv.backends.native.kernels.packing import least
from irconv.backends.native.kernels.reduction_loops import each_row, paired
from irconv.backends.native.kernels.reduction_space import full_strides
from irconv.backends.native.kernels.strips import MERGED, NUMBER_OF_PARTS, PARTS, Buffers, Strips, Written
from irconv.graph import Graph
from irconv.kernel import made_by

KIND = "conv_transpose_sums"

ROWS = 4
"""Pixels that are summed side by side, and parts that are merged so."""


@dataclass(frozen=True)
class _Columns:
    """Columns that are added: the part they go to, their number, and from the first of them on what :class:`Sums` reads."""

    part: Pointer
    width: Expression
    exact: bool
    images: dict[int, Pointer]
    others: dict[int, tuple[Pointer, int]]


@dataclass(frozen=True)
class Sums(Strips):
    """Sums of what elementwise ops make of the result, for kernels of kind ``conv_transpose_sums``.

    work:   ids of the elementwise ops, in topological order;  ``summed``: of the values that are summed.
    images: buffers of values that are stored as the result is;  ``others``: those of numbers per channel (or single ones),
            with the distance from one to the next.
    """

    graph: Graph
    work: tuple[int, ...]
    summed: tuple[int, ...]
    images: dict[int, Pointer]
    others: dict[int, tuple[Pointer, int]]

    @property
    def fields(self) -> int:
        return len(self.summed)

    def _zero(self) -> Literal:
        return Literal(0.0, Type(self.dtype, self.lanes))

    def add(self, body: Body, written: Written) -> None:
        seen = written.seen
        first = body.let("first_column", written.first)
        width = body.let("columns", written.last - first)
        row = body.pointer("part", Pointer(PARTS, self.dtype), written.part * (self.fields * self.channels) + first)
        corner = body.let("corner", written.start + first)
        images = {i: body.pointer("image", p, corner) for i, p in (self.images | {self.result: written.out}).items()}
        others = {i: (body.pointer("numbers", p, first * step), step) for i, (p, step) in self.others.items()}
        here = _Columns(row, width, written.exact, images, others)
        with body.when(compare("==", seen, 0)):
            self._begin(body, here)
        body.assign(seen, seen + written.count)

        def nest(depth: int, offset: Expression) -> None:
            turns, stride = written.loops[depth]
            if depth + 1 < len(written.loops):
                with body.loop("i", 0, turns) as i:
                    nest(depth + 1, body.let("offset", offset + i * stride))
                return

            end = body.let("pixels", as_expression(turns, INDEX))
            with body.loop("pixel", 0, end, ROWS) as pixel:
                count = body.let("rows", least(end - pixel, ROWS))
                self._add_rows(body, here, body.let("place", offset + pixel * stride), count, stride)

        nest(0, literal(0))

    def _begin(self, body: Body, columns: _Columns) -> None:
        def emit(c: Expression, left: Expression | None) -> None:
            for field in range(self.fields):
                body.store(columns.part, c + field * self.channels, self._zero(), left)

        self.each(body, columns.width, columns.exact, emit)

    def _add_rows(self, body: Body, columns: _Columns, place: Expression, count: Expression, stride: Operand) -> None:
        """Add ``count`` pixels from a place on in all columns."""
        row, images, others = columns.part, columns.images, columns.others

        def emit(c: Expression, left: Expression | None) -> None:
            small = {
                i: body.let("number", load(p, c, self.lanes, left) if step else load(p, 0)) for i, (p, step) in others.items()
            }
            totals = [body.variable("total", self._zero()) for _ in self.summed]
            with body.loop("k", 0, count) as k:
                at = body.let("at", place + k * stride + c)
                known = {i: body.let("element", load(p, at, self.lanes, left)) for i, p in images.items()}
                evaluate(body, self.graph, self.work, known, small.__getitem__, self.lanes)
                for total, i in zip(totals, self.summed, strict=True):
                    body.assign(total, total + known[i])
            for field, total in enumerate(totals):
                at = c + field * self.channels
                body.store(row, at, load(row, at, self.lanes, left) + total, left)

        self.each(body, columns.width, columns.exact, emit)

    def merge_function(self, buffers: Buffers, sizes: Sequence[str]) -> Function:
        """Adds the parts up, every fourth to the same of four sums."""
        body, lanes = Body(), self.lanes
        parts, exact = Variable(NUMBER_OF_PARTS, INDEX), self.channels % lanes == 0
        step = self.fields * self.channels
        with body.tasks() as task:
            first = body.let("first_channel", task * MERGED)
            width = body.let("channels_here", least(literal(self.channels) - first, MERGED))

            def emit(c: Expression, left: Expression | None) -> None:
                for field, name in enumerate(self.results):
                    column = body.pointer("column", Pointer(PARTS, self.dtype), first + c + field * self.channels)
                    sums = [body.variable("sum", self._zero()) for _ in range(ROWS)]

                    def add(part: Expression, n: int, column: Pointer = column, sums: list[Variable] = sums) -> None:
                        for k in range(n):
                            body.assign(sums[k], sums[k] + load(column, (part + k) * step, lanes, left))

                    each_row(body, parts, ROWS, add)
                    total = paired(body, lambda a, b: a + b, sums)
                    body.store(Pointer(name, self.dtype), first + c, total, left)

            self.each(body, width, exact, emit)
        return body.function("sums_merge", buffers, sizes)


def sums_of(request: NativeRequest, pointers: dict[int, Pointer], lanes: int) -> Sums | None:
    """The sums that a kernel takes of its first result; None if it takes none, or there is no code for what is summed."""
    graph, kernel = request.graph, request.kernel
    if kernel.kind != KIND:
        return None
    result, *further = kernel.outputs
    type_, strides = graph[result].type, tuple(request.strides[result])
    made = made_by(graph, kernel.nodes, result)
    work = tuple(i for i in kernel.nodes if i not in made and i not in further)
    summed = tuple(graph[i].operands[0] for i in further)
    step = linear(type_.shape[2:], (strides[0], *strides[2:]))
    if step is None or strides[1] != 1 or not can_evaluate(graph, work, lanes):
        return None
    images: dict[int, Pointer] = {}
    others: dict[int, tuple[Pointer, int]] = {}
    for i in dict.fromkeys((*values_read(graph, work), *(s for s in summed if s not in work))):
        if i == result:
            continue
        own = graph[i].type
        if own.dtype is not type_.dtype:
            return None
        if own.shape == type_.shape:
            if tuple(request.strides[i]) != strides:
                return None
            images[i] = pointers[i]
            continue
        along = full_strides(own.shape, request.strides[i], type_.shape)
        if along[1] not in (0, 1) or any(s for axis, s in enumerate(along) if axis != 1):
            return None
        others[i] = pointers[i], along[1]
    names = tuple(f"sum{at}" for at in range(len(further)))
    nodes = frozenset((*work, *further))
    channels = type_.shape[1]
    return Sums(type_.dtype, lanes, result, nodes, channels, step, names, graph, work, summed, images, others)
