"""Damaged copies of real model files: each becomes a graph or is refused with one error (``fuzz.py`` tries many more)."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("onnx", reason="needs the onnx package: pip install 'irconv[onnx]'")

from onnx import ModelProto

from tests.onnx import fuzz, mutate
from tests.onnx.real_models import path_of

COUNT = 300
"""Inputs of the quick run; ``python tests/onnx/fuzz.py --count 20000`` is the thorough one."""

FIELDS = sorted(set(mutate.FIELDS), key=lambda change: change.__name__)


@pytest.fixture(scope="module")
def sources() -> dict[str, bytes]:
    return {name: path_of(name).read_bytes() for name in fuzz.MODELS}


@pytest.mark.parametrize("name", fuzz.MODELS)
def test_files_that_are_whole_are_imported(name):
    assert fuzz.check(path_of(name)) == "imported"


def test_damaged_files_are_imported_or_refused(sources):
    report = fuzz.run(list(range(COUNT)), processes=2)
    assert not report.failures, "\n".join(f"input {number}: {what}" for number, what in report.failures)
    assert report.outcomes.total() == COUNT
    assert min(report.outcomes["imported"], report.outcomes["refused"]) > COUNT // 10


@pytest.mark.parametrize("change", FIELDS, ids=lambda change: change.__name__)
def test_each_kind_of_damage_is_dealt_with(change, sources, tmp_path):
    path = tmp_path / "model.onnx"
    for seed in range(3 if change in mutate.SLOW else 8):
        model = ModelProto.FromString(sources[fuzz.MODELS[seed % 2]])
        change(model, random.Random(seed))
        path.write_bytes(model.SerializeToString())
        assert fuzz.check(path) in ("imported", "refused")


def test_inputs_can_be_repeated(sources):
    data = sources["pnet"]
    weights = mutate.weight_places(data)
    assert sum(stop - start for start, stop in weights) > len(data) / 2
    for number in range(20):
        assert mutate.mutated(data, number, weights) == mutate.mutated(data, number, weights)


# --- the fuzzer finds what it should ---------------------------------------------------------------------------------------


def hang(path):
    while True:
        pass


def crash(path):
    raise KeyError("a mistake of ours")


@pytest.mark.parametrize(("check", "found"), [(hang, "hangs at"), (crash, "raises Traceback")])
def test_failures_are_reported(check, found, monkeypatch, tmp_path):
    monkeypatch.setattr(fuzz, "check", check)
    monkeypatch.setattr(fuzz, "SECONDS", 0.05)
    assert fuzz.outcome_of(tmp_path / "model.onnx").startswith(found)
