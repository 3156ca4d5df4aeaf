"""NumPy's functions on tensors: ``np.maximum(x, 0)`` or ``np.pad(x, 1)`` run irconv's ops through NumPy's own protocols.

The tables map NumPy's function to one of ours with the same parameters.  A function that is not in them is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from irconv import numpy_shapes as moved
from irconv.creation import full
from irconv.errors import TraceError
from irconv.operators import bit_and, bit_or, bit_xor, invert
from irconv.ops import elementwise as e
from irconv.ops import reduce, shape
from irconv.ops.contract import matmul
from irconv.ops.einsum import einsum
from irconv.ops.index import gather
from irconv.ops.pad import pad
from irconv.ops.scan import cumprod, cumsum
from irconv.ops.sort import argsort, sort
from irconv.tensor import ABOVE, apply, apply_float, as_tensor, common, concatenate, stack, where


def ufunc(function: Any, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``__array_ufunc__`` of tensors: calls and ``.reduce`` of the ufuncs in the table, without ``out=`` or ``where=``."""
    if any(kwargs.get(name) is not None for name in ("out",)) or "where" in kwargs:
        raise _refused(f"numpy.{function.__name__} with out= or where=", "assign the result instead: y = np.add(x, 1)")
    if method == "__call__" and function in _FLOAT_UFUNCS:
        return apply_float(_FLOAT_UFUNCS[function], *inputs)
    if method == "__call__" and function in _UFUNCS:
        return apply(_UFUNCS[function], *inputs)
    if method == "reduce" and function in _REDUCTIONS:
        axis = kwargs.get("axis", 0)
        return _REDUCTIONS[function](as_tensor(inputs[0]), axis, kwargs.get("keepdims", False))
    raise _refused(f"numpy.{function.__name__}{'' if method == '__call__' else '.' + method}")


