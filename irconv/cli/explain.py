"""``irconv explain``: the kernels of a model, the bytes that cross between them, and why each edge was left."""

from __future__ import annotations

import click

from irconv.bench.task import LOSSES, Task
from irconv.cli import console
from irconv.cli.models import parse_specs
from irconv.cli.programs import prepare
from irconv.inspect.explain import Crossing, Explanation
from irconv.inspect.explain import explain as explanation


@click.command()
@click.argument("model")
@click.option("--input", "inputs", multiple=True, metavar="[NAME=]SHAPE[:TYPE]", help="Such as 1x3x64x64, x=8x9:f64.")
@click.option("--backward", is_flag=True, help="Differentiate by the parameters (or, without any, the inputs).")
@click.option("--train", is_flag=True, help="Explain a training step (SGD with momentum).")
@click.option("--loss", type=click.Choice(list(LOSSES)), default="cross_entropy", show_default=True)
@click.option("--backend", default="auto", show_default=True, help="Whose kernels.")
@click.option("--precision", type=click.Choice(["fast", "strict"]), default="fast", show_default=True)
@click.option("--top", type=click.IntRange(0), metavar="N", help="Only the N edges with the most bytes.")
def explain(
    model: str,
    inputs: tuple[str, ...],
    backward: bool,
    train: bool,
    loss: str,
    backend: str,
    precision: str,
    top: int | None,
) -> None:
    """Tell how MODEL is cut into kernels, and why edges between kernels were not fused."""
    if backward and train:
        raise click.UsageError("--train contains the backward pass: leave --backward out")
    ready = prepare(Task(model, train, loss, precision=precision), parse_specs(inputs), backend, backward=backward)
    explained = explanation(ready.executable.program)
    print_table(explained)
    console.say()
    print_kinds(explained)
    console.say()
    print_edges(explained, top)


def print_table(explained: Explanation) -> None:
    """Kernels and bytes, before and after."""
    rows = [
        ("one op a kernel", f"{explained.ops:,}", f"{explained.bytes_before:,}", "100%"),
        ("fused", f"{explained.kernels:,}", f"{explained.bytes_after:,}", _share(explained)),
    ]
    console.table(("", "kernels", "bytes crossing", "of before"), rows, right=(1, 2, 3))


def _share(explained: Explanation) -> str:
    return f"{explained.bytes_after / explained.bytes_before:.0%}" if explained.bytes_before else "-"


def print_kinds(explained: Explanation) -> None:
    """Kernels by kind."""
    rows = [(row.kind, f"{row.kernels:,}", f"{row.ops:,}", console.size(row.bytes), row.what) for row in explained.kinds]
    console.table(("kind", "kernels", "ops", "bytes", "what it is"), rows, right=(1, 2, 3))


def print_edges(explained: Explanation, top: int | None) -> None:
    """The edges between kernels, each with its reason."""
    shown = explained.edges if top is None else explained.edges[:top]
    console.heading(f"# {len(explained.edges)} edges between kernels, most bytes first")
    for edge in shown:
        console.say(_edge_line(edge))
        console.say(f"    {edge.reason}")
    if len(shown) < len(explained.edges):
        console.say(f"# and {len(explained.edges) - len(shown)} more")


def _edge_line(edge: Crossing) -> str:
    places = " -> ".join(dict.fromkeys(str(line) for line in (edge.line, edge.user_line) if line))
    crossing = f"@{edge.source} -> @{edge.reader}: %{edge.value} -> %{edge.user}, {console.size(edge.bytes)}"
    return f"{crossing}  # {places}" if places else crossing
