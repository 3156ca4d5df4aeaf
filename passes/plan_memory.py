"""Where every value lives: one arena, buffers shared over time, results in place, new states in the states' own arrays.

A *buffer* is one place for values that follow each other in place; views belong to the buffer of the value they show.  Each
buffer lives from the kernel that writes it first to the last that reads it; :mod:`irconv.passes.packing` finds its offset.

A state is written in place only if every reader of its old value (through views too) runs before, or is the writing kernel
itself where the target allows it, and all guards have run.  Otherwise the new value is computed elsewhere and copied when all
kernels have run.  Kernels read states but commits read only computed values, so the order of the commits does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from irconv.errors import GraphError
from irconv.graph import Graph
from irconv.kernel import Allocation, MemoryPlan, Schedule, view_roots
from irconv.passes.packing import Buffer, pack, peak
from irconv.strides import covers, value_strides
from irconv.target import Target


def plan_memory(graph: Graph, schedule: Schedule, target: Target) -> MemoryPlan:
    """Plan the memory of a scheduled graph.

    Raises GraphError for outputs and updates that no kernel computes (run ``materialise`` first) and for two updates of one
    state array.
    """
    return _Planner(graph, schedule, target).plan()


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
        self._reads: dict[int, dict[int, list[int]]] = {}  # of kernels that have been asked about, by position
        self._pairs: dict[int, dict[int, list[int]]] = {}
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

    def _read(self, position: int) -> dict[int, list[int]]:
        """Root -> the inputs of a kernel that show it."""
        if position not in self._reads:
            self._reads[position] = {}
            for value in self.kernels[position].inputs:
                self._reads[position].setdefault(self.root(value), []).append(value)
        return self._reads[position]

    def _in_place(self, position: int) -> dict[int, list[int]]:
        """Output -> the inputs that a kernel may write it over."""
        if position not in self._pairs:
            self._pairs[position] = {}
            for output, value in self.target.writes_in_place(self.graph, self.kernels[position]):
                self._pairs[position].setdefault(output, []).append(value)
        return self._pairs[position]

    def _overwrites(self, position: int, output: int, root: int) -> bool:
        """Whether a kernel may write ``output`` over the buffer of ``root``, which it reads for the last time."""
        readers = self._read(position).get(root, [])
        if len(readers) != 1 or readers[0] not in self._in_place(position).get(output, ()):
            return False
        node = self.graph[readers[0]]
        made = self.graph[output].type
        return node.type.logical == made.logical and covers(made, self.strides[node.id][0], self.graph[root].type)

    def _buffers(self, stored: Mapping[int, int]) -> tuple[dict[int, int], list[Buffer]]:
        """Arena values to numbers of buffers.  ``stored``: values written straight into states."""
        home: dict[int, int] = {}
        buffers: list[Buffer] = []
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
                    buffers.append(Buffer(self.graph[value].type.bytes, position, end))
                else:
                    taken.add(root)
                    home[value] = home[root]
                    buffers[home[root]].end = end
        return home, buffers

    def _dying_input(
        self, position: int, output: int, home: Mapping[int, int], buffers: Sequence[Buffer], taken: set[int]
    ) -> int | None:
        """An arena value whose buffer the kernel may give to ``output`` (``taken``: those it has given away already)."""
        for value in self._in_place(position).get(output, ()):
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
                buffers += [Buffer(size, position, position) for size in sizes]
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
            peak_bytes=peak(buffers),
            naive_bytes=sum(self.graph[v].type.bytes for v in home)
            + sum(places[i].bytes for ids in temporaries.values() for i in ids),
        )
