"""Softmax and its kin: reductions of rows, and elementwise work before, between and after them, in one pass over memory.

A row is the folded axis.  Its values have the full shape [.., L]; row values ([.., 1] or [..]) are one number a row.  What a row
needs is done in phases::

    phase 0:  max(x)
    phase 1:  x - max,  exp(x - max),  sum of it
    phase 2:  exp(x - max) / sum

Each phase is a loop over the row's vectors, which ends with its reductions and the row values that follow from them.  Values
of the full shape that a later phase needs stay in local arrays, in the first-level cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from irconv.backends.codegen.access import as_stored
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.expressions import can_evaluate, evaluate, values_read
from irconv.backends.codegen.form import Expression, Pointer, literal, load, splat
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, native, native_kernel
from irconv.backends.native.kernels.reduction_folds import REDUCTIONS, fold_of
from irconv.backends.native.kernels.reduction_loops import across, each_vector, lane_numbers, only, paired
from irconv.backends.native.kernels.reduction_problem import buffers, main_strides
from irconv.backends.native.kernels.reduction_space import (
    BLOCK,
    MOST_TASKS,
    TASK,
    Cut,
    Space,
    SpaceAxis,
    Walk,
    full_strides,
    least,
    merged_axes,
    moved,
    result_strides,
)
from irconv.graph import Node
from irconv.types import F32, F64

LONGEST = 16384
"""Elements of a row, at most: its values have to fit the first- or second-level cache."""

WAYS = 2
"""Vectors of a row that are worked on side by side."""


@native("row_softmax")
def _row_softmax(request: NativeRequest) -> NativeKernel | None:
    """Reductions over one axis; other values have the full shape or one element a row."""
    rows = _rows_of(request)
    return None if rows is None else _Code(request, rows).kernel()


@dataclass(frozen=True)
class _Rows:
    """The nodes of a kernel by their part.

    phases:  for each the full nodes, the reductions that end it, and the row nodes that follow.
    first:   row nodes that come before the first phase.
    home:    the phase of every full node.
    aliases: reshapes of row values, which are the same number.
    """

    shape: tuple[int, ...]
    axis: int
    first: tuple[int, ...]
    phases: tuple[tuple[tuple[int, ...], tuple[Node, ...], tuple[int, ...]], ...]
    home: dict[int, int]
    aliases: dict[int, int]


def _rows_of(request: NativeRequest) -> _Rows | None:
    graph, kernel = request.graph, request.kernel
    reductions = [graph[i] for i in kernel.nodes if graph[i].op.name in REDUCTIONS]
    if not reductions or len(reductions[0].attributes.axes) != 1:
        return None
    shape, axes = graph[reductions[0].operands[0]].type.shape, reductions[0].attributes.axes
    if shape[axes[0]] > LONGEST or any(r.attributes.axes != axes or graph[r.operands[0]].type.shape != shape for r in reductions):
        return None
    kept = tuple(1 if axis in axes else n for axis, n in enumerate(shape))
    dropped = tuple(n for axis, n in enumerate(shape) if axis not in axes)
    level: dict[int, int] = {}  # the phase of a full value; of a row value the phase before which it is there
    home: dict[int, int] = {}
    aliases: dict[int, int] = {}
    rows: list[int] = []
    for i in kernel.nodes:
        node = graph[i]
        before = max((level.get(operand, 0) for operand in node.operands), default=0)
        if node.op.name in REDUCTIONS:
            level[i] = before + 1
        elif node.op.name == "reshape":
            aliases[i], level[i] = node.operands[0], before
        elif node.type.shape == shape:
            if any(o in level and o not in home and graph[o].type.shape != kept for o in node.operands):
                return None
            level[i] = home[i] = before
        elif node.type.shape in (kept, dropped):
            level[i] = before
            rows.append(i)
        else:
            return None
    last = max(level.values())
    phases = tuple(
        (
            tuple(i for i in kernel.nodes if home.get(i) == phase),
            tuple(r for r in reductions if level[r.id] == phase + 1),
            tuple(i for i in rows if level[i] == phase + 1),
        )
        for phase in range(last + 1)
    )
    if not all(can_evaluate(graph, nodes, 1) for full, _, after in phases for nodes in (full, after)):
        return None
    return _Rows(shape, axes[0], tuple(i for i in rows if level[i] == 0), phases, home, aliases)


class _Code:
    """Writes one kernel."""

    def __init__(self, request: NativeRequest, rows: _Rows):
        self.request, self.rows, self.graph = request, rows, request.graph
        graph, kernel = request.graph, request.kernel
        self.full_reads, self.row_reads = self._reads()
        strides, names = [], []
        for i in self.full_reads:
            strides.append(full_strides(graph[i].type.shape, request.strides[i], rows.shape))
            names.append(f"in{kernel.inputs.index(i)}")
        for i in self.row_reads:
            strides.append(self._row_strides(i))
            names.append(f"row_in{kernel.inputs.index(i)}")
        for i in kernel.outputs:
            strides.append(request.strides[i] if i in rows.home else self._row_strides(i))
            names.append(f"out{kernel.outputs.index(i)}")
        ids = [("full", i) for i in self.full_reads] + [("row", i) for i in self.row_reads]
        ids += [("out", i) for i in kernel.outputs]
        self.stream = {key: at for at, key in enumerate(ids)}
        order = main_strides(rows.shape, strides)
        axes = merged_axes(rows.shape, (rows.axis,), strides, order)
        along = next((axis for axis in axes if axis.folded), SpaceAxis(1, True, (0,) * len(strides)))
        self.space = Space(tuple(axis for axis in axes if not axis.folded), (), along, None)
        self.lanes = self._lanes()
        count = math.prod(axis.extent for axis in self.space.outer)
        group = max(1, TASK // max(1, along.extent), -(-count // MOST_TASKS))
        self.cut = Cut(BLOCK, max(1, along.extent), count, 1, 1, 1, group)
        self.walk = Walk(self.space, self.cut, names)

    def _reads(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What is read from outside by full nodes and reductions, and by row nodes."""
        graph, rows = self.graph, self.rows
        members = set(self.request.kernel.nodes)
        full = [i for nodes, _, _ in rows.phases for i in values_read(graph, nodes)]
        full += [r.operands[0] for _, reductions, _ in rows.phases for r in reductions]
        row = [i for nodes in (rows.first, *(after for _, _, after in rows.phases)) for i in values_read(graph, nodes)]
        row += list(rows.aliases.values())
        return (
            tuple(dict.fromkeys(i for i in full if i not in members)),
            tuple(dict.fromkeys(i for i in row if i not in members)),
        )

    def _row_strides(self, i: int) -> tuple[int, ...]:
        """Strides of a row value, or of what is broadcast to one, over the space."""
        graph, rows = self.graph, self.rows
        own, shape = self.request.strides[i], graph[i].type.shape
        readers = (node for node in (graph[n] for n in self.request.kernel.nodes) if i in node.operands)
        forms = {node.type.shape for node in readers if node.id not in rows.home and node.op.name not in REDUCTIONS}
        # a row value is its own form; so is what is reshaped to one
        form = shape if i in self.request.kernel.nodes or i in rows.aliases.values() else max(forms, key=len)
        read = full_strides(shape, own, form)
        return read if len(form) == len(rows.shape) else result_strides(read, (rows.axis,), len(rows.shape), False)

    def _lanes(self) -> int:
        graph, rows = self.graph, self.rows
        dtypes = {graph[r.operands[0]].type.dtype for _, reductions, _ in rows.phases for r in reductions}
        if len(dtypes) != 1 or not dtypes <= {F32, F64}:
            return 1
        lanes = self.request.machine.lanes(next(iter(dtypes)).bytes)
        along = self.space.rows.strides
        reads = [along[self.stream["full", i]] for i in self.full_reads]
        writes = [along[self.stream["out", i]] for i in self.request.kernel.outputs if i in rows.home]
        if any(s not in (0, 1) for s in reads) or any(s != 1 for s in writes):
            return 1
        return lanes if all(can_evaluate(graph, nodes, lanes) for nodes, _, _ in rows.phases if nodes) else 1

    def kernel(self) -> NativeKernel:
        body, walk = Body(), self.walk
        self.numbers = lane_numbers(body, self._element_bytes(), self.lanes)
        with body.tasks() as task:
            first = body.let("first_item", task * walk.group)
            with body.loop("item", first, least(body, "last_item", first + walk.group, walk.items)) as item:
                self._item(body, walk.outer_digits(body, item))
        named = [(buffer, type_.dtype, written) for buffer, type_, written in buffers(self.request, (), False)]
        function = body.function("rows", named, tuple(walk.sizes.values))
        sizes = tuple(walk.sizes.values.values())
        phases = (Phase("rows", self.cut.tasks),)
        return native_kernel(print_c([function]), phases, sizes, (), (), self.request.machine)

    def _element_bytes(self) -> int:
        reduction = next(r for _, reductions, _ in self.rows.phases for r in reductions)
        return self.graph[reduction.operands[0]].type.dtype.bytes

    # --- one row -----------------------------------------------------------------------------------------------------

    def _item(self, body: Body, digits: Sequence[Expression]) -> None:
        graph, rows, kernel = self.graph, self.rows, self.request.kernel
        pointers: dict[tuple[str, int], Pointer] = {}
        for key, at in self.stream.items():
            outside = kernel.outputs if key[0] == "out" else kernel.inputs
            buffer = Pointer(f"{'out' if key[0] == 'out' else 'in'}{outside.index(key[1])}", graph[key[1]].type.dtype)
            pointers[key] = moved(body, f"{buffer.name}_item", buffer, self.walk.item_offset(body, at, digits, literal(0)))
        arrays = self._arrays(body)
        values: dict[int, Expression] = {}
        self._row_nodes(body, rows.first, values, pointers)
        for phase, (_, _, after) in enumerate(rows.phases):
            self._phase(body, phase, values, pointers, arrays)
            self._row_nodes(body, after, values, pointers)
        for i in kernel.outputs:
            if i not in rows.home:
                value = self._row_value(i, values, pointers)
                body.store(pointers["out", i], 0, as_stored(value, graph[i].type.dtype))

    def _arrays(self, body: Body) -> dict[int, Pointer]:
        """Room for the full values that a later phase reads."""
        graph, rows = self.graph, self.rows
        size = max(64, 1 << (self.space.rows.extent + self.lanes - 1).bit_length())
        later = {
            operand
            for i, phase in rows.home.items()
            for operand in graph[i].operands
            if rows.home.get(operand, phase) < phase
        }
        for phase, (_, reductions, _) in enumerate(rows.phases):
            later |= {r.operands[0] for r in reductions if rows.home.get(r.operands[0], phase) < phase}
        return {i: body.array("kept", graph[i].type.dtype, size) for i in rows.home if i in later}

    def _row_value(
        self, i: int, values: dict[int, Expression], pointers: dict[tuple[str, int], Pointer]
    ) -> Expression:
        """A row's number of a row value, under whatever shape."""
        while i in self.rows.aliases:
            i = self.rows.aliases[i]
        return values[i] if i in values else load(pointers["row", i], 0)

    def _row_nodes(
        self, body: Body, nodes: Sequence[int], values: dict[int, Expression], pointers: dict[tuple[str, int], Pointer]
    ) -> None:
        """Compute row values."""
        evaluate(body, self.graph, nodes, values, lambda i: self._row_value(i, values, pointers), 1)

    def _phase(
        self,
        body: Body,
        phase: int,
        values: dict[int, Expression],
        pointers: dict[tuple[str, int], Pointer],
        arrays: dict[int, Pointer],
    ) -> None:
        """One loop over the row, and the reductions that end it."""
        lanes = self.lanes
        nodes, reductions, _ = self.rows.phases[phase]
        if not nodes and not reductions:
            return
        folds = [fold_of(self.graph, r) for r in reductions]
        sums = [[body.variable(fold.name, fold.start(lanes)) for _ in range(WAYS)] for fold in folds]

        def emit(way: int, at: Expression, left: Expression | None) -> None:
            def read(i: int) -> Expression:
                if i in members and i not in self.rows.home:
                    return self._row_value(i, values, pointers)
                return self._element(i, at, left, pointers, arrays)

            known: dict[int, Expression] = {}
            evaluate(body, self.graph, nodes, known, read, lanes)
            self._keep(body, {i: known[i] for i in nodes}, at, left, pointers, arrays)
            for fold, own, node in zip(folds, sums, reductions, strict=True):
                i = node.operands[0]
                if i not in known:
                    known[i] = body.let("value", splat(read(i), lanes))
                element = body.let("element", fold.taken(known[i]))
                if left is not None:
                    element = body.let("inside", only(self.numbers, left, element, fold.start(lanes)))
                body.assign(own[way], fold.merge(own[way], element))

        members = set(self.request.kernel.nodes)
        each_vector(body, self.walk.rows, lanes, WAYS, emit)
        for fold, own, node in zip(folds, sums, reductions, strict=True):
            total = across(body, fold.merge, fold.together, paired(body, fold.merge, own))
            values[node.id] = body.let("result", fold.finish(total, self.walk.rows))

    def _element(
        self,
        i: int,
        at: Expression,
        left: Expression | None,
        pointers: dict[tuple[str, int], Pointer],
        arrays: dict[int, Pointer],
    ) -> Expression:
        """Elements of a row: of a value kept by an earlier phase, or of an operand."""
        if i in arrays:
            return load(arrays[i], at, self.lanes)
        stride = self.walk.row_strides[self.stream["full", i]]
        if self.lanes == 1 or stride == literal(0):
            return load(pointers["full", i], at * stride)
        return load(pointers["full", i], at, self.lanes, left)

    def _keep(
        self,
        body: Body,
        values: dict[int, Expression],
        at: Expression,
        left: Expression | None,
        pointers: dict[tuple[str, int], Pointer],
        arrays: dict[int, Pointer],
    ) -> None:
        """Store full values for later phases and for others."""
        for i, value in values.items():
            stored = as_stored(value, self.graph[i].type.dtype)
            if i in arrays:
                body.store(arrays[i], at, stored)
            if i in self.request.kernel.outputs:
                step = self.walk.row_strides[self.stream["out", i]]
                body.store(pointers["out", i], at * step, stored, left if self.lanes > 1 else None)
