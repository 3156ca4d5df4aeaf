"""``irconv build``: what it writes compiles, runs without Python, and computes the same bits as the native backend."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import textwrap
from pathlib import Path

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import optim, random, serialize
from irconv.backends.codegen.machine import MACHINES, this_machine
from irconv.backends.native.backend import NativeBackend
from irconv.backends.native.base import NATIVE
from irconv.backends.native.tuning import Tuner
from irconv.errors import BackendError
from irconv.loading import load_model
from tests.backends.handwritten import compiler_or_skip
from tests.command_line import Command
from tests.standalone_programs import MACHINE, SHAPE, batch, native, run

MODELS = """
    from irconv import nn, random

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 17, 3, padding=1)
            self.norm = nn.BatchNorm2d(17)
            self.pool = nn.MaxPool2d(2)
            self.drop = nn.Dropout(0.25)
            self.head = nn.Linear(17 * 3 * 2, 5)

        def forward(self, x):
            y = self.pool(self.norm(self.conv(x)).relu())
            return self.head(self.drop(y.flatten(1)))

    def net():
        random.manual_seed(3)
        return Net()

    def two(x, n):
        return {"sum": x + n, "more": (n * 2, x.max())}
    """

@pytest.fixture(autouse=True)
def _with_compiler():
    compiler_or_skip()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models.py").write_text(textwrap.dedent(MODELS))
    monkeypatch.chdir(tmp_path)
    return tmp_path


_build = Command("build")
built, refused = _build.output, _build.fails


# --- a network ---------------------------------------------------------------------------------------------------------------


def test_a_network_runs_without_python_and_gives_the_same_bits(folder):
    target = folder / "a folder with spaces" / "made"
    said = built("models.py:net", "--input", "2x3x7x5", "--machine", MACHINE, "-o", str(target))
    assert "for any processor" in said
    x = batch()
    np.save(folder / "x.npy", x)
    printed = run(target / "net_main", folder / "x.npy", "-o", folder / "y.npy", "-n", "3")
    expected = native(load_model("models.py:net"), x)(x)
    found = np.load(folder / "y.npy")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    assert printed.startswith(f"y <f4(2,5): {expected[0, 0]:.9g} ")
    assert "best of 3" in printed
    for threads in ("1", "5"):
        run(target / "net_main", "-t", threads, folder / "x.npy", "-o", folder / "again.npy")
        np.testing.assert_array_equal(np.load(folder / "again.npy"), expected)
    (folder / "x.raw").write_bytes(x.tobytes())
    run(target / "net_main", folder / "x.raw", "-o", folder / "raw.npy")
    np.testing.assert_array_equal(np.load(folder / "raw.npy"), expected)


def test_sources_are_headed_by_the_ir_and_lines_of_the_model(folder):
    built("models.py:net", "--input", "2x3x7x5", "-o", "made", "--no-compile")
    texts = [path.read_text() for path in sorted((folder / "made/kernels").glob("*.c"))]
    assert any("// kernel @" in text and "conv(%x, %conv.weight" in text and "models.py:" in text for text in texts)
    assert not list((folder / "made").glob("*.so")) + list((folder / "made").glob("*.o"))
    header = (folder / "made/net.h").read_text()
    for line in ("int net_init(const char *weights, int threads);", "int net_run(const float *x, float *y);"):
        assert line in header
    assert "#define NET_X_SIZE 210" in header
    weights = serialize.load(folder / "made/net.safetensors")
    model = load_model("models.py:net")
    np.testing.assert_array_equal(weights["head.weight"], model.state_dict()["head.weight"])
    assert "norm.running_mean" not in weights  # folded into the convolution


def test_building_again_replaces_what_was_there(folder):
    built("models.py:net", "--input", "2x3x7x5", "-o", "made", "--no-compile")
    first = {path: path.read_bytes() for path in (folder / "made").rglob("*") if path.is_file()}
    stale = folder / "made/kernels/kernel99.c"
    stale.write_text("#error stale\n")
    built("models.py:net", "--input", "2x3x7x5", "-o", "made", "--no-compile")
    assert {path: path.read_bytes() for path in (folder / "made").rglob("*") if path.is_file()} == first


def test_make_builds_the_same(folder):
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    built("models.py:net", "--input", "2x3x7x5", "-o", "the folder", "--no-compile", "--embed")
    made = subprocess.run(["make"], cwd=folder / "the folder", capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "warning" not in made.stderr
    x = batch()
    np.save("x.npy", x)
    run(folder / "the folder/net_main", folder / "x.npy", "-o", folder / "y.npy")
    np.testing.assert_array_equal(np.load("y.npy"), native(load_model("models.py:net"), x)(x))


def test_weights_can_be_part_of_the_library(folder):
    built("models.py:net", "--input", "2x3x7x5", "-o", "made", "--embed", "--name", "My Net")
    (folder / "made/my_net.safetensors").unlink()
    x = batch()
    np.save("x.npy", x)
    run(folder / "made/my_net_main", folder / "x.npy", "-o", folder / "y.npy")
    np.testing.assert_array_equal(np.load("y.npy"), native(load_model("models.py:net"), x)(x))


def test_weights_are_loaded_first(folder):
    model = load_model("models.py:net")
    state = {name: 2 * array for name, array in model.state_dict().items()}
    serialize.save(state, "twice.npz")
    built("models.py:net", "--input", "2x3x7x5", "-o", "made", "--no-compile", "--weights", "twice.npz")
    np.testing.assert_array_equal(serialize.load("made/net.safetensors")["head.bias"], state["head.bias"])


def test_several_arrays_in_and_out(folder):
    built("models.py:two", "--input", "2x3", "--input", "3:i64", "-o", "made")
    assert "int two_run(const float *x, const int64_t *n, float *sum, int64_t *more_0, float *more_1);" in Path("made/two.h").read_text()
    x, n = batch((2, 3)), np.array([1, -2, 2**40])
    np.save("x.npy", x)
    np.save("n.npy", n)
    names = [folder / f"{i}.npy" for i in range(3)]
    printed = run(folder / "made/two_main", folder / "x.npy", folder / "n.npy", *(w for name in names for w in ("-o", name)))
    np.testing.assert_array_equal(np.load(names[0]), x + n.astype(np.float32))
    np.testing.assert_array_equal(np.load(names[1]), 2 * n)
    np.testing.assert_array_equal(np.load(names[2]), x.max())
    assert f"more_0 <i8(3,): 2 -4 {2**41}" in printed


# --- a training step ----------------------------------------------------------------------------------------------------------

TRAIN = ("models.py:net", "--input", "4x3x7x5", "--train", "--optimizer", "momentum", "--lr", "0.05", "--machine", MACHINE)


def test_ten_training_steps_give_the_same_losses_and_states(folder):
    built(*TRAIN, "-o", "made")
    model = load_model("models.py:net")
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, target = batch((4, *SHAPE[1:])), np.array([0, 4, 2, 1])
    np.save("x.npy", x)
    np.save("t.npy", target)
    step = irconv.compile_step(model, F.cross_entropy, optimizer, x, target, backend=NativeBackend(machine=MACHINES[MACHINE]))
    losses = [float(step(x, target)) for _ in range(10)]
    program = folder / "made/net_main"
    files = (folder / "x.npy", folder / "t.npy")
    printed = run(program, "-n", "10", "-s", folder / "ten.safetensors", *files)
    assert [line.split()[-1] for line in printed.splitlines()[:10]] == [f"{loss:.9g}" for loss in losses]
    saved = serialize.load("ten.safetensors")
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(saved[name], array, err_msg=name)
    assert int(saved["random.step"]) == int(random.default_generator().state_dict()["step"]) == 10
    # and in two halves, the second from what the first has saved
    run(program, "-n", "5", "-s", folder / "five.safetensors", *files)
    run(program, "-w", folder / "five.safetensors", "-n", "5", "-s", folder / "half.safetensors", *files)
    assert Path("half.safetensors").read_bytes() == Path("ten.safetensors").read_bytes()
    fresh = load_model("models.py:net")
    fresh.load_state_dict(saved, strict=False)
    np.testing.assert_array_equal(fresh.state_dict()["conv.weight"], saved["conv.weight"])


def test_a_step_that_goes_wrong_changes_nothing(folder):
    built(*TRAIN, "-o", "made")
    x = batch((4, *SHAPE[1:]))
    np.save("x.npy", x)
    np.save("nan.npy", x * np.nan)
    np.save("t.npy", np.array([0, 4, 2, 1]))
    np.save("wrong.npy", np.array([0, 5, 2, 1]))
    program = folder / "made/net_main"
    assert "not finite" in run(program, folder / "nan.npy", folder / "t.npy", status=1)
    assert "out of range" in run(program, folder / "x.npy", folder / "wrong.npy", status=1)


# --- the library in other programs ---------------------------------------------------------------------------------------------

CALLER = """
    #include "net.h"
    #include <pthread.h>
    #include <stdio.h>
    #include <string.h>

    static float x[NET_X_SIZE], expected[NET_Y_SIZE];

    static void *often(void *failures) {
        float y[NET_Y_SIZE];
        for (int i = 0; i < 200; i++)
            if (net_run(x, y) != NET_OK || memcmp(y, expected, sizeof(y)) != 0) ++*(int *)failures;
        return 0;
    }

    int main(void) {
        float y[NET_Y_SIZE];
        int first = 0, second = 0;
        pthread_t other;
        for (int i = 0; i < NET_X_SIZE; i++) x[i] = (float)i / NET_X_SIZE;
        if (net_run(x, y) != NET_NOT_READY) return 1;
        if (net_init("no such file", 2) != NET_NO_FILE) return 2;
        if (net_init("net.h", 2) != NET_WRONG_FILE) return 3;
        if (net_run(x, y) != NET_NOT_READY) return 4;
        if (net_init("net.safetensors", 2) != NET_OK) return 5;
        if (net_run(x, expected) != NET_OK) return 6;
        pthread_create(&other, 0, often, &second);
        often(&first);
        pthread_join(other, 0);
        if (first || second) return 7;
        if (net_init("net.safetensors", 1) != NET_OK || net_run(x, y) != NET_OK) return 8;
        if (memcmp(y, expected, sizeof(y)) != 0) return 9;
        net_free();
        net_free();
        if (net_run(x, y) != NET_NOT_READY) return 10;
        puts(net_message(NET_WRONG_FILE));
        return 0;
    }
    """


def test_the_static_library_in_a_program_of_ones_own(folder):
    built("models.py:net", "--input", "2x3x7x5", "-o", "made")
    (folder / "made/caller.c").write_text(textwrap.dedent(CALLER))
    gcc = ["cc", "-Wall", "-Wextra", "-Werror", "-o", "caller", "caller.c", "libnet.a", "-pthread", "-lm"]
    done = subprocess.run(gcc, cwd="made", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert run(folder / "made/caller") == "the file does not hold the weights of this network\n"


def test_the_shared_library_shows_its_functions_and_nothing_else(folder):
    built("models.py:net", "--input", "2x3x7x5", "-o", "made")
    library = ctypes.CDLL(str(folder / "made/libnet.so"))
    x, y = batch(), np.empty((2, 5), np.float32)
    assert library.net_init(str(folder / "made/net.safetensors").encode(), 1) == 0
    assert library.net_run(x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p)) == 0
    np.testing.assert_array_equal(y, native(load_model("models.py:net"), x)(x))
    library.net_free()
    if shutil.which("nm"):
        listed = subprocess.run(["nm", "-D", "--defined-only", "made/libnet.so"], capture_output=True, text=True, check=True)
        assert {line.split()[-1] for line in listed.stdout.splitlines()} == {"net_init", "net_run", "net_free", "net_message"}


def test_the_header_is_cplusplus_too(folder):
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    built(*TRAIN, "-o", "made", "--no-compile")
    (folder / "made/user.cpp").write_text('#include "net.h"\nint (*f)(const char *, int) = net_init;\n')
    command = ["g++", "-Wall", "-Wextra", "-Werror", "-c", "-o", "user.o", "user.cpp"]
    done = subprocess.run(command, cwd="made", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_generated_c_has_no_warnings(folder):
    for name, arguments in (("run", ("models.py:net", "--input", "2x3x7x5")), ("train", TRAIN)):
        built(*arguments, "-o", name, "--no-compile")
        for file in ("net.c", "net_main.c"):
            command = ["cc", "-Wall", "-Wextra", "-Werror", "-std=gnu11", "-c", "-o", "probe.o", file]
            done = subprocess.run(command, cwd=name, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr


# --- what goes wrong -----------------------------------------------------------------------------------------------------------


def test_wrong_files_are_refused_with_a_reason(folder):
    built("models.py:net", "--input", "2x3x7x5", "-o", "made")
    program = folder / "made/net_main"
    x = batch()
    np.save("x.npy", x)
    np.save("double.npy", x.astype(np.float64))
    np.save("large.npy", batch((3, 3, 7, 5)))
    np.save("fortran.npy", np.asfortranarray(x))
    whole = Path("x.npy").read_bytes()
    Path("short.npy").write_bytes(whole[:-1])
    Path("header.npy").write_bytes(whole[:20])
    Path("text.npy").write_text("no array")
    (folder / "cut.safetensors").write_bytes((folder / "made/net.safetensors").read_bytes()[:-1])
    (folder / "long.safetensors").write_bytes((folder / "made/net.safetensors").read_bytes() + b"x")
    (folder / "other.safetensors").write_bytes((folder / "made/net.safetensors").read_bytes().replace(b"head", b"tail"))
    for file, reason in (
        ("double.npy", "holds <f8(2,3,7,5), x is <f4(2,3,7,5)"),
        ("large.npy", "holds <f4(3,3,7,5), x is"),
        ("fortran.npy", "Fortran"),
        ("short.npy", "839 bytes of elements, x needs 840"),
        ("header.npy", "header is not complete"),
        ("text.npy", "8 bytes of elements"),
        ("none.npy", "No such file"),
    ):
        assert reason in run(program, folder / file, status=1), file
    for weights in ("cut", "long", "other"):
        said = run(program, "-w", folder / f"{weights}.safetensors", folder / "x.npy", status=1)
        assert "does not hold the weights" in said, weights
    assert "usage:" in run(program, status=2)
    assert "no further inputs" in run(program, folder / "x.npy", folder / "x.npy", status=1)
    assert "usage:" in run(program, "-z", "1", folder / "x.npy", status=2)


def test_ops_without_code_are_listed_with_the_lines_of_the_model(folder, monkeypatch):
    for kind in [kind for kind in NATIVE if kind.startswith(("conv", "max_pool", "pool_indices"))]:
        monkeypatch.delitem(NATIVE, kind)
    said = refused("models.py:net", "--input", "2x3x7x5", "-o", "made")
    assert "there is no C code for" in said
    assert "f32[2,3,7,5]" in said
    assert "models.py:14" in said
    assert not Path("made").exists()


def test_command_lines_that_cannot_be(folder, tmp_path):
    assert "--input" in refused("models.py:net", "-o", "made")
    assert "say what the inputs look like" in refused("models.py:net", "--train", "-o", "made", status=2)
    assert "not a module" in refused("models.py:two", "--input", "2x3", "--input", "3", "--train", "-o", "made")
    assert "Invalid value for '--machine'" in refused("models.py:net", "--input", "2x3x7x5", "--machine", "z80", "-o", "m", status=2)
    (folder / "file").write_text("")
    assert "cannot write to" in refused("models.py:net", "--input", "2x3x7x5", "-o", "file/made")


def test_a_library_is_for_the_machine_that_is_named(folder, monkeypatch):
    monkeypatch.setenv("IRCONV_MACHINE", "avx512")  # which is for what runs here
    built("models.py:net", "--input", "2x3x7x5", "-o", "made", "--no-compile")
    assert "-march" not in Path("made/Makefile").read_text()
    assert "MACHINE = \n" in Path("made/Makefile").read_text()
    built("models.py:net", "--input", "2x3x7x5", "-o", "made", "--no-compile", "--machine", "avx2")
    assert "MACHINE = -mavx2 -mfma" in Path("made/Makefile").read_text()
    assert '__builtin_cpu_supports("avx2")' in Path("made/net.c").read_text()
    assert "own, as it was asked for" in built("models.py:net", "--input", "2x3x7x5", "-o", "m", "--no-compile", "--machine", "native")


def test_what_is_tuned_is_measured_here_and_computes_the_same(folder, monkeypatch):
    monkeypatch.setenv("IRCONV_CACHE", str(folder / "cache"))
    here = this_machine().name
    asked = []
    monkeypatch.setattr(Tuner, "choose", noting(asked, Tuner.choose))
    for number, machine in enumerate(dict.fromkeys((here, "native"))):
        built("models.py:net", "--input", "2x3x7x5", "-o", f"made{number}", "--machine", machine, "--tune", "--threads", "2")
        assert any(kind.startswith("conv") for kind in asked)
        x = batch()
        np.save("x.npy", x)
        run(folder / f"made{number}/net_main", folder / "x.npy", "-o", folder / "y.npy")
        wanted = irconv.compile(load_model("models.py:net"), x, backend="numpy")(x)
        np.testing.assert_allclose(np.load("y.npy"), wanted, rtol=1e-4, atol=1e-5)
        asked.clear()
    built("models.py:net", "--input", "2x3x7x5", "-o", "plain", "--machine", here, "--no-compile")
    assert not asked


def noting(asked, choose):
    """``choose`` that also notes the kinds of kernels."""

    def noted(tuner, request, candidates, stays):
        asked.append(request.kernel.kind)
        return choose(tuner, request, candidates, stays)

    return noted


def test_nothing_is_tuned_for_another_machine(folder):
    other = "sse2" if this_machine().name != "sse2" else "avx2"
    for words in (("--machine", other), ("--machine", "neon") if this_machine().name != "neon" else ("--machine", "avx2"), ()):
        said = refused("models.py:net", "--input", "2x3x7x5", "-o", "made", "--tune", *words)
        assert "tuning measures on this machine" in said
        assert "native" in said
    assert not Path("made").exists()


# --- float16 ---------------------------------------------------------------------------------------------------------------------


def test_a_float16_network_is_built_and_one_trains_with_a_loss_in_float32(folder):
    model = load_model("models.py:net").to("float16").eval()
    x, target = batch().astype(np.float16), np.array([1, 4])
    np.save("x.npy", x)
    np.save("t.npy", target)
    irconv.build_library(irconv.compile(model, x, backend="numpy"), "made", name="net")
    run(folder / "made/net_main", folder / "x.npy", "-o", folder / "y.npy")
    found = np.load("y.npy")
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, native(model, x)(x))

    def loss(scores, target):
        return F.cross_entropy(scores.astype("float32"), target)

    step = irconv.compile_step(
        model, loss, optim.SGD(model.parameters(), lr=0.01), x, target, backend=NativeBackend(machine=MACHINES[MACHINE])
    )
    irconv.build_library(step, "trained", name="net")
    printed = run(folder / "trained/net_main", "-n", "3", folder / "x.npy", folder / "t.npy")
    assert [line.split()[-1] for line in printed.splitlines()[:3]] == [f"{float(step(x, target)):.9g}" for _ in range(3)]
    half = irconv.compile_step(model, F.cross_entropy, optim.SGD(model.parameters(), lr=0.01), x, target, backend="numpy")
    with pytest.raises(BackendError, match="is finite, for f16") as refusal:
        irconv.build_library(half, "half")
    assert "float32" in str(refusal.value)


def test_another_processor_needs_another_compiler(folder):
    built("models.py:net", "--input", "2x3x7x5", "-o", "made", "--no-compile", "--machine", "neon")
    if subprocess.run(["cc", "-dumpmachine"], capture_output=True, text=True, check=True).stdout.startswith("x86_64"):
        said = refused("models.py:net", "--input", "2x3x7x5", "-o", "made", "--machine", "neon")
        assert "does not make code for neon" in said
        assert "IRCONV_CC" in said
