"""MobileNet-V2 (Sandler et al. 2018): 1x1 convolutions up, one convolution per channel, and 1x1 down again."""

from __future__ import annotations

from irconv import Tensor, nn

# expansion, channels, blocks, stride of the first
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def conv_bn_relu6(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Widen, filter each channel by itself, narrow; beside a shortcut where shapes allow one."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(conv_bn_relu6(inputs, hidden, 1))
        layers.append(conv_bn_relu6(hidden, hidden, 3, stride, groups=hidden))
        layers += [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.adds else y


class MobileNetV2(nn.Module):
    """``width`` multiplies every number of channels."""

    def __init__(self, classes: int = 1000, width: float = 1.0):
        super().__init__()

        def scaled(channels: int) -> int:
            return max(8, int(channels * width + 4) // 8 * 8)

        channels = scaled(32)
        blocks: list[nn.Module] = [conv_bn_relu6(3, channels, 3, stride=2)]
        for expansion, outputs, count, first_stride in STAGES:
            for position in range(count):
                blocks.append(
                    InvertedResidual(channels, scaled(outputs), first_stride if position == 0 else 1, expansion)
                )
                channels = scaled(outputs)
        last = max(1280, scaled(1280))
        blocks.append(conv_bn_relu6(channels, last, 1))
        self.features = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


def mobilenet_v2(classes: int = 1000, width: float = 1.0) -> MobileNetV2:
    return MobileNetV2(classes, width)
