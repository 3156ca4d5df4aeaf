"""The process-wide thread pool of the NumPy backend.

NumPy's inner loops release the interpreter lock, so a few threads that each work on blocks of one array share its memory
traffic and arithmetic.  There is one pool for the process, of ``IRCONV_NUM_THREADS`` threads (by default as many as the
process may use cores, at most 8), the caller's thread being one of them.  A second caller, or a task that asks for the pool
itself, does its work alone instead of waiting.  A forked child builds a new pool.  While the pool works, BLAS is limited to
one thread for each of them (see :mod:`irconv.backends.numpy.blas`).

Idle threads sleep on a lock, also between two kernels of a call: to wake one and hear back from it takes 2 to 5 us.  Spinning
saves at most 3 us of that on idle cores, and on cores that other programs want it costs whole time slices, 4 to 20 ms.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from irconv.backends.numpy.blas import OneThread
from irconv.errors import BackendError

BLOCK_BYTES = 384 * 1024
"""Bytes of one operand in a block: three or four such blocks fit a core's second-level cache."""

BUFFER_ELEMENTS = 256
"""NumPy's ufunc buffer while kernels run.  Its default, 8192, makes a ufunc over rows that are not adjacent copy them through the
buffer, several rows at a time, as soon as two fit: four times slower than working on the rows where they are."""

Task = Callable[[int, int], None]


def thread_count() -> int:
    """How many threads to use: ``IRCONV_NUM_THREADS``, or the cores this process may run on, at most 8."""
    given = os.environ.get("IRCONV_NUM_THREADS", "").strip()
    if not given:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(cores, 8)
    if not given.isdigit() or int(given) < 1:
        raise BackendError(
            f"IRCONV_NUM_THREADS={given!r} is not a positive number", hint="set it to 1, 2, ... or unset it"
        )
    return int(given)


class KernelSettings:
    """``with KernelSettings():`` NumPy as kernels want it in this thread: no floating-point warnings, a small ufunc buffer."""

    def __enter__(self) -> None:
        self._errors = np.errstate(all="ignore")
        self._errors.__enter__()
        self._buffer = np.setbufsize(BUFFER_ELEMENTS)

    def __exit__(self, *exception: object) -> None:
        np.setbufsize(self._buffer)
        self._errors.__exit__(None, None, None)


class _Thread(threading.local):
    """What a thread knows of itself: whether the settings for kernels hold in it."""

    settled = False


class _Job:
    """One call of :meth:`Pool.run`: indices are handed out one by one, the first exception is kept."""

    def __init__(self, task: Task, count: int):
        self.task = task
        self.count = count
        self.indices = itertools.count()  # next() on it is atomic under the interpreter lock
        self.error: BaseException | None = None

    def work(self, worker: int) -> None:
        """Do what is left, together with the other threads."""
        task, count, indices = self.task, self.count, self.indices
        try:
            for index in indices:
                if index >= count:
                    return
                task(index, worker)
        except BaseException as error:  # handed to the caller by Pool.run
            self.error = self.error or error
            self.count = 0


class Pool:
    """A :class:`irconv.backends.arrays.base.Parallel` on threads."""

    block_bytes = BLOCK_BYTES
    shares = 2

    def __init__(self, threads: int):
        self.threads = threads
        self._one_blas_thread = OneThread()
        self._busy = threading.Lock()
        self._job: _Job | None = None
        self._wake = [threading.Lock() for _ in range(threads - 1)]
        self._done = threading.Semaphore(0)
        self._thread = _Thread()
        for worker, wake in enumerate(self._wake, start=1):
            wake.acquire()
            threading.Thread(target=self._serve, args=(worker, wake), name=f"irconv-{worker}", daemon=True).start()

    def _serve(self, worker: int, wake: threading.Lock) -> None:
        self._thread.settled = True
        with KernelSettings():
            while True:
                wake.acquire()
                job = self._job
                if job is not None:
                    job.work(worker)
                del job  # a sleeping thread keeps no arrays alive
                self._done.release()

    @contextmanager
    def settings(self) -> Iterator[None]:
        """NumPy and BLAS as kernels want them, in the caller's thread: a program holds them for a whole call.

        To enter and leave them takes as long as a small kernel, 5 us.
        """
        if self._thread.settled:
            yield
            return
        with KernelSettings(), self._one_blas_thread:
            self._thread.settled = True
            try:
                yield
            finally:
                self._thread.settled = False

    def run(self, task: Task, count: int) -> None:
        """Call ``task(index, worker)`` for every index below ``count``, in no fixed order, on all threads."""
        if self._thread.settled:
            self._share(task, count)
        else:
            with self.settings():
                self._share(task, count)

    def _share(self, task: Task, count: int) -> None:
        helpers = min(self.threads, count) - 1
        if helpers < 1 or not self._busy.acquire(blocking=False):
            for index in range(count):
                task(index, 0)
            return
        try:
            job = self._job = _Job(task, count)
            for wake in self._wake[:helpers]:
                wake.release()
            job.work(0)
            for _ in range(helpers):
                self._done.acquire()
        finally:
            self._job = None
            self._busy.release()
        if job.error is not None:
            raise job.error


_pool: Pool | None = None
_making = threading.Lock()


def pool() -> Pool:
    """The pool of this process, started when first asked for."""
    global _pool
    if _pool is None:
        with _making:
            if _pool is None:
                _pool = Pool(thread_count())
    return _pool


def _forget() -> None:
    """A forked child has none of its parent's threads, and its locks may have been held by one of them."""
    global _pool, _making
    _pool, _making = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
