"""Locks on a model's arrays: shared, ordered, and fair to both sides."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from irconv.locks import ReadWriteLock, locks_of, reading, writing
from irconv.state import Variable


def wait_until(condition):
    """Returns when a thread has come to where ``condition`` holds."""
    for _ in range(10_000):
        if condition():
            return
        time.sleep(0.001)
    raise AssertionError("the thread did not come to wait")


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
    lock.acquire_read("first")
    seen = []

    def write():
        lock.acquire_write()
        seen.append("write")
        lock.release_write()

    def read():
        lock.acquire_read("second")
        seen.append("read")
        lock.release_read("second")

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    wait_until(lambda: lock._waiting_writers)
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    wait_until(lambda: lock._waiting)
    assert seen == []
    lock.release_read("first")
    writer.join(10)
    reader.join(10)
    assert seen == ["write", "read"]


@pytest.mark.parametrize("first", ["read", "write"])
def test_readers_that_wait_go_before_the_next_writer(first):
    lock = ReadWriteLock()
    seen = []

    def write():
        with writing([lock]):
            seen.append("write")

    def read():
        with reading([lock]):
            seen.append("read")

    lock.acquire_write()
    threads = []
    for kind in ("read", "write") if first == "read" else ("write", "read"):
        threads.append(threading.Thread(target=read if kind == "read" else write, daemon=True))
        threads[-1].start()
        wait_until(lambda: len(lock._waiting) + lock._waiting_writers == len(threads))
    lock.release_write()
    for thread in threads:
        thread.join(10)
    assert seen == ["read", "write"]


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
    assert not lock._inside
    assert not lock._waiting
    assert not lock._writing
    assert not lock._closed


def test_a_reader_that_is_interrupted_leaves_no_trace(monkeypatch):
    lock = ReadWriteLock()
    lock.acquire_write()

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lock._changed, "wait", interrupted)
        for with_lock in (reading([lock]), writing([lock])):
            with pytest.raises(KeyboardInterrupt):
                with_lock.__enter__()
    lock.release_write()
    assert not lock._inside
    assert not lock._waiting
    assert not lock._closed
    with writing([lock]):
        pass
    with reading([lock]):
        pass


def test_a_reader_that_is_interrupted_once_it_was_let_in_leaves_no_trace(monkeypatch):
    lock = ReadWriteLock()
    lock.acquire_write()

    def let_in_and_interrupted():
        lock._writing = False
        lock._let_readers_in()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lock._changed, "wait", let_in_and_interrupted)
        with pytest.raises(KeyboardInterrupt):
            reading([lock]).__enter__()
    assert not lock._inside
    with writing([lock]):
        pass


def test_a_reader_may_be_let_out_before_it_was_let_in():
    lock = ReadWriteLock()
    lock.release_read("nobody")
    with writing([lock]):
        pass
