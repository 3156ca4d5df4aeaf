"""The small updates of a training step as one kernel: a pattern for fusion.

The new values of parameters, of an optimiser's state and of running statistics are elementwise programs on arrays of their own,
which nothing else in the step reads.  By themselves they are a kernel each: 315 of MobileNet-V2's step, most of a few dozen
numbers.  Together they are one, at the end of the step, with a table of arrays; as nobody reads what it makes, it cannot lie on a
cycle.  The point is a partition that can be read: a step takes 0.97 to 1.01 times as long as with a kernel for each (LeNet,
ResNet-18 and MobileNet-V2 on a 2-core AVX-512 virtual machine).

What an update reads has to be kept until then.  So a large gradient is used up where it is made: its update stays a kernel of
its own, right behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from irconv.graph import Node
from irconv.passes.patterns import Group, Search, is_elementwise
from irconv.types import F16

MOST_KEPT_BYTES = 256 * 1024
"""What an update may read of computed values, at most: 149 of the 158 gradients of MobileNet-V2, 2.6 MB of 14; of ResNet-18 48 of
62, 0.8 MB of 47.  Its peak of live memory grows by 0.02 % in the one and not at all in the other (batch 8)."""


def state_updates(uses: Search, groups: Iterable[Sequence[int]]) -> Group | None:
    """Those of the groups of elementwise nodes that are small updates, as one; None unless there are several."""
    found = [group for group in groups if _is_update(uses, group)]
    nodes = sorted((i for group in found for i in group), key=uses.position.__getitem__)
    return Group("state_updates", tuple(nodes)) if len(found) > 1 else None


def _is_update(uses: Search, group: Sequence[int]) -> bool:
    """Whether all that leaves a group are new states that no node reads, and it needs little of what was computed."""
    graph, members = uses.graph, set(group)
    if not all(_has_code(uses, graph[i]) and _stays(uses, i, members) for i in group):
        return False
    read = {i for member in group for i in graph[member].operands} - members
    return sum(graph[i].type.bytes for i in read if not graph[i].is_leaf) <= MOST_KEPT_BYTES


def _stays(uses: Search, node_id: int, members: set[int]) -> bool:
    return members.issuperset(uses.readers[node_id]) and (node_id in uses.new_states or node_id not in uses.kept)


def _has_code(uses: Search, node: Node) -> bool:
    """Whether compiled code computes an op whatever the compiler and the numbers: not float16, nor powers of integers."""
    types = [node.type.dtype, *(operand.type.dtype for operand in uses.graph.operands(node))]
    return is_elementwise(node) and F16 not in types and (node.op.name != "power" or all(t.is_float for t in types))
