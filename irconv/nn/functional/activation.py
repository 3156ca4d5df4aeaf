"""Activations.  ``inplace`` is taken for PyTorch's sake and changes nothing: values are never overwritten."""

from __future__ import annotations

import math
from typing import Any

from irconv.nn.functional.common import misshapen, refused, tensor_of
from irconv.ops import elementwise as e
from irconv.ops.concat import split
from irconv.ops.reduce import reduce_max, reduce_sum
from irconv.ops.shape import normalize_axis, reshape
from irconv.tensor import Tensor, as_tensor, floating
from irconv.tracing import composite
from irconv.types import F16

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


def relu(input: Any, inplace: bool = False) -> Tensor:
    """max(x, 0); its gradient at 0 is 0."""
    return tensor_of(e.relu(as_tensor(input)))


def _bounded(x: Tensor, low: float, high: float) -> Tensor:
    """x clipped to [low, high], with a gradient of 0 at the bounds themselves (clip passes it there)."""
    return tensor_of(e.where(e.greater_equal(x, high), high, e.where(e.less_equal(x, low), low, x)))


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x clipped to [min_val, max_val]; no gradient passes at the bounds."""
    if not min_val < max_val:
        raise refused(f"min_val {min_val} is not below max_val {max_val}")
    with composite("hardtanh"):
        return _bounded(as_tensor(input), min_val, max_val)


def relu6(input: Any, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6); no gradient passes at the bounds."""
    with composite("relu6"):
        return _bounded(as_tensor(input), 0.0, 6.0)


def leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, negative_slope * x elsewhere."""
    x = floating(input)
    with composite("leaky_relu"):
        return tensor_of(e.where(e.greater(x, 0), x, e.multiply(x, negative_slope)))


def prelu(input: Any, weight: Any) -> Tensor:
    """x where x > 0, weight * x elsewhere, with one weight for all or one for each channel (axis 1)."""
    x, slope = floating(input), as_tensor(weight)
    channels = x.shape[1] if x.ndim > 1 else 1
    if slope.size not in (1, channels) or slope.ndim > 1:
        raise misshapen(
            f"prelu takes 1 or {channels} weights for an input of shape {list(x.shape)}, got shape {list(slope.shape)}"
        )
    shaped = reshape(slope, (slope.size, *(1,) * (x.ndim - 2)) if slope.size > 1 else ())
    with composite("prelu"):
        return tensor_of(e.where(e.greater(x, 0), x, e.multiply(x, shaped)))


def _negative_part(x: Tensor) -> Tensor:
    """x where x <= 0, 0 elsewhere: safe to exponentiate, with the gradient of that side at 0."""
    return tensor_of(e.where(e.greater(x, 0), 0, x))


def elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, alpha (exp(x) - 1) elsewhere."""
    x = floating(input)
    with composite("elu"):
        return tensor_of(e.where(e.greater(x, 0), x, e.multiply(e.expm1(_negative_part(x)), alpha)))


def celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, alpha (exp(x / alpha) - 1) elsewhere."""
    x = floating(input)
    with composite("celu"):
        return tensor_of(e.where(e.greater(x, 0), x, e.multiply(e.expm1(e.divide(_negative_part(x), alpha)), alpha)))


def selu(input: Any, inplace: bool = False) -> Tensor:
    """Elu with the two constants that keep mean 0 and variance 1."""
    x = floating(input)
    with composite("selu"):
        negative = e.multiply(e.expm1(_negative_part(x)), SELU_SCALE * SELU_ALPHA)
        return tensor_of(e.where(e.greater(x, 0), e.multiply(x, SELU_SCALE), negative))


def gelu(input: Any, approximate: str = "none") -> Tensor:
    """x times the normal distribution function: x (1 + erf(x / sqrt 2)) / 2; approximate 'tanh': by its tanh formula."""
    x = floating(input)
    with composite("gelu"):
        if approximate == "none":
            inner = e.erf(e.multiply(x, math.sqrt(0.5)))
        elif approximate == "tanh":
            cubic = e.add(x, e.multiply(e.multiply(e.square(x), x), 0.044715))
            inner = e.tanh(e.multiply(cubic, math.sqrt(2 / math.pi)))
        else:
            raise refused(f"approximate {approximate!r} is neither 'none' nor 'tanh'")
        return tensor_of(e.multiply(e.multiply(x, 0.5), e.add(inner, 1)))


def sigmoid(input: Any) -> Tensor:
    """1 / (1 + exp(-x))."""
    return tensor_of(e.sigmoid(floating(input)))


def tanh(input: Any) -> Tensor:
    """The hyperbolic tangent."""
    return tensor_of(e.tanh(floating(input)))


def silu(input: Any, inplace: bool = False) -> Tensor:
    """x sigmoid(x)."""
    x = floating(input)
    with composite("silu"):
        return tensor_of(e.multiply(x, e.sigmoid(x)))


def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta x)) / beta; x itself where beta x > threshold."""
    x = floating(input)
    with composite("softplus"):
        scaled = e.multiply(x, beta) if beta != 1 else x
        linear = e.greater(scaled, threshold)
        curved = e.log1p(e.exp(e.where(linear, 0, scaled)))
        return tensor_of(e.where(linear, x, e.divide(curved, beta) if beta != 1 else curved))


