"""Postponed work: a gradient's mask is taken where the gradient is read, not where it is made.

Behind a convolution, batch norm and an activation, the backward pass computes ``d = where(mask, g, 0)`` from the gradient
``g`` that the next convolution hands back.  Batch norm's backward reads d twice, for its two sums and for the gradient of its
own input, each time with the convolution's result x.  The mask follows from x by a few instructions, the same that the forward
pass used.  So each reader can compute d from g and x: g is stored in place of d, no mask is stored, and nothing else is read.

Of relu6, two masks of a byte per element are neither written nor read; of relu, its output is not read with g.

A value d is computed by its readers if

- they are reductions over the same axes, or elementwise work that ends in such, and one further elementwise op;
- both sides read a stored value x of d's size anyway;
- d is computed by cheap elementwise ops from x, one other value g, and small values;
- g is no elementwise result, and nobody else reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from irconv.batches import has_no_batch
from irconv.graph import Graph, Node
from irconv.op import Fusion

CHEAP = frozenset(
    {
        *("add", "subtract", "multiply", "negative", "square", "absolute"),
        *("relu", "minimum", "maximum", "clip", "where"),
        *("greater", "greater_equal", "less", "less_equal", "logical_and", "logical_or", "logical_not"),
    }
)
"""Ops of an instruction or two on every machine."""

MOST_OPS = 12
"""Ops that are computed once more for each side."""

MOST_STEPS = 5
"""Elementwise ops between d and a reduction, or between a reader and the x that it needs."""

SMALL = 4
"""A value counts as small if it is smaller than another by this ratio (see :func:`is_small`)."""

REDUCTIONS = frozenset({"sum", "mean", "max", "min", "prod"})

OwnView = Callable[[Node], int]


@dataclass(frozen=True)
class _Recipe:
    """How to compute a value: ops in topological order, and the stored values that they read."""

    nodes: tuple[int, ...]
    sources: frozenset[int]


def postpone(graph: Graph, results: set[int]) -> bool:
    """Let the readers of masked gradients compute them.  ``results``: values that have to be stored."""
    changed = False
    for node_id in reversed(graph.order()):
        if node_id not in graph:
            continue  # it fell away with a later one
        node = graph[node_id]
        if node.op.name not in CHEAP or node_id in results or node.provenance.origin is None or node.type.size == 0:
            continue
        sides = _sides(graph, node)
        recipe = None if sides is None else _recipe(graph, node, _near(graph, node, sides[0]) & _near(graph, node, sides[1]))
        if sides is not None and recipe is not None:
            for side in sides:
                copy_work(graph, node, recipe.nodes, side)
            _remove_unread(graph, recipe, results)
            changed = True
    return changed


def is_small(graph: Graph, value: Node, like: Node) -> bool:
    """Whether a value is one for the whole batch, or smaller than another by this ratio for each sample.

    How large the batch is must not matter: the code for one batch serves all others.
    """
    shape, other = value.type.shape, like.type.shape
    if not other:
        return False
    if len(shape) < len(other) or (shape[0] == 1 and (other[0] != 1 or has_no_batch(graph, value))):
        return True
    return math.prod(shape[1:]) * SMALL <= math.prod(other[1:])


def _is_full(node: Node, like: Node) -> bool:
    return node.type.shape == like.type.shape


def _is_elementwise(node: Node, like: Node) -> bool:
    return node.op.fusion is Fusion.ELEMENTWISE and _is_full(node, like)


def _readers(graph: Graph, node_id: int) -> list[int]:
    return sorted({user.id for user, _ in graph.users(node_id)})


def _sides(graph: Graph, node: Node) -> tuple[list[int], list[int]] | None:
    """The readers that end in reductions, and the one other; None if there are others than these."""
    readers = _readers(graph, node.id)
    axes = {i: _axes_of_reduction(graph, graph[i], node) for i in readers}
    folding = [i for i in readers if axes[i] is not None]
    rest = [i for i in readers if axes[i] is None]
    together = len({axes[i] for i in folding}) == 1
    fitting = len(rest) == 1 and _is_elementwise(graph[rest[0]], node)
    return (folding, rest) if together and fitting else None


def _axes_of_reduction(graph: Graph, reader: Node, like: Node) -> tuple[int, ...] | None:
    """The axes of the reduction that a reader is, or ends in; None if there is none."""
    for _ in range(MOST_STEPS):
        if reader.op.name in REDUCTIONS:
            axes: tuple[int, ...] = reader.attributes.axes
            return axes
        users = _readers(graph, reader.id)
        if len(users) != 1 or not _is_elementwise(reader, like):
            return None
        reader = graph[users[0]]
    return None


def _near(graph: Graph, node: Node, readers: list[int]) -> set[int]:
    """Values of full size that kernels around these readers load: no elementwise results, and none that needs the node."""
    found: set[int] = set()
    for reader in readers:
        current = graph[reader]
        last = node.id
        for _ in range(MOST_STEPS):
            if not _is_elementwise(current, node):
                break
            for operand in current.operands:
                if operand != last:
                    found |= _loaded(graph, graph[operand], node, MOST_STEPS)
            users = _readers(graph, current.id)
            if len(users) != 1:
                break
            last, current = current.id, graph[users[0]]
    return found


def _loaded(graph: Graph, value: Node, like: Node, steps: int) -> set[int]:
    """The stored values of full size that a value is computed from, elementwise."""
    if not _is_full(value, like) or value.id == like.id or steps == 0:
        return set()
    if not _is_elementwise(value, like) or _is_folded_ahead(graph, value):
        return {value.id}
    return {i for operand in graph.operands(value) for i in _loaded(graph, operand, like, steps - 1)}


def _is_folded_ahead(graph: Graph, value: Node) -> bool:
    """Whether the forward pass reduces it and it follows a convolution, which has a bias then: so it is what is stored."""
    if not any(_is_full(o, value) and o.op.name in ("conv", "conv_transpose", "matmul") for o in graph.operands(value)):
        return False
    users = (user for user, _ in graph.users(value.id))
    return any(user.op.name in REDUCTIONS and user.provenance.origin is None for user in users)


def _recipe(graph: Graph, node: Node, near: set[int]) -> _Recipe | None:
    """How to compute the node from values near its readers and one that only it needs; None if that takes more."""
    if not near:
        return None
    nodes: list[int] = []
    seen: set[int] = set()
    sources: set[int] = set()

    def visit(value: Node) -> bool:
        if value.id in seen or is_small(graph, value, node):
            return True
        seen.add(value.id)
        if value.id in near or not _is_elementwise(value, node):
            sources.add(value.id)
            return _is_full(value, node)
        if value.op.name not in CHEAP or not all(visit(operand) for operand in graph.operands(value)):
            return False
        nodes.append(value.id)
        return len(nodes) <= MOST_OPS

    if not visit(node):
        return None
    others = sources - near
    own = set(nodes)
    if len(others) != 1 or not sources & near:
        return None
    (gradient,) = others
    alone = graph[gradient].is_leaf or own.issuperset(_readers(graph, gradient))
    return _Recipe(tuple(nodes), frozenset(sources)) if alone and not graph[gradient].is_leaf else None


def copy_work(graph: Graph, node: Node, nodes: Sequence[int], readers: Sequence[int]) -> None:
    """Give these readers a copy of the node, and of the ops that make it: ``nodes``, in topological order, the node last."""
    provenance = graph[readers[0]].provenance
    copies: dict[int, int] = {}
    for value in (graph[i] for i in nodes):
        operands = [copies.get(o.id) or own_view(graph, o, readers[0]) for o in graph.operands(value)]
        copy = graph.add(value.op, value.attributes, operands, name=f"{value.name}_again", provenance=provenance)
        if value.type.layout is not None:
            graph.set_layout(copy.id, value.type.layout)
        copies[value.id] = copy.id
    for reader in readers:
        graph.set_operands(reader, [copies[i] if i == node.id else i for i in graph[reader].operands])


def own_view(graph: Graph, operand: Node, reader: int) -> int:
    """The operand, or another view of what it shows: a view that only one op reads can go into that op's kernel."""
    if operand.op.fusion is not Fusion.VIEW:
        return operand.id
    provenance = graph[reader].provenance
    return graph.add(operand.op, operand.attributes, operand.operands, name=operand.name, provenance=provenance).id


def _remove_unread(graph: Graph, recipe: _Recipe, results: set[int]) -> None:
    """Take out the values of a recipe that nobody reads any more."""
    for node_id in reversed(recipe.nodes):
        if graph.use_count(node_id) == 0 and node_id not in results:
            graph.remove(node_id)
