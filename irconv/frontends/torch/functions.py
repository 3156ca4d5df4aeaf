"""PyTorch's functions and tensor methods on irconv tensors, with PyTorch's parameter names (:mod:`.table` lists them)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import irconv.nn.functional as F
from irconv.concrete import ConcreteValue
from irconv.creation import arange as new_range
from irconv.creation import full as new
from irconv.nn.functional.common import tensor_of
from irconv.ops import concat, elementwise, index, shape, sort
from irconv.tensor import Tensor, apply_float, as_tensor, common, where
from irconv.types import as_dtype

Function = Callable[..., Any]


def float_function(constructor: Function) -> Function:
    """A function of floats that takes integers as float32."""
    return lambda input, **ignored: apply_float(constructor, input)


# --- arithmetic ------------------------------------------------------------------------------------------------------------


def scaled(function: Function) -> Function:
    """``add`` and ``sub``, which multiply their second operand by ``alpha``."""

    def apply(input: Any, other: Any, *, alpha: float = 1) -> Any:
        return function(input, other if alpha == 1 else other * alpha)

    return apply


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """input / other, rounded down ('floor'), toward zero ('trunc') or not at all."""
    if rounding_mode == "floor":
        return input // other
    quotient = input / other
    if rounding_mode is None:
        return quotient
    whole = where(quotient < 0, tensor_of(elementwise.ceil(quotient)), tensor_of(elementwise.floor(quotient)))
    return whole.astype(input.dtype) if np.dtype(input.dtype).kind in "iu" else whole


def clamp(input: Any, min: Any = None, max: Any = None) -> Any:
    """input kept between bounds, which are numbers or tensors."""
    plain = all(b is None or isinstance(b, int | float) for b in (min, max))
    if plain:
        return tensor_of(elementwise.clip(input, min, max))
    low = input if min is None else np.maximum(input, min)
    return low if max is None else np.minimum(low, max)


# --- reductions ------------------------------------------------------------------------------------------------------------


def axes_of(dim: Any) -> Any:
    return tuple(dim) if isinstance(dim, list | tuple) and dim else None if isinstance(dim, list | tuple) else dim


def reduction(method: str) -> Function:
    """``sum`` and ``mean``."""

    def apply(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
        x = input if dtype is None else input.astype(dtype)
        if method == "sum" and x.type.dtype.kind != "float":
            x = x.astype("i64")
        return getattr(x, method)(axes_of(dim), keepdim)

    return apply


def spread(root: bool) -> Function:
    """``var`` and ``std``."""

    def apply(
        input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
    ) -> Any:
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        less = correction if correction is not None else int(unbiased is not False)
        return (input.std if root else input.var)(axes_of(dim), keepdim, ddof=less)

    return apply


def extremum(reduce: Function, position: Function, pairwise: Function) -> Function:
    """``max`` and ``min``: of all elements, along an axis with indices, or of two tensors."""

    def apply(input: Any, dim: Any = None, keepdim: bool = False, other: Any = None) -> Any:
        if dim is None and other is None:
            return reduce(input)
        if other is not None or isinstance(dim, Tensor):
            return pairwise(input, dim if other is None else other)
        where_at = position(input, dim, True)
        values = index.gather(input, where_at, dim)
        parts = (values, where_at) if keepdim else (shape.squeeze(values, dim), shape.squeeze(where_at, dim))
        return parts

    return apply


def norm(input: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """The p-norm of all elements or along axes."""
    input = input if dtype is None else input.astype(dtype)
    power = 2.0 if p in ("fro", None) else float(p)
    x, axes = abs(input), axes_of(dim)
    if power == math.inf:
        return x.max(axes, keepdim)
    if power == 2.0:
        return (x * x).sum(axes, keepdim).sqrt()
    return x.sum(axes, keepdim) if power == 1.0 else (x**power).sum(axes, keepdim) ** (1 / power)


# --- shapes ----------------------------------------------------------------------------------------------------------------


def sizes_of(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    given = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes
    return tuple(int(n) for n in given)


def size(input: Any, dim: int | None = None) -> Any:
    """The shape, or one of its dimensions."""
    return input.shape if dim is None else input.shape[dim]


def view(input: Any, *size: Any, **named: Any) -> Any:
    """The elements under another shape (or the same shape as another type, which is a conversion here)."""
    return input.reshape(sizes_of(size or tuple(named.values())))


def permute(input: Any, *dims: Any, **named: Any) -> Any:
    """The axes in another order."""
    return input.transpose(sizes_of(dims or tuple(named.values())))


def squeeze(input: Any, dim: Any = None) -> Any:
    """Without axes of size 1; those of another size stay."""
    if dim is None:
        return input.squeeze()
    axes = [d % input.ndim for d in (dim if isinstance(dim, list | tuple) else [dim])]
    return shape.squeeze(input, [axis for axis in axes if input.shape[axis] == 1])


def expand(input: Any, *size: Any, **ignored: Any) -> Any:
    """Repeated along axes of size 1; -1 keeps a size."""
    sizes = sizes_of(size)
    kept = (1,) * (len(sizes) - input.ndim) + input.shape
    return shape.broadcast(input, [old if n == -1 else n for n, old in zip(sizes, kept, strict=True)])


def repeat(input: Any, *sizes: Any) -> Any:
    """The whole tensor repeated along each axis."""
    counts = sizes_of(sizes)
    x = input.reshape((1,) * (len(counts) - input.ndim) + input.shape)
    for axis, count in enumerate(counts):
        x = concat.concat([x] * count, axis)
    return x


def repeat_interleave(input: Any, repeats: int, dim: int | None = None) -> Any:
    """Each element repeated along an axis."""
    x = input.reshape(-1) if dim is None else input
    axis = 0 if dim is None else dim % x.ndim
    places = np.repeat(np.arange(x.shape[axis]), repeats)
    return index.take(x, x.builder.constant(places), axis)


def chunk(input: Any, chunks: int, dim: int = 0) -> Any:
    """Up to that many pieces of equal size (the last may be smaller)."""
    return split(input, -(-input.shape[dim] // chunks), dim)


def split(input: Any, split_size_or_sections: Any, dim: int = 0, **named: Any) -> Any:
    """Pieces of a size (the last may be smaller), or of the given sizes."""
    n = input.shape[dim]
    sizes = split_size_or_sections
    if isinstance(sizes, int):
        sizes = [min(sizes, n - start) for start in range(0, n, sizes)]
    return concat.split(input, list(sizes), dim)


def narrow(input: Any, dim: int, start: int, length: int) -> Any:
    """``length`` entries of an axis from ``start``."""
    return shape.narrow(input, dim, start, start + length)


def aten_slice(input: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    """input[start:end:step] along an axis."""
    whole: list[Any] = [slice(None)] * input.ndim
    whole[dim] = slice(start, None if end is None or end >= 2**62 else end, step)
    return input[tuple(whole)]


def select(input: Any, dim: int, index: int) -> Any:
    """One entry of an axis."""
    whole: list[Any] = [slice(None)] * input.ndim
    whole[dim] = index
    return input[tuple(whole)]


def roll(input: Any, shifts: Any, dims: Any = None) -> Any:
    """Entries moved along axes, those pushed out coming in again at the other end."""
    if dims is None:
        return roll(input.reshape(-1), shifts, 0).reshape(input.shape)
    pairs = zip([shifts] if isinstance(shifts, int) else shifts, [dims] if isinstance(dims, int) else dims, strict=True)
    for shift, axis in pairs:
        cut = -shift % input.shape[axis]
        input = concat.concat(
            [shape.narrow(input, axis, cut, input.shape[axis]), shape.narrow(input, axis, 0, cut)], axis
        )
    return input


def unbind(input: Any, dim: int = 0) -> Any:
    """The entries of an axis, without it."""
    return tuple(select(input, dim, i) for i in range(input.shape[dim]))


def getitem(input: Any, key: Any) -> Any:
    """Indexing, of tensors and of tuples."""
    return input[key]


def setitem(input: Any, key: Any, value: Any) -> Any:
    """input with a part replaced."""
    copy = tensor_of(elementwise.copy(input))
    copy[key] = value
    return copy


# --- types and new tensors -------------------------------------------------------------------------------------------------


def to(input: Any, *args: Any, **kwargs: Any) -> Any:
    """Conversion to another element type; devices mean nothing here."""
    for wanted in (*args, kwargs.get("dtype")):
        if isinstance(wanted, Tensor):
            return input.astype(wanted.dtype)
        if isinstance(wanted, np.dtype):
            return input.astype(wanted)
    return input


def filled(number: float) -> Function:
    """``zeros`` and ``ones``."""
    return lambda *size, dtype=None, **ignored: new(sizes_of(size), number, dtype or np.float32)


def filled_like(number: float) -> Function:
    """``zeros_like`` and ``ones_like``."""
    return lambda input, dtype=None, **ignored: new(input.shape, number, dtype or input.dtype)


def full(size: Sequence[int], fill_value: float, dtype: Any = None, **ignored: Any) -> Tensor:
    """A tensor of one number."""
    return new(tuple(size), fill_value, dtype or np.asarray(fill_value).dtype.char.replace("d", "f"))


def arange(*bounds: float, dtype: Any = None, **ignored: Any) -> Tensor:
    """Evenly spaced numbers."""
    return new_range(*bounds, dtype=dtype)


def scalar(data: Any, dtype: Any = None, **ignored: Any) -> Tensor:
    """A constant."""
    return Tensor(ConcreteValue(np.asarray(data, None if dtype is None else as_dtype(dtype).numpy)))


def cast(dtype: str) -> Function:
    """A conversion that is named by a method."""
    return lambda input, **ignored: input.astype(dtype)


def attribute(input: Any, name: str) -> Any:
    """An attribute of a tensor; there is only one device."""
    return None if name == "device" else getattr(input, name)


def same(input: Any, *args: Any, **ignored: Any) -> Any:
    """input itself: what concerns memory, devices and gradients alone."""
    return input


def topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The k largest or smallest elements along an axis, and where they are."""
    return sort.top_k(input, k, dim, largest)


