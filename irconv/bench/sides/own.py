"""irconv's side.  The mode is the backend; forward passes are bound calls, as those of peers that can bind their arrays."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

import irconv
import irconv.nn.functional as F
from irconv import nn, optim, structure
from irconv.bench.sides.base import read_inputs
from irconv.bench.task import LOSSES, Task
from irconv.kernel import kernel_flops
from irconv.loading import load_model
from irconv.nn.dropout import Dropout, Dropout1d, Dropout2d, Dropout3d

DROPOUT = (Dropout, Dropout1d, Dropout2d, Dropout3d)


class OwnSide:
    """One backend of irconv (threads are set in the environment)."""

    def prepare(self, task: Task, folder: Path, mode: str) -> dict[str, Any]:
        source: Any = load_model(task.model)
        weights = folder / "weights.npz"
        if weights.exists():
            with np.load(weights) as saved:
                source.load_state_dict(dict(saved))
        self.args, target = read_inputs(folder)
        self.task, self.source = task, source
        start = time.perf_counter()
        if task.trains:
            self.args.append(np.asarray(target))
            self.program: Any = training_step(source, task, self.args, mode)
        else:
            self.program = irconv.compile(source, *self.args, backend=mode, precision=task.precision, tune=task.tune)
        seconds = time.perf_counter() - start
        if not task.trains:
            self.forward = self.program.bind(*self.args)
            self.forward()
        flops = sum(kernel_flops(self.program.graph, kernel) for kernel in self.program.kernels)
        return {"compile": seconds, "flops": flops, "kernels": len(self.program.kernels), "plan": str(self.program.memory)}

    def call(self) -> Any:
        return self.program(*self.args) if self.task.trains else self.forward()

    def results(self) -> dict[str, np.ndarray]:
        if self.task.trains:
            losses = np.array([self.call() for _ in range(self.task.steps)])
            return {"losses": losses} | {f"state.{name}": a for name, a in self.source.state_dict().items()}
        leaves = structure.leaves(self.call())
        return {f"output.{number}": np.asarray(array) for number, (_, array) in enumerate(leaves)}

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


def training_step(model: nn.Module, task: Task, args: list[np.ndarray], backend: str) -> irconv.Step:
    """A step of SGD, without dropout."""
    model.train()
    for module in model.modules():
        if isinstance(module, DROPOUT):
            module.eval()
    optimizer = optim.SGD(model.parameters(), lr=task.learning_rate, momentum=task.momentum)
    loss = getattr(F, LOSSES[task.loss])
    return irconv.compile_step(
        model, loss, optimizer, *args, backend=backend, precision=task.precision, tune=task.tune
    )


def make(threads: int) -> OwnSide:
    """The side; the number of threads comes from the environment."""
    return OwnSide()
