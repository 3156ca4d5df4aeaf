"""Calls whose arrays are fixed: looked at once, and then run as often as one likes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from irconv.structure import build

Array = Any


class BoundCall:
    """A call with all its arrays (see :meth:`irconv.backends.base.Executable.bind`): calling it runs the program on them.

    inputs:  the arrays that are read, in order, as they are at each call.
    results: the arrays that are written, in the structure that a call of the program returns; a bound call returns it too.
    """

    def __init__(self, run: Callable[..., Any], inputs: Sequence[Array], results: Sequence[tuple[str, Array]]):
        self.inputs = tuple(inputs)
        self.results = build(results)
        self._run = run
        self._turn = threading.Lock()  # results of two threads must not be mixed

    def __call__(self) -> Any:
        with self._turn:
            self._run(*self.inputs, out=self.results)
        return self.results

    def __repr__(self) -> str:
        return f"<a bound call of {self._run!r}>"
