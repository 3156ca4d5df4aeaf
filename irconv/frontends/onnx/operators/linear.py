"""Matrix products and determinants."""

from __future__ import annotations

import numpy as np

from irconv.errors import ModelError
from irconv.frontends.onnx.operators.common import constant, tensor_of
from irconv.frontends.onnx.registry import Call, operator
from irconv.op import Value
from irconv.ops import contract
from irconv.ops import elementwise as e
from irconv.ops.reduce import argmax, reduce_sum
from irconv.ops.shape import expand_dims, narrow, squeeze, transpose
from irconv.tensor import Tensor

MAX_ELIMINATED = 64
"""Rows of a matrix whose determinant can be taken: the elimination is unrolled."""


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


@operator("Det", since=11)
def determinants(call: Call, x: Tensor) -> Tensor:
    """The determinant of each matrix: the product of the pivots of Gaussian elimination, row exchanges counted."""
    if x.ndim < 2 or x.shape[-1] != x.shape[-2] or not 1 <= x.shape[-1] <= MAX_ELIMINATED:
        raise ModelError(f"determinants of {list(x.shape)}: square matrices of 1 to {MAX_ELIMINATED} rows are needed")
    rest: Value = x
    product, rest = _eliminated(rest)
    while rest.shape[-1]:
        pivot, rest = _eliminated(rest)
        product = e.multiply(product, pivot)
    return tensor_of(product)


def _eliminated(m: Value) -> tuple[Value, Value]:
    """The largest entry of the first column of [..., n, n], negative if its row was moved up; what is left."""
    place = argmax(e.absolute(squeeze(narrow(m, -1, 0, 1), -1)), -1, keepdims=True)
    chosen = expand_dims(e.equal(place, constant(np.arange(m.shape[-1]))), -1)
    row = reduce_sum(e.where(chosen, m, 0), -2, keepdims=True)
    below = narrow(e.where(chosen, narrow(m, -2, 0, 1), m), -2, 1, m.shape[-1])
    pivot = narrow(row, -1, 0, 1)
    # a column of zeros stays one, whatever it is divided by
    factors = e.divide(narrow(below, -1, 0, 1), e.where(e.equal(pivot, 0), 1, pivot))
    rest = e.subtract(below, e.multiply(factors, row))
    moved = e.not_equal(squeeze(place, -1), 0)
    value = squeeze(pivot, (-2, -1))
    return e.where(moved, e.negative(value), value), narrow(rest, -1, 1, m.shape[-1])
