"""The executable of the CuPy backend: the array kernels on a GPU.

Inputs that lie on the GPU are read there, others are uploaded.  Results are CuPy arrays when an input was one (or ``out=``
is), else NumPy arrays.  Variables may hold CuPy arrays; for one that holds a NumPy array a copy lives on the GPU, shared by
all executables, uploaded when the variable's version has changed and copied back after every call that updates it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from irconv.backends.arrays.binding import Binder
from irconv.backends.arrays.executable import ArrayExecutable
from irconv.backends.arrays.lower import Lowering
from irconv.kernel import Program
from irconv.state import Variable
from irconv.types import TensorType

Array = Any


class DeviceCopy:
    """A variable's contents on the GPU, and the version they were uploaded at (-1: not yet)."""

    __slots__ = ("array", "version")

    def __init__(self, array: Array):
        self.array = array
        self.version = -1


_copies: WeakKeyDictionary[Variable, DeviceCopy] = WeakKeyDictionary()


class DeviceBinder(Binder):
    """Inputs and outputs that may lie on the GPU or not."""

    def on_device(self, value: Any) -> bool:
        """Whether it is an array of the device's module."""
        return isinstance(value, self.xp.ndarray)

    def is_array(self, value: Any) -> bool:
        return self.on_device(value) or isinstance(value, np.ndarray)

    def as_array(self, name: str, value: Any, type_: TensorType) -> Array:
        if hasattr(value, "__cuda_array_interface__"):
            return self.checked(name, value if self.on_device(value) else self.xp.asarray(value), type_)
        return super().as_array(name, value, type_)

    def usable(self, array: Array) -> bool:
        return self.on_device(array) and super().usable(array)

    def stage(self, copy: Array, array: Array) -> None:
        native = array if self.on_device(array) else array.astype(copy.dtype, copy=False)
        self.xp.copyto(copy, self.xp.asarray(native))

    def bounds(self, array: Array) -> tuple[int, int]:
        if not self.on_device(array):
            return super().bounds(array)
        low, high = self.xp.byte_bounds(array)
        return int(low), int(high)

    def fresh(self, given: Sequence[Any], arrays: list[Any]) -> list[tuple[str, Array]]:
        results = super().fresh(given, arrays)
        if any(hasattr(value, "__cuda_array_interface__") for value in given):
            return results
        return [(path, np.empty(array.shape, array.dtype)) for path, array in results]

    def caller_outputs(self, out: Any, arrays: list[Any]) -> list[tuple[str, Array]]:
        results = super().caller_outputs(out, arrays)
        for path, array in results:
            if not self.on_device(array):
                arrays[self.paths[path]] = self.xp.empty(array.shape, array.dtype)
        return results

    def deliver(self, results: Sequence[tuple[str, Array]], arrays: Sequence[Any]) -> None:
        for path, array in results:
            if not self.on_device(array):
                array[...] = self.xp.asnumpy(arrays[self.paths[path]])


class CupyExecutable(ArrayExecutable):
    """A planned program on CuPy arrays."""

    backend = "cupy"

    def __init__(self, program: Program, lowering: Lowering):
        self.copies: dict[Variable, DeviceCopy] = {}
        super().__init__(program, lowering, DeviceBinder(program.graph, lowering.xp))

    def allocate_arena(self, size: int) -> Array:
        return self.xp.empty(size, np.uint8)

    def state_array(self, variable: Variable) -> Array:
        if isinstance(variable.array, self.xp.ndarray):
            return variable.array
        copy = _copies.get(variable)
        if copy is None:
            copy = _copies[variable] = DeviceCopy(self.xp.empty(variable.array.shape, variable.array.dtype))
        self.copies[variable] = copy
        return copy.array

    def is_stale(self) -> bool:
        return super().is_stale() or any(copy.version != variable.version for variable, copy in self.copies.items())

    def refresh(self) -> None:
        super().refresh()
        for variable, copy in self.copies.items():
            with variable.lock:
                if copy.version != variable.version:
                    self.xp.copyto(copy.array, self.xp.asarray(variable.array))
                    copy.version = variable.version

    def write_back(self) -> None:
        for variable in self._written:
            copy = self.copies.get(variable)
            if copy is not None:
                variable.array[...] = self.xp.asnumpy(copy.array)
                copy.version = variable.version

    def synchronise(self) -> None:
        self.xp.cuda.get_current_stream().synchronize()
