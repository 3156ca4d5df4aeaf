"""NumPy indexing of tensors, reading and assigning, in terms of slice, reshape, flip, take, gather and scatter.

An index may hold integers, slices (any step), ``...``, ``None`` and integer arrays or tensors; boolean masks have a
data-dependent result and are refused (assignment through a mask of the tensor's own shape becomes ``where``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv.errors import ShapeError, TraceError
from irconv.op import Value, constant_like
from irconv.ops.elementwise import add, cast, less, multiply, where
from irconv.ops.index import take
from irconv.ops.shape import broadcast, flip, reshape, slice_, slice_update
from irconv.types import I64, DType


@dataclass(slots=True)
class Plan:
    """An index taken apart: one (start, stop, step) per axis of the base, and how the picked block becomes the result.

    flips:  axes whose step was negative.
    shape:  the block's shape with integer axes dropped and None axes added.
    arrays: integer arrays by base axis; empty for basic indexing.
    """

    start: list[int]
    stop: list[int]
    step: list[int]
    flips: list[int]
    shape: list[int]
    arrays: dict[int, Any]
    dropped: list[int]


def get(x: Any, index: Any) -> tuple[Value, bool]:
    """``x[index]``, and whether the result shares x's elements (basic indexing)."""
    plan = _plan(x.shape, index)
    if plan.arrays:
        return _get_arrays(x, plan), False
    return reshape(_block(x, plan), plan.shape), True


def _block(x: Value, plan: Plan) -> Value:
    picked = slice_(x, plan.start, plan.stop, plan.step)
    return flip(picked, plan.flips) if plan.flips else picked


def set_(x: Any, index: Any, item: Any) -> Value:
    """x with ``item`` (broadcast to the shape of ``x[index]``) written at ``index``."""
    mask = _mask(x.shape, index)
    if mask is not None:
        return where(mask, item, x)
    plan = _plan(x.shape, index)
    if plan.arrays:
        raise TraceError(
            "assignment through an integer array is not recorded",
            hint="assign slices, or use irconv.where with a mask",
        )
    block = [len(range(a, b, c)) for a, b, c in zip(plan.start, plan.stop, plan.step, strict=True)]
    value = reshape(broadcast(item, plan.shape), block)
    return slice_update(x, flip(value, plan.flips) if plan.flips else value, plan.start, plan.step)


def _mask(shape: tuple[int, ...], index: Any) -> Value | None:
    from_tensor = isinstance(index, Value) and index.type.dtype.name == "bool"
    return index if from_tensor and index.shape == shape else None


def _plan(shape: tuple[int, ...], index: Any) -> Plan:
    entries = list(index) if isinstance(index, tuple) else [index]
    used = sum(1 for e in entries if e is not None and e is not Ellipsis)
    if sum(1 for e in entries if e is Ellipsis) > 1:
        raise ShapeError("an index can only have a single ellipsis ('...')")
    if used > len(shape):
        raise ShapeError(f"{used} indices for a tensor of {len(shape)} axes {list(shape)}")
    if not any(e is Ellipsis for e in entries):
        entries.append(Ellipsis)
    at = next(i for i, e in enumerate(entries) if e is Ellipsis)
    entries[at : at + 1] = [slice(None)] * (len(shape) - used)

    plan = Plan([], [], [], [], [], {}, [])
    for entry in entries:
        if entry is None:
            plan.shape.append(1)
        else:
            _axis(plan, len(plan.start), shape[len(plan.start)], entry)
    if plan.arrays and any(e is None for e in entries):
        raise TraceError("None together with an integer array in an index", hint="index in two steps")
    return plan


def _axis(plan: Plan, axis: int, size: int, entry: Any) -> None:
    if isinstance(entry, slice):
        start, stop, step = entry.indices(size)
        count = len(range(start, stop, step))
        if step < 0:
            # the same elements in ascending order, flipped back afterwards
            start, stop, step = start + (count - 1) * step, start + 1, -step
            plan.flips.append(axis)
        if count == 0:
            start = stop = 0
            step = 1
        _append(plan, start, stop, step)
        plan.shape.append(count)
    elif isinstance(entry, (int, np.integer)) and not isinstance(entry, bool):
        position = int(entry) + (size if entry < 0 else 0)
        if not 0 <= position < size:
            raise ShapeError(f"index {int(entry)} is out of bounds for axis {axis} of size {size}")
        _append(plan, position, position + 1, 1)
        plan.dropped.append(axis)
    else:
        plan.arrays[axis] = _integers(entry)
        _append(plan, 0, size, 1)


def _append(plan: Plan, start: int, stop: int, step: int) -> None:
    plan.start.append(start)
    plan.stop.append(stop)
    plan.step.append(step)


def _integers(entry: Any) -> Any:
    kind = entry.type.dtype if isinstance(entry, Value) else np.asarray(entry).dtype
    name = str(kind)
    if name == "bool":
        raise TraceError(
            "a boolean mask picks a number of elements that is not known while tracing",
            hint="use irconv.where(mask, x, 0)",
        )
    integral = kind.is_integer if isinstance(kind, DType) else kind.kind in "iu"
    if not integral:
        raise ShapeError(f"an index must be an integer, a slice, '...', None or an integer array, got {name}")
    return entry


def _get_arrays(x: Value, plan: Plan) -> Value:
    """Integer arrays on adjacent axes: linearise them to one index and take."""
    axes = sorted(plan.arrays)
    if axes != list(range(axes[0], axes[-1] + 1)):
        raise TraceError("integer arrays on axes that are not adjacent", hint="transpose first")
    block = _block(x, plan)
    linear: Value | None = None
    for axis in axes:
        size = block.shape[axis]
        index = _nonnegative(_as_value(plan.arrays[axis], x), size)
        linear = index if linear is None else add(multiply(linear, size), index)
    assert linear is not None
    before, inside, behind = block.shape[: axes[0]], block.shape[axes[0] : axes[-1] + 1], block.shape[axes[-1] + 1 :]
    merged = (*before, int(np.prod(inside)), *behind)
    taken = take(reshape(block, merged), linear, axes[0])
    kept = [n for axis, n in enumerate(block.shape) if axis < axes[0] and axis not in plan.dropped]
    after = [n for axis, n in enumerate(block.shape) if axis > axes[-1] and axis not in plan.dropped]
    return reshape(taken, [*kept, *linear.shape, *after])


def _as_value(entry: Any, like: Value) -> Value:
    return entry if isinstance(entry, Value) else constant_like(like, np.asarray(entry, np.int64), I64)


def _nonnegative(index: Value, size: int) -> Value:
    index = cast(index, I64)
    return where(less(index, 0), add(index, size), index)
