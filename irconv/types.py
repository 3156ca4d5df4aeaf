"""Element types, storage layouts and tensor types.

A :class:`TensorType` is what the IR knows of a value: element type, shape, and how it is stored.  It prints as
``f32[8,3,32,32]``; a layout other than row-major follows in braces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from irconv.errors import DTypeError, ShapeError

MAX_ELEMENTS = 2**48
"""No tensor type may hold more elements: larger products are mistakes, and index arithmetic must stay inside 64 bits."""


@dataclass(frozen=True, slots=True)
class DType:
    """An element type: ``name`` as printed in the IR, ``numpy`` dtype, ``kind`` ('float', 'int', 'uint', 'bool')."""

    name: str
    numpy: np.dtype
    kind: str

    @property
    def bytes(self) -> int:
        """Size of one element in bytes."""
        return self.numpy.itemsize

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        """Signed or unsigned integer; bool is not one."""
        return self.kind in ("int", "uint")

    @property
    def lowest(self) -> Any:
        """The identity of max: -inf, the smallest integer, or False."""
        if self.is_float:
            return -math.inf
        return False if self.kind == "bool" else int(np.iinfo(self.numpy).min)

    @property
    def highest(self) -> Any:
        """The identity of min: inf, the largest integer, or True."""
        if self.is_float:
            return math.inf
        return True if self.kind == "bool" else int(np.iinfo(self.numpy).max)

    @property
    def accumulator(self) -> DType:
        """What sums of this type are carried in: at least float32 for floats, itself otherwise."""
        return F32 if self is F16 else self

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name


def _dtype(name: str, numpy_name: str, kind: str) -> DType:
    return DType(name, np.dtype(numpy_name), kind)


F16 = _dtype("f16", "float16", "float")
F32 = _dtype("f32", "float32", "float")
F64 = _dtype("f64", "float64", "float")
I8 = _dtype("i8", "int8", "int")
I16 = _dtype("i16", "int16", "int")
I32 = _dtype("i32", "int32", "int")
I64 = _dtype("i64", "int64", "int")
U8 = _dtype("u8", "uint8", "uint")
U16 = _dtype("u16", "uint16", "uint")
U32 = _dtype("u32", "uint32", "uint")
U64 = _dtype("u64", "uint64", "uint")
BOOL = _dtype("bool", "bool", "bool")

DTYPES: dict[str, DType] = {d.name: d for d in (F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64, BOOL)}
_BY_NUMPY: dict[np.dtype, DType] = {d.numpy: d for d in DTYPES.values()}


def as_dtype(dtype: Any) -> DType:
    """The DType for a DType, an IR name ('f32'), a NumPy dtype or anything ``numpy.dtype`` takes.

    Raises DTypeError for element types that irconv does not have (complex, object, strings, dates).
    """
    if isinstance(dtype, DType):
        return dtype
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    try:
        found = _BY_NUMPY.get(np.dtype(dtype).newbyteorder("="))
    except TypeError:
        found = None
    if found is None:
        raise DTypeError(f"{dtype!r} is not an element type of irconv", hint=f"use one of {', '.join(DTYPES)}")
    return found


@cache
def promote(first: DType, second: DType) -> DType:
    """The common type of two arrays: NumPy 2's promotion, except that an integer (or bool) with a float gives that float."""
    if first is second:
        return first
    if first.is_float != second.is_float:
        return first if first.is_float else second
    return as_dtype(np.promote_types(first.numpy, second.numpy))


