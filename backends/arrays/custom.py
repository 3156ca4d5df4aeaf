"""Custom gradients at run time: the value passes through."""

from __future__ import annotations

from irconv.backends.arrays.base import Array, ArrayKernel, Request, kernel


@kernel("attach_gradient")
def _attach_gradient(request: Request) -> ArrayKernel:
    xp = request.xp

    def run(out: Array, y: Array, *others: Array) -> None:
        xp.copyto(out, y)

    return ArrayKernel(run, in_place=((0, 0),))
