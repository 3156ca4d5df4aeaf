"""Shape ops: the same elements under another index map, and writing to a part of a tensor.

``reshape``, ``transpose``, ``broadcast``, ``slice`` and ``flip`` are views: no arithmetic and, in storage, often no copy.
Constructors normalise negative axes and Python-style bounds, and return their operand where there is nothing to do; the ops
themselves hold every axis and bound in full.  Putting together and apart is in
:mod:`irconv.ops.concat`, padding in :mod:`irconv.ops.pad`, indexing by a tensor in :mod:`irconv.ops.index`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv.errors import AttributeValueError, DTypeError, IrconvError, ShapeError
from irconv.op import Fusion, OpDef, Site, Value, constant_like, emit, no_work, register
from irconv.types import TensorType, tensor_type

# --- shared by the sections below --------------------------------------------------------------------------------------


def int_tuple(values: Any, name: str) -> tuple[int, ...]:
    """An integer, or any sequence of integers, as a tuple.  AttributeValueError names the parameter otherwise."""
    with suppress(TypeError):  # an array has __index__ too, and refuses it unless it is a scalar
        return (operator.index(values),)
    try:
        return tuple(operator.index(value) for value in values)
    except IrconvError:
        raise  # a traced tensor explains itself better
    except TypeError:
        raise AttributeValueError(f"{name} must be an integer or a sequence of integers, got {values!r}") from None


def normalize_axis(axis: Any, rank: int) -> int:
    """``axis`` counted from the front.  AttributeValueError unless -rank <= axis < rank."""
    (number,) = int_tuple([axis], "axis")
    if not -rank <= number < rank:
        raise AttributeValueError(f"axis {number} is out of range for a tensor of rank {rank}")
    return number % rank


def normalize_axes(axes: Any, rank: int) -> tuple[int, ...]:
    """Axes counted from the front, in the order given; None means all of them.  AttributeValueError for repeated axes."""
    if axes is None:
        return tuple(range(rank))
    normal = tuple(normalize_axis(axis, rank) for axis in int_tuple(axes, "axes"))
    if len(set(normal)) != len(normal):
        raise AttributeValueError(f"axes {list(int_tuple(axes, 'axes'))} name an axis of a tensor of rank {rank} twice")
    return normal


def check_axes(axes: Sequence[int], rank: int) -> None:
    """AttributeValueError unless ``axes`` are different, normalised axes: for type rules."""
    if len(set(axes)) != len(axes) or any(not 0 <= axis < rank for axis in axes):
        raise AttributeValueError(f"axes {list(axes)} are not different axes of a tensor of rank {rank}")


def zeros(shape: Sequence[int], like: Value) -> Value:
    """A constant of zeros of ``like``'s element type, where ``like`` is being built."""
    return broadcast(constant_like(like, 0), shape)


# --- reshape -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReshapeAttributes:
    """shape: of the result; as many elements as the operand has."""

    shape: tuple[int, ...]


