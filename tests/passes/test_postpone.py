"""Masked gradients are computed where they are read: when, with what bits, and what is no longer stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn, optim
from irconv.graph import Graph
from irconv.kernel import kernel_bytes
from irconv.ops.contract import matmul
from irconv.ops.elementwise import add, clip, exp, greater, greater_equal, less_equal, multiply, relu, subtract, where
from irconv.ops.reduce import reduce_sum
from irconv.ops.shape import transpose
from irconv.passes.fuse import fuse
from irconv.passes.layout import ChannelsLast
from irconv.passes.recompute import Recompute
from irconv.target import Target
from irconv.types import BOOL
from tests.passes.building import build, run

KINDS = frozenset({"elementwise", "elementwise_reduce", "matmul_epilogue", "reductions"})
INPUTS = {"x": "f32[64,8]", "h": "f32[64,5]", "w": "f32[5,8]", "mean": "f32[1,8]", "scale": "f32[1,8]"}


def normalised(x, mean, scale):
    return multiply(subtract(x, mean), scale)


def backward(d, x, mean, scale):
    """Both sums over the batch, and the gradient of the input, which needs them."""
    total, product = reduce_sum(d, (0,), True), reduce_sum(multiply(d, subtract(x, mean)), (0,), True)
    return add(add(multiply(d, scale), multiply(subtract(x, mean), product)), total)


def behind_relu6(x, h, w, mean, scale):
    z = normalised(x, mean, scale)
    masks = greater_equal(z, 1.0), less_equal(z, 0.0)
    g = matmul(h, w)
    return clip(z, 0.0, 1.0), backward(where(masks[1], 0.0, where(masks[0], 0.0, g)), x, mean, scale)


def behind_relu(x, h, w, mean, scale):
    y = relu(normalised(x, mean, scale))
    return y, backward(where(greater(y, 0.0), matmul(h, w), 0.0), x, mean, scale)


def as_training(graph: Graph) -> Graph:
    """What only the second result needs counts as backward."""
    forward = graph.ancestors([graph.outputs["y0"]])
    for node in list(graph):
        if node.id not in forward and not node.is_leaf and "less" not in node.op.name and "greater_" not in node.op.name:
            graph.set_provenance(node.id, replace(node.provenance, origin="y"))
    return graph


def crossing(graph: Graph) -> tuple[list[str], int]:
    """The ops that make stored values of full size, and the bytes that cross kernels."""
    kernels = [k for k in fuse(graph, Target("test", KINDS)).kernels if not k.is_view]
    made = [graph[i].op.name for k in kernels for i in k.outputs if graph[i].type.size == 64 * 8]
    return sorted(made), sum(kernel_bytes(graph, k) for k in kernels)


@pytest.mark.parametrize("function", [behind_relu6, behind_relu])
def test_no_mask_is_stored_and_the_gradient_as_it_comes(function):
    before = as_training(build(function, **INPUTS))
    after, _ = run(Recompute(), before)
    made, crossed = crossing(after)
    activation = "clip" if function is behind_relu6 else "relu"
    assert made == sorted([activation, "matmul", "add"])
    assert crossed < crossing(before)[1]
    kinds = [k.kind for k in fuse(after, Target("test", KINDS)).kernels if not k.is_view]
    assert sorted(kinds) == ["elementwise", "elementwise", "matmul", "reductions"]


def test_special_numbers_pass_the_masks_alike():
    x = np.resize(np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1.0, -1e-40], np.float32), (64, 8))
    leaves = {"x": x, "h": np.resize(np.array([1.0, -0.0, np.nan, np.inf], np.float32), (64, 5))}
    for function in (behind_relu6, behind_relu):
        run(Recompute(), as_training(build(function, **INPUTS)), leaves)


def refused(function) -> None:
    graph = as_training(build(function, **INPUTS))
    wheres = [n.name for n in graph if n.op.name == "where"]
    after, _ = run(Recompute(), graph)
    assert [n.name for n in after if n.op.name == "where"] == wheres


def test_a_gradient_that_others_need_too_is_stored():
    def also_summed_up(x, h, w, mean, scale):  # over other axes: a kernel of its own
        y = relu(normalised(x, mean, scale))
        d = where(greater(y, 0.0), matmul(h, w), 0.0)
        return y, backward(d, x, mean, scale), reduce_sum(multiply(d, x), (1,))

    def also_multiplied(x, h, w, mean, scale):
        y = relu(normalised(x, mean, scale))
        d = where(greater(y, 0.0), matmul(h, w), 0.0)
        return y, backward(d, x, mean, scale), matmul(w, transpose(d, (1, 0)))

    def a_result(x, h, w, mean, scale):
        y = relu(normalised(x, mean, scale))
        d = where(greater(y, 0.0), matmul(h, w), 0.0)
        return y, backward(d, x, mean, scale), d

    for function in (also_summed_up, also_multiplied, a_result):
        refused(function)


def test_an_unmasked_gradient_that_others_read_is_stored_anyway():
    def shared(x, h, w, mean, scale):
        y = relu(normalised(x, mean, scale))
        g = matmul(h, w)
        return y, backward(where(greater(y, 0.0), g, 0.0), x, mean, scale), exp(g)

    refused(shared)


def test_two_more_values_to_read_are_too_many():
    def residual(x, h, w, mean, scale):  # the mask needs the shortcut as well
        y = relu(add(normalised(x, mean, scale), matmul(multiply(h, 2.0), w)))
        return y, backward(where(greater(y, 0.0), matmul(h, w), 0.0), x, mean, scale)

    refused(residual)


def test_dear_steps_are_not_repeated():
    def dear(x, h, w, mean, scale):
        y = exp(normalised(x, mean, scale))
        return y, backward(where(greater(y, 1.0), matmul(h, w), 0.0), x, mean, scale)

    refused(dear)


def test_without_the_input_at_hand_the_mask_is_kept():
    def bias_only(x, h, w, mean, scale):
        y = relu(normalised(x, mean, scale))
        d = where(greater(y, 0.0), matmul(h, w), 0.0)
        return y, add(multiply(d, scale), reduce_sum(d, (0,), True))

    refused(bias_only)


def test_a_training_step_of_convolutions_stores_no_masks():
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(8 * 12 * 12, 4))
    specs = irconv.TensorSpec((2, 3, 16, 16)), irconv.TensorSpec((2,), "int64")
    step = irconv.compile_step(model, F.cross_entropy, optim.SGD(model.parameters(), 0.1), *specs, backend="numpy")
    graph = step.stages[-1].graph.copy()
    ChannelsLast().run(graph)
    Recompute().run(graph)
    kernels = fuse(graph, Target("test", KINDS | {"conv_epilogue", "conv_transpose_epilogue", "mean_variance"})).kernels
    masks = [graph[i].name for k in kernels for i in k.outputs if graph[i].type.dtype is BOOL]
    assert not [name for name in masks if graph[name].type.shape[2:] == (14, 14)]
    plain = [k.kind for k in kernels if graph[k.nodes[0]].op.name == "conv_transpose"]
    assert plain == ["conv_transpose"]
