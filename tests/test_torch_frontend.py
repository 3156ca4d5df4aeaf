"""PyTorch modules run by irconv: real networks equal in float64, shared memory, modes, names, and what is refused."""

from __future__ import annotations

import copy
import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import irconv
from irconv import nn, optim, structure
from irconv.errors import ModelError, TraceError

torch = pytest.importorskip("torch")

import torch.nn.functional as tF  # noqa: E402

from irconv.frontends.torch import from_torch  # noqa: E402

tnn = torch.nn

# --- networks as they are written with PyTorch -----------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_agree_forward_and_backward(name: str) -> None:
    make, shape = NETWORKS[name]
    theirs = made(make)
    if name == "mobilenet_v2":
        theirs.classifier[0].p = 0.0  # which elements dropout takes is PyTorch's affair
    for mode in (False, True):
        theirs.train(mode)
        ours = from_torch(copy.deepcopy(theirs))
        assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
        assert {n for n, _ in ours.named_buffers()} == {n for n, _ in theirs.named_buffers()}
        x = array(*shape)
        reference = torch.tensor(x, requires_grad=True)
        wanted = theirs(reference)
        labels = [label for label, _ in theirs.named_parameters()]
        joint = irconv.differentiate(irconv.trace(ours, x, training=mode), ["x", *labels])
        seed = array(*wanted.shape, seed=1)
        found = irconv.compile(joint, backend="numpy")(x, seed)
        wanted.backward(torch.tensor(seed))
        gradients = dict(zip(joint.outputs, structure.leaves(found), strict=True))
        agree(gradients[""][1], wanted)
        agree(gradients["d_x"][1], reference.grad, 1e-8)
        for label, other in theirs.named_parameters():
            agree(gradients[f"d_{label}"][1], other.grad, 1e-8)
        for label, buffer in ours.named_buffers():
            if label.endswith(("mean", "var")):
                agree(buffer.numpy(), dict(theirs.named_buffers())[label])
        theirs.zero_grad()


def test_define_by_run_gradients_agree() -> None:
    theirs = made(UNet)
    ours = from_torch(copy.deepcopy(theirs))
    x = array(1, 3, 17, 16)
    wanted, found = theirs(torch.tensor(x)).square().sum(), (ours(x) ** 2).sum()
    agree(found.numpy(), wanted)
    wanted.backward()
    found.backward()
    for (label, parameter), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert parameter.grad is not None, label
        agree(parameter.grad.numpy(), other.grad, 1e-8)
    for (_, buffer), other in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        agree(buffer.numpy(), other)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_compile_with_their_names(name: str) -> None:
    make, shape = NETWORKS[name]
    theirs = made(make).float().eval()
    ours = irconv.from_torch(theirs)
    x = array(*shape).astype(np.float32)
    agree(irconv.compile(ours, x)(x), theirs(torch.tensor(x)), 1e-4)
    graph = irconv.trace(ours, x)
    assert [graph[i].name for i in graph.inputs] == ["x"]
    names = {node.name for node in graph}
    assert {n for n, _ in theirs.named_parameters()} <= names
    layers = {
        n
        for n, m in theirs.named_modules()
        if type(m).__name__ in ("Conv2d", "BatchNorm2d", "Linear", "ConvTranspose2d")
    }
    assert layers <= names
    lines = {node.provenance.location.file for node in graph if node.provenance.location}
    assert all(file.endswith("test_torch_frontend.py") for file in lines)


# --- sharing and training ------------------------------------------------------------------------------------------------------


def test_memory_is_shared_both_ways() -> None:
    theirs = made(UNet).eval()
    ours = from_torch(theirs)
    for label, part in ours.named_state():
        other = theirs.state_dict()[label]
        assert np.shares_memory(part.value.variable.array, other.numpy()), label
    exe = irconv.compile(ours, irconv.TensorSpec((1, 3, 16, 16), "f64"))
    x = array(1, 3, 16, 16)
    before = exe(x)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(1.1)  # batch norm was folded into the weights: the change must be seen
    after = exe(x)
    assert np.abs(after - before).max() > 1e-3
    agree(after, theirs(torch.tensor(x)))
    ours.head.bias.assign(np.array([3.0, 4.0]))
    assert theirs.head.bias.tolist() == [3.0, 4.0]


