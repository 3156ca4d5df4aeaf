"""Pooling: each window read once, its taps unrolled where they all lie inside the input.

Where the channels are next to each other, vectors run along them and several windows' loads share the cache; otherwise the
loop over the last axis holds scalars, for the compiler to make vectors of.  A row of windows is a unit of work; windows at the
border, and large ones, loop over their taps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from irconv.backends.arrays.lower import operand_ids
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import Expression, Literal, Type, Variable, literal, select
from irconv.backends.codegen.statements import Function
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, native, native_kernel
from irconv.backends.native.kernels.computed_place import computed_place
from irconv.backends.native.kernels.folds import Average, Chosen, Extremum, Fold, Read, Winner, fold_all
from irconv.backends.native.kernels.places import Lead, Place, Rows, Span, can_vectorise, plan_rows
from irconv.backends.native.kernels.windows import (
    Axis,
    Taps,
    all_of,
    counted_taps,
    nested,
    row_major_index,
    taps_inside,
    window_axes,
)
from irconv.graph import Graph, Node
from irconv.kernel import Kernel
from irconv.types import F16, DType

OF_WINDOWS = frozenset({"max_pool", "min_pool", "avg_pool", "argmax_pool", "argmin_pool"})

UNROLLED_TAPS = 16
"""Windows of more taps are looped over."""


# --- entered ops -----------------------------------------------------------------------------------------------------------


@native("max_pool", "min_pool", "avg_pool", "window_gather", "argmax_pool", "argmin_pool", "pool_indices")
def _pool(request: NativeRequest) -> NativeKernel | None:
    """A pool, the winning taps of one, or both at once."""
    graph, kernel = request.graph, request.kernel
    if any(graph[i].type.dtype is F16 for i in (*kernel.inputs, *kernel.outputs)):
        return None
    function, rows = pool_function(request)
    return native_kernel(print_c([function]), (Phase(function.name, rows.tasks),), (rows.count,))


@native("pool_prologue")
def _computed_pool(request: NativeRequest) -> NativeKernel | None:
    """A pool, alone or with its winning taps, of what elementwise ops make."""
    graph, kernel = request.graph, request.kernel
    pools = tuple(i for i in kernel.nodes if graph[i].op.name in OF_WINDOWS)
    ahead = tuple(i for i in kernel.nodes if i not in pools)
    body, x = Body(), graph[graph[pools[0]].operands[0]].type
    outputs = [Place.of(request, i, f"out{at}") for at, i in enumerate(kernel.outputs)]
    inputs = {i: Place.of(request, i, f"in{at}") for at, i in enumerate(kernel.inputs)}
    lanes = request.machine.lanes(x.dtype.bytes)
    computed = computed_place(request, body, ahead, inputs, lanes)
    if computed is None or not can_vectorise(computed, graph, kernel):
        return None
    axes, rows = _windows(graph, graph[pools[0]], lanes)
    fold = pool_fold(graph, replace(kernel, nodes=pools))
    pool = _Pool(fold, axes, graph[pools[0]].attributes, x.dtype, rows, [computed], outputs)
    buffers = [(p.pointer.name, p.pointer.dtype, p in outputs) for p in (*outputs, *inputs.values())]
    function = pool.write(body).function("pool", buffers, ("rows",))
    return native_kernel(print_c([function]), (Phase(function.name, rows.tasks),), (rows.count,))


def pool_fold(graph: Graph, kernel: Kernel) -> Fold:
    """What the kernel's windows are folded into; it holds one pool, or a pool and the op that gives its winning taps."""
    nodes = sorted((graph[i] for i in kernel.nodes), key=lambda node: node.op.name.startswith("arg"))
    first, last = nodes[0], nodes[-1]
    if last.op.name.startswith("arg"):
        place = {i: at for at, i in enumerate(kernel.outputs)}
        value_at = place.get(first.id, -1) if first is not last else -1
        return Winner(last.op.name == "argmax_pool", value_at, place.get(last.id, -1))
    folds: dict[str, Fold] = {
        "max_pool": Extremum(True),
        "min_pool": Extremum(False),
        "avg_pool": Average(),
        "window_gather": Chosen(1),
    }
    return folds[first.op.name]


# --- generation ------------------------------------------------------------------------------------------------------------


