"""Which values have one element along axis 0 in any batch, and what follows from it: the same sums whatever the batch."""

from __future__ import annotations

import numpy as np
import pytest

import irconv
from irconv.batches import has_no_batch
from irconv.builder import Builder
from irconv.graph import Graph
from irconv.ops.elementwise import add, multiply, rsqrt
from irconv.ops.reduce import reduce_mean, reduce_sum, sum_to_shape
from irconv.ops.shape import broadcast, reshape, transpose
from irconv.passes.postpone import is_small
from irconv.state import Variable
from irconv.types import tensor_type


class Values:
    """Values of a batch of one: ``x`` [1, 4, 5, 5], ``v`` [4] and ``w`` [1, 4, 1, 1], which are states."""

    def __init__(self) -> None:
        self.graph = Graph()
        builder = Builder(self.graph)
        self.x = builder.input("x", tensor_type("f32", (1, 4, 5, 5)))
        self.v, self.w = (
            builder.value(self.graph.add_state(name, tensor_type("f32", shape), "param", Variable(np.ones(shape, np.float32))).id)
            for name, shape in (("v", (4,)), ("w", (1, 4, 1, 1)))
        )


def known() -> dict[str, tuple[Values, irconv.builder.GraphValue]]:
    found = {}

    def enter(name, make):
        values = Values()
        found[name] = values, make(values)

    enter("parameter", lambda g: g.w)
    enter("vector", lambda g: reshape(g.v, (1, 4, 1, 1)))
    enter("statistics", lambda g: reduce_mean(g.x, (0, 2, 3), True))
    enter("reshaped statistics", lambda g: reshape(reduce_mean(g.x, (0, 2, 3)), (1, 4, 1, 1)))
    enter("computed", lambda g: multiply(g.w, rsqrt(add(reduce_mean(g.x, (0, 2, 3), True), 1e-5))))
    enter("reshaped parameter", lambda g: reshape(g.w, (1, 2, 2)))
    return found


def unknown() -> dict[str, tuple[Values, irconv.builder.GraphValue]]:
    found = {}

    def enter(name, make):
        values = Values()
        found[name] = values, make(values)

    enter("input", lambda g: g.x)
    enter("pooled", lambda g: reduce_mean(g.x, (2, 3), True))
    enter("reshaped input", lambda g: reshape(g.x, (1, 100)))
    enter("mixed", lambda g: add(reduce_sum(g.x, (2, 3), True), g.w))
    enter("transposed", lambda g: transpose(g.x, (0, 2, 1, 3)))
    enter("vector", lambda g: g.v)
    enter("of other batches", lambda g: broadcast(g.w, (3, 4, 1, 1)))
    return found


@pytest.mark.parametrize("name", known())
def test_what_is_the_same_for_any_batch(name: str) -> None:
    values, made = known()[name]
    assert has_no_batch(values.graph, values.graph[made.id])


@pytest.mark.parametrize("name", unknown())
def test_what_may_be_a_batch(name: str) -> None:
    values, made = unknown()[name]
    assert not has_no_batch(values.graph, values.graph[made.id])


def test_small_is_said_without_the_batch() -> None:
    for batch in (1, 2, 64):
        graph = Graph()
        builder = Builder(graph)
        shapes = {"x": (batch, 8, 4, 4), "row": (batch, 8, 1, 1), "half": (batch, 8, 4, 2), "vector": (8,), "number": ()}
        nodes = {name: graph[builder.input(name, tensor_type("f32", shape)).id] for name, shape in shapes.items()}
        small = {name for name, node in nodes.items() if is_small(graph, node, nodes["x"])}
        assert small == {"row", "vector", "number"}
    values = Values()
    graph = values.graph
    full = graph[reshape(values.x, (1, 100)).id]
    bias = graph[reshape(broadcast(values.v, (25, 4)), (100,)).id]
    assert is_small(graph, bias, full)
    assert not is_small(graph, full, full)


def test_a_gradient_is_summed_along_the_batch_whatever_its_size() -> None:
    values = Values()
    assert sum_to_shape(values.x, (1, 4, 1, 1)).type == sum_to_shape(values.x, (1, 4, 1, 1), 1).type
    axes = [node.attributes.axes for node in values.graph if node.op.name == "sum"]
    assert axes == [(2, 3), (0, 2, 3)]


@pytest.mark.parametrize("batch", [1, 3])
def test_gradients_of_a_bias_are_right(batch: int) -> None:
    x = np.random.default_rng(0).standard_normal((batch, 4, 5, 5))
    d = irconv.grad(lambda b: (irconv.tensor(x) * b.reshape((1, 4, 1, 1))).sum())(irconv.tensor(np.ones(4)))
    np.testing.assert_allclose(d.numpy(), x.sum((0, 2, 3)))
