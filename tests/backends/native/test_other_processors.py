"""Kernels for 64-bit ARM, made by a cross compiler and run in an emulator, against NumPy; skipped where either is missing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import irconv
import irconv.backends.native.runtime as runtime
import irconv.nn.functional as F
from irconv import optim, random, serialize, structure
from irconv.backends.native.standalone.blueprint import Blueprint
from irconv.backends.native.standalone.writer import compile_files, write
from irconv.ops.scan import cumsum
from irconv.standalone import standalone_blueprint
from tests.backends.native.sanitized import (
    CONVOLUTIONS,
    POOLS,
    PROLOGUES,
    ROWS,
    Case,
    arrays_for,
    cubes,
    forward,
    save_arrays,
)
from tests.backends.native.test_sanitizers import Odd

COMPILER = "aarch64-linux-gnu-gcc"
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")

FORWARD = (*CONVOLUTIONS, *PROLOGUES, *POOLS, *ROWS)
NAMES = ("primes", "dilated", "grouped", "depthwise_stride", "tiles", "few_columns", "transposed", "max_padded", "average",
         "after_tiles", "curves", "sum_rows", "largest", "softmax", "layer_norm", "matmul_unpacked", "matmul_batch")  # fmt: skip
BACKWARD = tuple(each for each in FORWARD if each.name in NAMES)

pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None or EMULATOR is None, reason=f"needs {COMPILER} and QEMU")


@pytest.fixture(autouse=True)
def _cross_compiler(monkeypatch):
    monkeypatch.setenv("IRCONV_CC", COMPILER)


def emulated(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program for the other processor in its folder."""
    command = [str(EMULATOR), str(program), *arguments]
    return subprocess.run(command, cwd=program.parent, capture_output=True, text=True, timeout=300, check=False)


