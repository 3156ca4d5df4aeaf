"""Counting: parameters, arithmetic and receptive fields, read off the graph before anything is computed."""

from __future__ import annotations

import pytest

import irconv
import irconv.nn.functional as F
from irconv import TensorSpec, nn
from irconv.cost import GraphCost, graph_cost, receptive_field


def cost_with_parameters(program, x: tuple[int, ...], weight: tuple[int, ...]) -> GraphCost:
    """The cost of ``program(x, weight)`` with the weight a parameter: no array is ever made."""
    graph = irconv.trace(program, TensorSpec(x), TensorSpec(weight, name="weight"))
    text = str(graph).replace("%weight: ", "param %weight: ", 1)
    return graph_cost(irconv.parse(text))


def test_fully_connected_layer_on_a_photograph() -> None:
    pixels = 12_000_000 * 3
    cost = cost_with_parameters(F.linear, (1, pixels), (100, pixels))
    assert cost.parameters == 3.6e9
    assert cost.parameter_bytes == 14.4e9
    assert cost.macs == 3.6e9


def test_fully_connected_layer_on_a_small_image_and_a_kernel() -> None:
    flat = irconv.trace(nn.Flatten(), TensorSpec((1, 3, 256, 256)))
    assert flat[flat.outputs[""]].type.size == 196_608
    assert cost_with_parameters(F.linear, (1, 196_608), (1000, 196_608)).parameters == 196_608_000
    assert graph_cost(irconv.trace(nn.Conv2d(1, 1, 3, bias=False), TensorSpec((1, 1, 256, 256)))).parameters == 9


CONV = (nn.Conv2d, (100, 100, 5), {"padding": 2, "bias": False})


def conv_cost() -> GraphCost:
    make, args, kwargs = CONV
    return graph_cost(irconv.trace(make(*args, **kwargs), TensorSpec((1, 100, 64, 64))))


def test_multiply_adds_of_a_convolution() -> None:
    cost = conv_cost()
    assert cost.macs == 1.024e9 and cost.flops == 2 * cost.macs
    assert [node.macs for node in cost.nodes.values()] == [1_024_000_000]


def test_ten_layers_over_a_million_images() -> None:
    one = conv_cost().macs
    layers = nn.Sequential(*(nn.Conv2d(100, 100, 5, padding=2, bias=False) for _ in range(10)))
    total = graph_cost(irconv.trace(layers, TensorSpec((1, 100, 64, 64)))).macs * 1e6
    assert total == 10 * one * 1e6 == pytest.approx(1e16, rel=0.03)
    assert total / 0.15e12 / 3600 == pytest.approx(19, abs=0.1)  # hours
    assert total / 12e12 / 60 == pytest.approx(14, abs=0.3)  # minutes


def test_backward_costs_twice_the_forward() -> None:
    make, args, kwargs = CONV
    conv = make(*args, **kwargs)

    def loss(x):
        return conv(x).sum()

    graph = irconv.trace(loss, TensorSpec((1, 100, 64, 64)))
    forward = graph_cost(graph).macs
    joint = graph_cost(irconv.differentiate(graph, wrt=["x", "weight"])).macs
    assert joint - forward == 2 * forward
    # the first layer of a network needs no gradient by its input
    assert graph_cost(irconv.differentiate(graph, wrt=["weight"])).macs == 2 * forward


def field(kernel: int, layers: int) -> int:
    network = nn.Sequential(*(nn.Conv2d(1, 1, kernel) for _ in range(layers)))
    graph = irconv.trace(network, TensorSpec((1, 1, 64, 64)))
    (fields,) = receptive_field(graph, "").values()
    assert fields[0] == fields[1] and fields[0].jump == 1
    return fields[0].size


def test_receptive_fields() -> None:
    assert field(3, 10) == field(5, 5) == 21
    assert field(3, 3) == 7
