"""The reference interpreter: runs a graph node by node with each op's NumPy reference.

It is the meaning of a graph, not a backend: constant folding, eager backward passes, the checking mode of the pass
pipeline and the tests use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from irconv.errors import IrconvError
from irconv.graph import Graph


def evaluate(graph: Graph, leaves: Mapping[int, np.ndarray], wanted: Iterable[int] | None = None) -> dict[int, np.ndarray]:
    """Values by node id, given those of inputs and states (a state not given is read from ``graph.state``).

    ``wanted`` limits the work to the ancestors of these ids.
    """
    needed = graph.ancestors(wanted) if wanted is not None else None
    values: dict[int, np.ndarray] = {}
    with np.errstate(all="ignore"):
        for node in graph:
            if needed is not None and node.id not in needed:
                continue
            if node.id in leaves:
                values[node.id] = np.asarray(leaves[node.id])
            elif node.op.name == "state":
                values[node.id] = np.asarray(graph.state[node.name].array)
            else:
                try:
                    result = node.op.reference(node.attributes, *(values[i] for i in node.operands))
                except IrconvError as error:
                    raise error.at(location=node.provenance.location, excerpt=f"%{node.name} = {node.op.name}(...)") from None
                values[node.id] = np.asarray(result, node.type.dtype.numpy)
    return values
