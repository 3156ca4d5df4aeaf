"""The NumPy backend: always there."""

from __future__ import annotations

import numpy as np

from irconv.backends.arrays import FUSED
from irconv.backends.arrays.lower import Lowering
from irconv.backends.numpy.executable import NumpyExecutable
from irconv.backends.numpy.parallel import BLOCK_BYTES, pool
from irconv.kernel import Program
from irconv.target import Target


class NumpyBackend:
    """Runs kernels as NumPy calls on a process-wide thread pool.  ``strict``: algorithms with plain rounding only."""

    name = "numpy"

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self._planned: Lowering | None = None  # the kernels that a target made for planning serve the executable too

    def target(self) -> Target:
        """What the array kernels can do on a CPU."""
        lowering = self._planned = Lowering(np, pool(), self.strict)
        return Target(
            self.name,
            kinds=frozenset(FUSED),
            block_bytes=BLOCK_BYTES,
            workspace=lowering.workspace,
            writes_in_place=lowering.writes_in_place,
        )

    def build(self, program: Program) -> NumpyExecutable:
        """Bind a program to NumPy arrays."""
        planned, self._planned = self._planned, None
        lowering = planned if planned is not None and planned.knows(program.graph) else Lowering(np, pool(), self.strict)
        return NumpyExecutable(program, lowering)
