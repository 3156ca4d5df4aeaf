"""Trains LeNet on real handwritten digits, and shows the result.

Run it: python examples/lenet.py [--seeds 3]

The 5000 digits of ``mnist.py`` are split 4000 / 1000 with a fixed seed; training images are shifted by up to two pixels.
Into the output folder go the loss curve and some predictions as pictures (with matplotlib), the weights, and the IR.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click
import mnist
import numpy as np
from models.lenet import LeNet
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import irconv
import irconv.nn.functional as F
from irconv import optim, random, serialize
from irconv.data import Batches

GOAL = 0.97
"""Accuracy on held-out digits that a full run must reach."""


@dataclass(frozen=True)
class Recipe:
    """How to train."""

    epochs: int = 20
    batch: int = 50
    rate: float = 4e-3


@dataclass(frozen=True)
class Result:
    """One run: the trained model, the loss of every step, accuracy on held-out digits, and the seconds it took."""

    seed: int
    model: LeNet
    losses: list[float]
    accuracy: float
    seconds: float


def loss_and_accuracy(scores: irconv.Tensor, labels: irconv.Tensor) -> tuple[irconv.Tensor, irconv.Tensor]:
    """What a step returns: the loss to bring down, and the share of right answers.

    A tenth of the probability is spread over all digits, which keeps the model from being too sure.
    """
    right = scores.argmax(1) == labels
    return F.cross_entropy(scores, labels, label_smoothing=0.1), right.astype("f32").mean()


def shift_images(batch: tuple[np.ndarray, np.ndarray], generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What happens to each batch before it is trained on."""
    images, labels = batch
    return mnist.shifted(images, generator, most=2), labels


def rate_at(progress: float, recipe: Recipe) -> float:
    """Up over the first twentieth of the run, then down to zero along a cosine."""
    warmup = min(1.0, progress / 0.05 + 0.05)
    return recipe.rate * warmup * 0.5 * (1 + math.cos(math.pi * progress))


def accuracy(model: LeNet, digits: mnist.Digits) -> float:
    """Share of digits that the model, compiled for inference, gets right."""
    return float((predict(model, digits) == digits.labels).mean())


def predict(model: LeNet, digits: mnist.Digits) -> np.ndarray:
    """The model's answers."""
    return irconv.compile(model)(digits.images).argmax(1)


def train(training: mnist.Digits, held_out: mnist.Digits, seed: int, recipe: Recipe, bar: Progress) -> Result:
    """Train a new model."""
    start = time.perf_counter()
    random.manual_seed(seed)
    model = LeNet()
    optimizer = optim.Adam(model.parameters(), lr=recipe.rate)
    step = irconv.compile_step(model, loss_and_accuracy, optimizer)
    batches = Batches(
        (training.images, training.labels), recipe.batch, seed=seed, drop_last=True, transform=shift_images
    )
    total = recipe.epochs * len(batches)
    task = bar.add_task(f"seed {seed}", total=total, note="")
    losses: list[float] = []
    for _ in range(recipe.epochs):
        for images, labels in batches:
            optimizer.lr = rate_at(len(losses) / total, recipe)
            loss, right = step(images, labels)
            losses.append(float(loss))
            bar.update(task, advance=1, note=f"loss {loss:.3f}  right {right:.0%}")
    reached = accuracy(model, held_out)
    bar.update(task, note=f"{reached:.2%} of held-out digits")
    return Result(seed, model, losses, reached, time.perf_counter() - start)


def save_and_reload(result: Result, held_out: mnist.Digits, folder: Path) -> Path:
    """Write the weights, load them into a fresh model, and make sure that it answers the same."""
    path = folder / "lenet.safetensors"
    serialize.save(result.model.state_dict(), path)
    again = LeNet()
    again.load_state_dict(serialize.load(path))
    if not np.array_equal(predict(again, held_out), predict(result.model, held_out)):
        sys.exit(f"the weights in {path} do not give the model that was saved")
    return path


