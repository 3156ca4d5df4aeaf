"""Reverse mode: the joint graph as text, names and origins, nothing superfluous, and the numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.builder import Builder
from irconv.errors import GradientError
from irconv.graph import Composite, Graph, Provenance
from irconv.op import Value
from irconv.ops.contract import matmul
from irconv.ops.conv import conv
from irconv.ops.elementwise import (
    add,
    cast,
    exp,
    floor,
    greater,
    maximum,
    multiply,
    relu,
    sin,
    square,
    stop_gradient,
    subtract,
    tanh,
    where,
)
from irconv.ops.pool import avg_pool, max_pool
from irconv.ops.reduce import argmax, reduce_mean, reduce_sum
from irconv.ops.shape import flatten, reshape
from irconv.passes.differentiate import differentiate
from irconv.places import Location
from irconv.verify import verify
from tests.passes.building import build, golden, outputs, text

Function = Callable[..., Value]


def joint(function: Function, wanted: Sequence[str], seed: bool = False, **inputs: str) -> Graph:
    """The graph of a function with its gradients by the wanted inputs as outputs ``d_...``."""
    graph = build(function, **inputs)
    output = graph.outputs["y"]
    seed_id = graph.add_input("seed", graph[output].type).id if seed else None
    found = differentiate(graph, output, [graph[name].id for name in wanted], seed_id)
    assert list(found) == [graph[name].id for name in wanted]
    for name in wanted:
        graph.set_output(f"d_{name}", found[graph[name].id])
    verify(graph)
    return graph


def differences(graph: Graph, output: str, name: str, leaves: dict[str, np.ndarray]) -> np.ndarray:
    """Central differences of a scalar output, in float64."""
    step = 1e-6
    result = np.zeros_like(leaves[name])
    for index in np.ndindex(result.shape):
        values = []
        for sign in (1, -1):
            moved = leaves[name].copy()
            moved[index] += sign * step
            values.append(outputs(graph, {**leaves, name: moved})[output].item())
        result[index] = (values[0] - values[1]) / (2 * step)
    return result


def spread(*shape: int) -> np.ndarray:
    """Distinct numbers away from zero and from each other."""
    count = int(np.prod(shape))
    return np.random.default_rng(count).permutation(np.linspace(-1.9, 2.1, count)).reshape(shape)


# --- text ------------------------------------------------------------------------------------------------------------


def test_chain():
    """a = mean(3 (x - 2)^2)."""
    graph = joint(lambda x: reduce_mean(multiply(square(subtract(x, 2.0)), 3.0)), ["x"], x="f64[2,2]")
    assert text(graph) == golden(
        """
        %constant = constant() value=2.0 : f64[]
        %subtract = subtract(%x, %constant) : f64[2,2]
        %square = square(%subtract) : f64[2,2]
        %constant_1 = constant() value=3.0 : f64[]
        %multiply = multiply(%square, %constant_1) : f64[2,2]
        %mean = mean(%multiply) axes=[0,1] keepdims=false : f64[]
        %d_mean = constant() value=1.0 : f64[]  # backward of %mean
        %d_multiply.constant = constant() value=0.25 : f64[]  # backward of %mean
        %d_multiply.multiply = multiply(%d_mean, %d_multiply.constant) : f64[]  # backward of %mean
        %d_multiply = broadcast(%d_multiply.multiply) shape=[2,2] : f64[2,2]  # backward of %mean
        %d_square = multiply(%d_multiply, %constant_1) : f64[2,2]  # backward of %multiply
        %d_subtract.constant = constant() value=2.0 : f64[]  # backward of %square
        %d_subtract.multiply = multiply(%subtract, %d_subtract.constant) : f64[2,2]  # backward of %square
        %d_subtract = multiply(%d_square, %d_subtract.multiply) : f64[2,2]  # backward of %square
        return y = %mean, d_x = %d_subtract
        """
    )
    found = outputs(graph, {"x": np.array([[1.0, 2.0], [3.0, 4.0]])})
    assert found["y"] == 4.5
    np.testing.assert_array_equal(found["d_x"], [[-1.5, 0.0], [1.5, 3.0]])


def test_convolution_by_its_weight():
    """No gradient of the input is computed: no conv_transpose."""
    graph = joint(lambda x, w: reduce_sum(conv(x, w, padding=1)), ["w"], x="f64[2,3,4,4]", w="f64[2,3,3,3]")
    window = "stride=[1,1] padding=[[1,1],[1,1]] dilation=[1,1] groups=1"
    assert text(graph) == golden(
        f"""
        %conv = conv(%x, %w) {window} : f64[2,2,4,4]
        %sum = sum(%conv) axes=[0,1,2,3] keepdims=false : f64[]
        %d_sum = constant() value=1.0 : f64[]  # backward of %sum
        %d_conv = broadcast(%d_sum) shape=[2,2,4,4] : f64[2,2,4,4]  # backward of %sum
        %d_w.im2col = im2col(%x) kernel=[3,3] {window} : f64[1,32,27]  # backward of %conv
        %d_w.transpose = transpose(%d_conv) axes=[1,0,2,3] : f64[2,2,4,4]  # backward of %conv
        %d_w.reshape = reshape(%d_w.transpose) shape=[1,2,32] : f64[1,2,32]  # backward of %conv
        %d_w.matmul = matmul(%d_w.reshape, %d_w.im2col) : f64[1,2,27]  # backward of %conv
        %d_w = reshape(%d_w.matmul) shape=[2,3,3,3] : f64[2,3,3,3]  # backward of %conv
        return y = %sum, d_w = %d_w
        """
    )


def test_convolution_by_its_input():
    """No gradient of the weight is computed: no im2col."""
    graph = joint(lambda x, w: conv(x, w, stride=2), ["x"], True, x="f64[2,3,6,6]", w="f64[2,3,3,3]")
    assert text(graph).splitlines()[1] == (
        "%d_x = conv_transpose(%seed, %w) stride=[2,2] padding=[0,0] dilation=[1,1] groups=1 output_size=[6,6]"
        " : f64[2,3,6,6]  # backward of %conv"
    )
    assert len(graph) == 5


def test_max_pool_goes_back_through_its_indices():
    graph = joint(lambda x: max_pool(x, 2), ["x"], True, x="f64[1,1,4,4]")
    names = [(node.name, node.op.name) for node in graph if not node.is_leaf]
    assert names == [("max_pool", "max_pool"), ("d_x.argmax_pool", "argmax_pool"), ("d_x", "window_scatter")]


def test_shared_values_add_up():
    def function(x):
        e = exp(x)
        return multiply(e, e)

    assert text(joint(function, ["x"], True, x="f64[2]")) == golden(
        """
        %exp = exp(%x) : f64[2]
        %multiply = multiply(%exp, %exp) : f64[2]
        %d_exp.multiply = multiply(%seed, %exp) : f64[2]  # backward of %multiply
        %d_exp.multiply_1 = multiply(%seed, %exp) : f64[2]  # backward of %multiply
        %d_exp = add(%d_exp.multiply, %d_exp.multiply_1) : f64[2]  # backward of %multiply
        %d_x = multiply(%d_exp, %exp) : f64[2]  # backward of %exp
        return y = %multiply, d_x = %d_x
        """
    )


def test_broadcast_operands_are_summed():
    graph = joint(lambda x, y: multiply(x, y), ["y"], True, x="f64[3]", y="f64[2,1]")
    assert text(graph) == golden(
        """
        %multiply = multiply(%x, %y) : f64[2,3]
        %d_y.multiply = multiply(%seed, %x) : f64[2,3]  # backward of %multiply
        %d_y.sum = sum(%d_y.multiply) axes=[1] keepdims=false : f64[2]  # backward of %multiply
        %d_y = reshape(%d_y.sum) shape=[2,1] : f64[2,1]  # backward of %multiply
        return y = %multiply, d_y = %d_y
        """
    )


# --- provenance ------------------------------------------------------------------------------------------------------


def test_backward_nodes_say_where_they_come_from():
    place = Provenance(Location("net.py", 12), "block.act", Composite("gelu", "act"))
    graph = build(lambda x: reduce_sum(tanh(x)), x="f64[3]")
    graph.set_provenance(graph["tanh"].id, place)
    graph.rename(graph["tanh"].id, "act")
    differentiate(graph, graph.outputs["y"], [graph["x"].id])
    backward = [node for node in graph if node.provenance.origin == "act"]
    assert backward and graph["d_x"] in backward
    for node in backward:
        assert node.provenance == Provenance(place.location, place.scope, place.composite, "act")
    assert {node.provenance.origin for node in graph if node.name.startswith("d_")} == {"act", "sum"}


# --- nothing that no wanted gradient needs ---------------------------------------------------------------------------


def test_only_the_way_to_the_wanted_leaf():
    def function(x, w1, w2):
        return reduce_sum(matmul(tanh(matmul(x, w1)), w2))

    inputs = {"x": "f64[2,3]", "w1": "f64[3,4]", "w2": "f64[4,5]"}
    last = joint(function, ["w2"], **inputs)
    assert not any(last.has_name(name) for name in ("d_tanh", "d_matmul", "d_w1", "d_x"))
    first = joint(function, ["w1"], **inputs)
    assert not any(first.has_name(name) for name in ("d_w2", "d_x"))
    # every node serves the output or a wanted gradient
    for graph in (last, first):
        assert graph.ancestors(graph.outputs.values()) | set(graph.inputs) == set(graph.ids())


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: reduce_sum(y),
        lambda x, y: reduce_sum(multiply(stop_gradient(x), y)),
        lambda x, y: reduce_sum(multiply(floor(x), y)),
        lambda x, y: reduce_sum(where(greater(x, 0.0), y, 0.0)),
        lambda x, y: reduce_sum(multiply(cast(argmax(x, 0, True), "f64"), y)),
    ],
)
def test_a_leaf_without_influence_gets_zeros(function):
    graph = joint(function, ["x", "y"], x="f64[3]", y="f64[3]")
    found = outputs(graph)
    np.testing.assert_array_equal(found["d_x"], np.zeros(3))
    assert found["d_y"].any()
    assert graph["d_x"].provenance.origin == "x" and graph["d_x"].op.name == "broadcast"
    assert outputs(joint(function, ["x"], x="f64[3]", y="f64[3]"))["d_x"].shape == (3,)


def test_a_scalar_leaf_without_influence():
    graph = joint(lambda x, y: reduce_sum(x), ["y"], x="f64[3]", y="f64[]")
    assert text(graph).splitlines()[-2:] == [
        "%d_y = constant() value=0.0 : f64[]  # backward of %y",
        "return y = %sum, d_y = %d_y",
    ]


def test_an_intermediate_value_may_be_wanted():
    graph = build(lambda x: reduce_sum(square(exp(x))), x="f64[3]")
    found = differentiate(graph, graph.outputs["y"], [graph["exp"].id])
    graph.set_output("d", found[graph["exp"].id])
    assert not graph.has_name("d_x")
    values = outputs(graph, {"x": np.arange(3.0)})
    np.testing.assert_allclose(values["d"], 2 * np.exp(np.arange(3.0)))


def test_the_output_itself():
    graph = joint(lambda x: x, ["x"], True, x="f64[2]")
    assert text(graph) == "return y = %x, d_x = %seed"


# --- what is not differentiable --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "inputs", "seed", "message"),
    [
        (exp, {"x": "f64[3]"}, False, r"%exp is f64\[3\]; only a floating-point scalar .* hint: reduce it to a scalar"),
        (lambda x: reduce_sum(x), {"x": "i32[3]"}, False, "%x has element type i32; only floating-point values"),
        (lambda x: argmax(x), {"x": "f64[3]"}, False, r"%argmax is i64\[\]; only a floating-point scalar"),
    ],
)
def test_refusals(function, inputs, seed, message):
    with pytest.raises(GradientError) as error:
        joint(function, ["x"], seed, **inputs)
    assert re.search(message, " ".join(str(error.value).split()))


def test_a_seed_of_another_type():
    graph = build(lambda x, seed: exp(x), x="f64[3]", seed="f64[2]")
    with pytest.raises(GradientError, match=r"the gradient of %exp must have its type f64\[3\], got f64\[2\]"):
        differentiate(graph, graph.outputs["y"], [graph["x"].id], graph["seed"].id)


# --- numbers ---------------------------------------------------------------------------------------------------------

FUNCTIONS = {
    "chain": (lambda x, w: reduce_sum(sin(multiply(x, tanh(w)))), (2, 3), (3,)),
    "diamond": (lambda x, w: reduce_sum(multiply(add(x, w), subtract(exp(x), w))), (2, 3), (2, 1)),
    "classifier": (lambda x, w: reduce_mean(square(matmul(tanh(x), w))), (4, 3), (3, 2)),
    "conv": (
        lambda x, w: reduce_sum(square(avg_pool(tanh(conv(x, w, stride=2, padding=1)), 2))),
        (1, 2, 7, 7),
        (3, 2, 3, 3),
    ),
    "flat": (lambda x, w: reduce_sum(tanh(matmul(flatten(x), reshape(w, (6, 2))))), (2, 2, 3), (3, 4)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_against_central_differences(name):
    function, x_shape, w_shape = FUNCTIONS[name]
    types = {key: f"f64[{','.join(map(str, shape))}]" for key, shape in (("x", x_shape), ("w", w_shape))}
    graph = joint(function, ["x", "w"], **types)
    leaves = {"x": spread(*x_shape), "w": spread(*w_shape) / 2}
    found = outputs(graph, leaves)
    for leaf in ("x", "w"):
        np.testing.assert_allclose(found[f"d_{leaf}"], differences(graph, "y", leaf, leaves), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_derivatives(name):
    """The gradient of sum(square(d_x)) by w, against differences of the first gradient."""
    function, x_shape, w_shape = FUNCTIONS[name]
    types = {key: f"f64[{','.join(map(str, shape))}]" for key, shape in (("x", x_shape), ("w", w_shape))}

    graph = joint(function, ["x"], **types)
    builder = Builder(graph)
    total = builder.adopt(reduce_sum(square(builder.value(graph.outputs["d_x"])))).id
    graph.set_output("z", total)
    found = differentiate(graph, total, [graph["x"].id, graph["w"].id])
    for leaf in ("x", "w"):
        graph.set_output(f"dd_{leaf}", found[graph[leaf].id])
    verify(graph)
    leaves = {"x": spread(*x_shape), "w": spread(*w_shape) / 2}
    values = outputs(graph, leaves)
    for leaf in ("x", "w"):
        expected = differences(graph, "z", leaf, leaves)
        np.testing.assert_allclose(values[f"dd_{leaf}"], expected, rtol=1e-5, atol=1e-7)


def test_a_seed_weighs_the_outputs():
    graph = joint(lambda x: relu(x), ["x"], True, x="f64[4]")
    found = outputs(graph, {"x": np.array([-1.0, 0.0, 2.0, 3.0]), "seed": np.array([5.0, 6.0, 7.0, 8.0])})
    np.testing.assert_array_equal(found["d_x"], [0.0, 0.0, 7.0, 8.0])


def test_equal_maxima_share():
    graph = joint(lambda x, y: maximum(x, y), ["x", "y"], True, x="f64[3]", y="f64[3]")
    leaves = {"x": np.array([1.0, 2.0, 3.0]), "y": np.array([3.0, 2.0, 1.0]), "seed": np.full(3, 4.0)}
    found = outputs(graph, leaves)
    np.testing.assert_array_equal(found["d_x"], [0, 2, 4])
    np.testing.assert_array_equal(found["d_y"], [4, 2, 0])


# with bounded derivatives, so that central differences are accurate
UNARY = [tanh, sin, relu, lambda x: square(tanh(x)), lambda x: multiply(x, 0.5), lambda x: exp(sin(x))]
BINARY = [
    lambda x, y: multiply(add(x, y), 0.5),
    lambda x, y: multiply(subtract(x, y), 0.5),
    lambda x, y: multiply(tanh(x), tanh(y)),
    lambda x, y: maximum(sin(x), y),
]
STEPS = st.tuples(st.integers(0, 9), st.integers(0, 99), st.integers(0, 99))


@given(st.lists(STEPS, min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_random_graphs(steps):
    def function(x, w):
        values = [x, w]
        for kind, first, second in steps:
            a, b = values[first % len(values)], values[second % len(values)]
            values.append(UNARY[kind](a) if kind < len(UNARY) else BINARY[kind - len(UNARY)](a, b))
        return reduce_sum(tanh(values[-1]))

    graph = joint(function, ["x", "w"], x="f64[2,3]", w="f64[3]")
    leaves = {"x": spread(2, 3), "w": spread(3) / 2}
    found = outputs(graph, leaves)
    for leaf in ("x", "w"):
        np.testing.assert_allclose(found[f"d_{leaf}"], differences(graph, "y", leaf, leaves), rtol=1e-5, atol=1e-6)
