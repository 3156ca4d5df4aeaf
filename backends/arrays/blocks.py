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


def along(shape: tuple[int, ...], regions: Sequence[tuple[slice, ...]]) -> Blocks:
    """The blocks that are the given regions (slices of every axis) of a result."""
    shapes = tuple(
        tuple(len(range(*part.indices(n))) for part, n in zip(region, shape, strict=True)) for region in regions
    )
    return Blocks(shape, tuple(regions), shapes, max(map(math.prod, shapes), default=1))


def cut(shape: tuple[int, ...], itemsize: int, parallel: Parallel | None, fixed: bool = False) -> Blocks:
    """Cut a result into blocks of whole inner axes, of the pool's block size; one block without ``parallel``.

    ``fixed``: do not cut smaller so as to give every thread a block (what is summed by block must not depend on the threads).
    """
    size = math.prod(shape)
    if parallel is None or size * itemsize <= SMALL:
        return Blocks(shape, ((),), (shape,), max(size, 1))
    wanted = max(1, parallel.block_bytes // itemsize)
    if parallel.threads > 1 and not fixed:
        wanted = min(wanted, -(-size // parallel.threads))
    axis, inner = 0, size // max(shape[0], 1)
    while inner > wanted:
        axis += 1
        inner //= shape[axis]
    pieces = spans(shape[axis], max(1, wanted // inner))
    outer = itertools.product(*map(range, shape[:axis]))
    indices: tuple[Index, ...] = tuple((*place, slice(*piece)) for place in outer for piece in pieces)
    shapes = tuple((stop - start, *shape[axis + 1 :]) for start, stop in pieces) * math.prod(shape[:axis])
    return Blocks(shape, indices, shapes, max(map(math.prod, shapes)))


@dataclass(frozen=True)
class Program:
    """Stages compiled for one way of cutting a result.

    ``task(arrays, block, worker)`` runs them on one block, ``run(*arrays)`` on all; arrays are (*outputs, *inputs, *scratch).
    """

    blocks: Blocks
    parallel: Parallel | None
    task: Callable[[Sequence[Array], int, int], None]

    def run(self, *arrays: Array) -> None:
        """Run every block."""
        count = len(self.blocks.indices)
        if count == 1 or self.parallel is None:
            for block in range(count):
                self.task(arrays, block, 0)
        else:
            self.parallel.run(lambda block, worker: self.task(arrays, block, worker), count)


def program(
    blocks: Blocks,
    stages: Sequence[Stage],
    outputs: Sequence[int],
    inputs: Sequence[tuple[int, ...]],
    dtypes: Sequence[DType],
    parallel: Parallel | None,
    scratch: Scratch,
    continued: bool = False,
    stores: Sequence[Sequence[Index]] | None = None,
) -> Program:
    """Compile stages.

    Values are numbered: first the inputs (whose shapes are given), then whatever the stages make; ``dtypes`` are theirs.
    ``outputs`` are the numbers of the values to be stored, ``scratch`` collects the temporaries.

    continued: the first input is what the only output's buffer holds already, to be replaced.
    stores:    where each output's part of each block goes, if that is not the block's own index.
    """
    registers = _Registers(blocks, parallel, scratch)
    made = _assign(stages, outputs, len(inputs), dtypes, registers, continued)
    reads = [blocks.index_of(shape) for shape in inputs]
    stored = len(outputs)
    first_scratch = stored + len(inputs)
    loaded = [i for i in range(len(inputs)) if not (continued and i == 0)]
    width = len(dtypes)
    place = {value: position for position, value in enumerate(outputs)}
    targets = stores or [blocks.indices] * stored

    def task(arrays: Sequence[Array], block: int, worker: int) -> None:
        shape, buffers = blocks.shapes[block], arrays[first_scratch:]
        values: list[Array] = [None] * width
        for i in loaded:
            where = reads[i][block]
            values[i] = arrays[stored + i] if where is None else arrays[stored + i][where]
        parts = [arrays[i][targets[i][block]] if targets[i][block] else arrays[i] for i in range(stored)]
        if continued:
            values[0] = parts[0]
        for stage, register, temporaries, copied in made:
            at = place.get(stage.target)
            if register == STORE:
                out = parts[0]
            elif at is not None and not copied:
                out = parts[at]
            else:
                out = registers.view(buffers, register, worker, shape)
            values[stage.target] = out
            extra = [registers.view(buffers, t, worker, shape) for t in temporaries]
            stage.step.apply(*[values[s] for s in stage.sources], out, *extra)
            if copied:
                parts[0][...] = out

    return Program(blocks, parallel, task)


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
        if slot != STORE:
            self.free.setdefault(self.dtypes[slot], []).append(slot)

    def view(self, buffers: Sequence[Array], slot: int, worker: int, shape: tuple[int, ...]) -> Array:
        """The temporary of one thread in the shape of a block."""
        return buffers[slot][worker, : math.prod(shape)].reshape(shape)


STORE = -2
"""In place of a temporary: the buffer of the (only) output, which a value on its way may use."""

Made = tuple[Stage, int, tuple[int, ...], bool]


def _assign(
    stages: Sequence[Stage],
    outputs: Sequence[int],
    inputs: int,
    dtypes: Sequence[DType],
    registers: _Registers,
    continued: bool,
) -> list[Made]:
    """Where every value lives: (stage, its temporary, other temporaries it needs, whether it is copied to the output after).

    Outputs have no temporary (-1), except one that may not yet be overwritten while it is computed.
    """
    last = {source: position for position, stage in enumerate(stages) for source in stage.sources}
    held: dict[int, int] = {0: STORE} if continued else {}
    made: list[Made] = []
    for position, stage in enumerate(stages):
        step, target = stage.step, stage.target
        dying = [s for s in dict.fromkeys(stage.sources) if s in held and last[s] == position]
        register, copied = -1, False
        if target in outputs:
            stored = next((s for s in stage.sources if held.get(s) == STORE), None)
            if stored is not None and _only(stage.sources, stored) not in step.in_place:
                register, copied = registers.take(dtypes[target]), True
        else:
            # a source that dies here may be overwritten, if the step allows it
            free = (s for s in dying if dtypes[s] is dtypes[target] and _only(stage.sources, s) in step.in_place)
            reused = next(free, None)
            if reused is not None:
                register = held.pop(reused)
                dying.remove(reused)
            else:
                register = registers.take(dtypes[target])
            held[target] = register
        temporaries = tuple(registers.take(dtype) for dtype in step.temporaries)
        made.append((stage, register, temporaries, copied))
        for slot in (*temporaries, *((register,) if copied else ())):
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
    stages: Sequence[Stage],
    outputs: Sequence[int],
    inputs: Sequence[tuple[int, ...]],
    shape: tuple[int, ...],
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
