"""U-Net (Ronneberger et al. 2015): down by pooling, up by transposed convolutions, each level joined to its counterpart."""

from __future__ import annotations

import irconv
from irconv import Tensor, nn


class Double(nn.Sequential):
    """Two 3x3 convolutions with batch norm."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class Up(nn.Module):
    """Twice the size by a transposed convolution, joined to the features of that size from the way down."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.grow = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
        self.convs = Double(2 * outputs, outputs)

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        return self.convs(irconv.concatenate([skipped, self.grow(x)], axis=1))


class UNet(nn.Module):
    """A mask of ``classes`` channels for images whose sides divide by 2**depth."""

    def __init__(self, channels: int = 3, classes: int = 2, base: int = 32, depth: int = 4):
        super().__init__()
        widths = [base * 2**level for level in range(depth + 1)]
        self.first = Double(channels, widths[0])
        self.down = nn.ModuleList([Double(widths[i], widths[i + 1]) for i in range(depth)])
        self.up = nn.ModuleList([Up(widths[i + 1], widths[i]) for i in reversed(range(depth))])
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skipped = [self.first(x)]
        for level in self.down:
            skipped.append(level(self.pool(skipped[-1])))
        y = skipped.pop()
        for level in self.up:
            y = level(y, skipped.pop())
        return self.head(y)


def unet(channels: int = 3, classes: int = 2, base: int = 32, depth: int = 4) -> UNet:
    return UNet(channels, classes, base, depth)
