"""Elementwise work in blocks: a short program of steps, run on one cache-sized block of the result after another.

A chain of elementwise ops reads and writes memory once when every step works on a block that is still in cache.  On a GPU
(no ``parallel``) there is one block: everything.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from irconv.backends.arrays.base import Array, Parallel, Scratch, spans
from irconv.types import DType

Index = tuple[int | slice, ...]

SMALL = 64 * 1024
"""Results of fewer bytes are computed in one block on the caller's thread: waking another costs more."""


@dataclass(frozen=True)
class Step:
    """One elementwise operation.

    apply:       ``apply(*operands, out, *temporaries)``, the argument order of NumPy's ufuncs.
    temporaries: element types of the block-sized temporaries that it needs.
    in_place:    operand slots that ``out`` may be.
    """

    apply: Callable[..., object]
    temporaries: tuple[DType, ...] = ()
    in_place: tuple[int, ...] = ()


@dataclass(frozen=True)
class Stage:
    """A step in a program: which values it reads and which it makes, as positions in the list of values."""

    step: Step
    sources: tuple[int, ...]
    target: int


@dataclass(frozen=True)
class Blocks:
    """How a result shape is cut: for each block its index into the result and its shape."""

    shape: tuple[int, ...]
    indices: tuple[Index, ...]
    shapes: tuple[tuple[int, ...], ...]
    largest: int

    def index_of(self, operand: tuple[int, ...]) -> list[Index | None]:
        """The index of each block into an operand that broadcasts to the result; None: all of it."""
        lead = len(self.shape) - len(operand)
        found: list[Index | None] = []
        for index in self.indices:
            own = tuple(
                part if n != 1 else (0 if isinstance(part, int) else slice(None))
                for part, n in zip(index[lead:], operand, strict=False)
            )
            found.append(own or None)
        return found


