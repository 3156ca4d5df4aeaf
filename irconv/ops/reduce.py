"""Reductions: one op folds any set of axes.

``axes`` is None for all of them; ``keepdims`` leaves axes of size 1 in their place.  Floats accumulate at least in float32
(this reference: in float64), integers in their own type, wrapping around as NumPy arrays do; sums and products of bool are int64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv.errors import AttributeValueError, DTypeError, ShapeError
from irconv.op import Fusion, NoGradient, OpDef, Site, Value, Work, emit, register
from irconv.ops.elementwise import multiply, square, subtract
from irconv.ops.index import scatter_add
from irconv.ops.scan import cumprod
from irconv.ops.shape import broadcast, check_axes, normalize_axes, reshape, transpose
from irconv.types import BOOL, I64, TensorType

# --- shared by the sections below --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReduceAttributes:
    """axes: sorted, the ones to fold; keepdims: whether they stay, with size 1."""

    axes: tuple[int, ...]
    keepdims: bool


def _reduce(op: OpDef, x: Value, axes: Any, keepdims: bool) -> Value:
    return emit(op, ReduceAttributes(tuple(sorted(normalize_axes(axes, x.rank))), bool(keepdims)), x)


def reduced_shape(shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    """The shape that is left when ``axes`` are folded."""
    if keepdims:
        return tuple(1 if axis in axes else n for axis, n in enumerate(shape))
    return tuple(n for axis, n in enumerate(shape) if axis not in axes)


def _shape_rule(attributes: ReduceAttributes, x: TensorType) -> tuple[int, ...]:
    check_axes(attributes.axes, x.rank)
    if list(attributes.axes) != sorted(attributes.axes):
        raise AttributeValueError(f"axes {list(attributes.axes)} are not sorted")
    return reduced_shape(x.shape, attributes.axes, attributes.keepdims)


def _sum_type(attributes: ReduceAttributes, x: TensorType) -> TensorType:
    return TensorType(I64 if x.dtype is BOOL else x.dtype, _shape_rule(attributes, x))


def _non_empty_shape(attributes: ReduceAttributes, x: TensorType) -> tuple[int, ...]:
    shape = _shape_rule(attributes, x)
    if x.size == 0 and 0 not in shape:
        raise ShapeError(f"no elements to reduce: axes {list(attributes.axes)} of {list(x.shape)} hold none")
    return shape


def _mean_type(attributes: ReduceAttributes, x: TensorType) -> TensorType:
    if not x.dtype.is_float:
        raise DTypeError(f"needs floating-point elements, got {x.dtype}", hint="cast first, for example x.astype('float32')")
    return TensorType(x.dtype, _non_empty_shape(attributes, x))


def _extremum_type(attributes: ReduceAttributes, x: TensorType) -> TensorType:
    return TensorType(x.dtype, _non_empty_shape(attributes, x))


def _index_type(attributes: ReduceAttributes, x: TensorType) -> TensorType:
    return TensorType(I64, _non_empty_shape(attributes, x))


def _accumulator(x: np.ndarray) -> np.dtype:
    """What the reference adds and multiplies in."""
    if x.dtype.kind == "f":
        return np.dtype(np.float64)
    return np.dtype(np.int64) if x.dtype == np.bool_ else x.dtype


def _result_dtype(x: np.ndarray) -> np.dtype:
    return np.dtype(np.int64) if x.dtype == np.bool_ else x.dtype


def _one_flop_per_operand_element(attributes: Any, operands: tuple[TensorType, ...], result: TensorType) -> Work:
    return Work(flops=operands[0].size)


def _define(
    name: str,
    infer: Callable[..., TensorType],
    reference: Callable[..., np.ndarray],
    gradient: Callable[[Site, Value], tuple[Value]] | NoGradient,
) -> OpDef:
    """Register a reduction."""
    return register(
        OpDef(
            name,
            ("x",),
            infer=infer,
            reference=reference,
            gradient=gradient,
            fusion=Fusion.REDUCTION,
            attributes=ReduceAttributes,
            cost=_one_flop_per_operand_element,
        )
    )


def _spread(site: Site, d: Value) -> Value:
    """The gradient of a reduction's result, repeated over the axes that it folded."""
    x = site.operands[0]
    if d.rank == 0:
        return broadcast(d, x.shape)
    return broadcast(reshape(d, reduced_shape(x.shape, site.attributes.axes, True)), x.shape)


