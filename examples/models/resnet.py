"""ResNet-18, 34, 50 and 152 (He et al. 2015): residual blocks, each adding its input to what it computes."""

from __future__ import annotations

from irconv import Tensor, nn


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the size at stride 1, and its batch norm (which makes a bias superfluous)."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int = 1):
        super().__init__()
        self.conv1 = conv_bn(inputs, width, 3, stride)
        self.conv2 = conv_bn(width, width, 3)
        self.relu = nn.ReLU()
        self.shortcut = nn.Identity() if stride == 1 and inputs == width else conv_bn(inputs, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.conv1(x))
        y = self.conv2(y)
        return self.relu(y + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1 down to ``width`` channels, 3x3, 1x1 up to four times as many, beside a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int = 1):
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = conv_bn(inputs, width, 1)
        self.conv2 = conv_bn(width, width, 3, stride)
        self.conv3 = conv_bn(width, outputs, 1)
        self.relu = nn.ReLU()
        self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else conv_bn(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.conv1(x))
        y = self.relu(self.conv2(y))
        y = self.conv3(y)
        return self.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, four stages of residual blocks (each after the first halves the size and doubles the width), a linear head."""

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], counts: tuple[int, ...], classes: int = 1000, width: int = 64
    ):
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1))
        channels = width
        stages = []
        for number, count in enumerate(counts):
            blocks = []
            for position in range(count):
                stride = 2 if number > 0 and position == 0 else 1
                blocks.append(block(channels, width * 2**number, stride))
                channels = width * 2**number * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stages(self.stem(x))
        return self.head(self.pool(y).flatten(1))


def resnet18(classes: int = 1000, width: int = 64) -> ResNet:
    return ResNet(BasicBlock, (2, 2, 2, 2), classes, width)


def resnet34(classes: int = 1000, width: int = 64) -> ResNet:
    return ResNet(BasicBlock, (3, 4, 6, 3), classes, width)


def resnet50(classes: int = 1000, width: int = 64) -> ResNet:
    return ResNet(Bottleneck, (3, 4, 6, 3), classes, width)


def resnet152(classes: int = 1000, width: int = 64) -> ResNet:
    return ResNet(Bottleneck, (3, 8, 36, 3), classes, width)
