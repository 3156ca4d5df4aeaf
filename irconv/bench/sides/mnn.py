"""MNN on the CPU, in float32, from the ONNX file by its own converter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import MNN
import numpy as np

from irconv.bench.sides.base import read_inputs
from irconv.bench.task import Task

CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"
"""The converter itself: ``MNN.tools``, its command line, installs a package for logging and reports its use to a server."""


class MnnSide:
    """An interpreter and its session."""

    def __init__(self, threads: int):
        self.threads = threads

    def prepare(self, task: Task, folder: Path, mode: str) -> dict[str, Any]:
        source, file = folder / "model.onnx", folder / "model.mnn"
        arguments = ["-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(file), "--bizCode", "bench"]
        ran = subprocess.run([sys.executable, "-c", CONVERT, *arguments], capture_output=True, text=True, check=False)
        if not file.exists():
            raise RuntimeError(f"its converter failed: {(ran.stdout + ran.stderr).strip()[-300:]}")
        inputs, _ = read_inputs(folder)
        self.network = MNN.Interpreter(str(file))
        self.session = self.network.createSession({"backend": "CPU", "precision": "high", "numThread": self.threads})
        names = list(self.network.getSessionInputAll(self.session))
        if len(names) != 1 or len(inputs) != 1:
            raise RuntimeError("it does not keep the order of several inputs")
        (array,) = inputs
        self.tensor = self.network.getSessionInput(self.session, names[0])
        self.given = MNN.Tensor(array.shape, MNN.Halide_Type_Float, array, MNN.Tensor_DimensionType_Caffe)
        self.call()
        return {}

    def call(self) -> Any:
        self.tensor.copyFrom(self.given)  # a run puts other values where its input was
        self.network.runSession(self.session)

    def results(self) -> dict[str, np.ndarray]:
        self.call()
        found = {}
        for number, tensor in enumerate(self.network.getSessionOutputAll(self.session).values()):
            shape = tensor.getShape()
            empty = np.zeros(shape, np.float32)
            host = MNN.Tensor(shape, MNN.Halide_Type_Float, empty, MNN.Tensor_DimensionType_Caffe)
            tensor.copyToHostTensor(host)
            found[f"output.{number}"] = np.array(host.getData(), np.float32).reshape(shape)
        return found

    def profile(self) -> list[dict[str, Any]]:
        return []


def make(threads: int) -> MnnSide:
    """The side with so many threads."""
    return MnnSide(threads)