def function(numpy_function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``__array_function__`` of tensors."""
    ours = _FUNCTIONS.get(numpy_function)
    if ours is None:
        raise _refused(f"numpy.{numpy_function.__name__}")
    try:
        return ours(*args, **kwargs)
    except TypeError as error:
        if isinstance(error, TraceError) or "argument" not in str(error):
            raise
        raise _refused(f"numpy.{numpy_function.__name__} with these arguments ({error})") from None


_ELSE = "write it with the operations that tensors have, or convert with x.numpy() outside a trace"


def _refused(what: str, hint: str = _ELSE) -> TraceError:
    return TraceError(f"{what} has no counterpart on tensors", hint=hint)


_UFUNCS: dict[Any, Callable[..., Any]] = {
    np.add: e.add,
    np.subtract: e.subtract,
    np.multiply: e.multiply,
    np.floor_divide: e.floor_divide,
    np.remainder: e.remainder,
    np.power: e.power,
    np.minimum: e.minimum,
    np.maximum: e.maximum,
    np.equal: e.equal,
    np.not_equal: e.not_equal,
    np.less: e.less,
    np.less_equal: e.less_equal,
    np.greater: e.greater,
    np.greater_equal: e.greater_equal,
    np.logical_and: e.logical_and,
    np.logical_or: e.logical_or,
    np.logical_xor: e.logical_xor,
    np.logical_not: e.logical_not,
    np.bitwise_and: bit_and,
    np.bitwise_or: bit_or,
    np.bitwise_xor: bit_xor,
    np.invert: invert,
    np.left_shift: e.shift_left,
    np.right_shift: e.shift_right,
    np.negative: e.negative,
    np.positive: lambda x: x,
    np.absolute: e.absolute,
    np.sign: e.sign,
    np.square: e.square,
    np.matmul: matmul,
    np.isnan: e.isnan,
    np.isinf: e.isinf,
    np.isfinite: lambda x: e.logical_not(e.logical_or(e.isnan(x), e.isinf(x))),
}

_FLOAT_UFUNCS: dict[Any, Callable[..., Any]] = {
    np.divide: e.divide,
    np.exp: e.exp,
    np.expm1: e.expm1,
    np.log: e.log,
    np.log1p: e.log1p,
    np.sqrt: e.sqrt,
    np.tanh: e.tanh,
    np.sin: e.sin,
    np.cos: e.cos,
    np.tan: e.tan,
    np.arcsin: e.asin,
    np.arccos: e.acos,
    np.arctan: e.atan,
    np.sinh: e.sinh,
    np.cosh: e.cosh,
    np.arcsinh: e.asinh,
    np.arccosh: e.acosh,
    np.arctanh: e.atanh,
    np.floor: e.floor,
    np.ceil: e.ceil,
    np.rint: e.round_,
    np.reciprocal: lambda x: e.divide(1.0, x),
}

_REDUCTIONS: dict[Any, Callable[..., Any]] = {
    np.add: reduce.reduce_sum,
    np.multiply: reduce.reduce_prod,
    np.maximum: reduce.reduce_max,
    np.minimum: reduce.reduce_min,
}


def _pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: float = 0) -> Any:
    x = as_tensor(x)
    pairs = np.broadcast_to(np.asarray(pad_width), (x.ndim, 2)).tolist()
    return pad(x, pairs, mode, constant_values)


def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    return as_tensor(a).clip(min if a_min is None else a_min, max if a_max is None else a_max)


def _truth(a: Any) -> Any:
    x = as_tensor(a)
    return x if x.dtype == bool else x != 0


def _zeros_like(value: float) -> Callable[..., Any]:
    def make(x: Any, dtype: Any = None, shape: Any = None) -> Any:
        return full(x.shape if shape is None else shape, value, x.dtype if dtype is None else dtype)

    return make


def _filled(value: float) -> Callable[..., Any]:
    def make(shape: Any, dtype: Any = float, order: str = "C", *, device: Any = None, like: Any = None) -> Any:
        # NumPy's default is its float; next to a tensor that means the tensors' default, float32
        return full(shape, value, np.float32 if dtype is float or dtype is None else dtype)

    return make


def _broadcast(x: Any, dims: Any) -> Any:
    return shape.broadcast(x, dims)


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.sum: lambda a, axis=None, keepdims=False: as_tensor(a).sum(axis, keepdims),
    np.mean: lambda a, axis=None, keepdims=False: as_tensor(a).mean(axis, keepdims),
    np.max: lambda a, axis=None, keepdims=False: as_tensor(a).max(axis, keepdims),
    np.min: lambda a, axis=None, keepdims=False: as_tensor(a).min(axis, keepdims),
    np.amax: lambda a, axis=None, keepdims=False: as_tensor(a).max(axis, keepdims),
    np.amin: lambda a, axis=None, keepdims=False: as_tensor(a).min(axis, keepdims),
    np.prod: lambda a, axis=None, keepdims=False: as_tensor(a).prod(axis, keepdims),
    np.var: lambda a, axis=None, ddof=0, keepdims=False: as_tensor(a).var(axis, keepdims, ddof),
    np.std: lambda a, axis=None, ddof=0, keepdims=False: as_tensor(a).std(axis, keepdims, ddof),
    np.argmax: lambda a, axis=None, keepdims=False: as_tensor(a).argmax(axis, keepdims),
    np.argmin: lambda a, axis=None, keepdims=False: as_tensor(a).argmin(axis, keepdims),
    np.clip: _clip,
    np.any: lambda a, axis=None, keepdims=False: _truth(a).max(axis, keepdims),
    np.all: lambda a, axis=None, keepdims=False: _truth(a).min(axis, keepdims),
    np.round: lambda a: as_tensor(a).round(),
    np.where: where,
    np.reshape: lambda a, shape: as_tensor(a).reshape(shape),
    np.ravel: lambda a: as_tensor(a).ravel(),
    np.transpose: lambda a, axes=None: as_tensor(a).transpose(axes),
    np.swapaxes: lambda a, axis1, axis2: as_tensor(a).swapaxes(axis1, axis2),
    np.moveaxis: moved.moveaxis,
    np.roll: moved.roll,
    np.tile: moved.tile,
    np.repeat: moved.repeat,
    np.vstack: moved.vstack,
    np.hstack: moved.hstack,
    np.outer: moved.outer,
    np.copy: lambda a: as_tensor(a).copy(),
    np.squeeze: lambda a, axis=None: as_tensor(a).squeeze(axis),
    np.expand_dims: moved.expand_dims,
    np.broadcast_to: lambda array, shape: _broadcast(as_tensor(array), shape),
    np.concatenate: lambda arrays, axis=0: concatenate(arrays, axis),
    np.stack: lambda arrays, axis=0: stack(arrays, axis),
    np.split: moved.split,
    np.flip: lambda m, axis=None: shape.flip(as_tensor(m), axis if axis is not None else tuple(range(m.ndim))),
    np.take: lambda a, indices, axis=None: as_tensor(a).take(indices, axis),
    np.take_along_axis: lambda arr, indices, axis: gather(as_tensor(arr), as_tensor(indices), axis),
    np.pad: _pad,
    np.dot: lambda a, b: apply(matmul, a, b),
    np.einsum: lambda subscripts, *operands: einsum(subscripts, *common(*operands)),
    np.cumsum: lambda a, axis=None: _scan(cumsum, a, axis),
    np.cumprod: lambda a, axis=None: _scan(cumprod, a, axis),
    np.sort: lambda a, axis=-1: sort(as_tensor(a), axis),
    np.argsort: lambda a, axis=-1: argsort(as_tensor(a), axis),
    np.zeros_like: _zeros_like(0),
    np.ones_like: _zeros_like(1),
    np.empty_like: _zeros_like(0),
    np.full_like: lambda a, fill_value, dtype=None: full(a.shape, fill_value, a.dtype if dtype is None else dtype),
    np.zeros: _filled(0),
    np.ones: _filled(1),
    np.empty: _filled(0),
    np.full: lambda shape, fill_value, dtype=np.float32, like=None: full(shape, fill_value, dtype),
    np.shape: lambda a: a.shape,
    np.ndim: lambda a: a.ndim,
    np.size: lambda a: a.size,
}


def _scan(scan: Callable[..., Any], x: Any, axis: int | None) -> Any:
    """NumPy's running sums and products: without an axis along all elements."""
    x = as_tensor(x)
    return scan(x.ravel(), 0) if axis is None else scan(x, axis)


ABOVE.ufunc = ufunc
ABOVE.function = function
