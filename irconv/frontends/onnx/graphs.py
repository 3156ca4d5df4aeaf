"""ONNX graphs taken apart: nodes in an order in which they can run, functions opened, every name accounted for."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, ValueInfoProto

from irconv.errors import ModelError
from irconv.frontends.onnx.attributes import Attributes
from irconv.frontends.onnx.formats import FORMATS, Format
from irconv.frontends.onnx.notes import noted, written_in
from irconv.frontends.onnx.stored import Stored, constant
from irconv.frontends.onnx.tensors import element_type, sparse_array, tensor_array
from irconv.places import Location
from irconv.types import DType

MAX_NODES = 50_000
"""No model may have more nodes once its functions are opened: functions that call functions can grow without bound."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One node.

    operator, domain, opset: what it does, the operator set that says so ("" is ONNX's own), and its version.
    name:      the node's name, or its first output's where it has none.
    scope:     the path of the module that it is part of, where irconv exported the file; else its name.
    inputs, outputs: names of values; "" for one that is left out.
    subgraphs: by the name of the attribute.
    body:      what it stands for, if it calls a function of the model.
    location:  the line of the program that it was exported from, if the file tells, else the file and the node's number.
    """

    operator: str
    domain: str
    opset: int
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes
    subgraphs: Mapping[str, OnnxGraph]
    body: OnnxGraph | None
    location: Location
    scope: str

    @property
    def is_choice(self) -> bool:
        """Whether it runs one of its subgraphs and not the others."""
        return self.operator == "If" and self.domain == ""

    def __str__(self) -> str:
        return f"{self.name!r} ({self.domain + '.' if self.domain else ''}{self.operator})"


@dataclass(frozen=True, slots=True)
class Port:
    """An input as declared: element type and dimensions (a number, a name, or None for any), None where not said.

    sequence: it takes any number of such tensors; format: the narrow type that ``dtype`` holds, if it is one.
    """

    name: str
    dtype: DType | None
    dims: tuple[int | str | None, ...] | None
    sequence: bool = False
    format: Format | None = None

    def __str__(self) -> str:
        dims = "?" if self.dims is None else ",".join("?" if n is None else str(n) for n in self.dims)
        return f"{self.name}: {self.format.name if self.format else self.dtype or '?'}[{dims}]"


@dataclass(frozen=True, slots=True, eq=False)
class OnnxGraph:
    """One graph, or the body of a function: only the nodes that its outputs need, operands first.

    free: names that it takes from the graph around it.
    formats: of the stored tensors that have a narrow element type.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, np.ndarray]
    nodes: tuple[Node, ...]
    free: frozenset[str]
    formats: Mapping[str, Format] = field(default_factory=dict)

    def all_nodes(self) -> Iterable[Node]:
        """The nodes of this graph, of its subgraphs and of function bodies."""
        for node in self.nodes:
            yield node
            for inner in (*node.subgraphs.values(), *([node.body] if node.body else ())):
                yield from inner.all_nodes()

    def certain_nodes(self) -> Iterable[Node]:
        """The nodes that run whatever conditions say: all but those in the branches of choices."""
        for node in self.nodes:
            yield node
            subgraphs = () if node.is_choice else node.subgraphs.values()
            for inner in (*subgraphs, *([node.body] if node.body else ())):
                yield from inner.certain_nodes()


