"""Rows of a depthwise convolution's input that are computed before it reads them: normalisation and activation on the way.

An element is seen by up to nine windows, for a multiplication each; to compute it for every one would take as long as the
windows.  So a task computes each row once, into a ring of as many rows as a window spans, which stays in the cache until the
last window has passed over it.  Padding is no row of the ring, and stays zero whatever the work makes of zero.

Where tasks meet, rows are computed by both: tasks are high enough that this is about an eighth of the rows, or half of an image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from irconv.backends.arrays.base import scratch
from irconv.backends.codegen.body import WORKER, Body
from irconv.backends.codegen.form import INDEX, Expression, Pointer, Variable, call, compare, literal
from irconv.backends.native.kernels.depthwise_plan import Layer
from irconv.backends.native.kernels.prologue import LINE, STAGE, Prologue
from irconv.types import TensorType

REPEATED = 8
"""About one row in so many is computed by two tasks, where images are high enough."""

HALF = 7
"""Rows of half an image that are a task of their own: a single image is to give work to two threads."""

ROWS = "computed_rows"
"""What functions call the memory of the rings."""


@dataclass(frozen=True)
class InputRows:
    """The ring of each worker.

    layer: over the input as it would be stored, channels last, with one axis of rows;  ``prologue``: what computes an element.
    """

    layer: Layer
    prologue: Prologue

    @property
    def span(self) -> int:
        """Rows that a window reaches over."""
        (axis,) = self.layer.outer
        return (axis.taps - 1) * axis.dilation + 1

    @property
    def row(self) -> int:
        """Elements of a row."""
        return self.layer.last.size * self.layer.channels

    @property
    def memory(self) -> int:
        """Elements of a worker, whole cache lines."""
        return -(-self.span * self.row // LINE) * LINE

    def scratch(self, threads: int) -> TensorType:
        """What all workers hold."""
        return scratch(self.layer.dtype, threads, self.memory)

    @property
    def held(self) -> Layer:
        """The layer over what a worker holds."""
        channels = self.layer.channels
        return replace(self.layer, x_strides=(0, 1, self.row, channels), ring=self.span)

    def task_rows(self, most: int) -> int:
        """Rows of a task, where it would take at most so many if none were computed twice: an even part of an image."""
        (axis,) = self.layer.outer
        repeated = -(-max(0, self.span - axis.stride) // axis.stride)
        rows = self.layer.rows
        parts = max(-(-rows // max(most, REPEATED * repeated)), min(2, rows // HALF), 1)
        return -(-rows // parts)

    def begin(self, body: Body) -> Ring:
        """The worker's ring, as a task finds it."""
        own = body.pointer("own", Pointer(ROWS, self.layer.dtype), WORKER * Variable(STAGE, INDEX))
        return Ring(self, own, body.variable("done", literal(0)))


@dataclass(frozen=True)
class Ring:
    """A worker's ring while a task runs.  ``done``: rows before this one have been computed, or are needed no more."""

    rows: InputRows
    pointer: Pointer
    done: Variable

    def fill(self, body: Body, sample: Expression, place: Expression) -> None:
        """Compute what the windows of an output row see and is not there yet; rows of the output come in order."""
        rows, layer, done = self.rows, self.rows.layer, self.done
        (axis,) = layer.outer
        with body.when(compare("==", place, 0)):
            body.assign(done, literal(0))
        low = body.let("low", place * axis.stride - axis.before)
        body.assign(done, call("larger", done, low))
        end = body.let("end", call("smaller", low + rows.span, axis.size))
        with body.loop("r", done, end) as r:
            row = body.pointer("ring_row", self.pointer, r % rows.span * rows.row)
            with body.loop("p", 0, layer.last.size) as p:
                for channel, count in rows.prologue.each(body, 0, layer.channels):
                    value = rows.prologue.value(body, [sample, channel, r, p], 1, count)
                    body.store(row, p * layer.channels + channel, value, count)
        body.assign(done, call("larger", done, end))


def input_rows(layer: Layer, prologue: Prologue | None) -> InputRows | None:
    """The rows that a prologue computes; None without one, and where there is no code: rows along one axis, no transpose."""
    if prologue is None or len(layer.outer) != 1 or layer.outer[0].transposed:
        return None
    return InputRows(layer, prologue)
