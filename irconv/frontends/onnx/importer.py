"""Running an ONNX graph on Tensors: a trace records it, concrete tensors compute it.

Values that depend on nothing but stored constants and shapes are computed while the model is imported, so shape arithmetic
leaves no trace in the graph.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
from onnx import defs

from irconv.builder import GraphValue
from irconv.concrete import ConcreteValue, computing_at_most, current_tracer, take_room
from irconv.errors import IrconvError, ModelError
from irconv.frontends.onnx.functions import expanded, has_body
from irconv.frontends.onnx.graphs import GraphReader, Node, OnnxGraph, counted, listed
from irconv.frontends.onnx.narrow import format_of, marked, results_as_stored
from irconv.frontends.onnx.registry import Call, OnnxValue, Operator, TensorList, find_operator
from irconv.tensor import Tensor

MAX_RESULT_BYTES = 2**30
"""No value that a model computes when it runs eagerly may be larger."""

MAX_KNOWN_BYTES = 5 * 2**27
"""Values that are computed while a model is imported may not be larger together, unless the file stores much."""

KNOWN_SHARE = 16
"""How many times the size of its stored tensors a model may compute while it is imported."""

MAX_RECORDED = 100_000
"""Nodes that one import may run, and operations that it may record: loops and recurrent cells are unrolled."""

VIEWS = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators through which a stored tensor stays what it is: a weight that is transposed first is a weight."""

ARITHMETIC = frozenset({"Add", "Mul"})
"""Operators whose stored operands may be a layer's scale and offset, or just numbers."""


# --- what a graph needs of its inputs and stored tensors --------------------------------------------------------------------


def unsupported(graph: OnnxGraph) -> list[str]:
    """The operators of a graph that cannot be imported, with counts and names of nodes; none if only branches have such."""
    if not any(_is_unsupported(node) for node in graph.certain_nodes()):
        return []
    return counted(node for node in graph.all_nodes() if _is_unsupported(node))


def _is_unsupported(node: Node) -> bool:
    return find_operator(node) is None and node.body is None and not has_body(node)


@cache
def _attribute_names(operator: str, opset: int, domain: str) -> frozenset[str] | None:
    """The attributes that an operator has; None for one that ONNX does not define."""
    try:
        return frozenset(defs.get_schema(operator, opset, domain).attributes)
    except defs.SchemaError:
        return None


def check_attributes(graph: OnnxGraph) -> None:
    """Raise ModelError for attributes that an operator does not have: leaving them out would change its meaning."""
    for node in graph.certain_nodes():
        known_names = None if node.body is not None else _attribute_names(node.operator, node.opset, node.domain)
        unknown = set() if known_names is None else set(node.attributes.protos) - known_names
        if unknown:
            raise ModelError(
                f"node {node} has attributes that version {node.opset} of its operator has not: {listed(unknown)}",
                location=node.location,
            )


def static_names(graph: OnnxGraph) -> set[str]:
    """Names whose values must be known while the graph is imported."""
    return _wanted(graph, lambda found: found.static, lambda node, found: found is None or not found.shape_only)


def weight_names(graph: OnnxGraph) -> set[str]:
    """Names of values that layers use as weights."""
    return _wanted(
        graph, lambda found: () if found.name in ARITHMETIC else found.weights, lambda node, found: node.operator in VIEWS
    )


def factor_names(graph: OnnxGraph) -> set[str]:
    """Names of values that arithmetic uses as scales and offsets: weights, unless they are single numbers."""
    return _wanted(
        graph, lambda found: found.weights if found.name in ARITHMETIC else (), lambda node, found: node.operator in VIEWS
    )


def buffer_names(graph: OnnxGraph) -> set[str]:
    """Names of values that layers use as running statistics."""
    return _wanted(graph, lambda found: found.buffers, lambda node, found: node.operator in VIEWS)


def _wanted(graph: OnnxGraph, slots: Any, through: Any, outputs: Iterable[str] = ()) -> set[str]:
    """Names read in the given slots of operators, and what those are computed from as long as ``through`` holds."""
    wanted = set(outputs)
    for node in reversed(graph.nodes):
        found = find_operator(node)
        passed = any(name in wanted for name in node.outputs)
        if node.body is not None:
            results = [inner for name, inner in zip(node.outputs, node.body.outputs, strict=False) if name in wanted]
            inside = _wanted(node.body, slots, through, results)
            wanted.update(name for name, p in zip(node.inputs, node.body.inputs, strict=False) if p.name in inside)
            continue
        for inner_graph in node.subgraphs.values():
            results = list(inner_graph.outputs) if passed else []
            wanted.update(_wanted(inner_graph, slots, through, results) & inner_graph.free)
        if found is not None:
            wanted.update(node.inputs[i] for i in slots(found) if i < len(node.inputs))
        if passed and through(node, found):
            wanted.update(node.inputs)
    wanted.discard("")
    return wanted


