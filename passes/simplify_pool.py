"""The rules of :mod:`irconv.passes.simplify` for the way back through a max pool.

With p = max_pool(r) and t = argmax_pool(r) of the same windows (or the smallest elements), window_scatter(d, t) differs from 0
only where r is the p of the windows that add to it.  So what is asked of r at such a place can be asked of p, window by window::

    where(r > c, window_scatter(d, t), 0) = window_scatter(where(p > c, d, 0), t)

Not a bit changes: each window's d either counts at its place or not, whatever the others do; comparisons do not tell -0.0 from
0.0, and of NaN both sides ask the same, because the first NaN of a window is its p.  Windows in the padding alone add nothing.
The mask is as small as the pooled value, and r need not be kept for the backward pass.

The gradient of a clip (relu6, hardtanh) asks of x rather than of r = clip(x, a, b), a < b, where x >= b is r >= b and x <= a is
r <= a.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irconv.graph import Graph, Node
from irconv.op import Value, emit
from irconv.ops.elementwise import where
from irconv.ops.pool_taps import PoolAttributes, window_scatter
from irconv.passes.rewrite import Match, Rewriter, Rule, any_operands

COMPARISONS = ("greater", "greater_equal", "less", "less_equal", "equal", "not_equal")
POOL_OF = {"argmax_pool": "max_pool", "argmin_pool": "min_pool"}
"""The pool whose winning taps an op gives."""

BOUNDS = {"greater_equal": "maximum", "less_equal": "minimum"}
"""The bound of a clip that a comparison of its operand may be with."""


@dataclass(frozen=True)
class _Masked:
    """``where(comparison, ...)`` of a scatter and zeros.

    position: the comparison's operand that is asked about; ``pooled``: what to ask instead.
    kept:     whether d counts where the comparison holds, rather than where it does not.
    """

    comparison: Node
    position: int
    pooled: Node
    scatter: Node
    zero: Node
    kept: bool


def _masked(graph: Graph, root: Node) -> _Masked | None:
    """What a ``where`` is made of, if it is of that kind."""
    comparison, yes, no = graph.operands(root)
    if comparison.op.name not in COMPARISONS:
        return None
    for scatter, zero, kept in ((yes, no, True), (no, yes, False)):
        if scatter.op.name != "window_scatter" or not _is_zero(zero) or scatter.type != root.type:
            continue
        taps = graph[scatter.operands[1]]
        is_read = graph.use_count(scatter.id) != 1 or scatter.id in graph.wanted()
        if is_read or taps.op.name not in POOL_OF:
            continue
        pooled = _pooled(graph, taps, scatter)
        position = None if pooled is None else _asked(graph, comparison, graph[taps.operands[0]])
        if pooled is not None and position is not None:
            return _Masked(comparison, position, pooled, scatter, zero, kept)
    return None


def _is_zero(node: Node) -> bool:
    """Whether a value is the number 0.0, not -0.0."""
    if node.op.name != "constant" or node.type.size != 1:
        return False
    value = np.asarray(node.attributes.value)
    return not value.any() and not np.signbit(value).any()


def _windows(a: PoolAttributes) -> tuple[object, ...]:
    return a.kernel, a.stride, a.padding, a.dilation, a.ceil_mode


def _pooled(graph: Graph, taps: Node, scatter: Node) -> Node | None:
    """The pooled value whose winning taps are scattered over the windows they come from."""
    (x,) = graph.operands(taps)
    if x.type.shape != scatter.type.shape or _windows(taps.attributes) != _windows(scatter.attributes):
        return None
    users = (user for user, _ in graph.users(x.id) if user.op.name == POOL_OF[taps.op.name])
    return next((user for user in users if user.attributes == taps.attributes), None)


def _asked(graph: Graph, comparison: Node, x: Node) -> int | None:
    """Which operand of a comparison with a number is x, or says of x what it says of the value that x clips."""
    for position, other in ((0, 1), (1, 0)):
        value, number = (graph.operands(comparison)[at] for at in (position, other))
        if number.type.size != 1 or number.type.rank > x.type.rank or value.type != x.type:
            continue
        if value.id == x.id or (position == 0 and _is_clip_bound(comparison, value, number, x)):
            return position
    return None


def _is_clip_bound(comparison: Node, value: Node, number: Node, x: Node) -> bool:
    """Whether x clips the value at this number, from the side that is asked about."""
    if x.op.name != "clip" or x.operands != (value.id,) or number.op.name != "constant":
        return False
    bound = getattr(x.attributes, BOUNDS.get(comparison.op.name, ""), None)
    low, high = x.attributes.minimum, x.attributes.maximum
    if bound is None or (low is not None and high is not None and not low < high):
        return False
    return bool(np.asarray(number.attributes.value).item() == bound)


def _mask_windows(b: Rewriter, found: Match) -> Value:
    graph = found.graph
    masked = _masked(graph, found.root)
    assert masked is not None
    operands = [b.wrap(node) for node in graph.operands(masked.comparison)]
    operands[masked.position] = b.wrap(masked.pooled)
    holds = emit(masked.comparison.op, masked.comparison.attributes, *operands)
    d, taps = (b.wrap(node) for node in graph.operands(masked.scatter))
    zero = b.wrap(masked.zero)
    a = masked.scatter.attributes
    counted = where(holds, d, zero) if masked.kept else where(holds, zero, d)
    return window_scatter(counted, taps, a.size, a.kernel, a.stride, a.padding, a.dilation, a.ceil_mode)


def _masks_scatter(graph: Graph, node: Node) -> bool:
    return _masked(graph, node) is not None


POOLS = [Rule("mask-windows", any_operands("where", _masks_scatter), _mask_windows)]
