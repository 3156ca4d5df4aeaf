"""Finding edges with a kernel of two weights, then learning that kernel from what it did.

Run it: python examples/edge_detector.py
"""

from __future__ import annotations

import numpy as np

import irconv
import irconv.nn.functional as F
from irconv import nn, optim

STEPS = 10


def image() -> np.ndarray:
    """White, with a black band."""
    pixels = np.ones((1, 1, 6, 8), np.float32)
    pixels[..., 2:6] = 0
    return pixels


def detect(x: irconv.Tensor) -> irconv.Tensor:
    """1 where white turns black, -1 where black turns white."""
    return F.conv2d(x, irconv.tensor([[[[1.0, -1.0]]]]))


def squared_error(prediction: irconv.Tensor, target: irconv.Tensor) -> irconv.Tensor:
    return ((prediction - target) ** 2).sum()


def learn(steps: int = STEPS, rate: float = 0.03) -> tuple[list[float], np.ndarray]:
    """Losses before each step, and the kernel after the last."""
    x = image()
    target = irconv.compile(detect)(x)
    model = nn.Conv2d(1, 1, (1, 2), bias=False)
    model.weight.assign(np.array([[[[-0.3133, 0.1742]]]], np.float32))
    step = irconv.compile_step(model, squared_error, optim.SGD(model.parameters(), lr=rate))
    losses = [float(step(x, target)) for _ in range(steps)]
    return losses, model.weight.numpy().reshape(2)


def main() -> None:
    x = image()
    edges = irconv.compile(detect)(x)
    print("image:", *x[0, 0].astype(int), sep="\n  ")
    print("edges of its columns:", *edges[0, 0].astype(int), sep="\n  ")
    print("edges of the transposed image's columns: all", irconv.compile(detect)(x.swapaxes(2, 3)).max())
    print("the graph that did it:")
    print(irconv.trace(detect, irconv.TensorSpec(x.shape)))
    losses, kernel = learn()
    for number in range(1, STEPS, 2):
        print(f"step {number + 1:2}: loss {losses[number]:.3f}")
    print(f"learned kernel: {kernel[0]:.4f} {kernel[1]:.4f}, where 1 -1 was used")


if __name__ == "__main__":
    main()
