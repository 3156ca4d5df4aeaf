"""Matrix products."""

from __future__ import annotations

from irconv.errors import ModelError
from irconv.frontends.onnx.operators.common import tensor_of
from irconv.frontends.onnx.registry import Call, operator
from irconv.op import Value
from irconv.ops import contract
from irconv.ops import elementwise as e
from irconv.ops.shape import transpose
from irconv.tensor import Tensor


@operator("MatMul", weights=(0, 1))
def matmul(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """The matrix product as NumPy's."""
    return tensor_of(contract.matmul(a, b))


@operator("Gemm", weights=(1, 2))
def gemm(call: Call, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """Alpha times a b, plus beta times c."""
    if a.ndim != 2 or b.ndim != 2:
        raise ModelError(f"Gemm multiplies matrices, got {list(a.shape)} and {list(b.shape)}")
    attributes = call.attributes
    left: Value = transpose(a) if attributes.flag("transA") else a
    right: Value = transpose(b) if attributes.flag("transB") else b
    y = _scaled(contract.matmul(left, right), attributes.float("alpha", 1.0))
    beta = attributes.float("beta", 1.0)
    if c is None or beta == 0:
        return tensor_of(y)
    return tensor_of(e.add(y, _scaled(c, beta)))


def _scaled(x: Value, factor: float) -> Value:
    if factor == 1:
        return x
    if x.type.dtype.is_float:
        return e.multiply(x, factor)
    return e.cast(e.multiply(e.cast(x, "f64"), factor), x.type.dtype)
