"""Normalisation by statistics of the batch, the sample, groups, neighbours or norms.  float16 is normalised in float32."""

from __future__ import annotations

import math

import irconv.nn.functional as F
from irconv.errors import ModelError
from irconv.frontends.onnx.operators.common import per_channel, same_type, tensor_of, widened
from irconv.frontends.onnx.registry import Call, operator
from irconv.op import Value
from irconv.ops import elementwise as e
from irconv.ops.pool import avg_pool
from irconv.ops.reduce import reduce_mean, reduce_sum
from irconv.ops.shape import normalize_axes, normalize_axis, reshape
from irconv.tensor import Tensor
from irconv.tracing import composite
from irconv.types import F32, as_dtype

# --- batch norm ------------------------------------------------------------------------------------------------------------


@operator("BatchNormalization", weights=(1, 2), buffers=(3, 4))
def batch_normalization(
    call: Call, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
) -> tuple[Tensor | None, ...]:
    """(x - mean) / sqrt(var + epsilon) * scale + bias, per channel.

    Where the node says that it trains, the batch's own mean and variance are used, and the second and third output are
    momentum times the given ones plus (1 - momentum) times the batch's.  Where only the model trains, it does so as the layer in
    :mod:`irconv.nn` does, and its buffers move.
    """
    a = call.attributes
    eps, momentum = a.float("epsilon", 1e-5), a.float("momentum", 0.9)
    if call.opset < 9 and not a.int("spatial", 1):
        return (_normalise_each(x, scale, bias, mean, var, eps),)
    if call.opset >= 14 and a.flag("training_mode"):
        return _batch_statistics(x, scale, bias, mean, var, eps, momentum)
    buffers = all(getattr(value.value, "variable", None) is not None for value in (mean, var))
    y = F.batch_norm(x, mean, var, scale, bias, call.training and buffers, 1 - momentum, eps)
    return y, mean, var, mean, var


