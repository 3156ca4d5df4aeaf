"""Small graphs for the tests of passes: built from a function of values, printed, run and compared."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from irconv.builder import Builder
from irconv.graph import Graph, Provenance
from irconv.op import Value
from irconv.passes.base import Note, Pass
from irconv.passes.check import Checker
from irconv.passes.simplify import Simplify
from irconv.places import Location
from irconv.state import Variable
from irconv.text import print_graph
from irconv.types import TensorType, tensor_type, type_of
from irconv.verify import verify


def type_from(text: str) -> TensorType:
    """The type written as in the IR: ``f32[2,3]``."""
    matched = re.fullmatch(r"(\w+)\[([\d,]*)\]", text)
    assert matched, text
    return tensor_type(matched[1], [int(n) for n in matched[2].split(",") if n])


def build(
    function: Callable[..., Value | tuple[Value, ...]],
    states: Mapping[str, np.ndarray] | None = None,
    name: str = "test",
    **inputs: str,
) -> Graph:
    """The graph of a function of values: inputs by type, then parameters by array; outputs y, or y0, y1, ..."""
    graph = Graph(name)
    builder = Builder(graph)
    values = [builder.input(each, type_from(text)) for each, text in inputs.items()]
    for each, array in (states or {}).items():
        role = "buffer" if "running" in each else "param"
        values.append(builder.wrap(graph.add_state(each, type_of(array), role, Variable(array))))
    with builder.at(Provenance(Location("model.py", 1))):
        results = function(*values)
    if isinstance(results, tuple):
        for i, result in enumerate(results):
            graph.set_output(f"y{i}", builder.adopt(result).id)
    else:
        graph.set_output("y", builder.adopt(results).id)
    verify(graph)
    return graph


def text(graph: Graph) -> str:
    """The body of the IR text: the computed values, updates and outputs, without locations."""
    lines = print_graph(graph, locations=False).splitlines()
    first = next(i for i, line in enumerate(lines) if line.endswith("{"))
    return "\n".join(line.strip() for line in lines[first + 1 : -1])


def golden(expected: str) -> str:
    """An expected body of IR text, as written in a test."""
    return textwrap.dedent(expected).strip()


def outputs(graph: Graph, leaves: Mapping[str, np.ndarray] | None = None, seed: int = 0) -> dict[str, np.ndarray]:
    """What the graph hands out, outputs by path and updates by state, from the reference."""
    values = Checker(leaves or {}, seed).values(graph)
    results = {path: values[i] for path, i in graph.outputs.items()}
    return results | {f"new {graph[state].name}": values[i] for state, i in graph.updates.items()}


def assert_same_bits(before: Graph, after: Graph, leaves: Mapping[str, np.ndarray] | None = None, seed: int = 0) -> None:
    """Both graphs hand out the same bits; NaNs count as equal."""
    expected, found = outputs(before, leaves, seed), outputs(after, leaves, seed)
    assert expected.keys() == found.keys()
    for path, array in expected.items():
        assert array.dtype == found[path].dtype and array.shape == found[path].shape, path
        np.testing.assert_array_equal(found[path], array, err_msg=path)
        if array.dtype.kind == "f":
            signs = np.isnan(array) | (np.signbit(array) == np.signbit(found[path]))
            assert signs.all(), f"{path}: signs of zeros differ"


def run(pass_: Pass, graph: Graph, leaves: Mapping[str, np.ndarray] | None = None) -> tuple[Graph, list[Note]]:
    """The graph after the pass (on a copy, verified, computing the same bits) and the notes."""
    after, notes = graph.copy(), []
    before_text = print_graph(graph)
    changed = pass_.run(after, notes)
    verify(after)
    assert changed == (print_graph(after) != before_text)
    assert_same_bits(graph, after, leaves)
    return after, notes


SPECIAL = np.array([[0.0, -0.0, np.nan], [np.inf, -np.inf, -1e-40]], np.float32)


def check_simplified(
    function: Callable[..., Value | tuple[Value, ...]],
    expected: str,
    notes: Sequence[str] = (),
    pass_: Simplify | None = None,
    **inputs: str,
) -> None:
    """Simplify leaves ``expected``, the same bits also for special numbers (in inputs f32[2,3]), and these notes."""
    special = {name: SPECIAL for name, type_ in inputs.items() if type_ == "f32[2,3]"}
    run(pass_ or Simplify(), build(function, **inputs), special)
    after, found = run(pass_ or Simplify(), build(function, **inputs))
    assert text(after) == golden(expected)
    assert [f"{note.rule}: {note.reason}" for note in found] == list(notes)
