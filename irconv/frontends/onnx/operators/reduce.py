"""Reductions over axes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from irconv.errors import ModelError
from irconv.frontends.onnx.operators.common import constant, integers, same_type, tensor_of, widened
from irconv.frontends.onnx.registry import Call, operator
from irconv.op import Value
from irconv.ops import elementwise as e
from irconv.ops import reduce
from irconv.ops.shape import broadcast, normalize_axes, reshape
from irconv.tensor import Tensor
from irconv.types import BOOL

Reduction = Callable[[Tensor, tuple[int, ...], bool], Value]

# --- what each computes, over axes that have elements ------------------------------------------------------------------------


def _mean(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Value:
    if x.type.dtype.is_float:
        return reduce.reduce_mean(x, axes, keepdims)
    count = math.prod(x.shape[axis] for axis in axes)
    total = reduce.reduce_sum(e.cast(x, "f64"), axes, keepdims)
    return e.cast(e.divide(total, max(count, 1)), x.dtype)


def _l1(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Value:
    return reduce.reduce_sum(e.absolute(x), axes, keepdims)


def _l2(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Value:
    if not x.type.dtype.is_float:
        return e.cast(_l2(tensor_of(e.cast(x, "f64")), axes, keepdims), x.dtype)
    return e.cast(e.sqrt(reduce.reduce_sum(e.square(widened(x)), axes, keepdims)), x.dtype)


def _sum_square(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Value:
    return e.cast(reduce.reduce_sum(e.square(widened(x)), axes, keepdims), x.dtype)


def _log_sum(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Value:
    if not x.type.dtype.is_float:
        return e.cast(_log_sum(tensor_of(e.cast(x, "f64")), axes, keepdims), x.dtype)
    return e.cast(e.log(reduce.reduce_sum(widened(x), axes, keepdims)), x.dtype)


def _log_sum_exp(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Value:
    """From x less its largest element, so that nothing overflows; an infinite largest element is not taken off."""
    if not x.type.dtype.is_float:
        return e.cast(_log_sum_exp(tensor_of(e.cast(x, "f64")), axes, keepdims), x.dtype)
    wide = widened(x)
    largest = e.stop_gradient(reduce.reduce_max(wide, axes, keepdims=True))
    shift = e.where(e.isinf(largest), 0, largest)
    total = reduce.reduce_sum(e.exp(e.subtract(wide, shift)), axes, keepdims=True)
    result = e.add(e.log(total), shift)
    return e.cast(reshape(result, reduce.reduced_shape(x.shape, axes, keepdims)), x.dtype)


def _extremum(function: Reduction) -> Reduction:
    def extremum(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Value:
        if x.type.dtype is BOOL:
            return e.cast(function(tensor_of(e.cast(x, "u8")), axes, keepdims), BOOL)
        return function(x, axes, keepdims)

    return extremum


_REDUCTIONS: dict[str, Reduction] = {
    "ReduceSum": reduce.reduce_sum,
    "ReduceMean": _mean,
    "ReduceProd": reduce.reduce_prod,
    "ReduceMax": _extremum(reduce.reduce_max),
    "ReduceMin": _extremum(reduce.reduce_min),
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceSumSquare": _sum_square,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
}

_AXES_AS_INPUT = {"ReduceSum": 13}
"""Since when the axes are an input; 18 for all others."""


# --- registration -------------------------------------------------------------------------------------------------------------


def _empty_value(name: str, x: Tensor) -> float:
    """The result over no elements at all."""
    dtype = x.type.dtype
    values = {
        "ReduceProd": 1,
        "ReduceMax": dtype.lowest,
        "ReduceMin": dtype.highest,
        "ReduceLogSum": -math.inf,
        "ReduceLogSumExp": -math.inf,
        "ReduceMean": math.nan,
    }
    value: float = values.get(name, 0)
    return value


def _reduced(call: Call, name: str, x: Tensor, axes: tuple[int, ...] | None, keepdims: bool) -> Tensor:
    over = tuple(sorted(normalize_axes(axes, x.ndim)))
    if all(x.shape[axis] for axis in over):
        return same_type(_REDUCTIONS[name](x, over, keepdims), x)
    value = _empty_value(name, x)
    if isinstance(value, float) and not x.type.dtype.is_float:
        raise ModelError(f"{name} over no elements has no value of type {x.type.dtype}")
    shape = reduce.reduced_shape(x.shape, over, keepdims)
    return tensor_of(broadcast(constant(value, x.type.dtype), shape))


def _by_attribute(name: str) -> Callable[[Call, Tensor], Tensor]:
    def handle(call: Call, x: Tensor) -> Tensor:
        a = call.attributes
        return _reduced(call, name, x, a.ints("axes", None), a.flag("keepdims", True))

    return handle


def _by_input(name: str) -> Callable[..., Tensor]:
    def handle(call: Call, x: Tensor, axes: np.ndarray | None = None) -> Tensor:
        a = call.attributes
        chosen = integers(axes, "axes") or None
        if chosen is None and a.flag("noop_with_empty_axes"):
            # no axes: each element by itself
            return _reduced(call, name, x, (), True)
        return _reduced(call, name, x, chosen, a.flag("keepdims", True))

    return handle


for _name in _REDUCTIONS:
    operator(_name)(_by_attribute(_name))
    operator(_name, since=_AXES_AS_INPUT.get(_name, 18), static=(1,))(_by_input(_name))
