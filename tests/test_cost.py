"""Counting: multiply-adds, bytes, parameters, memory, receptive fields."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import irconv.ops.elementwise as ops
from irconv.builder import Builder, GraphValue
from irconv.cost import AxisField, cost, graph_cost, receptive_field
from irconv.errors import GraphError
from irconv.graph import Graph
from irconv.interpret import evaluate
from irconv.ops.concat import concat
from irconv.ops.contract import matmul
from irconv.ops.conv import conv, conv_transpose
from irconv.ops.pad import pad
from irconv.ops.pool import avg_pool, max_pool
from irconv.ops.reduce import reduce_mean
from irconv.ops.resize import resize
from irconv.ops.shape import broadcast, flip, reshape, slice_, slice_update, transpose
from irconv.types import tensor_type


def start(*shape: int, dtype: str = "f32") -> tuple[Graph, Builder, GraphValue]:
    graph = Graph()
    builder = Builder(graph)
    return graph, builder, builder.input("x", tensor_type(dtype, shape))


def parameter(builder: Builder, name: str, *shape: int, role: str = "param") -> GraphValue:
    return builder.wrap(builder.graph.add_state(name, tensor_type("f32", shape), role))


# --- the counting rows of the course ---------------------------------------------------------------------------------------


def test_a_fully_connected_layer_on_a_photograph() -> None:
    graph, builder, x = start(1, 12_000_000 * 3)
    matmul(x, parameter(builder, "w", 36_000_000, 100))
    counted = graph_cost(graph)
    assert counted.parameters == 3_600_000_000
    assert counted.parameter_bytes == 14_400_000_000
    assert counted.macs == 3_600_000_000


def test_an_image_as_a_vector_against_a_kernel() -> None:
    graph, builder, x = start(1, 3, 256, 256)
    vector = reshape(x, (1, -1))
    assert vector.shape == (1, 196_608)
    dense = matmul(vector, parameter(builder, "w", 196_608, 1000))
    assert cost(graph[dense.id], graph).parameters == 196_608_000
    kernel = parameter(builder, "k", 1, 1, 3, 3)
    assert cost(graph[conv(slice_(x, (0, 0, 0, 0), (1, 1, 256, 256)), kernel).id], graph).parameters == 9


def test_a_convolution_of_a_hundred_channels() -> None:
    graph, builder, x = start(1, 100, 64, 64)
    layer = conv(x, parameter(builder, "w", 100, 100, 5, 5), padding=2)
    counted = cost(graph[layer.id], graph)
    assert counted.macs == 1_024_000_000
    assert counted.flops == 2 * counted.macs
    network = 10 * counted.macs * 1_000_000
    assert network == pytest.approx(1e16, rel=0.03)
    assert network / 0.15e12 / 3600 == pytest.approx(19, rel=0.01)
    assert network / 12e12 / 60 == pytest.approx(14, rel=0.02)


@pytest.mark.parametrize(("layers", "kernel", "size"), [(10, 3, 21), (5, 5, 21), (3, 3, 7)])
def test_receptive_fields_of_stacks(layers: int, kernel: int, size: int) -> None:
    graph, builder, y = start(1, 1, 32, 32)
    for k in range(layers):
        y = ops.relu(conv(y, parameter(builder, f"w{k}", 1, 1, kernel, kernel), padding=kernel // 2))
    graph.set_output("", y.id)
    field = AxisField(size, Fraction(1), Fraction(-(size // 2)))
    assert receptive_field(graph, "") == {"x": (field, field)}


# --- bytes and memory ------------------------------------------------------------------------------------------------------


def test_bytes_of_a_node() -> None:
    graph, builder, x = start(4, 8)
    w = parameter(builder, "w", 8, role="frozen")
    product, double, turned = ops.multiply(x, w), ops.add(x, x), transpose(x)
    read = cost(graph[product.id], graph)
    assert (read.bytes_read, read.bytes_written, read.flops, read.macs, read.parameters) == (4 * 40, 4 * 32, 32, 0, 8)
    assert cost(graph[double.id], graph).bytes_read == 4 * 32  # one operand, read once
    assert cost(graph[turned.id], graph) == cost(graph[x.id], graph)  # views and leaves cost nothing


def test_activation_memory_and_its_peak() -> None:
    graph, builder, x = start(10)  # 40 bytes a value
    parameter(builder, "w", 5)
    parameter(builder, "mean", 3, role="buffer")
    a = ops.exp(x)
    b = ops.exp(a)
    c = ops.exp(b)  # a is dead by now
    graph.set_output("", c.id)
    builder.constant(np.zeros(7))
    counted = graph_cost(graph)
    assert (counted.activation_bytes, counted.peak_bytes) == (120, 80)
    assert (counted.parameters, counted.parameter_bytes, counted.state_bytes, counted.constant_bytes) == (5, 20, 32, 56)
    assert list(counted.nodes) == ["exp", "exp_1", "exp_2"]
    assert counted.bytes_read == counted.bytes_written == 120
    graph.set_output("a", a.id)  # outputs live to the end
    assert graph_cost(graph).peak_bytes == 120


def test_a_view_keeps_its_buffer_alive() -> None:
    graph, _, x = start(2, 5)
    a = ops.exp(x)
    view = transpose(a)
    b = ops.exp(ops.exp(x))
    graph.set_output("", ops.add(transpose(view), b).id)
    counted = graph_cost(graph)
    assert counted.activation_bytes == 4 * 40
    assert counted.peak_bytes == 3 * 40


def test_values_nobody_reads_and_empty_graphs() -> None:
    graph, _, x = start(10)
    ops.exp(x)
    ops.exp(x)
    assert graph_cost(graph).peak_bytes == 40
    assert graph_cost(Graph()).peak_bytes == 0


# --- receptive fields against the reference --------------------------------------------------------------------------------


def seen(graph: Graph, x: GraphValue, y: GraphValue) -> np.ndarray:
    """[outputs, inputs] bool, along the last axis: which input elements change which output elements."""
    rows = []
    base = evaluate(graph, {x.id: np.ones(x.shape)}, [y.id])[y.id]
    for place in range(x.shape[-1]):
        probe = np.ones(x.shape)
        probe[..., place] = 3
        value = evaluate(graph, {x.id: probe}, [y.id])[y.id]
        rows.append(np.any((value != base).reshape(-1, y.shape[-1]), axis=0))
    return np.array(rows).T


def kernel_of_ones(x: GraphValue, taps: int, transposed: bool = False) -> GraphValue:
    shape = (x.shape[1], 2, taps) if transposed else (2, x.shape[1], taps)
    return x.builder.constant(np.ones(shape))


def squeeze_excite(x: GraphValue) -> GraphValue:
    return ops.multiply(x, reduce_mean(ops.add(x, 1.0), (2,), keepdims=True))


def branches(x: GraphValue) -> GraphValue:
    narrow, wide = conv(x, kernel_of_ones(x, 1)), conv(x, kernel_of_ones(x, 5), padding=2)
    return concat([narrow, wide], 1)


NETWORKS = {
    "conv": lambda x: conv(x, kernel_of_ones(x, 3)),
    "strides": lambda x: conv(conv(x, kernel_of_ones(x, 3), stride=2, padding=1), kernel_of_ones(x, 3), stride=2),
    "dilation": lambda x: conv(x, kernel_of_ones(x, 3), dilation=3, padding=[(2, 4)]),
    "crop": lambda x: conv(x, kernel_of_ones(x, 2), padding=[(-3, -1)]),
    "pools": lambda x: avg_pool(avg_pool(x, 3, 2, 1), 2, 2),
    "transposed": lambda x: conv_transpose(x, kernel_of_ones(x, 3, True), stride=2, padding=1),
    "transposed after a conv": lambda x: conv_transpose(
        conv(x, kernel_of_ones(x, 3), stride=2), kernel_of_ones(x, 4, True), stride=2
    ),
    "upsample": lambda x: resize(x, (48,), "nearest", "asymmetric"),
    "upsample then conv": lambda x: conv(resize(x, (48,), "nearest", "half_pixel"), kernel_of_ones(x, 3)),
    "downsample": lambda x: resize(x, (7,), "nearest", "half_pixel"),
    "nearest rounded to the floor": lambda x: resize(x, (48,), rounding="round_prefer_floor"),
    "nearest, ceil": lambda x: resize(x, (36,), "nearest", "asymmetric", rounding="ceil"),
    "nearest, floor": lambda x: resize(x, (7,), "nearest", "half_pixel", rounding="floor"),
    "cubic": lambda x: resize(x, (48,), "cubic", "half_pixel"),
    "antialias": lambda x: resize(x, (7,), "linear", "half_pixel", antialias=True),
    "linear": lambda x: resize(x, (48,), "linear", "half_pixel"),
    "linear align": lambda x: resize(x, (13,), "linear", "align_corners"),
    "linear by scales": lambda x: resize(x, (40,), "linear", "asymmetric", scales=(1.7,)),
    "branches": branches,
    "skip": lambda x: ops.add(slice_(x, (0, 0, 1), (1, 2, 23)), conv(x, kernel_of_ones(x, 3))),
    "slice": lambda x: slice_(x, (0, 0, 3), (1, 2, 20), (1, 1, 4)),
    "slice update": lambda x: slice_update(x, slice_(x, (0, 0, 0), (1, 2, 5)), (0, 0, 2), (1, 1, 3)),
    "pad": lambda x: conv(pad(x, ((0, 0), (0, 0), (2, 1))), kernel_of_ones(x, 3)),
    "flip": lambda x: flip(conv(x, kernel_of_ones(x, 3), stride=2), (2,)),
    "transpose": lambda x: transpose(transpose(conv(x, kernel_of_ones(x, 3)), (2, 0, 1)), (1, 2, 0)),
    "reshape": lambda x: reshape(conv(reshape(x, (1, 2, 1, 24)), x.builder.constant(np.ones((1, 2, 1, 3)))), (1, 1, 22)),
    "global": lambda x: broadcast(reduce_mean(x, (2,), keepdims=True), (1, 2, 4)),
    "squeeze and excite": squeeze_excite,
    "dense": lambda x: matmul(x, x.builder.constant(np.ones((24, 3)))),
    "along channels": lambda x: matmul(x.builder.constant(np.ones((4, 2))), x),
    "logical": lambda x: ops.where(ops.greater(x, 0.5), conv(x, kernel_of_ones(x, 3), padding=1), 0.0),
}
LOOSE = {"transposed after a conv", "slice update", "cubic", "antialias"}
"""Where the affine bound is wider than what any one element reads."""


@pytest.mark.parametrize("name", NETWORKS)
def test_receptive_field_is_what_the_reference_reads(name: str) -> None:
    graph, _, x = start(1, 2, 24, dtype="f64")
    y = NETWORKS[name](x)
    graph.set_output("", y.id)
    (field,) = receptive_field(graph, "")["x"]
    widest = 0
    for place, row in enumerate(seen(graph, x, y)):
        elements = np.flatnonzero(row)
        if len(elements):
            first = field.offset + place * field.jump
            assert min(first, 23) <= elements[0], (place, first, elements)
            assert elements[-1] < max(first, 0) + field.size, (place, first, elements)
            widest = max(widest, elements[-1] - elements[0] + 1)
    if name not in LOOSE:
        assert widest == field.size
    else:
        assert widest < field.size


def test_max_pool_and_default_rules() -> None:
    graph, _, x = start(1, 1, 9, 9)
    y = max_pool(x, 3, 2)
    graph.set_output("y", y.id)
    assert receptive_field(graph, "y")["x"] == (AxisField(3, Fraction(2), Fraction(0)),) * 2
    flat = reshape(y, (1, -1))
    graph.set_output("flat", flat.id)
    assert receptive_field(graph, "flat")["x"] == (AxisField(9, Fraction(0), Fraction(0)),) * 2


def test_values_by_name_and_inputs_that_are_not_read() -> None:
    graph, builder, x = start(1, 1, 9)
    other = builder.input("other", tensor_type("f32", (1, 1, 9)))
    y = conv(x, parameter(builder, "w", 1, 1, 3))
    z = conv(ops.relu(y), parameter(builder, "v", 1, 1, 3))
    graph.set_output("z", z.id)
    assert receptive_field(graph, "z").keys() == {"x"}
    assert receptive_field(graph, z.node.name, y.node.name)[y.node.name][0].size == 3
    with pytest.raises(GraphError, match="does not depend on %other"):
        receptive_field(graph, "z", other.node.name)
    with pytest.raises(GraphError, match="no node 'nope'"):
        receptive_field(graph, "nope")
