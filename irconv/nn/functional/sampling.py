"""Reading images at positions that are themselves computed: spatial transformers, optical flow."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any

import numpy as np

from irconv.nn.functional.common import misshapen, refused, tensor_of
from irconv.op import Value
from irconv.ops import elementwise as e
from irconv.ops.concat import concat
from irconv.ops.contract import matmul
from irconv.ops.index import take
from irconv.ops.shape import expand_dims, int_tuple, narrow, reshape, squeeze, transpose, zeros
from irconv.tensor import Tensor, as_tensor, floating
from irconv.tracing import composite
from irconv.types import I64

SAMPLE_MODES = ("bilinear", "nearest", "bicubic")
PADDING_MODES = ("zeros", "border", "reflection")
CUBIC = -0.75
"""Coefficient of the cubic kernel, as in PyTorch and ONNX."""

Tap = tuple[Value, Value | None]
"""One element read along one axis: its index, still a float and perhaps outside, and its weight (None: 1)."""


def affine_grid(theta: Any, size: Any, align_corners: bool = False) -> Tensor:
    """The grid [N, *S, d] at which :func:`grid_sample` applies affine maps theta [N, d, d + 1] to images of ``size`` (N, C, *S).

    Coordinates go from -1 to 1, the last axis of the image first; see :func:`grid_sample` for ``align_corners``.
    """
    maps = floating(theta)
    spatial = int_tuple(size, "size")[2:]
    rank = len(spatial)
    if not spatial or maps.shape[1:] != (rank, rank + 1):
        raise misshapen(
            f"affine maps for {rank} axes have the shape [batch, {rank}, {rank + 1}], got {list(maps.shape)}"
        )
    axes = [_even_coordinates(n, align_corners) for n in spatial]
    mesh = np.stack([*np.meshgrid(*axes, indexing="ij")[::-1], np.ones(spatial)], axis=-1)
    points = as_tensor(mesh.reshape(-1, rank + 1).astype(maps.dtype))
    with composite("affine_grid"):
        return tensor_of(reshape(matmul(points, transpose(maps, (0, 2, 1))), (maps.shape[0], *spatial, rank)))


def _even_coordinates(n: int, align_corners: bool) -> np.ndarray:
    places = np.arange(n, dtype=np.float64)
    if align_corners:
        return 2 * places / (n - 1) - 1 if n > 1 else np.zeros(n)
    return (2 * places + 1) / n - 1


def grid_sample(
    input: Any, grid: Any, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> Tensor:
    """x [N, C, *S] read at the positions in ``grid`` [N, *O, d], for any number d of spatial axes: [N, C, *O].

    grid:          coordinates from -1 to 1, that of the last axis first.
    mode:          'bilinear' (d-linear), 'nearest' (ties to even) or 'bicubic' (cubic along every axis).
    padding_mode:  what lies outside: 'zeros', the 'border' element, or the image's 'reflection'.
    align_corners: whether -1 and 1 are the centres of the outer elements rather than their outer edges.
    """
    x, positions = as_tensor(input), floating(grid)
    rank = x.ndim - 2
    if mode not in SAMPLE_MODES:
        raise refused(f"sampling mode {mode!r} is not one of {', '.join(SAMPLE_MODES)}")
    if padding_mode not in PADDING_MODES:
        raise refused(f"padding mode {padding_mode!r} is not one of {', '.join(PADDING_MODES)}")
    if rank < 1 or positions.ndim != x.ndim or positions.shape[0] != x.shape[0] or positions.shape[-1] != rank:
        raise misshapen(
            f"a grid for an image of shape {list(x.shape)} is [batch, *size, {rank}], got {list(positions.shape)}"
        )
    if 0 in x.shape[2:]:
        raise misshapen(f"cannot sample from an image without elements: {list(x.shape)}")
    with composite("grid_sample"):
        return _sampled(x, positions, mode, padding_mode, bool(align_corners))


def _sampled(x: Tensor, grid: Tensor, mode: str, padding: str, align: bool) -> Tensor:
    size, out = x.shape[2:], grid.shape[1:-1]
    rank = len(size)
    flat = e.cast(reshape(grid, (x.shape[0], math.prod(out), rank)), grid.type.dtype.accumulator)
    coordinates = [squeeze(narrow(flat, -1, rank - 1 - axis, rank - axis), -1) for axis in range(rank)]
    positions = [_position(coordinate, n, align) for coordinate, n in zip(coordinates, size, strict=True)]
    values = sample_at(x, positions, mode, padding, align)
    return tensor_of(reshape(values, (*x.shape[:2], *out)))


def sample_at(
    x: Value, positions: Sequence[Value], mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool = False
) -> Value:
    """x [N, C, *S] read at positions [N, points], one value for each axis, in elements: [N, C, points].

    Modes as in :func:`grid_sample`; ``align_corners`` says where a reflection turns: at the outer elements or at their edges.
    """
    total = reduce(e.add, tap_terms(x, positions, mode, padding_mode, align_corners))
    return transpose(e.cast(total, x.type.dtype), (0, 2, 1))


def tap_terms(
    x: Value,
    positions: Sequence[Value],
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
    samples: Value | None = None,
) -> Iterator[Value]:
    """What each tap adds to the result of :func:`sample_at`, [M, points, C] in the type that sums are carried in.

    samples: for positions [M, points] the sample [M] that each row reads; None: its own.
    """
    batch, channels, size = x.shape[0], x.shape[1], x.shape[2:]
    axes = zip(positions, size, strict=True)
    taps = [_axis_taps(position, n, mode, padding_mode, align_corners) for position, n in axes]
    work = x.type.dtype.accumulator if mode != "nearest" else x.type.dtype
    rows = reshape(transpose(e.cast(x, work), (0, *range(2, x.rank), 1)), (batch * math.prod(size), channels))
    nothing = rows.shape[0]  # the row that stands for what lies outside
    rows = concat([rows, zeros((1, channels), rows)])
    first: Value = x.builder.constant(np.arange(batch)) if samples is None else e.cast(samples, I64)
    starts = reshape(e.multiply(first, math.prod(size)), (-1, 1))
    for chosen in itertools.product(*taps):
        values = take(rows, _row(chosen, size, starts, nothing), 0)
        for weight in _product([e.cast(weight, work) for _, weight in chosen if weight is not None]):
            values = e.multiply(values, expand_dims(weight, -1))
        yield values


def _product(values: Sequence[Value]) -> list[Value]:
    """The product of all values, in a list that is empty if there are none."""
    product: list[Value] = []
    for value in values:
        product = [e.multiply(product[0], value) if product else value]
    return product


def _position(coordinate: Value, n: int, align: bool) -> Value:
    """Coordinates from -1 to 1 in elements of an axis."""
    if align:
        return e.multiply(e.add(coordinate, 1), (n - 1) / 2)
    return e.multiply(e.subtract(e.multiply(e.add(coordinate, 1), n), 1), 0.5)


def _axis_taps(position: Value, n: int, mode: str, padding: str, align: bool) -> list[Tap]:
    """What each point reads along one axis."""
    if mode == "bicubic":
        base = e.floor(position)
        weights = _cubic_weights(e.subtract(position, base))
        return [(_inside(e.add(base, k - 1), n, padding, align), weight) for k, weight in enumerate(weights)]
    position = _inside(position, n, padding, align)
    if mode == "nearest":
        return [(e.round_(position), None)]
    base = e.floor(position)
    t = e.subtract(position, base)
    return [(base, e.subtract(1, t)), (e.add(base, 1), t)]


def _inside(position: Value, n: int, padding: str, align: bool) -> Value:
    """Positions moved into the axis, unless what lies outside is zero."""
    if padding == "zeros":
        return position
    if padding == "reflection":
        low, span = (0.0, n - 1) if align else (-0.5, n)
        if span:
            turn = e.remainder(e.subtract(position, low), 2 * span)
            position = e.subtract(low + span, e.absolute(e.subtract(turn, span)))
    return e.clip(position, 0, n - 1)


def _cubic_weights(t: Value) -> list[Value]:
    """Keys' kernel at distances t + 1, t, 1 - t and 2 - t."""

    def polynomial(s: Value, *coefficients: float) -> Value:
        value: Value = e.add(e.multiply(s, coefficients[0]), coefficients[1])
        for c in coefficients[2:]:
            value = e.add(e.multiply(value, s), c)
        return value

    near: Callable[[Value], Value] = lambda s: polynomial(s, CUBIC + 2, -(CUBIC + 3), 0, 1)  # noqa: E731
    far: Callable[[Value], Value] = lambda s: polynomial(s, CUBIC, -5 * CUBIC, 8 * CUBIC, -4 * CUBIC)  # noqa: E731
    return [far(e.add(t, 1)), near(t), near(e.subtract(1, t)), far(e.subtract(2, t))]


def _row(chosen: Sequence[Tap], size: tuple[int, ...], starts: Value, nothing: int) -> Value:
    """The row of all samples' elements that one tap of every axis means; ``nothing`` where an index lies outside (or is NaN).

    starts: the first row of the sample that each row of positions reads.
    """
    row: Value = starts.builder.constant(np.zeros((), np.int64))
    exists: Value | None = None
    for (index, _), n in zip(chosen, size, strict=True):
        inside = e.logical_and(e.greater_equal(index, 0), e.less_equal(index, n - 1))
        row = e.add(e.multiply(row, n), e.cast(e.where(inside, index, 0), I64))
        exists = inside if exists is None else e.logical_and(exists, inside)
    assert exists is not None
    return e.where(exists, e.add(row, starts), nothing)
