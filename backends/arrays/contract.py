"""Contractions: matrix products through BLAS, and window matrices copied tap by tap."""

from __future__ import annotations

import math
from typing import Any

from irconv.backends.arrays.base import Array, ArrayKernel, Request, kernel, scratch
from irconv.backends.arrays.taps import window_taps
from irconv.ops.window import window_counts
from irconv.types import F16, F32


@kernel("matmul")
def _matmul(request: Request) -> ArrayKernel:
    xp, result = request.xp, request.result
    if result.dtype is F16:
        types = tuple(scratch(F32, *t.shape) for t in (*request.operands, result))
        return ArrayKernel(lambda out, x, y, *wide: _wide_product(xp, out, x, y, *wide), types)

    def run(out: Array, x: Array, y: Array) -> None:
        xp.matmul(x, y, out=out)

    return ArrayKernel(run)


def _wide_product(xp: Any, out: Array, x: Array, y: Array, left: Array, right: Array, product: Array) -> None:
    """float16 multiplied and summed in float32."""
    xp.copyto(left, x)
    xp.copyto(right, y)
    xp.matmul(left, right, out=product)
    xp.copyto(out, product, casting="same_kind")


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
    wide = (scratch(F32, *result.shape),) if result.dtype is F16 else ()

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
