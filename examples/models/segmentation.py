"""A dilated segmentation head (after Chen et al. 2017): parallel convolutions that look ever further, at full resolution."""

from __future__ import annotations

import irconv
import irconv.nn.functional as F
from irconv import Tensor, nn


class DilatedHead(nn.Module):
    """Branches with dilations 1, 2, 4 and 8 and one of the image's mean, joined and mixed by a 1x1 convolution."""

    def __init__(self, inputs: int, width: int, classes: int, dilations: tuple[int, ...] = (1, 2, 4, 8)):
        super().__init__()
        self.branches = nn.ModuleList([nn.Conv2d(inputs, width, 3, padding=d, dilation=d) for d in dilations])
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, width, 1), nn.ReLU())
        self.mix = nn.Conv2d(width * (len(dilations) + 1), classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        parts = [branch(x).relu() for branch in self.branches]
        parts.append(F.interpolate(self.mean(x), size=(height, width), mode="nearest"))
        return self.mix(irconv.concatenate(parts, axis=1))


class Segmenter(nn.Module):
    """A small backbone at a quarter of the size, the dilated head, and bilinear enlargement back to the image's size."""

    def __init__(self, classes: int = 5, width: int = 32):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
        )
        self.head = DilatedHead(2 * width, width, classes)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.head(self.backbone(x))
        return F.interpolate(scores, size=x.shape[2:], mode="bilinear", align_corners=False)


def segmenter(classes: int = 5, width: int = 32) -> Segmenter:
    return Segmenter(classes, width)
