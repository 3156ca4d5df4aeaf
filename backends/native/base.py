"""What a native kernel is: generated C with the phases to call, and the table in which generators are entered.

A generator gets a :class:`NativeRequest` and gives back the description of a kernel, or None where it has no code for the
case; the kernel of the array backends runs then.  Nothing is compiled to describe a kernel, so planning stays fast: the
backend compiles the units of a program side by side, and :attr:`NativeKernel.run` compiles on its first call.

Rules for generated code:

- A kernel is a few *phases*, one C function each, run one after the other::

      void function(void *const *buffers, const int64_t *sizes, int64_t first, int64_t last, int64_t worker)

  It does tasks ``first`` to ``last`` - 1 of its phase.  Tasks of a phase may run in any order and on any thread, in any
  grouping, and the results must not depend on that: no two tasks write the same place.
- ``buffers``: outputs, then inputs (in the order of ``operand_ids``), then scratch.  Each points at the first logical
  element (index 0 on every axis; strides may be 0 or negative).  Outputs, temporaries and computed values lie at multiples of
  64 bytes where the arena holds them, but inputs, states and results of a program only at multiples of their element size.
- Outputs and laid-out values have the strides of :func:`irconv.strides.value_strides`, scratch is C-contiguous.
- ``sizes``: what a batch size changes; the source depends on nothing of the kind.
- ``worker`` < threads tells concurrent calls apart, for scratch of their own.
- Every element of the outputs is written, whatever they held; nothing is allocated; the floating-point environment stays.
- Functions have external linkage and default visibility: ``EXPORT`` of this module before them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from irconv.backends.arrays.base import Array, ArrayKernel
from irconv.backends.base import Choice
from irconv.backends.codegen.machine import Machine, find_machine
from irconv.backends.native.library import Unit
from irconv.backends.native.runtime import run_phases
from irconv.graph import Graph
from irconv.kernel import Kernel
from irconv.strides import Strides
from irconv.types import TensorType

EXPORT = '__attribute__((visibility("default")))'
"""What stands before a function that is a phase: everything else is hidden."""


@dataclass(frozen=True)
class Phase:
    """One pass over the work: ``function`` is called until all ``tasks`` are done, before the next phase starts."""

    function: str
    tasks: int


@dataclass(frozen=True)
class Prepared:
    """A temporary that depends on one input alone: a weight packed or transformed for the kernel.

    The phase ``phase`` (its position) fills the temporary ``scratch`` from the input ``operand`` (positions among the buffers:
    outputs, then inputs, then scratch), reading nothing else.
    Where that operand is a state or constant which the program does not write, the executable keeps the temporary and runs
    the phase only when the state has changed; otherwise it is scratch like any other and the phase runs at every call.
    """

    operand: int
    scratch: int
    phase: int


@dataclass(frozen=True)
class Check:
    """Operands that only show when the kernel runs that it cannot work on them (an index out of range).

    Phase ``phase`` looks at them and leaves 0 in the temporary ``scratch``, one float32, or NaN; the program stops there, and
    ``refuse`` is called with the kernel's arrays to raise the IrconvError that says what is wrong.
    """

    phase: int
    scratch: int
    refuse: Callable[..., None]


@dataclass(frozen=True)
class NativeKernel(ArrayKernel):
    """Generated code that fills its outputs.

    source:  one C file, the same for every batch size.
    phases:  its functions, in the order in which they run.
    prepared: temporaries that need not be filled again while an operand stays as it is.
    check:   what has to hold for the operands before the phases behind it run.
    sizes:   run-time bounds (the batch, ...), handed to every phase.
    machine: what the source was written for; None: not said yet, and compiled for this one.
    name:    of the kernel, for messages.
    choice:  how it was chosen, where candidates were measured.
    """

    source: str = ""
    phases: tuple[Phase, ...] = ()
    sizes: tuple[int, ...] = ()
    machine: Machine | None = None
    name: str = ""
    prepared: tuple[Prepared, ...] = ()
    check: Check | None = None
    choice: Choice | None = None

    @property
    def unit(self) -> Unit:
        """What is to be compiled for it."""
        return Unit(self.source, (self.machine or find_machine()).flags, self.name)


@dataclass(frozen=True)
class Candidate:
    """One way to compute what a request asks for.

    name: tells it from the others of its request, and says what is special about it.
    make: its kernel, or None where there is no code for it after all.
    """

    name: str
    make: Callable[[], NativeKernel | None]


Chooser = Callable[["NativeRequest", Sequence[Candidate]], NativeKernel | None]
"""Picks one of a request's candidates, which come in the order in which the cost model likes them."""


def first(request: NativeRequest, candidates: Sequence[Candidate]) -> NativeKernel | None:
    """What the cost model likes best of what there is code for; None if there is code for none."""
    return next((made for candidate in candidates if (made := candidate.make()) is not None), None)


@dataclass(frozen=True)
class NativeRequest:
    """What a generator is asked for: code for ``kernel`` of ``graph``.

    strides: element strides of every value that is read or written, by id (views included; may be 0 or negative).
    machine: the one to write code for.
    threads: how many may run at once, for the size of scratch that each needs of its own; results must not depend on it.
    strict:  keep to algorithms with plain rounding.
    choose:  picks among candidates, where a generator has several.
    alone:   there are no array kernels to leave the work to: any code is better than None.
    """

    graph: Graph
    kernel: Kernel
    strides: Mapping[int, Strides]
    machine: Machine
    threads: int = 1
    strict: bool = False
    choose: Chooser = first
    alone: bool = False


Generator = Callable[[NativeRequest], NativeKernel | None]

NATIVE: dict[str, Generator] = {}
"""A generator for each op name or kind of fused kernel that has one."""


def native(*names: str) -> Callable[[Generator], Generator]:
    """Enter the decorated generator under these op names and kinds of fused kernels."""

    def enter(generator: Generator) -> Generator:
        for name in names:
            NATIVE[name] = generator
        return generator

    return enter


def native_kernel(
    source: str,
    phases: tuple[Phase, ...],
    sizes: tuple[int, ...] = (),
    scratch: tuple[TensorType, ...] = (),
    in_place: tuple[tuple[int, int], ...] = (),
    machine: Machine | None = None,
    name: str = "kernel",
    prepared: tuple[Prepared, ...] = (),
    check: Check | None = None,
) -> NativeKernel:
    """A kernel of generated code.  ``machine`` and ``name`` are filled in by the lowering where a generator leaves them out."""
    made = NativeKernel(_not_bound, scratch, in_place, source, tuple(phases), tuple(sizes), machine, name, tuple(prepared), check)
    return _bound(made)


def named(kernel: NativeKernel, name: str, machine: Machine) -> NativeKernel:
    """The kernel under its name in the graph, for a machine unless it has one."""
    return _bound(replace(kernel, name=name, machine=kernel.machine or machine))


def _bound(kernel: NativeKernel) -> NativeKernel:
    def run(*arrays: Array) -> None:
        if kernel.check is not None:
            kernel.check.refuse(*arrays)
        run_phases(kernel.unit, tuple((p.function, p.tasks) for p in kernel.phases), kernel.sizes, arrays)

    return replace(kernel, run=run)


def _not_bound(*arrays: Any) -> None:
    raise NotImplementedError
