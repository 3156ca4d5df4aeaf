"""The weight gradient of depthwise convolution: vectors of channels, the sums of a row of taps in registers.

A task adds up some rows of d into a gradient of its own; a second phase adds those in order.  See
:mod:`irconv.backends.native.kernels.depthwise_plan` for rows and tiles.
"""

from __future__ import annotations

import math
from contextlib import ExitStack

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import (
    INDEX,
    Expression,
    Pointer,
    Type,
    Variable,
    as_expression,
    literal,
    load,
)
from irconv.backends.codegen.machine import Machine
from irconv.backends.codegen.statements import Function
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, native_kernel
from irconv.backends.native.kernels.contraction import forward_axis
from irconv.backends.native.kernels.depthwise_plan import (
    FEWEST_TAPS,
    Layer,
    Outer,
    first_channel,
    has_code,
    load_channels,
    output_row,
    rows_seen,
    tiles_of,
    uses_of,
)
from irconv.backends.native.kernels.weight_gradient_plan import Problem
from irconv.types import I64, DType, TensorType

SPLIT_PRODUCTS, MOST_SPLITS = 1_000_000, 32
"""Multiplications of a task (some 30 us), and how many tasks there are at most."""

MOST_CHAINS = 4
"""Neighbouring pixels are added to different sums, so many at most: one addition need not wait for the other."""

Buffers = tuple[tuple[str, DType, bool], ...]
BATCH, SPLITS = Variable("batch", INDEX), Variable("splits", INDEX)
SIZES = ("batch", "splits")


