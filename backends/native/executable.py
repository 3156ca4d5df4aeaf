"""The executable of the native backend: rows of compiled steps, each run with one foreign call."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from irconv.backends.arrays.base import Array
from irconv.backends.arrays.bound import BoundCall
from irconv.backends.arrays.executable import ArrayExecutable
from irconv.backends.arrays.steps import Context, Step, carve, show
from irconv.backends.base import MISSED, Choice, PlainCall
from irconv.backends.native.addresses import called_slots
from irconv.backends.native.base import NativeKernel
from irconv.backends.native.bound import NativeBoundCall
from irconv.backends.native.describe import headed
from irconv.backends.native.lowering import NativeLowering
from irconv.backends.native.plain_arguments import PlainArguments
from irconv.backends.native.prepared import Preparation, shared
from irconv.backends.native.runtime import Pool, address_of
from irconv.backends.native.segments import Kept, NativeContext, contiguous, plan_segments
from irconv.errors import BackendError, IrconvError
from irconv.graph import Node
from irconv.kernel import Program
from irconv.state import LATEST_WRITE, touch_all


class NativeExecutable(ArrayExecutable):
    """A planned program as generated C, with array kernels where there is none.

    Kernels that have code are in :attr:`sources`, by name; those chosen by measurement (``tune=True``) in :attr:`tuning`.
    """

    backend = "native"

    def __init__(self, program: Program, lowering: NativeLowering, pool: Pool):
        super().__init__(program, lowering)
        self._pool = pool
        graph = program.graph
        states = set(graph.states)
        for state in states:
            _check_state(graph[state], self._fixed[state])
        self._fixed = {slot: a if slot in states else contiguous(a) for slot, a in self._fixed.items()}
        self._plan = plan_segments(graph, self._layout, lowering)
        self._preparations = [self._preparation(kept) for kept in self._plan.kept]
        self._preparing = threading.Lock()
        kept_slots = {kept.slot for kept in self._plan.kept}
        self._layout = replace(
            self._layout, places=tuple(place for place in self._layout.places if place[0] not in kept_slots)
        )
        self._called = called_slots(graph, self._layout)
        self._seen_write: object = None  # the latest one when nothing was stale
        self._hears_of_writes = all(variable.notes_writes for variable in self._variables.values())
        is_plain = len(self._plan.segments) == 1 and not self._plan.mixed and PlainArguments.suit(graph)
        self._arguments = PlainArguments(graph, self._binder) if is_plain else None
        made = {kernel.name: lowering.lower(graph, kernel) for kernel in self.kernels}
        self._checks = {
            name: code.check for name, code in made.items() if isinstance(code, NativeKernel) and code.check is not None
        }
        self._codes = {name: code for name, code in made.items() if isinstance(code, NativeKernel)}

    @property
    def tuning(self) -> dict[str, Choice]:
        """For kernels that were chosen by measurement: which candidate was taken, and what each took."""
        return {name: code.choice for name, code in self._codes.items() if code.choice is not None}

    @cached_property
    def sources(self) -> dict[str, str]:
        """The C of each kernel that has code, by the kernel's name, under its IR and the lines of the model."""
        graph = self.graph
        coded = (kernel for kernel in self.kernels if kernel.name in self._codes)
        return {kernel.name: headed(graph, [kernel], self._codes[kernel.name].source) for kernel in coded}

    @property
    def kept_bytes(self) -> int:
        """Bytes of packed and transformed weights that are kept from call to call, beside the arena."""
        return sum(kept.type.bytes for kept in self._plan.kept)

    # --- what is prepared once ---------------------------------------------------------------------------------------

    def _preparation(self, kept: Kept) -> Preparation:
        """Memory for what is kept, and the step that fills it: another executable's, if it wants the same."""
        place = carve(self.allocate_arena(kept.type.bytes), 0, kept.type)
        operand = self._shown(kept.operand)
        variable = self._variables.get(kept.leaf)
        made = Preparation(kept.entry, (kept.slot, place), (kept.operand, operand), variable)
        if variable is not None:
            entry = kept.entry
            made = shared(variable, (entry.function, entry.tasks, entry.sizes, kept.type, address_of(operand)), made)
        self._fixed[kept.slot] = made.place
        return made

    def _shown(self, slot: int) -> Array:
        """The array of a leaf or a view of one."""
        found = self._fixed.get(slot)
        if found is None:
            view = next(view for view in self._layout.views if view.target == slot)
            found = view.view(self._shown(view.source))
        return found

    def is_stale(self) -> bool:
        return any(preparation.is_stale for preparation in self._preparations) or super().is_stale()

    def refresh(self) -> None:
        super().refresh()
        with self._preparing:  # programs without states have no other lock
            for preparation in self._preparations:
                if preparation.is_stale:
                    preparation.run(self._pool)

    # --- running -----------------------------------------------------------------------------------------------------

    def _new_context(self) -> Context:
        arena = self.allocate_arena(self.memory.arena_bytes)
        return NativeContext(self._layout, self._fixed, arena, self._plan, self._called, self._pool)

    def __call__(self, *args: Any, out: Any = None, **named: Any) -> Any:
        if self._arguments is not None and not named:
            results = self._call_plain(args, out)
            if results is not MISSED:
                return results
        return super().__call__(*args, out=out, **named)

    @property
    def plain_call(self) -> PlainCall | None:
        return None if self._arguments is None else self._call_plain

    def _call_plain(self, args: tuple[Any, ...], out: Any) -> Any:
        """Run plain arguments; MISSED, and nothing done, if they are not or something is stale."""
        arguments = self._arguments
        assert arguments is not None
        addresses = arguments.inputs(args)
        if addresses is None:
            return MISSED
        results = arguments.fresh(addresses) if out is None else arguments.given(out, addresses)
        if results is None:
            return MISSED
        context = self._take()
        try:
            context.point(addresses)
            failed = self._run_row(context)
            if failed > 0:
                self._explain(context, args, results, failed)
        finally:
            self._idle.append(context)
        return arguments.build(results) if failed == 0 else MISSED

    def bind(self, *args: Any, out: Any = None, **named: Any) -> BoundCall:
        if self._arguments is None:
            return super().bind(*args, out=out, **named)
        inputs, results = self._bound_arrays(args, out, named)
        context = self._take()
        context.point([address_of(array) for array in (*inputs, *(array for _, array in results))])
        return NativeBoundCall(self._run_bound, context, inputs, results)

    def _run_bound(self, context: NativeContext, inputs: Sequence[Array], results: Sequence[Array]) -> None:
        while (failed := self._run_row(context)) < 0:
            self._prepare()
        if failed:
            self._explain(context, inputs, results, failed)

    def _run_row(self, context: NativeContext) -> int:
        """Run a context's only row, while nobody writes what is read: 0, or 1 + the position of the check that failed.

        -1, and nothing done, if something is stale.
        """
        if self._written:
            return self._run_row_alone(context)
        try:
            for lock in self._locks:
                lock.acquire_read(context)
            if LATEST_WRITE.token is not self._seen_write and self._sees_stale():
                return -1
            return self._pool.run_row(context.row)
        finally:
            for lock in self._locks:
                lock.release_read(context)

    def _run_row_alone(self, context: NativeContext) -> int:
        with self._exclusion():
            if self.is_stale():
                return -1
            try:
                return self._pool.run_row(context.row)
            finally:
                touch_all(self._written)

    def _sees_stale(self) -> bool:
        latest = LATEST_WRITE.token
        if self.is_stale():
            return True
        if self._hears_of_writes:
            self._seen_write = latest
        return False

    def _explain(self, context: NativeContext, inputs: Sequence[Array], results: Sequence[Array], failed: int) -> None:
        """Raise what the check that failed has to say."""
        try:
            for slot, array in zip(self._called.roots, (*inputs, *results), strict=True):
                context.arrays[slot] = array
            show(context.arrays, self._layout.call_views)
            self._refuse(context, self._plan.sources[failed - 1])
        finally:
            context.forget()

    def _run(self, context: Context) -> None:
        assert isinstance(context, NativeContext)
        context.patch()
        try:
            if self._plan.mixed:
                with self._settings():
                    self._advance(context)
            else:
                self._advance(context)
        finally:
            touch_all(self._written)

    def _advance(self, context: NativeContext) -> None:
        run = self._pool.run
        for address, count, segment, pick in context.rows:
            if pick is None:
                failed = run(address, count)
                if failed:
                    self._refuse(context, self._plan.sources[segment.first + failed - 1])
                continue
            step = segment.step
            assert step is not None
            try:
                step.run(*pick(context.arrays))
            except IrconvError as error:
                raise self._placed(error, step.kernel) from None

    def _refuse(self, context: Context, step: Step) -> None:
        """A check has failed: let the Python one say why."""
        arrays = [context.arrays[slot] for slot in step.slots]
        check = None if step.kernel is None else self._checks.get(step.kernel.name)
        if check is not None:
            try:
                check.refuse(*arrays)
            except IrconvError as error:
                raise self._placed(error, step.kernel) from None
        else:
            step.run(*arrays)
        raise BackendError("a check failed in compiled code and not in Python", hint="this is a bug in irconv; please report it")

    def _time(self, context: Context, best: dict[str, float]) -> None:
        assert isinstance(context, NativeContext)
        context.patch()
        taken: dict[str, float] = {}
        with self._settings():
            for address, count, segment, pick in context.rows:
                if pick is None:
                    failed, seconds = self._pool.run_timed(address, count)
                    if failed:
                        self._refuse(context, self._plan.sources[segment.first + failed - 1])
                    sources = self._plan.sources[segment.first : segment.first + count]
                    for step, each in zip(sources, seconds.tolist(), strict=True):
                        _add(taken, step, each)
                else:
                    assert segment.step is not None
                    arguments: Any = pick(context.arrays)
                    start = time.perf_counter()
                    segment.step.run(*arguments)
                    _add(taken, segment.step, time.perf_counter() - start)
        for name, each in taken.items():
            best[name] = min(each, best.get(name, each))


def _check_state(node: Node, array: Array) -> None:
    """Raise BackendError unless compiled code can use the array of a state where it is."""
    if isinstance(array, np.ndarray) and array.flags.carray and array.dtype.isnative:
        return
    raise BackendError(
        f"state %{node.name} is not a row-major, aligned and writable NumPy array in the machine's byte order",
        hint="bind it to a copy: np.require(array, array.dtype.newbyteorder('='), ['C', 'A', 'W'])",
    )


def _add(taken: dict[str, float], step: Step, seconds: float) -> None:
    """A kernel's phases count together."""
    if step.kernel is not None:
        taken[step.kernel.name] = taken.get(step.kernel.name, 0.0) + seconds
