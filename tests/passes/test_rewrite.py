"""Patterns, rules and the worklist."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.builder import Builder
from irconv.errors import GraphError
from irconv.graph import Composite, Graph, Provenance
from irconv.ops.elementwise import absolute, add, exp, multiply, negative, subtract
from irconv.ops.shape import reshape
from irconv.passes.base import Note
from irconv.passes.rewrite import Capture, Constant, Rule, any_operands, apply_rules, match, op
from irconv.passes.simplify import Simplify
from irconv.places import Location
from irconv.types import tensor_type
from tests.counting import assert_near_linear
from tests.passes.building import build, text

X, Y = Capture("x"), Capture("y")


def found(pattern, graph, name):
    """What a pattern captures at a node: names by capture, or None."""
    result = match(pattern, graph, graph[name])
    return None if result is None else {key: node.name for key, node in result.captured.items()}


# --- patterns --------------------------------------------------------------------------------------------------------


def test_captures():
    graph = build(lambda a, b: subtract(negative(a), b), a="f32[2]", b="f32[2]")
    assert found(op("subtract", X, Y), graph, "subtract") == {"x": "negative", "y": "b"}
    assert found(op("subtract", op("negative", X, name="inner"), Y), graph, "subtract") == {
        "x": "a",
        "inner": "negative",
        "y": "b",
    }
    assert found(op("add", X, Y), graph, "subtract") is None
    assert found(op(("add", "subtract"), X, Y), graph, "subtract") == {"x": "negative", "y": "b"}
    assert found(op("subtract", X), graph, "subtract") is None


def test_only_commutative_ops_match_in_either_order():
    graph = build(
        lambda a, b: (add(a, negative(b)), subtract(a, negative(b)), subtract(negative(b), a)), a="f32[2]", b="f32[2]"
    )
    inner = op("negative", Y)
    assert found(op("add", inner, X), graph, "add") == {"y": "b", "x": "a"}
    assert found(op("subtract", inner, X), graph, "subtract") is None
    assert found(op("subtract", inner, X), graph, "subtract_1") == {"y": "b", "x": "a"}


def test_a_name_twice_is_one_value():
    graph = build(lambda a, b: (multiply(a, a), multiply(a, b)), a="f32[2]", b="f32[2]")
    assert found(op("multiply", X, X), graph, "multiply") == {"x": "a"}
    assert found(op("multiply", X, X), graph, "multiply_1") is None


def test_constants_and_conditions():
    graph = build(lambda a: (add(a, 2.0), add(a, 3.0)), a="f32[2]")
    two = Constant("c", lambda array: bool((array == 2).all()))
    assert found(op("add", two, X), graph, "add") == {"c": "constant", "x": "a"}
    assert found(op("add", two, X), graph, "add_1") is None
    assert found(op("add", Constant("c"), X), graph, "add_1") == {"c": "constant_1", "x": "a"}
    found_match = match(op("add", Constant("c"), X), graph, graph["add_1"])
    assert found_match is not None and found_match.array("c") == 3
    reads_input = any_operands("add", lambda graph, node: graph.operands(node)[0].op.name == "input", name="root")
    assert found(reads_input, graph, "add") == {"root": "add"}
    assert found(any_operands("add", lambda graph, node: False), graph, "add") is None


# --- rewriting -------------------------------------------------------------------------------------------------------

PLACE = Provenance(Location("model.py", 7), "block.0", Composite("gelu", "act"), "forward")


def test_a_rewrite_carries_provenance_and_name():
    graph = Graph()
    builder = Builder(graph)
    x = builder.input("x", tensor_type("f32", (3,)))
    with builder.at(PLACE, "activation"):
        y = absolute(x)
    graph.set_output("y", builder.adopt(exp(y)).id)
    rule = Rule("two-steps", op("absolute", X), lambda b, m: negative(multiply(b.wrap(m["x"]), b.constant(np.float32(-1)))))
    assert apply_rules(graph, [rule])
    assert graph["activation"].op.name == "negative"
    assert graph["activation.multiply"].op.name == "multiply"
    for name in ("activation", "activation.multiply", "constant"):
        assert graph[name].provenance == PLACE
    assert {node.name for node in graph} == {"x", "constant", "activation.multiply", "activation", "exp"}


def test_replaced_by_a_value_that_exists():
    graph = build(lambda x: (negative(exp(x)), exp(x)), x="f32[3]")
    rule = Rule("drop-negative", op("negative", X), lambda b, m: b.wrap(m["x"]))
    assert apply_rules(graph, [rule])
    assert text(graph) == "%exp = exp(%x) : f32[3]\n%exp_1 = exp(%x) : f32[3]\nreturn y0 = %exp, y1 = %exp_1"


def test_operands_that_nobody_reads_any_more_go():
    graph = build(lambda x: multiply(exp(negative(x)), exp(x)), x="f32[3]")
    rule = Rule("first", op("multiply", X, Y), lambda b, m: b.wrap(m["y"]))
    assert apply_rules(graph, [rule])
    assert text(graph) == "%exp_1 = exp(%x) : f32[3]\nreturn y = %exp_1"


def test_refusals_become_notes():
    graph = build(lambda x: (absolute(x), absolute(reshape(x, (6,)))), x="f32[2,3]")

    def check(m):
        return None if m.root.type.rank == 1 else f"rank {m.root.type.rank} is not 1"

    rule = Rule("flat", op("absolute", X), lambda b, m: exp(b.wrap(m["x"])), check)
    notes: list[Note] = []
    assert apply_rules(graph, [rule], notes)
    assert (graph["absolute"].op.name, graph["absolute_1"].op.name) == ("absolute", "exp")
    assert [str(note) for note in notes] == ["%absolute: flat: rank 2 is not 1"]


def test_what_nobody_reads_is_left_alone():
    graph = build(lambda x: [absolute(x), exp(x)][1], x="f32[2]")
    notes: list[Note] = []
    assert not apply_rules(graph, [Rule("no", op("absolute", X), lambda b, m: b.wrap(m["x"]), lambda m: "no")], notes)
    assert not notes and graph.has_name("absolute")


def test_nothing_to_do():
    graph = build(exp, x="f32[3]")
    assert not apply_rules(graph, [Rule("never", op("absolute", X), lambda b, m: b.wrap(m["x"]))])


def test_rules_that_undo_each_other_are_reported():
    graph = build(negative, x="f32[3]")
    there = Rule("there", op("negative", X), lambda b, m: absolute(b.wrap(m["x"])))
    back = Rule("back", op("absolute", X), lambda b, m: negative(b.wrap(m["x"])))
    with pytest.raises(GraphError, match=r"rewrite rules undo each other; the last one was '(there|back)'"):
        apply_rules(graph, [there, back])


def test_long_chains_take_near_linear_time():
    def chain(length):
        def function(x):
            for _ in range(length):
                x = add(negative(negative(x)), 0)
            return x

        return build(function, x="i32[2]")

    def simplifying(length):
        graph = chain(length)

        def run():
            assert Simplify().run(graph)
            assert text(graph) == "return y = %x"

        return run

    assert_near_linear(simplifying, 100, 800)
