"""Dead code: what stays because the signature says so."""

from __future__ import annotations

import numpy as np

from irconv.ops.elementwise import add, exp, negative
from irconv.passes.dce import DeadCode
from tests.passes.building import build, run, text


def graph_with_dead_code():
    def function(x, y, w, unused, running_mean):
        negative(exp(y))
        x.builder.constant(np.ones(3))
        return add(x, w)

    states = {name: np.ones(3, np.float32) for name in ("w", "unused", "running_mean")}
    graph = build(function, states, x="f32[3]", y="f32[3]")
    mean = graph["running_mean"].id
    graph.set_update(mean, graph["x"].id)
    return graph


def test_dead_values_go_and_the_signature_stays():
    after, _ = run(DeadCode(), graph_with_dead_code())
    assert [node.name for node in after] == ["x", "y", "w", "unused", "running_mean", "add"]
    assert text(after).splitlines()[0] == "%add = add(%x, %w) : f32[3]"
    assert not DeadCode().run(after)


def test_unused_states_go_when_asked():
    after, _ = run(DeadCode(unused_states=True), graph_with_dead_code())
    # a state that is only written stays: the write is what counts
    assert [node.name for node in after] == ["x", "y", "w", "running_mean", "add"]
    assert set(after.state) == {"w", "running_mean"}
    assert not DeadCode(unused_states=True).run(after)
