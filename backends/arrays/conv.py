"""Convolution as matrix products: 1x1 straight into BLAS, everything else through a window matrix of cache size.

The result is cut into pieces: a group of small samples, or a band of rows of one large sample.  Each piece copies its
windows into a temporary that stays in a core's cache and is multiplied from there straight into the result; pieces run
side by side.  Few output channels go with the rows of the kernel stacked (:mod:`irconv.backends.arrays.conv_stacked`), wide 3x3
layers by Winograd's algorithm; :mod:`irconv.backends.arrays.conv_cost` estimates which is fastest.

Measured on AVX-512 cores (float32, one BLAS thread for each piece): the product runs at 115 GFLOP/s per core with 64 output
channels, 150 with 128; copying the windows of a 3x3 kernel adds 10 to 25%.  BLAS with two threads of its own is no faster, and
its idle threads spin on the core that the next kernel needs.
"""

from __future__ import annotations

import math
from typing import Any

from irconv.backends.arrays.base import Array, ArrayKernel, Parallel, Request, Scratch, even_step, kernel, spans
from irconv.backends.arrays.columns import Piece, bands, fill, pieces, plane_elements
from irconv.backends.arrays.conv_cost import plain_seconds, stacked_seconds
from irconv.backends.arrays.conv_stacked import can_stack, stacked_rows, stacked_work
from irconv.backends.arrays.depthwise import depthwise_work, is_depthwise
from irconv.backends.arrays.geometry import Geometry, conv_geometry
from irconv.backends.arrays.winograd import seconds, suits, winograd_work
from irconv.backends.arrays.work import Work, flat_weight, work_kernel
from irconv.types import DType

COLUMN_BYTES = 1024 * 1024
"""A window matrix of this size and the piece of the result it makes stay in a core's second-level cache."""

GPU_COLUMN_BYTES = 256 * 1024 * 1024
"""On a GPU large products are best; this bounds the memory they take."""

MANY_COLUMNS, LARGEST_BYTES = 392, 8 * 1024 * 1024
"""Where the weight itself exceeds the cache, so many columns at once, if they take no more than this.

BLAS rearranges the whole weight for every product: 512 by 4608 takes 107 GFLOP/s with 49 columns, 148 with 392."""

FEW_COLUMNS = 128
"""The pieces are rows of the weight when there would be fewer columns of windows in each."""


# --- planning --------------------------------------------------------------------------------------------------------------


