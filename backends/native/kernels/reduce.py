"""Reductions, several at once, with the elementwise work ahead of them: one pass over memory.

Where the innermost axis is kept (channels last, folded over batch and image), vectors run along it; four rows are folded into
one and then into accumulators for a block of columns in the first-level cache.  Where it is folded, four vector accumulators
run along it, and their lanes are folded in pairs at the end.  Large foldings are done in chunks, whose partial results are
merged in pairs in a second phase, which bounds the error as well as it shares the work.

Elementwise values that others read are stored on the way (the gradient behind a ReLU, whose sums batch norm needs as well).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from irconv.backends.codegen.access import as_stored, vector_store
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.expressions import evaluate
from irconv.backends.codegen.form import (
    INDEX,
    Expression,
    Literal,
    Pointer,
    Variable,
    compare,
    literal,
    load,
    splat,
)
from irconv.backends.codegen.statements import Function
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, native, native_kernel
from irconv.backends.native.kernels.reduction_loops import (
    across,
    each_column,
    each_row,
    each_vector,
    lane_numbers,
    only,
    paired,
)
from irconv.backends.native.kernels.reduction_problem import Problem, Stream, buffers, problem_of
from irconv.backends.native.kernels.reduction_space import (
    BLOCK,
    MOST_TASKS,
    Walk,
    cut,
    digits_of,
    least,
    moved,
    offset_of,
    widened,
)
from irconv.types import TensorType

ROWS = 4
"""Rows, or vectors of a row, that are folded side by side."""

LIGHT = 6
"""Elementwise ops up to which the ends of rows are done several rows at a time too: it is more code to compile."""

COLUMNS = 1024
"""Results for which one task merges partial results."""


@native("sum", "mean", "max", "min", "prod", "elementwise_reduce", "reductions")
def _reduce(request: NativeRequest) -> NativeKernel | None:
    """Any number of reductions over the same axes, of elementwise values of one shape."""
    problem = problem_of(request, request.kernel.nodes)
    if problem is None:
        return None
    return _Code(request, problem).kernel()


class _Code:
    """Writes one kernel."""

    def __init__(self, request: NativeRequest, problem: Problem):
        machine = request.machine
        self.request, self.problem, self.graph = request, problem, request.graph
        self.lanes = problem.lanes([(4, machine.lanes(4)), (8, machine.lanes(8))])
        walked = [stream.at for stream in (*problem.inputs.values(), *problem.stored.values())]
        self.space, copies = widened(problem.space, walked)
        self.cut = cut(self.space, ROWS if self.space.columns else ROWS * self.lanes)
        self.walk = Walk(self.space, self.cut, problem.names, copies)
        self.is_merged = self.cut.chunks > 1 or copies > 1
        self.in_place = _in_place(request, problem)
        scratch = [TensorType(fold.dtype, (self.cut.chunks, self.space.results)) for fold in problem.folds]
        self.scratch = [t if self.is_merged else TensorType(t.dtype, (0,)) for t in scratch]
        self.parts = [Pointer(f"part{at}", fold.dtype) for at, fold in enumerate(problem.folds)]

    def kernel(self) -> NativeKernel:
        first, second = self.fold_function(), self.merge_function()
        phases = [Phase(first.name, self.cut.tasks)]
        if self.is_merged:
            phases.append(Phase(second.name, -(-self.space.results // COLUMNS)))
        sizes = tuple(self.walk.sizes.values.values())
        return native_kernel(
            print_c([first, second]), tuple(phases), sizes, tuple(self.scratch), self.in_place, self.request.machine
        )

    def function(self, body: Body, name: str) -> Function:
        """A phase.  Results that may lie where an operand does are not declared to be apart from it."""
        shared = {name for out, read in self.in_place for name in (f"out{out}", f"in{read}")}
        named = [(name, type_.dtype, written) for name, type_, written in buffers(self.request, self.scratch, True)]
        return body.function(name, named, tuple(self.walk.sizes.values), shared)

    # --- first phase -------------------------------------------------------------------------------------------------

    def fold_function(self) -> Function:
        body, walk = Body(), self.walk
        self.lane_numbers = lane_numbers(body, self.problem.folds[0].dtype.bytes, 1 if self.space.columns else self.lanes)
        with body.tasks() as task:
            chunk, first, last = walk.tasks(body, task)
            first_segment = body.let("first_segment", chunk * walk.run)
            last_segment = least(body, "last_segment", first_segment + walk.run, walk.segments)
            with body.loop("item", first, last) as item:
                outer, column = walk.item(body, item)
                digits = walk.outer_digits(body, outer)
                streams = [*self.problem.inputs.values(), *self.problem.stored.values()]
                pointers = {s.id: self._at(body, s, walk.item_offset(body, s.at, digits, column)) for s in streams}
                fold = self._columns if self.space.columns else self._row
                fold(body, pointers, (first_segment, last_segment), (chunk, outer, column, digits))
        return self.function(body, "fold")

    def _at(self, body: Body, stream: Stream, offset: Expression) -> Pointer:
        return moved(body, f"{stream.pointer.name}_item", stream.pointer, offset)

    def _segment(
        self, body: Body, segment: Expression, items: dict[int, Pointer]
    ) -> tuple[dict[int, Pointer], Expression]:
        """Pointers to the first row of a segment, and how many rows it has."""
        digits, first, last = self.walk.segment(body, segment)
        pointers = {}
        for stream in (*self.problem.inputs.values(), *self.problem.stored.values()):
            offset = self.walk.segment_offset(stream.at, digits, first)
            pointers[stream.id] = moved(body, f"{stream.pointer.name}_rows", items[stream.id], offset)
        return pointers, body.let("count", last - first)

    def values(
        self,
        body: Body,
        read: Callable[[int], Expression],
        write: Callable[[int, Expression], None],
    ) -> list[Expression]:
        """What is folded at one place, as accumulators; what is to be stored is written."""
        problem, known = self.problem, dict[int, Expression]()
        evaluate(body, self.graph, problem.nodes, known, read, self.lanes)
        for i in problem.stored:
            write(i, known[i])
        found = []
        for fold, node in zip(problem.folds, problem.reductions, strict=True):
            i = node.operands[0]
            if i not in known:
                known[i] = body.let("value", splat(read(i), self.lanes))
            found.append(body.let("element", fold.taken(known[i])))
        return found

    # --- the innermost axis is kept ------------------------------------------------------------------------------------

    def _columns(self, body: Body, items: dict[int, Pointer], run: tuple[Expression, Expression], place: Place) -> None:
        walk, lanes, folds = self.walk, self.lanes, self.problem.folds
        chunk, outer, column, digits = place
        width = least(body, "block_width", walk.width - column, literal(BLOCK))
        sums = [body.array(fold.name, fold.dtype, BLOCK) for fold in folds]
        whole = body.let("padded", (width + (lanes - 1)) // lanes * lanes)
        with body.loop("c", 0, whole, lanes) as c:
            for fold, array in zip(folds, sums, strict=True):
                body.store(array, c, fold.start(lanes))
        with body.loop("segment", *run) as segment:
            pointers, count = self._segment(body, segment, items)
            each_row(body, count, ROWS, lambda row, rows: self._rows(body, pointers, row, rows, width, sums))
        results = [base + column * self.walk.column_strides[s.at] if s else base for base, s in self._results(digits)]
        flat = body.let("flat", (chunk * walk.results + outer * walk.width + column))
        with body.loop("c", 0, width) as c:
            totals = [load(array, c) for array in sums]
            self._finish(body, totals, flat + c, [
                base + c * walk.column_strides[s.at] if s else base
                for base, (_, s) in zip(results, self._results(digits), strict=True)
            ])

    def _rows(
        self, body: Body, pointers: dict[int, Pointer], row: Expression, rows: int, width: Expression, sums: Sequence[Pointer]
    ) -> None:
        """Fold so many rows from ``row`` on into the accumulators."""
        strides = self.walk.row_strides
        streams = (*self.problem.inputs.values(), *self.problem.stored.values())
        at = [
            {s.id: moved(body, f"{s.pointer.name}_at", pointers[s.id], (row + k) * strides[s.at]) for s in streams}
            for k in range(rows)
        ]

        def emit(c: Expression, count: Expression | None) -> None:
            if count is None or len(self.problem.nodes) <= LIGHT:
                self._column(body, at, c, count, sums)
            else:
                for single in at:
                    self._column(body, [single], c, count, sums)

        each_column(body, width, self.lanes, emit)

    def _column(
        self,
        body: Body,
        at: Sequence[dict[int, Pointer]],
        c: Expression,
        count: Expression | None,
        sums: Sequence[Pointer],
    ) -> None:
        """Fold one vector of columns of some rows."""
        shared: dict[int, Expression] = {}
        found = [self.values(body, self._reader(body, row, c, count, shared), self._writer(body, row, c, count)) for row in at]
        for fold, array, *elements in zip(self.problem.folds, sums, *found, strict=True):
            total = paired(body, fold.merge, elements)
            body.store(array, c, fold.merge(body.let("so_far", load(array, c, self.lanes)), total))

    def _reader(
        self, body: Body, row: dict[int, Pointer], c: Expression, count: Expression | None, shared: dict[int, Expression]
    ) -> Callable[[int], Expression]:
        """Reads a vector of columns; what is the same in every row is read once."""
        lanes = self.lanes

        def read(i: int) -> Expression:
            if i in shared:
                return shared[i]
            at = self.problem.inputs[i].at
            repeated = self.walk.column_strides[at]
            value = load(row[i], c * repeated) if repeated == literal(0) or lanes == 1 else load(row[i], c, lanes, count)
            if self.walk.row_strides[at] == literal(0):
                shared[i] = body.let("same", value)
                return shared[i]
            return value

        return read

    def _writer(
        self, body: Body, row: dict[int, Pointer], c: Expression, count: Expression | None
    ) -> Callable[[int, Expression], None]:
        def write(i: int, value: Expression) -> None:
            stride = self.walk.column_strides[self.problem.stored[i].at]
            if self.lanes == 1:
                body.store(row[i], c * stride, as_stored(value, row[i].dtype))
            else:
                vector_store(body, row[i], (1,), (c,), 0, value, count)

        return write

    # --- the innermost axis is folded ----------------------------------------------------------------------------------

    def _row(self, body: Body, items: dict[int, Pointer], run: tuple[Expression, Expression], place: Place) -> None:
        walk, lanes, folds = self.walk, self.lanes, self.problem.folds
        chunk, outer, _, digits = place
        sums = [[body.variable(fold.name, fold.start(lanes)) for _ in range(ROWS)] for fold in folds]
        with body.loop("segment", *run) as segment:
            pointers, count = self._segment(body, segment, items)

            def emit(way: int, at: Expression, left: Expression | None) -> None:
                self._vector(body, pointers, at, left, [own[way] for own in sums])

            each_vector(body, count, lanes, ROWS, emit)
        totals = [
            across(body, fold.merge, fold.together, paired(body, fold.merge, own)) for fold, own in zip(folds, sums, strict=True)
        ]
        flat = body.let("flat", chunk * walk.results + outer)
        self._finish(body, totals, flat, [base for base, _ in self._results(digits)])

    def _vector(
        self,
        body: Body,
        pointers: dict[int, Pointer],
        row: Expression,
        count: Expression | None,
        sums: Sequence[Variable],
    ) -> None:
        """Fold one vector of a row."""
        lanes = self.lanes

        def read(i: int) -> Expression:
            stride = self.walk.row_strides[self.problem.inputs[i].at]
            if stride == literal(0) or lanes == 1:
                return load(pointers[i], row * stride)
            return load(pointers[i], row, lanes, count)

        def write(i: int, value: Expression) -> None:
            stride = self.walk.row_strides[self.problem.stored[i].at]
            if lanes == 1:
                body.store(pointers[i], row * stride, as_stored(value, pointers[i].dtype))
            else:
                vector_store(body, pointers[i], (1,), (row,), 0, value, count)

        found = self.values(body, read, write)
        for fold, total, element in zip(self.problem.folds, sums, found, strict=True):
            if count is not None:
                element = body.let("inside", only(self.lane_numbers, count, element, fold.start(lanes)))
            body.assign(total, fold.merge(total, element))

    # --- results ---------------------------------------------------------------------------------------------------------

    def _results(self, digits: Sequence[Expression]) -> list[tuple[Expression, Stream | None]]:
        """For each reduction the offset of an item's result, and its stream (None: nobody reads it)."""
        streams = [self.problem.results.get(node.id) for node in self.problem.reductions]
        outer = self.walk.outer_strides
        return [(offset_of(digits, [own[s.at] for own in outer]) if s else literal(0), s) for s in streams]

    def _finish(self, body: Body, totals: Sequence[Expression], flat: Expression, places: Sequence[Expression]) -> None:
        """Store the results, or the partial ones of a chunk."""
        problem = self.problem
        single = compare("==", self.walk.chunks * self.walk.copies, 1)
        with body.when(single):
            for fold, node, total, offset in zip(problem.folds, problem.reductions, totals, places, strict=True):
                stream = problem.results.get(node.id)
                if stream is not None:
                    body.store(stream.pointer, offset, fold.finish(total, self.walk.folded))
        with body.otherwise():
            for part, total in zip(self.parts, totals, strict=True):
                body.store(part, flat, total)

    # --- second phase ------------------------------------------------------------------------------------------------

    def merge_function(self) -> Function:
        """Merges partial results in pairs: those of the chunks, then those of the rows that were seen as one."""
        body, walk = Body(), self.walk
        with body.tasks() as task:
            first = body.let("first_result", task * COLUMNS)
            last = least(body, "last_result", first + COLUMNS, walk.results)
            self._pairs(body, walk.chunks, walk.results, (first, last))
            own = body.let("own", walk.results / walk.copies)
            last = least(body, "last_own", last, own)
            self._pairs(body, walk.copies, own, (first, last))
            with body.loop("k", first, last) as k:
                self._spread(body, k)
        return self.function(body, "merge")

    def _pairs(self, body: Body, count: Expression, length: Expression, part: tuple[Expression, Expression]) -> None:
        """Merge ``count`` rows of partial results into the first, two at a time."""
        with body.loop("level", 0, (max(MOST_TASKS, BLOCK) - 1).bit_length()) as level:
            step = body.let("step", Literal(1, INDEX) << level)
            with body.loop("pair", 0, (count + step - 1) / (step * 2)) as pair:
                row = body.let("row", pair * (step * 2) * length)
                other = body.let("other", row + step * length)
                with body.loop("k", *part) as k:
                    for fold, partial in zip(self.problem.folds, self.parts, strict=True):
                        a, b = body.let("a", load(partial, row + k)), body.let("b", load(partial, other + k))
                        body.store(partial, row + k, fold.merge(a, b))

    def _spread(self, body: Body, k: Expression) -> None:
        """Put a merged result where it belongs."""
        walk, problem = self.walk, self.problem
        outer = k / walk.width if self.space.columns else k
        digits = digits_of(body, body.let("outer_index", outer), walk.outer) if walk.outer else []
        column = body.let("column", k % walk.width) if self.space.columns else literal(0)
        for fold, node, part in zip(problem.folds, problem.reductions, self.parts, strict=True):
            stream = problem.results.get(node.id)
            if stream is not None:
                offset = offset_of(digits, [own[stream.at] for own in walk.outer_strides])
                offset = offset + column * walk.column_strides[stream.at]
                body.store(stream.pointer, offset, fold.finish(load(part, k), walk.folded))


Place = tuple[Expression, Expression, Expression, Sequence[Expression]]
"""Of an item: its chunk, its outer index, its first column, its digits on the outer axes."""


def _in_place(request: NativeRequest, problem: Problem) -> tuple[tuple[int, int], ...]:
    """Stored values that may take the place of an operand: each element is read before its own is written."""
    graph, kernel = request.graph, request.kernel
    pairs = []
    for i in problem.stored:
        for operand in problem.inputs:
            same = graph[operand].type == graph[i].type and request.strides[operand] == request.strides[i]
            if same:
                pairs.append((kernel.outputs.index(i), kernel.inputs.index(operand)))
    return tuple(pairs)
