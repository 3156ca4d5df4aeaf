"""``irconv profile``: what each kernel of a model takes, beside what this machine could do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from irconv.backends.base import Choice
from irconv.backends.numpy.parallel import thread_count
from irconv.bench.task import LOSSES, Task
from irconv.cli import console
from irconv.cli.models import parse_specs
from irconv.cli.programs import prepare
from irconv.errors import ModelError
from irconv.inspect.profile import KernelTime, kernel_times, trace_json
from irconv.inspect.roofline import Roofline, measure


@click.command()
@click.argument("model")
@click.option("--input", "inputs", multiple=True, metavar="[NAME=]SHAPE[:TYPE]|FILE.npy", help="Shapes get random numbers.")
@click.option("--train", is_flag=True, help="Profile a training step (SGD with momentum).")
@click.option("--loss", type=click.Choice(list(LOSSES)), default="cross_entropy", show_default=True)
@click.option("--weights", metavar="random|own|FILE", default="own", show_default=True)
@click.option("--backend", default="auto", show_default=True)
@click.option("--precision", type=click.Choice(["fast", "strict"]), default="fast", show_default=True)
@click.option("--tune", is_flag=True, help="Measure kernels and take the fastest; remembered for the next time.")
@click.option("--repeat", type=click.IntRange(1), default=10, show_default=True, help="Runs; the best times count.")
@click.option("--top", type=click.IntRange(1), metavar="N", help="Only the N slowest kernels.")
@click.option("--trace", "trace_file", metavar="FILE.json", help="Write a trace that https://ui.perfetto.dev opens.")
def profile(
    model: str,
    inputs: tuple[str, ...],
    train: bool,
    loss: str,
    weights: str,
    backend: str,
    precision: str,
    tune: bool,
    repeat: int,
    top: int | None,
    trace_file: str | None,
) -> None:
    """Time each kernel of MODEL."""
    task = Task(model, train, loss, precision=precision, tune=tune)
    ready = prepare(task, parse_specs(inputs), backend, weights)
    before = measure(thread_count())
    rows = ready.executable.profile(*ready.args, repeat=repeat)
    if trace_file:
        write_trace(trace_file, trace_json(rows, model))
    roofline = measure(thread_count()).at_least(before)
    times = kernel_times(rows, roofline)
    print_kernels(times, top)
    console.say()
    print_kinds(times)
    console.say()
    print_total(times, roofline, ready.executable.backend)
    choices: dict[str, Choice] = getattr(ready.executable, "tuning", {})  # backends with nothing to choose have none
    if choices:
        console.say()
        print_choices(choices)


def write_trace(file: str, text: str) -> None:
    """Raises ModelError if the file cannot be written."""
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ModelError(f"cannot write {file}: {error}", hint="check that the folder exists and can be written") from None


def print_kernels(times: Sequence[KernelTime], top: int | None) -> None:
    """The kernels, slowest first."""
    rows = [
        (
            time.name,
            time.kind,
            f"{1e3 * time.seconds:.3f}",
            f"{time.share:.1%}",
            f"{time.flops_per_second / 1e9:.1f}",
            f"{time.bytes_per_second / 1e9:.1f}",
            f"{time.of_roofline:.0%}",
            time.line,
        )
        for time in times[:top]
    ]
    columns = ("kernel", "kind", "ms", "share", "GFLOP/s", "GB/s", "of roofline", "line")
    console.table(columns, rows, right=range(2, 7))


def print_kinds(times: Sequence[KernelTime]) -> None:
    """Each kind's time."""
    kinds: dict[str, list[KernelTime]] = {}
    for time in times:
        kinds.setdefault(time.kind, []).append(time)
    ordered = sorted(kinds.items(), key=lambda item: -sum(time.seconds for time in item[1]))
    rows = [
        (kind, str(len(each)), f"{1e3 * sum(t.seconds for t in each):.3f}", f"{sum(t.share for t in each):.1%}")
        for kind, each in ordered
    ]
    console.table(("kind", "kernels", "ms", "share"), rows, right=(1, 2, 3))


def print_choices(choices: Mapping[str, Choice]) -> None:
    """What was measured for each geometry: the candidate that was taken, the cost model's, and the best of the others."""
    rows = []
    for choice in dict.fromkeys(choices.values()):
        seconds = dict(choice.times)
        others = [(name, taken) for name, taken in choice.times if name not in (choice.chosen, choice.planned)]
        third = f"{1e6 * others[0][1]:.1f} {others[0][0]}" if others else ""
        planned = "the same" if choice.chosen == choice.planned else f"{1e6 * seconds[choice.planned]:.1f} {choice.planned}"
        chosen = f"{1e6 * seconds[choice.chosen]:.1f} {choice.chosen}"
        rows.append((choice.geometry, chosen, planned, third, str(len(choice.times))))
    title = "chosen by measurement (us, alone)"
    console.table(("geometry", "chosen", "cost model's", "best of the others", "tried"), rows, right=(4,), title=title)


def print_total(times: Sequence[KernelTime], roofline: Roofline, backend: str) -> None:
    """All kernels together."""
    total = sum(time.seconds for time in times)
    flops = sum(time.flops_per_second * time.seconds for time in times) / total if total else 0.0
    rate = f"{flops / 1e9:.1f} GFLOP/s, {flops / roofline.flops:.0%} of this machine's peak"
    console.say(f"{backend}: {len(times)} kernels, {1e3 * total:.3f} ms together, {rate}; roofline {roofline}")