def test_training_here_trains_there() -> None:
    theirs = made(lambda: ResNet(BasicBlock, (1, 1, 1, 1)))
    twin = copy.deepcopy(theirs)
    ours = from_torch(theirs)
    x, target = array(4, 3, 32, 32), np.array([1, 2, 3, 4])
    step = irconv.compile_step(ours, nn.functional.cross_entropy, optim.SGD(ours.parameters(), lr=0.1, momentum=0.9))
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        loss = tF.cross_entropy(twin(torch.tensor(x)), torch.tensor(target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        np.testing.assert_allclose(step(x, target), loss.item(), rtol=1e-7)
    for label, value in twin.state_dict().items():
        agree(theirs.state_dict()[label].numpy(), value, 1e-6)


def test_tied_weights_stay_tied_and_frozen_ones_frozen() -> None:
    theirs = tnn.Sequential(tnn.Linear(3, 3), tnn.ReLU(), tnn.Linear(3, 3))
    theirs[2].weight = theirs[0].weight
    theirs[0].bias.requires_grad_(False)
    ours = from_torch(theirs)
    assert ours.get_submodule("2").weight is ours.get_submodule("0").weight
    assert ours.get_submodule("0").bias.frozen


def test_a_head_is_replaced() -> None:
    theirs = made(lambda: ResNet(BasicBlock, (1, 1, 1, 1))).float().eval()
    ours = from_torch(theirs)
    ours.fc = nn.Linear(64, 3)
    assert ours(array(1, 3, 32, 32).astype(np.float32)).shape == (1, 3)


class Modes(tnn.Module):
    def __init__(self):
        super().__init__()
        self.bn = tnn.BatchNorm1d(4)
        self.register_buffer("scale", torch.tensor(2.0, dtype=torch.float64))

    def forward(self, x):
        x = self.bn(x) * self.scale
        if self.training:
            return x + 1
        return tF.dropout(x, 0.5, self.training)


def test_modes_are_respected() -> None:
    theirs = made(Modes)
    ours = from_torch(theirs)
    x = array(3, 4)
    for mode in (True, False, True):
        twin = copy.deepcopy(theirs).train(mode)
        ours.train(mode)
        agree(ours(x), twin(torch.tensor(x)))
    assert theirs.training
    assert not from_torch(theirs.eval()).own_training
    assert irconv.trace(ours, x).updates == {}
    assert irconv.trace(ours, x, training=True).updates != {}


class Dropping(tnn.Module):
    """Functional dropout, a counter, and a feature kept for later."""

    def __init__(self, in_place: bool):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))
        self.in_place = in_place

    def forward(self, x):
        if self.in_place:
            self.calls.add_(1)
            self.kept = x * self.calls
            return tF.dropout(self.kept, 0.5, self.training)
        self.calls = self.calls + 1
        return tF.dropout(x * self.calls, 0.5, self.training)


@pytest.mark.parametrize("in_place", [True, False])
def test_functional_modes_and_buffers_written_in_place(in_place: bool) -> None:
    theirs = tnn.Sequential(Dropping(in_place)).eval()
    x = np.ones((8, 50))
    ours = from_torch(theirs)
    assert theirs[0].calls.item() == 0
    assert not hasattr(theirs[0], "kept")
    assert not theirs[0].training
    np.testing.assert_array_equal(ours(x).numpy(), x)
    assert theirs[0].calls.item() == 1
    dropped = ours.train()(x).numpy()
    assert set(np.unique(dropped)) == {0.0, 4.0}
    assert irconv.compile(ours, x)(x).tolist() == (3 * x).tolist()
    assert theirs[0].calls.item() == 3


