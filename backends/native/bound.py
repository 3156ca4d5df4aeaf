"""Bound calls of native programs: a table of steps that knows all addresses, and one foreign call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from irconv.backends.arrays.base import Array
from irconv.backends.arrays.bound import BoundCall
from irconv.backends.native.segments import NativeContext


class NativeBoundCall(BoundCall):
    """A bound call with a context of its own.

    run: runs the context's table, once the addresses of the arrays are in it.
    """

    def __init__(
        self,
        run: Callable[[NativeContext, Sequence[Array], Sequence[Array]], None],
        context: NativeContext,
        inputs: Sequence[Array],
        results: Sequence[tuple[str, Array]],
    ):
        super().__init__(run, inputs, results)
        self._arguments = (context, self.inputs, tuple(array for _, array in results))

    def __call__(self) -> Any:
        with self._turn:
            self._run(*self._arguments)
        return self.results
