"""Networks as they are written with PyTorch, and what it takes to compare them with irconv's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as tF  # noqa: E402

tnn = torch.nn


class BasicBlock(tnn.Module):
    expansion = 1

    def __init__(self, inner: int, planes: int, stride: int, downsample: Any):
        super().__init__()
        self.conv1 = tnn.Conv2d(inner, planes, 3, stride, 1, bias=False)
        self.bn1 = tnn.BatchNorm2d(planes)
        self.relu = tnn.ReLU(inplace=True)
        self.conv2 = tnn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = tnn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class Bottleneck(tnn.Module):
    expansion = 4

    def __init__(self, inner: int, planes: int, stride: int, downsample: Any):
        super().__init__()
        self.conv1 = tnn.Conv2d(inner, planes, 1, bias=False)
        self.bn1 = tnn.BatchNorm2d(planes)
        self.conv2 = tnn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = tnn.BatchNorm2d(planes)
        self.conv3 = tnn.Conv2d(planes, planes * 4, 1, bias=False)
        self.bn3 = tnn.BatchNorm2d(planes * 4)
        self.relu = tnn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(tnn.Module):
    def __init__(self, block: Any, depths: tuple[int, ...], width: int = 8, classes: int = 10):
        super().__init__()
        self.inner = width
        self.conv1 = tnn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = tnn.BatchNorm2d(width)
        self.relu = tnn.ReLU(inplace=True)
        self.maxpool = tnn.MaxPool2d(3, 2, 1)
        self.layer1 = self._layer(block, width, depths[0], 1)
        self.layer2 = self._layer(block, width * 2, depths[1], 2)
        self.layer3 = self._layer(block, width * 4, depths[2], 2)
        self.layer4 = self._layer(block, width * 8, depths[3], 2)
        self.avgpool = tnn.AdaptiveAvgPool2d((1, 1))
        self.fc = tnn.Linear(width * 8 * block.expansion, classes)

    def _layer(self, block: Any, planes: int, depth: int, stride: int) -> Any:
        downsample = None
        if stride != 1 or self.inner != planes * block.expansion:
            shortcut = tnn.Conv2d(self.inner, planes * block.expansion, 1, stride, bias=False)
            downsample = tnn.Sequential(shortcut, tnn.BatchNorm2d(planes * block.expansion))
        blocks = [block(self.inner, planes, stride, downsample)]
        self.inner = planes * block.expansion
        blocks += [block(self.inner, planes, 1, None) for _ in range(1, depth)]
        return tnn.Sequential(*blocks)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class InvertedResidual(tnn.Module):
    def __init__(self, inner: int, out: int, stride: int, expand: int):
        super().__init__()
        hidden = inner * expand
        layers = []
        if expand != 1:
            layers += [tnn.Conv2d(inner, hidden, 1, bias=False), tnn.BatchNorm2d(hidden), tnn.ReLU6(inplace=True)]
        layers += [tnn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), tnn.BatchNorm2d(hidden)]
        layers += [tnn.ReLU6(inplace=True), tnn.Conv2d(hidden, out, 1, bias=False), tnn.BatchNorm2d(out)]
        self.conv = tnn.Sequential(*layers)
        self.use_res_connect = stride == 1 and inner == out

    def forward(self, x):
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNetV2(tnn.Module):
    def __init__(self, width: float = 0.25, classes: int = 10):
        super().__init__()

        def channels(c: int) -> int:
            return max(8, int(c * width + 4) // 8 * 8)

        settings = [
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ]
        inner = channels(32)
        features = [
            tnn.Sequential(tnn.Conv2d(3, inner, 3, 2, 1, bias=False), tnn.BatchNorm2d(inner), tnn.ReLU6(inplace=True))
        ]
        for t, c, n, s in settings:
            for i in range(n):
                features.append(InvertedResidual(inner, channels(c), s if i == 0 else 1, t))
                inner = channels(c)
        features.append(
            tnn.Sequential(tnn.Conv2d(inner, 64, 1, bias=False), tnn.BatchNorm2d(64), tnn.ReLU6(inplace=True))
        )
        self.features = tnn.Sequential(*features)
        self.classifier = tnn.Sequential(tnn.Dropout(0.2), tnn.Linear(64, classes))

    def forward(self, x):
        x = tF.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class UNet(tnn.Module):
    """Skips are concatenated; an odd size is padded back, which needs the sizes at run time."""

    def __init__(self, inner: int = 3, classes: int = 2, base: int = 4, depth: int = 3):
        super().__init__()
        widths = [base * 2**i for i in range(depth + 1)]
        self.down = tnn.ModuleList([self._double(a, b) for a, b in zip([inner, *widths[:-1]], widths, strict=True)])
        self.up = tnn.ModuleList([tnn.ConvTranspose2d(b, a, 2, 2) for a, b in itertools.pairwise(widths)])
        self.merge = tnn.ModuleList([self._double(2 * a, a) for a in widths[:-1]])
        self.head = tnn.Conv2d(base, classes, 1)

    @staticmethod
    def _double(inner: int, out: int) -> Any:
        layers = []
        for source in (inner, out):
            layers += [tnn.Conv2d(source, out, 3, padding=1), tnn.BatchNorm2d(out), tnn.ReLU(inplace=True)]
        return tnn.Sequential(*layers)

    def forward(self, x):
        skips = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else tF.max_pool2d(x, 2))
            skips.append(x)
        for i in reversed(range(len(self.up))):
            x = self.up[i](x)
            skip = skips[i]
            dy, dx = skip.size(2) - x.size(2), skip.shape[3] - x.shape[3]
            x = tF.pad(x, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
            x = self.merge[i](torch.cat([skip, x], dim=1))
        return self.head(x)

NETWORKS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "resnet18": (lambda: ResNet(BasicBlock, (2, 2, 2, 2)), (2, 3, 64, 64)),
    "resnet50": (lambda: ResNet(Bottleneck, (3, 4, 6, 3), 4), (2, 3, 64, 64)),
    "mobilenet_v2": (MobileNetV2, (2, 3, 32, 32)),
    "unet": (UNet, (2, 3, 34, 29)),
}


def made(make: Callable[[], Any]) -> Any:
    """A module in float64 with weights, and running statistics that are not the initial ones."""
    torch.manual_seed(0)
    module = make().double()
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.uniform_(-0.1, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.8, 1.2)
    return module


def array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def agree(found: Any, wanted: Any, tolerance: float = 1e-9) -> None:
    if isinstance(wanted, (tuple, list)):
        assert len(found) == len(wanted)
        for f, w in zip(found, wanted, strict=True):
            agree(f, w, tolerance)
        return
    if isinstance(wanted, dict):
        agree([found[k] for k in wanted], list(wanted.values()), tolerance)
        return
    expected = wanted.detach().numpy()
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    assert found.shape == expected.shape
    np.testing.assert_allclose(np.asarray(found), expected, rtol=tolerance, atol=tolerance * scale)
