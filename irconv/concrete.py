"""What stands behind a tensor that holds data, and the mode that new ones are made in.

A :class:`ConcreteValue` is immutable: an array, and how it was computed if a gradient may be asked for.  Two switches belong
to the running thread: :func:`no_grad`, and the tracer that records (:func:`recording`).
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv.errors import DTypeError, IrconvError, ShapeError
from irconv.op import OpDef
from irconv.places import Location
from irconv.state import Variable
from irconv.types import TensorType, as_dtype, type_of

_MODE = threading.local()


@contextmanager
def grad_mode(enabled: bool) -> Iterator[None]:
    """Say whether concrete tensors made inside the block remember how they were computed."""
    before = grad_enabled()
    _MODE.grad = enabled
    try:
        yield
    finally:
        _MODE.grad = before


def no_grad() -> AbstractContextManager[None]:
    """Concrete tensors made inside the block do not remember how they were computed."""
    return grad_mode(False)


def grad_enabled() -> bool:
    """Whether concrete tensors remember their operands (True outside :func:`no_grad`)."""
    return getattr(_MODE, "grad", True)


@dataclass(slots=True)
class Allowance:
    """How many bytes computed values may have: each of them, and together (None: any number)."""

    each: int
    left: int | None


@contextmanager
def computing_at_most(each: int, total: int | None = None) -> Iterator[None]:
    """Bound what is computed inside the block, for programs that come out of files: each value, and all of them together."""
    before = getattr(_MODE, "allowance", None)
    _MODE.allowance = Allowance(each, total)
    try:
        yield
    finally:
        _MODE.allowance = before


def take_room(type_: TensorType, operands: Sequence[np.ndarray] = ()) -> None:
    """ShapeError for a value that is too large to be computed, or to be computed from, inside :func:`computing_at_most`."""
    allowance: Allowance | None = getattr(_MODE, "allowance", None)
    if allowance is None:
        return
    # what was broadcast takes no room itself, but working on it takes as long as if it did
    largest = max([type_.bytes, *(array.nbytes for array in operands if 0 in array.strides)])
    if largest > allowance.each:
        raise ShapeError(f"a value of type {type_}, or one it is computed from, has {largest} bytes, more than {allowance.each}")
    if allowance.left is not None:
        allowance.left -= type_.bytes
        if allowance.left < 0:
            raise ShapeError(f"the values that are computed here need too much memory together; the last is of type {type_}")


def current_tracer() -> Any:
    """The :class:`irconv.tracing.Tracer` that records in this thread, or None."""
    return getattr(_MODE, "tracer", None)


@contextmanager
def recording(tracer: Any) -> Iterator[None]:
    """Let ``tracer`` record what this thread does inside the block."""
    before = current_tracer()
    _MODE.tracer = tracer
    try:
        yield
    finally:
        _MODE.tracer = before


@dataclass(frozen=True, slots=True, eq=False)
class Producer:
    """How a concrete value was computed; ``versions`` are those that the operands' variables had then (0 without one)."""

    op: OpDef
    attributes: Any
    operands: tuple[ConcreteValue, ...]
    location: Location | None
    versions: tuple[int, ...]


class ConcreteValue:
    """An immutable link in the record of a concrete tensor: data, type, and how it was computed.

    ``tracked`` says whether a gradient flows through it; ``owner`` is the leaf tensor that collects it.
    """

    __slots__ = ("_array", "owner", "producer", "tracked", "type", "variable")

    def __init__(self, array: Any, producer: Producer | None = None, tracked: bool = False, variable: Variable | None = None):
        self._array = array
        self.type = type_of(array)
        self.producer = producer
        self.tracked = tracked
        self.variable = variable
        self.owner: weakref.ref[Any] | None = None

    @property
    def array(self) -> np.ndarray:
        return self.variable.array if self.variable is not None else self._array


def as_array(data: Any, dtype: Any = None) -> np.ndarray:
    """``data`` as a NumPy array of an element type irconv knows, without copying where that can be."""
    if isinstance(data, np.ndarray | np.generic):
        array = np.asarray(data)
    elif hasattr(data, "__array__") or hasattr(data, "__dlpack__"):
        array = _converted(data)
    else:
        try:
            array = np.asarray(data)
        except ValueError as error:
            raise ShapeError(f"nested lists of unequal lengths: {error}") from None
        if array.dtype == np.float64 and dtype is None:
            array = array.astype(np.float32)
    if dtype is not None:
        return array.astype(as_dtype(dtype).numpy, copy=False)
    return array.astype(as_dtype(array.dtype).numpy, copy=False)


def _converted(data: Any) -> np.ndarray:
    """Another library's array; DTypeError with what that library says if it refuses."""
    try:
        return np.asarray(data) if hasattr(data, "__array__") else np.from_dlpack(data)
    except IrconvError:
        raise
    except Exception as error:  # each library has its own
        kind = f"{type(data).__module__}.{type(data).__qualname__}"
        hint = "give a dense array on the CPU, of an element type that NumPy has, that no gradients are recorded for"
        raise DTypeError(f"a {kind} does not become a NumPy array: {error}", hint=hint) from None
