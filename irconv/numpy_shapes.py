"""NumPy's functions that move, join and repeat elements, written with what tensors can do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from irconv.errors import TraceError
from irconv.ops import shape
from irconv.ops.concat import split as split_op
from irconv.tensor import Tensor, as_tensor, concatenate


def _sequence(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def moveaxis(a: Any, source: Any, destination: Any) -> Tensor:
    """``numpy.moveaxis``."""
    x = as_tensor(a)
    moved = [axis % x.ndim for axis in _sequence(source)]
    order = [axis for axis in range(x.ndim) if axis not in moved]
    for place, axis in sorted(zip((d % x.ndim for d in _sequence(destination)), moved, strict=True)):
        order.insert(place, axis)
    return x.transpose(order)


def expand_dims(a: Any, axis: Any) -> Tensor:
    """``numpy.expand_dims``."""
    x = as_tensor(a)
    return x.reshape(shape.expand_dims(x, axis).shape)


def roll(a: Any, shift: Any, axis: Any = None) -> Tensor:
    """``numpy.roll``: without an axis, all elements in a row."""
    x = as_tensor(a)
    if axis is None:
        return roll(x.ravel(), shift, 0).reshape(x.shape)
    axes = _sequence(axis)
    shifts = _sequence(shift) * (len(axes) if isinstance(shift, int) else 1)
    for each, by in zip(axes, shifts, strict=True):
        cut = -by % max(x.shape[each], 1)
        if cut:
            x = concatenate([*split(x, [cut], each)][::-1], each)
    return x


def tile(A: Any, reps: Any) -> Tensor:  # noqa: N803 (NumPy's name)
    """``numpy.tile``."""
    x, times = as_tensor(A), _sequence(reps)
    rank = max(x.ndim, len(times))
    size = (1,) * (rank - x.ndim) + x.shape
    times = (1,) * (rank - len(times)) + times
    apart = [n for each in size for n in (1, each)]
    together = [n for pair in zip(times, size, strict=True) for n in pair]
    wide = shape.broadcast(shape.reshape(x, apart), together)
    return _tensor(shape.reshape(wide, [n * t for n, t in zip(size, times, strict=True)]))


def repeat(a: Any, repeats: int, axis: int | None = None) -> Tensor:
    """``numpy.repeat`` with one number for all elements; without an axis, all elements in a row."""
    x = as_tensor(a)
    if not isinstance(repeats, int):
        raise TraceError("numpy.repeat with a number for each element has no counterpart on tensors", hint="use np.take")
    if axis is None:
        return repeat(x.ravel(), repeats, 0)
    axis %= x.ndim
    before, size, after = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    wide = shape.broadcast(shape.reshape(x, (before, size, 1, after)), (before, size, repeats, after))
    return _tensor(shape.reshape(wide, (*x.shape[:axis], size * repeats, *x.shape[axis + 1 :])))


def vstack(tup: Sequence[Any]) -> Tensor:
    """``numpy.vstack``: vectors are rows."""
    rows = [as_tensor(x) for x in tup]
    return concatenate([x.reshape(1, -1) if x.ndim < 2 else x for x in rows], 0)


def hstack(tup: Sequence[Any]) -> Tensor:
    """``numpy.hstack``."""
    parts = [as_tensor(x) for x in tup]
    parts = [x.reshape(1) if x.ndim == 0 else x for x in parts]
    return concatenate(parts, 0 if parts[0].ndim == 1 else 1)


def outer(a: Any, b: Any) -> Tensor:
    """``numpy.outer``."""
    return as_tensor(a).reshape(-1, 1) * as_tensor(b).reshape(1, -1)


def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> tuple[Any, ...]:
    """``numpy.split``."""
    x, where = as_tensor(ary), indices_or_sections
    if isinstance(where, int):
        if where < 1 or x.shape[axis] % where:
            raise TraceError(f"axis {axis} of size {x.shape[axis]} does not split into {where} equal parts")
        sizes = [x.shape[axis] // where] * where
    else:
        bounds = [0, *where, x.shape[axis]]
        sizes = [b - a for a, b in itertools.pairwise(bounds)]
    return split_op(x, sizes, axis)


def _tensor(value: Any) -> Tensor:
    assert isinstance(value, Tensor)
    return value
