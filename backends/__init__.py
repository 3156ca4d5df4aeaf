"""Backends: kernels -> Executable.  ``find_backend`` names them; each lives in a package of its own."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from irconv.backends.base import Backend, Tunable
from irconv.errors import BackendError


def _made_by(module: str, name: str) -> Callable[[bool], Backend]:
    """Makes a backend of a module that is imported only then: whoever builds graphs alone does not wait for kernels."""

    def make(strict: bool) -> Backend:
        backend: Backend = getattr(import_module(module), name)(strict)
        return backend

    return make


BACKENDS: dict[str, Callable[[bool], Backend]] = {
    "numpy": _made_by("irconv.backends.numpy.backend", "NumpyBackend"),
    "native": _made_by("irconv.backends.native.backend", "NativeBackend"),
    "cupy": _made_by("irconv.backends.cupy.backend", "CupyBackend"),
}
"""Every backend by name: called with whether to keep to plain rounding."""


def auto_backend() -> str:
    """What "auto" stands for on this machine, for arrays on the CPU: native where there is a C compiler that works."""
    return "numpy" if import_module("irconv.backends.native.backend").native_problem() else "native"


def backend_names(text: str) -> list[str]:
    """Names separated by commas, each once, "auto" by what it stands for."""
    names = (name.strip() for name in text.split(","))
    return list(dict.fromkeys(auto_backend() if name == "auto" else name for name in names if name))


def find_backend(name: str | Backend, strict: bool = False, tune: bool = False) -> Backend:
    """The backend of this name, or the one given.  "auto": native if that is usable here, else numpy, which is always there.

    strict: use only algorithms with plain rounding (no Winograd convolution).
    tune:   choose kernels by measurement; backends that have nothing to choose from stay as they are.

    Raises BackendError listing what there is.
    """
    backend = _named(name, strict) if isinstance(name, str) else name
    return backend.tuned() if tune and isinstance(backend, Tunable) else backend


def _named(name: str, strict: bool) -> Backend:
    if name == "auto":
        name = auto_backend()
    chosen = BACKENDS.get(name)
    if chosen is None:
        raise BackendError(f"there is no backend {name!r}", hint=f"use auto, {', '.join(BACKENDS)}")
    return chosen(strict)
