"""Resizing, axis by axis from the first: gathers of neighbours for resize, products with the weights for its adjoint.

Along each axis resizing is linear: a matrix of m rows with at most two numbers each.  ``resize`` gathers whole slices by
index; the adjoint multiplies by the transposed matrix, which adds in a fixed order on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from irconv.backends.arrays.base import Array, ArrayKernel, Request, kernel, scratch
from irconv.ops.resize import AxisTaps, ResizeAttributes, axis_taps
from irconv.types import TensorType


def _axes(a: ResizeAttributes, small: Sequence[int], large: Sequence[int]) -> list[tuple[int, AxisTaps]]:
    """(axis counted from the back, its taps) for the axes that change."""
    count = len(a.size)
    scales = a.scales or (None,) * count
    rows = zip(range(-count, 0), small[-count:], large[-count:], scales, strict=True)
    found = [(axis, axis_taps(n, m, a.mode, a.coordinates, scale)) for axis, n, m, scale in rows]
    return [(axis, taps) for axis, taps in found if not _is_identity(taps, small[axis])]


def _is_identity(taps: AxisTaps, n: int) -> bool:
    return len(taps.low) == n and bool(np.array_equal(taps.low, np.arange(n))) and not taps.weight.any()


def _shapes(source: tuple[int, ...], target: tuple[int, ...], axes: Sequence[int]) -> list[tuple[int, ...]]:
    """The shapes after each of the axes has been resized in turn."""
    shape = list(source)
    found = []
    for axis in axes:
        shape[axis] = target[axis]
        found.append(tuple(shape))
    return found


def _split(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """Elements in front of an axis (counted from the back), along it, and behind it."""
    place = len(shape) + axis
    return math.prod(shape[:place]), shape[place], math.prod(shape[place + 1 :])


@kernel("resize")
def _resize(request: Request) -> ArrayKernel:
    xp, a, source, result = request.xp, request.attributes, request.operands[0], request.result
    plan = _axes(a, source.shape, result.shape)
    shapes = _shapes(source.shape, result.shape, [axis for axis, _ in plan])
    linear = a.mode == "linear"
    work = result.dtype.accumulator if linear else result.dtype
    types: list[TensorType] = [scratch(work, *shape) for shape in shapes]
    if linear:
        types += [scratch(work, *source.shape), scratch(work, math.prod(max(shapes, key=math.prod, default=(1,))))]
    steps = [_axis_step(xp, axis, taps, work.numpy) for axis, taps in plan]

    def run(out: Array, x: Array, *temporaries: Array) -> None:
        stages, extra = temporaries[: len(shapes)], temporaries[len(shapes) :]
        current = x
        if extra:
            xp.copyto(extra[0], x)
            current = extra[0]
        for (axis, low, high, weight, rest), stage in zip(steps, stages, strict=True):
            take = _taker(request, axis)
            take(current, low, stage)
            if linear:
                other = extra[1][: stage.size].reshape(stage.shape)
                take(current, high, other)
                xp.multiply(stage, rest, stage)
                xp.multiply(other, weight, other)
                xp.add(stage, other, stage)
            current = stage
        xp.copyto(out, current, casting="same_kind")

    return ArrayKernel(run, tuple(types))


def _axis_step(xp: Any, axis: int, taps: AxisTaps, dtype: Any) -> tuple[int, Array, Array, Array, Array]:
    weight = taps.weight.astype(dtype).reshape(-1, *(1,) * (-axis - 1))
    return axis, xp.asarray(taps.low), xp.asarray(taps.high), xp.asarray(weight), xp.asarray(1 - weight)


def _taker(request: Request, axis: int) -> Any:
    xp = request.xp
    if request.parallel is None:
        return lambda x, places, out: xp.take(x, places, axis=axis, out=out)
    # NumPy's default mode would copy through a temporary so as to leave out untouched by an error
    return lambda x, places, out: xp.take(x, places, axis=axis, out=out, mode="clip")


@kernel("resize_adjoint")
def _resize_adjoint(request: Request) -> ArrayKernel:
    xp, a, source, result = request.xp, request.attributes, request.operands[0], request.result
    plan = _axes(a, result.shape, source.shape)
    shapes = _shapes(source.shape, result.shape, [axis for axis, _ in plan])
    work = result.dtype.accumulator
    types = [scratch(work, *source.shape), *(scratch(work, *shape) for shape in shapes)]
    matrices = [xp.asarray(_weights(taps, result.shape[axis]).astype(work.numpy)) for axis, taps in plan]

    def run(out: Array, d: Array, first: Array, *stages: Array) -> None:
        xp.copyto(first, d)
        current = first
        for (axis, _), matrix, stage in zip(plan, matrices, stages, strict=True):
            outer, m, inner = _split(current.shape, axis)
            n = stage.shape[axis]
            if inner == 1:
                xp.matmul(current.reshape(outer, m), matrix.T, out=stage.reshape(outer, n))
            else:
                xp.matmul(matrix, current.reshape(outer, m, inner), out=stage.reshape(outer, n, inner))
            current = stage
        xp.copyto(out, current, casting="same_kind")

    return ArrayKernel(run, tuple(types))


def _weights(taps: AxisTaps, n: int) -> np.ndarray:
    """The matrix [n, m] that brings a resized axis back."""
    matrix = np.zeros((n, len(taps.low)))
    places = np.arange(len(taps.low))
    np.add.at(matrix, (taps.low, places), 1 - taps.weight)
    np.add.at(matrix, (taps.high, places), taps.weight)
    return matrix
