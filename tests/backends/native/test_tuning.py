"""Kernels chosen by measurement: the fastest is taken, remembered, and computes what its candidate computes."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import irconv
import irconv.nn.functional as F
from irconv import nn, optim
from irconv.backends import find_backend
from irconv.backends.base import Choice
from irconv.backends.native import measure
from irconv.backends.native.backend import NativeBackend
from irconv.backends.native.base import Candidate, NativeKernel, NativeRequest
from irconv.backends.native.cache import DIGEST, RECORD, Cache
from irconv.backends.native.runtime import Pool
from irconv.backends.native.tuning import NOISE, Tuner, fastest
from irconv.backends.numpy.backend import NumpyBackend
from irconv.bench.task import Task
from irconv.cli import main
from irconv.inspect.roofline import Roofline
from tests.backends.handwritten import compiler_or_skip

SHAPE = (1, 16, 12, 12)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    compiler_or_skip()
    folder = tmp_path / "cache"
    monkeypatch.setenv("IRCONV_CACHE", str(folder))
    return folder


class Net(nn.Module):
    """A 3x3 convolution, for which there is every kind of candidate."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        generator = np.random.default_rng(3)
        for parameter in self.parameters():
            parameter.assign(generator.standard_normal(parameter.shape).astype(np.float32))

    def forward(self, x: irconv.Tensor) -> irconv.Tensor:
        return self.conv(x).relu()


class Faked:
    """Takes the times from a rule instead of a clock, and notes what it was asked about."""

    def __init__(self, rule: Callable[[int], float]) -> None:
        self.rule = rule
        self.asked: list[int] = []
        self.sources: list[str] = []
        self.kinds: set[str] = set()
        self.staying: set[str] = set()

    def __call__(
        self, request: NativeRequest, kernels: Sequence[NativeKernel], stays: frozenset[int], pool: Pool
    ) -> list[float]:
        self.asked.append(len(kernels))
        self.kinds.add(request.kernel.kind)
        self.staying |= {request.graph[i].name for i in stays}
        self.sources = [kernel.source for kernel in kernels]
        return [self.rule(i) for i in range(len(kernels))]


def image(batch: int = 1) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((batch, *SHAPE[1:])).astype(np.float32)


def compiled(measured: Faked, strict: bool = False, batch: int = 1) -> irconv.compile.Compiled:
    backend = NativeBackend(strict, tuner=Tuner(measure=measured))
    return irconv.compile(Net(), image(batch), backend=backend, precision="strict" if strict else "fast")


def preferring(wanted: int) -> Faked:
    """One candidate, of those that are measured, takes half as long as the others."""
    return Faked(lambda i: 1.0 if i == wanted else 2.0)


def only(program: irconv.compile.Compiled) -> Choice:
    """The one choice that was made."""
    (choice,) = program.executable.tuning.values()
    return choice


def code_of(program: irconv.compile.Compiled) -> str:
    """The source of the one kernel that was chosen."""
    (name,) = program.executable.tuning
    return program.executable.sources[name]


def records(folder: Path) -> list[Path]:
    return sorted(folder.glob("*" + RECORD))


def expected(x: np.ndarray) -> np.ndarray:
    """The network in float64."""
    weight, bias = (torch.tensor(np.asarray(p)).double() for p in (Net().conv.weight, Net().conv.bias))
    return torch.nn.functional.conv2d(torch.tensor(x).double(), weight, bias, padding=1).relu().numpy()


# --- the choice --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [0, 1, 3, 6])
def test_the_fastest_is_taken_and_its_code_runs(wanted: int) -> None:
    faked = preferring(wanted)
    program = compiled(faked)
    choice = only(program)
    assert faked.asked[0] > wanted
    assert choice.chosen == choice.times[0][0]
    assert [seconds for _, seconds in choice.times] == [1.0] + [2.0] * (faked.asked[0] - 1)
    assert (choice.chosen == choice.planned) == (wanted == 0)
    assert not choice.remembered
    assert code_of(program).endswith(faked.sources[wanted].lstrip("\n"))
    x, right = image(), expected(image())
    assert np.abs(program(x) - right).max() <= 1e-4 * np.abs(right).max()


