"""The way back through pooling windows: values scattered to, and gathered from, the taps that won; averages spread out.

Selecting by tap multiplies the bits of the values by 0 or 1: ten times faster in NumPy than a masked copy, and NaN-proof.
"""

from __future__ import annotations

from irconv.backends.arrays.base import Array, ArrayKernel, Request, Scratch, kernel
from irconv.backends.arrays.columns import padded_plane
from irconv.backends.arrays.elementwise import BITS
from irconv.backends.arrays.planes import cut_planes
from irconv.backends.arrays.pool import lead, pool_taps
from irconv.backends.arrays.taps import overlaps, tiles, window_taps
from irconv.ops.pool import pool_divisors
from irconv.types import BOOL


@kernel("window_scatter")
def _window_scatter(request: Request) -> ArrayKernel:
    """Adds into a padded copy of the result, so that every tap has all windows and every step runs over whole planes."""
    xp, a, d_type, result = request.xp, request.attributes, request.operands[0], request.result
    counts, work = d_type.shape[2:], result.dtype.accumulator
    plane = padded_plane(a.size, counts, a.kernel, a.stride, a.padding, a.dilation)
    none = ((0, 0),) * len(counts)
    taps = window_taps(plane.counts, counts, a.kernel, a.stride, none, a.dilation)
    apart = not overlaps(a.kernel, a.stride, a.dilation)
    tiled = apart and tiles(taps, plane.counts)
    direct = plane.counts == a.size and not plane.blanks and work is result.dtype
    planes = cut_planes(result.shape[0], result.shape[1], a.size, work.bytes, request.parallel)
    bits = BITS[d_type.dtype.bytes]
    scratch = Scratch()
    chosen_at, mask_at = planes.temporary(scratch, BOOL, counts), planes.temporary(scratch, bits, counts)
    part_at = planes.temporary(scratch, d_type.dtype, counts)
    total_at = -1 if direct else planes.temporary(scratch, work, plane.counts)

    def run(out: Array, d: Array, winners: Array, *buffers: Array) -> None:
        def task(i: int, worker: int) -> None:
            group = planes.groups[i]
            source, won, target = d[group].view(bits.numpy), winners[group], out[group]
            total = target if direct else planes.view(buffers[total_at], worker, i, plane.counts)
            chosen, mask, part = (planes.view(buffers[s], worker, i, counts) for s in (chosen_at, mask_at, part_at))
            if not tiled:
                total[...] = 0
            for tap in taps:
                place = total[lead(tap.positions)]
                xp.equal(won, tap.index, chosen)
                xp.copyto(mask, chosen)
                xp.multiply(source, mask, part.view(bits.numpy))
                if apart:
                    xp.copyto(place, part)
                else:
                    xp.add(place, part, place)
            if not direct:
                target[...] = 0
                for inside in plane.taps:
                    xp.copyto(target[lead(inside.positions)], total[lead(inside.windows)], casting="same_kind")

        planes.run(task)

    return ArrayKernel(run, tuple(scratch.types))


@kernel("window_gather")
def _window_gather(request: Request) -> ArrayKernel:
    xp, a, x_type, result = request.xp, request.attributes, request.operands[0], request.result
    taps, counts = pool_taps(a, x_type.shape[2:]), result.shape[2:]
    planes = cut_planes(x_type.shape[0], x_type.shape[1], x_type.shape[2:], x_type.dtype.bytes, request.parallel)
    bits = BITS[x_type.dtype.bytes]
    scratch = Scratch()
    chosen_at, mask_at = planes.temporary(scratch, BOOL, counts), planes.temporary(scratch, bits, counts)

    def run(out: Array, x: Array, winners: Array, *buffers: Array) -> None:
        def task(i: int, worker: int) -> None:
            group = planes.groups[i]
            source, won, target = x[group].view(bits.numpy), winners[group], out[group].view(bits.numpy)
            chosen, mask = (planes.view(buffers[s], worker, i, counts) for s in (chosen_at, mask_at))
            target[...] = 0
            for tap in taps:
                windows = lead(tap.windows)
                here, place = mask[windows], target[windows]
                xp.equal(won[windows], tap.index, chosen[windows])
                xp.copyto(here, chosen[windows])
                xp.multiply(source[lead(tap.positions)], here, here)
                xp.bitwise_or(place, here, place)

        planes.run(task)

    return ArrayKernel(run, tuple(scratch.types))


@kernel("avg_pool_adjoint")
def _avg_pool_adjoint(request: Request) -> ArrayKernel:
    xp, a, d_type, result = request.xp, request.attributes, request.operands[0], request.result
    taps, counts, work = pool_taps(a, a.size), d_type.shape[2:], result.dtype.accumulator
    divisors = xp.asarray(pool_divisors(a, a.size).astype(work.numpy))
    apart = not overlaps(a.kernel, a.stride, a.dilation)
    tiled = apart and tiles(taps, a.size)
    planes = cut_planes(result.shape[0], result.shape[1], a.size, work.bytes, request.parallel)
    scratch = Scratch()
    share_at = planes.temporary(scratch, work, counts)
    wide_at = planes.temporary(scratch, work, a.size) if work is not result.dtype else -1

    def run(out: Array, d: Array, *buffers: Array) -> None:
        def task(i: int, worker: int) -> None:
            group = planes.groups[i]
            target, share = out[group], planes.view(buffers[share_at], worker, i, counts)
            total = target if wide_at < 0 else planes.view(buffers[wide_at], worker, i, a.size)
            xp.divide(d[group], divisors, share)
            if not tiled:
                total[...] = 0
            for tap in taps:
                place = total[lead(tap.positions)]
                if apart:
                    xp.copyto(place, share[lead(tap.windows)])
                else:
                    xp.add(place, share[lead(tap.windows)], place)
            if wide_at >= 0:
                xp.copyto(target, total, casting="same_kind")

        planes.run(task)

    return ArrayKernel(run, tuple(scratch.types))