def plan_pieces(g: Geometry, itemsize: int, parallel: Parallel | None) -> tuple[Piece, ...]:
    """Cut the result so that the window matrix of a piece stays in cache and every thread has some to do."""
    shares = parallel.shares if parallel else 1
    budget = COLUMN_BYTES if parallel else GPU_COLUMN_BYTES
    row = math.prod(g.counts[1:])
    # columns of which both the windows and the results fit
    column = max(1, max(g.groups * g.depth, g.out_channels) * itemsize)
    fitting = max(1, budget // column)
    if g.out_channels * g.depth * itemsize > budget:
        fitting = max(fitting, min(MANY_COLUMNS, LARGEST_BYTES // column))
    share = max(1, -(-g.batch * g.area // shares))
    if g.area <= fitting:
        # evenly many samples for every thread, so that none waits for the other's last piece
        rounds = -(-share // fitting)
        samples = max(1, min(fitting // g.area, -(-g.batch // (shares * rounds))))
        rows = g.counts[0]
        if g.batch < shares:
            rows = max(1, min(rows, share // row))
    else:
        samples, rows = 1, max(1, min(fitting, share) // row)
        if g.batch % shares:
            rows = even_step(g.counts[0], rows, shares)
    cut = bands(g.size, g.counts, g.kernel, g.stride, g.padding, g.dilation, rows)
    return pieces(g.batch, cut, samples)


def _few_columns(g: Geometry, parallel: Parallel | None) -> bool:
    """Whether sharing out the columns would leave each thread too few to be fast."""
    if parallel is None or parallel.shares == 1:
        return False
    return g.batch * g.area // parallel.shares < FEW_COLUMNS and g.out_channels // g.groups >= 32


# --- window matrix and product ---------------------------------------------------------------------------------------------


def product_work(xp: Any, g: Geometry, dtype: DType, parallel: Parallel | None, scratch: Scratch) -> Work:
    """The convolution through its window matrix."""
    work = dtype.accumulator
    plan = plan_pieces(g, work.bytes, parallel)
    threads = parallel.threads if parallel else 1
    widest = max((piece.columns for piece in plan), default=1)
    weight_shape = (g.out_channels, g.channels // g.groups, *g.kernel)
    spare = scratch.add(work, *weight_shape)
    matrix = scratch.add(work, threads, g.channels * g.taps * widest)
    padded = scratch.add(
        work, threads, g.channels * max((p.samples for p in plan), default=0) * plane_elements(p.band for p in plan)
    )
    gathered = work is not dtype or any(piece.samples > 1 for piece in plan)
    product = scratch.add(work, threads, g.out_channels * widest) if gathered else -1
    row = math.prod(g.counts[1:])
    per_group = g.out_channels // g.groups
    direct = g.is_pointwise and work is dtype
    regions = tuple(
        (slice(p.first, p.last), slice(None), slice(p.band.start, p.band.stop), *(slice(None) for _ in g.counts[1:]))
        for p in plan
    )

    def before(x: Array, w: Array, buffers: tuple[Array, ...]) -> Array:
        return flat_weight(xp, w, buffers[spare]).reshape(g.groups, per_group, g.depth)

    def piece(i: int, worker: int, out: Array, x: Array, weight: Array, buffers: tuple[Array, ...]) -> None:
        p = plan[i]
        columns = slice(p.band.start * row, p.band.stop * row)
        if direct and p.samples == 1 and x.flags.c_contiguous:
            windows = x[p.first].reshape(g.groups, g.depth, g.area)[:, :, columns]
        else:
            block = buffers[matrix][worker, : g.channels * g.taps * p.columns]
            shaped = block.reshape(g.channels, g.taps, p.samples, *p.band.counts)
            fill(xp, shaped, x[p.first : p.last], p.band, spare=buffers[padded][worker])
            windows = block.reshape(g.groups, g.depth, p.columns)
        if not gathered:
            target = out[p.first].reshape(g.groups, per_group, g.area)[:, :, columns]
            xp.matmul(weight, windows, out=target)
            return
        result = buffers[product][worker, : g.out_channels * p.columns]
        xp.matmul(weight, windows, out=result.reshape(g.groups, per_group, p.columns))
        shaped = result.reshape(g.out_channels, p.samples, *p.band.counts)
        xp.copyto(out[regions[i]], shaped.swapaxes(0, 1), casting="same_kind")

    return Work(regions, before, piece)


def rows_work(xp: Any, g: Geometry, dtype: DType, parallel: Parallel, scratch: Scratch) -> Work:
    """The convolution of few columns: the window matrix is made once, the threads share the rows of the weight."""
    work = dtype.accumulator
    (band,) = bands(g.size, g.counts, g.kernel, g.stride, g.padding, g.dilation, g.counts[0])
    columns, per_group = g.batch * g.area, g.out_channels // g.groups
    spare = scratch.add(work, g.out_channels, g.channels // g.groups, *g.kernel)
    matrix = scratch.add(work, g.channels * g.taps * columns)
    product = scratch.add(work, g.out_channels * columns)
    plan = spans(per_group, -(-per_group // parallel.shares))
    if g.groups > 1:
        plan = [(0, per_group)]
    everything = tuple(slice(None) for _ in g.counts)
    regions = tuple(
        (slice(None), slice(start, stop) if g.groups == 1 else slice(None), *everything) for start, stop in plan
    )
    direct = g.is_pointwise and work is dtype and g.batch == 1

    def before(x: Array, w: Array, buffers: tuple[Array, ...]) -> Array:
        if not (direct and x.flags.c_contiguous):
            shaped = buffers[matrix].reshape(g.channels, g.taps, g.batch, *g.counts)
            fill(xp, shaped, x, band)
        return flat_weight(xp, w, buffers[spare]).reshape(g.groups, per_group, g.depth)

    def piece(i: int, worker: int, out: Array, x: Array, weight: Array, buffers: tuple[Array, ...]) -> None:
        start, stop = plan[i]
        block = x if direct and x.flags.c_contiguous else buffers[matrix]
        windows = block.reshape(g.groups, g.depth, columns)
        result = buffers[product].reshape(g.groups, per_group, columns)[:, start:stop]
        if g.batch == 1 and work is dtype:
            result = out.reshape(g.groups, per_group, columns)[:, start:stop]
            xp.matmul(weight[:, start:stop], windows, out=result)
            return
        xp.matmul(weight[:, start:stop], windows, out=result)
        shaped = result.reshape(-1, g.batch, *g.counts)
        xp.copyto(out[regions[i]], shaped.swapaxes(0, 1), casting="same_kind")

    return Work(regions, before, piece)


def conv_work(xp: Any, g: Geometry, dtype: DType, parallel: Parallel | None, strict: bool, scratch: Scratch) -> Work:
    """The convolution by the algorithm that suits its geometry."""
    if is_depthwise(g.channels, g.out_channels, g.groups) and dtype.is_float:
        return depthwise_work(xp, g, dtype, parallel, scratch)
    tiled = parallel is not None and not strict and suits(g, dtype, parallel)
    if parallel is not None and can_stack(g, dtype):
        _, rows, reach = stacked_rows(g, parallel.shares)
        if stacked_seconds(g, rows, reach) < (seconds(g, parallel) if tiled else 0.95 * plain_seconds(g)):
            return stacked_work(xp, g, dtype, parallel, scratch)
    if parallel is not None and tiled:
        return winograd_work(xp, g, dtype, parallel, scratch)
    if parallel is not None and _few_columns(g, parallel):
        return rows_work(xp, g, dtype, parallel, scratch)
    return product_work(xp, g, dtype, parallel, scratch)


def conv_request_work(request: Request, scratch: Scratch) -> Work:
    """The work of a conv node."""
    x, w = request.operands
    g = conv_geometry(request.attributes, x, w, request.result)
    return conv_work(request.xp, g, request.result.dtype, request.parallel, request.strict, scratch)


@kernel("conv")
def _conv(request: Request) -> ArrayKernel:
    scratch = Scratch()
    return work_kernel(conv_request_work(request, scratch), request.parallel, scratch)