def reshape(x: Value, shape: Any) -> Value:
    """The elements of x in row-major order under another shape; one dimension may be -1, to be worked out."""
    target = int_tuple(shape, "shape")
    if any(n < -1 for n in target) or target.count(-1) > 1:
        raise ShapeError(f"cannot reshape to {list(target)}", hint="only one dimension may be -1, no other negative")
    if -1 in target:
        known = math.prod(n for n in target if n != -1)
        if known == 0 or x.type.size % known:
            raise ShapeError(f"cannot reshape {list(x.shape)} ({x.type.size} elements) to {list(target)}")
        target = tuple(x.type.size // known if n == -1 else n for n in target)
    return x if target == x.shape else emit(RESHAPE, ReshapeAttributes(target), x)


def _reshape_type(attributes: ReshapeAttributes, x: TensorType) -> TensorType:
    result = tensor_type(x.dtype, attributes.shape)
    if result.size != x.size:
        raise ShapeError(f"cannot reshape {list(x.shape)} ({x.size} elements) to {list(result.shape)} ({result.size} elements)")
    return result


RESHAPE = register(
    OpDef(
        "reshape",
        ("x",),
        infer=_reshape_type,
        reference=lambda attributes, x: np.reshape(x, attributes.shape),
        gradient=lambda site, d: (reshape(d, site.operands[0].shape),),
        fusion=Fusion.VIEW,
        attributes=ReshapeAttributes,
        cost=no_work,
    )
)


def squeeze(x: Value, axes: Any = None) -> Value:
    """x without the given axes, which must have size 1; None: without all axes of size 1."""
    if axes is None:
        return reshape(x, [n for n in x.shape if n != 1])
    dropped = normalize_axes(axes, x.rank)
    for axis in dropped:
        if x.shape[axis] != 1:
            raise ShapeError(f"cannot squeeze axis {axis} of {list(x.shape)}: its size is {x.shape[axis]}, not 1")
    return reshape(x, [n for axis, n in enumerate(x.shape) if axis not in dropped])


def expand_dims(x: Value, axes: Any) -> Value:
    """x with axes of size 1 put in; ``axes`` are positions in the result."""
    places = int_tuple(axes, "axes")
    added = normalize_axes(places, x.rank + len(places))
    sizes = iter(x.shape)
    return reshape(x, [1 if axis in added else next(sizes) for axis in range(x.rank + len(added))])


def flatten(x: Value, start_axis: int = 1, end_axis: int = -1) -> Value:
    """x with the axes from ``start_axis`` to ``end_axis``, both included, made one; a scalar becomes one element."""
    rank = max(x.rank, 1)
    start, end = normalize_axis(start_axis, rank), normalize_axis(end_axis, rank)
    if start > end:
        raise AttributeValueError(f"flatten: start axis {start_axis} lies behind end axis {end_axis} in {list(x.shape)}")
    return reshape(x, (*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


# --- transpose -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TransposeAttributes:
    """axes: which operand axis stands at each place of the result."""

    axes: tuple[int, ...]


def transpose(x: Value, axes: Any = None) -> Value:
    """x with its axes in the order ``axes``; None reverses them.  result.shape[i] = x.shape[axes[i]]."""
    order = tuple(reversed(range(x.rank))) if axes is None else normalize_axes(axes, x.rank)
    return x if order == tuple(range(x.rank)) else emit(TRANSPOSE, TransposeAttributes(order), x)


def _transpose_type(attributes: TransposeAttributes, x: TensorType) -> TensorType:
    axes = attributes.axes
    if sorted(axes) != list(range(x.rank)):
        raise ShapeError(f"axes {list(axes)} do not name each axis of {list(x.shape)} once")
    return TensorType(x.dtype, tuple(x.shape[axis] for axis in axes))


def _transpose_gradient(site: Site, d: Value) -> tuple[Value]:
    axes = site.attributes.axes
    return (transpose(d, sorted(range(len(axes)), key=axes.__getitem__)),)


TRANSPOSE = register(
    OpDef(
        "transpose",
        ("x",),
        infer=_transpose_type,
        reference=lambda attributes, x: np.transpose(x, attributes.axes),
        gradient=_transpose_gradient,
        fusion=Fusion.VIEW,
        attributes=TransposeAttributes,
        cost=no_work,
    )
)

# --- broadcast -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BroadcastAttributes:
    """shape: of the result."""

    shape: tuple[int, ...]


def broadcast(x: Value, shape: Any) -> Value:
    """x repeated along axes of size 1, and along new leading axes, to the given shape."""
    target = int_tuple(shape, "shape")
    return x if target == x.shape else emit(BROADCAST, BroadcastAttributes(target), x)


def _broadcast_type(attributes: BroadcastAttributes, x: TensorType) -> TensorType:
    shape = attributes.shape
    tail = shape[len(shape) - x.rank :] if len(shape) >= x.rank else ()
    if len(tail) != x.rank or any(a != b and a != 1 for a, b in zip(x.shape, tail, strict=True)):
        raise ShapeError(
            f"cannot broadcast {list(x.shape)} to {list(shape)}", hint="trailing dimensions must be equal, or 1 in the operand"
        )
    return tensor_type(x.dtype, shape)


BROADCAST = register(
    OpDef(
        "broadcast",
        ("x",),
        infer=_broadcast_type,
        reference=lambda attributes, x: np.broadcast_to(x, attributes.shape),
        gradient=lambda site, d: (d,),  # the differentiation pass sums over the repeated axes
        fusion=Fusion.VIEW,
        attributes=BroadcastAttributes,
        cost=no_work,
    )
)

# --- slice ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SliceAttributes:
    """start, stop, step: for every axis, 0 <= start <= stop <= size and step >= 1."""

    start: tuple[int, ...]
    stop: tuple[int, ...]
    step: tuple[int, ...]


def slice_(x: Value, start: Sequence[int | None], stop: Sequence[int | None], step: Sequence[int] | None = None) -> Value:
    """x[start:stop:step, ...] with one entry for every axis.

    Bounds mean what they mean in Python: None is the end, negative ones count from the back, and those beyond the size
    stop at it.  Steps are positive (see :func:`flip`).
    """
    steps = int_tuple((1,) * x.rank if step is None else step, "step")
    if not len(start) == len(stop) == len(steps) == x.rank:
        raise ShapeError(
            f"slice of {list(x.shape)} needs {x.rank} bounds, got {len(start)} starts, {len(stop)} stops, {len(steps)} steps"
        )
    if any(s < 1 for s in steps):
        raise AttributeValueError(f"slice steps {list(steps)} must be positive", hint="flip the tensor to walk backwards")
    spans = [slice(*bounds).indices(n) for n, *bounds in zip(x.shape, start, stop, steps, strict=True)]
    counts = [len(range(*span)) for span in spans]
    starts = tuple(span[0] if count else 0 for span, count in zip(spans, counts, strict=True))
    # one spelling for equal slices: stop right behind the last element taken
    stops = tuple(first + (n - 1) * s + 1 if n else first for first, n, s in zip(starts, counts, steps, strict=True))
    steps = tuple(s if n > 1 else 1 for n, s in zip(counts, steps, strict=True))
    return x if tuple(counts) == x.shape else emit(SLICE, SliceAttributes(starts, stops, steps), x)


def narrow(x: Value, axis: int, start: int, stop: int) -> Value:
    """x[start:stop] along one axis, everything along the others."""
    axis = normalize_axis(axis, x.rank)
    before, behind = (None,) * axis, (None,) * (x.rank - axis - 1)
    return slice_(x, (*before, start, *behind), (*before, stop, *behind))


def _slice_type(attributes: SliceAttributes, x: TensorType) -> TensorType:
    bounds = (attributes.start, attributes.stop, attributes.step)
    if any(len(entries) != x.rank for entries in bounds):
        raise ShapeError(f"slice of {list(x.shape)} needs {x.rank} starts, stops and steps")
    for axis, (start, stop, step) in enumerate(zip(*bounds, strict=True)):
        if not (0 <= start <= stop <= x.shape[axis] and step >= 1):
            raise ShapeError(f"slice {start}:{stop}:{step} does not fit axis {axis} of {list(x.shape)}")
    return TensorType(x.dtype, tuple(len(range(*span)) for span in zip(*bounds, strict=True)))


def _slice_gradient(site: Site, d: Value) -> tuple[Value]:
    return (embed(d, site.attributes.start, site.attributes.step, site.operands[0].shape),)


SLICE = register(
    OpDef(
        "slice",
        ("x",),
        infer=_slice_type,
        reference=lambda attributes, x: x[tuple(map(slice, attributes.start, attributes.stop, attributes.step))],
        gradient=_slice_gradient,
        fusion=Fusion.VIEW,
        attributes=SliceAttributes,
        cost=no_work,
    )
)

# --- embed ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EmbedAttributes:
    """start, step: where the operand's elements go, for every axis; shape: of the result."""

    start: tuple[int, ...]
    step: tuple[int, ...]
    shape: tuple[int, ...]


def embed(d: Value, start: Sequence[int], step: Sequence[int], shape: Sequence[int]) -> Value:
    """Zeros of ``shape`` with d at the positions start + i * step: the adjoint of :func:`slice_`."""
    target = int_tuple(shape, "shape")
    return d if target == d.shape else emit(EMBED, EmbedAttributes(int_tuple(start, "start"), int_tuple(step, "step"), target), d)


def _check_positions(start: tuple[int, ...], step: tuple[int, ...], shape: tuple[int, ...], count: tuple[int, ...]) -> None:
    """ShapeError unless ``count`` elements from ``start`` by ``step`` lie inside ``shape``."""
    if not len(start) == len(step) == len(shape) == len(count):
        raise ShapeError(f"starts {list(start)} and steps {list(step)} do not match {list(count)} inside {list(shape)}")
    for axis, (first, stride, size, n) in enumerate(zip(start, step, shape, count, strict=True)):
        if first < 0 or stride < 1 or (n and first + (n - 1) * stride >= size):
            raise ShapeError(f"{n} elements from {first} by steps of {stride} do not fit axis {axis} of {list(shape)}")


def positions(start: tuple[int, ...], step: tuple[int, ...], count: Sequence[int]) -> tuple[slice, ...]:
    """The slices that take ``count`` elements from ``start`` by ``step`` on every axis."""
    return tuple(slice(a, a + n * s, s) for a, s, n in zip(start, step, count, strict=True))


def _embed_type(attributes: EmbedAttributes, d: TensorType) -> TensorType:
    _check_positions(attributes.start, attributes.step, attributes.shape, d.shape)
    return tensor_type(d.dtype, attributes.shape)


def _embed_reference(attributes: EmbedAttributes, d: np.ndarray) -> np.ndarray:
    result = np.zeros(attributes.shape, d.dtype)
    result[positions(attributes.start, attributes.step, d.shape)] = d
    return result


def _taken(x: Value, start: tuple[int, ...], step: tuple[int, ...], count: Sequence[int]) -> Value:
    """The ``count`` elements of x from ``start`` by ``step``: undoes embed."""
    return slice_(x, start, [a + n * s for a, s, n in zip(start, step, count, strict=True)], step)


def _embed_gradient(site: Site, d: Value) -> tuple[Value]:
    return (_taken(d, site.attributes.start, site.attributes.step, site.operands[0].shape),)


EMBED = register(
    OpDef(
        "embed",
        ("d",),
        infer=_embed_type,
        reference=_embed_reference,
        gradient=_embed_gradient,
        fusion=Fusion.MOVEMENT,
        attributes=EmbedAttributes,
        cost=no_work,
    )
)

# --- slice_update ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SliceUpdateAttributes:
    """start, step: where the new elements go, for every axis."""

    start: tuple[int, ...]
    step: tuple[int, ...]


def slice_update(x: Value, v: Value, start: Sequence[int], step: Sequence[int] | None = None) -> Value:
    """x with v written at the positions start + i * step; v has x's rank and element type."""
    steps = int_tuple((1,) * x.rank if step is None else step, "step")
    return emit(SLICE_UPDATE, SliceUpdateAttributes(int_tuple(start, "start"), steps), x, v)


def _slice_update_type(attributes: SliceUpdateAttributes, x: TensorType, v: TensorType) -> TensorType:
    if x.dtype is not v.dtype:
        raise DTypeError(f"cannot write {v.dtype} elements into a tensor of {x.dtype}", hint="cast them first")
    _check_positions(attributes.start, attributes.step, x.shape, v.shape)
    return TensorType(x.dtype, x.shape)


def _slice_update_reference(attributes: SliceUpdateAttributes, x: np.ndarray, v: np.ndarray) -> np.ndarray:
    result = np.array(x)
    result[positions(attributes.start, attributes.step, v.shape)] = v
    return result


def _slice_update_gradient(site: Site, d: Value) -> tuple[Value | None, ...]:
    start, step, shape = site.attributes.start, site.attributes.step, site.operands[1].shape
    return (
        slice_update(d, zeros(shape, d), start, step) if site.wanted[0] else None,
        _taken(d, start, step, shape) if site.wanted[1] else None,
    )


SLICE_UPDATE = register(
    OpDef(
        "slice_update",
        ("x", "v"),
        infer=_slice_update_type,
        reference=_slice_update_reference,
        gradient=_slice_update_gradient,
        fusion=Fusion.MOVEMENT,
        attributes=SliceUpdateAttributes,
        cost=no_work,
    )
)

# --- flip ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FlipAttributes:
    """axes: sorted, the ones to walk backwards."""

    axes: tuple[int, ...]


def flip(x: Value, axes: Any = None) -> Value:
    """x walked backwards along the given axes; None: along all of them."""
    turned = tuple(sorted(normalize_axes(axes, x.rank)))
    return emit(FLIP, FlipAttributes(turned), x) if turned else x


def _flip_type(attributes: FlipAttributes, x: TensorType) -> TensorType:
    check_axes(attributes.axes, x.rank)
    return TensorType(x.dtype, x.shape)


FLIP = register(
    OpDef(
        "flip",
        ("x",),
        infer=_flip_type,
        reference=lambda attributes, x: np.flip(x, attributes.axes),
        gradient=lambda site, d: (flip(d, site.attributes.axes),),
        fusion=Fusion.VIEW,
        attributes=FlipAttributes,
        cost=no_work,
    )
)