def pool_function(request: NativeRequest, cut: Callable[[Rows], Rows] = lambda rows: rows) -> tuple[Function, Rows]:
    """The function of a kernel of pools, and its rows of windows, which ``cut`` may cut into other tasks."""
    graph, kernel = request.graph, request.kernel
    node = graph[kernel.nodes[0]]
    name = node.op.name if len(kernel.nodes) == 1 else f"{node.op.name.removeprefix('arg')}_indices"
    x = graph[kernel.inputs[0]].type
    ids = operand_ids(graph, kernel)
    outputs = [Place.of(request, i, f"out{at}") for at, i in enumerate(kernel.outputs)]
    inputs = [Place.of(request, i, f"in{at}") for at, i in enumerate(ids)]
    lanes = request.machine.lanes(x.dtype.bytes) if can_vectorise(inputs[0], graph, kernel) else 1
    axes, rows = _windows(graph, node, lanes)
    rows = cut(rows)
    pool = _Pool(pool_fold(graph, kernel), axes, node.attributes, x.dtype, rows, inputs, outputs)
    buffers = [(p.pointer.name, p.pointer.dtype, p in outputs) for p in (*outputs, *inputs)]
    return pool.write(Body()).function(name, buffers, ("rows",)), rows


def _windows(graph: Graph, node: Node, lanes: int) -> tuple[tuple[Axis, ...], Rows]:
    """The axes of a pool's windows, and its rows of them."""
    x, counts = graph[node.operands[0]].type, node.type.shape[2:]
    sample_bytes = x.shape[1] * (math.prod(x.shape[2:]) + math.prod(counts)) * x.dtype.bytes
    rows = plan_rows(x.shape[0], x.shape[1], counts[:-1], sample_bytes, lanes)
    return window_axes(node.attributes, x.shape[2:], counts), rows


