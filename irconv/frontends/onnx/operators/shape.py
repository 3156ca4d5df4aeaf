"""Shapes, parts and arrangement of tensors, and making them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from irconv.concrete import take_room
from irconv.errors import ModelError
from irconv.frontends.onnx.narrow import marked
from irconv.frontends.onnx.operators.common import constant, integers, number, pairs, tensor_of
from irconv.frontends.onnx.registry import Call, operator
from irconv.ops import pad as padding
from irconv.ops import shape as s
from irconv.ops.concat import concat
from irconv.ops.concat import split as split_axis
from irconv.tensor import Tensor
from irconv.types import broadcast_shapes, tensor_type

# --- shapes themselves -----------------------------------------------------------------------------------------------------


@operator("Shape", shape_only=True)
def shape_of(call: Call, x: Tensor) -> Tensor:
    """The dimensions from ``start`` to ``end``."""
    return constant(np.array(x.shape[call.attributes.int("start", 0) : call.attributes.int("end", None)], np.int64))


@operator("Size", shape_only=True)
def size_of(call: Call, x: Tensor) -> Tensor:
    """The number of elements."""
    return constant(np.array(x.size, np.int64))


# --- views -----------------------------------------------------------------------------------------------------------------


def _reshaped(x: Tensor, shape: tuple[int, ...], allow_zero: bool) -> Tensor:
    """x in another shape, where 0 stands for x's own size and -1 for what is left."""
    if not allow_zero:
        if any(n == 0 and axis >= x.ndim for axis, n in enumerate(shape)):
            raise ModelError(f"shape {list(shape)} keeps an axis that {list(x.shape)} does not have")
        shape = tuple(x.shape[axis] if n == 0 else n for axis, n in enumerate(shape))
    return tensor_of(s.reshape(x, shape))


@operator("Reshape")
def reshape_by_attribute(call: Call, x: Tensor) -> Tensor:
    """x in the shape of the attribute."""
    return _reshaped(x, call.attributes.ints("shape"), False)


@operator("Reshape", since=5, static=(1,))
def reshape(call: Call, x: Tensor, shape: np.ndarray) -> Tensor:
    """x in the given shape."""
    return _reshaped(x, integers(shape, "shape") or (), call.attributes.flag("allowzero"))


@operator("Flatten")
def flatten(call: Call, x: Tensor) -> Tensor:
    """A matrix: the axes before ``axis`` as rows, the others as columns."""
    axis = call.attributes.int("axis", 1)
    if not -x.ndim <= axis <= x.ndim:
        raise ModelError(f"axis {axis} is out of range for shape {list(x.shape)}")
    axis = axis + x.ndim if axis < 0 else axis
    return tensor_of(s.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))))


@operator("Transpose")
def transpose(call: Call, x: Tensor) -> Tensor:
    """x with its axes in another order, reversed by default."""
    return tensor_of(s.transpose(x, call.attributes.ints("perm", None)))


@operator("Squeeze")
def squeeze_by_attribute(call: Call, x: Tensor) -> Tensor:
    """x without axes of size 1."""
    return tensor_of(s.squeeze(x, call.attributes.ints("axes", None)))


@operator("Squeeze", since=13, static=(1,))
def squeeze(call: Call, x: Tensor, axes: np.ndarray | None = None) -> Tensor:
    """x without axes of size 1."""
    return tensor_of(s.squeeze(x, integers(axes, "axes")))


@operator("Unsqueeze")
def unsqueeze_by_attribute(call: Call, x: Tensor) -> Tensor:
    """x with axes of size 1 put in."""
    return tensor_of(s.expand_dims(x, call.attributes.ints("axes")))


@operator("Unsqueeze", since=13, static=(1,))
def unsqueeze(call: Call, x: Tensor, axes: np.ndarray) -> Tensor:
    """x with axes of size 1 put in."""
    return tensor_of(s.expand_dims(x, integers(axes, "axes")))


@operator("Expand", static=(1,))
def expand(call: Call, x: Tensor, shape: np.ndarray) -> Tensor:
    """x broadcast with a shape."""
    wanted = integers(shape, "shape") or ()
    if any(n < 0 for n in wanted):
        raise ModelError(f"shape {list(wanted)} has a negative dimension")
    return tensor_of(s.broadcast(x, broadcast_shapes(x.shape, wanted)))


