"""Normalisation by statistics of the batch, the sample, groups or neighbours.

Variances are taken in two passes.  float16 is normalised in float32.
"""

from __future__ import annotations

import math
from typing import Any

from irconv.nn.functional.activation import widened
from irconv.nn.functional.common import misshapen, per_channel, refused, tensor_of
from irconv.op import Value
from irconv.ops import elementwise as e
from irconv.ops.pool import avg_pool
from irconv.ops.reduce import reduce_max, reduce_mean, reduce_sum
from irconv.ops.shape import normalize_axis, reshape
from irconv.tensor import Tensor, as_tensor, floating
from irconv.tracing import composite


def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: Any = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias, per channel of x [N, C, ...].

    In training, mean and (biased) variance are the batch's, and the running ones, which must be buffers, move towards them:
    running = (1 - momentum) running + momentum batch, with the unbiased variance.  In evaluation the running ones are used.
    An empty batch changes nothing.  Raises ShapeError for one value per channel in training.
    """
    original = floating(input)
    if original.ndim < 2:
        raise misshapen(f"batch_norm takes [batch, channels, ...], got shape {list(original.shape)}")
    x = widened(original)
    _check_channels(x.shape[1], running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    with composite("batch_norm"):
        if training and x.size:
            y = _batch_norm_training(x, running_mean, running_var, weight, bias, momentum, eps)
        else:
            if running_mean is None or running_var is None:
                if not training:
                    raise refused("batch_norm in evaluation needs running_mean and running_var")
                return original  # empty
            mean, var = (as_tensor(v, like=x) for v in (running_mean, running_var))
            centred = e.subtract(x, per_channel(mean, x.ndim))
            y = _scaled(centred, var, weight, bias, eps)
        return tensor_of(e.cast(y, original.dtype))


def _check_channels(channels: int, **given: Any) -> None:
    for name, value in given.items():
        if value is not None and as_tensor(value).shape != (channels,):
            raise misshapen(f"{name} has shape {list(as_tensor(value).shape)}, the input {channels} channels")


def _scaled(centred: Value, var: Value, weight: Any, bias: Any, eps: float) -> Value:
    """centred / sqrt(var + eps) * weight + bias, with one factor per channel: what batch-norm folding looks for."""
    scale = e.rsqrt(e.add(var, eps))
    if weight is not None:
        scale = e.multiply(scale, as_tensor(weight).astype(tensor_of(var).dtype))
    y = e.multiply(centred, per_channel(tensor_of(scale), centred.rank))
    if bias is not None:
        y = e.add(y, per_channel(as_tensor(bias).astype(tensor_of(var).dtype), centred.rank))
    return y


def _batch_norm_training(
    x: Tensor, running_mean: Any, running_var: Any, weight: Any, bias: Any, momentum: Any, eps: float
) -> Value:
    count = x.size // x.shape[1]
    if count < 2:
        raise misshapen(
            f"batch_norm in training needs more than one value per channel, got shape {list(x.shape)}",
            "use a larger batch, or evaluation mode",
        )
    axes = (0, *range(2, x.ndim))
    mean = reduce_mean(x, axes)
    centred = e.subtract(x, per_channel(tensor_of(mean), x.ndim))
    var = reduce_mean(e.square(centred), axes)
    if running_mean is not None:
        _move(running_mean, mean, momentum)
    if running_var is not None:
        _move(running_var, e.multiply(var, count / (count - 1)), momentum)
    return _scaled(centred, var, weight, bias, eps)


def _move(running: Any, batch: Value, momentum: Any) -> None:
    """running = (1 - momentum) running + momentum batch."""
    if not isinstance(running, Tensor):
        raise refused(f"running statistics are buffers (irconv.nn.Buffer), got a {type(running).__name__}")
    new = tensor_of(e.stop_gradient(e.cast(batch, running.dtype)))
    running.assign(running * (1 - momentum) + new * momentum)


def instance_norm(
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias, with the statistics of each channel of each sample.

    Running statistics, if given, move towards the batch's average ones; without ``use_input_stats`` they are used instead.
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    original = floating(input)
    count = math.prod(original.shape[2:])
    if original.ndim < 3 or count < 2:
        raise misshapen(
            f"instance_norm needs more than one value per channel and sample, got shape {list(original.shape)}"
        )
    x = widened(original)
    _check_channels(x.shape[1], running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    with composite("instance_norm"):
        axes = tuple(range(2, x.ndim))
        mean = reduce_mean(x, axes, keepdims=True)
        centred = e.subtract(x, mean)
        var = reduce_mean(e.square(centred), axes, keepdims=True)
        across = (0, *axes)
        if x.size and running_mean is not None:
            _move(running_mean, reduce_mean(mean, across), momentum)
        if x.size and running_var is not None:
            _move(running_var, e.multiply(reduce_mean(var, across), count / (count - 1)), momentum)
        y = e.multiply(centred, e.rsqrt(e.add(var, eps)))
        return tensor_of(e.cast(_affine(y, weight, bias, (1, x.shape[1], *(1,) * (x.ndim - 2))), original.dtype))


def _affine(y: Value, weight: Any, bias: Any, shape: tuple[int, ...]) -> Value:
    """y * weight + bias, both brought to ``shape``."""
    dtype = y.type.dtype
    if weight is not None:
        y = e.multiply(y, reshape(as_tensor(weight).astype(dtype), shape))
    if bias is not None:
        y = e.add(y, reshape(as_tensor(bias).astype(dtype), shape))
    return y


def _standardised(x: Value, axes: tuple[int, ...], eps: float) -> Value:
    """(x - mean) / sqrt(variance + eps) over axes."""
    centred = e.subtract(x, reduce_mean(x, axes, keepdims=True))
    var = reduce_mean(e.square(centred), axes, keepdims=True)
    return e.multiply(centred, e.rsqrt(e.add(var, eps)))


def layer_norm(input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axes, whose sizes are ``normalized_shape``."""
    x = floating(input)
    sizes = tuple(normalized_shape) if hasattr(normalized_shape, "__iter__") else (normalized_shape,)
    if not sizes or x.shape[-len(sizes) :] != sizes:
        raise misshapen(f"layer_norm over {list(sizes)}: the input has shape {list(x.shape)}")
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and as_tensor(value).shape != sizes:
            raise misshapen(f"layer_norm over {list(sizes)}: the {name} has shape {list(as_tensor(value).shape)}")
    with composite("layer_norm"):
        y = _standardised(widened(x), tuple(range(x.ndim - len(sizes), x.ndim)), eps)
        return tensor_of(e.cast(_affine(y, weight, bias, sizes), x.dtype))


