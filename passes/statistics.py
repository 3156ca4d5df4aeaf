"""Fusion of a convolution with the mean and variance of its channels, which batch norm takes of it in training.

The convolution's result is stored, whatever happens, for those who normalise it and for the backward pass; what is saved is
reading it once more.  It has to be stored channels last: its channels are then what a convolution has in its registers.

The convolution computes what it reads, where that costs next to nothing: see :func:`irconv.passes.prologues.takes_prologue`.
"""

from __future__ import annotations

from collections.abc import Iterator

from irconv.graph import Node
from irconv.passes.patterns import Group, Search, epilogue_of, mean_variance
from irconv.passes.prologues import WorkAhead
from irconv.types import F32, F64

FEWEST_CHANNELS = 16
"""With fewer, a convolution has its pixels side by side in registers."""


def conv_statistics(uses: Search) -> Iterator[Group]:
    """conv, light work ahead of it, elementwise work on its result, and both moments of that over all axes but the channels."""
    graph = uses.graph
    work = WorkAhead(uses)
    moments = {graph[group.nodes[0]].operands[0]: group.nodes for group in mean_variance(uses)}
    for node_id in uses.order:
        conv = graph[node_id]
        if conv.op.name != "conv" or not moments or conv.operands[0] == conv.operands[1]:
            continue
        epilogue = () if node_id in uses.kept or node_id in moments else epilogue_of(uses, conv)
        result = graph[epilogue[-1] if epilogue else node_id]
        nodes = moments.get(result.id)
        if nodes is not None and _is_suitable(uses, conv, result, nodes):
            yield Group("conv_statistics", (*work.ahead(conv), node_id, *epilogue, *nodes))


def _is_suitable(uses: Search, conv: Node, result: Node, nodes: tuple[int, ...]) -> bool:
    """Whether the moments are those of the channels, of numbers stored side by side, and nothing between is wanted."""
    graph = uses.graph
    mean, *between, _, variance = (graph[i] for i in nodes)
    rank, layout = result.type.rank, result.type.layout
    if result.type.size == 0 or result.type.shape[1] < FEWEST_CHANNELS:
        return False
    if mean.attributes.axes != (0, *range(2, rank)) or layout is None or layout.order != (0, *range(2, rank), 1):
        return False
    if any(node.type.dtype is not conv.type.dtype for node in (result, mean, variance)) or conv.type.dtype not in (F32, F64):
        return False
    inner = set(nodes)
    is_stored = result.id in uses.kept or not inner.issuperset(uses.readers[result.id])
    return is_stored and all(n.id not in uses.kept and inner.issuperset(uses.readers[n.id]) for n in between)