def cut(shape: tuple[int, ...], itemsize: int, parallel: Parallel | None, block_bytes: int | None = None) -> Blocks:
    """Cut a result into blocks of whole inner axes, at most ``block_bytes`` each; one block without ``parallel``."""
    size = math.prod(shape)
    if parallel is None or size * itemsize <= SMALL:
        return Blocks(shape, ((),), (shape,), max(size, 1))
    wanted = max(1, (block_bytes or parallel.block_bytes) // itemsize)
    if parallel.threads > 1:
        wanted = min(wanted, -(-size // parallel.threads))
    axis, inner = 0, size // max(shape[0], 1)
    while inner > wanted:
        axis += 1
        inner //= shape[axis]
    pieces = spans(shape[axis], max(1, wanted // inner))
    outer = itertools.product(*map(range, shape[:axis]))
    indices = tuple((*place, slice(*piece)) for place in outer for piece in pieces)
    shapes = tuple((stop - start, *shape[axis + 1 :]) for start, stop in pieces) * math.prod(shape[:axis])
    return Blocks(shape, indices, shapes, max(map(math.prod, shapes)))


def program(
    blocks: Blocks,
    stages: Sequence[Stage],
    outputs: Sequence[int],
    inputs: Sequence[tuple[int, ...]],
    dtypes: Sequence[DType],
    parallel: Parallel | None,
    scratch: Scratch,
) -> Callable[..., None]:
    """A function ``run(*outputs, *inputs, *scratch)`` that runs the stages on every block.

    Values are numbered: first the inputs (whose shapes are given), then whatever the stages make; ``dtypes`` are theirs.
    ``outputs`` are the numbers of the values to be stored, ``scratch`` collects the temporaries.
    """
    registers = _Registers(blocks, parallel, scratch)
    made = _assign(stages, outputs, len(inputs), dtypes, registers)
    reads = [blocks.index_of(shape) for shape in inputs]
    stored = len(outputs)
    first_scratch = stored + len(inputs)
    loaded = range(len(inputs))
    width = len(dtypes)
    place = {value: position for position, value in enumerate(outputs)}
    single = len(blocks.indices) == 1

    def run(*arrays: Array) -> None:
        buffers = arrays[first_scratch:]

        def task(block: int, worker: int) -> None:
            index, shape = blocks.indices[block], blocks.shapes[block]
            values: list[Array] = [None] * width
            for i in loaded:
                where = reads[i][block]
                values[i] = arrays[stored + i] if where is None else arrays[stored + i][where]
            for step, sources, target, register, temporaries in made:
                at = place.get(target)
                if at is not None:
                    out = arrays[at] if single else arrays[at][index]
                else:
                    out = registers.view(buffers, register, worker, shape)
                values[target] = out
                extra = [registers.view(buffers, t, worker, shape) for t in temporaries]
                step.apply(*[values[s] for s in sources], out, *extra)

        if single or parallel is None:
            task(0, 0)
        else:
            parallel.run(task, len(blocks.indices))

    return run


class _Registers:
    """Block-sized temporaries, one set per thread, reused once their value has been read for the last time."""

    def __init__(self, blocks: Blocks, parallel: Parallel | None, scratch: Scratch):
        self.largest = blocks.largest
        self.threads = parallel.threads if parallel and len(blocks.indices) > 1 else 1
        self.scratch = scratch
        self.free: dict[DType, list[int]] = {}
        self.dtypes: dict[int, DType] = {}

    def take(self, dtype: DType) -> int:
        """A free temporary of the element type, or a new one."""
        waiting = self.free.get(dtype)
        if waiting:
            return waiting.pop()
        slot = self.scratch.add(dtype, self.threads, self.largest)
        self.dtypes[slot] = dtype
        return slot

    def give(self, slot: int) -> None:
        """Say that the temporary's value is dead."""
        self.free.setdefault(self.dtypes[slot], []).append(slot)

    def view(self, buffers: Sequence[Array], slot: int, worker: int, shape: tuple[int, ...]) -> Array:
        """The temporary of one thread in the shape of a block."""
        return buffers[slot][worker, : math.prod(shape)].reshape(shape)


def _assign(
    stages: Sequence[Stage], outputs: Sequence[int], inputs: int, dtypes: Sequence[DType], registers: _Registers
) -> list[tuple[Step, tuple[int, ...], int, int, tuple[int, ...]]]:
    """Give every value that is not an output a temporary: (step, sources, target, its temporary or -1, others needed)."""
    last = {source: position for position, stage in enumerate(stages) for source in stage.sources}
    held: dict[int, int] = {}
    made = []
    for position, stage in enumerate(stages):
        step, target = stage.step, stage.target
        dying = [s for s in dict.fromkeys(stage.sources) if s in held and last[s] == position]
        # a source that dies here may be overwritten, if the step allows it
        reused = next(
            (s for s in dying if dtypes[s] is dtypes[target] and _only(stage.sources, s) in step.in_place), None
        )
        register = -1
        if target not in outputs:
            if reused is not None:
                register = held.pop(reused)
                dying.remove(reused)
            else:
                register = registers.take(dtypes[target])
            held[target] = register
        temporaries = tuple(registers.take(dtype) for dtype in step.temporaries)
        made.append((step, stage.sources, target, register, temporaries))
        for slot in temporaries:
            registers.give(slot)
        for source in dying:
            registers.give(held.pop(source))
        if target not in last and target in held:
            registers.give(held.pop(target))
    return made


def _only(sources: tuple[int, ...], value: int) -> int:
    """The slot that reads ``value``, or -1 when several do and one of them may not be overwritten."""
    return sources.index(value) if sources.count(value) == 1 else -1


def shared_pairs(
    stages: Sequence[Stage], outputs: Sequence[int], inputs: Sequence[tuple[int, ...]], shape: tuple[int, ...],
    dtypes: Sequence[DType],
) -> tuple[tuple[int, int], ...]:
    """Pairs (output, input) that may be one buffer: the output is made by, or after, the last step that reads the input."""
    pairs = []
    for position, value in enumerate(outputs):
        made_at = next(i for i, stage in enumerate(stages) if stage.target == value)
        for i, operand in enumerate(inputs):
            if operand != shape or dtypes[i] is not dtypes[value]:
                continue
            readers = [j for j, stage in enumerate(stages) if i in stage.sources]
            if any(j > made_at for j in readers):
                continue
            stage = stages[made_at]
            if i not in stage.sources or _only(stage.sources, i) in stage.step.in_place:
                pairs.append((position, i))
    return tuple(pairs)
