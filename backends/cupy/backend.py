"""The CuPy backend: the array kernels on an NVIDIA GPU."""

from __future__ import annotations

import importlib
from typing import Any

from irconv.backends.arrays import FUSED
from irconv.backends.arrays.lower import Lowering
from irconv.backends.cupy.executable import CupyExecutable
from irconv.errors import BackendError
from irconv.kernel import Program
from irconv.target import Target

KINDS = frozenset({"mean_variance", "pool_indices"})
"""Fused kernels that pay on a GPU: those that work in cache-sized blocks, or sample by sample, do not."""

_INSTALL = "pip install cupy-cuda13x (or cupy-cuda12x) on a machine with an NVIDIA GPU, or use backend='numpy'"


def cupy_module() -> Any:
    """The cupy module.  Raises BackendError that says what is missing: CuPy itself, a driver, or a GPU."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        raise BackendError(f"CuPy cannot be imported: {error}", hint=_INSTALL) from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendError(f"CuPy {cupy.__version__} finds no usable GPU: {error}", hint=_INSTALL) from None
    if not count:
        raise BackendError(f"CuPy {cupy.__version__} finds no GPU", hint=_INSTALL)
    return cupy


class CupyBackend:
    """Runs kernels as CuPy calls on the current device.  ``strict``: algorithms with plain rounding only."""

    name = "cupy"

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict

    def target(self) -> Target:
        """What the array kernels can do on a GPU."""
        lowering = Lowering(cupy_module(), strict=self.strict)
        return Target(
            self.name,
            kinds=KINDS & frozenset(FUSED),
            workspace=lowering.workspace,
            writes_in_place=lowering.writes_in_place,
        )

    def build(self, program: Program) -> CupyExecutable:
        """Bind a program to CuPy arrays."""
        return CupyExecutable(program, Lowering(cupy_module(), strict=self.strict))
