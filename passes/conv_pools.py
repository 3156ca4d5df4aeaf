"""Convolutions with the pool that reads their result: pooled while it is in registers or cache, the result is never stored.

The windows lie side by side, so that each element of the result belongs to one window, and none reaches into padding.  The
winning taps, which the way back through a max pool needs, are a second result of the same kernel.
"""

from __future__ import annotations

from collections.abc import Iterator

from irconv.graph import Node
from irconv.passes.patterns import Group, Search, epilogue_of
from irconv.types import F32, F64

POOLS = ("max_pool", "min_pool", "avg_pool")
MOST_TAPS = 16
"""Larger windows are work of their own: their taps are not written out."""


def conv_pools(uses: Search) -> Iterator[Group]:
    """conv, its epilogue, max_pool (with argmax_pool), min_pool (with argmin_pool) or avg_pool; nobody else reads on the way."""
    for node_id in uses.order:
        conv = uses.graph[node_id]
        if conv.op.name != "conv" or conv.attributes.groups != 1 or conv.type.dtype not in (F32, F64):
            continue
        rest = epilogue_of(uses, conv)
        result = uses.graph[rest[-1]] if rest else conv
        pools = _pools(uses, result)
        if pools and result.type.dtype is conv.type.dtype:
            yield Group("conv_pool", (node_id, *rest, *pools))


def _pools(uses: Search, value: Node) -> tuple[int, ...]:
    """The pool that alone reads a value, or the pool and its winning taps; nothing where somebody else does."""
    readers = [uses.graph[i] for i in uses.readers[value.id]]
    pool = next((reader for reader in readers if reader.op.name in POOLS), None)
    if value.id in uses.kept or pool is None or not _lie_side_by_side(pool, value):
        return ()
    others = [reader for reader in readers if reader is not pool]
    if any(r.op.name != f"arg{pool.op.name}" or r.attributes != pool.attributes for r in others) or len(others) > 1:
        return ()
    return (pool.id, *(reader.id for reader in others))


def _lie_side_by_side(pool: Node, value: Node) -> bool:
    """Whether the windows begin at the first element and leave nothing out between them, nor reach beyond the last one."""
    a, taps = pool.attributes, 1
    for size, count, kernel in zip(value.type.shape[2:], pool.type.shape[2:], a.kernel, strict=True):
        taps *= kernel
        if count * kernel > size:
            return False
    return 1 < taps <= MOST_TAPS and a.kernel == a.stride and set(a.dilation) <= {1} and not any(map(any, a.padding))
