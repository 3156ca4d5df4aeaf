"""The rules of :mod:`irconv.passes.simplify` for shape ops, reductions and pools."""

from __future__ import annotations

import struct
from dataclasses import replace

from irconv.graph import Graph, Node
from irconv.op import Value, emit
from irconv.ops.elementwise import add
from irconv.ops.pad import pad
from irconv.ops.shape import broadcast, flip, reshape, slice_, transpose
from irconv.passes.rewrite import Capture, Match, Rewriter, Rule, any_operands, op

X = Capture("x")


def _operand(b: Rewriter, found: Match) -> Value:
    return b.value(found.root.operands[0])


# --- nothing to do ----------------------------------------------------------------------------------------------------


def _keeps_shape(graph: Graph, node: Node) -> bool:
    return graph.operands(node)[0].type == node.type


def _keeps_axes(graph: Graph, node: Node) -> bool:
    return list(node.attributes.axes) == sorted(node.attributes.axes)


def _flips_nothing(graph: Graph, node: Node) -> bool:
    return all(node.type.shape[axis] <= 1 for axis in node.attributes.axes)


def _pads_nothing(graph: Graph, node: Node) -> bool:
    return not any(map(any, node.attributes.padding))


def _has_one_operand(graph: Graph, node: Node) -> bool:
    return len(node.operands) == 1


NOTHING_TO_DO = [
    Rule("same-shape", any_operands(("reshape", "broadcast", "slice", "embed"), _keeps_shape), _operand),
    Rule("transpose-nothing", any_operands("transpose", _keeps_axes), _operand),
    Rule("flip-nothing", any_operands("flip", _flips_nothing), _operand),
    Rule("pad-nothing", any_operands("pad", _pads_nothing), _operand),
    Rule("concat-one", any_operands("concat", _has_one_operand), _operand),
]

# --- one after another ------------------------------------------------------------------------------------------------


def _transpose_once(b: Rewriter, found: Match) -> Value:
    inner = found["inner"].attributes.axes
    return transpose(b.wrap(found["x"]), [inner[axis] for axis in found.root.attributes.axes])


def _flip_once(b: Rewriter, found: Match) -> Value:
    once = set(found.root.attributes.axes) ^ set(found["inner"].attributes.axes)
    return flip(b.wrap(found["x"]), sorted(once))


def _slice_once(b: Rewriter, found: Match) -> Value:
    inner, outer = found["inner"].attributes, found.root.attributes
    start = [i + o * step for i, o, step in zip(inner.start, outer.start, inner.step, strict=True)]
    step = [i * o for i, o in zip(inner.step, outer.step, strict=True)]
    return _taken(b, found["x"], start, step, found.root.type.shape)


def _taken(b: Rewriter, x: Node, start: list[int], step: list[int], count: tuple[int, ...]) -> Value:
    """``count`` elements of x from ``start`` by ``step``."""
    stop = [first + (n - 1) * s + 1 if n else first for first, n, s in zip(start, count, step, strict=True)]
    return slice_(b.wrap(x), start, stop, step)


def _pad_once(b: Rewriter, found: Match) -> Value:
    pairs = zip(found["inner"].attributes.padding, found.root.attributes.padding, strict=True)
    both = [(before + more_before, after + more_after) for (before, after), (more_before, more_after) in pairs]
    return pad(b.wrap(found["x"]), both, "constant", found.root.attributes.value)


def _bits(number: float) -> bytes:
    return struct.pack("<d", number)  # tells 0.0 from -0.0


def _same_padding(found: Match) -> str | None:
    inner, outer = found["inner"].attributes, found.root.attributes
    if (inner.mode, outer.mode) != ("constant", "constant"):
        return f"modes are {inner.mode!r} and {outer.mode!r}; only padding with a constant adds up"
    if _bits(inner.value) != _bits(outer.value):
        return f"they fill with {inner.value} and {outer.value}"
    if min(amount for pair in (*inner.padding, *outer.padding) for amount in pair) < 0:
        return f"padding {list(inner.padding)} or {list(outer.padding)} crops"
    return None


