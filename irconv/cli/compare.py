"""``irconv compare``: backends against the reference, value by value, worst first."""

from __future__ import annotations

from collections.abc import Sequence

import click

from irconv.backends import backend_names, find_backend
from irconv.bench.task import LOSSES, Task
from irconv.cli import console
from irconv.cli.group import Failure
from irconv.cli.models import parse_specs
from irconv.cli.programs import prepare
from irconv.compile import INFERENCE, TRAINING
from irconv.inspect.compare import Difference, compare_backends


@click.command()
@click.argument("model")
@click.option("--input", "inputs", multiple=True, metavar="[NAME=]SHAPE[:TYPE]|FILE.npy", help="Shapes get random numbers.")
@click.option("--backends", default="auto", show_default=True, help="Separated by commas.")
@click.option("--train", is_flag=True, help="Compare gradients and new states of a training step (SGD with momentum).")
@click.option("--backward", is_flag=True, help="Compare gradients by the parameters (or, without any, the inputs).")
@click.option("--loss", type=click.Choice(list(LOSSES)), default="cross_entropy", show_default=True)
@click.option("--weights", metavar="random|own|FILE", default="own", show_default=True)
@click.option("--reference", type=click.Choice(["same", "f64"]), default="same", help="Its floating-point type.")
@click.option("--tolerance", type=click.FloatRange(0), default=1e-4, show_default=True, help="Of the largest value.")
@click.option("--precision", type=click.Choice(["fast", "strict"]), default="fast", show_default=True)
@click.option("--top", type=click.IntRange(1), default=20, show_default=True, help="How many values to show.")
def compare(
    model: str,
    inputs: tuple[str, ...],
    backends: str,
    train: bool,
    backward: bool,
    loss: str,
    weights: str,
    reference: str,
    tolerance: float,
    precision: str,
    top: int,
) -> None:
    """Compare what backends compute for MODEL with the reference: every value that leaves a kernel.

    Ends with status 1 where a value is further off than --tolerance.
    """
    if backward and train:
        raise click.UsageError("--train contains the backward pass: leave --backward out")
    names = backend_names(backends)
    if not names:
        raise click.UsageError("--backends names no backend")
    for name in names:
        find_backend(name).target()
    task = Task(model, train, loss, precision=precision)
    ready = prepare(task, parse_specs(inputs), "numpy", weights, backward)
    graph = ready.executable.stages[0].graph
    passes = TRAINING if backward or graph.updates else INFERENCE
    rows = compare_backends(graph, names, ready.args, passes, precision, reference == "f64")
    report(rows, top)
    wrong = [row for row in rows if not row.relative <= tolerance]
    if wrong:
        raise Failure(_verdict(wrong, tolerance))


def report(rows: Sequence[Difference], top: int) -> None:
    """The values that are furthest off."""
    columns = ("value", "backend", "kernel", "kind", "absolute", "relative", "at", "found", "reference", "line")
    console.table(columns, [_cells(row) for row in rows[:top]], right=(4, 5, 7, 8))
    console.say(f"{len(rows)} values compared; relative: to the largest number of the value")


def _cells(row: Difference) -> tuple[str, ...]:
    at = "[" + ",".join(str(i) for i in row.where) + "]"
    numbers = (f"{row.absolute:.2e}", f"{row.relative:.2e}", at, f"{row.found:.7g}", f"{row.expected:.7g}")
    return (row.value, row.backend, row.kernel, row.kind, *numbers, str(row.line or ""))


def _verdict(wrong: Sequence[Difference], tolerance: float) -> str:
    """What to look at: the kernel that goes wrong before all others, else the worst value."""
    inside = [row for row in wrong if row.position is not None]
    first = min(inside, key=lambda row: row.position or 0) if inside else wrong[0]
    line = f" ({first.line})" if first.line else ""
    kernel = f"kernel @{first.kernel} of {first.backend}, its value" if inside else f"{first.backend}, the result"
    return (
        f"{len(wrong)} values are further off than {tolerance:g} of their largest number\n"
        f"  the first: {kernel} %{first.value}{line}, by {first.relative:.2e}"
    )
