"""Softmax and its kin: a pattern for fusion of what is done row by row.

``softmax(x) = e / sum(e)`` with ``e = exp(x - max(x))`` needs two reductions, one after the other, and elementwise work between
and behind them.  Kernel by kernel the rows go to memory and back four times; a row (the logits of one image, or of one pixel)
fits the cache, so that one kernel can do all of it on a row before it looks at the next.

A group of kind ``row_softmax`` holds, around reductions over one axis, the last one or the channels,

- reductions over this axis of values of one shape [.., L];
- elementwise ops of that shape, those of row values ([.., 1] or [..]), and reshapes between the two forms of row values.

It has to gain something: an op of the full shape has to read what a reduction of the group gives.  No path leaves a group and
comes back, so the quotient graph stays without a cycle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from irconv.graph import Node
from irconv.passes.patterns import REDUCTIONS, REGION_NODES, Group, Search, is_elementwise
from irconv.passes.sibling_reductions import reaches_back

LONGEST_ROW = 16384
"""Elements of a row, at most: several values of it have to fit a core's caches."""


@dataclass(frozen=True)
class _Form:
    """What rows look like: the full shape, the folded axis, and on which side of the backward pass they are."""

    shape: tuple[int, ...]
    axis: int
    forward: bool

    @property
    def kept(self) -> tuple[int, ...]:
        return (*self.shape[: self.axis], 1, *self.shape[self.axis + 1 :])

    @property
    def dropped(self) -> tuple[int, ...]:
        return (*self.shape[: self.axis], *self.shape[self.axis + 1 :])


def row_reductions(uses: Search) -> Iterator[Group]:
    """Groups that read each row once for all that is done with it."""
    used: set[int] = set()
    for node_id in uses.order:
        node = uses.graph[node_id]
        form = _form_of(uses, node) if node.op.name in REDUCTIONS else None
        if form is None or node_id in used or not _is_free(uses, node):
            continue
        members = _grown(uses, node_id, form, used)
        if _gains(uses, members, form):
            used |= members
            yield Group("row_softmax", tuple(sorted(members, key=uses.position.__getitem__)))


def _form_of(uses: Search, node: Node) -> _Form | None:
    """The rows of a reduction, if they can be worked on one after the other."""
    shape, axes = uses.graph[node.operands[0]].type.shape, node.attributes.axes
    if len(axes) != 1 or not 1 < shape[axes[0]] <= LONGEST_ROW:
        return None
    last = axes[0] == len(shape) - 1
    channels = axes[0] == 1 and len(shape) > 2
    return _Form(shape, axes[0], node.provenance.origin is None) if last or channels else None


def _is_free(uses: Search, node: Node) -> bool:
    return node.id not in uses.taken and node.id not in uses.new_states


def _fits(uses: Search, node: Node, form: _Form) -> bool:
    """Whether a kernel over these rows could compute a node."""
    graph = uses.graph
    if node.is_leaf or not _is_free(uses, node) or (node.provenance.origin is None) != form.forward:
        return False
    operands = [graph[i].type.shape for i in node.operands]
    if node.op.name in REDUCTIONS:
        return node.attributes.axes == (form.axis,) and operands[0] == form.shape
    if node.op.name == "reshape":
        return {node.type.shape, operands[0]} == {form.kept, form.dropped} or (
            node.type.shape == operands[0] and operands[0] in (form.kept, form.dropped)
        )
    return is_elementwise(node) and node.type.shape in (form.shape, form.kept, form.dropped)


def _grown(uses: Search, first: int, form: _Form, used: set[int]) -> set[int]:
    """All that can be computed with a reduction, as long as no path leaves the group and comes back."""
    members = {first}
    grew = True
    while grew and len(members) < REGION_NODES:
        grew = False
        for candidate in _neighbours(uses, members):
            node = uses.graph[candidate]
            if candidate in used or len(members) >= REGION_NODES or not _fits(uses, node, form):
                continue
            if not _belongs(uses, node, members, form):
                continue
            together = members | {candidate}
            outside = {i for member in together for i in uses.graph[member].operands} - together
            if not reaches_back(uses, outside, together):
                members, grew = together, True
    return members


def _neighbours(uses: Search, members: set[int]) -> list[int]:
    """Readers in order, then what is read, the last first."""
    order = uses.position.__getitem__
    readers = {i for member in members for i in uses.readers[member]} - members
    operands = {i for member in members for i in uses.graph[member].operands} - members
    return [*sorted(readers, key=order), *sorted(operands - readers, key=order, reverse=True)]


def _belongs(uses: Search, node: Node, members: set[int], form: _Form) -> bool:
    """Whether the group gains by a node that it could compute."""
    graph = uses.graph
    if not any(i in members for i in node.operands):
        # work ahead: only what nobody else reads, and in the form that broadcasts along the row
        readers = uses.readers[node.id]
        broadcasts = node.type.shape in (form.shape, form.kept) or all(graph[i].type.shape != form.shape for i in readers)
        return members.issuperset(readers) and node.id not in uses.kept and broadcasts
    if node.type.shape != form.shape or node.op.name in REDUCTIONS:
        return True
    return all(i not in members or graph[i].type.shape in (form.shape, form.kept) for i in node.operands)


def _gains(uses: Search, members: set[int], form: _Form) -> bool:
    """Whether an op of the full shape reads what follows from a reduction of the group."""
    graph = uses.graph
    folded = {i for i in members if graph[i].op.name in REDUCTIONS}
    full = (i for i in members if graph[i].type.shape == form.shape or i in folded)
    return any(
        operand in members and graph[operand].type.shape == form.kept and form.kept != form.shape
        for i in full
        for operand in graph[i].operands
    )