def _folded_last(x: Value, axes: tuple[int, ...]) -> Value:
    """x with the given axes moved to the end and made one: what is kept in front, one axis of all folded elements behind."""
    kept = [axis for axis in range(x.rank) if axis not in axes]
    count = math.prod(x.shape[axis] for axis in axes)
    return reshape(transpose(x, [*kept, *axes]), [*(x.shape[axis] for axis in kept), count])


def _unfolded(x: Value, axes: tuple[int, ...], shape: tuple[int, ...]) -> Value:
    """Undo :func:`_folded_last` for a tensor of ``shape``."""
    order = [axis for axis in range(len(shape)) if axis not in axes] + list(axes)
    moved = reshape(x, [shape[axis] for axis in order])
    return transpose(moved, sorted(range(len(shape)), key=order.__getitem__))


# --- sum -----------------------------------------------------------------------------------------------------------------


def reduce_sum(x: Value, axes: Any = None, keepdims: bool = False) -> Value:
    """The sum over axes; 0 where there is nothing to add."""
    return _reduce(SUM, x, axes, keepdims)


def _sum_reference(attributes: ReduceAttributes, x: np.ndarray) -> np.ndarray:
    total = np.sum(x, axis=attributes.axes, keepdims=attributes.keepdims, dtype=_accumulator(x))
    return np.asarray(total).astype(_result_dtype(x))


SUM = _define("sum", _sum_type, _sum_reference, lambda site, d: (_spread(site, d),))


def sum_to_shape(d: Value, shape: tuple[int, ...], lead: int = 0) -> Value:
    """d summed over the axes along which ``shape`` was broadcast to d's shape: the adjoint of broadcasting.

    lead: so many axes of d in front count as broadcast where ``shape`` has one element, though d may have only one as well.

    Raises ShapeError if ``shape`` does not broadcast to d's shape.
    """
    if d.shape == shape:
        return d
    extra = d.rank - len(shape)
    if extra < 0 or any(a != b and a != 1 for a, b in zip(shape, d.shape[extra:], strict=True)):
        raise ShapeError(f"{list(d.shape)} is not a broadcast of {list(shape)}")
    repeated = [extra + axis for axis, n in enumerate(shape) if n == 1 and (d.shape[extra + axis] != 1 or extra + axis < lead)]
    axes = [*range(extra), *repeated]
    return reshape(reduce_sum(d, axes), shape)


# --- mean ----------------------------------------------------------------------------------------------------------------


def reduce_mean(x: Value, axes: Any = None, keepdims: bool = False) -> Value:
    """The mean over axes, of floats."""
    return _reduce(MEAN, x, axes, keepdims)


def reduced_count(x: Value, axes: tuple[int, ...]) -> int:
    """How many elements go into one element of the result."""
    return math.prod(x.shape[axis] for axis in axes)


def _mean_reference(attributes: ReduceAttributes, x: np.ndarray) -> np.ndarray:
    total = np.sum(x, axis=attributes.axes, keepdims=attributes.keepdims, dtype=_accumulator(x))
    count = math.prod(x.shape[axis] for axis in attributes.axes)
    return np.asarray(total / max(count, 1)).astype(x.dtype)


def _mean_gradient(site: Site, d: Value) -> tuple[Value]:
    count = reduced_count(site.operands[0], site.attributes.axes)
    return (_spread(site, multiply(d, 1 / max(count, 1))),)


MEAN = _define("mean", _mean_type, _mean_reference, _mean_gradient)


def variance(x: Value, axes: Any = None, keepdims: bool = False, correction: int = 0) -> Value:
    """sum((x - mean(x))^2) / (n - correction) over axes, in two passes, so that a large mean costs no accuracy.

    correction: 0 for the variance of these numbers, 1 for the unbiased estimate.  AttributeValueError unless n > correction.
    """
    folded = normalize_axes(axes, x.rank)
    count = reduced_count(x, folded)
    if count <= correction and x.type.size:
        raise AttributeValueError(f"variance of {count} elements with correction {correction} divides by {count - correction}")
    deviation = subtract(x, reduce_mean(x, folded, keepdims=True))
    biased = reduce_mean(square(deviation), folded, keepdims)
    return multiply(biased, count / (count - correction)) if correction and count else biased


# --- max, min --------------------------------------------------------------------------------------------------------------