# --- running ---------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Run:
    """One run of a model.

    reader: opens functions that ONNX defines; training: the model's mode; steps: nodes that ran; known: bytes of values that
    were computed at import; most: how many there may be.
    """

    reader: GraphReader
    training: bool
    steps: int = 0
    named: set[int] = field(default_factory=set)
    opened: dict[tuple[int, Any], OnnxGraph] = field(default_factory=dict)

    def main(self, graph: OnnxGraph, values: Mapping[str, OnnxValue]) -> tuple[Any, ...]:
        """The outputs of the model's graph, given its inputs and stored tensors."""
        for value in values.values():
            for each in value.items if isinstance(value, TensorList) else (value,):
                if isinstance(each.value, GraphValue):
                    self.named.add(each.value.id)
        known = max(MAX_KNOWN_BYTES, KNOWN_SHARE * sum(array.nbytes for array in graph.tensors.values()))
        limits = (MAX_RESULT_BYTES, None) if current_tracer() is None else (known, known)
        with computing_at_most(*limits), np.errstate(all="ignore"):
            results = self.graph(graph, dict(values))
            for result in results:
                if isinstance(result, Tensor) and not result.is_traced:
                    take_room(result.type)  # it will be copied
        return results

    def graph(self, graph: OnnxGraph, values: MutableMapping[str, OnnxValue]) -> tuple[Any, ...]:
        """The outputs of a graph; ``values`` holds its inputs and what is around it, and takes what is computed."""
        for node in graph.nodes:
            results = self.node(node, values)
            values.update((name, value) for name, value in zip(node.outputs, results, strict=False) if name and value is not None)
        return tuple(values[name] if name else None for name in graph.outputs)

    def inner(self, node: Node, values: MutableMapping[str, OnnxValue], attribute: str, *inputs: OnnxValue) -> tuple[Any, ...]:
        """The outputs of a subgraph, which sees the values around it."""
        graph = node.subgraphs.get(attribute)
        if graph is None:
            raise ModelError(f"attribute {attribute!r} is missing or not a graph")
        if node.is_choice:
            self._check_branch(graph)
        return self.graph(graph, ChainMap(bound(graph, inputs), values))

    def _check_branch(self, graph: OnnxGraph) -> None:
        """What reading the model left to be seen: whether a branch that is taken can be imported."""
        missing = unsupported(graph)
        if missing:
            raise ModelError("the branch uses operators that are not supported:\n  " + "\n  ".join(missing))
        check_attributes(graph)

    def node(self, node: Node, values: MutableMapping[str, OnnxValue]) -> Sequence[OnnxValue | None]:
        """The results of one node.  Errors say which node it is."""
        inputs = [values[name] if name else None for name in node.inputs]
        tracer = current_tracer()
        try:
            self._count(tracer)
            if tracer is None:
                return self._results(node, inputs, values)
            with tracer.placed(node.location, node.scope, node.outputs[0] if node.outputs else node.name):
                results = self._results(node, inputs, values)
            self._name(tracer, node, results)
            return results
        except ModelError as error:
            raise error.at(location=node.location, excerpt=described(node, inputs)) from None
        except IrconvError as error:
            raise ModelError(
                f"node {node}: {error.message}", hint=error.hint, location=node.location, excerpt=described(node, inputs)
            ) from error
        except Exception as error:  # a malformed node: its inputs and attributes are the file's
            raise ModelError(
                f"node {node} cannot be imported: {type(error).__name__}: {error}",
                location=node.location,
                excerpt=described(node, inputs),
            ) from error

    def _results(
        self, node: Node, inputs: list[OnnxValue | None], values: MutableMapping[str, OnnxValue]
    ) -> Sequence[OnnxValue | None]:
        if node.body is not None:
            return self._function(node.body, inputs)
        found = find_operator(node)
        if found is None:
            types = tuple((x.type, format_of(x)) if isinstance(x, Tensor) else None for x in inputs)
            return self._function(self._open(node, types), inputs)
        call = Call(node, self.training, partial(self.inner, node, values))
        results = found.handler(call, *arguments(node, found, inputs))
        results = results if isinstance(results, tuple) else (results,)
        if len(node.outputs) > len(results):
            raise ModelError(f"node {node} has {len(node.outputs)} outputs, it can have {len(results)}")
        # what has subgraphs hands on what they give
        return results if node.subgraphs else results_as_stored(node.operator, node.opset, node.domain, inputs, results)

    def _count(self, tracer: Any) -> None:
        self.steps += 1
        recorded = 0 if tracer is None else len(tracer.graph)
        if max(self.steps, recorded) > MAX_RECORDED:
            raise ModelError(f"the model unrolls into more than {MAX_RECORDED} operations")

    def _open(self, node: Node, types: tuple[Any, ...]) -> OnnxGraph:
        """What a function of ONNX's own stands for on inputs of these types."""
        key = (id(node), types)
        if key not in self.opened:
            body = expanded(node, types, self.reader)
            missing = unsupported(body)
            if missing:
                raise ModelError("it stands for operators that are not supported:\n  " + "\n  ".join(missing))
            self.opened[key] = body
        return self.opened[key]

    def _function(self, body: OnnxGraph, inputs: list[OnnxValue | None]) -> tuple[OnnxValue | None, ...]:
        return self.graph(body, bound(body, inputs))

    def _name(self, tracer: Any, node: Node, results: Sequence[OnnxValue | None]) -> None:
        """Call each new value what the file calls it."""
        for name, result in zip(node.outputs, results, strict=False):
            inner = result.value if isinstance(result, Tensor) else None
            if isinstance(inner, GraphValue) and name and inner.id not in self.named:
                self.named.add(inner.id)
                if inner.node.name != name and not inner.node.is_leaf:
                    tracer.graph.rename(inner.id, name)


