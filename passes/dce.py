"""Dead code: values that neither an output nor an update depends on.

Inputs stay, since callers pass them; states stay unless asked for, since executables and checkpoints bind them by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from irconv.graph import Graph
from irconv.passes.base import Note, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class DeadCode(Pass):
    """Remove values that nothing wanted depends on.

    unused_states: also take states out of the signature that nothing reads and no update writes.
    """

    name: ClassVar[str] = "dce"
    unused_states: bool = False

    def run(self, graph: Graph, notes: list[Note] | None = None) -> bool:
        live = graph.ancestors([*graph.outputs.values(), *graph.updates.values(), *graph.updates])
        kept = {*graph.inputs, *graph.states}
        dead = [node.id for node in graph if node.id not in live and node.id not in kept]
        graph.remove_all(dead)
        unused = [i for i in graph.states if i not in live] if self.unused_states else []
        for state in unused:
            graph.remove(state)
        return bool(dead or unused)