def draw(result: Result, held_out: mnist.Digits, folder: Path) -> list[Path]:
    """Pictures of the loss curve and of some predictions, the wrong ones first; none without matplotlib."""
    try:
        import matplotlib as mpl  # noqa: PLC0415  # an extra
    except ImportError:
        return []
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415  # after the backend is chosen

    curve, axes = plt.subplots(figsize=(7, 4))
    window = max(1, len(result.losses) // 100)
    smooth = np.convolve(result.losses, np.ones(window) / window, "valid")
    axes.semilogy(result.losses, alpha=0.25, label="each step")
    axes.semilogy(np.arange(len(smooth)) + window - 1, smooth, label=f"mean of {window} steps")
    axes.set(xlabel="step", ylabel="loss", title=f"LeNet, {result.accuracy:.2%} of held-out digits right")
    axes.legend()
    curve.tight_layout()
    curve.savefig(folder / "loss.png", dpi=120)
    plt.close(curve)

    answers = predict(result.model, held_out)
    wrong = np.flatnonzero(answers != held_out.labels)[:12]
    right = np.flatnonzero(answers == held_out.labels)
    others = right[np.linspace(0, len(right) - 1, 36 - len(wrong)).astype(int)] if len(right) else []
    sheet, cells = plt.subplots(4, 9, figsize=(9, 4.6))
    for cell in cells.flat:
        cell.set_axis_off()
    for cell, i in zip(cells.flat, [*wrong, *others], strict=False):
        is_right = answers[i] == held_out.labels[i]
        cell.imshow(held_out.images[i, 0], cmap="gray_r")
        title = f"{answers[i]}" if is_right else f"{answers[i]}, is {held_out.labels[i]}"
        cell.set_title(title, fontsize=9, color="green" if is_right else "red")
    sheet.tight_layout()
    sheet.savefig(folder / "predictions.png", dpi=120)
    plt.close(sheet)
    return [folder / "loss.png", folder / "predictions.png"]


def write_ir(model: LeNet, folder: Path) -> Path:
    """The forward and backward graph of one batch, to read."""
    graph = irconv.trace(model, irconv.TensorSpec((64, 1, 28, 28)))
    path = folder / "lenet.ir"
    irconv.save(irconv.differentiate(graph), path)
    return path


@click.command()
@click.option(
    "--seeds", default=1, show_default=True, type=click.IntRange(1), help="How many runs, with seeds 0, 1, ..."
)
@click.option("--epochs", default=Recipe.epochs, show_default=True, type=click.IntRange(1))
@click.option("--limit", type=click.IntRange(100, 5000), help="Use so many digits only (for a quick look).")
@click.option(
    "--output", default="lenet_output", show_default=True, type=click.Path(path_type=Path), help="Folder to write to."
)
def main(seeds: int, epochs: int, limit: int | None, output: Path) -> None:
    """Train LeNet on handwritten digits."""
    try:
        digits = mnist.load()
    except mnist.DataError as error:
        sys.exit(str(error))
    if limit is not None:
        _, digits = mnist.split(digits, limit)
    training, held_out = mnist.split(digits, len(digits) // 5)
    output.mkdir(parents=True, exist_ok=True)
    print(f"{len(training)} digits to train on, {len(held_out)} held out, split with seed {mnist.SPLIT_SEED}")
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f}%"), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}")) as bar:
        results = [train(training, held_out, seed, Recipe(epochs), bar) for seed in range(seeds)]
    for result in results:
        print(f"seed {result.seed}: {result.accuracy:.2%} of held-out digits right, {result.seconds:.1f} s")
    worst = min(results, key=lambda r: r.accuracy)
    if seeds > 1:
        print(f"worst of {seeds} seeds: {worst.accuracy:.2%}")
    weights = save_and_reload(results[0], held_out, output)
    pictures = draw(results[0], held_out, output)
    graph = write_ir(results[0].model, output)
    print(f"weights: {weights} (loaded again, they give the same answers)")
    print(f"the graph, forward and backward: {graph}")
    print(*[f"picture: {path}" for path in pictures] or ["no pictures: pip install matplotlib"], sep="\n")
    if limit is None and worst.accuracy < GOAL:
        sys.exit(f"{worst.accuracy:.2%} is less than the {GOAL:.0%} this example should reach")


if __name__ == "__main__":
    main()
