"""How many threads NumPy's BLAS uses, where it can be told.

The kernels split their work themselves: each thread multiplies its own block while the block is in its own cache.  A BLAS that
starts threads of its own on top would have them wait for each other, and its idle threads spin for a while on the cores
that the pool needs.  So while the pool works, BLAS is limited to one thread; what it was set to before returns afterwards.
Known here: the OpenBLAS that NumPy's wheels carry, or one that the system provides.  With any other nothing is changed.
"""

from __future__ import annotations

import ctypes
import glob
import os
import threading
from collections.abc import Callable

import numpy as np

PREFIXES = ("scipy_openblas", "openblas")
SUFFIXES = ("64_", "", "_64")


def _loaded_libraries() -> list[str]:
    """Shared libraries that may be NumPy's OpenBLAS: beside the package, then those this process has mapped."""
    package = os.path.dirname(np.__file__)
    beside = os.path.join(os.path.dirname(package), "numpy.libs", "*openblas*")
    inside = os.path.join(package, ".dylibs", "*openblas*")
    found = sorted(glob.glob(beside) + glob.glob(inside))
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            paths = {line.split(maxsplit=5)[-1].strip() for line in maps if "openblas" in line}
    except OSError:
        paths = set()
    return [*found, *sorted(paths - set(found))]


def _functions() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """``(get, set)`` of the number of threads, or None where there is no such BLAS."""
    for path in _loaded_libraries():
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        for prefix in PREFIXES:
            for suffix in SUFFIXES:
                read = getattr(library, f"{prefix}_get_num_threads{suffix}", None)
                write = getattr(library, f"{prefix}_set_num_threads{suffix}", None)
                if read is not None and write is not None:
                    read.restype, read.argtypes = ctypes.c_int, ()
                    write.restype, write.argtypes = None, (ctypes.c_int,)
                    return read, write
    return None


class OneThread:
    """``with OneThread():`` BLAS works on one thread; calls from several threads may overlap."""

    def __init__(self) -> None:
        self._functions = _functions()
        self._lock = threading.Lock()
        self._users = 0
        self._before = 1

    @property
    def known(self) -> bool:
        """Whether the BLAS can be told how many threads to use."""
        return self._functions is not None

    def __enter__(self) -> None:
        if self._functions is None:
            return
        with self._lock:
            self._users += 1
            if self._users == 1:
                read, write = self._functions
                self._before = read()
                if self._before != 1:
                    write(1)

    def __exit__(self, *exception: object) -> None:
        if self._functions is None:
            return
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._before != 1:
                self._functions[1](self._before)
