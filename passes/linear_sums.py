"""Sums over values that are linear in others whose sums are known already.

The gradient of batch normalisation by the mean sums  -(d s + 2 c (x - mean(x)))  over a channel, s and c being one number per
channel.  Where sum(d) is computed anyway, that is  -s sum(d):  deviations from the mean add up to zero.  So a pass over the
whole value becomes arithmetic on one number per channel.

    sum(-x) = -sum(x),  sum(x + y) = sum(x) + sum(y),  sum(x s) = s sum(x)  for s constant along the summed axes,
    sum(x - mean(x)) = 0  over the same axes

What a max pool sends back keeps its sum, wherever it goes to: sum(window_scatter(d, t)) over all places = sum(d).  All taps of
windows without padding are inside.

Likewise a number that multiplies a whole value moves to a smaller factor:  (x c) s = x (s c).

This changes rounding, so it is not done for a strict precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from irconv.graph import Graph, Node
from irconv.op import Value
from irconv.ops.elementwise import add, multiply, negative
from irconv.ops.reduce import reduce_sum, reduced_shape
from irconv.ops.shape import reshape
from irconv.passes.base import Note, Pass, register_pass
from irconv.passes.rewrite import Match, Rewriter, Rule, any_operands, apply_rules

DEPTH = 6
"""How many ops down a sum is followed."""

Axes = tuple[int, ...]


@dataclass(frozen=True)
class Term:
    """A value times factors that are constant along the summed axes, and a sign."""

    base: Node
    factors: tuple[Node, ...] = ()
    negated: bool = False


def _terms(graph: Graph, value: Node, axes: Axes, depth: int = DEPTH) -> Iterator[Term]:
    """What a value is the sum of."""
    operands = graph.operands(value)
    name = value.op.name if depth else ""
    if name == "negative":
        for term in _terms(graph, operands[0], axes, depth - 1):
            yield Term(term.base, term.factors, not term.negated)
        return
    if name in ("add", "subtract") and all(o.type == value.type for o in operands) and not _centred(graph, value, axes):
        yield from _terms(graph, operands[0], axes, depth - 1)
        for term in _terms(graph, operands[1], axes, depth - 1):
            yield Term(term.base, term.factors, term.negated is (name == "add"))
        return
    if name == "multiply":
        for x, factor in (operands, operands[::-1]):
            if x.type == value.type and _is_factor(value, factor, axes):
                for term in _terms(graph, x, axes, depth - 1):
                    yield Term(term.base, (*term.factors, factor), term.negated)
                return
    yield Term(value)


def _is_factor(value: Node, factor: Node, axes: Axes) -> bool:
    """Whether an operand is the same all along the summed axes of the value."""
    lead = value.type.rank - factor.type.rank
    return all(axis < lead or factor.type.shape[axis - lead] == 1 for axis in axes)


def _centred(graph: Graph, value: Node, axes: Axes) -> bool:
    """Whether a value is x - mean(x) over these axes."""
    if value.op.name != "subtract":
        return False
    x, mean = graph.operands(value)
    if mean.op.name == "reshape":
        mean = graph.operands(mean)[0]
    if mean.op.name != "mean" or mean.operands != (x.id,) or mean.attributes.axes != axes:
        return False
    # the mean stands where the axes were
    return graph[value.operands[1]].type.shape == reduced_shape(x.type.shape, axes, True)


def _sum_of(graph: Graph, base: Node, root: Node) -> Node | None:
    """A sum of a value that is computed anyway, over the same axes and with a result of the same shape."""
    same = (user for user, _ in graph.users(base.id) if user.op.name == "sum" and user.attributes == root.attributes)
    return next((user for user in same if user.id != root.id), None)


def _left(graph: Graph, root: Node) -> list[Term]:
    """The terms of a sum that do not vanish."""
    axes = root.attributes.axes
    terms = _terms(graph, graph.operands(root)[0], axes)
    return [term for term in terms if not _centred(graph, term.base, axes)]


def _is_known(graph: Graph, root: Node) -> bool:
    """Whether the sum follows from sums that are computed anyway."""
    value = graph.operands(root)[0]
    if not value.type.dtype.is_float or not value.type.size:
        return False
    terms = _left(graph, root)
    return 0 < len(terms) <= DEPTH and all(t.base.id != value.id and _sum_of(graph, t.base, root) for t in terms)


def _rewrite(b: Rewriter, found: Match) -> Value:
    graph, root = found.graph, found.root
    axes, keepdims = root.attributes.axes, root.attributes.keepdims
    total: Value | None = None
    for term in _left(graph, root):
        known = _sum_of(graph, term.base, root)
        assert known is not None
        part: Value = b.wrap(known)
        for factor in term.factors:
            padded = (1,) * (term.base.type.rank - factor.type.rank) + factor.type.shape
            part = multiply(part, reshape(b.wrap(factor), reduced_shape(padded, axes, keepdims)))
        part = negative(part) if term.negated else part
        total = part if total is None else add(total, part)
    assert total is not None
    return total


def _scaled(graph: Graph, root: Node) -> tuple[Node, Node, Node] | None:
    """x, c and s of a product (x c) s with a number c and s smaller than x, where nobody else reads x c."""
    for scaled, factor in (graph.operands(root), graph.operands(root)[::-1]):
        if scaled.op.name != "multiply" or scaled.type != root.type or graph.use_count(scaled.id) != 1:
            continue
        for x, number in (graph.operands(scaled), graph.operands(scaled)[::-1]):
            if number.op.name == "constant" and number.type.size == 1 < factor.type.size < x.type.size:
                return x, number, factor
    return None


def _is_scaled(graph: Graph, root: Node) -> bool:
    return root.type.dtype.is_float and _scaled(graph, root) is not None


def _move_number(b: Rewriter, found: Match) -> Value:
    parts = _scaled(found.graph, found.root)
    assert parts is not None
    x, number, factor = (b.wrap(node) for node in parts)
    return multiply(x, multiply(factor, number))


def _sums_scatter(graph: Graph, root: Node) -> bool:
    """Whether all places of a scatter to the winning taps of unpadded windows are summed."""
    (scatter,) = graph.operands(root)
    if scatter.op.name != "window_scatter" or not scatter.type.dtype.is_float:
        return False
    a, taps = scatter.attributes, graph[scatter.operands[1]]
    spatial = set(range(2, scatter.type.rank))
    if a.ceil_mode or any(map(any, a.padding)) or not spatial <= set(root.attributes.axes):
        return False
    return taps.op.name in ("argmax_pool", "argmin_pool") and taps.attributes.kernel == a.kernel


def _sum_windows(b: Rewriter, found: Match) -> Value:
    (scatter,) = found.graph.operands(found.root)
    return reduce_sum(b.wrap(found.graph[scatter.operands[0]]), found.root.attributes.axes, found.root.attributes.keepdims)


RULES = (
    Rule("sum-of-scatter", any_operands("sum", _sums_scatter), _sum_windows),
    Rule("linear-sum", any_operands("sum", _is_known), _rewrite),
    Rule("small-factor", any_operands("multiply", _is_scaled), _move_number),
)


@register_pass
@dataclass(frozen=True)
class LinearSums(Pass):
    """Compute sums from other sums where they are linear in them."""

    name: ClassVar[str] = "linear_sums"

    def run(self, graph: Graph, notes: list[Note] | None = None) -> bool:
        return apply_rules(graph, RULES, notes)
