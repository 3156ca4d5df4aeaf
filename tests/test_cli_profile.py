"""``irconv profile``: shares and traces add up to what was measured."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import irconv
from irconv.backends.base import ProfileRow
from irconv.inspect.profile import kernel_times, trace_json
from irconv.inspect.roofline import Roofline
from irconv.places import Location
from tests.command_line import Command

MODELS = """
    from irconv import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3, padding=1)
            self.head = nn.Linear(2 * 4 * 4, 3)

        def forward(self, x):
            y = self.conv(x).relu()
            return self.head(y.flatten(1))

    net = Net()

    def doubled(x):
        return x * 2
    """


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models.py").write_text(textwrap.dedent(MODELS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules["irconv.cli.profile"], "measure", lambda threads: Roofline(1e11, 1e10, "made up"))
    return tmp_path


_profile = Command("profile")
output, fails = _profile.output, _profile.fails


ROWS = [
    ProfileRow("fast", "elementwise", 1e-3, 4_000_000, 1_000, Location("net.py", 3)),
    ProfileRow("slow", "conv", 3e-3, 1_000, 150_000_000, None),
]


def test_shares_and_rates_are_those_of_the_rows():
    slow, fast = kernel_times(ROWS, Roofline(1e11, 1e10, ""))
    assert (slow.name, fast.name) == ("slow", "fast")
    assert (slow.share, fast.share) == (pytest.approx(0.75), pytest.approx(0.25))
    assert slow.flops_per_second == pytest.approx(5e10)
    assert fast.bytes_per_second == pytest.approx(4e9)
    assert slow.of_roofline == pytest.approx(0.5)  # 1.5 ms of arithmetic in 3 ms
    assert fast.of_roofline == pytest.approx(0.4)  # 0.4 ms of copying in 1 ms
    assert fast.line == "net.py:3"


def test_nothing_to_profile_is_no_division_by_zero():
    assert kernel_times([], Roofline(1.0, 1.0, "")) == []
    (row,) = kernel_times([ProfileRow("nothing", "copy", 0.0, 0, 0, None)], Roofline(1.0, 1.0, ""))
    assert row.share == 0 and row.of_roofline == 0


def test_a_trace_loads_and_its_times_add_up():
    events = [event for event in json.loads(trace_json(ROWS, "net"))["traceEvents"] if event["ph"] == "X"]
    assert [event["name"] for event in events] == ["fast", "slow"]  # in order of execution
    assert sum(event["dur"] for event in events) == pytest.approx(4000)
    assert events[1]["ts"] == pytest.approx(events[0]["ts"] + events[0]["dur"])
    assert events[0]["args"] == {"bytes": 4_000_000, "flops": 1_000, "line": "net.py:3"}


@pytest.mark.parametrize("train", [(), ("--train",)])
def test_the_command_shows_kernels_kinds_and_writes_a_trace(folder, train):
    text = output("models.py:net", "--input", "2x1x4x4", *train, "--backend", "numpy", "--repeat", "2", "--trace", "t.json")
    assert "conv_epilogue" in text and "models.py:11" in text
    events = [event for event in json.loads(Path("t.json").read_text())["traceEvents"] if event["ph"] == "X"]
    total = float(text.split(" ms together")[0].split()[-1])
    assert sum(event["dur"] for event in events) / 1000 == pytest.approx(total, abs=2e-3)
    assert f"numpy: {len(events)} kernels" in text
    assert "made up" in text


def test_top_limits_the_kernels(folder):
    text = output("models.py:net", "--input", "2x1x4x4", "--backend", "numpy", "--top", "1")
    table = text.split("\n\n")[0].splitlines()
    assert len(table) == 2


def test_profiling_a_step_leaves_the_weights():
    model = irconv.nn.Linear(3, 2)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    x, y = np.ones((4, 3), np.float32), np.zeros(4, np.int64)
    step = irconv.compile_step(
        model, irconv.nn.functional.cross_entropy, irconv.optim.SGD(model.parameters(), lr=0.1), x, y, backend="numpy"
    )
    assert all(row.seconds >= 0 for row in step.profile(x, y))
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_wrong_command_lines(folder):
    assert "cannot write" in fails("models.py:net", "--input", "2x1x4x4", "--trace", "no/such/folder/t.json")
    assert "there is no backend 'abacus'" in fails("models.py:net", "--input", "2x1x4x4", "--backend", "abacus")
    assert "--input 1x3x224x224" in fails("models.py:net")
    assert "no parameters to train" in fails("models.py:doubled", "--input", "3", "--train")
    fails("models.py:net", "--input", "2x1x4x4", "--repeat", "0", status=2)