def bound(graph: OnnxGraph, inputs: Sequence[OnnxValue | None]) -> dict[str, OnnxValue]:
    """The inputs and stored tensors of a subgraph or function by name."""
    if len(inputs) > len(graph.inputs):
        raise ModelError(f"graph {graph.name!r} takes {len(graph.inputs)} inputs, got {len(inputs)}")
    values: dict[str, OnnxValue] = {name: stored_tensor(graph, name) for name in graph.tensors}
    given = zip(graph.inputs, inputs, strict=False)
    return values | {port.name: value for port, value in given if value is not None}


def stored_tensor(graph: OnnxGraph, name: str) -> Tensor:
    """A stored tensor of the graph."""
    return marked(Tensor(ConcreteValue(graph.tensors[name])), graph.formats.get(name))


def arguments(node: Node, found: Operator, inputs: list[OnnxValue | None]) -> list[Any]:
    """What the handler is called with.  Raises ModelError for a wrong number of inputs, or one that had to be known."""
    if len(inputs) < found.least or any(x is None for x in inputs[: found.least]):
        raise ModelError(f"node {node} needs at least {found.least} inputs, has {len([x for x in inputs if x is not None])}")
    if found.most is not None and len(inputs) > found.most:
        raise ModelError(f"node {node} takes at most {found.most} inputs, has {len(inputs)}")
    return [known(node, i, x) if i in found.static else x for i, x in enumerate(inputs)]


def known(node: Node, place: int, value: OnnxValue | None) -> np.ndarray | None:
    """The data of an input that shapes depend on."""
    if value is None:
        return None
    if isinstance(value, TensorList):
        raise ModelError(f"node {node} needs numbers as its input {node.inputs[place]!r}, which is a sequence")
    if value.is_traced:
        raise ModelError(
            f"node {node} needs the value of its input {node.inputs[place]!r}, which is known only when the model runs",
            hint="give the model's inputs as arrays instead of specs, to have it specialised for their values",
        )
    return np.asarray(value.value.array)


def described(node: Node, inputs: Sequence[OnnxValue | None]) -> str:
    """A node with the types of its inputs, for messages."""
    types = ", ".join(f"{name}: {_kind(x)}" for name, x in zip(node.inputs, inputs, strict=True))
    return f"{node.operator}({types}) of node {node.name!r}"


def _kind(value: OnnxValue | None) -> str:
    if isinstance(value, Tensor):
        return str(value.type)
    return "left out" if value is None else f"{len(value.items)} tensors"
