"""Small ONNX models for the tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irconv.errors import ModelError
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


def small_network() -> onnx.ModelProto:
    """A convolution with batch norm and a linear layer behind it, of any batch."""
    nodes = [
        helper.make_node("Conv", ["image", "conv.weight", "conv.bias"], ["features"], name="/conv/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["features", "bn.weight", "bn.bias", "bn.mean", "bn.var"], ["normal"], name="/bn"),
        helper.make_node("Relu", ["normal"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"], name="/pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="/flatten"),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["scores"], name="/fc/Gemm", transB=1),
    ]
    tensors = {
        "conv.weight": f32(4, 3, 3, 3), "conv.bias": f32(4), "bn.weight": f32(4), "bn.bias": f32(4), "bn.mean": f32(4),
        "bn.var": f32(4) ** 2 + 1, "fc.weight": f32(5, 4), "fc.bias": f32(5),
    }  # fmt: skip
    return model(nodes, [info("image", "batch", 3, 8, 8)], ["scores"], stored(**tensors))


def refused(proto: onnx.ModelProto | bytes, *words: str) -> ModelError:
    """The error of a model that cannot be imported, which has these words in it."""
    data = proto if isinstance(proto, bytes) else proto.SerializeToString()
    with pytest.raises(ModelError) as caught:
        load_model(data)
    for word in words:
        assert word in str(caught.value)
    return caught.value
