"""Mean and variance of one value over the same axes, in one pass over memory.

A segment that stays in cache is read twice: for its mean m and for M, the sum of the squares of what is left when m is taken
away.  Segments, then chunks, are merged in a fixed order, as :mod:`.moments` says; the shift is the first element of each
result.  Where the deviations from the mean are wanted as well, a last phase stores them.
"""

from __future__ import annotations

from collections.abc import Sequence

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import Expression, Pointer, Variable, compare, literal, load, splat
from irconv.backends.codegen.statements import Function
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, native, native_kernel
from irconv.backends.native.kernels.moments import Moments
from irconv.backends.native.kernels.reduction_folds import Fold
from irconv.backends.native.kernels.reduction_loops import (
    across,
    each_column,
    each_row,
    each_vector,
    lane_numbers,
    only,
    paired,
)
from irconv.backends.native.kernels.reduction_problem import buffers
from irconv.backends.native.kernels.reduction_space import (
    BLOCK,
    Walk,
    cut,
    digits_of,
    least,
    merged_axes,
    moved,
    offset_of,
    result_strides,
    space_of,
)
from irconv.types import F32, F64, TensorType

ROWS = 4
"""Rows, or vectors of a row, that are summed side by side."""

COLUMNS = 1024
"""Results for which one task merges the chunks."""


@native("mean_variance")
def _mean_variance(request: NativeRequest) -> NativeKernel | None:
    """float32 and float64; both moments, or either, and the deviations."""
    x = request.graph[request.graph[request.kernel.nodes[0]].operands[0]].type
    return _Code(request).kernel() if x.dtype in (F32, F64) else None


