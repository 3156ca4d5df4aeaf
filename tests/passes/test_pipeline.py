"""Random graphs through all passes: every stage valid, printable, and computing the same."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.builder import Builder
from irconv.graph import Graph
from irconv.op import Value
from irconv.ops import elementwise as ew
from irconv.ops.concat import concat, split
from irconv.ops.conv import conv
from irconv.ops.pad import pad
from irconv.ops.pool import avg_pool, max_pool
from irconv.ops.reduce import reduce_max, reduce_mean, reduce_sum, sum_to_shape
from irconv.ops.shape import broadcast, embed, expand_dims, flip, narrow, reshape, slice_, transpose
from irconv.passes.base import Pipeline, parse_pipeline
from irconv.passes.check import Checker
from irconv.passes.cse import CommonSubexpressions
from irconv.passes.dce import DeadCode
from irconv.passes.differentiate import differentiate
from irconv.passes.fold_batch_norm import FoldBatchNorm
from irconv.passes.fold_constants import FoldConstants
from irconv.passes.simplify import Simplify
from irconv.state import Variable
from irconv.text import large_constants, parse, print_graph
from irconv.types import tensor_type, type_of
from tests.counting import assert_near_linear
from tests.passes.building import assert_same_bits, build

EXACT = Pipeline([Simplify(), FoldConstants(), CommonSubexpressions(), Simplify(), DeadCode()])
EVERYTHING = parse_pipeline("simplify{differentiated=true},fold_constants,cse,fold_batch_norm,simplify,dce")

NUMBERS = (0.0, -0.0, 1.0, -1.0, 2.0, 4.0, 0.5, 3.0)

UNARY = [
    ew.negative, ew.absolute, ew.sign, ew.square, ew.relu, ew.floor, ew.ceil, ew.round_, ew.tanh, ew.copy, ew.stop_gradient,
    ew.clip, lambda x: ew.clip(x, -1, 1), lambda x: ew.cast(ew.cast(x, "f64"), "f32"), lambda x: ew.cast(x, "f32"),
    lambda x: ew.cast(ew.cast(x, "i32"), "f32"), lambda x: ew.cast(ew.cast(ew.floor(x), "i8"), "f32"),
    transpose, lambda x: reshape(x, (-1,)), lambda x: flip(x, 0), lambda x: flip(x), lambda x: expand_dims(x, 0),
    lambda x: reshape(x, x.shape[::-1]), lambda x: broadcast(x, (2, *x.shape)),
    lambda x: pad(x, 1), lambda x: pad(x, 1, value=1.0),
    lambda x: slice_(x, (0,) * x.rank, x.shape, (2,) * x.rank), lambda x: slice_(x, (1,) * x.rank, (None,) * x.rank),
    lambda x: embed(x, (1,) * x.rank, (2,) * x.rank, [2 * n + 1 for n in x.shape]),
    lambda x: concat(split(x, [1, x.shape[0] - 1])), lambda x: concat([x, ew.negative(x)]),
    lambda x: narrow(concat([x, x]), 0, 0, 1),
    lambda x: reduce_sum(x, ()), lambda x: reduce_max(x, 0), lambda x: reduce_sum(x, 0, True), lambda x: reduce_mean(x, -1, True),
    lambda x: sum_to_shape(ew.add(x, broadcast(x, (2, *x.shape))), x.shape),
]  # fmt: skip

BINARY = [
    ew.add, ew.subtract, ew.multiply, ew.maximum, ew.minimum,
    lambda x, y: ew.where(ew.greater(x, y), x, y), lambda x, y: ew.where(ew.logical_not(ew.equal(x, y)), y, x),
    lambda x, y: ew.cast(ew.logical_not(ew.logical_or(ew.less(x, y), ew.not_equal(x, x))), "f32"),
]  # fmt: skip

WITH_NUMBER = [ew.add, ew.subtract, ew.multiply, ew.maximum, ew.divide, lambda x, c: ew.subtract(c, x), lambda x, c: ew.add(c, x)]


@st.composite
def programs(draw: st.DrawFn) -> Graph:
    """A few ops on earlier values: unary ones, binary ones that broadcast, and ones with a constant."""
    graph = Graph("random")
    builder = Builder(graph)
    x: Value = builder.input("x", tensor_type("f32", (2, 3)))
    y: Value = builder.input("y", tensor_type("f32", (3,)))
    weight = Variable(np.array([[1.5], [-2]], np.float32))
    w: Value = builder.wrap(graph.add_state("w", weight.type, "param", weight))
    values = [x, y, w, ew.multiply(builder.constant(np.arange(3, dtype=np.float32)), 2.0)]
    for _ in range(draw(st.integers(1, 14))):
        one = draw(st.sampled_from(values))
        kind = draw(st.sampled_from(("unary", "unary", "binary", "number")))
        if kind == "unary" and one.rank and one.type.size and one.type.size < 200 and one.rank < 5:
            values.append(draw(st.sampled_from(UNARY))(one))
        elif kind == "binary":
            other = draw(st.sampled_from([v for v in values if broadcasts(one, v)]))
            values.append(draw(st.sampled_from(BINARY))(one, other))
        else:
            values.append(draw(st.sampled_from(WITH_NUMBER))(one, draw(st.sampled_from(NUMBERS))))
    for i in range(draw(st.integers(1, 3))):
        graph.set_output(f"y{i}", builder.adopt(values[-1 - i]).id)
    return graph


def broadcasts(x: Value, y: Value) -> bool:
    return all(a == b or 1 in (a, b) for a, b in zip(x.shape[::-1], y.shape[::-1], strict=False))


@given(programs(), st.sampled_from([0.0, np.inf, np.nan, -0.0, 1e-40]))
@settings(max_examples=100, deadline=None)
def test_random_graphs_keep_every_bit(graph, special):
    leaves = {"x": np.array([[special, -1.5, 2], [0.25, -0.0, 3]], np.float32), "y": np.array([-1, special, 7], np.float32)}
    before = print_graph(graph)
    for stage in EXACT.run(graph, Checker(seed=1)):
        parse(print_graph(stage.graph), large_constants(stage.graph))
        assert_same_bits(graph, stage.graph, leaves)
    assert print_graph(graph) == before
    # a second time there is nothing left to do
    assert not any(stage.changed for stage in EXACT.run(EXACT.run(graph)[-1].graph)[:1])


def network(x: Value, *states: Value) -> Value:
    """conv, batch norm, relu, pool, dense: with batch norm in evaluation."""
    w, b, mean, var, gamma, beta, dense = states

    def row(value: Value) -> Value:
        return reshape(value, (-1, 1, 1))

    y = ew.add(conv(pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), w), row(b))
    scale = ew.multiply(ew.rsqrt(ew.add(var, 1e-5)), gamma)
    y = ew.add(ew.multiply(ew.subtract(y, row(mean)), row(scale)), row(beta))
    y = avg_pool(max_pool(ew.relu(y), 2), 1)
    return ew.tanh(ew.multiply(reshape(y, (2, -1)), dense))


def network_graph() -> Graph:
    random = np.random.default_rng(0)
    shapes = {"w": (4, 3, 3, 3), "b": (4,), "mean": (4,), "var": (4,), "gamma": (4,), "beta": (4,), "dense": (64,)}
    states = {name: random.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}
    return build(network, states, x="f32[2,3,8,8]")


def test_a_network_through_everything():
    graph = network_graph()
    stages = EVERYTHING.run(graph, Checker())
    assert [stage.changed for stage in stages] == [True, True, False, True, False, True] or stages[3].changed
    final = stages[-1].graph
    assert {"pad", "avg_pool", "multiply"} & {node.op.name for node in final} == {"multiply"}
    assert any(name.endswith(".folded") for name in final.state)


def test_a_training_graph_through_everything():
    graph = network_graph()
    builder = Builder(graph)
    loss = builder.adopt(reduce_mean(ew.square(builder.value(graph.outputs["y"])))).id
    graph.drop_outputs()
    graph.set_output("loss", loss)
    trained = [i for i in graph.states if graph[i].attributes.role == "param"]
    for state, gradient in differentiate(graph, loss, trained).items():
        step = ew.multiply(builder.value(gradient), 0.1)
        graph.set_update(state, builder.adopt(ew.subtract(builder.value(state), step)).id)
    stages = EVERYTHING.run(graph, Checker())
    assert len(stages[-1].graph) < len(graph)
    assert not any(name.endswith(".folded") for name in stages[-1].graph.state)


@pytest.mark.parametrize("pass_", [Simplify(), FoldConstants(), CommonSubexpressions(), DeadCode(), FoldBatchNorm()], ids=str)
def test_passes_take_near_linear_time(pass_):
    def long(blocks: int) -> Graph:
        def function(x, w):
            for _ in range(blocks):
                y = ew.multiply(ew.add(ew.negative(ew.negative(x)), 1.0), w)
                x = ew.add(ew.multiply(ew.multiply(y, 2.0), 2.0), ew.relu(ew.relu(ew.add(x, ew.exp(builder_constant(x))))))
            return x

        return build(function, {"w": np.ones(3, np.float32)}, x="f32[2,3]")

    def builder_constant(x: Value) -> Value:
        return x.builder.constant(np.zeros((), type_of(np.zeros(1, np.float32)).dtype.numpy))

    assert_near_linear(lambda blocks: partial(pass_.run, long(blocks)), 20, 160)
