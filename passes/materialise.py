"""Materialise: give every output and every new state value a kernel of its own.

A caller's array, and the array of a state, are filled by exactly one kernel.  So a ``copy`` is put before

- an output that is a leaf, a view of another value, not stored row-major, or returned under a second name already;
- the new value of a state that is a leaf, a view, not stored row-major, or the new value of another state as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from irconv.graph import Graph, Node
from irconv.op import NO_ATTRIBUTES, OPS, Fusion
from irconv.passes.base import Note, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class Materialise(Pass):
    """Insert copies so that outputs and new state values are computed by kernels of their own."""

    name: ClassVar[str] = "materialise"

    def run(self, graph: Graph, notes: list[Note] | None = None) -> bool:
        seen: set[int] = set()
        changed = False
        for path, value in list(graph.outputs.items()):
            if _needs_copy(graph[value]) or value in seen:
                graph.set_output(path, _copy(graph, graph[value], path or graph[value].name).id)
                changed = True
            seen.add(value)
        written: set[int] = set()
        for state, value in list(graph.updates.items()):
            if _needs_copy(graph[value]) or value in written:
                graph.set_update(state, _copy(graph, graph[value], f"new_{graph[state].name}").id)
                changed = True
            written.add(value)
        return changed


def _needs_copy(node: Node) -> bool:
    return node.is_leaf or node.op.fusion is Fusion.VIEW or node.type.layout is not None


def _copy(graph: Graph, node: Node, name: str) -> Node:
    return graph.add(OPS["copy"], NO_ATTRIBUTES, (node.id,), name=name, provenance=node.provenance)
