"""Fusion of convolutions with the pools behind them: which kernels are formed, and which are not."""

from __future__ import annotations

import irconv
import irconv.nn.functional as F
from irconv.graph import Graph
from irconv.kernel import make_kernel, print_kernel
from irconv.ops.conv import conv
from irconv.ops.elementwise import add, relu
from irconv.ops.pool import avg_pool, max_pool, min_pool
from irconv.ops.pool_taps import argmax_pool, argmin_pool
from irconv.passes.conv_pools import conv_pools
from irconv.passes.fuse import fuse
from irconv.passes.patterns import Search
from irconv.passes.simplify import Simplify
from irconv.target import Target
from tests.passes.building import build, golden

TARGET = Target("test", frozenset({"conv_pool", "conv_epilogue", "pool_indices", "elementwise"}))
X, W, B = "f32[2,3,8,9]", "f32[5,3,3,3]", "f32[5,1,1]"


def partition(graph: Graph, target: Target = TARGET) -> str:
    """All kernels of the partition as text."""
    return "\n".join(print_kernel(graph, kernel) for kernel in fuse(graph, target).kernels)


def kinds(function, **types: str) -> list[str]:
    graph = build(function, **types)
    return [kernel.kind for kernel in fuse(graph, TARGET).kernels if not kernel.is_view]


def test_convolution_bias_activation_and_pool():
    graph = build(lambda x, w, b: max_pool(relu(add(conv(x, w, 1, 1), b)), 2), x=X, w=W, b=B)
    expected = """
        kernel @max_pool = conv_pool (%x, %w, %b) -> (%max_pool) {  # 2,928 bytes
          %conv = conv(%x, %w) stride=(1, 1) padding=((1, 1), (1, 1)) dilation=(1, 1) groups=1 : f32[2,5,8,9]  # model.py:1
          %add = add(%conv, %b) : f32[2,5,8,9]  # model.py:1
          %relu = relu(%add) : f32[2,5,8,9]  # model.py:1
          %max_pool = max_pool(%relu) kernel=(2, 2) stride=(2, 2) padding=((0, 0), (0, 0)) dilation=(1, 1) ceil_mode=False : f32[2,5,4,4]  # model.py:1
        }
    """
    assert partition(graph) == golden(expected)
    assert "conv_pool" not in partition(graph, Target("other", frozenset({"conv_epilogue"})))


def test_winning_taps_are_a_second_result():
    def function(x, w):
        r = relu(conv(x, w))
        return max_pool(r, 2), argmax_pool(r, 2)

    graph = build(function, x=X, w=W)
    (kernel,) = fuse(graph, TARGET).kernels
    assert kernel.kind == "conv_pool" and [graph[i].op.name for i in kernel.outputs] == ["max_pool", "argmax_pool"]


def test_a_training_step_stores_neither_what_is_pooled_nor_a_mask_of_its_size():
    """With the rule of simplify nothing of the backward pass reads what is pooled."""
    shapes = [(2, 3, 10, 10), (5, 3, 3, 3), (5,)]
    specs = [irconv.TensorSpec(shape) for shape in shapes]
    joint = irconv.differentiate(irconv.trace(lambda x, w, b: F.max_pool2d(F.conv2d(x, w, b).relu(), 2).sum(), *specs))
    Simplify(differentiated=True).run(joint)
    partition = fuse(joint, TARGET)
    (kernel,) = [kernel for kernel in partition.kernels if kernel.kind == "conv_pool"]
    assert [joint[i].op.name for i in kernel.nodes] == ["conv", "add", "relu", "max_pool", "argmax_pool"]
    large = {i for other in partition.kernels for i in other.outputs if joint[i].type.shape == (2, 5, 8, 8)}
    assert {joint[i].op.name for i in large} == {"window_scatter"}


def test_other_pools_and_no_epilogue():
    assert kinds(lambda x, w: avg_pool(conv(x, w), 2), x=X, w=W) == ["conv_pool"]
    assert kinds(lambda x, w: min_pool(conv(x, w), (1, 3)), x=X, w=W) == ["conv_pool"]
    assert kinds(lambda x, w: max_pool(conv(x, w), 2), x="f64[2,3,17]", w="f64[4,3,3]") == ["conv_pool"]
    assert kinds(lambda x, w: max_pool(conv(x, w), 2), x="f32[2,3,7,7,7]", w="f32[4,3,3,3,3]") == ["conv_pool"]

    def smallest(x, w):
        y = conv(x, w)
        return min_pool(y, 2), argmin_pool(y, 2)

    assert kinds(smallest, x=X, w=W) == ["conv_pool"]


def test_what_stays_apart():
    plain = ["conv_epilogue", "max_pool"]

    def pooled(pool, x=X, w=W, groups=1):
        return kinds(lambda x, w: pool(relu(conv(x, w, 1, 1, 1, groups))), x=x, w=w)

    assert pooled(lambda y: max_pool(y, 2)) == ["conv_pool"]
    assert pooled(lambda y: max_pool(y, 3, 2)) == plain  # windows overlap
    assert pooled(lambda y: max_pool(y, 2, 3)) == plain  # there is something between them
    assert pooled(lambda y: max_pool(y, 2, 2, 1)) == plain
    assert pooled(lambda y: max_pool(y, 2, 2, 0, 2)) == plain
    assert pooled(lambda y: max_pool(y, 2, 2, 0, 1, True)) == plain  # the last window reaches beyond the end
    assert pooled(lambda y: max_pool(y, (8, 9))) == plain  # large
    assert pooled(lambda y: max_pool(y, 2), x="f32[2,6,8,9]", w="f32[6,3,3,3]", groups=2) == plain
    assert pooled(lambda y: max_pool(y, 2), x="f16[2,3,8,9]", w="f16[5,3,3,3]") == plain


def test_what_is_read_elsewhere_is_stored():
    def also_an_output(x, w):
        y = relu(conv(x, w))
        return y, max_pool(y, 2)

    def two_pools(x, w):
        y = relu(conv(x, w))
        return avg_pool(y, 2), max_pool(y, 2)

    def taps_of_other_windows(x, w):
        y = relu(conv(x, w))
        return max_pool(y, 2), argmax_pool(y, 2, 1)

    def read_by_both_sides(x, w):
        y = conv(x, w)
        return max_pool(relu(y), 2), relu(max_pool(y, 2))

    for function in (also_an_output, two_pools, taps_of_other_windows, read_by_both_sides):
        assert "conv_pool" not in kinds(function, x=X, w=W)


def test_an_epilogue_that_needs_the_pool_is_no_part_of_it():
    """A residual computed from another pooled convolution comes from outside; both kernels are formed, without a cycle."""

    def function(x, w, v):
        first = max_pool(relu(conv(x, w, 1, 1)), 1 + 1)
        second = conv(first, v, 1, 1)
        return max_pool(relu(add(second, first)), 2)

    assert kinds(function, x=X, w=W, v="f32[5,5,3,3]") == ["conv_pool", "conv_pool"]


def test_groups_name_the_convolution_first():
    graph = build(lambda x, w, b: max_pool(relu(add(conv(x, w, 1, 1), b)), 2), x=X, w=W, b=B)
    uses = Search(graph)
    (group,) = conv_pools(uses)
    assert graph[group.nodes[0]].op.name == "conv"
    assert make_kernel(uses, group.nodes, group.kind).inputs == tuple(graph.inputs)
