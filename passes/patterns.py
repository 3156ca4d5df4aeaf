"""The groups of nodes that fusion looks for by their pattern, before it merges what is left edge by edge.

Every group here has a single exit, or reads nothing but what its first node reads, so that it can never lie on a cycle.
"""

from __future__ import annotations

import copy
import heapq
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass

from irconv.graph import Graph, Node
from irconv.kernel import Uses
from irconv.op import Fusion

CONTRACTIONS = ("conv", "conv_transpose", "matmul")
REDUCTIONS = ("sum", "mean", "max", "min", "prod")
REGION_NODES = 24
"""The most ops in an epilogue or in the elementwise work ahead of a reduction."""


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes that a kernel of ``kind`` could run, in a topological order; the contraction of an epilogue comes first."""

    kind: str
    nodes: tuple[int, ...]


class Search(Uses):
    """Who reads what, and which nodes belong to a group already."""

    def __init__(self, graph: Graph):
        super().__init__(graph)
        self.taken: set[int] = set()

    def without(self, nodes: Iterable[int]) -> Search:
        """The same search where these nodes belong to a group as well."""
        other = copy.copy(self)
        other.taken = self.taken.union(nodes)
        return other


def is_elementwise(node: Node) -> bool:
    return node.op.fusion is Fusion.ELEMENTWISE


def is_by_channel(shape: tuple[int, ...], image: tuple[int, ...]) -> bool:
    """Whether a value of this shape is one number, or has one for each channel of images of the shape ``image``."""
    numbers = (image[1], *[1] * (len(image) - 2))
    return all(n == 1 for n in shape) or shape in (numbers, (1, *numbers))


def _same_order(node: Node, start: Node) -> bool:
    return node.type.shape == start.type.shape and node.type.layout == start.type.layout


def leaves_forward(producer: Node, user: Node) -> bool:
    """Whether an edge leads from the forward pass into the backward one.

    Merging along it would compute backward values early and keep them for long.
    """
    return producer.provenance.origin is None and user.provenance.origin is not None


# --- pooling with its indices, mean with variance ------------------------------------------------------------------------


def pool_indices(uses: Search) -> Iterator[Group]:
    """max_pool and argmax_pool (min_pool and argmin_pool) of one operand with the same attributes."""
    graph = uses.graph
    for node_id in uses.order:
        node = graph[node_id]
        if node.op.name not in ("max_pool", "min_pool"):
            continue
        for other in uses.readers[node.operands[0]]:
            if graph[other].op.name == f"arg{node.op.name}" and graph[other].attributes == node.attributes:
                yield Group("pool_indices", (node_id, other))


def mean_variance(uses: Search) -> Iterator[Group]:
    """mean(square(x - m)) with m = mean(x) over the same axes, its axes kept or brought back by a reshape."""
    graph = uses.graph
    for node_id in uses.order:
        variance = graph[node_id]
        if variance.op.name != "mean":
            continue
        squared = graph[variance.operands[0]]
        # the squares are not kept, so nobody else may read them
        if squared.op.name != "square" or uses.only_reader(squared.id) is None:
            continue
        centred = graph[squared.operands[0]]
        if centred.op.name != "subtract":
            continue
        x, mean = graph.operands(centred)
        between: tuple[int, ...] = ()
        if mean.op.name == "reshape" and uses.only_reader(mean.id) is not None:
            between = (mean.id,)
            mean = graph[mean.operands[0]]
        if mean.op.name == "mean" and mean.operands == (x.id,) and mean.attributes.axes == variance.attributes.axes:
            yield Group("mean_variance", (mean.id, *between, centred.id, squared.id, node_id))


# --- weight gradients ------------------------------------------------------------------------------------------------------


def conv_weight_gradients(uses: Search) -> Iterator[Group]:
    """matmul(d by group, im2col(x)), with the views that arrange d and the result."""
    graph = uses.graph
    for node_id in uses.order:
        product = graph[node_id]
        if product.op.name != "matmul" or graph[product.operands[1]].op.name != "im2col":
            continue
        columns = graph[product.operands[1]]
        if uses.only_reader(columns.id) is None:
            continue
        nodes = {product.id, columns.id, *_views_before(uses, product.operands[0])}
        after = uses.only_reader(product.id)
        if after is not None and after.op.name == "reshape":
            nodes.add(after.id)
        yield Group("conv_weight_gradient", tuple(sorted(nodes, key=uses.position.__getitem__)))


def _views_before(uses: Search, value: int) -> list[int]:
    """The chain of reshapes and transposes that ends in ``value``, as far as nobody else reads it."""
    chain = []
    while uses.graph[value].op.name in ("reshape", "transpose") and uses.only_reader(value) is not None:
        chain.append(value)
        value = uses.graph[value].operands[0]
    return chain


# --- elementwise work around a contraction or reduction ----------------------------------------------------------------


def epilogues(uses: Search) -> Iterator[Group]:
    """A contraction and the elementwise work on its result (bias, scale, activation, residual) up to a single value."""
    for node_id in uses.order:
        node = uses.graph[node_id]
        if node.op.name in CONTRACTIONS:
            rest = epilogue_of(uses, node)
            if rest:
                yield Group(f"{node.op.name}_epilogue", (node_id, *rest))


def epilogue_of(uses: Search, contraction: Node) -> tuple[int, ...]:
    """The elementwise work that one kernel can do on the result of a contraction, in topological order; the last leaves it."""
    found = [] if contraction.id in uses.kept else _single_exit(uses, contraction)
    return with_producers(uses, set(found), contraction.type.shape) if found else ()


def _single_exit(uses: Search, start: Node) -> list[int]:
    """The longest run of elementwise readers of ``start``, in topological order, that leaves through its last value only."""
    region: list[int] = []
    accepted = 0
    unread = {start.id: len(uses.readers[start.id])}  # values of the region with readers outside, and how many
    waiting = [uses.position[i] for i in uses.readers[start.id]]
    heapq.heapify(waiting)
    while waiting and len(region) < REGION_NODES:
        position = heapq.heappop(waiting)
        node = uses.graph[uses.order[position]]
        while waiting and waiting[0] == position:
            heapq.heappop(waiting)
        if not is_elementwise(node) or not _same_order(node, start) or leaves_forward(start, node):
            break
        if node.id in uses.taken:
            break
        if node.id in uses.new_states:  # by itself it can be written over the old state, in a contraction it cannot
            break
        region.append(node.id)
        for operand in dict.fromkeys(node.operands):
            if operand in unread:
                unread[operand] -= 1
                if unread[operand] == 0 and operand not in uses.kept:
                    del unread[operand]
        unread[node.id] = len(uses.readers[node.id])
        if list(unread) == [node.id]:
            accepted = len(region)
        if node.id in uses.kept:
            break
        for reader in uses.readers[node.id]:
            heapq.heappush(waiting, uses.position[reader])
    return region[:accepted]


def reduced_elementwise(uses: Search) -> Iterator[Group]:
    """A reduction and the elementwise work that only it reads."""
    graph = uses.graph
    for node_id in uses.order:
        node = graph[node_id]
        if node.op.name not in REDUCTIONS:
            continue
        nodes = with_producers(uses, {node_id}, graph[node.operands[0]].type.shape)
        if len(nodes) > 1:
            yield Group("elementwise_reduce", nodes)


def with_producers(
    uses: Search, members: set[int], shape: tuple[int, ...], others: Set[int] = frozenset()
) -> tuple[int, ...]:
    """The members and the elementwise work of this shape that only they read, in topological order; none of ``others``."""
    graph = uses.graph
    members = set(members)
    waiting = [-uses.position[operand] for member in members for operand in graph[member].operands]
    heapq.heapify(waiting)
    while waiting and len(members) < REGION_NODES:
        node = graph[uses.order[-heapq.heappop(waiting)]]  # the last in program order: its readers have been decided on
        if node.id in members or node.id in uses.kept or node.id in uses.taken or node.id in others:
            continue
        if not is_elementwise(node) or node.type.shape != shape or _is_epilogue(uses, node):
            continue
        readers = uses.readers[node.id]
        if all(reader in members and not leaves_forward(node, graph[reader]) for reader in readers):
            members.add(node.id)
            for operand in node.operands:
                heapq.heappush(waiting, -uses.position[operand])
    return tuple(sorted(members, key=uses.position.__getitem__))


def _is_epilogue(uses: Search, node: Node) -> bool:
    """Whether a contraction that nobody else reads will take the op into its own kernel."""
    return any(uses.graph[i].op.name in CONTRACTIONS and uses.only_reader(i) is not None for i in node.operands)

