"""irconv's NumPy backend against PyTorch eager on this machine.

    python tests/benchmarks/compare.py [--rows forward:lenet:64 ...] [--repeat N] [--threads 2] [--json out.json] [--profile N]

Each side runs in its own process; they take turns, so that both see the same machine (see :mod:`irconv.bench`).  Weights and
inputs are the same, and outputs (for training, the losses and parameters of ten steps) are compared before anything is timed: a
row that differs is void.  Times are of one forward pass, or of one training step (SGD with momentum: forward, backward, update).
Memory is the most that a process grew by after its imports, while it ran the row.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import tables
from rows import Row, RowType

from irconv.bench.race import Result, Rules
from irconv.bench.sides import PEERS, irconv_side
from irconv.cli.bench import race

DEFAULT_ROWS = (
    "forward:lenet:64",
    "forward:resnet18:1",
    "forward:mobilenet_v2:1",
    "forward:unet:1",
    "train:lenet:64",
    "train:resnet18:8",
    "train:unet:4",
)


@dataclass
class Outcome:
    """What one row gave: ``problem`` says why it is void."""

    row: str
    ours: Result
    theirs: Result
    problem: str = field(init=False)

    def __post_init__(self) -> None:
        sides = (self.ours, self.theirs)
        self.problem = "; ".join(f"{side.name}: {side.void or side.skipped}" for side in sides if not side.counts)

    def cells(self) -> list[str]:
        """This row of the table."""
        if self.problem:
            return [self.row, f"void: {self.problem}", *[""] * (len(COLUMNS) - 2)]
        sides = (self.ours, self.theirs)
        numbers = [f"{1e3 * seconds:.2f}" for side in sides for seconds in (side.best, side.median)]
        ratios = [f"{self.ours.best / self.theirs.best:.2f}", f"{self.ours.median / self.theirs.median:.2f}"]
        memory = [f"{side.bytes / 2**20:.0f}" for side in sides]
        last = [f"{self.ours.compile_seconds:.2f}", f"{self.theirs.difference:.0e}", self.theirs.mode]
        return [self.row, *numbers, *ratios, *memory, *last]

    def data(self) -> dict[str, Any]:
        """All numbers."""
        return {
            "row": self.row,
            "problem": self.problem,
            "difference": self.theirs.difference,
            "times": {"irconv": self.ours.seconds, "torch": self.theirs.seconds},
            "memory": {"irconv": self.ours.bytes, "torch": self.theirs.bytes},
            "compile_seconds": self.ours.compile_seconds,
            "mode": self.theirs.mode,
            "plan": self.ours.told.get("plan", ""),
            "kernels": self.ours.kernels,
        }


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


def show_profile(outcome: Outcome, count: int) -> None:
    """The kernels that take the most time, and each kind's share."""
    kernels = outcome.ours.kernels
    total = sum(k["ms"] for k in kernels)
    cells = []
    for k in sorted(kernels, key=lambda k: -k["ms"])[:count]:
        per_second = [f"{k[what] / k['ms'] / 1e6:.1f}" for what in ("flops", "bytes")]
        cells.append([k["name"], k["kind"], f"{k['ms']:.3f}", f"{k['ms'] / total:.0%}", *per_second, k["line"]])
    columns = ("kernel", "kind", "ms", "share", "GFLOP/s", "GB/s", "line")
    tables.show(f"{outcome.row}: slowest of {len(kernels)} kernels, {total:.2f} ms together", columns, cells)
    kinds: dict[str, list[float]] = {}
    for k in kernels:
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
@click.option("--quick", is_flag=True, help="Take PyTorch's first mode instead of its fastest.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all numbers there.")
@click.option("--profile", default=0, show_default=True, type=click.IntRange(0), help="Show so many of the slowest kernels.")
def main(rows: tuple[Row, ...], repeat: int, threads: int, quick: bool, json_path: Path | None, profile: int) -> None:
    """Compare irconv's NumPy backend with PyTorch eager."""
    outcomes = []
    heading = f"one call, {threads} threads{other_load()}"
    rules = Rules(threads, repeat, quick=quick, profile=profile > 0)
    for row in rows:
        click.echo(f"{row} ...", err=True)
        outcomes.append(Outcome(str(row), *race(row.task, [irconv_side("numpy"), PEERS["torch"]], row.inputs, rules)))
    tables.show(heading, COLUMNS, [outcome.cells() for outcome in outcomes])
    for outcome in outcomes:
        if outcome.ours.kernels:
            show_profile(outcome, profile)
    if json_path is not None:
        json_path.write_text(json.dumps([outcome.data() for outcome in outcomes], indent=1), encoding="utf-8")
    void = [outcome for outcome in outcomes if outcome.problem]
    if void:
        raise click.ClickException("\n".join(f"{outcome.row}: {outcome.problem}" for outcome in void))


if __name__ == "__main__":
    main()
