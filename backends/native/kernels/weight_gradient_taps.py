"""The code of weight gradients whose vectors hold taps beside channels: see :mod:`.weight_gradient_taps_plan`.

A task copies lines of d with zeros at their ends, a chunk that stays in the first-level cache, and passes over it with each tile.
Sums of all tasks are added in order in a second phase.
"""

from __future__ import annotations

from dataclasses import dataclass

from irconv.backends.codegen.body import WORKER, Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import Expression, Literal, Pointer, Type, both, compare, literal, load, splat
from irconv.backends.codegen.statements import Function
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, native_kernel
from irconv.backends.native.kernels.weight_gradient_code import (
    BATCH,
    CHUNKS,
    SIZES,
    SPLITS,
    SUMS,
    Buffers,
    Names,
    aligned,
    largest,
    smallest,
)
from irconv.backends.native.kernels.weight_gradient_plan import Problem
from irconv.backends.native.kernels.weight_gradient_taps_plan import TapPlan, taps_cut
from irconv.types import TensorType


def taps_gradient(request: NativeRequest, p: Problem, plan: TapPlan, slots: dict[int, str], d: int, x: int) -> NativeKernel:
    """The kernel by this plan, from the values d and x; ``slots``: names of the kernel's inputs, by id."""
    kernel, cut = request.kernel, taps_cut(p, plan)
    buffers = [("gradient", p.dtype, True)]
    buffers += [(slots[i], request.graph[i].type.dtype, False) for i in kernel.inputs]
    buffers += [("partial", p.dtype, True), ("scratch", p.dtype, True)]
    names = Names(*(Pointer(name, p.dtype) for name in ("gradient", slots[d], slots[x], "partial", "scratch")))
    code = _Taps(p, plan, names)
    functions = [code.products(tuple(buffers)), code.total(tuple(buffers))]
    phases = (Phase(functions[0].name, cut.splits), Phase(functions[1].name, cut.sums))
    scratch = (
        TensorType(p.dtype, (cut.splits, code.rows, plan.width)),
        TensorType(p.dtype, (request.threads, code.zeros + code.lines)),
    )
    sizes = (p.batch, cut.chunks, cut.splits, cut.ranges, cut.sums)
    return native_kernel(print_c(functions), phases, sizes, scratch, machine=request.machine)


@dataclass(frozen=True)
class _Chunk:
    """Where a task is: the first sample and row of the chunk, how many of each, and whether sums of earlier ones go on."""

    sample: Expression
    start: Expression
    samples: Expression
    span: Expression
    goes_on: Expression


