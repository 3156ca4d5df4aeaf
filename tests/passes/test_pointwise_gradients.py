"""Both gradients of a pointwise convolution as one kernel: which are formed, that they are legal, and that training is the same."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn, optim
from irconv.builder import Builder
from irconv.graph import Graph
from irconv.kernel import print_kernel
from irconv.ops.contract import im2col, matmul
from irconv.ops.conv import conv, conv_transpose
from irconv.ops.elementwise import add, exp, greater, multiply, negative, where
from irconv.ops.reduce import reduce_sum
from irconv.ops.shape import reshape, transpose
from irconv.passes.fuse import fuse
from irconv.passes.layout import ChannelsLast
from irconv.passes.pointwise_gradients import takes_work
from irconv.random import manual_seed
from irconv.target import Target
from irconv.types import tensor_type
from tests.backends.handwritten import compiler_or_skip

KIND = "pointwise_gradients"
KINDS = frozenset({"elementwise", "conv_transpose_epilogue", "conv_transpose_sums", "conv_weight_gradient", "reductions", KIND})
PIXEL = (1, 1)
NONE = ((0, 0), (0, 0))


def weight_gradient(d, x, kernel=PIXEL, stride=PIXEL, padding=NONE):
    """What the gradient of ``conv`` gives for its weight."""
    rows, depth = d.shape[1], x.shape[1]
    left = reshape(transpose(d, (1, 0, 2, 3)), (1, rows, d.shape[0] * math.prod(d.shape[2:])))
    return reshape(matmul(left, im2col(x, kernel, stride, padding, PIXEL, 1)), (rows, depth, *kernel))


def partition(function, rows=64, depth=16, size=(32, 32), batch=2, out=None, window=PIXEL, kinds=KINDS, dtype="f32"):
    """The graph of ``function`` over images g, y like d and z like x, a weight and numbers per channel, and its kernels."""
    graph = Graph()
    builder = Builder(graph)
    images = []
    for name, channels, places in (("g", rows, out or size), ("y", rows, out or size), ("z", depth, size)):
        value = builder.input(name, tensor_type(dtype, (batch, channels, *places)))
        around = builder.input(f"{name}_weight", tensor_type(dtype, (channels, channels, 1, 1)))
        images.append(conv(value, around))
    w = builder.input("w", tensor_type(dtype, (rows, depth, *window)))
    scale, shift = (builder.input(name, tensor_type(dtype, (1, n, 1, 1))) for name, n in (("scale", rows), ("shift", depth)))
    for i, value in enumerate(function(*images, w, scale, shift)):
        graph.set_output(f"y{i}", value.id)
    ChannelsLast().run(graph)
    return graph, [k for k in fuse(graph, Target("test", kinds)).kernels if not k.is_view]


def backward(g, y, z, w, scale, shift):
    """Batch norm's backward ahead of both gradients, and what it takes of the next one; x is made of z."""
    d = add(multiply(where(greater(y, 0.0), g, 0.0), scale), y)
    dx = conv_transpose(d, w)
    return [dx, reduce_sum(dx, (0, 2, 3)), reduce_sum(multiply(dx, z), (0, 2, 3)), weight_gradient(d, add(z, shift))]


def formed(function, **how):
    graph, kernels = partition(function, **how)
    return [[graph[i].op.name for i in kernel.nodes] for kernel in kernels if kernel.kind == KIND]


def test_both_gradients_and_the_work_around_them_are_one_kernel() -> None:
    graph, kernels = partition(backward)
    assert [print_kernel(graph, k) for k in kernels if k.kind == KIND] == [GOLDEN]


