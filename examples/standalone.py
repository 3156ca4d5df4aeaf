"""A network as a C library: written, compiled, run without Python, and compared with what Python gets.

Run it: python examples/standalone.py [--machine avx2] [--output FOLDER]

It writes LeNet for one image, and a training step of it for a batch of eight, as C with headers and weights; compiles both;
starts their programs on arrays in files; and checks that results, losses and trained weights are those of irconv.compile.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import click
import numpy as np
from models.lenet import LeNet

import irconv
import irconv.nn.functional as F
from irconv import optim, random, serialize

STEPS = 10


def check_network(folder: Path, machine: str) -> None:
    """The forward pass."""
    model = LeNet()
    image = np.random.default_rng(0).standard_normal((1, 1, 28, 28)).astype(np.float32)
    compiled = irconv.compile(model, image)
    library = irconv.build_library(compiled, folder, machine=machine)
    np.save(folder / "image.npy", image)
    started(library.folder, "lenet_main", "-n", "100", "-o", "scores.npy", "image.npy")
    difference = np.abs(np.load(folder / "scores.npy") - compiled(image)).max()
    print(f"largest difference from Python: {difference:.1e}")
    assert difference < 1e-5


def check_training(folder: Path, machine: str) -> None:
    """Some steps of training."""
    model = LeNet()
    generator = np.random.default_rng(0)
    images = generator.standard_normal((8, 1, 28, 28)).astype(np.float32)
    labels = generator.integers(0, 10, 8)
    step = irconv.compile_step(model, F.cross_entropy, optim.SGD(model.parameters(), lr=0.1, momentum=0.9), images, labels)
    library = irconv.build_library(step, folder, machine=machine)
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    started(library.folder, "lenet_main", "-n", str(STEPS), "-s", "trained.safetensors", "images.npy", "labels.npy")
    for _ in range(STEPS):
        step(images, labels)
    trained = serialize.load(folder / "trained.safetensors")
    difference = max(float(np.abs(trained[name] - array).max()) for name, array in model.state_dict().items())
    print(f"after {STEPS} steps, largest difference of a weight from Python: {difference:.1e}")
    assert difference < 1e-4


def started(folder: Path, program: str, *arguments: str) -> None:
    """Run a program that has been built, and show what it prints."""
    print(f"$ {program} {' '.join(arguments)}", flush=True)
    subprocess.run([folder.resolve() / program, *arguments], cwd=folder, check=True)


@click.command()
@click.option("--machine", default="generic", show_default=True, help="generic, sse2, avx2, avx512, neon, or native.")
@click.option("--output", metavar="FOLDER", help="Keep what is made in this folder.")
def main(machine: str, output: str | None) -> None:
    """Build LeNet as C and run it without Python."""
    random.manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(output or temporary)
        check_network(folder / "network", machine)
        check_training(folder / "training", machine)


if __name__ == "__main__":
    main()
