"""``irconv bench``: sides are compared before they are timed, and what goes wrong voids a row and nothing else."""

from __future__ import annotations

import json
import mmap
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from irconv.backends import auto_backend
from irconv.bench import sides
from irconv.bench.judge import Bounds, Distance, distance
from irconv.bench.memory import peak_bytes, resident_bytes
from irconv.bench.process import Process, SideError
from irconv.bench.race import Race, Rules
from irconv.bench.sides.base import Peer
from irconv.bench.task import Task
from irconv.cli.bench import find_twin, with_batch
from irconv.cli.models import parse_specs
from irconv.inspect.roofline import Roofline, measure_c, measure_numpy
from tests.command_line import Command

MODELS = """
    from irconv import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3, padding=1)
            self.norm = nn.BatchNorm2d(2)
            self.drop = nn.Dropout(0.5)
            self.head = nn.Linear(2 * 4 * 4, 3)

        def forward(self, x):
            y = self.norm(self.conv(x)).relu()
            return self.head(self.drop(y.flatten(1)))

    def net():
        return Net()

    def doubled(x):
        return x * 2
    """

TWINS = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, wrong=0.0):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3, padding=1)
            self.norm = nn.BatchNorm2d(2)
            self.drop = nn.Dropout(0.5)
            self.head = nn.Linear(2 * 4 * 4, 3)
            self.wrong = wrong

        def forward(self, x):
            y = self.norm(self.conv(x)).relu()
            return self.head(self.drop(y.flatten(1))) + self.wrong

    def net():
        return Net()

    def wrong_net():
        return Net(wrong=0.1)

    def crash():
        raise RuntimeError("no such luck")
    """

SHORT = ("--rounds", "1", "--turn", "0", "--quick", "--threads", "1")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models.py").write_text(textwrap.dedent(MODELS))
    (tmp_path / "torch_twins.py").write_text(textwrap.dedent(TWINS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules["irconv.cli.bench"], "measure", lambda threads: Roofline(1e11, 1e10, "made up"))
    return tmp_path


class Bench(Command):
    """Short, and of the NumPy backend unless others are named."""

    def call(self, *args: str) -> Result:
        own = () if "--backends" in args else ("--backends", "numpy")
        return super().call(*args, *own, *SHORT)


output, fails = Bench("bench").output, Bench("bench").fails


# --- the command -------------------------------------------------------------------------------------------------------------


def test_peers_through_onnx_agree_and_are_timed(folder):
    pytest.importorskip("onnxruntime")
    output("models.py:net", "--input", "2x1x4x4", "--against", "onnxruntime", "--json", "out.json")
    data = json.loads(Path("out.json").read_text())
    own, peer = data["results"]
    assert [own["name"], peer["name"]] == ["irconv numpy", "onnxruntime"]
    for result in (own, peer):
        assert not result["void"] and not result["skipped"]
        assert len(result["seconds"]) >= 2 and min(result["seconds"]) > 0
        assert result["difference"] < 1e-5
    assert own["flops"] > 2 * 2 * 2 * 9 * 16  # at least the convolution
    assert data["task"]["model"] == "models.py:net"


def test_auto_is_named_by_what_it_stands_for(folder):
    assert f"irconv {auto_backend()}" in output("models.py:net", "--input", "2x1x4x4", "--backends", "auto")


def test_training_is_compared_with_the_twin_beside_the_model(folder):
    pytest.importorskip("torch")
    text = output("models.py:net", "--input", "4x1x4x4", "--train", "--against", "torch,onnxruntime", "--json", "out.json")
    own, torch, onnx = json.loads(Path("out.json").read_text())["results"]
    assert torch["difference"] < 1e-4 and torch["mode"] == "contiguous, foreach"
    assert onnx["skipped"] == "it does not train"
    assert "skipped: it does not train" in text
    assert own["difference"] == 0


def test_a_mismatch_voids_the_row(folder):
    pytest.importorskip("torch")
    arguments = ("models.py:net", "--input", "2x1x4x4", "--against", "torch", "--torch", "torch_twins.py:wrong_net")
    text = fails(*arguments, "--train", "--loss", "mse", "--json", "out.json")
    own, torch = json.loads(Path("out.json").read_text())["results"]
    assert "differs from irconv numpy" in torch["void"] and torch["seconds"] == []
    assert own["seconds"]
    assert "void: differs from irconv numpy" in text


def test_a_side_that_fails_voids_its_row_alone(folder):
    pytest.importorskip("torch")
    text = fails("models.py:net", "--input", "2x1x4x4", "--against", "torch", "--torch", "torch_twins.py:crash")
    assert "no such luck" in text
    assert [line for line in text.splitlines() if line.startswith("irconv numpy") and "void" not in line]


def test_a_peer_that_is_not_installed_is_skipped(folder, monkeypatch):
    missing = Peer("onnxruntime", "onnx_runtime", "no_such_package", "pip install onnxruntime", ("any",), needs_onnx=True)
    monkeypatch.setitem(sides.PEERS, "onnxruntime", missing)
    assert "skipped: not installed: pip install onnxruntime" in output(
        "models.py:net", "--input", "1x1x4x4", "--against", "onnxruntime"
    )


def test_without_a_twin_torch_is_skipped(folder):
    pytest.importorskip("torch")
    text = output("models.py:doubled", "--input", "3", "--against", "torch")
    assert "--torch file.py:name" in text


def test_wrong_command_lines(folder):
    assert "does not know abacus" in fails("models.py:net", "--input", "1x1x4x4", "--against", "abacus", status=2)
    assert "names no backend" in fails("models.py:net", "--backends", ",", status=2)
    assert "there is no backend 'abacus'" in fails("models.py:net", "--backends", "abacus")
    assert "--input 1x3x224x224" in fails("models.py:net")
    assert "there is no file" in fails("missing.py:net", "--input", "1x1x4x4")
    assert "no parameters to train" in fails("models.py:doubled", "--input", "3", "--train")
    assert "models.py" in fails("models.py:net", "--input", "1x2x4x4")
    assert "--batch changes the shapes" in fails("models.py:net", "--batch", "3", status=2)
    assert "cannot write" in fails("models.py:net", "--input", "1x1x4x4", "--json", "no/such/folder/out.json")


def test_batch_replaces_the_first_axis():
    changed = with_batch(parse_specs(("1x3x8x8", "mask=2x8:bool")), 5)
    assert changed.positional[0].shape == (5, 3, 8, 8)
    assert changed.named["mask"].shape == (5, 8)


def test_twins_are_found_by_name(folder):
    assert find_twin("models.py:net") == "torch_twins.py:net"
    assert find_twin("models.py:doubled") == ""
    assert find_twin("net.onnx") == ""


# --- comparing ---------------------------------------------------------------------------------------------------------------


def test_outputs_are_judged_by_their_largest_value():
    expected = {"output.0": np.array([1.0, -200.0], np.float32)}
    near, far = np.array([1.01, -200.0], np.float32), np.array([1.1, -200.0], np.float32)
    assert distance({"output.0": near}, expected, {}).outputs == pytest.approx(0.01 / 200, rel=1e-4)
    assert Bounds.forward().problem(distance({"output.0": near}, expected, {})) == ""
    assert "largest value" in Bounds.forward().problem(distance({"output.0": far}, expected, {}))
    between = distance({"output.0": np.array([1.1, -200.0], np.float32)}, expected, {})
    assert Bounds.forward(own=False).problem(between) == ""  # other programs may round more
    assert Bounds.forward(own=False).problem(distance({"output.0": np.array([1.3, -200.0])}, expected, {}))
    assert "missing" in Bounds.forward().problem(distance({}, expected, {}))
    assert Bounds.forward().problem(distance({"output.0": np.full(2, np.nan)}, expected, {}))


def test_training_is_judged_by_losses_and_by_what_it_changed():
    start = {"w": np.zeros(4)}
    expected = {"losses": np.array([2.0, 1.0]), "state.w": np.full(4, 0.5)}
    bounds = Bounds.training(Distance(0.0))
    assert bounds.problem(distance(dict(expected), expected, start)) == ""
    assert "first step" in bounds.problem(distance(expected | {"losses": np.array([2.001, 1.0])}, expected, start))
    assert "largest value" in bounds.problem(distance(expected | {"losses": np.array([2.0, 1.01])}, expected, start))
    moved = distance(expected | {"state.w": np.full(4, 0.51)}, expected, start)
    assert moved.states == pytest.approx(0.02)
    assert "parameters" in bounds.problem(moved)
    assert "w is missing" in bounds.problem(distance({"losses": expected["losses"]}, expected, start))


def test_what_rounding_does_widens_the_bounds_but_not_for_the_first_loss():
    wide = Bounds.training(Distance(outputs=0.01, states=0.05))
    assert wide.problem(Distance(outputs=0.03, states=0.15)) == ""
    assert wide.problem(Distance(outputs=0.05))
    assert wide.problem(Distance(outputs=0.03, first=1e-3))
    assert "rounding alone" in Bounds.training(Distance(outputs=0.01, states=0.5)).problem(Distance(0.0))


# --- processes ---------------------------------------------------------------------------------------------------------------


def test_a_process_that_ends_or_hangs_is_an_error(folder):
    with pytest.raises(SideError, match="ended with status 1.*no_such_side"):
        Process("no_such_side", 1)
    with Process("own", 1) as process:
        with pytest.raises(SideError, match="unknown command"):
            process.ask("dance")
        process._process.kill()
        with pytest.raises(SideError, match="ended"):
            process.ask("peak")
    with pytest.raises(SideError, match=r"no answer within 0 seconds"):
        Process("own", 1, limit=0.01)


def test_modes_are_tried_and_the_fastest_is_kept(folder, monkeypatch):
    times = {"slow": 2.0, "fast": 1.0}

    class Pretended:
        def __init__(self, side, threads, environment):
            self.mode = ""

        def ask(self, do, **more):
            if do == "prepare":
                if more["mode"] == "broken":
                    raise SideError("does not work")
                self.mode = more["mode"]
                return {"compile": 10 * times[self.mode], "flops": 1}
            if do == "check":
                np.savez(more["path"], **{"output.0": np.ones(2)})
            return {"seconds": [times.get(self.mode)], "bytes": 5}

        def close(self):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

    monkeypatch.setattr("irconv.bench.race.Process", Pretended)
    side = Peer("irconv some", "own", "irconv", "", ("broken", "slow", "fast"))
    (result,) = Race(Task("m"), [side], folder, Rules(rounds=3)).run()
    assert result.modes == {"broken": "does not work", "slow": 2.0, "fast": 1.0}
    assert (result.mode, result.seconds, result.compile_seconds, result.bytes) == ("fast", [1.0] * 3, 10.0, 5)


# --- what is measured --------------------------------------------------------------------------------------------------------


def test_memory_is_seen_to_grow():
    before = resident_bytes()
    with mmap.mmap(-1, 64 * 2**20) as held:  # new pages for certain: an allocator may have some lying about
        held.write(b"1" * len(held))
        assert resident_bytes() - before > 48 * 2**20
        assert peak_bytes() >= resident_bytes() - 2**20


def test_rooflines_are_positive_and_give_the_slower_of_two_limits():
    measured = measure_numpy(1)
    assert measured.flops > 1e8 and measured.bytes > 1e8
    compiled = measure_c(1)
    assert compiled is None or (compiled.flops > 1e9 and compiled.bytes > 1e8)
    line = Roofline(100.0, 10.0, "")
    assert line.seconds(200, 10) == 2 and line.seconds(100, 50) == 5
