"""Reading and writing operands by logical index: vectors along one axis, whatever the strides.

Along an axis a value is contiguous (stride 1: one vector move), the same everywhere (stride 0: one scalar in every lane) or
spread out (lane by lane).  Truth values are bytes in memory and masks in vectors; :func:`as_mask` and :func:`as_truth` go
between the two.
"""

from __future__ import annotations

from collections.abc import Sequence

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import (
    INDEX,
    Expression,
    Gather,
    Lane,
    Literal,
    Operand,
    Pointer,
    Type,
    as_expression,
    compare,
    convert,
    literal,
    load,
    splat,
)
from irconv.errors import BackendError
from irconv.types import BOOL, I8, I16, I32, I64, DType

MASKS = {1: I8, 2: I16, 4: I32, 8: I64}
"""The integers that the lanes of a mask are, by the bytes of what is masked."""


def broadcast_strides(shape: Sequence[int], strides: Sequence[int], to_shape: Sequence[int]) -> tuple[int, ...]:
    """Strides with which a value of ``shape`` is read over ``to_shape``: 0 along axes that broadcasting repeats.

    Raises BackendError where the shapes do not broadcast.
    """
    added = len(to_shape) - len(shape)
    if added < 0 or any(n not in (1, m) for n, m in zip(shape, to_shape[added:], strict=True)):
        raise BackendError(f"shape {list(shape)} does not broadcast to {list(to_shape)}")
    kept = (s if n == m else 0 for n, s, m in zip(shape, strides, to_shape[added:], strict=True))
    return (0,) * added + tuple(kept)


def element_offset(strides: Sequence[Operand], index: Sequence[Operand]) -> Expression:
    """Elements from the first to the one at ``index``: the sum of index times stride."""
    offset: Expression = literal(0)
    for position, stride in zip(index, strides, strict=True):
        if isinstance(stride, int) and stride == 0:
            continue
        offset = as_expression(position, INDEX) * stride + offset
    return offset


def vector_load(
    pointer: Pointer,
    strides: Sequence[int],
    index: Sequence[Operand],
    axis: int,
    lanes: int,
    count: Operand | None = None,
) -> Expression:
    """``lanes`` elements from the logical ``index`` on along ``axis``; with ``count``, only so many are read.

    The other lanes are 0 (of a broadcast scalar: like the first).  One lane is a scalar.
    """
    offset = element_offset(strides, index)
    stride = strides[axis] if strides else 0
    if lanes == 1:
        return load(pointer, offset)
    if stride == 1:
        return load(pointer, offset, lanes, count)
    if stride == 0:
        return splat(load(pointer, offset), lanes)
    return gather(pointer, offset, stride, lanes, count)


def gather(pointer: Pointer, index: Operand, stride: Operand, lanes: int, count: Operand | None = None) -> Expression:
    """``pointer[index + i * stride]`` in lane i, 0 in lanes from ``count`` on."""
    part = None if count is None else as_expression(count, INDEX)
    return Gather(pointer, as_expression(index, INDEX), as_expression(stride, INDEX), Type(pointer.dtype, lanes), part)


def vector_store(
    body: Body,
    pointer: Pointer,
    strides: Sequence[Operand],
    index: Sequence[Operand],
    axis: int,
    value: Expression,
    count: Operand | None = None,
) -> None:
    """Write the lanes of a value (the first ``count``) from the logical ``index`` on along ``axis``; masks become bytes."""
    offset = element_offset(strides, index)
    stride = strides[axis] if strides else 0
    value = as_stored(value, pointer.dtype)
    lanes = value.type.lanes
    if lanes == 1 or (isinstance(stride, int) and stride == 1):
        body.store(pointer, offset, value, count if lanes > 1 else None)
        return
    value = body.let("lanes", value)
    with body.loop("lane", 0, lanes if count is None else count) as lane:
        body.store(pointer, offset + lane * stride, Lane(value, lane, value.type.scalar))


def as_mask(value: Expression, element_bytes: int) -> Expression:
    """Truth values (bytes, in a vector) as a mask for elements of this size; scalars and masks stay as they are."""
    lanes = value.type.lanes
    if lanes == 1 or value.type.dtype is not BOOL:
        return value
    type_ = Type(MASKS[element_bytes], lanes)
    if isinstance(value, Literal):
        return Literal(-1 if value.value else 0, type_)
    return compare("!=", convert(value, type_.dtype), 0)


def as_truth(value: Expression) -> Expression:
    """A mask as bytes that are 0 or 1; truth values stay as they are."""
    if value.type.dtype is BOOL:
        return value
    return convert(value & 1, BOOL)


def as_stored(value: Expression, dtype: DType) -> Expression:
    """A value of an expression as it lies in a buffer of ``dtype``."""
    return as_truth(value) if dtype is BOOL else value
