"""Clipping of gradients, at once or inside a trace."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from irconv.concrete import no_grad
from irconv.errors import AttributeValueError, NumericsError
from irconv.nn.module import Parameter
from irconv.ops import elementwise as e
from irconv.ops.reduce import reduce_max, reduce_sum
from irconv.tensor import Tensor, as_tensor, stack


def _norm(gradients: Sequence[Tensor], norm_type: float) -> Tensor:
    """The norm of all gradients together, in float32 or, if all are, float64."""
    wide = [g.astype(g.type.dtype.accumulator) for g in gradients]
    if math.isinf(norm_type):
        result = reduce_max(stack([reduce_max(e.absolute(g)) for g in wide]))
    else:
        powers = [e.square(g) if norm_type == 2 else e.power(e.absolute(g), norm_type) for g in wide]
        total = reduce_sum(stack([reduce_sum(p) for p in powers]))
        result = e.sqrt(total) if norm_type == 2 else e.power(total, 1 / norm_type)
    assert isinstance(result, Tensor)
    return result


def clip_norm(gradients: Sequence[Tensor], max_norm: float, norm_type: float = 2.0) -> tuple[list[Tensor], Tensor]:
    """Gradients times min(1, max_norm / (norm + 1e-6)), and the norm of all of them together before."""
    if not max_norm > 0 or not norm_type > 0:
        raise AttributeValueError(f"max_norm and norm_type must be positive, got {max_norm} and {norm_type}")
    if not gradients:
        return [], as_tensor(0.0)
    norm = _norm(gradients, norm_type)
    scale = (max_norm / (norm + 1e-6)).clip(None, 1.0)
    return [g * scale.astype(g.dtype) for g in gradients], norm


def clip_value(gradients: Sequence[Tensor], clip: float) -> list[Tensor]:
    """Gradients with every element kept within +-clip."""
    if not clip > 0:
        raise AttributeValueError(f"the bound must be positive, got {clip}")
    return [g.clip(-clip, clip) for g in gradients]


def _with_gradients(parameters: Parameter | Iterable[Parameter]) -> list[tuple[Parameter, Tensor]]:
    given = [parameters] if isinstance(parameters, Parameter) else list(parameters)
    return [(p, p.grad) for p in given if p.grad is not None]


def clip_grad_norm_(
    parameters: Parameter | Iterable[Parameter],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale the gradients of parameters down to a norm of at most ``max_norm`` (all together); returns the norm before."""
    chosen = _with_gradients(parameters)
    with no_grad():
        clipped, norm = clip_norm([g for _, g in chosen], max_norm, norm_type)
    if error_if_nonfinite and not np.isfinite(norm.item()):
        raise NumericsError(f"the norm of the gradients is {norm.item()}")
    for (parameter, _), gradient in zip(chosen, clipped, strict=True):
        parameter.grad = gradient
    return norm


def clip_grad_value_(parameters: Parameter | Iterable[Parameter], clip: float) -> None:
    """Keep every element of the gradients of parameters within +-clip."""
    chosen = _with_gradients(parameters)
    with no_grad():
        clipped = clip_value([g for _, g in chosen], clip)
    for (parameter, _), gradient in zip(chosen, clipped, strict=True):
        parameter.grad = gradient