ONE_AFTER_ANOTHER = [
    Rule(
        "reshape-of-reshape",
        op("reshape", op("reshape", X)),
        lambda b, found: reshape(b.wrap(found["x"]), found.root.type.shape),
    ),
    Rule(
        "broadcast-of-broadcast",
        op("broadcast", op("broadcast", X)),
        lambda b, found: broadcast(b.wrap(found["x"]), found.root.type.shape),
    ),
    Rule("transpose-of-transpose", op("transpose", op("transpose", X, name="inner")), _transpose_once),
    Rule("flip-of-flip", op("flip", op("flip", X, name="inner")), _flip_once),
    Rule("slice-of-slice", op("slice", op("slice", X, name="inner")), _slice_once),
    Rule("pad-of-pad", op("pad", op("pad", X, name="inner")), _pad_once, _same_padding),
]

# --- taking out what was just put in ----------------------------------------------------------------------------------


def _part_offsets(graph: Graph, node: Node) -> list[tuple[int, Node]]:
    """Where each operand of a concat starts."""
    axis, offset, parts = node.attributes.axis, 0, []
    for part in graph.operands(node):
        parts.append((offset, part))
        offset += part.type.shape[axis]
    return parts


def _chosen_part(found: Match) -> tuple[int, Node] | None:
    """The operand of the concat that holds all that the slice takes, and where it starts."""
    axis, bounds = found["inner"].attributes.axis, found.root.attributes
    for offset, part in _part_offsets(found.graph, found["inner"]):
        if offset <= bounds.start[axis] and bounds.stop[axis] <= offset + part.type.shape[axis]:
            return offset, part
    return None


def _within_one_part(found: Match) -> str | None:
    if _chosen_part(found) is not None:
        return None
    axis, bounds = found["inner"].attributes.axis, found.root.attributes
    sizes = [part.type.shape[axis] for _, part in _part_offsets(found.graph, found["inner"])]
    return f"{bounds.start[axis]}:{bounds.stop[axis]} of axis {axis} spans parts of sizes {sizes}"


def _slice_part(b: Rewriter, found: Match) -> Value:
    chosen = _chosen_part(found)
    assert chosen is not None
    offset, part = chosen
    bounds, axis = found.root.attributes, found["inner"].attributes.axis
    start = [n - offset * (i == axis) for i, n in enumerate(bounds.start)]
    return _taken(b, part, start, list(bounds.step), found.root.type.shape)


def _inside_padding(found: Match) -> str | None:
    padding, bounds = found["inner"].attributes.padding, found.root.attributes
    for axis, ((before, _), size) in enumerate(zip(padding, found["x"].type.shape, strict=True)):
        start, stop = bounds.start[axis], bounds.stop[axis]
        if start < before or stop > before + size:
            return f"{start}:{stop} of axis {axis} is not inside {before}:{before + size}, the unpadded elements"
    return None


def _slice_unpadded(b: Rewriter, found: Match) -> Value:
    padding, bounds = found["inner"].attributes.padding, found.root.attributes
    start = [n - before for n, (before, _) in zip(bounds.start, padding, strict=True)]
    return _taken(b, found["x"], start, list(bounds.step), found.root.type.shape)


def _same_positions(found: Match) -> str | None:
    inner, outer = found["inner"].attributes, found.root.attributes
    count, taken = found["x"].type.shape, found.root.type.shape
    steps_agree = all(n <= 1 or i == o for n, i, o in zip(count, inner.step, outer.step, strict=True))
    if count == taken and inner.start == outer.start and steps_agree:
        return None
    return (
        f"takes {list(taken)} from {list(outer.start)} by {list(outer.step)}, "
        f"but {list(count)} were put at {list(inner.start)} by {list(inner.step)}"
    )


def _embedded(b: Rewriter, found: Match) -> Value:
    return b.wrap(found["x"])


