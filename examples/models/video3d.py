"""A 3-D network for short videos or volumes: convolutions over time (or depth), height and width."""

from __future__ import annotations

from irconv import nn


def block(inputs: int, outputs: int, pool: tuple[int, int, int]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm3d(outputs), nn.ReLU(), nn.MaxPool3d(pool)
    )


def video_net(channels: int = 3, classes: int = 4, width: int = 16) -> nn.Sequential:
    """Time is pooled later than space."""
    return nn.Sequential(
        block(channels, width, (1, 2, 2)),
        block(width, 2 * width, (2, 2, 2)),
        block(2 * width, 4 * width, (2, 2, 2)),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )
