"""A race: every side in its best mode, its results compared, then all taking turns.

Each mode is tried in a fresh process, which also says how long compiling takes from cold.  The fastest mode then starts again
in the process that is timed, so that its memory is its own.  A side whose results differ is void.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from irconv.bench.judge import Bounds, distance, read_results
from irconv.bench.process import Process, SideError, scratch_environment
from irconv.bench.sides.base import Peer
from irconv.bench.task import Task
from irconv.errors import BackendError


@dataclass(frozen=True)
class Rules:
    """How a race is run.

    threads:       of every side.
    rounds:        turns of each side.
    turn_seconds:  how long a turn lasts (at least two calls).
    trial_seconds: how long each mode is tried for.
    quick:         take the first mode of each side without a trial.
    profile:       also ask irconv's sides what each kernel took.
    """

    threads: int = 2
    rounds: int = 10
    turn_seconds: float = 0.5
    trial_seconds: float = 1.0
    quick: bool = False
    profile: bool = False


@dataclass
class Result:
    """What one side gave.

    seconds: of all its calls.      compile_seconds: from cold.      bytes: the most its memory grew by while it was timed.
    difference: of its results from those of the first side.      modes: best time of each mode that was tried, or why not.
    void: why it does not count; empty if it does.      skipped: why it was not run.
    """

    name: str
    mode: str = ""
    skipped: str = ""
    void: str = ""
    seconds: list[float] = field(default_factory=list)
    compile_seconds: float = float("nan")
    bytes: int = 0
    difference: float = float("nan")
    flops: int = 0
    told: dict[str, Any] = field(default_factory=dict)
    modes: dict[str, float | str] = field(default_factory=dict)
    kernels: list[dict[str, Any]] = field(default_factory=list)

    @property
    def counts(self) -> bool:
        return not self.void and not self.skipped and bool(self.seconds)

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Race:
    """One task, several sides; the first side's results are what the others' are held against."""

    def __init__(
        self,
        task: Task,
        sides: Sequence[Peer],
        folder: Path,
        rules: Rules,
        tell: Callable[[str], None] = lambda text: None,
    ):
        self.task, self.sides, self.folder, self.rules, self.tell = task, sides, folder, rules, tell
        self._modules = {side.name: side for side in sides}
        self._cold: dict[tuple[str, str], float] = {}  # compile times of the trials, by side and mode

    def run(self) -> list[Result]:
        """Results in the order of the sides."""
        results = [Result(side.name, skipped=side.unavailable(self.task)) for side in self.sides]
        running: list[tuple[Result, Process]] = []
        try:
            for side, result in zip(self.sides, results, strict=True):
                if not result.skipped:
                    self._start(side, result, running)
            self._judge(running)
            for number in range(self.rules.rounds):
                self.tell(f"round {number + 1} of {self.rules.rounds}")
                for result, process in running:
                    self._turn(result, process)
            for result, process in running:
                self._finish(result, process)
        finally:
            for _, process in running:
                process.close()
        return results

    # --- before the start ------------------------------------------------------------------------------------------

    def _start(self, side: Peer, result: Result, running: list[tuple[Result, Process]]) -> None:
        """Find the best mode, and leave it running and prepared."""
        modes = side.modes(self.task.trains)
        if len(modes) > 1 and not self.rules.quick:
            for mode in modes:
                self._try_mode(side, mode, result)
            fit = {mode: seconds for mode, seconds in result.modes.items() if isinstance(seconds, float)}
            if not fit:
                result.void = str(result.modes[modes[0]])
                return
            result.mode = min(fit, key=fit.__getitem__)
        else:
            result.mode = modes[0]
        self.tell(f"{side.name}: preparing ({result.mode})")
        process = None
        try:
            process = self._process(side)
            result.told = self._prepare(process, result.mode)
            result.flops = result.told.get("flops", 0)
            # what a trial has compiled may be remembered on disk
            result.compile_seconds = self._cold.get((side.name, result.mode), result.told["compile"])
            process.ask("check", path=str(self._results_of(result)))
        except SideError as error:
            result.void = _one_line(error)
            if process is not None:
                process.close()
            return
        running.append((result, process))

    def _try_mode(self, side: Peer, mode: str, result: Result) -> None:
        self.tell(f"{side.name}: trying {mode}")
        try:
            with self._process(side) as process:
                self._cold[side.name, mode] = self._prepare(process, mode)["compile"]
                result.modes[mode] = min(process.ask("time", seconds=self.rules.trial_seconds)["seconds"])
        except SideError as error:
            result.modes[mode] = _one_line(error)

    def _process(self, side: Peer) -> Process:
        return Process(side.module, self.rules.threads, scratch_environment(self.folder))

    def _prepare(self, process: Process, mode: str) -> dict[str, Any]:
        return process.ask("prepare", task=self.task.to_json(), folder=str(self.folder), mode=mode)

    def _results_of(self, result: Result) -> Path:
        return self.folder / f"results.{result.name.replace(' ', '_')}.npz"

    def _judge(self, running: list[tuple[Result, Process]]) -> None:
        """Void the sides whose results differ from the first side's."""
        if not running:
            return
        first, (reference, _) = self._modules[running[0][0].name], running[0]
        expected = read_results(self._results_of(reference))
        start = read_results(self.folder / "weights.npz") if self.task.trains else {}
        reference.difference = 0.0
        trained = None
        if self.task.trains and len(running) > 1:
            self.tell(f"{reference.name}: measuring what rounding does to training")
            trained = Bounds.training(distance(self._nudged(first, reference), expected, start))
        for result, process in running[1:]:
            apart = distance(read_results(self._results_of(result)), expected, start)
            result.difference = apart.outputs
            bounds = trained or Bounds.forward(own=self._modules[result.name].module == first.module)
            problem = bounds.problem(apart)
            if problem:
                result.void = f"differs from {reference.name}: {problem}"
                process.close()
        running[:] = [pair for pair in running if not pair[0].void]

    def _nudged(self, side: Peer, reference: Result) -> dict[str, np.ndarray]:
        """The results of the same training with every input moved to the next larger number."""
        folder = self.folder / "nudged"
        folder.mkdir()
        shutil.copyfile(self.folder / "weights.npz", folder / "weights.npz")
        inputs = read_results(self.folder / "inputs.npz")
        moved = {name: np.nextafter(a, np.inf, dtype=a.dtype) if a.dtype.kind == "f" else a for name, a in inputs.items()}
        np.savez(folder / "inputs.npz", **moved)  # type: ignore[arg-type]  # the names of the arrays are data
        try:
            with self._process(side) as process:
                process.ask("prepare", task=self.task.to_json(), folder=str(folder), mode=reference.mode)
                process.ask("check", path=str(folder / "results.npz"))
        except SideError as error:
            raise BackendError(f"{reference.name} failed when it ran again: {_one_line(error)}") from None
        return read_results(folder / "results.npz")

    # --- the race --------------------------------------------------------------------------------------------------

    def _turn(self, result: Result, process: Process) -> None:
        if result.void:
            return
        try:
            result.seconds += process.ask("time", seconds=self.rules.turn_seconds)["seconds"]
        except SideError as error:
            result.void = _one_line(error)

    def _finish(self, result: Result, process: Process) -> None:
        if result.void:
            return
        try:
            result.bytes = process.ask("peak")["bytes"]
            if self.rules.profile:
                result.kernels = process.ask("profile")["kernels"]
        except SideError as error:
            result.void = _one_line(error)


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
