"""Small state updates as one kernel: which are taken, what they look like, and what stays apart."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.builder import Builder, GraphValue
from irconv.graph import Graph
from irconv.kernel import print_kernel, separate_parts
from irconv.ops.contract import matmul
from irconv.ops.elementwise import add, cast, multiply, power, subtract, tanh
from irconv.ops.reduce import reduce_sum
from irconv.ops.shape import transpose
from irconv.passes import state_updates
from irconv.passes.fuse import fuse
from irconv.target import Target
from irconv.types import F32, tensor_type
from tests.passes.building import golden
from tests.passes.programs import state

TARGET = Target("test", frozenset({"elementwise", "state_updates"}))


def step() -> tuple[Graph, Builder, GraphValue]:
    """A graph with one input, a number that updates are computed from."""
    graph = Graph("step")
    builder = Builder(graph)
    return graph, builder, builder.input("rate", tensor_type("f32", ()))


def weight(builder: Builder, name: str, *shape: int, dtype: str = "f4") -> GraphValue:
    return state(builder, name, np.zeros(shape, dtype))


def update(old: GraphValue, new: GraphValue) -> GraphValue:
    new.builder.graph.set_update(old.id, new.id)
    return new


def momentum_step(builder: Builder, rate: GraphValue, name: str, *shape: int) -> None:
    """v' = 0.9 v + 2 w; w' = w - rate v'."""
    w, v = weight(builder, name, *shape), weight(builder, f"{name}.momentum", *shape)
    new = update(v, add(multiply(v, 0.9), multiply(w, 2.0)))
    update(w, subtract(w, multiply(new, rate)))


def kinds(graph: Graph) -> list[str]:
    return sorted(kernel.kind for kernel in fuse(graph, TARGET).kernels)


def test_parameters_with_momentum_and_a_counter():
    graph, builder, rate = step()
    for name, shape in (("a", (3, 4)), ("b", (5,)), ("c", ())):
        momentum_step(builder, rate, name, *shape)
    steps = state(builder, "steps", np.zeros((), np.int64))
    update(steps, add(steps, 1))
    (kernel,) = fuse(graph, TARGET).kernels
    assert set(kernel.outputs) == set(graph.updates.values())
    expected = """
        kernel @add_3 = state_updates (15 values) -> (7 values) {  # 340 bytes
          %multiply = multiply(%a.momentum, %constant) : f32[3,4]
          %multiply_1 = multiply(%a, %constant_1) : f32[3,4]
          %add = add(%multiply, %multiply_1) : f32[3,4]
          %multiply_2 = multiply(%add, %rate) : f32[3,4]
          %subtract = subtract(%a, %multiply_2) : f32[3,4]
          # likewise 2: %subtract_1, %subtract_2
          %add_3 = add(%steps, %constant_6) : i64[]
        }
        """
    assert print_kernel(graph, kernel) == golden(expected)


def test_parts_that_no_edge_joins():
    graph, builder, rate = step()
    x = weight(builder, "x", 4)
    first, second = tanh(x), multiply(x, rate)
    both = add(tanh(first), second)
    other = tanh(rate)
    nodes = [node for node in graph.order() if not graph[node].is_leaf]
    assert separate_parts(graph, nodes) == [tuple(i for i in nodes if i != other.id), (other.id,)]
    assert separate_parts(graph, [i for i in nodes if i != both.id]) == [(first.id, nodes[2]), (second.id,), (other.id,)]


def test_a_single_update_and_other_targets_have_none():
    graph, builder, rate = step()
    momentum_step(builder, rate, "a", 3)
    assert kinds(graph) == ["elementwise"]
    momentum_step(builder, rate, "b", 3)
    assert kinds(graph) == ["state_updates"]
    assert {kernel.kind for kernel in fuse(graph, Target("plain", frozenset({"elementwise"}))).kernels} == {"elementwise"}


def test_what_a_large_update_reads_is_not_kept():
    side = 257  # a little more than a quarter of a mebibyte
    graph, builder, rate = step()
    momentum_step(builder, rate, "a", side, side)  # its operands are kept anyway
    momentum_step(builder, rate, "b", 3)
    x = builder.input("x", tensor_type("f32", (side, side)))
    w = weight(builder, "w", side, side)
    update(w, subtract(w, multiply(matmul(x, x), rate)))
    v = weight(builder, "v", 2, 2)
    update(v, subtract(v, reduce_sum(x)))
    taken = {graph[i].name for kernel in fuse(graph, TARGET).kernels if kernel.kind == "state_updates" for i in kernel.outputs}
    assert graph[w.id].type.bytes > state_updates.MOST_KEPT_BYTES
    assert taken == {graph[new].name for old, new in graph.updates.items() if old != w.id}


def test_new_values_that_are_read_have_kernels_of_their_own():
    graph, builder, rate = step()
    for name in "ab":
        momentum_step(builder, rate, name, 3)
    w = weight(builder, "w", 4)
    new = update(w, multiply(w, rate))
    graph.set_output("sum", reduce_sum(new).id)
    v = weight(builder, "v", 4)
    half = multiply(v, 0.5)
    graph.set_output("half", half.id)
    update(v, add(half, 1.0))
    assert kinds(graph) == ["elementwise", "multiply", "state_updates", "sum"]


@pytest.mark.parametrize("case", ["halves", "integer powers", "no elementwise op"])
def test_updates_that_compiled_code_may_not_know(case):
    graph, builder, rate = step()
    for name in "ab":
        momentum_step(builder, rate, name, 3)
    if case == "halves":
        w = weight(builder, "w", 4, dtype="f2")
        update(w, cast(multiply(cast(w, F32), rate), w.type.dtype))
    elif case == "integer powers":
        w = weight(builder, "w", 4, dtype="i8")
        update(w, power(w, w))
    else:
        w = weight(builder, "w", 4, 4)
        update(w, transpose(w))
    taken = {i for kernel in fuse(graph, TARGET).kernels if kernel.kind == "state_updates" for i in kernel.outputs}
    assert taken == {new for old, new in graph.updates.items() if old != w.id}
