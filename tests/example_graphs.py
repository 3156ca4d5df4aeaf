"""Graphs that several test files use, and a hypothesis strategy for more."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

import irconv.ops.elementwise as ops
from irconv.builder import Builder, GraphValue
from irconv.graph import NOWHERE, Composite, Graph, Provenance
from irconv.op import OPS
from irconv.places import Location
from irconv.state import Variable
from irconv.types import tensor_type, type_of
from tests.samples import Sample


def small_network() -> Graph:
    """Inputs, states of every role, constants small and large, an update, several outputs, all kinds of provenance."""
    graph = Graph("small")
    builder = Builder(graph)
    x = builder.input("x", tensor_type("f32", (2, 3)))
    weight = state(builder, "conv1.weight", np.ones((3,), np.float32), "param")
    mean = state(builder, "bn.running_mean", np.zeros((3,), np.float32), "buffer")
    state(builder, "optimizer.lr", np.array(0.1, np.float32), "state")
    state(builder, "blur", np.ones((2, 2), np.float32), "frozen")
    with builder.at(Provenance(Location("model.py", 12), "conv1"), "conv1"):
        y = ops.multiply(x, weight)
    with builder.at(Provenance(Location("model.py", 13), "bn", Composite("batch_norm", "bn")), "bn"):
        y = ops.add(ops.multiply(ops.subtract(y, mean), 0.5), 1.0)
    with builder.at(Provenance(Location("model.py", 12), "conv1", None, "conv1"), "d_conv1"):
        d = ops.clip(y, 0)
    with builder.at(NOWHERE, "large"):
        large = ops.add(builder.constant(np.linspace(0, 1, 24, dtype=np.float32).reshape(8, 3)), mean)
    graph.set_output("", y.id)
    graph.set_output("loss", d.id)
    graph.set_output("aux.0", large.id)
    graph.set_update(mean.id, mean.id)
    return graph


def state(builder: Builder, name: str, array: np.ndarray, role: str) -> GraphValue:
    """Append a state bound to a variable that holds ``array``."""
    return builder.wrap(builder.graph.add_state(name, type_of(array), role, Variable(array)))


def sample_graph(sample: Sample) -> Graph:
    """A graph of one op, its operands as inputs."""
    graph = Graph(sample.op)
    builder = Builder(graph)
    ids = [builder.input(f"x{k}", type_of(operand)).id for k, operand in enumerate(sample.operands)]
    node = graph.add(OPS[sample.op], sample.attributes, ids)
    graph.set_output("", node.id)
    return graph


_ODD = ["x", "conv1.weight", "in", "part", "0", "a b", '"', "é", "%", "#"]
_names = st.sampled_from(_ODD) | st.text(min_size=1, max_size=6)
_places = st.builds(
    Provenance,
    st.none() | st.builds(Location, st.text(max_size=5) | st.just("dir/model.py"), st.integers(0, 9999)),
    _names | st.just(""),
    st.none() | st.builds(Composite, _names, st.text(max_size=4)),
    st.none() | _names,
)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Graphs of elementwise ops on [2, 3] float values, with odd names and places."""
    graph = Graph(draw(_names))
    builder = Builder(graph)
    values = [builder.input(draw(_names), tensor_type("f32", (2, 3)))]
    roles = draw(st.lists(st.sampled_from(["param", "buffer"]), max_size=2))
    values.extend(state(builder, draw(_names), np.zeros((2, 3), np.float32), role) for role in roles)
    for _ in range(draw(st.integers(0, 8))):
        graph.set_provenance(draw(st.sampled_from(values)).id, draw(_places))
        with builder.at(draw(_places), draw(st.none() | _names)):
            x, y = draw(st.sampled_from(values)), draw(st.sampled_from(values))
            width = draw(st.floats(allow_nan=False, width=32))
            made = draw(
                st.sampled_from(
                    [
                        lambda x, y, width: ops.add(x, y),
                        lambda x, y, width: ops.where(ops.greater(x, y), x, 0),
                        lambda x, y, width: ops.clip(x, -abs(width), abs(width)),
                        lambda x, y, width: ops.multiply(x, width),
                        lambda x, y, width: ops.cast(ops.cast(x, "f16"), "f32"),
                    ]
                )
            )
            values.append(made(x, y, width))
    for path in draw(st.lists(_names | st.just(""), max_size=3, unique=True)):
        graph.set_output(path, draw(st.sampled_from(values)).id)
    for state_id in graph.states:
        if draw(st.booleans()):
            graph.set_update(state_id, draw(st.sampled_from(values)).id)
    return graph
