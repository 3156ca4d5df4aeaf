"""The native backend: generated C on a pool of threads, array kernels for the rest."""

from __future__ import annotations

import os
from functools import lru_cache

import irconv.backends.native.kernels  # noqa: F401  enters the generators
from irconv.backends.arrays import FUSED
from irconv.backends.arrays.lower import Lowering
from irconv.backends.codegen.machine import Machine, find_machine
from irconv.backends.native.base import NATIVE, NativeKernel
from irconv.backends.native.compiler import find_compiler
from irconv.backends.native.executable import NativeExecutable
from irconv.backends.native.library import library
from irconv.backends.native.lowering import NativeLowering
from irconv.backends.native.runtime import Pool, pool, threads
from irconv.backends.native.tuning import Tuner
from irconv.backends.numpy.parallel import BLOCK_BYTES
from irconv.backends.numpy.parallel import pool as array_pool
from irconv.errors import BackendError
from irconv.kernel import Program
from irconv.op import OPS
from irconv.target import Target


class NativeBackend:
    """Runs kernels as compiled C.

    strict:  algorithms with plain rounding only.
    machine: the one to generate code for; None: as :func:`find_machine` says.
    pool:    threads of its own; None: those of the process.
    tuner:   measures the candidates for convolutions and matrix products; None: the cost model chooses.
    """

    name = "native"

    def __init__(
        self,
        strict: bool = False,
        machine: Machine | None = None,
        pool: Pool | None = None,
        tuner: Tuner | None = None,
    ) -> None:
        self.strict = strict
        self.machine = machine
        self.pool = pool
        self.tuner = tuner
        self._planned: NativeLowering | None = None  # the kernels that a target made for planning serve the executable too

    def target(self) -> Target:
        """What there is code for.  Raises BackendError where there is no C compiler, or one that does not work."""
        find_compiler()
        self.pool = self.pool or pool()
        lowering = self._planned = self._lowering()
        return native_target(lowering)

    def build(self, program: Program) -> NativeExecutable:
        """Compile the units of a program side by side, and bind it to arrays.  Raises BackendError when that fails."""
        planned, self._planned = self._planned, None
        lowering = planned if planned is not None and planned.knows(program.graph) else self._lowering()
        compile_units(program, lowering)
        return NativeExecutable(program, lowering, self.pool or pool())

    def tuned(self) -> NativeBackend:
        """The same backend, which measures what it can choose from and remembers the fastest."""
        return NativeBackend(self.strict, self.machine, self.pool, self.tuner or Tuner(self.pool))

    def _lowering(self) -> NativeLowering:
        count = self.pool.threads if self.pool is not None else threads()
        return NativeLowering(self.machine or find_machine(), count, array_pool(), self.strict, self.tuner)


def native_target(lowering: NativeLowering) -> Target:
    """What there is code for."""
    return Target(
        NativeBackend.name,
        kinds=frozenset(FUSED) | (frozenset(NATIVE) - frozenset(OPS)),
        block_bytes=BLOCK_BYTES,
        vector_width=lowering.machine.lanes(4),
        layouts=("row-major", "channels-last"),
        workspace=lowering.workspace,
        writes_in_place=lowering.writes_in_place,
    )


def compile_units(program: Program, lowering: Lowering) -> None:
    """Compile every distinct unit of a program that is not known yet."""
    made = (lowering.lower(program.graph, kernel) for kernel in program.schedule.kernels)
    library().prepare(code.unit for code in made if isinstance(code, NativeKernel))


def native_problem() -> BackendError | None:
    """Why the native backend cannot be used here: there is no C compiler, or it cannot compile.  None where it can."""
    return _problem(os.environ.get("IRCONV_CC", ""), os.environ.get("PATH", ""))


@lru_cache(maxsize=16)
def _problem(named: str, path: str) -> BackendError | None:
    """Tried once for a setting, which is what the arguments are."""
    try:
        find_compiler()
        pool()
    except BackendError as error:
        return error
    return None
