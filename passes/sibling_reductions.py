"""Several reductions of one value at once, with the elementwise work around them: a pattern for fusion.

Batch norm's backward needs ``sum(d)`` and ``sum(d * x)`` over batch and image, and the gradient d itself once more for the
gradient of its input, which has to wait for both sums.  With d behind a ReLU this is one pass: read y, d and x, store the
masked d, keep two sums per channel.  Each reduction by itself would read d again, and the mask would be a pass of its own.

A group of kind ``reductions`` holds

- reductions (sum, mean, max, min, prod) of values of one shape over the same axes, none of which needs another's result;
- elementwise ops of that shape that they read, as long as nobody is worse off: the values that others read as well are
  stored on the way, and would have been stored anyway.

No path leaves a group and comes back, so the quotient graph stays without a cycle.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from irconv.graph import Node
from irconv.passes.patterns import REDUCTIONS, REGION_NODES, Group, Search, is_elementwise

MOST_REDUCTIONS = 4
"""Reductions of a group: each keeps accumulators in the first-level cache."""

MOST_STEPS = 4
"""Elementwise ops between what a group reads and another reduction that it looks for."""


def reductions(uses: Search) -> Iterator[Group]:
    """Reductions of the same values over the same axes, or one of them with values that are stored on the way."""
    used: set[int] = set()
    for node_id in uses.order:
        node = uses.graph[node_id]
        if node.op.name in REDUCTIONS and node_id not in used and _is_free(uses, node):
            members = _grown(uses, node, used)
            count = sum(uses.graph[i].op.name in REDUCTIONS for i in members)
            if count > 1 or _stored(uses, members):
                used |= members
                yield Group("reductions", tuple(sorted(members, key=uses.position.__getitem__)))


def _place(uses: Search, node: Node) -> tuple[object, ...]:
    """What the reductions of a group have in common."""
    source = uses.graph[node.operands[0]].type
    return source.shape, node.attributes.axes, source.dtype.is_float, node.provenance.origin is None


def _is_free(uses: Search, node: Node) -> bool:
    return node.id not in uses.taken and node.id not in uses.new_states


def _grown(uses: Search, first: Node, used: set[int]) -> set[int]:
    """The group around a reduction: the work that it reads, and the reductions that read the same."""
    members = _with_work(uses, {first.id}, first, used)
    refused: set[int] = set()
    while sum(uses.graph[i].op.name in REDUCTIONS for i in members) < MOST_REDUCTIONS:
        near = _near(uses, _full_values(uses, members), _place(uses, first))
        found = next((i for i in near if i not in members and i not in used and i not in refused), None)
        if found is None:
            break
        together = _with_work(uses, members | {found}, uses.graph[found], used)
        shares = _full_values(uses, members) & _full_values(uses, together - members)
        if shares and _is_whole(uses, together):
            members = together
        else:
            refused.add(found)
    return members


def _near(uses: Search, values: Iterable[int], place: tuple[object, ...]) -> list[int]:
    """The free reductions of this kind that read one of the values, at once or after a few elementwise ops."""
    found: dict[int, None] = {}
    graph = uses.graph
    for value in sorted(values):
        for reader in uses.readers[value]:
            node: Node | None = graph[reader]
            for _ in range(MOST_STEPS):
                if node is None or node.id in uses.taken or not is_elementwise(node):
                    break
                node = uses.only_reader(node.id)
            if node is not None and node.op.name in REDUCTIONS and _is_free(uses, node) and _place(uses, node) == place:
                found[node.id] = None
    return sorted(found, key=uses.position.__getitem__)


def _full_values(uses: Search, members: Iterable[int]) -> set[int]:
    """The values that reductions and elementwise members read or compute, of the shape that is reduced."""
    graph = uses.graph
    chosen = [graph[i] for i in members]
    shapes = {graph[node.operands[0]].type.shape for node in chosen if node.op.name in REDUCTIONS}
    values = {i for node in chosen for i in (node.id, *node.operands)}
    return {i for i in values if graph[i].type.shape in shapes}


def _with_work(uses: Search, members: set[int], reduction: Node, used: set[int]) -> set[int]:
    """The members and the elementwise work that the reduction reads, as long as the group stays whole."""
    graph = uses.graph
    shape = graph[reduction.operands[0]].type.shape
    members = set(members)
    waiting = [-uses.position[i] for i in reduction.operands]
    heapq.heapify(waiting)
    while waiting and len(members) < REGION_NODES:
        node = graph[uses.order[-heapq.heappop(waiting)]]  # the last in program order: its readers have been decided on
        if node.id in members or node.id in used or not _is_free(uses, node):
            continue
        if not is_elementwise(node) or node.type.shape != shape:
            continue
        if (node.provenance.origin is None) != (reduction.provenance.origin is None) or node.id in uses.kept:
            continue
        if _stays_stored(uses, node, members) and _is_whole(uses, members | {node.id}):
            members.add(node.id)
            for operand in node.operands:
                heapq.heappush(waiting, -uses.position[operand])
    return members


def _stays_stored(uses: Search, node: Node, members: set[int]) -> bool:
    """Whether a value is read by members alone, or stored whoever computes it.

    A reader of the same shape could be merged with it instead, unless what it computes has to wait for the group.
    """
    folded = {i for i in members if uses.graph[i].op.name in REDUCTIONS}
    outside = (uses.graph[i] for i in uses.readers[node.id] if i not in members)
    return all(not _may_merge(uses, node, reader) or _waits(uses, reader, folded) for reader in outside)


def _may_merge(uses: Search, node: Node, reader: Node) -> bool:
    """Whether fusion would merge a value with its elementwise reader."""
    apart = (reader.provenance.origin is None) != (node.provenance.origin is None)
    return is_elementwise(reader) and reader.type.shape == node.type.shape and reader.id not in uses.taken and not apart


def _waits(uses: Search, node: Node, folded: set[int], steps: int = MOST_STEPS) -> bool:
    """Whether a node needs one of the reductions, or is read only by elementwise work that does."""
    if reaches_back(uses, [node.id], folded):
        return True
    readers = [uses.graph[i] for i in uses.readers[node.id]]
    if steps == 0 or not readers or node.id in uses.kept or len(readers) > MOST_STEPS:
        return False
    return all(is_elementwise(r) and _waits(uses, r, folded, steps - 1) for r in readers)


def _stored(uses: Search, members: set[int]) -> bool:
    """Whether others read an elementwise member."""
    return any(is_elementwise(uses.graph[i]) and not members.issuperset(uses.readers[i]) for i in members)


def _is_whole(uses: Search, members: set[int]) -> bool:
    """Whether no path leaves the members and comes back, and none of them needs a reduction among them."""
    graph = uses.graph
    operands = {operand for i in members for operand in graph[i].operands}
    if any(i in members and graph[i].op.name in REDUCTIONS for i in operands):
        return False
    return not reaches_back(uses, operands - members, members)


def reaches_back(uses: Search, starts: Iterable[int], targets: set[int]) -> bool:
    """Whether any of ``starts`` is computed from one of ``targets``."""
    earliest = min(uses.position[i] for i in targets)
    seen: set[int] = set()
    stack = list(starts)
    while stack:
        current = stack.pop()
        if current in targets:
            return True
        if current not in seen and uses.position[current] > earliest:
            seen.add(current)
            stack.extend(uses.graph[current].operands)
    return False
