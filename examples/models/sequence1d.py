"""A 1-D network for time series or audio: dilated residual convolutions along time."""

from __future__ import annotations

from irconv import Tensor, nn


class Residual1d(nn.Module):
    """A gated dilated convolution that keeps the length, added to its input."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.norm = nn.GroupNorm(4, width)
        self.filter = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.gate = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return x + self.filter(y).tanh() * self.gate(y).sigmoid()


class SequenceNet(nn.Module):
    """Classifies sequences of any length with ``channels`` values at each step."""

    def __init__(self, channels: int = 2, classes: int = 6, width: int = 32, depth: int = 5):
        super().__init__()
        self.stem = nn.Conv1d(channels, width, 7, stride=2, padding=3)
        self.blocks = nn.Sequential(*(Residual1d(width, 2**level) for level in range(depth)))
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(self.stem(x))
        return self.head(self.pool(y).flatten(1))


def sequence_net(channels: int = 2, classes: int = 6, width: int = 32, depth: int = 5) -> SequenceNet:
    return SequenceNet(channels, classes, width, depth)
