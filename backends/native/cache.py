"""Compiled units on disk: private to the user, checked before use, safe with many processes, bounded in size.

The folder is ``IRCONV_CACHE``, else ``$XDG_CACHE_HOME/irconv``, else ``~/.cache/irconv``.  It must belong to the user and be
writable by nobody else, for what lies in it is run.  An entry is one file, the library with its SHA-256 behind it (loaders
ignore what follows the library), written elsewhere and renamed into place: it is there as a whole or not at all, and two
processes that compile the same thing both end up with one good entry.  Damaged entries are not used and are made again.

What is loaded is a copy that has no name any more, so that nobody can change it while it is in use.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import itertools
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from irconv.errors import BackendError

SUFFIX, RECORD = ".so", ".tuning"
"""Of files that hold a library, and what has been measured."""

DIGEST = 32
"""Bytes of the checksum behind each library."""

ABANDONED = 24 * 3600.0
"""Seconds after which working files and kept sources of others are taken away."""

SHARE = 16
"""A process looks through its folder again when it has added one part in so many of the limit: with 28,000 entries a look takes
0.1 s, as long as a kernel takes to compile.  The folder may be over its limit by that much for each process at work."""

_numbers = itertools.count()


def default_folder() -> Path:
    """Where units are kept unless a folder cannot be used.  Raises BackendError where not even a home folder is known."""
    given = os.environ.get("IRCONV_CACHE", "").strip()
    if given:
        return Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME", "").strip()
    try:
        return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "irconv"
    except RuntimeError as error:
        raise BackendError(f"there is no home folder for the cache: {error}", hint="name a folder in IRCONV_CACHE") from None


def default_limit() -> int:
    """The most bytes to keep: ``IRCONV_CACHE_BYTES``, 1 GiB if it is not set."""
    given = os.environ.get("IRCONV_CACHE_BYTES", "").strip()
    if not given:
        return 1 << 30
    if not given.isdigit():
        raise BackendError(f"IRCONV_CACHE_BYTES={given!r} is not a number of bytes", hint="set it to 1073741824, or unset it")
    return int(given)


class Cache:
    """Compiled units in one folder.  Raises OSError, with the reason, for a folder that cannot be trusted or written."""

    def __init__(self, folder: Path, limit: int):
        self.folder = folder
        self.limit = limit
        self._room = -1  # bytes to store before the folder is looked through; below 0: with the next
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._trust()
        with self.workplace():
            pass

    def _trust(self) -> None:
        found = os.lstat(self.folder)
        if not stat.S_ISDIR(found.st_mode):
            raise PermissionError(f"{self.folder} is not a folder, or a link to one")
        if hasattr(os, "getuid") and found.st_uid != os.getuid():
            raise PermissionError(f"{self.folder} belongs to another user")
        if found.st_mode & 0o022:
            raise PermissionError(f"{self.folder} can be written by other users (mode {stat.S_IMODE(found.st_mode):o})")

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """A folder for working files, gone afterwards."""
        folder = Path(tempfile.mkdtemp(prefix="work-", dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def find(self, key: str, suffix: str = SUFFIX) -> bytes | None:
        """What is kept under this key, without its checksum; None if there is nothing, or something damaged."""
        path = self.folder / (key + suffix)
        try:
            contents = path.read_bytes()
        except OSError:
            return None
        library, digest = contents[:-DIGEST], contents[-DIGEST:]
        if not library or hashlib.sha256(library).digest() != digest:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used now: others go first
        return library

    def store(self, key: str, library: bytes, suffix: str = SUFFIX) -> None:
        """Keep a library, or a record.  Raises OSError when there is no room."""
        temporary = self.folder / f"work-{os.getpid()}-{next(_numbers)}.part"
        try:
            temporary.write_bytes(library + hashlib.sha256(library).digest())
            os.replace(temporary, self.folder / (key + suffix))
        finally:
            temporary.unlink(missing_ok=True)
        self._room -= len(library) + DIGEST

    def keep_source(self, key: str, source: str) -> Path | None:
        """Keep a C file that did not compile, for people to look at; None where that is not possible."""
        path = self.folder / f"failed-{key[:16]}.c"
        try:
            path.write_text(source, encoding="utf-8")
        except OSError:
            return None
        return path

    def tidy(self) -> None:
        """Trim, if what this process has stored since it last looked may be too much."""
        if self._room < 0:
            self.trim()

    def trim(self) -> None:
        """Take away the entries used least recently until the rest fits, and what others left behind."""
        entries, now = [], time.time()
        with contextlib.suppress(OSError):
            for item in os.scandir(self.folder):
                with contextlib.suppress(OSError):
                    found = item.stat(follow_symlinks=False)
                    if item.name.endswith((SUFFIX, RECORD)):
                        entries.append((found.st_mtime_ns, found.st_size, item.path))
                    elif item.name.startswith(("work-", "failed-")) and now - found.st_mtime > ABANDONED:
                        _remove(item.path)
        total = sum(size for _, size, _ in entries)
        share = self.limit // SHARE
        if total > self.limit:
            for _, size, path in sorted(entries):
                if total <= self.limit - share:
                    break
                _remove(path)
                total -= size
        self._room = min(self.limit - total, share)

    def load(self, library: bytes) -> ctypes.CDLL:
        """Load a library from a copy without a name.  Raises OSError where that is not allowed."""
        path = self.folder / f"work-{os.getpid()}-{next(_numbers)}.so.part"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700)
            with os.fdopen(descriptor, "wb") as file:
                file.write(library)
            return ctypes.CDLL(str(path), mode=os.RTLD_LOCAL | os.RTLD_NOW)
        finally:
            path.unlink(missing_ok=True)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
