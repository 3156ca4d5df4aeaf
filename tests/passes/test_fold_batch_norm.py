"""Batch-norm folding: the text, the numbers, rebuilding after a change, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import irconv
from irconv import nn
from irconv.builder import Builder, GraphValue
from irconv.graph import Composite, Graph, Provenance
from irconv.op import Value
from irconv.ops.contract import matmul
from irconv.ops.conv import conv, conv_transpose
from irconv.ops.elementwise import add, divide, multiply, relu, rsqrt, subtract
from irconv.ops.reduce import reduce_mean
from irconv.ops.shape import reshape, transpose
from irconv.passes.base import Note, Pipeline
from irconv.passes.check import Checker
from irconv.passes.dce import DeadCode
from irconv.passes.fold_batch_norm import FoldBatchNorm
from irconv.places import Location
from irconv.state import DerivedVariable, Variable
from irconv.types import tensor_type, type_of
from irconv.verify import verify
from tests.passes.building import golden, outputs, text


class Network:
    """Builds conv and batch-norm layers as nn does, with random parameters."""

    def __init__(self, shape: tuple[int, ...], dtype: str = "f64"):
        self.graph = Graph("network")
        self.builder = Builder(self.graph)
        self.random = np.random.default_rng(0)
        self.x: Value = self.builder.input("x", tensor_type(dtype, shape))
        self.dtype = self.x.type.dtype.numpy

    def state(self, name: str, *shape: int) -> GraphValue:
        role = "buffer" if "running" in name else "param"
        array = self.random.uniform(0.5, 1.5, shape).astype(self.dtype)
        return self.builder.wrap(self.graph.add_state(name, type_of(array), role, Variable(array)))

    def row(self, value: Value, like: Value) -> Value:
        return reshape(value, (1, -1, *(1 for _ in range(like.rank - 2))))

    def at(self, scope: str, kind: str | None = None):
        composite = None if kind is None else Composite(kind, scope)
        return self.builder.at(Provenance(Location("model.py", 3), scope, composite), scope)

    def conv(self, x: Value, name: str, *shape: int, bias: bool = False, **options) -> Value:
        weight = self.state(f"{name}.weight", *shape)
        vector = self.state(f"{name}.bias", shape[0]) if bias else None
        with self.at(name):
            y = conv(x, weight, **options)
            return y if vector is None else add(y, self.row(vector, y))

    def batch_norm(self, x: Value, name: str, weight: bool = True, bias: bool = True) -> Value:
        channels = x.shape[1]
        mean, var = self.state(f"{name}.running_mean", channels), self.state(f"{name}.running_var", channels)
        gamma = self.state(f"{name}.weight", channels) if weight else None
        beta = self.state(f"{name}.bias", channels) if bias else None
        with self.at(name, "batch_norm"):
            centred = subtract(x, self.row(mean, x))
            scale = rsqrt(add(var, 1e-5))
            scale = scale if gamma is None else multiply(scale, gamma)
            y = multiply(centred, self.row(scale, x))
            return y if beta is None else add(y, self.row(beta, x))

    def done(self, *results: Value) -> Graph:
        for i, result in enumerate(results):
            self.graph.set_output(f"y{i}", self.builder.adopt(result).id)
        verify(self.graph)
        return self.graph


def fold(graph: Graph, tolerance: float = 1e-12) -> tuple[Graph, list[Note]]:
    """The graph after folding and dead code, equal within rounding, and the notes."""
    stages = Pipeline([FoldBatchNorm(), DeadCode(unused_states=True)]).run(graph, Checker(tolerance=tolerance))
    return stages[-1].graph, list(stages[0].notes)


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph if not node.is_leaf]


# --- what is folded --------------------------------------------------------------------------------------------------


def test_golden():
    network = Network((2, 3, 8, 8), "f32")
    y = network.conv(network.x, "conv1", 4, 3, 3, 3, bias=True, padding=1)
    graph = network.done(relu(network.batch_norm(y, "bn1")))
    after, notes = fold(graph, 1e-6)
    assert not notes
    window = "stride=[1,1] padding=[[1,1],[1,1]] dilation=[1,1] groups=1"
    assert text(after) == golden(
        f"""
        %conv1.conv = conv(%x, %conv1.weight.folded) {window} : f32[2,4,8,8]  # in conv1
        %conv1.bias.folded.reshape = reshape(%conv1.bias.folded) shape=[1,4,1,1] : f32[1,4,1,1]  # in bn1, part of batch_norm bn1
        %bn1 = add(%conv1.conv, %conv1.bias.folded.reshape) : f32[2,4,8,8]  # in bn1, part of batch_norm bn1
        %relu = relu(%bn1) : f32[2,4,8,8]
        return y0 = %relu
        """
    )
    assert [(node.name, node.attributes.role) for node in map(after.__getitem__, after.states)] == [
        ("conv1.weight.folded", "frozen"),
        ("conv1.bias.folded", "frozen"),
    ]
    assert not FoldBatchNorm().run(after)


@pytest.mark.parametrize("conv_bias", [False, True])
@pytest.mark.parametrize("weight", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_missing_parts(conv_bias, weight, bias):
    network = Network((2, 3, 5, 5))
    y = network.conv(network.x, "conv", 4, 3, 3, 3, bias=conv_bias)
    after, _ = fold(network.done(network.batch_norm(y, "bn", weight, bias)))
    assert ops(after) == ["conv", "reshape", "add"]


@pytest.mark.parametrize(
    ("shape", "weight", "options"),
    [
        ((2, 4, 9), (6, 4, 3), {"stride": 2}),
        ((1, 4, 5, 6), (6, 2, 3, 2), {"groups": 2, "dilation": (1, 2)}),
        ((2, 4, 3, 4, 5), (8, 1, 2, 2, 2), {"groups": 4}),
    ],
)
def test_convolutions_of_any_rank(shape, weight, options):
    network = Network(shape)
    y = network.conv(network.x, "conv", *weight, bias=True, **options)
    assert ops(fold(network.done(network.batch_norm(y, "bn")))[0]) == ["conv", "reshape", "add"]


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolution(groups):
    network = Network((2, 4, 5, 5))
    y = conv_transpose(network.x, network.state("up.weight", 4, 3, 3, 3), stride=2, groups=groups)
    y = add(y, network.row(network.state("up.bias", 3 * groups), y))
    after, _ = fold(network.done(network.batch_norm(y, "bn")))
    assert ops(after) == ["conv_transpose", "reshape", "add"]


def test_matmul_with_a_transposed_weight():
    network = Network((5, 3))
    y = matmul(network.x, transpose(network.state("fc.weight", 4, 3)))
    y = add(y, network.state("fc.bias", 4))
    after, _ = fold(network.done(network.batch_norm(y, "bn")))
    assert ops(after) == ["matmul", "add"]
    assert str(after["fc.weight.folded"].type) == "f64[3,4]" and str(after["fc.bias.folded"].type) == "f64[4]"


def test_a_scale_without_shift_adds_no_bias():
    network = Network((2, 3, 5, 5))
    y = network.conv(network.x, "conv", 4, 3, 3, 3)
    after, _ = fold(network.done(divide(multiply(y, 3.0), network.state("scale", 1, 4, 1, 1))))
    assert ops(after) == ["conv"] and after["divide"].op.name == "conv"


def test_subtraction_from_a_state():
    network = Network((2, 3, 5, 5))
    y = network.conv(network.x, "conv", 4, 3, 3, 3, bias=True)
    after, _ = fold(network.done(multiply(2.0, subtract(network.state("top", 4, 1, 1), y))))
    assert ops(after) == ["conv", "reshape", "add"]


def test_several_layers_and_a_residual():
    network = Network((1, 3, 4, 4))
    first = network.batch_norm(network.conv(network.x, "conv1", 3, 3, 3, 3, padding=1), "bn1")
    second = network.batch_norm(network.conv(relu(first), "conv2", 3, 3, 3, 3, padding=1), "bn2")
    third = network.batch_norm(network.conv(second, "conv3", 3, 3, 1, 1), "bn3")
    after, notes = fold(network.done(add(add(second, first), third), first))
    assert ops(after).count("conv") == 3 and ops(after).count("multiply") == 0 and not notes


def test_a_single_position_is_not_mistaken_for_a_parameter():
    # with one sample and one position, another layer's result looks like one number per channel
    network = Network((1, 3, 1, 1))
    first = network.batch_norm(network.conv(network.x, "conv1", 3, 3, 1, 1), "bn1")
    second = network.batch_norm(network.conv(network.x, "conv2", 3, 3, 1, 1), "bn2")
    after, _ = fold(network.done(multiply(add(first, second), second)))
    assert ops(after) == ["conv", "reshape", "add"] * 2 + ["add", "multiply"]


def test_modules():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 2, 2, stride=2),
        nn.BatchNorm2d(2, affine=False),
        nn.Flatten(),
        nn.Linear(512, 5),
        nn.BatchNorm1d(5),
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_var.assign(np.linspace(0.5, 2, module.running_var.shape[0], dtype=np.float32))
    after, notes = fold(irconv.trace(model, irconv.TensorSpec((2, 3, 8, 8))), 1e-5)
    assert not notes
    kinds = ["conv", "reshape", "add", "relu", "conv_transpose", "reshape", "add", "reshape", "matmul", "add"]
    assert ops(after) == kinds


# --- what is refused -------------------------------------------------------------------------------------------------


def test_bias_alone_is_left():
    network = Network((2, 3, 5, 5))
    graph = network.done(network.conv(network.x, "conv", 4, 3, 3, 3, bias=True))
    assert not FoldBatchNorm().run(graph)


def layer():
    network = Network((2, 3, 5, 5))
    y = network.conv(network.x, "conv", 4, 3, 3, 3)
    return network, y, network.batch_norm(y, "bn")


def refused(graph: Graph) -> str:
    before = text(graph)
    notes: list[Note] = []
    assert not FoldBatchNorm().run(graph, notes)
    assert text(graph) == before
    (note,) = notes
    assert note.node == "conv"
    return note.reason


def test_an_updated_state():
    network, _, result = layer()
    graph = network.done(result)
    mean = graph["bn.running_mean"].id
    graph.set_update(mean, mean)
    assert refused(graph) == "%bn.running_mean is updated by this graph"
    graph.updates.clear()
    graph.set_update(graph["conv.weight"].id, graph["conv.weight"].id)
    assert refused(graph) == "%conv.weight is updated by this graph"


def test_a_state_without_a_variable():
    network, _, result = layer()
    graph = network.done(result)
    del graph.state["bn.weight"]
    assert refused(graph) == "%bn.weight has no variable behind it"


def test_another_reader():
    network, y, result = layer()
    assert refused(network.done(result, relu(y))) == "%conv is read 2 times"


def test_an_output_on_the_way():
    network, y, result = layer()
    assert refused(network.done(result, y)) == "%conv is an output or update itself"


def test_statistics_of_the_batch():
    network = Network((2, 3, 5, 5))
    y = network.conv(network.x, "conv", 4, 3, 3, 3)
    with network.at("bn", "batch_norm"):
        result = subtract(y, reduce_mean(y, (0, 2, 3), keepdims=True))
    assert refused(network.done(result)) == "%conv is read 2 times"


def test_a_scale_per_position():
    network = Network((2, 3, 5, 5))
    y = network.conv(network.x, "conv", 4, 3, 3, 3)
    with network.at("bn", "batch_norm"):
        result = multiply(y, network.state("scale", 3, 3))
    assert refused(network.done(result)) == "%scale of type f64[3,3] is not one number per channel"


# --- derived states --------------------------------------------------------------------------------------------------


def test_folded_states_follow_their_sources():
    network = Network((2, 3, 5, 5))
    y = network.conv(network.x, "conv", 4, 3, 3, 3, bias=True)
    graph = network.done(network.batch_norm(y, "bn"))
    after, _ = fold(graph)
    weight = after.state["conv.weight.folded"]
    assert isinstance(weight, DerivedVariable)
    array, before = weight.array, weight.array.copy()
    assert not weight.refresh() and weight.version == 0

    graph.state["bn.running_var"].assign(np.full(4, 9.0))
    graph.state["conv.bias"].assign(np.full(4, -5.0))
    for variable in after.state.values():
        assert variable.refresh()
        assert not variable.refresh()
    assert weight.array is array and weight.version == 1 and not np.array_equal(array, before)
    np.testing.assert_allclose(outputs(after)["y0"], outputs(graph)["y0"], rtol=1e-12)


def test_folded_arrays_are_their_own():
    network = Network((2, 3, 5, 5))
    y = network.conv(network.x, "conv", 4, 3, 3, 3)
    graph = network.done(network.batch_norm(y, "bn"))
    after, _ = fold(graph)
    for name in ("conv.weight.folded", "conv.bias.folded"):
        assert not any(np.shares_memory(after.state[name].array, v.array) for v in graph.state.values())


def test_derived_variables_of_derived_variables():
    source = Variable(np.array([1.0, 2.0]))
    doubled = DerivedVariable([source], lambda a: 2 * a)
    view = DerivedVariable([doubled, source], lambda a, b: a + b)
    source.assign(np.array([5.0, 6.0]))
    assert view.refresh() and doubled.version == 1
    np.testing.assert_array_equal(view.array, [15.0, 18.0])
    assert not view.refresh() and not source.refresh()
