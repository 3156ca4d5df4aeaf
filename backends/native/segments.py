"""A program's steps cut into rows of native ones, which C runs with one call, and single ones that Python runs between them.

Entries run in turn, and one of several tasks ends with a barrier.  Neighbours that touch no common memory are not run side by
side without one: with two threads a barrier costs 0.6 us, in all 1.2 % of a training step of LeNet (batch 64: 23 barriers) and
1 % of MobileNet-V2's inference (49).  None of those would go, for what could join is of one task (in LeNet's step) or does not
exist (in MobileNet's, a chain); LeNet's step would gain 0.6 % at the very best.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from irconv.backends.arrays.base import Array
from irconv.backends.arrays.steps import Context, Layout, Step
from irconv.backends.native.addresses import CalledSlots
from irconv.backends.native.base import NativeKernel, Prepared
from irconv.backends.native.lowering import NativeLowering
from irconv.backends.native.runtime import (
    COPY,
    FINITE_F32,
    FINITE_F64,
    PHASE,
    Entry,
    Pool,
    Table,
    address_of,
    function_address,
)
from irconv.graph import Graph
from irconv.types import F32, F64, TensorType

FINITE = {F32: FINITE_F32, F64: FINITE_F64}


@dataclass(frozen=True, slots=True)
class Segment:
    """Entries ``first`` to ``first + count - 1`` of the table, or (count 0) a step that Python runs."""

    first: int
    count: int
    step: Step | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What runs in which way.

    entries: the table's; ``sources`` tells which step each came from.
    mixed:   whether Python runs something.
    kept:    what is prepared once and kept.
    """

    entries: tuple[Entry, ...]
    sources: tuple[Step, ...]
    segments: tuple[Segment, ...]
    mixed: bool
    kept: tuple[Kept, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """A temporary that is filled when the leaf (a state or a constant) has changed, and only read by the kernels.

    slot, type: of the temporary.  operand: the slot that it is made from, the leaf or a view of it.
    """

    entry: Entry
    slot: int
    type: TensorType
    operand: int
    leaf: int


def plan_segments(graph: Graph, layout: Layout, lowering: NativeLowering) -> Plan:
    """Cut a layout into segments.  Native kernels must have been compiled, or are now."""
    entries: list[Entry] = []
    sources: list[Step] = []
    segments: list[Segment] = []
    kept: list[Kept] = []
    for step in layout.steps:
        made = None if step.kernel is None else lowering.lower(graph, step.kernel)
        if step.kernel is not None and isinstance(made, NativeKernel):
            prepared = lowering.kept(graph, step.kernel)
            kept += [_kept(step, made, each, leaf) for each, leaf in prepared]
            skipped = {each.phase for each, _ in prepared}
            new = [e for i in range(len(made.phases)) if i not in skipped for e in _checked_phase(step, made, i)]
        elif step.kernel is None and (plain := _plain(graph, step)) is not None:
            new = [plain]
        else:
            segments.append(Segment(len(entries), 0, step))
            continue
        if not segments or segments[-1].step is not None:
            segments.append(Segment(len(entries), 0))
        last = segments.pop()
        segments.append(Segment(last.first, last.count + len(new)))
        entries += new
        sources += [step] * len(new)
    mixed = any(segment.step is not None for segment in segments)
    return Plan(tuple(entries), tuple(sources), tuple(segments), mixed, tuple(kept))


def _checked_phase(step: Step, made: NativeKernel, position: int) -> list[Entry]:
    """A phase, with the check behind it if there is one."""
    entries = [_phase(step, made, position)]
    if made.check is not None and made.check.phase == position:
        slot = step.slots[len(step.slots) - len(made.scratch) + made.check.scratch]
        entries.append(Entry(FINITE_F32, (slot,), 1))
    return entries


def _phase(step: Step, made: NativeKernel, position: int) -> Entry:
    phase = made.phases[position]
    return Entry(PHASE, step.slots, phase.tasks, function_address(made.unit, phase.function), made.sizes)


def _kept(step: Step, made: NativeKernel, prepared: Prepared, leaf: int) -> Kept:
    type_ = made.scratch[prepared.scratch - (len(step.slots) - len(made.scratch))]
    entry = _phase(step, made, prepared.phase)
    return Kept(entry, step.slots[prepared.scratch], type_, step.slots[prepared.operand], leaf)


def _plain(graph: Graph, step: Step) -> Entry | None:
    """A check, or the copy of a new state, as an entry of the table; None for one that only Python can do."""
    types = [graph[slot].type for slot in step.slots]
    if any(type_.layout is not None for type_ in types):
        return None
    if len(types) == 2:
        return Entry(COPY, step.slots, types[0].bytes)
    kind = FINITE.get(types[0].dtype)
    return None if kind is None else Entry(kind, step.slots, types[0].size)


class NativeContext(Context):
    """The memory of one call at a time, and the table of steps that work in it.

    rows: the segments, with where their steps are.  row: address of what runs the first.
    """

    def __init__(
        self, layout: Layout, fixed: dict[int, Array], arena: Array, plan: Plan, called: CalledSlots, pool: Pool
    ):
        super().__init__(layout, fixed, arena)
        self.table = Table(plan.entries)
        self._roots = called.roots
        self._addresses: list[int] = []  # of the roots, as the table has them now
        self._places: list[tuple[int, int, int]] = []  # position in the table, number of the root, bytes from there
        for slot, positions in self.table.positions.items():
            if slot in called.shown:
                self._places += ((position, *called.shown[slot]) for position in positions)
            else:
                self.table.point(slot, address_of(self.arrays[slot]))
        self.rows: list[tuple[int, int, Segment, Callable[[list[Any]], Any] | None]] = [
            (self.table.at(segment.first), segment.count, segment, None if segment.step is None else _picker(segment.step.slots))
            for segment in plan.segments
        ]
        self._first = pool.row(*self.rows[0][:2]) if self.rows else None
        self.row = ctypes.addressof(self._first) if self._first else 0

    def patch(self) -> None:
        """Tell the table where this call's inputs and results are."""
        self.point([address_of(self.arrays[slot]) for slot in self._roots])

    def point(self, addresses: list[int]) -> None:
        """Tell the table where inputs and results are: the addresses of the inputs, then those of the results."""
        if addresses == self._addresses:
            return
        self._addresses = []  # whatever interrupts this
        pointers = self.table.pointers
        for position, number, distance in self._places:
            pointers[position] = addresses[number] + distance
        self._addresses = addresses


def _picker(slots: Sequence[int]) -> Callable[[list[Any]], Any]:
    if len(slots) == 1:
        only = slots[0]
        return lambda arrays: (arrays[only],)
    return itemgetter(*slots)


def contiguous(array: np.ndarray) -> np.ndarray:
    """The array, or a row-major, aligned copy in the machine's byte order."""
    return np.require(array, array.dtype.newbyteorder("="), ["C", "A"])
