"""The rules of :mod:`irconv.passes.simplify` for elementwise ops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from irconv.graph import Graph, Node
from irconv.op import OPS, Fusion, Value, emit
from irconv.ops.elementwise import (
    absolute,
    add,
    cast,
    clip,
    clip_bounds,
    equal,
    multiply,
    negative,
    not_equal,
    relu,
    square,
    subtract,
    where,
)
from irconv.ops.shape import broadcast
from irconv.passes.rewrite import Capture, Check, Constant, Match, Rewrite, Rewriter, Rule, any_operands, op
from irconv.types import BOOL, DType, broadcast_shapes

# --- numbers ----------------------------------------------------------------------------------------------------------


def all_equal(number: float) -> Callable[[np.ndarray], bool]:
    """A test: a constant of numbers that all equal ``number`` (0.0 and -0.0 alike)."""
    return lambda array: array.dtype.kind != "b" and array.size > 0 and bool((array == number).all())


def all_are(truth: bool) -> Callable[[np.ndarray], bool]:
    """A test: a constant of bools that are all ``truth``."""
    return lambda array: array.dtype.kind == "b" and array.size > 0 and bool((array == truth).all())


def powers_of_two(array: np.ndarray) -> bool:
    """Whether every element is a finite float of the form +-2^k."""
    return array.dtype.kind == "f" and array.size > 0 and bool((np.abs(np.frexp(array)[0]) == 0.5).all())


def shown(array: np.ndarray) -> str:
    """A constant in a message: the number if it is one, its range otherwise."""
    low, high = array.min(), array.max()
    return f"{low!s}" if low == high else f"{low!s} ... {high!s}"


# --- the two halves of a rule -----------------------------------------------------------------------------------------


def keep(name: str) -> Rewrite:
    """Replace by a captured value, repeated to the shape of the root."""
    return lambda b, found: broadcast(b.wrap(found[name]), found.root.type.shape)


def apply(constructor: Callable[..., Value], *names: str) -> Rewrite:
    """Replace by an op on captured values."""
    return lambda b, found: constructor(*(b.wrap(found[name]) for name in names))


def only_integers(reason: str) -> Check:
    """Refuse floats, for the reason given."""
    return lambda found: f"{found.root.type.dtype}: {reason}" if found.root.type.dtype.is_float else None


def _zeros(b: Rewriter, found: Match) -> Value:
    return b.full(found.root.type, 0)


X, Y, CONDITION = Capture("x"), Capture("y"), Capture("condition")
ZERO, ONE, MINUS_ONE = (Constant("c", all_equal(number)) for number in (0, 1, -1))
TRUE, FALSE = Constant("c", all_are(True)), Constant("c", all_are(False))
NEGATIVE_X, NEGATIVE_Y = op("negative", X), op("negative", Y)

# --- neutral and absorbing numbers ------------------------------------------------------------------------------------


def _adds_negative_zero(found: Match) -> str | None:
    exact = not found.root.type.dtype.is_float or np.signbit(found.array("c")).all()
    return None if exact else f"{found.root.type.dtype}: x + 0.0 is 0.0 where x is -0.0"


def _subtracts_positive_zero(found: Match) -> str | None:
    exact = not found.root.type.dtype.is_float or not np.signbit(found.array("c")).any()
    return None if exact else f"{found.root.type.dtype}: x - (-0.0) is 0.0 where x is -0.0"


NEUTRAL = [
    Rule("add-zero", op("add", X, ZERO), keep("x"), _adds_negative_zero),
    Rule("subtract-zero", op("subtract", X, ZERO), keep("x"), _subtracts_positive_zero),
    Rule("multiply-one", op("multiply", X, ONE), keep("x")),
    Rule("divide-one", op("divide", X, ONE), keep("x")),
    Rule("power-one", op("power", X, ONE), keep("x")),
    Rule("floor-divide-one", op("floor_divide", X, ONE), keep("x"), only_integers("floor(x / 1) is not x")),
    Rule("multiply-zero", op("multiply", X, ZERO), _zeros, only_integers("0 * inf and 0 * NaN are NaN, 0 * -1 is -0")),
    Rule("subtract-self", op("subtract", X, X), _zeros, only_integers("inf - inf and NaN - NaN are NaN")),
    Rule("and-true", op("logical_and", X, TRUE), keep("x")),
    Rule("and-false", op("logical_and", X, FALSE), keep("c")),
    Rule("or-true", op("logical_or", X, TRUE), keep("c")),
    Rule("or-false", op("logical_or", X, FALSE), keep("x")),
    Rule("where-true", op("where", TRUE, X, Y), keep("x")),
    Rule("where-false", op("where", FALSE, X, Y), keep("y")),
    Rule("where-same", op("where", CONDITION, X, X), keep("x")),
]

# --- signs ------------------------------------------------------------------------------------------------------------

SIGNS = [
    Rule("double-negation", op("negative", NEGATIVE_X), keep("x")),
    Rule(
        "multiply-minus-one",
        op("multiply", X, MINUS_ONE),
        lambda b, found: broadcast(negative(b.wrap(found["x"])), found.root.type.shape),
    ),
    Rule("add-negative", op("add", X, NEGATIVE_Y), apply(subtract, "x", "y")),
    Rule("subtract-negative", op("subtract", X, NEGATIVE_Y), apply(add, "x", "y")),
    Rule("multiply-negatives", op("multiply", NEGATIVE_X, NEGATIVE_Y), apply(multiply, "x", "y")),
    Rule("absolute-of-negative", op("absolute", NEGATIVE_X), apply(absolute, "x")),
    Rule("square-of-sign", op("square", op(("negative", "absolute"), X)), apply(square, "x")),
    Rule("multiply-self", op("multiply", X, X), apply(square, "x")),
    Rule("double-not", op("logical_not", op("logical_not", X)), keep("x")),
    Rule("not-equal", op("logical_not", op("equal", X, Y)), apply(not_equal, "x", "y")),
    Rule("not-not-equal", op("logical_not", op("not_equal", X, Y)), apply(equal, "x", "y")),
    Rule("where-not", op("where", op("logical_not", CONDITION), X, Y), apply(where, "condition", "y", "x")),
]

# --- doing it twice ---------------------------------------------------------------------------------------------------

_ROUNDING = ("floor", "ceil", "round")


def _is_unbounded(graph: Graph, node: Node) -> bool:
    low, high = clip_bounds(node.attributes, node.type.dtype)
    return bool(low == node.type.dtype.lowest and high == node.type.dtype.highest)


def _is_same_clip(graph: Graph, node: Node) -> bool:
    (inner,) = graph.operands(node)
    return inner.op is node.op and repr(inner.attributes) == repr(node.attributes)  # repr tells 0.0 from -0.0


def _operand(b: Rewriter, found: Match) -> Value:
    return b.value(found.root.operands[0])


TWICE = [
    Rule("double-relu", op("relu", op("relu", X, name="inner")), keep("inner")),
    Rule("double-absolute", op("absolute", op("absolute", X, name="inner")), keep("inner")),
    Rule("double-sign", op("sign", op("sign", X, name="inner")), keep("inner")),
    Rule("double-rounding", op(_ROUNDING, op(_ROUNDING, X, name="inner")), keep("inner")),
    Rule("double-clip", any_operands("clip", _is_same_clip), _operand),
    Rule("clip-unbounded", any_operands("clip", _is_unbounded), _operand),
    Rule("same-operands", op(("maximum", "minimum", "logical_and", "logical_or"), X, X), keep("x")),
]

# --- merging constants ------------------------------------------------------------------------------------------------

C1, C2 = Constant("c1"), Constant("c2")


def _merged_type(found: Match) -> str | None:
    """Why one constant for two would be larger than they are, if so."""
    first, second = found.array("c1"), found.array("c2")
    merged = broadcast_shapes(first.shape, second.shape)
    if merged in (first.shape, second.shape):
        return None
    return f"one constant of shape {list(merged)} would replace those of {list(first.shape)} and {list(second.shape)}"


def _scales_exactly(found: Match) -> str | None:
    """(x c1) c2 = x (c1 c2) without rounding twice: c1 is a power of two and nothing can underflow on the way."""
    dtype, first, second = found.root.type.dtype, found.array("c1"), found.array("c2")
    if not dtype.is_float:
        return _merged_type(found)
    numbers = f"{dtype}: (x * {shown(first)}) * {shown(second)}"
    if not powers_of_two(first):
        return f"{numbers} rounds x * {shown(first)}, which is not a power of two"
    if np.abs(first).min() < 1 or not np.abs(second).min() >= 1:
        return f"{numbers} may underflow or overflow on the way: both factors must be at least 1"
    with np.errstate(over="ignore"):
        if not np.isfinite(first * second).all():
            return f"{numbers}: the product of the factors overflows"
    return _merged_type(found)


def _merge(constructor: Callable[..., Value], combine: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Rewrite:
    def rewrite(b: Rewriter, found: Match) -> Value:
        with np.errstate(over="ignore"):
            merged = combine(found.array("c1"), found.array("c2"))
        return broadcast(constructor(b.wrap(found["x"]), b.constant(merged)), found.root.type.shape)

    return rewrite


def _add_exactly(found: Match) -> str | None:
    return only_integers("addition rounds, so (x + c1) + c2 is not x + (c1 + c2)")(found) or _merged_type(found)


def _has_exact_reciprocal(array: np.ndarray) -> bool:
    if not powers_of_two(array):
        return False
    with np.errstate(over="ignore", under="ignore"):
        reciprocal = 1 / array
    return bool((np.isfinite(reciprocal) & (reciprocal != 0)).all())


MERGING = [
    Rule("merge-factors", op("multiply", op("multiply", X, C1), C2), _merge(multiply, np.multiply), _scales_exactly),
    Rule("merge-terms", op("add", op("add", X, C1), C2), _merge(add, np.add), _add_exactly),
    Rule(
        "divide-by-power-of-two",
        op("divide", X, Constant("c", _has_exact_reciprocal)),
        lambda b, found: multiply(b.wrap(found["x"]), b.constant(1 / found.array("c"))),
    ),
]

# --- casts ------------------------------------------------------------------------------------------------------------

_FLOAT_BITS = {2: (11, 5), 4: (24, 8), 8: (53, 11)}
"""Significand bits (with the hidden one) and exponent bits of a float type, by its size in bytes."""


def holds(wide: DType, narrow: DType) -> bool:
    """Whether every value of ``narrow`` is one of ``wide``."""
    if wide is narrow or narrow is BOOL:
        return True
    if wide is BOOL or (narrow.is_float and not wide.is_float):
        return False
    if not wide.is_float:
        return bool(wide.lowest <= narrow.lowest and narrow.highest <= wide.highest)
    if narrow.is_float:
        return wide.bytes >= narrow.bytes
    # an integer type's largest magnitude is 2^bits: it needs that many significand bits, and the exponent to reach it
    bits = 8 * narrow.bytes - (narrow.kind == "int")
    significand, exponent = _FLOAT_BITS[wide.bytes]
    return bits <= significand and bits < 2 ** (exponent - 1)


def _is_cast_to_same(graph: Graph, node: Node) -> bool:
    return graph.operands(node)[0].type.dtype is node.type.dtype


def _cast_through(found: Match) -> str | None:
    source, through, target = found["x"].type.dtype, found["inner"].type.dtype, found.root.type.dtype
    if not holds(through, source):
        return f"{through} does not hold every {source}"
    if target.is_integer and through.is_float and not holds(target, source):
        return f"what a {through} too large for {target} becomes is not what a {source} becomes"
    return None


CASTS = [
    Rule("cast-to-same", any_operands("cast", _is_cast_to_same), _operand),
    Rule(
        "cast-of-cast",
        op("cast", op("cast", X, name="inner")),
        lambda b, found: cast(b.wrap(found["x"]), found.root.type.dtype),
        _cast_through,
    ),
]

# --- broadcasting -----------------------------------------------------------------------------------------------------


def _narrow_operands(graph: Graph, node: Node) -> list[Node]:
    """The operands with broadcasts taken off."""
    return [graph.operands(i)[0] if i.op.name == "broadcast" else i for i in graph.operands(node)]


def _reads_broadcast(graph: Graph, node: Node) -> bool:
    return any(operand.op.name == "broadcast" for operand in graph.operands(node))


def _elementwise_ops() -> tuple[str, ...]:
    # copy exists for the sake of its buffer, attach_gradient has operands that are not elementwise
    kept = ("copy", "attach_gradient")
    return tuple(each.name for each in OPS.values() if each.fusion is Fusion.ELEMENTWISE and each.name not in kept)


def _without_broadcast(b: Rewriter, found: Match) -> Value:
    operands = _narrow_operands(found.graph, found.root)
    result = emit(found.root.op, found.root.attributes, *(b.wrap(i) for i in operands))
    return broadcast(result, found.root.type.shape)


BROADCASTS = [
    Rule("broadcast-in-elementwise", any_operands(_elementwise_ops(), _reads_broadcast), _without_broadcast),
]

# --- copies and gradients ---------------------------------------------------------------------------------------------


def _is_internal(graph: Graph, node: Node) -> bool:
    return node.id not in graph.outputs.values() and node.id not in graph.updates.values()


COPIES = [Rule("copy", any_operands("copy", _is_internal), _operand)]



def _bounds_in_order(found: Match) -> str | None:
    low, low_value, high, high_value = (found.array(name).item() for name in ("low", "low_value", "high", "high_value"))
    exact = float(low) == low == low_value and float(high) == high == high_value
    return None if exact and low <= high else f"{found.root.type.dtype}: {low} and {high} are not the bounds of a clip"


def _clip(b: Rewriter, found: Match) -> Value:
    low, high = (found.array(name).item() for name in ("low", "high"))
    return broadcast(clip(b.wrap(found["x"]), low, high), found.root.type.shape)


def _one_number(array: np.ndarray) -> bool:
    return array.size == 1 and array.dtype.kind != "b"


LOW, LOW_VALUE, HIGH, HIGH_VALUE = (Constant(name, _one_number) for name in ("low", "low_value", "high", "high_value"))
ABOVE_LOW = op("where", op("less_equal", X, LOW), LOW_VALUE, X)

DIFFERENTIATED = [
    Rule("stop-gradient", op("stop_gradient", X), keep("x")),
    Rule("attach-gradient", any_operands("attach_gradient"), _operand),
    Rule(
        "maximum-zero",
        op("maximum", X, Constant("c", lambda array: bool(all_equal(0)(array) and not np.signbit(array).any()))),
        lambda b, found: broadcast(relu(b.wrap(found["x"])), found.root.type.shape),
    ),
    # relu6 and hardtanh, which say so of their gradient at the bounds
    Rule("clip", op("where", op("greater_equal", X, HIGH), HIGH_VALUE, ABOVE_LOW), _clip, _bounds_in_order),
]

ARITHMETIC = [*NEUTRAL, *SIGNS, *TWICE, *MERGING, *CASTS, *BROADCASTS, *COPIES]