@dataclass(frozen=True)
class _Pool:
    """One pool to be written.  ``operands``: places of the input and of what else the op reads, in its order."""

    fold: Fold
    axes: tuple[Axis, ...]
    attributes: Any
    dtype: DType
    rows: Rows
    operands: list[Place]
    outputs: list[Place]

    def write(self, body: Body) -> Body:
        """The body with the statements of the pool."""
        with self.rows.each(body) as (lead, outer, spans):
            taps = [taps_inside(body, axis, o) for axis, o in zip(self.axes, outer, strict=False)]
            counted = [self._counted(body, axis, t) for axis, t in zip(self.axes, taps, strict=False)]
            begin, end = self._unrolled_range(body, outer)
            if end != literal(0):
                with body.loop("column", begin, end) as column:
                    self._inside(body, lead, [*outer, column], spans)
            last = self.axes[-1]
            if (begin, end) != (literal(0), literal(last.count)):
                with body.loop("other", 0, last.count - (end - begin)) as other:
                    column = body.let("column", select(other < begin, other, other + (end - begin)))
                    self._border(body, lead, [*outer, column], taps, counted, spans)
        return body

    def _unrolled_range(self, body: Body, outer: Sequence[Expression]) -> tuple[Expression, Expression]:
        """The windows of a row, first to last + 1, whose taps are unrolled: small ones that are all inside."""
        low, high = self.axes[-1].inside
        if math.prod(axis.kernel for axis in self.axes) > UNROLLED_TAPS or low == high:
            return literal(0), literal(0)
        conditions = []
        for axis, o in zip(self.axes, outer, strict=False):
            first, stop = axis.inside
            conditions += [o >= first] if first > 0 else []
            conditions += [o < stop] if stop < axis.count else []
        if not conditions:
            return literal(low), literal(high)
        is_inside = body.let("is_inside", all_of(conditions))
        return body.let("begin", select(is_inside, literal(low), 0)), body.let("end", select(is_inside, literal(high), 0))

    # --- divisors ------------------------------------------------------------------------------------------------------

    def _counted(self, body: Body, axis: Axis, taps: Taps) -> Expression:
        if not self.fold.divides or self.attributes.divisor_override is not None:
            return literal(1)
        if axis.is_whole:
            return literal(axis.kernel)
        return counted_taps(body, axis, taps, self.attributes.count_include_pad)

    def _divisor(self, body: Body, counted: Sequence[Expression]) -> Expression | None:
        if not self.fold.divides:
            return None
        if self.attributes.divisor_override is not None:
            return literal(self.attributes.divisor_override)
        total: Expression = literal(1)
        for count in counted:
            total = count * total
        return total if isinstance(total, Literal) else body.let("divisor", select(total < 1, 1, total))

    # --- one window ------------------------------------------------------------------------------------------------------

    def _inside(
        self, body: Body, lead: Lead, window: list[Expression], spans: Sequence[Span]
    ) -> None:
        """A window whose taps are all inside, unrolled."""
        x, fold = self.operands[0], self.fold
        starts = [o * axis.stride - axis.before for o, axis in zip(window, self.axes, strict=True)]
        source = body.let("source", x.at(lead, starts))
        places = self._window_places(body, lead, window)
        divisor = self._divisor(body, [literal(axis.kernel) for axis in self.axes])
        offsets = [
            sum(t * axis.dilation * s for t, axis, s in zip(tap, self.axes, x.strides[2:], strict=True))
            for tap in itertools.product(*(range(axis.kernel) for axis in self.axes))
        ]
        for span in spans:
            with span.each(body, most=1) as vectors:
                for c, count in vectors:
                    read = self._reader(body, places, span, c, count)
                    values = [body.let("x", x.load(source + offset, c, span.lanes, count)) for offset in offsets]
                    state = fold_all(body, fold, values, read)
                    self._store(body, places, state, divisor, span, c, count)

    def _border(
        self,
        body: Body,
        lead: Lead,
        window: list[Expression],
        outer: list[Taps],
        counted: list[Expression],
        spans: Sequence[Span],
    ) -> None:
        """Any window: loops over the taps that are inside."""
        x, fold = self.operands[0], self.fold
        taps = [*outer, taps_inside(body, self.axes[-1], window[-1])]
        divisor = self._divisor(body, [*counted, self._counted(body, self.axes[-1], taps[-1])])
        places = self._window_places(body, lead, window)
        kernel = [axis.kernel for axis in self.axes]
        first: Expression = row_major_index([t.low for t in taps], kernel)
        if isinstance(fold, Winner) and not isinstance(first, Literal):
            first = body.let("first_tap", select(all_of([t.low < t.high for t in taps]), first, 0))
        type_ = Type(self.dtype)
        for span in spans:
            with span.each(body) as vectors:
                wide = Type(type_.dtype, span.lanes)
                reads = [self._reader(body, places, span, c, count) for c, count in vectors]
                states = [
                    tuple(body.variable("state", part) for part in fold.nothing(wide, first)) for _ in vectors
                ]
                with nested([body.loop("tap", t.low, t.high) for t in taps]) as tap:
                    positions = [t.start + k * axis.dilation for t, k, axis in zip(taps, tap, self.axes, strict=True)]
                    source = body.let("source", x.at(lead, positions))
                    number = row_major_index(tap, kernel)
                    for (c, count), state, read in zip(vectors, states, reads, strict=True):
                        value = body.let("x", x.load(source, c, span.lanes, count))
                        stepped = [body.let("next", part) for part in fold.step(state, value, number, read)]
                        for variable, part in zip(state, stepped, strict=True):
                            body.assign(variable, part)
                for (c, count), done in zip(vectors, states, strict=True):
                    self._store(body, places, done, divisor, span, c, count)

    # --- reading and writing what belongs to a window ---------------------------------------------------------------------

    def _window_places(self, body: Body, lead: Lead, window: list[Expression]) -> list[tuple[Place, Expression]]:
        """Outputs, then the other operands, with their offsets at this window."""
        return [(p, body.let("place", p.at(lead, window))) for p in (*self.outputs, *self.operands[1:])]

    def _reader(
        self, body: Body, places: list[tuple[Place, Expression]], span: Span, c: Expression, count: int | None
    ) -> Read:
        loaded: dict[int, Expression] = {}
        for position, (place, at) in enumerate(places[len(self.outputs) :], start=1):
            loaded[position] = body.let("named", place.load_taps(at, c, Type(self.dtype, span.lanes), count))
        return loaded.__getitem__

    def _store(
        self,
        body: Body,
        places: list[tuple[Place, Expression]],
        state: tuple[Expression, ...] | tuple[Variable, ...],
        divisor: Expression | None,
        span: Span,
        c: Expression,
        count: int | None,
    ) -> None:
        results = self.fold.results(tuple(state), divisor)
        for (place, at), value in zip(places[: len(self.outputs)], results, strict=True):
            place.store(body, at, c, body.let("result", value), count)