@dataclass(slots=True)
class GraphReader:
    """Takes the graphs of one model apart.

    label: the model's file, as it should be shown.
    """

    label: str
    folder: Path | None
    functions: Mapping[tuple[str, str, str], FunctionProto]
    count: int = 0
    calls: list[tuple[str, str, str]] = field(default_factory=list)

    def main(self, model: ModelProto) -> OnnxGraph:
        """The model's graph.  Raises ModelError for tensors that nothing computes."""
        graph = self.graph(model.graph, operator_sets(model.opset_import))
        if graph.free:
            raise ModelError(
                f"{self.label}: missing tensors, which no node computes and the file does not hold: {listed(graph.free)}"
            )
        return graph

    def graph(self, proto: GraphProto, versions: Mapping[str, int]) -> OnnxGraph:
        """A graph or subgraph."""
        stored = Stored(self.label)
        for tensor in proto.initializer:
            stored.enter(tensor.name, tensor_array(tensor, self.folder), FORMATS.get(tensor.data_type))
        for sparse in proto.sparse_initializer:
            stored.enter(sparse.values.name, sparse_array(sparse, self.folder), FORMATS.get(sparse.values.data_type))
        inputs = tuple(port(info) for info in proto.input if info.name not in stored.tensors)
        outputs = tuple(info.name for info in proto.output)
        nodes = self._nodes(proto.node, versions, stored)
        return self._assemble(proto.name, inputs, outputs, stored, nodes)

    def cut(self, graph: OnnxGraph, outputs: tuple[str, ...]) -> OnnxGraph:
        """The part of a graph that computes the named tensors, without the inputs and stored tensors it does not need."""
        nodes = list(graph.nodes)
        makers = {name: i for i, node in enumerate(nodes) for name in node.outputs if name}
        kept = sorted(needed(nodes, makers, outputs))
        read = {name for i in kept for name in reads(nodes[i])}
        return OnnxGraph(
            graph.name,
            tuple(port for port in graph.inputs if port.name in read),
            outputs,
            {name: array for name, array in graph.tensors.items() if name in read},
            tuple(nodes[i] for i in kept),
            frozenset(),
            {name: form for name, form in graph.formats.items() if name in read},
        )

    def _nodes(self, protos: Iterable[NodeProto], versions: Mapping[str, int], stored: Stored) -> list[Node]:
        """The nodes; constants and copies of stored tensors become stored tensors instead."""
        nodes = []
        for proto in protos:
            self.count += 1
            if self.count > MAX_NODES:
                raise ModelError(f"{self.label}: more than {MAX_NODES} nodes")
            node = self._node(proto, versions)
            if node.domain or len(node.outputs) != 1:
                nodes.append(node)
            elif node.operator == "Constant":
                stored.enter(node.outputs[0], *constant(node.attributes, str(node)))
            elif node.operator == "Identity" and len(node.inputs) == 1 and node.inputs[0] in stored.tensors:
                # exporters store equal tensors once: these are tensors of their own that happen to start equal
                (source,) = node.inputs
                stored.enter(node.outputs[0], stored.tensors[source], stored.formats.get(source))
            else:
                nodes.append(node)
        return nodes

    def _node(self, proto: NodeProto, versions: Mapping[str, int]) -> Node:
        domain = canonical(proto.domain)
        name = proto.name or next(iter(proto.output), "")
        function = self.functions.get((domain, proto.op_type, proto.overload))
        opset = versions.get(domain)
        if opset is None and function is None:
            raise ModelError(f"{self.label}: node {name!r} ({proto.op_type}) is of operator set {domain!r}, which has no version")
        try:
            attributes = Attributes(proto.attribute, self.folder)
        except ModelError as error:
            raise ModelError(f"{self.label}: node {name!r} ({proto.op_type}): {error.message}") from None
        graphs = {a.name: self.graph(a.g, versions) for a in proto.attribute if a.type == AttributeProto.GRAPH}
        return Node(
            proto.op_type,
            domain,
            opset or 0,
            name,
            tuple(proto.input),
            tuple(proto.output),
            attributes,
            graphs,
            self._body(function, proto, name) if function is not None else None,
            written_in(proto) or Location(self.label, self.count),
            noted(proto, "irconv.scope") if noted(proto, "irconv.op") else name,
        )

    def _body(self, function: FunctionProto, proto: NodeProto, name: str) -> OnnxGraph:
        """A function of the model as this node calls it."""
        key = function_key(function)
        if key in self.calls:
            raise ModelError(f"{self.label}: function {function.name!r} calls itself")
        self.calls.append(key)
        body = self.function(function, proto, {})
        self.calls.pop()
        return body

    def function(self, function: FunctionProto, proto: NodeProto, versions: dict[str, int]) -> OnnxGraph:
        """The body of a function as a node calls it: with the node's attributes, without inputs and outputs it leaves out.

        versions: of operator sets that the function itself does not name.
        """
        if len(proto.input) > len(function.input) or len(proto.output) > len(function.output):
            raise ModelError(
                f"{self.label}: node {proto.name!r} calls function {function.name!r} of {len(function.input)} inputs and "
                f"{len(function.output)} outputs with {len(proto.input)} and {len(proto.output)}"
            )
        given = {a.name: a for a in function.attribute_proto} | {a.name: a for a in proto.attribute}
        absent = {name for i, name in enumerate(function.input) if i >= len(proto.input) or not proto.input[i]}
        stored = Stored(self.label)
        inner = [called(node, given, absent) for node in function.node]
        nodes = self._nodes(inner, versions | operator_sets(function.opset_import), stored)
        inputs = tuple(Port(each, None, None) for each in function.input)
        outputs = tuple(inside if name else "" for name, inside in zip(proto.output, function.output, strict=False))
        graph = self._assemble(function.name, inputs, outputs, stored, nodes)
        if graph.free:
            raise ModelError(f"{self.label}: function {function.name!r} reads {listed(graph.free)}, which nothing computes")
        return graph

    def _assemble(
        self, name: str, inputs: tuple[Port, ...], outputs: tuple[str, ...], stored: Stored, nodes: list[Node]
    ) -> OnnxGraph:
        known = {port.name for port in inputs} | set(stored.tensors)
        if len({port.name for port in inputs}) != len(inputs):
            raise ModelError(f"{self.label}: graph {name!r} has two inputs of one name")
        makers = self._makers(nodes, known)
        live = needed(nodes, makers, outputs)
        free = {n for i in live for n in reads(nodes[i]) if n not in makers and n not in known}
        free |= {n for n in outputs if n and n not in makers and n not in known}
        order = self._order(nodes, makers, live)
        ordered = tuple(nodes[i] for i in order)
        return OnnxGraph(name, inputs, outputs, stored.tensors, ordered, frozenset(free), stored.formats)

    def _makers(self, nodes: list[Node], known: set[str]) -> dict[str, int]:
        """Which node computes each name."""
        makers: dict[str, int] = {}
        for i, node in enumerate(nodes):
            for output in node.outputs:
                if output and (output in makers or output in known):
                    raise ModelError(f"{self.label}: {output!r}, an output of node {node}, is already the name of something else")
                if output:
                    makers[output] = i
        return makers

    def _order(self, nodes: list[Node], makers: Mapping[str, int], live: set[int]) -> list[int]:
        """The live nodes, operands first, otherwise as in the file.  Raises ModelError for a cycle."""
        waits = {i: {makers[n] for n in reads(nodes[i]) if n in makers} for i in live}
        users: dict[int, list[int]] = {}
        for i, operands in waits.items():
            for operand in operands:
                users.setdefault(operand, []).append(i)
        ready = [i for i in live if not waits[i]]
        heapq.heapify(ready)
        order: list[int] = []
        while ready:
            i = heapq.heappop(ready)
            order.append(i)
            for user in users.get(i, ()):
                waits[user].discard(i)
                if not waits[user]:
                    heapq.heappush(ready, user)
        if len(order) != len(live):
            stuck = sorted(live - set(order))
            raise ModelError(f"{self.label}: nodes that need their own results: {listed(str(nodes[i]) for i in stuck)}")
        return order


