"""``irconv train``: a model on arrays from a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

import irconv.nn.functional as F
from irconv import optim, random, serialize
from irconv.cli import console
from irconv.cli.models import load_model, read_file, users_code
from irconv.cli.weights import load_weights
from irconv.compile import compile as compile_program
from irconv.data import Batches
from irconv.errors import ModelError
from irconv.nn.module import Module
from irconv.tensor import Tensor, tensor
from irconv.training import Step, compile_step

LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": F.cross_entropy,
    "nll": F.nll_loss,
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "huber": F.huber_loss,
    "bce": F.binary_cross_entropy,
    "bce_with_logits": F.binary_cross_entropy_with_logits,
}

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "sgd": optim.SGD,
    "momentum": lambda parameters, lr: optim.SGD(parameters, lr=lr, momentum=0.9),
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "rmsprop": optim.RMSprop,
}

CLASSIFIES = ("cross_entropy", "nll")
"""Losses whose targets are class numbers: accuracy can be told."""


@dataclass(frozen=True)
class Data:
    """Inputs of the model, all with the same number of rows, and a target for each row."""

    inputs: tuple[np.ndarray, ...]
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.target)

    def take(self, rows: np.ndarray) -> Data:
        return Data(tuple(x[rows] for x in self.inputs), self.target[rows])


@click.command()
@click.argument("model")
@click.option(
    "--data", required=True, metavar="FILE.npz", help="The target (see --target) and the model's inputs in order."
)
@click.option("--target", default="y", show_default=True, help="Name of the target among the arrays.")
@click.option("--loss", type=click.Choice(list(LOSSES)), default="cross_entropy", show_default=True)
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), default="adam", show_default=True)
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=1e-3, show_default=True, help="Learning rate.")
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True)
@click.option(
    "--held-out", type=click.FloatRange(0, 0.9), default=0.1, show_default=True, help="Share of the rows to test on."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--weights", metavar="FILE", help="Parameters and buffers to start from.")
@click.option("--output", metavar="FILE", help="Where the trained ones go (.safetensors or .npz).")
@click.option("--backend", default="auto", show_default=True)
@click.option("--tune", is_flag=True, help="Measure kernels and take the fastest; remembered for the next time.")
def train(
    model: str,
    data: str,
    target: str,
    loss: str,
    optimizer: str,
    lr: float,
    epochs: int,
    batch: int,
    held_out: float,
    seed: int,
    weights: str | None,
    output: str | None,
    backend: str,
    tune: bool,
) -> None:
    """Train MODEL on arrays from a file."""
    random.manual_seed(seed)
    network = load_model(model)
    if not isinstance(network, Module):
        raise ModelError(f"{model} is not a module: it has no parameters to train")
    if weights:
        load_weights(network, weights)
    if output:
        serialize.writable_path(output)  # found out before hours of training
    everything = read_data(data, target)
    order = np.random.default_rng(seed).permutation(len(everything))
    kept = round(held_out * len(everything))
    training, test = everything.take(order[kept:]), everything.take(order[:kept])
    if not len(training):
        raise ModelError(f"{data}: no rows are left to train on")
    step = compile_step(
        network, LOSSES[loss], OPTIMIZERS[optimizer](list(network.parameters()), lr=lr), backend=backend, tune=tune
    )
    with users_code(f"{model} cannot be trained"):
        fit(step, training, epochs, min(batch, len(training)), seed)
    if len(test):
        report(network, test, loss, backend)
    if output:
        serialize.save(network.state_dict(), output)
        console.say(f"wrote {output}")


def read_data(file: str, target: str) -> Data:
    """The arrays of an ``.npz`` file.  ModelError where the target is missing or the numbers of rows differ."""
    arrays = read_file(file)
    if not isinstance(arrays, dict):
        hint = "write it with numpy.savez(file, x=..., y=...)"
        raise ModelError(f"{file} holds one array; training needs inputs and a target", hint=hint)
    if target not in arrays or len(arrays) < 2:
        hint = f"it needs the target {target!r} (or --target) and the inputs"
        raise ModelError(f"{file} has the arrays {', '.join(arrays) or 'none'}", hint=hint)
    rows = {name: array.shape[:1] for name, array in arrays.items()}
    if len(set(rows.values())) != 1 or () in rows.values():
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise ModelError(f"{file}: the arrays differ in their number of rows: {shapes}")
    return Data(tuple(array for name, array in arrays.items() if name != target), arrays[target])


def fit(step: Step, data: Data, epochs: int, size: int, seed: int) -> None:
    """Train, with a progress bar on a terminal, and a line for each epoch."""
    batches = Batches((*data.inputs, data.target), size, seed=seed, drop_last=True)
    with console.progress() as bar:
        task = bar.add_task("training", total=epochs * len(batches), note="")
        for epoch in range(1, epochs + 1):
            losses = []
            for batch in batches:
                losses.append(float(step(*batch)))
                bar.update(task, advance=1, note=f"loss {losses[-1]:.4g}")
            console.say_beside(bar, f"epoch {epoch}/{epochs}: loss {np.mean(losses):.4g}")


def report(network: Module, test: Data, loss: str, backend: str) -> None:
    """Loss, and accuracy where there are classes, on the rows held out."""
    scores = np.asarray(compile_program(network, backend=backend)(*test.inputs))
    value = float(LOSSES[loss](tensor(scores), tensor(test.target)))
    right = f", {np.mean(scores.argmax(1) == test.target):.2%} right" if loss in CLASSIFIES else ""
    console.say(f"{len(test)} rows held out: loss {value:.4g}{right}")
