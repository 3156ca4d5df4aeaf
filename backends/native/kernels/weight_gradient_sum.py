"""The last phase of a weight gradient: partial sums of all splits added in order, and turned to the order of the weight."""

from __future__ import annotations

import math

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import INDEX, Expression, as_expression, literal, load
from irconv.backends.codegen.statements import Function
from irconv.backends.native.kernels.weight_gradient_code import SIZES, SPLITS, SUMS, Buffers, Names, smallest
from irconv.backends.native.kernels.weight_gradient_plan import Plan, Problem

STRIP = 32
"""Elements of the gradient that are turned at once."""


def add_function(p: Problem, plan: Plan, names: Names, buffers: Buffers) -> Function:
    """The function that sums the splits and writes the gradient."""
    body = Body()
    channels = p.depth if plan.along_rows else p.rows
    per_row = channels * p.taps
    blocks = p.groups * plan.blocks
    size = per_row * plan.width
    by_group, by_lane, by_channel, *by_tap = p.out_strides
    if not plan.along_rows:
        by_lane, by_channel = by_channel, by_lane
    across = p.rows if plan.along_rows else p.depth
    strip = min(STRIP, per_row)
    local = body.array("turned", p.dtype, strip * plan.lanes)
    strips = -(-per_row // strip)
    units = blocks * plan.vectors * strips
    with body.tasks() as task, body.loop("unit", task * units // SUMS, (task + 1) * units // SUMS) as unit:
        first = body.let("first_element", unit % strips * strip)
        count = body.let("elements", smallest(per_row - first, strip))
        v = body.let("v", unit // strips % plan.vectors)
        block = body.let("block", unit // (strips * plan.vectors))
        channel = body.let("channel", block % plan.blocks * plan.width + v * plan.lanes)
        lanes = body.let("lanes", smallest(across - channel, plan.lanes))
        source = body.pointer("from", names.partial, block * size + v * plan.lanes)
        target = body.pointer("to", names.gradient, block // plan.blocks * by_group + channel * by_lane)
        with body.loop("e", 0, count) as e:
            element = body.let("element", first + e)
            at = body.let("at", (element % p.taps * channels + element // p.taps) * plan.width)
            total = body.variable("total", load(source, at, plan.lanes))
            with body.loop("split", 1, as_expression(SPLITS, INDEX)) as split:
                body.assign(total, total + load(source, split * (blocks * size) + at, plan.lanes))
            body.store(local, e * plan.lanes, total)
        with body.loop("lane", 0, lanes) as lane, body.loop("e", 0, count) as e:
            element = body.let("element", first + e)
            offset = element
            if not _in_order(p, by_channel, by_tap):
                offset = element // p.taps * by_channel + _tap_offset(element % p.taps, p.kernel, by_tap)
            body.store(target, lane * by_lane + offset, load(local, e * plan.lanes + lane))
    return body.function("weight_gradient_add", buffers, SIZES)


def _in_order(p: Problem, by_channel: int, by_tap: list[int]) -> bool:
    """Whether (channel, taps) of a lane lie one after the other."""
    wanted = [math.prod(p.kernel[axis + 1 :]) for axis in range(len(p.kernel))]
    same = all(n == 1 or s == w for n, s, w in zip(p.kernel, by_tap, wanted, strict=True))
    return same and by_channel == p.taps


def _tap_offset(tap: Expression, kernel: tuple[int, ...], strides: list[int]) -> Expression:
    """The offset of a tap given by its number."""
    total: Expression = literal(0)
    for axis in range(len(kernel) - 1, -1, -1):
        total = total + tap % kernel[axis] * strides[axis]
        tap = tap // kernel[axis]
    return total
