"""Every family of layers compiled: inference and training steps compute what define-by-run computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn, optim, random

IMAGE = (2, 4, 9, 8)
LAYERS: list[tuple[str, Callable[[], nn.Module], tuple[int, ...]]] = [
    ("conv1d", lambda: nn.Conv1d(4, 6, 3, 2, 1), (2, 4, 9)),
    ("conv2d groups dilation", lambda: nn.Conv2d(4, 6, (3, 2), 2, 1, (1, 2), 2), IMAGE),
    ("conv2d same reflect", lambda: nn.Conv2d(4, 6, 3, padding="same", padding_mode="reflect"), IMAGE),
    ("conv2d depthwise", lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4), IMAGE),
    ("conv2d 1x1", lambda: nn.Conv2d(4, 8, 1), IMAGE),
    ("conv2d unbatched", lambda: nn.Conv2d(4, 8, 3), IMAGE[1:]),
    ("conv3d", lambda: nn.Conv3d(4, 2, 3, 2, 1), (2, 4, 5, 6, 4)),
    ("conv transpose", lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2), IMAGE),
    ("conv transpose 3d", lambda: nn.ConvTranspose3d(4, 2, 2, 2), (2, 4, 3, 2, 4)),
    ("linear", lambda: nn.Linear(8, 5), IMAGE),
    ("max pool", lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True), IMAGE),
    ("min pool", lambda: nn.MinPool2d(3, 2, 1), IMAGE),
    ("avg pool", lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), IMAGE),
    ("adaptive avg", lambda: nn.AdaptiveAvgPool2d((4, 3)), IMAGE),
    ("adaptive avg even", lambda: nn.AdaptiveAvgPool2d((3, 4)), IMAGE),
    ("adaptive max", lambda: nn.AdaptiveMaxPool2d((4, 3)), IMAGE),
    ("global avg", lambda: nn.GlobalAvgPool(), IMAGE),
    ("batch norm", lambda: nn.BatchNorm2d(4), IMAGE),
    ("conv batch norm", lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()), IMAGE),
    ("instance norm", lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True), IMAGE),
    ("group norm", lambda: nn.GroupNorm(2, 4), IMAGE),
    ("layer norm", lambda: nn.LayerNorm((9, 8)), IMAGE),
    ("local response norm", lambda: nn.LocalResponseNorm(3), IMAGE),
    (
        "activations",
        lambda: nn.Sequential(nn.GELU(), nn.SiLU(), nn.Mish(), nn.Hardswish(), nn.ELU(), nn.PReLU(4)),
        IMAGE,
    ),
    ("bounded", lambda: nn.Sequential(nn.ReLU6(), nn.Hardtanh(), nn.LeakyReLU(), nn.Softplus(), nn.Softsign()), IMAGE),
    ("softmax", lambda: nn.Sequential(nn.Softmax(1), nn.LogSoftmax(2)), IMAGE),
    (
        "pads",
        lambda: nn.Sequential(
            nn.ReflectionPad2d(2), nn.CircularPad2d(1), nn.ReplicationPad2d(2), nn.ConstantPad2d(1, 3.0)
        ),
        IMAGE,
    ),
    ("upsample", lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Upsample(size=(7, 9), mode="bilinear")), IMAGE),
    ("pixel shuffle", lambda: nn.Sequential(nn.PixelShuffle(2), nn.PixelUnshuffle(2)), IMAGE),
    (
        "unfold fold",
        lambda: nn.Sequential(nn.Unfold(3, padding=1, stride=2), nn.Fold((9, 8), 3, padding=1, stride=2)),
        IMAGE,
    ),
    ("flatten", lambda: nn.Sequential(nn.Flatten(), nn.Unflatten(1, (8, -1))), IMAGE),
]
IDS = [name for name, _, _ in LAYERS]


def data(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("name", "make", "shape"), LAYERS, ids=IDS)
def test_compiled_inference_is_eager(name: str, make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    layer = make()
    for seed in range(2):
        layer(irconv.tensor(data(shape, seed)))  # moves running statistics
    exe = irconv.compile(layer, irconv.TensorSpec(shape), backend="numpy")
    x = data(shape, 5)
    wanted = layer.eval()(irconv.tensor(x)).numpy()
    np.testing.assert_allclose(exe(x), wanted, rtol=2e-5, atol=2e-5)


class Trained(nn.Module):
    """A layer with something to train in front of it."""

    def __init__(self, layer: nn.Module, channels: int):
        self.scale = nn.Parameter(np.full((channels, 1, 1) if channels else (1,), 1.5, np.float32))
        self.layer = layer

    def forward(self, x: irconv.Tensor) -> irconv.Tensor:
        return self.layer(x * self.scale)


@pytest.mark.parametrize(("name", "make", "shape"), LAYERS, ids=IDS)
def test_compiled_training_is_eager(name: str, make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    eager, compiled = (Trained(make(), shape[1] if shape == IMAGE else 0) for _ in range(2))
    compiled.load_state_dict(eager.state_dict())
    target = data(eager(irconv.tensor(data(shape))).shape, 9)
    compiled.load_state_dict(eager.state_dict())
    first, second = optim.SGD(eager.parameters(), lr=0.1), optim.SGD(compiled.parameters(), lr=0.1)
    step = irconv.compile_step(compiled, F.mse_loss, second, backend="numpy")
    for seed in range(3):
        x = data(shape, seed)
        first.zero_grad()
        loss = F.mse_loss(eager(irconv.tensor(x)), target)
        loss.backward()
        first.step()
        np.testing.assert_allclose(step(x, target), loss.item(), rtol=2e-5)
    for key, value in eager.state_dict().items():
        np.testing.assert_allclose(compiled.state_dict()[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


LOSSES: list[tuple[str, Callable[..., Any], Any]] = [
    ("cross_entropy", F.cross_entropy, np.array([1, 0, 4, 2])),
    (
        "smoothed",
        lambda x, t: F.cross_entropy(x, t, np.arange(1, 6), ignore_index=0, label_smoothing=0.1),
        np.array([1, 0, 4, 2]),
    ),
    ("soft", F.cross_entropy, np.full((4, 5), 0.2, np.float32)),
    ("huber", F.huber_loss, data((4, 5), 3)),
    ("smooth_l1", F.smooth_l1_loss, data((4, 5), 3)),
    ("bce", F.binary_cross_entropy_with_logits, np.full((4, 5), 0.3, np.float32)),
    ("kl", lambda x, t: F.kl_div(F.log_softmax(x, 1), t), np.full((4, 5), 0.2, np.float32)),
]


@pytest.mark.parametrize(("name", "loss", "target"), LOSSES, ids=[name for name, _, _ in LOSSES])
def test_compiled_losses_are_eager(name: str, loss: Callable[..., Any], target: np.ndarray) -> None:
    eager, compiled = nn.Linear(3, 5), nn.Linear(3, 5)
    compiled.load_state_dict(eager.state_dict())
    first, second = optim.Adam(eager.parameters(), lr=0.1), optim.Adam(compiled.parameters(), lr=0.1)
    step = irconv.compile_step(compiled, loss, second, backend="numpy")
    for seed in range(3):
        x = data((4, 3), seed)
        first.zero_grad()
        value = loss(eager(irconv.tensor(x)), target)
        value.backward()
        first.step()
        np.testing.assert_allclose(step(x, target), value.item(), rtol=2e-5)
    np.testing.assert_allclose(compiled.weight.numpy(), eager.weight.numpy(), rtol=1e-4, atol=1e-5)


def test_compiled_dropout_draws_anew_each_step_and_follows_the_seed() -> None:
    def run() -> list[float]:
        random.manual_seed(4)
        model = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.5), nn.Linear(16, 1))
        step = irconv.compile_step(model, F.mse_loss, optim.SGD(model.parameters(), lr=0.0), backend="numpy")
        return [float(step(data((4, 3)), np.zeros((4, 1), np.float32))) for _ in range(4)]

    first, second = run(), run()
    assert first == second
    assert len(set(first)) == 4
