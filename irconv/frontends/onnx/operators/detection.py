"""Choosing among detected boxes: how many are left depends on the data, so these must be known while the model is imported."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from irconv.errors import ModelError
from irconv.frontends.onnx.operators.common import constant, number
from irconv.frontends.onnx.registry import Call, operator
from irconv.tensor import Tensor
from irconv.types import I64

MAX_COMPARED = 2**31
"""Pairs of boxes that may be compared."""


@operator("NonMaxSuppression", since=10, static=(0, 1, 2, 3, 4))
def non_max_suppression(
    call: Call,
    boxes: np.ndarray,
    scores: np.ndarray,
    most: np.ndarray | None = None,
    overlap: np.ndarray | None = None,
    least: np.ndarray | None = None,
) -> Tensor:
    """(batch, class, box) of the boxes kept, the best first: those that overlap a better one of their class are left out.

    boxes [batch, boxes, 4] are two opposite corners, or centre and size; scores are [batch, classes, boxes].
    """
    if boxes.ndim != 3 or boxes.shape[2] != 4 or scores.ndim != 3 or scores.shape[::2] != boxes.shape[:2]:
        raise ModelError(f"boxes {list(boxes.shape)} and scores {list(scores.shape)} do not fit")
    count = 0 if most is None else max(int(number(most, "the number of boxes")), 0)
    limit = 0.0 if overlap is None else float(number(overlap, "the overlap"))
    threshold = -np.inf if least is None else float(number(least, "the least score"))
    if scores.size * min(count, boxes.shape[1]) > MAX_COMPARED:
        raise ModelError(f"{boxes.shape[1]} boxes are too many to be compared")
    centred = call.attributes.int("center_point_box", 0)
    kept = []
    for batch, of_batch in enumerate(scores):
        corners = _corners(boxes[batch], bool(centred))
        for kind, of_class in enumerate(of_batch):
            kept += [(batch, kind, box) for box in _best(corners, of_class, count, limit, threshold)]
    return constant(np.array(kept, np.int64).reshape(-1, 3), I64)


def _corners(boxes: np.ndarray, centred: bool) -> np.ndarray:
    """The lower and the upper corner of each box [boxes, 2, 2]."""
    pairs = boxes.reshape(-1, 2, 2)
    if centred:
        middle, half = pairs[:, 0], pairs[:, 1] / 2
        return np.stack([middle - half, middle + half], 1)
    return np.stack([pairs.min(1), pairs.max(1)], 1)


def _best(corners: np.ndarray, scores: np.ndarray, most: int, limit: float, threshold: float) -> Iterator[int]:
    """The boxes kept of one class, of equal ones the first first."""
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > threshold]
    for _ in range(most):
        if not order.size:
            return
        best, order = order[0], order[1:]
        yield int(best)
        order = order[~(_overlap(corners[best], corners[order]) > limit)]


def _overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box with others; 0 where they do not meet."""
    sides = np.minimum(box[1], others[:, 1]) - np.maximum(box[0], others[:, 0])
    shared = np.where((sides > 0).all(1), sides.prod(1), 0)
    union = (box[1] - box[0]).prod() + (others[:, 1] - others[:, 0]).prod(1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=(shared > 0) & (union > 0))