@dataclass(frozen=True, slots=True)
class Layout:
    """Storage order: from slowest to fastest, the (logical axis, block) pairs.

    Block 0 stands for what is left of the axis once its blocks are taken out.  ``NHWC`` of a 4-D tensor is
    ``((0,0),(2,0),(3,0),(1,0))``; channels blocked by 16 are ``((0,0),(1,0),(2,0),(3,0),(1,16))``.
    """

    axes: tuple[tuple[int, int], ...]

    def check(self, rank: int) -> None:
        """Raise ShapeError unless every axis has exactly one unblocked entry and every block is positive."""
        outer = sorted(axis for axis, block in self.axes if block == 0)
        inner_valid = all(0 <= axis < rank and block >= 0 for axis, block in self.axes)
        if outer != list(range(rank)) or not inner_valid:
            raise ShapeError(f"layout {self} does not name each of the {rank} axes once")

    def storage_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Dimensions as stored, rounded up to whole blocks."""
        blocks = [1] * len(shape)
        for axis, block in self.axes:
            blocks[axis] *= block or 1
        return tuple(block or -(-shape[axis] // blocks[axis]) for axis, block in self.axes)

    @property
    def order(self) -> tuple[int, ...]:
        """The axes from slowest to fastest, of a layout without blocks."""
        return tuple(axis for axis, _ in self.axes)

    def __str__(self) -> str:
        return "{" + ",".join(f"{axis}%{block}" if block else str(axis) for axis, block in self.axes) + "}"


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type, shape and storage layout (None: row-major) of a value."""

    dtype: DType
    shape: tuple[int, ...]
    layout: Layout | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def logical(self) -> TensorType:
        """The type without its layout: what type rules go by."""
        return self if self.layout is None else TensorType(self.dtype, self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in memory as stored, in bytes."""
        stored = self.layout.storage_shape(self.shape) if self.layout else self.shape
        return math.prod(stored) * self.dtype.bytes

    def __str__(self) -> str:
        return f"{self.dtype.name}[{','.join(map(str, self.shape))}]{self.layout or ''}"

    def __repr__(self) -> str:
        return str(self)


def channels_last(rank: int) -> Layout:
    """Batch, spatial axes, then channels (axis 1) as the fastest: ``{0,2,3,1}`` for images."""
    return Layout(((0, 0), *((axis, 0) for axis in range(2, rank)), (1, 0)))


def tensor_type(dtype: Any, shape: Sequence[int], layout: Layout | None = None) -> TensorType:
    """A checked TensorType.  Raises ShapeError for negative, non-integer or absurdly large dimensions."""
    try:
        dims = tuple(int(n.__index__()) for n in shape)
    except (TypeError, AttributeError):
        raise ShapeError(f"{shape!r} is not a shape", hint="give a tuple of integers") from None
    if any(n < 0 for n in dims):
        raise ShapeError(f"shape {list(dims)} has a negative dimension")
    if math.prod(dims) > MAX_ELEMENTS:
        raise ShapeError(f"shape {list(dims)} has more than 2^48 elements")
    if layout is not None:
        layout.check(len(dims))
    return TensorType(as_dtype(dtype), dims, layout)


def type_of(array: Any) -> TensorType:
    """The type of a NumPy (or CuPy) array."""
    return TensorType(as_dtype(array.dtype), tuple(array.shape))


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What an input will look like: ``TensorSpec((1, 3, 224, 224))`` is float32 unless a dtype is given.

    Raises ShapeError or DTypeError for what is no shape or no element type.
    """

    shape: tuple[int, ...]
    dtype: Any = F32
    name: str | None = None

    def __post_init__(self) -> None:
        checked = tensor_type(self.dtype, self.shape)
        object.__setattr__(self, "shape", checked.shape)
        object.__setattr__(self, "dtype", checked.dtype)

    @property
    def type(self) -> TensorType:
        return tensor_type(self.dtype, self.shape)


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """NumPy broadcasting of shapes.  Raises ShapeError naming the two that do not fit."""
    result: tuple[int, ...] = ()
    for shape in shapes:
        if shape == result:
            continue
        rank = max(len(result), len(shape))
        left = (1,) * (rank - len(result)) + result
        right = (1,) * (rank - len(shape)) + shape
        if any(a != b and a != 1 and b != 1 for a, b in zip(left, right, strict=True)):
            raise ShapeError(
                f"shapes {list(result)} and {list(shape)} do not broadcast",
                hint="trailing dimensions must be equal, or one of them 1",
            )
        result = tuple(b if a == 1 else a for a, b in zip(left, right, strict=True))
    return result
