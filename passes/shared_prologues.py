"""Values that all their readers can compute on the way, and that are therefore stored nowhere.

Batch norm with its activation turns a convolution's result E, which training has to keep, into the value that the next
convolution reads, and in the backward pass the gradient of its weight.  As a kernel of its own that work reads E and writes as
much, and both readers read that.  Where each of them can compute the elements it reads, about once each (see
:func:`irconv.passes.prologues.takes_prologue`), every one gets the work for itself: E is read instead, and nothing is written.

A value is given to its readers so if

- all of them can compute it: as soon as one has to find it in memory, the others had better read it there;
- light ops make it from one value of its size, and from what is the same for all pixels of a channel;
- that one is stored anyway: it is no elementwise work itself, and others read it too.
"""

from __future__ import annotations

from irconv import cost
from irconv.graph import Graph, Node
from irconv.op import Fusion
from irconv.passes.depthwise_backward import takes_input
from irconv.passes.patterns import is_by_channel
from irconv.passes.pointwise_gradients import takes_work
from irconv.passes.postpone import copy_work
from irconv.passes.prologues import MOST_OPS, takes_prologue


def give_to_readers(graph: Graph, results: set[int]) -> bool:
    """Give each reader its own copy of such work.  ``results``: values that have to be stored."""
    changed = False
    for node_id in graph.order():
        value = graph[node_id]
        if value.op.name not in cost.LIGHT or node_id in results or value.type.size == 0 or value.type.rank < 3:
            continue
        readers = {user.id for user, _ in graph.users(node_id)}
        if len(readers) < 2 or not all(_takes(graph, value, graph[i]) for i in readers):
            continue
        nodes = _work(graph, value, results)
        if nodes:
            _, *others = sorted(readers, key=lambda i: (graph[i].provenance.origin is not None, i))
            for reader in others:
                copy_work(graph, value, nodes, [reader])
            changed = True
    return changed


def _takes(graph: Graph, value: Node, reader: Node) -> bool:
    """Whether the kernel of ``reader`` can compute the value."""
    if reader.op.name == "im2col":
        return takes_input(graph, reader) or takes_work(graph, reader)
    return takes_prologue(graph, value, reader)


def _work(graph: Graph, value: Node, results: set[int]) -> tuple[int, ...]:
    """The ops that make the value, in topological order; none if they are too many, or nothing they are made of is stored."""
    nodes = [value.id]
    sources: set[int] = set()
    waiting = list(value.operands)
    while waiting:
        node = graph[waiting.pop()]
        if node.id in nodes or node.id in sources or _is_by_channel(node, value):
            continue
        own = node.id not in results and {user.id for user, _ in graph.users(node.id)}.issubset(nodes)
        if own and node.op.name in cost.LIGHT and node.type == value.type:
            nodes.append(node.id)
            waiting += node.operands
        else:
            sources.add(node.id)
    if len(nodes) > MOST_OPS or len(sources) != 1:
        return ()
    (source,) = (graph[i] for i in sources)
    return tuple(reversed(nodes)) if source.type == value.type and _is_stored(graph, source, set(nodes), results) else ()


def _is_by_channel(node: Node, like: Node) -> bool:
    """Whether a value is one number, or has one for each channel of images."""
    return node.type.dtype is like.type.dtype and is_by_channel(node.type.shape, like.type.shape)


def _is_stored(graph: Graph, source: Node, nodes: set[int], results: set[int]) -> bool:
    """Whether a value is in memory even where nobody reads it for this work."""
    if source.is_leaf or source.id in results:
        return True
    return source.op.fusion is not Fusion.ELEMENTWISE and any(user.id not in nodes for user, _ in graph.users(source.id))
