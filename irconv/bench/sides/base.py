"""What a side is."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from irconv.bench.task import Task


@dataclass(frozen=True)
class Peer:
    """A side as the race sees it, before its library is imported.

    name:       as shown, and as ``--against`` takes it.
    module:     of this package, with the code.
    package:    what has to be installed.      install: how.
    inference:  ways to run forward passes; the fastest is kept.
    training:   ways to run training steps; none where it does not train.
    needs_onnx: it reads the ONNX file.
    """

    name: str
    module: str
    package: str
    install: str
    inference: tuple[str, ...]
    training: tuple[str, ...] = ()
    needs_onnx: bool = False

    def modes(self, trains: bool) -> tuple[str, ...]:
        return self.training if trains else self.inference

    def unavailable(self, task: Task) -> str:
        """Why it cannot take part; empty if it can."""
        if importlib.util.find_spec(self.package) is None:
            return f"not installed: {self.install}"
        if not self.modes(task.trains):
            return "it does not train" if task.trains else "it does not run forward passes"
        if self.module.startswith("torch") and not task.torch:
            return "no PyTorch module of this network is known: --torch file.py:name"
        return ""


class Side(Protocol):
    """A program that runs the network, in its own process."""

    def prepare(self, task: Task, folder: Path, mode: str) -> dict[str, Any]:
        """Make the network ready to run in one of its modes; returns what is to be told about it."""
        ...

    def call(self) -> Any:
        """One forward pass, or one training step."""
        ...

    def results(self) -> dict[str, np.ndarray]:
        """Outputs of one forward pass (``output.0``, ...), or what the first training steps left.

        That is ``losses``, and ``state.NAME`` for parameters and buffers.
        """
        ...

    def profile(self) -> list[dict[str, Any]]:
        """Time of each kernel, where the side can tell."""
        ...


def read_inputs(folder: Path) -> tuple[list[np.ndarray], np.ndarray | None]:
    """The inputs in order, and the target of training."""
    with np.load(folder / "inputs.npz") as given:
        inputs = [given[name] for name in given.files if name != "target"]
        return inputs, given["target"] if "target" in given.files else None
