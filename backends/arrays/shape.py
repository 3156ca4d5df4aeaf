"""Shape kernels: views where the index map allows it, copies by slices where elements move."""

from __future__ import annotations

from irconv.backends.arrays.base import Array, ArrayKernel, Request, ViewKernel, kernel
from irconv.ops.shape import positions


@kernel("reshape")
def _reshape(request: Request) -> ArrayKernel | ViewKernel:
    xp, shape, source = request.xp, request.result.shape, request.operands[0].shape
    if request.contiguous:
        return ViewKernel(lambda x: x.reshape(shape))

    def run(out: Array, x: Array) -> None:
        xp.copyto(out.reshape(source), x)  # out is contiguous, so its reshape is a view

    return ArrayKernel(run)


@kernel("transpose")
def _transpose(request: Request) -> ViewKernel:
    axes = request.attributes.axes
    return ViewKernel(lambda x: x.transpose(axes))


@kernel("broadcast")
def _broadcast(request: Request) -> ViewKernel:
    xp, shape = request.xp, request.result.shape
    return ViewKernel(lambda x: xp.broadcast_to(x, shape))


@kernel("slice")
def _slice(request: Request) -> ViewKernel:
    a = request.attributes
    index = tuple(map(slice, a.start, a.stop, a.step))
    return ViewKernel(lambda x: x[index])


@kernel("flip")
def _flip(request: Request) -> ViewKernel:
    axes = request.attributes.axes
    index = tuple(slice(None, None, -1 if axis in axes else 1) for axis in range(request.result.rank))
    return ViewKernel(lambda x: x[index])


@kernel("relayout")
def _relayout(request: Request) -> ArrayKernel:
    return ArrayKernel(request.xp.copyto)


@kernel("embed")
def _embed(request: Request) -> ArrayKernel:
    xp, a = request.xp, request.attributes
    index = positions(a.start, a.step, request.operands[0].shape)

    def run(out: Array, d: Array) -> None:
        out.fill(0)
        xp.copyto(out[index], d)

    return ArrayKernel(run)


@kernel("slice_update")
def _slice_update(request: Request) -> ArrayKernel:
    xp, a = request.xp, request.attributes
    index = positions(a.start, a.step, request.operands[1].shape)

    def run(out: Array, x: Array, v: Array) -> None:
        if out is not x:
            xp.copyto(out, x)
        xp.copyto(out[index], v)

    return ArrayKernel(run, in_place=((0, 0),))
