"""Recompute: cheap values are copied per reader where their source is stored anyway."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings

from irconv.ops.contract import im2col, matmul
from irconv.ops.elementwise import exp, multiply, relu, square, subtract
from irconv.ops.reduce import reduce_mean
from irconv.ops.shape import reshape
from irconv.passes.fuse import fuse
from irconv.passes.recompute import Recompute
from irconv.target import Target
from tests.passes.building import build, golden, run, text
from tests.passes.programs import graphs


def normalise(x):
    centred = subtract(x, reshape(reduce_mean(x, (0, 2)), (1, 3, 1)))
    return multiply(centred, relu(reshape(reduce_mean(square(centred), (0, 2)), (1, 3, 1))))


def test_a_centred_value_is_computed_by_each_reader():
    after, _ = run(Recompute(), build(normalise, x="f32[8,3,9]"))
    assert text(after) == golden("""
        %mean = mean(%x) axes=[0,2] keepdims=false : f32[3]
        %reshape = reshape(%mean) shape=[1,3,1] : f32[1,3,1]
        %subtract = subtract(%x, %reshape) : f32[8,3,9]
        %square = square(%subtract) : f32[8,3,9]
        %mean_1 = mean(%square) axes=[0,2] keepdims=false : f32[3]
        %reshape_1 = reshape(%mean_1) shape=[1,3,1] : f32[1,3,1]
        %relu = relu(%reshape_1) : f32[1,3,1]
        %reshape_2 = reshape(%mean) shape=[1,3,1] : f32[1,3,1]
        %subtract_again = subtract(%x, %reshape_2) : f32[8,3,9]
        %multiply = multiply(%subtract_again, %relu) : f32[8,3,9]
        return y = %multiply
    """)


def test_nothing_of_full_size_is_stored_between_the_kernels_of_a_normalisation():
    after, _ = run(Recompute(), build(normalise, x="f32[8,3,9]"))
    kernels = fuse(after, Target("test", frozenset({"elementwise", "mean_variance"}))).kernels
    full = [after[i].name for k in kernels if not k.is_view for i in k.outputs if after[i].type.size == 8 * 3 * 9]
    assert full == ["multiply"]


def test_dear_steps_and_sources_that_need_not_be_stored_are_left():
    def dear(x):
        y = exp(x)
        return reduce_mean(y), reduce_mean(square(y))

    def unstored(x):
        y = relu(exp(x))  # the exponential can stay inside one kernel with the relu
        return reduce_mean(y), reduce_mean(square(y))

    for function in (dear, unstored):
        assert not Recompute().run(build(function, x="f32[8,3,9]"))


def test_results_are_computed_once():
    def function(x):
        y = relu(x)
        return y, reduce_mean(y), reduce_mean(square(y))

    assert not Recompute().run(build(function, x="f32[8,3,9]"))


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_numbers_stay(graph):
    run(Recompute(), graph)


def test_backward_readers_get_a_backward_copy():
    graph = build(normalise, x="f32[8,3,9]")
    reader = graph["multiply"]
    graph.set_provenance(reader.id, replace(reader.provenance, origin="y"))
    Recompute().run(graph)
    assert graph["subtract_again"].provenance.origin == "y"
    assert graph["subtract"].provenance.origin is None


def test_gradients_of_convolutions_at_one_input_have_columns_of_their_own():
    def gradients(x, c, d):
        columns = im2col(x, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1)
        return matmul(c, columns), matmul(d, columns)

    graph = build(gradients, x="f32[2,3,5,5]", c="f32[1,4,50]", d="f32[1,6,50]")
    before, after = graph, run(Recompute(), graph)[0]
    target = Target("test", frozenset({"conv_weight_gradient"}))
    assert [k.kind for k in fuse(before, target).kernels] == ["im2col", "matmul", "matmul"]
    assert [k.kind for k in fuse(after, target).kernels] == ["conv_weight_gradient"] * 2


def test_columns_that_are_a_result_or_read_by_others_are_shared():
    def shown(x, c, d):
        columns = im2col(x, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1)
        return columns, matmul(c, columns), matmul(d, columns)

    def read(x, c, d):
        columns = im2col(x, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1)
        return reduce_mean(columns, (0, 1, 2)), matmul(c, columns), matmul(d, columns)

    for function in (shown, read):
        assert not Recompute().run(build(function, x="f32[2,3,5,5]", c="f32[1,4,50]", d="f32[1,6,50]"))
