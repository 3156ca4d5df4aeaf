"""Convolutions with the mean and variance of their channels: which kernels are formed, and that nothing changes by it."""

from __future__ import annotations

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn, optim
from irconv.builder import Builder
from irconv.graph import Graph
from irconv.kernel import print_kernel
from irconv.ops.conv import conv
from irconv.ops.elementwise import add, relu, square, subtract
from irconv.ops.pool import max_pool
from irconv.ops.reduce import reduce_mean
from irconv.ops.shape import reshape
from irconv.passes.fuse import fuse
from irconv.passes.layout import ChannelsLast
from irconv.random import manual_seed
from irconv.target import Target
from irconv.types import channels_last, tensor_type
from tests.backends.handwritten import compiler_or_skip
from tests.passes.building import build

KINDS = frozenset({"elementwise", "conv_epilogue", "mean_variance", "conv_statistics"})
ALL = (0, 2, 3)


def moments(y, axes=ALL):
    """As batch norm in training has them."""
    mean = reduce_mean(y, axes)
    back = [1 if axis in axes else n for axis, n in enumerate(y.shape)]
    return mean, reduce_mean(square(subtract(y, reshape(mean, back))), axes)


def partition(function, channels=32, dtype="f32", layout=True):
    """The kernels with code of a graph of ``function`` over an image and a weight."""
    graph = Graph()
    builder = Builder(graph)
    x = builder.input("x", tensor_type(dtype, (2, 16, 8, 8)))
    w = builder.input("w", tensor_type(dtype, (channels, 16, 3, 3)))
    for i, value in enumerate(function(x, w)):
        graph.set_output(f"y{i}", value.id)
    if layout:
        ChannelsLast().run(graph)
    kernels = [k for k in fuse(graph, Target("test", KINDS)).kernels if not k.is_view]
    return graph, kernels


def kinds(function, **how):
    return [k.kind for k in partition(function, **how)[1] if k.kind not in ("reshape", "relayout", "sum", "add")]


def normalised(x, w):
    """What reads the convolution besides its moments: the difference from the mean."""
    y = conv(x, w, 1, 1)
    mean, variance = moments(y)
    return [relu(subtract(y, reshape(mean, (1, y.shape[1], 1, 1)))), variance]


def test_a_convolution_and_its_moments_are_one_kernel() -> None:
    graph, kernels = partition(normalised)
    assert [print_kernel(graph, k) for k in kernels if k.kind == "conv_statistics"] == [GOLDEN]


GOLDEN = """\
kernel @mean_1 = conv_statistics (%x_stored, %w) -> (%conv, %mean, %mean_1) {  # 43,264 bytes
  %conv = conv(%x_stored, %w) stride=(1, 1) padding=((1, 1), (1, 1)) dilation=(1, 1) groups=1 : f32[2,32,8,8]{0,2,3,1}
  %mean = mean(%conv) axes=(0, 2, 3) keepdims=False : f32[32]
  %reshape = reshape(%mean) shape=(1, 32, 1, 1) : f32[1,32,1,1]
  %subtract = subtract(%conv, %reshape) : f32[2,32,8,8]{0,2,3,1}
  %square = square(%subtract) : f32[2,32,8,8]{0,2,3,1}
  %mean_1 = mean(%square) axes=(0, 2, 3) keepdims=False : f32[32]
}"""