@operator("Tile", static=(1, 2))
def early_tile(call: Call, x: Tensor, tiles: np.ndarray, axis: np.ndarray) -> Tensor:
    """x several times along one axis."""
    repeats = [1] * x.ndim
    repeats[s.normalize_axis(number(axis, "axis"), x.ndim)] = number(tiles, "tiles")
    return _tiled(x, tuple(int(n) for n in repeats))


@operator("Tile", since=6, static=(1,))
def tile(call: Call, x: Tensor, repeats: np.ndarray) -> Tensor:
    """x several times along each axis."""
    return _tiled(x, integers(repeats, "repeats") or ())


def _tiled(x: Tensor, repeats: tuple[int, ...]) -> Tensor:
    if len(repeats) != x.ndim or any(n < 0 for n in repeats):
        raise ModelError(f"repeats {list(repeats)} do not fit shape {list(x.shape)}")
    apart = [n for size in x.shape for n in (1, size)]
    together = [n for pair in zip(repeats, x.shape, strict=True) for n in pair]
    result = s.broadcast(s.reshape(x, apart), together)
    return tensor_of(s.reshape(result, [size * n for size, n in zip(x.shape, repeats, strict=True)]))


# --- parts -----------------------------------------------------------------------------------------------------------------


def _sliced(
    x: Tensor, starts: tuple[int, ...], ends: tuple[int, ...], axes: tuple[int, ...] | None, steps: tuple[int, ...] | None
) -> Tensor:
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise ModelError(f"{len(starts)} starts, {len(ends)} ends, {len(axes)} axes and {len(steps)} steps")
    index: list[Any] = [slice(None)] * x.ndim
    for axis, *bounds in zip(s.normalize_axes(axes, x.ndim), starts, ends, steps, strict=True):
        index[axis] = slice(*bounds)
    return x[tuple(index)]


@operator("Slice")
def slice_by_attributes(call: Call, x: Tensor) -> Tensor:
    """The elements from starts to ends along axes."""
    a = call.attributes
    return _sliced(x, a.ints("starts"), a.ints("ends"), a.ints("axes", None), None)


@operator("Slice", since=10, static=(1, 2, 3, 4))
def slice_(
    call: Call,
    x: Tensor,
    starts: np.ndarray,
    ends: np.ndarray,
    axes: np.ndarray | None = None,
    steps: np.ndarray | None = None,
) -> Tensor:
    """The elements from starts to ends by steps along axes; a negative step walks backwards."""
    bounds = integers(starts, "starts") or (), integers(ends, "ends") or ()
    return _sliced(x, *bounds, integers(axes, "axes"), integers(steps, "steps"))


@operator("Split")
def split_by_attribute(call: Call, x: Tensor) -> tuple[Tensor, ...]:
    """Pieces along an axis: of the given sizes, or equal ones."""
    return _pieces(call, x, call.attributes.ints("split", None))


@operator("Split", since=13, static=(1,))
def split(call: Call, x: Tensor, sizes: np.ndarray | None = None) -> tuple[Tensor, ...]:
    """Pieces along an axis: of the given sizes, or as many equal ones as there are outputs (the last may be smaller)."""
    return _pieces(call, x, integers(sizes, "split"))