def sorting(input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """The elements along an axis in order, and where they were."""
    places = sort.argsort(input, dim, descending)
    return index.gather(input, places, dim), places


def masked_fill(input: Any, mask: Any, value: Any) -> Any:
    """``value`` where the mask holds."""
    return where(mask, value, input)


def addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """beta input + alpha mat1 @ mat2."""
    return input * beta + (mat1 @ mat2) * alpha


def pixel_channels(input: Any, groups: int) -> Any:
    """Channels dealt out to groups in turn (channel shuffle)."""
    batch, channels, *spatial = input.shape
    x = input.reshape((batch, groups, channels // groups, *spatial))
    return x.swapaxes(1, 2).reshape(input.shape)


def logical(function: Function) -> Function:
    """A logical function, which takes numbers as their being other than 0."""

    def apply(*values: Any) -> Any:
        truths = [v if as_tensor(v).type.dtype.kind == "bool" else as_tensor(v) != 0 for v in values]
        return function(*map(as_tensor, truths))

    return apply


def shrink(soft: bool) -> Function:
    """``softshrink`` and ``hardshrink``."""

    def apply(input: Any, lambd: float = 0.5) -> Any:
        outside = where(input > lambd, input - lambd, input + lambd) if soft else input
        return where(abs(input) > lambd, outside, 0.0)

    return apply


def rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    """input over the root of its mean square along the last axes, times weight."""
    axes = tuple(range(input.ndim - len(tuple(normalized_shape)), input.ndim))
    least = float(np.finfo(input.dtype).eps) if eps is None else eps
    result = input / ((input * input).mean(axes, True) + least).sqrt()
    return result if weight is None else result * weight


def flat(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Axes start_dim to end_dim as one."""
    return F.flatten(input, start_dim, end_dim)


def unflatten(input: Any, dim: int, sizes: Any) -> Any:
    """One axis as several."""
    axis = dim % input.ndim
    return input.reshape((*input.shape[:axis], *sizes, *input.shape[axis + 1 :]))


def movedim(input: Any, source: int, destination: int) -> Any:
    """One axis put at another place."""
    return np.moveaxis(input, source, destination)


def binary(function: Function) -> Function:
    """A function of two tensors or numbers that NumPy has too."""
    return lambda input, other, **ignored: function(input, other)


def joined(values: Sequence[Any], axis: int) -> Any:
    """The values one after another along an axis."""
    return concat.concat(common(*values), axis)


def take(x: Tensor, indices: Any, axis: int) -> Any:
    """Entries of an axis."""
    return index.take(x, as_tensor(indices), axis)


def gather(x: Tensor, indices: Any, axis: int) -> Any:
    """Along an axis the element that each index names."""
    return index.gather(x, as_tensor(indices), axis)


def lp_pool(rank: int) -> Function:
    """The p-norm of each window."""
    average = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[rank]

    def apply(input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Any:
        taps = kernel_size**rank if isinstance(kernel_size, int) else math.prod(kernel_size)
        return (average(input**norm_type, kernel_size, stride, 0, ceil_mode) * taps).relu() ** (1 / norm_type)

    return apply
