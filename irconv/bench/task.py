"""What is run: a network, forward or in training, as all sides are told it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self

LOSSES = {
    "cross_entropy": "cross_entropy",
    "nll": "nll_loss",
    "mse": "mse_loss",
    "l1": "l1_loss",
    "huber": "huber_loss",
    "bce": "binary_cross_entropy",
    "bce_with_logits": "binary_cross_entropy_with_logits",
}
"""Losses by name, and what they are called in ``irconv.nn.functional`` and in ``torch.nn.functional`` alike."""

CLASSES = ("cross_entropy", "nll")
"""Losses whose targets are class numbers."""


@dataclass(frozen=True)
class Task:
    """A network and what is done with it.

    model:     MODEL as on the command line; read again by each of irconv's processes.
    trains:    a step of SGD (forward, backward, update) instead of one forward pass.
    loss:      one of ``LOSSES``, for training.
    steps:     training steps whose results are compared.
    precision: of irconv: "fast" or "strict".
    tune:      whether irconv measures its kernels and takes the fastest.
    torch:     ``file.py:name`` of the same network in PyTorch, with the same names of parameters; empty if there is none.

    In training, dropout is switched off on all sides: random numbers that differ by design could not be compared.
    """

    model: str
    trains: bool = False
    loss: str = "cross_entropy"
    learning_rate: float = 0.01
    momentum: float = 0.9
    steps: int = 10
    precision: str = "fast"
    torch: str = ""
    tune: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))
