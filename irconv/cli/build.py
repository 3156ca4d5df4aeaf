"""``irconv build``: a model, or a training step of it, as C that runs without Python."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from irconv.cli import console
from irconv.cli.models import InputSpecs, load_model, parse_spec, parse_specs, users_code
from irconv.cli.train import CLASSIFIES, LOSSES, OPTIMIZERS
from irconv.cli.weights import load_weights
from irconv.compile import Compiled
from irconv.compile import compile as compile_program
from irconv.errors import IrconvError, ModelError
from irconv.graph import Graph
from irconv.nn.module import Module
from irconv.tracing import arranged, trace
from irconv.training import Step, compile_step
from irconv.types import I64, TensorSpec

MACHINES = ("generic", "sse2", "avx2", "avx512", "neon", "native")
"""What ``--machine`` takes; the first is any processor, which is what a library is for unless it is said."""


@click.command()
@click.argument("model")
@click.option("-o", "--output", "folder", required=True, metavar="DIR", help="Where everything goes.")
@click.option(
    "--input", "inputs", multiple=True, metavar="[NAME=]SHAPE[:TYPE]", help="Such as 1x3x64x64, x=8x9:f64, scalar:i64."
)
@click.option(
    "--machine", type=click.Choice(MACHINES), default=MACHINES[0], show_default=True, help="The processors that it is for."
)
@click.option("--name", help="With what functions begin; by default the model's name.")
@click.option("--weights", metavar="FILE", help="Parameters and buffers to load first (.safetensors or .npz).")
@click.option("--embed", is_flag=True, help="Put the weights into the library, too.")
@click.option(
    "--threads", type=click.IntRange(1), default=16, show_default=True, help="The most that it may use."
)
@click.option("--precision", type=click.Choice(["fast", "strict"]), default="fast", show_default=True)
@click.option("--tune", is_flag=True, help="Measure several ways to compute each convolution, for this machine alone.")
@click.option("--no-compile", is_flag=True, help="Write sources and a Makefile only.")
@click.option("--train", is_flag=True, help="Build a training step instead of the forward pass.")
@click.option("--loss", type=click.Choice(list(LOSSES)), default="cross_entropy", show_default=True)
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), default="adam", show_default=True)
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=1e-3, show_default=True, help="Learning rate.")
@click.option("--target", metavar="SHAPE[:TYPE]", help="Of the target; by default what the loss wants for the output.")
def build(
    model: str,
    folder: str,
    inputs: tuple[str, ...],
    machine: str,
    name: str | None,
    weights: str | None,
    embed: bool,
    threads: int,
    precision: str,
    tune: bool,
    no_compile: bool,
    train: bool,
    loss: str,
    optimizer: str,
    lr: float,
    target: str | None,
) -> None:
    """Write MODEL as C with its weights, a static and a shared library, and a program that runs without Python.

    The code is for the processors that --machine names, not for the ones of the machine that builds it.  With --tune they have
    to be the same.
    """
    source: Any = load_model(model)
    if weights:
        load_weights(source, weights)
    specs = parse_specs(inputs)
    with users_code(f"{model} cannot be compiled"):
        program = (
            _training_step(model, source, specs, loss, optimizer, lr, target, precision)
            if train
            else _network(source, specs, precision)
        )
        chosen = name or _short_name(model)
        builder = import_module("irconv.standalone")  # with all generators of code: other commands do not wait for them
        library = builder.build_library(
            program, folder, name=chosen, machine=machine, threads=threads, embed=embed, precision=precision,
            compile=not no_compile, tune=tune,
        )  # fmt: skip
    report(library, named=machine)


def _short_name(model: str) -> str:
    """``lenet`` of ``models.py:lenet``, ``net`` of ``net.onnx``."""
    file, _, name = model.rpartition(":")
    return name if file and re.fullmatch(r"\w+", name) else Path(model).stem


def _network(source: Any, specs: InputSpecs, precision: str) -> Compiled:
    """The forward pass, planned without a C compiler."""
    if isinstance(source, Graph) and specs.any:
        raise click.UsageError("the inputs of a graph are fixed; leave --input out")
    compiled = compile_program(source, backend="numpy", precision=precision)
    if isinstance(source, Graph):
        return compiled
    try:
        args, kwargs = arranged(source, specs.positional, specs.named or {})
        compiled.specialise(*args, **kwargs)
    except IrconvError as error:
        if not specs.any:
            error.hint = "say what the inputs look like: --input 1x3x224x224[:f32]"
        raise
    return compiled


def _training_step(
    model: str, source: Any, specs: InputSpecs, loss: str, optimizer: str, lr: float, target: str | None, precision: str
) -> Step:
    if not isinstance(source, Module):
        raise ModelError(f"{model} is not a module: it has no parameters to train")
    if not specs.any:
        raise click.UsageError("say what the inputs look like: --input 8x3x224x224[:f32]")
    args, kwargs = arranged(source, specs.positional, specs.named or {})
    if kwargs:
        raise click.UsageError("a training step takes its inputs by position: leave the names in --input out")
    wanted = parse_spec(target)[1] if target else target_spec(trace(source, *args, training=True), loss)
    chosen = OPTIMIZERS[optimizer](list(source.parameters()), lr=lr)
    return compile_step(source, LOSSES[loss], chosen, *args, wanted, backend="numpy", precision=precision)


def target_spec(graph: Graph, loss: str) -> TensorSpec:
    """The target of a loss for what a network gives: class numbers along axis 1, or values like its own."""
    if list(graph.outputs) != [""]:
        raise ModelError("training needs a model with one output", hint=f"this one has {', '.join(graph.outputs)}")
    type_ = graph[graph.outputs[""]].type
    if loss not in CLASSIFIES:
        return TensorSpec(type_.shape, type_.dtype)
    if type_.rank < 2:
        raise ModelError(f"{loss} needs scores of shape (batch, classes, ...), the model gives {list(type_.shape)}")
    return TensorSpec((type_.shape[0], *type_.shape[2:]), I64)


def report(library: Any, named: str) -> None:
    """What was made, and for which processors."""
    processors = "any processor" if library.machine == MACHINES[0] else f"{library.machine} processors"
    note = " (this machine's own, as it was asked for)" if named == "native" else ""
    console.say(f"{library.folder}: {library.name}, {library.kernels} files of kernels for {processors}{note}")
    console.say(f"  {library.name}.h says how to call it; it allocates {console.size(library.memory_bytes)}")
    for path in library.built:
        console.say(f"  {path.name}: {console.size(path.stat().st_size)}")
    if not library.built:
        console.say("  not compiled: run make there")
    if library.machine == MACHINES[0]:
        console.say("  name the processors for faster code: --machine avx2, avx512, neon, ...")
