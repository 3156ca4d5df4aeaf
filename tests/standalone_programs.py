"""Programs that were built from networks, run on arrays: for tests of irconv build."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np

import irconv
from irconv.backends.codegen.machine import MACHINES
from irconv.backends.native.backend import NativeBackend

SHAPE = (2, 3, 7, 5)
MACHINE = "generic"


def run(program: Path, *arguments: Any, status: int = 0) -> str:
    """What a program prints; it starts in its own folder."""
    done = subprocess.run([program.resolve(), *map(str, arguments)], cwd=program.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def batch(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    """An array of the shape that the tests' networks take."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def native(model: Any, *specs: Any) -> Any:
    """A program of the native backend for the machine that libraries are for, whose bits they have."""
    return irconv.compile(model, *specs, backend=NativeBackend(machine=MACHINES[MACHINE]))
