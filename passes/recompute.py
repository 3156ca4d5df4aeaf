"""Recompute: cheap values per reader instead of stored ones.

A value that several kernels read is written once and read by each.  Where it is one cheap step from a value that is stored
anyway, every reader can take that step itself: as many bytes are read, none are written, and nothing is kept from the
forward pass to the backward one in its place.  Batch norm's centred input ``x - mean`` is the case that matters: the variance,
the normalisation and the backward pass all read it, and ``x``, a convolution's result, has to be stored for its mean.

A value v = op(x, small...) is copied for each of its readers if

- op is elementwise and takes a few instructions at most (no exp, no division);
- x has v's shape and element type, all other operands are small beside it;
- x is stored whatever happens: a leaf, a result, or read by an op that is not elementwise;
- v is no result itself and has several readers, all of them elementwise, or reductions.

What light ops make of a stored value, in several steps, is given to its readers too where the kernels of all of them compute
what they read: see :mod:`irconv.passes.shared_prologues`.

The columns of a weight gradient, which several convolutions of one input share, are given to each gradient: a kernel that
makes its own need not store them.  Masked gradients are computed by their readers too, from the unmasked one: see
:mod:`irconv.passes.postpone`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from irconv.graph import Graph, Node
from irconv.op import Fusion
from irconv.passes.base import Note, Pass, register_pass
from irconv.passes.postpone import is_small, own_view, postpone
from irconv.passes.shared_prologues import give_to_readers

CHEAP = frozenset({"add", "subtract", "multiply", "negative", "relu", "square", "absolute", "minimum", "maximum", "clip"})


@register_pass
@dataclass(frozen=True)
class Recompute(Pass):
    """Give each reader of a cheap value a copy of the op that makes it."""

    name: ClassVar[str] = "recompute"

    def run(self, graph: Graph, notes: list[Note] | None = None) -> bool:
        results = {*graph.outputs.values(), *graph.updates.values()}
        changed = False
        for node_id in graph.order():
            node = graph[node_id]
            if node.op.name not in CHEAP or node_id in results or node.type.size == 0:
                continue
            source = _source(graph, node)
            if source is not None and _is_stored(graph, source, results) and _is_split(graph, node):
                _copy_for_readers(graph, node)
                changed = True
        changed |= postpone(graph, results)
        changed |= _own_columns(graph, results)
        return give_to_readers(graph, results) or changed


def _source(graph: Graph, node: Node) -> Node | None:
    """The operand of full size, if there is one and the others are small."""
    large = [o for o in graph.operands(node) if not is_small(graph, o, node)]
    return large[0] if len(large) == 1 and large[0].type.logical == node.type.logical else None


def _is_stored(graph: Graph, source: Node, results: set[int]) -> bool:
    if source.is_leaf or source.id in results:
        return True
    return any(user.op.fusion is not Fusion.ELEMENTWISE for user, _ in graph.users(source.id))


def _is_split(graph: Graph, node: Node) -> bool:
    """Whether several readers could each take the step themselves."""
    users = {user.id: user for user, _ in graph.users(node.id)}.values()
    fitting = all(user.op.fusion in (Fusion.ELEMENTWISE, Fusion.REDUCTION) for user in users)
    return len(users) > 1 and fitting


def _copy_for_readers(graph: Graph, node: Node) -> None:
    """The first reader keeps the node, every other one gets a copy."""
    readers = sorted({user.id for user, _ in graph.users(node.id)})
    for reader_id in readers[1:]:
        # a copy belongs where it is read: a backward one must not tie forward kernels to backward ones
        provenance = graph[reader_id].provenance
        operands = [own_view(graph, operand, reader_id) for operand in graph.operands(node)]
        copy = graph.add(node.op, node.attributes, operands, name=f"{node.name}_again", provenance=provenance)
        if node.type.layout is not None:
            graph.set_layout(copy.id, node.type.layout)
        rewired = [copy.id if i == node.id else i for i in graph[reader_id].operands]
        graph.set_operands(reader_id, rewired)


def _own_columns(graph: Graph, results: set[int]) -> bool:
    """Give each product its own im2col."""
    changed = False
    for node_id in graph.order():
        node = graph[node_id]
        readers = sorted({user.id for user, _ in graph.users(node_id)})
        if node.op.name != "im2col" or node_id in results or any(graph[i].op.name != "matmul" for i in readers):
            continue
        for reader_id in readers[1:]:
            provenance = graph[reader_id].provenance
            copy = graph.add(node.op, node.attributes, node.operands, name=f"{node.name}_again", provenance=provenance)
            graph.set_operands(reader_id, [copy.id if i == node_id else i for i in graph[reader_id].operands])
            changed = True
    return changed
