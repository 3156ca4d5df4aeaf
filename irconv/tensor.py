"""Tensor: running Python on it records the graph; one that holds data can be read back and differentiated.

A traced tensor stands for a node of the graph being traced.  A concrete one holds an array, and if anything it was
computed from requires a gradient, also its operands (``producer``): the graph is assembled from them when asked for.
Both run the same op constructors, so a function written with Tensors works either way.

Tensors follow NumPy: methods, indexing, broadcasting, and NumPy's own functions through its protocols.  Promotion is
NumPy 2's with weak Python numbers, except that an integer with a float gives that float, and an op that needs floats
takes integers as float32.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv import indexing
from irconv.errors import DTypeError, Location, ShapeError, StateError, TraceError
from irconv.op import NoGradient, OpDef, Value
from irconv.ops import concat, elementwise, index, reduce, shape
from irconv.ops.contract import matmul
from irconv.places import user_location
from irconv.state import Variable
from irconv.types import BOOL, F32, I64, DType, TensorType, as_dtype, promote, type_of

_MODE = threading.local()


@contextmanager
def no_grad() -> Iterator[None]:
    """Concrete tensors made inside the block do not remember how they were computed."""
    before = grad_enabled()
    _MODE.grad = False
    try:
        yield
    finally:
        _MODE.grad = before


def grad_enabled() -> bool:
    """Whether concrete tensors remember their operands (True outside :func:`no_grad`)."""
    return getattr(_MODE, "grad", True)


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
    """How a concrete value was computed."""

    op: OpDef
    attributes: Any
    operands: tuple[ConcreteValue, ...]
    location: Location | None


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
        self.owner: weakref.ref[Tensor] | None = None

    @property
    def array(self) -> np.ndarray:
        return self.variable.array if self.variable is not None else self._array


class EagerBuilder:
    """Runs each op at once with its reference, and remembers it where a gradient may be asked for."""

    priority = 0

    def emit(self, op: OpDef, attributes: Any, operands: Sequence[Value]) -> Tensor:
        values = tuple(concrete(operand) for operand in operands)
        type_ = op.result_type(attributes, [v.type for v in values])
        with np.errstate(all="ignore"):
            array = np.asarray(op.reference(attributes, *(v.array for v in values)), type_.dtype.numpy)
        tracked = (
            grad_enabled()
            and any(v.tracked for v in values)
            and type_.dtype.is_float
            and not isinstance(op.gradient, NoGradient)
        )
        producer = Producer(op, attributes, values, user_location()) if tracked else None
        return Tensor(ConcreteValue(array, producer, tracked))

    def constant(self, array: Any) -> Tensor:
        return Tensor(ConcreteValue(np.array(array)))


EAGER = EagerBuilder()


def concrete(value: Value) -> ConcreteValue:
    """The concrete value behind a tensor; TraceError for a traced one."""
    if isinstance(value, Tensor) and isinstance(value.value, ConcreteValue):
        value.check_fresh()
        return value.value
    raise TraceError(
        "a traced tensor was used outside of its trace",
        hint="return it from the traced function instead of keeping it in a variable",
    )


class Tensor(Value):
    """An n-dimensional array that records what is done with it (see the module docstring).

    Attributes: ``shape``, ``ndim``, ``size``, ``dtype`` (NumPy dtype), ``requires_grad``, ``grad`` (accumulated gradient of a
    leaf, or None), ``op`` and ``operands`` (how a tracked tensor was computed).
    """

    __slots__ = ("__weakref__", "_base", "_base_version", "_version", "grad", "value")
    __array_priority__ = 1000

    def __init__(self, value: Any):
        self.value = value  # ConcreteValue, or a GraphValue of the trace
        self.grad: Tensor | None = None
        self._version = 0
        self._base: Tensor | None = None
        self._base_version = 0

    # --- what it is ----------------------------------------------------------------------------------------------------

    @property
    def type(self) -> TensorType:  # type: ignore[override]  # a property here, a plain attribute in GraphValue
        return self.value.type

    @property
    def builder(self) -> Any:  # type: ignore[override]  # likewise
        value = self.value
        if not isinstance(value, ConcreteValue):
            return value.builder
        # while a trace runs, parameters, buffers and leaves with gradients are states of its graph, not data
        if (value.variable is not None or value.tracked) and current_tracer() is not None:
            return current_tracer()
        return EAGER

    @property
    def is_traced(self) -> bool:
        """Whether the tensor stands for a node of a graph under construction and holds no data."""
        return not isinstance(self.value, ConcreteValue)

    @property
    def ndim(self) -> int:
        return self.type.rank

    @property
    def size(self) -> int:
        return self.type.size

    @property
    def dtype(self) -> np.dtype:
        return self.type.dtype.numpy

    @property
    def T(self) -> Tensor:
        return self.transpose()

    @property
    def op(self) -> str | None:
        """Name of the op that computed a tracked tensor; None for a leaf."""
        producer = self._producer()
        return producer.op.name if producer else None

    @property
    def operands(self) -> tuple[Tensor, ...]:
        """The tensors a tracked tensor was computed from: walking them leads back to the leaves."""
        producer = self._producer()
        return tuple(_tensor_of(v) for v in producer.operands) if producer else ()

    def _producer(self) -> Producer | None:
        return self.value.producer if isinstance(self.value, ConcreteValue) else None

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient flows to or through this tensor."""
        return isinstance(self.value, ConcreteValue) and self.value.tracked

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        self.requires_grad_(wanted)

    def requires_grad_(self, wanted: bool = True) -> Tensor:
        """Say whether this leaf collects a gradient; returns itself."""
        value = concrete(self)
        if value.producer is not None:
            raise StateError(
                "requires_grad can only be set on a leaf, and this tensor was computed",
                hint="use x.detach() to cut it from what it was computed from",
            )
        if wanted and not value.type.dtype.is_float:
            raise DTypeError(f"only floating-point tensors have gradients, this one is {value.type}")
        value.tracked = wanted
        value.owner = weakref.ref(self) if wanted else None
        return self

    # --- reading data ----------------------------------------------------------------------------------------------------

    def numpy(self) -> np.ndarray:
        """The data as a read-only view."""
        array = self._data("numpy()").view()
        array.flags.writeable = False
        return array

    def item(self) -> Any:
        """The only element as a Python number."""
        return self._data("item()").item()

    def tolist(self) -> Any:
        """The data as nested lists."""
        return self._data("tolist()").tolist()

    def _data(self, what: str) -> np.ndarray:
        if isinstance(self.value, ConcreteValue):
            self.check_fresh()
            return self.value.array
        raise TraceError(
            f"{what} needs the data of a traced tensor of type {self.type}, which has none yet",
            hint="keep to tensor operations (irconv.where instead of if, irconv.zeros instead of a NumPy array), "
            "or run the function on concrete tensors",
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self._data("conversion to a NumPy array")
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy or copy is None else array

    def __bool__(self) -> bool:
        if self.is_traced:
            raise TraceError(
                f"the truth value of a traced tensor ({self.type}) is not known while the graph is recorded",
                hint="use irconv.where for a choice by value, or run the function on concrete tensors",
            )
        return bool(self._data("bool()"))

    def __float__(self) -> float:
        return float(self._data("float()"))

    def __int__(self) -> int:
        return int(self._data("int()"))

    def __index__(self) -> int:
        return self._data("use as an index").__index__()

    def __len__(self) -> int:
        if not self.shape:
            raise ShapeError("a scalar tensor has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __repr__(self) -> str:
        if self.is_traced:
            return f"Tensor({self.value!r}, traced)"
        grad = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({np.array2string(self.value.array, separator=', ', prefix='Tensor(')}, {self.type}{grad})"

    # --- gradients -------------------------------------------------------------------------------------------------------

    def detach(self) -> Tensor:
        """The same data, cut from what it was computed from."""
        if self.is_traced:
            return _as(elementwise.stop_gradient(self))
        return Tensor(ConcreteValue(concrete(self).array))

    def backward(self, gradient: Any = None) -> None:
        """Add the gradient of this tensor by every leaf that requires one to the leaf's ``grad``.

        ``gradient`` (this tensor's shape) is what to start from; a scalar starts from 1.
        """
        ABOVE.backward(self, gradient)

    # --- views and assignment ----------------------------------------------------------------------------------------------

    def check_fresh(self) -> None:
        """TraceError for a view of a tensor that has been assigned into since (it would show the old elements)."""
        if self._base is not None and self._base._version != self._base_version:
            raise TraceError(
                "this is a view of a tensor that was assigned into after the view was taken",
                hint="take the view (index, slice, reshape, transpose) again after the assignment",
            )

    def _view(self, view: Value) -> Tensor:
        """Mark a result as sharing elements with self."""
        result = _as(view)
        if result is not self:
            result._base, result._base_version = self, self._version
        return result

    def __getitem__(self, index: Any) -> Tensor:
        result, shares = indexing.get(self, index)
        return self._view(result) if shares else _as(result)

    def __setitem__(self, index: Any, item: Any) -> None:
        """Assign functionally: this tensor becomes a new value; what was computed from the old one is unaffected."""
        if self._base is not None:
            raise TraceError(
                "assignment into a view (an index, slice, reshape or transpose of another tensor)",
                hint="assign into the base tensor directly: base[index] = value",
            )
        if self.requires_grad and self.op is None:
            raise TraceError(
                "assignment into a leaf that requires a gradient", hint="work on a copy: y = x * 1"
            )
        if isinstance(self.value, ConcreteValue) and self.value.variable is not None:
            raise TraceError("assignment into a parameter or buffer", hint="use x.assign(value)")
        self.value = _as(indexing.set_(self, index, as_tensor(item, like=self))).value
        self._version += 1

    def assign(self, value: Any) -> None:
        """Give a parameter or buffer a new value: at once, or, inside a trace, as an update of the graph."""
        inner = self.value
        if not isinstance(inner, ConcreteValue) or inner.variable is None:
            raise TraceError("only parameters and buffers can be assigned to", hint="use x[...] = value")
        if current_tracer() is not None:
            current_tracer().assign(self, as_tensor(value, like=self))
        else:
            inner.variable.assign(as_array(value))

    # --- arithmetic --------------------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        return apply(elementwise.add, self, other)

    def __radd__(self, other: Any) -> Tensor:
        return apply(elementwise.add, other, self)

    def __sub__(self, other: Any) -> Tensor:
        return apply(elementwise.subtract, self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return apply(elementwise.subtract, other, self)

    def __mul__(self, other: Any) -> Tensor:
        return apply(elementwise.multiply, self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return apply(elementwise.multiply, other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return apply_float(elementwise.divide, self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return apply_float(elementwise.divide, other, self)

    def __floordiv__(self, other: Any) -> Tensor:
        return apply(elementwise.floor_divide, self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return apply(elementwise.floor_divide, other, self)

    def __mod__(self, other: Any) -> Tensor:
        return apply(elementwise.remainder, self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return apply(elementwise.remainder, other, self)

    def __pow__(self, other: Any) -> Tensor:
        if isinstance(other, (int, float)) and other == 2:
            return _as(elementwise.square(self))
        return apply(elementwise.power, self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return apply(elementwise.power, other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return apply(matmul, self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return apply(matmul, other, self)

    def __neg__(self) -> Tensor:
        return _as(elementwise.negative(self))

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return _as(elementwise.absolute(self))

    def __invert__(self) -> Tensor:
        return _as(elementwise.logical_not(self))

    def __and__(self, other: Any) -> Tensor:
        return apply(elementwise.logical_and, self, other)

    __rand__ = __and__

    def __or__(self, other: Any) -> Tensor:
        return apply(elementwise.logical_or, self, other)

    __ror__ = __or__

    def __xor__(self, other: Any) -> Tensor:
        return apply(elementwise.logical_xor, self, other)

    __rxor__ = __xor__

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]  # elementwise, as NumPy
        return apply(elementwise.equal, self, other)

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]  # elementwise, as NumPy
        return apply(elementwise.not_equal, self, other)

    def __lt__(self, other: Any) -> Tensor:
        return apply(elementwise.less, self, other)

    def __le__(self, other: Any) -> Tensor:
        return apply(elementwise.less_equal, self, other)

    def __gt__(self, other: Any) -> Tensor:
        return apply(elementwise.greater, self, other)

    def __ge__(self, other: Any) -> Tensor:
        return apply(elementwise.greater_equal, self, other)

    __hash__ = object.__hash__

    # --- methods with NumPy's names ------------------------------------------------------------------------------------------

    def astype(self, dtype: Any) -> Tensor:
        return _as(elementwise.cast(self, dtype))

    def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return _as(reduce.reduce_sum(self, axis, keepdims))

    def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return _as(reduce.reduce_mean(floating(self), axis, keepdims))

    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return _as(reduce.reduce_max(self, axis, keepdims))

    def min(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return _as(reduce.reduce_min(self, axis, keepdims))

    def prod(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return _as(reduce.reduce_prod(self, axis, keepdims))

    def var(self, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
        return _as(reduce.variance(floating(self), axis, keepdims, ddof))

    def std(self, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
        return _as(elementwise.sqrt(self.var(axis, keepdims, ddof)))

    def argmax(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return _as(reduce.argmax(self, axis, keepdims))

    def argmin(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return _as(reduce.argmin(self, axis, keepdims))

    def clip(self, min: float | None = None, max: float | None = None) -> Tensor:
        return _as(elementwise.clip(self, min, max))

    def exp(self) -> Tensor:
        return _as(elementwise.exp(floating(self)))

    def log(self) -> Tensor:
        return _as(elementwise.log(floating(self)))

    def sqrt(self) -> Tensor:
        return _as(elementwise.sqrt(floating(self)))

    def tanh(self) -> Tensor:
        return _as(elementwise.tanh(floating(self)))

    def sigmoid(self) -> Tensor:
        return _as(elementwise.sigmoid(floating(self)))

    def relu(self) -> Tensor:
        return _as(elementwise.relu(self))

    def abs(self) -> Tensor:
        return _as(elementwise.absolute(self))

    def round(self) -> Tensor:
        return _as(elementwise.round_(self))

    def copy(self) -> Tensor:
        return _as(elementwise.copy(self))

    def reshape(self, *dims: Any) -> Tensor:
        return self._view(shape.reshape(self, _sequence(dims)))

    def transpose(self, *axes: Any) -> Tensor:
        order = _sequence(axes)
        return self._view(shape.transpose(self, order if order and order[0] is not None else None))

    def swapaxes(self, first: int, second: int) -> Tensor:
        order = list(range(self.ndim))
        order[first], order[second] = order[second], order[first]
        return self._view(shape.transpose(self, order))

    def flatten(self, start_axis: int = 0, end_axis: int = -1) -> Tensor:
        return self._view(shape.flatten(self, start_axis, end_axis))

    def ravel(self) -> Tensor:
        return self.flatten()

    def squeeze(self, axis: Any = None) -> Tensor:
        return self._view(shape.squeeze(self, axis))

    def take(self, indices: Any, axis: int = 0) -> Tensor:
        return _as(index.take(self, as_tensor(indices), axis))

    # --- NumPy's protocols -----------------------------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return ABOVE.ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return ABOVE.function(function, args, kwargs)


def _not_imported(*args: Any) -> Any:
    raise AssertionError("import irconv, not irconv.tensor alone")


@dataclass(slots=True)
class Above:
    """What methods of Tensor reach in modules that stand above this one (they enter themselves when imported)."""

    backward: Callable[[Tensor, Any], None] = _not_imported  # irconv.autograd
    ufunc: Callable[[Any, str, tuple[Any, ...], dict[str, Any]], Any] = _not_imported  # irconv.numpy_protocol
    function: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any] = _not_imported  # irconv.numpy_protocol


ABOVE = Above()


def _as(value: Value) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def _sequence(items: tuple[Any, ...]) -> tuple[Any, ...]:
    """``f(2, 3)`` and ``f((2, 3))`` alike."""
    if len(items) == 1 and isinstance(items[0], (tuple, list)):
        return tuple(items[0])
    return items


def _tensor_of(value: ConcreteValue) -> Tensor:
    """The leaf tensor that owns a value, or a fresh handle on it."""
    owner = value.owner() if value.owner is not None else None
    return owner if owner is not None else Tensor(value)


# --- making tensors ------------------------------------------------------------------------------------------------------------


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """A concrete tensor holding a copy of ``data`` (numbers, nested lists, arrays; anything with __array__ or __dlpack__).

    Python floats become float32; NumPy arrays keep their dtype.
    """
    array = as_array(data, dtype)
    result = Tensor(ConcreteValue(np.array(array)))
    return result.requires_grad_() if requires_grad else result


def as_array(data: Any, dtype: Any = None) -> np.ndarray:
    """``data`` as a NumPy array of an element type irconv knows, without copying where that can be."""
    if isinstance(data, np.ndarray | np.generic):
        array = np.asarray(data)
    elif hasattr(data, "__array__"):
        array = np.asarray(data)
    elif hasattr(data, "__dlpack__"):
        array = np.from_dlpack(data)
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


def as_tensor(value: Any, like: Tensor | None = None) -> Tensor:
    """``value`` as a tensor: a tensor as it is, a Python number or array as a constant; cast to ``like``'s element type."""
    if isinstance(value, Tensor):
        result = value
    elif _is_plain(value) and like is not None:
        return Tensor(ConcreteValue(np.asarray(value, like.dtype)))
    else:
        result = Tensor(ConcreteValue(as_array(value)))
    return result if like is None or result.dtype == like.dtype else result.astype(like.dtype)


def zeros(shape: Any, dtype: Any = F32) -> Tensor:
    """A concrete tensor of zeros."""
    return full(shape, 0, dtype)


def ones(shape: Any, dtype: Any = F32) -> Tensor:
    """A concrete tensor of ones."""
    return full(shape, 1, dtype)


def full(shape: Any, value: float, dtype: Any = F32) -> Tensor:
    """A concrete tensor filled with ``value``."""
    dims = shape if isinstance(shape, (tuple, list)) else (shape,)
    return Tensor(ConcreteValue(np.full(dims, value, as_dtype(dtype).numpy)))


def arange(*bounds: float, dtype: Any = None) -> Tensor:
    """A concrete tensor like numpy.arange; int64 for integers, float32 for floats."""
    array = np.arange(*bounds)
    return Tensor(ConcreteValue(array.astype(as_dtype(dtype).numpy) if dtype else as_array(array.tolist()).reshape(array.shape)))


def where(condition: Any, x: Any, y: Any) -> Tensor:
    """x where ``condition`` holds, y elsewhere, with broadcasting and promotion."""
    left, right = common(x, y)
    return _as(elementwise.where(as_tensor(condition), left, right))


def concatenate(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Join tensors along an axis."""
    return _as(concat.concat(common(*tensors), axis))


def stack(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Join tensors along a new axis."""
    return _as(concat.stack(common(*tensors), axis))


# --- promotion -----------------------------------------------------------------------------------------------------------------


def common(*values: Any) -> list[Tensor]:
    """The values as tensors of one element type (see the module docstring for the rule)."""
    strong: DType | None = None
    for value in values:
        if not _is_plain(value):
            found = as_dtype(value.dtype) if hasattr(value, "dtype") else as_dtype(as_array(value).dtype)
            strong = found if strong is None else promote(strong, found)
    target = _with_weak(strong, values)
    return [
        value.astype(target) if isinstance(value, Tensor) else Tensor(ConcreteValue(_number(value, target)))
        for value in values
    ]


def _is_plain(value: Any) -> bool:
    """A Python number, which has a kind but no width (NumPy's scalars have one)."""
    return isinstance(value, (bool, int, float)) and not isinstance(value, np.generic)


def _number(value: Any, target: DType) -> np.ndarray:
    if isinstance(value, int) and not isinstance(value, bool) and target.is_integer:
        if not target.lowest <= value <= target.highest:
            raise DTypeError(f"{value} does not fit in {target}")
    return np.asarray(value, target.numpy)


def _with_weak(strong: DType | None, values: Sequence[Any]) -> DType:
    """The element type once Python numbers, which have a kind but no width, are counted in."""
    weak = [v for v in values if _is_plain(v)]
    if any(isinstance(v, float) for v in weak):
        return strong if strong is not None and strong.is_float else F32
    if any(not isinstance(v, bool) for v in weak):
        return I64 if strong is None or strong is BOOL else strong
    return strong if strong is not None else BOOL


def apply(constructor: Callable[..., Value], *values: Any) -> Tensor:
    """Call an op constructor on values promoted to one element type."""
    if not all(_is_numeric(v) for v in values):
        return NotImplemented  # type: ignore[return-value]  # Python's protocol for operators
    return _as(constructor(*common(*values)))


def apply_float(constructor: Callable[..., Value], *values: Any) -> Tensor:
    """As :func:`apply`, with integers taken as float32."""
    if not all(_is_numeric(v) for v in values):
        return NotImplemented  # type: ignore[return-value]  # Python's protocol for operators
    return _as(constructor(*(floating(v) for v in common(*values))))


def _is_numeric(value: Any) -> bool:
    return isinstance(value, (Tensor, bool, int, float, list, tuple)) or hasattr(value, "__array__") or hasattr(value, "__dlpack__")


def floating(value: Any) -> Tensor:
    """``value`` as a tensor of floats: integers and bools become float32."""
    result = as_tensor(value)
    return result if result.type.dtype.is_float else result.astype(F32)
