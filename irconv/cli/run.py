"""``irconv run``: a model on arrays."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from irconv import serialize, structure
from irconv.cli import console
from irconv.cli.models import load_model, read_arrays, users_code
from irconv.cli.weights import load_weights
from irconv.compile import compile as compile_program
from irconv.errors import IrconvError, ModelError
from irconv.tracing import arranged
from irconv.types import type_of


@click.command()
@click.argument("model")
@click.option(
    "--input", "inputs", multiple=True, metavar="[NAME=]FILE", help="An .npy file, or an .npz with some by name."
)
@click.option(
    "--output", "outputs", multiple=True, metavar="FILE", help="Where results go: one .npy each in order, or one .npz."
)
@click.option("--weights", metavar="FILE", help="Parameters and buffers to load first (.safetensors or .npz).")
@click.option("--backend", default="auto", show_default=True)
@click.option("--tune", is_flag=True, help="Measure kernels and take the fastest; remembered for the next time.")
@click.option("--repeat", type=click.IntRange(1), default=1, help="Run so often and tell the best time.")
def run(
    model: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    weights: str | None,
    backend: str,
    tune: bool,
    repeat: int,
) -> None:
    """Run MODEL on arrays from files."""
    source = load_model(model)
    if weights:
        load_weights(source, weights)
    arrays = read_arrays(inputs)
    with users_code(f"{model} cannot be compiled"):
        compiled = compile_program(source, backend=backend, tune=tune)
        try:
            given, named = arranged(source, arrays.positional, arrays.named or {})
            compiled.specialise(*given, **named)
        except IrconvError as error:
            if not arrays.any:
                error.hint = "give the inputs: --input x.npy"
            raise
    seconds = []
    results: Any = None
    for _ in range(repeat):
        start = time.perf_counter()
        results = compiled(*given, **named)
        seconds.append(time.perf_counter() - start)
    found = [(path or "output", np.asarray(array)) for path, array in structure.leaves(results)]
    write(found, outputs)
    rows = [(path, str(type_of(array)), *_statistics(array)) for path, array in found]
    console.table(("result", "type", "min", "mean", "max"), rows, right=(2, 3, 4))
    console.say(f"{compiled.backend}: {console.milliseconds(min(seconds))} ms")


def write(found: list[tuple[str, np.ndarray]], outputs: tuple[str, ...]) -> None:
    """Save results: to one ``.npz`` by path, or to one ``.npy`` each."""
    if not outputs:
        return
    try:
        if len(outputs) == 1 and Path(outputs[0]).suffix == ".npz":
            serialize.save(dict(found), outputs[0])
            return
        if len(outputs) != len(found):
            raise click.UsageError(
                f"the model has {len(found)} results, --output names {len(outputs)} files; or give one .npz"
            )
        for file, (_, array) in zip(outputs, found, strict=True):
            with open(file, "wb") as stream:  # numpy.save would add a suffix of its own
                np.save(stream, array, allow_pickle=False)
    except OSError as error:
        raise ModelError(
            f"cannot write results: {error}", hint="check that the folder exists and can be written"
        ) from None


def _statistics(array: np.ndarray) -> tuple[str, str, str]:
    if not array.size:
        return "-", "-", "-"
    return f"{array.min():.6g}", f"{array.mean():.6g}", f"{array.max():.6g}"
