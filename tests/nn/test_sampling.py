"""grid_sample and affine_grid against PyTorch, values and gradients."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv.errors import AttributeValueError, ShapeError

CASES = [*itertools.product(F.sampling.SAMPLE_MODES, F.sampling.PADDING_MODES, (False, True))]


def both(mode, padding, align, size, points):
    """Value and gradients by image and grid, ours and PyTorch's."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, grid = rng.normal(size=(2, 3, *size)), rng.uniform(-1.7, 1.7, (2, *points, len(size)))
    theirs = [torch.tensor(a, requires_grad=True) for a in (x, grid)]
    expected = torch.nn.functional.grid_sample(*theirs, mode=mode, padding_mode=padding, align_corners=align)
    d = rng.normal(size=expected.shape)
    expected.backward(torch.tensor(d))
    ours = [irconv.tensor(a, requires_grad=True) for a in (x, grid)]
    found = F.grid_sample(*ours, mode=mode, padding_mode=padding, align_corners=align)
    found.backward(irconv.tensor(d))
    pairs = [(found.numpy(), expected.detach().numpy()), (ours[0].grad.numpy(), theirs[0].grad.numpy())]
    if mode != "nearest":
        pairs.append((ours[1].grad.numpy(), theirs[1].grad.numpy()))
    return pairs


@pytest.mark.parametrize(("mode", "padding", "align"), CASES)
@pytest.mark.parametrize("size", [(4, 5), (1, 3)])
def test_images_as_torch(mode, padding, align, size):
    for found, expected in both(mode, padding, align, size, (3, 4)):
        np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize(("mode", "padding", "align"), [case for case in CASES if case[0] != "bicubic"])
def test_volumes_as_torch(mode, padding, align):
    for found, expected in both(mode, padding, align, (2, 3, 4), (2, 2, 3)):
        np.testing.assert_allclose(found, expected, atol=1e-10)


def test_one_axis_reads_along_a_line():
    line = np.arange(5.0).reshape(1, 1, 5)
    grid = np.array([-1.0, 0.25, 1.0, 2.0]).reshape(1, 4, 1)
    np.testing.assert_allclose(F.grid_sample(line, grid, align_corners=True).numpy(), [[[0, 2.5, 4, 0]]])


def test_what_lies_outside_is_not_read():
    """An infinite element next to the border does not turn zeros into NaN."""
    x = np.full((1, 1, 2, 2), np.inf)
    grid = np.array([[[[5.0, 5.0], [np.nan, 0.0]]]])
    found = F.grid_sample(x, grid, mode="nearest").numpy()
    np.testing.assert_array_equal(found, np.zeros((1, 1, 1, 2)))


@pytest.mark.filterwarnings("ignore:Since version 1.3.0")
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 1, 3, 2, 4), (1, 1, 1, 3)])
def test_affine_grid_as_torch(align, size):
    torch = pytest.importorskip("torch")
    rank = len(size) - 2
    theta = np.random.default_rng(0).normal(size=(size[0], rank, rank + 1))
    expected = torch.nn.functional.affine_grid(torch.tensor(theta), size, align)
    np.testing.assert_allclose(F.affine_grid(theta, size, align).numpy(), expected, atol=1e-12)


def test_bad_input_is_explained():
    x, grid = np.ones((1, 1, 3, 3)), np.zeros((1, 2, 2, 2))
    with pytest.raises(AttributeValueError, match="'cubic' is not one of bilinear"):
        F.grid_sample(x, grid, mode="cubic")
    with pytest.raises(AttributeValueError, match="'wrap' is not one of zeros"):
        F.grid_sample(x, grid, padding_mode="wrap")
    with pytest.raises(ShapeError, match=r"\[batch, \*size, 2\], got \[1, 2, 2, 3\]"):
        F.grid_sample(x, np.zeros((1, 2, 2, 3)))
    with pytest.raises(ShapeError, match=r"\[batch, 2, 3\], got \[1, 2, 2\]"):
        F.affine_grid(np.zeros((1, 2, 2)), (1, 1, 3, 3))
