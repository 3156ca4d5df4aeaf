"""Transposed convolution, which is also the input gradient of convolution.

At stride 1 it is a convolution with the kernel turned round and the channels exchanged, unless it has far fewer channels than
its operand.  Otherwise every block of output channels is one matrix product, whose rows (channel, tap) are added into the
result tap by tap; windows that do not overlap (the 2x2, stride 2 of a U-Net) are copied instead.  Depthwise: a
multiplication and an addition per tap.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from irconv.backends.arrays.base import Array, ArrayKernel, Parallel, Request, Scratch, kernel, spans
from irconv.backends.arrays.conv import COLUMN_BYTES, GPU_COLUMN_BYTES, conv_work
from irconv.backends.arrays.depthwise import is_depthwise
from irconv.backends.arrays.geometry import Geometry
from irconv.backends.arrays.taps import overlaps, tiles, window_taps
from irconv.backends.arrays.work import Work, work_kernel
from irconv.types import TensorType

GATHER_BELOW = 256
"""Samples of fewer positions are multiplied together."""


def transposed_geometry(a: Any, x: TensorType, w: TensorType, result: TensorType) -> Geometry:
    """The convolution with the turned kernel that a stride-1 conv_transpose is."""
    kernel_size = w.shape[2:]
    rows = zip(kernel_size, a.dilation, a.padding, strict=True)
    padding = tuple((d * (k - 1) - before, 0) for k, d, before in rows)
    size, counts = x.shape[2:], result.shape[2:]
    return Geometry(
        x.shape[0], x.shape[1], size, result.shape[1], kernel_size, counts, a.stride, padding, a.dilation, a.groups
    )


def turned_weight(w: Array, groups: int) -> Array:
    """w [in, out / groups, *kernel] as a view [groups, out / groups, in / groups, *kernel reversed]."""
    shaped = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    reverse = (slice(None, None, -1),) * (w.ndim - 2)
    return shaped.swapaxes(1, 2)[(slice(None), slice(None), slice(None), *reverse)]


def turned_work(request: Request, scratch: Scratch) -> Work:
    """A stride-1 conv_transpose as a convolution."""
    xp, (x_type, w_type), result = request.xp, request.operands, request.result
    g = transposed_geometry(request.attributes, x_type, w_type, result)
    turned = scratch.add(w_type.dtype, g.out_channels, g.channels // g.groups, *g.kernel)
    inner = conv_work(xp, g, result.dtype, request.parallel, request.strict, scratch)
    shape = (g.groups, g.out_channels // g.groups, g.channels // g.groups, *g.kernel)

    def before(x: Array, w: Array, buffers: tuple[Array, ...]) -> Array:
        xp.copyto(buffers[turned].reshape(shape), turned_weight(w, g.groups))
        return inner.before(x, buffers[turned], buffers)

    return Work(inner.regions, before, inner.piece)


def scatter_work(request: Request, scratch: Scratch) -> Work:
    """A conv_transpose as matrix products whose rows are added into the result."""
    xp, a, (x_type, w_type), result = request.xp, request.attributes, request.operands, request.result
    batch, channels, counts = x_type.shape[0], x_type.shape[1], x_type.shape[2:]
    size, kernel_size = result.shape[2:], w_type.shape[2:]
    taps = window_taps(size, counts, kernel_size, a.stride, tuple((before, 0) for before in a.padding), a.dilation)
    apart = not overlaps(kernel_size, a.stride, a.dilation)
    tiled = apart and tiles(taps, size)
    tap_count, area, work = math.prod(kernel_size), math.prod(counts), result.dtype.accumulator
    per_group, taken = w_type.shape[1], channels // a.groups
    samples, block = _block(batch, area, per_group, a.groups * tap_count * work.bytes, request.parallel)
    if a.groups > 1:
        block = per_group  # so that a region is a range of channels
    plan = [(*s, *o) for s in spans(batch, samples) for o in spans(per_group, block)]
    threads = request.parallel.threads if request.parallel else 1
    rows = block * tap_count
    columns = scratch.add(work, threads, a.groups * rows * samples * area)
    pixels = scratch.add(work, threads, channels * samples * area)
    spare = scratch.add(work, *w_type.shape)
    wide = scratch.add(work, threads, samples * a.groups * block * math.prod(size)) if work is not result.dtype else -1
    everything = tuple(slice(None) for _ in size)

    def before(x: Array, w: Array, buffers: tuple[Array, ...]) -> Array:
        if not (w.flags.c_contiguous and w.dtype == work.numpy):
            xp.copyto(buffers[spare], w)
            w = buffers[spare]
        return w.reshape(a.groups, taken, per_group * tap_count)

    def piece(i: int, worker: int, out: Array, x: Array, weight: Array, buffers: tuple[Array, ...]) -> None:
        first, last, start, stop = plan[i]
        count, made = last - first, stop - start
        if count == 1 and x.flags.c_contiguous and work is result.dtype:
            source = x[first].reshape(a.groups, taken, area)
        else:
            source = buffers[pixels][worker, : channels * count * area]
            xp.copyto(source.reshape(channels, count, *counts), x[first:last].swapaxes(0, 1))
            source = source.reshape(a.groups, taken, count * area)
        parts = buffers[columns][worker, : a.groups * made * tap_count * count * area]
        matrix = weight[:, :, start * tap_count : stop * tap_count].swapaxes(1, 2)
        xp.matmul(matrix, source, out=parts.reshape(a.groups, made * tap_count, count * area))
        shaped = parts.reshape(a.groups, made, tap_count, count, *counts)
        target = out.reshape(batch, a.groups, per_group, *size)[first:last, :, start:stop]
        total = target if wide < 0 else buffers[wide][worker, : target.size].reshape(target.shape)
        if not tiled:
            total[...] = 0
        for tap in taps:
            part = shaped[(slice(None), slice(None), tap.index, slice(None), *tap.windows)]
            place = total[(Ellipsis, *tap.positions)]
            # [groups, out, samples, ...] to [samples, groups, out, ...]
            ordered = part.transpose(2, 0, 1, *range(3, part.ndim))
            if apart:
                xp.copyto(place, ordered)
            else:
                xp.add(place, ordered, place)
        if wide >= 0:
            xp.copyto(target, total, casting="same_kind")

    regions = tuple(
        (slice(first, last), slice(start, stop) if a.groups == 1 else slice(None), *everything)
        for first, last, start, stop in plan
    )
    return Work(regions, before, piece)


def flat_work(request: Request, scratch: Scratch) -> Work:
    """A stride-1 conv_transpose of small samples in long runs.

    Rows of x lie at the pitch of the full result, with zeros between them.  Moved on by a tap along the row, x is copied in one
    run; the products with all rows of taps are made at once, sample by sample, and each is added to the result as many rows
    further on, which is one addition for all samples and channels.
    """
    xp, a, (x_type, w_type), result = request.xp, request.attributes, request.operands, request.result
    batch, channels, counts = x_type.shape[0], x_type.shape[1], x_type.shape[2:]
    out_channels, kernel_size, size = result.shape[1], w_type.shape[2:], result.shape[2:]
    work = result.dtype.accumulator
    full = tuple(n + d * (k - 1) for n, k, d in zip(counts, kernel_size, a.dilation, strict=True))
    pitch = [math.prod(full[axis + 1 :]) for axis in range(len(full))]
    across, step = kernel_size[-1], a.dilation[-1]
    places = itertools.product(*map(range, kernel_size[:-1]))
    offsets = [sum(t * d * p for t, d, p in zip(place, a.dilation, pitch, strict=False)) for place in places]
    plane, rows = math.prod(full), len(offsets)
    # a sample of x ends with its last row along the first axis
    shape = (counts[0] if len(full) > 1 else full[0], *full[1:])
    span = math.prod(shape)
    ones, none = (1,) * len(size), tuple((-before, 0) for before in a.padding)
    crop = window_taps(full, size, ones, ones, none, ones)
    whole = full == size and not any(a.padding) and work is result.dtype
    threads = request.parallel.threads if request.parallel else 1
    budget = (COLUMN_BYTES if request.parallel else GPU_COLUMN_BYTES) // work.bytes
    samples = max(1, min(-(-batch // threads), budget // (span * (channels * across + out_channels * rows))))
    plan = spans(batch, samples)
    weight_at = scratch.add(work, rows * out_channels, channels * across)
    flat_at = scratch.add(work, threads, channels * samples * span)
    windows_at = scratch.add(work, threads, channels * across * samples * span)
    parts_at = scratch.add(work, threads, samples * rows * out_channels * span)
    total_at = -1 if whole else scratch.add(work, threads, samples * out_channels * plane)
    inside = tuple(slice(0, n) for n in counts)
    everything = tuple(slice(None) for _ in size)

    def before(x: Array, w: Array, buffers: tuple[Array, ...]) -> Array:
        by_row = w.reshape(channels, out_channels, rows, across).transpose(2, 1, 0, 3)
        xp.copyto(buffers[weight_at].reshape(by_row.shape), by_row)
        return buffers[weight_at]

    def piece(i: int, worker: int, out: Array, x: Array, weight: Array, buffers: tuple[Array, ...]) -> None:
        first, last = plan[i]
        count = last - first
        length = count * span
        flat = buffers[flat_at][worker, : channels * length].reshape(channels, length)
        windows = buffers[windows_at][worker, : channels * across * length].reshape(channels, across, length)
        parts = buffers[parts_at][worker, : count * len(weight) * span].reshape(count, len(weight), span)
        flat.fill(0)
        shaped = flat.reshape(channels, count, *shape)
        xp.copyto(shaped[(slice(None), slice(None), *inside)], x[first:last].swapaxes(0, 1))
        for tap in range(across):
            # what is moved out of a row lands in the zeros behind it
            moved = tap * step
            windows[:, tap, :moved] = 0
            xp.copyto(windows[:, tap, moved:], flat[:, : length - moved])
        by_sample = windows.reshape(channels * across, count, span).swapaxes(0, 1)
        xp.matmul(weight, by_sample, out=parts)
        target = out[first:last]
        space = target if whole else buffers[total_at][worker, : count * out_channels * plane]
        total = space.reshape(count, out_channels, plane)
        by_row = parts.reshape(count, rows, out_channels, span)
        xp.copyto(total[:, :, :span], by_row[:, 0])
        total[:, :, span:] = 0
        for row, offset in enumerate(offsets[1:], start=1):
            place = total[:, :, offset : offset + span]
            xp.add(place, by_row[:, row, :, : place.shape[2]], place)
        if not whole:
            target[...] = 0
            planes = total.reshape(count, out_channels, *full)
            for part in crop:
                source = planes[(slice(None), slice(None), *part.positions)]
                xp.copyto(target[(slice(None), slice(None), *part.windows)], source, casting="same_kind")

    return Work(tuple((slice(first, last), slice(None), *everything) for first, last in plan), before, piece)


def _block(batch: int, area: int, channels: int, bytes_each: int, parallel: Parallel | None) -> tuple[int, int]:
    """How many samples and output channels (of a group) to work on at once, at ``bytes_each`` per position and channel."""
    budget = (COLUMN_BYTES if parallel else GPU_COLUMN_BYTES) // max(1, bytes_each)
    threads = parallel.threads if parallel else 1
    samples = 1 if area >= GATHER_BELOW else max(1, min(batch, GATHER_BELOW // area))
    block = max(1, min(channels, budget // (samples * area)))
    if batch // samples < threads:
        block = min(block, -(-channels // threads))
    return samples, block


def depthwise_work(request: Request, scratch: Scratch) -> Work:
    """A depthwise conv_transpose: for each tap, blocks of channels multiplied and added into place."""
    xp, a, (x_type, w_type), result = request.xp, request.attributes, request.operands, request.result
    batch, channels, counts = x_type.shape[0], x_type.shape[1], x_type.shape[2:]
    size, multiplier = result.shape[2:], w_type.shape[1]
    pairs = tuple((before, 0) for before in a.padding)
    taps = window_taps(size, counts, w_type.shape[2:], a.stride, pairs, a.dilation)
    work, area = result.dtype.accumulator, math.prod(size)
    threads = request.parallel.threads if request.parallel else 1
    budget = (COLUMN_BYTES if request.parallel else GPU_COLUMN_BYTES) // (4 * work.bytes)
    block = max(1, min(-(-channels // threads), budget // max(1, area * multiplier)))
    plan = [(n, *c) for n in range(batch) for c in spans(channels, block)]
    part_at = scratch.add(work, threads, block * math.prod(counts))
    total_at = scratch.add(work, threads, block * multiplier * area)
    everything = tuple(slice(None) for _ in size)
    regions = tuple((slice(n, n + 1), slice(lo * multiplier, hi * multiplier), *everything) for n, lo, hi in plan)

    def piece(i: int, worker: int, out: Array, x: Array, w: Array, buffers: tuple[Array, ...]) -> None:
        n, lo, hi = plan[i]
        part = buffers[part_at][worker, : (hi - lo) * math.prod(counts)].reshape(hi - lo, *counts)
        total = buffers[total_at][worker, : (hi - lo) * multiplier * area].reshape(hi - lo, multiplier, *size)
        factors = w.reshape(channels, multiplier, -1, *(1 for _ in size))
        total[...] = 0
        for tap in taps:
            here = part[(slice(None), *tap.windows)]
            for j in range(multiplier):
                place = total[(slice(None), j, *tap.positions)]
                xp.multiply(x[(n, slice(lo, hi), *tap.windows)], factors[lo:hi, j, tap.index], here)
                xp.add(place, here, place)
        xp.copyto(out[n, lo * multiplier : hi * multiplier].reshape(total.shape), total, casting="same_kind")

    return Work(regions, lambda x, w, buffers: w, piece)


def _turning_pays(request: Request) -> bool:
    """Whether copying windows of x costs less than adding up the parts of the result (a row at a time: twice as much)."""
    x, result = request.operands[0], request.result
    if is_depthwise(x.shape[1], result.shape[1], request.attributes.groups):
        return True
    windows = x.shape[1] * math.prod(result.shape[2:-1])
    parts = result.shape[1] * math.prod(x.shape[2:-1])
    return windows <= 2 * parts


def transposed_work(request: Request, scratch: Scratch) -> Work:
    """The transposed convolution by the algorithm that suits it."""
    a, result = request.attributes, request.result
    if set(a.stride) == {1}:
        pays = _turning_pays(request) or a.groups > 1
        return turned_work(request, scratch) if pays else flat_work(request, scratch)
    if is_depthwise(request.operands[0].shape[1], result.shape[1], a.groups) and result.dtype.is_float:
        return depthwise_work(request, scratch)
    return scatter_work(request, scratch)


@kernel("conv_transpose")
def _conv_transpose(request: Request) -> ArrayKernel:
    scratch = Scratch()
    return work_kernel(transposed_work(request, scratch), request.parallel, scratch)
