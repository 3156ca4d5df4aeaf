"""The two limits of this machine, measured: multiply-adds per second, and bytes copied per second.

A kernel of F floating-point operations that moves B bytes takes at least ``max(F / flops, B / bytes)`` seconds.

With a C compiler, both come from a small program: eight-fold independent multiply-adds on vector registers, and a copy of
arrays far larger than the caches.  Without one, they come from NumPy: a large float32 matrix product, which stays below what the
vector units can do, and an array copy.  Nothing is remembered between calls.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

COMPILERS = ("cc", "gcc", "clang")
SECONDS = 0.15
COPY_BYTES = 64 * 2**20
"""Per thread; far more than a cache holds."""


@dataclass(frozen=True)
class Roofline:
    """Floating-point operations and copied bytes (read plus written) per second, and how they were measured."""

    flops: float
    bytes: float
    how: str

    def seconds(self, flops: float, moved: float) -> float:
        """The least time for so many operations on so many bytes."""
        return max(flops / self.flops, moved / self.bytes)

    def at_least(self, other: Roofline) -> Roofline:
        """The higher of two measurements: what else runs on the machine only ever lowers them."""
        return replace(self, flops=max(self.flops, other.flops), bytes=max(self.bytes, other.bytes))

    def __str__(self) -> str:
        return f"{self.flops / 1e9:.0f} GFLOP/s, {self.bytes / 1e9:.1f} GB/s ({self.how})"


def measure(threads: int | None = None) -> Roofline:
    """Measure now, with so many threads (by default as many as there are cores for this process)."""
    count = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    return measure_c(count) or measure_numpy(count)


# --- NumPy -----------------------------------------------------------------------------------------------------------------


def measure_numpy(threads: int) -> Roofline:
    """The limits as NumPy reaches them (its BLAS uses the threads that it was started with)."""
    size = 1024
    a, b = (np.random.default_rng(seed).standard_normal((size, size), np.float32) for seed in (0, 1))
    out = np.empty_like(a)
    product = _best(lambda: np.matmul(a, b, out=out))
    pairs = [(np.ones(COPY_BYTES // 4, np.float32), np.zeros(COPY_BYTES // 4, np.float32)) for _ in range(threads)]

    def copy() -> None:
        others = [threading.Thread(target=np.copyto, args=(target, source)) for source, target in pairs[1:]]
        for other in others:
            other.start()
        np.copyto(pairs[0][1], pairs[0][0])
        for other in others:
            other.join()

    moved = sum(source.nbytes + target.nbytes for source, target in pairs)
    return Roofline(2 * size**3 / product, moved / _best(copy), f"NumPy, {threads} threads")


def _best(run: Callable[[], object]) -> float:
    run()
    best = float("inf")
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


# --- C ---------------------------------------------------------------------------------------------------------------------

PROGRAM = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define SUMS 24
#define ROUNDS 2000000
#define REPEATS 5
typedef float vec __attribute__((vector_size(4 * LANES)));
static pthread_barrier_t gate;
static size_t bytes;
static volatile float sink;
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }
static void multiply_add(float x) {
    vec sum[SUMS], a = {0}, b = {0};
    a += x; b += 1e-7f;
    for (int i = 0; i < SUMS; i++) sum[i] = a * (float)i;
    for (long r = 0; r < ROUNDS; r++) {
        _Pragma("GCC unroll 24")
        for (int i = 0; i < SUMS; i++) sum[i] = sum[i] * a + b;
    }
    for (int i = 1; i < SUMS; i++) sum[0] += sum[i];
    sink = sum[0][0];
}
static void *work(void *best_of) {
    double *best = best_of;
    char *from = malloc(bytes), *to = malloc(bytes);
    memset(from, 1, bytes); memset(to, 2, bytes);
    for (int r = 0; r < REPEATS; r++) {
        pthread_barrier_wait(&gate);
        double start = now();
        multiply_add(0.999f + 1e-9f * r);
        pthread_barrier_wait(&gate);
        double middle = now();
        for (int i = 0; i < 4; i++) { memcpy(to, from, bytes); __asm__ volatile("" ::: "memory"); }
        pthread_barrier_wait(&gate);
        double end = now();
        if (middle - start < best[0]) best[0] = middle - start;
        if (end - middle < best[1]) best[1] = end - middle;
    }
    free(from); free(to);
    return NULL;
}
int main(int count, char **words) {
    if (count < 3) return 2;
    int threads = atoi(words[1]);
    bytes = (size_t)atoll(words[2]);
    pthread_t ids[256];
    double best[256][2];
    if (threads < 1 || threads > 256) return 2;
    pthread_barrier_init(&gate, NULL, threads);
    for (int i = 0; i < threads; i++) best[i][0] = best[i][1] = 1e9;
    for (int i = 1; i < threads; i++) if (pthread_create(&ids[i], NULL, work, best[i])) return 3;
    work(best[0]);
    for (int i = 1; i < threads; i++) pthread_join(ids[i], NULL);
    printf("%.6e %.6e\n", 2.0 * LANES * SUMS * ROUNDS * threads / best[0][0], 8.0 * bytes * threads / best[0][1]);
    return 0;
}
"""

FLAGS = ("-O3", "-march=native", "-mprefer-vector-width=512", "-std=gnu11", "-ffp-contract=fast", "-pthread")


def measure_c(threads: int) -> Roofline | None:
    """The limits as compiled code reaches them; None where there is no compiler, or it does not do."""
    compiler = shutil.which(os.environ.get("IRCONV_CC", "").split(" ")[0] or "") or next(
        (path for name in COMPILERS if (path := shutil.which(name))), None
    )
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory(prefix="irconv-roofline-") as name:
        source, program = Path(name, "roofline.c"), Path(name, "roofline")
        source.write_text(PROGRAM, encoding="utf-8")
        flags = [flag for flag in FLAGS if _accepts(compiler, flag, name)]
        try:
            subprocess.run([compiler, *flags, str(source), "-o", str(program)], capture_output=True, check=True, timeout=60)
            command = [str(program), str(threads), str(COPY_BYTES)]
            ran = subprocess.run(command, capture_output=True, check=True, timeout=60, text=True)
            flops, moved = (float(word) for word in ran.stdout.split())
        except (OSError, subprocess.SubprocessError, ValueError):
            return None
    return Roofline(flops, moved, f"C, {threads} threads")


def _accepts(compiler: str, flag: str, folder: str) -> bool:
    """Whether the compiler knows a flag: not every one does on every machine."""
    command = [compiler, flag, "-x", "c", "-c", os.devnull, "-o", os.path.join(folder, "empty.o")]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
