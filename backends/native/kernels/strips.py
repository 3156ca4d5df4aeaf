"""Work on the result of a contraction while it is still in a cache: what statistics and sums of it have in common.

A task of the contraction writes some pixels, a *strip*, and hands them over before it goes on; what is made of them goes to one
*part* per task, and a last phase merges the parts in order, so that neither threads nor the order of tasks change a bit.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from irconv.backends.arrays.base import scratch
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import Expression, Operand, Pointer, Variable, literal
from irconv.backends.codegen.statements import Function
from irconv.backends.native.base import Phase
from irconv.backends.native.kernels.packing import least
from irconv.backends.native.kernels.reduction_loops import each_column
from irconv.types import DType, TensorType

STRIP_BYTES = 16 * 1024
"""What is added up at once: it is read twice, and is to stay in the first-level cache beside what the convolution has there."""

LINE_BYTES, SETS, WAYS = 64, 64, 8
"""Of a first-level cache of 32 KiB, as most x86-64 processors have it: pixels whose columns lie in the same of its sets drive
each other out."""

STRIP_PIXELS = 256
"""So many at the most: each of a few sums runs over them."""

MERGED = 64
"""Channels for which one task merges the parts."""

PARTS, NUMBER_OF_PARTS = "moments", "moment_parts"
"""What functions call the parts, and their number."""

Buffers = Sequence[tuple[str, DType, bool]]
"""(name, element type, written) of all buffers of a kernel, in order."""

Loops = Sequence[tuple[Operand, Operand]]
"""(count, element stride) of nested loops, the innermost last."""


@dataclass(frozen=True)
class Addition:
    """What a kernel has besides its contraction, each behind what it has for that; nothing where there is nothing to add."""

    outputs: tuple[tuple[str, DType], ...] = ()
    temporaries: tuple[tuple[str, DType], ...] = ()
    sizes: tuple[str, ...] = ()
    functions: tuple[Function, ...] = ()
    phases: tuple[Phase, ...] = ()
    numbers: tuple[int, ...] = ()
    scratch: tuple[TensorType, ...] = ()


@dataclass(frozen=True)
class Written:
    """Pixels that a task has just written, in columns from ``first`` to ``last`` - 1 of the result.

    out:   the buffer;  ``start``: where the first pixel begins in it;  ``loops``: over all of them from there.
    count: of the pixels;  ``part``: the number of the part that they go to.
    seen:  how many pixels of these columns went into that part before; is counted up when they are added.
    exact: whether the columns are a whole number of vectors.
    """

    out: Pointer
    first: Expression
    last: Expression
    start: Expression
    loops: Loops
    count: Expression
    part: Expression
    seen: Variable
    exact: bool


@dataclass(frozen=True)
class Strips(ABC):
    """What else a kernel makes of the result of its contraction.

    nodes:    ids of the nodes that are made of ``result``, the value that is stored as well.
    channels: of the result;  ``step``: elements from one pixel to the next, whichever axis comes next.
    results:  names of what is made, in the order of the kernel's outputs.
    """

    dtype: DType
    lanes: int
    result: int
    nodes: frozenset[int]
    channels: int
    step: int
    results: tuple[str, ...]

    @property
    @abstractmethod
    def fields(self) -> int:
        """Numbers of a part for each channel."""

    @abstractmethod
    def merge_function(self, buffers: Buffers, sizes: Sequence[str]) -> Function:
        """Merges the parts one after the other; a task is ``MERGED`` channels."""

    @abstractmethod
    def add(self, body: Body, written: Written) -> None:
        """Add what has been written to its part."""

    def names(self) -> Addition:
        """What buffers and run-time numbers are called."""
        outputs = tuple((name, self.dtype) for name in self.results)
        return Addition(outputs, ((PARTS, self.dtype),), (NUMBER_OF_PARTS,))

    def addition(self, parts: int, buffers: Buffers, sizes: Sequence[str]) -> Addition:
        """All of it, for so many parts; ``buffers`` and ``sizes`` are those of the whole kernel."""
        function = self.merge_function(buffers, sizes)
        phase = Phase(function.name, -(-self.channels // MERGED))
        kept = scratch(self.dtype, parts, self.fields, self.channels)
        return replace(self.names(), functions=(function,), phases=(phase,), numbers=(parts,), scratch=(kept,))

    def strip(self, columns: int, multiple: int = 1) -> int:
        """Pixels of so many columns that are added up at once, a multiple of some number."""
        pixels = min(STRIP_PIXELS, STRIP_BYTES // (columns * self.dtype.bytes))
        if columns < self.channels:
            lines = self.step * self.dtype.bytes // LINE_BYTES
            pixels = min(pixels, WAYS * SETS // math.gcd(lines, SETS))
        return max(1, pixels // multiple) * multiple

    def add_pixels(
        self, body: Body, out: Pointer, part: Expression, first: Expression, count: Expression, seen: Variable
    ) -> None:
        """Add ``count`` neighbouring pixels from number ``first`` on, in all channels, to a part that has ``seen`` some."""
        strip = self.strip(self.channels)
        with body.loop("strip", 0, count, strip) as start:
            here = body.let("pixels", least(count - start, strip))
            exact = self.channels % self.lanes == 0
            corner, loops = (first + start) * self.step, ((here, self.step),)
            self.add(body, Written(out, literal(0), literal(self.channels), corner, loops, here, part, seen, exact))

    def each(
        self, body: Body, width: Expression, exact: bool, emit: Callable[[Expression, Expression | None], None]
    ) -> None:
        """``emit`` for the vectors of columns, as :func:`each_column` does; none is cut off where they are exact."""
        if not exact:
            each_column(body, width, self.lanes, emit)
            return
        with body.loop("c", 0, width, self.lanes) as c:
            emit(c, None)
