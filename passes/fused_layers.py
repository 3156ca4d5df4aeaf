"""Inverted residuals as one kernel: a depthwise convolution with the pointwise ones before and behind it.

A pointwise convolution (1x1) needs the same pixel of its input, a depthwise one a few rows around it.  So a band of rows can go
through all of them while it stays in the cache, and the wide tensors between them are never stored: fused layers (Alwani, Chen,
Ferdman, Milder: Fused-Layer CNN Accelerators, MICRO 2016), at the price that rows where bands meet are computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from irconv.graph import Graph, Node
from irconv.passes.patterns import Group, Search, epilogue_of
from irconv.types import F32, F64, channels_last

LEAST_BYTES = 1 << 20
"""Bytes of an image between two layers from which on it pays not to store them: what a second-level cache does not hold."""

TAPS = (3, 5)
"""Extents of the depthwise kernel."""

LEAST_ROWS = 8
"""Rows and columns of an image that is worth cutting."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """A convolution with the elementwise work on its result; ``value``: what comes of it."""

    conv: Node
    nodes: tuple[int, ...]
    value: Node


def fused_layers(uses: Search) -> Iterator[Group]:
    """A depthwise convolution and a pointwise one before it, behind it or both, where much lies between them."""
    graph = uses.graph
    pointwise: dict[int, _Layer] = {}  # by the value that comes of it
    for node_id in uses.order:
        node = graph[node_id]
        if _is_pointwise(graph, node):
            layer = _layer(uses, node)
            pointwise[layer.value.id] = layer
            continue
        if not _is_depthwise(graph, node) or node_id in uses.taken:
            continue
        found = [_layer(uses, node)]
        before = pointwise.get(node.operands[0])
        if before is not None and uses.only_reader(before.value.id) is not None and _is_large(before.value):
            found.insert(0, before)
        reader = uses.only_reader(found[-1].value.id)
        follows = reader is not None and _is_pointwise(graph, reader) and reader.operands[0] == found[-1].value.id
        if reader is not None and follows and (len(found) == 2 or _is_large(found[-1].value)):
            found.append(_layer(uses, reader))
        nodes = [i for layer in found for i in layer.nodes]
        if len(found) > 1 and uses.taken.isdisjoint(nodes):
            yield Group("fused_layers", tuple(nodes))


def why_stored(graph: Graph, conv: Node, value: Node, user: Node) -> str | None:
    """Why the value that comes of ``conv`` is stored before another convolution reads it; None if the two are no such layers."""
    pairs = ((_is_pointwise, _is_depthwise), (_is_depthwise, _is_pointwise))
    if _is_large(value) or not any(first(graph, conv) and second(graph, user) for first, second in pairs):
        return None
    size = value.type.bytes // max(1, value.type.shape[0])
    return f"%{value.name} has {size:,} bytes for an image: layers are computed together from {LEAST_BYTES:,} on"


def _layer(uses: Search, conv: Node) -> _Layer:
    nodes = (conv.id, *epilogue_of(uses, conv))
    return _Layer(conv, nodes, uses.graph[nodes[-1]])


def _is_large(value: Node) -> bool:
    return value.type.bytes // max(1, value.type.shape[0]) >= LEAST_BYTES


def _is_image(graph: Graph, node: Node) -> bool:
    """Whether a node is a convolution of images whose channels lie last, in and out."""
    if node.op.name != "conv" or node.type.rank != 4 or node.type.dtype not in (F32, F64):
        return False
    x, w = graph.operands(node)
    last = channels_last(4)
    return (
        x.type.layout == node.type.layout == last and x.id != w.id and min(*x.type.shape[2:], *node.type.shape[2:]) >= LEAST_ROWS
    )


def _is_pointwise(graph: Graph, node: Node) -> bool:
    """Whether a node is a convolution with one tap that looks at every pixel."""
    if not _is_image(graph, node):
        return False
    a, w = node.attributes, graph[node.operands[1]].type.shape
    return a.groups == 1 and w[2:] == (1, 1) and a.stride == (1, 1) and a.padding == ((0, 0), (0, 0))


def _is_depthwise(graph: Graph, node: Node) -> bool:
    """Whether a node is a convolution of every channel by itself."""
    if not _is_image(graph, node):
        return False
    a, w = node.attributes, graph[node.operands[1]].type.shape
    channels = graph[node.operands[0]].type.shape[1]
    whole = a.groups == channels == node.type.shape[1] and channels > 1
    return whole and set(w[2:]) <= set(TAPS) and a.dilation == (1, 1)
