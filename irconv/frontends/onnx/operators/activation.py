"""Activations and the softmax family."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

import irconv.nn.functional as F
from irconv.errors import ModelError
from irconv.frontends.onnx.operators.common import constant, number, same_type, tensor_of
from irconv.frontends.onnx.registry import Call, operator
from irconv.nn.functional.activation import SELU_ALPHA, SELU_SCALE
from irconv.op import Value
from irconv.ops import elementwise as e
from irconv.ops.shape import normalize_axis, reshape
from irconv.random import Generator, default_generator
from irconv.tensor import Tensor
from irconv.tracing import composite

# --- without parameters ----------------------------------------------------------------------------------------------------


def _register(name: str, function: Callable[[Tensor], Value]) -> None:
    def handle(call: Call, x: Tensor) -> Tensor:
        return tensor_of(function(x))

    operator(name)(handle)


for _name, _function in {
    "Relu": F.relu,
    "Sigmoid": F.sigmoid,
    "Tanh": F.tanh,
    "Softsign": F.softsign,
    "HardSwish": F.hardswish,
}.items():
    _register(_name, _function)


@operator("Softplus")
def softplus(call: Call, x: Tensor) -> Tensor:
    """log(1 + exp(x))."""
    return F.softplus(x, threshold=10.0 if x.dtype == np.float16 else 80.0)


@operator("Mish")
def mish(call: Call, x: Tensor) -> Tensor:
    """x tanh(softplus(x))."""
    return F.mish(x)


# --- with parameters ---------------------------------------------------------------------------------------------------------


@operator("LeakyRelu")
def leaky_relu(call: Call, x: Tensor) -> Tensor:
    """x where x > 0, alpha x elsewhere."""
    return F.leaky_relu(x, call.attributes.float("alpha", 0.01))


@operator("Elu")
def elu(call: Call, x: Tensor) -> Tensor:
    """x where x > 0, alpha (exp(x) - 1) elsewhere."""
    return F.elu(x, call.attributes.float("alpha", 1.0))


@operator("Celu")
def celu(call: Call, x: Tensor) -> Tensor:
    """x where x > 0, alpha (exp(x / alpha) - 1) elsewhere."""
    return F.celu(x, call.attributes.float("alpha", 1.0))


@operator("Selu")
def selu(call: Call, x: Tensor) -> Tensor:
    """Gamma times the elu of x."""
    a = call.attributes
    if "alpha" not in a and "gamma" not in a:
        return F.selu(x)
    return F.elu(x, a.float("alpha", SELU_ALPHA)) * a.float("gamma", SELU_SCALE)


@operator("ThresholdedRelu")
def thresholded_relu(call: Call, x: Tensor) -> Tensor:
    """x where x > alpha, 0 elsewhere."""
    return F.threshold(x, call.attributes.float("alpha", 1.0), 0.0)


@operator("HardSigmoid")
def hard_sigmoid(call: Call, x: Tensor) -> Tensor:
    """max(0, min(1, alpha x + beta))."""
    alpha, beta = call.attributes.float("alpha", 0.2), call.attributes.float("beta", 0.5)
    with composite("hardsigmoid"):
        return tensor_of(e.clip(e.add(e.multiply(x, alpha), beta), 0.0, 1.0))


@operator("Shrink")
def shrink(call: Call, x: Tensor) -> Tensor:
    """x + bias where x < -lambd, x - bias where x > lambd, 0 between."""
    bias, limit = call.attributes.float("bias", 0.0), call.attributes.float("lambd", 0.5)
    if not x.type.dtype.is_float:
        limit, bias = (int(v) if float(v).is_integer() else v for v in (limit, bias))
        if isinstance(limit, float) or isinstance(bias, float):
            return same_type(_shrunk(tensor_of(e.cast(x, "f64")), limit, bias), x)
    return _shrunk(x, limit, bias)


def _shrunk(x: Tensor, limit: float, bias: float) -> Tensor:
    with composite("shrink"):
        inner = e.where(e.greater(x, limit), e.subtract(x, bias), 0)
        return tensor_of(e.where(e.less(x, -limit), e.add(x, bias), inner))


@operator("PRelu", weights=(1,))
def prelu(call: Call, x: Tensor, slope: Tensor) -> Tensor:
    """x where x >= 0, slope x elsewhere; the slope broadcasts."""
    if call.opset < 7 and slope.ndim == 1 and slope.size > 1:
        slope = tensor_of(reshape(slope, (slope.size, *(1,) * (x.ndim - 2))))
    with composite("prelu"):
        return tensor_of(e.where(e.less(x, 0), e.multiply(x, slope), x))


@operator("Gelu")
def gelu(call: Call, x: Tensor) -> Tensor:
    """x times the normal distribution function."""
    return F.gelu(x, call.attributes.string("approximate", "none", choices=("none", "tanh")))


@operator("Swish")
def swish(call: Call, x: Tensor) -> Tensor:
    """x sigmoid(alpha x)."""
    alpha = call.attributes.float("alpha", 1.0)
    if alpha == 1.0:
        return F.silu(x)
    with composite("swish"):
        return tensor_of(e.multiply(x, e.sigmoid(e.multiply(x, alpha))))


# --- clip ------------------------------------------------------------------------------------------------------------------


@operator("Clip", since=1)
def clip_by_attributes(call: Call, x: Tensor) -> Tensor:
    """x bounded by the attributes min and max."""
    low, high = call.attributes.float("min", -math.inf), call.attributes.float("max", math.inf)
    return bounded(x, constant(low, x.type.dtype), constant(high, x.type.dtype))


@operator("Clip", since=11)
def clip(call: Call, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """min(max(x, low), high): where the bounds are not in order, high."""
    return bounded(x, low, high)


def bounded(x: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    """min(max(x, low), high), as one op where the bounds are known."""
    bounds = [b for b in (low, high) if b is not None]
    if all(not b.is_traced and b.size == 1 and b.value.variable is None for b in bounds):
        minimum = -math.inf if low is None else low.item()
        maximum = math.inf if high is None else high.item()
        if minimum <= maximum:
            return tensor_of(e.clip(x, minimum, maximum))
    result: Value = x
    if low is not None:
        result = e.maximum(result, reshape(low, ()))
    if high is not None:
        result = e.minimum(result, reshape(high, ()))
    return tensor_of(result)


# --- softmax ---------------------------------------------------------------------------------------------------------------


def _early_softmax(function: Callable[[Tensor, int], Tensor]) -> Callable[[Call, Tensor], Tensor]:
    """Before version 13: over all axes from ``axis`` on together."""

    def handle(call: Call, x: Tensor) -> Tensor:
        axis = call.attributes.int("axis", 1)
        if not -x.ndim <= axis <= x.ndim:
            raise ModelError(f"axis {axis} is out of range for shape {list(x.shape)}")
        axis = axis + x.ndim if axis < 0 else axis
        rows = math.prod(x.shape[:axis])
        flat = tensor_of(reshape(x, (rows, math.prod(x.shape[axis:]))))
        return tensor_of(reshape(function(flat, 1), x.shape))

    return handle


def _softmax(function: Callable[[Tensor, int], Tensor]) -> Callable[[Call, Tensor], Tensor]:
    def handle(call: Call, x: Tensor) -> Tensor:
        return function(x, normalize_axis(call.attributes.int("axis", -1), x.ndim))

    return handle


operator("Softmax")(_early_softmax(F.softmax))
operator("Softmax", since=13)(_softmax(F.softmax))
operator("LogSoftmax")(_early_softmax(F.log_softmax))
operator("LogSoftmax", since=13)(_softmax(F.log_softmax))


# --- dropout ---------------------------------------------------------------------------------------------------------------


def _dropped(x: Tensor, ratio: float, training: bool, source: Generator) -> tuple[Tensor, Tensor]:
    """x with elements set to 0 at random in training, and which were kept."""
    if not 0 <= ratio <= 1:
        raise ModelError(f"dropout ratio {ratio} is not between 0 and 1")
    if not training or ratio == 0:
        return x, constant(np.broadcast_to(True, x.shape))
    with composite("dropout"):
        kept = source.bernoulli(x.shape, 1 - ratio)
        scaled = e.multiply(x, 1 / (1 - ratio)) if ratio < 1 else x
        return tensor_of(e.where(kept, scaled, 0)), kept


@operator("Dropout")
def dropout_by_attribute(call: Call, x: Tensor) -> tuple[Tensor | None, ...]:
    """Dropout of the model's own mode (before version 7 the node could say that it is for testing)."""
    training = call.training and not call.attributes.int("is_test", 0)
    y, mask = _dropped(x, call.attributes.float("ratio", 0.5), training, default_generator())
    return y, mask if call.opset >= 10 else same_type(mask, x)


@operator("Dropout", since=12, static=(1, 2))
def dropout(
    call: Call, x: Tensor, ratio: np.ndarray | None = None, training_mode: np.ndarray | None = None
) -> tuple[Tensor | None, ...]:
    """Dropout where the node, or the model's mode, says that it trains."""
    probability = 0.5 if ratio is None else float(number(ratio, "ratio"))
    asked = training_mode is not None and bool(number(training_mode, "training_mode"))
    seed = call.attributes.int("seed", None)
    source = default_generator() if seed is None or not asked else Generator(seed % 2**64)
    return _dropped(x, probability, asked or call.training, source)
