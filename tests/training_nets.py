"""Small networks, batches and compiled steps that the tests of training share."""

from __future__ import annotations

import numpy as np

import irconv
import irconv.nn.functional as F
from irconv import nn, optim


class Net(nn.Module):
    """A convolution, batch norm, pooling and a linear head.

    No bias before the batch norm: its gradient is nothing but rounding, which Adam would blow up to full steps.
    """

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(4 * 9, 3)

    def forward(self, x):
        x = F.max_pool2d(self.bn(self.conv(x)).relu(), 2)
        return self.fc(self.drop(x.flatten(1)))


def net(dropout: float = 0.0, seed: int = 0) -> Net:
    irconv.random.manual_seed(seed)
    return Net(dropout)


def batch(size: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(size, 2, 6, 6)).astype(np.float32), generator.integers(0, 3, size)


def compiled(model: nn.Module, optimizer, loss=F.cross_entropy, **options) -> irconv.Step:
    return irconv.compile_step(model, loss, optimizer, *batch(), backend="numpy", **options)


def everything(model: nn.Module, optimizer) -> dict[str, np.ndarray]:
    """Parameters, buffers and optimiser state."""
    return {**model.state_dict(), **{f"optimizer {name}": array for name, array in optimizer.state_dict().items()}}


def assert_same_bits(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes(), name


class Plain(nn.Module):
    """Without batch norm, whose statistics are those of each part."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.fc = nn.Linear(4 * 16, 3)

    def forward(self, x):
        return self.fc(self.conv(x).relu().flatten(1))


OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5),
}