@pytest.mark.parametrize("make", [lambda: tnn.Conv2d(2, 3, 3), lambda: tnn.BatchNorm2d(2), lambda: tnn.ReLU()])
def test_a_layer_alone(make: Callable[[], Any]) -> None:
    theirs = made(make)
    twin, ours = copy.deepcopy(theirs), from_torch(theirs)
    x = array(2, 2, 5, 5)
    agree(ours(x), twin(torch.tensor(x)))
    for label, value in twin.state_dict().items():
        agree(theirs.state_dict()[label].numpy(), value)


def test_layers_that_were_put_in_evaluation_mode_stay_there() -> None:
    theirs = tnn.Sequential(tnn.BatchNorm1d(4), tnn.Linear(4, 4), tnn.BatchNorm1d(4)).double()
    theirs[0].eval()
    twin, ours = copy.deepcopy(theirs), from_torch(theirs)
    agree(ours(array(3, 4)), twin(torch.tensor(array(3, 4))))
    agree(theirs[2].running_mean.numpy(), twin[2].running_mean)
    assert theirs[0].running_mean.tolist() == [0, 0, 0, 0]


# --- layers, functions, methods -------------------------------------------------------------------------------------------------

IMAGE, LINE, VOLUME = (2, 4, 8, 9), (2, 4, 11), (1, 4, 5, 6, 7)
LAYERS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("Conv1d", (4, 6, 3), {"padding": "same", "dilation": 2}, LINE),
    ("Conv2d", (4, 6, 3), {"stride": 2, "padding": (1, 2), "groups": 2, "padding_mode": "reflect"}, IMAGE),
    ("Conv3d", (4, 2, 2), {"bias": False}, VOLUME),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 2, "output_padding": 1}, LINE),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2, "dilation": 2}, IMAGE),
    ("ConvTranspose3d", (4, 2, 2), {}, VOLUME),
    ("MaxPool1d", (3,), {"ceil_mode": True}, LINE),
    ("MaxPool2d", (3, 2, 1), {"dilation": 2}, IMAGE),
    ("MaxPool2d", (2,), {"return_indices": True}, IMAGE),
    ("MaxPool3d", (2,), {}, VOLUME),
    ("AvgPool1d", (3,), {}, LINE),
    ("AvgPool2d", (3, 2, 1), {"count_include_pad": False, "ceil_mode": True}, IMAGE),
    ("AvgPool3d", (2,), {"divisor_override": 3}, VOLUME),
    ("LPPool1d", (2.0, 3), {}, LINE),
    ("LPPool2d", (2.0, 2), {}, IMAGE),
    ("AdaptiveAvgPool1d", (3,), {}, LINE),
    ("AdaptiveAvgPool2d", ((3, None),), {}, IMAGE),
    ("AdaptiveAvgPool3d", (2,), {}, VOLUME),
    ("AdaptiveMaxPool2d", (3,), {"return_indices": True}, IMAGE),
    ("BatchNorm1d", (4,), {"momentum": None}, LINE),
    ("BatchNorm2d", (4,), {"affine": False}, IMAGE),
    ("BatchNorm3d", (4,), {"track_running_stats": False}, VOLUME),
    ("InstanceNorm2d", (4,), {"affine": True, "track_running_stats": True}, IMAGE),
    ("GroupNorm", (2, 4), {}, IMAGE),
    ("LayerNorm", ((8, 9),), {"bias": False}, IMAGE),
    ("RMSNorm", (9,), {}, IMAGE),
    ("LocalResponseNorm", (3,), {}, IMAGE),
    ("Linear", (9, 5), {}, IMAGE),
    ("Upsample", (), {"scale_factor": 2}, IMAGE),
    ("Upsample", (), {"size": (11, 5), "mode": "bilinear", "align_corners": False}, IMAGE),
    ("UpsamplingNearest2d", (), {"scale_factor": 3}, IMAGE),
    ("UpsamplingBilinear2d", (), {"scale_factor": 2}, IMAGE),
    ("ReflectionPad2d", ((1, 2, 3, 0),), {}, IMAGE),
    ("ReplicationPad1d", (2,), {}, LINE),
    ("CircularPad2d", (1,), {}, IMAGE),
    ("ConstantPad3d", (1, 2.5), {}, VOLUME),
    ("ZeroPad2d", ((1, -1, 2, 0),), {}, IMAGE),
    ("Flatten", (), {}, IMAGE),
    ("Unflatten", (1, (2, 2)), {}, IMAGE),
    ("PixelShuffle", (2,), {}, IMAGE),
    ("PixelUnshuffle", (3,), {}, (1, 2, 6, 9)),
    ("ChannelShuffle", (2,), {}, IMAGE),
    ("Unfold", ((2, 3),), {"padding": 1}, IMAGE),
    ("Fold", ((4, 5), (2, 2)), {}, (2, 8, 12)),
    ("Identity", (), {}, IMAGE),
    ("Dropout", (0.0,), {}, IMAGE),
    ("Softmax2d", (), {}, IMAGE),
    *[
        (name, (), {}, IMAGE)
        for name in ("ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish")
    ],
    *[
        (name, (), {}, IMAGE)
        for name in ("Sigmoid", "LogSigmoid", "Tanh", "Hardtanh", "Hardswish", "Hardsigmoid", "Softplus")
    ],
    *[(name, (), {}, IMAGE) for name in ("Softsign", "Hardshrink", "Softshrink", "Tanhshrink")],
    ("Threshold", (0.1, 3.0), {}, IMAGE),
    ("GLU", (1,), {}, IMAGE),
    ("Softmax", (1,), {}, IMAGE),
    ("LogSoftmax", (-1,), {}, IMAGE),
    ("Softmin", (1,), {}, IMAGE),
]


