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
    """

    def __init__(self) -> None:
        self.number = next(_numbers)  # locks are always taken in this order, so that nobody waits in a circle
        self._mutex = threading.Lock()
        self._changed = threading.Condition(self._mutex)
        self._readers = 0
        self._writing = False
        self._waiting_writers = 0
        self._waiting_readers = 0
        self._turn = 0  # grows when waiting readers are let in

    def acquire_read(self) -> None:
        with self._mutex:  # which is as good as the condition here, and quicker
            if not self._writing and not self._waiting_writers:
                self._readers += 1
                return
            turn = self._turn
            self._waiting_readers += 1
            try:
                while self._turn == turn:
                    self._changed.wait()
            except BaseException:  # interrupted from the keyboard
                if self._turn == turn:
                    self._waiting_readers -= 1
                else:
                    self._leave()
                raise

    def release_read(self) -> None:
        with self._mutex:
            self._leave()

    def acquire_write(self) -> None:
        with self._changed:
            self._waiting_writers += 1
            try:
                while self._writing or self._readers:
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

    def _leave(self) -> None:
        self._readers -= 1
        if self._readers == 0 and self._waiting_writers:
            self._changed.notify_all()

    def _let_readers_in(self) -> None:
        self._readers += self._waiting_readers
        self._waiting_readers = 0
        self._turn += 1
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


class reading:  # noqa: N801  # used as a function
    """``with reading(locks):`` hold the locks for reading.  A class, as entering a generator takes longer than the locks."""

    __slots__ = ("_locks", "_taken")

    def __init__(self, locks: Sequence[ReadWriteLock]):
        self._locks = locks
        self._taken = 0

    def __enter__(self) -> None:
        try:
            for lock in self._locks:
                lock.acquire_read()
                self._taken += 1
        except BaseException:  # interrupted from the keyboard
            self.__exit__()
            raise

    def __exit__(self, *exception: object) -> None:
        for lock in self._locks[: self._taken]:
            lock.release_read()


class writing:  # noqa: N801  # used as a function
    """``with writing(locks, variables):`` hold the locks for writing, and the own lock of every variable to be written."""

    __slots__ = ("_held", "_locks", "_taken", "_variables")

    def __init__(self, locks: Sequence[ReadWriteLock], variables: Iterable[Variable] = ()):
        self._locks = locks
        self._variables = sorted(variables, key=id)  # the order in which everybody takes several
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
