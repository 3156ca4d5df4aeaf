"""Operators that belong to no larger family: sums of products, scans, remainders, sampling, windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from irconv.errors import ModelError
from irconv.frontends.onnx.operators.common import constant, integers, limited, number, pairs, tensor_of
from irconv.frontends.onnx.registry import Call, operator
from irconv.frontends.onnx.tensors import element_type
from irconv.nn.functional.deformable import deform_conv
from irconv.nn.functional.sampling import affine_grid, grid_sample
from irconv.op import Value
from irconv.ops import elementwise as e
from irconv.ops.contract import col2im
from irconv.ops.einsum import einsum
from irconv.ops.pad import pad
from irconv.ops.reduce import argmax
from irconv.ops.scan import cumprod, cumsum
from irconv.ops.shape import normalize_axes, normalize_axis, reshape, transpose
from irconv.tensor import Tensor

# --- sums of products, scans, remainders -----------------------------------------------------------------------------------


@operator("Einsum", since=12, weights=(0, 1))
def sum_of_products(call: Call, *operands: Tensor) -> Tensor:
    """The sum of products that the equation describes."""
    return tensor_of(einsum(call.attributes.string("equation"), *operands))


@operator("CumSum", since=11, static=(1,))
def running_sum(call: Call, x: Tensor, axis: np.ndarray) -> Tensor:
    """Running sums along an axis."""
    a = call.attributes
    return tensor_of(cumsum(x, number(axis, "axis"), a.flag("exclusive"), a.flag("reverse")))


@operator("CumProd", since=26, static=(1,))
def running_product(call: Call, x: Tensor, axis: np.ndarray) -> Tensor:
    """Running products along an axis."""
    a = call.attributes
    return tensor_of(cumprod(x, number(axis, "axis"), a.flag("exclusive"), a.flag("reverse")))


@operator("Mod", since=10)
def modulo(call: Call, x: Tensor, y: Tensor) -> Tensor:
    """The remainder of x / y: with the sign of y, or, with fmod, of x."""
    if not call.attributes.flag("fmod"):
        return tensor_of(e.remainder(x, y))
    if x.type.dtype.kind == "uint":
        return tensor_of(e.remainder(x, y))
    rest = e.remainder(e.absolute(x), e.absolute(y))
    return tensor_of(e.where(e.less(x, 0), e.negative(rest), rest))


# --- one-hot of the largest --------------------------------------------------------------------------------------------------


def _hardmax(x: Tensor, axis: int) -> Value:
    places = constant(np.arange(limited(x.shape[axis], "the axis")).reshape(-1, *(1,) * (x.ndim - axis - 1)))
    return e.cast(e.equal(argmax(x, axis, keepdims=True), places), x.dtype)


@operator("Hardmax")
def hardmax_of_rows(call: Call, x: Tensor) -> Tensor:
    """1 at the first largest element of each row, 0 elsewhere; the axes from ``axis`` on are one row."""
    axis = normalize_axis(call.attributes.int("axis", 1), x.ndim + 1)
    rows = tensor_of(reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))))
    return tensor_of(reshape(_hardmax(rows, 1), x.shape))


@operator("Hardmax", since=13)
def hardmax(call: Call, x: Tensor) -> Tensor:
    """1 at the first largest element along an axis, 0 elsewhere."""
    return tensor_of(_hardmax(x, normalize_axis(call.attributes.int("axis", -1), x.ndim)))


# --- images --------------------------------------------------------------------------------------------------------------------


@operator("Col2Im", since=18, static=(1, 2))
def columns_to_image(call: Call, x: Tensor, image_shape: np.ndarray, block_shape: np.ndarray) -> Tensor:
    """Columns [N, C taps, windows] added where their windows lie in images [N, C, *image_shape]."""
    size, block = integers(image_shape, "image_shape") or (), integers(block_shape, "block_shape") or ()
    rank, taps = len(size), math.prod(block)
    if x.ndim != 3 or not rank or len(block) != rank or min(block) < 1 or x.shape[1] % taps:
        raise ModelError(f"columns {list(x.shape)} are not [batch, channels x {list(block)}, windows]")
    a = call.attributes
    columns = reshape(transpose(x, (0, 2, 1)), (1, x.shape[0] * x.shape[2], x.shape[1]))
    padding = pairs(a.ints("pads", (0,) * (2 * rank)), rank)
    stride, dilation = a.ints("strides", (1,) * rank), a.ints("dilations", (1,) * rank)
    return tensor_of(col2im(columns, x.shape[0], x.shape[1] // taps, size, block, stride, padding, dilation))


@operator("DeformConv", since=19, weights=(1, 3))
def deformable_convolution(
    call: Call, x: Tensor, w: Tensor, offset: Tensor, b: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """A convolution whose taps read at places of their own."""
    a = call.attributes
    rank = w.ndim - 2
    if a.ints("kernel_shape", w.shape[2:]) != w.shape[2:]:
        raise ModelError(f"the kernel shape {list(a.ints('kernel_shape'))} is not that of the weight {list(w.shape)}")
    padding = pairs(a.ints("pads", (0,) * (2 * rank)), rank)
    stride, dilation = a.ints("strides", (1,) * rank), a.ints("dilations", (1,) * rank)
    return deform_conv(x, w, offset, b, mask, stride, padding, dilation, a.int("group", 1), a.int("offset_group", 1))


SAMPLE_MODES = {"linear": "bilinear", "bilinear": "bilinear", "cubic": "bicubic", "bicubic": "bicubic", "nearest": "nearest"}


@operator("GridSample", since=16)
def sample(call: Call, x: Tensor, grid: Tensor) -> Tensor:
    """Images read at the positions in the grid."""
    a = call.attributes
    mode = SAMPLE_MODES[a.string("mode", "linear", choices=tuple(SAMPLE_MODES))]
    padding = a.string("padding_mode", "zeros", choices=("zeros", "border", "reflection"))
    return grid_sample(x, grid, mode, padding, a.flag("align_corners"))


@operator("AffineGrid", since=20, static=(1,))
def grid_of_map(call: Call, theta: Tensor, size: np.ndarray) -> Tensor:
    """The grid at which affine maps read images of a size."""
    shape = integers(size, "size") or ()
    limited(math.prod(shape[2:]), "the number of points")
    return affine_grid(theta, shape, call.attributes.flag("align_corners"))


@operator("CenterCropPad", since=18, static=(1,))
def crop_or_pad(call: Call, x: Tensor, shape: np.ndarray) -> Tensor:
    """The middle of x, or x in the middle of zeros; where halves are uneven, x lies nearer to the start."""
    axes = normalize_axes(call.attributes.ints("axes", None), x.ndim)
    target = integers(shape, "shape") or ()
    if len(target) != len(axes):
        raise ModelError(f"{len(target)} sizes for {len(axes)} axes")
    amounts = [(0, 0)] * x.ndim
    for axis, wanted in zip(axes, target, strict=True):
        n = x.shape[axis]
        before = -((n - wanted) // 2) if n > wanted else (wanted - n) // 2
        amounts[axis] = (before, wanted - n - before)
    return tensor_of(pad(x, amounts))


# --- windows -----------------------------------------------------------------------------------------------------------------


def _window(call: Call, size: np.ndarray, coefficients: Sequence[float]) -> Tensor:
    """A sum of cosines: coefficients[k] cos(2 pi k i / n), with n one less for a symmetric window."""
    count = limited(int(number(size, "size")), "the size of the window")
    periods = max(count if call.attributes.flag("periodic", True) else count - 1, 1)
    angles = 2 * np.pi * np.arange(count) / periods
    terms = [c * np.cos(k * angles) for k, c in enumerate(coefficients)]
    return constant(sum(terms), element_type(call.attributes.int("output_datatype", 1), "the window"))


@operator("HannWindow", since=17, static=(0,))
def hann_window(call: Call, size: np.ndarray) -> Tensor:
    """The Hann window."""
    return _window(call, size, (0.5, -0.5))


@operator("HammingWindow", since=17, static=(0,))
def hamming_window(call: Call, size: np.ndarray) -> Tensor:
    """The Hamming window."""
    return _window(call, size, (25 / 46, -21 / 46))


@operator("BlackmanWindow", since=17, static=(0,))
def blackman_window(call: Call, size: np.ndarray) -> Tensor:
    """The Blackman window."""
    return _window(call, size, (0.42, -0.5, 0.08))
