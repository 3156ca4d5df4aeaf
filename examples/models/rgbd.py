"""RGB and depth: two inputs with a branch each, joined half way."""

from __future__ import annotations

import irconv
from irconv import Tensor, nn


def branch(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, width, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(width),
        nn.LeakyReLU(0.1),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.LeakyReLU(0.1),
    )


class RGBD(nn.Module):
    """Classifies a scene from its colours [N,3,H,W] and its depth [N,1,H,W]."""

    def __init__(self, classes: int = 8, width: int = 16):
        super().__init__()
        self.colours = branch(3, width)
        self.distances = branch(1, width)
        self.joined = nn.Sequential(nn.Conv2d(4 * width, 4 * width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.head = nn.Linear(16 * width, classes)

    def forward(self, rgb: Tensor, depth: Tensor) -> Tensor:
        y = irconv.concatenate([self.colours(rgb), self.distances(depth)], axis=1)
        return self.head(self.joined(y).flatten(1))


def rgbd(classes: int = 8, width: int = 16) -> RGBD:
    return RGBD(classes, width)
