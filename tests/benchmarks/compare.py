"""irconv's NumPy backend against PyTorch eager on this machine.

    python tests/benchmarks/compare.py [--rows forward:lenet:64 ...] [--repeat N] [--threads 2] [--json out.json] [--profile]

Each side runs in its own process; they take turns, so that both see the same machine.  Weights and inputs are the same, and
outputs (for training, the losses of ten steps) are compared before anything is timed: a row that differs is void.
Times are of one forward pass, or of one training step (SGD with momentum: forward, backward, update).  Memory is the most
that a process grew by after its imports, while it ran the row.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import tables
from rows import DEFAULT_ROWS, Row, RowType

HERE = Path(__file__).resolve().parent
TURN_SECONDS = 0.5
TOLERANCE = {"forward": 1e-4, "train": 1e-3}
"""Largest difference allowed, relative to the largest value: of outputs, and of losses over ten steps (rounding grows)."""


class SideError(Exception):
    """A side failed; the message is its traceback."""


class Process:
    """One side in a process of its own, asked over pipes."""

    def __init__(self, script: str, threads: int):
        names = ("IRCONV_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
        environment = os.environ | dict.fromkeys(names, str(threads))
        command = [sys.executable, str(HERE / script), str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.name = script.removesuffix("_side.py")

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; SideError if it failed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **more}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": "the process ended"}
        if "error" in answer:
            raise SideError(f"{self.name}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@dataclass
class Outcome:
    """What one row gave.  Times in seconds by side, each of all calls; ``problem`` says why a row is void."""

    row: str
    problem: str = ""
    difference: float = float("nan")
    times: dict[str, list[float]] = field(default_factory=lambda: {"irconv": [], "torch": []})
    memory: dict[str, int] = field(default_factory=dict)
    compile_seconds: float = float("nan")
    mode: str = ""
    plan: str = ""
    kernels: list[dict[str, Any]] = field(default_factory=list)

    def best(self, side: str) -> float:
        return min(self.times[side])

    def median(self, side: str) -> float:
        return statistics.median(self.times[side])

    def cells(self) -> list[str]:
        """This row of the table."""
        if self.problem:
            return [self.row, f"void: {self.problem.strip().splitlines()[-1]}", *[""] * (len(COLUMNS) - 2)]
        numbers = [f"{1e3 * f(side):.2f}" for side in ("irconv", "torch") for f in (self.best, self.median)]
        ratios = [f"{f('irconv') / f('torch'):.2f}" for f in (self.best, self.median)]
        memory = [f"{self.memory[side] / 2**20:.0f}" for side in ("irconv", "torch")]
        return [self.row, *numbers, *ratios, *memory, f"{self.compile_seconds:.2f}", f"{self.difference:.0e}", self.mode]


COLUMNS = (
    "row",
    "irconv best ms",
    "median",
    "torch best ms",
    "median",
    "irconv / torch best",
    "median",
    "irconv peak MiB",
    "torch peak MiB",
    "compile s",
    "difference",
    "torch's best mode",
)


def compare(row: Row, repeat: int, threads: int, profile: bool) -> Outcome:
    """Run one row."""
    outcome = Outcome(str(row))
    ours, theirs = Process("irconv_side.py", threads), Process("torch_side.py", threads)
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            np.savez(folder / "inputs.npz", **row.inputs())
            told = ours.ask("prepare", row=str(row), folder=name)
            outcome.compile_seconds, outcome.plan = told["compile"], told["plan"]
            outcome.mode = theirs.ask("prepare", row=str(row), folder=name)["mode"]
            found = []
            for side in (ours, theirs):
                path = folder / f"{side.name}.npy"
                side.ask("check", path=str(path))
                found.append(np.load(path))
        outcome.difference = float(np.abs(found[0] - found[1]).max() / np.abs(found[1]).max())
        if not outcome.difference <= TOLERANCE[row.kind]:
            outcome.problem = f"results differ by {outcome.difference:.1e} of the largest value"
            return outcome
        for _ in range(repeat):
            for side in (ours, theirs):
                outcome.times[side.name] += side.ask("time", seconds=TURN_SECONDS)["seconds"]
        outcome.memory = {side.name: side.ask("peak")["bytes"] for side in (ours, theirs)}
        if profile:
            outcome.kernels = ours.ask("profile")["kernels"]
    except SideError as error:
        outcome.problem = str(error)
    finally:
        ours.close()
        theirs.close()
    return outcome


def show_profile(outcome: Outcome, count: int) -> None:
    """The kernels that take the most time, and each kind's share."""
    total = sum(k["ms"] for k in outcome.kernels)
    worst = sorted(outcome.kernels, key=lambda k: -k["ms"])[:count]
    cells = []
    for k in worst:
        per_second = [f"{k[what] / k['ms'] / 1e6:.1f}" for what in ("flops", "bytes")]
        cells.append([k["name"], k["kind"], f"{k['ms']:.3f}", f"{k['ms'] / total:.0%}", *per_second, k["line"]])
    columns = ("kernel", "kind", "ms", "share", "GFLOP/s", "GB/s", "line")
    tables.show(f"{outcome.row}: slowest of {len(outcome.kernels)} kernels, {total:.2f} ms together", columns, cells)
    kinds: dict[str, list[float]] = {}
    for k in outcome.kernels:
        kinds.setdefault(k["kind"], []).append(k["ms"])
    ordered = sorted(kinds.items(), key=lambda item: -sum(item[1]))[:count]
    by_kind = [[kind, str(len(times)), f"{sum(times):.2f}", f"{sum(times) / total:.0%}"] for kind, times in ordered]
    tables.show(f"{outcome.row}: by kind", ("kind", "kernels", "ms", "share"), by_kind)


def other_load() -> str:
    """What to say of other programs that keep cores busy: threads that wait for each other then measure those."""
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return "" if busy < 0.5 else f" (load average {busy:.1f} before the start: numbers for several threads mean little)"


@click.command()
@click.option("--rows", multiple=True, type=RowType(), default=DEFAULT_ROWS, help="forward:MODEL:BATCH or train:MODEL:BATCH.")
@click.option("--repeat", default=10, show_default=True, type=click.IntRange(1), help="Turns of each side.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1))
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all numbers there.")
@click.option("--profile", default=0, show_default=True, type=click.IntRange(0), help="Show so many of the slowest kernels.")
def main(rows: tuple[Row, ...], repeat: int, threads: int, json_path: Path | None, profile: int) -> None:
    """Compare irconv's NumPy backend with PyTorch eager."""
    outcomes = []
    heading = f"one call, {threads} threads{other_load()}"
    for row in rows:
        click.echo(f"{row} ...", err=True)
        outcomes.append(compare(row, repeat, threads, profile > 0))
    tables.show(heading, COLUMNS, [outcome.cells() for outcome in outcomes])
    for outcome in outcomes:
        if outcome.kernels:
            show_profile(outcome, profile)
    if json_path is not None:
        json_path.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1), encoding="utf-8")
    void = [outcome for outcome in outcomes if outcome.problem]
    if void:
        raise click.ClickException("\n".join(f"{outcome.row}: {outcome.problem}" for outcome in void))


if __name__ == "__main__":
    main()
