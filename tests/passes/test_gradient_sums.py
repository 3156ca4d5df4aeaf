"""Input gradients with the sums that batch norm takes of them: which kernels are formed, and that they are legal."""

from __future__ import annotations

import networkx as nx
import pytest

from irconv.builder import Builder
from irconv.graph import Graph
from irconv.kernel import print_kernel
from irconv.ops.conv import conv, conv_transpose
from irconv.ops.elementwise import add, exp, greater, multiply, relu, subtract, where
from irconv.ops.reduce import reduce_sum
from irconv.ops.shape import broadcast, reshape, slice_
from irconv.passes.fuse import fuse
from irconv.passes.layout import ChannelsLast
from irconv.target import Target
from irconv.types import tensor_type

KIND = "conv_transpose_sums"
KINDS = frozenset({"elementwise", "conv_transpose_epilogue", "elementwise_reduce", "reductions", KIND})
ALL = (0, 2, 3)


def partition(build, w=(16, 32, 3, 3), out=(2, 32, 8, 8), kinds=KINDS, dtype="f32"):
    """The graph of ``build`` over a gradient, a weight and a value like the result, and its kernels with code."""
    graph = Graph()
    builder = Builder(graph)
    d = builder.input("d", tensor_type(dtype, (2, w[0], 8, 8)))
    weight = builder.input("w", tensor_type(dtype, w))
    y = conv(builder.input("x", tensor_type(dtype, out)), builder.input("v", tensor_type(dtype, (out[1], out[1], 1, 1))))
    mean = builder.input("mean", tensor_type(dtype, (out[1],)))
    for i, value in enumerate(build(d, weight, y, reshape(mean, (1, out[1], 1, 1)))):
        graph.set_output(f"y{i}", value.id)
    ChannelsLast().run(graph)
    return graph, [k for k in fuse(graph, Target("test", kinds)).kernels if not k.is_view]


def backward(g, y, mean):
    """What batch norm's backward does with the gradient behind a ReLU."""
    masked = where(greater(y, 0.0), g, 0.0)
    return [relu(g), reduce_sum(masked, ALL), reduce_sum(multiply(masked, subtract(y, mean)), ALL)]


def formed(build, **how):
    return [k for k in partition(build, **how)[1] if k.kind == KIND]


def test_a_gradient_and_its_sums_are_one_kernel() -> None:
    graph, kernels = partition(lambda d, w, y, mean: backward(conv_transpose(d, w, padding=1), y, mean))
    assert [print_kernel(graph, k) for k in kernels if k.kind == KIND] == [GOLDEN]


GOLDEN = """\
kernel @sum_1 = conv_transpose_sums (%d_stored, %w, %conv, %constant, %constant_1, %reshape) -> (%conv_transpose, %sum, %sum_1) \
{  # 59,784 bytes
  %conv_transpose = conv_transpose(%d_stored, %w) stride=(1, 1) padding=(1, 1) dilation=(1, 1) groups=1 output_size=(8, 8) : \
f32[2,32,8,8]{0,2,3,1}
  %greater = greater(%conv, %constant) : bool[2,32,8,8]{0,2,3,1}
  %where = where(%greater, %conv_transpose, %constant_1) : f32[2,32,8,8]{0,2,3,1}
  %sum = sum(%where) axes=(0, 2, 3) keepdims=False : f32[32]
  %subtract = subtract(%conv, %reshape) : f32[2,32,8,8]{0,2,3,1}
  %multiply = multiply(%where, %subtract) : f32[2,32,8,8]{0,2,3,1}
  %sum_1 = sum(%multiply) axes=(0, 2, 3) keepdims=False : f32[32]
}"""


def test_with_what_another_branch_adds() -> None:
    def build(d, w, y, mean):
        return backward(add(conv_transpose(d, w, padding=1), y), y, mean)

    graph, kernels = partition(build)
    (kernel,) = [k for k in kernels if k.kind == KIND]
    assert [graph[i].op.name for i in kernel.nodes[:2]] == ["conv_transpose", "add"]
    assert graph[kernel.outputs[0]].op.name == "add"


