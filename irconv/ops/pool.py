"""Pooling over sliding windows: maximum, minimum and average."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irconv.errors import AttributeValueError
from irconv.op import Fusion, Gradients, OpDef, Site, Value, emit, register
from irconv.ops.pool_taps import (
    ARGMAX_POOL,
    ARGMIN_POOL,
    PoolAttributes,
    argmax_pool,
    argmin_pool,
    check_pooled,
    floats_only,
    identity_of,
    numbers_only,
    pool_attributes,
    pool_cost,
    pool_counts,
    pool_positions,
    pool_views,
    pooled_shape,
    scattered,
    spatial_size,
    spread,
    spread_cost,
    window_gather,
    window_scatter,
)
from irconv.ops.window import Ints, Padding, accumulating, check_window, integer, per_axis, spatial_rank
from irconv.types import TensorType, tensor_type

__all__ = [
    "argmax_pool",
    "argmin_pool",
    "avg_pool",
    "avg_pool_adjoint",
    "max_pool",
    "min_pool",
    "pool_positions",
    "window_gather",
    "window_scatter",
]
# --- max_pool, min_pool -----------------------------------------------------------------------------------------------


def max_pool(
    x: Value,
    kernel: int | Ints,
    stride: int | Ints | None = None,
    padding: Padding = 0,
    dilation: int | Ints = 1,
    ceil_mode: bool = False,
) -> Value:
    """The largest element in each window of x [N, C, *S]: [N, C, *P].

    P = floor((S + before + after - d (K - 1) - 1) / s) + 1, rounded up in ``ceil_mode`` (a window that would start
    beyond the input is dropped).  Padding never wins: a window that lies in the padding alone gives the lowest value of
    the type (-inf).  NaN wins.  The gradient goes whole to the first maximum of each window, see :func:`argmax_pool`.
    """
    return emit(MAX_POOL, pool_attributes(spatial_size(x), kernel, stride, padding, dilation, ceil_mode), x)


def min_pool(
    x: Value,
    kernel: int | Ints,
    stride: int | Ints | None = None,
    padding: Padding = 0,
    dilation: int | Ints = 1,
    ceil_mode: bool = False,
) -> Value:
    """The smallest element in each window; otherwise as :func:`max_pool`."""
    return emit(MIN_POOL, pool_attributes(spatial_size(x), kernel, stride, padding, dilation, ceil_mode), x)


def _extremum_type(a: PoolAttributes, x: TensorType) -> TensorType:
    numbers_only(x)
    return tensor_type(x.dtype, pooled_shape(a, x))


def _max_pool_reference(a: PoolAttributes, x: np.ndarray) -> np.ndarray:
    first, *others = pool_views(a, x, identity_of(x, lowest=True))
    best = first.copy()
    for view in others:
        np.maximum(best, view, out=best)
    return best


def _min_pool_reference(a: PoolAttributes, x: np.ndarray) -> np.ndarray:
    first, *others = pool_views(a, x, identity_of(x, lowest=False))
    best = first.copy()
    for view in others:
        np.minimum(best, view, out=best)
    return best


def _max_pool_gradient(site: Site, d: Value) -> Gradients:
    return (scattered(d, emit(ARGMAX_POOL, site.attributes, site.operands[0]), site),)


def _min_pool_gradient(site: Site, d: Value) -> Gradients:
    return (scattered(d, emit(ARGMIN_POOL, site.attributes, site.operands[0]), site),)


MAX_POOL = register(
    OpDef(
        "max_pool",
        ("x",),
        infer=_extremum_type,
        reference=_max_pool_reference,
        gradient=_max_pool_gradient,
        fusion=Fusion.WINDOW,
        attributes=PoolAttributes,
        cost=pool_cost,
    )
)

MIN_POOL = register(
    OpDef(
        "min_pool",
        ("x",),
        infer=_extremum_type,
        reference=_min_pool_reference,
        gradient=_min_pool_gradient,
        fusion=Fusion.WINDOW,
        attributes=PoolAttributes,
        cost=pool_cost,
    )
)

# --- avg_pool ---------------------------------------------------------------------------------------------------------


def avg_pool(
    x: Value,
    kernel: int | Ints,
    stride: int | Ints | None = None,
    padding: Padding = 0,
    dilation: int | Ints = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    """The sum of each window of x [N, C, *S] over its number of elements; sizes as :func:`max_pool`.

    Counted are the taps inside the padded input (never those of a ceil_mode overhang), without ``count_include_pad``
    those inside the input; ``divisor_override`` replaces the count.  A window without a counted tap gives 0.
    float16 accumulates in float32.
    """
    a = pool_attributes(spatial_size(x), kernel, stride, padding, dilation, ceil_mode)
    return emit(AVG_POOL, _averaging(a, count_include_pad, divisor_override), x)


@dataclass(frozen=True, slots=True)
class AvgPoolAttributes(PoolAttributes):
    """As PoolAttributes; count_include_pad: padding counts as elements; divisor_override: divide by this instead."""

    count_include_pad: bool
    divisor_override: int | None

    def __post_init__(self) -> None:
        PoolAttributes.__post_init__(self)
        if self.divisor_override is not None and self.divisor_override < 1:
            raise AttributeValueError(f"divisor_override must be at least 1, got {self.divisor_override}")


def _averaging(a: PoolAttributes, count_include_pad: bool, divisor_override: int | None) -> AvgPoolAttributes:
    divisor = None if divisor_override is None else integer(divisor_override, "divisor_override")
    return AvgPoolAttributes(a.kernel, a.stride, a.padding, a.dilation, a.ceil_mode, bool(count_include_pad), divisor)


def pool_divisors(a: AvgPoolAttributes, size: Ints) -> np.ndarray:
    """What each window's sum is divided by, float64 [*P]: a product of one count per axis."""
    counts = pool_counts(a, size)
    divisors = np.ones(counts)
    if a.divisor_override is not None:
        return divisors * a.divisor_override
    for axis, (n, count) in enumerate(zip(size, counts, strict=True)):
        before, after = a.padding[axis]
        taps = np.arange(count)[:, None] * a.stride[axis] + np.arange(a.kernel[axis]) * a.dilation[axis] - before
        # negative padding crops, whether padding counts or not
        low, high = (-before, n + after) if a.count_include_pad else (max(0, -before), min(n, n + after))
        elements = np.count_nonzero((taps >= low) & (taps < high), axis=1)
        divisors *= elements.reshape((count,) + (1,) * (len(size) - 1 - axis))
    return np.maximum(divisors, 1)


