"""PyTorch's side of the comparison: eager mode, as fast as it gets without compilation.

Evaluation under ``inference_mode``; contiguous and channels-last tensors are tried and the faster kept, and in training also
the ``foreach`` and the ``fused`` optimiser.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rows
import torch
import torch_models
import worker
from torch.nn import functional

TRIAL_SECONDS = 1.0


class Run:
    """A model in one mode of operation."""

    def __init__(self, row: rows.Row, folder: Path, layout: torch.memory_format, fused: bool):
        given = {name: torch.from_numpy(array) for name, array in np.load(folder / "inputs.npz").items()}
        self.row = row
        self.model = torch_models.MODELS[row.model]().to(memory_format=layout).train(row.trains)
        self.model.load_state_dict(_state(self.model, folder / "weights.npz"))
        self.x = given["x"].to(memory_format=layout)
        self.target = given.get("target")
        kinds = {"fused": True} if fused else {"foreach": True}
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=rows.LEARNING_RATE, momentum=rows.MOMENTUM, **kinds)

    def call(self) -> torch.Tensor:
        if not self.row.trains:
            with torch.inference_mode():
                return self.model(self.x)
        self.optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(self.model(self.x), self.target)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def best_time(self) -> float:
        return min(worker.timed(self.call, TRIAL_SECONDS))


def _state(model: torch.nn.Module, path: Path) -> dict[str, torch.Tensor]:
    """The saved weights; the counters of batches that come with batch norms start from zero."""
    saved = {name: torch.from_numpy(array) for name, array in np.load(path).items()}
    counters = {name: value for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")}
    return counters | saved


class TorchSide:
    """PyTorch eager."""

    def __init__(self, threads: int):
        torch.set_num_threads(threads)

    def prepare(self, row: rows.Row, folder: Path) -> dict[str, Any]:
        layouts = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
        times = {name: Run(row, folder, layout, fused=False).best_time() for name, layout in layouts.items()}
        chosen = min(times, key=times.__getitem__)
        fused = row.trains and Run(row, folder, layouts[chosen], fused=True).best_time() < times[chosen]
        self.run = Run(row, folder, layouts[chosen], fused)
        return {"mode": f"{chosen}, {'fused' if fused else 'foreach'} SGD" if row.trains else chosen}

    def call(self) -> Any:
        return self.run.call()

    def result(self) -> np.ndarray:
        if self.run.row.trains:
            return np.array([self.call().item() for _ in range(rows.STEPS)])
        return self.call().numpy()

    def profile(self) -> list[dict[str, Any]]:
        return []


if __name__ == "__main__":
    worker.serve(TorchSide)