class _Code:
    """Writes one kernel."""

    def __init__(self, request: NativeRequest):
        graph, kernel = request.graph, request.kernel
        self.request = request
        mean, centred, variance = (graph[kernel.nodes[at]] for at in (0, -3, -1))
        x = graph[mean.operands[0]]
        shape, axes = x.type.shape, mean.attributes.axes
        self.dtype = x.type.dtype
        self.moments = Moments(self.dtype)
        self.sum = Fold("sum", self.dtype, self.dtype)
        self.x = Pointer("in0", self.dtype)
        strides = [request.strides[x.id]]
        self.stored: dict[str, tuple[int, Pointer]] = {}  # what is wanted: its stream and its buffer
        for name, node in (("mean", mean), ("variance", variance), ("centred", centred)):
            if node.id in kernel.outputs:
                own = request.strides[node.id]
                folds = name != "centred"
                self.stored[name] = len(strides), Pointer(f"out{kernel.outputs.index(node.id)}", self.dtype)
                strides.append(result_strides(own, axes, len(shape), node.attributes.keepdims) if folds else own)
        self.space = space_of(merged_axes(shape, axes, strides, strides[0]), len(strides))
        across_vectors = self.space.vectors.strides
        plain = across_vectors[0] == 1 and ("centred" not in self.stored or across_vectors[self.stored["centred"][0]] == 1)
        self.lanes = request.machine.lanes(self.dtype.bytes) if plain else 1
        self.cut = cut(self.space, ROWS * self.lanes if self.space.columns is None else ROWS)
        names = ["in0", *(pointer.name for _, pointer in self.stored.values())]
        self.walk = Walk(self.space, self.cut, names)
        self.keeps_means = "centred" in self.stored
        rows = self.cut.chunks if self.cut.chunks > 1 or self.keeps_means else 0
        self.scratch = [TensorType(self.dtype, (rows, self.space.results))] * 2
        self.means, self.squares = Pointer("part0", self.dtype), Pointer("part1", self.dtype)

    def kernel(self) -> NativeKernel:
        functions = [self.moments_function(), self.merge_function()]
        phases = [Phase("moments", self.cut.tasks)]
        if self.cut.chunks > 1:
            phases.append(Phase("merge", -(-self.space.results // COLUMNS)))
        if self.keeps_means:
            functions.append(self.centre_function())
            phases.append(Phase("centre", self.cut.tasks))
        sizes = tuple(self.walk.sizes.values.values())
        return native_kernel(print_c(functions), tuple(phases), sizes, tuple(self.scratch), (), self.request.machine)

    def function(self, body: Body, name: str) -> Function:
        named = [(buffer, type_.dtype, written) for buffer, type_, written in buffers(self.request, self.scratch, True)]
        return body.function(name, named, tuple(self.walk.sizes.values))

    # --- moments of items --------------------------------------------------------------------------------------------

    def moments_function(self) -> Function:
        body, walk = Body(), self.walk
        self.numbers = lane_numbers(body, self.dtype.bytes, 1 if self.space.columns else self.lanes)
        with body.tasks() as task:
            chunk, first, last = walk.tasks(body, task)
            first_segment = body.let("first_segment", chunk * walk.run)
            last_segment = least(body, "last_segment", first_segment + walk.run, walk.segments)
            with body.loop("item", first, last) as item:
                outer, column = walk.item(body, item)
                digits = walk.outer_digits(body, outer)
                source = moved(body, "in0_item", self.x, walk.item_offset(body, 0, digits, column))
                flat = body.let("flat", chunk * walk.results + outer * walk.width + column)
                seen = body.variable("seen", literal(0))
                run = (first_segment, last_segment)
                if self.space.columns is None:
                    self._row(body, source, seen, run, digits, flat)
                else:
                    self._columns(body, source, seen, run, digits, column, flat)
        return self.function(body, "moments")

    def _segment(self, body: Body, segment: Expression, source: Pointer) -> tuple[Pointer, Expression]:
        digits, first, last = self.walk.segment(body, segment)
        return moved(body, "in0_rows", source, self.walk.segment_offset(0, digits, first)), body.let("count", last - first)

    def _columns(
        self,
        body: Body,
        source: Pointer,
        seen: Variable,
        run: tuple[Expression, Expression],
        digits: Sequence[Expression],
        column: Expression,
        flat: Expression,
    ) -> None:
        lanes, walk = self.lanes, self.walk
        width = least(body, "block_width", walk.width - column, literal(BLOCK))
        padded = body.let("padded", (width + (lanes - 1)) // lanes * lanes)
        mean, squares, part, part_squares, shift = (
            body.array(name, self.dtype, BLOCK) for name in ("means", "squares", "part_means", "part_squares", "shifts")
        )

        def shift_column(c: Expression, left: Expression | None) -> None:
            body.store(shift, c, self.moments.shift(body, load(source, c * walk.column_strides[0], lanes, left)))

        each_column(body, width, lanes, shift_column)
        with body.loop("c", 0, padded, lanes) as c:
            body.store(mean, c, self.moments.zero(lanes))
            body.store(squares, c, self.moments.zero(lanes))
        with body.loop("segment", *run) as segment:
            rows, count = self._segment(body, segment, source)
            with body.loop("c", 0, padded, lanes) as c:
                body.store(part, c, self.moments.zero(lanes))
                body.store(part_squares, c, self.moments.zero(lanes))
            self._add_rows(body, rows, count, width, part, shift, None)
            divisor = body.let("divisor", self.moments.number(count))
            with body.loop("c", 0, padded, lanes) as c:
                body.store(part, c, load(part, c, lanes) / splat(divisor, lanes))
            self._add_rows(body, rows, count, width, part_squares, shift, part)
            weights = self.moments.weights(body, seen, count)
            with body.loop("c", 0, padded, lanes) as c:
                old = [body.let("old", load(array, c, lanes)) for array in (mean, squares)]
                new = [body.let("new", load(array, c, lanes)) for array in (part, part_squares)]
                merged = self.moments.merged(body, (old[0], old[1]), (new[0], new[1]), weights)
                for array, value in zip((mean, squares), merged, strict=True):
                    body.store(array, c, value)
        with body.loop("c", 0, width) as c:
            self._finish(body, load(shift, c), load(mean, c), load(squares, c), flat + c, digits, column + c)

    def _add_rows(
        self,
        body: Body,
        rows: Pointer,
        count: Expression,
        width: Expression,
        sums: Pointer,
        shift: Pointer,
        centre: Pointer | None,
    ) -> None:
        """Add shifted rows to ``sums``, or the squares of their distances from ``centre``."""
        lanes = self.lanes
        row_stride, column_stride = self.walk.row_strides[0], self.walk.column_strides[0]

        def add(row: Expression, n: int) -> None:
            pointers = [moved(body, "in0_at", rows, (row + k) * row_stride) for k in range(n)]

            def emit(c: Expression, left: Expression | None) -> None:
                middle = None if centre is None else body.let("centre", load(centre, c, lanes))
                away = body.let("shift", load(shift, c, lanes))
                values = [self.moments.square(body, load(p, c * column_stride, lanes, left) - away, middle) for p in pointers]
                total = paired(body, self.sum.merge, values)
                body.store(sums, c, load(sums, c, lanes) + total)

            each_column(body, width, lanes, emit)

        each_row(body, count, ROWS, add)

    def _row(
        self,
        body: Body,
        source: Pointer,
        seen: Variable,
        run: tuple[Expression, Expression],
        digits: Sequence[Expression],
        flat: Expression,
    ) -> None:
        shift = self.moments.shift(body, load(source, 0))
        mean, squares = body.variable("row_mean", self.moments.zero()), body.variable("row_squares", self.moments.zero())
        with body.loop("segment", *run) as segment:
            row, count = self._segment(body, segment, source)
            part = body.let("part_mean", self._add_row(body, row, count, shift, None) / self.moments.number(count))
            part_squares = body.let("part_squares", self._add_row(body, row, count, shift, part))
            merged = self.moments.merged(body, (mean, squares), (part, part_squares), self.moments.weights(body, seen, count))
            values = [body.let("merged", value) for value in merged]
            body.assign(mean, values[0])
            body.assign(squares, values[1])
        self._finish(body, shift, mean, squares, flat, digits, literal(0))

    def _add_row(
        self, body: Body, row: Pointer, count: Expression, shift: Expression, centre: Expression | None
    ) -> Expression:
        """The sum of a shifted row, or of the squares of its elements' distances from ``centre``."""
        lanes, stride = self.lanes, self.walk.row_strides[0]
        sums = [body.variable("sum", self.moments.zero(lanes)) for _ in range(ROWS)]
        away = body.let("away", splat(shift, lanes))
        middle = None if centre is None else body.let("centre", splat(centre, lanes))

        def emit(way: int, at: Expression, left: Expression | None) -> None:
            value = self.moments.square(body, load(row, at * stride, lanes, left) - away, middle)
            if left is not None:
                value = only(self.numbers, left, value, self.moments.zero(lanes))
            body.assign(sums[way], sums[way] + value)

        each_vector(body, count, lanes, ROWS, emit)
        return across(body, self.sum.merge, self.sum.together, paired(body, self.sum.merge, sums))

    # --- results -------------------------------------------------------------------------------------------------------

    def _finish(
        self,
        body: Body,
        shift: Expression,
        mean: Expression,
        squares: Expression,
        flat: Expression,
        digits: Sequence[Expression],
        column: Expression,
    ) -> None:
        """Store the results of one item's column, or its moments in a chunk."""
        with body.when(compare("==", self.walk.chunks, 1)):
            self._store(body, body.let("mean", shift + mean), squares, digits, column, flat)
        with body.otherwise():
            body.store(self.means, flat, mean)
            body.store(self.squares, flat, squares)

    def _store(
        self,
        body: Body,
        mean: Expression,
        squares: Expression,
        digits: Sequence[Expression],
        column: Expression,
        index: Expression,
    ) -> None:
        """Store the results that are wanted; ``index``: of the result, in the order of the space."""
        walk = self.walk
        if self.keeps_means:
            body.store(self.means, index, mean)
        values = {"mean": mean, "variance": squares / self.moments.number(walk.folded)}
        for name, value in values.items():
            if name in self.stored:
                stream, pointer = self.stored[name]
                offset = offset_of(digits, [own[stream] for own in walk.outer_strides]) + column * walk.column_strides[stream]
                body.store(pointer, offset, value)

    def merge_function(self) -> Function:
        """Merges the chunks one after the other."""
        body, walk = Body(), self.walk
        with body.tasks() as task:
            first = body.let("first_result", task * COLUMNS)
            last = least(body, "last_result", first + COLUMNS, walk.results)
            seen = body.variable("seen", self._elements(body, walk.run))
            with body.loop("chunk", 1, walk.chunks) as chunk:
                before = body.let("before", self._elements(body, chunk * walk.run))
                end = least(body, "run_end", (chunk + 1) * walk.run, walk.segments)
                count = body.let("count", self._elements(body, end) - before)
                weights = self.moments.weights(body, seen, count)
                row = body.let("row", chunk * walk.results)
                with body.loop("k", first, last) as k:
                    old = [body.let("old", load(part, k)) for part in (self.means, self.squares)]
                    new = [body.let("new", load(part, row + k)) for part in (self.means, self.squares)]
                    merged = self.moments.merged(body, (old[0], old[1]), (new[0], new[1]), weights)
                    for part, value in zip((self.means, self.squares), merged, strict=True):
                        body.store(part, k, value)
            with body.loop("k", first, last) as k:
                outer = body.let("outer_index", k / walk.width if self.space.columns else k)
                column = body.let("column", k % walk.width) if self.space.columns else literal(0)
                digits = digits_of(body, outer, walk.outer)
                place = offset_of(digits, [own[0] for own in walk.outer_strides]) + column * walk.column_strides[0]
                shift = self.moments.shift(body, load(self.x, place))
                self._store(body, body.let("mean", shift + load(self.means, k)), load(self.squares, k), digits, column, k)
        return self.function(body, "merge")

    def _elements(self, body: Body, segment: Expression) -> Expression:
        """How many elements of an item lie ahead of a segment."""
        walk = self.walk
        pieces = body.let("pieces", (walk.rows + walk.piece - 1) // walk.piece)
        return segment / pieces * walk.rows + least(body, "ahead", segment % pieces * walk.piece, walk.rows)

    # --- deviations ----------------------------------------------------------------------------------------------------

    def centre_function(self) -> Function:
        """Stores x - mean: the tasks are those of the moments."""
        body, walk = Body(), self.walk
        stream, target = self.stored["centred"]
        with body.tasks() as task:
            chunk, first, last = walk.tasks(body, task)
            first_segment = body.let("first_segment", chunk * walk.run)
            last_segment = least(body, "last_segment", first_segment + walk.run, walk.segments)
            with body.loop("item", first, last) as item:
                outer, column = walk.item(body, item)
                digits = walk.outer_digits(body, outer)
                source = moved(body, "in0_item", self.x, walk.item_offset(body, 0, digits, column))
                item_target = moved(body, "out_item", target, walk.item_offset(body, stream, digits, column))
                means = body.pointer("item_means", self.means, outer * walk.width + column)
                with body.loop("segment", first_segment, last_segment) as segment:
                    places, first_row, last_row = walk.segment(body, segment)
                    rows = moved(body, "in0_rows", source, walk.segment_offset(0, places, first_row))
                    out = moved(body, "out_rows", item_target, walk.segment_offset(stream, places, first_row))
                    count = body.let("count", last_row - first_row)
                    self._centre_rows(body, rows, out, count, column, means)
        return self.function(body, "centre")

    def _centre_rows(
        self, body: Body, rows: Pointer, out: Pointer, count: Expression, column: Expression, means: Pointer
    ) -> None:
        walk, lanes, stream = self.walk, self.lanes, self.stored["centred"][0]
        if self.space.columns is None:
            mean = body.let("mean", splat(load(means, 0), lanes))

            def along(way: int, at: Expression, left: Expression | None) -> None:
                value = load(rows, at * walk.row_strides[0], lanes, left) - mean
                body.store(out, at * walk.row_strides[stream], value, left)

            each_vector(body, count, lanes, 1, along)
            return
        width = least(body, "block_width", walk.width - column, literal(BLOCK))
        with body.loop("row", 0, count) as row:
            source = moved(body, "in0_at", rows, row * walk.row_strides[0])
            target = moved(body, "out_at", out, row * walk.row_strides[stream])

            def emit(c: Expression, left: Expression | None) -> None:
                value = load(source, c * walk.column_strides[0], lanes, left) - load(means, c, lanes, left)
                body.store(target, c * walk.column_strides[stream], value, left)

            each_column(body, width, lanes, emit)
