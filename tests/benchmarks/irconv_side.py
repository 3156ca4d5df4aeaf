"""irconv's side of the comparison: a process driven by ``compare.py``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import rows
import worker

import irconv
import irconv.nn.functional as F
from irconv import optim

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from models import MODELS  # from examples/


class IrconvSide:
    """The NumPy backend (threads are set in the environment)."""

    def __init__(self, threads: int):
        self.threads = threads

    def prepare(self, row: rows.Row, folder: Path) -> dict[str, Any]:
        model = MODELS[row.model].make()
        floats = {name: array.shape for name, array in model.state_dict().items() if array.dtype.kind == "f"}
        weights = rows.random_state(floats)
        model.load_state_dict(weights, strict=False)
        np.savez(folder / "weights.npz", **weights)
        given = np.load(folder / "inputs.npz")
        self.row, self.args = row, [given[name] for name in given.files]
        start = time.perf_counter()
        if row.trains:
            optimizer = optim.SGD(model.parameters(), lr=rows.LEARNING_RATE, momentum=rows.MOMENTUM)
            self.program = irconv.compile_step(model, F.cross_entropy, optimizer, *self.args, backend="numpy")
        else:
            self.program = irconv.compile(model, *self.args, backend="numpy")
        compile_seconds = time.perf_counter() - start
        return {"compile": compile_seconds, "kernels": len(self.program.kernels), "plan": str(self.program.memory)}

    def call(self) -> Any:
        return self.program(*self.args)

    def result(self) -> np.ndarray:
        if self.row.trains:
            return np.array([self.call() for _ in range(rows.STEPS)])
        return np.asarray(self.call())

    def profile(self) -> list[dict[str, Any]]:
        return [
            {
                "name": kernel.name,
                "kind": kernel.kind,
                "ms": kernel.seconds * 1e3,
                "bytes": kernel.bytes,
                "flops": kernel.flops,
                "line": str(kernel.location or ""),
            }
            for kernel in self.program.profile(*self.args)
        ]


if __name__ == "__main__":
    worker.serve(IrconvSide)