@pytest.mark.parametrize(("name", "args", "kwargs", "shape"), LAYERS, ids=lambda v: v if isinstance(v, str) else "")
def test_layers(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], shape: tuple[int, ...]) -> None:
    theirs = made(lambda: tnn.Sequential(getattr(tnn, name)(*args, **kwargs)))
    x = array(*shape)
    for mode in (True, False):
        theirs.train(mode)
        ours = from_torch(copy.deepcopy(theirs))
        reference = torch.tensor(x, requires_grad=True)
        mine = irconv.tensor(x, requires_grad=True)
        wanted, found = theirs(reference), ours(mine)
        agree(found, wanted)
        first, second = (r[0] if isinstance(r, tuple) else r for r in (found, wanted))
        first.backward(array(*first.shape, seed=3))
        second.backward(torch.tensor(array(*first.shape, seed=3)))
        # PyTorch's slope of hardsigmoid is 1/6 in single precision
        agree(mine.grad, reference.grad, 1e-7 if name == "Hardsigmoid" else 1e-9)


def shapes(x, y):
    b, c, h, w = x.shape
    a = x.view(b, -1, w).permute(0, 2, 1).contiguous()
    a = a.reshape(b, w, c, h).transpose(1, 3).flatten(2).unsqueeze(1).squeeze(1)
    first, second = torch.chunk(x, 2, dim=1)
    parts = x.split([1, 3], 1)
    z = torch.stack([first, second], 1).mean((1, 2), keepdim=True) + parts[0].expand(-1, 4, -1, -1)[:, :2, None].sum(1)
    return a, z, torch.roll(x, (1, -2), (2, 3)), x.flip(2).repeat(1, 2, 1, 1), x.unbind(1)[2].narrow(1, 2, 3)[0].t()


