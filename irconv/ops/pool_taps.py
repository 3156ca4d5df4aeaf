"""Which tap of a pooling window wins, and moving values to and from the taps; the base of :mod:`irconv.ops.pool`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv.errors import DTypeError, ShapeError
from irconv.op import Fusion, Gradients, NoGradient, OpDef, Site, Value, Work, emit, register
from irconv.ops.elementwise import add
from irconv.ops.index import take
from irconv.ops.window import (
    Ints,
    Padding,
    Pairs,
    accumulating,
    check_window,
    covered,
    padded_input,
    per_axis,
    resolve_padding,
    spatial_rank,
    tap_views,
    unpadded,
    window_axes,
    window_counts,
)
from irconv.types import BOOL, I32, U8, DType, TensorType, tensor_type

# --- shared by the sections below -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PoolAttributes:
    """kernel, stride, dilation: per spatial axis; padding: (before, after) pairs; ceil_mode: keep a partial window."""

    kernel: Ints
    stride: Ints
    padding: Pairs
    dilation: Ints
    ceil_mode: bool

    def __post_init__(self) -> None:
        check_window(kernel=self.kernel, stride=self.stride, padding=self.padding, dilation=self.dilation)


def pool_attributes(
    size: Ints,
    kernel: int | Ints,
    stride: int | Ints | None,
    padding: Padding,
    dilation: int | Ints,
    ceil_mode: bool,
) -> PoolAttributes:
    """Attributes of a pool over spatial axes of ``size``, from what constructors take; stride None: the kernel."""
    taps, steps, gaps = window_axes(kernel, kernel if stride is None else stride, dilation, len(size))
    return PoolAttributes(taps, steps, resolve_padding(padding, size, taps, steps, gaps), gaps, bool(ceil_mode))


def spatial_size(x: Value) -> Ints:
    """The spatial axes of [N, C, *S].  Raises ShapeError if there are none."""
    spatial_rank(x)
    return x.shape[2:]


def pool_counts(a: PoolAttributes, size: Ints) -> Ints:
    """How many windows an input of spatial ``size`` has along each axis.  Raises ShapeError where none fits."""
    return window_counts(size, a.kernel, a.stride, a.padding, a.dilation, a.ceil_mode)


def pooled_shape(a: PoolAttributes, x: TensorType) -> Ints:
    """[N, C, *P]: one element per window of x."""
    spatial_rank(x)
    if x.shape[1] < 1:
        raise ShapeError(f"the input of shape {list(x.shape)} has no channels")
    return (*x.shape[:2], *pool_counts(a, x.shape[2:]))


def pool_views(a: PoolAttributes, x: np.ndarray, fill: Any) -> list[np.ndarray]:
    """What each tap sees in every window: views [N, C, *counts] of the padded input."""
    counts = pool_counts(a, x.shape[2:])
    padded = padded_input(x, counts, a.kernel, a.stride, a.padding, a.dilation, fill)
    return list(tap_views(padded, counts, a.kernel, a.stride, a.dilation))


def spread(a: PoolAttributes, size: Ints, part: Callable[[int], np.ndarray], like: np.ndarray) -> np.ndarray:
    """Zeros [N, C, *size] with ``part(tap)``, of the type of ``like``, added where that tap of each window lies."""
    counts = like.shape[2:]
    reach = covered(counts, a.kernel, a.stride, a.dilation)
    total = np.zeros((*like.shape[:2], *reach), accumulating(like[:0]).dtype)
    for tap, view in enumerate(tap_views(total, counts, a.kernel, a.stride, a.dilation)):
        view += part(tap)
    return unpadded(total, size, a.padding).astype(like.dtype, copy=False)


def pool_cost(a: PoolAttributes, operands: tuple[TensorType, ...], result: TensorType) -> Work:
    """One operation per tap of every window of the result."""
    return Work(flops=result.size * math.prod(a.kernel))


def spread_cost(a: PoolAttributes, operands: tuple[TensorType, ...], result: TensorType) -> Work:
    """One operation per tap of every window of the first operand."""
    return Work(flops=operands[0].size * math.prod(a.kernel))


def numbers_only(x: TensorType) -> None:
    """Raise DTypeError for bool."""
    if x.dtype is BOOL:
        raise DTypeError("needs numbers, got bool", hint="cast first, for example x.astype('float32')")


def floats_only(x: TensorType) -> None:
    """Raise DTypeError for anything but floats."""
    if not x.dtype.is_float:
        hint = "cast first, for example x.astype('float32')"
        raise DTypeError(f"needs floating-point elements, got {x.dtype}", hint=hint)


def identity_of(x: np.ndarray, lowest: bool) -> Any:
    """The identity of max (or min) in the array's type."""
    if x.dtype.kind == "f":
        return -math.inf if lowest else math.inf
    limits = np.iinfo(x.dtype)
    return limits.min if lowest else limits.max


