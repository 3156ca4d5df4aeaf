"""PyTorch's functions and tensor methods on irconv tensors, by name.

``TENSOR`` holds what ``torch.NAME``, ``Tensor.NAME`` and ``operator.NAME`` mean, with PyTorch's parameter names;
``ATEN`` what differs for the operators that ``torch.export`` records (and ``torch.NAME`` functions of the same kind).  Functions of
``torch.nn.functional`` are those of :mod:`irconv.nn.functional`, which has them under the same names.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import irconv.nn.functional as F
from irconv import tensor as tensors
from irconv.concrete import ConcreteValue
from irconv.ops import concat, elementwise, index, shape, sort
from irconv.ops.einsum import einsum
from irconv.ops.reduce import argmax, argmin, reduce_max, reduce_min, reduce_prod
from irconv.ops.scan import cumprod, cumsum
from irconv.tensor import Tensor, apply_float, as_tensor, floating, where
from irconv.types import as_dtype

Function = Callable[..., Any]


def _tensor(value: Any) -> Tensor:
    assert isinstance(value, Tensor)
    return value


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
    whole = where(quotient < 0, _tensor(elementwise.ceil(quotient)), _tensor(elementwise.floor(quotient)))
    return whole.astype(input.dtype) if np.dtype(input.dtype).kind in "iu" else whole


def clamp(input: Any, min: Any = None, max: Any = None) -> Any:
    """input kept between bounds, which are numbers or tensors."""
    plain = all(b is None or isinstance(b, int | float) for b in (min, max))
    if plain:
        return _tensor(elementwise.clip(input, min, max))
    low = input if min is None else np.maximum(input, min)
    return low if max is None else np.minimum(low, max)


# --- reductions ------------------------------------------------------------------------------------------------------------


def _axes(dim: Any) -> Any:
    return tuple(dim) if isinstance(dim, list | tuple) and dim else None if isinstance(dim, list | tuple) else dim


def reduction(method: str) -> Function:
    """``sum`` and ``mean``."""

    def apply(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
        x = input if dtype is None else input.astype(dtype)
        if method == "sum" and x.type.dtype.kind != "float":
            x = x.astype("i64")
        return getattr(x, method)(_axes(dim), keepdim)

    return apply


def spread(root: bool) -> Function:
    """``var`` and ``std``."""

    def apply(input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None) -> Any:
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        less = correction if correction is not None else int(unbiased is not False)
        return (input.std if root else input.var)(_axes(dim), keepdim, ddof=less)

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


def norm(input: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False) -> Any:
    """The p-norm of all elements or along axes."""
    power = 2.0 if p in ("fro", None) else float(p)
    x, axes = abs(input), _axes(dim)
    if power == math.inf:
        return x.max(axes, keepdim)
    if power == 2.0:
        return (x * x).sum(axes, keepdim).sqrt()
    return x.sum(axes, keepdim) if power == 1.0 else (x**power).sum(axes, keepdim) ** (1 / power)


# --- shapes ----------------------------------------------------------------------------------------------------------------


def _sizes(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    given = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes
    return tuple(int(n) for n in given)


def size(input: Any, dim: int | None = None) -> Any:
    """The shape, or one of its dimensions."""
    return input.shape if dim is None else input.shape[dim]


def view(input: Any, *size: Any, **named: Any) -> Any:
    """The elements under another shape (or the same shape as another type, which is a conversion here)."""
    return input.reshape(_sizes(size or tuple(named.values())))


def permute(input: Any, *dims: Any, **named: Any) -> Any:
    """The axes in another order."""
    return input.transpose(_sizes(dims or tuple(named.values())))


def squeeze(input: Any, dim: Any = None) -> Any:
    """Without axes of size 1; those of another size stay."""
    if dim is None:
        return input.squeeze()
    axes = [d % input.ndim for d in (dim if isinstance(dim, list | tuple) else [dim])]
    return shape.squeeze(input, [axis for axis in axes if input.shape[axis] == 1])


def expand(input: Any, *size: Any, **ignored: Any) -> Any:
    """Repeated along axes of size 1; -1 keeps a size."""
    sizes = _sizes(size)
    kept = (1,) * (len(sizes) - input.ndim) + input.shape
    return shape.broadcast(input, [old if n == -1 else n for n, old in zip(sizes, kept, strict=True)])


def repeat(input: Any, *sizes: Any) -> Any:
    """The whole tensor repeated along each axis."""
    counts = _sizes(sizes)
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
        input = concat.concat([shape.narrow(input, axis, cut, input.shape[axis]), shape.narrow(input, axis, 0, cut)], axis)
    return input


def unbind(input: Any, dim: int = 0) -> Any:
    """The entries of an axis, without it."""
    return tuple(select(input, dim, i) for i in range(input.shape[dim]))


def getitem(input: Any, key: Any) -> Any:
    """Indexing, of tensors and of tuples."""
    return input[key]


def setitem(input: Any, key: Any, value: Any) -> Any:
    """input with a part replaced."""
    copy = _tensor(elementwise.copy(input))
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
    return lambda *size, dtype=np.dtype(np.float32), **ignored: tensors.full(_sizes(size), number, dtype or np.float32)


def filled_like(number: float) -> Function:
    """``zeros_like`` and ``ones_like``."""
    return lambda input, dtype=None, **ignored: tensors.full(input.shape, number, dtype or input.dtype)


def full(size: Sequence[int], fill_value: float, dtype: Any = None, **ignored: Any) -> Tensor:
    """A tensor of one number."""
    return tensors.full(tuple(size), fill_value, dtype or np.asarray(fill_value).dtype.char.replace("d", "f"))


def arange(*bounds: float, dtype: Any = None, **ignored: Any) -> Tensor:
    """Evenly spaced numbers."""
    return tensors.arange(*bounds, dtype=dtype)


def scalar(data: Any, dtype: Any = None, **ignored: Any) -> Tensor:
    """A constant."""
    return Tensor(ConcreteValue(np.asarray(data, None if dtype is None else as_dtype(dtype).numpy)))


def cast(dtype: str) -> Function:
    """A conversion that is named by a method."""
    return lambda input, **ignored: input.astype(dtype)


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


TENSOR: dict[str, Function] = {
    **dict.fromkeys(("add", "iadd"), scaled(operator.add)),
    **dict.fromkeys(("sub", "subtract", "isub"), scaled(operator.sub)),
    "rsub": scaled(lambda x, y: y - x),
    **dict.fromkeys(("mul", "multiply", "imul"), binary(operator.mul)),
    **dict.fromkeys(("div", "divide", "truediv", "true_divide", "itruediv"), div),
    **dict.fromkeys(("floordiv", "floor_divide", "ifloordiv"), binary(operator.floordiv)),
    **dict.fromkeys(("mod", "remainder"), binary(operator.mod)),
    **dict.fromkeys(("pow", "ipow"), lambda input, exponent: input**exponent),
    **dict.fromkeys(("matmul", "mm", "bmm", "imatmul"), lambda input, mat2: input @ mat2),
    "addmm": addmm,
    "addcmul": lambda input, a, b, *, value=1: input + a * b * value,
    "lerp": lambda input, end, weight: input + (end - input) * weight,
    "einsum": lambda equation, *operands: einsum(
        equation, *(operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands)
    ),
    **dict.fromkeys(("neg", "negative"), operator.neg),
    **dict.fromkeys(("abs", "absolute"), abs),
    "maximum": np.maximum,
    "minimum": np.minimum,
    **dict.fromkeys(("clamp", "clip"), clamp),
    "clamp_min": lambda input, min: clamp(input, min),
    "clamp_max": lambda input, max: clamp(input, None, max),
    "square": lambda input: input * input,
    "reciprocal": lambda input: 1.0 / floating(input),
    "sign": lambda input: _tensor(elementwise.sign(input)),
    **{name: float_function(getattr(elementwise, name)) for name in ("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "erf")},
    **{name: float_function(getattr(elementwise, name)) for name in ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh")},
    **{name: float_function(getattr(elementwise, name)) for name in ("floor", "ceil", "tanh", "sigmoid")},
    "round": float_function(elementwise.round_),
    "eq": operator.eq,
    "ne": operator.ne,
    **{name: getattr(operator, name) for name in ("lt", "le", "gt", "ge")},
    **dict.fromkeys(("and_", "bitwise_and"), operator.and_),
    **dict.fromkeys(("or_", "bitwise_or"), operator.or_),
    **dict.fromkeys(("invert", "bitwise_not"), operator.invert),
    "logical_and": logical(elementwise.logical_and),
    "logical_or": logical(elementwise.logical_or),
    "logical_xor": logical(elementwise.logical_xor),
    "logical_not": logical(elementwise.logical_not),
    "where": lambda condition, input, other: where(condition, input, other),
    "masked_fill": masked_fill,
    "sum": reduction("sum"),
    "mean": reduction("mean"),
    "var": spread(False),
    "std": spread(True),
    "prod": lambda input, dim=None, keepdim=False: _tensor(reduce_prod(input, dim, keepdim)),
    "max": extremum(reduce_max, argmax, np.maximum),
    "min": extremum(reduce_min, argmin, np.minimum),
    "amax": lambda input, dim=(), keepdim=False: input.max(_axes(dim), keepdim),
    "amin": lambda input, dim=(), keepdim=False: input.min(_axes(dim), keepdim),
    "argmax": lambda input, dim=None, keepdim=False: input.argmax(dim, keepdim),
    "argmin": lambda input, dim=None, keepdim=False: input.argmin(dim, keepdim),
    "norm": norm,
    "cumsum": lambda input, dim: _tensor(cumsum(input, dim)),
    "cumprod": lambda input, dim: _tensor(cumprod(input, dim)),
    "topk": topk,
    "sort": sorting,
    "argsort": lambda input, dim=-1, descending=False: sort.argsort(input, dim, descending),
    "size": size,
    "dim": lambda input: input.ndim,
    "numel": lambda input: input.size,
    **dict.fromkeys(("view", "reshape"), view),
    "view_as": lambda input, other: input.reshape(other.shape),
    "reshape_as": lambda input, other: input.reshape(other.shape),
    "permute": permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), lambda input, dim0, dim1: input.swapaxes(dim0, dim1)),
    "t": lambda input: input.transpose(),
    "movedim": movedim,
    "flatten": flat,
    "unflatten": unflatten,
    "ravel": lambda input: input.reshape(-1),
    "squeeze": squeeze,
    "unsqueeze": lambda input, dim: shape.expand_dims(input, dim),
    "expand": expand,
    "expand_as": lambda input, other: shape.broadcast(input, other.shape),
    "broadcast_to": lambda input, size: shape.broadcast(input, tuple(size)),
    **dict.fromkeys(("repeat", "tile"), repeat),
    "repeat_interleave": repeat_interleave,
    **dict.fromkeys(("cat", "concat", "concatenate"), lambda tensors, dim=0: tensors_joined(tensors, dim)),
    "stack": lambda tensors, dim=0: concat.stack(tensors_common(tensors), dim),
    "chunk": chunk,
    **dict.fromkeys(("split", "split_with_sizes"), split),
    "unbind": unbind,
    "narrow": narrow,
    "slice": aten_slice,
    "select": select,
    "index_select": lambda input, dim, index: take(input, index, dim),
    "gather": lambda input, dim, index: gather(input, index, dim),
    "flip": lambda input, *dims: shape.flip(input, _sizes(dims)),
    "roll": roll,
    "getitem": getitem,
    "setitem": setitem,
    "getattr": getattr,
    **dict.fromkeys(("contiguous", "detach", "detach_", "cpu", "cuda", "requires_grad_", "lift_fresh_copy", "alias"), same),
    "clone": lambda input, **ignored: _tensor(elementwise.copy(input)),
    **dict.fromkeys(("to", "type", "type_as", "_to_copy"), to),
    **{name: cast(dtype) for name, dtype in (("float", "f32"), ("double", "f64"), ("half", "f16"))},
    **{name: cast(dtype) for name, dtype in (("long", "i64"), ("int", "i32"), ("bool", "bool"))},
    "zeros": filled(0),
    "ones": filled(1),
    "zeros_like": filled_like(0),
    "ones_like": filled_like(1),
    "new_zeros": lambda input, *size, dtype=None, **ignored: tensors.full(_sizes(size), 0, dtype or input.dtype),
    "new_ones": lambda input, *size, dtype=None, **ignored: tensors.full(_sizes(size), 1, dtype or input.dtype),
    "full": full,
    "full_like": lambda input, fill_value, dtype=None, **ignored: tensors.full(input.shape, fill_value, dtype or input.dtype),
    "arange": arange,
    **dict.fromkeys(("tensor", "scalar_tensor"), scalar),
    "softshrink": shrink(True),
    "hardshrink": shrink(False),
    "tanhshrink": lambda input: input - input.tanh(),
    "channel_shuffle": pixel_channels,
    "rms_norm": rms_norm,
}


def tensors_common(values: Sequence[Any]) -> list[Tensor]:
    """The values as tensors of one element type."""
    return tensors.common(*values)


def tensors_joined(values: Sequence[Any], axis: int) -> Any:
    """The values one after another along an axis."""
    return concat.concat(tensors_common(values), axis)


def take(x: Tensor, indices: Any, axis: int) -> Any:
    """Entries of an axis."""
    return index.take(x, as_tensor(indices), axis)


def gather(x: Tensor, indices: Any, axis: int) -> Any:
    """Along an axis the element that each index names."""
    return index.gather(x, as_tensor(indices), axis)
