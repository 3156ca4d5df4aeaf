"""Tables of steps and the thread pool that runs them (runtime.c).

A *table* is data that C walks over: functions, pointers to their arguments, sizes and numbers of tasks.  A program is run
with one foreign call for each row of steps that are native; a new batch size is another table over the same code.

There is one pool for the process, of as many threads as the NumPy backend has (``IRCONV_NUM_THREADS``), the caller's
thread being one of them.  Its threads start with the first work that can be shared, look for more for a short time and then
sleep.  A second caller does its work alone instead of waiting; a forked child starts threads of its own.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from irconv.backends.arrays.address import address_of as address_of
from irconv.backends.native.library import Unit, library
from irconv.backends.numpy.parallel import thread_count
from irconv.errors import BackendError

PHASE, COPY, FINITE_F32, FINITE_F64 = 0, 1, 2, 3
"""Kinds of steps, as in runtime.c."""

SPIN = 30_000
"""Nanoseconds for which an idle thread looks for work before it sleeps: longer than what lies between two kernels of a
program, shorter than what anybody else would notice.  To wake a sleeping thread takes 5 to 50 us."""

FLAGS = ("-pthread",)


@dataclass(frozen=True, slots=True)
class Entry:
    """A step: what runs, the numbers of the arrays it is given, its run-time sizes, and how many tasks it has.

    function: address, for a phase.
    tasks:    of a phase; bytes to copy; values to check.
    """

    kind: int
    slots: tuple[int, ...]
    tasks: int
    function: int = 0
    sizes: tuple[int, ...] = ()


class Table:
    """Steps as C reads them.

    steps:     (function, buffers, sizes, tasks, kind) of each.
    pointers:  addresses of all arguments, one step's after the other's; ``positions`` tells where those of a slot are.
    """

    def __init__(self, entries: Sequence[Entry]):
        self.count = len(entries)
        self.steps = np.zeros((max(1, len(entries)), 5), np.int64)
        total = sum(len(entry.slots) for entry in entries)
        self.pointers = (ctypes.c_int64 * max(1, total))()
        self._sizes = np.array([size for entry in entries for size in entry.sizes] or [0], np.int64)
        self.positions: dict[int, list[int]] = {}
        buffers, sizes = ctypes.addressof(self.pointers), self._sizes.ctypes.data
        for row, entry in zip(self.steps, entries, strict=False):
            row[:] = (entry.function, buffers, sizes, entry.tasks, entry.kind)
            for slot in entry.slots:
                self.positions.setdefault(slot, []).append((buffers - ctypes.addressof(self.pointers)) // 8)
                buffers += 8
            sizes += 8 * len(entry.sizes)
        self.address = self.steps.ctypes.data

    def point(self, slot: int, address: int) -> None:
        """Say where the array of a slot is."""
        for position in self.positions.get(slot, ()):
            self.pointers[position] = address

    def at(self, first: int) -> int:
        """The address of a step."""
        return int(self.address + first * self.steps.strides[0])


class Pool:
    """Threads that run tables.

    run_row: as :meth:`run`, for the address of a :meth:`row`.
    """

    def __init__(self, threads: int):
        code = _code()
        self.threads = threads
        self._run, self._timed = code.irconv_run, code.irconv_run_timed
        self.run_row: Callable[[int], int] = code.irconv_run_row
        self._handle = code.irconv_pool(threads, SPIN if threads <= _cores() else 0)
        if not self._handle:
            raise BackendError(f"there is no memory for a pool of {threads} threads")

    def run(self, address: int, count: int) -> int:
        """Run steps; 0, or 1 + the number of the check that failed."""
        return self._run(self._handle, address, count)

    def row(self, address: int, count: int) -> ctypes.Array[ctypes.c_int64]:
        """Steps as :attr:`run_row` takes them; to be kept as long as it may be called."""
        return (ctypes.c_int64 * 3)(self._handle, address, count)

    def run_timed(self, address: int, count: int) -> tuple[int, np.ndarray]:
        """The same, and the seconds that each step took."""
        seconds = np.zeros(count)
        return self._timed(self._handle, address, count, seconds.ctypes.data), seconds


@lru_cache(maxsize=1)
def _source() -> str:
    return (Path(__file__).parent / "runtime.c").read_text(encoding="utf-8")


def _code() -> ctypes.CDLL:
    """The compiled runtime.c."""
    code = library().load(Unit(_source(), FLAGS, "runtime"))
    integer, pointer = ctypes.c_int64, ctypes.c_void_p
    code.irconv_pool.argtypes, code.irconv_pool.restype = [integer, integer], pointer
    code.irconv_run.argtypes, code.irconv_run.restype = [pointer, pointer, integer], integer
    code.irconv_run_row.argtypes, code.irconv_run_row.restype = [pointer], integer
    code.irconv_run_timed.argtypes, code.irconv_run_timed.restype = [pointer, pointer, integer, pointer], integer
    return code


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_pool: Pool | None = None
_making = threading.Lock()


@lru_cache(maxsize=1)
def threads() -> int:
    """How many threads the pool of this process has, or will have: read once, for kernels have scratch for so many."""
    return thread_count()


def pool() -> Pool:
    """The pool of this process, made when first asked for.  Raises BackendError where there is no compiler."""
    global _pool
    if _pool is None:
        with _making:
            if _pool is None:
                _pool = Pool(threads())
    return _pool


def _forget() -> None:
    """The lock may have been held by a thread that a forked child has not; the pool itself finds out about the fork."""
    global _making
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def function_address(unit: Unit, function: str) -> int:
    """The address of a compiled function.  Raises BackendError if the unit has none of that name."""
    code = library().load(unit)
    try:
        return ctypes.cast(code[function], ctypes.c_void_p).value or 0
    except AttributeError:
        raise BackendError(f"the code of kernel @{unit.name} exports no function {function!r}") from None


def run_phases(unit: Unit, phases: Sequence[tuple[str, int]], sizes: Sequence[int], arrays: Sequence[Any]) -> None:
    """Compile the unit unless it is known, and run its phases on arrays."""
    slots = tuple(range(len(arrays)))
    table = Table([Entry(PHASE, slots, tasks, function_address(unit, name), tuple(sizes)) for name, tasks in phases])
    for slot, array in enumerate(arrays):
        table.point(slot, address_of(array))
    pool().run(table.address, table.count)
