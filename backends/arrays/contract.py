"""Contractions: matrix products through BLAS, and window matrices copied tap by tap."""

from __future__ import annotations

import math
from collections.abc import Sequence

from irconv.backends.arrays.base import Array, ArrayKernel, Parallel, Request, Scratch, kernel, spans
from irconv.backends.arrays.taps import window_taps
from irconv.backends.arrays.work import Work, work_kernel
from irconv.ops.window import window_counts
from irconv.types import F16, F32, TensorType

SMALL_PRODUCT = 500_000
"""Products of fewer multiplications are done by one thread."""


def matmul_work(request: Request, scratch: Scratch) -> Work:
    """A matrix product in pieces: of the first batch axis, else of the rows, else of the columns."""
    xp, (x_type, y_type), result = request.xp, request.operands, request.result
    axis, pieces = _split_axis(x_type, y_type, result, request.parallel)
    before = (slice(None),) * axis
    rest = (slice(None),) * (result.rank - axis - 1)
    regions = tuple((*before, slice(start, stop), *rest) for start, stop in pieces)
    # where the pieces read: rows of x, columns of y, or both along a batch axis that is not broadcast
    rows, columns, batch = axis == result.rank - 2, axis == result.rank - 1, axis < result.rank - 2
    split_x = rows or (batch and x_type.rank == result.rank and x_type.shape[axis] > 1)
    split_y = columns or (batch and y_type.rank == result.rank and y_type.shape[axis] > 1)
    wide = [scratch.add(F32, *t.shape) for t in (x_type, y_type, result)] if result.dtype is F16 else []

    def prepare(x: Array, y: Array, buffers: tuple[Array, ...]) -> Array:
        if wide:
            xp.copyto(buffers[wide[0]], x)
            xp.copyto(buffers[wide[1]], y)
        return y

    def piece(i: int, worker: int, out: Array, x: Array, y: Array, buffers: tuple[Array, ...]) -> None:
        region = regions[i]
        left, right, target = (buffers[wide[0]], buffers[wide[1]], buffers[wide[2]]) if wide else (x, y, out)
        part = target[region]
        if split_x:
            left = left[(..., region[axis], slice(None))] if rows else left[region[: axis + 1]]
        if split_y:
            right = right[(..., region[axis])] if columns else right[region[: axis + 1]]
        xp.matmul(left, right, out=part)
        if wide:
            xp.copyto(out[region], part, casting="same_kind")

    return Work(regions, prepare, piece)


def _split_axis(
    x: TensorType, y: TensorType, result: TensorType, parallel: Parallel | None
) -> tuple[int, Sequence[tuple[int, int]]]:
    """Which axis of the result to cut, and where."""
    rank = result.rank
    shares = parallel.shares if parallel else 1
    if shares == 1 or result.size * x.shape[-1] < SMALL_PRODUCT:
        return rank - 2, [(0, result.shape[-2])]
    choices = [0] if rank > 2 else []
    choices += [rank - 2, rank - 1] if result.shape[-2] >= result.shape[-1] else [rank - 1, rank - 2]
    for axis in choices:
        if result.shape[axis] >= shares:
            return axis, spans(result.shape[axis], -(-result.shape[axis] // shares))
    return rank - 2, [(0, result.shape[-2])]


@kernel("matmul")
def _matmul(request: Request) -> ArrayKernel:
    scratch = Scratch()
    return work_kernel(matmul_work(request, scratch), request.parallel, scratch)


@kernel("im2col")
def _im2col(request: Request) -> ArrayKernel:
    xp, a, x_type = request.xp, request.attributes, request.operands[0]
    batch, channels, size = x_type.shape[0], x_type.shape[1], x_type.shape[2:]
    counts = window_counts(size, a.kernel, a.stride, a.padding, a.dilation)
    taps = window_taps(size, counts, a.kernel, a.stride, a.padding, a.dilation)
    rank, per_group, tap_count = len(size), channels // a.groups, math.prod(a.kernel)
    shape = (a.groups, batch, *counts, per_group, tap_count)
    # [groups, N, *windows, C, taps] seen as [taps, N, groups, C, *windows]
    order = (rank + 3, 1, 0, rank + 2, *range(2, rank + 2))
    plain = all(tap.whole for tap in taps) and len(taps) == tap_count

    def run(out: Array, x: Array) -> None:
        columns = out.reshape(shape).transpose(order)
        source = x.reshape(batch, a.groups, per_group, *size)
        if not plain:
            out.fill(0)
        for tap in taps:
            xp.copyto(columns[tap.index][(..., *tap.windows)], source[(..., *tap.positions)])

    return ArrayKernel(run)


@kernel("col2im")
def _col2im(request: Request) -> ArrayKernel:
    xp, a, result = request.xp, request.attributes, request.result
    counts = window_counts(a.size, a.kernel, a.stride, a.padding, a.dilation)
    taps = window_taps(a.size, counts, a.kernel, a.stride, a.padding, a.dilation)
    rank, per_group, tap_count = len(a.size), a.channels // a.groups, math.prod(a.kernel)
    shape = (a.groups, a.batch, *counts, per_group, tap_count)
    order = (rank + 3, 1, 0, rank + 2, *range(2, rank + 2))
    wide = (TensorType(F32, result.shape),) if result.dtype is F16 else ()

    def run(out: Array, columns: Array, *temporary: Array) -> None:
        parts = columns.reshape(shape).transpose(order)
        total = temporary[0] if temporary else out
        total.fill(0)
        image = total.reshape(a.batch, a.groups, per_group, *a.size)
        for tap in taps:
            place = image[(..., *tap.positions)]
            xp.add(place, parts[tap.index][(..., *tap.windows)], place)
        if temporary:
            xp.copyto(out, total, casting="same_kind")

    return ArrayKernel(run, wide)
