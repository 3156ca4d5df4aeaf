"""The thread pool of the NumPy backend."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from irconv.backends.numpy import parallel
from irconv.backends.numpy.blas import OneThread
from irconv.backends.numpy.parallel import BUFFER_ELEMENTS, KernelSettings, Pool, pool, thread_count
from irconv.errors import BackendError


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
def test_every_index_runs_once(threads: int, count: int) -> None:
    made = Pool(threads)
    for _ in range(20):
        seen: list[int] = []
        workers: set[int] = set()

        def task(index: int, worker: int, seen=seen, workers=workers) -> None:
            seen.append(index)
            workers.add(worker)

        made.run(task, count)
        assert sorted(seen) == list(range(count))
        assert all(worker < threads for worker in workers)


def test_two_calls_of_one_worker_never_overlap() -> None:
    made = Pool(3)
    active: dict[int, int] = {}
    overlaps = []

    def task(index: int, worker: int) -> None:
        if active.get(worker):
            overlaps.append(worker)
        active[worker] = 1
        time.sleep(0.001)
        active[worker] = 0

    made.run(task, 30)
    assert not overlaps


def test_an_exception_reaches_the_caller_and_the_pool_goes_on() -> None:
    made = Pool(2)

    def task(index: int, worker: int) -> None:
        if index == 3:
            raise ValueError("index 3")

    with pytest.raises(ValueError, match="index 3"):
        made.run(task, 10)
    done: list[int] = []
    made.run(lambda index, worker: done.append(index), 4)
    assert sorted(done) == [0, 1, 2, 3]


def test_a_task_may_ask_for_the_pool() -> None:
    made = Pool(2)
    done: list[tuple[int, int]] = []
    made.run(lambda i, worker: made.run(lambda j, inner: done.append((i, j)), 3), 4)
    assert sorted(done) == [(i, j) for i in range(4) for j in range(3)]


def test_several_callers_at_once() -> None:
    made = Pool(2)
    totals = [0] * 4

    def call(caller: int) -> None:
        for _ in range(50):
            done: list[int] = []
            made.run(lambda i, worker, done=done: done.append(i), 8)
            totals[caller] += len(done)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert totals == [400] * 4


def test_settings_hold_in_every_thread_and_are_put_back() -> None:
    before = np.getbufsize(), np.geterr()
    seen: list[tuple[int, str]] = []
    Pool(2).run(lambda i, worker: seen.append((np.getbufsize(), np.geterr()["over"])), 8)
    assert set(seen) == {(BUFFER_ELEMENTS, "ignore")}
    assert (np.getbufsize(), np.geterr()) == before
    with pytest.raises(ZeroDivisionError), KernelSettings():
        raise ZeroDivisionError
    assert (np.getbufsize(), np.geterr()) == before


def test_blas_threads_are_put_back() -> None:
    one = OneThread()
    if not one.known:
        pytest.skip("this BLAS cannot be told how many threads to use")
    read, write = one._functions
    before = read()
    write(2)
    try:
        with one:
            assert read() == 1
            with one:
                assert read() == 1
            assert read() == 1
        assert read() == 2
    finally:
        write(before)


def test_threads_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRCONV_NUM_THREADS", "3")
    assert thread_count() == 3
    monkeypatch.setenv("IRCONV_NUM_THREADS", "")
    assert thread_count() >= 1
    for wrong in ("0", "-1", "many", "1.5"):
        monkeypatch.setenv("IRCONV_NUM_THREADS", wrong)
        with pytest.raises(BackendError, match="IRCONV_NUM_THREADS"):
            thread_count()


def test_one_pool_for_the_process() -> None:
    assert pool() is pool()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_a_pool_of_its_own() -> None:
    program = (
        "import os, sys\n"
        "from irconv.backends.numpy.parallel import pool\n"
        "done = []\n"
        "pool().run(lambda i, w: done.append(i), 8)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    done = []\n"
        "    pool().run(lambda i, w: done.append(i), 8)\n"
        "    os._exit(0 if sorted(done) == list(range(8)) else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    environment = {**os.environ, "IRCONV_NUM_THREADS": "2"}
    assert subprocess.run([sys.executable, "-c", program], env=environment, timeout=60).returncode == 0


def test_an_idle_pool_sleeps() -> None:
    calls = itertools.count()
    threading.setprofile(lambda frame, event, argument: next(calls))
    try:
        made = Pool(3)
    finally:
        threading.setprofile(None)
    made.run(lambda i, worker: None, 6)
    before = next(calls)
    time.sleep(0.2)
    assert next(calls) - before < 20  # the workers' way back to their locks; looking every 10 ms would be 80
    assert parallel.BLOCK_BYTES == made.block_bytes


def test_settings_are_held_for_many_kernels() -> None:
    made = Pool(2)
    before = np.getbufsize(), np.geterr()
    with made.settings(), made.settings():
        made.run(lambda i, worker: None, 3)
        assert np.getbufsize() == BUFFER_ELEMENTS
    assert (np.getbufsize(), np.geterr()) == before
    with pytest.raises(ZeroDivisionError), made.settings():
        raise ZeroDivisionError
    assert (np.getbufsize(), np.geterr()) == before
