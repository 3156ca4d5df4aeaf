"""Pooling with the winning taps, in one pass."""

from __future__ import annotations

from irconv.backends.arrays.base import Array, ArrayKernel, FusedRequest, Scratch, fused
from irconv.backends.arrays.pool import pool_taps, winning_taps
from irconv.backends.arrays.taps import first_taps
from irconv.types import BOOL


@fused("pool_indices")
def _pool_indices(request: FusedRequest) -> ArrayKernel:
    """The extremum and its tap: the running extremum of the second is the first."""
    xp, graph, kernel = request.xp, request.graph, request.kernel
    pool, position = sorted((graph[i] for i in kernel.nodes), key=lambda node: node.op.name.startswith("arg"))
    x_type = graph[pool.operands[0]].type
    largest = pool.op.name == "max_pool"
    taps = pool_taps(pool.attributes, x_type.shape[2:])
    nothing = x_type.dtype.lowest if largest else x_type.dtype.highest
    first = first_taps(xp, taps, pool.type.shape[2:], position.type.dtype.numpy)
    scratch = Scratch()
    wins, numbers = scratch.add(BOOL, *pool.type.shape), scratch.add(BOOL, *pool.type.shape)
    # a result that nobody reads becomes a temporary
    place = {i: at for at, i in enumerate(kernel.outputs)}
    x_at = len(kernel.outputs)
    best = place[pool.id] if pool.id in place else x_at + 1 + scratch.add(pool.type.dtype, *pool.type.shape)
    winners = place[position.id] if position.id in place else x_at + 1 + scratch.add(position.type.dtype, *pool.type.shape)

    def run(*arrays: Array) -> None:
        arrays[best].fill(nothing)
        xp.copyto(arrays[winners], first)
        temporary = arrays[x_at + 1 :]
        winning_taps(
            xp, taps, arrays[best], arrays[winners], arrays[x_at], temporary[wins], temporary[numbers], largest
        )

    return ArrayKernel(run, tuple(scratch.types))
