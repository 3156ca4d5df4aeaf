"""Fusion: a partition of the graph into kernels.

Legality first: merging two groups must leave the quotient graph without a cycle.  Then gain: the bytes that no longer cross
between kernels.  Groups are found by pattern (see :mod:`irconv.passes.patterns`), then elementwise neighbours with the same
result shape are merged along their edges, the most bytes first:

- ``elementwise``: ops with one result shape; operands may broadcast; any number of results.
- ``conv_epilogue``, ``conv_transpose_epilogue``, ``matmul_epilogue``: a contraction and the elementwise work on its result.
- ``conv_prologue``, ``conv_transpose_prologue``, ``matmul_prologue``: the same with the elementwise work ahead of it.
- ``pool_prologue``: a pool, alone or with its indices, and the elementwise work that only it reads.
- ``elementwise_reduce``: a reduction and the elementwise work that only it reads.
- ``conv_pool``: a convolution, the elementwise work on its result and the pool that reads it, of windows side by side.
- ``pool_indices``: max_pool with its argmax_pool;  ``mean_variance``: both moments of one value over the same axes.
- ``reductions``: several reductions of the same values over the same axes, and elementwise values stored on the way.
- ``conv_statistics``: a convolution, light work ahead of it, elementwise work on its result, and both moments of its channels.
- ``fused_layers``: a depthwise convolution with the pointwise ones before and behind it, a band of rows at a time.
- ``conv_transpose_sums``: an input gradient, the elementwise work on it, and sums of that over all but the channels.
- ``depthwise_backward``: both gradients of a depthwise convolution, light work that makes what they read, and such sums.
- ``row_softmax``: softmax and its kin, row by row.
- ``pointwise_gradients``: both gradients of a convolution of single pixels, the light work ahead of them and the sums behind.
- ``conv_weight_gradient``: im2col and the product that reads it, so that the columns are never stored whole.
- ``state_updates``: the small updates of a training step; no edge joins them, but nobody reads what they make.

Only kinds that the target names are formed.  For every edge that still crosses kernels the reason is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from irconv.graph import Graph, Node
from irconv.kernel import Kernel, make_kernel
from irconv.passes.conv_pools import conv_pools
from irconv.passes.depthwise_backward import depthwise_backward, why_outside
from irconv.passes.fused_layers import fused_layers, why_stored
from irconv.passes.gradient_sums import conv_transpose_sums
from irconv.passes.patterns import (
    Group,
    Search,
    conv_weight_gradients,
    epilogues,
    is_elementwise,
    leaves_forward,
    mean_variance,
    pool_indices,
    reduced_elementwise,
)
from irconv.passes.pointwise_gradients import pointwise_gradients
from irconv.passes.prologues import pool_prologues, prologues, why_apart
from irconv.passes.quotient import Quotient
from irconv.passes.row_reductions import row_reductions
from irconv.passes.sibling_reductions import reductions
from irconv.passes.state_updates import state_updates
from irconv.passes.statistics import conv_statistics
from irconv.strides import value_strides
from irconv.target import Target

CONVOLUTIONS = ("conv", "conv_epilogue")
"""Kernels that begin with a convolution and store nothing but what comes of it."""

PATTERNS: tuple[Callable[[Search], Iterator[Group]], ...] = (
    row_reductions,
    conv_pools,
    pool_prologues,
    pool_indices,
    conv_statistics,
    mean_variance,
    depthwise_backward,
    pointwise_gradients,
    conv_weight_gradients,
    fused_layers,
    prologues,
    conv_transpose_sums,
    epilogues,
    reductions,
    reduced_elementwise,
)
"""In order of precedence: a node belongs to the first group that takes it."""


@dataclass(frozen=True, slots=True)
class Partition:
    """Kernels in a topological order, and why the edges between them were not fused.

    reasons: (producer id, user id) -> words, for edges between computed values.
    """

    kernels: tuple[Kernel, ...]
    reasons: dict[tuple[int, int], str]


def fuse(graph: Graph, target: Target) -> Partition:
    """Partition the nodes of a graph (leaves excepted) into kernels for ``target``.  The graph is not changed."""
    return _Fuser(graph, target).run()


def single_nodes(graph: Graph) -> Partition:
    """The partition in which every node is a kernel of its own."""
    return fuse(graph, Target("none"))


class _Fuser:
    """One run of fusion."""

    def __init__(self, graph: Graph, target: Target):
        self.graph = graph
        self.target = target
        self.uses = Search(graph)
        computed = [i for i in self.uses.order if not graph[i].is_leaf]
        self.quotient = Quotient(computed, {i: graph[i].operands for i in computed})
        self.groups: dict[int, Group | None] = {}  # node -> the group that took it; None if that fell apart
        self.reasons: dict[tuple[int, int], str] = {}

    def run(self) -> Partition:
        for pattern in PATTERNS:
            for group in pattern(self.uses):
                if group.kind in self.target.kinds and self.uses.taken.isdisjoint(group.nodes):
                    self._take(group)
        if "elementwise" in self.target.kinds:
            self._merge_elementwise()
        if "state_updates" in self.target.kinds:
            self._merge_updates()
        kernels = self._kernels()
        return Partition(kernels, self._explain(kernels))

    def _take(self, group: Group) -> None:
        nodes = group.nodes
        if len(nodes) > self.target.max_nodes:
            return
        refusals = (self.quotient.merge(nodes[0], other) for other in nodes[1:])
        refused = next((reason for reason in refusals if reason), None)
        if refused:
            # what was merged so far falls apart again into single nodes: any part of an acyclic whole may
            self.reasons |= {(operand, i): refused for i in nodes for operand in self.graph[i].operands if operand in nodes}
        self.groups.update(dict.fromkeys(nodes, None if refused else group))
        self.uses.taken.update(nodes)

    def _merge_elementwise(self) -> None:
        """Merge along edges between elementwise ops of the same shape, the most bytes first."""
        graph, uses = self.graph, self.uses
        edges = []
        for user_id in uses.order:
            user = graph[user_id]
            if not is_elementwise(user) or user_id in self.groups:
                continue
            for operand_id in dict.fromkeys(user.operands):
                operand = graph[operand_id]
                if is_elementwise(operand) and operand_id not in self.groups and _alike(operand, user):
                    alone = uses.only_reader(operand_id) is not None
                    edges.append((-operand.type.bytes * (2 if alone else 1), uses.position[user_id], operand_id, user_id))
        for _, _, operand_id, user_id in sorted(edges):
            refused = self._try_elementwise(operand_id, user_id)
            if refused:
                self.reasons[operand_id, user_id] = refused

    def _try_elementwise(self, operand_id: int, user_id: int) -> str | None:
        first, second = self.quotient.find(operand_id), self.quotient.find(user_id)
        if first == second:
            return None
        if leaves_forward(self.graph[operand_id], self.graph[user_id]):
            return "it leads from the forward into the backward pass: merged, backward values would be kept for long"
        count = len(self.quotient.members[first]) + len(self.quotient.members[second])
        if count > self.target.max_nodes:
            return f"together they hold {count} ops; {self.target.name} takes at most {self.target.max_nodes} in a kernel"
        return self.quotient.merge(first, second)

    def _merge_updates(self) -> None:
        """Merge what is left of small updates, however many ops that makes: nothing comes after them, so no merge is refused."""
        updates = state_updates(self.uses, (group for group in self.quotient.groups() if group[0] not in self.groups))
        if updates is not None:
            for node in updates.nodes[1:]:
                self.quotient.merge(updates.nodes[0], node)
            self.groups.update(dict.fromkeys(updates.nodes, updates))

    def _kernels(self) -> tuple[Kernel, ...]:
        views = {i for i, (_, is_view) in value_strides(self.graph).items() if is_view}
        kernels = []
        for members in self.quotient.groups():
            nodes = sorted(members, key=self.uses.position.__getitem__)
            group = self.groups.get(nodes[0])
            if group is not None:
                kernels.append(make_kernel(self.uses, group.nodes, group.kind))
            elif len(nodes) > 1 and nodes[0] not in self.groups:
                kernels.append(make_kernel(self.uses, nodes, "elementwise"))
            else:
                kernels += [make_kernel(self.uses, [i], is_view=i in views) for i in nodes]
        return tuple(kernels)

    def _explain(self, kernels: tuple[Kernel, ...]) -> dict[tuple[int, int], str]:
        home = {i: kernel for kernel in kernels for i in kernel.nodes}
        reasons = {}
        for user in (i for kernel in kernels for i in kernel.nodes):
            for operand in dict.fromkeys(self.graph[user].operands):
                if operand in home and home[operand] is not home[user]:
                    known = self.reasons.get((operand, user))
                    reasons[operand, user] = known or self._why(operand, user, home[operand], home[user])
        return reasons

    def _why(self, operand_id: int, user_id: int, before: Kernel, after: Kernel) -> str:
        """Why an edge that no rule tried to merge was left."""
        operand, user = self.graph[operand_id], self.graph[user_id]
        if before.is_view or after.is_view:
            return "a view has no code of its own: the buffer is shared, nothing is written"
        reason = self._why_layers_apart(operand, user, before, after)
        if reason is not None:
            return reason
        if not is_elementwise(user):
            if len(after.nodes) > 1:
                return f"kernels of kind {after.kind} read their input from memory"
            return f"no rule takes what {user.op.name} ({user.op.fusion.value}) reads into its kernel"
        if operand.type.layout != user.type.layout:
            return f"they are stored differently: {operand.type} and {user.type}"
        if operand.type.shape != user.type.shape:
            return f"their shapes differ: {list(operand.type.shape)} and {list(user.type.shape)}"
        if operand_id in self.uses.kept or len(self.uses.readers[operand_id]) > 1:
            return f"%{operand.name} is also read elsewhere, so it has to be stored"
        if f"{operand.op.name}_epilogue" in self.target.kinds:
            return self._why_no_epilogue(operand, user, after)
        if not is_elementwise(operand):
            return f"{self.target.name} has no kernel that goes on after {operand.op.name}"
        return f"they already belong to different kernels, of kinds {before.kind} and {after.kind}"

    def _why_layers_apart(self, operand: Node, user: Node, before: Kernel, after: Kernel) -> str | None:
        """What the rules for work ahead of a contraction, and for several layers, have to say; None if that is nothing."""
        kinds = self.target.kinds
        reason = why_outside(self.uses, operand, user, after)
        if reason is not None:
            return reason
        if f"{user.op.name}_prologue" in kinds and before.kind in ("elementwise", operand.op.name):
            reason = why_apart(self.uses, operand, user, after)
            if reason is not None:
                return reason
        if before.kind in CONVOLUTIONS and user.op.name == "conv" and "fused_layers" in kinds:
            return why_stored(self.graph, self.graph[before.nodes[0]], operand, user)
        return None

    def _why_no_epilogue(self, operand: Node, user: Node, after: Kernel) -> str:
        """Why the kernel of a contraction ends before an elementwise op that alone reads its result."""
        if leaves_forward(operand, user):
            return "it leads from the forward into the backward pass: its operands would be kept for long"
        if user.id in self.uses.new_states:
            return f"%{user.name} is a new state, which is written over the old one: the kernel of a {operand.op.name} cannot"
        if len(after.nodes) > 1 and after.kind != "elementwise":
            return f"kernels of kind {after.kind} read their input from memory"
        return f"what follows {operand.op.name} in its kernel has to leave it as a single value"


def _alike(operand: Node, user: Node) -> bool:
    """Whether one loop nest goes over both: the same shape, stored in the same order."""
    return operand.type.shape == user.type.shape and operand.type.layout == user.type.layout
