"""Sorting.  The array module's argsort makes its own array of places: the one kernel that allocates as it runs."""

from __future__ import annotations

from irconv.backends.arrays.base import Array, ArrayKernel, Request, kernel


@kernel("top_k")
def _top_k(request: Request) -> ArrayKernel:
    xp, a, source = request.xp, request.attributes, request.operands[0]
    last = source.shape[a.axis] - 1
    before = (slice(None),) * a.axis
    front, backwards = (*before, slice(0, a.k)), (*before, slice(None, None, -1))

    def run(out: Array, x: Array) -> None:
        if not a.largest:
            xp.copyto(out, xp.argsort(x, axis=a.axis, kind="stable")[front])
            return
        # sorted backwards and read from the end, equal elements keep their order
        order = xp.argsort(x[backwards], axis=a.axis, kind="stable")
        xp.subtract(last, order[backwards][front], out)

    return ArrayKernel(run)
