"""``irconv doctor``: what is installed and usable here, and what to install for the rest."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from irconv.backends import BACKENDS, find_backend
from irconv.backends.native.compiler import find_compiler
from irconv.backends.numpy.parallel import thread_count
from irconv.cli import console
from irconv.errors import BackendError

PACKAGES = {
    "numpy": "pip install numpy",
    "networkx": "pip install networkx",
    "click": "pip install click",
    "rich": "pip install rich",
    "safetensors": "pip install safetensors",
    "scipy": "pip install scipy (for the tests)",
    "matplotlib": "pip install matplotlib (for pictures in the examples)",
}
"""Packages that irconv, its tests and its examples use, and how to get them."""

CUPY = "pip install cupy-cuda13x (CUDA 13) or cupy-cuda12x (CUDA 12)"


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked for, whether it is usable, what was found, and what to do if not."""

    what: str
    usable: bool
    found: str
    advice: str = ""


@click.command()
def doctor() -> None:
    """Tell what is installed and usable: packages, BLAS, threads, compiler, GPU."""
    rows = [(f.what, "yes" if f.usable else "no", f.found, f.advice) for f in findings()]
    console.table(("part", "usable", "found", "to have it"), rows)


def findings() -> list[Finding]:
    """Everything that is looked at, in order."""
    return [
        Finding("irconv", True, _version("irconv") or "not installed as a package"),
        Finding(
            "python", True, f"{platform.python_version()} ({platform.python_implementation()}, {platform.platform()})"
        ),
        *(_package(name, advice) for name, advice in PACKAGES.items()),
        _blas(),
        _threads(),
        _compiler(),
        *_gpu(),
        *(_backend(name) for name in BACKENDS),
    ]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _package(name: str, advice: str) -> Finding:
    version = _version(name)
    return Finding(
        name, version is not None, version or "not installed", "" if version else advice or f"pip install {name}"
    )


def _blas() -> Finding:
    """The BLAS that NumPy was built with: it carries the convolutions of the numpy backend."""
    config: dict[str, Any] = np.show_config(mode="dicts")  # type: ignore[assignment]  # a dict in this mode
    blas = config.get("Build Dependencies", {}).get("blas", {})
    name, version = blas.get("name", "unknown"), blas.get("version", "")
    slow = name in ("unknown", "none", "lapack_lite") or not blas.get("found", False)
    advice = "install NumPy from PyPI or conda, with OpenBLAS or MKL" if slow else ""
    return Finding("BLAS", not slow, f"{name} {version}".strip(), advice)


def _threads() -> Finding:
    """How many threads work, and what limits them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [f"{name}={os.environ[name]}" for name in _THREAD_SETTINGS if os.environ.get(name)]
    found = f"{thread_count()} of irconv's own on {cores} cores; {', '.join(limits) or 'no limits set'}"
    return Finding("threads", True, found)


_THREAD_SETTINGS = ("IRCONV_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def _compiler() -> Finding:
    """The C compiler of the native backend."""
    try:
        return Finding("C compiler", True, str(find_compiler()))
    except BackendError as error:
        return Finding("C compiler", False, error.message, error.hint or "")


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = (done.stdout or done.stderr).splitlines()
    return lines[0] if lines else "says nothing"


def _gpu() -> list[Finding]:
    """The driver's view of the GPU, and CuPy."""
    found = []
    tool = shutil.which("nvidia-smi")
    if tool is None:
        found.append(Finding("GPU", False, "no NVIDIA driver (nvidia-smi not found)", "an NVIDIA GPU and its driver"))
    else:
        query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        answer = _first_line(query)
        found.append(Finding("GPU", "," in answer, answer))
    versions = {name: _version(name) for name in ("cupy-cuda13x", "cupy-cuda12x", "cupy")}
    installed = [f"{name} {version}" for name, version in versions.items() if version]
    found.append(Finding("cupy", bool(installed), ", ".join(installed) or "not installed", "" if installed else CUPY))
    return found


def _backend(name: str) -> Finding:
    """Whether a backend says that it can be used here."""
    try:
        target = find_backend(name).target()
    except BackendError as error:
        return Finding(f"backend {name}", False, error.message, error.hint or "")
    kinds = f"{len(target.kinds)} kinds of fused kernels" if target.kinds else "one op per kernel"
    return Finding(f"backend {name}", True, kinds)
