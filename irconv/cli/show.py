"""``irconv show``: the graph of a model, as traced, differentiated, or at any stage of compilation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import click

from irconv.autograd import differentiate
from irconv.cli import console
from irconv.cli.models import parse_specs, trace_model
from irconv.compile import INFERENCE, TRAINING, Options, build
from irconv.cost import graph_cost
from irconv.errors import ModelError
from irconv.graph import Graph
from irconv.inspect import dump
from irconv.inspect.explain import kernels_dot
from irconv.kernel import Program, print_kernels

FORMATS: dict[str, Callable[[Graph], str]] = {
    "text": str,
    "json": dump.to_json,
    "dot": dump.to_dot,
    "graphml": dump.to_graphml,
}


@dataclass(frozen=True)
class Shown:
    """A stage of compilation as ``--stage`` lists it.

    The last ones are no graphs: ``program`` is set for the kernels, ``sources`` (by kernel) for the code generated for them.
    """

    name: str
    graph: Graph
    seconds: float
    changed: bool
    program: Program | None = None
    sources: Mapping[str, str] | None = None


@click.command()
@click.argument("model")
@click.option(
    "--input", "inputs", multiple=True, metavar="[NAME=]SHAPE[:TYPE]", help="Such as 1x3x64x64, x=8x9:f64, scalar:i64."
)
@click.option("--backward", is_flag=True, help="Differentiate by the parameters (or, without any, the inputs).")
@click.option("--training", is_flag=True, help="Trace in training mode.")
@click.option(
    "--stage", metavar="all|list|NAME", help="Show what the compiler's passes leave: a stage by name or number."
)
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True)
@click.option("--summary", is_flag=True, help="A table of the layers, and what the graph costs, instead of the graph.")
@click.option("--backend", default="auto", show_default=True, help="Whose kernels to show.")
def show(
    model: str,
    inputs: tuple[str, ...],
    backward: bool,
    training: bool,
    stage: str | None,
    form: str,
    summary: bool,
    backend: str,
) -> None:
    """Print the graph of MODEL."""
    graph = trace_model(model, parse_specs(inputs), training)
    if summary:
        if stage or form != "text":
            raise click.UsageError("--summary stands alone: leave --stage and --format out")
        print_summary(differentiate(graph) if backward else graph)
        return
    if backward:
        graph = differentiate(graph)
    if stage is None:
        print_graph(graph, form)
        return
    shown = stages(graph, backend, backward or bool(graph.updates))
    if stage == "list":
        print_stages(shown)
    elif stage == "all":
        print_all(shown, form)
    else:
        print_stage(choose(shown, stage), form)


def print_graph(graph: Graph, form: str) -> None:
    """The graph in one of ``FORMATS``."""
    written = FORMATS[form](graph)
    if form == "text":
        console.code(written)
    else:
        console.say(written.rstrip("\n"))


# --- stages ----------------------------------------------------------------------------------------------------------------


def stages(graph: Graph, backend: str, training: bool) -> list[Shown]:
    """What compiling leaves on its way, ending with the kernels; names that come again are numbered."""
    executable = build(graph, Options(backend), TRAINING if training else INFERENCE)
    shown: list[Shown] = []
    seen: dict[str, int] = {}
    for stage in executable.stages:
        seen[stage.name] = seen.get(stage.name, 0) + 1
        name = stage.name if seen[stage.name] == 1 else f"{stage.name}#{seen[stage.name]}"
        shown.append(Shown(name, stage.graph, stage.seconds, stage.changed))
    shown.append(Shown("kernels", executable.graph, 0.0, True, executable.program))
    sources: Mapping[str, str] | None = getattr(executable, "sources", None)  # not every backend generates code
    if sources:
        shown.append(Shown("source", executable.graph, 0.0, True, executable.program, sources))
    return shown


def choose(shown: Sequence[Shown], wanted: str) -> Shown:
    """The stage of that name or number.  Raises ModelError listing them."""
    if wanted.isdecimal() and int(wanted) < len(shown):
        return shown[int(wanted)]
    for stage in shown:
        if stage.name == wanted:
            return stage
    names = ", ".join(f"{number} {stage.name}" for number, stage in enumerate(shown))
    raise ModelError(f"there is no stage {wanted!r}", hint=f"stages: {names}")


def print_stages(shown: Sequence[Shown]) -> None:
    """A table of the stages."""
    rows = [
        (
            str(n),
            s.name,
            str(len(s.graph)),
            "-" if s.program else console.milliseconds(s.seconds),
            "yes" if s.changed else "no",
        )
        for n, s in enumerate(shown)
    ]
    console.table(("", "stage", "nodes", "ms", "changed"), rows, right=(0, 2, 3))


def print_stage(stage: Shown, form: str) -> None:
    """One stage."""
    if stage.sources is not None:
        if form != "text":
            raise click.UsageError(f"generated code is text, not {form}")
        console.code("\n\n".join(stage.sources.values()))
    elif stage.program is None:
        print_graph(stage.graph, form)
    elif form == "text":
        console.code(print_kernels(stage.program))
    elif form == "dot":
        console.say(kernels_dot(stage.program).rstrip("\n"))
    else:
        raise click.UsageError(f"kernels are text or dot only, not {form}")


def print_all(shown: Sequence[Shown], form: str) -> None:
    """Every stage in order but generated code; a stage that changed nothing is not printed again."""
    shown = [stage for stage in shown if stage.sources is None]
    if form == "json":
        graphs = [{"stage": s.name, "graph": json.loads(dump.to_json(s.graph))} for s in shown if s.program is None]
        console.say(json.dumps(graphs, indent=1))
        return
    if form != "text":
        raise click.UsageError(f"--stage all writes text or json; for {form} choose one stage")
    for number, stage in enumerate(shown):
        console.heading(f"# {number} {stage.name}" + ("" if stage.changed else ": changed nothing"))
        if stage.changed:
            print_stage(stage, form)
        console.say()


# --- summary ---------------------------------------------------------------------------------------------------------------


def print_summary(graph: Graph) -> None:
    """The layers of the forward graph, and totals of the whole."""
    rows = [
        (
            row.name,
            " ".join(row.kinds),
            str(row.output),
            f"{row.parameters:,}",
            console.count(row.macs),
            console.count(row.flops),
            console.size(row.bytes),
        )
        for row in dump.layer_table(graph)
    ]
    console.table(("layer", "kind", "output", "parameters", "MACs", "FLOPs", "memory"), rows, right=(3, 4, 5, 6))
    total = graph_cost(graph)
    console.say()
    console.table(
        ("total", ""),
        (
            ("ops", f"{len(total.nodes):,}"),
            ("parameters", f"{total.parameters:,} ({console.size(total.parameter_bytes)})"),
            ("MACs", console.count(total.macs)),
            ("FLOPs", console.count(total.flops)),
            ("activations", console.size(total.activation_bytes)),
            ("at one time", console.size(total.peak_bytes)),
        ),
    )
