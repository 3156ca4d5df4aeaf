"""The executable of the NumPy backend."""

from __future__ import annotations

from irconv.backends.arrays.executable import ArrayExecutable


class NumpyExecutable(ArrayExecutable):
    """A planned program on NumPy arrays; states are read and written where they are."""

    backend = "numpy"
