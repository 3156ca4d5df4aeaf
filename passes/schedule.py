"""The order in which kernels run, chosen to keep the peak of live memory low.

Three orders are made and the best kept: program order; "thrifty", which runs a ready kernel ahead of its turn when that
frees at least as much memory as it takes; and "late", the same idea from the end backwards, which puts every kernel off
until something needs it.  Each takes near-linear time, and the result depends on nothing but the graph.

Order also decides what may be written in place: a kernel that makes the new value of a state waits, where it can, for the
readers of the old one, and for the guards.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Protocol

from irconv.errors import GraphError
from irconv.graph import Graph
from irconv.kernel import Kernel, Schedule, view_roots


def schedule(graph: Graph, kernels: Sequence[Kernel], guards: Iterable[int] = ()) -> Schedule:
    """Order the kernels of a partition.  ``guards``: values to be computed before any state is written.

    Raises GraphError when the kernels need each other in a circle or a guard is not computed by any of them.
    """
    problem = _Problem(graph, kernels, tuple(guards))
    orders = [problem.program_order(), problem.thrifty(), problem.late()]
    best = min(orders, key=problem.peak)  # the first of equals
    return Schedule(tuple(kernels[i] for i in best), problem.guards)


class _Problem:
    """Kernels by number, who waits for whom, and what each buffer costs.

    Values are stood for by the root of their views.  Values outside the arena (leaves, outputs) cost nothing.
    """

    def __init__(self, graph: Graph, kernels: Sequence[Kernel], guards: tuple[int, ...]):
        self.graph = graph
        self.kernels = kernels
        self.guards = guards
        self.makers = {value: i for i, kernel in enumerate(kernels) for value in kernel.outputs}
        roots = view_roots(kernels)
        outside = set(graph.outputs.values())
        self.reads = [sorted({roots.get(v, v) for v in kernel.inputs}) for kernel in kernels]
        self.makes = [[] if kernel.is_view else list(kernel.outputs) for kernel in kernels]
        self.bytes = {v: 0 if v in outside else graph[v].type.bytes for made in self.makes for v in made}
        self.readers: dict[int, list[int]] = {}
        for i, read in enumerate(self.reads):
            for value in read:
                self.readers.setdefault(value, []).append(i)
        self.after: list[set[int]] = [set() for _ in kernels]  # kernels that must come later
        for i, kernel in enumerate(kernels):
            for value in kernel.inputs:
                if value in self.makers:
                    self.after[self.makers[value]].add(i)
        self._order_guards()
        self.wishes = self._wishes()

    def _order_guards(self) -> None:
        """Kernels that make new state values come after every guard, unless the guard needs them."""
        makers = []
        for guard in self.guards:
            if guard not in self.makers:
                raise GraphError(f"%{self.graph[guard].name} is no kernel's result, so it cannot be a guard")
            makers.append(self.makers[guard])
        needed = {i for guard in makers for i in self._ancestors(guard)}
        for value in self.graph.updates.values():
            writer = self.makers.get(value)
            if writer is not None and writer not in needed:
                for guard in makers:
                    self.after[guard].add(writer)

    def _ancestors(self, kernel: int) -> set[int]:
        found: set[int] = set()
        stack = [kernel]
        while stack:
            current = stack.pop()
            if current not in found:
                found.add(current)
                stack.extend(self.makers[v] for v in self.kernels[current].inputs if v in self.makers)
        return found

    def _wishes(self) -> list[set[int]]:
        """For each kernel, the later ones that would overwrite a state it reads (not binding: states may be swapped)."""
        wishes: list[set[int]] = [set() for _ in self.kernels]
        for state, value in self.graph.updates.items():
            writer = self.makers.get(value)
            for reader in self.readers.get(state, ()):
                if writer is not None and reader != writer:
                    wishes[reader].add(writer)
        return wishes

    def program_order(self) -> list[int]:
        """Operands first, else as the kernels are numbered."""
        return self._run(_Queue(self.after, self.wishes, _AllTheSame()))

    def thrifty(self) -> list[int]:
        """What does not add memory runs ahead of its turn."""
        return self._run(_Queue(self.after, self.wishes, _Forwards(self)))

    def late(self) -> list[int]:
        """Built from the last kernel to the first: what ends as much memory as it begins is put before its users at once."""
        queue = _Queue(_reversed(self.after), _reversed(self.wishes), _Backwards(self), sign=-1)
        return self._run(queue)[::-1]

    def _run(self, queue: _Queue) -> list[int]:
        order = queue.run()
        if len(order) != len(self.kernels):
            stuck = min(set(range(len(self.kernels))) - set(order))
            raise GraphError(f"kernel @{self.kernels[stuck].name} waits for its own result")
        return order

    def peak(self, order: Sequence[int]) -> int:
        """The most bytes live at once under an order."""
        unread = {value: len(self.readers.get(value, ())) for value in self.bytes}
        live = peak = 0
        for i in order:
            live += sum(self.bytes[v] for v in self.makes[i])
            peak = max(peak, live)
            for value in self.reads[i]:
                if value in unread:
                    unread[value] -= 1
                    if unread[value] == 0:
                        live -= self.bytes[value]
            live -= sum(self.bytes[v] for v in self.makes[i] if unread[v] == 0)
        return peak


def _reversed(edges: Sequence[set[int]]) -> list[set[int]]:
    back: list[set[int]] = [set() for _ in edges]
    for i, ends in enumerate(edges):
        for end in ends:
            back[end].add(i)
    return back


class _Growth(Protocol):
    """Live memory while kernels are put in order one by one."""

    def of(self, kernel: int) -> int:
        """Bytes that putting this kernel next would add."""
        ...

    def put(self, kernel: int) -> list[int]:
        """The kernel is next; returns those whose growth has become less by that."""
        ...


class _AllTheSame:
    """No regard for memory."""

    def of(self, kernel: int) -> int:
        return 0

    def put(self, kernel: int) -> list[int]:
        return []


class _Forwards:
    """In execution order: a kernel adds what it makes, less what it reads for the last time."""

    def __init__(self, problem: _Problem):
        self.problem = problem
        self.unread = {value: set(readers) for value, readers in problem.readers.items() if value in problem.bytes}

    def of(self, kernel: int) -> int:
        problem = self.problem
        freed = sum(problem.bytes[v] for v in problem.reads[kernel] if v in problem.bytes and len(self.unread[v]) == 1)
        return sum(problem.bytes[v] for v in problem.makes[kernel]) - freed

    def put(self, kernel: int) -> list[int]:
        lowered: list[int] = []
        for value in self.problem.reads[kernel]:
            if value in self.unread:
                self.unread[value].discard(kernel)
                if len(self.unread[value]) == 1:
                    lowered += self.unread[value]
        return lowered


class _Backwards:
    """From the last kernel to the first: a kernel adds what it is the last to read, less what it makes."""

    def __init__(self, problem: _Problem):
        self.problem = problem
        self.live: set[int] = set()

    def of(self, kernel: int) -> int:
        problem = self.problem
        begun = sum(problem.bytes[v] for v in problem.reads[kernel] if v in problem.bytes and v not in self.live)
        return begun - sum(problem.bytes[v] for v in problem.makes[kernel])

    def put(self, kernel: int) -> list[int]:
        self.live.difference_update(self.problem.makes[kernel])
        begun = [v for v in self.problem.reads[kernel] if v in self.problem.bytes and v not in self.live]
        self.live.update(begun)
        return [reader for value in begun for reader in self.problem.readers[value]]


class _Queue:
    """List scheduling: kernels that could run, those first that add no memory, then by number.

    after, wishes: kernel -> kernels that have to, or should, come later.  A kernel that is only wished later waits until
    nothing else can run.  sign: -1 to prefer high numbers.
    """

    def __init__(self, after: Sequence[set[int]], wishes: Sequence[set[int]], growth: _Growth, sign: int = 1):
        self.after = after
        self.wishes = wishes
        self.growth = growth
        self.sign = sign
        self.blocked = [0] * len(after)
        self.wished = [0] * len(after)
        for edges, counts in ((after, self.blocked), (wishes, self.wished)):
            for ends in edges:
                for end in ends:
                    counts[end] += 1
        self.done = [False] * len(after)
        self.ready: list[tuple[bool, int]] = []
        self.put_off: list[int] = []

    def run(self) -> list[int]:
        """All kernels that can be ordered, in that order."""
        for kernel in range(len(self.after)):
            self._offer(kernel)
        order = []
        while self.ready or self.put_off:
            kernel = self._next()
            if not self.done[kernel]:
                self.done[kernel] = True
                order.append(kernel)
                self._finish(kernel)
        return order

    def _offer(self, kernel: int) -> None:
        """Enter a kernel that nothing blocks (once more if it has become cheaper; the first entry to come up counts)."""
        if self.blocked[kernel] or self.done[kernel]:
            return
        if self.wished[kernel]:
            heapq.heappush(self.put_off, self.sign * kernel)
        else:
            heapq.heappush(self.ready, (self.growth.of(kernel) > 0, self.sign * kernel))

    def _next(self) -> int:
        if self.ready:
            return self.sign * heapq.heappop(self.ready)[1]
        kernel = self.sign * heapq.heappop(self.put_off)
        self.wished[kernel] = 0
        return kernel

    def _finish(self, kernel: int) -> None:
        cheaper = self.growth.put(kernel)
        for later in self.wishes[kernel]:
            self.wished[later] = max(0, self.wished[later] - 1)
            if self.wished[later] == 0:
                self._offer(later)
        for later in self.after[kernel]:
            self.blocked[later] -= 1
            if self.blocked[later] == 0:
                self._offer(later)
        for other in cheaper:
            self._offer(other)