# --- argmax_pool, argmin_pool -----------------------------------------------------------------------------------------


def argmax_pool(
    x: Value,
    kernel: int | Ints,
    stride: int | Ints | None = None,
    padding: Padding = 0,
    dilation: int | Ints = 1,
    ceil_mode: bool = False,
) -> Value:
    """Which tap of each window holds its maximum: row-major index inside the window, u8 up to 256 taps, i32 beyond.

    The first maximum wins (strict >), the first NaN wins over all, and padding never does: a window of -inf gives its
    first element that is not padding.  A window that lies in the padding alone gives 0, which points into the padding.
    """
    return emit(ARGMAX_POOL, pool_attributes(spatial_size(x), kernel, stride, padding, dilation, ceil_mode), x)


def argmin_pool(
    x: Value,
    kernel: int | Ints,
    stride: int | Ints | None = None,
    padding: Padding = 0,
    dilation: int | Ints = 1,
    ceil_mode: bool = False,
) -> Value:
    """Which tap of each window holds its minimum; otherwise as :func:`argmax_pool`."""
    return emit(ARGMIN_POOL, pool_attributes(spatial_size(x), kernel, stride, padding, dilation, ceil_mode), x)


def tap_dtype(kernel: Ints) -> DType:
    """The element type of tap indices: u8 where it holds them all, else i32."""
    return U8 if math.prod(kernel) <= 256 else I32


def _taps_type(a: PoolAttributes, x: TensorType) -> TensorType:
    numbers_only(x)
    return tensor_type(tap_dtype(a.kernel), pooled_shape(a, x))


def _winning_taps(a: PoolAttributes, x: np.ndarray, better: Callable[..., np.ndarray], bound: Any) -> np.ndarray:
    views = pool_views(a, x, bound)
    inside = pool_views(a, np.ones((1, 1, *x.shape[2:]), bool), False)
    best = views[0].copy()
    taps = np.zeros(best.shape, tap_dtype(a.kernel).numpy)
    found = inside[0].copy()
    for tap, (view, valid) in enumerate(zip(views[1:], inside[1:], strict=True), start=1):
        wins = valid & (~found | better(view, best) | (np.isnan(view) & ~np.isnan(best)))
        np.copyto(best, view, where=wins)
        np.copyto(taps, tap, where=wins)
        found |= valid
    return taps


_WINDOW_INDEX = NoGradient("an index does not change smoothly with the input")

ARGMAX_POOL = register(
    OpDef(
        "argmax_pool",
        ("x",),
        infer=_taps_type,
        reference=lambda a, x: _winning_taps(a, x, np.greater, identity_of(x, lowest=True)),
        gradient=_WINDOW_INDEX,
        fusion=Fusion.WINDOW,
        attributes=PoolAttributes,
        cost=pool_cost,
    )
)

ARGMIN_POOL = register(
    OpDef(
        "argmin_pool",
        ("x",),
        infer=_taps_type,
        reference=lambda a, x: _winning_taps(a, x, np.less, identity_of(x, lowest=False)),
        gradient=_WINDOW_INDEX,
        fusion=Fusion.WINDOW,
        attributes=PoolAttributes,
        cost=pool_cost,
    )
)

# --- pool_positions ---------------------------------------------------------------------------------------------------


def pool_positions(
    taps: Value,
    size: Ints,
    kernel: int | Ints,
    stride: int | Ints | None = None,
    padding: Padding = 0,
    dilation: int | Ints = 1,
) -> Value:
    """Tap indices as flat row-major positions in the spatial axes of the input, i64: PyTorch's pooling indices.

    ``size`` is the spatial size of the input.  Composite: a table of tap offsets, taken by index, plus the origin of
    each window, axis by axis.  Indices that point into the padding give positions outside the input.
    """
    a = pool_attributes(size, kernel, stride, padding, dilation, False)
    rank = len(size)
    pitch = [math.prod(size[axis + 1 :]) for axis in range(rank)]
    offsets = [
        sum(t * d * p for t, d, p in zip(tap, a.dilation, pitch, strict=True))
        for tap in itertools.product(*map(range, a.kernel))
    ]
    positions = take(taps.builder.constant(np.array(offsets, np.int64)), taps, 0)
    for axis, (count, s, (before, _), p) in enumerate(zip(spatial_size(taps), a.stride, a.padding, pitch, strict=True)):
        origins = (np.arange(count, dtype=np.int64) * s - before) * p
        shaped = origins.reshape((count,) + (1,) * (rank - 1 - axis))
        positions = add(positions, taps.builder.constant(shaped))
    return positions


# --- window_scatter ---------------------------------------------------------------------------------------------------


