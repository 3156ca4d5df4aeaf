"""Dropout: elements or whole channels set to zero at random."""

from __future__ import annotations

from typing import Any

from irconv.nn.functional.common import misshapen, refused, tensor_of
from irconv.ops import elementwise as e
from irconv.ops.shape import zeros
from irconv.random import Generator, default_generator
from irconv.tensor import Tensor, floating
from irconv.tracing import composite


def _dropped(x: Tensor, mask_shape: tuple[int, ...], p: float, training: bool, generator: Generator | None) -> Tensor:
    if not 0 <= p <= 1:
        raise refused(f"dropout probability {p} is not between 0 and 1")
    if not training or p == 0:
        return x
    if p == 1:
        return tensor_of(e.multiply(x, zeros((), x)))
    with composite("dropout"):
        keep = (generator or default_generator()).bernoulli(mask_shape, 1 - p)
        return tensor_of(e.where(keep, e.multiply(x, 1 / (1 - p)), 0))


def dropout(
    input: Any, p: float = 0.5, training: bool = True, inplace: bool = False, generator: Generator | None = None
) -> Tensor:
    """In training, each element is 0 with probability p, and divided by 1 - p otherwise."""
    x = floating(input)
    return _dropped(x, x.shape, p, training, generator)


def _channels(rank: int, input: Any, p: float, training: bool, generator: Generator | None) -> Tensor:
    x = floating(input)
    if x.ndim not in (rank + 1, rank + 2):
        raise misshapen(
            f"dropout{rank}d takes [batch, channels, {rank} spatial axes], or those without batch, got shape {list(x.shape)}"
        )
    return _dropped(x, (*x.shape[: x.ndim - rank], *(1,) * rank), p, training, generator)


def dropout1d(
    input: Any, p: float = 0.5, training: bool = True, inplace: bool = False, generator: Generator | None = None
) -> Tensor:
    """Dropout of whole channels of [N, C, L] or [C, L]."""
    return _channels(1, input, p, training, generator)


def dropout2d(
    input: Any, p: float = 0.5, training: bool = True, inplace: bool = False, generator: Generator | None = None
) -> Tensor:
    """Dropout of whole channels of [N, C, H, W] or [C, H, W]."""
    return _channels(2, input, p, training, generator)


def dropout3d(
    input: Any, p: float = 0.5, training: bool = True, inplace: bool = False, generator: Generator | None = None
) -> Tensor:
    """Dropout of whole channels of [N, C, D, H, W] or [C, D, H, W]."""
    return _channels(3, input, p, training, generator)
