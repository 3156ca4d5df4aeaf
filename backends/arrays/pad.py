"""Padding: the inside copied, then each axis filled from what is already there, a run of neighbours at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from irconv.backends.arrays.base import Array, ArrayKernel, Request, kernel, scratch
from irconv.ops.pad import source_indices
from irconv.types import F32, F64, DType

Region = list[slice]


def _on(region: Region, axis: int, part: slice) -> tuple[slice, ...]:
    return (*region[:axis], part, *region[axis + 1 :])


def _line(first: int, step: int, count: int) -> slice:
    """``count`` positions from ``first`` on, forwards, backwards, or one position to be repeated (step 0)."""
    if step == 0:
        return slice(first, first + 1)
    stop = first + step * count
    return slice(first, stop if stop >= 0 else None, step)


def _runs(n: int, before: int, after: int, mode: str) -> Iterator[tuple[slice, slice, bool]]:
    """How the padding of one axis repeats its inside: (padding positions, inside positions, whether it is one repeated)."""
    sources = source_indices(n, before, after, mode).tolist()
    for start, stop in ((0, before), (before + n, before + n + after)):
        while start < stop:
            step = sources[start + 1] - sources[start] if start + 1 < stop else 1
            end = start + 1
            while end < stop and abs(step) <= 1 and sources[end] - sources[end - 1] == step:
                end += 1
            count = end - start
            step = step if count > 1 else 1
            yield slice(start, end), _line(before + sources[start], step, count), step == 0
            start = end


def _mean_type(dtype: DType) -> DType:
    """What the mean of an axis is computed in."""
    return dtype.accumulator if dtype.is_float else F64


@kernel("pad")
def _pad(request: Request) -> ArrayKernel:
    a = request.attributes
    if a.mode == "constant":
        return _pad_constant(request)
    xp, shape = request.xp, request.operands[0].shape
    region: Region = [slice(before, before + n) for n, (before, _) in zip(shape, a.padding, strict=True)]
    inside = tuple(region)
    padded = [axis for axis, pair in enumerate(a.padding) if any(pair)]
    work = _mean_type(request.result.dtype)
    fills = []
    lines = [1]
    for axis in padded:
        before, after = a.padding[axis]
        fills.append((axis, list(region), list(_runs(shape[axis], before, after, a.mode)) if a.mode != "mean" else []))
        region[axis] = slice(0, request.result.shape[axis])
        lines.append(request.result.size // max(request.result.shape[axis], 1))

    def run(out: Array, x: Array, *line: Array) -> None:
        xp.copyto(out[inside], x)
        for axis, area, runs in fills:
            if a.mode == "mean":
                _fill_mean(xp, out, area, axis, line[0])
            for place, source, _ in runs:
                xp.copyto(out[_on(area, axis, place)], out[_on(area, axis, source)])

    return ArrayKernel(run, (scratch(work, max(lines)),) if a.mode == "mean" else ())


def _fill_mean(xp: Any, out: Array, area: Region, axis: int, line: Array) -> None:
    whole = out[tuple(area)]
    shape = (*whole.shape[:axis], 1, *whole.shape[axis + 1 :])
    mean = line[: whole.size // whole.shape[axis]].reshape(shape)
    xp.sum(whole, axis=axis, keepdims=True, dtype=mean.dtype, out=mean)
    xp.divide(mean, whole.shape[axis], mean)
    if out.dtype.kind != "f":
        xp.rint(mean, mean)
    for outside in (slice(0, area[axis].start), slice(area[axis].stop, out.shape[axis])):
        xp.copyto(out[_on(area, axis, outside)], mean, casting="unsafe")


def _pad_constant(request: Request) -> ArrayKernel:
    xp, a, dtype = request.xp, request.attributes, request.result.dtype
    target: list[slice] = []
    source: list[slice] = []
    lead: list[slice] = []
    borders: list[tuple[slice, ...]] = []
    for n, size, (before, _) in zip(request.operands[0].shape, request.result.shape, a.padding, strict=True):
        # the operand's elements first..last are the ones that land inside
        first, last = max(0, -before), max(0, -before, min(n, size - before))
        source.append(slice(first, last))
        target.append(slice(max(0, first + before), max(0, last + before)))
        low, high = target[-1].start, target[-1].stop
        borders += [(*lead, part) for part in (slice(0, low), slice(high, size)) if part.start < part.stop]
        lead.append(target[-1])
    value = a.value if dtype.is_float else int(a.value)
    inside, taken = tuple(target), tuple(source)

    def run(out: Array, x: Array) -> None:
        for border in borders:
            out[border] = value
        xp.copyto(out[inside], x[taken])

    return ArrayKernel(run)


@kernel("pad_adjoint")
def _pad_adjoint(request: Request) -> ArrayKernel:
    xp, a = request.xp, request.attributes
    shape = request.operands[0].shape
    work = F32 if request.result.dtype.accumulator is F32 else request.result.dtype
    region: Region = [slice(0, n) for n in shape]
    folds = []
    lines = [1]
    for axis, (before, after) in enumerate(a.padding):
        if before + after:
            n = request.result.shape[axis]
            runs = list(_runs(n, before, after, a.mode)) if a.mode != "mean" else []
            folds.append((axis, list(region), slice(before, before + n), runs))
            region[axis] = slice(before, before + n)
            lines.append(request.operands[0].size // max(shape[axis], 1))
    inside = tuple(region)

    def run(out: Array, d: Array, total: Array, line: Array) -> None:
        xp.copyto(total, d)
        for axis, area, kept, runs in folds:
            if a.mode == "mean":
                _share_mean(xp, total, area, axis, kept, line)
            for place, source, repeated in runs:
                part = total[_on(area, axis, place)]
                if repeated:
                    part = _sum_axis(xp, part, axis, line)
                receiver = total[_on(area, axis, source)]
                xp.add(receiver, part, receiver)
        xp.copyto(out, total[inside], casting="same_kind")

    return ArrayKernel(run, (scratch(work, *shape), scratch(work, max(lines))))


def _sum_axis(xp: Any, part: Array, axis: int, line: Array) -> Array:
    shape = (*part.shape[:axis], 1, *part.shape[axis + 1 :])
    total = line[: part.size // part.shape[axis]].reshape(shape)
    xp.sum(part, axis=axis, keepdims=True, out=total)
    return total


def _share_mean(xp: Any, total: Array, area: Region, axis: int, kept: slice, line: Array) -> None:
    receiver = total[_on(area, axis, kept)]
    for outside in (slice(0, kept.start), slice(kept.stop, total.shape[axis])):
        part = total[_on(area, axis, outside)]
        if part.size:
            share = _sum_axis(xp, part, axis, line)
            xp.divide(share, receiver.shape[axis], share)
            xp.add(receiver, share, receiver)
