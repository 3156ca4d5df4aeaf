"""PyTorch without compilation: memory layouts, oneDNN fusion for inference, and both fast optimisers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irconv.bench.sides.base import read_inputs
from irconv.bench.task import LOSSES, Task
from irconv.loading import import_file

DROPOUT = torch.nn.modules.dropout._DropoutNd


class TorchSide:
    """A module of the user's, with the weights that all sides share."""

    def __init__(self, threads: int):
        torch.set_num_threads(threads)

    def prepare(self, task: Task, folder: Path, mode: str) -> dict[str, Any]:
        self.task, self.mode = task, mode
        self.layout = torch.channels_last if "channels last" in mode else torch.contiguous_format
        self.model = load(task, folder)
        self.model.to(memory_format=self.layout)
        inputs, target = read_inputs(folder)
        self.inputs = [self.laid_out(torch.from_numpy(array)) for array in inputs]
        if task.trains:
            self.target = torch.from_numpy(np.asarray(target))
            kinds = {"fused": True} if "foreach" not in mode else {"foreach": True}
            self.optimizer = torch.optim.SGD(
                self.model.parameters(), lr=task.learning_rate, momentum=task.momentum, **kinds
            )
            self.loss = getattr(torch.nn.functional, LOSSES[task.loss])
        start = time.perf_counter()
        self.run = self.ready()
        self.inference = torch.inference_mode(not task.trains)
        self.inference.__enter__()  # for the rest of this process: to enter it at each call costs LeNet a tenth of its time
        return {"compile": time.perf_counter() - start}

    def laid_out(self, array: torch.Tensor) -> torch.Tensor:
        """Images in the memory layout of the mode; other inputs as they are."""
        return array.to(memory_format=self.layout) if array.dim() == 4 else array

    def ready(self) -> Callable[..., Any]:
        """What is called with the inputs."""
        if "TorchScript" not in self.mode:
            return self.model
        script: Any = torch.jit
        script.enable_onednn_fusion(True)
        with torch.inference_mode():
            frozen = script.freeze(script.trace(self.model, self.inputs))
            for _ in range(3):  # it profiles and fuses in its first calls
                frozen(*self.inputs)
        return frozen

    def call(self) -> Any:
        if not self.task.trains:
            return self.run(*self.inputs)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.run(*self.inputs), self.target)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def results(self) -> dict[str, np.ndarray]:
        if self.task.trains:
            losses = np.array([self.call().item() for _ in range(self.task.steps)])
            states = self.model.state_dict().items()
            return {"losses": losses} | {f"state.{name}": value.numpy().copy() for name, value in states}
        found = self.call()
        leaves = torch.utils._pytree.tree_leaves(found)
        return {f"output.{number}": value.contiguous().numpy() for number, value in enumerate(leaves)}

    def profile(self) -> list[dict[str, Any]]:
        return []


def load(task: Task, folder: Path) -> Any:
    """The module with the shared weights, in the task's mode; dropout stays off."""
    file, _, name = task.torch.rpartition(":")
    found = getattr(import_file(Path(file)), name)
    model: Any = found if isinstance(found, torch.nn.Module) else found()
    with np.load(folder / "weights.npz") as arrays:
        saved = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    # counters of batches, which irconv does not keep, stay as they are
    counters = {name: value for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")}
    model.load_state_dict(counters | saved)
    model.train(task.trains)
    for module in model.modules():
        if isinstance(module, DROPOUT):
            module.eval()
    return model


def make(threads: int) -> TorchSide:
    """The side with so many threads within an op."""
    return TorchSide(threads)
