"""``irconv opt``: passes on a graph, one by one."""

from __future__ import annotations

import click

from irconv import text
from irconv.autograd import differentiate
from irconv.cli import console
from irconv.cli.models import parse_specs, trace_model
from irconv.graph import Graph
from irconv.inspect.dump import diff as difference
from irconv.passes.base import PASSES, Stage, parse_pipeline
from irconv.passes.check import Checker

USUAL = "simplify,fold_constants,cse,dce"


@click.command()
@click.argument("model")
@click.option(
    "--input", "inputs", multiple=True, metavar="[NAME=]SHAPE[:TYPE]", help="An input, unless MODEL is an .ir file."
)
@click.option(
    "--passes", default=USUAL, show_default=True, help="Passes in order, each name or name{option=value,...}."
)
@click.option("--backward", is_flag=True, help="Differentiate first.")
@click.option("--training", is_flag=True, help="Trace in training mode.")
@click.option("--check", is_flag=True, help="Run the reference after every pass and compare the numbers.")
@click.option("--diff", is_flag=True, help="Print what each pass changed.")
@click.option("--notes", is_flag=True, help="Print what passes refused to do, and why.")
@click.option("--output", metavar="FILE.ir", help="Where the result goes.")
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=lambda c, _, v: _list(c) if v else None
)
def opt(
    model: str,
    inputs: tuple[str, ...],
    passes: str,
    backward: bool,
    training: bool,
    check: bool,
    diff: bool,
    notes: bool,
    output: str | None,
) -> None:
    """Run passes on the graph of MODEL and print what each did."""
    pipeline = parse_pipeline(passes)
    graph = trace_model(model, parse_specs(inputs), training)
    if backward:
        graph = differentiate(graph)
    stages = pipeline.run(graph, checker=Checker() if check else None)
    before = graph
    rows = []
    for stage in stages:
        rows.append(_row(stage, before))
        if diff and stage.changed:
            console.code(difference(before, stage.graph, "before", stage.name))
        if notes:
            for note in stage.notes:
                console.say(f"{stage.name}: {note}")
        before = stage.graph
    console.table(("pass", "ms", "changed", "nodes before", "nodes after"), rows, right=(1, 3, 4))
    if check:
        console.say("the numbers are the same after every pass")
    if output:
        text.save(before, output)
        console.say(f"wrote {output}")


def _row(stage: Stage, before: Graph) -> tuple[str, ...]:
    changed = "yes" if stage.changed else "no"
    return stage.name, console.milliseconds(stage.seconds), changed, str(len(before)), str(len(stage.graph))


def _list(context: click.Context) -> None:
    """Print the passes there are."""
    rows = [(name, (pass_type.__doc__ or "").strip().splitlines()[0]) for name, pass_type in sorted(PASSES.items())]
    console.table(("pass", "what it does"), rows)
    context.exit()
