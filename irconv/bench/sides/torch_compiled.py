"""PyTorch with torch.compile; for inference with weights frozen, so that they are folded and packed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._inductor import config

from irconv.bench.sides.torch_eager import TorchSide


class TorchCompiledSide(TorchSide):
    """The eager side, compiled."""

    def ready(self) -> Callable[..., Any]:
        config.freezing = not self.task.trains
        compiled: Callable[..., Any] = torch.compile(self.model, mode=self.mode.partition(",")[0])
        if self.task.trains:
            self._compile_step(compiled)
        else:
            with torch.inference_mode():
                compiled(*self.inputs)
        return compiled

    def _compile_step(self, compiled: Callable[..., Any]) -> None:
        """Have forward and backward compiled, leaving weights and statistics as they were."""
        kept = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.loss(compiled(*self.inputs), self.target).backward()
        self.model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                value.copy_(kept[name])


def make(threads: int) -> TorchCompiledSide:
    """The side with so many threads within an op."""
    return TorchCompiledSide(threads)
