"""The shape of a convolution, as its kernels see it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from irconv.ops.window import Ints, Pairs
from irconv.types import TensorType


@dataclass(frozen=True)
class Geometry:
    """A convolution of x [batch, channels, *size] with w [out_channels, channels / groups, *kernel].

    The result is [batch, out_channels, *counts].  Positions outside 0..size-1 read as zero; ``padding`` says how far before
    the input the first window starts.
    """

    batch: int
    channels: int
    size: Ints
    out_channels: int
    kernel: Ints
    counts: Ints
    stride: Ints
    padding: Pairs
    dilation: Ints
    groups: int

    @property
    def area(self) -> int:
        """Windows of a sample."""
        return math.prod(self.counts)

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def depth(self) -> int:
        """Products summed into one element: rows of a group's window matrix."""
        return self.channels // self.groups * self.taps

    @property
    def is_pointwise(self) -> bool:
        """Whether the window matrix of a sample is the sample itself."""
        no_padding = all(before == 0 for before, _ in self.padding)
        return self.taps == 1 and no_padding and self.counts == self.size and set(self.stride) == {1}


def conv_geometry(a: Any, x: TensorType, w: TensorType, result: TensorType) -> Geometry:
    """The geometry of a conv with attributes ``a``."""
    size, kernel, counts = x.shape[2:], w.shape[2:], result.shape[2:]
    return Geometry(x.shape[0], x.shape[1], size, w.shape[0], kernel, counts, a.stride, a.padding, a.dilation, a.groups)
