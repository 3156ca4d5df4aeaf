"""Work that every reader computes for itself: which values are copied, that nothing changes by it, and what is stored then."""

from __future__ import annotations

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn, optim
from irconv.graph import Graph
from irconv.ops.conv import conv
from irconv.ops.elementwise import add, clip, exp, multiply, relu, subtract
from irconv.ops.pool import max_pool
from irconv.ops.reduce import reduce_mean
from irconv.ops.shape import reshape
from irconv.passes.recompute import Recompute
from irconv.random import manual_seed
from irconv.types import channels_last
from tests.backends.handwritten import compiler_or_skip
from tests.passes.building import assert_same_bits, build, golden, text

IMAGE = "f32[2,8,6,6]"
STATES = {
    "v": np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8, 1, 1),
    "w": np.linspace(1, -2, 128, dtype=np.float32).reshape(16, 8, 1, 1),
    "k": np.linspace(-1, 2, 72, dtype=np.float32).reshape(8, 1, 3, 3),
    "full": np.linspace(-1, 2, 576, dtype=np.float32).reshape(8, 8, 3, 3),
    "scale": np.linspace(0.5, 2, 8, dtype=np.float32).reshape(1, 8, 1, 1),
}


def recomputed(function, stored_last=True, **inputs: str) -> tuple[Graph, bool]:
    """The graph of a function whose images are stored channels last, after the pass, and whether that changed it."""
    before = build(function, STATES, **(inputs or {"x": IMAGE}))
    for node in [before[i] for i in before.order()]:
        if stored_last and not node.is_leaf and node.type.rank == 4 and node.type.shape[2:] != (1, 1):
            before.set_layout(node.id, channels_last(4))
    after = before.copy()
    changed = Recompute().run(after)
    assert_same_bits(before, after)
    return after, changed


def normalised(x, v, scale):
    """A convolution's result, with its means taken, and what is made of it."""
    y = conv(x, v)
    mean = reduce_mean(y, (0, 2, 3))
    return mean, clip(multiply(subtract(y, reshape(mean, (1, 8, 1, 1))), scale), 0.0, 6.0)


def test_each_reader_gets_the_work_for_itself():
    def function(x, v, w, k, full, scale):
        mean, active = normalised(x, v, scale)
        return mean, conv(active, w), conv(active, k, padding=1, groups=8)

    after, _ = recomputed(function)
    assert text(after) == golden("""
        %conv = conv(%x, %v) stride=[1,1] padding=[[0,0],[0,0]] dilation=[1,1] groups=1 : f32[2,8,6,6]{0,2,3,1}
        %mean = mean(%conv) axes=[0,2,3] keepdims=false : f32[8]
        %reshape = reshape(%mean) shape=[1,8,1,1] : f32[1,8,1,1]
        %subtract = subtract(%conv, %reshape) : f32[2,8,6,6]{0,2,3,1}
        %multiply = multiply(%subtract, %scale) : f32[2,8,6,6]{0,2,3,1}
        %clip = clip(%multiply) minimum=0.0 maximum=6.0 : f32[2,8,6,6]{0,2,3,1}
        %conv_1 = conv(%clip, %w) stride=[1,1] padding=[[0,0],[0,0]] dilation=[1,1] groups=1 : f32[2,16,6,6]{0,2,3,1}
        %reshape_1 = reshape(%mean) shape=[1,8,1,1] : f32[1,8,1,1]
        %subtract_again = subtract(%conv, %reshape_1) : f32[2,8,6,6]{0,2,3,1}
        %multiply_again = multiply(%subtract_again, %scale) : f32[2,8,6,6]{0,2,3,1}
        %clip_again = clip(%multiply_again) minimum=0.0 maximum=6.0 : f32[2,8,6,6]{0,2,3,1}
        %conv_2 = conv(%clip_again, %k) stride=[1,1] padding=[[1,1],[1,1]] dilation=[1,1] groups=8 : f32[2,8,6,6]{0,2,3,1}
        return y0 = %mean, y1 = %conv_1, y2 = %conv_2
    """)