def depthwise_gradient(request: NativeRequest, p: Problem, d: int, x: int) -> NativeKernel | None:
    """The kernel for one input and one output channel in each group; None for row-major operands and extreme windows."""
    layer, machine = _layer(p), request.machine
    if p.d_strides[1] != 1 or p.x_strides[1] != 1 or not has_code(layer, machine):
        return None
    lanes = machine.lanes(p.dtype.bytes)
    names = {i: f"operand{at}" for at, i in enumerate(request.kernel.inputs)} | {d: "d", x: "x"}

    def buffers(written: str) -> Buffers:
        inputs = ((names[i], request.graph[i].type.dtype) for i in request.kernel.inputs)
        parts = (("gradient", p.dtype), *inputs, ("partial", p.dtype))
        return tuple((name, dtype, name == written) for name, dtype in parts)

    code = GradientCode(layer, p, machine, Pointer(names[d], p.dtype), Pointer(names[x], p.dtype))
    products = layer.batch * layer.channels * math.prod(p.counts) * max(FEWEST_TAPS, p.taps)
    splits = max(1, min(MOST_SPLITS, layer.batch * layer.rows, -(-products // SPLIT_PRODUCTS)))
    functions = [code.sums(buffers("partial")), code.total(buffers("gradient"))]
    phases = (Phase(functions[0].name, splits), Phase(functions[1].name, 1))
    partial = TensorType(p.dtype, (splits, p.taps, -(-layer.channels // lanes) * lanes))
    return native_kernel(print_c(functions), phases, (layer.batch, splits), (partial,), machine=machine)


def _layer(p: Problem) -> Layer:
    every = p.size, p.counts, p.kernel, p.stride, p.dilation, p.before
    return Layer(
        dtype=p.dtype,
        batch=p.batch,
        channels=p.groups,
        outer=Outer.along(False, *(values[:-1] for values in every)),
        last=forward_axis(*(values[-1] for values in every)),
        width=p.kernel[-1],
        x_strides=p.x_strides,
        w_strides=(),
    )


class GradientCode:
    """Writes both functions."""

    def __init__(self, layer: Layer, p: Problem, machine: Machine, d: Pointer, x: Pointer):
        self.layer, self.p, self.machine, self.d, self.x = layer, p, machine, d, x
        self.lanes = machine.lanes(p.dtype.bytes)
        self.vectors = -(-layer.channels // self.lanes)
        self.stored = self.vectors * self.lanes
        self.vector = Type(p.dtype, self.lanes)
        # beside them: one value of d, one of x, and some to spare
        self.chains = max(1, min(MOST_CHAINS, (machine.registers - 4) // layer.width))

    def sums(self, buffers: Buffers) -> Function:
        """Partial gradients [split, taps, channels]; a last vector that repeats channels has lanes of its own."""
        layer, body = self.layer, Body()
        size = self.p.taps * self.stored
        inputs, taps = body.array("inputs", I64, layer.outer_taps), body.array("taps", I64, layer.outer_taps)
        rows = BATCH * layer.rows
        with body.tasks() as task:
            partial = body.pointer("sums", Pointer("partial", layer.dtype), task * size)
            with body.loop("z", 0, size, self.lanes) as z:
                body.store(partial, z, literal(0, self.vector))
            with body.loop("row", task * rows // SPLITS, (task + 1) * rows // SPLITS) as row:
                sample, places = output_row(body, layer, row)
                with rows_seen(body, layer, sample, places) as (offset, tap, seen):
                    body.store(inputs, seen, offset)
                    body.store(taps, seen, tap * (layer.width * self.stored))
                at = sample * self.p.d_strides[0]
                for place, stride in zip(places, self.p.d_strides[2:-1], strict=True):
                    at = at + place * stride
                d_row = body.pointer("d_row", self.d, at)
                with body.loop("vector", 0, self.vectors) as vector:
                    channel = first_channel(body, layer, vector, self.lanes)
                    with body.loop("i", 0, seen) as i:
                        x_row = body.pointer("x_row", self.x, load(inputs, i))
                        self.row(body, d_row, x_row, body.pointer("to", partial, load(taps, i) + vector * self.lanes), channel)
        return body.function("depthwise_gradient", buffers, SIZES)

    def row(self, body: Body, d: Pointer, x: Pointer, partial: Pointer, channel: Expression) -> None:
        """One row of d times one row of x, for the taps along it."""
        layer, lanes = self.layer, self.lanes
        sums = [
            [
                body.variable("sum", literal(0, self.vector) if chain else load(partial, t * self.stored, lanes))
                for t in range(layer.width)
            ]
            for chain in range(self.chains)
        ]
        residue = layer.last.only
        d_step, x_step = self.p.d_strides[-1], layer.x_strides[-1]
        for tile in tiles_of(layer, residue, self.machine):
            with body.loop("tile", 0, tile.turns) as turn:
                d_at = body.let("d_at", turn * (tile.pixels * d_step) + channel)
                x_at = body.let("x_at", turn * (tile.pixels * layer.last.step * x_step) + channel)
                wanted: dict[int, Expression] = {}
                for position, uses in uses_of(layer, residue, tile).items():
                    value = body.let("x", load_channels(layer, 1, x, x_at + position * x_step, literal(0), lanes))
                    for pixel, t in uses:
                        if pixel not in wanted:
                            at = d_at + (tile.start + pixel) * d_step
                            wanted[pixel] = body.let("d", load_channels(layer, 1, d, at, literal(0), lanes))
                        target = sums[pixel % self.chains][t]
                        body.assign(target, target + wanted[pixel] * value)
        for t in range(layer.width):
            total: Expression = sums[0][t]
            for chain in sums[1:]:
                total = total + chain[t]
            body.store(partial, t * self.stored, total)

    def total(self, buffers: Buffers) -> Function:
        """The splits added in order, written where the weight has them."""
        layer, body, lanes, p = self.layer, Body(), self.lanes, self.p
        by_channel, _, _, *steps = p.out_strides
        partial, gradient = Pointer("partial", layer.dtype), Pointer("gradient", layer.dtype)
        size = p.taps * self.stored
        held = body.array("held", layer.dtype, lanes)
        with body.tasks(), body.loop("vector", 0, self.vectors) as vector, ExitStack() as loops:
            channel = first_channel(body, layer, vector, lanes)
            number: Expression = literal(0)
            target: Expression = channel * by_channel
            for count, step in zip(p.kernel, steps, strict=True):
                tap = loops.enter_context(body.loop("tap", 0, count))
                number, target = number * count + tap, target + tap * step
            at = body.let("at", number * self.stored + vector * lanes)
            total = body.variable("total", load(partial, at, lanes))
            with body.loop("split", 1, as_expression(SPLITS, INDEX)) as split:
                body.assign(total, total + load(partial, split * size + at, lanes))
            body.store(held, 0, total)
            with body.loop("lane", 0, min(lanes, layer.channels)) as lane:
                body.store(gradient, target + lane * by_channel, load(held, lane))
        return body.function("depthwise_gradient_total", buffers, SIZES)