def test_the_record_gives_the_same_bits_without_measuring(cache: Path) -> None:
    first = compiled(preferring(2))
    (file,) = records(cache)
    assert file.stat().st_mode & 0o022 == 0
    silent = Faked(lambda i: 0.0)
    second = compiled(silent)
    assert silent.asked == []
    assert only(second).remembered
    assert (only(second).chosen, only(second).times) == (only(first).chosen, only(first).times)
    assert code_of(second) == code_of(first)
    assert np.array_equal(second(image()), first(image()))


def test_the_record_is_not_read_without_tune() -> None:
    usual = irconv.compile(Net(), image(), backend="native")
    last = preferring(4)
    tuned = compiled(last)
    again = irconv.compile(Net(), image(), backend="native")
    assert again.executable.tuning == {}
    assert again.executable.sources == usual.executable.sources
    assert code_of(tuned) not in again.executable.sources.values()


def test_another_batch_is_another_geometry(cache: Path) -> None:
    faked = preferring(1)
    for batch in (1, 3, 1):
        compiled(faked, batch=batch)
    assert len(faked.asked) == len(records(cache)) == 2


def test_nothing_is_measured_for_an_empty_batch(cache: Path) -> None:
    faked = preferring(1)
    program = compiled(faked, batch=0)
    assert program(image(0)).shape == (0, *SHAPE[1:])
    assert faked.asked == [] and records(cache) == []


def test_strict_requests_have_no_winograd() -> None:
    def names(strict: bool) -> list[str]:
        return [name for name, _ in only(compiled(preferring(0), strict)).times]

    assert any("winograd" in name for name in names(False))
    assert names(True) and not any("winograd" in name for name in names(True))


def test_a_little_faster_may_be_chance() -> None:
    assert fastest((("other", 0.99 * NOISE), ("planned", 1.0)), "planned") == "other"
    assert fastest((("other", 1.01 * NOISE), ("planned", 1.0)), "planned") == "planned"


def test_candidates_without_code_are_passed_over() -> None:
    seen: list[NativeKernel | None] = []

    class Choosing(Tuner):
        def choose(
            self, request: NativeRequest, candidates: Sequence[Candidate], stays: frozenset[int]
        ) -> NativeKernel | None:
            nothing = Candidate("nothing", lambda: None)
            seen.append(super().choose(request, [nothing], stays))
            return super().choose(request, [nothing, *candidates], stays)

    faked = preferring(1)
    program = irconv.compile(Net(), image(), backend=NativeBackend(tuner=Choosing(measure=faked)))
    choice = only(program)
    assert set(seen) == {None}
    assert "nothing" not in dict(choice.times) and choice.planned != "nothing"
    assert choice.chosen == choice.times[0][0]


# --- every candidate is right ------------------------------------------------------------------------------------------------


