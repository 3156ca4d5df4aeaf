"""Constant folding: values computed from constants alone become constants, evaluated by the reference.

Left alone, with a note: results larger than the limit that are also larger than the constants they come from, and ops
whose evaluation fails (the error belongs to the run).  Left alone silently: views that only repeat elements, which
take no memory as they are, copies, which exist for a buffer of their own, and ops that are not pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irconv.errors import IrconvError
from irconv.graph import Graph, Node
from irconv.op import OPS, Fusion
from irconv.passes.base import Note, Pass, register_pass
from irconv.passes.rewrite import remove_unread


@register_pass
@dataclass(frozen=True)
class FoldConstants(Pass):
    """Evaluate what depends on constants alone.

    limit_bytes: no constant larger than this is made from smaller ones.
    """

    name: ClassVar[str] = "fold_constants"
    limit_bytes: int = 1 << 20

    def run(self, graph: Graph, notes: list[Note] | None = None) -> bool:
        values: dict[int, np.ndarray] = {}
        folded: list[int] = []
        for node in graph:
            if node.op.name == "constant":
                values[node.id] = node.attributes.value
            elif node.operands and all(i in values for i in node.operands) and self._may_fold(graph, node, notes):
                result = _evaluate(node, values, notes)
                if result is not None:
                    values[node.id] = result
                    folded.append(node.id)
        keep = graph.wanted()
        constant = OPS["constant"]
        changed = False
        # users first: what only folded values read disappears without becoming a constant
        for node_id in reversed(folded):
            if node_id not in graph or not (graph.use_count(node_id) or node_id in keep):
                continue
            node = graph[node_id]
            new = graph.add(constant, constant.attributes(values[node_id]), name=node.name, provenance=node.provenance)
            graph.replace(node_id, new.id)
            if node_id in keep:
                keep.add(new.id)
            keep.discard(node_id)
            remove_unread(graph, node_id, keep)
            graph.rename(new.id, node.name)
            changed = True
        return changed

    def _may_fold(self, graph: Graph, node: Node, notes: list[Note] | None) -> bool:
        if not node.op.pure or node.op.name == "copy":
            return False
        given = sum(graph[i].type.bytes for i in set(node.operands))
        if node.type.bytes <= given:
            return True
        if node.op.fusion is Fusion.VIEW:
            return False
        if node.type.bytes <= self.limit_bytes:
            return True
        if notes is not None:
            reason = f"{node.type.bytes:,} bytes from {given:,}; the limit is {self.limit_bytes:,}"
            notes.append(Note(self.name, node.name, reason))
        return False


def _evaluate(node: Node, values: dict[int, np.ndarray], notes: list[Note] | None) -> np.ndarray | None:
    with np.errstate(all="ignore"):
        try:
            result = node.op.reference(node.attributes, *(values[i] for i in node.operands))
        except IrconvError as error:
            if notes is not None:
                notes.append(Note(FoldConstants.name, node.name, f"cannot be evaluated: {error.message}"))
            return None
    return np.array(result, node.type.dtype.numpy)
