"""Both gradients of a depthwise convolution as one kernel: which are formed, and that they are legal."""

from __future__ import annotations

import math

import networkx as nx
import pytest

from irconv.builder import Builder
from irconv.graph import Graph
from irconv.kernel import print_kernel
from irconv.ops.contract import im2col, matmul
from irconv.ops.conv import conv, conv_transpose
from irconv.ops.elementwise import add, exp, greater, multiply, relu, subtract, where
from irconv.ops.reduce import reduce_sum
from irconv.ops.shape import reshape, transpose
from irconv.passes.depthwise_backward import KIND, takes_input
from irconv.passes.fuse import fuse
from irconv.passes.layout import ChannelsLast
from irconv.target import Target
from irconv.types import tensor_type

OTHERS = {"elementwise", "conv_epilogue", "conv_transpose_epilogue", "conv_transpose_sums", "conv_weight_gradient"}
KINDS = frozenset({*OTHERS, "reductions", "elementwise_reduce", KIND})
ALL = (0, 2, 3)


def by_weight(d, x, kernel=(3, 3), stride=1, padding=1, groups=None):
    """The weight gradient, as the backward pass builds it."""
    groups = groups or x.shape[1]
    rows = reshape(transpose(d, (1, 0, 2, 3)), (groups, d.shape[1] // groups, d.shape[0] * math.prod(d.shape[2:])))
    product = matmul(rows, im2col(x, kernel, stride, padding, 1, groups))
    return reshape(product, (d.shape[1], x.shape[1] // groups, *kernel))


def by_input(d, w, x, stride=1, padding=1, groups=None):
    return conv_transpose(d, w, stride, padding, groups=groups or x.shape[1], output_size=x.shape[2:])


def partition(build, channels=32, size=(8, 8), counts=(8, 8), kernel=(3, 3), kinds=KINDS, dtype="f32", batch=2):
    """The graph of ``build`` over results of convolutions (of the size of d and of x), the weight and a number per channel."""
    graph = Graph()
    builder = Builder(graph)

    def image(name, extents):
        made = builder.input(name, tensor_type(dtype, (batch, channels, *extents)))
        return conv(made, builder.input(f"w_{name}", tensor_type(dtype, (channels, channels, 1, 1))))

    d, y, x = image("d", counts), image("y", counts), image("x", size)
    w = builder.input("w", tensor_type(dtype, (channels, 1, *kernel)))
    mean = reshape(builder.input("mean", tensor_type(dtype, (channels,))), (1, channels, 1, 1))
    for i, value in enumerate(build(d, y, x, w, mean)):
        graph.set_output(f"y{i}", value.id)
    ChannelsLast().run(graph)
    return graph, [k for k in fuse(graph, Target("test", kinds)).kernels if not k.is_view]


def formed(build, **how):
    graph, kernels = partition(build, **how)
    return graph, [k for k in kernels if k.kind == KIND]


def reasons_ahead(graph):
    """Why the values that a transposed convolution and columns read are made outside of their kernel."""
    readers = [i for i in graph.order() if graph[i].op.name in ("conv_transpose", "im2col")]
    reasons = fuse(graph, Target("test", KINDS)).reasons
    return [reasons[graph[i].operands[0], i] for i in readers]


def between_norms(d, y, x, w, mean, **attributes):
    """Batch norm's backward behind, ReLU and the sums of batch norm's backward ahead."""
    stored = [d, y]
    d = add(multiply(d, mean), multiply(y, mean))
    normal = relu(subtract(x, mean))
    g = by_input(d, w, x, **attributes)
    masked = where(greater(subtract(x, mean), 0.0), g, 0.0)
    sums = [reduce_sum(masked, ALL), reduce_sum(multiply(masked, subtract(x, mean)), ALL)]
    return [relu(g), by_weight(d, normal, w.shape[2:], **attributes), *sums, *stored]


def plain(d, y, x, w, mean, **attributes):
    return [by_input(d, w, x, **attributes), by_weight(d, x, w.shape[2:], **attributes)]


def test_all_of_it_is_one_kernel() -> None:
    graph, kernels = formed(between_norms)
    assert [print_kernel(graph, k) for k in kernels] == [GOLDEN]


GOLDEN = """\
kernel @reshape_2 = depthwise_backward (%conv, %reshape, %conv_1, %conv_2, %w, %constant, %constant_1) -> \
(%conv_transpose, %sum, %sum_1, %reshape_2) {  # 68,232 bytes
  %multiply = multiply(%conv, %reshape) : f32[2,32,8,8]{0,2,3,1}
  %multiply_1 = multiply(%conv_1, %reshape) : f32[2,32,8,8]{0,2,3,1}
  %add = add(%multiply, %multiply_1) : f32[2,32,8,8]{0,2,3,1}
  %subtract = subtract(%conv_2, %reshape) : f32[2,32,8,8]{0,2,3,1}
  %relu = relu(%subtract) : f32[2,32,8,8]{0,2,3,1}
  %conv_transpose = conv_transpose(%add, %w) stride=(1, 1) padding=(1, 1) dilation=(1, 1) groups=32 output_size=(8, \
8) : f32[2,32,8,8]{0,2,3,1}
  %subtract_1 = subtract(%conv_2, %reshape) : f32[2,32,8,8]{0,2,3,1}
  %greater = greater(%subtract_1, %constant) : bool[2,32,8,8]{0,2,3,1}
  %where = where(%greater, %conv_transpose, %constant_1) : f32[2,32,8,8]{0,2,3,1}
  %sum = sum(%where) axes=(0, 2, 3) keepdims=False : f32[32]
  %subtract_2 = subtract(%conv_2, %reshape) : f32[2,32,8,8]{0,2,3,1}
  %multiply_2 = multiply(%where, %subtract_2) : f32[2,32,8,8]{0,2,3,1}
  %sum_1 = sum(%multiply_2) axes=(0, 2, 3) keepdims=False : f32[32]
  %transpose = transpose(%add) axes=(1, 0, 2, 3) : f32[32,2,8,8]
  %reshape_1 = reshape(%transpose) shape=(32, 1, 128) : f32[32,1,128]
  %im2col = im2col(%relu) kernel=(3, 3) stride=(1, 1) padding=((1, 1), (1, 1)) dilation=(1, 1) groups=32 : \
f32[32,128,9]
  %matmul = matmul(%reshape_1, %im2col) : f32[32,1,9]
  %reshape_2 = reshape(%matmul) shape=(32, 1, 3, 3) : f32[32,1,3,3]
}"""


def test_with_neither_work_nor_sums() -> None:
    graph, (kernel,) = formed(plain)
    assert [graph[i].op.name for i in kernel.nodes if graph[i].op.name not in ("reshape", "transpose")] == [
        "conv_transpose",
        "im2col",
        "matmul",
    ]
    assert len(kernel.outputs) == 2


def test_with_work_on_the_gradient() -> None:
    graph, (kernel,) = formed(lambda d, y, x, w, mean: [add(by_input(d, w, x), x), by_weight(d, x)])
    assert "add" in {graph[i].op.name for i in kernel.nodes}


def test_where_the_target_has_no_such_kernel_there_are_several() -> None:
    _, kernels = partition(between_norms, kinds=KINDS - {KIND})
    assert {"conv_transpose_sums", "conv_weight_gradient", "elementwise"} <= {k.kind for k in kernels}


def test_what_others_read_is_stored() -> None:
    """The work that makes d, or x, stays outside where somebody else reads it."""

    def build(d, y, x, w, mean):
        d, normal = multiply(d, mean), relu(x)
        return [d, normal, by_input(d, w, x), by_weight(d, normal)]

    graph, (kernel,) = formed(build)
    assert {graph[i].op.name for i in kernel.nodes} == {"conv_transpose", "im2col", "matmul", "reshape", "transpose"}
    assert all("read elsewhere" in reason for reason in reasons_ahead(graph))


def test_dear_work_ahead_stays_outside() -> None:
    def build(d, y, x, w, mean):
        d, x = exp(d), exp(x)
        return [by_input(d, w, x), by_weight(d, x)]

    graph, (kernel,) = formed(build)
    assert "exp" not in {graph[i].op.name for i in kernel.nodes}
    assert all("not light" in reason for reason in reasons_ahead(graph))


APART = {
    "another layer's columns": lambda d, y, x, w, mean: [by_input(d, w, x), by_weight(y, x)],
    "another window": lambda d, y, x, w, mean: [by_input(d, w, x), by_weight(d, x, (5, 5), padding=2)],
    "dear work behind": lambda d, y, x, w, mean: [exp(by_input(d, w, x)), by_weight(d, x)],
    "a truth value behind": lambda d, y, x, w, mean: [greater(by_input(d, w, x), 0.0), by_weight(d, x)],
    "columns of the gradient itself": lambda d, y, x, w, mean: [by_weight(d, relu(by_input(d, w, x)))],
}


@pytest.mark.parametrize("why", APART)
def test_what_stays_apart(why) -> None:
    assert not formed(APART[why])[1]


@pytest.mark.parametrize(
    "how",
    [
        {"channels": 8},
        {"dtype": "f16"},
        {"size": (9, 9), "counts": (9, 9), "kernel": (9, 9), "padding": 4},
        {"size": (22, 22), "counts": (8, 8), "stride": 3},
        {"size": (1, 1), "counts": (1, 1)},
    ],
    ids=str,
)
def test_where_there_is_no_code(how) -> None:
    attributes = {name: how.pop(name) for name in ("stride", "padding") if name in how}
    assert not formed(lambda *values: plain(*values, **attributes), **how)[1]


@pytest.mark.parametrize("batch", [1, 5])
def test_strides_and_any_batch(batch) -> None:
    _, (kernel,) = formed(lambda *all: between_norms(*all, stride=2), size=(16, 15), batch=batch)
    assert len(kernel.outputs) == 4


def test_what_waits_for_the_gradient_does_not_close_a_circle() -> None:
    """The sums read what comes of the gradient by way of another convolution."""

    def build(d, y, x, w, mean):
        g = by_input(d, w, x)
        other = by_input(relu(by_input(g, w, x)), w, x)
        return [relu(g), by_weight(d, x), reduce_sum(g, ALL), reduce_sum(multiply(g, other), ALL)]

    graph, kernels = partition(build)
    home = {i: k.name for k in kernels for i in k.nodes}
    quotient = nx.DiGraph()
    quotient.add_nodes_from(home.values())
    for i in home:
        quotient.add_edges_from((home[o], home[i]) for o in graph[i].operands if o in home and home[o] != home[i])
    assert nx.is_directed_acyclic_graph(quotient)


def test_which_columns_compute_their_image() -> None:
    def answer(build, **how):
        graph, _ = partition(build, **how)
        return [takes_input(graph, graph[i]) for i in graph.order() if graph[i].op.name == "im2col"]

    assert answer(plain) == [True]
    assert answer(lambda d, y, x, w, mean: [by_weight(d, x)]) == [False]
    assert answer(APART["another window"]) == [False]
    assert answer(plain, channels=8) == [False]
    graph, _ = partition(plain)
    assert not any(takes_input(graph, graph[i]) for i in graph.order() if graph[i].op.name != "im2col")
