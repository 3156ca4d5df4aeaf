"""Receptive fields: which elements of an input one element of an output can depend on, axis by axis.

Walking back from the output, every value carries one :class:`Span` an axis: the range of its elements that output element
``i`` reads, as an affine function of ``i``.  Each op maps the spans of its result to those of its operands; where several
readers meet, the union is taken.  Ops without a rule read everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from irconv.errors import GraphError
from irconv.graph import Graph, Node
from irconv.op import Fusion
from irconv.ops.resize_taps import nearest_rounding


@dataclass(frozen=True, slots=True)
class AxisField:
    """The receptive field along one axis of an input.

    size:   how many elements an output element sees (the most, where that depends on its place; padding included).
    jump:   how far the field moves from one output element to the next; 0 if all see the same.
    offset: where the field of output element 0 begins; negative inside padding.
    """

    size: int
    jump: Fraction
    offset: Fraction


@dataclass(frozen=True, slots=True)
class Span:
    """Output element i reads from ``start + step i`` to ``start + extent + step i``; only whole numbers in there count."""

    start: Fraction
    extent: Fraction
    step: Fraction


Spans = tuple[Span, ...]
Rule = Callable[[Node, int, tuple[Node, ...], Spans], Spans]


def receptive_field(graph: Graph, output_name: str, input_name: str | None = None) -> dict[str, tuple[AxisField, ...]]:
    """By input name, the field of each spatial axis (those after batch and channels; all axes of a value of lower rank).

    output_name: path of an output, or the name of a value.
    input_name:  a single value to ask for, any value of the graph; None: all inputs of the graph that the output reads.

    Raises GraphError for names that do not exist.
    """
    output = graph[graph.outputs[output_name]] if output_name in graph.outputs else graph[output_name]
    wanted = [graph[input_name].id] if input_name is not None else graph.inputs
    spans: dict[int, Spans] = {output.id: (Span(Fraction(0), Fraction(0), Fraction(1)),) * output.type.rank}
    for node_id in reversed(graph.order()):
        if node_id not in spans:
            continue
        node = graph[node_id]
        operands = graph.operands(node)
        for slot, operand in enumerate(operands):
            found = _rule(node)(node, slot, operands, spans[node_id])
            before = spans.get(operand.id)
            spans[operand.id] = found if before is None else _union(operand, before, found)
    if input_name is not None and wanted[0] not in spans:
        raise GraphError(f"%{output.name} does not depend on %{input_name}")
    return {graph[i].name: _fields(spans[i]) for i in wanted if i in spans}


def _fields(spans: Spans) -> tuple[AxisField, ...]:
    spatial = spans[2:] if len(spans) > 2 else spans
    return tuple(AxisField(math.floor(s.extent) + 1, s.step, s.start) for s in spatial)


def _rule(node: Node) -> Rule:
    return RULES.get(node.op.name) or (_elementwise if node.op.fusion is Fusion.ELEMENTWISE else _everything)


# --- spans -----------------------------------------------------------------------------------------------------------------


def _all(size: int) -> Span:
    return Span(Fraction(0), Fraction(max(size - 1, 0)), Fraction(0))


def _read(span: Span, scale: Fraction | int, low: Fraction | int, high: Fraction | int) -> Span:
    """The span of an operand axis of which result element r reads from ``scale r + low`` to ``scale r + high``; scale > 0."""
    return Span(span.start * scale + low, span.extent * scale + (high - low), span.step * scale)


def _union(node: Node, first: Spans, second: Spans) -> Spans:
    def join(a: Span, b: Span, size: int) -> Span:
        if a.step != b.step:
            return _all(size)  # ranges that move at different speeds: together they may be anywhere
        start = min(a.start, b.start)
        return Span(start, max(a.start + a.extent, b.start + b.extent) - start, a.step)

    return tuple(join(a, b, n) for a, b, n in zip(first, second, node.type.shape, strict=True))


# --- rules -----------------------------------------------------------------------------------------------------------------


def _everything(node: Node, slot: int, operands: tuple[Node, ...], spans: Spans) -> Spans:
    return tuple(_all(n) for n in operands[slot].type.shape)


def _elementwise(node: Node, slot: int, operands: tuple[Node, ...], spans: Spans) -> Spans:
    """Axes are aligned at the end; one that is repeated, or does not fit, is read whole."""
    shape, result = operands[slot].type.shape, node.type.shape
    first = len(result) - len(shape)
    if first < 0:
        return _everything(node, slot, operands, spans)
    return tuple(spans[first + a] if n == result[first + a] else _all(n) for a, n in enumerate(shape))


def _windows(kernel: tuple[int, ...], attributes: Any, operand: Node, spans: Spans) -> Spans:
    windows = zip(spans[2:], kernel, attributes.stride, attributes.dilation, attributes.padding, strict=True)
    return tuple(_read(span, s, -before, d * (k - 1) - before) for span, k, s, d, (before, _) in windows)


def _conv(node: Node, slot: int, operands: tuple[Node, ...], spans: Spans) -> Spans:
    if slot != 0:
        return _everything(node, slot, operands, spans)
    channels = _all(operands[0].type.shape[1])
    return (spans[0], channels, *_windows(operands[1].type.shape[2:], node.attributes, operands[0], spans))


def _pool(node: Node, slot: int, operands: tuple[Node, ...], spans: Spans) -> Spans:
    return (*spans[:2], *_windows(node.attributes.kernel, node.attributes, operands[0], spans))


def _conv_transpose(node: Node, slot: int, operands: tuple[Node, ...], spans: Spans) -> Spans:
    """Result element r gets a contribution from i where i stride + tap dilation = r + before."""
    if slot != 0:
        return _everything(node, slot, operands, spans)
    a = node.attributes
    axes = zip(spans[2:], operands[1].type.shape[2:], a.stride, a.dilation, a.padding, strict=True)
    spatial = [_read(span, Fraction(1, s), Fraction(b - d * (k - 1), s), Fraction(b, s)) for span, k, s, d, b in axes]
    return (spans[0], _all(operands[0].type.shape[1]), *spatial)


def _resize(node: Node, slot: int, operands: tuple[Node, ...], spans: Spans) -> Spans:
    a = node.attributes
    shape, first = node.type.shape, node.type.rank - len(a.size)
    found = list(spans)
    if a.antialias or a.mode == "cubic" or a.coordinates not in ("half_pixel", "align_corners", "asymmetric"):
        return (*spans[:first], *map(_all, operands[0].type.shape[first:]))
    for k, axis in enumerate(range(first, len(shape))):
        n, m = operands[0].type.shape[axis], shape[axis]
        scale, shift = Fraction(n, m), Fraction(0)
        if a.coordinates == "align_corners":
            width = Fraction(m) if a.scales is None else Fraction(a.scales[k]).limit_denominator(2**20) * n
            scale = Fraction(0) if m == 1 or width == 1 else (n - 1) / (width - 1)
        elif a.scales is not None:
            scale = 1 / Fraction(a.scales[k]).limit_denominator(2**20)
        if a.coordinates == "half_pixel":
            shift = (scale - 1) / 2
        rounding = nearest_rounding(a) if a.mode == "nearest" else ""
        shift += {"round_prefer_ceil": Fraction(1, 2), "round_prefer_floor": Fraction(-1, 2)}.get(rounding, Fraction(0))
        # rounding down or up moves a position by less than one step of its grid short of 1
        grid = math.lcm(scale.denominator, shift.denominator)
        slack = Fraction(grid - 1, grid)
        below = 0 if rounding in ("ceil", "round_prefer_floor") else slack
        above = 0 if rounding in ("floor", "round_prefer_ceil") else slack
        found[axis] = _read(spans[axis], scale, shift - below, shift + above)
    return tuple(found)


def _pad(node: Node, slot: int, operands: tuple[Node, ...], spans: Spans) -> Spans:
    return tuple(_read(span, 1, -before, -before) for span, (before, _) in zip(spans, node.attributes.padding, strict=True))


def _slice(node: Node, slot: int, operands: tuple[Node, ...], spans: Spans) -> Spans:
    a = node.attributes
    return tuple(_read(span, step, start, start) for span, start, step in zip(spans, a.start, a.step, strict=True))


def _embed(node: Node, slot: int, operands: tuple[Node, ...], spans: Spans) -> Spans:
    """The inverse of a slice; slice_update also reads all of its first operand in place."""
    if node.op.name == "slice_update" and slot == 0:
        return spans
    a = node.attributes
    places = [(Fraction(-start, step), Fraction(1, step)) for start, step in zip(a.start, a.step, strict=True)]
    return tuple(_read(span, scale, low, low) for span, (low, scale) in zip(spans, places, strict=True))


def _flip(node: Node, slot: int, operands: tuple[Node, ...], spans: Spans) -> Spans:
    found = list(spans)
    for axis in node.attributes.axes:
        span = spans[axis]
        found[axis] = Span(node.type.shape[axis] - 1 - span.start - span.extent, span.extent, -span.step)
    return tuple(found)


def _transpose(node: Node, slot: int, operands: tuple[Node, ...], spans: Spans) -> Spans:
    order = node.attributes.axes
    return tuple(spans[order.index(axis)] for axis in range(len(order)))


def _reshape(node: Node, slot: int, operands: tuple[Node, ...], spans: Spans) -> Spans:
    """An axis that stays (same size, as many elements before it) keeps its span; others are read whole."""
    result, shape = node.type.shape, operands[0].type.shape
    kept = {(math.prod(result[:r]), n): spans[r] for r, n in enumerate(result) if n > 1}
    return tuple(kept.get((math.prod(shape[:axis]), n)) or _all(n) for axis, n in enumerate(shape))


def _concat(node: Node, slot: int, operands: tuple[Node, ...], spans: Spans) -> Spans:
    axis = node.attributes.axis
    before = sum(operand.type.shape[axis] for operand in operands[:slot])
    return tuple(_read(span, 1, -before, -before) if a == axis else span for a, span in enumerate(spans))


def _reduce(node: Node, slot: int, operands: tuple[Node, ...], spans: Spans) -> Spans:
    a, shape = node.attributes, operands[0].type.shape
    kept = iter(span for axis, span in enumerate(spans) if not (a.keepdims and axis in a.axes))
    return tuple(_all(n) if axis in a.axes else next(kept) for axis, n in enumerate(shape))


def _matmul(node: Node, slot: int, operands: tuple[Node, ...], spans: Spans) -> Spans:
    shape, result = operands[slot].type.shape, node.type.shape
    first = len(result) - len(shape)
    batch = [spans[first + a] if n == result[first + a] else _all(n) for a, n in enumerate(shape[:-2])]
    return (*batch, spans[-2], _all(shape[-1])) if slot == 0 else (*batch, _all(shape[-2]), spans[-1])


RULES: dict[str, Rule] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    **dict.fromkeys(("max_pool", "min_pool", "avg_pool", "argmax_pool", "argmin_pool"), _pool),
    "resize": _resize,
    "pad": _pad,
    "slice": _slice,
    "embed": _embed,
    "slice_update": _embed,
    "flip": _flip,
    "transpose": _transpose,
    "reshape": _reshape,
    "broadcast": _elementwise,
    "concat": _concat,
    **dict.fromkeys(("sum", "mean", "max", "min", "prod", "argmax", "argmin"), _reduce),
    "matmul": _matmul,
}
"""Which elements an op reads, by op name; elementwise ops need no entry."""
