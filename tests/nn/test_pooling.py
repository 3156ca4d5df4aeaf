"""Pooling, adaptive pooling and unpooling against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn
from irconv.errors import AttributeValueError, ShapeError
from tests.nn.against_torch import array, check, torch

T = torch.nn.functional
SIZES = {1: (11,), 2: (9, 8), 3: (6, 7, 5)}
MAX = {1: (F.max_pool1d, T.max_pool1d), 2: (F.max_pool2d, T.max_pool2d), 3: (F.max_pool3d, T.max_pool3d)}
AVG = {1: (F.avg_pool1d, T.avg_pool1d), 2: (F.avg_pool2d, T.avg_pool2d), 3: (F.avg_pool3d, T.avg_pool3d)}
UNPOOL = {1: (F.max_unpool1d, T.max_unpool1d), 2: (F.max_unpool2d, T.max_unpool2d), 3: (F.max_unpool3d, T.max_unpool3d)}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "ceil"),
    [
        (2, None, 0, 1, False),
        (3, 2, 1, 1, False),
        (3, 2, 1, 1, True),
        (2, 3, 0, 2, True),
        (2, 1, 1, 2, False),
        (3, 1, 0, 1, False),
    ],
)
def test_max_pool(
    rank: int, batch: tuple[int, ...], kernel: int, stride: int | None, padding: int, dilation: int, ceil: bool
) -> None:
    ours, theirs = MAX[rank]
    settings = (kernel, stride, padding, dilation, ceil)
    x = array(*batch, 3, *SIZES[rank])
    check(lambda v: ours(v, *settings), lambda v: theirs(v, *settings), x)
    check(lambda v: ours(v, *settings, True), lambda v: theirs(v, *settings, True), x)


def test_min_pool_is_max_pool_of_the_negative() -> None:
    x = array(2, 3, 9, 8)
    for rank, ours in ((1, F.min_pool1d), (2, F.min_pool2d), (3, F.min_pool3d)):
        data = x.reshape(2, 3, *{1: (72,), 2: (9, 8), 3: (9, 2, 4)}[rank])
        values, indices = ours(data, 2, 1, 1, return_indices=True)
        wanted, places = MAX[rank][0](-data, 2, 1, 1, return_indices=True)
        np.testing.assert_array_equal(values.numpy(), -wanted.numpy())
        np.testing.assert_array_equal(indices.numpy(), places.numpy())


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil"),
    [(2, None, 0, False), (3, 2, 1, False), (3, 2, 1, True), (4, 3, 2, True), (2, 1, 1, False)],
)
def test_avg_pool(
    rank: int, count_include_pad: bool, kernel: int, stride: int | None, padding: int, ceil: bool
) -> None:
    ours, theirs = AVG[rank]
    settings = (kernel, stride, padding, ceil, count_include_pad)
    check(lambda v: ours(v, *settings), lambda v: theirs(v, *settings), array(2, 3, *SIZES[rank]))
    if rank > 1:
        x = array(3, *SIZES[rank])
        check(lambda v: ours(v, *settings, 5), lambda v: theirs(v, *settings, 5), x)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_adaptive_pools(rank: int, size: int) -> None:
    x = array(2, 3, *SIZES[rank])
    for kind in ("avg", "max"):
        name = f"adaptive_{kind}_pool{rank}d"
        ours, theirs = getattr(F, name), getattr(T, name)
        check(lambda v, ours=ours: ours(v, size), lambda v, theirs=theirs: theirs(v, size), x)
    ours, theirs = getattr(F, f"adaptive_max_pool{rank}d"), getattr(T, f"adaptive_max_pool{rank}d")
    check(lambda v: ours(v, size, return_indices=True), lambda v: theirs(v, size, return_indices=True), x[0])


def test_adaptive_pools_keep_axes_and_go_up() -> None:
    x = array(2, 3, 5, 7)
    check(lambda v: F.adaptive_avg_pool2d(v, (None, 3)), lambda v: T.adaptive_avg_pool2d(v, (None, 3)), x)
    check(lambda v: F.adaptive_max_pool2d(v, (8, 3)), lambda v: T.adaptive_max_pool2d(v, (8, 3)), x)
    values = F.adaptive_min_pool2d(x, (2, 3))
    np.testing.assert_array_equal(values.numpy(), -F.adaptive_max_pool2d(-x, (2, 3)).numpy())


def test_adaptive_max_takes_the_first_of_equals() -> None:
    x = irconv.zeros((1, 1, 5, 5), "f64").requires_grad_()
    values, indices = F.adaptive_max_pool2d(x, 2, return_indices=True)
    assert indices.tolist() == [[[[0, 2], [10, 12]]]]
    values.sum().backward()
    assert np.flatnonzero(x.grad.numpy()).tolist() == [0, 2, 10, 12]


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, None, 0), (3, 3, 1), (2, 3, 0)])
def test_max_unpool(rank: int, kernel: int, stride: int | None, padding: int) -> None:
    ours, theirs = UNPOOL[rank]
    pooled, indices = MAX[rank][1](
        torch.tensor(array(2, 3, *SIZES[rank])), kernel, stride, padding, return_indices=True
    )
    size = SIZES[rank]
    args = (kernel, stride, padding, size)
    check(lambda v, i: ours(v, i, *args), lambda v, i: theirs(v, i, *args), pooled.numpy(), indices.numpy())
    check(lambda v, i: ours(v, i, *args), lambda v, i: theirs(v, i, *args), pooled.numpy()[0], indices.numpy()[0])


def test_unpooling_overlapping_windows_counts_a_maximum_once() -> None:
    x = np.array([[[1.0, 5.0, 2.0, 3.0]]])
    values, indices = F.max_pool1d(x, 2, 1, return_indices=True)
    assert F.max_unpool1d(values, indices, 2, 1).tolist() == [[[0, 5, 0, 3]]]


def test_layers_pass_their_settings_on() -> None:
    x = array(2, 3, 9, 8)
    check(nn.MaxPool2d(3, 2, 1, ceil_mode=True), torch.nn.MaxPool2d(3, 2, 1, ceil_mode=True), x)
    check(nn.MaxPool2d((2, 3), return_indices=True), torch.nn.MaxPool2d((2, 3), return_indices=True), x)
    check(nn.AvgPool2d(3, 2, 1, True, False), torch.nn.AvgPool2d(3, 2, 1, True, False), x)
    check(nn.AdaptiveAvgPool2d((3, 5)), torch.nn.AdaptiveAvgPool2d((3, 5)), x)
    check(nn.AdaptiveMaxPool2d((3, None)), torch.nn.AdaptiveMaxPool2d((3, None)), x)
    np.testing.assert_allclose(nn.GlobalAvgPool()(x).numpy(), x.mean((2, 3)), rtol=1e-12)
    assert nn.GlobalMaxPool(keepdims=True)(x).shape == (2, 3, 1, 1)
    unpool, theirs = nn.MaxUnpool2d(2), torch.nn.MaxUnpool2d(2)
    values, indices = T.max_pool2d(torch.tensor(x), 2, return_indices=True)
    check(lambda v, i: unpool(v, i, (9, 8)), lambda v, i: theirs(v, i, (9, 8)), values.numpy(), indices.numpy())
    assert nn.MinPool1d(2)(irconv.tensor([[[3.0, 1.0, 2.0, 5.0]]])).tolist() == [[[1, 2]]]


def test_bad_settings_are_refused_with_numbers() -> None:
    x = irconv.zeros((1, 1, 8, 8))
    with pytest.raises(AttributeValueError, match=r"padding \[2, 2\] must be from 0 to half the window"):
        F.max_pool2d(x, 3, padding=2)
    F.max_pool2d(x, 3, padding=2, dilation=2)
    with pytest.raises(AttributeValueError, match="half of it is 1"):
        F.avg_pool2d(x, (2, 3), padding=(1, 2))
    with pytest.raises(AttributeValueError, match="kernel_size must be an integer or 2 integers"):
        nn.MaxPool2d((2, 2, 2))(x)
    with pytest.raises(ShapeError, match="max_pool2d takes an input of 4 axes"):
        F.max_pool2d(irconv.zeros((8, 8)), 2)
    with pytest.raises(AttributeValueError, match="does not name a size for each of 2"):
        F.adaptive_avg_pool2d(x, (1, 2, 3))
    with pytest.raises(AttributeValueError, match=r"output_size \[9, 9\] must be less than the stride"):
        F.max_unpool2d(irconv.zeros((1, 1, 2, 2)), np.zeros((1, 1, 2, 2), np.int64), 2, output_size=(9, 9))
    with pytest.raises(ShapeError, match="the indices have shape"):
        F.max_unpool2d(irconv.zeros((1, 1, 2, 2)), np.zeros((1, 1, 2, 3), np.int64), 2)
