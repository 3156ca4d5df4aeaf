"""Indexing kernels.  Indices are checked, wrapped and turned into flat positions in an int64 temporary."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from irconv.backends.arrays.base import Array, ArrayKernel, Request, kernel, scratch
from irconv.errors import IrconvError
from irconv.types import I64


def wrap(xp: Any, numbers: Array, indices: Array, size: int, axis: int) -> None:
    """Copy indices into ``numbers`` with negative ones counted from the front; IrconvError for one out of range."""
    if not indices.size:
        return
    xp.copyto(numbers, indices, casting="unsafe")
    low, high = int(numbers.min()), int(numbers.max())
    if low < -size or high >= size:
        wrong = low if low < -size else high
        raise IrconvError(
            f"index {wrong} is out of range for axis {axis} of size {size}",
            hint=f"indices go from {-size} to {size - 1}" if size else "the axis is empty",
        )
    xp.remainder(numbers, size, numbers)


def _flat_take(request: Request) -> Callable[[Array, Array, Array], None]:
    """``take(x, positions, out)`` for positions known to be in range."""
    xp = request.xp
    if request.parallel is None:
        return lambda x, places, out: xp.take(x, places, axis=0, out=out)
    # NumPy's default mode would copy through a temporary so as to leave out untouched by an error
    return lambda x, places, out: xp.take(x, places, axis=0, out=out, mode="clip")


@kernel("take")
def _take(request: Request) -> ArrayKernel:
    xp, axis = request.xp, request.attributes.axis
    source, indices = request.operands
    size = source.shape[axis]
    outer, inner = math.prod(source.shape[:axis]), math.prod(source.shape[axis + 1 :])
    rows = (xp.arange(outer) * size)[:, None]
    take = _flat_take(request)
    types = [scratch(I64, *indices.shape), scratch(I64, outer, indices.size)]
    if not request.contiguous:
        types.append(scratch(source.dtype, *source.shape))

    def run(out: Array, x: Array, where: Array, numbers: Array, places: Array, *plain: Array) -> None:
        wrap(xp, numbers, where, size, axis)
        if not out.size:
            return
        xp.add(rows, numbers.reshape(1, -1), places)
        take(_plain(xp, x, plain).reshape(outer * size, inner), places, out.reshape(outer, -1, inner))

    return ArrayKernel(run, tuple(types))


def _plain(xp: Any, x: Array, temporary: tuple[Array, ...]) -> Array:
    """x, or its contiguous copy if a temporary was asked for."""
    if not temporary:
        return x
    xp.copyto(temporary[0], x)
    return temporary[0]


def flat_positions(xp: Any, shape: tuple[int, ...], axis: int, size: int) -> Callable[[Array, Array], None]:
    """``flatten(numbers, places)``: flat positions, in an array with ``size`` along the axis, of indices shaped ``shape``."""
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    rows = (xp.arange(outer) * (size * inner))[:, None, None]
    columns = xp.arange(inner)

    def flatten(numbers: Array, places: Array) -> None:
        shaped, source = places.reshape(outer, -1, inner), numbers.reshape(outer, -1, inner)
        xp.multiply(source, inner, shaped)
        xp.add(shaped, rows, shaped)
        xp.add(shaped, columns, shaped)

    return flatten


@kernel("gather")
def _gather(request: Request) -> ArrayKernel:
    xp, axis = request.xp, request.attributes.axis
    source, indices = request.operands
    size = source.shape[axis]
    flatten = flat_positions(xp, indices.shape, axis, size)
    take = _flat_take(request)
    types = [scratch(I64, *indices.shape)]
    if not request.contiguous:
        types.append(scratch(source.dtype, *source.shape))

    def run(out: Array, x: Array, where: Array, numbers: Array, *plain: Array) -> None:
        wrap(xp, numbers, where, size, axis)
        if out.size:
            flatten(numbers, numbers)
            take(_plain(xp, x, plain).reshape(-1), numbers, out)

    return ArrayKernel(run, tuple(types))


@kernel("scatter_add")
def _scatter_add(request: Request) -> ArrayKernel:
    xp, axis, size = request.xp, request.attributes.axis, request.attributes.size
    updates, result = request.operands[0], request.result
    flatten = flat_positions(xp, updates.shape, axis, size)
    types = [scratch(I64, *updates.shape)]
    if result.dtype.accumulator is not result.dtype:
        types.append(scratch(result.dtype.accumulator, *result.shape))

    def run(out: Array, values: Array, where: Array, numbers: Array, *wide: Array) -> None:
        wrap(xp, numbers, where, size, axis)
        if values.size:
            flatten(numbers, numbers)
        _add_at(xp, out, numbers, values, wide)

    return ArrayKernel(run, tuple(types))


def _add_at(xp: Any, out: Array, places: Array, values: Array, wide: tuple[Array, ...]) -> None:
    """Zero ``out`` and add the values at their flat places, in ``wide`` if the sums need more precision."""
    total = wide[0] if wide else out
    total.fill(0)
    if values.size:
        xp.add.at(total.reshape(-1), places, values)
    if wide:
        xp.copyto(out, total, casting="same_kind")


@kernel("take_adjoint")
def _take_adjoint(request: Request) -> ArrayKernel:
    xp, axis, size = request.xp, request.attributes.axis, request.attributes.size
    (d, indices), result = request.operands, request.result
    outer, inner = math.prod(result.shape[:axis]), math.prod(result.shape[axis + 1 :])
    rows = (xp.arange(outer) * (size * inner))[:, None, None]
    columns = xp.arange(inner)
    types = [scratch(I64, *indices.shape), scratch(I64, *d.shape)]
    if result.dtype.accumulator is not result.dtype:
        types.append(scratch(result.dtype.accumulator, *result.shape))

    def run(out: Array, values: Array, where: Array, numbers: Array, places: Array, *wide: Array) -> None:
        wrap(xp, numbers, where, size, axis)
        if values.size:
            xp.multiply(numbers, inner, numbers)
            shaped = places.reshape(outer, -1, inner)
            xp.add(rows, numbers.reshape(1, -1, 1), shaped)
            xp.add(shaped, columns, shaped)
        _add_at(xp, out, places, values, wide)

    return ArrayKernel(run, tuple(types))