def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias, with the statistics of each group of channels of each sample."""
    x = floating(input)
    if x.ndim < 2 or num_groups < 1 or x.shape[1] % num_groups:
        raise misshapen(
            f"group_norm: {num_groups} groups do not divide the channels of an input of shape {list(x.shape)}"
        )
    _check_channels(x.shape[1], weight=weight, bias=bias)
    with composite("group_norm"):
        groups = reshape(widened(x), (x.shape[0], num_groups, x.shape[1] // num_groups, *x.shape[2:]))
        y = reshape(_standardised(groups, tuple(range(2, groups.rank)), eps), x.shape)
        return tensor_of(e.cast(_affine(y, weight, bias, (1, x.shape[1], *(1,) * (x.ndim - 2))), x.dtype))


def local_response_norm(input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + alpha mean(x^2))^beta, the mean over ``size`` neighbouring channels (missing ones are zero)."""
    original = floating(input)
    if original.ndim < 3 or size < 1:
        raise misshapen(
            f"local_response_norm takes [batch, channels, *spatial] and size >= 1, got {list(original.shape)} and {size}"
        )
    x = widened(original)
    with composite("local_response_norm"):
        rows = reshape(e.square(x), (x.shape[0], 1, x.shape[1], math.prod(x.shape[2:])))
        padding = ((size // 2, (size - 1) // 2), (0, 0))
        mean = reshape(avg_pool(rows, (size, 1), (1, 1), padding), x.shape)
        return tensor_of(e.cast(e.divide(x, e.power(e.add(e.multiply(mean, alpha), k), beta)), original.dtype))


def normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x / max(norm, eps), the p-norm along an axis."""
    x = floating(input)
    if not p > 0:
        raise refused(f"p {p} is not positive")
    axis = normalize_axis(dim, x.ndim)
    with composite("normalize"):
        size = e.absolute(x)
        if math.isinf(p):
            return tensor_of(e.divide(x, e.maximum(reduce_max(size, axis, keepdims=True), eps)))
        total = reduce_sum(e.square(x) if p == 2 else e.power(size, p), axis, keepdims=True)
        # the root of 0 has no finite slope: where the norm is 0, eps stands in before the root is taken
        positive = e.greater(total, 0)
        safe = e.where(positive, total, 1)
        norm = e.where(positive, e.sqrt(safe) if p == 2 else e.power(safe, 1 / p), 0)
        return tensor_of(e.divide(x, e.maximum(norm, eps)))