def linked(folder: Path, *parts: str) -> Path:
    """A program that needs no libraries of the other processor when it runs."""
    command = [COMPILER, "-std=gnu11", "-O1", "-static", "-o", "alone", *parts, "-pthread", "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "alone"


def built(program: irconv.Compiled | irconv.Step, machine: str, folder: Path) -> tuple[Blueprint, Path]:
    blueprint = standalone_blueprint(program, "checked", machine, apart=True)
    compile_files(blueprint, write(blueprint, folder, embed=False), ("-O1",))  # -O3 takes three times as long
    return blueprint, linked(folder, "checked_main.o", "libchecked.a")


def results(program: Path, blueprint: Blueprint, arrays: Sequence[np.ndarray], threads: int) -> dict[str, np.ndarray]:
    """Run a program on arrays; its outputs by path."""
    names = [f"{number}.out.npy" for number in range(len(blueprint.outputs))]
    arguments = [word for name in names for word in ("-o", name)]
    done = emulated(program, "-t", str(threads), *arguments, *save_arrays(arrays, program.parent))
    assert done.returncode == 0, (done.stdout[-500:], done.stderr[:3000])
    return {output.path: np.load(program.parent / name) for output, name in zip(blueprint.outputs, names, strict=True)}


def check(
    graph: irconv.Graph, arrays: Sequence[np.ndarray], folder: Path, machine: str = "neon", bound: float = 1e-4
) -> None:
    """Build a graph for a machine, run it on arrays with one thread and with three, and compare with NumPy."""
    compiled = irconv.compile(graph, backend="numpy")
    with np.errstate(all="ignore"):
        expected = dict(structure.leaves(compiled(*arrays)))
    blueprint, program = built(compiled, machine, folder)
    alone, shared = (results(program, blueprint, arrays, threads) for threads in (1, 3))
    assert list(alone) == list(expected)
    for path, found in alone.items():
        assert found.tobytes() == shared[path].tobytes(), path
        wanted = np.asarray(expected[path])
        finite = wanted[np.isfinite(wanted)] if wanted.dtype.kind == "f" else wanted
        scale = np.abs(finite).max(initial=0).astype(np.float64)
        np.testing.assert_allclose(found, wanted, rtol=bound, atol=bound / 10 * max(scale, 1e-6), err_msg=path)


@pytest.mark.parametrize("machine", ["neon", "generic"])
def test_forward_kernels(machine, tmp_path):
    cases: Sequence[Case] = FORWARD if machine == "neon" else BACKWARD
    arrays = arrays_for(cases)
    check(irconv.trace(forward(cases), *arrays), arrays, tmp_path, machine)


def test_backward_kernels(tmp_path):
    arrays = arrays_for(BACKWARD)
    check(irconv.differentiate(irconv.trace(cubes(BACKWARD), *arrays)), arrays, tmp_path)


def functions(x, y):
    """Functions that are instructions, polynomials or calls, and integers as they wrap and are divided."""
    named = {name: getattr(np, name)(x) for name in ("exp", "expm1", "tanh", "sin", "cos", "floor", "ceil", "round", "abs")}
    positive = {name: getattr(np, name)(abs(x)) for name in ("sqrt", "log", "log1p")}
    chosen = {"gelu": F.gelu(x), "larger": np.maximum(x, 0.5), "not_a_number": x != x, "sign": np.sign(x)}
    return named | positive | chosen | {"product": y * y, "quotient": y // 7, "rest": y % 7, "wide": y.astype("float32") * 0.5}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_of_numbers(dtype, tmp_path):
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, -1e-42, 1e-300, 88.8, -104.5, 710.5, 1e5, 12345.678, 2.5, -3.5, 0.5]
    x = np.concatenate([np.random.default_rng(0).standard_normal(45) * 4, special]).astype(dtype)
    y = np.random.default_rng(1).integers(-(2**31), 2**31, 37).astype(np.int32)
    check(irconv.trace(functions, x, y), [x, y], tmp_path, bound=1e-6)


def test_float16(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [(rng.standard_normal(shape) / 4).astype(np.float16) for shape in ((2, 3, 9, 7), (17, 3, 3, 3), (17,))]

    def program(x, w, b):
        y = F.conv2d(x, w, b, padding=1).relu()
        return {"pool": F.max_pool2d(y, 2), "sums": cumsum(y, 1), "mean": y.mean((0, 2, 3))}

    check(irconv.trace(program, *arrays), arrays, tmp_path, bound=5e-3)


def test_a_training_step(tmp_path):
    random.manual_seed(1)
    model = Odd()
    x = np.random.default_rng(0).standard_normal((3, 1, 11, 13)).astype(np.float32)
    target = np.array([0, 6, 3])
    step = irconv.compile_step(model, F.cross_entropy, optim.Adam(model.parameters(), lr=0.01), x, target, backend="numpy")
    _, program = built(step, "neon", tmp_path)
    done = emulated(program, "-t", "2", "-n", "3", "-s", "states.safetensors", *save_arrays((x, target), tmp_path))
    assert done.returncode == 0, (done.stdout, done.stderr[:3000])
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines()[:3]]
    np.testing.assert_allclose(losses, [float(step(x, target)) for _ in range(3)], rtol=1e-4)
    saved = serialize.load(tmp_path / "states.safetensors")
    for name, array in model.state_dict().items():
        np.testing.assert_allclose(saved[name], array, rtol=1e-3, atol=1e-4, err_msg=name)


ROUNDING = r"""
#include <fenv.h>
#include <stdio.h>
#define TASKS 64
static void note(void *const *buffers, const int64_t *sizes, int64_t first, int64_t last, int64_t worker) {
    int *modes = buffers[0], *workers = buffers[1];
    (void)sizes;
    nanosleep(&(struct timespec){0, 1000000}, NULL);
    for (int64_t task = first; task < last; task++) modes[task] = fegetround(), workers[task] = (int)worker;
}
int main(void) {
    static int modes[TASKS], workers[TASKS];
    void *buffers[2] = {modes, workers};
    const int wanted[3] = {FE_UPWARD, FE_TONEAREST, FE_TOWARDZERO};
    Step step = {note, buffers, NULL, TASKS, PHASE};
    Pool *pool = irconv_pool(2, 0);
    for (int round = 0; round < 3; round++) {
        int right = 0, helped = 0;
        fesetround(wanted[round]);
        irconv_run(pool, &step, 1);
        for (int task = 0; task < TASKS; task++) right += modes[task] == wanted[round], helped += workers[task] == 1;
        printf("%d %d\n", right, helped > 0);
    }
    return 0;
}
"""


def test_threads_round_as_their_caller(tmp_path):
    (tmp_path / "rounding.c").write_text((Path(runtime.__file__).parent / "runtime.c").read_text() + ROUNDING)
    done = emulated(linked(tmp_path, "rounding.c"))
    assert done.stdout == "64 1\n" * 3, (done.returncode, done.stderr)
