"""``irconv bench``: a model with our backends and with other programs, taking turns."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import click

from irconv.backends import backend_names, find_backend
from irconv.bench.material import make_material
from irconv.bench.race import Race, Result, Rules
from irconv.bench.sides import PEERS, irconv_side
from irconv.bench.sides.base import Peer
from irconv.bench.task import LOSSES, Task
from irconv.cli import console
from irconv.cli.group import Failure
from irconv.cli.models import InputSpecs, parse_specs
from irconv.errors import ModelError
from irconv.inspect.roofline import Roofline, measure
from irconv.types import TensorSpec

TWINS = "torch_twins.py"
"""A file beside MODEL's, in which a name stands for the same network in PyTorch."""


@click.command()
@click.argument("model")
@click.option("--input", "inputs", multiple=True, metavar="[NAME=]SHAPE[:TYPE]|FILE.npy", help="Shapes get random numbers.")
@click.option("--batch", type=click.IntRange(1), help="Another size for the first axis of all inputs.")
@click.option("--backends", default="auto", show_default=True, help="irconv's, separated by commas.")
@click.option("--against", default="", metavar="NAMES", help=f"Separated by commas: {', '.join(PEERS)}.")
@click.option("--train", is_flag=True, help="Time training steps (SGD with momentum) instead of forward passes.")
@click.option("--loss", type=click.Choice(list(LOSSES)), default="cross_entropy", show_default=True)
@click.option("--torch", "twin", metavar="FILE.py:NAME", help=f"The same network in PyTorch. [default: NAME in {TWINS}]")
@click.option("--weights", metavar="random|own|FILE", default="", help="[default: random for .py, else own]")
@click.option("--precision", type=click.Choice(["fast", "strict"]), default="fast", show_default=True)
@click.option("--tune", is_flag=True, help="Let irconv measure its kernels and take the fastest; remembered for the next time.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="For every side.")
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True, help="Turns of each side.")
@click.option("--turn", type=click.FloatRange(0), default=0.5, show_default=True, help="Seconds of a turn.")
@click.option("--quick", is_flag=True, help="Do not try the modes of each side: take the first.")
@click.option("--json", "json_file", metavar="FILE", help="Write all numbers there.")
def bench(
    model: str,
    inputs: tuple[str, ...],
    batch: int | None,
    backends: str,
    against: str,
    train: bool,
    loss: str,
    twin: str | None,
    weights: str,
    precision: str,
    tune: bool,
    threads: int,
    rounds: int,
    turn: float,
    quick: bool,
    json_file: str | None,
) -> None:
    """Time MODEL with irconv and with other programs, their results compared first.

    Each side runs in its own process with the same number of threads, in its fastest mode; they take turns.  Outputs (for
    training: losses and parameters of ten steps) are compared with the first backend's; a side that differs is void.
    """
    sides = [*our_sides(backends), *their_sides(against)]
    task = Task(model, train, loss, precision=precision, torch=twin or find_twin(model), tune=tune)
    rules = Rules(threads, rounds, turn, quick=quick)
    specs = with_batch(parse_specs(inputs), batch)
    before = measure(threads)
    results = race(task, sides, specs, rules, weights)
    roofline = measure(threads).at_least(before)
    report(f"{model}{', training step' if train else ''}, {threads} threads", results, roofline)
    if json_file:
        write_json(json_file, task, results, roofline)
    void = [result for result in results if result.void]
    if void:
        raise Failure("\n".join(f"{result.name}: {result.void}" for result in void))


def our_sides(backends: str) -> list[Peer]:
    """irconv's backends by their names.  Raises BackendError for one that does not exist or cannot be used here."""
    names = backend_names(backends)
    if not names:
        raise click.UsageError("--backends names no backend")
    for name in names:
        find_backend(name).target()
    return [irconv_side(name) for name in names]


