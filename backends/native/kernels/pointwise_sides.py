"""The operands of the gradients of a pointwise convolution, strip by strip: read where they lie, or put into scratch first.

A strip is some pixels with all their channels.  An operand that elementwise ops make, or whose channels lie along vectors, is
put into memory of its worker: there every element is made once, vectors are full, and a pixel is an odd number of cache lines
from the next, so that the pixels of a few channels do not drive each other out of the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from irconv.backends.codegen.body import WORKER, Body
from irconv.backends.codegen.expressions import can_evaluate, values_read
from irconv.backends.codegen.form import Expression, Pointer, literal, load
from irconv.backends.native.base import NativeRequest
from irconv.backends.native.kernels.contraction import linear
from irconv.backends.native.kernels.epilogue import operand_strides
from irconv.backends.native.kernels.packing import least
from irconv.backends.native.kernels.prologue import Prologue

TOGETHER = 4
"""Pixels made side by side: what differs along the channels alone is fetched once for them."""


LINE_BYTES = 64


@dataclass(frozen=True)
class Image:
    """A value that strips are made of: its buffer, and elements from one pixel to the next."""

    pointer: Pointer
    step: int

    @property
    def line(self) -> int:
        """Elements of a cache line."""
        return LINE_BYTES // self.pointer.dtype.bytes


@dataclass(frozen=True)
class Side:
    """An operand of the product over pixels.

    channels: how many it has;  ``lanes``: of the vectors that hold them.
    source:   the buffer of the value, where no ops make it;  ``apart``: elements from one of its pixels to the next.
    prologue: the ops that make it, over [pixels, channels].
    pointer:  what the sums read, the worker's memory or the source;  ``step``: from one pixel to the next there.
    held:     elements of a worker's memory; 0 for an operand that is read where it lies.
    """

    channels: int
    lanes: int
    source: Pointer
    apart: int
    prologue: Prologue | None
    pointer: Pointer
    step: int
    held: int

    def images(self) -> list[Image]:
        """The values that it is made of, or itself."""
        if self.prologue is None:
            return [Image(self.source, self.apart)]
        return [Image(self.prologue.pointers[i], s[0]) for i, s in self.prologue.strides.items() if s[0]]

    def place(self, body: Body, first: Expression) -> Pointer:
        """Where a strip begins whose first pixel is number ``first``."""
        return body.pointer("strip_of", self.pointer, WORKER * self.held if self.held else first * self.step)

    def fill(self, body: Body, target: Pointer, first: Expression, count: Expression) -> None:
        """Put ``count`` pixels from number ``first`` on into the worker's memory, some at a time; the last ones repeatedly."""
        prologue = self.prologue
        with body.loop("p", 0, count, TOGETHER) as p:
            pixels = [body.let("pixel", least(p + k, count - 1)) for k in range(TOGETHER)]
            for c, part in self._vectors(body, self.lanes if prologue is None else prologue.lanes):
                known = {} if prologue is None else prologue.constants(body, [first, c], 1, part)
                for pixel in pixels:
                    value: Expression
                    if prologue is None:
                        value = load(self.source, (first + pixel) * self.apart + c, self.lanes, part)
                    else:
                        value = prologue.value(body, [first + pixel, c], 1, part, known)
                    body.store(target, pixel * self.step + c, value)
            if prologue is not None and prologue.lanes < self.lanes:
                self._fill_up(body, target, pixels)

    def _vectors(self, body: Body, lanes: int) -> Iterator[tuple[Expression, int | None]]:
        """The vectors that hold the channels: where each begins, and its elements if they are not all."""
        whole = self.channels // lanes * lanes
        if whole:
            with body.loop("c", 0, whole, lanes) as c:
                yield c, None
        if whole < self.channels:
            yield literal(whole), self.channels - whole

    def _fill_up(self, body: Body, target: Pointer, pixels: Sequence[Expression]) -> None:
        """Zeros behind the channels, up to whole vectors."""
        zero = literal(0, load(target, 0).type)
        with body.loop("c", self.channels, -(-self.channels // self.lanes) * self.lanes) as c:
            for pixel in pixels:
                body.store(target, pixel * self.step + c, zero)


def held_step(channels: int, lanes: int, element_bytes: int) -> int:
    """Elements from one pixel to the next in a worker's memory: whole vectors, and an odd number of cache lines."""
    line = LINE_BYTES // element_bytes
    lines = -(-(-(-channels // lanes) * lanes) // line)
    return (lines | 1) * line


def flat_strides(request: NativeRequest, i: int, shape: Sequence[int]) -> tuple[int, int] | None:
    """Strides (from pixel to pixel, from channel to channel) with which a value is read over images of this shape."""
    strides = operand_strides(request, i, tuple(shape))
    step = linear(shape[2:], (strides[0], *strides[2:]))
    return None if step is None else (step, strides[1])


def flat_prologue(
    request: NativeRequest, nodes: tuple[int, ...], result: int, pointers: dict[int, Pointer], lanes: int
) -> Prologue | None:
    """The ops that make ``result``, over [pixels, channels]; None where a value is stored in another way."""
    graph = request.graph
    strides: dict[int, tuple[int, ...]] = {}
    for i in values_read(graph, nodes):
        found = flat_strides(request, i, graph[result].type.shape)
        if found is None:
            return None
        strides[i] = found
    return Prologue(request, nodes, result, lanes if can_evaluate(graph, nodes, lanes) else 1, pointers, strides)
