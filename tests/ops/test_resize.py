"""Resizing against PyTorch's interpolate, and against its definition where PyTorch has no such mode."""

from __future__ import annotations

import math

import numpy as np
import pytest

from irconv.errors import AttributeValueError, DTypeError, ShapeError
from irconv.ops.resize import resize, resize_adjoint
from irconv.ops.resize_taps import ResizeAttributes
from tests.ops.evaluating import apply, gradients

TORCH_MODES = [
    ("nearest", {}, "nearest", "asymmetric"),
    ("nearest-exact", {}, "nearest", "half_pixel"),
    ("linear", {"align_corners": False}, "linear", "half_pixel"),
    ("linear", {"align_corners": True}, "linear", "align_corners"),
]
NAMES = {1: "linear", 2: "bilinear", 3: "trilinear"}
CUBIC = [({"align_corners": False}, "half_pixel"), ({"align_corners": True}, "align_corners")]


def against_torch(x, mode, options, arguments, **sizes):
    """Value and gradient of ours and of torch's interpolate."""
    torch = pytest.importorskip("torch")
    name = NAMES[x.ndim - 2] if mode == "linear" else mode
    tensor = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.interpolate(tensor, mode=name, **options, **sizes)
    d = np.random.default_rng(1).normal(size=expected.shape)
    expected.backward(torch.tensor(d))
    size = expected.shape[2:]
    np.testing.assert_allclose(apply(lambda v: resize(v, size, *arguments), x), expected.detach(), atol=1e-12)
    np.testing.assert_allclose(gradients(lambda v: resize(v, size, *arguments), d, x)[0], tensor.grad, atol=1e-12)


@pytest.mark.parametrize(("mode", "options", "ours", "coordinates"), TORCH_MODES)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("m", [1, 2, 3, 4, 7, 10])
def test_one_axis_as_torch(mode, options, ours, coordinates, n, m):
    against_torch(np.random.default_rng(0).normal(size=(2, 1, n)), mode, options, (ours, coordinates), size=m)


@pytest.mark.parametrize(("mode", "options", "ours", "coordinates"), TORCH_MODES)
@pytest.mark.parametrize("size", [(5, 2), (2, 9), (3, 1, 4), (6, 5, 3)])
def test_more_axes_as_torch(mode, options, ours, coordinates, size):
    x = np.random.default_rng(0).normal(size=(1, 2, 3, 4, 2)[: len(size) + 2])
    against_torch(x, mode, options, (ours, coordinates), size=size)


@pytest.mark.parametrize(("mode", "options", "ours", "coordinates"), TORCH_MODES[:3])
@pytest.mark.parametrize("scale", [0.5, 0.7, 1.5, 2.0, 2.6])
def test_given_scales_as_torch(mode, options, ours, coordinates, scale):
    x = np.random.default_rng(0).normal(size=(1, 1, 7))
    against_torch(x, mode, options, (ours, coordinates, (scale,)), scale_factor=scale)


@pytest.mark.parametrize(("options", "coordinates"), CUBIC)
@pytest.mark.parametrize("size", [(5, 2), (2, 9), (1, 4), (8, 10)])
def test_cubic_as_torch(options, coordinates, size):
    x = np.random.default_rng(0).normal(size=(1, 2, 3, 4))
    against_torch(x, "bicubic", options, ("cubic", coordinates), size=size)


@pytest.mark.parametrize(("name", "mode", "coefficient"), [("bilinear", "linear", -0.75), ("bicubic", "cubic", -0.5)])
@pytest.mark.parametrize("size", [(3, 2), (2, 15), (1, 4), (7, 9), (20, 3)])
def test_antialias_as_torch(name, mode, coefficient, size):
    """PyTorch leaves out what lies outside, and takes another cubic coefficient with antialias."""
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(1, 2, 7, 9))
    expected = torch.nn.functional.interpolate(torch.tensor(x), size, mode=name, antialias=True)
    options = {"antialias": True, "exclude_outside": True, "coefficient": coefficient}
    np.testing.assert_allclose(apply(lambda v: resize(v, size, mode, **options), x), expected, atol=1e-12)


def test_crop_and_resize_reads_a_region():
    x = np.arange(5.0) ** 2
    crop = {"mode": "linear", "coordinates": "tf_crop_and_resize"}
    found = apply(lambda v: resize(v, 3, region=(0.25, 0.75), **crop), x)
    np.testing.assert_allclose(found, [1, 4, 9])
    found = apply(lambda v: resize(v, 4, region=(0.5, 1.25), extrapolation=-7.0, **crop), x)
    np.testing.assert_allclose(found, [4, 9, 16, -7])
    np.testing.assert_allclose(apply(lambda v: resize(v, 1, region=(0.0, 0.25), **crop), x), [0.5])


