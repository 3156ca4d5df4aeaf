"""Padding in every mode, and the adjoint of the modes that repeat elements of the operand.

All modes work axis by axis.  With n elements, i running over the padded axis and j = i - before:

    constant: x[j] inside, ``value`` outside; negative amounts crop
    edge:     x[min(max(j, 0), n - 1)]
    reflect:  x[j] with j folded at the first and last element (period 2 (n - 1))
    wrap:     x[j mod n]
    mean:     x[j] inside, the mean of the axis outside

As ``numpy.pad``, reflect and wrap go on folding and wrapping when the padding is larger than the operand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv.errors import AttributeValueError, DTypeError, ShapeError
from irconv.op import Fusion, OpDef, Site, Value, Work, emit, no_work, register
from irconv.ops.shape import int_tuple, slice_
from irconv.types import BOOL, DType, TensorType, as_dtype, tensor_type

MODES = ("constant", "edge", "reflect", "wrap", "mean")

Pairs = tuple[tuple[int, int], ...]


def _check_mode(mode: str, padding: Pairs) -> None:
    if mode not in MODES:
        raise AttributeValueError(f"padding mode {mode!r} is not one of {', '.join(MODES)}")
    if mode != "constant" and any(amount < 0 for pair in padding for amount in pair):
        raise AttributeValueError(f"padding mode {mode!r} takes no negative padding, got {list(padding)}", hint="slice instead")


def _check_padding(shape: tuple[int, ...], padding: Pairs, mode: str) -> None:
    """Errors for padding that does not fit an operand of ``shape``."""
    if len(padding) != len(shape):
        raise ShapeError(f"padding {list(padding)} has {len(padding)} pairs for the {len(shape)} axes of {list(shape)}")
    for axis, (n, (before, after)) in enumerate(zip(shape, padding, strict=True)):
        if n + before + after < 0:
            raise ShapeError(f"padding ({before}, {after}) crops more than the {n} elements of axis {axis} of {list(shape)}")
        if mode != "constant" and n == 0 and before + after:
            raise ShapeError(f"axis {axis} of {list(shape)} is empty, so there is nothing to pad it with in mode {mode!r}")


def source_indices(n: int, before: int, after: int, mode: str) -> np.ndarray:
    """Which element of an axis of size n each position of the padded axis repeats (modes edge, reflect, wrap)."""
    places = np.arange(-before, n + after)
    if mode == "edge":
        return np.clip(places, 0, n - 1)
    if mode == "wrap":
        return places % n
    period = max(2 * (n - 1), 1)
    folded = places % period
    return np.minimum(folded, period - folded) if n > 1 else np.zeros_like(places)


# --- pad -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PadAttributes:
    """padding: (before, after) for every axis; mode: one of ``MODES``; value: what mode 'constant' fills with."""

    padding: Pairs
    mode: str
    value: float

    def __post_init__(self) -> None:
        _check_mode(self.mode, self.padding)


def padding_pairs(padding: Any, rank: int) -> Pairs:
    """(before, after) for every axis, from one number, one pair for all axes, or a pair per axis."""
    if not isinstance(padding, Iterable):
        (amount,) = int_tuple(padding, "padding")
        return ((amount, amount),) * rank
    entries = [int_tuple(entry, "padding") for entry in padding]
    if len(entries) == 2 and all(len(entry) == 1 for entry in entries):
        return ((entries[0][0], entries[1][0]),) * rank
    if len(entries) != rank or any(len(entry) != 2 for entry in entries):
        raise AttributeValueError(f"padding {padding!r} is not a (before, after) pair for each of {rank} axes")
    return tuple((before, after) for before, after in entries)


def pad(x: Value, padding: Any, mode: str = "constant", value: float = 0.0) -> Value:
    """x with (before, after) elements added on every axis, in one of ``MODES`` (see the top of the module).

    Negative amounts crop, in mode 'constant' only.  The gradient of an element is the sum over all places that repeat it.
    """
    pairs = padding_pairs(padding, x.rank)
    attributes = PadAttributes(pairs, mode, float(value) if mode == "constant" else 0.0)
    return emit(PAD, attributes, x) if any(map(any, pairs)) else x


def _check_value(dtype: DType, value: float) -> None:
    if dtype.is_float:
        return
    fits = math.isfinite(value) and value == int(value) and dtype.lowest <= int(value) <= dtype.highest
    if not fits:
        raise AttributeValueError(f"padding value {value} is not a number of element type {dtype}")


def _pad_type(attributes: PadAttributes, x: TensorType) -> TensorType:
    _check_padding(x.shape, attributes.padding, attributes.mode)
    _check_value(x.dtype, attributes.value)
    if attributes.mode == "mean" and x.dtype is BOOL:
        raise DTypeError("padding with the mean needs numbers, got bool", hint="cast first")
    return tensor_type(x.dtype, tuple(n + sum(pair) for n, pair in zip(x.shape, attributes.padding, strict=True)))


def _pad_constant(x: np.ndarray, padding: Pairs, value: float) -> np.ndarray:
    shape = tuple(n + before + after for n, (before, after) in zip(x.shape, padding, strict=True))
    result = np.full(shape, value, x.dtype)
    target, source = [], []
    for n, size, (before, _) in zip(x.shape, shape, padding, strict=True):
        # the operand's elements first..last are the ones that land inside
        first, last = max(0, -before), max(0, -before, min(n, size - before))
        source.append(slice(first, last))
        target.append(slice(max(0, first + before), max(0, last + before)))
    result[tuple(target)] = x[tuple(source)]
    return result


def _pad_mean(x: np.ndarray, axis: int, before: int, after: int) -> np.ndarray:
    mean = np.mean(x, axis=axis, keepdims=True)
    filler = (mean if x.dtype.kind == "f" else np.rint(mean)).astype(x.dtype)
    repeats = [np.repeat(filler, count, axis) for count in (before, after)]
    return np.concatenate([repeats[0], x, repeats[1]], axis)


def _pad_reference(attributes: PadAttributes, x: np.ndarray) -> np.ndarray:
    if attributes.mode == "constant":
        return _pad_constant(x, attributes.padding, attributes.value)
    for axis, (before, after) in enumerate(attributes.padding):
        if before + after and attributes.mode == "mean":
            x = _pad_mean(x, axis, before, after)
        elif before + after:
            x = np.take(x, source_indices(x.shape[axis], before, after, attributes.mode), axis)
    return x


def _pad_gradient(site: Site, d: Value) -> tuple[Value]:
    padding, mode = site.attributes.padding, site.attributes.mode
    if mode != "constant":
        return (pad_adjoint(d, padding, mode),)
    if any(amount < 0 for pair in padding for amount in pair):
        return (pad(d, [(-before, -after) for before, after in padding]),)
    ends = [before + n for (before, _), n in zip(padding, site.operands[0].shape, strict=True)]
    return (slice_(d, [before for before, _ in padding], ends),)


PAD = register(
    OpDef(
        "pad",
        ("x",),
        infer=_pad_type,
        reference=_pad_reference,
        gradient=_pad_gradient,
        fusion=Fusion.MOVEMENT,
        attributes=PadAttributes,
        cost=no_work,
    )
)

# --- pad_adjoint -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PadAdjointAttributes:
    """padding, mode: those of the pad; any mode but 'constant'."""

    padding: Pairs
    mode: str

    def __post_init__(self) -> None:
        _check_mode(self.mode, self.padding)
        if self.mode == "constant":
            raise AttributeValueError("the adjoint of constant padding is a slice")


def pad_adjoint(d: Value, padding: Sequence[tuple[int, int]], mode: str) -> Value:
    """The adjoint of :func:`pad`: every element of d added to the element that it repeats (mode 'mean': shared by all)."""
    return emit(PAD_ADJOINT, PadAdjointAttributes(padding_pairs(padding, d.rank), mode), d)


def _pad_adjoint_type(attributes: PadAdjointAttributes, d: TensorType) -> TensorType:
    if not d.dtype.is_float:
        raise DTypeError(f"needs floating-point elements, got {d.dtype}", hint="only gradients are padded backwards")
    if len(attributes.padding) != d.rank:
        raise ShapeError(f"padding {list(attributes.padding)} does not have one pair for each axis of {list(d.shape)}")
    shape = tuple(n - sum(pair) for n, pair in zip(d.shape, attributes.padding, strict=True))
    if any(n < 0 for n in shape):
        raise ShapeError(f"{list(d.shape)} is smaller than its padding {list(attributes.padding)}")
    _check_padding(shape, attributes.padding, attributes.mode)
    return TensorType(d.dtype, shape)


def _fold_axis(d: np.ndarray, before: int, after: int, mode: str) -> np.ndarray:
    """The adjoint of padding axis 0."""
    n = d.shape[0] - before - after
    inside = d[before : before + n].copy()
    outside = [*range(before), *range(before + n, len(d))]
    if mode == "mean":
        inside += d[outside].sum(0) / n
        return inside
    sources = source_indices(n, before, after, mode)
    for place in outside:
        inside[sources[place]] += d[place]
    return inside


def _pad_adjoint_reference(attributes: PadAdjointAttributes, d: np.ndarray) -> np.ndarray:
    result = d.astype(as_dtype(d.dtype).accumulator.numpy)
    for axis, (before, after) in enumerate(attributes.padding):
        if before + after:
            result = np.moveaxis(_fold_axis(np.moveaxis(result, axis, 0), before, after, attributes.mode), 0, axis)
    return result.astype(d.dtype)


def _pad_adjoint_cost(attributes: Any, operands: tuple[TensorType, ...], result: TensorType) -> Work:
    return Work(flops=operands[0].size - result.size)


PAD_ADJOINT = register(
    OpDef(
        "pad_adjoint",
        ("d",),
        infer=_pad_adjoint_type,
        reference=_pad_adjoint_reference,
        gradient=lambda site, d: (pad(d, site.attributes.padding, site.attributes.mode),),
        fusion=Fusion.MOVEMENT,
        attributes=PadAdjointAttributes,
        cost=_pad_adjoint_cost,
    )
)
