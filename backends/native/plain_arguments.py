"""Arguments as nearly all calls bring them: NumPy arrays just as the kernels read them, to be taken in without further ado.

A small network takes microseconds, and so does a careful look at arguments.  What the usual call has to find out is little: that
every array has the very type of its input, and where it lies.  Whatever is not as plain as that, wrong arguments among it, is
left to :class:`irconv.backends.arrays.binding.Binder`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from irconv.backends.arrays.binding import Binder
from irconv.graph import Graph
from irconv.structure import builder
from irconv.types import TensorType

Array = np.ndarray

_at = ctypes.addressof
_look: Callable[[Any], Any] = ctypes.c_char.from_buffer  # raises for what is read-only or spread out in memory
_empty = np.empty
_REFUSED = (TypeError, ValueError, BufferError)


class PlainArguments:
    """Takes in the arguments of a graph that has no empty inputs or results (nobody could say where they lie)."""

    def __init__(self, graph: Graph, binder: Binder):
        inputs = [graph[i].type for i in graph.inputs]
        outputs = [graph[i].type for i in graph.outputs.values()]
        self._count = len(inputs)
        self._inputs = [_described(type_) for type_ in inputs]
        self._sizes = [type_.bytes for type_ in inputs]
        self._outputs = [_described(type_) for type_ in outputs]
        self._size = outputs[0].bytes if outputs else 0
        self._binder = binder
        self._writes = binder.has_written
        self._free: int | None = None  # where out= lay when it was last found to overlap no state; states never move
        self.build = builder(list(graph.outputs))

    @staticmethod
    def suit(graph: Graph) -> bool:
        """Whether the graph's arguments can be plain."""
        return all(graph[i].type.size for i in (*graph.inputs, *graph.outputs.values()))

    def inputs(self, args: Sequence[Any]) -> list[int] | None:
        """Where the inputs lie; None if they are not plain."""
        if len(args) != self._count:
            return None
        addresses = []
        try:
            for array, (dtype, shape, alignment) in zip(args, self._inputs):  # noqa: B905  # strict= takes time
                if type(array) is not Array or array.dtype is not dtype or array.shape != shape:
                    return None
                address = _at(_look(array))
                if address % alignment:
                    return None
                addresses.append(address)
        except _REFUSED:
            return None
        if self._writes:
            for address, size in zip(addresses, self._sizes):  # noqa: B905
                if self._binder.is_written(address, address + size):
                    return None
        return addresses

    def fresh(self, addresses: list[int]) -> list[Array]:
        """New arrays for the results; where they lie is added to the addresses of the inputs."""
        results = []
        for dtype, shape, _ in self._outputs:
            result = _empty(shape, dtype)
            addresses.append(_at(_look(result)))
            results.append(result)
        return results

    def given(self, out: Any, addresses: list[int]) -> list[Array] | None:
        """``out=`` for a single result, likewise; None if it is not plain."""
        if len(self._outputs) != 1 or type(out) is not Array:
            return None
        dtype, shape, alignment = self._outputs[0]
        if out.dtype is not dtype or out.shape != shape:
            return None
        try:
            low = _at(_look(out))
        except _REFUSED:
            return None
        if low % alignment:
            return None
        high = low + self._size
        for start, size in zip(addresses, self._sizes):  # noqa: B905
            if low < start + size and start < high:
                return None
        if low != self._free:
            if self._binder.is_owned(low, high):
                return None
            self._free = low
        addresses.append(low)
        return [out]


def _described(type_: TensorType) -> tuple[np.dtype, tuple[int, ...], int]:
    dtype = type_.dtype.numpy
    return dtype, type_.shape, dtype.alignment