GOLDEN = """\
kernel @reshape_1 = pointwise_gradients (%where, %scale, %conv_1, %w, %conv_2, %shift) -> (%conv_transpose, %sum, %sum_1, \
%reshape_1) {  # 1,319,360 bytes
  %multiply = multiply(%where, %scale) : f32[2,64,32,32]{0,2,3,1}
  %add = add(%multiply, %conv_1) : f32[2,64,32,32]{0,2,3,1}
  %conv_transpose = conv_transpose(%add, %w) stride=(1, 1) padding=(0, 0) dilation=(1, 1) groups=1 output_size=(32, 32) : \
f32[2,16,32,32]{0,2,3,1}
  %sum = sum(%conv_transpose) axes=(0, 2, 3) keepdims=False : f32[16]
  %multiply_1 = multiply(%conv_transpose, %conv_2) : f32[2,16,32,32]{0,2,3,1}
  %sum_1 = sum(%multiply_1) axes=(0, 2, 3) keepdims=False : f32[16]
  %add_1 = add(%conv_2, %shift) : f32[2,16,32,32]{0,2,3,1}
  %transpose = transpose(%add) axes=(1, 0, 2, 3) : f32[64,2,32,32]
  %reshape = reshape(%transpose) shape=(1, 64, 2048) : f32[1,64,2048]
  %im2col = im2col(%add_1) kernel=(1, 1) stride=(1, 1) padding=((0, 0), (0, 0)) dilation=(1, 1) groups=1 : f32[1,2048,16]
  %matmul = matmul(%reshape, %im2col) : f32[1,64,16]
  %reshape_1 = reshape(%matmul) shape=(64, 16, 1, 1) : f32[64,16,1,1]
}"""


def test_without_the_kind_there_are_the_kernels_that_it_is_made_of() -> None:
    _, kernels = partition(backward, kinds=KINDS - {KIND})
    assert {"elementwise", "conv_transpose_sums", "conv_weight_gradient"} <= {k.kind for k in kernels}


def test_a_value_that_is_read_elsewhere_is_stored_but_read_once() -> None:
    def function(g, y, z, w, scale, shift):
        d = multiply(g, scale)
        return [conv_transpose(d, w), weight_gradient(d, z), reduce_sum(d, (0, 2, 3))]

    (nodes,) = formed(function)
    assert "conv_transpose" in nodes
    assert "matmul" in nodes
    assert "multiply" not in nodes


def test_work_on_what_one_gradient_reads_alone() -> None:
    (nodes,) = formed(lambda g, y, z, w, scale, shift: [weight_gradient(g, add(z, shift))])
    assert nodes == ["add", "transpose", "reshape", "im2col", "matmul", "reshape"]
    (nodes,) = formed(lambda g, y, z, w, scale, shift: [weight_gradient(multiply(g, scale), z)])
    assert nodes == ["multiply", "transpose", "reshape", "im2col", "matmul", "reshape"]


def test_both_gradients_without_work() -> None:
    (nodes,) = formed(lambda g, y, z, w, scale, shift: [conv_transpose(g, w), weight_gradient(g, z)])
    assert sorted(nodes) == sorted(["conv_transpose", "transpose", "reshape", "im2col", "matmul", "reshape"])


def test_a_weight_gradient_by_itself_stays_what_it_is() -> None:
    assert not formed(lambda g, y, z, w, scale, shift: [weight_gradient(g, z)])


@pytest.mark.parametrize(
    "how",
    [{"rows": 512, "depth": 512}, {"size": (5, 5)}, {"dtype": "f16"}],
    ids=["a large weight", "a small image", "another type"],
)
def test_where_it_does_not_pay(how) -> None:
    assert not formed(backward, **how)


def test_other_convolutions() -> None:
    def strided(g, y, z, w, scale, shift):
        return [conv_transpose(g, w, stride=2, output_padding=1), weight_gradient(g, z, stride=(2, 2))]

    def wide(g, y, z, w, scale, shift):
        return [conv_transpose(g, w, padding=1), weight_gradient(g, z, (3, 3), padding=((1, 1), (1, 1)))]

    assert not formed(strided, size=(32, 32), out=(16, 16))
    assert not formed(wide, window=(3, 3))


