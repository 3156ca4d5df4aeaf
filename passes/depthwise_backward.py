"""Fusion of both gradients of a depthwise convolution, with the work before and behind them.

Of ``y = conv(x, w)``, channel by channel, the backward pass computes from the gradient d of y::

    g  = conv_transpose(d, w)            the gradient of x
    dw = d by channel * im2col(x)        the gradient of w
    sum(f(g)), ...                       the sums that batch norm's backward takes of g ahead

All of them wait for memory: between two normalisations d is a few light ops of two stored values, x is a few light ops of the
result of the convolution before, and the sums read that result again.  One kernel that goes over the rows of the image once
reads what d and x are made of and writes g: for images of 112 x 112 four transfers of such a size in place of eight.

A group of kind ``depthwise_backward`` holds

- conv_transpose by channel, im2col and the product of the same d, with small windows, for images stored channels last;
- the elementwise work on g, and sums of it (see :mod:`irconv.passes.gradient_sums`), or either or neither;
- light elementwise work that makes d, if nobody else reads it;  the same for x.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from irconv.graph import Graph, Node
from irconv.kernel import Kernel
from irconv.passes.gradient_sums import LIGHT, MOST_STRIDE, WIDEST, conv_transpose_sums
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
from irconv.passes.statistics import FEWEST_CHANNELS
from irconv.types import BOOL, F32, F64, channels_last

KIND = "depthwise_backward"

MOST_OPS = 16
"""Ops that make an element of d or of x."""


def depthwise_backward(uses: Search) -> Iterator[Group]:
    """conv_transpose and weight gradient of one depthwise convolution, with the light work around them."""
    graph = uses.graph
    weights = _weight_gradients(uses)
    if not weights:
        return
    behind = {group.nodes[0]: group.nodes for group in conv_transpose_sums(uses)}
    for node_id in uses.order:
        transposed = graph[node_id]
        if transposed.op.name != "conv_transpose" or len(weights.get(transposed.operands[0], ())) != 1:
            continue
        (weight,) = weights[transposed.operands[0]]
        columns = _columns(graph, weight)
        if not _are_of_one_layer(graph, transposed, columns) or reaches_back(uses, columns.operands, {node_id}):
            continue
        rest = behind.get(node_id) or (node_id, *epilogue_of(uses, transposed))
        if not _is_light(graph, rest[1:], transposed) or graph[rest[-1]].type.dtype is BOOL:
            continue
        members = {*rest, *weight}
        members.update(_ahead(uses, {node_id, *weight} - {columns.id}, graph[transposed.operands[0]]))
        members.update(_ahead(uses, {columns.id}, graph[columns.operands[0]]))
        if uses.taken.isdisjoint(members) and not reaches_back(uses, _read(graph, members), members):
            yield Group(KIND, tuple(sorted(members, key=uses.position.__getitem__)))


def takes_input(graph: Graph, columns: Node) -> bool:
    """Whether the kernel that an im2col belongs to will compute the image it reads, where light ops make that of stored values.

    It will where the columns are those of a depthwise weight gradient that is computed together with the input gradient.
    """
    if columns.op.name != "im2col":
        return False
    products = [user for user, _ in graph.users(columns.id)]
    if len(products) != 1 or products[0].op.name != "matmul":
        return False
    source = graph[products[0].operands[0]]
    while source.op.name in ("reshape", "transpose"):
        source = graph[source.operands[0]]
    readers = (user for user, _ in graph.users(source.id))
    return any(user.op.name == "conv_transpose" and _are_of_one_layer(graph, user, columns) for user in readers)


def why_outside(uses: Search, value: Node, user: Node, kernel: Kernel) -> str | None:
    """Why elementwise work that makes d or x is not in the kernel that reads it; None if the value is something else."""
    if kernel.kind != KIND or not is_elementwise(value) or user.op.name not in ("conv_transpose", "im2col", "transpose"):
        return None
    if value.id in uses.kept or not set(kernel.nodes).issuperset(uses.readers[value.id]):
        return f"%{value.name} is also read elsewhere, so it has to be stored"
    return "the work is not light, or reads other values than images of this size and numbers for each channel"


def _weight_gradients(uses: Search) -> dict[int, list[tuple[int, ...]]]:
    """The nodes of each depthwise weight gradient, by the d that they read."""
    graph = uses.graph
    found: dict[int, list[tuple[int, ...]]] = {}
    for group in conv_weight_gradients(uses):
        columns = _columns(graph, group.nodes)
        d = _arranged(graph, group.nodes, columns)
        if d is not None:
            found.setdefault(d, []).append(group.nodes)
    return found


def _columns(graph: Graph, nodes: Iterable[int]) -> Node:
    return next(graph[i] for i in nodes if graph[i].op.name == "im2col")


def _arranged(graph: Graph, nodes: tuple[int, ...], columns: Node) -> int | None:
    """The d whose channels the views ahead of the product bring to the front; None for other views or more than one channel."""
    product = next(graph[i] for i in nodes if graph[i].op.name == "matmul")
    x = graph[columns.operands[0]]
    if columns.attributes.groups != x.type.shape[1] or product.type.shape[1] != 1 or x.type.rank != 4:
        return None
    names, value = [], product.operands[0]
    while value in nodes:
        names.append((graph[value].op.name, getattr(graph[value].attributes, "axes", None)))
        value = graph[value].operands[0]
    return value if names == [("reshape", None), ("transpose", (1, 0, 2, 3))] else None


def _are_of_one_layer(graph: Graph, transposed: Node, columns: Node) -> bool:
    """Whether both gradients are those of one convolution, of a kind that the code knows."""
    d, x, w = graph[transposed.operands[0]], graph[columns.operands[0]], graph[transposed.operands[1]]
    a, b = transposed.attributes, columns.attributes
    last = channels_last(4)
    if not x.type.layout == d.type.layout == transposed.type.layout == last or x.id == d.id or w.id == d.id:
        return False
    channels = x.type.shape[1]
    if x.type.shape != transposed.type.shape or d.type.shape[1] != channels or not a.groups == b.groups == channels:
        return False
    if transposed.type.dtype not in (F32, F64) or {x.type.dtype, d.type.dtype, w.type.dtype} != {transposed.type.dtype}:
        return False
    # images of a single pixel would look like numbers for each channel
    if channels < FEWEST_CHANNELS or any(v.type.size == 0 or math.prod(v.type.shape[2:]) == 1 for v in (x, d)):
        return False
    alike = b.kernel == w.type.shape[2:] and a.stride == b.stride and a.padding == tuple(before for before, _ in b.padding)
    small = max(b.kernel) <= WIDEST and max(a.stride) <= MOST_STRIDE and {*a.dilation, *b.dilation} == {1}
    return alike and small and all(0 <= p < k for p, k in zip(a.padding, b.kernel, strict=True))


def _ahead(uses: Search, readers: set[int], value: Node) -> set[int]:
    """The light work that makes a value which these nodes alone read; none if there is none that the kernel can do."""
    found = set(with_producers(uses, readers, value.type.shape)) - readers
    return found if value.id in found and len(found) <= MOST_OPS and _is_light(uses.graph, tuple(found), value) else set()


def _is_light(graph: Graph, nodes: tuple[int, ...], image: Node) -> bool:
    """Whether elementwise work, and sums of it, are light, and read values like the image and numbers for each channel."""
    inner = (graph[i] for i in nodes if graph[i].op.name != "sum")
    if any(n.op.name not in LIGHT or n.type.dtype not in (BOOL, image.type.dtype) for n in inner):
        return False
    types, like = [graph[i].type for i in _read(graph, set(nodes)) if i != image.id], image.type
    return all(t == like or (t.dtype is like.dtype and is_by_channel(t.shape, like.shape)) for t in types)


def _read(graph: Graph, nodes: set[int]) -> list[int]:
    """Values that the nodes read from outside."""
    return [i for i in dict.fromkeys(i for node in nodes for i in graph[node].operands) if i not in nodes]
