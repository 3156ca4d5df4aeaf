"""Mean and variance of a convolution's channels, taken while its result is still in a cache.

Of each strip of pixels: their mean and the squares of their distances from it, for each channel, merged into the task's part as
:mod:`.moments` says.  A part holds, for each channel, how many elements went into it, its shift (its first element), its mean
and its squares; the shifts differ from part to part, and their differences are exact enough.

Reading the result again takes what two loads, four additions and a product take per vector, from the first-level cache; from
memory it took two to four times that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import (
    INDEX,
    Expression,
    Literal,
    Pointer,
    Type,
    Variable,
    as_expression,
    compare,
    convert,
    literal,
    load,
    splat,
)
from irconv.backends.codegen.statements import Function
from irconv.backends.native.base import NativeRequest
from irconv.backends.native.kernels.contraction import linear
from irconv.backends.native.kernels.moments import Moments
from irconv.backends.native.kernels.packing import least
from irconv.backends.native.kernels.reduction_loops import each_row, paired
from irconv.backends.native.kernels.strips import MERGED, NUMBER_OF_PARTS, PARTS, Buffers, Loops, Strips, Written

ROWS = 4
"""Pixels that are summed side by side."""

FIELDS = 4
COUNT, SHIFT, MEAN, SQUARES = range(FIELDS)
"""What a part holds."""


@dataclass(frozen=True)
class Statistics(Strips):
    """Mean and variance, for kernels of kind ``conv_statistics``; ``results`` are "mean", "variance" or both."""

    @property
    def fields(self) -> int:
        return FIELDS

    @property
    def moments(self) -> Moments:
        return Moments(self.dtype)

    def add(self, body: Body, written: Written) -> None:
        seen = written.seen
        width = body.let("columns", written.last - written.first)
        row = body.pointer("part", Pointer(PARTS, self.dtype), written.part * (FIELDS * self.channels) + written.first)
        places = body.pointer("written", written.out, written.start + written.first)
        with body.when(compare("==", seen, 0)):
            self._begin(body, row, places, width, written.exact)
        count = body.let("count", written.count)
        weights = self.moments.weights(body, seen, count)
        inverse = body.let("inverse", splat(Literal(1.0, Type(self.dtype)) / self.moments.number(count), self.lanes))

        def emit(c: Expression, left: Expression | None) -> None:
            at = [c + field * self.channels for field in range(FIELDS)]
            shift, mean, squares = (
                body.let(name, load(row, at[field], self.lanes, left))
                for name, field in (("shift", SHIFT), ("mean", MEAN), ("squares", SQUARES))
            )
            here = body.let("here", self._total(body, places, c, left, written.loops, shift, None) * inverse)
            apart = self._total(body, places, c, left, written.loops, shift, here)
            merged = self.moments.merged(body, (mean, squares), (here, apart), weights)
            for field, value in zip((MEAN, SQUARES), merged, strict=True):
                body.store(row, at[field], value, left)
            body.store(row, at[COUNT], splat(self.moments.number(seen), self.lanes), left)

        self.each(body, width, written.exact, emit)

    def _begin(self, body: Body, row: Pointer, places: Pointer, width: Expression, exact: bool) -> None:
        def emit(c: Expression, left: Expression | None) -> None:
            shift = self.moments.shift(body, load(places, c, self.lanes, left))
            body.store(row, c + SHIFT * self.channels, shift, left)
            for field in (MEAN, SQUARES):
                body.store(row, c + field * self.channels, self.moments.zero(self.lanes), left)

        self.each(body, width, exact, emit)

    def _total(
        self,
        body: Body,
        places: Pointer,
        c: Expression,
        left: Expression | None,
        loops: Loops,
        shift: Expression,
        centre: Expression | None,
    ) -> Expression:
        """The sum of the shifted elements of a vector of columns, or of the squares of their distances from ``centre``."""
        sums = [body.variable("sum", self.moments.zero(self.lanes)) for _ in range(ROWS)]

        def nest(depth: int, offset: Expression) -> None:
            count, stride = loops[depth]
            if depth + 1 < len(loops):
                with body.loop("i", 0, count) as i:
                    nest(depth + 1, body.let("offset", offset + i * stride))
                return

            def emit(row: Expression, n: int) -> None:
                for k in range(n):
                    value = load(places, offset + (row + k) * stride, self.lanes, left) - shift
                    body.assign(sums[k], sums[k] + self.moments.square(body, value, centre))

            each_row(body, as_expression(count, INDEX), ROWS, emit)

        nest(0, c)
        return paired(body, lambda a, b: a + b, sums)

    # --- results -----------------------------------------------------------------------------------------------------------

    def merge_function(self, buffers: Buffers, sizes: Sequence[str]) -> Function:
        """Merges the parts one after the other; a task is some channels."""
        body, moments, lanes = Body(), self.moments, self.lanes
        parts, exact = Variable(NUMBER_OF_PARTS, INDEX), self.channels % lanes == 0
        with body.tasks() as task:
            first = body.let("first_channel", task * MERGED)
            width = body.let("channels_here", least(literal(self.channels) - first, MERGED))

            def emit(c: Expression, left: Expression | None) -> None:
                names = ("first_shift", "all_mean", "all_squares")
                shift, mean, squares = (body.variable(name, moments.zero(lanes)) for name in names)
                seen = body.variable("seen", literal(0))
                with body.loop("part", 0, parts) as number:
                    at = number * (FIELDS * self.channels) + first + c
                    part = body.pointer("part", Pointer(PARTS, self.dtype), at)
                    fields = (load(part, field * self.channels, lanes, left) for field in (SHIFT, MEAN, SQUARES))
                    own, here, apart = (body.let("new", field) for field in fields)
                    with body.when(compare("==", seen, 0)):
                        body.assign(shift, own)
                    count = body.let("count", convert(load(part, COUNT * self.channels), INDEX.dtype))
                    weights = moments.weights(body, seen, count)
                    merged = moments.merged(body, (mean, squares), (body.let("moved", here + (own - shift)), apart), weights)
                    values = [body.let("merged", value) for value in merged]
                    body.assign(mean, values[0])
                    body.assign(squares, values[1])
                values = [shift + mean, squares / splat(moments.number(seen), lanes)]
                for name, value in zip(("mean", "variance"), values, strict=True):
                    if name in self.results:
                        body.store(Pointer(name, self.dtype), first + c, value, left)

            self.each(body, width, exact, emit)
        return body.function("statistics_merge", buffers, sizes)


def statistics_of(request: NativeRequest, lanes: int) -> Statistics | None:
    """The moments that a kernel takes of its first result; None if it takes none, or the result has channels far apart."""
    graph, kernel = request.graph, request.kernel
    if kernel.kind != "conv_statistics":
        return None
    result, *further = kernel.outputs
    variance = graph[kernel.nodes[-1]]
    squared = graph[variance.operands[0]]
    centred = graph[squared.operands[0]]
    nodes = {variance.id, squared.id, centred.id}
    mean = graph[centred.operands[1]]
    nodes.add(mean.id)
    if mean.op.name == "reshape":
        mean = graph[mean.operands[0]]
        nodes.add(mean.id)
    type_, strides = graph[result].type, request.strides[result]
    step = linear(type_.shape[2:], (strides[0], *strides[2:]))
    names = {mean.id: "mean", variance.id: "variance"}
    if centred.operands[0] != result or step is None or strides[1] != 1 or not names.keys() >= set(further):
        return None
    wanted = tuple(names[i] for i in further)
    return Statistics(type_.dtype, lanes, result, frozenset(nodes), type_.shape[1], step, wanted)
