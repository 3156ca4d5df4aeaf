"""Common subexpressions: what is the same value, and what only looks like it."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.ops.elementwise import add, clip, copy, exp, maximum, multiply, subtract
from irconv.ops.pad import pad
from irconv.ops.random import random_bits
from irconv.ops.shape import reshape, transpose
from irconv.passes.cse import CommonSubexpressions
from tests.passes.building import build, golden, run, text

F = "f32[2,3]"


def test_equal_values_are_computed_once():
    def function(x, y):
        first = multiply(exp(add(x, y)), 2.0)
        second = multiply(2.0, exp(add(y, x)))
        return subtract(first, second), second

    expected = """
        %add = add(%x, %y) : f32[2,3]
        %exp = exp(%add) : f32[2,3]
        %constant = constant() value=2.0 : f32[]
        %multiply = multiply(%exp, %constant) : f32[2,3]
        %subtract = subtract(%multiply, %multiply) : f32[2,3]
        return y0 = %subtract, y1 = %multiply
    """
    after, _ = run(CommonSubexpressions(), build(function, x=F, y=F))
    assert text(after) == golden(expected)


def test_updates_follow():
    graph = build(lambda x, w: (add(x, w), add(x, w)), {"w": np.zeros(3, np.float32)}, x="f32[3]")
    graph.set_update(graph["w"].id, graph["add_1"].id)
    after, _ = run(CommonSubexpressions(), graph)
    assert after.updates == {after["w"].id: after["add"].id} and len(after) == 3


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: (subtract(x, y), subtract(y, x)),
        lambda x, y: (maximum(x, y), maximum(y, x)),  # they may give zeros of different sign
        lambda x, y: (reshape(x, (6,)), reshape(x, (3, 2))),
        lambda x, y: (clip(x, 0.0), clip(x, -0.0)),
        lambda x, y: (pad(x, 1, value=0.0), pad(x, 1, value=-0.0)),
        lambda x, y: (add(x, 0.0), add(x, -0.0)),
        lambda x, y: (copy(x), copy(x)),
        lambda x, y: (x, y),
    ],
)
def test_different_values_stay(function):
    graph = build(function, x=F, y=F)
    assert text(run(CommonSubexpressions(), graph)[0]) == text(graph)


def test_constants_are_compared_by_their_bits():
    def function(x):
        return add(x, x.builder.constant(np.zeros(3, np.float32))), add(x, x.builder.constant(np.zeros((1, 3), np.float32)))

    graph = build(function, x="f32[2,3]")
    assert text(run(CommonSubexpressions(), graph)[0]) == text(graph)


def test_random_streams_stay_apart():
    def function(key, step):
        return tuple(random_bits(key, step, stream=stream, shape=(4,)) for stream in ((0, 0), (0, 1), (0, 0)))

    graph = build(function, key="u32[2]", step="u64[]")
    after, _ = run(CommonSubexpressions(), graph)
    assert [node.op.name for node in after].count("random_bits") == 2
    assert after.outputs["y0"] == after.outputs["y2"] != after.outputs["y1"]


def test_views_of_views():
    graph = build(lambda x: (transpose(transpose(x)), transpose(transpose(x))), x=F)
    after, _ = run(CommonSubexpressions(), graph)
    assert [node.name for node in after] == ["x", "transpose", "transpose_1"]
