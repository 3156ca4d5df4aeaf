"""Python numbers beside tensors: they have a kind (bool, int, float) but no width, and take that of the tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irconv.errors import DTypeError
from irconv.types import BOOL, F32, I64, DType


def is_number(value: Any) -> bool:
    """Whether a value is a Python number (NumPy's scalars have a width and are arrays here)."""
    return isinstance(value, (bool, int, float)) and not isinstance(value, np.generic)


def is_numeric(value: Any) -> bool:
    """Whether a value is a number, a list of them, or an array or tensor of any library."""
    plain = isinstance(value, (bool, int, float, list, tuple))
    return plain or hasattr(value, "__array__") or hasattr(value, "__dlpack__")


def with_numbers(strong: DType | None, values: Sequence[Any]) -> DType:
    """The element type of arrays of type ``strong`` (None: there are none) and the Python numbers among ``values``."""
    weak = [v for v in values if is_number(v)]
    if any(isinstance(v, float) for v in weak):
        return strong if strong is not None and strong.is_float else F32
    if any(not isinstance(v, bool) for v in weak):
        return I64 if strong is None or strong is BOOL else strong
    return strong if strong is not None else BOOL


def number_as(value: Any, target: DType) -> np.ndarray:
    """A Python number as an array of ``target``.  DTypeError for an integer that does not fit."""
    whole = isinstance(value, int) and not isinstance(value, bool) and target.is_integer
    if whole and not target.lowest <= value <= target.highest:
        raise DTypeError(f"{value} does not fit in {target}")
    return np.asarray(value, target.numpy)
