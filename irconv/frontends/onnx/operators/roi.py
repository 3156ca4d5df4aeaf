"""Pooling over regions of interest."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np

from irconv.errors import ModelError
from irconv.frontends.onnx.operators.common import constant, limited, same_type, tensor_of
from irconv.frontends.onnx.registry import Call, operator
from irconv.nn.functional.sampling import tap_terms
from irconv.op import Value
from irconv.ops import elementwise as e
from irconv.ops.reduce import reduce_max, reduce_sum
from irconv.ops.shape import broadcast, narrow, reshape, transpose
from irconv.tensor import Tensor
from irconv.tracing import composite


@operator("RoiAlign", since=10)
def roi_align(call: Call, x: Tensor, rois: Tensor, batch_indices: Tensor) -> Tensor:
    """Each region (x1, y1, x2, y2) cut into bins; of each bin the mean, or the largest part, of what is read at points in it.

    Without a sampling ratio the number of points depends on the regions, which must then be known at import.
    """
    a = call.attributes
    if x.ndim != 4 or rois.ndim != 2 or rois.shape[1] != 4 or batch_indices.shape != rois.shape[:1]:
        raise ModelError(f"RoiAlign cannot pool {list(x.shape)} over {list(rois.shape)} and {list(batch_indices.shape)}")
    mode = a.string("mode", "avg", choices=("avg", "max"))
    default = "half_pixel" if call.opset >= 16 else "output_half_pixel"
    half = a.string("coordinate_transformation_mode", default, choices=("half_pixel", "output_half_pixel")) == "half_pixel"
    bins = a.int("output_height", 1), a.int("output_width", 1)
    if min(bins) < 1:
        raise ModelError(f"cannot pool to {list(bins)}")
    with composite("roi_align"):
        scaled = e.subtract(e.multiply(rois, a.float("spatial_scale", 1.0)), 0.5 if half else 0.0)
        ratio = a.int("sampling_ratio", 0)
        axes = [_Axis(scaled, place, size, ratio, half) for place, size in zip((1, 0), bins, strict=True)]
        return _pooled(x, axes, batch_indices, mode)


class _Axis:
    """Where the points of all regions lie along one axis: [regions, bins, points in a bin], and how many of them count."""

    def __init__(self, rois: Value, place: int, bins: int, ratio: int, half: bool):
        start, end = (narrow(rois, 1, i, i + 1) for i in (place, place + 2))
        extent = e.subtract(end, start)
        if not half:
            extent = e.maximum(extent, 1)
        width = e.divide(extent, bins)
        self.bins = bins
        self.points, counts = _counts(width, ratio)
        limited(bins * self.points, "the number of points")
        self.counts = reshape(counts, (-1, 1, 1))
        starts = e.add(start, e.multiply(width, constant(np.arange(bins), rois.type.dtype)))
        steps = e.divide(reshape(width, (-1, 1, 1)), self.counts)
        inside = e.multiply(steps, constant(np.arange(self.points) + 0.5, rois.type.dtype))
        self.positions = e.add(reshape(starts, (rois.shape[0], bins, 1)), inside)

    def read(self, size: int) -> Value:
        """Which points count and are not too far outside of an axis of this size."""
        near = e.logical_and(e.greater_equal(self.positions, -1), e.less_equal(self.positions, size))
        count = constant(np.arange(self.points), self.positions.type.dtype)
        return e.logical_and(near, e.less(count, self.counts))


def _counts(width: Value, ratio: int) -> tuple[int, Value]:
    """The largest number of points in a bin, and the number for each region [regions, 1]."""
    if ratio > 0:
        return ratio, constant(np.full((1, 1), ratio), width.type.dtype)
    counts: Any = e.maximum(e.ceil(width), 1)
    if counts.is_traced:
        raise ModelError("without a sampling ratio the regions must be known when the model is imported")
    return limited(int(np.max(counts.numpy(), initial=1)), "the number of points in a bin"), counts


def _pooled(x: Tensor, axes: list[_Axis], batch_indices: Tensor, mode: str) -> Tensor:
    regions, sizes = batch_indices.shape[0], x.shape[2:]
    grid = (regions, axes[0].bins, axes[0].points, axes[1].bins, axes[1].points)
    points = math.prod(grid[1:])

    def spread(value: Value, axis: int) -> Value:
        """[regions, bins, points in a bin] of one axis for all points of both."""
        shape = (value.shape[0], *value.shape[1:], 1, 1) if axis == 0 else (value.shape[0], 1, 1, *value.shape[1:])
        return reshape(broadcast(reshape(value, shape), grid), (regions, points))

    positions = [spread(axis.positions, i) for i, axis in enumerate(axes)]
    read = reduce(e.logical_and, (spread(axis.read(n), i) for i, (axis, n) in enumerate(zip(axes, sizes, strict=True))))
    # a sample that does not exist must not be read as what lies outside of the image
    exists = e.logical_and(e.greater_equal(batch_indices, 0), e.less(batch_indices, x.shape[0]))
    samples = e.where(exists, batch_indices, x.shape[0] + 1)
    terms = tap_terms(x, positions, padding_mode="border", samples=samples)
    values = reduce(e.add if mode == "avg" else e.maximum, terms)
    kept = reshape(e.where(reshape(read, (regions, points, 1)), values, 0), (*grid, x.shape[1]))
    if mode == "avg":
        count = e.cast(e.multiply(axes[0].counts, axes[1].counts), kept.type.dtype)
        pooled = e.divide(reduce_sum(kept, (2, 4)), reshape(count, (-1, 1, 1, 1)))
    else:
        pooled = reduce_max(kept, (2, 4))
    return same_type(tensor_of(transpose(pooled, (0, 3, 1, 2))), x)
