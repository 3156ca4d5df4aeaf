"""Losses.  ``reduction``: 'none', 'mean' or 'sum'."""

from __future__ import annotations

from typing import Any

import numpy as np

from irconv.nn.functional.activation import exact_softplus, log_softmax
from irconv.nn.functional.common import check_reduction, misshapen, refused, tensor_of
from irconv.op import Value
from irconv.ops import elementwise as e
from irconv.ops.index import gather, take
from irconv.ops.reduce import reduce_mean, reduce_sum
from irconv.ops.shape import expand_dims, reshape, squeeze
from irconv.tensor import Tensor, as_tensor, floating
from irconv.tracing import composite
from irconv.types import I64


def _reduced(losses: Value, reduction: str) -> Tensor:
    if reduction == "mean":
        return tensor_of(reduce_mean(losses))
    return tensor_of(reduce_sum(losses) if reduction == "sum" else losses)


# --- classes -----------------------------------------------------------------------------------------------------------


def nll_loss(
    input: Any, target: Any, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """The negative log-likelihood of class indices: -weight[target] * input[n, target, ...].

    input: log-probabilities [N, C, ...] or [C]; target: integer classes [N, ...] or [].  Elements whose target is
    ``ignore_index`` count for nothing.  'mean' divides by the sum of the weights that were used.
    """
    check_reduction(reduction)
    with composite("nll_loss"):
        return _nll(floating(input), as_tensor(target), weight, ignore_index, reduction, 0.0)


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-sum over classes of weight[c] p[c] log(softmax(input))[c].

    input: logits [N, C, ...] or [C].  target: integer classes [N, ...] (p is 1 there), or probabilities of input's shape.
    label_smoothing: how much of p is spread evenly over all classes.  Otherwise as :func:`nll_loss`; with probabilities 'mean'
    divides by the number of samples.
    """
    check_reduction(reduction)
    if not 0 <= label_smoothing <= 1:
        raise refused(f"label_smoothing {label_smoothing} is not between 0 and 1")
    logits, wanted = floating(input), as_tensor(target)
    axis = 0 if logits.ndim == 1 else 1
    if logits.ndim == 0:
        raise misshapen("the input of a classification loss needs a class axis, got a scalar")
    with composite("cross_entropy"):
        log_probabilities = log_softmax(logits, axis)
        if wanted.type.dtype.is_float:
            return _soft_cross_entropy(log_probabilities, wanted, weight, reduction, label_smoothing)
        return _nll(log_probabilities, wanted, weight, ignore_index, reduction, label_smoothing)


def _nll(
    log_probabilities: Tensor, target: Tensor, weight: Any, ignore_index: int, reduction: str, smoothing: float
) -> Tensor:
    x = log_probabilities
    if x.ndim == 0:
        raise misshapen("the input of a classification loss needs a class axis, got a scalar")
    axis = 0 if x.ndim == 1 else 1
    if target.shape != x.shape[:axis] + x.shape[axis + 1 :]:
        raise misshapen(
            f"an input of shape {list(x.shape)} has classes along axis {axis}, so the target must have shape "
            f"{list(x.shape[:axis] + x.shape[axis + 1 :])}, got {list(target.shape)}",
            "class indices are integers; probabilities are floats of the input's shape",
        )
    if not target.type.dtype.is_integer:
        raise refused(f"class indices are integers, got a target of {target.type.dtype}")
    classes, indices = x.shape[axis], target.astype(I64)
    counts = e.not_equal(indices, ignore_index)
    # a negative class is an error, not one counted from the end: out of range, the gather refuses it
    checked = e.where(e.logical_and(counts, e.less(indices, 0)), classes, e.where(counts, indices, 0))
    picked = squeeze(gather(x, expand_dims(checked, axis), axis), axis)
    by_class = _class_weights(weight, x, classes)
    each = e.cast(counts, x.dtype) if by_class is None else e.where(counts, take(by_class, checked), 0)
    weighted = picked if by_class is None else e.multiply(picked, each)
    losses = e.negative(e.where(counts, weighted, 0))
    divisor = reduce_sum(each)
    hard = e.divide(reduce_sum(losses), divisor) if reduction == "mean" else _reduced(losses, reduction)
    if not smoothing:
        return tensor_of(hard)
    even = reduce_sum(x if by_class is None else e.multiply(x, _along(by_class, x.ndim, axis)), axis)
    spread = e.negative(e.where(counts, even, 0))
    soft = e.divide(reduce_sum(spread), divisor) if reduction == "mean" else _reduced(spread, reduction)
    return tensor_of(e.add(e.multiply(hard, 1 - smoothing), e.multiply(soft, smoothing / classes)))


def _class_weights(weight: Any, x: Tensor, classes: int) -> Tensor | None:
    if weight is None:
        return None
    weights = as_tensor(weight, like=x)
    if weights.shape != (classes,):
        raise misshapen(f"needs one weight for each of {classes} classes, got shape {list(weights.shape)}")
    return weights


def _along(values: Tensor, rank: int, axis: int) -> Value:
    """Values [C] shaped to broadcast along one axis of ``rank``."""
    return reshape(values, tuple(values.size if i == axis else 1 for i in range(rank)))


def _soft_cross_entropy(
    log_probabilities: Tensor, target: Tensor, weight: Any, reduction: str, smoothing: float
) -> Tensor:
    x = log_probabilities
    if target.shape != x.shape:
        raise misshapen(f"probabilities need the input's shape {list(x.shape)}, got {list(target.shape)}")
    axis = 0 if x.ndim == 1 else 1
    classes = x.shape[axis]
    wanted: Value = target.astype(x.dtype)
    if smoothing:
        wanted = e.add(e.multiply(wanted, 1 - smoothing), smoothing / classes)
    terms = e.multiply(x, wanted)
    by_class = _class_weights(weight, x, classes)
    if by_class is not None:
        terms = e.multiply(terms, _along(by_class, x.ndim, axis))
    losses = e.negative(reduce_sum(terms, axis))
    return _reduced(losses, reduction)


# --- numbers -----------------------------------------------------------------------------------------------------------


def _pair(input: Any, target: Any) -> tuple[Tensor, Tensor]:
    """Prediction and target of one type and shape; broadcasting hides mistakes, so it is refused."""
    x = floating(input)
    y = as_tensor(target, like=x)
    if x.shape != y.shape:
        raise misshapen(
            f"the input has shape {list(x.shape)}, the target {list(y.shape)}",
            "reshape one of them: losses do not broadcast",
        )
    return x, y


def _weighted(losses: Value, weight: Any, like: Tensor) -> Value:
    return losses if weight is None else e.multiply(losses, as_tensor(weight, like=like))


def _weighted_mean(losses: Value, weight: Any, like: Tensor, reduction: str) -> Tensor:
    """The losses times weights of their shape; 'mean' divides by the sum of the weights."""
    if weight is None:
        return _reduced(losses, reduction)
    weights = as_tensor(weight, like=like)
    if weights.shape != like.shape:
        raise misshapen(f"the weights have shape {list(weights.shape)}, the input {list(like.shape)}")
    weighted = e.multiply(losses, weights)
    if reduction == "mean":
        return tensor_of(e.divide(reduce_sum(weighted), reduce_sum(weights)))
    return _reduced(weighted, reduction)


def mse_loss(input: Any, target: Any, *, reduction: str = "mean", weight: Any = None) -> Tensor:
    """(x - y)^2; with weights, 'mean' divides by their sum."""
    check_reduction(reduction)
    x, y = _pair(input, target)
    with composite("mse_loss"):
        return _weighted_mean(e.square(e.subtract(x, y)), weight, x, reduction)


def l1_loss(input: Any, target: Any, *, reduction: str = "mean", weight: Any = None) -> Tensor:
    """|x - y|; with weights, 'mean' divides by their sum."""
    check_reduction(reduction)
    x, y = _pair(input, target)
    with composite("l1_loss"):
        return _weighted_mean(e.absolute(e.subtract(x, y)), weight, x, reduction)


def smooth_l1_loss(input: Any, target: Any, *, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """(x - y)^2 / (2 beta) where |x - y| < beta, |x - y| - beta / 2 elsewhere."""
    if beta < 0:
        raise refused(f"beta {beta} is negative")
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    check_reduction(reduction)
    x, y = _pair(input, target)
    with composite("smooth_l1_loss"):
        distance = e.absolute(e.subtract(x, y))
        near = e.multiply(e.square(distance), 0.5 / beta)
        return _reduced(e.where(e.less(distance, beta), near, e.subtract(distance, 0.5 * beta)), reduction)


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None) -> Tensor:
    """(x - y)^2 / 2 where |x - y| <= delta, delta (|x - y| - delta / 2) elsewhere."""
    check_reduction(reduction)
    if not delta > 0:
        raise refused(f"delta {delta} is not positive")
    x, y = _pair(input, target)
    with composite("huber_loss"):
        distance = e.absolute(e.subtract(x, y))
        near = e.multiply(e.square(distance), 0.5)
        far = e.multiply(e.subtract(distance, 0.5 * delta), delta)
        losses = _weighted(e.where(e.less_equal(distance, delta), near, far), weight, x)
        return _reduced(losses, reduction)


def _floored_log(x: Value) -> Value:
    """log(x), at least -100 (which 0 gives), as PyTorch."""
    positive = e.greater(x, 0)
    return e.maximum(e.where(positive, e.log(e.where(positive, x, 1)), -100), -100)


def binary_cross_entropy(input: Any, target: Any, weight: Any = None, *, reduction: str = "mean") -> Tensor:
    """-(y log(x) + (1 - y) log(1 - x)) of probabilities x, with logarithms kept above -100."""
    check_reduction(reduction)
    x, y = _pair(input, target)
    if not x.is_traced and x.size and not 0 <= np.min(x.numpy()) <= np.max(x.numpy()) <= 1:
        raise refused(
            f"probabilities from {np.min(x.numpy())} to {np.max(x.numpy())} do not lie in 0 to 1",
            "take the sigmoid first, or use binary_cross_entropy_with_logits",
        )
    with composite("binary_cross_entropy"):
        yes = e.multiply(y, _floored_log(x))
        no = e.multiply(e.subtract(1, y), _floored_log(e.subtract(1, x)))
        return _reduced(_weighted(e.negative(e.add(yes, no)), weight, x), reduction)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    """Binary cross-entropy of sigmoid(x): (1 - y) x + (1 + (pos_weight - 1) y) softplus(-x), without overflow."""
    check_reduction(reduction)
    x, y = _pair(input, target)
    with composite("binary_cross_entropy_with_logits"):
        softened = exact_softplus(tensor_of(e.negative(x)))
        if pos_weight is not None:
            softened = softened * (y * (as_tensor(pos_weight, like=x) - 1) + 1)
        return _reduced(_weighted(e.add(e.multiply(e.subtract(1, y), x), softened), weight, x), reduction)


def kl_div(input: Any, target: Any, *, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target (log(target) - input) of log-probabilities ``input``; 'batchmean' divides the sum by the batch."""
    if reduction != "batchmean":
        check_reduction(reduction)
    x, y = _pair(input, target)
    with composite("kl_div"):
        if log_target:
            losses = e.multiply(e.exp(y), e.subtract(y, x))
        else:
            positive = e.greater(y, 0)
            entropy = e.where(positive, e.multiply(y, e.log(e.where(positive, y, 1))), 0)
            losses = e.subtract(entropy, e.multiply(y, x))
        if reduction == "batchmean":
            return _reduced(losses, "sum") / (x.shape[0] if x.ndim else 1)
        return _reduced(losses, reduction)
