"""The rules of simplify on elementwise ops: the text they leave, the same bits, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.ops.elementwise import (
    absolute,
    add,
    cast,
    clip,
    copy,
    divide,
    equal,
    exp,
    floor,
    floor_divide,
    greater,
    greater_equal,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    multiply,
    negative,
    not_equal,
    power,
    relu,
    round_,
    sign,
    square,
    stop_gradient,
    subtract,
    where,
)
from irconv.ops.shape import (
    broadcast,
)
from irconv.passes.simplify import Simplify
from irconv.passes.simplify_arithmetic import holds
from irconv.types import DTYPES
from tests.passes.building import SPECIAL, build, check_simplified, golden, run, text

F, I, B = "f32[2,3]", "i32[2,3]", "bool[2,3]"


def constant(x, numbers):
    return x.builder.constant(np.asarray(numbers, x.type.dtype.numpy))


def truth(x, answer):
    return x.builder.constant(np.asarray(answer))


# --- neutral and absorbing numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "type_"),
    [
        (lambda x: add(x, 0), I),
        (lambda x: add(-0.0, x), F),
        (lambda x: subtract(x, 0.0), F),
        (lambda x: subtract(x, 0), I),
        (lambda x: multiply(1.0, x), F),
        (lambda x: multiply(x, 1), I),
        (lambda x: divide(x, 1.0), F),
        (lambda x: power(x, 1.0), F),
        (lambda x: floor_divide(x, 1), I),
        (lambda x: logical_and(truth(x, True), x), B),
        (lambda x: logical_or(x, truth(x, False)), B),
        (lambda x: maximum(x, x), F),
        (lambda x: minimum(x, x), F),
        (lambda x: logical_and(x, x), B),
        (lambda x: logical_or(x, x), B),
        (lambda x: negative(negative(x)), F),
        (lambda x: negative(negative(x)), I),
        (lambda x: logical_not(logical_not(x)), B),
        (lambda x: clip(x), F),
        (lambda x: clip(x, -1e10, 1e10), I),
        (lambda x: where(truth(x, True), x, negative(x)), F),
        (lambda x: where(truth(x, False), negative(x), x), F),
        (lambda x: where(greater(x, 0.0), x, x), F),
    ],
)
def test_nothing_is_left(function, type_):
    check_simplified(function, "return y = %x", x=type_)


@pytest.mark.parametrize(
    ("function", "note"),
    [
        (lambda x: add(x, 0.0), "add-zero: f32: x + 0.0 is 0.0 where x is -0.0"),
        (lambda x: subtract(x, -0.0), "subtract-zero: f32: x - (-0.0) is 0.0 where x is -0.0"),
        (lambda x: multiply(x, 0.0), "multiply-zero: f32: 0 * inf and 0 * NaN are NaN, 0 * -1 is -0"),
        (lambda x: subtract(x, x), "subtract-self: f32: inf - inf and NaN - NaN are NaN"),
        (lambda x: floor_divide(x, 1.0), "floor-divide-one: f32: floor(x / 1) is not x"),
        (
            lambda x: multiply(multiply(x, 3.0), 2.0),
            "merge-factors: f32: (x * 3.0) * 2.0 rounds x * 3.0, which is not a power of two",
        ),
        (
            lambda x: multiply(multiply(x, 2.0), 0.5),
            "merge-factors: f32: (x * 2.0) * 0.5 may underflow or overflow on the way: both factors must be at least 1",
        ),
        (
            lambda x: multiply(multiply(x, 0.5), 2.0),
            "merge-factors: f32: (x * 0.5) * 2.0 may underflow or overflow on the way: both factors must be at least 1",
        ),
        (
            lambda x: multiply(multiply(x, 2.0**100), 2.0**100),
            "merge-factors: f32: (x * 1.2676506e+30) * 1.2676506e+30: the product of the factors overflows",
        ),
        (
            lambda x: multiply(multiply(x, constant(x, [[2], [4]])), constant(x, [2, 4, 8])),
            "merge-factors: one constant of shape [2, 3] would replace those of [2, 1] and [3]",
        ),
        (
            lambda x: add(add(x, 1.0), 2.0),
            "merge-terms: f32: addition rounds, so (x + c1) + c2 is not x + (c1 + c2)",
        ),
    ],
)
def test_floats_refuse(function, note):
    graph = build(function, x=F)
    after, notes = run(Simplify(), graph, {"x": SPECIAL})
    assert text(after) == text(graph)
    assert [f"{each.rule}: {each.reason}" for each in notes] == [note]


def test_neutral_numbers_that_broadcast():
    expected = "%add = broadcast(%x) shape=[2,3] : i32[2,3]\nreturn y = %add"
    check_simplified(lambda x: add(x, constant(x, [[0], [0]])), expected, x="i32[3]")
    expected = "%where = broadcast(%x) shape=[2,3] : f32[2,3]\nreturn y = %where"
    check_simplified(lambda x, y: where(truth(x, [[True], [True]]), x, y), expected, x="f32[3]", y=F)


def test_absorbing_numbers():
    zeros = """
        %{zero} = constant() value=0 : i32[]
        %{name} = broadcast(%{zero}) shape=[2,3] : i32[2,3]
        return y = %{name}
    """
    check_simplified(lambda x: multiply(x, 0), zeros.format(zero="constant_1", name="multiply"), x=I)
    check_simplified(lambda x: subtract(x, x), zeros.format(zero="constant", name="subtract"), x=I)
    whole = """
        %constant = constant() value={answer} : bool[]
        %{name} = broadcast(%constant) shape=[2,3] : bool[2,3]
        return y = %{name}
    """
    check_simplified(lambda x: logical_and(x, truth(x, False)), whole.format(answer="false", name="logical_and"), x=B)
    check_simplified(lambda x: logical_or(truth(x, True), x), whole.format(answer="true", name="logical_or"), x=B)


# --- signs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x, y: multiply(x, -1), "negative(%x)"),
        (lambda x, y: add(negative(x), y), "subtract(%y, %x)"),
        (lambda x, y: subtract(x, negative(y)), "add(%x, %y)"),
        (lambda x, y: multiply(negative(x), negative(y)), "multiply(%x, %y)"),
        (lambda x, y: absolute(negative(x)), "absolute(%x)"),
        (lambda x, y: square(negative(x)), "square(%x)"),
        (lambda x, y: square(absolute(x)), "square(%x)"),
        (lambda x, y: multiply(x, x), "square(%x)"),
    ],
)
@pytest.mark.parametrize("type_", [F, I])
def test_signs(function, expected, type_):
    name = build(function, x=type_, y=type_).outputs["y"]
    name = build(function, x=type_, y=type_)[name].name
    dtype = type_.partition("[")[0]
    check_simplified(function, f"%{name} = {expected} : {dtype}[2,3]\nreturn y = %{name}", x=type_, y=type_)


def test_negated_comparisons():
    def function(x, y, c):
        return logical_not(equal(x, y)), logical_not(not_equal(x, y)), where(logical_not(c), x, y)

    expected = """
        %logical_not = not_equal(%x, %y) : bool[2,3]
        %logical_not_1 = equal(%x, %y) : bool[2,3]
        %where = where(%c, %y, %x) : f32[2,3]
        return y0 = %logical_not, y1 = %logical_not_1, y2 = %where
    """
    check_simplified(function, expected, x=F, y=F, c="bool[3]")


# --- doing it twice --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: relu(relu(x)), "relu = relu(%x)"),
        (lambda x: absolute(absolute(x)), "absolute = absolute(%x)"),
        (lambda x: sign(sign(x)), "sign = sign(%x)"),
        (lambda x: floor(round_(x)), "round = round(%x)"),
        (lambda x: clip(clip(x, -1, 1), -1, 1), "clip = clip(%x) minimum=-1.0 maximum=1.0"),
    ],
)
def test_twice_is_once(function, expected):
    name = expected.partition(" ")[0]
    check_simplified(function, f"%{expected} : f32[2,3]\nreturn y = %{name}", x=F)


def test_clips_with_different_bounds_stay():
    graph = build(lambda x: clip(clip(x, -1, 0.0), -1, -0.0), x=F)
    after, _ = run(Simplify(), graph)
    assert text(after) == text(graph)


# --- merging constants -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "op", "value", "type_"),
    [
        (lambda x: multiply(multiply(x, 2.0), 3.0), "multiply", "6.0 : f32[]", F),
        (lambda x: multiply(4.0, multiply(-8.0, x)), "multiply", "-32.0 : f32[]", F),
        (lambda x: multiply(multiply(x, 3), 5), "multiply", "15 : i32[]", I),
        (lambda x: add(add(x, 3), 5), "add", "8 : i32[]", I),
        (lambda x: divide(x, 4.0), "multiply", "0.25 : f32[]", F),
        (lambda x: divide(x, constant(x, [1, 0.5, -8])), "multiply", "[1.0,2.0,-0.125] : f32[3]", F),
    ],
)
def test_constants_merge(function, op, value, type_):
    graph = build(function, x=type_)
    after, notes = run(Simplify(), graph, {"x": SPECIAL} if type_ == F else None)
    assert not notes
    constants = [line for line in text(after).splitlines() if "= constant" in line]
    assert len(constants) == 1 and constants[0].endswith(f"value={value}")
    assert len(after) == 3 and after[after.outputs["y"]].op.name == op


def test_division_by_other_numbers_stays():
    for number in (3.0, 2.0**-149, 0.0):
        graph = build(lambda x, number=number: divide(x, number), x=F)
        assert text(run(Simplify(), graph)[0]) == text(graph)


# --- casts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "through", "target", "expected"),
    [
        ("f16", "f32", "f64", "merged"),
        ("f32", "f64", "f32", "nothing"),
        ("i32", "f64", "f32", "merged"),
        ("u8", "i32", "i8", "merged"),
        ("u8", "f32", "i32", "merged"),
        ("bool", "i8", "f32", "merged"),
        ("f16", "f32", "bool", "merged"),
        ("i32", "f32", "f64", "f32 does not hold every i32"),
        ("f32", "f16", "f32", "f16 does not hold every f32"),
        ("f32", "i32", "f32", "i32 does not hold every f32"),
        ("f16", "f32", "i32", "what a f32 too large for i32 becomes is not what a f16 becomes"),
        ("u8", "f32", "i8", "what a f32 too large for i8 becomes is not what a u8 becomes"),
    ],
)
def test_casts(source, through, target, expected):
    graph = build(lambda x: cast(cast(x, through), target), x=f"{source}[5]")
    numbers = np.array([0, 1, 2, 100, 127]).astype(DTYPES[source].numpy)
    after, notes = run(Simplify(), graph, {"x": numbers})
    casts = [node for node in after if node.op.name == "cast"]
    if expected in ("merged", "nothing"):
        assert not notes and len(casts) == (expected == "merged")
    else:
        assert len(casts) == 2 and [note.reason for note in notes] == [expected]


@pytest.mark.parametrize("wide", DTYPES.values(), ids=str)
@pytest.mark.parametrize("narrow_", DTYPES.values(), ids=str)
def test_holds(wide, narrow_):
    """Against the extremes and the neighbours of the largest number, both ways."""
    if narrow_.is_float:
        numbers = np.array([np.finfo(narrow_.numpy).max, np.finfo(narrow_.numpy).smallest_subnormal], narrow_.numpy)
    else:
        numbers = np.array([narrow_.lowest, narrow_.highest, max(narrow_.highest - 1, 0)], narrow_.numpy)
    with np.errstate(all="ignore"):
        # an extended type would hide that the largest 64-bit integers round: compare as Python numbers
        survives = [a.item() == b.item() for a, b in zip(numbers, numbers.astype(wide.numpy), strict=True)]
    finer = narrow_.is_float and not wide.is_float
    assert holds(wide, narrow_) == (all(survives) and not finer)


# --- broadcasting and copies -----------------------------------------------------------------------------------------


def test_broadcasts_move_behind_elementwise_ops():
    def function(x, y):
        wide = broadcast(x, (2, 3))
        return add(wide, y), exp(wide), add(wide, broadcast(x, (2, 3))), where(greater(wide, 0.0), y, 0.0)

    expected = """
        %constant = constant() value=0.0 : f32[]
        %constant_1 = constant() value=0.0 : f32[]
        %add = add(%x, %y) : f32[2,3]
        %exp.exp = exp(%x) : f32[3]
        %exp = broadcast(%exp.exp) shape=[2,3] : f32[2,3]
        %add_1.add = add(%x, %x) : f32[3]
        %add_1 = broadcast(%add_1.add) shape=[2,3] : f32[2,3]
        %greater.greater = greater(%x, %constant) : bool[3]
        %where = where(%greater.greater, %y, %constant_1) : f32[2,3]
        return y0 = %add, y1 = %exp, y2 = %add_1, y3 = %where
    """
    check_simplified(function, expected, x="f32[3]", y=F)


def test_copies_stay_only_for_outputs_and_updates():
    expected = "%copy = copy(%x) : f32[2,3]\n%exp = exp(%x) : f32[2,3]\nreturn y0 = %copy, y1 = %exp"
    check_simplified(lambda x: (copy(x), exp(copy(x))), expected, x=F)
    graph = build(lambda x, w: exp(copy(x)), {"w": np.zeros((2, 3), np.float32)}, x=F)
    graph.set_update(graph["w"].id, graph["copy"].id)
    assert text(run(Simplify(), graph)[0]) == golden(
        """
        %copy = copy(%x) : f32[2,3]
        %exp = exp(%copy) : f32[2,3]
        update %w = %copy
        return y = %exp
        """
    )


def test_what_only_gradients_need_goes_when_differentiated():
    def function(x):
        return exp(stop_gradient(x)), maximum(x, 0.0), maximum(x, -0.0)

    graph = build(function, x=F)
    assert text(run(Simplify(), graph)[0]) == text(graph)
    expected = """
        %exp = exp(%x) : f32[2,3]
        %constant_1 = constant() value=-0.0 : f32[]
        %maximum_1 = maximum(%x, %constant_1) : f32[2,3]
        %maximum = relu(%x) : f32[2,3]
        return y0 = %exp, y1 = %maximum, y2 = %maximum_1
    """
    check_simplified(function, expected, pass_=Simplify(differentiated=True), x=F)


def bounded(x, low, high, inner_low=None):
    return where(greater_equal(x, high), high, where(less_equal(x, low if inner_low is None else inner_low), low, x))


def test_a_bounded_value_is_a_clip_when_differentiated():
    def function(x):
        return bounded(x, 0.0, 6.0), bounded(x, -1.0, 1.0)

    graph = build(function, x=F)
    assert text(run(Simplify(), graph)[0]) == text(graph)
    expected = """
        %where_1 = clip(%x) minimum=0.0 maximum=6.0 : f32[2,3]
        %where_3 = clip(%x) minimum=-1.0 maximum=1.0 : f32[2,3]
        return y0 = %where_1, y1 = %where_3
    """
    check_simplified(function, expected, pass_=Simplify(differentiated=True), x=F)


@pytest.mark.parametrize(("low", "high", "inner_low"), [(2.0, 1.0, None), (float("nan"), 1.0, None), (0.0, 1.0, -1.0)])
def test_bounds_that_make_no_clip(low, high, inner_low):
    graph = build(lambda x: bounded(x, low, high, inner_low), x=F)
    assert "clip" not in text(run(Simplify(differentiated=True), graph)[0])
