"""What a batch of one leaves open: whether an axis 0 of one element is a batch, or was put there for broadcasting.

Code for a batch of one is to be the code for any batch, so that none is compiled anew.  Where shapes do not tell the two kinds of
values apart, where they come from does.
"""

from __future__ import annotations

from irconv.graph import Graph, Node
from irconv.op import Fusion

MOST_STEPS = 8
"""How far a value is followed."""


def has_no_batch(graph: Graph, node: Node, steps: int = MOST_STEPS) -> bool:
    """Whether a value has one element along axis 0 in any batch.

    That is how parameters and statistics of batches look: leaves, reshapes of vectors, what was folded along axis 0, and what
    is computed from such values alone.
    """
    shape = node.type.shape
    if len(shape) < 2 or shape[0] != 1 or steps == 0:
        return False
    if node.op.name in ("state", "constant"):
        return True
    if node.op.name == "reshape":
        (source,) = graph.operands(node)
        if source.type.shape[:1] == (1,):
            return has_no_batch(graph, source, steps - 1)
        return source.type.shape[:1] == shape[1:2]
    if node.op.fusion is Fusion.ELEMENTWISE:
        return all(not o.type.shape or has_no_batch(graph, o, steps - 1) for o in graph.operands(node))
    return node.op.fusion is Fusion.REDUCTION and 0 in getattr(node.attributes, "axes", ())
