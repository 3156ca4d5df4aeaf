"""irconv's backends against every other program that is installed, on the example networks: the tables of the README.

    python tests/benchmarks/peers.py [--rows forward:lenet:64 ...] [--train] [--backends numpy,native] [--against ...] [--json F]

Each program runs in its own process with the same number of threads, in its fastest mode, and all take turns (see
:mod:`irconv.bench`).  Results are compared before anything is timed; one that differs is void and its cell says so.
A cell is the best time in milliseconds; the last columns are how many times as long as irconv's fastest backend the fastest other
program takes, the share of this machine's peak that irconv reaches, and the memory of irconv and of PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
import tables
from compare import other_load
from rows import Row, RowType, parse

from irconv.bench.race import Result, Rules
from irconv.bench.sides import PEERS
from irconv.bench.sides.base import Peer
from irconv.cli.bench import our_sides, ours, race, their_sides
from irconv.inspect.roofline import Roofline, measure

FORWARD_ROWS = (
    "forward:lenet:1",
    "forward:lenet:64",
    "forward:resnet18:1",
    "forward:resnet50:1",
    "forward:vgg11:1",
    "forward:unet:1",
    "forward:mobilenet_v2:1",
)
TRAIN_ROWS = ("train:lenet:64", "train:resnet18:8", "train:unet:4", "train:mobilenet_v2:8")


def cell(result: Result) -> str:
    """A side's best time, or why there is none."""
    if result.counts:
        return f"{1e3 * result.best:.3g}" if result.best < 0.1 else f"{1e3 * result.best:.0f}"
    return "-" if result.skipped else "void"


def cells(row: Row, results: Sequence[Result], roofline: Roofline) -> list[str]:
    """One row of the table."""
    fastest = ours(results)
    others = [result for result in results if result.counts and result.name in PEERS]
    best = min(others, key=lambda result: result.best, default=None)
    ratio = f"{best.best / fastest.best:.2f} ({best.name})" if best and fastest else "-"
    share = f"{fastest.flops / fastest.best / roofline.flops:.0%}" if fastest else "-"
    torch = [result.bytes for result in others if result.name == "torch"]
    memory = f"{fastest.bytes / 1e6:.0f} / {torch[0] / 1e6:.0f}" if fastest and torch else "-"
    return [str(row), *(cell(result) for result in results), ratio, share, memory]


def columns(sides: Sequence[Peer]) -> list[str]:
    return ["row", *(f"{side.name} ms" for side in sides), "best other / irconv", "of peak", "MB irconv / torch"]


@click.command()
@click.option("--rows", multiple=True, type=RowType(), help="forward:MODEL:BATCH or train:MODEL:BATCH, instead of the usual.")
@click.option("--train", is_flag=True, help="The training rows instead of the forward ones.")
@click.option("--backends", default="numpy,native", show_default=True)
@click.option("--against", default=",".join(PEERS), show_default=True)
@click.option("--rounds", default=10, show_default=True, type=click.IntRange(1), help="Turns of each side.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1))
@click.option("--quick", is_flag=True, help="Take the first mode of each side instead of the fastest.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all numbers there, after every row.")
def main(
    rows: tuple[Row, ...],
    train: bool,
    backends: str,
    against: str,
    rounds: int,
    threads: int,
    quick: bool,
    json_path: Path | None,
) -> None:
    """Run the whole comparison and print it as Markdown."""
    sides = [*our_sides(backends), *their_sides(against)]
    chosen = rows or tuple(parse(row) for row in (TRAIN_ROWS if train else FORWARD_ROWS))
    rules = Rules(threads, rounds, quick=quick)
    heading = f"one call, {threads} threads{other_load()}"
    shown, numbers, notes = [], [], []
    for row in chosen:
        click.echo(f"{row} ...", err=True)
        before = measure(threads)
        results = race(row.task, sides, row.inputs, rules)
        roofline = measure(threads).at_least(before)
        shown.append(cells(row, results, roofline))
        notes += [f"{row}: {result.name} is void: {result.void}" for result in results if result.void]
        numbers.append({"row": str(row), "roofline": asdict(roofline), "results": [asdict(result) for result in results]})
        if json_path is not None:
            json_path.write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    tables.show(heading, columns(sides), shown)
    for note in notes:
        click.echo(note)
    if notes:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
