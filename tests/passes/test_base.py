"""Passes as text, the pipeline and its stages, the checking mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from irconv.errors import GraphError, ModelError, NumericsError
from irconv.graph import Graph, Node
from irconv.op import NO_ATTRIBUTES, OPS
from irconv.ops.elementwise import absolute, add, exp, multiply, negative, tanh
from irconv.passes.base import PASSES, Note, Pass, Pipeline, parse_pass, parse_pipeline
from irconv.passes.check import Checker, difference
from irconv.passes.cse import CommonSubexpressions
from irconv.passes.dce import DeadCode
from irconv.passes.fold_constants import FoldConstants
from irconv.passes.simplify import Simplify
from tests.passes.building import build, outputs, text


@dataclass(frozen=True)
class Swap(Pass):
    """Replaces every op of one name by another: wrong on purpose."""

    name: ClassVar[str] = "swap"
    old: str = "exp"
    new: str = "tanh"

    def run(self, graph: Graph, notes: list[Note] | None = None) -> bool:
        found = [node for node in graph if node.op.name == self.old]
        for node in found:
            replacement = graph.add(OPS[self.new], NO_ATTRIBUTES, node.operands, name=node.name)
            graph.replace(node.id, replacement.id)
            graph.remove(node.id)
            graph.rename(replacement.id, node.name)
        return bool(found)


@dataclass(frozen=True)
class Breaks(Pass):
    """Leaves a node whose type is not what its rule gives."""

    name: ClassVar[str] = "breaks"

    def run(self, graph: Graph, notes: list[Note] | None = None) -> bool:
        node = graph["exp"]
        graph._nodes[node.id] = Node(node.id, node.op, node.attributes, node.operands, graph["y"].type, node.name)
        return True


def sample() -> Graph:
    def function(x, y):
        return add(multiply(exp(negative(negative(x))), 1.0), y)

    return build(function, x="f32[2,3]", y="f32[2,1]")


# --- spelling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("simplify", Simplify()),
        ("simplify{differentiated=true}", Simplify(differentiated=True)),
        (" simplify { differentiated = yes } ", Simplify(differentiated=True)),
        ("simplify{}", Simplify()),
        ("fold_constants{limit_bytes=4096}", FoldConstants(4096)),
        ("fold-constants", FoldConstants()),
        ("dce{unused_states=1}", DeadCode(unused_states=True)),
    ],
)
def test_parse_pass(spelling, expected):
    assert parse_pass(spelling) == expected
    assert parse_pass(str(expected)) == expected


def test_spelling_shows_what_is_not_default():
    assert str(Simplify()) == "simplify"
    assert str(FoldConstants(10)) == "fold_constants{limit_bytes=10}"
    assert str(DeadCode(unused_states=True)) == "dce{unused_states=true}"


def test_parse_pipeline():
    pipeline = parse_pipeline("simplify{differentiated=true}, fold_constants{limit_bytes=8},cse,dce,")
    assert pipeline.passes == (Simplify(True), FoldConstants(8), CommonSubexpressions(), DeadCode())
    assert parse_pipeline(str(pipeline)) == pipeline
    assert parse_pipeline("") == Pipeline([])


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ("inline", "there is no pass 'inline'"),
        ("simplify(x)", "'simplify(x)' is not a pass"),
        ("", "'' is not a pass"),
        ("simplify{fast=true}", "pass 'simplify' has no option 'fast'"),
        ("cse{fast=true}", "it has no options"),
        ("simplify{differentiated=perhaps}", "option 'differentiated' of pass 'simplify' is of type bool, got 'perhaps'"),
        ("fold_constants{limit_bytes=1.5}", "option 'limit_bytes' of pass 'fold_constants' is of type int, got '1.5'"),
        ("fold_constants{limit_bytes}", "is of type int, got ''"),
    ],
)
def test_parse_pass_refuses(spelling, message):
    with pytest.raises(ModelError) as error:
        parse_pass(spelling)
    assert message in str(error.value)


def test_registry_knows_the_passes():
    assert {"simplify", "fold_constants", "cse", "dce", "fold_batch_norm"} <= set(PASSES)


# --- stages ----------------------------------------------------------------------------------------------------------


def test_stages_keep_every_graph():
    graph = sample()
    before = text(graph)
    stages = Pipeline([Simplify(), CommonSubexpressions(), FoldConstants(), Swap()]).run(graph)
    assert text(graph) == before
    assert [stage.name for stage in stages] == ["simplify", "cse", "fold_constants", "swap"]
    assert [stage.changed for stage in stages] == [True, False, False, True]
    assert stages[0].graph is stages[1].graph is stages[2].graph
    assert "exp" in text(stages[0].graph) and "tanh" in text(stages[3].graph)
    assert all(stage.seconds >= 0 for stage in stages)


def test_stages_keep_the_first_graph_when_nothing_changes():
    graph = build(exp, x="f32[2]")
    stages = Pipeline([Simplify(), DeadCode()]).run(graph)
    assert all(stage.graph is graph and not stage.changed for stage in stages)
    assert Pipeline([]).run(graph) == []


def test_stages_keep_notes():
    graph = build(lambda x: add(x, 0.0), x="f32[2]")
    (stage,) = Pipeline([Simplify()]).run(graph)
    assert [str(note) for note in stage.notes] == ["%add: add-zero: f32: x + 0.0 is 0.0 where x is -0.0"]


def test_a_broken_graph_names_the_pass():
    with pytest.raises(GraphError, match="pass breaks left an invalid graph: %exp has type"):
        Pipeline([Simplify(), Breaks()]).run(sample())


# --- checking --------------------------------------------------------------------------------------------------------


def test_checking_names_pass_and_first_value():
    def function(x):
        return negative(exp(x)), tanh(x)

    graph = build(function, x="f32[4]")
    with pytest.raises(NumericsError) as error:
        Pipeline([Simplify(), Swap()]).run(graph, checker=Checker())
    message = str(error.value)
    assert "pass swap changed the numbers: output 'y0' differs by" in message
    assert "tolerance 0.0001" in message and "the first value that differs is %exp" in message


def test_checking_passes_what_is_equal():
    Pipeline([Simplify(), FoldConstants(), CommonSubexpressions(), DeadCode()]).run(sample(), checker=Checker(seed=3))


def test_checking_on_given_leaves():
    # absolute and negative agree where x <= 0
    graph = build(lambda x: exp(absolute(x)), x="f32[2]")
    checker = Checker({"x": np.array([-1.0, -2.0], np.float32)})
    Pipeline([Swap("absolute", "negative")]).run(graph, checker=checker)
    with pytest.raises(NumericsError):
        Pipeline([Swap("absolute", "negative")]).run(graph, checker=Checker({"x": np.ones(2, np.float32)}))


def test_tolerance_can_be_given():
    graph = build(lambda x: add(exp(x), 1000.0), x="f32[2]")
    Pipeline([Swap()]).run(graph, checker=Checker({"x": np.zeros(2, np.float32)}, tolerance=1e-2))
    with pytest.raises(NumericsError, match="tolerance 1e-07"):
        Pipeline([Swap()]).run(graph, checker=Checker({"x": np.zeros(2, np.float32)}, tolerance=1e-7))


def test_checking_compares_updates():
    graph = build(lambda x, w: exp(x), {"w": np.ones(3, np.float32)}, x="f32[3]")
    graph.set_update(graph["w"].id, graph["exp"].id)
    assert set(outputs(graph)) == {"y", "new w"}
    graph.drop_outputs()
    with pytest.raises(NumericsError, match="pass swap changed the numbers: the update of %w differs"):
        Pipeline([Swap()]).run(graph, checker=Checker())


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.0], [1.0, 1.0], 0.5),
        ([1.0, np.nan], [1.0, np.nan], 0.0),
        ([1.0, np.nan], [1.0, 2.0], np.inf),
        ([1.0, 2.0], [1.0, np.nan], np.inf),
        ([np.inf], [np.inf], 0.0),
        ([np.inf], [-np.inf], np.inf),
        ([0.0], [1e-30], np.inf),
        ([], [], 0.0),
    ],
)
def test_difference(before, after, expected):
    assert difference(np.array(before), np.array(after)) == expected


def test_difference_of_integers_is_all_or_nothing():
    assert difference(np.array([1, 2]), np.array([1, 2])) == 0
    assert difference(np.array([1, 2]), np.array([1, 3])) == np.inf
