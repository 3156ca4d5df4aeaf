"""Common subexpressions: values computed twice are computed once.

Two nodes are the same value when op and attributes agree to the bit and their operands are the same values, in either
order for ops that commute to the bit.  The first in program order stays, with its name.  Not merged: inputs and
states, ops that are not pure, and copies, each of which exists for a buffer of its own.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

from irconv.graph import Graph, Node
from irconv.op import describe
from irconv.passes.base import Note, Pass, register_pass
from irconv.passes.rewrite import COMMUTATIVE


@register_pass
@dataclass(frozen=True)
class CommonSubexpressions(Pass):
    """Merge equal values."""

    name: ClassVar[str] = "cse"

    def run(self, graph: Graph, notes: list[Note] | None = None) -> bool:
        first: dict[Hashable, int] = {}
        changed = False
        for node_id in graph.order():
            # users come later in the order, so operands are already the ones that stay
            node = graph[node_id]
            if not _may_merge(node):
                continue
            same = first.setdefault(_key(node), node_id)
            if same != node_id:
                graph.replace(node_id, same)
                graph.remove(node_id)
                changed = True
        return changed


def _may_merge(node: Node) -> bool:
    return node.op.pure and node.op.name not in ("input", "state", "copy")


def _key(node: Node) -> Hashable:
    if node.op.name == "constant":
        return "constant", node.attributes.digest
    operands = tuple(sorted(node.operands)) if node.op.name in COMMUTATIVE else node.operands
    # repr tells 0.0 from -0.0, which compare equal
    return node.op.name, describe(node.attributes), operands
