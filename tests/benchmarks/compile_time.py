"""How long compilation takes, step by step, and whether it stays linear in the number of nodes.

    python tests/benchmarks/compile_time.py [--models resnet18 ...] [--kind forward|train] [--batch 2] [--size 64] [--repeat 3]

For each network: nodes of the traced graph, seconds for tracing, differentiating, each pass (all its runs), copying and
verifying graphs between passes, fusing, scheduling, planning memory and binding, and microseconds per node.  Every number
is the best of the repeats.  Time does not depend on the image size; a small one keeps memory low.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import click
import tables

import irconv
import irconv.nn.functional as F
from irconv import optim, training
from irconv.backends.numpy.backend import NumpyBackend
from irconv.passes.base import Pipeline

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from models import MODELS  # from examples/

DRIVER = sys.modules["irconv.compile"]  # irconv.compile itself is the function
KINDS = ("forward", "train")
STEPS = ("trace", "differentiate", "passes", "between passes", "fuse", "schedule", "plan", "bind")
TIMED: tuple[tuple[str, Any, str], ...] = (
    ("trace", DRIVER, "trace"),
    ("trace", training, "trace_step"),
    ("differentiate", training, "differentiate"),
    ("pipeline", Pipeline, "run"),
    ("fuse", DRIVER, "fuse"),
    ("schedule", DRIVER, "schedule"),
    ("plan", DRIVER, "plan_memory"),
    ("bind", NumpyBackend, "build"),
)


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Inside the block, the time spent in each function of ``TIMED`` is added up under its label."""
    seconds: dict[str, float] = {}

    def timed(label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[label] = seconds.get(label, 0.0) + time.perf_counter() - start

        return run

    with ExitStack() as patches:
        for label, owner, name in TIMED:
            patches.enter_context(mock.patch.object(owner, name, timed(label, getattr(owner, name))))
        yield seconds


def program_of(kind: str, name: str, batch: int, size: int) -> Callable[[], Any]:
    """What compiles the network: a fresh one each time."""
    specs = [irconv.TensorSpec((batch, 3, size, size))]
    model = MODELS[name].make()
    if kind == "forward":
        return lambda: irconv.compile(model, *specs, backend="numpy")
    specs.append(irconv.TensorSpec((batch,), "i64"))
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return lambda: irconv.compile_step(model, F.cross_entropy, optimizer, *specs, backend="numpy")


def measure(compile_once: Callable[[], Any]) -> tuple[int, dict[str, float]]:
    """Nodes of the traced graph, and seconds by step and by pass (``pass:NAME``)."""
    with stopwatch() as seconds:
        start = time.perf_counter()
        program = compile_once()
        seconds["whole"] = time.perf_counter() - start
    for stage in program.stages[1:]:
        label = f"pass:{stage.name.partition('{')[0]}"
        seconds[label] = seconds.get(label, 0.0) + stage.seconds
    seconds["passes"] = sum(stage.seconds for stage in program.stages)
    seconds["between passes"] = seconds.pop("pipeline") - seconds["passes"]
    # differentiation happens inside the trace of a training step
    seconds["trace"] -= seconds.setdefault("differentiate", 0.0)
    return len(program.stages[0].graph), seconds


def show_profile(compile_once: Callable[[], Any], lines: int) -> None:
    """Where the time goes, function by function."""
    profiler = cProfile.Profile()
    profiler.runcall(compile_once)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(lines)


@click.command()
@click.option("--models", multiple=True, default=("resnet18", "resnet50", "resnet152"), show_default=True)
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), default=KINDS, show_default=True)
@click.option("--batch", default=2, show_default=True, type=click.IntRange(1))
@click.option("--size", default=64, show_default=True, type=click.IntRange(32), help="Sides of the images.")
@click.option("--repeat", default=3, show_default=True, type=click.IntRange(1))
@click.option("--profile", default=0, show_default=True, type=click.IntRange(0), help="Also show so many lines of cProfile.")
def main(models: tuple[str, ...], kinds: tuple[str, ...], batch: int, size: int, repeat: int, profile: int) -> None:
    """Measure compile times."""
    cells, by_pass = [], []
    for kind in kinds:
        for name in models:
            compile_once = program_of(kind, name, batch, size)
            runs = [measure(compile_once) for _ in range(repeat)]
            nodes = runs[0][0]
            best = {label: min(run[label] for _, run in runs) for label in runs[0][1]}
            row = [f"{kind} {name}", str(nodes), *(f"{best[step]:.3f}" for step in STEPS)]
            cells.append([*row, f"{best['whole']:.3f}", f"{1e6 * best['whole'] / nodes:.0f}"])
            spent = sorted(((s, p) for p, s in best.items() if p.startswith("pass:")), reverse=True)
            by_pass.append([f"{kind} {name}", ", ".join(f"{p.removeprefix('pass:')} {s:.3f}" for s, p in spent)])
            if profile:
                show_profile(compile_once, profile)
    tables.show("compile time in seconds", ("graph", "nodes", *STEPS, "whole", "us per node"), cells)
    tables.show("by pass, in seconds", ("graph", "passes"), by_pass)


if __name__ == "__main__":
    main()
