"""The code of a weight gradient: see :mod:`irconv.backends.native.kernels.weight_gradient_plan` for how it is cut.

This is its first phase, which makes a partial gradient for each split of the positions, in tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from irconv.backends.codegen.body import WORKER, Body
from irconv.backends.codegen.form import (
    INDEX,
    Expression,
    Operand,
    Pointer,
    Type,
    Variable,
    call,
    literal,
    load,
    select,
    splat,
)
from irconv.backends.codegen.statements import Function
from irconv.backends.native.kernels.weight_gradient_plan import Plan, Problem, elements_of_row
from irconv.types import DType

Buffers = tuple[tuple[str, DType, bool], ...]
Ranges = list[tuple[Expression, Expression]]

BATCH, CHUNKS, SPLITS, RANGES, SUMS = (Variable(n, INDEX) for n in ("batch", "chunks", "splits", "ranges", "sums"))
SIZES = ("batch", "chunks", "splits", "ranges", "sums")
"""Run-time sizes: the batch and the fields of :class:`Cut`."""

AHEAD = 16
"""How far behind its own rows a tile asks for the next ones: their first use would wait for memory, at a stride that
processors do not foresee (with 256 channels twice as fast)."""


@dataclass(frozen=True)
class Side:
    """Where one operand's numbers for a chunk are.

    pointer:   of sample 0, place 0 (of x: what place 0 meets at tap 0).
    sample, places, taps, channel: strides; ``taps`` of x only.
    """

    pointer: Pointer
    sample: int
    places: tuple[int, ...]
    channel: int
    taps: tuple[int, ...] = ()
    offset: Expression = field(default_factory=lambda: literal(0))


@dataclass(frozen=True)
class Names:
    """Pointers to the kernel's buffers."""

    gradient: Pointer
    d: Pointer
    x: Pointer
    partial: Pointer
    copies: Pointer


def largest(a: Expression, b: Operand) -> Expression:
    return call("larger", a, b)


def smallest(a: Expression, b: Operand) -> Expression:
    return call("smaller", a, b)


def extents(p: Problem, plan: Plan) -> tuple[int, ...]:
    """Of x that a chunk's windows span, along each spatial axis."""
    counts = (plan.span, *p.counts[1:])
    zipped = zip(counts, p.stride, p.kernel, p.dilation, strict=True)
    return tuple((count - 1) * s + d * (k - 1) + 1 for count, s, k, d in zipped)


def copy_elements(p: Problem, plan: Plan) -> tuple[int, int]:
    """Elements of a worker's copies: of d, of x."""
    by_d = plan.samples * plan.span * math.prod(p.counts[1:]) * plan.width if plan.packs_d else 0
    width = p.depth if plan.pads_x else plan.width if plan.packs_x else 0
    return by_d, plan.samples * math.prod(extents(p, plan)) * width


