"""OpenVINO on the CPU: one request at a time, float32 throughout, inputs and outputs shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino

from irconv.bench.sides.base import read_inputs
from irconv.bench.task import Task


class OpenVinoSide:
    """A compiled model and one request."""

    def __init__(self, threads: int):
        self.threads = threads

    def prepare(self, task: Task, folder: Path, mode: str) -> dict[str, Any]:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the machine has it
            "NUM_STREAMS": 1,
        }
        self.inputs, _ = read_inputs(folder)
        compiled = openvino.Core().compile_model(str(folder / "model.onnx"), "CPU", settings)
        self.request = compiled.create_infer_request()
        for number, array in enumerate(self.inputs):
            self.request.set_input_tensor(number, openvino.Tensor(array, shared_memory=True))
        self.count = len(compiled.outputs)
        self.request.infer()
        return {}

    def call(self) -> Any:
        self.request.start_async()  # the shortest way to a run: infer() also packs the results into a dict
        self.request.wait()

    def results(self) -> dict[str, np.ndarray]:
        self.call()
        return {f"output.{i}": np.array(self.request.get_output_tensor(i).data) for i in range(self.count)}

    def profile(self) -> list[dict[str, Any]]:
        return []


def make(threads: int) -> OpenVinoSide:
    """The side with so many threads."""
    return OpenVinoSide(threads)
