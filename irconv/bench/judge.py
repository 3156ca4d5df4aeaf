"""Whether two sides have computed the same.

Outputs are held against the first side's, relative to the largest value.  Training is compared by the losses of its first steps,
and by what they did to parameters and buffers: the 2-norm of all differences, relative to the 2-norm of the change.

Rounding grows from step to step, in some networks (MobileNet-V2) so fast that two memory layouts of one library end a percent
apart.  How fast is measured: the first side trains a second time with every input moved to the next larger float.  Sides may
differ by a few times what that does, where it is more than the usual bound; the first loss, before any update, may not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

FORWARD = 1e-4
LOSSES = 1e-3
STATES = 1e-2
"""Bounds of outputs and of the first loss, of later losses, and of the change of parameters and buffers."""

OTHERS_FORWARD = 1e-3
"""Bound of other programs' outputs: MNN's Winograd with large tiles is off by 1e-4 in VGG.  The table shows how far each is."""

TIMES_ROUNDING = 4.0
"""How many times as far as one nudge of the inputs takes training, sides may differ: they round at every op."""

MEANINGLESS = 0.3
"""Where rounding alone moves parameters by this share of their change, nothing can be said."""


@dataclass(frozen=True)
class Distance:
    """How far results are apart: outputs or losses, the first loss, parameters and buffers; ``misfit`` names what is missing."""

    outputs: float
    first: float = 0.0
    states: float = 0.0
    misfit: str = ""


@dataclass(frozen=True)
class Bounds:
    """What is allowed; ``reason`` says why nothing is."""

    outputs: float
    states: float
    reason: str = ""

    @classmethod
    def forward(cls, own: bool = True) -> Self:
        """Bounds for outputs, of irconv's ``own`` backends or of another program."""
        return cls(FORWARD if own else OTHERS_FORWARD, STATES)

    @classmethod
    def training(cls, rounding: Distance) -> Self:
        """Bounds for a training that rounding moves so far."""
        wild = not rounding.states < MEANINGLESS
        return cls(
            max(LOSSES, TIMES_ROUNDING * rounding.outputs),
            max(STATES, TIMES_ROUNDING * rounding.states),
            f"rounding alone moves parameters by {rounding.states:.0%} of their change" if wild else "",
        )

    def problem(self, apart: Distance) -> str:
        """What is wrong with results so far apart; empty if nothing is."""
        if apart.misfit or self.reason:
            return apart.misfit or self.reason
        if not apart.first <= FORWARD:
            return f"by {apart.first:.1e} of the loss of the first step"
        if not apart.outputs <= self.outputs:
            return f"by {apart.outputs:.1e} of the largest value"
        if not apart.states <= self.states:
            return f"parameters by {apart.states:.1e} of their change"
        return ""


def distance(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], start: dict[str, np.ndarray]) -> Distance:
    """How far results are from those expected; ``start``: parameters and buffers before training."""
    names = [name for name in expected if not name.startswith("state.")]
    for name in names:
        if name not in found or found[name].shape != expected[name].shape:
            return Distance(float("inf"), misfit=f"{name} is missing or of another shape")
    outputs = max((_relative(found[name], expected[name]) for name in names), default=0.0)
    if not start:
        return Distance(outputs)
    first = _relative(found["losses"][:1], expected["losses"][:1])
    states = [name for name in expected if name.startswith("state.")]
    lost = next((name for name in states if name not in found or found[name].shape != expected[name].shape), None)
    if lost:
        return Distance(outputs, first, misfit=f"{lost.removeprefix('state.')} is missing or of another shape")
    moved = sum(_square(expected[name], start[name.removeprefix("state.")]) for name in states)
    apart = sum(_square(found[name], expected[name]) for name in states)
    return Distance(outputs, first, float(np.sqrt(apart / moved)) if moved else float(apart > 0))


def read_results(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file."""
    with np.load(path) as arrays:
        return dict(arrays)


def _relative(found: np.ndarray, expected: np.ndarray) -> float:
    if not expected.size:
        return 0.0
    apart = np.abs(found.astype(np.float64) - expected).max()
    largest = np.abs(expected).max()
    return float(apart / largest) if largest else float(apart)


def _square(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a.astype(np.float64) - b).sum())