def reduce_max(x: Value, axes: Any = None, keepdims: bool = False) -> Value:
    """The largest element over axes; NaN wins.

    The whole gradient goes to the first of equal elements, or the first NaN (PyTorch's amax shares it among equals).
    """
    return _reduce(MAX, x, axes, keepdims)


def reduce_min(x: Value, axes: Any = None, keepdims: bool = False) -> Value:
    """The smallest element over axes; NaN wins.

    The whole gradient goes to the first of equal elements, or the first NaN (PyTorch's amin shares it among equals).
    """
    return _reduce(MIN, x, axes, keepdims)


def _extremum_reference(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def reference(attributes: ReduceAttributes, x: np.ndarray) -> np.ndarray:
        if x.size == 0:
            return np.empty(reduced_shape(x.shape, attributes.axes, attributes.keepdims), x.dtype)
        return function(x, axis=attributes.axes, keepdims=attributes.keepdims)

    return reference


def _extremum_gradient(find: Callable[..., Value]) -> Callable[[Site, Value], tuple[Value]]:
    def gradient(site: Site, d: Value) -> tuple[Value]:
        x, axes = site.operands[0], site.attributes.axes
        winners = find(x, axes)
        column = (*winners.shape, 1)
        chosen = scatter_add(reshape(d, column), reshape(winners, column), -1, reduced_count(x, axes))
        return (_unfolded(chosen, axes, x.shape),)

    return gradient


MAX = _define("max", _extremum_type, _extremum_reference(np.max), _extremum_gradient(lambda x, axes: argmax(x, axes)))
MIN = _define("min", _extremum_type, _extremum_reference(np.min), _extremum_gradient(lambda x, axes: argmin(x, axes)))

# --- argmax, argmin ----------------------------------------------------------------------------------------------------------


def argmax(x: Value, axes: Any = None, keepdims: bool = False) -> Value:
    """Where the largest element is: its row-major index within the given axes, as int64; the first of equals, the first NaN."""
    return _reduce(ARGMAX, x, axes, keepdims)


def argmin(x: Value, axes: Any = None, keepdims: bool = False) -> Value:
    """Where the smallest element is: its row-major index within the given axes, as int64; the first of equals, the first NaN."""
    return _reduce(ARGMIN, x, axes, keepdims)


def _index_reference(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def reference(attributes: ReduceAttributes, x: np.ndarray) -> np.ndarray:
        axes = attributes.axes
        shape = reduced_shape(x.shape, axes, attributes.keepdims)
        if x.size == 0:
            return np.empty(shape, np.int64)
        kept = [axis for axis in range(x.ndim) if axis not in axes]
        count = math.prod(x.shape[axis] for axis in axes)
        rows = np.transpose(x, [*kept, *axes]).reshape(*(x.shape[axis] for axis in kept), count)
        return np.asarray(function(rows, axis=-1), np.int64).reshape(shape)

    return reference


_POSITION = NoGradient("its result is a position, which does not change smoothly")

ARGMAX = _define("argmax", _index_type, _index_reference(np.argmax), _POSITION)
ARGMIN = _define("argmin", _index_type, _index_reference(np.argmin), _POSITION)

# --- prod ----------------------------------------------------------------------------------------------------------------


def reduce_prod(x: Value, axes: Any = None, keepdims: bool = False) -> Value:
    """The product over axes; 1 where there is nothing to multiply.

    The gradient by one element is the product of the others, right also where elements are zero.
    """
    return _reduce(PROD, x, axes, keepdims)


def _prod_reference(attributes: ReduceAttributes, x: np.ndarray) -> np.ndarray:
    product = np.prod(x, axis=attributes.axes, keepdims=attributes.keepdims, dtype=_accumulator(x))
    return np.asarray(product).astype(_result_dtype(x))


def _prod_gradient(site: Site, d: Value) -> tuple[Value]:
    # dividing the product by the element would fail at zeros
    x, axes = site.operands[0], site.attributes.axes
    if x.type.size == 0:
        return (_spread(site, d),)
    rows = _folded_last(x, axes)
    before, behind = (cumprod(rows, -1, exclusive=True, reverse=reverse) for reverse in (False, True))
    return (multiply(_spread(site, d), _unfolded(multiply(before, behind), axes, x.shape)),)


PROD = _define("prod", _sum_type, _prod_reference, _prod_gradient)