def arithmetic(x, y):
    a = (x * 2 + y / 3 - 1) ** 2 // 0.3 % 2
    b = torch.add(x, y, alpha=0.5).sub(y, alpha=2).clamp(-0.5, 0.5).clamp(min=-0.2)
    c = (
        torch.where(x > y, x, -y).masked_fill(x == 0, 1.0)
        + x.abs().sqrt()
        + torch.exp(x).log1p()
        + torch.rsqrt(y * y + 1)
    )
    d = torch.maximum(x, y) - torch.minimum(x, y).relu() + (x.gt(0) & (y < 0)).double() + torch.sigmoid(x).tanh()
    return {"a": a, "b": b, "c": c, "d": torch.div(d, 0.7, rounding_mode="trunc")}


def reductions(x, y):
    values, places = x.max(dim=1)
    return (
        x.sum(), x.mean(1), x.amax((2, 3)), x.min(2, keepdim=True)[0], values, places, x.argmax(1), torch.var(x, 1), x.std(),
        torch.norm(x, 2, 1), x.prod(1), torch.cumsum(x, 2), torch.topk(x, 2, dim=3), torch.logical_and(x > 0, y > 0).sum(),
        tF.normalize(x, dim=1),
    )  # fmt: skip


def contractions(x, y):
    a = torch.einsum("bchw,bdhw->bcd", x, y)
    b = torch.matmul(x, y.transpose(-1, -2)) @ x
    c = torch.bmm(x.flatten(2), y.flatten(2).permute(0, 2, 1)).softmax(dim=-1)
    return (
        a,
        b,
        c,
        tF.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True),
        tF.gelu(x, approximate="tanh"),
    )


def in_place(x, y):
    a = x * 1
    a += y
    a.relu_()
    a.add_(1).mul_(2)
    return a, tF.leaky_relu(a, 0.1, inplace=True), a


