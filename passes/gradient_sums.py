"""Fusion of a convolution's input gradient with the sums that batch norm's backward takes of it.

The gradient is stored for what follows the sums.  They read it again, with the stored value x whose mean was taken in the forward
pass: in the kernel that makes the gradient only x has to come from memory.

Taken are sums over all axes but the channels of light elementwise work on the gradient, on values stored like it, and on numbers
per channel, where the gradient is stored channels last.  What is summed must not need anything that needs the gradient, so
that the quotient graph stays without a cycle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from irconv import cost
from irconv.graph import Node
from irconv.passes.patterns import Group, Search, epilogue_of, is_by_channel
from irconv.passes.sibling_reductions import reaches_back, reductions
from irconv.passes.statistics import FEWEST_CHANNELS
from irconv.strides import Strides, is_contiguous, value_strides
from irconv.types import F32, F64

LIGHT = cost.LIGHT | {"logical_and", "logical_or", "logical_not"}
"""Ops ahead of the sums, masks of activations among them."""

WIDEST, MOST_STRIDE = 7, 2
"""Taps and stride along an axis, of a convolution channel by channel: all channels of a row are computed together then."""


def conv_transpose_sums(uses: Search) -> Iterator[Group]:
    """conv_transpose, the elementwise work on its result, and sums of that over all axes but the channels."""
    graph = uses.graph
    makers: dict[int, tuple[int, ...]] = {}
    for node_id in uses.order:
        node = graph[node_id]
        if node.op.name == "conv_transpose" and node_id not in uses.taken and _is_covered(uses, node):
            rest = epilogue_of(uses, node)
            makers[rest[-1] if rest else node_id] = (node_id, *rest)
    if not makers:
        return
    strides = value_strides(graph)
    for group in reductions(uses.without(i for nodes in makers.values() for i in nodes)):
        found = [i for i in _read(uses, group.nodes) if i in makers]
        if len(found) == 1 and _is_suitable(uses, graph[found[0]], group.nodes, strides):
            members = (*makers[found[0]], *group.nodes)
            if not reaches_back(uses, _read(uses, members), set(members)):
                yield Group("conv_transpose_sums", members)


def _is_covered(uses: Search, conv: Node) -> bool:
    """Whether all pixels of a row are computed together: at stride 1, and channel by channel."""
    a, (x, w) = conv.attributes, uses.graph.operands(conv)
    if conv.operands[0] == conv.operands[1]:
        return False
    if all(s == 1 for s in a.stride):
        return True
    small = all(k <= WIDEST for k in w.type.shape[2:]) and all(s <= MOST_STRIDE for s in a.stride) and set(a.dilation) == {1}
    return small and a.groups == x.type.shape[1] == conv.type.shape[1]


def _read(uses: Search, nodes: tuple[int, ...]) -> list[int]:
    """Values that the nodes read from outside."""
    return [i for i in dict.fromkeys(i for node in nodes for i in uses.graph[node].operands) if i not in nodes]


def _is_suitable(
    uses: Search, gradient: Node, nodes: tuple[int, ...], strides: Mapping[int, tuple[Strides, bool]]
) -> bool:
    """Whether there is code for sums of work on this gradient."""
    graph, type_ = uses.graph, gradient.type
    rank, layout = type_.rank, type_.layout
    images = (0, *range(2, rank))
    if layout is None or layout.order != (*images, 1) or type_.dtype not in (F32, F64):
        return False
    if type_.shape[1] < FEWEST_CHANNELS or math.prod(type_.shape[2:]) == 1 or type_.size == 0:
        return False
    is_stored = gradient.id in uses.kept or not set(nodes).issuperset(uses.readers[gradient.id])
    reads = (graph[i] for i in _read(uses, nodes))
    return (
        is_stored
        and all(_can_be_read(i, gradient, strides[i.id][0], strides[gradient.id][0]) for i in reads)
        and all(_has_code(uses, graph[i], gradient, nodes) for i in nodes)
    )


def _can_be_read(value: Node, gradient: Node, strides: Strides, expected: Strides) -> bool:
    """Whether a value that the sums read lies as the gradient does, or has a number for each channel, one behind the other."""
    if value.type == gradient.type:
        return strides == expected
    shape = value.type.shape
    if value.type.dtype is not gradient.type.dtype or not is_by_channel(shape, gradient.type.shape):
        return False
    repeated = all(n == 1 or step == 0 for n, step in zip(shape, strides, strict=True))
    return repeated or is_contiguous(shape, strides)


def _has_code(uses: Search, node: Node, gradient: Node, nodes: tuple[int, ...]) -> bool:
    """Whether a member of the sums is of a kind that the code knows."""
    type_ = gradient.type
    if node.op.name == "sum":
        source = uses.graph[node.operands[0]].type
        return node.attributes.axes == (0, *range(2, type_.rank)) and source == type_ and node.type.dtype is type_.dtype
    is_kept = node.id in uses.kept or not set(nodes).issuperset(uses.readers[node.id])
    return node.op.name in LIGHT and not is_kept and node.type.shape == type_.shape