def _avg_pool_type(a: AvgPoolAttributes, x: TensorType) -> TensorType:
    floats_only(x)
    return tensor_type(x.dtype, pooled_shape(a, x))


def _avg_pool_reference(a: AvgPoolAttributes, x: np.ndarray) -> np.ndarray:
    first, *others = pool_views(a, accumulating(x), 0)
    total = first.copy()
    for view in others:
        total += view
    total /= pool_divisors(a, x.shape[2:])
    return total.astype(x.dtype, copy=False)


def _avg_pool_gradient(site: Site, d: Value) -> Gradients:
    return (emit(AVG_POOL_ADJOINT, _adjoint_of(site.attributes, site.operands[0].shape[2:]), d),)


AVG_POOL = register(
    OpDef(
        "avg_pool",
        ("x",),
        infer=_avg_pool_type,
        reference=_avg_pool_reference,
        gradient=_avg_pool_gradient,
        fusion=Fusion.WINDOW,
        attributes=AvgPoolAttributes,
        cost=pool_cost,
    )
)

# --- avg_pool_adjoint -------------------------------------------------------------------------------------------------


def avg_pool_adjoint(
    d: Value,
    size: int | Ints,
    kernel: int | Ints,
    stride: int | Ints | None = None,
    padding: Padding = 0,
    dilation: int | Ints = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    """The adjoint of :func:`avg_pool`: each d, over its window's divisor, added at every tap: [N, C, *size]."""
    extent = per_axis(size, spatial_rank(d), "size")
    a = pool_attributes(extent, kernel, stride, padding, dilation, ceil_mode)
    return emit(AVG_POOL_ADJOINT, _adjoint_of(_averaging(a, count_include_pad, divisor_override), extent), d)


@dataclass(frozen=True, slots=True)
class AvgPoolAdjointAttributes(AvgPoolAttributes):
    """As AvgPoolAttributes; size: the spatial size of the result."""

    size: Ints

    def __post_init__(self) -> None:
        AvgPoolAttributes.__post_init__(self)
        check_window(size=self.size, kernel=self.kernel)


def _adjoint_of(a: AvgPoolAttributes, size: Ints) -> AvgPoolAdjointAttributes:
    return AvgPoolAdjointAttributes(
        a.kernel, a.stride, a.padding, a.dilation, a.ceil_mode, a.count_include_pad, a.divisor_override, size
    )


def _avg_pool_adjoint_type(a: AvgPoolAdjointAttributes, d: TensorType) -> TensorType:
    floats_only(d)
    check_pooled(a, a.size, d)
    return tensor_type(d.dtype, (*d.shape[:2], *a.size))


def _avg_pool_adjoint_reference(a: AvgPoolAdjointAttributes, d: np.ndarray) -> np.ndarray:
    wide = accumulating(d)
    share = wide / pool_divisors(a, a.size).astype(wide.dtype)
    return spread(a, a.size, lambda tap: share, d)


def _avg_pool_adjoint_gradient(site: Site, d: Value) -> Gradients:
    a = site.attributes
    forward = AvgPoolAttributes(
        a.kernel, a.stride, a.padding, a.dilation, a.ceil_mode, a.count_include_pad, a.divisor_override
    )
    return (emit(AVG_POOL, forward, d),)


AVG_POOL_ADJOINT = register(
    OpDef(
        "avg_pool_adjoint",
        ("d",),
        infer=_avg_pool_adjoint_type,
        reference=_avg_pool_adjoint_reference,
        gradient=_avg_pool_adjoint_gradient,
        fusion=Fusion.WINDOW,
        attributes=AvgPoolAdjointAttributes,
        cost=spread_cost,
    )
)
