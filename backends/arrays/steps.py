"""A program laid out as a flat list of steps over numbered slots, and the memory that one call at a time works in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from irconv.backends.arrays.base import Array, ViewKernel
from irconv.backends.arrays.lower import Lowering, operand_ids
from irconv.kernel import Allocation, Kernel, Program
from irconv.types import TensorType


@dataclass(frozen=True, slots=True)
class Step:
    """One call: ``run(*slots)``, for a kernel, or (kernel None) a check or a final copy."""

    run: Callable[..., object]
    slots: tuple[int, ...]
    kernel: Kernel | None = None


@dataclass(frozen=True, slots=True)
class View:
    """slot ``target`` shows slot ``source``."""

    target: int
    source: int
    view: Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class Layout:
    """A program over slots.

    Slots are value ids; temporaries are numbered above them.  ``called`` slots are bound at every call: inputs, outputs and
    ``call_views`` of them.  The others are fixed arrays (constants, states), ``places`` in the arena, or ``views`` of those.
    """

    slots: int
    steps: tuple[Step, ...]
    views: tuple[View, ...]
    call_views: tuple[View, ...]
    places: tuple[tuple[int, Allocation, TensorType], ...]
    called: frozenset[int]


Check = Callable[[Any], None]


def lay_out(program: Program, lowering: Lowering, copy: Callable[..., object], guards: dict[int, Check]) -> Layout:
    """Lay a program out.  ``copy(target, source)`` commits a new state; ``guards``: value id -> what checks it."""
    graph, plan = program.graph, program.plan
    called = {*graph.inputs, *plan.outputs}
    next_slot = max(graph.order(), default=-1) + 1
    steps: list[Step] = []
    fixed_views: list[View] = []
    call_views: list[View] = []
    places = [(value, place, graph[value].type) for value, place in plan.buffers.items()]

    def slot(value: int) -> int:
        """A value written straight into a state is found in the state's slot."""
        return plan.update_in_place.get(value, value)

    for kernel in program.schedule.kernels:
        made = lowering.lower(graph, kernel)
        if isinstance(made, ViewKernel):
            target, source = kernel.outputs[0], kernel.inputs[0]
            if source in called:
                called.add(target)
            (call_views if source in called else fixed_views).append(View(target, slot(source), made.view))
            continue
        scratch = range(next_slot, next_slot + len(made.scratch))
        next_slot = scratch.stop
        places += zip(scratch, plan.scratch.get(kernel.name, ()), made.scratch, strict=True)
        values = (*kernel.outputs, *operand_ids(graph, kernel))
        steps.append(Step(made.run, (*map(slot, values), *scratch), kernel))
        steps += [Step(guards[v], (slot(v),)) for v in kernel.outputs if v in guards]
    steps += [Step(copy, (state, value)) for value, state in plan.commits]
    return Layout(next_slot, tuple(steps), tuple(fixed_views), tuple(call_views), tuple(places), frozenset(called))


class Context:
    """The memory of one call at a time: an arena, all arrays in it, and the steps bound to them.

    Steps that touch an input or output are bound through ``arrays`` at the call, all others once.
    """

    def __init__(self, layout: Layout, fixed: dict[int, Array], arena: Array):
        self.layout = layout
        self.arrays: list[Any] = [None] * layout.slots
        self.staged: dict[int, Array] = {}  # copies of inputs that cannot be read where they are
        for slot, array in fixed.items():
            self.arrays[slot] = array
        for slot, place, type_ in layout.places:
            self.arrays[slot] = carve(arena, place.offset, type_)
        show(self.arrays, layout.views)
        self.steps = [self._bind(step) for step in layout.steps]

    def forget(self) -> None:
        """Keep nobody's arrays alive."""
        for slot in self.layout.called:
            self.arrays[slot] = None

    def _bind(self, step: Step) -> tuple[Callable[..., object], tuple[Array, ...] | None, Callable[[list[Any]], Any], Step]:
        late = any(slot in self.layout.called for slot in step.slots)
        first = step.slots[0]
        pick = itemgetter(*step.slots) if len(step.slots) > 1 else lambda arrays: (arrays[first],)
        return step.run, None if late else pick(self.arrays), pick, step


def carve(arena: Array, offset: int, type_: TensorType) -> Array:
    """The part of the arena (bytes) that holds a value, as an array of its type; a laid-out value is a transposed view."""
    flat = arena[offset : offset + type_.bytes].view(type_.dtype.numpy)
    if type_.layout is None:
        return flat.reshape(type_.shape)
    order = type_.layout.order
    return flat.reshape([type_.shape[axis] for axis in order]).transpose([order.index(axis) for axis in range(type_.rank)])


def show(arrays: list[Any], views: Sequence[View]) -> None:
    """Let view slots show what their sources hold now."""
    for view in views:
        arrays[view.target] = view.view(arrays[view.source])
