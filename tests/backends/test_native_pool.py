"""The thread pool in C: every task exactly once, checks, forks, under the thread and address sanitizers."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import irconv.backends.native.runtime as runtime
from irconv.backends.native.library import Unit, library
from irconv.backends.native.runtime import (
    COPY,
    FINITE_F32,
    FINITE_F64,
    PHASE,
    Entry,
    Pool,
    Table,
    address_of,
    function_address,
)
from tests.backends.handwritten import ARGUMENTS, EXPORT, HEAD, compiler_or_skip

COUNT = Unit(
    f"""{HEAD}
{EXPORT} void count{ARGUMENTS} {{
  for (int64_t i = first; i < last; i++) ((int32_t *)buffers[0])[i] += (int32_t)sizes[0];
  ((int32_t *)buffers[1])[worker] += (int32_t)(last - first);
}}
""",
    (),
    "count",
)


@pytest.fixture(autouse=True)
def _compiler():
    compiler_or_skip()


def counting(tasks: list[int]) -> tuple[Table, list[np.ndarray], np.ndarray]:
    """A table of phases that add i + 1 to each of their tasks, the arrays that they add to, and tasks per worker."""
    function = function_address(COUNT, "count")
    slots = len(tasks)
    table = Table([Entry(PHASE, (i, slots), n, function, (i + 1,)) for i, n in enumerate(tasks)])
    arrays = [np.zeros(max(1, n), np.int32) for n in tasks]
    workers = np.zeros(64, np.int32)
    for slot, array in enumerate((*arrays, workers)):
        table.point(slot, address_of(array))
    return table, arrays, workers


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_every_task_is_done_once(threads):
    pool = Pool(threads)
    tasks = [0, 1, 2, 3, 17, 64, 1000, 5]
    table, arrays, workers = counting(tasks)
    for round_ in range(1, 200):
        assert pool.run(table.address, table.count) == 0
        for i, (n, array) in enumerate(zip(tasks, arrays, strict=True)):
            assert (array[:n] == round_ * (i + 1)).all() and not array[n:].any()
    assert workers.sum() == 199 * sum(tasks)
    assert not workers[threads:].any()


def test_a_second_caller_does_its_work_alone():
    pool = Pool(3)
    tables = [counting([5, 100, 1, 40]) for _ in range(4)]

    def call(table):
        for _ in range(300):
            pool.run(table.address, table.count)

    callers = [threading.Thread(target=call, args=(table,)) for table, _, _ in tables]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for _, arrays, _ in tables:
        for i, array in enumerate(arrays):
            assert (array == 300 * (i + 1)).all()


@pytest.mark.parametrize(("kind", "dtype"), [(FINITE_F32, np.float32), (FINITE_F64, np.float64)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_checks_stop_the_run(kind, dtype, bad):
    values, source, target = np.full(1000, 1e30, dtype), np.arange(5), np.zeros(5, int)
    table = Table([Entry(kind, (0,), 1000), Entry(COPY, (2, 1), 40), Entry(kind, (0,), 1000)])
    for slot, array in enumerate((values, source, target)):
        table.point(slot, address_of(array))
    pool = Pool(2)
    assert pool.run(table.address, 3) == 0
    assert target.tolist() == source.tolist()
    target[:] = 0
    values[777] = bad
    assert pool.run(table.address, 3) == 1
    assert not target.any()
    assert pool.run(table.at(1), 2) == 2
    assert target.tolist() == source.tolist()


def test_times_are_given_per_step():
    table, arrays, _ = counting([1, 100_000, 1])
    failed, seconds = Pool(2).run_timed(table.address, table.count)
    assert failed == 0 and seconds.shape == (3,) and (seconds > 0).all()
    assert (arrays[1] == 2).all()


def test_a_child_of_a_process_whose_threads_are_at_work():
    pool = Pool(3)
    table, *kept = counting([64] * 20)
    stop = threading.Event()

    def work():
        while not stop.is_set():
            pool.run(table.address, table.count)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                own, arrays, _ = counting([64] * 20)
                for _ in range(50):
                    pool.run(own.address, own.count)
                os._exit(0 if all((a == 50 * (i + 1)).all() for i, a in enumerate(arrays)) else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        worker.join()
    assert len(kept) == 2


THREADS = """
import os, threading, time
from irconv.backends.native.runtime import pool
from tests.backends.test_native_pool import counting
found = pool()
table, arrays, workers = counting([1000] * 50)
for _ in range(100):
    found.run(table.address, table.count)
native = len(os.listdir("/proc/self/task"))
time.sleep(0.05)
def ticks():
    return sum(int(n) for n in open("/proc/self/stat").read().rsplit(")", 1)[1].split()[11:13])