def _pieces(call: Call, x: Tensor, sizes: tuple[int, ...] | None) -> tuple[Tensor, ...]:
    axis = s.normalize_axis(call.attributes.int("axis", 0), x.ndim)
    size = x.shape[axis]
    if sizes is None:
        count = call.attributes.int("num_outputs", None) or len(call.node.outputs)
        if not 0 < count <= max(size, 1):
            raise ModelError(f"{size} elements cannot be split into {count} pieces")
        each = -(-size // count)
        sizes = tuple(max(0, min(each, size - i * each)) for i in range(count))
    return tuple(tensor_of(piece) for piece in split_axis(x, sizes, axis))


@operator("Concat")
def concatenate(call: Call, x: Tensor, *others: Tensor) -> Tensor:
    """The inputs one after another along an axis."""
    axis = call.attributes.int("axis", 1) if call.opset < 4 else call.attributes.int("axis")
    return tensor_of(concat((x, *others), axis))


# --- pixels and channels ---------------------------------------------------------------------------------------------------


def _image(call: Call, x: Tensor) -> tuple[int, int, int, int, int]:
    """Block size, batch, channels, height and width."""
    block = call.attributes.int("blocksize")
    if x.ndim != 4 or block < 1:
        raise ModelError(f"needs [batch, channels, height, width] and a positive block size, got {list(x.shape)} and {block}")
    return block, x.shape[0], x.shape[1], x.shape[2], x.shape[3]


@operator("DepthToSpace")
def depth_to_space(call: Call, x: Tensor) -> Tensor:
    """Blocks of pixels from channels: those of a pixel apart (DCR) or together (CRD)."""
    block, batch, channels, height, width = _image(call, x)
    if channels % (block * block):
        raise ModelError(f"blocks of {block} x {block} pixels do not divide {channels} channels")
    left = channels // (block * block)
    if call.attributes.string("mode", "DCR", choices=("DCR", "CRD")) == "DCR":
        parts, order = (batch, block, block, left, height, width), (0, 3, 4, 1, 5, 2)
    else:
        parts, order = (batch, left, block, block, height, width), (0, 1, 4, 2, 5, 3)
    return tensor_of(s.reshape(s.transpose(s.reshape(x, parts), order), (batch, left, height * block, width * block)))


@operator("SpaceToDepth")
def space_to_depth(call: Call, x: Tensor) -> Tensor:
    """Channels from blocks of pixels: the inverse of DepthToSpace in mode DCR (before version 28, the only one)."""
    block, batch, channels, height, width = _image(call, x)
    if height % block or width % block:
        raise ModelError(f"blocks of {block} x {block} pixels do not divide {height} x {width}")
    order = (0, 3, 5, 1, 2, 4)
    if call.attributes.string("mode", "DCR", choices=("DCR", "CRD")) == "CRD":
        order = (0, 1, 3, 5, 2, 4)
    parts = s.reshape(x, (batch, channels, height // block, block, width // block, block))
    return tensor_of(s.reshape(s.transpose(parts, order), (batch, channels * block * block, height // block, width // block)))


# --- padding ---------------------------------------------------------------------------------------------------------------

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def _padded(call: Call, x: Tensor, widths: tuple[tuple[int, int], ...], value: float) -> Tensor:
    """x with elements added; negative amounts crop, before anything is added in the modes that repeat elements."""
    mode = _PAD_MODES[call.attributes.string("mode", "constant", choices=tuple(_PAD_MODES))]
    if mode == "constant":
        return tensor_of(padding.pad(x, widths, mode, value))
    cropped = padding.pad(x, [(min(before, 0), min(after, 0)) for before, after in widths])
    return tensor_of(padding.pad(cropped, [(max(before, 0), max(after, 0)) for before, after in widths], mode))


@operator("Pad")
def pad_by_attributes(call: Call, x: Tensor) -> Tensor:
    """x with elements added at the ends of every axis."""
    a = call.attributes
    widths = a.ints("paddings" if call.opset < 2 else "pads")
    return _padded(call, x, pairs(widths, x.ndim), a.float("value", 0.0))


@operator("Pad", since=11, static=(1, 2, 3))
def pad(
    call: Call, x: Tensor, pads: np.ndarray, value: np.ndarray | None = None, axes: np.ndarray | None = None
) -> Tensor:
    """x with elements added at the ends of axes."""
    chosen = s.normalize_axes(integers(axes, "axes"), x.ndim)
    widths: list[tuple[int, int]] = [(0, 0)] * x.ndim
    for axis, pair in zip(chosen, pairs(integers(pads, "pads") or (), len(chosen)), strict=True):
        widths[axis] = pair
    fill = 0 if value is None or value.size == 0 else number(value, "the padding value")
    return _padded(call, x, tuple(widths), fill)


# --- made from numbers -----------------------------------------------------------------------------------------------------


@operator("ConstantOfShape", static=(0,))
def constant_of_shape(call: Call, shape: np.ndarray) -> Tensor:
    """One number, float32 0 by default, in every place of a shape."""
    value = call.attributes.tensor("value", np.zeros(1, np.float32))
    wanted = integers(shape, "shape") or ()
    dims = tensor_type(value.dtype, wanted).shape
    filled = constant(np.broadcast_to(value.reshape(-1)[:1].reshape(()), dims))
    return marked(filled, call.attributes.tensor_format("value"))


@operator("Range", static=(0, 1, 2))
def range_(call: Call, start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> Tensor:
    """The numbers from start up to limit by delta."""
    first, end, step = (number(v, what) for v, what in ((start, "start"), (limit, "limit"), (delta, "delta")))
    if step == 0 or not all(math.isfinite(v) for v in (first, end, step)):
        raise ModelError(f"a range from {first} to {end} by {step}")
    count = max(math.ceil((end - first) / step), 0)
    take_room(tensor_type(start.dtype, (count,)))
    return constant((np.arange(count) * delta.reshape(()) + start.reshape(())).astype(start.dtype))
