"""The table of op samples: one list of rows per family, from which type rules, gradients and every backend are tested.

A row is small, in float64 where the op takes floats, and away from kinks unless the row is about the kink (then
``gradient=False``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irconv.op import NO_ATTRIBUTES


@dataclass(frozen=True)
class Sample:
    """One application of an op.

    op:         name in the registry.
    operands:   arrays, in slot order.
    attributes: the op's attribute dataclass.
    about:      a few words; with the op name it makes the test id.
    wrt:        operand slots whose gradient is checked against central differences; None: every float operand.
    gradient:   False where central differences make no sense (at a kink, integer results).
    second:     False where the second derivative is not checked.
    """

    op: str
    operands: tuple[np.ndarray, ...]
    attributes: Any = NO_ATTRIBUTES
    about: str = ""
    wrt: tuple[int, ...] | None = None
    gradient: bool = True
    second: bool = True
    id: str = field(init=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", f"{self.op}:{self.about}" if self.about else self.op)


def numbers(*shape: int, low: float = -2.0, high: float = 2.0, seed: int = 0) -> np.ndarray:
    """Distinct float64 numbers evenly spread over [low, high] in shuffled order: no ties, none exactly in the middle."""
    count = int(np.prod(shape))
    spread = low + (high - low) * (np.arange(count) + 0.37) / max(count, 1)
    return np.random.default_rng(seed + count).permutation(spread).reshape(shape)
