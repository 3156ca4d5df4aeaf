"""Central differences in float64: the oracle for gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def central_differences(
    function: Callable[..., float], arrays: Sequence[np.ndarray], slot: int, step: float = 1e-6
) -> np.ndarray:
    """The gradient of a scalar function by ``arrays[slot]``: (f(x + h) - f(x - h)) / 2h for every element."""
    moved = [np.array(a, copy=True) for a in arrays]
    gradient = np.zeros(arrays[slot].shape)
    for index in np.ndindex(arrays[slot].shape):
        original = moved[slot][index]
        moved[slot][index] = original + step
        above = function(*moved)
        moved[slot][index] = original - step
        below = function(*moved)
        moved[slot][index] = original
        gradient[index] = (above - below) / (2 * step)
    return gradient
