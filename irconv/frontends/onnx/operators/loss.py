"""Losses over classes."""

from __future__ import annotations

from irconv.errors import ModelError
from irconv.frontends.onnx.registry import Call, operator
from irconv.nn.functional import log_softmax, nll_loss
from irconv.tensor import Tensor

NOTHING_IGNORED = -(2**40)
"""No class: what is ignored where the node does not say."""


def _loss(call: Call, log_probabilities: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    reduction = call.attributes.string("reduction", "mean", choices=("none", "sum", "mean"))
    ignored = call.attributes.int("ignore_index", NOTHING_IGNORED)
    if log_probabilities.ndim < 2:
        raise ModelError(f"a loss over classes needs [batch, classes, ...], got shape {list(log_probabilities.shape)}")
    return nll_loss(log_probabilities, target, weight, ignore_index=ignored, reduction=reduction)


@operator("NegativeLogLikelihoodLoss", since=12)
def negative_log_likelihood(call: Call, x: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """-weight[target] x[n, target, ...]."""
    return _loss(call, x, target, weight)


@operator("SoftmaxCrossEntropyLoss", since=12)
def softmax_cross_entropy(call: Call, scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> tuple[Tensor, ...]:
    """The negative log-likelihood of softmax(scores), and its logarithm."""
    log_probabilities = log_softmax(scores, 1)
    return _loss(call, log_probabilities, labels, weights), log_probabilities
