"""The benchmark scripts run; what they measure is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent / "benchmarks"


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_import_time():
    shown = run("import_time.py", "--repeat", "1")
    assert "| import irconv |" in shown


def test_compile_time():
    shown = run("compile_time.py", "--models", "resnet18", "--repeat", "1", "--size", "32", "--profile", "3")
    assert "| forward resnet18 |" in shown
    assert "| train resnet18 |" in shown
    assert "cumtime" in shown


@pytest.mark.parametrize("row", ["forward:lenet:2", "train:lenet:2"])
def test_compare(row, tmp_path):
    pytest.importorskip("torch", reason="the comparison is with PyTorch")
    path = tmp_path / "out.json"
    shown = run("compare.py", "--rows", row, "--repeat", "1", "--quick", "--json", str(path), "--profile", "2")
    assert f"| {row} |" in shown
    assert "GFLOP/s" in shown
    (outcome,) = json.loads(path.read_text(encoding="utf-8"))
    assert not outcome["problem"]
    assert outcome["difference"] < 1e-3
    assert min(len(times) for times in outcome["times"].values()) >= 2
    assert all(kernel["ms"] > 0 for kernel in outcome["kernels"])


def test_peers(tmp_path):
    pytest.importorskip("onnxruntime", reason="one of the peers")
    path = tmp_path / "out.json"
    quick = ("--rounds", "1", "--quick", "--backends", "numpy", "--against", "onnxruntime")
    shown = run("peers.py", "--rows", "forward:lenet:2", *quick, "--json", str(path))
    (line,) = [line for line in shown.splitlines() if line.startswith("| forward:lenet:2 |")]
    assert "(onnxruntime)" in line
    ((own, peer),) = [row["results"] for row in json.loads(path.read_text(encoding="utf-8"))]
    assert peer["difference"] < 1e-4 and own["seconds"] and peer["seconds"]


def test_compare_refuses_an_unknown_row():
    command = [sys.executable, str(SCRIPTS / "compare.py"), "--rows", "forward:nothing:1"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert "one of lenet, resnet18" in ran.stderr
