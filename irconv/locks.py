"""Who may use a model's arrays when: many evaluations at once, or one executable that writes.

An executable reads its parameters by reference, and one with updates writes them in place, so the two must not overlap.
Variables that were bound together share a :class:`ReadWriteLock`; an executable takes the locks of all variables it is
bound to (few, whatever the size of the model), shared if it only reads and exclusive if it writes.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Sequence
from weakref import WeakKeyDictionary

from irconv.state import Variable

_numbers = itertools.count()
_registry = threading.Lock()
_locks: WeakKeyDictionary[Variable, ReadWriteLock] = WeakKeyDictionary()


class ReadWriteLock:
    """Any number of readers, or one writer.  Not reentrant.

    Neither side starves: readers that come while a writer waits go after it, and when a writer is done all readers that
    wait by then go before the next.

    A reader is any object of its own; while nobody writes, it enters and leaves without the mutex, which takes a third of the
    time.  It enters before it looks whether the lock is closed, and a writer closes the lock before it looks whether somebody is
    inside: one of the two sees the other.
    """

    def __init__(self) -> None:
        self.number = next(_numbers)  # locks are always taken in this order, so that nobody waits in a circle
        self._changed = threading.Condition(threading.Lock())
        self._inside: set[object] = set()  # readers
        self._waiting: set[object] = set()  # readers that a writer will let in
        self._closed = False  # somebody writes, or waits to; changes under the mutex only
        self._writing = False
        self._waiting_writers = 0

    def acquire_read(self, reader: object) -> None:
        """Let ``reader`` in.  Whatever comes of it, an interruption as well, :meth:`release_read` is to be called afterwards."""
        self._inside.add(reader)
        if self._closed:
            self._wait_to_read(reader)

    def release_read(self, reader: object) -> None:
        """Let ``reader`` out, if it is inside."""
        self._inside.discard(reader)
        if self._closed:
            with self._changed:
                self._changed.notify_all()

    def _wait_to_read(self, reader: object) -> None:
        with self._changed:
            if not self._closed:
                return
            self._inside.discard(reader)
            self._changed.notify_all()  # a writer may have seen it inside
            self._waiting.add(reader)
            try:
                while reader in self._waiting:
                    self._changed.wait()
            finally:  # interrupted from the keyboard, perhaps
                self._waiting.discard(reader)

    def acquire_write(self) -> None:
        with self._changed:
            self._waiting_writers += 1
            self._closed = True
            try:
                while self._writing or self._inside:
                    self._changed.wait()
                self._writing = True
            finally:
                self._waiting_writers -= 1
                if not self._writing and not self._waiting_writers:
                    self._let_readers_in()

    def release_write(self) -> None:
        with self._changed:
            self._writing = False
            self._let_readers_in()

    def _let_readers_in(self) -> None:
        self._inside.update(self._waiting)
        self._waiting.clear()
        self._closed = self._waiting_writers > 0
        self._changed.notify_all()


def locks_of(variables: Iterable[Variable]) -> tuple[ReadWriteLock, ...]:
    """The locks that cover these variables, in the order in which to take them.

    Variables that have none yet get one together.
    """
    with _registry:
        found: dict[int, ReadWriteLock] = {}
        shared: ReadWriteLock | None = None
        for variable in variables:
            lock = _locks.get(variable)
            if lock is None:
                lock = shared = shared or ReadWriteLock()
                _locks[variable] = lock
            found[lock.number] = lock
        return tuple(found[number] for number in sorted(found))


def in_order(variables: Iterable[Variable]) -> tuple[Variable, ...]:
    """The variables, each once, in the order in which everybody takes the own locks of several."""
    return tuple(sorted(set(variables), key=id))


class reading:  # noqa: N801  # used as a function
    """``with reading(locks):`` hold the locks for reading.  A class, as entering a generator takes longer than the locks."""

    __slots__ = ("_locks",)

    def __init__(self, locks: Sequence[ReadWriteLock]):
        self._locks = locks

    def __enter__(self) -> None:
        try:
            for lock in self._locks:
                lock.acquire_read(self)
        except BaseException:  # interrupted from the keyboard
            self.__exit__()
            raise

    def __exit__(self, *exception: object) -> None:
        for lock in self._locks:
            lock.release_read(self)


class writing:  # noqa: N801  # used as a function
    """``with writing(locks, variables):`` hold the locks for writing, and the own lock of every variable to be written.

    variables: as :func:`in_order` gives them.
    """

    __slots__ = ("_held", "_locks", "_taken", "_variables")

    def __init__(self, locks: Sequence[ReadWriteLock], variables: Sequence[Variable] = ()):
        self._locks = locks
        self._variables = variables
        self._taken = 0
        self._held = 0

    def __enter__(self) -> None:
        try:
            for lock in self._locks:
                lock.acquire_write()
                self._taken += 1
            for variable in self._variables:
                variable.lock.acquire()
                self._held += 1
        except BaseException:  # interrupted from the keyboard
            self.__exit__()
            raise

    def __exit__(self, *exception: object) -> None:
        for variable in reversed(self._variables[: self._held]):
            variable.lock.release()
        for lock in reversed(self._locks[: self._taken]):
            lock.release_write()
