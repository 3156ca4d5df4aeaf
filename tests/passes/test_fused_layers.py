"""Which convolutions become one kernel of several layers."""

from __future__ import annotations

import pytest

import irconv.backends.native.kernels  # noqa: F401  enters the generators
from irconv.builder import Builder
from irconv.graph import Graph
from irconv.ops.conv import conv
from irconv.ops.elementwise import add, relu
from irconv.passes.fuse import fuse
from irconv.passes.fused_layers import fused_layers
from irconv.passes.patterns import Search
from irconv.target import Target
from irconv.types import channels_last, tensor_type

SIZE = 128
KINDS = frozenset({"conv_epilogue", "elementwise", "fused_layers"})


def graph_of(build, channels: int = 8, size: int = SIZE) -> Graph:
    """A graph whose images are all stored channels last."""
    graph = Graph("layers")
    builder = Builder(graph)
    x = relu(builder.input("x", tensor_type("f32", (2, channels, size, size))))
    weights = {
        name: builder.wrap(graph.add_state(name, tensor_type("f32", shape), "param"))
        for name, shape in (("a", (32, channels, 1, 1)), ("b", (32, 1, 3, 3)), ("c", (channels, 32, 1, 1)), ("d", (32, 8, 3, 3)))
    }
    for i, value in enumerate(build(x, **weights)):
        graph.set_output(f"y{i}", value.id)
    for node in list(graph):
        if not node.is_leaf and node.type.rank == 4:
            graph.set_layout(node.id, channels_last(4))
    return graph


def wide(x, a):
    return relu(conv(x, a))


def deep(y, b, **how):
    return relu(conv(y, b, padding=1, groups=32, **how))


def groups(graph: Graph) -> list[list[str]]:
    return [[graph[i].op.name for i in group.nodes] for group in fused_layers(Search(graph))]


RESIDUAL = ["conv", "relu", "conv", "relu", "conv", "add"]


def test_an_inverted_residual():
    graph = graph_of(lambda x, a, b, c, d: [add(conv(deep(wide(x, a), b), c), x)])
    assert groups(graph) == [RESIDUAL]
    kernels = fuse(graph, Target("test", KINDS)).kernels
    assert [(k.kind, [graph[i].name for i in k.outputs]) for k in kernels] == [("relu", ["relu"]), ("fused_layers", ["add"])]
    assert [graph[i].name for i in kernels[1].inputs] == ["relu", "a", "b", "c"]


def test_with_a_stride_and_without_what_follows():
    assert groups(graph_of(lambda x, a, b, c, d: [deep(wide(x, a), b, stride=2)])) == [["conv", "relu", "conv", "relu"]]
    assert groups(graph_of(lambda x, a, b, c, d: [relu(conv(deep(x, b), c))], 32)) == [["conv", "relu", "conv", "relu"]]


@pytest.mark.parametrize(
    "build",
    [
        lambda x, a, b, c, d: [deep(y := wide(x, a), b, stride=2), y],
        lambda x, a, b, c, d: [deep(relu(conv(x, d, padding=1)), b)],
        lambda x, a, b, c, d: [relu(conv(relu(conv(x, a)), c))],
        lambda x, a, b, c, d: [relu(conv(relu(conv(x, a, stride=2)), b, groups=32))],
    ],
    ids=["read elsewhere", "3x3 before", "no depthwise", "strided pointwise"],
)
def test_what_is_left_alone(build):
    assert groups(graph_of(build)) == []


def test_small_images_are_left_alone():
    assert groups(graph_of(lambda x, a, b, c, d: [add(conv(deep(wide(x, a), b), c), x)], size=32)) == []


def test_why_small_images_are_left_alone():
    graph = graph_of(lambda x, a, b, c, d: [relu(conv(deep(wide(x, a), b), c))], size=32)
    partition = fuse(graph, Target("test", KINDS))
    between = [reason for (_, user), reason in partition.reasons.items() if graph[user].op.name == "conv"][1:]
    names = [graph[kernel.outputs[0]].name for kernel in partition.kernels if kernel.kind == "conv_epilogue"][:2]
    size = f"{4 * 32 * 32 * 32:,} bytes for an image"
    assert between == [f"%{name} has {size}: layers are computed together from {1 << 20:,} on" for name in names]


def test_row_major_images_are_left_alone():
    graph = graph_of(lambda x, a, b, c, d: [add(conv(deep(wide(x, a), b), c), x)])
    for node in list(graph):
        if not node.is_leaf:
            graph.set_layout(node.id, None)
    assert groups(graph) == []


def test_the_bytes_between_the_layers_do_not_cross_kernels():
    graph = graph_of(lambda x, a, b, c, d: [add(conv(deep(wide(x, a), b), c), x)])
    together, apart = (
        sum(graph[i].type.bytes for k in fuse(graph, Target("test", kinds)).kernels for i in (*k.inputs, *k.outputs))
        for kinds in (KINDS, KINDS - {"fused_layers"})
    )
    plane = 2 * SIZE * SIZE * 4
    assert apart - together == (4 * 32 + 8) * plane  # two values, each written and read, and the residual, read once

