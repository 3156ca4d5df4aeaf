"""Backends: kernels -> Executable.  ``find_backend`` names them; each lives in a package of its own."""

from __future__ import annotations

from collections.abc import Callable

from irconv.backends.base import Backend
from irconv.backends.cupy.backend import CupyBackend
from irconv.backends.native.backend import NativeBackend, native_problem
from irconv.backends.numpy.backend import NumpyBackend
from irconv.errors import BackendError

BACKENDS: dict[str, Callable[[bool], Backend]] = {"numpy": NumpyBackend, "native": NativeBackend, "cupy": CupyBackend}
"""Every backend by name: called with whether to keep to plain rounding."""


AUTO_IS_NATIVE = False
"""Whether "auto" takes the native backend where there is a C compiler that works."""


def find_backend(name: str | Backend, strict: bool = False) -> Backend:
    """The backend of this name, or the one given.  "auto": native if that is usable here, else numpy, which is always there.

    strict: use only algorithms with plain rounding (no Winograd convolution).

    Raises BackendError listing what there is.
    """
    if not isinstance(name, str):
        return name
    if name == "auto":
        name = "native" if AUTO_IS_NATIVE and native_problem() is None else "numpy"
    chosen = BACKENDS.get(name)
    if chosen is None:
        raise BackendError(f"there is no backend {name!r}", hint=f"use auto, {', '.join(BACKENDS)}")
    return chosen(strict)