ROUNDED = [("floor", [0, 0, 1, 2]), ("ceil", [0, 1, 2, 2]), ("round_prefer_floor", [0, 0, 1, 2]), ("round_prefer_ceil", [0, 1, 2, 2])]


@pytest.mark.parametrize(("rounding", "places"), ROUNDED)
def test_rounding_of_ties(rounding, places):
    """Positions 0, 0.5, 1.5 and 2 along three elements (asymmetric by hand)."""
    found = apply(lambda v: resize(v, 5, "nearest", "asymmetric", (2.0,), rounding=rounding), np.arange(3.0))
    np.testing.assert_array_equal(found[[0, 1, 3, 4]], places)


@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric"])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("n", "m"), [(4, 7), (7, 4), (3, 9), (6, 1), (1, 5)])
def test_the_definition_place_by_place(coordinates, mode, n, m):
    x = np.random.default_rng(0).normal(size=n)
    expected = []
    for i in range(m):
        if coordinates == "half_pixel":
            p = (i + 0.5) * n / m - 0.5
        elif coordinates == "asymmetric":
            p = i * n / m
        else:
            p = i * (n - 1) / (m - 1) if m > 1 else 0.0
        if mode == "nearest":
            place = math.floor(p) if coordinates == "asymmetric" else math.floor(p + 0.5)
            expected.append(x[min(max(place, 0), n - 1)])
        else:
            p = min(max(p, 0.0), n - 1.0)
            low = math.floor(p)
            expected.append(x[low] * (1 - (p - low)) + x[min(low + 1, n - 1)] * (p - low))
    np.testing.assert_allclose(apply(lambda v: resize(v, m, mode, coordinates), x), expected, atol=1e-12)


def test_whole_positions_are_not_rounded_down():
    """i n / m is a whole number at many places; floor must not see it a little smaller."""
    for n, m in ((10, 6), (49, 35), (1000, 700), (7, 300)):
        expected = np.arange(n)[[i * n // m for i in range(m)]]
        np.testing.assert_array_equal(apply(lambda v, m=m: resize(v, m, "nearest", "asymmetric"), np.arange(n)), expected)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("size", [(5, 2), (1, 8), (3, 4)])
def test_resize_adjoint_is_the_adjoint(mode, size):
    rng = np.random.default_rng(0)
    x, d = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, *size))
    forward = apply(lambda v: resize(v, size, mode), x)
    back = apply(lambda v: resize_adjoint(v, ResizeAttributes((3, 4), mode, "half_pixel", None)), d)
    assert np.vdot(forward, d) == pytest.approx(np.vdot(x, back))


def test_float16_is_carried_in_float32():
    d = np.ones((1, 4096), np.float16)
    np.testing.assert_array_equal(apply(lambda v: resize_adjoint(v, ResizeAttributes((1,), "linear", "half_pixel", None)), d), np.array([[4096]], np.float16))


@pytest.mark.parametrize(
    ("x", "arguments", "error", "message"),
    [
        (np.ones((1, 1, 4)), (0,), AttributeValueError, r"cannot resize to \[0\]"),
        (np.ones((1, 1, 4)), ((),), AttributeValueError, "at least one size"),
        (np.ones((1, 1, 4)), (3, "quintic"), AttributeValueError, "'quintic' is not one of nearest, linear"),
        (np.ones((1, 1, 4)), (3, "linear", "middle"), AttributeValueError, "'middle' are not one of half_pixel"),
        (np.ones((1, 1, 4)), (3, "linear", "half_pixel", (1.0, 2.0)), AttributeValueError, "2 scales do not match the 1 sizes"),
        (np.ones((1, 1, 4)), (3, "linear", "half_pixel", (0.0,)), AttributeValueError, "positive and finite"),
        (np.ones(4), ((2, 2),), ShapeError, r"cannot resize the last 2 axes of \[4\]"),
        (np.ones((1, 1, 0)), (3,), ShapeError, "is empty"),
        (np.ones((1, 1, 4), np.int32), (3, "linear"), DTypeError, "linear resizing needs floating-point elements, got i32"),
    ],
)
def test_bad_input_is_explained(x, arguments, error, message):
    with pytest.raises(error, match=message):
        apply(lambda v: resize(v, *arguments), x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounding": "up"}, "'up' is not one of floor, ceil"),
        ({"antialias": True}, "antialias has no meaning in mode 'nearest'"),
        ({"region": (0.0, 1.0)}, "a region goes with the coordinates"),
        ({"coordinates": "tf_crop_and_resize", "region": (0.0,)}, "finite start and end for each of 1 axes"),
        ({"mode": "cubic", "coefficient": math.nan}, "is not finite"),
    ],
)
def test_bad_options_are_explained(options, message):
    with pytest.raises(AttributeValueError, match=message):
        apply(lambda v: resize(v, 3, **options), np.ones((1, 1, 4)))
