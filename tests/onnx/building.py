"""Small ONNX models for the tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from irconv.frontends.onnx import load_model

RNG = np.random.default_rng(0)
F = TensorProto.FLOAT


def info(name: str, *dims: Any, dtype: int = F) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, dims)


def stored(**arrays: Any) -> list[TensorProto]:
    return [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[str],
    tensors: list[TensorProto] | None = None,
    opset: int = 17,
    **kwargs: Any,
) -> onnx.ModelProto:
    declared = [helper.make_value_info(name, onnx.TypeProto()) for name in outputs]
    graph = helper.make_graph(nodes, "net", inputs, declared, tensors or [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **kwargs)


def load(proto: onnx.ModelProto) -> Any:
    return load_model(proto.SerializeToString())


def f32(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)
