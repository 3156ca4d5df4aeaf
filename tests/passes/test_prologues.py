"""Elementwise work ahead of contractions and pools: what is taken, and what is left with which reason."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.graph import Graph
from irconv.kernel import Kernel, print_kernel
from irconv.ops.concat import concat
from irconv.ops.contract import matmul
from irconv.ops.conv import conv, conv_transpose
from irconv.ops.elementwise import add, exp, greater, multiply, relu, square, subtract, where
from irconv.ops.pool import argmax_pool, avg_pool, max_pool
from irconv.ops.reduce import reduce_mean
from irconv.passes.fuse import fuse
from irconv.target import Target
from irconv.types import channels_last
from tests.passes.building import build

KINDS = frozenset(
    {
        *("elementwise", "conv_epilogue", "conv_transpose_epilogue", "matmul_epilogue", "pool_indices"),
        *("conv_prologue", "conv_transpose_prologue", "matmul_prologue", "pool_prologue"),
    }
)
TARGET = Target("test", KINDS)
CHANNELS = np.ones((8, 1, 1), np.float32)


def lowered(function, states=None, stored_last=True, target=TARGET, **inputs: str):
    """A graph whose images are stored channels last, its kernels and the reasons for what crosses them."""
    graph = build(function, states, **inputs)
    for node in [graph[i] for i in graph.order()]:
        if stored_last and not node.is_leaf and len(node.type.shape) == 4:
            graph.set_layout(node.id, channels_last(4))
    partition = fuse(graph, target)
    return graph, partition.kernels, partition.reasons


def parts(graph: Graph, kernels: tuple[Kernel, ...]) -> list[tuple[str, list[str]]]:
    return [(kernel.kind, [graph[i].op.name for i in kernel.nodes]) for kernel in kernels]


def scaled(x, scale, shift):
    return relu(add(multiply(x, scale), shift))


# --- contractions ----------------------------------------------------------------------------------------------------------


def test_the_kernel_of_a_prologue_and_an_epilogue_is_drawn():
    graph, kernels, _ = lowered(
        lambda x, w, b, scale, shift: relu(add(conv(scaled(x, scale, shift), w, padding=1), b)),
        {"w": np.ones((4, 8, 3, 3), np.float32), "b": np.ones((4, 1, 1), np.float32), "scale": CHANNELS, "shift": CHANNELS},
        x="f32[2,8,6,6]",
    )
    (kernel,) = kernels
    assert print_kernel(graph, kernel).splitlines() == [
        "kernel @relu_1 = conv_prologue (%x, %scale, %shift, %w, %b) -> (%relu_1) {  # 4,688 bytes",
        "  %multiply = multiply(%x, %scale) : f32[2,8,6,6]{0,2,3,1}  # model.py:1",
        "  %add = add(%multiply, %shift) : f32[2,8,6,6]{0,2,3,1}  # model.py:1",
        "  %relu = relu(%add) : f32[2,8,6,6]{0,2,3,1}  # model.py:1",
        "  %conv = conv(%relu, %w) stride=(1, 1) padding=((1, 1), (1, 1)) dilation=(1, 1) groups=1 : f32[2,4,6,6]{0,2,3,1}  # model.py:1",
        "  %add_1 = add(%conv, %b) : f32[2,4,6,6]{0,2,3,1}  # model.py:1",
        "  %relu_1 = relu(%add_1) : f32[2,4,6,6]{0,2,3,1}  # model.py:1",
        "}",
    ]


def test_a_dense_block_reads_its_concatenation_once():
    graph, kernels, _ = lowered(
        lambda x, y, w, scale, shift: conv(scaled(concat([x, y], 1), scale, shift), w),
        {"w": np.ones((4, 8, 1, 1), np.float32), "scale": CHANNELS, "shift": CHANNELS},
        x="f32[2,5,6,6]",
        y="f32[2,3,6,6]",
    )
    assert parts(graph, kernels) == [("concat", ["concat"]), ("conv_prologue", ["multiply", "add", "relu", "conv"])]


def test_a_mask_ahead_of_a_product():
    graph, kernels, _ = lowered(lambda x, mask, w: matmul(multiply(x, mask), w), x="f32[4,8]", mask="f32[4,8]", w="f32[8,3]")
    assert parts(graph, kernels) == [("matmul_prologue", ["multiply", "matmul"])]


def test_the_gradient_of_a_convolution_takes_what_masks_it():
    graph, kernels, _ = lowered(
        lambda d, x, w: conv_transpose(where(greater(x, 0.0), d, 0.0), w), d="f32[2,8,6,6]", x="f32[2,8,6,6]", w="f32[8,4,1,1]"
    )
    assert parts(graph, kernels) == [("conv_transpose_prologue", ["greater", "where", "conv_transpose"])]


def test_what_a_convolution_makes_stays_its_epilogue():
    graph, kernels, _ = lowered(
        lambda x, v, w, scale, shift: conv(scaled(conv(x, v), scale, shift), w),
        {"w": np.ones((4, 8, 1, 1), np.float32), "scale": CHANNELS, "shift": CHANNELS},
        x="f32[2,3,6,6]",
        v="f32[8,3,1,1]",
    )
    assert parts(graph, kernels) == [("conv_epilogue", ["conv", "multiply", "add", "relu"]), ("conv", ["conv"])]


def test_a_pre_activation_block_computes_its_first_activation_and_adds_what_came_in():
    def block(x, v, w, scale, shift):
        inside = relu(conv(scaled(x, scale, shift), v, padding=1))
        return add(conv(inside, w, padding=1), x)

    states = {"v": np.ones((8, 8, 3, 3), np.float32), "w": np.ones((8, 8, 3, 3), np.float32), "scale": CHANNELS, "shift": CHANNELS}
    graph, kernels, _ = lowered(block, states, x="f32[2,8,6,6]")
    assert parts(graph, kernels) == [
        ("conv_prologue", ["multiply", "add", "relu", "conv", "relu"]),
        ("conv_epilogue", ["conv", "add"]),
    ]


def test_a_target_without_the_kind_keeps_its_epilogues():
    graph, kernels, _ = lowered(
        lambda x, w, scale, shift: relu(conv(scaled(x, scale, shift), w)),
        {"w": np.ones((4, 8, 1, 1), np.float32), "scale": CHANNELS, "shift": CHANNELS},
        target=Target("plain", frozenset({"elementwise", "conv_epilogue"})),
        x="f32[2,8,6,6]",
    )
    assert parts(graph, kernels) == [("elementwise", ["multiply", "add", "relu"]), ("conv_epilogue", ["conv", "relu"])]


# --- what is left, and why --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "inputs", "reason"),
    [
        (lambda x, w: conv(exp(x), w), {"x": "f32[2,8,6,6]", "w": "f32[4,8,1,1]"}, "not light enough"),
        (
            lambda x, w: conv(add(add(x, x), add(multiply(x, 2.0), relu(x))), w, padding=1),
            {"x": "f32[2,8,6,6]", "w": "f32[4,8,3,3]"},
            None,
        ),
        (
            lambda x, y, w: conv(add(x, y), w, padding=1),
            {"x": "f32[2,8,6,6]", "y": "f32[2,8,6,6]", "w": "f32[4,8,3,3]"},
            "several values of full size",
        ),
        (lambda x, w: conv(relu(x), w, stride=2), {"x": "f32[2,8,6,6]", "w": "f32[4,8,3,3]"}, "windows overlap"),
        (lambda x, w: conv(relu(x), w, stride=2), {"x": "f32[2,3,6,6]", "w": "f32[4,3,3,3]"}, None),
        (lambda x, w: conv(relu(x), w), {"x": "f32[2,8,6,6]", "w": "f32[4,8,5,5]"}, "windows overlap"),
        (lambda x, w: conv(relu(x), w, groups=8), {"x": "f32[2,8,6,6]", "w": "f32[8,1,3,3]"}, None),
        (lambda x, y, w: conv(add(x, y), w, groups=8), {"x": "f32[2,8,6,6]", "y": "f32[2,8,6,6]", "w": "f32[8,1,3,3]"}, None),
        (lambda x, w: conv(relu(x), w, groups=8), {"x": "f32[2,8,6,6]", "w": "f32[16,1,3,3]"}, "depthwise"),
        (lambda x, w: conv(relu(x), w, groups=8), {"x": "f32[1,8,6,10922]", "w": "f32[8,1,3,3]"}, None),
        (lambda x, w: conv(relu(x), w, groups=8), {"x": "f32[1,8,6,10923]", "w": "f32[8,1,3,3]"}, "depthwise"),
        (lambda x, w: conv(relu(x), w, groups=8), {"x": "f32[2,8,6]", "w": "f32[8,1,3]"}, "depthwise"),
        (lambda x, w: conv_transpose(relu(x), w, groups=8), {"x": "f32[2,8,6,6]", "w": "f32[8,1,3,3]"}, "depthwise"),
        (lambda x, w: conv_transpose(relu(x), w, stride=2), {"x": "f32[2,8,6,6]", "w": "f32[8,4,2,2]"}, "in several orders"),
        (lambda x, w: conv(relu(x), w), {"x": "f64[2,8,6,6]", "w": "f64[4,8,3,3]"}, "windows overlap"),
        (lambda x, w: matmul(relu(x), w), {"x": "f32[2,512]", "w": "f32[512,257]"}, "does not stay in a cache"),
        (lambda x, w: matmul(relu(x), w), {"x": "f32[2,512]", "w": "f32[512,256]"}, None),
        (lambda x, w: matmul(relu(x), w), {"x": "f32[3,2,512]", "w": "f32[3,512,256]"}, None),
        (lambda x, w: conv(relu(x), w), {"x": "f32[2,512,6,6]", "w": "f32[257,512,1,1]"}, "does not stay in a cache"),
        (lambda x, w: conv(relu(x), w, groups=2), {"x": "f32[2,1024,6,6]", "w": "f32[512,512,1,1]"}, None),
        (lambda x, w: matmul(relu(x), w), {"x": "i32[2,8]", "w": "i32[8,4]"}, "not with i32"),
        (lambda x, w: matmul(relu(x), w), {"x": "f32[1,2,8]", "w": "f32[3,8,4]"}, "not read one after the other"),
    ],
)
def test_what_is_taken_and_what_is_left_for_which_reason(function, inputs, reason):
    _, kernels, reasons = lowered(function, **inputs)
    if reason is None:
        assert len(kernels) == 1 and kernels[0].kind.endswith("_prologue")
        return
    assert len(kernels) == 2 and not any(kernel.kind.endswith("_prologue") for kernel in kernels)
    (said,) = reasons.values()
    assert reason in said


def test_what_others_read_is_stored():
    def both(x, v, w):
        active = relu(x)
        return conv(active, v), conv(active, w)

    _, kernels, reasons = lowered(both, x="f32[2,8,6,6]", v="f32[4,8,1,1]", w="f32[4,8,1,1]")
    assert sorted(kernel.kind for kernel in kernels) == ["conv", "conv", "relu"]
    assert set(reasons.values()) == {"%relu is also read elsewhere, so it has to be stored"}


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x, v, w: conv(exp(x), v), "not light enough"),
        (lambda x, v, w: conv(relu(x), w, padding=1), "kernels of kind conv_statistics read their input from memory"),
    ],
)
def test_what_a_convolution_with_statistics_reads_is_stored(function, reason):
    def with_moments(x, v, w):
        y = function(x, v, w)
        mean = reduce_mean(y, (0, 2, 3), True)
        return y, mean, reduce_mean(square(subtract(y, mean)), (0, 2, 3), True)

    target = Target("test", KINDS | {"conv_statistics"})
    _, kernels, reasons = lowered(with_moments, target=target, x="f32[2,16,6,6]", v="f32[16,16,1,1]", w="f32[16,16,3,3]")
    assert [kernel.kind for kernel in kernels][1:] == ["conv_statistics"]
    (said,) = reasons.values()
    assert reason in said


def test_what_a_convolution_with_its_pool_reads_is_stored():
    graph = build(lambda x, w: max_pool(conv(relu(x), w), 2), x="f32[2,8,6,6]", w="f32[4,8,1,1]")
    partition = fuse(graph, Target("test", KINDS | {"conv_pool"}))
    assert [kernel.kind for kernel in partition.kernels] == ["relu", "conv_pool"]
    assert set(partition.reasons.values()) == {"kernels of kind conv_pool read their input from memory"}


def test_a_product_of_a_value_with_itself_reads_it_from_memory():
    _, kernels, _ = lowered(lambda x: (lambda r: matmul(r, r))(relu(x)), x="f32[8,8]")
    assert [kernel.kind for kernel in kernels] == ["relu", "matmul"]


# --- pools -----------------------------------------------------------------------------------------------------------------


def test_normalisation_and_activation_ahead_of_a_pool_with_its_indices():
    def pooled(x, scale, shift):
        active = scaled(x, scale, shift)
        return max_pool(active, 3, 2, 1), argmax_pool(active, 3, 2, 1)

    graph, kernels, _ = lowered(pooled, {"scale": CHANNELS, "shift": CHANNELS}, x="f32[2,8,6,6]")
    assert parts(graph, kernels) == [("pool_prologue", ["multiply", "add", "relu", "max_pool", "argmax_pool"])]
    assert [graph[i].name for i in kernels[0].inputs] == ["x", "scale", "shift"]


@pytest.mark.parametrize(
    ("function", "stored_last"),
    [
        (lambda x, y: max_pool(relu(x), 3, 1), True),  # each element belongs to nine windows
        (lambda x, y: max_pool(add(x, y), 2), True),  # two values of full size
        (lambda x, y: avg_pool(exp(x), 2), True),
        (lambda x, y: avg_pool(relu(x), 2), False),  # vectors do not run along the channels
    ],
)
def test_pools_that_read_what_is_stored(function, stored_last):
    _, kernels, _ = lowered(function, stored_last=stored_last, x="f32[2,8,6,6]", y="f32[2,8,6,6]")
    assert not any(kernel.kind == "pool_prologue" for kernel in kernels)


def test_a_pooled_value_with_other_readers_is_stored():
    def read_twice(x):
        active = relu(x)
        return max_pool(active, 2), multiply(active, active)

    _, kernels, _ = lowered(read_twice, x="f32[2,8,6,6]")
    assert not any(kernel.kind == "pool_prologue" for kernel in kernels)