def window_scatter(
    d: Value,
    taps: Value,
    size: int | Ints,
    kernel: int | Ints,
    stride: int | Ints | None = None,
    padding: Padding = 0,
    dilation: int | Ints = 1,
    ceil_mode: bool = False,
) -> Value:
    """Zeros [N, C, *size] with each d [N, C, *P] added at the tap of its window that ``taps`` names.

    Overlapping windows accumulate.  A tap in the padding, or that the window does not have, adds nothing.
    """
    extent = per_axis(size, spatial_rank(d), "size")
    a = pool_attributes(extent, kernel, stride, padding, dilation, ceil_mode)
    attributes = WindowScatterAttributes(a.kernel, a.stride, a.padding, a.dilation, a.ceil_mode, extent)
    return emit(WINDOW_SCATTER, attributes, d, taps)


@dataclass(frozen=True, slots=True)
class WindowScatterAttributes(PoolAttributes):
    """As PoolAttributes; size: the spatial size of the result."""

    size: Ints

    def __post_init__(self) -> None:
        PoolAttributes.__post_init__(self)
        check_window(size=self.size, kernel=self.kernel)


def check_pooled(a: PoolAttributes, size: Ints, d: TensorType) -> None:
    """Raise ShapeError unless d has the shape that pooling an input of spatial ``size`` gives."""
    spatial_rank(d)
    counts = pool_counts(a, size)
    if d.shape[2:] != counts:
        raise ShapeError(f"an input of spatial size {list(size)} has {list(counts)} windows, got shape {list(d.shape)}")


def _check_taps(taps: TensorType, shape: Ints) -> None:
    if not taps.dtype.is_integer:
        raise DTypeError(f"tap indices are integers, got {taps.dtype}", hint="use the result of argmax_pool")
    if taps.shape != shape:
        raise ShapeError(f"needs one tap index per window, shape {list(shape)}, got shape {list(taps.shape)}")


def _window_scatter_type(a: WindowScatterAttributes, d: TensorType, taps: TensorType) -> TensorType:
    numbers_only(d)
    check_pooled(a, a.size, d)
    _check_taps(taps, d.shape)
    return tensor_type(d.dtype, (*d.shape[:2], *a.size))


def _window_scatter_reference(a: WindowScatterAttributes, d: np.ndarray, taps: np.ndarray) -> np.ndarray:
    wide, nothing = accumulating(d), d.dtype.type(0)
    return spread(a, a.size, lambda tap: np.where(taps == tap, wide, nothing), d)


def _window_scatter_gradient(site: Site, d: Value) -> Gradients:
    a = site.attributes
    return window_gather(d, site.operands[1], a.kernel, a.stride, a.padding, a.dilation, a.ceil_mode), None


def scattered(d: Value, taps: Value, site: Site) -> Value:
    """d brought back through the winning taps of the forward pool."""
    a = site.attributes
    return window_scatter(d, taps, site.operands[0].shape[2:], a.kernel, a.stride, a.padding, a.dilation, a.ceil_mode)


WINDOW_SCATTER = register(
    OpDef(
        "window_scatter",
        ("d", "taps"),
        infer=_window_scatter_type,
        reference=_window_scatter_reference,
        gradient=_window_scatter_gradient,
        fusion=Fusion.WINDOW,
        attributes=WindowScatterAttributes,
        cost=spread_cost,
    )
)

# --- window_gather ----------------------------------------------------------------------------------------------------


def window_gather(
    x: Value,
    taps: Value,
    kernel: int | Ints,
    stride: int | Ints | None = None,
    padding: Padding = 0,
    dilation: int | Ints = 1,
    ceil_mode: bool = False,
) -> Value:
    """The element of each window of x that ``taps`` names: the adjoint of :func:`window_scatter`.

    A tap in the padding, or that the window does not have, reads zero.
    """
    return emit(WINDOW_GATHER, pool_attributes(spatial_size(x), kernel, stride, padding, dilation, ceil_mode), x, taps)


def _window_gather_type(a: PoolAttributes, x: TensorType, taps: TensorType) -> TensorType:
    shape = pooled_shape(a, x)
    _check_taps(taps, shape)
    return tensor_type(x.dtype, shape)


def _window_gather_reference(a: PoolAttributes, x: np.ndarray, taps: np.ndarray) -> np.ndarray:
    result = np.zeros(taps.shape, x.dtype)
    for tap, view in enumerate(pool_views(a, x, 0)):
        np.copyto(result, view, where=taps == tap)
    return result


def _window_gather_gradient(site: Site, d: Value) -> Gradients:
    return scattered(d, site.operands[1], site), None


WINDOW_GATHER = register(
    OpDef(
        "window_gather",
        ("x", "taps"),
        infer=_window_gather_type,
        reference=_window_gather_reference,
        gradient=_window_gather_gradient,
        fusion=Fusion.WINDOW,
        attributes=PoolAttributes,
        cost=pool_cost,
    )
)

