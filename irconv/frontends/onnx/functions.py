"""Operators that ONNX itself defines by simpler ones: opened when there is no handler for them."""

from __future__ import annotations

from typing import Any

from onnx import FunctionProto, NodeProto, TypeProto, checker, defs, helper

from irconv.errors import ModelError
from irconv.frontends.onnx.formats import Format
from irconv.frontends.onnx.graphs import GraphReader, Node, OnnxGraph
from irconv.types import TensorType

InputType = tuple[TensorType, Format | None]
"""The type of an operator's input, and the narrow type that it holds, if it is one."""

CHECKED = frozenset({"Attention", "CausalConvWithState", "FlexAttention", "LinearAttention", "RotaryEmbedding"})
"""Operators whose definition depends on the types of their inputs, that may be asked for of nodes in untrusted files."""


def _schema(node: Node) -> Any:
    try:
        return defs.get_schema(node.operator, node.opset, node.domain)
    except defs.SchemaError:
        return None


def has_body(node: Node) -> bool:
    """Whether ONNX defines the node's operator by simpler ones, and the definition can be had for any node."""
    schema = _schema(node)
    return schema is not None and (schema.has_function or (schema.has_context_dependent_function and node.operator in CHECKED))


def expanded(node: Node, types: tuple[InputType | None, ...], reader: GraphReader) -> OnnxGraph:
    """The body of a function that ONNX defines, for inputs of these types (None for one that is left out)."""
    schema = _schema(node)
    proto = NodeProto(op_type=node.operator, domain=node.domain, input=node.inputs, output=node.outputs)
    proto.attribute.extend(node.attributes.protos.values())
    if schema.has_function:
        data = schema.get_function_with_opset_version(_best(schema.function_opset_versions, node.opset))
    else:
        _check(node, proto)
        version = _best(schema.context_dependent_function_opset_versions, node.opset)
        given = [_type_proto(t).SerializeToString() for t in types]
        data = schema.get_context_dependent_function_with_opset_version(version, proto.SerializeToString(), given)
    function = FunctionProto()
    function.ParseFromString(data)
    if not function.node:
        raise ModelError(f"node {node}: ONNX does not say what it means for these inputs")
    return reader.function(function, proto, {"": node.opset if node.domain == "" else newest()})


def _check(node: Node, proto: NodeProto) -> None:
    """Raise ModelError for missing or mistyped attributes: ONNX's own code takes them for granted."""
    context = checker.DEFAULT_CONTEXT.__class__()
    context.ir_version = checker.DEFAULT_CONTEXT.ir_version
    context.opset_imports = {"": newest(), node.domain: node.opset}
    try:
        checker.check_node(proto, context)
    except checker.ValidationError as error:
        raise ModelError(f"node {node} is malformed: {str(error).splitlines()[0]}") from None


def _best(versions: list[int], opset: int) -> int:
    """The newest definition that the operator set's version has."""
    return max((v for v in versions if v <= opset), default=min(versions))


def newest() -> int:
    """The newest version of ONNX's own operator set that is known here."""
    version: int = defs.onnx_opset_version()
    return version


def _type_proto(given: InputType | None) -> TypeProto:
    if given is None:
        return TypeProto()
    type_, form = given
    if form is not None:
        return helper.make_tensor_type_proto(form.number, type_.shape)
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(type_.dtype.numpy), type_.shape)
