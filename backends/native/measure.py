"""What the candidates for a kernel take, measured as they would run in a network.

Candidates take turns, so that whatever else the machine does meets all of them, and the best of many turns counts.  Before each
turn the second-level caches are filled with other data, as other layers would (unless the whole network is smaller), and the
first operand is read again, as if it had just been computed.  What is prepared once and kept (packed weights) is made outside
of the time that counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from irconv.backends.arrays.base import Array
from irconv.backends.arrays.lower import operand_ids
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import Literal, Pointer, Type, load
from irconv.backends.native.base import NativeKernel, NativeRequest
from irconv.backends.native.library import Unit, library
from irconv.backends.native.runtime import PHASE, Entry, Pool, Table, address_of, function_address
from irconv.strides import Strides
from irconv.types import F32, TensorType

BUDGET = 0.3
"""Seconds for the candidates of a kernel, compiling aside."""

FEWEST, MOST = 3, 200
"""Turns of a candidate, whatever they take and however short they are."""

HOPELESS = 1.3
"""How many times as long as the best so far a candidate may take and stay in the race, when a quarter of the time is over."""

AGREEMENT, PATIENCE = 1.05, 4
"""How close a candidate's two shortest times must be to be believed, and how many budgets are spent on waiting for that."""

SWEPT = 64 * 1024
"""Bytes that a task of a sweep reads."""

ALIGNMENT = 64

Measure = Callable[[NativeRequest, Sequence[NativeKernel], frozenset[int], Pool], list[float]]


def measure(
    request: NativeRequest, kernels: Sequence[NativeKernel], stays: frozenset[int], pool: Pool
) -> list[float]:
    """Seconds of each kernel, all of which compute what is requested.

    kernels: the cost model's first.
    stays:   the operands that do not change from call to call.

    Raises BackendError when one does not compile.
    """
    sweeper = _sweeper(request)
    library().prepare([sweeper, *(kernel.unit for kernel in kernels)])
    values = {i: _values(request.graph[i].type, request.strides[i]) for i in _value_ids(request)}
    arena = _filled(max(sum(_padded(t.bytes) for t in kernel.scratch) for kernel in kernels))
    swept = _filled(2 * pool.threads * request.machine.cache_bytes if is_swept(request) else 0)
    sums = _filled(4 * max(_tasks(swept), *(_tasks(each.memory) for each in values.values())))
    address = function_address(sweeper, SWEEP)
    turns = [_turn(request, kernel, stays, values, arena, (swept, sums), address) for kernel in kernels]
    return race([turn.seconds(pool) for turn in turns], BUDGET)


def is_swept(request: NativeRequest) -> bool:
    """Whether a core's cache holds something else whenever the kernel begins: the graph's values do not all fit."""
    return sum(node.type.bytes for node in request.graph) > request.machine.cache_bytes


def race(turns: Sequence[Callable[[], float]], budget: float) -> list[float]:
    """The best of what each takes in many turns; those that are hopelessly slow leave early.

    The first is the cost model's.  If another leads, the two meet again, alone, with as much time as all had: on a busy machine
    a candidate may have had no turn with all cores to itself.
    """
    best = [[float("inf")] * 2 for _ in turns]  # the two shortest times of each
    _rounds(turns, list(range(len(turns))), best, budget)
    leader = min(range(len(turns)), key=lambda i: best[i][0])
    if leader:
        _rounds(turns, [0, leader], best, budget)
    return [first for first, _ in best]


def _rounds(
    turns: Sequence[Callable[[], float]], running: list[int], best: list[list[float]], budget: float
) -> None:
    """Turns of the candidates ``running`` until the time is over.

    While a time has been reached only once it may still be chance, and they go on, up to ``PATIENCE`` budgets.
    """
    start = time.perf_counter()
    for number in range(MOST):
        for i in running:
            best[i] = sorted([*best[i], turns[i]()])[:2]
        taken = time.perf_counter() - start
        if number + 1 < FEWEST or taken < budget / 4:
            continue
        leader = min(first for first, _ in best)
        running = [i for i in running if i == 0 or best[i][0] <= HOPELESS * leader or not _is_settled(best[i])]
        if taken > PATIENCE * budget or (taken > budget and all(_is_settled(best[i]) for i in running)):
            return


def _is_settled(best: Sequence[float]) -> bool:
    return best[1] <= AGREEMENT * best[0]


# --- a turn ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Values:
    """An array, and the memory in which it lies."""

    array: Array
    memory: Array


