"""VGG-11 and VGG-16 (Simonyan and Zisserman 2014): 3x3 convolutions between halvings, then a large classifier."""

from __future__ import annotations

from irconv import Tensor, nn

# how many convolutions before each max pooling
VGG11 = (1, 1, 2, 2, 2)
VGG16 = (2, 2, 3, 3, 3)


class VGG(nn.Module):
    """``width`` channels at first, doubled after each pooling up to eight times as many."""

    def __init__(self, counts: tuple[int, ...], classes: int = 1000, width: int = 64, hidden: int = 4096):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for number, count in enumerate(counts):
            outputs = width * min(2**number, 8)
            for _ in range(count):
                layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU()]
                channels = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * 49, hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)))


def vgg11(classes: int = 1000, width: int = 64, hidden: int = 4096) -> VGG:
    return VGG(VGG11, classes, width, hidden)


def vgg16(classes: int = 1000, width: int = 64, hidden: int = 4096) -> VGG:
    return VGG(VGG16, classes, width, hidden)
