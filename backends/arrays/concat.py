"""Concatenation: every operand copied to its place."""

from __future__ import annotations

import itertools

from irconv.backends.arrays.base import Array, ArrayKernel, Request, kernel


@kernel("concat")
def _concat(request: Request) -> ArrayKernel:
    xp, axis = request.xp, request.attributes.axis
    ends = itertools.accumulate(t.shape[axis] for t in request.operands)
    lead = (slice(None),) * axis
    places = [(*lead, slice(end - t.shape[axis], end)) for end, t in zip(ends, request.operands, strict=True)]

    def run(out: Array, *operands: Array) -> None:
        for place, operand in zip(places, operands, strict=True):
            xp.copyto(out[place], operand)

    return ArrayKernel(run)
