"""The code of contractions whose vectors hold the taps of a row beside the columns: see :mod:`.tap_columns_plan`.

A task takes a band of rows of an image, or a few images, row by row: tiles of places of the input make their products, which go
to memory of the thread with zeros around each place's; then they are added up to vectors of the result's row, and stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import gcd

from irconv.backends.arrays.base import scratch
from irconv.backends.arrays.lower import operand_ids
from irconv.backends.codegen.body import WORKER, Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import INDEX, Expression, Literal, Pointer, Type, Variable, call, literal, load, splat
from irconv.backends.codegen.statements import Function
from irconv.backends.native.base import Candidate, NativeKernel, NativeRequest, Phase, Prepared, native_kernel
from irconv.backends.native.kernels.contraction import Axis, Contraction
from irconv.backends.native.kernels.epilogue import Epilogue, make_epilogue, nodes_ahead
from irconv.backends.native.kernels.narrow_plan import narrow_plan
from irconv.backends.native.kernels.packing import Buffers, least
from irconv.backends.native.kernels.tap_columns_plan import GAIN, TapColumns, tap_columns_plan, tap_columns_tasks
from irconv.graph import Node

MOST_ADDS = 96
"""Vectors that are added up for a row where that is written out without a loop."""


def tap_candidates(request: NativeRequest, node: Node, c: Contraction) -> tuple[list[Candidate], list[Candidate]]:
    """The way of this module, if there is one: among what is to be taken, or among what may be tried."""
    plan = tap_columns_plan(c, request.machine)
    if plan is None:
        return [], []
    narrow = narrow_plan(c, request.machine)
    share = plan.share / (1.0 if narrow is None else min(1.0, narrow.share))
    found = [Candidate(plan.name, partial(tap_kernel, request, node, c, plan))]
    return (found, []) if share < GAIN else ([], found)


def tap_kernel(request: NativeRequest, node: Node, c: Contraction, plan: TapColumns) -> NativeKernel | None:
    """The kernel; None where the result, or what goes into it behind the sums, lies in another way than channels last."""
    operands = operand_ids(request.graph, request.kernel)
    x, w = node.operands
    if x == w or nodes_ahead(request.graph, request.kernel, node.id):
        return None
    names = {i: "x" if i == x else "w" if i == w else f"operand{number}" for number, i in enumerate(operands)}
    pointers = {i: Pointer(name, request.graph[i].type.dtype) for i, name in names.items()}
    epilogue = make_epilogue(request, node.id, pointers, plan.lanes)
    if epilogue is None or epilogue.statistics is not None:
        return None
    lying = {i: _lies(c, strides) for i, strides in epilogue.strides.items()}
    if lying[epilogue.result] != DENSE or None in lying.values():
        return None
    out = Pointer("out", request.graph[epilogue.result].type.dtype)
    outer = [out, *(pointers[i] for i in operands), Pointer("packed", c.dtype), Pointer("own", c.dtype)]

    def written(*wanted: str) -> Buffers:
        return [(pointer.name, pointer.dtype, pointer.name in wanted) for pointer in outer]

    pack = _pack(c, plan, written("packed"))
    sums = _Sums(c, plan, epilogue, {i: how for i, how in lying.items() if how}, out).function(written("out", "own"))
    packed = c.channels * plan.row_axis.only.taps * plan.width
    return native_kernel(
        print_c([pack, sums]),
        (Phase(pack.name, 1), Phase(sums.name, tap_columns_tasks(c, plan))),
        (c.batch,),
        (scratch(c.dtype, packed), scratch(c.dtype, request.threads, _aligned(plan.own))),
        machine=request.machine,
        prepared=(Prepared(1 + operands.index(w), 1 + len(operands), 0),),
    )


DENSE, REPEATED, SINGLE = "dense", "repeated", "single"
"""How a value lies along a row of the result: all columns of a pixel, then the next pixel's; the same columns for each pixel; one
number for all of them."""


def _lies(c: Contraction, strides: Sequence[int]) -> str | None:
    """One of the three; None: in another way."""
    along, column = strides[c.out_axes[-1]], strides[c.out_column] if c.columns > 1 else 1
    if along == c.columns and column == 1:
        return DENSE
    if along == 0 and (strides[c.out_column] == 0 or c.columns == 1):
        return SINGLE
    others = (strides[axis] for axis in c.out_axes)
    return REPEATED if not any(others) else None


def _aligned(elements: int) -> int:
    """Rounded up to whole cache lines, whatever the element."""
    return -(-elements // 16) * 16


def _pack(c: Contraction, plan: TapColumns, buffers: Buffers) -> Function:
    """The weight as [row tap][channel][tap and column], the last up to whole vectors."""
    body, lines = Body(), plan.line_axis.only.taps
    source, target = Pointer("w", c.dtype), Pointer("packed", c.dtype)
    axis = plan.row_axis
    by_row = c.w_taps[0] if len(c.axes) == 2 else 0
    with body.tasks(), body.loop("row_tap", 0, axis.only.taps) as i, body.loop("c", 0, c.channels) as channel:
        to = body.pointer("to", target, (i * c.channels + channel) * plan.width)
        start = (i * axis.tap_step + axis.only.first_tap) * by_row + channel * c.w_channel
        with body.loop("tap", 0, lines) as tap, body.loop("k", 0, c.columns) as column:
            # in the order of the pixels that they go to
            number = tap if plan.line_axis.tap_shift < 0 else lines - 1 - tap
            place = (number * plan.line_axis.tap_step + plan.line_axis.only.first_tap) * c.w_taps[-1]
            body.store(to, tap * c.columns + column, load(source, start + place + column * c.w_column))
        with body.loop("rest", plan.numbers, plan.width) as rest:
            body.store(to, rest, literal(0, Type(c.dtype)))
    return body.function(f"{c.name}_taps_pack", buffers, ["batch"])


@dataclass(frozen=True)
class _Row:
    """Where a task is: its image and row of the result."""

    image: Expression
    number: Expression


class _Sums:
    """Writes the function of the sums."""

    def __init__(self, c: Contraction, plan: TapColumns, epilogue: Epilogue, lying: Mapping[int, str], out: Pointer):
        self.c, self.plan, self.epilogue, self.lying, self.out = c, plan, epilogue, lying, out
        self.body = Body()
        self.vector = Type(c.dtype, plan.lanes)
        self.period = c.columns // gcd(plan.lanes, c.columns)  # vectors until one begins at a pixel again

    def function(self, buffers: Buffers) -> Function:
        """The function; a task is a band of rows, or a few images."""
        body, plan, rows = self.body, self.plan, self.plan.row_axis.only.count
        batch = Variable("batch", INDEX)
        self._repeat()
        own = body.pointer("mine", Pointer("own", self.c.dtype), WORKER * _aligned(plan.own))
        with body.loop("z", 0, plan.own // plan.lanes * plan.lanes, plan.lanes) as z:
            body.store(own, z, Literal(0.0, self.vector))
        made = body.pointer("made", own, plan.lanes + plan.before * plan.pitch)
        with body.tasks() as task:
            first = body.let("first_image", task // plan.bands * plan.images)
            with body.loop("image", first, least(first + plan.images, batch)) as image:
                start = body.let("start", task % plan.bands * plan.band)
                stop = body.let("stop", least(start + plan.band, rows)) if plan.bands > 1 else literal(rows)
                with body.loop("row", start, stop) as row:
                    self._products(_Row(image, row), made)
                    self._results(_Row(image, row), made)
        return body.function(f"{self.c.name}_taps", buffers, ["batch"])

    def _repeat(self) -> None:
        """Values that are the same for each pixel, as vectors of as many pixels as end with one."""
        pointers = dict(self.epilogue.pointers)
        for i in (i for i, how in self.lying.items() if how == REPEATED):
            source = pointers[i]
            count = self.period * self.plan.lanes
            pointers[i] = self.body.array("repeated", source.dtype, count)
            with self.body.loop("j", 0, count) as j:
                value = load(source, j % self.c.columns * self.epilogue.strides[i][self.c.out_column])
                self.body.store(pointers[i], j, value)
        self.epilogue = replace(self.epilogue, pointers=pointers)

    # --- products --------------------------------------------------------------------------------------------------------

    def _products(self, row: _Row, made: Pointer) -> None:
        """Of all places of the input's rows that a row of the result reads."""
        body, plan = self.body, self.plan
        at = body.let("at", row.number * plan.row_axis.step + plan.row_axis.only.shift)
        taps = self._inside(plan.row_axis, at)
        whole = plan.places // plan.pixels * plan.pixels
        for block in range(plan.blocks):
            with body.loop("place", 0, whole, plan.pixels) as place:
                self._tile(row, (at, *taps), block, (place, plan.pixels), made)
            if whole < plan.places:
                self._tile(row, (at, *taps), block, (literal(whole), plan.places - whole), made)

    def _inside(self, axis: Axis, at: Expression) -> tuple[Expression, Expression]:
        """The first row tap that lies inside the input, and one behind the last."""
        taps, shift = axis.only.taps, axis.tap_shift
        if axis.is_inside:
            return literal(0), literal(taps)
        if shift > 0:
            low, high = (0 - at) + (shift - 1), (axis.size + shift - 1) - at
        else:
            low, high = at - (axis.size + shift), at - shift
        steps = abs(shift)
        low = _at_least_zero(low) // steps
        return self.body.let("low", low), self.body.let("high", call("smaller", _at_least_zero(high) // steps, taps))

    def _tile(
        self,
        row: _Row,
        taps: tuple[Expression, Expression, Expression],
        block: int,
        places: tuple[Expression, int],
        made: Pointer,
    ) -> None:
        """The products of a few places with a block of vectors.  ``taps``: the input's row of tap 0, and the range of them."""
        body, c, plan, lanes = self.body, self.c, self.plan, self.plan.lanes
        at, low, high = taps
        first, count = places
        step = c.x_strides[-1]
        zero = Literal(0.0, self.vector)
        sums = [[body.variable(f"sum{u}_{v}", zero) for v in range(plan.vectors)] for u in range(count)]
        with body.loop("tap", low, high) as tap:
            line = row.image * c.x_strides[0] + (at + tap * plan.row_axis.tap_shift) * plan.row_stride
            source = body.pointer("source", Pointer("x", c.dtype), line + (first + plan.first) * step)
            start = tap * (c.channels * plan.width) + block * (plan.vectors * lanes)
            weights = body.pointer("weights", Pointer("packed", c.dtype), start)
            with body.loop("c", 0, c.channels) as channel:
                across = [
                    body.let("weight", load(weights, channel * plan.width + v * lanes, lanes)) for v in range(plan.vectors)
                ]
                for u, accumulators in enumerate(sums):
                    value = body.let("value", splat(load(source, channel * c.x_channel + u * step), lanes))
                    for accumulator, weight in zip(accumulators, across, strict=True):
                        body.assign(accumulator, accumulator + value * weight)
        for u, accumulators in enumerate(sums):
            for v, accumulator in enumerate(accumulators):
                number = (block * plan.vectors + v) * lanes
                part = plan.numbers - number if plan.numbers - number < lanes else None
                body.store(made, (first + u) * plan.pitch + number, accumulator, part)

    # --- results ---------------------------------------------------------------------------------------------------------

    def _results(self, row: _Row, made: Pointer) -> None:
        """The sums of a row of the result, a vector of neighbours after the other, and what follows them."""
        body, plan = self.body, self.plan
        wide = self.period * plan.lanes
        total = plan.line_axis.only.count * plan.columns
        adds = sum(len(self._reached(v)) for v in range(-(-total // plan.lanes)))
        turns = total // wide if adds > MOST_ADDS else 0
        if turns > 0:
            with body.loop("turn", 0, turns) as turn:
                for v in range(self.period):
                    self._vector(row, made, v, turn, None)
        for v in range(-(-(total - turns * wide) // plan.lanes)):
            left = total - turns * wide - v * plan.lanes
            self._vector(row, made, v, literal(turns), left if left < plan.lanes else None)

    def _reached(self, v: int) -> range:
        """The places whose products go to vector ``v`` of a row; some may lie in front of the first or behind the last."""
        plan = self.plan
        low = (v * plan.lanes - plan.numbers) // plan.columns + 1
        high = -(-((v + 1) * plan.lanes) // plan.columns)
        return range(plan.lead + low, plan.lead + high)

    def _vector(self, row: _Row, made: Pointer, v: int, turn: Expression, count: int | None) -> None:
        """Vector ``v`` of a turn, from which ``turn`` * period vectors lie in front; only ``count`` lanes are stored."""
        body, plan, lanes = self.body, self.plan, self.plan.lanes
        wide = self.period * lanes
        reached = [u for u in self._reached(v) if turn != literal(0) or 0 <= u < plan.places]
        total: Expression = Literal(0.0, self.vector)
        for number, u in enumerate(reached):
            offset = u * plan.pitch + v * lanes - (u - plan.lead) * plan.columns
            value = load(made, turn * (wide // plan.columns * plan.pitch) + offset, lanes)
            total = body.let("total", value if number == 0 else total + value)
        strides = {i: self._strides(i, how) for i, how in self.lying.items()}
        within = v % self.period * lanes
        index = [row.image, row.number, turn * wide + (v * lanes - within), literal(within)]
        self.epilogue.write(body, total, strides, index, 3, count, self.out)

    def _strides(self, value: int, how: str) -> tuple[int, ...]:
        """Of a value by image, row, the first of a turn's elements, and element."""
        image, *row = (self.epilogue.strides[value][axis] for axis in self.c.out_axes[:-1])
        along = {DENSE: (1, 1), REPEATED: (0, 1), SINGLE: (0, 0)}[how]
        return (image, row[0] if row else 0, *along)


def _at_least_zero(value: Expression) -> Expression:
    """The value, or 0 where it is negative."""
    return call("larger", value, 0)