before = ticks()
time.sleep(0.5)
print(found.threads, native, ticks() - before, int((workers > 0).sum()) <= found.threads)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_is_as_said_and_idle_ones_sleep(threads):
    environment = {**os.environ, "IRCONV_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", THREADS]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2], check=False)
    assert run.returncode == 0, run.stderr
    found, native, ticks, within = run.stdout.split()
    assert (int(found), within) == (threads, "True")
    assert int(native) == threads  # of the process: the caller's is one of them
    assert int(ticks) <= 5  # hundredths of a second of processor time in half a second


def test_table_positions():
    table = Table([Entry(PHASE, (3, 5, 3), 4, 99, (7, 8)), Entry(COPY, (5, 9), 16)])
    assert table.positions == {3: [0, 2], 5: [1, 3], 9: [4]}
    table.point(5, 1234)
    assert list(table.pointers) == [0, 1234, 0, 1234, 0]
    assert table.steps[:, 0].tolist() == [99, 0] and table.steps[:, 3].tolist() == [4, 16]
    assert (ctypes.c_int64 * 2).from_address(int(table.steps[0, 2]))[:] == [7, 8]


PROGRAM = r"""
#include <unistd.h>
#include <stdio.h>
#include <sys/wait.h>
#define N 1024
static void fill(void *const *buffers, const int64_t *sizes, int64_t first, int64_t last, int64_t worker) {
    float *out = buffers[0];
    const float *x = buffers[1];
    (void)worker;
    for (int64_t t = first; t < last; t++)
        for (int64_t i = t * N / sizes[0]; i < (t + 1) * N / sizes[0]; i++) out[i] = x[i] + 1;
}
static Pool *pool;
static void *caller(void *argument) {
    static _Thread_local float a[N], b[N];
    void *forth[2] = {a, b}, *back[2] = {b, a};
    for (int64_t round = 0; round < (int64_t)(intptr_t)argument; round++) {
        int64_t tasks[4] = {1 + round % 7, 1 + round % 33, 3, 64};
        Step steps[4];
        for (int i = 0; i < 4; i++) steps[i] = (Step){fill, i % 2 ? back : forth, &tasks[i], tasks[i], PHASE};
        if (irconv_run(pool, steps, 4) != 0) _exit(3);
        for (int i = 0; i < N; i++) if (b[i] != 4 * (round + 1)) _exit(4);
    }
    return NULL;
}
int main(int count, char **arguments) {
    pthread_t threads[3];
    const intptr_t rounds = atoi(arguments[3]);
    pool = irconv_pool(atoi(arguments[1]), atoi(arguments[2]));
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, caller, (void *)rounds);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    puts("good");
    (void)count;
    return 0;
}
"""


@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_under_a_sanitizer(tmp_path, sanitizer):
    gcc = shutil.which("gcc") or shutil.which("clang")
    if gcc is None:
        pytest.skip("no gcc or clang")
    source = tmp_path / "pool.c"
    source.write_text((Path(runtime.__file__).parent / "runtime.c").read_text() + PROGRAM)
    flags = ["-O1", "-g", "-std=gnu11", f"-fsanitize={sanitizer}", "-Wall", "-Wextra", "-Werror", "-pthread"]
    made = subprocess.run([gcc, *flags, str(source), "-o", str(tmp_path / "pool")], capture_output=True, text=True, check=False)
    if made.returncode and ("-fsanitize" in made.stderr or "cannot find" in made.stderr):
        pytest.skip(f"no {sanitizer} sanitizer here")
    assert made.returncode == 0, made.stderr
    for threads, spin in ((2, 30_000), (4, 30_000), (5, 0)):
        command = [str(tmp_path / "pool"), str(threads), str(spin), "300"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if "unexpected memory mapping" in run.stderr:
            pytest.skip("the thread sanitizer does not run on this kernel")
        assert (run.stdout, run.returncode) == ("good\n", 0), run.stderr


def test_the_code_of_the_pool_is_part_of_the_package():
    assert library().load(Unit(runtime._source(), runtime.FLAGS)).irconv_run


@pytest.mark.parametrize("dtype", ["f4", "f2", "?", "i8"])
def test_address_of_arrays_of_any_kind(dtype) -> None:
    array = np.zeros((6, 5), dtype)
    frozen = np.zeros((6, 5), dtype)
    frozen.flags.writeable = False
    empty, scalar = np.zeros((0, 5), dtype), np.zeros((), dtype)
    for one in (array, array[2:], array[:, ::-1], array[::-1], array.T, np.broadcast_to(array[0], (3, 5)), frozen, empty, scalar):
        assert address_of(one) == one.ctypes.data
