"""The way back through pooling windows: values scattered to, and gathered from, the taps that won; averages spread out.

Selecting by tap multiplies the bits of the values by 0 or 1: ten times faster in NumPy than a masked copy, and NaN-proof.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from irconv.backends.arrays.base import Array, ArrayKernel, Request, Scratch, kernel
from irconv.backends.arrays.columns import padded_plane
from irconv.backends.arrays.elementwise import BITS
from irconv.backends.arrays.planes import cut_planes
from irconv.backends.arrays.pool import lead, pool_taps
from irconv.backends.arrays.taps import overlaps, tiles, window_taps
from irconv.ops.pool import pool_divisors
from irconv.ops.window import Ints
from irconv.types import BOOL


@kernel("window_scatter")
def _window_scatter(request: Request) -> ArrayKernel:
    a = request.attributes
    return _scatter_over(request) if overlaps(a.kernel, a.stride, a.dilation) else _scatter_apart(request)


def _scatter_apart(request: Request) -> ArrayKernel:
    """Windows that do not overlap: every step copies whole planes, into a padded copy of the result where there is padding."""
    xp, a, d_type, result = request.xp, request.attributes, request.operands[0], request.result
    counts = d_type.shape[2:]
    plane = padded_plane(a.size, counts, a.kernel, a.stride, a.padding, a.dilation)
    none = ((0, 0),) * len(counts)
    taps = window_taps(plane.counts, counts, a.kernel, a.stride, none, a.dilation)
    tiled = tiles(taps, plane.counts)
    direct = plane.counts == a.size and not plane.blanks
    planes = cut_planes(result.shape[0], result.shape[1], a.size, result.dtype.bytes, request.parallel)
    bits = BITS[d_type.dtype.bytes]
    scratch = Scratch()
    chosen_at, mask_at = planes.temporary(scratch, BOOL, counts), planes.temporary(scratch, bits, counts)
    part_at = planes.temporary(scratch, d_type.dtype, counts)
    total_at = -1 if direct else planes.temporary(scratch, result.dtype, plane.counts)

    def run(out: Array, d: Array, winners: Array, *buffers: Array) -> None:
        def task(i: int, worker: int) -> None:
            group = planes.groups[i]
            source, won, target = d[group].view(bits.numpy), winners[group], out[group]
            total = target if direct else planes.view(buffers[total_at], worker, i, plane.counts)
            chosen, mask, part = (planes.view(buffers[s], worker, i, counts) for s in (chosen_at, mask_at, part_at))
            if not tiled:
                total[...] = 0
            for tap in taps:
                xp.equal(won, tap.index, chosen)
                xp.copyto(mask, chosen)
                xp.multiply(source, mask, part.view(bits.numpy))
                xp.copyto(total[lead(tap.positions)], part)
            if not direct:
                target[...] = 0
                for inside in plane.taps:
                    xp.copyto(target[lead(inside.positions)], total[lead(inside.windows)])

        planes.run(task)

    return ArrayKernel(run, tuple(scratch.types))


@dataclass(frozen=True)
class _Phase:
    """Positions of the padded result with the same remainder by the stride, a slice per axis.

    size: how many there are; own: those inside the result; positions: where these are in it.
    """

    size: Ints
    own: tuple[slice, ...]
    positions: tuple[slice, ...]


def _phase(remainder: Ints, extent: Ints, size: Ints, stride: Ints, before: Ints) -> _Phase:
    """The phase of a remainder in a padded plane of spatial ``extent``, which starts ``before`` the result."""
    lengths, own, positions = [], [], []
    for r, whole, n, s, b in zip(remainder, extent, size, stride, before, strict=True):
        length = max(0, -(-(whole - r) // s))
        low = min(length, max(0, -((r - b) // s)))
        high = max(low, min(length, (n - 1 + b - r) // s + 1))
        first = low * s + r - b
        lengths.append(length)
        own.append(slice(low, high))
        positions.append(slice(first, first + (high - low - 1) * s + 1, s) if high > low else slice(0, 0))
    return _Phase(tuple(lengths), tuple(own), tuple(positions))


def _scatter_over(request: Request) -> ArrayKernel:
    """Windows that overlap: what the taps select is added up phase by phase of the stride.

    Within a phase neighbours are adjacent in memory, so the additions, one for each tap, run over whole rows; the phases are
    dealt out to the result at the end.  Measured on one core, 512 planes of 112x112, 3x3 at stride 2: 17 ms instead of 22.
    """
    xp, a, d_type, result = request.xp, request.attributes, request.operands[0], request.result
    counts, work = d_type.shape[2:], result.dtype.accumulator
    extent = padded_plane(a.size, counts, a.kernel, a.stride, a.padding, a.dilation).counts
    before = tuple(pair[0] for pair in a.padding)
    # what negative padding crops is not there
    reached = tuple(n + min(0, after) for n, (_, after) in zip(a.size, a.padding, strict=True))
    moves: list[tuple[int, tuple[slice, ...]]] = []
    phases: dict[Ints, _Phase] = {}
    for place in itertools.product(*map(range, a.kernel)):
        steps = [divmod(t * d, s) for t, d, s in zip(place, a.dilation, a.stride, strict=True)]
        remainder = tuple(rest for _, rest in steps)
        phases.setdefault(remainder, _phase(remainder, extent, reached, a.stride, before))
        where = tuple(slice(shift, shift + count) for (shift, _), count in zip(steps, counts, strict=True))
        moves.append((list(phases).index(remainder), where))
    planes = cut_planes(result.shape[0], result.shape[1], a.size, work.bytes, request.parallel)
    bits = BITS[d_type.dtype.bytes]
    scratch = Scratch()
    chosen_at, mask_at = planes.temporary(scratch, BOOL, counts), planes.temporary(scratch, bits, counts)
    part_at = planes.temporary(scratch, d_type.dtype, counts)
    totals_at = [planes.temporary(scratch, work, phase.size) for phase in phases.values()]

    def run(out: Array, d: Array, winners: Array, *buffers: Array) -> None:
        def task(i: int, worker: int) -> None:
            group = planes.groups[i]
            source, won, target = d[group].view(bits.numpy), winners[group], out[group]
            chosen, mask, part = (planes.view(buffers[s], worker, i, counts) for s in (chosen_at, mask_at, part_at))
            places = zip(totals_at, phases.values(), strict=True)
            totals = [planes.view(buffers[at], worker, i, phase.size) for at, phase in places]
            for total in totals:
                total.fill(0)
            for tap, (number, where) in enumerate(moves):
                xp.equal(won, tap, chosen)
                xp.copyto(mask, chosen)
                xp.multiply(source, mask, part.view(bits.numpy))
                total = totals[number][lead(where)]
                xp.add(total, part, total)
            target[...] = 0
            for total, phase in zip(totals, phases.values(), strict=True):
                xp.copyto(target[lead(phase.positions)], total[lead(phase.own)], casting="same_kind")

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
