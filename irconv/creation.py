"""New tensors from a shape."""

from __future__ import annotations

from typing import Any

import numpy as np

from irconv.concrete import ConcreteValue
from irconv.tensor import Tensor
from irconv.types import F32, I64, as_dtype, tensor_type


def zeros(shape: Any, dtype: Any = F32) -> Tensor:
    """A concrete tensor of zeros."""
    return full(shape, 0, dtype)


def ones(shape: Any, dtype: Any = F32) -> Tensor:
    """A concrete tensor of ones."""
    return full(shape, 1, dtype)


def full(shape: Any, value: float, dtype: Any = F32) -> Tensor:
    """A concrete tensor filled with ``value``."""
    dims = shape if isinstance(shape, (tuple, list)) else (shape,)
    made = tensor_type(dtype, dims)
    return Tensor(ConcreteValue(np.full(made.shape, value, made.dtype.numpy)))


def arange(*bounds: float, dtype: Any = None) -> Tensor:
    """A concrete tensor like numpy.arange; int64 for integers, float32 for floats."""
    array = np.arange(*bounds)
    usual = I64 if np.issubdtype(array.dtype, np.integer) else F32
    return Tensor(ConcreteValue(array.astype(as_dtype(usual if dtype is None else dtype).numpy)))
