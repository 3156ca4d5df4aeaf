"""The checking mode of the pipeline: run the reference before and after each pass and compare what comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from irconv.errors import NumericsError
from irconv.graph import Graph, Node
from irconv.interpret import evaluate
from irconv.types import F16, F32, TensorType

TOLERANCES = {F16: 2e-2, F32: 1e-4}
"""Largest difference allowed, relative to the largest number of the tensor; other floats 1e-9, everything else none."""


@dataclass
class Checker:
    """Compares outputs and updates before and after each pass, in the reference interpreter.

    leaves:    values of inputs and of states that have no variable, by name; those missing are drawn at random.
    seed:      of the random leaves.
    tolerance: replaces the element type's own (``TOLERANCES``).
    """

    leaves: Mapping[str, np.ndarray] = field(default_factory=dict)
    seed: int = 0
    tolerance: float | None = None
    _last: tuple[Graph, dict[int, np.ndarray]] | None = field(default=None, repr=False)

    def check(self, name: str, before: Graph, after: Graph) -> None:
        """Raise NumericsError naming the pass and the first value whose numbers part."""
        # the graph before this pass is the one after the pass before it: keep its values
        old = self._last[1] if self._last is not None and self._last[0] is before else self.values(before)
        new = self.values(after)
        self._last = (after, new)
        for what, was, now in _results(name, before, after):
            worst = difference(old[was.id], new[now.id])
            allowed = self._allowed(now.type)
            if not worst <= allowed:
                first, at_first = self._first_difference(before, old, after, new, now)
                raise NumericsError(
                    f"pass {name} changed the numbers: {what} differs by {worst:.3g} of its largest value, "
                    f"tolerance {allowed:.3g}; the first value that differs is %{first.name}, by {at_first:.3g}",
                    location=first.provenance.location,
                    excerpt=f"%{first.name} = {first.op.name}(...) : {first.type}",
                )

    def values(self, graph: Graph) -> dict[int, np.ndarray]:
        """Every value of the graph on the checker's leaves."""
        given: dict[int, np.ndarray] = {}
        for node_id in (*graph.inputs, *graph.states):
            node = graph[node_id]
            if node.name not in graph.state:
                chosen = self.leaves.get(node.name)
                given[node_id] = random_leaf(node, self.seed) if chosen is None else np.asarray(chosen)
        return evaluate(graph, given)

    def _allowed(self, type_: TensorType) -> float:
        if not type_.dtype.is_float:
            return 0.0
        return TOLERANCES.get(type_.dtype, 1e-9) if self.tolerance is None else self.tolerance

    def _first_difference(
        self,
        before: Graph,
        old: Mapping[int, np.ndarray],
        after: Graph,
        new: Mapping[int, np.ndarray],
        result: Node,
    ) -> tuple[Node, float]:
        """The first ancestor of ``result`` that bears the name of a value of ``before`` and differs from it."""
        upstream = after.ancestors([result.id])
        for node in after:
            if node.id in upstream and before.has_name(node.name) and before[node.name].type == node.type:
                worst = difference(old[before[node.name].id], new[node.id])
                if not worst <= self._allowed(node.type):
                    return node, worst
        return result, float("nan")


def random_leaf(node: Node, seed: int) -> np.ndarray:
    """An array for an input or state: normal floats, positive ones for buffers (variances), 0 or 1 otherwise.

    It depends on the name, so a pass that adds or drops leaves does not change the others.
    """
    generator = np.random.default_rng([seed, *node.name.encode()])
    type_ = node.type
    if not type_.dtype.is_float:
        return generator.integers(0, 2, type_.shape).astype(type_.dtype.numpy)
    if node.op.name == "state" and node.attributes.role == "buffer":
        return generator.uniform(0.5, 1.5, type_.shape).astype(type_.dtype.numpy)
    return generator.standard_normal(type_.shape).astype(type_.dtype.numpy)


def difference(before: np.ndarray, after: np.ndarray) -> float:
    """Largest difference relative to the largest finite number; infinite where NaN or infinities do not coincide."""
    if before.dtype.kind != "f":
        return 0.0 if np.array_equal(before, after) else float("inf")
    finite = np.isfinite(before)
    if not np.array_equal(before[~finite], after[~finite], equal_nan=True) or not np.isfinite(after[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    wide = before[finite].astype(np.float64)
    worst, largest = float(np.abs(wide - after[finite]).max()), float(np.abs(wide).max())
    if not worst:
        return 0.0
    return worst / largest if largest else float("inf")


def _results(name: str, before: Graph, after: Graph) -> Iterator[tuple[str, Node, Node]]:
    """What both graphs hand out: outputs by path, updates by state name."""
    for path, old in before.outputs.items():
        if path not in after.outputs:
            raise NumericsError(f"pass {name} lost the output {path!r}")
        yield f"output {path!r}", before[old], after[after.outputs[path]]
    updates = {after[state].name: value for state, value in after.updates.items()}
    for state, old in before.updates.items():
        updated = before[state].name
        if updated not in updates:
            raise NumericsError(f"pass {name} lost the update of %{updated}")
        yield f"the update of %{updated}", before[old], after[updates[updated]]
