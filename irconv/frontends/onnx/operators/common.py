"""What the operator families share."""

from __future__ import annotations

from typing import Any

import numpy as np

from irconv.errors import ModelError
from irconv.op import Value
from irconv.ops import elementwise as e
from irconv.ops.shape import reshape
from irconv.tensor import Tensor, as_tensor
from irconv.types import DType


def tensor_of(value: Value) -> Tensor:
    """What an op constructor gave for tensors: a tensor."""
    assert isinstance(value, Tensor)
    return value


def constant(array: Any, dtype: DType | None = None) -> Tensor:
    """An array or number as a known tensor."""
    return as_tensor(np.asarray(array, None if dtype is None else dtype.numpy))


def integers(array: np.ndarray | None, what: str) -> tuple[int, ...] | None:
    """A known input as integers.  Raises ModelError for other element types."""
    if array is None:
        return None
    if array.dtype.kind not in "iu" or array.ndim > 1:
        raise ModelError(f"{what} must be a list of integers, got {array.dtype}{list(array.shape)}")
    return tuple(int(n) for n in array.reshape(-1))


def number(array: np.ndarray, what: str) -> Any:
    """A known input of one element as a Python number."""
    if array.size != 1:
        raise ModelError(f"{what} must be one number, got shape {list(array.shape)}")
    return array.reshape(-1)[0].item()


def per_channel(values: Tensor, rank: int) -> Tensor:
    """Values [C] shaped to broadcast over [N, C, *spatial] of ``rank`` axes in all."""
    return tensor_of(reshape(values, (1, values.size, *(1,) * (rank - 2))))


def widened(x: Tensor) -> Tensor:
    """x in the type its sums are carried in: float16 as float32."""
    return tensor_of(e.cast(x, x.type.dtype.accumulator))


def same_type(x: Value, like: Tensor) -> Tensor:
    """x with the element type of ``like``."""
    return tensor_of(e.cast(x, like.dtype))


def spatial_rank(x: Tensor) -> int:
    """How many axes [N, C, *spatial] has behind the channels.  Raises ModelError if there is none."""
    if x.ndim < 3:
        raise ModelError(f"an input of [batch, channels, *spatial] is needed, got shape {list(x.shape)}")
    return x.ndim - 2


def pairs(pads: tuple[int, ...], rank: int) -> tuple[tuple[int, int], ...]:
    """ONNX's padding, all beginnings before all ends, as a pair for each axis."""
    if len(pads) != 2 * rank:
        raise ModelError(f"padding {list(pads)} does not hold {rank} beginnings and {rank} ends")
    return tuple(zip(pads[:rank], pads[rank:], strict=True))


MAX_MADE = 2**26
"""Elements that an operator may make from a size that the model names."""


def limited(count: int, what: str) -> int:
    """A number of elements to be made, checked before memory is taken."""
    if not 0 <= count <= MAX_MADE:
        raise ModelError(f"{what} is {count}, which is negative or more than {MAX_MADE}")
    return count
