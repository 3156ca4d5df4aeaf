"""Constant folding: what becomes a constant, what is too large, what fails."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.ops.elementwise import add, copy, exp, multiply, negative, power, sqrt
from irconv.ops.reduce import reduce_sum
from irconv.ops.shape import broadcast, reshape, transpose
from irconv.passes.fold_constants import FoldConstants
from tests.passes.building import build, golden, run, text


def ramp(x, *shape):
    return x.builder.constant(np.arange(np.prod(shape), dtype=x.type.dtype.numpy).reshape(shape))


def test_a_constant_subgraph_becomes_one_constant():
    graph = build(lambda x: multiply(x, transpose(sqrt(add(multiply(ramp(x, 2, 3), 4.0), 1.0)))), x="f32[3,2]")
    after, notes = run(FoldConstants(), graph)
    assert not notes
    assert [node.op.name for node in after] == ["input", "constant", "multiply"]
    assert after["transpose"].attributes.value.flags.c_contiguous
    expected = np.sqrt(4 * np.arange(6, dtype=np.float32) + 1).reshape(2, 3).T
    np.testing.assert_array_equal(after["transpose"].attributes.value, expected)
    assert after["transpose"].provenance == graph["transpose"].provenance


def test_what_several_values_read_is_kept_once():
    def function(x):
        shared = multiply(ramp(x, 3), 0.5)
        return multiply(x, shared), add(x, negative(shared))

    expected = """
        %multiply = constant() value=[0.0,0.5,1.0] : f32[3]
        %multiply_1 = multiply(%x, %multiply) : f32[3]
        %negative = constant() value=[-0.0,-0.5,-1.0] : f32[3]
        %add = add(%x, %negative) : f32[3]
        return y0 = %multiply_1, y1 = %add
    """
    after, _ = run(FoldConstants(), build(function, x="f32[3]"))
    assert text(after) == golden(expected)


def test_dead_constants_are_no_change():
    graph = build(lambda x: [exp(ramp(x, 3)), negative(x)][1], x="f32[3]")
    assert text(run(FoldConstants(), graph)[0]) == text(graph)


def test_a_constant_output():
    after, _ = run(FoldConstants(), build(lambda x: exp(ramp(x, 1)), x="f32[1]"))
    assert text(after) == "%exp = constant() value=[1.0] : f32[1]\nreturn y = %exp"


def test_nothing_constant():
    graph = build(lambda x: exp(x), x="f32[3]")
    assert text(run(FoldConstants(), graph)[0]) == text(graph)


def test_repeating_views_and_copies_stay():
    graph = build(lambda x: (add(x, broadcast(ramp(x, 3), (2, 3))), copy(ramp(x, 3))), x="f32[2,3]")
    after, notes = run(FoldConstants(), graph)
    assert text(after) == text(graph) and not notes


def test_the_limit_is_on_growth():
    def function(x):
        column, row = ramp(x, 40, 1), ramp(x, 1, 40)
        return add(x, add(column, row)), reduce_sum(reshape(column, (8, 5)), 0)

    graph = build(function, x="f32[40,40]")
    after, notes = run(FoldConstants(limit_bytes=4000), graph)
    assert [str(note) for note in notes] == ["%add: fold_constants: 6,400 bytes from 320; the limit is 4,000"]
    assert after["add"].op.name == "add" and after["sum"].op.name == "constant"
    assert run(FoldConstants(limit_bytes=6400), graph)[0]["add"].op.name == "constant"
    # what does not grow is folded whatever its size
    assert run(FoldConstants(limit_bytes=0), graph)[0]["sum"].op.name == "constant"


def test_what_fails_is_left_for_the_run():
    graph = build(lambda x: add(x, power(ramp(x, 3), -1)), x="i32[3]")
    before = text(graph)
    notes = []
    assert not FoldConstants().run(graph, notes)
    assert text(graph) == before
    (note,) = notes
    assert note.node == "power" and "cannot be evaluated: an integer to a negative power" in note.reason


@pytest.mark.parametrize("dtype", ["f16", "f32", "f64", "i8", "u64"])
def test_types_are_kept(dtype):
    graph = build(lambda x: add(x, multiply(ramp(x, 3), 100)), x=f"{dtype}[3]")
    after, _ = run(FoldConstants(), graph)
    assert str(after["multiply"].type) == f"{dtype}[3]"
