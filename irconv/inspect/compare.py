"""Backends beside the reference, value by value: which kernel computes something else, and by how much.

Each backend compiles the graph twice.  As it is: its results and updates are held against the reference's for the graph *before*
all passes, so that passes, memory plan and kernels are all judged.  And with every value that leaves a kernel as a further
output: these are held against the reference's for the same graph.  Of those that are off, the one that runs first is to blame.

Differences are told relative to the largest number of a value.  Where terms cancel (the gradient of a bias before a batch norm)
that number is itself nothing but rounding; the reference, computed in its own types and in float64, shows how large rounding is,
and the difference is told relative to a million times that where this is more: float32 rounds at the seventh digit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from irconv import structure
from irconv.backends.base import Executable
from irconv.compile import Options, build
from irconv.graph import Graph
from irconv.interpret import evaluate
from irconv.kernel import Kernel
from irconv.passes.base import Pass
from irconv.passes.materialise import Materialise
from irconv.places import Location

ROUNDED_AT = 1e6
"""How many times as large as their rounding numbers are that nothing has cancelled."""

SHOWN = "value:"
"""Beginning of the paths of further outputs: none of a program's own begins so."""

RESULT = "(result)"
"""Stands for the kernel where a value comes out of the whole program."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one value of one backend is from the reference.

    absolute: largest difference (infinite where only one of the two is NaN).
    relative: that, over the largest number of the reference (or over a multiple of its rounding, see above); of truth values and
              integers, the share that differs: rounding moves single ones over a threshold.
    where:    index of the largest difference.                                 found, expected: the two numbers there.
    kernel, kind: the kernel that wrote it; ``RESULT`` for what the program returns or leaves in its states.
    position: of the kernel in the order of execution; None for results.
    """

    backend: str
    value: str
    kernel: str
    kind: str
    line: Location | None
    absolute: float
    relative: float
    where: tuple[int, ...]
    found: float
    expected: float
    position: int | None = None


def compare_backends(
    graph: Graph,
    backends: Sequence[str],
    args: Sequence[np.ndarray],
    passes: Sequence[Pass],
    precision: str = "fast",
    double: bool = False,
) -> list[Difference]:
    """The differences of all values of all backends, largest relative ones first.

    graph:  as traced; its states are left as they were.
    double: compute the reference in float64 instead of in the types of the graph.
    """
    rows: list[Difference] = []
    truth = Reference(graph, args, double)
    for backend in backends:
        whole = build(graph, Options(backend, precision=precision), passes)
        rows += _results(backend, whole, graph, args, truth)
        opened = build(_with_borders(whole), Options(backend, passes=(Materialise(),), precision=precision), ())
        rows += _borders(backend, whole, opened, args, double)
    return sorted(rows, key=lambda row: -row.relative)


# --- the reference -----------------------------------------------------------------------------------------------------------


class Reference:
    """Every value of a graph: in the types of the graph, and in float64."""

    def __init__(self, graph: Graph, args: Sequence[np.ndarray], double: bool):
        leaves = dict(zip(graph.inputs, args, strict=True))
        for state in graph.states:
            variable = graph.state[graph[state].name]
            variable.refresh()
            leaves[state] = _on_host(variable.array)
        self._same, self._wide = evaluate(graph, leaves), _evaluate_wide(graph, leaves)
        self._double = double

    def of(self, node_id: int) -> tuple[np.ndarray, float]:
        """What a value is to be, and how far rounding takes the reference itself."""
        same, wide = self._same[node_id], self._wide[node_id]
        rounding = 0.0
        if same.size and same.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                apart = np.abs(same - wide)
            rounding = float(apart[np.isfinite(apart)].max(initial=0.0))
        return (wide if self._double else same), rounding


