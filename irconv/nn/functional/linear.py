"""Linear maps, and shapes: flatten, one-hot, pixels and channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from irconv.nn.functional.common import misshapen, refused, tensor_of
from irconv.ops import shape
from irconv.ops.contract import matmul
from irconv.ops.elementwise import add, cast, equal
from irconv.tensor import Tensor, as_tensor
from irconv.types import I64


def linear(input: Any, weight: Any, bias: Any = None) -> Tensor:
    """x @ weight.T + bias, for x [..., in] and weight [out, in]."""
    x, w = as_tensor(input), as_tensor(weight)
    if w.ndim not in (1, 2) or not x.ndim or x.shape[-1] != w.shape[-1]:
        raise misshapen(
            f"linear: the input has shape {list(x.shape)}, the weight {list(w.shape)}; their last axes must be equal",
            "flatten the input first (x.flatten(1)), or give the layer as many in_features as it gets",
        )
    y = matmul(x, shape.transpose(w))
    return tensor_of(y if bias is None else add(y, as_tensor(bias)))


def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes start_dim to end_dim as one."""
    return tensor_of(shape.flatten(as_tensor(input), start_dim, end_dim))


def one_hot(tensor: Any, num_classes: int = -1) -> Tensor:
    """int64 [..., num_classes]: 1 at the class, 0 elsewhere; num_classes -1: one more than the largest (needs data)."""
    classes = as_tensor(tensor)
    if not classes.type.dtype.is_integer:
        raise refused(f"one_hot takes integer classes, got {classes.type.dtype}")
    if not classes.is_traced and classes.size:
        smallest, largest = int(classes.numpy().min()), int(classes.numpy().max())
        if smallest < 0 or (num_classes >= 0 and largest >= num_classes):
            raise refused(f"classes from {smallest} to {largest} do not lie in 0 to {num_classes - 1}")
        num_classes = largest + 1 if num_classes < 0 else num_classes
    if num_classes < 1:
        raise refused(
            f"num_classes is {num_classes}", "say how many classes there are: a traced or empty tensor does not tell"
        )
    numbers = as_tensor(np.arange(num_classes, dtype=classes.dtype))
    return tensor_of(cast(equal(shape.expand_dims(classes, classes.ndim), numbers), I64))


def _image(input: Any, factor: int, what: str) -> tuple[Tensor, tuple[int, ...], int, int, int]:
    x = as_tensor(input)
    if x.ndim < 3 or factor < 1:
        raise misshapen(
            f"{what} takes [..., channels, height, width] and a positive factor, got {list(x.shape)} and {factor}"
        )
    channels, height, width = x.shape[-3:]
    return x, x.shape[:-3], channels, height, width


def pixel_shuffle(input: Any, upscale_factor: int) -> Tensor:
    """[..., C r^2, H, W] to [..., C, H r, W r]: each r x r block of pixels from r^2 channels."""
    r = upscale_factor
    x, lead, channels, height, width = _image(input, r, "pixel_shuffle")
    if channels % (r * r):
        raise misshapen(f"pixel_shuffle by {r} needs a multiple of {r * r} channels, got {channels}")
    parts = shape.reshape(x, (*lead, channels // (r * r), r, r, height, width))
    n = len(lead)
    order = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return tensor_of(shape.reshape(shape.transpose(parts, order), (*lead, channels // (r * r), height * r, width * r)))


def pixel_unshuffle(input: Any, downscale_factor: int) -> Tensor:
    """[..., C, H r, W r] to [..., C r^2, H, W]: the inverse of :func:`pixel_shuffle`."""
    r = downscale_factor
    x, lead, channels, height, width = _image(input, r, "pixel_unshuffle")
    if height % r or width % r:
        raise misshapen(f"pixel_unshuffle by {r} needs a height and width that {r} divides, got {height} x {width}")
    parts = shape.reshape(x, (*lead, channels, height // r, r, width // r, r))
    n = len(lead)
    order = (*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return tensor_of(shape.reshape(shape.transpose(parts, order), (*lead, channels * r * r, height // r, width // r)))
