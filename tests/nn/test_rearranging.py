"""Padding, resizing, linear maps, pixel shuffles, flattening and one-hot against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn
from irconv.errors import AttributeValueError, ShapeError
from tests.nn.against_torch import array, check, parameters_of, torch

T = torch.nn.functional


@pytest.mark.parametrize("widths", [(1, 2), (0, 3, 2, 0), (-1, 1), (1, -2, 0, 2), (2, 2, 1, 1, 1, 0)])
@pytest.mark.parametrize("value", [None, 1.0, -2.5])
def test_constant_pad(widths: tuple[int, ...], value: float | None) -> None:
    check(lambda v: F.pad(v, widths, value=value), lambda v: T.pad(v, widths, value=value), array(2, 3, 4, 5))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    ("widths", "shape"),
    [
        ((2, 1), (2, 3, 4)),
        ((2, 1), (3, 4)),
        ((1, 3, 2, 0), (2, 3, 4, 5)),
        ((1, 0, 1, 2, 1, 1), (1, 2, 3, 4, 3)),
        ((3, 3), (1, 2, 4)),
    ],
)
def test_other_pads(mode: str, widths: tuple[int, ...], shape: tuple[int, ...]) -> None:
    check(lambda v: F.pad(v, widths, mode), lambda v: T.pad(v, widths, mode), array(*shape))


def test_mean_pad_is_numpys() -> None:
    x = array(2, 3, 4)
    np.testing.assert_allclose(
        F.pad(x, (1, 2, 3, 0), "mean").numpy(), np.pad(x, ((0, 0), (3, 0), (1, 2)), mode="mean"), rtol=1e-12
    )


PADS = [
    ("ZeroPad1d", ((1, 2),)), ("ZeroPad2d", (2,)), ("ZeroPad3d", (1,)),
    ("ConstantPad1d", (2, 1.5)), ("ConstantPad2d", ((1, 0, 2, 1), -1.0)),
    ("ConstantPad3d", (1, 3.0)), ("ReflectionPad1d", ((2, 1),)), ("ReflectionPad2d", (2,)), ("ReflectionPad3d", (1,)),
    ("ReplicationPad1d", (4,)), ("ReplicationPad2d", ((1, 2, 0, 3),)), ("ReplicationPad3d", (2,)),
    ("CircularPad1d", (3,)), ("CircularPad2d", ((1, 2, 2, 1),)), ("CircularPad3d", (1,)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args"), PADS)
def test_pad_layers(name: str, args: tuple) -> None:
    shape = (2, 3, *(3, 4, 5)[: int(name[-2])])
    check(getattr(nn, name)(*args), getattr(torch.nn, name)(*args), array(*shape))
    check(getattr(nn, name)(*args), getattr(torch.nn, name)(*args), array(*shape[1:]))


MODES = {
    1: ["nearest", "nearest-exact", "linear", "area"],
    2: ["nearest", "nearest-exact", "bilinear", "bicubic", "area"],
    3: ["nearest", "trilinear", "area"],
}


@pytest.mark.parametrize(("rank", "mode"), [(rank, mode) for rank, modes in MODES.items() for mode in modes])
@pytest.mark.parametrize(
    "by", [{"size": 3}, {"size": 8}, {"scale_factor": 2}, {"scale_factor": 0.6}, {"scale_factor": 1.3}]
)
def test_interpolate(rank: int, mode: str, by: dict[str, float]) -> None:
    x = array(2, 2, *(5, 6, 4)[:rank])
    corners = [None, True, False] if mode.endswith(("linear", "cubic")) else [None]
    for align in corners:
        settings = {**by, "mode": mode, "align_corners": align}
        check(
            lambda v, s=settings: F.interpolate(v, **s), lambda v, s=settings: T.interpolate(v, **s), x, tolerance=1e-6
        )


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(3, 4), (8, 2), (7, 9)])
def test_antialiasing(mode: str, size: tuple[int, int]) -> None:
    settings = {"size": size, "mode": mode, "antialias": True}
    check(
        lambda v: F.interpolate(v, **settings),
        lambda v: T.interpolate(v, **settings),
        array(2, 2, 8, 9),
        tolerance=1e-6,
    )
    with pytest.raises(AttributeValueError, match="antialias has no meaning in mode 'nearest'"):
        F.interpolate(array(1, 1, 4, 4), 2, antialias=True)


def test_interpolate_can_compute_the_scale_again() -> None:
    settings = {"scale_factor": 1.3, "mode": "bilinear", "recompute_scale_factor": True}
    check(
        lambda v: F.interpolate(v, **settings),
        lambda v: T.interpolate(v, **settings),
        array(2, 2, 5, 6),
        tolerance=1e-6,
    )
    check(
        nn.Upsample(scale_factor=2, mode="bilinear"),
        torch.nn.Upsample(scale_factor=2, mode="bilinear"),
        array(1, 2, 3, 4),
        tolerance=1e-6,
    )


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape: tuple[int, ...], bias: bool) -> None:
    theirs = torch.nn.Linear(4, 6, bias=bias, dtype=torch.float64)
    ours = nn.Linear(4, 6, bias=bias, dtype="f64")
    ours.load_state_dict(parameters_of(theirs))
    check(ours, theirs, array(*shape))
    check(F.linear, T.linear, array(*shape), array(6, 4, seed=1), array(6, seed=2))


def test_pixel_shuffles() -> None:
    check(lambda v: F.pixel_shuffle(v, 2), lambda v: T.pixel_shuffle(v, 2), array(2, 8, 3, 4))
    check(lambda v: F.pixel_unshuffle(v, 3), lambda v: T.pixel_unshuffle(v, 3), array(2, 2, 6, 9))
    check(nn.PixelShuffle(2), torch.nn.PixelShuffle(2), array(4, 3, 3))
    check(nn.PixelUnshuffle(3), torch.nn.PixelUnshuffle(3), array(2, 3, 3))


def test_flatten_unflatten_identity() -> None:
    x = array(2, 6, 4)
    check(nn.Flatten(), torch.nn.Flatten(), x)
    check(nn.Flatten(0, 1), torch.nn.Flatten(0, 1), x)
    check(nn.Unflatten(1, (2, -1)), torch.nn.Unflatten(1, (2, -1)), x)
    check(nn.Identity(3, unused=True), torch.nn.Identity(3, unused=True), x)
    check(nn.Unfold(3, padding=1), torch.nn.Unfold(3, padding=1), array(1, 2, 4, 4))
    check(nn.Fold((4, 4), 3, padding=1), torch.nn.Fold((4, 4), 3, padding=1), array(1, 18, 16))


def test_one_hot() -> None:
    labels = np.array([[0, 3], [1, 1]])
    np.testing.assert_array_equal(F.one_hot(labels).numpy(), T.one_hot(torch.tensor(labels)).numpy())
    np.testing.assert_array_equal(F.one_hot(labels, 6).numpy(), T.one_hot(torch.tensor(labels), 6).numpy())
    with pytest.raises(AttributeValueError, match="classes from 0 to 3 do not lie in 0 to 2"):
        F.one_hot(labels, 3)
    with pytest.raises(AttributeValueError, match="say how many classes there are"):
        irconv.trace(F.one_hot, irconv.TensorSpec((3,), "i64"))


def test_bad_settings_are_refused_with_numbers() -> None:
    x = irconv.zeros((1, 2, 4, 4))
    with pytest.raises(
        AttributeValueError, match=r"reflect padding of axis 3 by \[4, 0\]: it has 4 elements, so at most 3"
    ):
        F.pad(x, (4, 0), "reflect")
    with pytest.raises(AttributeValueError, match="so at most 4 can be added"):
        F.pad(x, (5, 0), "circular")
    with pytest.raises(AttributeValueError, match="padding mode 'edge' is not one of"):
        F.pad(x, (1, 1), "edge")
    with pytest.raises(AttributeValueError, match=r"pad \[1, 1, 1\] must be"):
        F.pad(x, (1, 1, 1))
    with pytest.raises(AttributeValueError, match="takes no value"):
        F.pad(x, (1, 1), "reflect", 2.0)
    with pytest.raises(AttributeValueError, match="needs size or scale_factor, and not both"):
        F.interpolate(x)
    with pytest.raises(ShapeError, match="mode 'linear' takes 1 spatial axes"):
        F.interpolate(x, 8, mode="linear")
    with pytest.raises(AttributeValueError, match="align_corners has no meaning in mode 'nearest'"):
        F.interpolate(x, 8, align_corners=True)
    with pytest.raises(AttributeValueError, match="interpolation mode 'lanczos' is not one of"):
        F.interpolate(x, 8, mode="lanczos")
    with pytest.raises(ShapeError, match=r"the input has shape \[2, 3\], the weight \[5, 4\]"):
        nn.Linear(4, 5)(irconv.zeros((2, 3)))
    with pytest.raises(ShapeError, match="needs a multiple of 4 channels, got 2"):
        F.pixel_shuffle(x, 2)
    with pytest.raises(ShapeError, match="ZeroPad2d takes"):
        nn.ZeroPad2d(1)(irconv.zeros((4, 4)))
