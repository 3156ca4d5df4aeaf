"""Pooling with the winning taps, in one pass."""

from __future__ import annotations

from irconv.backends.arrays.base import Array, ArrayKernel, FusedRequest, Scratch, fused
from irconv.backends.arrays.pool import winner_pool


@fused("pool_indices")
def _pool_indices(request: FusedRequest) -> ArrayKernel:
    """The extremum and its tap: what the search for the second keeps is the first."""
    graph, kernel = request.graph, request.kernel
    pool, position = sorted((graph[i] for i in kernel.nodes), key=lambda node: node.op.name.startswith("arg"))
    x_type = graph[pool.operands[0]].type
    place = {i: at for at, i in enumerate(kernel.outputs)}
    scratch = Scratch()
    finder = winner_pool(
        request.xp,
        pool.attributes,
        x_type,
        position.type.dtype,
        pool.op.name == "max_pool",
        request.parallel,
        scratch,
        pool.id in place,
    )
    # taps that nobody reads become a temporary
    spare = -1 if position.id in place else scratch.add(position.type.dtype, *position.type.shape)
    x_at = len(kernel.outputs)

    def run(*arrays: Array) -> None:
        buffers = arrays[x_at + 1 :]
        best = arrays[place[pool.id]] if pool.id in place else None
        winners = arrays[place[position.id]] if spare < 0 else buffers[spare]
        finder.run(best, winners, arrays[x_at], buffers)

    return ArrayKernel(run, tuple(scratch.types))
