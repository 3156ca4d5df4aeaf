"""Resizing, axis by axis from the first.

Along each axis resizing is linear: a matrix with a few numbers in each row.  ``resize`` gathers whole slices by index and adds
them weighted, or multiplies by the matrix where a row has many; the adjoint multiplies by the transposed matrix, which adds in a
fixed order on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from irconv.backends.arrays.base import Array, ArrayKernel, Request, kernel, scratch
from irconv.ops.resize_taps import AxisTaps, ResizeAttributes, taps_by_axis
from irconv.types import TensorType

FEW = 4
"""Up to so many taps a row are gathered; more go through a matrix product."""


def _axes(a: ResizeAttributes, small: Sequence[int], large: Sequence[int]) -> list[tuple[int, AxisTaps]]:
    """(axis counted from the back, its taps) for the axes that change."""
    return [(axis, taps) for axis, taps in taps_by_axis(a, small, large) if not _is_identity(taps, small[axis])]


def _is_identity(taps: AxisTaps, n: int) -> bool:
    return len(taps.indices) == n and bool(np.array_equal(taps.matrix(n), np.eye(n)))


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
    a, source, result = request.attributes, request.operands[0], request.result
    work = result.dtype if a.mode == "nearest" else result.dtype.accumulator
    plan = _axes(a, source.shape, result.shape)
    shapes = _shapes(source.shape, result.shape, [axis for axis, _ in plan])
    largest = math.prod(max(shapes, key=math.prod, default=(1,)))
    types: list[TensorType] = [scratch(work, *shape) for shape in shapes]
    types += [scratch(work, *source.shape), scratch(work, largest)]
    sizes = [source.shape, *shapes]
    steps = [
        _axis_step(request, axis, taps, size[axis], work.numpy) for (axis, taps), size in zip(plan, sizes, strict=False)
    ]
    return _through(request.xp, steps, tuple(types))


Step = Callable[[Array, Array, Array], None]
"""``step(x, out, extra)``: resize one axis, with ``extra`` a temporary of at least out's size."""


def _through(xp: Any, steps: Sequence[Step], types: tuple[TensorType, ...]) -> ArrayKernel:
    """A kernel that takes its operand, in the type that it is computed in, through the steps."""

    def run(out: Array, x: Array, *temporaries: Array) -> None:
        *stages, first, extra = temporaries
        xp.copyto(first, x)
        current = first
        for step, stage in zip(steps, stages, strict=True):
            step(current, stage, extra)
            current = stage
        xp.copyto(out, current, casting="same_kind")

    return ArrayKernel(run, types)


def _axis_step(request: Request, axis: int, taps: AxisTaps, n: int, dtype: Any) -> Step:
    count = taps.indices.shape[1]
    if count > FEW:
        return _product(request.xp, axis, taps.matrix(n).astype(dtype))
    return _gathers(request, axis, taps, dtype)


def _gathers(request: Request, axis: int, taps: AxisTaps, dtype: Any) -> Step:
    """The weighted sum of one gather for each tap."""
    xp, take = request.xp, _taker(request, axis)
    count = taps.indices.shape[1]
    indices = [xp.asarray(np.ascontiguousarray(taps.indices[:, t])) for t in range(count)]
    shaped = taps.weights.astype(dtype).reshape(*taps.weights.shape, *(1,) * (-axis - 1))
    weights = [xp.asarray(np.ascontiguousarray(shaped[:, t])) for t in range(count)]
    plain = bool(np.all(taps.weights == 1))

    def step(x: Array, out: Array, extra: Array) -> None:
        take(x, indices[0], out)
        if not plain:
            xp.multiply(out, weights[0], out)
        other = extra[: out.size].reshape(out.shape)
        for where, weight in zip(indices[1:], weights[1:], strict=True):
            take(x, where, other)
            xp.multiply(other, weight, other)
            xp.add(out, other, out)

    return step


def _product(xp: Any, axis: int, dense: np.ndarray) -> Step:
    """The product of a matrix with one axis."""
    matrix = xp.asarray(dense)

    def step(x: Array, out: Array, extra: Array) -> None:
        outer, n, inner = _split(x.shape, axis)
        m = out.shape[axis]
        if inner == 1:
            xp.matmul(x.reshape(outer, n), matrix.T, out=out.reshape(outer, m))
        else:
            xp.matmul(matrix, x.reshape(outer, n, inner), out=out.reshape(outer, m, inner))

    return step


def _taker(request: Request, axis: int) -> Any:
    xp = request.xp
    if request.parallel is None:
        return lambda x, places, out: xp.take(x, places, axis=axis, out=out)
    # NumPy's default mode would copy through a temporary so as to leave out untouched by an error
    return lambda x, places, out: xp.take(x, places, axis=axis, out=out, mode="clip")


@kernel("resize_adjoint")
def _resize_adjoint(request: Request) -> ArrayKernel:
    a, source, result = request.attributes, request.operands[0], request.result
    work = result.dtype.accumulator
    plan = _axes(a, result.shape, source.shape)
    shapes = _shapes(source.shape, result.shape, [axis for axis, _ in plan])
    types = [*(scratch(work, *shape) for shape in shapes), scratch(work, *source.shape), scratch(work, 1)]
    steps = [
        _product(request.xp, axis, np.ascontiguousarray(taps.matrix(result.shape[axis]).T.astype(work.numpy)))
        for axis, taps in plan
    ]
    return _through(request.xp, steps, tuple(types))
