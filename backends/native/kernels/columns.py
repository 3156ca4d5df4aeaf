"""im2col and col2im by themselves: the matrix of windows written out, and its adjoint.

Both gather: every element that is written is read or summed from where the other side has it.  In convolutions they do not
occur (see :mod:`irconv.backends.native.kernels.weight_gradient`); they are what second derivatives are made of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import (
    INDEX,
    Expression,
    Literal,
    Pointer,
    Type,
    Variable,
    both,
    call,
    literal,
    load,
    select,
)
from irconv.backends.codegen.rules import wrapping
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, native, native_kernel
from irconv.backends.native.kernels.depthwise_plan import Outer
from irconv.graph import Node
from irconv.ops.window import Ints, window_counts
from irconv.strides import Strides
from irconv.types import F16, DType

TASK_ELEMENTS = 64 * 1024
"""Elements of the matrix that a task reads or writes."""

BATCH = Variable("batch", INDEX)


@dataclass(frozen=True)
class Windows:
    """The windows of images [batch, groups * depth, *size], and the strides of both sides.

    matrix: strides of [groups, batch * windows, depth * taps];  image: of [batch, channels, *size].
    """

    dtype: DType
    batch: int
    groups: int
    depth: int
    size: Ints
    counts: Ints
    kernel: Ints
    stride: Ints
    dilation: Ints
    before: Ints
    matrix: Strides
    image: Strides

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def units(self) -> int:
        """Places (of one group) that a task sees to."""
        return max(1, TASK_ELEMENTS // (self.depth * self.taps))

    def axes(self, transposed: bool) -> tuple[Outer, ...]:
        """The axes as an image is seen from a window, or, transposed, a window from an image."""
        here, there = (self.counts, self.size) if transposed else (self.size, self.counts)
        return Outer.along(transposed, here, there, self.kernel, self.stride, self.dilation, self.before)


@native("im2col")
def im2col(request: NativeRequest) -> NativeKernel | None:
    """The generator; None for float16, and for groups apart from each other."""
    (node,) = (request.graph[i] for i in request.kernel.nodes)
    (x,) = request.graph.operands(node)
    w = _windows(request, node, x.type.shape[1], x.type.shape[2:], node.id, x.id)
    if w is None:
        return None
    body, out = Body(), Pointer("out", w.dtype)
    with _units(body, w, w.counts) as (unit, group, sample, places):
        target = body.pointer("row", out, unit * w.matrix[1])
        source = body.pointer("from", Pointer("x", w.dtype), sample * w.image[0] + group * (w.depth * w.image[1]))
        with body.loop("channel", 0, w.depth) as channel, ExitStack() as loops:
            tap, offset, inside = _taps(body, loops, w.axes(False), places, w.image[2:])
            value = load(source, channel * w.image[1] + offset)
            number = select(inside, value, Literal(0, Type(w.dtype)))
            body.store(target, (channel * w.taps + tap) * w.matrix[2], number)
    return _kernel(request, body, w, w.counts)


@native("col2im")
def col2im(request: NativeRequest) -> NativeKernel | None:
    """The generator, which adds the taps in order; None as for :func:`im2col`."""
    (node,) = (request.graph[i] for i in request.kernel.nodes)
    a = node.attributes
    w = _windows(request, node, a.channels, a.size, node.operands[0], node.id)
    if w is None:
        return None
    body, out = Body(), Pointer("out", w.dtype)
    area = math.prod(w.counts)
    steps = tuple(math.prod(w.counts[axis + 1 :]) * w.matrix[1] for axis in range(len(w.counts)))
    with _units(body, w, w.size) as (_, group, sample, places):
        at = sample * w.image[0] + group * (w.depth * w.image[1])
        for place, stride in zip(places, w.image[2:], strict=True):
            at = at + place * stride
        target = body.pointer("place", out, at)
        source = body.pointer("from", Pointer("x", w.dtype), (group * BATCH + sample) * (area * w.matrix[1]))
        with body.loop("channel", 0, w.depth) as channel:
            total = body.variable("total", Literal(0, Type(w.dtype)))
            with ExitStack() as loops:
                tap, offset, inside = _taps(body, loops, w.axes(True), places, steps)
                loops.enter_context(body.when(inside))
                value = body.let("value", load(source, offset + (channel * w.taps + tap) * w.matrix[2]))
                body.assign(total, total + value if w.dtype.is_float else wrapping("+", total, value))
            body.store(target, channel * w.image[1], total)
    return _kernel(request, body, w, w.size)


def _windows(request: NativeRequest, node: Node, channels: int, size: Ints, matrix: int, image: int) -> Windows | None:
    a, shape, strides = node.attributes, request.graph[matrix].type.shape, request.strides[matrix]
    if node.type.dtype is F16:  # summed in float32
        return None
    if a.groups > 1 and strides[0] != shape[1] * strides[1]:  # rows of all groups have to be counted through
        return None
    return Windows(
        dtype=node.type.dtype,
        batch=request.graph[image].type.shape[0],
        groups=a.groups,
        depth=channels // a.groups,
        size=size,
        counts=window_counts(size, a.kernel, a.stride, a.padding, a.dilation),
        kernel=a.kernel,
        stride=a.stride,
        dilation=a.dilation,
        before=tuple(before for before, _ in a.padding),
        matrix=strides,
        image=request.strides[image],
    )


@contextmanager
def _units(
    body: Body, w: Windows, counts: Ints
) -> Iterator[tuple[Expression, Expression, Expression, list[Expression]]]:
    """Statements for each group, sample and place of ``counts``: the number of that, and the three."""
    area, each = math.prod(counts), w.units
    with body.tasks() as task:
        last = call("smaller", (task + 1) * each, BATCH * (w.groups * area))
        with body.loop("unit", task * each, last) as unit:
            image = body.let("image", unit // area)
            places, rest = [], unit % area
            for axis, count in enumerate(counts):
                places.append(body.let("place", rest // math.prod(counts[axis + 1 :]) % count))
            yield unit, body.let("group", image // BATCH), body.let("sample", image % BATCH), places


def _taps(
    body: Body, loops: ExitStack, axes: Sequence[Outer], places: Sequence[Expression], strides: Sequence[int]
) -> tuple[Expression, Expression, Expression]:
    """Loops over the taps: the number of one, the offset of what is seen there, and whether that is inside."""
    number: Expression = literal(0)
    offset: Expression = literal(0)
    inside: Expression | None = None
    for axis, place, stride in zip(axes, places, strides, strict=True):
        tap = loops.enter_context(body.loop("tap", 0, axis.taps))
        at, holds = axis.seen(place, tap)
        number, offset = number * axis.taps + tap, offset + at * stride
        inside = holds if inside is None else both(inside, holds)
    assert inside is not None, "windows have an axis"
    return number, offset, inside


def _kernel(request: NativeRequest, body: Body, w: Windows, counts: Ints) -> NativeKernel:
    function = body.function(request.kernel.kind, (("out", w.dtype, True), ("x", w.dtype, False)), ("batch",))
    units = w.batch * w.groups * math.prod(counts)
    phase = Phase(function.name, -(-units // w.units))
    return native_kernel(print_c([function]), (phase,), (w.batch,), machine=request.machine)