class _Taps:
    """Writes the functions."""

    def __init__(self, p: Problem, plan: TapPlan, names: Names):
        self.p, self.plan, self.names = p, plan, names
        self.vector = Type(p.dtype, plan.lanes)
        self.rows = plan.rows.taps * p.depth
        self.length = plan.line_elements(p.rows)
        self.zeros = aligned(plan.places * plan.line.x_stride + plan.channels)
        self.lines = aligned(plan.samples * plan.span * self.length + plan.lanes)
        self.body = Body()

    # --- the sums of each task -----------------------------------------------------------------------------------------

    def products(self, buffers: Buffers) -> Function:
        """The function of the first phase: a task goes through some of the chunks."""
        plan = self.plan
        self.body = body = Body()
        with body.tasks("split") as split:
            zeros = body.pointer("zeros", self.names.copies, WORKER * (self.zeros + self.lines))
            lines = body.pointer("lines", zeros, self.zeros)
            self._clear(zeros, 0, self.zeros)
            sums = body.pointer("own", self.names.partial, split * (self.rows * plan.width))
            chunk_0, chunk_1 = (body.let(f"chunk_{i}", (split + i) * CHUNKS // SPLITS) for i in (0, 1))
            # without a sample there still is one turn, which writes zeros
            with body.loop("chunk", chunk_0, largest(chunk_1, chunk_0 + 1)) as chunk:
                part = self._chunk(chunk, chunk > chunk_0)
                self._copy(part, lines)
                with (
                    body.loop("block", 0, plan.blocks) as block,
                    body.loop("tap", 0, plan.rows.taps, plan.taps) as tap,
                    body.loop("channel", 0, self.p.depth, plan.channels) as channel,
                ):
                    across = block * (plan.vectors * plan.lanes)
                    target = body.pointer("target", sums, (tap * self.p.depth + channel) * plan.width + across)
                    self._tile(part, target, body.pointer("across", lines, across), zeros, tap, channel)
        return body.function("weight_gradient_taps", buffers, SIZES)

    def _chunk(self, number: Expression, goes_on: Expression) -> _Chunk:
        body, plan, count = self.body, self.plan, self.plan.rows.count
        pieces = -(-count // plan.span)
        sample = body.let("sample", number // pieces * plan.samples)
        start = body.let("start", number % pieces * plan.span)
        samples = body.let("samples", largest(smallest(BATCH - sample, plan.samples), 0))
        return _Chunk(sample, start, samples, body.let("span", smallest(count - start, plan.span)), goes_on)

    def _copy(self, part: _Chunk, lines: Pointer) -> None:
        """The lines of d, with zeros where taps of x fall outside; a vector of zeros may reach into the line behind."""
        body, p, plan, line = self.body, self.p, self.plan, self.plan.line
        shift = plan.first + line.before - (line.taps - 1)  # from a place of the copy to one of d
        low = min(max(0, -shift), plan.places + line.taps - 1)
        high = min(max(low, line.count - shift), plan.places + line.taps - 1)
        with body.loop("n", 0, part.samples) as n, body.loop("row", 0, part.span) as row:
            target = body.pointer("to", lines, (n * plan.span + row) * self.length)
            at = (part.sample + n) * p.d_strides[0] + (part.start + row) * plan.rows.d_stride + (low + shift) * line.d_stride
            source = body.pointer("from", self.names.d, at)
            self._clear(target, 0, low * p.rows)
            to = body.pointer("inside", target, low * p.rows)
            if line.d_stride == p.rows and p.d_strides[1] == 1:
                self._move(source, to, (high - low) * p.rows)
            else:
                with body.loop("place", 0, high - low) as place, body.loop("c", 0, p.rows) as c:
                    body.store(to, place * p.rows + c, load(source, place * line.d_stride + c * p.d_strides[1]))
            self._clear(target, high * p.rows, self.length)

    def _clear(self, target: Pointer, first: int, last: int) -> None:
        """Zeros from ``first`` on, up to a vector behind ``last``."""
        if first < last:
            with self.body.loop("z", first, last, self.plan.lanes) as z:
                self.body.store(target, z, Literal(0.0, self.vector))

    def _move(self, source: Pointer, target: Pointer, count: int) -> None:
        """``count`` neighbours."""
        body, lanes = self.body, self.plan.lanes
        whole = count // lanes * lanes
        with body.loop("i", 0, whole, lanes) as i:
            body.store(target, i, load(source, i, lanes))
        if whole < count:
            body.store(target, whole, load(source, whole, lanes, count - whole), literal(count - whole))

    def _tile(
        self, part: _Chunk, target: Pointer, lines: Pointer, zeros: Pointer, tap: Expression, channel: Expression
    ) -> None:
        """The sums of a tile over the chunk, in registers."""
        body, p, plan = self.body, self.p, self.plan
        places = [
            [(k * p.depth + c) * plan.width + v * plan.lanes for v in range(plan.vectors)]
            for k in range(plan.taps)
            for c in range(plan.channels)
        ]
        sums = [[body.variable("sum", Literal(0.0, self.vector)) for _ in offsets] for offsets in places]
        with body.when(part.goes_on):
            for accumulators, offsets in zip(sums, places, strict=True):
                for accumulator, place in zip(accumulators, offsets, strict=True):
                    body.assign(accumulator, load(target, place, plan.lanes))
        with body.loop("n", 0, part.samples) as n, body.loop("row", 0, part.span) as row:
            line = body.pointer("line", lines, (n * plan.span + row) * self.length)
            inputs = self._inputs(part.sample + n, part.start + row, zeros, tap, channel)
            with body.loop("q", 0, plan.places) as q:
                across = [body.let("wide", load(line, q * p.rows + v * plan.lanes, plan.lanes)) for v in range(plan.vectors)]
                for number, accumulators in enumerate(sums):
                    k, c = divmod(number, plan.channels)
                    factor = body.let("factor", splat(load(inputs[k], q * plan.line.x_stride + c), plan.lanes))
                    for accumulator, value in zip(accumulators, across, strict=True):
                        body.assign(accumulator, accumulator + factor * value)
        for accumulators, offsets in zip(sums, places, strict=True):
            for accumulator, place in zip(accumulators, offsets, strict=True):
                body.store(target, place, accumulator)

    def _inputs(
        self, sample: Expression, row: Expression, zeros: Pointer, tap: Expression, channel: Expression
    ) -> list[Pointer]:
        """For each outer tap the line of x that a row of d meets, or one of zeros."""
        body, p, rows = self.body, self.p, self.plan.rows
        found = body.pointers("met", p.dtype, self.plan.taps)
        base = body.let("base", sample * p.x_strides[0] + channel * p.x_strides[1] + self.plan.first * self.plan.line.x_stride)
        for k in range(self.plan.taps):
            at = body.let("at", row * rows.stride + (tap + k) * rows.dilation - rows.before)
            inside = both(compare(">=", at, 0), compare("<", at, rows.size))
            body.set_pointer(found, k, self.names.x, base + at * rows.x_stride, inside, zeros)
        return [body.get_pointer(f"x_{k}", found, k) for k in range(self.plan.taps)]

    # --- all of them ---------------------------------------------------------------------------------------------------

    def total(self, buffers: Buffers) -> Function:
        """The function of the second phase: a task sees to some rows of the sums."""
        p, plan, taps = self.p, self.plan, self.plan.line.taps
        self.body = body = Body()
        _, by_output, by_channel, *by_tap = p.out_strides
        by_row = by_tap[0] if len(by_tap) > 1 else 0
        local = body.array("total", p.dtype, plan.width)
        with body.tasks() as task, body.loop("row", task * self.rows // SUMS, (task + 1) * self.rows // SUMS) as row:
            source = body.pointer("from", self.names.partial, row * plan.width)
            with body.loop("j", 0, plan.width, plan.lanes) as j:
                total = body.variable("sum", load(source, j, plan.lanes))
                with body.loop("split", 1, SPLITS) as split:
                    body.assign(total, total + load(source, split * (self.rows * plan.width) + j, plan.lanes))
                body.store(local, j, total)
            target = body.pointer("to", self.names.gradient, row // p.depth * by_row + row % p.depth * by_channel)
            with body.loop("tap", 0, taps) as tap, body.loop("c", 0, p.rows) as c:
                value = load(local, (taps - 1 - tap) * p.rows + c)
                body.store(target, tap * by_tap[-1] + c * by_output, value)
        return body.function("weight_gradient_taps_add", buffers, SIZES)