class Several(nn.Module):
    """Strided, transposed and 1x1 convolutions and a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 20, 3, padding=1)
        self.strided = nn.Conv2d(20, 24, 3, stride=2, padding=1)
        self.plain = nn.Conv2d(24, 17, 1)
        self.head = nn.Linear(17 * 25, 5)
        generator = np.random.default_rng(5)
        for parameter in self.parameters():
            parameter.assign(0.1 * generator.standard_normal(parameter.shape).astype(np.float32))

    def forward(self, x: irconv.Tensor) -> irconv.Tensor:
        y = self.plain(self.strided(self.first(x).relu()).relu()).relu()
        return self.head(y.flatten(1))


def trained(backend: str | NativeBackend) -> tuple[list[float], dict[str, np.ndarray]]:
    """Losses and parameters of three steps."""
    net = Several()
    generator = np.random.default_rng(6)
    x = generator.standard_normal((4, 3, 10, 10)).astype(np.float32)
    target = generator.integers(0, 5, 4)
    step = irconv.compile_step(net, F.cross_entropy, optim.SGD(net.parameters(), lr=0.1), x, target, backend=backend)
    losses = [float(step(x, target)) for _ in range(3)]
    return losses, {name: np.array(array) for name, array in net.state_dict().items()}


@pytest.mark.parametrize("number", [1, 2, 3, 4, -1])
def test_training_with_any_candidate(number: int) -> None:
    class Fixed(Faked):
        def __call__(
            self, request: NativeRequest, kernels: Sequence[NativeKernel], stays: frozenset[int], pool: Pool
        ) -> list[float]:
            super().__call__(request, kernels, stays, pool)
            wanted = number % len(kernels)
            return [1.0 if i == wanted else 2.0 for i in range(len(kernels))]

    faked = Fixed(lambda i: 1.0)
    losses, states = trained(NativeBackend(tuner=Tuner(measure=faked)))
    right_losses, right_states = trained("numpy")
    assert "conv_weight_gradient" in faked.kinds
    assert not faked.staying & right_states.keys(), "weights change in training"
    assert np.allclose(losses, right_losses, rtol=1e-5)
    for name, right in right_states.items():
        assert np.abs(states[name] - right).max() <= 2e-5 * max(1.0, np.abs(right).max()), name


def test_weights_stay_in_inference() -> None:
    faked = preferring(0)
    compiled(faked)
    assert "conv.weight" in faked.staying


# --- the record --------------------------------------------------------------------------------------------------------------


# with a checksum that is right
BAD = {
    "not JSON": lambda good: b"}{",
    "not text": lambda good: b"\xff\xfe\x00",
    "a list": lambda good: b"[1, 2]",
    "another format": lambda good: json.dumps({**good, "format": -1}).encode(),
    "no times": lambda good: json.dumps({"format": good["format"]}).encode(),
    "empty": lambda good: json.dumps({**good, "times": []}).encode(),
    "unknown candidate": lambda good: json.dumps({**good, "times": [*good["times"], ["magic", 0.0]]}).encode(),
    "not a number": lambda good: json.dumps({**good, "times": [[n, float("nan")] for n, _ in good["times"]]}).encode(),
    "negative": lambda good: json.dumps({**good, "times": [[n, -1.0] for n, _ in good["times"]]}).encode(),
    "too large": lambda good: json.dumps({**good, "times": [[n, 10**400] for n, _ in good["times"]]}).encode(),
    "no name": lambda good: json.dumps({**good, "times": [[1, 2.0]]}).encode(),
    "without the planned one": lambda good: json.dumps({**good, "times": good["times"][:1]}).encode(),
    "deeply nested": lambda good: b"[" * 100_000,
}


@pytest.mark.parametrize("what", BAD)
def test_records_that_say_nothing_useful_are_made_again(cache: Path, what: str) -> None:
    compiled(preferring(2))
    (file,) = records(cache)
    good = json.loads(file.read_bytes()[:-DIGEST])
    Cache(cache, 1 << 30).store(file.stem, BAD[what](good), RECORD)
    faked = preferring(2)
    program = compiled(faked)
    assert len(faked.asked) == 1
    assert not only(program).remembered
    assert json.loads(file.read_bytes()[:-DIGEST]) == good


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
def test_records_whose_checksum_is_wrong_are_made_again(cache: Path, cut: int) -> None:
    compiled(preferring(2))
    (file,) = records(cache)
    whole = file.read_bytes()
    file.write_bytes(whole[:cut])
    faked = preferring(2)
    compiled(faked)
    assert len(faked.asked) == 1
    assert file.read_bytes() == whole


def test_a_full_disk_costs_only_the_record(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Cache.store

    def full(self: Cache, key: str, contents: bytes, suffix: str = ".so") -> None:
        if suffix == RECORD:
            raise OSError(errno.ENOSPC, "no room")
        store(self, key, contents, suffix)

    monkeypatch.setattr(Cache, "store", full)
    monkeypatch.setattr("irconv.backends.native.library._library._warned", True)
    program = compiled(preferring(2))
    assert only(program).chosen == only(program).times[0][0]
    assert records(cache) == []


def test_what_another_process_found_first_is_taken(cache: Path) -> None:
    """While this process measures, another one finishes."""
    other = preferring(3)

    class Overtaken(Faked):
        def __call__(
            self, request: NativeRequest, kernels: Sequence[NativeKernel], stays: frozenset[int], pool: Pool
        ) -> list[float]:
            compiled(other)
            return super().__call__(request, kernels, stays, pool)

    program = compiled(Overtaken(lambda i: 1.0 if i == 1 else 2.0))
    assert code_of(program).endswith(other.sources[3].lstrip("\n"))


PROCESS = """
import sys, numpy as np, irconv
from tests.backends.native.test_tuning import Net, image
program = irconv.compile(Net(), image(), backend="native", tune=True)
np.save(sys.argv[1], program(image()))
"""


def test_two_processes_share_the_record(cache: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.npy" for i in range(2)]
    root = Path(__file__).parents[3]
    running = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(file)], cwd=root, stderr=subprocess.PIPE) for file in files
    ]
    for process in running:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()
    assert len(records(cache)) == 1
    assert not [path for path in cache.iterdir() if path.name.startswith("work-")]
    program = irconv.compile(Net(), image(), backend="native", tune=True)
    assert only(program).remembered
    right = expected(image())
    for result in (program(image()), *map(np.load, files)):
        assert np.abs(result - right).max() <= 1e-4 * np.abs(right).max()


# --- measuring ---------------------------------------------------------------------------------------------------------------


def test_measured_for_real() -> None:
    program = irconv.compile(Net(), image(), backend="native", tune=True)
    choice = only(program)
    seconds = [taken for _, taken in choice.times]
    assert len(seconds) >= 5 and all(0 < taken < 10 for taken in seconds)
    assert seconds == sorted(seconds)
    assert dict(choice.times)[choice.chosen] <= dict(choice.times)[choice.planned]
    assert choice.gain >= 1
    assert "conv(f32[1,16,12,12]" in choice.geometry
    right = expected(image())
    assert np.abs(program(image()) - right).max() <= 1e-4 * np.abs(right).max()


# --- the face ----------------------------------------------------------------------------------------------------------------


def test_backends_without_a_choice_stay_as_they_are() -> None:
    assert isinstance(find_backend("numpy", tune=True), NumpyBackend)
    assert np.array_equal(
        irconv.compile(Net(), image(), backend="numpy", tune=True)(image()),
        irconv.compile(Net(), image(), backend="numpy")(image()),
    )


def test_only_tune_brings_a_tuner() -> None:
    usual, tuned = find_backend("native"), find_backend("native", strict=True, tune=True)
    assert isinstance(usual, NativeBackend) and usual.tuner is None
    assert isinstance(tuned, NativeBackend) and tuned.tuner is not None and tuned.strict


# --- the command line --------------------------------------------------------------------------------------------------------

MODEL = """
from irconv import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 4, 3, padding=1)
        self.head = nn.Linear(4 * 6 * 6, 3)

    def forward(self, x):
        return self.head(self.conv(x).relu().flatten(1))

