"""Scans: the array module's own, on a copy that starts where the scan does."""

from __future__ import annotations

from irconv.backends.arrays.base import Array, ArrayKernel, Request, kernel, scratch


@kernel("cumsum")
def _cumsum(request: Request) -> ArrayKernel:
    xp, a, source = request.xp, request.attributes, request.operands[0]
    work = source.dtype.accumulator
    before = (slice(None),) * a.axis
    first, shifted, others = (*before, slice(0, 1)), (*before, slice(1, None)), (*before, slice(None, -1))
    backwards = (*before, slice(None, None, -1))

    def run(out: Array, x: Array, terms: Array, sums: Array) -> None:
        rows = x[backwards] if a.reverse else x
        if a.exclusive:
            terms[first] = 0
            xp.copyto(terms[shifted], rows[others])
        else:
            xp.copyto(terms, rows)
        xp.cumsum(terms, axis=a.axis, dtype=work.numpy, out=sums)
        xp.copyto(out, sums[backwards] if a.reverse else sums, casting="same_kind")

    return ArrayKernel(run, (scratch(work, *source.shape), scratch(work, *source.shape)))