@pytest.mark.parametrize(
    ("weight", "groups", "ahead"),
    [((24, 16, 1, 1), 1, ["add", "relu"]), ((16, 1, 3, 3), 16, ["add", "relu"]), ((24, 16, 3, 3), 1, [])],
)
def test_the_convolution_computes_what_it_reads_where_that_is_about_once_for_each_element(weight, groups, ahead) -> None:
    def function(x, w):
        y = conv(relu(add(x, 1.0)), w, 1, weight[2] // 2, 1, groups)
        return (y, *moments(y))

    graph = build(function, x="f32[2,16,8,8]", w=f"f32[{','.join(map(str, weight))}]")
    for node in [graph[i] for i in graph.order()]:
        if node.type.shape[2:] == (8, 8) and not node.is_leaf:
            graph.set_layout(node.id, channels_last(4))
    (kernel,) = (k for k in fuse(graph, Target("test", KINDS)).kernels if k.kind == "conv_statistics")
    names = [graph[i].op.name for i in kernel.nodes]
    assert names == [*ahead, "conv", "mean", "reshape", "subtract", "square", "mean"]


def test_with_a_bias_ahead() -> None:
    def biased(x, w):
        y = relu(add(conv(x, w, 1, 1), 1.0))
        return [relu(y), *moments(y)]

    graph, kernels = partition(biased)
    (kernel,) = [k for k in kernels if k.kind == "conv_statistics"]
    assert [graph[i].op.name for i in kernel.nodes[:3]] == ["conv", "add", "relu"]


def apart(why: str):
    """Builders of graphs in which the moments have to be a kernel of their own."""

    def over_other_axes(x, w):
        y = conv(x, w, 1, 1)
        return [relu(y), *moments(y, (2, 3))]

    def not_stored(x, w):
        return moments(conv(x, w, 1, 1))

    def wanted_between(x, w):
        y = conv(x, w, 1, 1)
        mean = reduce_mean(y, ALL)
        centred = subtract(y, reshape(mean, (1, y.shape[1], 1, 1)))
        return [relu(y), centred, reduce_mean(square(centred), ALL)]

    def of_something_else(x, w):
        y = conv(x, w, 1, 1)
        return [relu(y), *moments(max_pool(y, 2))]

    return {name.__name__: name for name in (over_other_axes, not_stored, wanted_between, of_something_else)}[why]


@pytest.mark.parametrize("why", ["over_other_axes", "not_stored", "wanted_between", "of_something_else"])
def test_what_stays_apart(why) -> None:
    found = kinds(apart(why))
    assert "conv_statistics" not in found
    assert "mean_variance" in found


@pytest.mark.parametrize("how", [{"channels": 8}, {"dtype": "f16"}, {"layout": False}])
def test_where_there_would_be_no_code(how) -> None:
    assert "conv_statistics" not in kinds(normalised, **how)


def network():
    """Every way to convolve forward: many channels, few, depthwise, 1x1, with a bias."""
    manual_seed(0)
    layers = [nn.Conv2d(3, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU6()]
    layers += [nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24), nn.ReLU6()]
    layers += [nn.Conv2d(24, 40, 1), nn.BatchNorm2d(40), nn.ReLU()]
    layers += [nn.Conv2d(40, 40, 3, padding=1, bias=False), nn.BatchNorm2d(40), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(40 * 8 * 8, 4))


def trained(backend, batches):
    """Losses and states of a few training steps."""
    model = network()
    step = irconv.compile_step(model, F.cross_entropy, optim.SGD(model.parameters(), 0.05), backend=backend)
    losses = [float(step(x, t)) for x, t in batches]
    return step, losses, {name: np.array(value) for name, value in model.state_dict().items()}


def test_training_comes_to_the_same_as_with_array_kernels() -> None:
    compiler_or_skip()
    rng = np.random.default_rng(0)
    batches = [(rng.standard_normal((n, 3, 16, 16)).astype("f4"), rng.integers(0, 4, n)) for n in (4, 4, 3)]
    step, losses, states = trained("native", batches)
    _, wanted, expected = trained("numpy", batches)
    wanted_kinds = ("conv_statistics", "conv_transpose_sums", "depthwise_backward")
    formed = [k for k in step.compiled.executable.kernels if k.kind in wanted_kinds]
    assert [sum(k.kind == kind for k in formed) for kind in wanted_kinds] == [4, 2, 1]
    assert all(k.name in step.compiled.executable.sources for k in formed)
    np.testing.assert_allclose(losses, wanted, rtol=1e-4)
    for name, value in expected.items():
        np.testing.assert_allclose(states[name], value, rtol=2e-3, atol=2e-4, err_msg=name)
