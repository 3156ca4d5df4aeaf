"""Every op against its sample rows: type rule, gradient, second derivative, and every backend."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.graph import Graph
from irconv.interpret import evaluate
from irconv.op import OPS, NoGradient
from irconv.passes.differentiate import differentiate
from irconv.types import type_of
from tests.differences import central_differences
from tests.samples import Sample
from tests.samples.table import all_samples

SAMPLES = all_samples()


def identify(sample: Sample) -> str:
    return sample.id


def graph_of(sample: Sample) -> tuple[Graph, list[int], int]:
    """A graph that applies the sample's op to inputs: graph, input ids, result id."""
    graph = Graph("sample")
    inputs = [graph.add_input(f"x{i}", type_of(np.asarray(a))).id for i, a in enumerate(sample.operands)]
    result = graph.add(OPS[sample.op], sample.attributes, inputs).id
    graph.set_output("", result)
    return graph, inputs, result


def slots(sample: Sample) -> list[int]:
    """Operand slots whose gradient is checked."""
    if sample.wrt is not None:
        return list(sample.wrt)
    return [i for i, a in enumerate(sample.operands) if a.dtype == np.float64]


@pytest.mark.parametrize("sample", SAMPLES, ids=identify)
def test_type_rule_agrees_with_execution(sample: Sample) -> None:
    op = OPS[sample.op]
    with np.errstate(all="ignore"):
        result = op.reference(sample.attributes, *sample.operands)
    assert type_of(np.asarray(result)) == op.result_type(sample.attributes, [type_of(a) for a in sample.operands]).logical


DIFFERENTIABLE = [s for s in SAMPLES if s.gradient and not isinstance(OPS[s.op].gradient, NoGradient) and slots(s)]


def weighted(sample: Sample, weights: np.ndarray):
    op = OPS[sample.op]

    def scalar(*arrays: np.ndarray) -> float:
        with np.errstate(all="ignore"):
            result = op.reference(sample.attributes, *arrays)
        # a pooling window that lies in the padding alone is -inf whatever the input: it has no slope
        return float(np.sum(weights * np.where(np.isinf(result), 0, result)))

    return scalar


@pytest.mark.parametrize("sample", DIFFERENTIABLE, ids=identify)
def test_gradient_agrees_with_central_differences(sample: Sample) -> None:
    graph, inputs, result = graph_of(sample)
    type_ = graph[result].type
    if type_.dtype.name != "f64":
        pytest.skip("the result is not float64")
    weights = np.random.default_rng(1).uniform(0.5, 1.5, type_.shape)
    seed = graph.add_input("seed", type_).id
    wanted = slots(sample)
    found = differentiate(graph, result, [inputs[i] for i in wanted], seed)
    given = dict(zip([*inputs, seed], [*sample.operands, weights], strict=True))
    values = evaluate(graph, given, found.values())
    for slot in wanted:
        expected = central_differences(weighted(sample, weights), sample.operands, slot)
        np.testing.assert_allclose(values[found[inputs[slot]]], expected, rtol=1e-5, atol=1e-7, err_msg=f"operand {slot}")


@pytest.mark.parametrize("sample", [s for s in DIFFERENTIABLE if s.second], ids=identify)
def test_second_derivative_agrees_with_central_differences(sample: Sample) -> None:
    """The gradient of a weighted sum of first gradients, against central differences of that sum."""
    graph, inputs, result = graph_of(sample)
    type_ = graph[result].type
    if type_.dtype.name != "f64":
        pytest.skip("the result is not float64")
    generator = np.random.default_rng(2)
    weights = generator.uniform(0.5, 1.5, type_.shape)
    seed = graph.add_input("seed", type_).id
    wanted = slots(sample)
    first = differentiate(graph, result, [inputs[i] for i in wanted], seed)
    arrays = [np.asarray(a) for a in (*sample.operands, weights)]
    ids = [*inputs, seed]
    directions = {slot: generator.uniform(0.5, 1.5, sample.operands[slot].shape) for slot in wanted}

    def directional(*values: np.ndarray) -> float:
        run = evaluate(graph, dict(zip(ids, values, strict=True)), list(first.values()))
        return float(sum(np.sum(directions[slot] * run[first[inputs[slot]]]) for slot in wanted))

    # differentiate each first gradient along its direction, and add: the derivative of `directional`
    along = [*(inputs[i] for i in wanted), seed]
    totals = {i: np.zeros(graph[i].type.shape) for i in along}
    for slot in wanted:
        extended = graph.copy()
        direction = extended.add_input("direction", extended[first[inputs[slot]]].type).id
        second = differentiate(extended, first[inputs[slot]], along, direction)
        given = dict(zip([*ids, direction], [*arrays, directions[slot]], strict=True))
        run = evaluate(extended, given, second.values())
        for i in along:
            totals[i] = totals[i] + run[second[i]]
    for position, i in enumerate(ids):
        if i in totals:
            expected = central_differences(directional, arrays, position, step=1e-5)
            np.testing.assert_allclose(totals[i], expected, rtol=2e-4, atol=1e-6, err_msg=f"by %{graph[i].name}")