def _evaluate_wide(graph: Graph, leaves: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Every value, with all floating-point arithmetic in float64."""
    values = {i: _doubled(array) for i, array in leaves.items()}
    with np.errstate(all="ignore"):
        for node in graph:
            if node.id not in values:
                result = node.op.reference(node.attributes, *(values[i] for i in node.operands))
                values[node.id] = _doubled(np.asarray(result))
    return values


def _doubled(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


# --- the two programs --------------------------------------------------------------------------------------------------------


def _results(
    backend: str, whole: Executable, graph: Graph, args: Sequence[np.ndarray], truth: Reference
) -> Iterator[Difference]:
    """What the program returns and what it writes into its states."""
    outputs, written = _run(whole, args)
    for path, array in outputs.items():
        node = graph[graph.outputs[path]]
        yield measure(backend, path or node.name, None, node.provenance.location, array, *truth.of(node.id))
    for state, value in graph.updates.items():
        name = graph[state].name
        if name in written:
            yield measure(backend, f"new {name}", None, graph[value].provenance.location, written[name], *truth.of(value))


def _with_borders(executable: Executable) -> Graph:
    """The program's graph, its outputs every value that leaves a kernel and every gradient of a state, by their numbers."""
    graph = executable.graph.copy()
    shown = {i for kernel in executable.kernels if not kernel.is_view for i in kernel.outputs}
    gradients = (f"d_{graph[state].name}" for state in graph.updates)
    shown |= {graph[name].id for name in gradients if graph.has_name(name) and not graph[name].is_leaf}
    shown |= set(graph.outputs.values())
    graph.drop_outputs()
    for node_id in sorted(shown):
        graph.set_output(f"{SHOWN}{node_id}", node_id)
    return graph


def _borders(
    backend: str, whole: Executable, opened: Executable, args: Sequence[np.ndarray], double: bool
) -> Iterator[Difference]:
    """The values that leave kernels, as ``opened`` gives them, with their names and kernels in ``whole``."""
    graph = opened.graph
    truth = Reference(graph, args, double)
    homes = {i: (number, kernel) for number, kernel in enumerate(whole.kernels) for i in kernel.nodes}
    outputs, _ = _run(opened, args)
    for path, array in outputs.items():
        node = whole.graph[int(path.removeprefix(SHOWN))]
        if node.id in homes:
            position, kernel = homes[node.id]
            expected = truth.of(graph.outputs[path])
            row = measure(backend, node.name, kernel, node.provenance.location, array, *expected)
            yield replace(row, position=position)


def _run(executable: Executable, args: Sequence[np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Outputs by path, and by name the states that were written; these are then put back."""
    with _states_kept(executable.graph) as variables:
        found = executable(*args)
        outputs = {path: _on_host(array) for path, array in structure.leaves(found)}
        return outputs, {name: _on_host(array) for name, array in variables.items()}


@contextmanager
def _states_kept(graph: Graph) -> Iterator[Mapping[str, np.ndarray]]:
    """The arrays of the states that the graph updates, by name; when the block ends they hold what they held before."""
    variables = {graph[state].name: graph.state[graph[state].name] for state in graph.updates}
    before = {name: _on_host(variable.array) for name, variable in variables.items()}
    try:
        yield {name: variable.array for name, variable in variables.items()}
    finally:
        for name, variable in variables.items():
            variable.assign(before[name])


def _on_host(array: Any) -> np.ndarray:
    """A copy in the CPU's memory."""
    return array.get() if hasattr(array, "__cuda_array_interface__") else np.array(array)


# --- differences -------------------------------------------------------------------------------------------------------------


def measure(
    backend: str,
    name: str,
    kernel: Kernel | None,
    line: Location | None,
    found: np.ndarray,
    expected: np.ndarray,
    rounding: float = 0.0,
) -> Difference:
    """The largest difference of two arrays of one shape; ``rounding``: how far off the expected one is itself."""
    where = (kernel.name, kernel.kind) if kernel else (RESULT, "")
    if not expected.size:
        return Difference(backend, name, *where, line, 0.0, 0.0, (), 0.0, 0.0)
    with np.errstate(invalid="ignore"):
        a, b = found.astype(np.float64), expected.astype(np.float64)
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        apart = np.where(np.isnan(apart), np.inf, apart)
        finite = np.abs(b[np.isfinite(b)])
    index = np.unravel_index(int(apart.argmax()), apart.shape)
    worst = float(apart[index])
    place = tuple(int(i) for i in index)
    if expected.dtype.kind != "f":
        share = float(np.count_nonzero(apart) / apart.size)
        return Difference(backend, name, *where, line, worst, share, place, float(a[index]), float(b[index]))
    scale = max(float(finite.max()) if finite.size else 0.0, ROUNDED_AT * rounding)
    return Difference(
        backend, name, *where, line, worst, worst / scale if scale else worst, place, float(a[index]), float(b[index])
    )
