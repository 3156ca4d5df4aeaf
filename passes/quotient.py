"""A graph whose nodes are merged step by step into groups and that stays free of cycles.

Groups are kept in a topological order that each merge repairs locally (after Pearce and Kelly, "A dynamic topological
sort algorithm for directed acyclic graphs", 2006).  A search looks only at groups between the two in that order, and gives
up after ``limit`` of them, so that a sequence of merges takes near-linear time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


class Quotient:
    """Groups of nodes under merging; a group is named by one of its members.

    order:    node ids in topological order.
    operands: node id -> ids it reads; ids that are not in ``order`` are ignored.
    limit:    the most groups that one search visits.
    """

    def __init__(self, order: Sequence[int], operands: Mapping[int, Iterable[int]], limit: int = 256):
        self.limit = limit
        self.position = {node: i for i, node in enumerate(order)}
        self.members: dict[int, list[int]] = {node: [node] for node in order}
        self.successors: dict[int, set[int]] = {node: set() for node in order}
        self.predecessors: dict[int, set[int]] = {node: set() for node in order}
        self._parent: dict[int, int] = {}
        for node in order:
            for operand in operands[node]:
                if operand in self.position:
                    self.successors[operand].add(node)
                    self.predecessors[node].add(operand)

    def find(self, node: int) -> int:
        """The group a node is in."""
        root = node
        while root in self._parent:
            root = self._parent[root]
        while node != root:
            self._parent[node], node = root, self._parent[node]
        return root

    def groups(self) -> list[list[int]]:
        """The members of every group, groups in topological order."""
        return [self.members[group] for group in sorted(self.members, key=self.position.__getitem__)]

    def merge(self, first: int, second: int) -> str | None:
        """Merge the groups of two nodes, or say why not: another path joins them, or it is too far to look."""
        a, b = self.find(first), self.find(second)
        if a == b:
            return None
        if self.position[a] > self.position[b]:
            a, b = b, a
        between = self._between(a, b)
        if isinstance(between, str):
            return between
        self._reorder(a, b, *between)
        self._join(a, b)
        return None

    def _between(self, a: int, b: int) -> tuple[list[int] | None, list[int] | None] | str:
        """Groups between a and b in the order that lead to b, and those that follow from a; or why a and b must not merge.

        Where one side is empty the other need not move: it is given as None.
        """
        low, high = self.position[a], self.position[b]
        before = self._reached(b, self.predecessors, low, high)
        if before is not None and not before:
            return [], None
        after = self._reached(a, self.successors, low, high)
        if after is not None and not after:
            return None, []
        if before is None or after is None:
            return f"more than {self.limit} kernels lie between the two"
        if not set(before).isdisjoint(after):
            return "a kernel that needs the first and feeds the second has to run in between"
        return before, after

    def _reached(self, start: int, edges: dict[int, set[int]], low: int, high: int) -> list[int] | None:
        """Groups strictly between two places that can be reached from ``start``; None: too many."""
        found: set[int] = set()
        stack = [start]
        while stack:
            for group in edges[stack.pop()]:
                if group not in found and low < self.position[group] < high:
                    found.add(group)
                    stack.append(group)
            if len(found) > self.limit:
                return None
        return list(found)

    def _reorder(self, a: int, b: int, before: list[int] | None, after: list[int] | None) -> None:
        """What leads to b, then a and b, then what follows from a, in the places they held together."""
        position = self.position
        if before is None or after is None:
            position[a] = position[b] = position[b if before is None else a]
            return
        key = position.__getitem__
        places = sorted(position[group] for group in (a, b, *before, *after))
        for group, place in zip([*sorted(before, key=key), a, b, *sorted(after, key=key)], places, strict=True):
            position[group] = place

    def _join(self, a: int, b: int) -> None:
        """The smaller group's members and edges go to the larger one."""
        if len(self.members[a]) + len(self.successors[a]) < len(self.members[b]) + len(self.successors[b]):
            a, b = b, a
        for edges, back in ((self.successors, self.predecessors), (self.predecessors, self.successors)):
            for group in edges.pop(b):
                back[group].discard(b)
                if group != a:
                    back[group].add(a)
                    edges[a].add(group)
            edges[a].discard(a)
        self.members[a] += self.members.pop(b)
        self._parent[b] = a