def _rejoins(graph: Graph, node: Node) -> bool:
    """Whether a concat puts slices of one value together again, the whole of it and in order."""
    parts = graph.operands(node)
    if any(part.op.name != "slice" or part.operands != parts[0].operands for part in parts):
        return False
    (whole,) = graph.operands(parts[0])
    axis, end = node.attributes.axis, 0
    for part in parts:
        bounds = part.attributes
        if bounds.start[axis] != end or bounds.step[axis] != 1:
            return False
        end = bounds.stop[axis]
    # as many elements as the whole, so the slices leave the other axes alone
    return whole.type == node.type


TAKING_OUT = [
    Rule("slice-of-concat", op("slice", any_operands("concat", name="inner")), _slice_part, _within_one_part),
    Rule("slice-of-pad", op("slice", op("pad", X, name="inner")), _slice_unpadded, _inside_padding),
    Rule("slice-of-embed", op("slice", op("embed", X, name="inner")), _embedded, _same_positions),
    Rule(
        "concat-of-slices",
        any_operands("concat", _rejoins),
        lambda b, found: b.wrap(found.graph.operands(found.graph.operands(found.root)[0])[0]),
    ),
]

# --- padding that the next op can do itself ---------------------------------------------------------------------------


def _pads_space_with_zeros(found: Match) -> str | None:
    attributes = found["inner"].attributes
    if attributes.mode != "constant" or _bits(attributes.value) != _bits(0.0):
        filler = attributes.value if attributes.mode == "constant" else attributes.mode
        return f"{found.root.op.name} pads with zeros, not with {filler}"
    if any(map(any, attributes.padding[:2])):
        return f"padding {list(attributes.padding[:2])} of batch and channels stays"
    for inner, outer in zip(attributes.padding[2:], found.root.attributes.padding, strict=True):
        if any(crop < 0 < zeros for crop, zeros in zip(inner, outer, strict=True)):
            return f"{inner} crops elements, {outer} puts zeros in their place"
    return None


def _pad_within(b: Rewriter, found: Match) -> Value:
    pairs = zip(found["inner"].attributes.padding[2:], found.root.attributes.padding, strict=True)
    both = tuple((before + more_before, after + more_after) for (before, after), (more_before, more_after) in pairs)
    attributes = replace(found.root.attributes, padding=both)
    return emit(found.root.op, attributes, b.wrap(found["x"]), *(b.value(i) for i in found.root.operands[1:]))


PADDING = [
    Rule("conv-of-pad", op("conv", op("pad", X, name="inner"), Capture("w")), _pad_within, _pads_space_with_zeros),
    Rule("im2col-of-pad", op("im2col", op("pad", X, name="inner")), _pad_within, _pads_space_with_zeros),
]

# --- windows and reductions of one element ----------------------------------------------------------------------------


def _folds_single_elements(graph: Graph, node: Node) -> bool:
    """Axis 0 may be a batch: what is done for a batch of one is what is done for any, so that its code is there already."""
    (x,) = graph.operands(node)
    axes = node.attributes.axes
    return x.type.dtype is node.type.dtype and 0 not in axes and all(x.type.shape[axis] == 1 for axis in axes)


def _has_single_taps(graph: Graph, node: Node) -> bool:
    a = node.attributes
    ones = (1,) * len(a.kernel)
    divides = getattr(a, "divisor_override", None) not in (None, 1)
    return a.kernel == ones and a.stride == ones and not any(map(any, a.padding)) and not divides


def _single_element(b: Rewriter, found: Match) -> Value:
    element = reshape(_operand(b, found), found.root.type.shape)
    adds = found.root.op.name in ("sum", "mean") and found.root.type.dtype.is_float
    return add(element, 0.0) if adds else element  # a sum starts from 0.0, and 0.0 + -0.0 is 0.0


SINGLE = [
    Rule("reduce-single", any_operands(("sum", "mean", "max", "min", "prod"), _folds_single_elements), _single_element),
    Rule("pool-single", any_operands(("max_pool", "min_pool", "avg_pool"), _has_single_taps), _operand),
]

SHAPE = [*NOTHING_TO_DO, *ONE_AFTER_ANOTHER, *TAKING_OUT, *PADDING, *SINGLE]
