"""Inputs and outputs of a call: taken from whatever the caller has, checked, and brought into the form kernels read."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from irconv.backends.arrays.address import address_of
from irconv.errors import DTypeError, IrconvError, ShapeError
from irconv.graph import Graph
from irconv.structure import leaves
from irconv.types import TensorType

Array = Any
_PLAIN = (bool, int, float)


class Binder:
    """Checks and converts the arrays of a call to a graph's signature."""

    def __init__(self, graph: Graph, xp: Any = np):
        self.xp = xp
        self.names = [graph[i].name for i in graph.inputs]
        self.types: dict[int, TensorType] = {i: graph[i].type for i in (*graph.inputs, *graph.outputs.values())}
        self.name_of = {i: graph[i].name for i in graph.inputs}
        self.paths = dict(graph.outputs)
        self._owned: list[tuple[int, int]] = []
        self._written: list[tuple[int, int]] = []

    def protect(self, owned: Sequence[Array], written: Sequence[Array]) -> None:
        """Name the arrays of the states, and those that a call writes.

        ``out=`` may overlap none of them; inputs that overlap one to be written are copied first.
        """
        self._owned = sorted(self.bounds(array) for array in owned if array.size)
        self._written = sorted(self.bounds(array) for array in written if array.size)

    # --- inputs ------------------------------------------------------------------------------------------------------

    def arrange(self, args: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
        """The arguments in the order of the inputs, nested ones taken apart.  ShapeError if one is missing or too many."""
        flat = list(args)
        if not named and len(flat) == len(self.names) and all(type(a) is np.ndarray for a in flat):
            return flat
        if any(isinstance(a, (tuple, list, dict)) for a in args):
            flat = [leaf for a in args for _, leaf in leaves(a)]
        if not named and len(flat) == len(self.names):
            return flat
        by_name = {path: leaf for name, value in named.items() for path, leaf in leaves(value, name)}
        unknown = [name for name in by_name if name not in self.names]
        if unknown:
            raise ShapeError(f"there is no input {unknown[0]!r}", hint=self._signature())
        if len(flat) > len(self.names):
            raise ShapeError(f"got {len(flat)} arrays for {len(self.names)} inputs", hint=self._signature())
        given = dict(zip(self.names, flat, strict=False))
        twice = [name for name in by_name if name in given]
        if twice:
            raise ShapeError(f"input {twice[0]!r} is given by position and by name", hint=self._signature())
        given |= by_name
        missing = [name for name in self.names if name not in given]
        if missing:
            raise ShapeError(f"input {missing[0]!r} is missing", hint=self._signature())
        return [given[name] for name in self.names]

    def _signature(self) -> str:
        described = (f"{self.name_of[i]}: {self.types[i]}" for i in self.name_of)
        return f"the inputs are {', '.join(described) or 'none'}"

    def input(self, slot: int, value: Any, staged: dict[int, Array]) -> Array:
        """``value`` as a row-major array of the input's type, copied into ``staged`` only where it has to be."""
        type_ = self.types[slot]
        if type(value) is np.ndarray and value.dtype is type_.dtype.numpy and value.shape == type_.shape and not self._written:
            flags = value.flags
            if flags.c_contiguous and flags.aligned and self.xp is np:
                return value  # what nearly every call brings
        name = self.name_of[slot]
        array = self.as_array(name, value, type_)
        if array.shape != type_.shape:
            raise ShapeError(
                f"input {name!r} is {type_}, got an array of shape {list(array.shape)}",
                hint="compile for this shape, or reshape the array",
            )
        if self.usable(array) and not (self._written and self._meets(self._written, array)):
            return array
        copy = staged.get(slot)
        if copy is None:
            copy = staged[slot] = self.xp.empty(type_.shape, type_.dtype.numpy)
        self.stage(copy, array)
        return copy

    def stage(self, copy: Array, array: Array) -> None:
        """Copy an input to where kernels can read it."""
        self.xp.copyto(copy, array)

    def as_array(self, name: str, value: Any, type_: TensorType) -> Array:
        """Anything with ``__array__`` or ``__dlpack__``, or a Python number for a scalar, of the input's element type."""
        if isinstance(value, _PLAIN):
            return self._number(name, value, type_)
        return self.checked(name, value if isinstance(value, np.ndarray) else self._converted(name, value, type_), type_)

    def checked(self, name: str, array: Array, type_: TensorType) -> Array:
        """The array, if its elements are of the input's type, in whatever byte order."""
        expected = type_.dtype.numpy
        if array.dtype != expected and array.dtype.newbyteorder("=") != expected:
            raise DTypeError(
                f"input {name!r} is {type_}, got elements of type {array.dtype}", hint=f"convert it: array.astype('{expected}')"
            )
        return array

    def _converted(self, name: str, value: Any, type_: TensorType) -> Array:
        try:
            if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
                return np.asarray(value)
            if hasattr(value, "__dlpack__"):
                return np.from_dlpack(value)
        except IrconvError:
            raise
        except Exception as error:  # whatever the other library raises
            raise DTypeError(
                f"input {name!r}: {type(value).__name__} did not give its data: {error}",
                hint="detach it and move it to the CPU first",
            ) from error
        raise DTypeError(
            f"input {name!r} is {type_}, got {type(value).__name__}",
            hint="pass a NumPy array, or an object with __array__ or __dlpack__",
        )

    def _number(self, name: str, value: float, type_: TensorType) -> Array:
        """A Python number for a scalar input, if its kind fits (an int for a float, not the other way round)."""
        if type_.rank:
            raise ShapeError(f"input {name!r} is {type_}, got the number {value!r}")
        rank = {"bool": 0, "uint": 1, "int": 1, "float": 2}
        if rank[type_.dtype.kind] < _PLAIN.index(type(value)):
            raise DTypeError(f"input {name!r} is {type_}, got the number {value!r}")
        try:
            return np.asarray(value, type_.dtype.numpy)
        except OverflowError:
            raise DTypeError(f"input {name!r} is {type_}, which cannot hold {value!r}") from None

    def is_array(self, value: Any) -> bool:
        """Whether results can be written to it."""
        return isinstance(value, np.ndarray)

    def usable(self, array: Array) -> bool:
        """Whether kernels can use the array where it is: row-major, aligned, in the machine's byte order."""
        flags = array.flags
        return bool(flags.c_contiguous and getattr(flags, "aligned", True) and array.dtype.isnative)

    # --- outputs -----------------------------------------------------------------------------------------------------

    def fresh(self, given: Sequence[Any], arrays: list[Any]) -> list[tuple[str, Array]]:
        """New arrays for the results, put into their slots; (path, array) pairs to give back."""
        results = []
        for path, slot in self.paths.items():
            type_ = self.types[slot]
            arrays[slot] = self.xp.empty(type_.shape, type_.dtype.numpy)
            results.append((path, arrays[slot]))
        return results

    def caller_outputs(self, out: Any, arrays: list[Any]) -> list[tuple[str, Array]]:
        """The caller's arrays for the results, checked and put into their slots; (path, array) pairs to give back."""
        given = {"": out} if type(out) is np.ndarray else dict(leaves(out))
        if given.keys() != self.paths.keys():
            raise ShapeError(
                f"out= has {sorted(given)}, the outputs are {sorted(self.paths)}",
                hint="give out= the structure that a call returns",
            )
        results = [(path, given[path]) for path in self.paths]
        inputs = [(name, arrays[slot]) for slot, name in self.name_of.items()]
        for i, (path, array) in enumerate(results):
            self.check_output(path, array, self.types[self.paths[path]])
            for name, other in inputs:
                if self.overlap(array, other):
                    raise ShapeError(f"out= for {path!r} overlaps input {name!r}", hint="give out= memory of its own")
            if any(self.overlap(array, other) for _, other in results[:i]):
                raise ShapeError(f"out= for {path!r} overlaps another output", hint="give every output memory of its own")
            if self._owned and self._meets(self._owned, array):
                raise ShapeError(f"out= for {path!r} is an array of the model itself", hint="give out= memory of its own")
            arrays[self.paths[path]] = array
        return results

    def deliver(self, results: Sequence[tuple[str, Array]], arrays: Sequence[Any]) -> None:
        """Bring what was computed to what the caller gets; here they are the same arrays."""

    def check_output(self, path: str, array: Any, type_: TensorType) -> None:
        """Raise DTypeError or ShapeError unless a kernel can write its result straight into the array."""
        what = f"out= for {path!r}" if path else "out="
        if not self.is_array(array):
            raise DTypeError(f"{what} is a {type(array).__name__}, needs an array of type {type_}")
        if array.dtype != type_.dtype.numpy:
            raise DTypeError(f"{what} has elements of type {array.dtype}, needs {type_}")
        if array.shape != type_.shape:
            raise ShapeError(f"{what} has shape {list(array.shape)}, needs {type_}")
        if not Binder.usable(self, array) or not getattr(array.flags, "writeable", True):
            raise ShapeError(f"{what} must be writable, aligned and C-contiguous", hint="np.empty makes such arrays")

    # --- bound calls -------------------------------------------------------------------------------------------------

    def check_bound(self, slot: int, value: Any) -> None:
        """Raise DTypeError or ShapeError unless kernels can read the input where it is, at every call again."""
        type_, name = self.types[slot], self.name_of[slot]
        if not self.is_array(value):
            raise DTypeError(
                f"input {name!r} is {type_}, got {type(value).__name__}", hint="bind an array of the backend's own kind"
            )
        array = self.checked(name, value, type_)
        if array.shape != type_.shape:
            raise ShapeError(f"input {name!r} is {type_}, got an array of shape {list(array.shape)}")
        if not Binder.usable(self, array):
            raise ShapeError(
                f"input {name!r} must be aligned, C-contiguous and in the machine's byte order to be bound",
                hint="bind a copy: np.require(array, array.dtype.newbyteorder('='), ['C', 'A'])",
            )
        if self._written and self.usable(array) and self._meets(self._written, array):
            raise ShapeError(f"input {name!r} is an array that the program writes", hint="bind a copy")

    # --- overlap -----------------------------------------------------------------------------------------------------

    def bounds(self, array: Array) -> tuple[int, int]:
        """First address of the array's memory, and the one after its last."""
        if type(array) is np.ndarray and array.flags.c_contiguous:
            low = address_of(array)
            return low, low + array.nbytes
        return byte_bounds(array)

    def overlap(self, first: Array, second: Array) -> bool:
        """Whether the two spans of memory meet."""
        if type(first) is np.ndarray and type(second) is np.ndarray:
            return np.may_share_memory(first, second)
        if not (first.size and second.size):
            return False
        (low, high), (start, stop) = self.bounds(first), self.bounds(second)
        return low < stop and start < high

    def _meets(self, spans: list[tuple[int, int]], array: Array) -> bool:
        """Whether the array overlaps one of the spans, which are sorted and apart from each other."""
        if not array.size:
            return False
        return _meets(spans, *self.bounds(array))

    @property
    def has_written(self) -> bool:
        """Whether a call writes states."""
        return bool(self._written)

    def is_written(self, low: int, high: int) -> bool:
        """Whether the memory from ``low`` to ``high`` overlaps a state that a call writes."""
        return _meets(self._written, low, high)

    def is_owned(self, low: int, high: int) -> bool:
        """Whether the memory from ``low`` to ``high`` overlaps a state."""
        return _meets(self._owned, low, high)


def _meets(spans: list[tuple[int, int]], low: int, high: int) -> bool:
    at = bisect.bisect_left(spans, (high, 0)) - 1
    return at >= 0 and spans[at][1] > low
