"""PyTorch's layers, functions and methods, one by one, run by irconv."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import irconv
from irconv import structure
from irconv.errors import ModelError

torch = pytest.importorskip("torch")

import torch.nn.functional as tF  # noqa: E402

from irconv.frontends.torch import from_torch  # noqa: E402
from tests.torch_networks import agree, array, made  # noqa: E402

tnn = torch.nn


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