def their_sides(against: str) -> list[Peer]:
    """The peers by their names.  A usage error for others."""
    names = dict.fromkeys(name.strip() for name in against.split(",") if name.strip())
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise click.UsageError(f"--against does not know {', '.join(unknown)}; it knows {', '.join(PEERS)}")
    return [PEERS[name] for name in names]


def find_twin(model: str) -> str:
    """``torch_twins.py:NAME`` beside ``file.py:NAME``, where it exists."""
    file, _, name = model.rpartition(":")
    twins = Path(file).parent / TWINS
    return f"{twins}:{name}" if file.endswith(".py") and twins.is_file() and f"def {name}(" in twins.read_text() else ""


def with_batch(inputs: InputSpecs, batch: int | None) -> InputSpecs:
    """The inputs with another size of their first axis."""
    if batch is None:
        return inputs
    every = [*inputs.positional, *(inputs.named or {}).values()]
    if not every or not all(isinstance(each, TensorSpec) and each.shape for each in every):
        raise click.UsageError("--batch changes the shapes that --input gives, which need a first axis")
    named = {name: replace(spec, shape=(batch, *spec.shape[1:])) for name, spec in (inputs.named or {}).items()}
    return InputSpecs(tuple(replace(spec, shape=(batch, *spec.shape[1:])) for spec in inputs.positional), named)


def race(task: Task, sides: Sequence[Peer], inputs: InputSpecs, rules: Rules, weights: str = "") -> list[Result]:
    """Prepare what the sides share and let them run."""
    with tempfile.TemporaryDirectory(prefix="irconv-bench-") as name:
        folder = Path(name)
        needs_onnx = any(side.needs_onnx and not side.unavailable(task) for side in sides)
        make_material(task, inputs, folder, weights, needs_onnx)
        with console.progress() as bar:
            row = bar.add_task("racing", total=None, note="")
            return Race(task, sides, folder, rules, lambda text: bar.update(row, note=text)).run()


# --- what is printed -------------------------------------------------------------------------------------------------------

COLUMNS = ("side", "best ms", "median", "/ ours", "peak MB", "compile s", "of peak", "difference", "mode")


def report(title: str, results: Sequence[Result], roofline: Roofline) -> None:
    """A table of the sides; ``/ ours`` is how many times as long as irconv's fastest backend one takes."""
    console.table(COLUMNS, [cells(result, results, roofline) for result in results], range(1, 8), title)
    console.say(f"peak: {roofline}; peak MB: growth of memory after imports; difference: from {results[0].name}")


def ours(results: Sequence[Result]) -> Result | None:
    """irconv's fastest side."""
    found = [result for result in results if result.counts and result.name.startswith("irconv ")]
    return min(found, key=lambda result: result.best, default=None)


def cells(result: Result, results: Sequence[Result], roofline: Roofline) -> list[str]:
    """One side's row."""
    if not result.counts:
        why = f"void: {result.void}" if result.void else f"skipped: {result.skipped}"
        return [result.name, *["-"] * (len(COLUMNS) - 2), why]
    fastest = ours(results)
    ratio = f"{result.best / fastest.best:.2f}" if fastest else "-"
    flops = next((each.flops for each in results if each.flops), 0)
    return [
        result.name,
        f"{1e3 * result.best:.3f}",
        f"{1e3 * result.median:.3f}",
        ratio,
        f"{result.bytes / 1e6:.0f}",
        f"{result.compile_seconds:.2f}",
        f"{flops / result.best / roofline.flops:.0%}",
        f"{result.difference:.0e}",
        result.mode,
    ]


def write_json(file: str, task: Task, results: Sequence[Result], roofline: Roofline) -> None:
    """All numbers, for other programs.  Raises ModelError if the file cannot be written."""
    data = {"task": asdict(task), "roofline": asdict(roofline), "results": [asdict(result) for result in results]}
    try:
        Path(file).write_text(json.dumps(data, indent=1), encoding="utf-8")
    except OSError as error:
        raise ModelError(f"cannot write {file}: {error}", hint="check that the folder exists and can be written") from None
