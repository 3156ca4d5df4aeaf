"""What a backend is: it declares a target and turns programs into executables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from irconv.graph import Graph
from irconv.kernel import Kernel, MemoryPlan, Program
from irconv.places import Location
from irconv.target import Target
from irconv.types import TensorType


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """What one kernel took: best time of the repeats, bytes that cross its border, floating-point operations, user's line."""

    name: str
    kind: str
    seconds: float
    bytes: int
    flops: int
    location: Location | None


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of several candidates a kernel was given, and what each of them took.

    geometry:   what is computed, for people.
    chosen:     name of the fastest candidate.
    planned:    name of the one that would have been taken without measuring.
    times:      (candidate, best seconds), fastest first.
    remembered: whether the times come from the tuning record rather than from this compilation.
    """

    geometry: str
    chosen: str
    planned: str
    times: tuple[tuple[str, float], ...]
    remembered: bool = False

    @property
    def gain(self) -> float:
        """How many times as long as the chosen candidate the planned one takes."""
        seconds = dict(self.times)
        return seconds[self.planned] / seconds[self.chosen] if seconds[self.chosen] else 1.0


MISSED: Any = object()
"""What a plain call gives back when it has not been made."""

PlainCall = Callable[[tuple[Any, ...], Any], Any]
"""Runs arguments, and ``out=`` or None, that are just as kernels read and write them; else it does nothing and gives MISSED."""


class BoundCall(Protocol):
    """A program with all the arrays that it reads and writes (see :meth:`Executable.bind`)."""

    @property
    def inputs(self) -> tuple[Any, ...]:
        """The arrays that are read."""
        ...

    @property
    def results(self) -> Any:
        """The arrays that are written, in the structure that a call of the program returns."""
        ...

    def __call__(self) -> Any:
        """Run on what is in the inputs now, write the results and return them."""
        ...


@runtime_checkable
class Executable(Protocol):
    """A compiled graph.

    graph:   what is executed.        stages: what each pass left on the way here.
    kernels: in execution order.      memory: the plan, with peak bytes.
    inputs, outputs: (name, type) pairs in order.
    plain_call: the short way for calls that have nothing special about them, where there is one.
    """

    backend: str
    program: Program

    @property
    def plain_call(self) -> PlainCall | None: ...

    @property
    def graph(self) -> Graph: ...

    @property
    def stages(self) -> tuple[Any, ...]: ...

    @property
    def kernels(self) -> tuple[Kernel, ...]: ...

    @property
    def memory(self) -> MemoryPlan: ...

    @property
    def inputs(self) -> tuple[tuple[str, TensorType], ...]: ...

    @property
    def outputs(self) -> tuple[tuple[str, TensorType], ...]: ...

    def __call__(self, *args: Any, out: Any = None, **named: Any) -> Any:
        """Run on arrays given by position or name; ``out`` receives the results, else they are allocated."""
        ...

    def bind(self, *args: Any, out: Any = None, **named: Any) -> BoundCall:
        """A call with all its arrays, which are looked at once: calling it then takes next to no time beside the kernels.

        Every call reads the inputs as they are by then, and the model's states too, and writes the same results: ``out``, or
        arrays made here.  Inputs must be arrays that kernels can read where they are; ShapeError or DTypeError if not.
        It has memory of its own.  Calls of it from several threads take turns and write the same arrays: give each thread
        a bound call of its own.
        """
        ...

    def profile(self, *args: Any, repeat: int = 5, **named: Any) -> Sequence[ProfileRow]:
        """Run ``repeat`` times and say what each kernel took; states are left as they were."""
        ...


class Backend(Protocol):
    """A way to run kernels."""

    name: str

    def target(self) -> Target:
        """What this backend can do.  Raises BackendError when it cannot be used here."""
        ...

    def build(self, program: Program) -> Executable:
        """Turn a planned program into something that runs."""
        ...


@runtime_checkable
class Tunable(Protocol):
    """A backend with kernels to choose from."""

    def tuned(self) -> Backend:
        """The same backend, which measures what it can choose from and remembers the fastest."""
        ...
