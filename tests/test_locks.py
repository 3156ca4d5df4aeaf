"""Locks on a model's arrays: shared, ordered, and fair to both sides."""

from __future__ import annotations

import threading
import time

import numpy as np

from irconv.locks import ReadWriteLock, locks_of, reading, writing
from irconv.state import Variable


def test_locks_are_shared_by_what_is_bound_together():
    a, b, c = (Variable(np.zeros(1)) for _ in range(3))
    first = locks_of([a, b])
    assert len(first) == 1
    assert locks_of([b]) == first
    both = locks_of([c, a])
    assert len(both) == 2
    assert locks_of([a, b, c]) == both
    assert [lock.number for lock in both] == sorted(lock.number for lock in both)


def test_a_waiting_writer_goes_first():
    lock = ReadWriteLock()
    lock.acquire_read()
    seen = []

    def write():
        lock.acquire_write()
        seen.append("write")
        lock.release_write()

    def read():
        lock.acquire_read()
        seen.append("read")
        lock.release_read()

    writer = threading.Thread(target=write)
    writer.start()
    while not lock._waiting_writers:
        pass
    reader = threading.Thread(target=read)
    reader.start()
    assert seen == []
    lock.release_read()
    writer.join(10)
    reader.join(10)
    assert seen == ["write", "read"]


def test_readers_get_their_turn_between_writers():
    lock = ReadWriteLock()
    stop = threading.Event()

    def write():
        while not stop.is_set():
            with writing([lock]):
                time.sleep(0.001)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for thread in writers:
        thread.start()
    start = time.perf_counter()
    for _ in range(20):
        with reading([lock]):
            assert not lock._writing
    stop.set()
    for thread in writers:
        thread.join(10)
    assert time.perf_counter() - start < 5  # each waits for one writer or two


def test_readers_and_writers_exclude_each_other():
    lock, variable = ReadWriteLock(), Variable(np.zeros(2))
    errors = []

    def write():
        for _ in range(200):
            with writing([lock], [variable]):
                variable.array[0] += 1
                variable.array[1] += 1

    def read():
        for _ in range(200):
            with reading([lock]):
                if variable.array[0] != variable.array[1]:
                    errors.append(variable.array.copy())

    threads = [threading.Thread(target=f) for f in (write, read, write, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    assert variable.array[0] == 400
    assert not lock._readers
    assert not lock._writing


def test_a_reader_that_is_interrupted_leaves_no_trace(monkeypatch):
    lock = ReadWriteLock()
    lock.acquire_write()

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lock._changed, "wait", interrupted)
        for acquire in (lock.acquire_read, lock.acquire_write):
            try:
                acquire()
            except KeyboardInterrupt:
                pass
            else:
                raise AssertionError("it should have waited")
    lock.release_write()
    with writing([lock]):
        pass
    with reading([lock]):
        pass