def test_where_the_target_has_no_such_kernel_nothing_changes() -> None:
    def build(d, w, y, mean):
        return backward(add(conv_transpose(d, w, padding=1), y), y, mean)

    _, kernels = partition(build, kinds=KINDS - {KIND})
    assert {"conv_transpose_epilogue", "reductions"} <= {k.kind for k in kernels}


def apart(why: str):
    """Builders of graphs in which the sums have to be a kernel of their own."""

    def over_other_axes(d, w, y, mean):
        g = conv_transpose(d, w, padding=1)
        return [relu(g), reduce_sum(g, (2, 3)), reduce_sum(multiply(g, y), (2, 3))]

    def not_stored(d, w, y, mean):
        g = conv_transpose(d, w, padding=1)
        return [reduce_sum(g, ALL), reduce_sum(multiply(g, subtract(y, mean)), ALL)]

    def dear_work(d, w, y, mean):
        g = conv_transpose(d, w, padding=1)
        return [relu(g), reduce_sum(g, ALL), reduce_sum(multiply(g, exp(y)), ALL)]

    def in_a_circle(d, w, y, mean):
        g = conv_transpose(d, w, padding=1)
        other = conv_transpose(conv_transpose(g, w, padding=1), w, padding=1)
        return [relu(g), reduce_sum(g, ALL), reduce_sum(multiply(g, other), ALL)]

    def numbers_apart(d, w, y, mean):
        return backward(conv_transpose(d, w, padding=1), y, every_second(d))

    builds = (over_other_axes, not_stored, dear_work, in_a_circle, numbers_apart)
    return {build.__name__: build for build in builds}[why]


def every_second(d):
    """32 numbers for the channels, with others between them."""
    numbers = slice_(d.builder.input("numbers", tensor_type("f32", (64,))), (0,), (64,), (2,))
    return reshape(numbers, (1, 32, 1, 1))


@pytest.mark.parametrize("why", ["over_other_axes", "not_stored", "dear_work", "numbers_apart"])
def test_what_stays_apart(why) -> None:
    assert not formed(apart(why))


def test_one_number_for_all_channels_is_no_hindrance() -> None:
    def build(d, w, y, mean):
        one = d.builder.input("one", tensor_type("f32", (1, 1, 1)))
        return backward(conv_transpose(d, w, padding=1), y, broadcast(one, (1, 32, 1, 1)))

    assert len(formed(build)) == 1


def test_sums_that_wait_for_what_reads_the_gradient_do_not_close_a_circle() -> None:
    graph, kernels = partition(apart("in_a_circle"), w=(32, 32, 3, 3))
    home = {i: k.name for k in kernels for i in k.nodes}
    quotient = nx.DiGraph()
    quotient.add_nodes_from(home.values())
    for i in home:
        quotient.add_edges_from((home[o], home[i]) for o in graph[i].operands if o in home and home[o] != home[i])
    assert nx.is_directed_acyclic_graph(quotient)


@pytest.mark.parametrize("how", [{"w": (16, 8, 3, 3), "out": (2, 8, 8, 8)}, {"dtype": "f16"}])
def test_where_there_would_be_no_code(how) -> None:
    assert not formed(lambda d, w, y, mean: backward(conv_transpose(d, w, padding=1), y, mean), **how)


def test_strides_only_channel_by_channel() -> None:
    def build(d, w, y, mean):
        groups = 32 if w.shape[1] == 1 else 1
        return backward(conv_transpose(d, w, 2, 1, output_padding=1, groups=groups), y, mean)

    assert not formed(build, w=(16, 32, 3, 3), out=(2, 32, 16, 16))
    assert len(formed(build, w=(32, 1, 3, 3), out=(2, 32, 16, 16))) == 1
