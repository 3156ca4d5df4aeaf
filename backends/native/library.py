"""Compiled units: each distinct C source is compiled once for a machine and loaded once in a process.

Where the cache folder cannot be used (read-only, full, someone else's), a private temporary folder serves this process, after
one warning.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from irconv.backends.native.cache import RECORD, Cache, default_folder, default_limit
from irconv.backends.native.compiler import FLAGS, Compiler, find_compiler, processor
from irconv.errors import BackendError

FORMAT = 1
"""Grows when entries of older versions must not be used."""


@dataclass(frozen=True)
class Unit:
    """A C file and the flags to compile it with; ``name`` is only for messages."""

    source: str
    flags: tuple[str, ...]
    name: str = field(default="", compare=False)


class Library:
    """The units of a process.

    compilations: how many times a compiler has run.
    """

    def __init__(self) -> None:
        self.compilations = 0
        self._loaded: dict[Unit, ctypes.CDLL] = {}
        self._busy: dict[Unit, threading.Lock] = {}
        self._lock = threading.Lock()
        self._temporary: Cache | None = None
        self._warned = False

    def load(self, unit: Unit) -> ctypes.CDLL:
        """The unit, compiled now unless it is known.  Raises BackendError."""
        found = self._loaded.get(unit)
        if found is not None:
            return found
        with self._lock:
            busy = self._busy.setdefault(unit, threading.Lock())
        with busy:
            found = self._loaded.get(unit)
            if found is None:
                found = self._loaded[unit] = self._make(unit)
        return found

    def prepare(self, units: Iterable[Unit]) -> None:
        """Compile what is not known yet, side by side."""
        missing = [unit for unit in dict.fromkeys(units) if unit not in self._loaded]
        if not missing:
            return
        with ThreadPoolExecutor(min(len(missing), _cores())) as workers:
            for result in [workers.submit(self.load, unit) for unit in missing]:
                result.result()

    def recall(self, key: str) -> bytes | None:
        """The record kept under this key; None if there is none, or a damaged one."""
        return self._cache().find(key, RECORD)

    def remember(self, key: str, record: bytes) -> None:
        """Keep a record beside the units, if there is room."""
        cache = self._cache()
        try:
            cache.store(key, record, RECORD)
        except OSError as error:
            self._warn(cache.folder, error)

    def _make(self, unit: Unit) -> ctypes.CDLL:
        compiler = find_compiler()
        key = key_of(unit, compiler)
        cache = self._cache()
        library = cache.find(key)
        if library is not None:
            with contextlib.suppress(OSError):
                return cache.load(library)
        try:
            library = self._compile(unit, compiler, key, cache)
        except OSError as error:
            cache = self._fall_back(cache.folder, error)
            library = self._compile(unit, compiler, key, cache)
        code = self._load(unit, library, cache)
        try:
            cache.store(key, library)
        except OSError as error:
            self._fall_back(cache.folder, error)
        cache.tidy()
        return code

    def _compile(self, unit: Unit, compiler: Compiler, key: str, cache: Cache) -> bytes:
        """The unit's library.  Raises BackendError with what the compiler says, OSError where there is no room."""
        with cache.workplace() as folder:
            source, target = folder / "kernel.c", folder / "kernel.so"
            source.write_text(unit.source, encoding="utf-8")
            with self._lock:
                self.compilations += 1
            said = compiler.compile(source, target, unit.flags)
            if said is None:
                return target.read_bytes()
            if shutil.disk_usage(cache.folder).free < ROOM:
                raise OSError(f"no room in {cache.folder}")
        raise self._failed(unit, compiler, said, cache.keep_source(key, unit.source))

    def _load(self, unit: Unit, library: bytes, cache: Cache) -> ctypes.CDLL:
        """Load what has been compiled, from the temporary folder if the file system of the cache does not allow it."""
        try:
            return cache.load(library)
        except OSError as error:
            first = error
        try:
            code = self._temporary_cache(first).load(library)
        except OSError as error:
            raise BackendError(f"the code of kernel @{unit.name} cannot be loaded: {error}", hint=PLACES) from None
        self._warn(cache.folder, first)
        return code

    def _failed(self, unit: Unit, compiler: Compiler, said: str, kept: Path | None) -> BackendError:
        return BackendError(
            f"the C compiler failed on kernel @{unit.name} ({compiler}):\n{said}",
            hint=f"the source is kept in {kept}" if kept is not None else "the source could not be kept",
        )

    # --- where units are kept ----------------------------------------------------------------------------------------

    def _cache(self) -> Cache:
        folder = default_folder()
        try:
            return _opened(folder, default_limit())
        except OSError as error:
            return self._fall_back(folder, error)

    def _fall_back(self, folder: Path, error: OSError) -> Cache:
        """A private temporary folder in the place of one that is no good.  Raises BackendError if there is none either."""
        cache = self._temporary_cache(error)
        self._warn(folder, error)
        return cache

    def _temporary_cache(self, reason: OSError) -> Cache:
        with self._lock:
            if self._temporary is None:
                try:
                    self._temporary = Cache(Path(tempfile.mkdtemp(prefix="irconv-")), default_limit())
                except OSError as error:
                    raise BackendError(f"compiled code cannot be kept anywhere: {reason}; {error}", hint=PLACES) from None
                atexit.register(_forget_folder, self._temporary.folder, os.getpid())
            return self._temporary

    def _warn(self, folder: Path, error: OSError) -> None:
        """Say once that the cache is no good."""
        with self._lock:
            warned, self._warned = self._warned, True
        if not warned:
            text = f"irconv cannot keep compiled code in {folder}: {error}; every process compiles again"
            warnings.warn(text, RuntimeWarning, stacklevel=2)


PLACES = "name a folder of your own, with room, in IRCONV_CACHE (and TMPDIR)"
ROOM = 1 << 20
"""Bytes: a compiler that fails with less room than this left is not to blame."""


@lru_cache(maxsize=8)
def _opened(folder: Path, limit: int) -> Cache:
    return Cache(folder, limit)


def _forget_folder(folder: Path, process: int) -> None:
    """Take the temporary folder away when the process that made it ends."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def key_of(unit: Unit, compiler: Compiler) -> str:
    """What a compiled unit depends on, as a file name."""
    native = processor() if any("native" in flag for flag in unit.flags) else ""
    parts = [FORMAT, unit.source, FLAGS, unit.flags, compiler.identity, native]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


_library = Library()


def library() -> Library:
    """The units of this process."""
    return _library


def _forget() -> None:
    """A forked child keeps what is loaded, but its locks may have been held by a thread that it has not."""
    _library._lock = threading.Lock()
    _library._busy = {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
