"""Reductions: the array module's own, accumulating at least in float32."""

from __future__ import annotations

import math
from collections.abc import Callable

from irconv.backends.arrays.base import Array, ArrayKernel, Request, kernel, scratch
from irconv.types import TensorType


def _fold(name: str) -> Callable[[Request], ArrayKernel]:
    """A factory for sum, mean and prod."""
    function = "prod" if name == "prod" else "sum"

    def make(request: Request) -> ArrayKernel:
        xp, a, source, result = request.xp, request.attributes, request.operands[0], request.result
        fold, work = getattr(xp, function), result.dtype.accumulator
        count = math.prod(source.shape[axis] for axis in a.axes) if name == "mean" else 1
        wide = (scratch(work, *result.shape),) if work is not result.dtype else ()

        def run(out: Array, x: Array, *temporary: Array) -> None:
            total = temporary[0] if temporary else out
            fold(x, axis=a.axes, dtype=work.numpy, out=total, keepdims=a.keepdims)
            if count > 1:
                xp.divide(total, count, total)
            if temporary:
                xp.copyto(out, total, casting="same_kind")

        return ArrayKernel(run, wide)

    return make


def _extremum(name: str) -> Callable[[Request], ArrayKernel]:
    """A factory for max and min."""

    def make(request: Request) -> ArrayKernel:
        fold, a = getattr(request.xp, "a" + name), request.attributes

        def run(out: Array, x: Array) -> None:
            if out.size:
                fold(x, axis=a.axes, out=out, keepdims=a.keepdims)

        return ArrayKernel(run)

    return make


def _position(name: str) -> Callable[[Request], ArrayKernel]:
    """A factory for argmax and argmin: the folded axes are brought to the end, in a copy unless they stand there already."""

    def make(request: Request) -> ArrayKernel:
        xp, axes, source = request.xp, request.attributes.axes, request.operands[0]
        find = getattr(xp, name)
        kept = [axis for axis in range(source.rank) if axis not in axes]
        order = (*kept, *axes)
        moved = tuple(source.shape[axis] for axis in order)
        rows = tuple(source.shape[axis] for axis in kept)
        count = math.prod(source.shape[axis] for axis in axes)
        in_order = order == tuple(range(source.rank)) and request.contiguous
        copy: tuple[TensorType, ...] = () if in_order else (scratch(source.dtype, *moved),)

        def run(out: Array, x: Array, *temporary: Array) -> None:
            if not out.size:
                return
            if temporary:
                xp.copyto(temporary[0], x.transpose(order))
                x = temporary[0]
            find(x.reshape(*rows, count), axis=-1, out=out.reshape(rows))

        return ArrayKernel(run, copy)

    return make


for _name in ("sum", "mean", "prod"):
    kernel(_name)(_fold(_name))
for _name in ("max", "min"):
    kernel(_name)(_extremum(_name))
for _name in ("argmax", "argmin"):
    kernel(_name)(_position(_name))
