"""The way back through pooling windows, as gathers: every position sums what the windows over it have for it.

No two tasks write the same place, and the order of summation is that of the taps.  Windows that lie side by side (the 2x2
pools at stride 2) are done window by window instead: each is read once and its positions written.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from irconv.backends.arrays.lower import operand_ids
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import Expression, Literal, Type, compare, literal, select
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, native, native_kernel
from irconv.backends.native.kernels.folds import number_like, tap_number
from irconv.backends.native.kernels.places import Lead, Place, Rows, Span, can_vectorise, plan_rows
from irconv.backends.native.kernels.unpool_rows import RunningRows
from irconv.backends.native.kernels.windows import (
    Axis,
    all_of,
    counted_taps,
    full_steps,
    nested,
    row_major_index,
    taps_inside,
    taps_over,
    window_axes,
    windows_over,
)
from irconv.types import F16, DType

UNROLLED_TAPS = 16
"""Windows side by side of more taps go position by position."""

Part = Callable[[Expression], Expression]
"""What a window gives to its tap of this number."""


@native("window_scatter", "avg_pool_adjoint")
def _unpool(request: NativeRequest) -> NativeKernel | None:
    graph, kernel = request.graph, request.kernel
    node = graph[kernel.nodes[0]]
    if any(graph[i].type.dtype is F16 for i in (*kernel.inputs, node.id)):
        return None
    result, counts = node.type, graph[node.operands[0]].type.shape[2:]
    out = Place.of(request, node.id, "out")
    inputs = [Place.of(request, i, f"in{at}") for at, i in enumerate(operand_ids(graph, kernel))]
    lanes = request.machine.lanes(result.dtype.bytes) if can_vectorise(out, graph, kernel) else 1
    axes = window_axes(node.attributes, result.shape[2:], counts)
    sample_bytes = result.shape[1] * (math.prod(result.shape[2:]) + math.prod(counts)) * result.dtype.bytes
    tiled = all(axis.tiles for axis in axes) and math.prod(axis.kernel for axis in axes) <= UNROLLED_TAPS
    outer = counts[:-1] if tiled else result.shape[2:-1]
    rows = plan_rows(result.shape[0], result.shape[1], outer, sample_bytes, lanes)
    unpool = _Unpool(axes, node.attributes, result.dtype, rows, out, inputs)
    name = f"{node.op.name}_tiled" if tiled else node.op.name
    body = unpool.write_tiled() if tiled else unpool.write()
    buffers = [(p.pointer.name, p.pointer.dtype, p is out) for p in (out, *inputs)]
    function = body.function(name, buffers, ("rows",))
    return native_kernel(print_c([function]), (Phase(name, rows.tasks),), (rows.count,))


@dataclass(frozen=True)
class _Unpool:
    """One scatter (``operands``: values and tap numbers) or one spread of averages (values alone) to be written."""

    axes: tuple[Axis, ...]
    attributes: Any
    dtype: DType
    rows: Rows
    out: Place
    operands: list[Place]

    # --- position by position --------------------------------------------------------------------------------------------

    def write(self) -> Body:
        body = Body()
        with self.rows.each(body) as (lead, outer, spans):
            begin, end = self._unrolled(body, lead, outer, spans)
            with body.loop("other", 0, self.axes[-1].size - (end - begin)) as other:
                column = body.let("column", select(other < begin, other, other + (end - begin)))
                position = [*outer, column]
                place = body.let("place", self.out.at(lead, position))
                for span in spans:
                    with span.each(body) as vectors:
                        self._position(body, lead, position, place, span, vectors)
        return body

    def _unrolled(
        self, body: Body, lead: Lead, outer: Sequence[Expression], spans: Sequence[Span]
    ) -> tuple[Expression, Expression]:
        """Positions all of whose windows exist, with the windows written out for every remainder by the stride.

        The positions of the row that are done: first to last + 1.
        """
        last = self.axes[-1]
        first, stop = full_steps(last)
        strides = math.prod(axis.stride for axis in self.axes)
        taps = math.prod(axis.kernel for axis in self.axes)
        if any(axis.dilation > 1 for axis in self.axes) or max(taps, strides) > UNROLLED_TAPS or first == stop:
            return literal(0), literal(0)
        places = [body.let("above", o + axis.before) for o, axis in zip(outer, self.axes, strict=False)]
        steps = [body.let("step", place // axis.stride) for place, axis in zip(places, self.axes, strict=False)]
        phases = [body.let("phase", p - q * axis.stride) for p, q, axis in zip(places, steps, self.axes, strict=False)]
        limits = [(q, *full_steps(axis)) for q, axis in zip(steps, self.axes, strict=False)]
        conditions = [place >= 0 for place, axis in zip(places, self.axes, strict=False) if axis.before < 0]
        conditions += [c for q, start, end in limits for c in (q >= start, q < end)]
        is_full = body.let("is_full", all_of(conditions))
        low, high = first * last.stride - last.before, stop * last.stride - last.before
        begin, end = (body.let(n, select(is_full, literal(v), 0)) for n, v in (("begin", low), ("end", high)))
        for phase in itertools.product(*(range(axis.stride) for axis in self.axes[:-1])):
            here = [is_full, *(compare("==", p, number) for p, number in zip(phases, phase, strict=True))]
            with body.when(all_of(here)), body.loop("window", first, stop) as window:
                self._phase(body, lead, outer, [*steps, window], phase, spans)
        return begin, end

    def _phase(
        self,
        body: Body,
        lead: Lead,
        outer: Sequence[Expression],
        steps: Sequence[Expression],
        phase: Sequence[int],
        spans: Sequence[Span],
    ) -> None:
        """The positions from step q to the next one along the last axis."""
        last = self.axes[-1]
        for remainder in range(last.stride):
            column = steps[-1] * last.stride + (remainder - last.before)
            place = body.let("place", self.out.at(lead, [*outer, column]))
            over = [taps_over(axis, r) for axis, r in zip(self.axes, [*phase, remainder], strict=True)]
            for span in spans:
                with span.each(body, most=1) as vectors:
                    for c, count in vectors:
                        total: Expression = Literal(0, Type(self.dtype, span.lanes))
                        for tap in itertools.product(*over):
                            rows = zip(steps, tap, self.axes, strict=True)
                            window = [q - t // axis.stride for q, t, axis in rows]
                            number = row_major_index([literal(t) for t in tap], [axis.kernel for axis in self.axes])
                            at = [p.at(lead, window) for p in self.operands]
                            part = self._part(body, at, self._divisor(body, window), span, c, count)
                            total = body.let("total", total + part(number))
                        self.out.store(body, place, c, total, count)

    def _position(
        self,
        body: Body,
        lead: Lead,
        position: Sequence[Expression],
        place: Expression,
        span: Span,
        vectors: Sequence[tuple[Expression, int | None]],
    ) -> None:
        zero = Literal(0, Type(self.dtype, span.lanes))
        totals = [body.variable("total", zero) for _ in vectors]
        with nested([windows_over(body, axis, i) for axis, i in zip(self.axes, position, strict=True)]) as found:
            tap = row_major_index([t for t, _ in found], [axis.kernel for axis in self.axes])
            window = [body.let("window", o) for _, o in found]
            divisor = self._divisor(body, window)
            at = [body.let("at", p.at(lead, window)) for p in self.operands]
            for (c, count), total in zip(vectors, totals, strict=True):
                body.assign(total, total + self._part(body, at, divisor, span, c, count)(tap))
        for (c, count), total in zip(vectors, totals, strict=True):
            self.out.store(body, place, c, total, count)

    # --- window by window ------------------------------------------------------------------------------------------------

    def write_tiled(self) -> Body:
        body = Body()
        with self.rows.each(body) as (lead, outer, spans):
            running = self._running(spans)
            if running is None:
                with body.loop("column", 0, self.axes[-1].count) as column:
                    self._tile(body, lead, [*outer, column], spans)
            else:
                sources = [body.let("at", p.at(lead, [*outer, literal(0)])) for p in self.operands]
                corner = [*(o * axis.stride for o, axis in zip(outer, self.axes, strict=False)), literal(0)]
                running.write(body, sources, body.let("corner", self.out.at(lead, corner)))
            self._uncovered(body, lead, outer, spans)
        return body

    def _running(self, spans: Sequence[Span]) -> RunningRows | None:
        """The code for whole rows, where it is faster than window by window."""
        divisor = self._divisor(Body(), [literal(0) for _ in self.axes]) or literal(1)
        if self.rows.parts > 1 or not isinstance(divisor, Literal):
            return None
        lanes, number = spans[0].lanes, int(divisor.value)
        rows = RunningRows(self.axes, self.rows.channels, lanes, self.dtype, self.out, self.operands, number)
        return rows if rows.is_possible else None

    def _tile(self, body: Body, lead: Lead, window: Sequence[Expression], spans: Sequence[Span]) -> None:
        at = [body.let("at", p.at(lead, window)) for p in self.operands]
        divisor = self._divisor(body, window)
        corner = [o * axis.stride for o, axis in zip(window, self.axes, strict=True)]
        place = body.let("place", self.out.at(lead, corner))
        taps = itertools.product(*(range(axis.kernel) for axis in self.axes))
        offsets = [sum(t * s for t, s in zip(tap, self.out.strides[2:], strict=True)) for tap in taps]
        for span in spans:
            with span.each(body, most=1) as vectors:
                for c, count in vectors:
                    part = self._part(body, at, divisor, span, c, count)
                    for tap, offset in enumerate(offsets):
                        self.out.store(body, place + offset, c, part(literal(tap)), count)

    def _uncovered(self, body: Body, lead: Lead, outer: Sequence[Expression], spans: Sequence[Span]) -> None:
        """Zeros at the positions right of and below the windows.

        A row of windows takes those at its side, a first row also those below all of them.
        """
        covered = [axis.count * axis.kernel for axis in self.axes]
        for number, axis in enumerate(self.axes):
            if covered[number] == axis.size:
                continue
            # on axes before this one the row's own positions, after it everything
            ranges: list[tuple[Expression, Expression]] = []
            for k, other in enumerate(self.axes):
                if k == number:
                    ranges.append((literal(covered[k]), literal(other.size)))
                elif k < number:
                    low = outer[k] * other.kernel
                    ranges.append((low, low + other.kernel))
                else:
                    ranges.append((literal(0), literal(other.size)))
            inner = [compare("==", o, 0) for o in outer[number:]]
            self._zero(body, lead, ranges, inner, spans)

    def _zero(
        self,
        body: Body,
        lead: Lead,
        ranges: Sequence[tuple[Expression, Expression]],
        conditions: Sequence[Expression],
        spans: Sequence[Span],
    ) -> None:
        """Zeros over ranges of positions, where all conditions hold."""
        guard = [body.when(all_of(conditions))] if conditions else []
        loops = [body.loop("blank", low, high) for low, high in ranges]
        with nested([*guard, *loops]) as found:
            place = body.let("place", self.out.at(lead, found[len(guard) :]))
            for span in spans:
                with span.each(body, most=1) as vectors:
                    for c, count in vectors:
                        self.out.store(body, place, c, Literal(0, Type(self.dtype, span.lanes)), count)

    # --- what a window gives ---------------------------------------------------------------------------------------------

    def _part(
        self,
        body: Body,
        at: Sequence[Expression],
        divisor: Expression | None,
        span: Span,
        c: Expression,
        count: int | None,
    ) -> Part:
        type_ = Type(self.dtype, span.lanes)
        value = body.let("d", self.operands[0].load(at[0], c, span.lanes, count))
        if divisor is not None:
            share = body.let("share", value / number_like(divisor, type_))
            return lambda tap: share
        chosen = body.let("chosen", self.operands[1].load_taps(at[1], c, type_, count))
        return lambda tap: select(compare("==", chosen, tap_number(tap, chosen.type)), value, Literal(0, type_))

    def _divisor(self, body: Body, window: Sequence[Expression]) -> Expression | None:
        """What an average's share is divided by; None for a scatter."""
        if len(self.operands) > 1:
            return None
        if self.attributes.divisor_override is not None:
            return literal(self.attributes.divisor_override)
        total: Expression = literal(1)
        for axis, o in zip(self.axes, window, strict=True):
            if axis.is_whole:
                total = total * axis.kernel
            else:
                taps = taps_inside(body, axis, o)
                total = counted_taps(body, axis, taps, self.attributes.count_include_pad) * total
        return total if isinstance(total, Literal) else body.let("divisor", select(total < 1, 1, total))
