"""Graphs as ONNX models, with ordinary ONNX operators: forward, backward and training steps alike."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, ValueInfoProto, helper

from irconv.errors import AttributeValueError, ModelError
from irconv.frontends.onnx.export_ops import DOMAIN, LOWERINGS, Writer, element_type
from irconv.graph import Graph, Node
from irconv.types import TensorType

DEFAULT_OPSET = 21
"""Of March 2024: the first whose nodes have a place for metadata."""

OLDEST_OPSET = 18
"""The first with bitwise operators, and with the axes of all reductions as inputs."""

LARGEST = 2**31 - 2**20
"""How many bytes one protobuf message may have, less some room."""


def export(graph: Graph, path: str | os.PathLike[str] | None = None, opset: int = DEFAULT_OPSET) -> ModelProto:
    """The graph as an ONNX model, written to ``path`` if one is given.

    Nodes and values keep their names; where one node becomes several, the last bears the name and the others
    ``name/Operator``.  Each ONNX node notes the line, module and forward node it comes from (``doc_string``, ``metadata_props``).

    Outputs are called after their path in the program's result, or, where that is empty or a number, after the value.
    States are initialisers.  A graph that updates states (a training step) has a further output ``new_NAME`` for each; its
    states are inputs as well, with the stored values as defaults, so that a caller can feed back what came out.  The model's
    ``metadata_props`` say which output is what: ``irconv.outputs`` and ``irconv.updates``, as JSON.

    opset: version of ONNX's operators, 18 or later.  Random bits become functions in the model (Philox, bit for bit).
    A model of more than 2 GB puts its tensors into a file beside ``path``, to which the model returned refers.
    Comparisons with NaN (max, argmax, max pooling, sorting) are as the runtime has them: ONNX leaves them open.

    Raises AttributeValueError for an opset that is too old or unknown, ModelError for a model too large for one message without
    ``path``, or a path that cannot be written.
    """
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise AttributeValueError(
            f"opset {opset} is not between {OLDEST_OPSET} and {newest}",
            hint="newer ones come with newer versions of onnx",
        )
    w = Writer(graph, opset)
    for node in graph:
        if node.op.name == "constant":
            w.initializer(node.name, node.attributes.value)
        elif not node.is_leaf:
            w.lower(node)
    for state in states(graph):
        if state.name in graph.state:
            w.initializer(state.name, host_array(graph, state))
    results = Results(graph, w)
    model = assemble(graph, w, results)
    finish(model, path)
    return model


def states(graph: Graph) -> list[Node]:
    """The states, in order."""
    return [graph[i] for i in graph.states]


def host_array(graph: Graph, state: Node) -> np.ndarray:
    """What a state holds now, in the CPU's memory."""
    variable = graph.state[state.name]
    variable.refresh()
    with variable.lock:
        array: Any = variable.array
        return array.get() if hasattr(array, "__cuda_array_interface__") else np.array(array)


class Results:
    """The outputs of the model: ``types`` by name in order, ``outputs`` (path to name) and ``updates`` (state to name)."""

    def __init__(self, graph: Graph, w: Writer):
        self.types: dict[str, TensorType] = {}
        self.outputs = {
            path: self._output(graph[i], _output_name(path, graph[i]), w) for path, i in graph.outputs.items()
        }
        self.updates = {
            graph[state].name: self._output(graph[value], f"new_{graph[state].name}", w)
            for state, value in graph.updates.items()
        }

    def _output(self, node: Node, name: str, w: Writer) -> str:
        """Make a value an output: under its own name if that is the one wanted, else as a copy of that name."""
        if name != node.name or node.is_leaf or name in self.types:
            name = w.fresh(name)
            w.copy(node, name)
        self.types[name] = node.type
        return name


def _output_name(path: str, node: Node) -> str:
    last = path.rpartition(".")[2]
    return node.name if not path or last.isdecimal() else path


def value_info(name: str, type_: TensorType) -> ValueInfoProto:
    """A name with its type, as ONNX declares it."""
    return helper.make_tensor_value_info(name, element_type(type_.dtype), type_.shape)


def assemble(graph: Graph, w: Writer, results: Results) -> ModelProto:
    """The model of what has been written."""
    inputs = [graph[i] for i in graph.inputs]
    inputs += [s for s in states(graph) if graph.updates or s.name not in graph.state]
    proto = helper.make_graph(
        w.nodes,
        graph.name or "graph",
        [value_info(node.name, node.type) for node in inputs],
        [value_info(name, type_) for name, type_ in results.types.items()],
        w.initializers,
        value_info=[value_info(node.name, node.type) for node in _inner(graph, results)],
    )
    imports = [helper.make_opsetid("", w.opset)]
    if w.functions:
        imports.append(helper.make_opsetid(DOMAIN, 1))
    model = helper.make_model(
        proto,
        opset_imports=imports,
        functions=list(w.functions.values()),
        producer_name="irconv",
        ir_version=helper.find_min_ir_version_for(imports[:1]),
    )
    helper.set_model_props(
        model, {"irconv.outputs": json.dumps(results.outputs), "irconv.updates": json.dumps(results.updates)}
    )
    return model


def _inner(graph: Graph, results: Results) -> Iterable[Node]:
    """Values that are neither in the signature nor constant."""
    return (node for node in graph if not node.is_leaf and node.name not in results.types)


def finish(model: ModelProto, path: str | os.PathLike[str] | None) -> None:
    """Check the model and write it."""
    large = model.ByteSize() > LARGEST
    if path is None:
        if large:
            raise ModelError(
                "the model has more than 2 GB, which one message cannot hold", hint="give a path to export it to"
            )
        onnx.checker.check_model(model, full_check=True)
        return
    target = Path(path)
    if not target.parent.is_dir():
        raise ModelError(f"{target} cannot be written: there is no folder {target.parent}")
    try:
        onnx.save(model, target, save_as_external_data=large, location=f"{target.name}.data")
    except OSError as error:
        raise ModelError(f"{target} cannot be written: {error}") from None
    onnx.checker.check_model(target if large else model, full_check=not large)


__all__ = ["DEFAULT_OPSET", "LOWERINGS", "OLDEST_OPSET", "export"]