def _normalise_each(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    """With statistics for every element of a sample (before version 9)."""
    with composite("batch_norm"):
        y = e.divide(e.subtract(x, mean), e.sqrt(e.add(var, eps)))
        return tensor_of(e.add(e.multiply(y, scale), bias))


def _batch_statistics(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float, momentum: float
) -> tuple[Tensor, Tensor, Tensor]:
    with composite("batch_norm"):
        wide = widened(x)
        axes = (0, *range(2, x.ndim))
        batch_mean = reduce_mean(wide, axes)
        centred = e.subtract(wide, per_channel(tensor_of(batch_mean), x.ndim))
        batch_var = reduce_mean(e.square(centred), axes)
        factor = e.multiply(e.rsqrt(e.add(batch_var, eps)), e.cast(scale, wide.dtype))
        y = e.multiply(centred, per_channel(tensor_of(factor), x.ndim))
        y = e.add(y, per_channel(same_type(bias, wide), x.ndim))

    def moved(old: Tensor, new: Value) -> Tensor:
        mixed = e.add(e.multiply(e.cast(old, wide.dtype), momentum), e.multiply(new, 1 - momentum))
        return same_type(mixed, old)

    return same_type(y, x), moved(mean, batch_mean), moved(var, batch_var)


# --- of each sample --------------------------------------------------------------------------------------------------------


def standardised(x: Value, axes: tuple[int, ...], eps: float) -> tuple[Value, Value, Value]:
    """(x - mean) / sqrt(variance + eps) over axes, with the mean and 1 / sqrt(variance + eps)."""
    mean = reduce_mean(x, axes, keepdims=True)
    centred = e.subtract(x, mean)
    inverse = e.rsqrt(e.add(reduce_mean(e.square(centred), axes, keepdims=True), eps))
    return e.multiply(centred, inverse), mean, inverse


@operator("InstanceNormalization", weights=(1, 2))
def instance_normalization(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, with the statistics of each channel of each sample."""
    with composite("instance_norm"):
        wide = widened(x)
        y, _, _ = standardised(wide, tuple(range(2, x.ndim)), call.attributes.float("epsilon", 1e-5))
        y = e.multiply(y, per_channel(same_type(scale, wide), x.ndim))
        return same_type(e.add(y, per_channel(same_type(bias, wide), x.ndim)), x)


@operator("LayerNormalization", weights=(1, 2))
def layer_normalization(
    call: Call, x: Tensor, scale: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor | None, ...]:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the axes from ``axis`` on; also the mean and the factor.

    stash_type says in what element type the statistics are computed.
    """
    a = call.attributes
    first = normalize_axis(a.int("axis", -1), x.ndim)
    with composite("layer_norm"):
        wide = _stashed(call, x)
        y, mean, inverse = standardised(wide, tuple(range(first, x.ndim)), a.float("epsilon", 1e-5))
        y = same_type(y, x)
        if scale is not None:
            y = e.multiply(y, scale)
        if bias is not None:
            y = e.add(y, bias)
    return tensor_of(y), tensor_of(mean), tensor_of(inverse)


def _stashed(call: Call, x: Tensor) -> Tensor:
    """x in the element type for statistics: float32 unless stash_type says otherwise, never a narrower one."""
    stash = call.attributes.int("stash_type", 1)
    if stash not in (1, 10, 11, 16):
        raise ModelError(f"stash_type {stash} is not a floating-point type")
    wide = as_dtype("f64") if stash == 11 else F32
    return tensor_of(e.cast(x, wide)) if wide.bytes > x.type.dtype.bytes else x


@operator("RMSNormalization", weights=(1,))
def rms_normalization(call: Call, x: Tensor, scale: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + epsilon) * scale over the axes from ``axis`` on."""
    a = call.attributes
    axes = tuple(range(normalize_axis(a.int("axis", -1), x.ndim), x.ndim))
    with composite("rms_norm"):
        wide = _stashed(call, x)
        inverse = e.rsqrt(e.add(reduce_mean(e.square(wide), axes, keepdims=True), a.float("epsilon", 1e-5)))
        return tensor_of(e.multiply(same_type(e.multiply(wide, inverse), x), scale))


@operator("GroupNormalization", weights=(1, 2))
def group_normalization(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias by groups of channels.

    Before version 21 scale and bias are one number a group, from then on one a channel.
    """
    groups = call.attributes.int("num_groups")
    if x.ndim < 2 or groups < 1 or x.shape[1] % groups:
        raise ModelError(f"{groups} groups do not divide the channels of an input of shape {list(x.shape)}")
    with composite("group_norm"):
        wide = _stashed(call, x)
        split = reshape(wide, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
        y, _, _ = standardised(split, tuple(range(2, split.rank)), call.attributes.float("epsilon", 1e-5))
        if call.opset >= 21:
            y = reshape(y, x.shape)
        factor, offset = (per_channel(same_type(v, wide), y.rank) for v in (scale, bias))
        y = e.add(e.multiply(y, factor), offset)
        return same_type(reshape(y, x.shape), x)


# --- by neighbours and norms -----------------------------------------------------------------------------------------------


@operator("LRN")
def local_response_normalization(call: Call, x: Tensor) -> Tensor:
    """x / (bias + alpha / size * sum(x^2))^beta, the sum over ``size`` neighbouring channels."""
    a = call.attributes
    size = a.int("size")
    if size < 1 or x.ndim < 2:
        raise ModelError(f"size {size} must be positive, and the input [batch, channels, ...], got {list(x.shape)}")
    with composite("local_response_norm"):
        wide = widened(x)
        rows = reshape(e.square(wide), (x.shape[0], 1, x.shape[1], math.prod(x.shape[2:])))
        mean = reshape(avg_pool(rows, (size, 1), (1, 1), (((size - 1) // 2, size // 2), (0, 0))), x.shape)
        base = e.add(e.multiply(mean, a.float("alpha", 1e-4)), a.float("bias", 1.0))
        return same_type(e.divide(wide, e.power(base, a.float("beta", 0.75))), x)


@operator("MeanVarianceNormalization")
def mean_variance_normalization(call: Call, x: Tensor) -> Tensor:
    """(x - mean) / (standard deviation + 1e-9) over axes."""
    axes = normalize_axes(call.attributes.ints("axes", (0, 2, 3)), x.ndim)
    with composite("mean_variance_norm"):
        wide = widened(x)
        centred = e.subtract(wide, reduce_mean(wide, axes, keepdims=True))
        deviation = e.sqrt(reduce_mean(e.square(centred), axes, keepdims=True))
        return same_type(e.divide(centred, e.add(deviation, 1e-9)), x)


@operator("LpNormalization")
def lp_normalization(call: Call, x: Tensor) -> Tensor:
    """x over its p-norm along an axis, 0 where the norm is 0."""
    a = call.attributes
    p = a.int("p", 2)
    if p not in (1, 2):
        raise ModelError(f"the norm p must be 1 or 2, got {p}")
    axis = normalize_axis(a.int("axis", -1), x.ndim)
    with composite("normalize"):
        wide = widened(x)
        total = reduce_sum(e.absolute(wide) if p == 1 else e.square(wide), axis, keepdims=True)
        positive = e.greater(total, 0)
        safe = e.where(positive, total, 1)
        # where the norm is 0 so is x
        return same_type(e.divide(wide, e.sqrt(safe) if p == 2 else safe), x)