def with_readers(read):
    """The normalised value of a convolution, read by ``read`` and by a convolution of single pixels."""

    def function(x, v, w, k, full, scale):
        mean, active = normalised(x, v, scale)
        return mean, conv(active, w), *read(active, k, full)

    return function


def of(make, with_mean=True):
    """Two convolutions of what ``make`` makes of a convolution's result, which its means are taken of or not."""

    def function(x, v, w, k, full, scale):
        y = conv(x, v)
        value = make(y, scale)
        return (*([reduce_mean(y, (0, 2, 3))] if with_mean else []), conv(value, w), conv(value, k, groups=8))

    return function


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(with_readers(lambda a, k, full: [conv(a, full, padding=1)]), id="a reader that needs it in memory"),
        pytest.param(with_readers(lambda a, k, full: [conv(a, reduce_mean(full, (2, 3), True))]), id="a reader with few columns"),
        pytest.param(with_readers(lambda a, k, full: [conv(a, k, groups=8), exp(a)]), id="a further one that does"),
        pytest.param(with_readers(lambda a, k, full: [conv(a, k, groups=8), a]), id="a result"),
        pytest.param(with_readers(lambda a, k, full: []), id="a single reader"),
        pytest.param(of(lambda y, scale: relu(multiply(y, scale)), with_mean=False), id="nothing else that is stored"),
        pytest.param(of(lambda y, scale: exp(multiply(y, scale))), id="dear work"),
        pytest.param(of(lambda y, scale: multiply(add(y, max_pool(y, 1)), scale)), id="two images"),
        pytest.param(of(lambda y, scale: multiply(y, reduce_mean(y, (2, 3), True))), id="numbers of each sample"),
    ],
)
def test_what_is_stored_for_all(function):
    before = {n.name for n in build(function, STATES, x=IMAGE)}
    after, _ = recomputed(function)
    assert not [after[i].name for i in after.order() if after[i].op.name == "multiply" and after[i].name not in before]


def test_row_major_images_are_stored():
    function = with_readers(lambda a, k, full: [conv(a, k, groups=8)])
    assert sum(n.op.name == "clip" for n in recomputed(function)[0]) == 2
    assert sum(n.op.name == "clip" for n in recomputed(function, stored_last=False)[0]) == 1


# --- training -------------------------------------------------------------------------------------------------------------


def residual(channels: int, stride: int) -> nn.Sequential:
    """An inverted residual: expanded, filtered channel by channel, projected."""
    layers: list[nn.Module] = []
    for layer, width in (
        (nn.Conv2d(24, channels, 1, bias=False), channels),
        (nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), channels),
        (nn.Conv2d(channels, 24, 1, bias=False), 24),
    ):
        layers += [layer, nn.BatchNorm2d(width)] + [nn.ReLU6()] * (width == channels)
    return nn.Sequential(*layers)


def network() -> nn.Module:
    manual_seed(3)
    first = [nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6()]
    return nn.Sequential(*first, residual(72, 1), residual(67, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5))


def trained(backend: str, batches):
    """The losses of these steps, the states after them, and the step."""
    model = network()
    step = irconv.compile_step(model, F.cross_entropy, optim.SGD(model.parameters(), 0.02, momentum=0.9), backend=backend)
    losses = [float(step(x, target)) for x, target in batches]
    return losses, model.state_dict(), step


def test_training_comes_to_the_same_and_stores_no_input_of_a_depthwise_layer() -> None:
    compiler_or_skip()
    rng = np.random.default_rng(0)
    sizes = [(8, 67), (8, 67), (3, 67), (8, 67)]
    batches = [(rng.standard_normal((n, 3, s, s)).astype("f4"), rng.integers(0, 5, n)) for n, s in sizes]
    losses, states, step = trained("native", batches)
    expected, wanted, _ = trained("numpy", batches)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    for name, array in wanted.items():
        np.testing.assert_allclose(states[name], array, rtol=2e-3, atol=2e-4, err_msg=name)
    graph = step.compiled.graph
    stored = {i for kernel in step.compiled.kernels for i in kernel.outputs}
    inputs = [graph[i].operands[0] for i in graph.order() if graph[i].op.name == "conv" and graph[i].attributes.groups > 1]
    assert len(inputs) == 2 and stored.isdisjoint(inputs)
