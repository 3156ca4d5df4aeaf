"""Teaches a network that was trained on faces to read digits, and hands it back as an ONNX file.

The second network of the face detector (``face_detection.py``) comes out of its ONNX file, keeps its layers up to the last
convolution, frozen, and gets a new head of one layer, which is trained on the digits of ``mnist.py``.  The result is exported,
read again, and gives the same answers; onnxruntime runs it too.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
import mnist
import numpy as np
from packaged import MTCNN
from rich.progress import track

import irconv
import irconv.nn.functional as F
from irconv import nn, optim, random
from irconv.data import Batches
from irconv.frontends.onnx import export, load_model

FEATURES = "flatten/Reshape:0"
"""What the file calls the result of the last convolution, flattened."""

SIDE = 24
"""The network sees squares of 24 pixels."""

GOAL = 0.95
"""Accuracy on held-out digits that a full run must reach."""


class DigitReader(nn.Module):
    """Scores of the ten digits for images [N,1,28,28]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = load_model(MTCNN.path("rnet.onnx")).until(FEATURES).freeze()
        self.head = nn.Linear(64 * 3 * 3, 10)

    def forward(self, images: irconv.Tensor) -> irconv.Tensor:
        return self.head(self.body(self.as_photograph(images)))

    def as_photograph(self, images: irconv.Tensor) -> irconv.Tensor:
        """Grey images of 0 to 1 as the body wants them: columns first, three colours last, -1 to 1."""
        small = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear") * 2 - 1
        return irconv.concatenate([small] * 3, axis=1).transpose(0, 3, 2, 1)


def loss_and_accuracy(scores: irconv.Tensor, labels: irconv.Tensor) -> tuple[irconv.Tensor, irconv.Tensor]:
    """What a step returns: the loss to bring down, and the share of right answers."""
    return F.cross_entropy(scores, labels), (scores.argmax(1) == labels).astype("f32").mean()


def train(model: DigitReader, digits: mnist.Digits, epochs: int) -> None:
    """Train what is not frozen."""
    optimizer = optim.Adam(model.head.parameters(), lr=2e-3, weight_decay=1e-3)
    step = irconv.compile_step(model, loss_and_accuracy, optimizer)
    batches = Batches((digits.images, digits.labels), 50, seed=0, drop_last=True)
    for epoch in track(range(epochs), "training"):
        optimizer.lr = 2e-3 * (1 - epoch / epochs)
        right = [float(step(images, labels)[1]) for images, labels in batches]
        print(f"epoch {epoch + 1}: {np.mean(right):.1%} of training digits right")


def run_with_onnxruntime(path: Path, images: np.ndarray) -> np.ndarray | None:
    """The scores as onnxruntime computes them, where it is installed."""
    try:
        import onnxruntime  # noqa: PLC0415  # an extra
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    scores: np.ndarray = session.run(None, {session.get_inputs()[0].name: images})[0]
    return scores


@click.command()
@click.option("--epochs", default=8, show_default=True, type=click.IntRange(1))
@click.option("--limit", type=click.IntRange(100, 5000), help="Use so many digits only (for a quick look).")
@click.option("--output", default="digits.onnx", show_default=True, type=click.Path(dir_okay=False, path_type=Path))
def main(epochs: int, limit: int | None, output: Path) -> None:
    """Fine-tune a face network to read digits."""
    random.manual_seed(0)
    try:
        digits = mnist.load()
        model = DigitReader()
    except mnist.DataError as error:
        sys.exit(str(error))
    if limit is not None:
        _, digits = mnist.split(digits, limit)
    training, held_out = mnist.split(digits, len(digits) // 5)
    trained = sum(p.size for p in model.parameters() if p.requires_grad)
    frozen = sum(p.size for p in model.parameters()) - trained
    print(f"{frozen} parameters frozen, {trained} to train on {len(training)} digits")
    start = time.perf_counter()
    train(model, training, epochs)
    scores = irconv.compile(model)(held_out.images)
    reached = float((scores.argmax(1) == held_out.labels).mean())
    print(f"{reached:.2%} of {len(held_out)} held-out digits right, after {time.perf_counter() - start:.1f} s")

    output.parent.mkdir(parents=True, exist_ok=True)
    export(irconv.trace(model, irconv.TensorSpec(held_out.images.shape, name="images")), output)
    again = irconv.compile(output)(held_out.images)
    others = run_with_onnxruntime(output, held_out.images)
    for name, given in (("irconv", again), ("onnxruntime", others)):
        if given is not None and not np.allclose(given, scores, rtol=1e-3, atol=1e-4):
            sys.exit(f"{output} does not give the scores of the model that was exported when {name} runs it")
    print(f"the network: {output} (read again, it gives the same scores{', in onnxruntime too' * (others is not None)})")
    if limit is None and reached < GOAL:
        sys.exit(f"{reached:.2%} is less than the {GOAL:.0%} this example should reach")


if __name__ == "__main__":
    main()
