"""Storage of activations: channels last from one convolution to the next, with few conversions.

Kernels of generated code run along the channels: one vector holds neighbouring channels of a pixel, so a convolution is a
product of a pixel's channels with a packed weight, whatever its stride and padding, and pooling, normalisation and
elementwise work read memory in order.  In row-major order (batch, channels, rows, columns) the channels of a pixel lie an image
apart.  (Channels in blocks of a vector's width would serve as well; whole channels last need no padding of 3, 17 or 58
channels to full blocks, and slices and concatenations along the channels stay views and plain copies.)

Three walks over the graph decide which values are stored channels last:

1. *likely*: results of convolutions, and of ops that follow the layout of what they read, as long as they read such a value.
2. *wished*: backwards, what such ops and convolutions read.
3. decided in order, now with the strides that everything before has: a following op takes the layout that its operands of full
   size have; without any (a gradient that is spread over an image, say) it does as it is wished.

Then ``relayout`` is put between a value and those readers that run along channels but would find them apart, once per value,
and before outputs and new state values, which are row-major.  A convolution of at most ``few_channels`` channels takes them as
they are (a network's image).

Values whose channels or pixels are one each are the same in both orders and stay row-major.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from irconv.graph import Graph, Node
from irconv.op import OPS, Fusion
from irconv.ops.layout import RelayoutAttributes
from irconv.passes.base import Note, Pass, register_pass
from irconv.strides import Strides, storage_strides, view_strides
from irconv.types import Layout, channels_last

CONVOLUTIONS = frozenset({"conv", "conv_transpose"})
"""They want channels last, and give it."""

FOLLOWING = frozenset(
    {
        "max_pool", "min_pool", "avg_pool", "argmax_pool", "argmin_pool", "avg_pool_adjoint", "window_scatter", "window_gather",
        "pad", "pad_adjoint", "concat", "resize", "resize_adjoint", "embed", "slice_update",
    }
)  # fmt: skip
"""Besides elementwise ops: they give what they are given."""


@register_pass
@dataclass(frozen=True)
class ChannelsLast(Pass):
    """Store activations channels last.  ``few_channels``: so many, or fewer, a convolution reads in any order."""

    name: ClassVar[str] = "channels_last"
    few_channels: int = 4

    def run(self, graph: Graph, notes: list[Note] | None = None) -> bool:
        likely = _likely(graph)
        if not likely:
            return False
        wished = _wished(graph, likely, self.few_channels)
        strides = _decide(graph, likely, wished)
        _convert(graph, strides, self.few_channels)
        return True


def _has_channels(node: Node) -> bool:
    """Whether the two orders differ: several channels, and several pixels."""
    shape = node.type.shape
    return len(shape) >= 3 and shape[1] > 1 and node.type.size > shape[0] * shape[1]


def _follows(node: Node) -> bool:
    return node.op.name in FOLLOWING or node.op.fusion is Fusion.ELEMENTWISE


def _image_operands(graph: Graph, node: Node) -> list[Node]:
    """The operands that are images, as opposed to weights and numbers per channel."""
    operands = graph.operands(node)
    if node.op.name in CONVOLUTIONS:
        return [operands[0]]
    if not _follows(node):
        return []
    return [o for o in operands if o.type.rank == node.type.rank and _has_channels(o) and o.type.shape[0] == node.type.shape[0]]


def _likely(graph: Graph) -> set[int]:
    found: set[int] = set()
    for node in graph:
        if not _has_channels(node) or node.is_leaf:
            continue
        passes_on = _follows(node) or (node.op.fusion is Fusion.VIEW and node.op.name not in ("reshape", "transpose"))
        if node.op.name in CONVOLUTIONS or (passes_on and not found.isdisjoint(node.operands)):
            found.add(node.id)
    return found


def _wished(graph: Graph, likely: set[int], few_channels: int) -> set[int]:
    wished: set[int] = set()
    for node_id in reversed(graph.order()):
        node = graph[node_id]
        many = node.op.name not in CONVOLUTIONS or graph[node.operands[0]].type.shape[1] > few_channels
        if many and (node_id in likely or node_id in wished or node.op.name in CONVOLUTIONS):
            wished.update(o.id for o in _image_operands(graph, node))
    return wished


def _decide(graph: Graph, likely: set[int], wished: set[int]) -> dict[int, Strides]:
    """Set layouts; returns the strides of every value."""
    strides: dict[int, Strides] = {}
    for node in graph:
        view = None
        if node.op.fusion is Fusion.VIEW:
            (operand,) = graph.operands(node)
            view = view_strides(node, operand.type.shape, strides[operand.id])
        free = view is None and not node.is_leaf and node.type.layout is None
        if free and _has_channels(node) and _takes_channels_last(graph, node, strides, wished):
            node = graph.set_layout(node.id, channels_last(node.type.rank))
        strides[node.id] = storage_strides(node.type) if view is None else view
    return strides


def _takes_channels_last(graph: Graph, node: Node, strides: dict[int, Strides], wished: set[int]) -> bool:
    if node.op.name in CONVOLUTIONS:
        return True
    if node.op.name == "reshape":  # one that copies: its readers choose
        return node.id in wished
    if not _follows(node):
        return False
    votes = [strides[o.id][1] == 1 for o in _image_operands(graph, node) if 0 not in strides[o.id]]
    return any(votes) if votes else node.id in wished


def _convert(graph: Graph, strides: dict[int, Strides], few_channels: int) -> None:
    """Put conversions where channels are read in order and lie apart, and before results."""
    made: dict[int, int] = {}
    results = {*graph.outputs.values(), *graph.updates.values()}
    for node in list(graph):
        wants = node.op.name in CONVOLUTIONS or (_follows(node) and node.type.layout is not None)
        if not wants:
            continue
        operands = list(node.operands)
        for image in _image_operands(graph, node):
            few = node.op.name in CONVOLUTIONS and image.type.shape[1] <= few_channels
            if few or not _has_channels(image) or strides[image.id][1] in (0, 1):
                continue
            if image.id not in made:
                made[image.id] = _relayout(graph, image, channels_last(image.type.rank)).id
            operands = [made[image.id] if i == image.id else i for i in operands]
        if tuple(operands) != node.operands:
            graph.set_operands(node.id, operands)
    for value in sorted(results):
        if graph[value].type.layout is not None:
            _give_row_major(graph, value)


def _give_row_major(graph: Graph, value: int) -> None:
    """Let the signature mention a row-major copy of the value."""
    node = graph[value]
    plain = _relayout(graph, node, Layout(tuple((axis, 0) for axis in range(node.type.rank))))
    for path, output in list(graph.outputs.items()):
        if output == value:
            graph.set_output(path, plain.id)
    for state, new in list(graph.updates.items()):
        if new == value:
            graph.set_update(state, plain.id)


def _relayout(graph: Graph, node: Node, layout: Layout) -> Node:
    relayout = OPS["relayout"]
    return graph.add(relayout, RelayoutAttributes(layout), (node.id,), name=f"{node.name}_stored", provenance=node.provenance)
