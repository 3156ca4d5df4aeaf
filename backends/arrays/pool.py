"""Pooling: one pass over the input's slices per tap."""

from __future__ import annotations

from typing import Any

from irconv.backends.arrays.base import Array, ArrayKernel, Request, kernel, scratch
from irconv.backends.arrays.taps import Tap, first_taps, overlaps, window_taps
from irconv.ops.pool import pool_divisors
from irconv.ops.pool_taps import PoolAttributes, pool_counts
from irconv.ops.window import Ints
from irconv.types import BOOL, F16, F32

# --- shared by the sections below -----------------------------------------------------------------------------------------


def pool_taps(a: PoolAttributes, size: Ints) -> list[Tap]:
    """The taps of a pool over an input of spatial ``size``."""
    return window_taps(size, pool_counts(a, size), a.kernel, a.stride, a.padding, a.dilation)


def lead(slices: tuple[slice, ...]) -> tuple[slice, ...]:
    """An index over [batch, channels, *spatial] from one over the spatial axes."""
    return (slice(None), slice(None), *slices)


# --- max_pool, min_pool ---------------------------------------------------------------------------------------------------


def extremum_pool(request: Request, largest: bool) -> ArrayKernel:
    """max_pool or min_pool: the identity, or the first tap where every window has it, then one maximum per tap."""
    xp, a, x_type = request.xp, request.attributes, request.operands[0]
    taps = pool_taps(a, x_type.shape[2:])
    better = xp.maximum if largest else xp.minimum
    nothing = x_type.dtype.lowest if largest else x_type.dtype.highest
    seeded = bool(taps) and taps[0].whole

    def run(out: Array, x: Array) -> None:
        if seeded:
            xp.copyto(out, x[lead(taps[0].positions)])
        else:
            out.fill(nothing)
        for tap in taps[seeded:]:
            place = out[lead(tap.windows)]
            better(place, x[lead(tap.positions)], out=place)

    return ArrayKernel(run)


kernel("max_pool")(lambda request: extremum_pool(request, largest=True))
kernel("min_pool")(lambda request: extremum_pool(request, largest=False))

# --- argmax_pool, argmin_pool ---------------------------------------------------------------------------------------------


def winning_taps(
    xp: Any, taps: list[Tap], best: Array, winners: Array, x: Array, wins: Array, numbers: Array, largest: bool
) -> None:
    """One pass over the taps that leaves the extremum in ``best`` and its tap in ``winners``.

    ``best`` starts as the identity and ``winners`` as every window's first tap.  A later tap wins if it is strictly better, or
    the first NaN: that is, unless it is no better or ``best`` is NaN already.
    """
    no_better = xp.less_equal if largest else xp.greater_equal
    better = xp.maximum if largest else xp.minimum
    floats = best.dtype.kind == "f"
    for tap in taps:
        view, place, wins_here = x[lead(tap.positions)], best[lead(tap.windows)], wins[lead(tap.windows)]
        no_better(view, place, wins_here)
        xp.logical_not(wins_here, wins_here)
        if floats:
            known = numbers[lead(tap.windows)]
            xp.equal(place, place, known)
            xp.logical_and(wins_here, known, wins_here)
        xp.copyto(winners[lead(tap.windows)], tap.index, where=wins_here)
        better(place, view, out=place)


def _position_pool(request: Request, largest: bool) -> ArrayKernel:
    xp, a, x_type, result = request.xp, request.attributes, request.operands[0], request.result
    taps = pool_taps(a, x_type.shape[2:])
    nothing = x_type.dtype.lowest if largest else x_type.dtype.highest
    first = first_taps(xp, taps, result.shape[2:], result.dtype.numpy)
    types = (scratch(x_type.dtype, *result.shape), scratch(BOOL, *result.shape), scratch(BOOL, *result.shape))

    def run(out: Array, x: Array, best: Array, wins: Array, numbers: Array) -> None:
        best.fill(nothing)
        xp.copyto(out, first)
        winning_taps(xp, taps, best, out, x, wins, numbers, largest)

    return ArrayKernel(run, types)


