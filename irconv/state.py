"""Who owns the arrays: variables with version numbers.

A parameter, buffer, optimiser moment, learning rate or random key is a :class:`Variable`.  Modules name them, graphs and
executables bind them by reference, and whoever packs or folds a copy compares :attr:`Variable.version` to know when to
rebuild it.  The array object behind a variable never changes, only its contents.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from irconv.errors import StateError
from irconv.types import TensorType, type_of


class LatestWrite:
    """Tells whether any variable was written since one looked last: ``token`` is then another object than it was.

    Versions say which; to look at the versions of all weights of a large model takes longer than a small one's call.
    """

    __slots__ = ("token",)

    def __init__(self) -> None:
        self.token = object()

    def note(self) -> None:
        """Say that a variable has been written, after its version has grown."""
        self.token = object()  # not a count: two threads that add to one at once may leave it where somebody has seen it


LATEST_WRITE = LatestWrite()
"""Of all variables of the process."""


class Variable:
    """One array with a version that grows with every write.

    ``lock`` is held while an executable updates the array or takes a consistent copy of several.
    """

    __slots__ = ("__weakref__", "array", "lock", "version")

    def __init__(self, array: Any):
        self.array = array if hasattr(array, "__cuda_array_interface__") else np.ascontiguousarray(array).reshape(np.shape(array))
        self.version = 0
        self.lock = threading.RLock()

    @property
    def type(self) -> TensorType:
        return type_of(self.array)

    def assign(self, value: Any) -> None:
        """Copy ``value`` into the array.  Raises StateError if its shape differs or its dtype does not cast safely."""
        if hasattr(value, "__cuda_array_interface__") and isinstance(self.array, np.ndarray):
            value = value.get()
        value = value if hasattr(value, "__cuda_array_interface__") else np.asarray(value)
        if value.shape != self.array.shape:
            raise StateError(
                f"a variable of type {self.type} cannot take an array of shape {list(value.shape)}",
                hint="the shape of a parameter or buffer is fixed when it is made",
            )
        if not np.can_cast(value.dtype, self.array.dtype, "same_kind"):
            raise StateError(f"a variable of type {self.type} cannot take an array of dtype {value.dtype}")
        with self.lock:
            self.array[...] = value
            self.touch()

    def touch(self) -> None:
        """Say that the array was written in place."""
        self.version += 1
        LATEST_WRITE.note()

    @property
    def notes_writes(self) -> bool:
        """Whether :data:`LATEST_WRITE` hears of every change of the version."""
        return True

    @property
    def stale(self) -> bool:
        """Whether :meth:`refresh` would rebuild the array."""
        return False

    def refresh(self) -> bool:
        """Rebuild what is derived from other variables if they have changed, and say so.  Nothing to do here."""
        return False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.type}, version {self.version})"


def touch_all(variables: Iterable[Variable]) -> None:
    """Say that the arrays of several variables were written in place."""
    for variable in variables:
        variable.version += 1
    LATEST_WRITE.note()


class DerivedVariable(Variable):
    """An array computed from other variables, such as a weight with batch norm folded into it.

    sources:  the variables that it is computed from.
    function: from their arrays, on the CPU, to the contents.

    Whoever runs a graph calls :meth:`refresh` on the variables behind its states first.
    """

    __slots__ = ("function", "sources", "versions")

    def __init__(self, sources: Sequence[Variable], function: Callable[..., np.ndarray]):
        self.sources = tuple(sources)
        self.function = function
        self.versions, contents = self._compute()
        super().__init__(np.array(contents))  # the contents may be a view of a source

    @property
    def notes_writes(self) -> bool:
        return all(source.notes_writes for source in self.sources)

    @property
    def stale(self) -> bool:
        """Whether a source was written since the contents were computed."""
        return self.versions != tuple(source.version for source in self.sources) or any(s.stale for s in self.sources)

    def refresh(self) -> bool:
        """Compute the contents again if a source was written since the last time; says whether it was."""
        for source in self.sources:
            source.refresh()
        if self.versions == tuple(source.version for source in self.sources):
            return False
        with self.lock:
            self.versions, contents = self._compute()
            self.array[...] = contents
            self.touch()
        return True

    def _compute(self) -> tuple[tuple[int, ...], np.ndarray]:
        """The versions of the sources, and the contents made from them: one consistent reading."""
        with ExitStack() as held:
            for source in sorted(self.sources, key=id):  # one order for everybody, against deadlock
                held.enter_context(source.lock)
            versions = tuple(source.version for source in self.sources)
            arrays: list[Any] = [source.array for source in self.sources]
            on_cpu = [a.get() if hasattr(a, "__cuda_array_interface__") else a for a in arrays]
            return versions, self.function(*on_cpu)