@dataclass(frozen=True)
class _Turn:
    """A kernel's steps: those before the time counts, and the others."""

    before: Table
    timed: Table

    def seconds(self, pool: Pool) -> Callable[[], float]:
        def run() -> float:
            pool.run(self.before.address, self.before.count)
            return float(pool.run_timed(self.timed.address, self.timed.count)[1].sum())

        return run


def _turn(
    request: NativeRequest,
    kernel: NativeKernel,
    stays: frozenset[int],
    values: dict[int, _Values],
    arena: Array,
    sweep: tuple[Array, Array],
    sweeper: int,
) -> _Turn:
    """The steps of a kernel in memory that all share."""
    ids = _buffer_ids(request)
    arrays = [values[i].array for i in ids]
    offset = 0
    for type_ in kernel.scratch:
        arrays.append(arena[offset : offset + max(1, type_.bytes)])
        offset += _padded(type_.bytes)
    swept, sums = sweep
    first = values[operand_ids(request.graph, request.kernel)[0]].memory
    slots = tuple(range(len(arrays)))
    other, used, noted = len(arrays), len(arrays) + 1, len(arrays) + 2
    arrays += [swept, first, sums]
    kept = {p.phase for p in kernel.prepared if ids[p.operand] in stays}
    entries = [
        Entry(PHASE, slots, phase.tasks, function_address(kernel.unit, phase.function), kernel.sizes)
        for phase in kernel.phases
    ]
    before = [entry for number, entry in enumerate(entries) if number in kept]
    before += [Entry(PHASE, (noted, slot), _tasks(arrays[slot]), sweeper) for slot in (other, used)]
    tables = _Turn(Table(before), Table([entry for number, entry in enumerate(entries) if number not in kept]))
    for table in (tables.before, tables.timed):
        for slot, array in enumerate(arrays):
            table.point(slot, address_of(array))
    return tables


def _buffer_ids(request: NativeRequest) -> tuple[int, ...]:
    """The values that a kernel is given before its temporaries."""
    return (*request.kernel.outputs, *operand_ids(request.graph, request.kernel))


def _value_ids(request: NativeRequest) -> list[int]:
    return list(dict.fromkeys(_buffer_ids(request)))


# --- memory ----------------------------------------------------------------------------------------------------------------


def _padded(count: int) -> int:
    return -(-max(1, count) // ALIGNMENT) * ALIGNMENT


def _tasks(memory: Array) -> int:
    """Of a sweep over memory."""
    return int(memory.nbytes) // SWEPT


def _filled(count: int) -> Array:
    """At least so many bytes, whole sweeps, every page of it in use."""
    whole = -(-max(1, count) // SWEPT) * SWEPT
    raw = np.zeros(whole + ALIGNMENT, np.uint8)
    raw.fill(0)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + whole]


def _values(type_: TensorType, strides: Strides) -> _Values:
    """An array with these strides and harmless values: normal numbers, zeros for integers."""
    reach = [step * (count - 1) for count, step in zip(type_.shape, strides, strict=True)]
    low = sum(min(0, r) for r in reach)
    count = sum(max(0, r) for r in reach) - low + 1
    dtype = np.dtype(type_.dtype.numpy)
    memory = _filled(count * dtype.itemsize)
    flat = memory.view(dtype)
    generator = np.random.default_rng(0)
    if type_.dtype.is_float:
        flat[:] = np.resize(generator.standard_normal(65537).astype(dtype), flat.size)
    elif dtype.kind == "b":
        flat[:] = np.resize(generator.random(65537) < 0.5, flat.size)
    steps = [step * dtype.itemsize for step in strides]
    array = np.lib.stride_tricks.as_strided(flat[-low:], type_.shape, steps)
    return _Values(array, memory)


SWEEP = "sweep"


def _sweeper(request: NativeRequest) -> Unit:
    """Code that reads memory, one element of each cache line; a task is ``SWEPT`` bytes."""
    body, step = Body(), ALIGNMENT // F32.bytes
    with body.tasks() as task:
        total = body.variable("total", Literal(0.0, Type(F32)))
        with body.loop("line", 0, SWEPT // ALIGNMENT) as line:
            at = task * (SWEPT // F32.bytes) + line * step
            body.assign(total, total + load(Pointer("memory", F32), at))
        body.store(Pointer("sums", F32), task, total)
    function = body.function(SWEEP, (("sums", F32, True), ("memory", F32, False)), ())
    return Unit(print_c([function]), request.machine.flags, SWEEP)