def aligned(elements: int) -> int:
    """Rounded up to whole cache lines, whatever the element."""
    return -(-elements // 16) * 16


class MultiplyCode:
    """Writes the function that makes the partial gradients."""

    def __init__(self, p: Problem, plan: Plan, names: Names):
        self.p, self.plan, self.names = p, plan, names
        self.body = Body()
        self.type = Type(p.dtype, plan.lanes)

    def function(self, buffers: Buffers) -> Function:
        p, plan, body = self.p, self.plan, self.body
        blocks, per_row = p.groups * plan.blocks, elements_of_row(p, plan)
        with body.tasks() as task:
            piece = body.let("range", task % RANGES)
            block = body.let("block", task // RANGES % blocks)
            split = body.let("split", task // (RANGES * blocks))
            group, first = body.let("group", block // plan.blocks), body.let("side", block % plan.blocks)
            tile_0, tile_1 = (body.let(f"tile_{i}", (piece + i) * plan.tiles // RANGES) for i in (0, 1))
            block_sums = body.pointer("block_sums", self.names.partial, (split * blocks + block) * (per_row * plan.width))
            chunk_0, chunk_1 = (body.let(f"chunk_{i}", (split + i) * CHUNKS // SPLITS) for i in (0, 1))
            # without a sample there still is one turn, which writes zeros
            with body.loop("chunk", chunk_0, largest(chunk_1, chunk_0 + 1)) as chunk:
                d, x, samples, span, start = self.sides(chunk, group, first)
                for rows, first_row in self.tiles(tile_0, tile_1):
                    for offset, row, ranges in self.outer_taps(x, samples, span, start):
                        here = replace(x, offset=offset)
                        self.tile(rows, first_row, block_sums, row, chunk > chunk_0, d, here, ranges)
        return body.function("weight_gradient_multiply", buffers, SIZES)

    # --- a chunk -----------------------------------------------------------------------------------------------------

    def sides(
        self, chunk: Expression, group: Expression, first: Expression
    ) -> tuple[Side, Side, Expression, Expression, Expression]:
        """Both operands for a chunk, its samples and places along the first axis, and its first place."""
        p, plan, body = self.p, self.plan, self.body
        per_sample = -(-p.counts[0] // plan.span)
        sample = body.let("sample", chunk // per_sample * plan.samples)
        start = body.let("start", chunk % per_sample * plan.span)
        samples = body.let("samples", largest(smallest(BATCH - sample, plan.samples), 0))
        span = body.let("span", smallest(p.counts[0] - start, plan.span))
        across = first * plan.width
        rows, depth = group * p.rows, group * p.depth
        if plan.along_rows:
            rows = rows + across
        else:
            depth = depth + across
        left = p.rows - across if plan.along_rows else p.depth - across
        d = Side(
            self.names.d,
            p.d_strides[0],
            p.d_strides[2:],
            p.d_strides[1],
            offset=sample * p.d_strides[0] + start * p.d_strides[2] + rows * p.d_strides[1],
        )
        steps = tuple(s * t for s, t in zip(p.x_strides[2:], p.stride, strict=True))
        gaps = tuple(s * g for s, g in zip(p.x_strides[2:], p.dilation, strict=True))
        corner = sum(b * s for b, s in zip(p.before, p.x_strides[2:], strict=True))
        x = Side(
            self.names.x,
            p.x_strides[0],
            steps,
            p.x_strides[1],
            gaps,
            offset=sample * p.x_strides[0] + start * steps[0] + depth * p.x_strides[1] - corner,
        )
        by_d, by_x = copy_elements(p, plan)
        copies = body.pointer("copies", self.names.copies, WORKER * aligned(by_d + by_x)) if by_d + by_x else None
        if copies is not None and by_d:
            d = self.packed_d(d, copies, left, samples, span)
        if copies is not None and by_x:
            x = self.copied_x(x, copies, left, samples, start)
        return d, x, samples, span, start

    def packed_d(self, d: Side, copies: Pointer, left: Expression, samples: Expression, span: Expression) -> Side:
        """d's vectors of the chunk, position after position."""
        p, plan, body = self.p, self.plan, self.body
        body.comment("the vectors of d, one position after the other")
        shape = (plan.span, *p.counts[1:])
        strides = [plan.width * math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        target = Side(copies, strides[0] * plan.span, tuple(strides), 1)
        count = body.let("count", smallest(left, plan.width))
        with ExitStack() as loops:
            places = [loops.enter_context(body.loop("n", 0, samples))]
            stops: list[Operand] = [span, *p.counts[1:]]
            places += [loops.enter_context(body.loop("p", 0, stop)) for stop in stops]
            source = body.pointer("from", d.pointer, d.offset + _dot(places, (d.sample, *d.places)))
            self.copy_channels(source, d.channel, body.pointer("to", copies, _dot(places, (target.sample, *strides))), count)
        return target

    def copy_channels(self, source: Pointer, stride: int, target: Pointer, count: Expression) -> None:
        """``width`` elements: ``count`` channels, then zeros."""
        plan, body = self.plan, self.body
        if stride != 1:
            with body.loop("c", 0, count) as c:
                body.store(target, c, load(source, c * stride))
            with body.loop("c", count, plan.width) as c:
                body.store(target, c, literal(0, self.type.scalar))
            return
        across = self.p.rows if plan.along_rows else self.p.depth
        for v in range(plan.vectors):
            at = v * plan.lanes
            if across % plan.width == 0:
                body.store(target, at, load(source, at, plan.lanes))
            else:
                part = largest(smallest(count - at, plan.lanes), 0)
                body.store(target, at, load(source, at, plan.lanes, part))

    def copied_x(self, x: Side, copies: Pointer, left: Expression, samples: Expression, start: Expression) -> Side:
        """What the chunk's windows see of x with zeros around it, channels last."""
        p, plan, body = self.p, self.plan, self.body
        body.comment("what the windows see of x, zeros where that is padding")
        size = extents(p, plan)
        width = p.depth if plan.pads_x else plan.width
        strides = [width * math.prod(size[axis + 1 :]) for axis in range(len(size))]
        whole = width * math.prod(size)
        at = copies if not plan.packs_d else body.pointer("padded", copies, copy_elements(p, plan)[0])
        plain = p.x_strides[2:]
        base = x.offset
        with ExitStack() as loops:
            places = [loops.enter_context(body.loop("n", 0, samples))]
            inside: list[Expression] = []
            for axis in range(len(size) - 1):
                q = loops.enter_context(body.loop("q", 0, size[axis]))
                shift = p.before[axis] - start * p.stride[0] if axis == 0 else literal(p.before[axis])
                inside += [q >= shift, q < shift + p.size[axis]]
                places.append(q)
            last = len(size) - 1
            shift = p.before[last] - start * p.stride[0] if last == 0 else literal(p.before[last])
            low = body.let("low", smallest(largest(shift, 0), size[last]))
            high = body.let("high", largest(smallest(shift + p.size[last], size[last]), low))
            for condition in inside:
                high = body.let("high", select(condition, high, low))
            source = body.pointer("from", x.pointer, base + _dot(places, (x.sample, *plain[:-1])))
            to = body.pointer("to", at, _dot(places, (whole, *strides[:-1])))
            self.zeros(to, literal(0), low * width)
            with body.loop("q", low, high) as q:
                if plan.pads_x:
                    with body.loop("c", 0, p.depth) as c:
                        body.store(to, q * width + c, load(source, q * plain[-1] + c * x.channel))
                else:
                    count = smallest(left, plan.width)
                    self.copy_channels(
                        body.pointer("from", source, q * plain[-1]), x.channel, body.pointer("to", to, q * width), count
                    )
            self.zeros(to, high * width, literal(size[last] * width))
        steps = tuple(s * t for s, t in zip(strides, p.stride, strict=True))
        gaps = tuple(s * g for s, g in zip(strides, p.dilation, strict=True))
        return Side(at, whole, steps, 1, gaps)

    def zeros(self, target: Pointer, start: Expression, stop: Expression) -> None:
        with self.body.loop("z", start, stop) as z:
            self.body.store(target, z, literal(0, self.type.scalar))

    # --- taps --------------------------------------------------------------------------------------------------------

    def outer_taps(
        self, x: Side, samples: Expression, span: Expression, start: Expression
    ) -> Iterator[tuple[Expression, Expression, Ranges]]:
        """Loops over the outer taps; gives the offset of x, the first row, and the ranges of samples and places."""
        p, plan, body = self.p, self.plan, self.body
        copied = plan.pads_x or plan.packs_x
        with ExitStack() as loops:
            taps: list[Expression] = []
            ranges: Ranges = [(literal(0), samples)]
            number: Expression = literal(0)
            for axis, count in enumerate(plan.outer):
                tap = loops.enter_context(body.loop("tap", 0, count))
                if plan.stack > 1 and axis == len(plan.outer) - 2:
                    tap = body.let("tap", tap * plan.stack)
                    number = number * (count * plan.stack) + tap
                else:
                    number = number * count + tap
                taps.append(tap)
                full = span if axis == 0 else literal(p.counts[axis])
                ranges.append((literal(0), full) if copied else self.inside(axis, tap, full, start))
            offset = body.let("tap_offset", x.offset + _dot(taps, x.taps))
            row = body.let("row", number * plan.run)
            yield offset, row, ranges

    def inside(self, axis: int, tap: Expression, full: Expression, start: Expression) -> tuple[Expression, Expression]:
        """The places along an axis whose windows see input, not padding, at this tap."""
        p, body = self.p, self.body
        stride, reach = p.stride[axis], p.before[axis] - tap * p.dilation[axis]
        if p.kernel[axis] == 1 and p.before[axis] <= 0 and (p.counts[axis] - 1) * stride - p.before[axis] < p.size[axis]:
            return literal(0), full
        low: Expression = largest(reach + (stride - 1), 0) // stride
        high: Expression = largest(reach + (p.size[axis] - 1 + stride), 0) // stride
        if axis == 0:
            low, high = low - start, high - start
        low = body.let("low", largest(low, 0))
        return low, body.let("high", smallest(high, full))

    # --- tiles -------------------------------------------------------------------------------------------------------

    def tiles(self, tile_0: Expression, tile_1: Expression) -> Iterator[tuple[int, Expression]]:
        """Loops over the tiles of a run, the larger ones first: rows of a tile, and its first row."""
        plan, body = self.plan, self.body
        small, large = divmod(plan.run, plan.tiles)
        for rows, low, high in ((small + 1, 0, large), (small, large, plan.tiles)):
            if low == high:
                continue
            first = tile_0 if low == 0 else largest(tile_0, low)
            last = tile_1 if high == plan.tiles else smallest(tile_1, high)
            with body.loop("tile", first, last) as tile:
                yield rows, body.let("first_row", tile * rows + (large if rows == small else 0))

    def tile(
        self,
        rows: int,
        start: Expression,
        partial: Pointer,
        row: Expression,
        goes_on: Expression,
        d: Side,
        x: Side,
        ranges: Ranges,
    ) -> None:
        """The sums of one tile over the chunk, in registers."""
        plan, body, vectors = self.plan, self.body, range(self.plan.vectors)
        wide, narrow = (d, x) if plan.along_rows else (x, d)
        offsets = [r * narrow.channel for r in range(rows)]
        if plan.stack > 1:  # a tile holds whole runs of several outer taps
            offsets = [k * narrow.taps[-2] + r for k in range(plan.stack) for r in range(rows)]
        target = body.pointer("sums", partial, (row + start) * plan.width)
        zero = literal(0, self.type)
        sums = [[body.variable(f"s{r}_{v}", zero) for v in vectors] for r in range(len(offsets))]
        with body.when(goes_on):
            for r, line in enumerate(sums):
                for v in vectors:
                    body.assign(line[v], load(target, r * plan.width + v * plan.lanes, plan.lanes))
        with ExitStack() as loops:
            places = [loops.enter_context(body.loop("n", *bounds)) for bounds in ranges[:-1]]
            at = narrow.offset + start * narrow.channel + _dot(places, (narrow.sample, *narrow.places))
            a = body.pointer("narrow", narrow.pointer, at)
            b = body.pointer("wide", wide.pointer, wide.offset + _dot(places, (wide.sample, *wide.places)))
            p = loops.enter_context(body.loop("p", *ranges[-1]))
            if plan.pads_x:
                body.fence()  # else GCC keeps what the next place reads again, without registers for it: 1.3 to 1.6 times as long
            if narrow.channel == 1 and rows < plan.run:
                body.prefetch(a, p * narrow.places[-1] + (offsets[-1] + AHEAD))
            across = [body.let(f"wide_{v}", load(b, p * wide.places[-1] + v * plan.lanes, plan.lanes)) for v in vectors]
            for r, offset in enumerate(offsets):
                factor = splat(body.let("factor", load(a, p * narrow.places[-1] + offset)), plan.lanes)
                for v in vectors:
                    body.assign(sums[r][v], sums[r][v] + factor * across[v])
        for r, values in enumerate(sums):
            for v in vectors:
                body.store(target, r * plan.width + v * plan.lanes, values[v])


def _dot(places: list[Expression], strides: tuple[int, ...] | list[int]) -> Expression:
    """The offset of a place."""
    total: Expression = literal(0)
    for place, stride in zip(places, strides, strict=False):
        total = total + place * stride
    return total
