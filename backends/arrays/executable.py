"""The executable of the array backends: a planned program bound to arrays, run as a flat list of steps.

A call allocates its results and nothing else that grows with the data (with ``out=`` nothing at all).  Executables without
updates run in several threads at once, each call in a :class:`Context` of its own; executables that write states exclude
each other and the readers of those states (see :mod:`irconv.locks`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from irconv.backends.arrays.binding import Binder
from irconv.backends.arrays.bound import BoundCall
from irconv.backends.arrays.lower import Lowering
from irconv.backends.arrays.steps import Context, lay_out, show
from irconv.backends.base import PlainCall, ProfileRow
from irconv.errors import IrconvError, NumericsError, StateError
from irconv.graph import Graph, Node
from irconv.kernel import Kernel, MemoryPlan, Program, kernel_bytes, kernel_flops
from irconv.locks import in_order, locks_of, reading, writing
from irconv.state import DerivedVariable, Variable, touch_all
from irconv.structure import build
from irconv.types import TensorType, type_of

Array = Any


class ArrayExecutable:
    """A program on the arrays of NumPy, or of a module like it.

    Subclasses for other devices say where arrays live (the methods at the end), and bring the :class:`Binder` that takes
    inputs and makes outputs.
    """

    backend = "numpy"

    def __init__(self, program: Program, lowering: Lowering, binder: Binder | None = None):
        self.program = program
        self.xp = lowering.xp
        self._settings = lowering.settings
        graph = program.graph
        self._binder = binder or Binder(graph, self.xp)
        self._variables = {state: self._variable(graph[state]) for state in graph.states}
        self._written = in_order(self._variables[state] for state in graph.updates)
        self._derived = [v for v in self._variables.values() if isinstance(v, DerivedVariable)]
        self._locks = locks_of(self._variables.values())
        guards = {value: self._guard(graph[value]) for value in program.schedule.guards}
        self._layout = lay_out(program, lowering, self.xp.copyto, guards)
        self._fixed = {node.id: self.xp.asarray(node.attributes.value) for node in graph if node.op.name == "constant"}
        self._fixed |= {state: self.state_array(variable) for state, variable in self._variables.items()}
        owned = {state: self._fixed[state] for state in graph.states}
        self._binder.protect(list(owned.values()), [owned[state] for state in graph.updates])
        self._idle: deque[Any] = deque()

    # --- what people read ------------------------------------------------------------------------------------------

    @property
    def graph(self) -> Graph:
        return self.program.graph

    @property
    def stages(self) -> tuple[Any, ...]:
        return self.program.stages

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        return self.program.schedule.kernels

    @property
    def memory(self) -> MemoryPlan:
        return self.program.plan

    @property
    def inputs(self) -> tuple[tuple[str, TensorType], ...]:
        return tuple((self.graph[i].name, self.graph[i].type) for i in self.graph.inputs)

    @property
    def outputs(self) -> tuple[tuple[str, TensorType], ...]:
        return tuple((path, self.graph[i].type) for path, i in self.graph.outputs.items())

    def __repr__(self) -> str:
        return f"<{self.backend} executable of {self.graph.name}: {len(self.kernels)} kernels, {self.memory}>"

    # --- running ---------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, out: Any = None, **named: Any) -> Any:
        """Run on arrays given by position or by input name; nested tuples and dicts are taken apart.

        ``out`` (an array, or the nested structure that a call returns) receives the results.
        Raises ShapeError or DTypeError for arrays that do not fit, NumericsError when a guard is not finite.
        """
        given = self._binder.arrange(args, named)
        while True:
            with self._exclusion():
                if not self.is_stale():
                    return build(self._call(given, out))
            self._prepare()

    def _call(self, given: Sequence[Any], out: Any) -> list[tuple[str, Array]]:
        """Run once, while nobody writes what is read."""
        context = self._take()
        try:
            results = self._bind(context, given, out)
            self._run(context)
            self._binder.deliver(results, context.arrays)
        finally:
            self._give(context)
        return results

    @property
    def plain_call(self) -> PlainCall | None:
        return None

    def bind(self, *args: Any, out: Any = None, **named: Any) -> BoundCall:
        """A call with all its arrays (see :meth:`irconv.backends.base.Executable.bind`)."""
        inputs, results = self._bound_arrays(args, out, named)
        return BoundCall(self, inputs, results)

    def _bound_arrays(self, args: Sequence[Any], out: Any, named: Mapping[str, Any]) -> tuple[list[Any], list[tuple[str, Array]]]:
        """The inputs of a bound call in order, and its results by path."""
        given = self._binder.arrange(args, named)
        arrays: list[Any] = [None] * self._layout.slots
        for slot, value in zip(self.graph.inputs, given, strict=True):
            self._binder.check_bound(slot, value)
            arrays[slot] = value
        return given, self._binder.fresh(given, arrays) if out is None else self._binder.caller_outputs(out, arrays)

    def profile(self, *args: Any, repeat: int = 5, **named: Any) -> list[ProfileRow]:
        """Run ``repeat`` times and give the best time of each kernel, in execution order; states are left as they were."""
        given = self._binder.arrange(args, named)
        best: dict[str, float] = {}
        while not self._profile(given, repeat, best):
            self._prepare()
        return [self._row(kernel, best[kernel.name]) for kernel in self.kernels if not kernel.is_view]

    def _profile(self, given: Sequence[Any], repeat: int, best: dict[str, float]) -> bool:
        """Time the kernels, while nobody writes what is read; False, and nothing done, while something is stale."""
        with self._exclusion():
            if self.is_stale():
                return False
            kept = [(self.state_array(v), self.xp.copy(self.state_array(v))) for v in self._written]
            context = self._take()
            try:
                for _ in range(max(1, repeat)):
                    self._bind(context, given, None)
                    self._time(context, best)
            finally:
                self._give(context)
                for array, before in kept:
                    self.xp.copyto(array, before)
        return True

    def _row(self, kernel: Kernel, seconds: float) -> ProfileRow:
        graph = self.graph
        places = (graph[i].provenance.location for i in kernel.nodes)
        location = next((place for place in places if place is not None), None)
        return ProfileRow(
            kernel.name, kernel.kind, seconds, kernel_bytes(graph, kernel), kernel_flops(graph, kernel), location
        )

    def _exclusion(self) -> AbstractContextManager[None]:
        return writing(self._locks, self._written) if self._written else reading(self._locks)

    def _prepare(self) -> None:
        """Bring derived states up to date, while nobody reads them."""
        with writing(self._locks):
            self.refresh()

    def _take(self) -> Any:
        """A :class:`Context` (of the kind that this executable makes) that nobody uses, or a new one."""
        try:
            return self._idle.pop()
        except IndexError:
            return self._new_context()

    def _new_context(self) -> Context:
        return Context(self._layout, self._fixed, self.allocate_arena(self.memory.arena_bytes))

    def _give(self, context: Context) -> None:
        context.forget()
        self._idle.append(context)

    def _bind(self, context: Context, given: Sequence[Any], out: Any) -> list[tuple[str, Array]]:
        """Put inputs and outputs into the context's slots; returns what the call gives back, by path."""
        arrays, binder = context.arrays, self._binder
        for slot, value in zip(self.graph.inputs, given, strict=True):
            arrays[slot] = binder.input(slot, value, context.staged)
        results = binder.fresh(given, arrays) if out is None else binder.caller_outputs(out, arrays)
        show(arrays, self._layout.call_views)
        return results

    def _run(self, context: Context) -> None:
        arrays = context.arrays
        step = None
        try:
            with self._settings():
                for run, bound, pick, step in context.steps:  # noqa: B007 (step is read when a kernel fails)
                    if bound is None:
                        run(*pick(arrays))
                    else:
                        run(*bound)
        except IrconvError as error:
            raise self._placed(error, step.kernel if step else None) from None
        finally:
            touch_all(self._written)
        self.write_back()

    def _time(self, context: Context, best: dict[str, float]) -> None:
        with self._settings():
            for run, _, pick, step in context.steps:
                picked = pick(context.arrays)
                self.synchronise()
                start = time.perf_counter()
                run(*picked)
                self.synchronise()
                seconds = time.perf_counter() - start
                if step.kernel is not None:
                    best[step.kernel.name] = min(seconds, best.get(step.kernel.name, seconds))

    def _placed(self, error: IrconvError, kernel: Kernel | None) -> IrconvError:
        if kernel is None:
            return error
        node = self.graph[kernel.nodes[-1]]
        return error.at(location=node.provenance.location, excerpt=f"kernel @{kernel.name} ({kernel.kind})")

    def _guard(self, node: Node) -> Any:
        """A check that a value is finite, made before any state is written."""
        isfinite = self.xp.isfinite

        def check(value: Array) -> None:
            if not isfinite(value).all():
                shown = f" ({float(value.reshape(())):g})" if value.size == 1 else ""
                raise NumericsError(
                    f"%{node.name} is not finite{shown}; no parameter or other state was changed",
                    location=node.provenance.location,
                    hint="try a smaller learning rate, look for NaN or infinity in the inputs, clip gradients, "
                    "or keep log and divide away from 0",
                )

        return check

    def _variable(self, node: Node) -> Variable:
        variable = self.graph.state.get(node.name)
        if variable is None:
            raise StateError(f"state %{node.name} of graph {self.graph.name!r} has no array", hint="bind a Variable to it")
        if variable.type != node.type:
            raise StateError(f"state %{node.name} is {node.type}, but its array is {type_of(variable.array)}")
        return variable

    # --- where arrays live -----------------------------------------------------------------------------------------

    def allocate_arena(self, size: int) -> Array:
        """Uninitialised bytes that start at a multiple of 64."""
        raw = np.empty(size + 64, np.uint8)
        start = -raw.ctypes.data % 64
        return raw[start : start + size]

    def state_array(self, variable: Variable) -> Array:
        """The array that kernels read and write for a variable; always the same one."""
        return variable.array

    def is_stale(self) -> bool:
        """Whether :meth:`refresh` has something to do."""
        return any(variable.stale for variable in self._derived)

    def refresh(self) -> None:
        """Bring states that are computed from others up to date."""
        for variable in self._derived:
            variable.refresh()

    def write_back(self) -> None:
        """Bring new states back to their variables after a call."""

    def synchronise(self) -> None:
        """Wait until the device has finished."""
