"""What the functions of this package share: turning arguments into tensors, samples without a batch axis, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from irconv.errors import AttributeValueError, ShapeError
from irconv.op import Value
from irconv.ops.shape import expand_dims, reshape, squeeze
from irconv.tensor import Tensor, as_tensor


def tensor_of(value: Value) -> Tensor:
    """What an op constructor gave for tensors: a tensor."""
    assert isinstance(value, Tensor)
    return value


def refused(message: str, hint: str | None = None) -> AttributeValueError:
    """The error for a parameter that is out of range, at the user's line."""
    return AttributeValueError(message, hint=hint)


def misshapen(message: str, hint: str | None = None) -> ShapeError:
    """The error for shapes that do not fit, at the user's line."""
    return ShapeError(message, hint=hint)


def batched(x: Tensor, rank: int, what: str) -> tuple[Tensor, bool]:
    """x as [N, C, *spatial] with ``rank`` spatial axes, and whether the batch axis had to be added."""
    if x.ndim == rank + 2:
        return x, False
    if x.ndim == rank + 1:
        return tensor_of(expand_dims(x, 0)), True
    raise misshapen(
        f"{what} takes an input of {rank + 2} axes [batch, channels, {rank} spatial], or {rank + 1} without batch, "
        f"got shape {list(x.shape)}"
    )


def with_batch(input: Any, rank: int, what: str, function: Callable[[Tensor], Value]) -> Tensor:
    """``function`` of the batched input; a batch axis that was added is taken off again."""
    x, added = batched(as_tensor(input), rank, what)
    result = function(x)
    return tensor_of(squeeze(result, 0) if added else result)


def per_channel(values: Tensor, rank: int) -> Tensor:
    """Values [C] shaped to broadcast over [N, C, *spatial] of ``rank`` axes in all."""
    return tensor_of(reshape(values, (1, values.size, *(1,) * (rank - 2))))


def amounts(value: Any, rank: int, name: str) -> tuple[int, ...]:
    """One integer per spatial axis, from one for all or a sequence."""
    values = tuple(value) if hasattr(value, "__iter__") else (value,) * rank
    if len(values) == 1:
        values *= rank
    if len(values) != rank or not all(hasattr(v, "__index__") for v in values):
        raise refused(f"{name} must be an integer or {rank} integers, got {value!r}")
    return tuple(int(v.__index__()) for v in values)


def check_reduction(reduction: str) -> None:
    """Raise unless ``reduction`` is a known way to sum up a loss."""
    if reduction not in ("none", "mean", "sum"):
        raise refused(f"reduction {reduction!r} is not one of none, mean, sum")