def exact_softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) to the precision of the type, with the right derivatives everywhere."""
    # exp stays finite below the threshold, and above it exp(-x) is below one unit in the last place of x
    return softplus(x, 1.0, 10.0 if x.type.dtype is F16 else 80.0)


def logsigmoid(input: Any) -> Tensor:
    """log(sigmoid(x))."""
    x = floating(input)
    with composite("logsigmoid"):
        return tensor_of(e.negative(exact_softplus(tensor_of(e.negative(x)))))


def mish(input: Any, inplace: bool = False) -> Tensor:
    """x tanh(softplus(x))."""
    x = floating(input)
    with composite("mish"):
        return tensor_of(e.multiply(x, e.tanh(softplus(x))))


def hardsigmoid(input: Any, inplace: bool = False) -> Tensor:
    """relu6(x + 3) / 6."""
    x = floating(input)
    with composite("hardsigmoid"):
        return tensor_of(e.multiply(_bounded(x + 3.0, 0.0, 6.0), 1 / 6))


def hardswish(input: Any, inplace: bool = False) -> Tensor:
    """x relu6(x + 3) / 6."""
    x = floating(input)
    with composite("hardswish"):
        return tensor_of(e.multiply(x, e.multiply(_bounded(x + 3.0, 0.0, 6.0), 1 / 6)))


def softsign(input: Any) -> Tensor:
    """x / (1 + |x|)."""
    x = floating(input)
    with composite("softsign"):
        return tensor_of(e.divide(x, e.add(e.absolute(x), 1)))


def threshold(input: Any, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, ``value`` elsewhere."""
    x = as_tensor(input)
    return tensor_of(e.where(e.greater(x, threshold), x, value))


def glu(input: Any, dim: int = -1) -> Tensor:
    """The first half of an axis times the sigmoid of the second half."""
    x = floating(input)
    axis = normalize_axis(dim, x.ndim)
    if x.shape[axis] % 2:
        raise misshapen(f"glu halves axis {axis}, which has {x.shape[axis]} elements")
    with composite("glu"):
        first, second = split(x, 2, axis)
        return tensor_of(e.multiply(first, e.sigmoid(second)))


# --- softmax -----------------------------------------------------------------------------------------------------------


def _class_axis(x: Tensor, dim: int | None) -> int:
    """PyTorch's choice where none is given: the channels, or the only useful axis."""
    if dim is None:
        dim = 0 if x.ndim in (0, 1, 3) else 1
    return normalize_axis(dim, x.ndim)


def _shifted(x: Tensor, axis: int) -> Tensor:
    """x less its largest element along the axis: nothing overflows, and the result does not depend on the shift."""
    return tensor_of(e.subtract(x, e.stop_gradient(reduce_max(x, axis, keepdims=True))))


def softmax(input: Any, dim: int | None = None, dtype: Any = None) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis, computed from x - max(x)."""
    x = floating(input) if dtype is None else as_tensor(input).astype(dtype)
    axis = _class_axis(x, dim)
    with composite("softmax"):
        powers = e.exp(_shifted(widened(x), axis))
        return tensor_of(e.cast(e.divide(powers, reduce_sum(powers, axis, keepdims=True)), x.dtype))


def softmin(input: Any, dim: int | None = None, dtype: Any = None) -> Tensor:
    """softmax(-x)."""
    return softmax(-as_tensor(input), dim, dtype)


def log_softmax(input: Any, dim: int | None = None, dtype: Any = None) -> Tensor:
    """x - max(x) - log(sum(exp(x - max(x)))) along an axis: log(softmax(x)) without overflow or underflow."""
    x = floating(input) if dtype is None else as_tensor(input).astype(dtype)
    axis = _class_axis(x, dim)
    with composite("log_softmax"):
        shifted = _shifted(widened(x), axis)
        total = e.log(reduce_sum(e.exp(shifted), axis, keepdims=True))
        return tensor_of(e.cast(e.subtract(shifted, total), x.dtype))


def widened(x: Tensor) -> Tensor:
    """x in the type its sums are carried in: float16 as float32."""
    return x.astype(x.type.dtype.accumulator)
