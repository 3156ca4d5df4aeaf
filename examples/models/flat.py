"""Very flat inputs, 20 rows by 1000 columns (a spectrogram, a multichannel recording): kernels and strides as flat."""

from __future__ import annotations

from irconv import nn


def flat_net(classes: int = 3, width: int = 16) -> nn.Sequential:
    """Columns shrink by 40 before rows shrink at all."""
    return nn.Sequential(
        nn.Conv2d(1, width, (3, 9), stride=(1, 4), padding=(1, 4)),
        nn.ReLU(),
        nn.MaxPool2d((1, 2)),
        nn.Conv2d(width, 2 * width, (3, 5), stride=(1, 5), padding=(1, 2)),
        nn.ReLU(),
        nn.AvgPool2d((2, 1)),
        nn.Conv2d(2 * width, 2 * width, (10, 1)),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d((1, 5)),
        nn.Flatten(),
        nn.Linear(10 * width, classes),
    )
