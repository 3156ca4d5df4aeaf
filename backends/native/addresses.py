"""Where the arrays of a call lie, and where the table of steps wants to know it.

Kernels are told addresses.  Those of the arena, of states and of constants stay as they are; inputs and results are somewhere
else at every call.  An input's views lie at fixed distances from it, as inputs and results are row-major whoever brings them,
so that one address an array is all that a call has to find out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv.backends.arrays.steps import Layout, show
from irconv.backends.native.runtime import address_of
from irconv.graph import Graph


@dataclass(frozen=True, slots=True)
class CalledSlots:
    """Slots that each call brings arrays for.

    roots: of the inputs, then of the results.
    shown: (number of the root, bytes between its first element and this one's) of every such slot and of views of them.
    """

    roots: tuple[int, ...]
    shown: Mapping[int, tuple[int, int]]


def called_slots(graph: Graph, layout: Layout) -> CalledSlots:
    """The called slots of a layout of the graph."""
    roots = tuple(dict.fromkeys((*graph.inputs, *graph.outputs.values())))
    shown = {slot: (number, 0) for number, slot in enumerate(roots)}
    arrays: list[Any] = [None] * layout.slots
    for slot in roots if layout.call_views else ():
        arrays[slot] = np.empty(graph[slot].type.shape, graph[slot].type.dtype.numpy)  # takes no room until it is written
    show(arrays, layout.call_views)
    for view in layout.call_views:
        number, before = shown[view.source]
        shown[view.target] = (number, before + address_of(arrays[view.target]) - address_of(arrays[view.source]))
    return CalledSlots(roots, shown)
