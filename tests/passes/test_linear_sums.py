"""Sums that follow from other sums."""

from __future__ import annotations

import pytest

from irconv.graph import Graph
from irconv.ops.elementwise import add, multiply, negative, square, subtract
from irconv.ops.pool_taps import argmax_pool, window_scatter
from irconv.ops.reduce import reduce_mean, reduce_sum
from irconv.ops.shape import reshape
from irconv.passes.check import Checker
from irconv.passes.linear_sums import LinearSums
from irconv.verify import verify
from tests.passes.building import build, golden, text

WIDE = "f32[2,3,4,5]"
SMALL = "f32[1,3,1,1]"
AXES = (0, 2, 3)


def run(graph: Graph) -> Graph:
    """The graph after the pass (on a copy, verified, computing the same within rounding)."""
    after = graph.copy()
    changed = LinearSums().run(after)
    verify(after)
    assert changed == (text(after) != text(graph))
    Checker(tolerance=1e-6).check("linear_sums", graph, after)
    return after


def _centred(x):
    return subtract(x, reshape(reduce_mean(x, AXES), (1, 3, 1, 1)))


def test_gradient_of_batch_norm_by_the_mean():
    def function(x, d, s):
        centred = _centred(x)
        mixed = add(multiply(d, s), multiply(multiply(centred, 2.0), s))
        return mixed, reduce_sum(negative(mixed), AXES), reduce_sum(d, AXES)

    expected = """
        %mean = mean(%x) axes=[0,2,3] keepdims=false : f32[3]
        %reshape = reshape(%mean) shape=[1,3,1,1] : f32[1,3,1,1]
        %subtract = subtract(%x, %reshape) : f32[2,3,4,5]
        %multiply = multiply(%d, %s) : f32[2,3,4,5]
        %constant = constant() value=2.0 : f32[]
        %multiply_2.multiply = multiply(%s, %constant) : f32[1,3,1,1]
        %multiply_2 = multiply(%subtract, %multiply_2.multiply) : f32[2,3,4,5]
        %add = add(%multiply, %multiply_2) : f32[2,3,4,5]
        %sum_1 = sum(%d) axes=[0,2,3] keepdims=false : f32[3]
        %sum.reshape = reshape(%s) shape=[3] : f32[3]
        %sum.multiply = multiply(%sum_1, %sum.reshape) : f32[3]
        %sum = negative(%sum.multiply) : f32[3]
        return y0 = %add, y1 = %sum, y2 = %sum_1
    """
    after = run(build(function, x=WIDE, d=WIDE, s=SMALL))
    assert text(after) == golden(expected)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        lambda x, y, s: subtract(x, multiply(y, s)),
        lambda x, y, s: negative(subtract(negative(x), y)),
        lambda x, y, s: multiply(s, subtract(multiply(x, s), negative(y))),
    ],
)
def test_same_numbers(value, keepdims):
    def function(x, y, s):
        sums = (reduce_sum(v, AXES, keepdims) for v in (value(x, y, s), x, y))
        return tuple(sums)

    before = build(function, x=WIDE, y=WIDE, s=SMALL)
    after = run(before)
    assert sum(node.op.name == "sum" for node in after) == 2


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y, s: (reduce_sum(add(x, y), AXES), reduce_sum(x, AXES)),  # sum(y) is not known
        lambda x, y, s: (reduce_sum(multiply(x, y), AXES), reduce_sum(x, AXES), reduce_sum(y, AXES)),
        lambda x, y, s: (reduce_sum(negative(x), AXES), reduce_sum(x, (0, 2))),  # other axes
        lambda x, y, s: (reduce_sum(multiply(x, s), (0, 1)), reduce_sum(x, (0, 1))),  # s varies along them
        lambda x, y, s: reduce_sum(square(_centred(x)), AXES),
        lambda x, y, s: reduce_sum(_centred(x), AXES),  # nothing would be left
        lambda x, y, s: multiply(multiply(x, 2.0), y),
    ],
)
def test_other_sums_stay(function):
    graph = build(function, x=WIDE, y=WIDE, s=SMALL)
    after = run(graph)
    assert text(after) == text(graph)


def test_integers_stay():
    graph = build(lambda x: (reduce_sum(negative(x), 0), reduce_sum(x, 0)), x="i32[4]")
    assert text(run(graph)) == text(graph)


def _scattered_sum(axes, taps=argmax_pool, size=(4, 6), **window):
    """The bias gradient of a convolution before a max pool."""

    def function(x, d):
        scatter = window_scatter(d, taps(x, 2, **window) if taps else x, size, 2, **window)
        return scatter, reduce_sum(scatter, axes)

    return function


def test_sum_of_what_a_max_pool_sends_back():
    after = run(build(_scattered_sum((0, 2, 3)), x="f32[2,3,4,6]", d="f32[2,3,2,3]"))
    total = after[after.outputs["y1"]]
    assert total.op.name == "sum" and after[total.operands[0]].name == "d"
    overlapping = run(build(_scattered_sum((2, 3), stride=1), x="f32[2,3,4,6]", d="f32[2,3,3,5]"))
    assert overlapping[overlapping[overlapping.outputs["y1"]].operands[0]].name == "d"


@pytest.mark.parametrize(
    ("function", "x", "d"),
    [
        (_scattered_sum((0, 2)), "f32[2,3,4,6]", "f32[2,3,2,3]"),  # not over all places
        (_scattered_sum((0, 2, 3), padding=1), "f32[2,3,4,6]", "f32[2,3,3,4]"),  # windows may lie in the padding alone
        (_scattered_sum((0, 2, 3), size=(5, 7), ceil_mode=True), "f32[2,3,5,7]", "f32[2,3,3,4]"),
        (_scattered_sum((0, 2, 3), taps=None), "u8[2,3,2,3]", "f32[2,3,2,3]"),  # taps that may be anything
    ],
)
def test_sums_of_scatters_that_stay(function, x, d):
    after = run(build(function, x=x, d=d))
    assert after[after[after.outputs["y1"]].operands[0]].op.name == "window_scatter"
