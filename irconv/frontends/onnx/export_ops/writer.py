"""Writing ONNX nodes: what the lowerings in this package are made with, and the registry of them.

A lowering is a function ``lower(w, node, *operands) -> name`` that writes ONNX nodes computing the irconv node and returns the
name of the value they end in.  Values are named by strings; element types and shapes are those of the irconv nodes::

    @lowering("divide")
    def _divide(w: Writer, node: Node, x: str, y: str) -> str:
        return w.op("Div", x, y)

The writer gives the last ONNX node and its value the irconv node's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from onnx import FunctionProto, NodeProto, TensorProto, helper, numpy_helper

from irconv.graph import Graph, Node
from irconv.types import DType, TensorType

Lowering = Callable[..., str]

LOWERINGS: dict[str, Lowering] = {}
"""For each op, the function that writes it; the modules of this package enter theirs."""

DOMAIN = "irconv"
"""The domain of the functions that an exported model may hold (see :mod:`irconv.frontends.onnx.export_ops.random`)."""


def lowering(*names: str) -> Callable[[Lowering], Lowering]:
    """Enter a lowering for these ops."""

    def enter(function: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(names, function))
        return function

    return enter


def element_type(dtype: DType) -> int:
    """ONNX's number for an element type."""
    return int(helper.np_dtype_to_tensor_dtype(dtype.numpy))


class Writer:
    """Collects the nodes, initialisers and functions of one ONNX graph.

    Attributes: ``graph``, ``nodes``, ``initializers``, ``functions`` (by name), and ``opset``, the version of ONNX's operators.
    """

    def __init__(self, graph: Graph, opset: int):
        self.opset = opset
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.functions: dict[str, FunctionProto] = {}
        self.graph = graph
        self._taken = {node.name for node in graph}
        self._next: dict[str, int] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._prefix = ""
        self._start = 0

    # --- names -----------------------------------------------------------------------------------------------------------

    def fresh(self, name: str) -> str:
        """``name``, or with a number behind it if it is taken; taken from now on."""
        number, unique = self._next.get(name, 0), name
        while unique in self._taken:
            number += 1
            unique = f"{name}_{number}"
        self._next[name] = number
        self._taken.add(unique)
        return unique

    # --- writing -----------------------------------------------------------------------------------------------------------

    def lower(self, node: Node) -> None:
        """Write one irconv node; its operands have been written."""
        self._prefix, self._start = node.name, len(self.nodes)
        operands = [operand.name for operand in self.graph.operands(node)]
        # runtimes differ in what they do with no elements
        result = LOWERINGS[node.op.name](self, node, *operands) if node.type.size else self.filled(node.type, 0)
        written = self.nodes[self._start :]
        if not written or result not in written[-1].output:
            self.op("Identity", result)
            written = self.nodes[self._start :]
            result = written[-1].output[0]
        for proto in written:
            _rename(proto.input, result, node.name)
            _rename(proto.output, result, node.name)
            describe(proto, node)
        written[-1].name = node.name

    def copy(self, node: Node, name: str) -> None:
        """Write a copy of a value under another name (an output that is also something else)."""
        proto = helper.make_node("Identity", [node.name], [name], name=name)
        describe(proto, node)
        self.nodes.append(proto)

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Write one ONNX node and return the name of its first output.  "" leaves an optional input out."""
        return self.ops(kind, *inputs, outputs=outputs, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        """Write one ONNX node and return the names of all its outputs."""
        name = self.fresh(f"{self._prefix}/{kind}")
        results = [name if i == 0 else self.fresh(f"{name}.{i}") for i in range(outputs)]
        given = list(inputs)
        while given and not given[-1]:
            given.pop()
        self.nodes.append(helper.make_node(kind, given, results, name=name, **attributes))
        return results

    def constant(self, array: Any, dtype: DType | np.dtype | type | None = None) -> str:
        """The name of an initialiser with these elements; equal ones are stored once."""
        value = np.asarray(array, dtype.numpy if isinstance(dtype, DType) else dtype)
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            name = self.fresh(f"{self._prefix}/constant")
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
            self._constants[key] = name
        return self._constants[key]

    def ints(self, values: Iterable[int]) -> str:
        """A constant int64 vector: a shape, axes, amounts."""
        return self.constant(list(values), np.int64)

    def initializer(self, name: str, array: np.ndarray) -> None:
        """Store an array under a name of the graph."""
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))

    # --- what many lowerings need ------------------------------------------------------------------------------------------

    def cast(self, x: str, dtype: DType) -> str:
        """x converted to ``dtype``."""
        return self.op("Cast", x, to=element_type(dtype))

    def carried(self, x: str, dtype: DType, carrier: DType) -> str:
        """x converted from ``dtype`` to the type that it is computed in, where that is another."""
        return x if carrier is dtype else self.cast(x, carrier)

    def back(self, x: str, dtype: DType, carrier: DType) -> str:
        """Undo :meth:`carried` for a result."""
        return x if carrier is dtype else self.cast(x, dtype)

    def op_in(self, wide: DType, dtype: DType, kind: str, *inputs: str, **attributes: Any) -> str:
        """One ONNX node on values of ``dtype``, computed in another type."""
        return self.back(self.op(kind, *(self.carried(x, dtype, wide) for x in inputs), **attributes), dtype, wide)

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """x under another shape."""
        return self.op("Reshape", x, self.ints(shape), allowzero=int(0 in shape))

    def transpose(self, x: str, axes: Sequence[int]) -> str:
        """x with its axes in another order."""
        return x if list(axes) == sorted(axes) else self.op("Transpose", x, perm=list(axes))

    def expand(self, x: str, shape: Sequence[int]) -> str:
        """x broadcast to a shape."""
        return self.op("Expand", x, self.ints(shape))

    def filled(self, type_: TensorType, number: Any) -> str:
        """A tensor of one number."""
        value = numpy_helper.from_array(np.full(1, number, type_.dtype.numpy))
        return self.op("ConstantOfShape", self.ints(type_.shape), value=value)

    def slice(self, x: str, start: Sequence[int], stop: Sequence[int], step: Sequence[int], axes: Sequence[int]) -> str:
        """x[start:stop:step] along each of ``axes``."""
        return self.op("Slice", x, self.ints(start), self.ints(stop), self.ints(axes), self.ints(step))

    def reduce(self, kind: str, x: str, axes: Sequence[int], keepdims: bool = False) -> str:
        """A reduction of ONNX over ``axes``, of which there is at least one."""
        return self.op(kind, x, self.ints(axes), keepdims=int(keepdims))


def _rename(names: Any, old: str, new: str) -> None:
    for i, name in enumerate(names):
        if name == old:
            names[i] = new


def describe(proto: NodeProto, node: Node) -> None:
    """Note on an ONNX node where the irconv node comes from: the line in doc_string, the rest in metadata_props."""
    where = node.provenance
    if where.location is not None:
        proto.doc_string = str(where.location)
    known = {
        "op": node.op.name,
        "scope": where.scope,
        "composite": str(where.composite or ""),
        "origin": where.origin or "",
    }
    for key, value in known.items():
        if value:
            entry = proto.metadata_props.add()
            entry.key, entry.value = f"irconv.{key}", value
