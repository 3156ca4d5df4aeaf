"""What is laid out anew before a contraction: its weight in panels, and where it pays the input, padded and channels last.

A panel holds the weight of one block of columns: ``[tap][channel][column of the block]``, padded with zero columns, so that the
inner loop reads it front to back (``[channel][tap]`` where the input is copied channel by channel).  Behind the panels lies a
row of zeros for taps outside the input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from irconv.backends.codegen.body import FIRST, Body
from irconv.backends.codegen.form import (
    INDEX,
    TRUTH,
    Expression,
    Literal,
    Operand,
    Pointer,
    Type,
    as_expression,
    both,
    compare,
    literal,
    load,
    select,
)
from irconv.backends.codegen.statements import Function
from irconv.backends.native.kernels.contraction import Axis, Contraction
from irconv.backends.native.kernels.plan import Plan
from irconv.strides import row_major
from irconv.types import DType

ROW_ELEMENTS = 1 << 15
"""Elements of the copied input that a task writes, about."""

SLICE = 144
"""Rows of a panel that are filled together, about: 18 KiB of a panel of 32 columns."""

Buffers = Sequence[tuple[str, DType, bool]]
"""(name, element type, written) of all buffers of a kernel, in order."""


def unravel(number: Expression, counts: Sequence[Operand]) -> list[Expression]:
    """The position in an array of these counts of its element ``number``; the first count is not looked at."""
    position: list[Expression] = []
    for count in reversed(counts[1:]):
        known = as_expression(count, INDEX)
        if known == literal(1):
            position.append(literal(0))
            continue
        position.append(number % known)
        number = number // known
    return [number, *reversed(position)]


def weighted(position: Sequence[Expression], strides: Sequence[int], start: Expression | None = None) -> Expression:
    """Elements to a position."""
    offset = start or literal(0)
    for index, stride in zip(position, strides, strict=True):
        offset = offset + index * stride
    return offset


def least(first: Expression, second: Operand) -> Expression:
    """The smaller of two indices."""
    return select(compare("<", first, second), first, second)


# --- the weight ------------------------------------------------------------------------------------------------------------


def zero_row(c: Contraction) -> int:
    """Elements of the row of zeros."""
    return (c.channels - 1) * abs(c.x_channel) + 1


def packed_size(c: Contraction, plan: Plan) -> int:
    """Elements of the packed weight with its row of zeros."""
    return c.group_count * plan.blocks * c.taps * c.channels * plan.width + (zero_row(c) if plan.table else 0)


def pack_weight(c: Contraction, plan: Plan, buffers: Buffers, sizes: Sequence[str], channels: Operand) -> Function:
    """Fill ``packed`` from ``w``; a task is one panel."""
    return _Pack(c, plan, as_expression(channels, INDEX)).function(buffers, sizes)


class _Pack:
    """Writes the function that packs panels."""

    def __init__(self, c: Contraction, plan: Plan, depth: Expression):
        self.c, self.plan, self.depth = c, plan, depth
        self.body = Body()
        self.source, self.target = Pointer("w", c.dtype), Pointer("packed", c.dtype)
        self.counts = [sum(r.taps for r in axis.residues) for axis in c.axes]
        self.zero = Literal(0.0, Type(c.dtype))

    def function(self, buffers: Buffers, sizes: Sequence[str]) -> Function:
        """The function; the first task fills the row of zeros as well."""
        body, c, width = self.body, self.c, self.plan.width
        with body.tasks() as task:
            first = body.let("first_column", task % self.plan.blocks * width)
            group = unravel(task // self.plan.blocks, [g.count for g in c.groups]) if c.groups else []
            start = body.let("start", weighted(group, [g.w for g in c.groups], first * c.w_column))
            panel = body.pointer("panel", self.target, task * (self.depth * (c.taps * width)))
            ragged = c.columns % width != 0
            count = body.let("count", least(literal(c.columns) - first, width)) if ragged else literal(width)
            if c.w_column == 1:
                self.by_rows(panel, start, count)
            else:
                self.by_columns(panel, start, count)
            if ragged:
                with body.loop("row", 0, self.depth * c.taps) as row, body.loop("rest", count, width) as column:
                    body.store(panel, row * width + column, self.zero)
        if self.plan.table:
            with body.when(compare("==", FIRST, 0)), body.loop("i", 0, zero_row(c)) as i:
                body.store(self.target, i + (packed_size(c, self.plan) - zero_row(c)), self.zero)
        return body.function(f"{c.name}_pack", buffers, sizes)

    def place(self, tap: Expression, start: Expression) -> Expression:
        """Where a tap of the weight begins."""
        strides = self.c.w_taps
        return self.body.let("place", weighted(unravel(tap, self.counts) if self.counts else [], strides, start))

    def row(self, tap: Expression, channel: Expression) -> Expression:
        """Where in a panel the columns of a tap and channel begin."""
        number = channel * self.c.taps + tap if self.plan.planar else tap * self.depth + channel
        return self.body.let("row", number * self.plan.width)

    def by_rows(self, panel: Pointer, start: Expression, count: Expression) -> None:
        """Columns are neighbours in the weight too."""
        body, c = self.body, self.c
        with body.loop("tap", 0, c.taps) as tap:
            place = self.place(tap, start)
            with body.loop("channel", 0, self.depth) as channel:
                row = self.row(tap, channel)
                with body.loop("column", 0, count) as column:
                    body.store(panel, row + column, load(self.source, place + channel * c.w_channel + column * c.w_column))

    def by_columns(self, panel: Pointer, start: Expression, count: Expression) -> None:
        """Neighbours in the weight are taps or channels: a slice of channels of all columns is brought into a small array first.

        So the weight is read, and the panel written, in runs; the columns of many weights lie a power of two apart, and would
        push each other out of the cache.
        """
        body, c = self.body, self.c
        step = max(1, SLICE // c.taps)
        pitch = step * c.taps + 1  # odd, so that the columns of the slice do not fall together
        kept = body.array("kept", c.dtype, self.plan.width * pitch)
        with body.loop("slice", 0, self.depth, step) as first:
            last = body.let("last", least(first + step, self.depth))
            with body.loop("column", 0, count) as column:
                place = body.let("place", start + column * c.w_column + first * c.w_channel)
                self.bring(kept, body.let("run", column * pitch), place, body.let("channels", last - first))
            with body.loop("tap", 0, c.taps) as tap, body.loop("channel", first, last) as channel:
                row = self.row(tap, channel)
                at = body.let("at", (channel - first) * c.taps + tap)
                with body.loop("column", 0, count) as column:
                    body.store(panel, row + column, load(kept, at + column * pitch))

    def bring(self, kept: Pointer, run: Expression, place: Expression, channels: Expression) -> None:
        """The channels and taps of one column, taps fastest."""
        body, c = self.body, self.c
        if c.w_taps == row_major(self.counts) and c.w_channel == c.taps:
            with body.loop("i", 0, channels * c.taps) as i:
                body.store(kept, run + i, load(self.source, place + i))
            return
        with body.loop("channel", 0, channels) as channel, body.loop("tap", 0, c.taps) as tap:
            value = load(self.source, self.place(tap, place + channel * c.w_channel))
            body.store(kept, run + channel * c.taps + tap, value)


# --- the input -------------------------------------------------------------------------------------------------------------


def low_end(axis: Axis) -> int:
    """The first place that a tap reads: negative where there is padding."""
    return min(axis.only.shift, axis.only.shift + (axis.only.taps - 1) * axis.tap_shift)


def _read(axis: Axis) -> int:
    """Places from there to the last that is read."""
    return (axis.only.count - 1) * axis.step + (axis.only.taps - 1) * abs(axis.tap_shift) + 1


def copied(c: Contraction, plan: Plan) -> Contraction:
    """The contraction over the copied input, in which no tap falls outside."""
    total = c.group_count * c.channels
    axes, strides = [], [1 if plan.planar else total]
    for axis in reversed(c.axes):
        residue = replace(axis.only, shift=axis.only.shift - low_end(axis))
        axes.append(replace(axis, size=_read(axis), residues=(residue,)))
        strides.append(strides[-1] * _read(axis))
    channel = 1
    if plan.planar:
        channel, strides[-1] = strides[-1], strides[-1] * total
    groups = tuple(replace(g, x=c.channels * channel) for g in c.groups)
    return replace(c, axes=tuple(reversed(axes)), x_strides=tuple(reversed(strides)), x_channel=channel, groups=groups)


def copied_shape(c: Contraction, plan: Plan) -> tuple[int, ...]:
    """The shape of the copied input."""
    reads, channels = [_read(axis) for axis in c.axes], c.group_count * c.channels
    return (c.batch, channels, *reads) if plan.planar else (c.batch, *reads, channels)


def _row_axes(plan: Plan) -> int:
    """How many axes of the copy after the batch are counted through by rows."""
    return 2 if plan.planar else 1


def copy_tasks(c: Contraction, plan: Plan) -> tuple[int, int]:
    """Tasks of the copy, and the rows of each."""
    shape, axes = copied_shape(c, plan), 1 + _row_axes(plan)
    rows = max(1, ROW_ELEMENTS // math.prod(shape[axes:]))
    return -(-math.prod(shape[:axes]) // rows), rows


class InputCopy:
    """Writes the function that fills ``padded`` from ``x``."""

    def __init__(self, c: Contraction, plan: Plan):
        self.c, self.plan = c, plan
        self.body = Body()
        self.source, self.target = Pointer("x", c.dtype), Pointer("padded", c.dtype)
        self.reads = [_read(axis) for axis in c.axes]
        self.inner = copied(c, plan)

    def function(self, buffers: Buffers, sizes: Sequence[str], batch: Expression) -> Function:
        """A task is a few rows along the first spatial axis (of one channel, where it goes channel by channel)."""
        body, c = self.body, self.c
        rows = copy_tasks(c, self.plan)[1]
        counts = [0, *([c.group_count * c.channels] if self.plan.planar else []), self.reads[0]]
        with body.tasks() as task:
            total = batch * math.prod(counts[1:])
            last = body.let("last_row", least((task + 1) * rows, total))
            with body.loop("row", task * rows, last) as row:
                n, *channel, i = unravel(row, counts)
                at = body.let("at", i + low_end(c.axes[0]))
                offset = n * c.x_strides[0] + at * c.x_strides[1]
                if channel:
                    offset = offset + self.channel_offset(channel[0])
                place = body.let("place", row * (math.prod(copied_shape(c, self.plan)[1 + _row_axes(self.plan) :])))
                inside = body.let("inside", is_inside(c.axes[0], at))
                self.fill([n, *channel, at], body.let("offset", offset), place, inside)
        return body.function(f"{c.name}_copy", buffers, sizes)

    def channel_offset(self, channel: Expression) -> Expression:
        """Elements to a channel, counted over all groups."""
        c = self.c
        if not c.groups:
            return channel * c.x_channel
        return channel // c.channels * c.groups[0].x + channel % c.channels * c.x_channel

    def fill(self, position: list[Expression], offset: Expression, place: Expression, inside: Expression) -> None:
        """What lies behind a position along the first axes: the image, with ``planar`` the channel, places along spatial axes."""
        body, c = self.body, self.c
        axis = len(position) - _row_axes(self.plan)
        if self.plan.planar and axis == len(c.axes) - 1:
            self.line(position, offset, place, inside)
            return
        if axis == len(c.axes) - 1:
            self.pixels(position, offset, place, inside)
            return
        if axis < len(c.axes):
            with body.loop("i", 0, self.reads[axis]) as i:
                at = body.let("at", i + low_end(c.axes[axis]))
                here = both(inside, is_inside(c.axes[axis], at))
                further = body.let("offset", offset + at * c.x_strides[axis + 1])
                step = self.inner.x_strides[axis + 1]
                self.fill([*position, at], further, body.let("place", place + i * step), body.let("inside", here))
            return
        channels = 1 if self.plan.planar else c.group_count * c.channels
        with body.when(inside):
            body.fence()
            self.pixel(position, offset, place, channels)
        with body.otherwise():
            self.blank(place, 0, channels)

    def pixels(self, position: list[Expression], offset: Expression, place: Expression, inside: Expression) -> None:
        """Pixels along the last axis with all their channels: zeros, those of the input, zeros."""
        body, c, channels = self.body, self.c, self.c.group_count * self.c.channels
        low, first, last = self.ends()
        with body.when(inside):
            body.fence()
            self.blank(place, 0, first * channels)
            self.blank(place, last * channels, self.reads[-1] * channels)
            with body.loop("i", first, last) as i:
                at = body.let("at", i + low)
                further = body.let("offset", offset + at * c.x_strides[-1])
                self.pixel([*position, at], further, body.let("place", place + i * channels), channels)
        with body.otherwise():
            self.blank(place, 0, self.reads[-1] * channels)

    def ends(self) -> tuple[int, int, int]:
        """Where the last axis is read first, and from which to before which of its places the input is there."""
        low, reads = low_end(self.c.axes[-1]), self.reads[-1]
        first = min(reads, max(0, -low))
        return low, first, max(first, min(reads, self.c.axes[-1].size - low))

    def blank(self, place: Expression, start: int, stop: int) -> None:
        """Zeros."""
        if start < stop:
            with self.body.loop("i", start, stop) as i:
                self.body.store(self.target, place + i, Literal(0.0, Type(self.c.dtype)))

    def pixel(self, position: list[Expression], offset: Expression, place: Expression, channels: int) -> None:
        """All channels of a position of the input."""
        with self.body.loop("c", 0, channels) as channel:
            self.body.store(self.target, place + channel, load(self.source, offset + self.channel_offset(channel)))

    def line(self, position: list[Expression], offset: Expression, place: Expression, inside: Expression) -> None:
        """A run along the last axis: zeros, neighbours of the input, zeros."""
        body = self.body
        low, first, last = self.ends()
        with body.when(inside):
            body.fence()
            self.blank(place, 0, first)
            self.blank(place, last, self.reads[-1])
            if first < last:
                self.run(position, offset + low, place, first, last)
        with body.otherwise():
            self.blank(place, 0, self.reads[-1])

    def run(self, position: list[Expression], offset: Expression, place: Expression, first: int, last: int) -> None:
        """Neighbours of the input: from ``first`` to ``last`` - 1 of the copied line."""
        with self.body.loop("i", first, last) as i:
            self.body.store(self.target, place + i, load(self.source, offset + i))


def is_inside(axis: Axis, place: Expression) -> Expression:
    """Whether a place along an axis of the input is one of its own."""
    if low_end(axis) >= 0 and low_end(axis) + _read(axis) <= axis.size:
        return Literal(True, TRUTH)
    return both(compare(">=", place, 0), compare("<", place, axis.size))
