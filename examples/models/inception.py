"""An inception network in the manner of GoogLeNet (Szegedy et al. 2014): four branches side by side, joined by channel."""

from __future__ import annotations

import irconv
from irconv import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int, padding: int = 0) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.ReLU())


class Inception(nn.Module):
    """Branches of 1x1, 3x3 and 5x5 convolutions and of max pooling, each at the input's size.

    three, five: channels after the first and after the second convolution of their branch.
    """

    def __init__(self, inputs: int, one: int, three: tuple[int, int], five: tuple[int, int], pooled: int):
        super().__init__()
        self.one = conv(inputs, one, 1)
        self.three = nn.Sequential(conv(inputs, three[0], 1), conv(three[0], three[1], 3, padding=1))
        self.five = nn.Sequential(conv(inputs, five[0], 1), conv(five[0], five[1], 5, padding=2))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv(inputs, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        return irconv.concatenate([self.one(x), self.three(x), self.five(x), self.pooled(x)], axis=1)


def googlenet(classes: int = 1000) -> nn.Sequential:
    """The whole network: 224x224 images through nine inception blocks."""

    def halve() -> nn.Module:
        return nn.MaxPool2d(3, stride=2, padding=1)

    return nn.Sequential(
        nn.Conv2d(3, 64, 7, stride=2, padding=3),
        nn.ReLU(),
        halve(),
        conv(64, 64, 1),
        conv(64, 192, 3, padding=1),
        halve(),
        Inception(192, 64, (96, 128), (16, 32), 32),
        Inception(256, 128, (128, 192), (32, 96), 64),
        halve(),
        Inception(480, 192, (96, 208), (16, 48), 64),
        Inception(512, 160, (112, 224), (24, 64), 64),
        Inception(512, 128, (128, 256), (24, 64), 64),
        Inception(512, 112, (144, 288), (32, 64), 64),
        Inception(528, 256, (160, 320), (32, 128), 128),
        halve(),
        Inception(832, 256, (160, 320), (32, 128), 128),
        Inception(832, 384, (192, 384), (48, 128), 128),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(1024, classes),
    )


def small_inception(classes: int = 10) -> nn.Sequential:
    """Two inception blocks, for 32x32 images."""
    return nn.Sequential(
        conv(3, 16, 3, padding=1),
        nn.MaxPool2d(2),
        Inception(16, 8, (8, 12), (4, 8), 4),
        nn.MaxPool2d(2),
        Inception(32, 16, (16, 24), (4, 12), 12),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )
