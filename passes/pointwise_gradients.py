"""Both gradients of a pointwise convolution as one kernel, with the work ahead of them and the sums behind.

Backward through ``y = conv(x, w)`` with 1x1 windows, the gradient d of y is read for two gradients: that of x, a transposed
convolution, and that of w, a product over all pixels.  In a network with batch norm d is made for them of two values of its size
by light elementwise ops, and often x is made in the same way of what is stored anyway.  A kernel that goes through the images
strip by strip makes d (and x) on the way, stores neither, and reads what they are made of once.

The group is a transposed convolution with its epilogue and, where batch norm takes them, its sums
(:mod:`irconv.passes.gradient_sums`); the weight gradient; and the light work that nobody else reads.  Images are stored channels
last, so that pixels can be counted through.  Members must not need anything that needs another member, so that the quotient
graph stays without a cycle.

Left as they are: products where a task's part of the weight gradient does not stay in a cache, and small images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod

from irconv import cost
from irconv.graph import Graph, Node
from irconv.passes.gradient_sums import conv_transpose_sums
from irconv.passes.patterns import (
    Group,
    Search,
    conv_weight_gradients,
    epilogue_of,
    is_by_channel,
    is_elementwise,
    with_producers,
)
from irconv.passes.sibling_reductions import reaches_back
from irconv.types import BOOL, F32, F64, TensorType

KIND = "pointwise_gradients"

LIGHT = cost.LIGHT | {"logical_and", "logical_or", "logical_not"}
"""Ops ahead of the gradients: they are computed once for each element."""

MOST_OPS, MOST_IMAGES = 16, 3
"""So many of them at the most, which read so many values of full size."""

WEIGHT_BYTES = 256 * 1024
"""Of a weight, at the most: a task sums its gradient up strip by strip.  Of 600 KiB (160 to 960 channels) it took 1.2 times as
long as two kernels."""

IMAGE_BYTES = 128 * 1024
"""Of an image of d or of x at the least: smaller ones stay in a cache from kernel to kernel, and took up to 1.2 times as long."""


def pointwise_gradients(uses: Search) -> Iterator[Group]:
    """The weight gradient of a 1x1 convolution with the input gradient that reads the same value, and the work ahead of both."""
    graph = uses.graph
    found = []
    for group in conv_weight_gradients(uses):
        columns = next(graph[i] for i in group.nodes if graph[i].op.name == "im2col")
        d = _gradient(graph, columns)
        if d is not None and d.id not in group.nodes:
            found.append((group, columns, d))
    if not found:
        return
    sums = {group.nodes[0]: group.nodes for group in conv_transpose_sums(uses)}
    for group, columns, d in found:
        nodes = _gradients(uses, group, columns, d, sums)
        if nodes:
            yield Group(KIND, nodes)


def takes_work(graph: Graph, columns: Node) -> bool:
    """Whether the weight gradient that reads these columns (an ``im2col``) may make what it reads of light elementwise ops."""
    return _gradient(graph, columns) is not None


def _gradient(graph: Graph, columns: Node) -> Node | None:
    """The value d of a weight gradient from these columns; None unless there is code for it, and reason to have it."""
    product = next((user for user, _ in graph.users(columns.id)), None)
    if columns.op.name != "im2col" or product is None or product.op.name != "matmul":
        return None
    a, x, d = columns.attributes, graph[columns.operands[0]], graph[product.operands[0]]
    while d.op.name in ("reshape", "transpose"):
        d = graph[d.operands[0]]
    plain = prod(a.kernel) == 1 and {*a.stride} == {1} and not any(n for pair in a.padding for n in pair) and a.groups == 1
    if not plain or not (_is_image(x.type) and _is_image(d.type)) or d.type.dtype is not x.type.dtype:
        return None
    if d.type.shape[:1] != x.type.shape[:1] or d.type.shape[2:] != x.type.shape[2:]:
        return None
    is_small = x.type.shape[1] * d.type.shape[1] * d.type.dtype.bytes <= WEIGHT_BYTES
    image = max(prod(d.type.shape[1:]), prod(x.type.shape[1:])) * d.type.dtype.bytes
    return d if is_small and image >= IMAGE_BYTES else None


def _is_image(type_: TensorType) -> bool:
    """Whether a type is that of images of floats whose channels lie last."""
    order = (0, *range(2, type_.rank), 1)
    return type_.dtype in (F32, F64) and type_.rank > 2 and type_.layout is not None and type_.layout.order == order


def _gradients(
    uses: Search, group: Group, columns: Node, d: Node, sums: dict[int, tuple[int, ...]]
) -> tuple[int, ...]:
    """The members of a group, in topological order; none if nothing comes together."""
    graph = uses.graph
    x = graph[columns.operands[0]]
    members = set(group.nodes)
    conv = next((graph[i] for i in uses.readers[d.id] if _is_input_gradient(uses, graph[i], d)), None)
    if conv is not None:
        members.update(sums.get(conv.id) or (conv.id, *epilogue_of(uses, conv)))
    members |= _work(uses, d, members)
    members |= _work(uses, x, members)
    if members == set(group.nodes) or not uses.taken.isdisjoint(members):
        return ()
    read = {i for node in members for i in graph[node].operands} - members
    if reaches_back(uses, read, members):
        return ()
    return tuple(sorted(members, key=uses.position.__getitem__))


def _is_input_gradient(uses: Search, node: Node, d: Node) -> bool:
    """Whether a node is the transposed convolution of d with 1x1 windows, at every pixel."""
    if node.op.name != "conv_transpose" or node.operands[0] != d.id or node.operands[1] == d.id or node.id in uses.taken:
        return False
    a, w = node.attributes, uses.graph[node.operands[1]].type.shape
    plain = prod(w[2:]) == 1 and {*a.stride} == {1} and not any(a.padding) and a.groups == 1
    return plain and node.type.shape[2:] == d.type.shape[2:] and _is_image(node.type)


def _work(uses: Search, value: Node, members: set[int]) -> set[int]:
    """The light work that makes a value which members alone read; nothing if it has to be stored, or is not light."""
    graph = uses.graph
    if not is_elementwise(value) or value.id in uses.kept or value.id in uses.taken:
        return set()
    if not members.issuperset(uses.readers[value.id]):
        return set()
    nodes = with_producers(uses, {value.id}, value.type.shape, members)
    reads = {i for n in nodes for i in graph[n].operands if i not in nodes}
    if len(nodes) > MOST_OPS or any(graph[i].op.name not in LIGHT for i in nodes):
        return set()
    types_fit = all(graph[i].type.dtype in (value.type.dtype, BOOL) for i in nodes)
    return set(nodes) if types_fit and _are_images(uses, reads, value) else set()


def _are_images(uses: Search, reads: Iterable[int], value: Node) -> bool:
    """Whether values are a few stored like the one that is made of them, and for the rest numbers per channel."""
    types = [uses.graph[i].type for i in reads]
    images = [t for t in types if t == value.type]
    others = [t for t in types if t != value.type]
    fit = all(t.dtype is value.type.dtype and is_by_channel(t.shape, value.type.shape) for t in others)
    return fit and 0 < len(images) <= MOST_IMAGES
