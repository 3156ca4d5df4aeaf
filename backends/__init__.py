"""Backends: kernels -> Executable.  ``find_backend`` names them; each lives in a package of its own."""

from __future__ import annotations

from irconv.backends.base import Backend
from irconv.backends.cupy.backend import CupyBackend
from irconv.backends.numpy.backend import NumpyBackend
from irconv.errors import BackendError

BACKENDS: dict[str, type[Backend]] = {"numpy": NumpyBackend, "cupy": CupyBackend}
"""Every backend by name."""


def find_backend(name: str | Backend) -> Backend:
    """The backend of this name ("auto": numpy, which is always there), or the one given.

    Raises BackendError listing what there is.
    """
    if not isinstance(name, str):
        return name
    chosen = BACKENDS.get("numpy" if name == "auto" else name)
    if chosen is None:
        raise BackendError(f"there is no backend {name!r}", hint=f"use auto, {', '.join(BACKENDS)}")
    return chosen()