def reads(node: Node) -> set[str]:
    """Names that a node or its subgraphs read."""
    names = {name for name in node.inputs if name}
    return names.union(*(graph.free for graph in node.subgraphs.values()))


def needed(nodes: list[Node], makers: Mapping[str, int], outputs: Iterable[str]) -> set[int]:
    """The nodes that the outputs depend on."""
    live: set[int] = set()
    stack = [makers[name] for name in outputs if name in makers]
    while stack:
        i = stack.pop()
        if i not in live:
            live.add(i)
            stack.extend(makers[name] for name in reads(nodes[i]) if name in makers)
    return live


def canonical(domain: str) -> str:
    """The name of an operator set; ONNX's own has two."""
    return "" if domain == "ai.onnx" else domain


def function_key(function: FunctionProto) -> tuple[str, str, str]:
    """By what nodes name a function of the model."""
    return canonical(function.domain), function.name, function.overload


def operator_sets(imports: Iterable[Any]) -> dict[str, int]:
    """Versions by operator set; a file from before there were versions means the first."""
    versions = {canonical(each.domain): int(each.version) for each in imports}
    for domain, version in versions.items():
        if not 0 <= version < 2**31:
            raise ModelError(f"operator set {domain!r} has the impossible version {version}")
    return versions or {"": 1}


def port(info: ValueInfoProto) -> Port:
    """An input as declared."""
    kind = info.type.WhichOneof("value")
    inner = info.type.sequence_type.elem_type if kind == "sequence_type" else info.type
    if inner.WhichOneof("value") not in (None, "tensor_type"):
        raise ModelError(f"input {info.name!r} is a {str(kind).removesuffix('_type')}; only tensors are supported")
    tensor = inner.tensor_type
    form = FORMATS.get(tensor.elem_type)
    dtype = form.carrier if form else element_type(tensor.elem_type, f"input {info.name!r}") if tensor.elem_type else None
    if not tensor.HasField("shape"):
        return Port(info.name, dtype, None, kind == "sequence_type", form)
    dims: list[int | str | None] = []
    for dim in tensor.shape.dim:
        known = dim.HasField("dim_value") and dim.dim_value >= 0
        dims.append(int(dim.dim_value) if known else dim.dim_param or None)
    return Port(info.name, dtype, tuple(dims), kind == "sequence_type", form)


def called(node: NodeProto, given: Mapping[str, AttributeProto], absent: set[str]) -> NodeProto:
    """A node of a function's body with the caller's attributes in place, and without inputs that the caller leaves out."""
    result = NodeProto()
    result.CopyFrom(node)
    for i, name in enumerate(result.input):
        if name in absent:
            result.input[i] = ""
    del result.attribute[:]
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            copied = result.attribute.add()
            copied.CopyFrom(attribute)
            for inner in copied.g.node:
                inner.CopyFrom(called(inner, given, absent))
        elif attribute.ref_attr_name in given:
            copied = result.attribute.add()
            copied.CopyFrom(given[attribute.ref_attr_name])
            copied.name = attribute.name
    return result


def listed(names: Iterable[str], most: int = 20) -> str:
    """Names for a message, in order; of many the first."""
    items = sorted(names)
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest


def counted(nodes: Iterable[Node]) -> list[str]:
    """What nodes do, each with how often and in which nodes: for messages."""
    names: dict[str, list[str]] = {}
    for node in nodes:
        kind = f"{node.domain}.{node.operator}" if node.domain else node.operator
        names.setdefault(f"{kind} (version {node.opset})", []).append(node.name)
    return [
        f"{kind} x {len(found)}: {', '.join(found[:5])}{', ...' if len(found) > 5 else ''}"
        for kind, found in sorted(names.items())
    ]