def constants(x, y):
    grid = torch.arange(x.shape[3], dtype=x.dtype)
    table = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64).view(1, 4, 1, 1)
    size = math.sqrt(x.size(1)) * (x.numel() // x.shape[0])
    return (
        x * grid + table + size,
        torch.zeros_like(x) + torch.ones(5, 9),
        x.new_zeros(2).to(x.device) + torch.full((2,), 2.0),
    )


@pytest.mark.parametrize("function", [shapes, arithmetic, reductions, contractions, in_place, constants])
@pytest.mark.parametrize("symbolic", [True, False])
def test_functions_and_methods(function: Callable[..., Any], symbolic: bool) -> None:
    class Uses(tnn.Module):
        def forward(self, x, y):
            if not symbolic and x.shape[0] > 100:  # a question that torch.fx cannot record, but torch.export can
                return x
            return function(x, y)

    x, y = array(2, 4, 5, 9), array(2, 4, 5, 9, seed=1)
    theirs = torch.tensor(x), torch.tensor(y)
    ours = from_torch(Uses(), *(() if symbolic else theirs))
    agree(ours(x, y), Uses()(*theirs))


class Recorded(tnn.Module):
    """Its code asks for sizes, so that torch.export has to record it."""

    def __init__(self):
        super().__init__()
        self.body = tnn.Sequential(tnn.Conv2d(3, 8, 3, padding=1), tnn.BatchNorm2d(8), tnn.ReLU(), tnn.MaxPool2d(2))
        self.norm = tnn.GroupNorm(2, 8)
        self.up = tnn.Upsample(scale_factor=2, mode="bilinear")
        self.head = tnn.ConvTranspose2d(8, 2, 3, 2)
        self.register_buffer("shift", torch.ones(8, 1, 1))
        self.register_buffer("calls", torch.zeros(()))
        self.drop = tnn.Dropout(0.0)

    def forward(self, x, scale):
        self.calls += 1
        y = tF.avg_pool2d(self.norm(self.body(x)), 2) + self.shift
        if y.shape[2] < 3:
            y = self.up(y)
        return {"y": self.head(self.drop(tF.elu(y))) * scale, "mean": (y.mean(), tF.layer_norm(y, y.shape[-2:]))}


def test_what_is_not_symbolic_is_exported_for_examples() -> None:
    theirs = made(Recorded)
    x, scale = array(2, 3, 9, 8), np.array(1.5)
    with pytest.raises(ModelError, match="cannot be recorded symbolically"):
        from_torch(theirs)
    for mode in (False, True):
        twin = copy.deepcopy(theirs).train(mode)
        ours = from_torch(copy.deepcopy(twin), x, scale)
        assert {n for n, _ in ours.named_parameters()} == {n for n, _ in twin.named_parameters()}
        labels = [label for label, _ in twin.named_parameters()]
        graph = irconv.trace(ours, x, scale, training=mode)
        assert [graph[i].name for i in graph.inputs] == ["x", "scale"]
        joint = irconv.differentiate(graph, labels, "y")
        wanted = twin(torch.tensor(x), torch.tensor(scale))
        seed = array(*wanted["y"].shape, seed=1)
        found = irconv.compile(joint, backend="numpy")(x, scale, seed)
        agree({"y": found["y"], "mean": found["mean"]}, wanted)
        wanted["y"].backward(torch.tensor(seed))
        flat = dict(structure.leaves(found))
        for label, parameter in twin.named_parameters():
            agree(flat[f"d_{label}"], parameter.grad, 1e-8)
        agree(ours.get_submodule("body.1").running_mean.numpy(), twin.body[1].running_mean)
        assert ours.calls.item() == twin.calls.item() == 1


# --- what is refused ----------------------------------------------------------------------------------------------------------


def test_unsupported_operations_are_listed_at_once() -> None:
    class Odd(tnn.Module):
        def __init__(self):
            super().__init__()
            self.attention = tnn.MultiheadAttention(4, 2)
            self.bag = tnn.EmbeddingBag(3, 4)

        def forward(self, x):
            y, _ = self.attention(x, x, x)
            y = torch.linalg.svd(y)[0] + torch.fft.fft(x).real + torch.fft.fft(y).real
            return self.bag(y.bernoulli())

    with pytest.raises(ModelError) as caught:
        from_torch(Odd())
    message = str(caught.value)
    assert "5 operations of this module are not supported" in message
    assert "_fft.fft_fft: 2 (fft_fft, fft_fft_1)" in message
    for line in (
        "module MultiheadAttention: 1 (attention)",
        "module EmbeddingBag: 1 (bag)",
        "method bernoulli: 1 (bernoulli)",
    ):
        assert line in message


def test_writing_through_a_view_is_refused() -> None:
    class Sneaky(tnn.Module):
        def forward(self, x):
            y = x * 2
            view = y.view(-1)
            y.add_(1)
            return view

    with pytest.raises(ModelError, match="add_? ?.*writes into mul, of which view may be a view"):
        from_torch(Sneaky())(array(2, 3))


def test_parameters_that_cannot_be_shared() -> None:
    with pytest.raises(ModelError, match="'weight' is not contiguous"):
        from_torch(tnn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last))
    with pytest.raises(ModelError, match="bfloat16"):
        from_torch(tnn.Linear(3, 4).bfloat16())
    with pytest.raises(ModelError, match="takes a torch.nn.Module"):
        from_torch("model")
    with pytest.raises(TraceError, match="forward"):
        from_torch(UNet())(1, 2, 3)


def test_torch_is_imported_only_when_asked_for() -> None:
    code = "import sys, irconv; assert 'torch' not in sys.modules; irconv.from_torch; assert 'torch' in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert not hasattr(irconv, "from_nowhere")


def test_importing_leaves_the_module_as_it_was() -> None:
    theirs = made(Modes).eval()
    theirs.bn.train()
    before = {k: v.clone() for k, v in theirs.state_dict().items()}
    names = set(vars(theirs))
    from_torch(theirs)
    assert set(vars(theirs)) == names
    assert (theirs.training, theirs.bn.training) == (False, True)
    assert all(torch.equal(v, before[k]) for k, v in theirs.state_dict().items())
