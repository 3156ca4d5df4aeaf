"""Scattering: the operand copied, then written to at flat positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from irconv.backends.arrays.base import Array, ArrayKernel, Request, kernel, scratch
from irconv.backends.arrays.index import flat_positions, wrap
from irconv.types import I64


def _writer(xp: Any, reduction: str) -> Callable[[Array, Array, Array], None]:
    """``write(flat, places, values)``: combine values with what stands at their places."""
    if reduction == "set":

        def write(flat: Array, places: Array, values: Array) -> None:
            flat[places] = values

        return write
    if reduction == "mul" and xp is not np:
        return lambda flat, places, values: _multiply_on_host(xp, flat, places, values)
    name = {"add": "add", "mul": "multiply", "max": "maximum", "min": "minimum"}[reduction]
    return getattr(xp, name).at


def _multiply_on_host(xp: Any, flat: Array, places: Array, values: Array) -> None:
    """CuPy has no multiply.at."""
    host = xp.asnumpy(flat)
    np.multiply.at(host, xp.asnumpy(places), xp.asnumpy(values))
    xp.copyto(flat, xp.asarray(host))


@kernel("scatter")
def _scatter(request: Request) -> ArrayKernel:
    xp, a, (source, indices, _) = request.xp, request.attributes, request.operands
    size = source.shape[a.axis]
    flatten = flat_positions(xp, indices.shape, a.axis, size)
    write = _writer(xp, a.reduction)
    types = [scratch(I64, *indices.shape)]
    wide_sums = a.reduction in ("add", "mul") and source.dtype.accumulator is not source.dtype
    if wide_sums:
        types.append(scratch(source.dtype.accumulator, *source.shape))

    def run(out: Array, x: Array, where: Array, values: Array, numbers: Array, *wide: Array) -> None:
        wrap(xp, numbers, where, size, a.axis)
        total = wide[0] if wide else out
        xp.copyto(total, x)
        if values.size:
            flatten(numbers, numbers)
            write(total.reshape(-1), numbers, values)
        if wide:
            xp.copyto(out, total, casting="same_kind")

    return ArrayKernel(run, tuple(types), in_place=((0, 0),))
