"""Pooling: maximum, minimum and average over windows, and what they do with sizes, padding and ties."""

from __future__ import annotations

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn
from tests.ops import window_oracles as oracle
from tests.worked_examples.ways import check, check_gradients, check_shape, f32, image, normal, shape_of

NINE = image(np.arange(9).reshape(3, 3))
SIXTEEN = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)


def test_window_2_stride_1() -> None:
    check(nn.MaxPool2d(2, stride=1), NINE, expected=image([[4, 5], [7, 8]]))
    check(nn.AvgPool2d(2, stride=1), NINE, expected=image([[2, 3], [5, 6]]))


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ((3,), [[10]]),
        ((3, 2, 1), [[5, 7], [13, 15]]),
        (((2, 3), (2, 3), (1, 1)), [[1, 3], [9, 11], [13, 15]]),
    ],
)
def test_max_pool_of_sixteen(pool: tuple, expected: list) -> None:
    check(nn.MaxPool2d(*pool), SIXTEEN, expected=image(expected))


def test_channels_are_pooled_apart() -> None:
    both = np.concatenate([SIXTEEN, SIXTEEN + 1], 1)
    check(nn.MaxPool2d(3, padding=1, stride=2), both, expected=f32([[[[5, 7], [13, 15]], [[6, 8], [14, 16]]]]))


def test_stride_is_the_kernel_and_there_are_no_parameters() -> None:
    for layer in (nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(3)):
        assert list(layer.parameters()) == [] and layer.state_dict() == {}
    check_shape(nn.MaxPool2d((2, 3)), (2, 5, 6, 6), (2, 5, 3, 2))
    check_shape(nn.AvgPool2d((2, 3)), (2, 5, 6, 6), (2, 5, 3, 2))
    check(nn.AvgPool2d(2), SIXTEEN, expected=image([[2.5, 4.5], [10.5, 12.5]]))


def test_min_pooling_is_max_pooling_upside_down() -> None:
    x = normal(2, 3, 7, 6)
    expected = -F.max_pool2d(irconv.tensor(-x), 3, 2, 1).numpy()
    check(lambda x: F.min_pool2d(x, 3, 2, 1), x, expected=expected)
    check(lambda x: F.min_pool2d(x, 2, 1), NINE, expected=image([[0, 1], [3, 4]]))


def test_adaptive_pooling() -> None:
    # windows of 7 into 3: 0..2, 2..4, 4..6
    x = f32([[[4, 1, 9, 2, 8, 3, 7]]])
    check(nn.AdaptiveAvgPool1d(3), x, expected=f32([[[14 / 3, 19 / 3, 6]]]), rtol=1e-6)
    check(nn.AdaptiveMaxPool1d(3), x, expected=[[[9, 9, 8]]])
    check(nn.AdaptiveAvgPool2d((2, 2)), SIXTEEN, expected=image([[2.5, 4.5], [10.5, 12.5]]))
    check_shape(nn.AdaptiveMaxPool2d((None, 2)), (1, 3, 5, 7), (1, 3, 5, 2))
    with pytest.raises(irconv.IrconvError):
        shape_of(nn.AdaptiveAvgPool2d(0), (1, 1, 4, 4))


def test_global_pooling() -> None:
    x = normal(2, 3, 5, 4)
    check(nn.AdaptiveAvgPool2d(1), x, expected=x.mean((2, 3), keepdims=True), rtol=1e-13)
    check(nn.AdaptiveMaxPool2d(1), x, expected=x.max((2, 3), keepdims=True))
    check(nn.GlobalAvgPool(), x, expected=x.mean((2, 3)), rtol=1e-13)
    check(nn.GlobalMaxPool(), x, expected=x.max((2, 3)))


def test_ceil_mode() -> None:
    x = f32([[[1, 2, 3, 4, 5]]])
    check(nn.MaxPool1d(2, 2), x, expected=[[[2, 4]]])
    check(nn.MaxPool1d(2, 2, ceil_mode=True), x, expected=[[[2, 4, 5]]])
    check(nn.AvgPool1d(2, 2, ceil_mode=True), x, expected=[[[1.5, 3.5, 5]]])


def test_dilation() -> None:
    check(nn.MaxPool2d(2, stride=1, dilation=2), SIXTEEN, expected=image([[10, 11], [14, 15]]))
    x = normal(1, 2, 7, 8)
    expected, _ = oracle.extremum_pool(x, lambda a, b: a > b, -np.inf, (2, 3), (2, 1), ((1, 1), (0, 0)), (2, 2), False)
    check(nn.MaxPool2d((2, 3), (2, 1), (1, 0), 2), x, expected=expected)


def test_return_indices_and_unpooling() -> None:
    check(nn.MaxPool2d(2, return_indices=True), SIXTEEN, expected=(image([[5, 7], [13, 15]]), image([[5, 7], [13, 15]], np.int64)))
    x = normal(2, 2, 6, 6, dtype=np.float32)

    def kept(x):
        values, indices = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(values, indices, 2)

    largest = x == np.kron(F.max_pool2d(irconv.tensor(x), 2).numpy(), np.ones((2, 2), np.float32))
    check(kept, x, expected=np.where(largest, x, 0))
    flat = np.take_along_axis(x.reshape(2, 2, 36), np.asarray(F.max_pool2d(irconv.tensor(x), 3, 2, 1, return_indices=True)[1]).reshape(2, 2, 9), 2)
    check(lambda x: F.max_pool2d(x, 3, 2, 1).reshape(2, 2, 9), x, expected=flat)


def test_average_pooling_is_a_convolution_with_a_constant_kernel() -> None:
    x, constant = normal(2, 3, 6, 7), np.full((3, 1, 2, 3), 1 / 6)
    expected = F.conv2d(irconv.tensor(x), irconv.tensor(constant), stride=(2, 1), groups=3).numpy()
    check(lambda x: F.avg_pool2d(x, (2, 3), (2, 1)), x, expected=expected, rtol=1e-12, atol=1e-15)
    spread = F.conv_transpose2d(irconv.ones((2, 3, 3, 5), "f64"), irconv.tensor(constant), None, (2, 1), groups=3).numpy()
    check_gradients(lambda x: F.avg_pool2d(x, (2, 3), (2, 1)).sum(), x, expected=[spread], rtol=1e-12)


def test_max_pooling_is_no_convolution() -> None:
    """A convolution is linear: what it makes of a sum is the sum of what it makes of the parts.  Maxima are not."""
    x, y = image([[1, 0], [0, 0]]), image([[0, 0], [0, 1]])
    for a, b, total in ((x, y, 2), (x, -x, 1)):
        parts = [F.max_pool2d(irconv.tensor(v), 2).item() for v in (a, b)]
        assert sum(parts) == total
    check(nn.MaxPool2d(2), x + y, expected=image([[1]]))
    check(nn.AvgPool2d(2), x + y, expected=image([[0.5]]))
