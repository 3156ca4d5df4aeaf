"""Where every value lives: one arena, buffers shared over time, results in place, new states in the states' own arrays.

A *buffer* is one place for values that follow each other in place; views belong to the buffer of the value they show.  Each
buffer lives from the kernel that writes it first to the last that reads it, and gets the tightest free gap of the arena.

A state is written in place only if every reader of its old value (through views too) runs before, or is the writing kernel
itself where the target allows it, and all guards have run.  Otherwise the new value is computed elsewhere and copied when all
kernels have run.  Kernels read states but commits read only computed values, so the order of the commits does not matter.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from irconv.errors import GraphError
from irconv.graph import Graph
from irconv.kernel import Allocation, MemoryPlan, Schedule, view_roots
from irconv.strides import covers, value_strides
from irconv.target import Target

ALIGNMENT = 64
"""Every buffer starts at a multiple of this many bytes: a cache line, and the widest vector register."""


def plan_memory(graph: Graph, schedule: Schedule, target: Target) -> MemoryPlan:
    """Plan the memory of a scheduled graph.

    Raises GraphError for outputs and updates that no kernel computes (run ``materialise`` first) and for two updates of one
    state array.
    """
    return _Planner(graph, schedule, target).plan()


@dataclass
class _Buffer:
    """A place: its size, and the first and last position in the schedule at which it is in use."""

    bytes: int
    start: int
    end: int


class _Planner:
    """One run of the planner."""

    def __init__(self, graph: Graph, schedule: Schedule, target: Target):
        self.graph = graph
        self.target = target
        self.kernels = schedule.kernels
        self.strides = value_strides(graph)
        self.aliases = view_roots(self.kernels)
        self.makers = {v: i for i, kernel in enumerate(self.kernels) for v in kernel.outputs if not kernel.is_view}
        self.outputs = self._outputs()
        self.same_array = self._same_array()
        self.last_read = self._last_reads()
        self.guarded = max((self.makers[g] for g in schedule.guards), default=-1)

    def root(self, value: int) -> int:
        """The value whose buffer this one shows; states that share an array count as one."""
        value = self.aliases.get(value, value)
        return self.same_array.get(value, value)

    def _outputs(self) -> dict[int, str]:
        graph = self.graph
        outputs: dict[int, str] = {}
        for path, value in graph.outputs.items():
            if value not in self.makers or value in outputs:
                raise GraphError(
                    f"output {path!r} (%{graph[value].name}) has no buffer of its own", hint="run the pass `materialise` first"
                )
            outputs[value] = path
        return outputs

    def _same_array(self) -> dict[int, int]:
        """State id -> the first state bound to the same variable."""
        first: dict[int, int] = {}
        same: dict[int, int] = {}
        for state in self.graph.states:
            variable = self.graph.state.get(self.graph[state].name)
            same[state] = state if variable is None else first.setdefault(id(variable), state)
        return same

    def _last_reads(self) -> dict[int, int]:
        """Root -> position of the last kernel that reads it or a view of it."""
        last: dict[int, int] = {}
        for position, kernel in enumerate(self.kernels):
            if not kernel.is_view:
                for value in kernel.inputs:
                    last[self.root(value)] = position
        return last

    # --- states ------------------------------------------------------------------------------------------------------

    def _updates(self) -> tuple[dict[int, int], list[tuple[int, int]]]:
        """Which new values are written straight into their state, and which are copied at the end."""
        graph = self.graph
        in_place: dict[int, int] = {}
        commits: list[tuple[int, int]] = []
        written: set[int] = set()  # state arrays
        seen: set[int] = set()
        for state, value in graph.updates.items():
            if value not in self.makers or value in seen:
                raise GraphError(
                    f"the new value %{graph[value].name} of %{graph[state].name} has no buffer of its own",
                    hint="run the pass `materialise` first",
                )
            if self.root(state) in written:
                raise GraphError(f"%{graph[state].name} shares its array with another state, and both are updated")
            written.add(self.root(state))
            seen.add(value)
            if value not in self.outputs and self._may_overwrite(state, value):
                in_place[value] = state
            else:
                commits.append((value, state))
        return in_place, commits

    def _may_overwrite(self, state: int, value: int) -> bool:
        position = self.makers[value]
        root = self.root(state)
        last = self.last_read.get(root, -1)
        if position <= self.guarded or last > position:
            return False
        return last < position or self._overwrites(position, value, root)

    # --- in place ----------------------------------------------------------------------------------------------------

    def _overwrites(self, position: int, output: int, root: int) -> bool:
        """Whether a kernel may write ``output`` over the buffer of ``root``, which it reads for the last time."""
        kernel = self.kernels[position]
        readers = [v for v in kernel.inputs if self.root(v) == root]
        if len(readers) != 1 or (output, readers[0]) not in self.target.writes_in_place(self.graph, kernel):
            return False
        node = self.graph[readers[0]]
        return node.type == self.graph[output].type and covers(
            node.type.shape, self.strides[node.id][0], self.graph[root].type.shape
        )

    def _buffers(self, stored: Mapping[int, int]) -> tuple[dict[int, int], list[_Buffer]]:
        """Arena values to numbers of buffers.  ``stored``: values written straight into states."""
        home: dict[int, int] = {}
        buffers: list[_Buffer] = []
        final = len(self.kernels)
        committed = set(self.graph.updates.values())
        for position, kernel in enumerate(self.kernels):
            if kernel.is_view:
                continue
            taken: set[int] = set()
            for value in kernel.outputs:
                if value in self.outputs or value in stored:
                    continue
                end = final if value in committed else self.last_read.get(value, position)
                root = self._dying_input(position, value, home, buffers, taken)
                if root is None:
                    home[value] = len(buffers)
                    buffers.append(_Buffer(self.graph[value].type.bytes, position, end))
                else:
                    taken.add(root)
                    home[value] = home[root]
                    buffers[home[root]].end = end
        return home, buffers

    def _dying_input(
        self, position: int, output: int, home: Mapping[int, int], buffers: Sequence[_Buffer], taken: set[int]
    ) -> int | None:
        """An arena value whose buffer the kernel may give to ``output`` (``taken``: those it has given away already)."""
        kernel = self.kernels[position]
        for _, value in (pair for pair in self.target.writes_in_place(self.graph, kernel) if pair[0] == output):
            root = self.root(value)
            dies = root in home and root not in taken and buffers[home[root]].end == position
            if dies and self._overwrites(position, output, root):
                return root
        return None

    # --- the plan ----------------------------------------------------------------------------------------------------

    def plan(self) -> MemoryPlan:
        in_place, commits = self._updates()
        home, buffers = self._buffers(in_place)
        temporaries: dict[str, list[int]] = {}
        for position, kernel in enumerate(self.kernels):
            sizes = () if kernel.is_view else self.target.workspace(self.graph, kernel)
            if sizes:
                temporaries[kernel.name] = list(range(len(buffers), len(buffers) + len(sizes)))
                buffers += [_Buffer(size, position, position) for size in sizes]
        offsets, arena = pack(buffers)
        places = [Allocation(offset, buffer.bytes) for offset, buffer in zip(offsets, buffers, strict=True)]
        return MemoryPlan(
            arena_bytes=arena,
            buffers={value: places[i] for value, i in home.items()},
            aliases=self.aliases,
            outputs=self.outputs,
            update_in_place=in_place,
            commits=tuple(commits),
            scratch={name: tuple(places[i] for i in ids) for name, ids in temporaries.items()},
            peak_bytes=_peak(buffers),
            naive_bytes=sum(self.graph[v].type.bytes for v in home)
            + sum(places[i].bytes for ids in temporaries.values() for i in ids),
        )


# --- offsets ---------------------------------------------------------------------------------------------------------------


def pack(buffers: Sequence[_Buffer]) -> tuple[list[int], int]:
    """Offsets of buffers, and the size of the arena.  Best fit, forwards and backwards in time; the smaller arena wins."""
    forwards = _best_fit(buffers)
    final = max((b.end for b in buffers), default=0)
    backwards = _best_fit([_Buffer(b.bytes, final - b.end, final - b.start) for b in buffers])
    return min(forwards, backwards, key=lambda packed: packed[1])


def _best_fit(buffers: Sequence[_Buffer]) -> tuple[list[int], int]:
    """Walk through time; each buffer that begins takes the smallest gap it fits in, the largest buffers first."""
    offsets = [0] * len(buffers)
    free = _FreeList()
    begins: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    for i, buffer in enumerate(buffers):
        if buffer.bytes:
            begins.setdefault(buffer.start, []).append(i)
            ends.setdefault(buffer.end + 1, []).append(i)
    for time in sorted({*begins, *ends}):
        for i in ends.get(time, ()):
            free.give(offsets[i], _aligned(buffers[i].bytes))
        for i in sorted(begins.get(time, ()), key=lambda i: (-buffers[i].bytes, i)):
            offsets[i] = free.take(_aligned(buffers[i].bytes))
    return offsets, free.end


class _FreeList:
    """Gaps of the arena: by offset, to join neighbours, and by size, to find the tightest."""

    def __init__(self) -> None:
        self.end = 0  # the arena so far; beyond it everything is free
        self.starts: list[int] = []
        self.sizes: dict[int, int] = {}
        self.by_size: list[tuple[int, int]] = []

    def take(self, size: int) -> int:
        """The offset of ``size`` bytes: the tightest gap, else the last gap extended, else the end."""
        at = bisect.bisect_left(self.by_size, (size, -1))
        if at < len(self.by_size):
            gap, offset = self.by_size[at]
            self._remove(offset)
            if gap > size:
                self._insert(offset + size, gap - size)
            return offset
        offset = self.end
        if self.starts and self.starts[-1] + self.sizes[self.starts[-1]] == self.end:
            offset = self.starts[-1]
            self._remove(offset)
        self.end = offset + size
        return offset

    def give(self, offset: int, size: int) -> None:
        """Free a range, joined with the gaps around it."""
        at = bisect.bisect_left(self.starts, offset)
        if at < len(self.starts) and self.starts[at] == offset + size:
            follower = self.starts[at]
            size += self.sizes[follower]
            self._remove(follower)
        if at > 0 and self.starts[at - 1] + self.sizes[self.starts[at - 1]] == offset:
            offset = self.starts[at - 1]
            size += self.sizes[offset]
            self._remove(offset)
        self._insert(offset, size)

    def _insert(self, offset: int, size: int) -> None:
        bisect.insort(self.starts, offset)
        self.sizes[offset] = size
        bisect.insort(self.by_size, (size, offset))

    def _remove(self, offset: int) -> None:
        size = self.sizes.pop(offset)
        del self.starts[bisect.bisect_left(self.starts, offset)]
        del self.by_size[bisect.bisect_left(self.by_size, (size, offset))]


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _peak(buffers: Sequence[_Buffer]) -> int:
    """The most bytes in use at one position, each buffer rounded up to whole cache lines."""
    change: dict[int, int] = {}
    for buffer in buffers:
        change[buffer.start] = change.get(buffer.start, 0) + _aligned(buffer.bytes)
        change[buffer.end + 1] = change.get(buffer.end + 1, 0) - _aligned(buffer.bytes)
    live = peak = 0
    for _, difference in sorted(change.items()):
        live += difference
        peak = max(peak, live)
    return peak
