"""Convolutions, transposed convolutions, unfold and fold, functional and as layers, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn
from irconv.errors import AttributeValueError, DTypeError, ShapeError
from tests.nn.against_torch import array, check, parameters_of, torch

T = torch.nn.functional
OURS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
THEIRS = {1: T.conv1d, 2: T.conv2d, 3: T.conv3d}
OURS_T = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
THEIRS_T = {1: T.conv_transpose1d, 2: T.conv_transpose2d, 3: T.conv_transpose3d}
SIZES = {1: (9,), 2: (7, 6), 3: (5, 4, 6)}

GRID = [
    # stride, padding, dilation, groups, kernel
    (1, 0, 1, 1, 3),
    (2, 1, 1, 1, 3),
    (3, 2, 1, 2, 2),
    (1, 3, 2, 1, 2),
    (2, 0, 2, 4, 2),
    (4, 1, 1, 1, 2),
    (1, 4, 1, 2, 1),
]


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("stride", "padding", "dilation", "groups", "kernel"), GRID)
def test_conv(rank: int, stride: int, padding: int, dilation: int, groups: int, kernel: int) -> None:
    x = array(2, 4, *SIZES[rank])
    w = array(8, 4 // groups, *(kernel,) * rank, seed=1)
    b = array(8, seed=2)
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    check(lambda *v: OURS[rank](*v, **settings), lambda *v: THEIRS[rank](*v, **settings), x, w, b)


@pytest.mark.parametrize("padding", ["same", "valid", (2, 0)])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (1, 5)])
def test_conv_named_padding(padding: object, kernel: tuple[int, int]) -> None:
    x, w = array(2, 3, 8, 9), array(4, 3, *kernel, seed=1)
    check(
        lambda *v: F.conv2d(*v, padding=padding, dilation=(1, 2)),
        lambda *v: T.conv2d(*v, padding=padding, dilation=(1, 2)),
        x,
        w,
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_without_batch(rank: int) -> None:
    x, w, b = array(4, *SIZES[rank]), array(6, 4, *(3,) * rank, seed=1), array(6, seed=2)
    check(lambda *v: OURS[rank](*v, padding=1), lambda *v: THEIRS[rank](*v, padding=1), x, w, b)
    w = array(4, 6, *(3,) * rank, seed=1)
    check(OURS_T[rank], THEIRS_T[rank], x, w, b)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("stride", "padding", "output_padding", "dilation", "groups", "kernel"),
    [
        (1, 0, 0, 1, 1, 3),
        (2, 1, 1, 1, 1, 3),
        (3, 2, 2, 1, 2, 4),
        (2, 0, 1, 2, 1, 2),
        (1, 1, 1, 3, 2, 2),
        (3, 0, 2, 1, 4, 1),
    ],
)
def test_conv_transpose(
    rank: int, stride: int, padding: int, output_padding: int, dilation: int, groups: int, kernel: int
) -> None:
    x = array(2, 4, *SIZES[rank])
    w = array(4, 8 // groups, *(kernel,) * rank, seed=1)
    b = array(8, seed=2)
    settings = (stride, padding, output_padding, groups, dilation)
    check(lambda *v: OURS_T[rank](*v, *settings), lambda *v: THEIRS_T[rank](*v, *settings), x, w, b)


@pytest.mark.parametrize(
    "settings", [{}, {"stride": 2, "padding": 1}, {"dilation": (2, 1), "padding": (0, 2), "stride": (1, 3)}]
)
def test_unfold_and_fold(settings: dict[str, object]) -> None:
    x = array(2, 3, 6, 7)
    check(lambda v: F.unfold(v, (2, 3), **settings), lambda v: T.unfold(v, (2, 3), **settings), x)
    columns = T.unfold(torch.tensor(x), (2, 3), **settings).numpy()
    check(lambda v: F.fold(v, (6, 7), (2, 3), **settings), lambda v: T.fold(v, (6, 7), (2, 3), **settings), columns)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [1, (2, 1), "same"])
def test_conv_layer_padding_modes(mode: str, padding: object) -> None:
    theirs = torch.nn.Conv2d(3, 4, (3, 2), padding=padding, padding_mode=mode, dtype=torch.float64)
    ours = nn.Conv2d(3, 4, (3, 2), padding=padding, padding_mode=mode, dtype="f64")
    ours.load_state_dict(parameters_of(theirs))
    check(ours, theirs, array(2, 3, 5, 6))


def test_conv_layer_mean_padding_is_numpys() -> None:
    layer = nn.Conv2d(2, 3, 3, padding=1, padding_mode="mean", dtype="f64")
    x = array(2, 2, 4, 5)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="mean")
    expected = F.conv2d(padded, layer.weight, layer.bias)
    np.testing.assert_allclose(layer(irconv.tensor(x)).numpy(), expected.numpy(), rtol=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_transposed_layers_take_an_output_size(rank: int) -> None:
    kinds = {1: "ConvTranspose1d", 2: "ConvTranspose2d", 3: "ConvTranspose3d"}
    theirs = getattr(torch.nn, kinds[rank])(4, 6, 3, stride=2, padding=1, groups=2, dtype=torch.float64)
    ours = getattr(nn, kinds[rank])(4, 6, 3, stride=2, padding=1, groups=2, dtype="f64")
    ours.load_state_dict(parameters_of(theirs))
    x = array(2, 4, *SIZES[rank])
    for size in (None, [2 * n - 1 for n in SIZES[rank]], [2 * n for n in SIZES[rank]]):
        check(lambda v, size=size: ours(v, size), lambda v, size=size: theirs(v, size), x)
    with pytest.raises(AttributeValueError, match="is not between"):
        ours(irconv.tensor(x), [2 * n + 1 for n in SIZES[rank]])


@pytest.mark.parametrize(
    "kind", ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]
)
def test_layers_have_torchs_layouts_and_initial_spread(kind: str) -> None:
    theirs = getattr(torch.nn, kind)(6, 4, 3, groups=2)
    ours = getattr(nn, kind)(6, 4, 3, groups=2)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: tuple(v.shape) for k, v in theirs.state_dict().items()
    }
    fan_in = theirs.weight.shape[1] * theirs.weight[0, 0].numel()
    weight = ours.weight.numpy()
    assert np.abs(weight).max() <= 1 / np.sqrt(fan_in)
    assert np.std(weight) == pytest.approx(1 / np.sqrt(3 * fan_in), rel=0.35)


def test_an_empty_batch_has_zero_gradients() -> None:
    layer = nn.Conv2d(3, 4, 3)
    y = layer(irconv.zeros((0, 3, 5, 5)))
    assert y.shape == (0, 4, 3, 3)
    y.sum().backward()
    assert not layer.weight.grad.numpy().any()


def test_bad_settings_are_refused_with_numbers() -> None:
    with pytest.raises(AttributeValueError, match="groups=3 must divide in_channels=4"):
        nn.Conv2d(4, 6, 3, groups=3)
    with pytest.raises(AttributeValueError, match="padding_mode 'mirror'"):
        nn.Conv2d(4, 6, 3, padding_mode="mirror")
    with pytest.raises(AttributeValueError, match=r"kernel_size \[0, 3\]"):
        nn.Conv2d(4, 6, (0, 3))
    with pytest.raises(AttributeValueError, match="'same' keeps the size only at stride 1"):
        nn.Conv2d(4, 6, 3, stride=2, padding="same")
    with pytest.raises(AttributeValueError, match="kernel_size must be an integer or 2 integers"):
        nn.Conv2d(4, 6, (3, 3, 3))
    with pytest.raises(ShapeError, match="takes 4 input channels per group, the input has 3"):
        nn.Conv2d(4, 6, 3)(irconv.zeros((1, 3, 8, 8)))
    with pytest.raises(ShapeError, match=r"conv2d takes an input of 4 axes .* got shape \[8, 8\]"):
        nn.Conv2d(4, 6, 3)(irconv.zeros((8, 8)))
    with pytest.raises(ShapeError, match="the bias has shape"):
        F.conv1d(irconv.zeros((1, 2, 4)), irconv.zeros((3, 2, 1)), irconv.zeros(2))
    with pytest.raises(DTypeError, match="different element types"):
        nn.Conv2d(4, 6, 3)(irconv.zeros((1, 4, 8, 8), "f64"))
    with pytest.raises(ShapeError, match="no window fits"):
        nn.Conv2d(4, 6, 3)(irconv.zeros((1, 4, 2, 8)))


@pytest.mark.parametrize("padding", [-1, (0, -1), ((0, 0), (-2, 1))])
def test_negative_padding_is_refused(padding: object) -> None:
    x, w = irconv.ones((1, 1, 6, 6)), irconv.ones((1, 1, 3, 3))
    with pytest.raises(AttributeValueError, match="must not be negative"):
        F.conv2d(x, w, padding=padding)