net = Net()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models.py").write_text(MODEL)
    generator = np.random.default_rng(0)
    x = generator.standard_normal((8, 16, 6, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "data.npz", x=x, y=generator.integers(0, 3, 8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMANDS = {
    "run": ("models.py:net", "--input", "x.npy"),
    "profile": ("models.py:net", "--input", "8x16x6x6", "--repeat", "1"),
    "profile a step": ("models.py:net", "--input", "8x16x6x6", "--repeat", "1", "--train"),
    "train": ("models.py:net", "--data", "data.npz", "--epochs", "1", "--batch", "4"),
}


@pytest.mark.parametrize("what", COMMANDS)
def test_commands_tune_when_asked(cache: Path, folder: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["irconv.cli.profile"], "measure", lambda threads: Roofline(1e11, 1e10, "made up"))
    monkeypatch.setattr(measure, "BUDGET", 0.01)
    command = (what.split()[0], *COMMANDS[what], "--backend", "native")
    for tune in ((), ("--tune",)):
        result = CliRunner().invoke(main, (*command, *tune))
        assert result.exit_code == 0, result.output + repr(result.exception)
        assert ("chosen by measurement" in result.output) == (what.startswith("profile") and bool(tune))
        assert bool(records(cache)) == bool(tune)


def test_a_task_keeps_the_wish() -> None:
    assert Task.from_json(Task("net.py:net", tune=True).to_json()).tune
    assert not Task("net.py:net").tune
