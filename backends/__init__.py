"""Backends: kernels -> Executable.  ``find_backend`` names them; each lives in a package of its own."""

from __future__ import annotations

from collections.abc import Callable

from irconv.backends.base import Backend
from irconv.backends.cupy.backend import CupyBackend
from irconv.backends.numpy.backend import NumpyBackend
from irconv.errors import BackendError

BACKENDS: dict[str, Callable[[bool], Backend]] = {"numpy": NumpyBackend, "cupy": CupyBackend}
"""Every backend by name: called with whether to keep to plain rounding."""


def find_backend(name: str | Backend, strict: bool = False) -> Backend:
    """The backend of this name ("auto": numpy, which is always there), or the one given.

    strict: use only algorithms with plain rounding (no Winograd convolution).

    Raises BackendError listing what there is.
    """
    if not isinstance(name, str):
        return name
    chosen = BACKENDS.get("numpy" if name == "auto" else name)
    if chosen is None:
        raise BackendError(f"there is no backend {name!r}", hint=f"use auto, {', '.join(BACKENDS)}")
    return chosen(strict)
