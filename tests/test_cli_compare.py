"""``irconv compare``: a right backend passes, a wrong kernel is found and named."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest

import irconv
from irconv import backends
from irconv.backends.numpy.backend import NumpyBackend
from irconv.compile import INFERENCE
from irconv.inspect.compare import RESULT, compare_backends, measure
from tests.command_line import Command

MODELS = """
    from irconv import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3, padding=1)
            self.norm = nn.BatchNorm2d(2)
            self.pool = nn.MaxPool2d(2)
            self.head = nn.Linear(2 * 2 * 2, 3)

        def forward(self, x):
            y = self.pool(self.norm(self.conv(x)).relu())
            return self.head(y.flatten(1))

    net = Net()

    def doubled(x):
        return x * 2

    def several(x):
        y = net.conv(x).relu()
        return y.sum(), (y.mean(), net.pool(y))
    """


class WrongBackend(NumpyBackend):
    """NumPy's, but what max pooling makes is scaled: planted."""

    def build(self, program):
        executable = super().build(program)
        run = executable._run
        graph = program.graph
        pools = [k.outputs[0] for k in program.schedule.kernels if k.kind in ("max_pool", "pool_indices")]

        def wrong(context):
            steps = []
            for step in context.steps:
                steps.append(step)
                kernel = step[3].kernel if step[3] else None
                if kernel is not None and kernel.outputs[0] in pools:
                    steps.append((_halve, None, _pick(kernel.outputs[0]), step[3]))
            context.steps = steps
            run(context)

        def _pick(value):
            assert graph[value].op.name == "max_pool"
            return lambda arrays: (arrays[value],)

        executable._run = wrong
        return executable


def _halve(array: np.ndarray) -> None:
    array *= 0.5


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models.py").write_text(textwrap.dedent(MODELS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(backends.BACKENDS, "wrong", WrongBackend)
    return tmp_path


_compare = Command("compare")
output, fails = _compare.output, _compare.fails


@pytest.mark.parametrize("more", [(), ("--train",), ("--backward",), ("--reference", "f64"), ("--weights", "random")])
def test_numpy_agrees_with_the_reference(folder, more):
    text = output("models.py:net", "--input", "2x1x4x4", "--top", "200", *more)
    assert "values compared" in text
    names = {line.split()[0] for line in text.splitlines() if line.strip()}
    assert {"relu", "pool"} & names
    if "--train" in more:
        assert {"d_conv.weight", "d_head.weight"} & names
        assert "new" in names


def test_several_results(folder):
    text = output("models.py:several", "--input", "2x1x4x4", "--backends", "numpy", "--top", "200")
    assert sum("(result)" in line for line in text.splitlines()) == 3
    names = [line.split()[0] for line in text.splitlines() if line]
    assert "y" in names  # what leaves the first kernel, by the name of its variable


@pytest.mark.parametrize("more", [(), ("--train",)])
def test_a_wrong_kernel_is_named(folder, more):
    text = fails("models.py:net", "--input", "2x1x4x4", "--backends", "numpy,wrong", *more)
    message = text[text.index("error: ") :]
    assert "the first: kernel @pool of wrong" in message or "the first: kernel @d_relu.argmax_pool of wrong" in message
    assert "%pool" in message and "models.py:13" in message and "by 5.00e-01" in message
    rows = [line for line in text.splitlines() if " wrong " in line]
    assert rows and not any(" numpy " in line for line in text.splitlines()[1:3])  # worst first


def test_a_difference_below_the_tolerance_passes(folder):
    output("models.py:net", "--input", "2x1x4x4", "--backends", "wrong", "--tolerance", "2")


def test_states_are_left_as_they_were():
    model = irconv.nn.Sequential(irconv.nn.Conv2d(1, 2, 3), irconv.nn.BatchNorm2d(2))
    before = {name: array.copy() for name, array in model.state_dict().items()}
    graph = irconv.trace(model, irconv.TensorSpec((2, 1, 5, 5)), training=True)
    x = np.random.default_rng(0).standard_normal((2, 1, 5, 5)).astype(np.float32)
    assert graph.updates
    rows = compare_backends(graph, ["numpy"], [x], INFERENCE)
    assert {row.value for row in rows if row.kernel == RESULT} >= {"new 1.running_mean", "new 1.running_var"}
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_the_largest_difference_is_found_where_it_is():
    expected = np.array([[1.0, -4.0], [2.0, np.nan]])
    found = np.array([[1.0, -4.5], [2.1, np.nan]])
    row = measure("b", "v", None, None, found, expected)
    assert (row.absolute, row.relative, row.where) == (0.5, 0.125, (0, 1))
    assert (row.found, row.expected) == (-4.5, -4.0)
    nan = measure("b", "v", None, None, np.array([1.0, np.nan]), np.array([1.0, 2.0]))
    assert nan.absolute == np.inf and nan.where == (1,)
    infinite = measure("b", "v", None, None, np.array([np.inf]), np.array([np.inf]))
    assert infinite.absolute == 0
    assert measure("b", "v", None, None, np.zeros((0, 2)), np.zeros((0, 2))).relative == 0


def test_wrong_command_lines(folder):
    assert "there is no backend 'abacus'" in fails("models.py:net", "--input", "2x1x4x4", "--backends", "numpy,abacus")
    assert "names no backend" in fails("models.py:net", "--backends", "", status=2)
    assert "--input 1x3x224x224" in fails("models.py:net")
    assert "leave --backward out" in fails("models.py:net", "--input", "2x1x4x4", "--train", "--backward", status=2)
    assert "no parameters to train" in fails("models.py:doubled", "--input", "3", "--train")