kernel("argmax_pool")(lambda request: _position_pool(request, largest=True))
kernel("argmin_pool")(lambda request: _position_pool(request, largest=False))

# --- window_scatter, window_gather ----------------------------------------------------------------------------------------


@kernel("window_scatter")
def _window_scatter(request: Request) -> ArrayKernel:
    xp, a, d_type, result = request.xp, request.attributes, request.operands[0], request.result
    taps = pool_taps(a, a.size)
    apart = not overlaps(a.kernel, a.stride, a.dilation)
    types = [scratch(BOOL, *d_type.shape)]
    if not apart:
        types.append(scratch(d_type.dtype.accumulator, *d_type.shape))
    wide = not apart and result.dtype is F16
    if wide:
        types.append(scratch(F32, *result.shape))

    def run(out: Array, d: Array, winners: Array, chosen: Array, *temporaries: Array) -> None:
        total = temporaries[1] if wide else out
        total.fill(0)
        for tap in taps:
            windows, place = lead(tap.windows), total[lead(tap.positions)]
            here = chosen[windows]
            xp.equal(winners[windows], tap.index, here)
            if apart:
                xp.copyto(place, d[windows], where=here)
                continue
            part = temporaries[0][windows]
            part.fill(0)
            xp.copyto(part, d[windows], where=here)
            xp.add(place, part, place)
        if wide:
            xp.copyto(out, total, casting="same_kind")

    return ArrayKernel(run, tuple(types))


@kernel("window_gather")
def _window_gather(request: Request) -> ArrayKernel:
    xp, a, result = request.xp, request.attributes, request.result
    taps = pool_taps(a, request.operands[0].shape[2:])

    def run(out: Array, x: Array, winners: Array, chosen: Array) -> None:
        out.fill(0)
        for tap in taps:
            windows = lead(tap.windows)
            here = chosen[windows]
            xp.equal(winners[windows], tap.index, here)
            xp.copyto(out[windows], x[lead(tap.positions)], where=here)

    return ArrayKernel(run, (scratch(BOOL, *result.shape),))


# --- avg_pool, avg_pool_adjoint -------------------------------------------------------------------------------------------


@kernel("avg_pool")
def _avg_pool(request: Request) -> ArrayKernel:
    xp, a, x_type, result = request.xp, request.attributes, request.operands[0], request.result
    taps = pool_taps(a, x_type.shape[2:])
    work = result.dtype.accumulator
    divisors = xp.asarray(pool_divisors(a, x_type.shape[2:]).astype(work.numpy))
    seeded = bool(taps) and taps[0].whole
    wide = (scratch(work, *result.shape),) if work is not result.dtype else ()

    def run(out: Array, x: Array, *temporary: Array) -> None:
        total = temporary[0] if temporary else out
        if seeded:
            xp.copyto(total, x[lead(taps[0].positions)])
        else:
            total.fill(0)
        for tap in taps[seeded:]:
            place = total[lead(tap.windows)]
            xp.add(place, x[lead(tap.positions)], place)
        xp.divide(total, divisors, total)
        if temporary:
            xp.copyto(out, total, casting="same_kind")

    return ArrayKernel(run, wide)


@kernel("avg_pool_adjoint")
def _avg_pool_adjoint(request: Request) -> ArrayKernel:
    xp, a, d_type, result = request.xp, request.attributes, request.operands[0], request.result
    taps = pool_taps(a, a.size)
    work = result.dtype.accumulator
    divisors = xp.asarray(pool_divisors(a, a.size).astype(work.numpy))
    types = [scratch(work, *d_type.shape)]
    if work is not result.dtype:
        types.append(scratch(work, *result.shape))

    def run(out: Array, d: Array, share: Array, *temporary: Array) -> None:
        total = temporary[0] if temporary else out
        xp.divide(d, divisors, share)
        total.fill(0)
        for tap in taps:
            place = total[lead(tap.positions)]
            xp.add(place, share[lead(tap.windows)], place)
        if temporary:
            xp.copyto(out, total, casting="same_kind")

    return ArrayKernel(run, tuple(types))
