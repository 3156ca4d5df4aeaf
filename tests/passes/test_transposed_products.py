"""Products whose factors are exchanged because only their transpose is read."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import irconv.nn.functional as F
from irconv import compile_step, nn, optim
from irconv.graph import Graph
from irconv.ops.contract import matmul, transposed
from irconv.ops.reduce import reduce_sum
from irconv.ops.shape import transpose
from irconv.passes.check import Checker
from irconv.passes.transposed_products import TransposedProducts
from irconv.verify import verify
from tests.passes.building import build, golden, outputs, text

compiling = importlib.import_module("irconv.compile")


def run(graph: Graph) -> tuple[Graph, list[str]]:
    """The graph after the pass (on a copy, verified, computing the same within rounding), and why it left products alone."""
    after, notes = graph.copy(), []
    changed = TransposedProducts().run(after, notes)
    verify(after)
    assert changed == (text(after) != text(graph))
    Checker(tolerance=1e-6).check("transposed_products", graph, after)
    return after, [note.reason for note in notes]


def test_gradient_of_a_linear_layer():
    after, notes = run(build(lambda x, d: transposed(matmul(transposed(x), d)), x="f32[4,3]", d="f32[4,2]"))
    assert not notes
    assert text(after) == golden("""
        %transpose_1.transpose = transpose(%d) axes=[1,0] : f32[2,4]
        %transpose_1 = matmul(%transpose_1.transpose, %x) : f32[2,3]
        return y = %transpose_1
    """)


def test_both_factors_transposed():
    after, _ = run(build(lambda x, y: transposed(matmul(transposed(x), transposed(y))), x="f32[4,3]", y="f32[2,4]"))
    assert text(after) == golden("""
        %transpose_2 = matmul(%y, %x) : f32[2,3]
        return y = %transpose_2
    """)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x, y: transposed(matmul(x, y)), "neither factor is a transposed matrix, so no transpose would be saved"),
        (lambda x, y: (transposed(p := matmul(transposed(x), y)), p), "%matmul is also read as it is"),
        (
            lambda x, y: transpose(matmul(transposed(x), y), (1, 0, 2)),
            "axes [1, 0, 2] are not those of a transposed matrix",
        ),
        (
            lambda x, y: transposed(matmul(transposed(x), reduce_sum(y, (0,)))),
            "a factor is repeated: [2, 3, 3] times [3, 3]",
        ),
    ],
)
def test_other_products_stay(function, reason):
    graph = build(function, x="f32[2,3,3]", y="f32[2,3,3]")
    after, notes = run(graph)
    assert text(after) == text(graph)
    assert notes == [reason]


sizes = st.integers(1, 4)


@settings(deadline=None, max_examples=40)
@given(st.lists(sizes, max_size=2), sizes, sizes, sizes, st.booleans(), st.booleans(), st.integers(0, 99))
def test_against_numpy(batch, m, k, n, turn_left, turn_right, seed):
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(*batch, k, m) if turn_left else (*batch, m, k))
    right = rng.normal(size=(*batch, n, k) if turn_right else (*batch, k, n))

    def function(x, y):
        return transposed(matmul(transposed(x) if turn_left else x, transposed(y) if turn_right else y))

    types = {name: f"f64[{','.join(map(str, array.shape))}]" for name, array in (("x", left), ("y", right))}
    after, _ = run(build(function, **types))
    assert ("matmul" == after[after.outputs["y"]].op.name) == (turn_left or turn_right)
    first = np.swapaxes(left, -1, -2) if turn_left else left
    second = np.swapaxes(right, -1, -2) if turn_right else right
    expected = np.einsum("...mk,...kn->...nm", first, second)
    np.testing.assert_allclose(outputs(after, {"x": left, "y": right})["y"], expected, rtol=1e-12, atol=1e-12)


def test_updates_read_gradients_as_the_weight_lies(monkeypatch):
    """No step of a training step reads a turned gradient, and it trains as it does without the pass."""
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(5, 7)).astype(np.float32), rng.integers(0, 3, size=5)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((6, 7), (6,), (3, 6), (3,))]
    trained = []
    for passes in (compiling.TRAINING, [p for p in compiling.TRAINING if not isinstance(p, TransposedProducts)]):
        model = nn.Sequential(nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3))
        for parameter, value in zip(model.parameters(), weights, strict=True):
            parameter.assign(value)
        step = compile_step(model, F.cross_entropy, optim.SGD(model.parameters(), 0.1, momentum=0.9), passes=passes)
        losses = [float(step(x, t)) for _ in range(3)]
        trained.append((losses, [np.array(p) for p in model.parameters()], _turned_gradients(step.compiled.executable)))
    (losses, after, turned), (plain_losses, plain_after, plain_turned) = trained
    assert (turned, plain_turned) == (0, 2)
    np.testing.assert_allclose(losses, plain_losses, rtol=1e-6)
    for array, plain in zip(after, plain_after, strict=True):
        np.testing.assert_allclose(array, plain, rtol=1e-5, atol=1e-6)


def _turned_gradients(executable) -> int:
    """Updates that read a transposed product."""
    graph = executable.graph
    makers = [kernel for kernel in executable.kernels if set(kernel.outputs) & set(graph.updates.values())]
    return sum(graph[value].op.name == "transpose" for kernel in makers for value in kernel.inputs)