def test_work_that_is_not_light_or_reads_numbers_of_single_images() -> None:
    def dear(g, y, z, w, scale, shift):
        d = exp(g)
        return [conv_transpose(d, w), weight_gradient(d, z)]

    def by_image(g, y, z, w, scale, shift):
        d = multiply(g, reshape(reduce_sum(y, (2, 3)), (2, 64, 1, 1)))
        return [conv_transpose(d, w), weight_gradient(d, z)]

    def long(g, y, z, w, scale, shift):
        d = g
        for _ in range(17):
            d = negative(add(d, scale))
        return [conv_transpose(d, w), weight_gradient(d, z)]

    for function in (dear, by_image, long):
        (nodes,) = formed(function)
        assert not {"exp", "multiply", "add", "negative"} & set(nodes)


def test_what_needs_the_input_gradient_does_not_close_a_circle() -> None:
    """x of the weight gradient is computed from the input gradient: they cannot be one kernel."""

    def function(g, y, z, w, scale, shift):
        dx = conv_transpose(g, w)
        return [dx, weight_gradient(g, exp(dx))]

    graph, kernels = partition(function)
    home = {i: k.name for k in kernels for i in k.nodes}
    quotient = nx.DiGraph()
    for i in home:
        quotient.add_edges_from((home[o], home[i]) for o in graph[i].operands if o in home and home[o] != home[i])
    assert nx.is_directed_acyclic_graph(quotient)
    assert KIND not in {k.kind for k in kernels}


def test_the_same_groups_for_every_batch() -> None:
    assert len({str(formed(backward, batch=batch)) for batch in (1, 2, 64)}) == 1


def test_which_weight_gradients_may_make_what_they_read() -> None:
    def answers(function, **how):
        graph, _ = partition(function, **how)
        return [takes_work(graph, graph[i]) for i in graph.order() if graph[i].op.name == "im2col"]

    assert answers(backward) == [True]
    assert answers(backward, size=(5, 5)) == [False]
    assert answers(backward, rows=512, depth=512) == [False]
    assert answers(lambda g, y, z, w, scale, shift: [weight_gradient(g, z, (3, 3), padding=((1, 1), (1, 1)))]) == [False]


# --- training ----------------------------------------------------------------------------------------------------------------


class Bottleneck(nn.Module):
    """Pointwise convolutions with batch norm around a small one, with a skip connection: 33 and 19 channels of 37 x 35."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 19, 3, padding=1, bias=False), nn.BatchNorm2d(19)
        self.wide, self.wide_norm = nn.Conv2d(19, 33, 1, bias=False), nn.BatchNorm2d(33)
        self.deep, self.deep_norm = nn.Conv2d(33, 33, 3, padding=1, groups=33, bias=False), nn.BatchNorm2d(33)
        self.narrow, self.narrow_norm = nn.Conv2d(33, 19, 1, bias=False), nn.BatchNorm2d(19)
        self.head = nn.Linear(19, 5)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        y = F.relu6(self.wide_norm(self.wide(x)))
        y = F.relu6(self.deep_norm(self.deep(y)))
        return self.head((x + self.narrow_norm(self.narrow(y))).mean((2, 3)))


def trained(backend, batches) -> tuple[list[float], dict[str, np.ndarray], set[str]]:
    """Losses, final parameters and kinds of kernels of a few steps."""
    manual_seed(0)
    model = Bottleneck()
    step = irconv.compile_step(model, F.cross_entropy, optim.SGD(model.parameters(), 0.05, momentum=0.9), backend=backend)
    losses = [float(step(x, t)) for x, t in batches]
    kinds = {kernel.kind for kernel in step.compiled.kernels}
    return losses, {name: np.array(p.numpy()) for name, p in model.named_parameters()}, kinds


def test_training_is_that_of_the_numpy_backend() -> None:
    compiler_or_skip()
    rng = np.random.default_rng(3)
    sizes = [3] * 8 + [5, 1, 3]  # the step is compiled for the first one
    batches = [(rng.standard_normal((n, 3, 37, 35)).astype(np.float32), rng.integers(0, 5, n)) for n in sizes]
    (losses, weights, kinds), (expected, exact, _) = (trained(backend, batches) for backend in ("native", "numpy"))
    assert KIND in kinds
    np.testing.assert_allclose(losses, expected, rtol=2e-4)
    for name, value in weights.items():
        np.testing.assert_allclose(value, exact[name], rtol=2e-3, atol=2e-4, err_msg=name)
