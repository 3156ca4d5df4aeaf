"""Many updates of states as one kernel: the loops of each program once, and a table of the arrays that they go over.

The updates are elementwise kernels that share nothing but numbers.  Extents come at run time, so parameters of all shapes that
are updated in the same way have the same source; a few programs serve all parameters of a network, and the table is data::

    sizes:   where the runs of each task begin, and where those of the last one end;
    a run:   where its update is described, first and last of that update's own tasks;
    update:  number of its program, where its sizes are, how many buffers it has, and their numbers among the kernel's.

A task of this kernel is as much as one of a large update, or several small updates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from irconv.backends.arrays.lower import operand_ids
from irconv.backends.codegen.c import PARAMETERS
from irconv.backends.native.base import EXPORT, NATIVE, NativeKernel, NativeRequest, Phase, native, native_kernel
from irconv.backends.native.composition import named_apart
from irconv.backends.native.kernels.element_space import TASK_BYTES
from irconv.kernel import Kernel, separate_parts

FUNCTION = "state_updates"
RUN_NUMBERS = 3
"""What describes a run."""


@dataclass(frozen=True)
class Update:
    """One of the updates.

    kernel:          its loops, in a single phase.
    results, inputs: which of the kernel's buffers it writes and reads.
    bytes:           of its results.
    """

    kernel: NativeKernel
    results: tuple[int, ...]
    inputs: tuple[int, ...]
    bytes: int

    @property
    def tasks(self) -> int:
        return self.kernel.phases[0].tasks


Run = tuple[int, int, int]
"""Number of an update, first and last of its tasks."""


@native("state_updates")
def _state_updates(request: NativeRequest) -> NativeKernel | None:
    """None (op by op) where there is no code for one of the updates."""
    updates = _updates(request)
    if updates is None:
        return None
    programs = list(dict.fromkeys((update.kernel.source, update.kernel.phases[0].function) for update in updates))
    numbers = {source: number for number, (source, _) in enumerate(programs)}
    texts = [named_apart(source, number) for number, (source, _) in enumerate(programs)]
    widest = max(len(update.results) + len(update.inputs) for update in updates)
    texts.append(_driver([function for _, function in programs], widest))
    tasks = _tasks(updates)
    sizes = _table(tasks, updates, [numbers[update.kernel.source] for update in updates])
    return native_kernel("\n".join(texts), (Phase(FUNCTION, len(tasks)),), sizes, in_place=_in_place(request, updates))


def _updates(request: NativeRequest) -> list[Update] | None:
    graph, kernel = request.graph, request.kernel
    places = {i: at for at, i in enumerate((*kernel.outputs, *kernel.inputs))}
    updates: list[Update] = []
    known: dict[object, NativeKernel | None] = {}
    for nodes in separate_parts(graph, kernel.nodes):
        inputs = tuple(i for i in dict.fromkeys(o for node in nodes for o in graph[node].operands) if i not in nodes)
        outputs = tuple(i for i in nodes if i in places)
        kind = "elementwise" if len(nodes) > 1 else graph[nodes[0]].op.name
        alone = Kernel(graph[nodes[-1]].name, kind, nodes, inputs, outputs)
        form = _form(request, alone)
        if form not in known:
            known[form] = NATIVE[kind](replace(request, kernel=alone)) if kind in NATIVE else None
        made = known[form]
        if made is None or len(made.phases) != 1 or made.scratch:
            return None
        read = tuple(places[i] for i in operand_ids(graph, alone))
        updates.append(Update(made, tuple(places[i] for i in outputs), read, sum(graph[i].type.bytes for i in outputs)))
    return updates


def _form(request: NativeRequest, kernel: Kernel) -> object:
    """What the code of an update follows from: its ops, and the arrays and constants that it reads."""
    graph = request.graph
    places = {i: at for at, i in enumerate((*kernel.inputs, *kernel.nodes))}
    nodes = (graph[i] for i in kernel.nodes)
    ops = tuple((n.op.name, n.attributes, tuple(places[o] for o in n.operands), n.type, request.strides[n.id]) for n in nodes)
    read = (graph[i] for i in kernel.inputs)
    inputs = tuple((n.type, request.strides[n.id], n.id if n.op.name == "constant" else None) for n in read)
    return ops, inputs, tuple(places[i] for i in kernel.outputs)


def _in_place(request: NativeRequest, updates: Sequence[Update]) -> tuple[tuple[int, int], ...]:
    """The pairs of each update; what another one reads as well stays."""
    readers = Counter(place for update in updates for place in set(update.inputs))
    pairs = ((update.results[to], update.inputs[by]) for update in updates for to, by in update.kernel.in_place)
    return tuple((result, place - len(request.kernel.outputs)) for result, place in pairs if readers[place] == 1)


def _tasks(updates: Sequence[Update]) -> list[list[Run]]:
    """What each task runs."""
    tasks: list[list[Run]] = [[]]
    filled = 0
    for number, update in enumerate(updates):
        for task in range(update.tasks):
            if filled >= TASK_BYTES:
                tasks.append([])
                filled = 0
            tasks[-1].append((number, task, task + 1))
            filled += update.bytes // update.tasks
    return tasks


def _table(tasks: Sequence[Sequence[Run]], updates: Sequence[Update], programs: Sequence[int]) -> tuple[int, ...]:
    """Runs by task, descriptions and sizes of the updates, as numbers."""
    runs = [run for task in tasks for run in task]
    begins = [len(tasks) + 1 + RUN_NUMBERS * n for n in accumulate((len(task) for task in tasks), initial=0)]
    described: list[int] = []
    places = []
    start = begins[-1]
    for update, program in zip(updates, programs, strict=True):
        places.append(start + len(described))
        buffers = (*update.results, *update.inputs)
        own_sizes = places[-1] + 3 + len(buffers)
        described += (program, own_sizes, len(buffers), *buffers, *update.kernel.sizes)
    return (*begins, *(n for number, first, last in runs for n in (places[number], first, last)), *described)


def _driver(functions: Sequence[str], widest: int) -> str:
    """The phase: each run of its tasks, on the buffers of its update."""
    programs = ", ".join(f"{function}_of_{number}" for number, function in enumerate(functions))
    return f"""static void (*const programs[])({PARAMETERS}) = {{{programs}}};

{EXPORT} void {FUNCTION}({PARAMETERS}) {{
  for (int64_t task = first; task < last; task++)
    for (const int64_t *run = sizes + sizes[task]; run < sizes + sizes[task + 1]; run += {RUN_NUMBERS}) {{
      const int64_t *update = sizes + run[0];
      void *own[{widest}];
      for (int64_t i = 0; i < update[2]; i++) own[i] = buffers[update[3 + i]];
      programs[update[0]](own, sizes + update[1], run[1], run[2], worker);
    }}
}}
"""
