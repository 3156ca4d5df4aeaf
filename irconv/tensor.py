"""Tensor: running Python on it records the graph; one that holds data can be read back and differentiated.

A traced tensor stands for a node of the graph being traced.  A concrete one holds an array, and if anything it was
computed from requires a gradient, also its operands (``producer``): the graph is assembled from them when asked for.
Both run the same op constructors, so a function written with Tensors works either way.

Tensors follow NumPy: methods, indexing, broadcasting, and NumPy's own functions through its protocols.  Promotion is
NumPy 2's with weak Python numbers, except that an integer with a float gives that float, and an op that needs floats
takes integers as float32.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv import indexing
from irconv.concrete import ConcreteValue, Producer, as_array, current_tracer, grad_enabled, take_room
from irconv.errors import DTypeError, ShapeError, StateError, TraceError
from irconv.op import Fusion, NoGradient, OpDef, Value
from irconv.operators import Operators
from irconv.ops import concat, elementwise, shape
from irconv.places import user_location
from irconv.promotion import is_number, is_numeric, number_as, with_numbers
from irconv.types import F32, DType, TensorType, as_dtype, promote


class EagerBuilder:
    """Runs each op at once with its reference, and remembers it where a gradient may be asked for."""

    priority = 0

    def emit(self, op: OpDef, attributes: Any, operands: Sequence[Value]) -> Tensor:
        values = tuple(concrete(operand) for operand in operands)
        type_ = op.result_type(attributes, [v.type for v in values])
        arrays = [v.array for v in values]
        if op.fusion is not Fusion.VIEW or op.name == "reshape":  # the others never copy
            take_room(type_, arrays)
        with np.errstate(all="ignore"):
            array = np.asarray(op.reference(attributes, *arrays), type_.dtype.numpy)
        tracked = (
            grad_enabled()
            and any(v.tracked for v in values)
            and type_.dtype.is_float
            and not isinstance(op.gradient, NoGradient)
        )
        if not tracked:
            return Tensor(ConcreteValue(array))
        versions = tuple(v.variable.version if v.variable is not None else 0 for v in values)
        return Tensor(ConcreteValue(array, Producer(op, attributes, values, user_location(), versions), tracked))

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


class Tensor(Operators):
    """An n-dimensional array that records what is done with it (see the module docstring).

    Attributes: ``shape``, ``ndim``, ``size``, ``dtype`` (NumPy dtype), ``requires_grad``, ``grad`` (accumulated gradient of a
    leaf, or None), ``op`` and ``operands`` (how a tracked tensor was computed).
    """

    __slots__ = ("__weakref__", "_back", "_base", "_base_version", "_key", "_pending", "_value", "_version", "grad")
    __array_priority__ = 1000

    def __init__(self, value: Any):
        self._value = value  # ConcreteValue, or a GraphValue of the trace
        self._pending: Tensor | None = None  # a view that was changed in place and not written back yet
        self.grad: Tensor | None = None
        self._version = 0
        self._base: Tensor | None = None
        self._base_version = 0
        self._back: Callable[[Tensor], Value] | None = None
        self._key: tuple[Any, ...] | None = None

    # --- what it is ----------------------------------------------------------------------------------------------------

    @property
    def value(self) -> Any:
        """What stands behind the tensor: a ConcreteValue, or the GraphValue of a trace."""
        view = self._pending
        if view is not None and view._back is not None:
            self._pending = None
            self._value = _as(view._back(view)).value
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self._value, self._pending = value, None

    @property
    def type(self) -> TensorType:  # type: ignore[override]  # a property here, a plain attribute in GraphValue
        return self._value.type

    @property
    def builder(self) -> Any:  # likewise
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
    def size(self) -> int:
        return self.type.size

    @property
    def dtype(self) -> np.dtype:
        return self.type.dtype.numpy

    @property
    def T(self) -> Tensor:  # noqa: N802 (NumPy's name)
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
        return self._element("item()")

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

    def _element(self, what: str) -> Any:
        data = self._data(what)
        if data.size != 1:
            hint = "use sum, mean, max or an index"
            raise ShapeError(f"{what} needs a tensor of one element, this one is {self.type}", hint=hint)
        return data.item()

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
        return bool(self._element("bool()"))

    def __float__(self) -> float:
        return float(self._element("float()"))

    def __int__(self) -> int:
        return int(self._element("int()"))

    def __index__(self) -> int:
        if self.is_traced or self.type.dtype.is_integer:
            return int(self._element("use as an index"))
        raise DTypeError(f"a tensor {self.type} cannot be used as an index", hint="an index is an integer")

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

    def _of(self, value: Value) -> Tensor:
        return _as(value)

    def _apply(self, constructor: Callable[..., Value], *values: Any) -> Tensor:
        return apply(constructor, *values)

    def _apply_float(self, constructor: Callable[..., Value], *values: Any) -> Tensor:
        return apply_float(constructor, *values)

    def _floating(self) -> Tensor:
        return floating(self)

    def _lift(self, value: Any) -> Tensor:
        return as_tensor(value)

    def _view(self, view: Value, back: Callable[[Tensor], Value] | None, key: tuple[Any, ...] | None = None) -> Tensor:
        """Mark a result as sharing elements with self.

        back: self's new value, from the changed view; None where NumPy may have made a copy.
        key: the index that picked the view, () for a transpose.
        """
        result = _as(view)
        if result is not self:
            result._base, result._base_version, result._back, result._key = self, self._version, back, key
        return result

    def _reshaped(self, value: Value) -> Tensor:
        # a reshaped index or transpose is a copy or a view depending on the order in memory
        return self._view(value, (lambda view: shape.reshape(view, self.shape)) if self._key is None else None)

    def _transposed(self, order: Sequence[int]) -> Tensor:
        result = shape.transpose(self, order)
        places = [axis % self.ndim for axis in order]
        inverse = [places.index(axis) for axis in range(self.ndim)]
        return self._view(result, lambda view: shape.transpose(view, inverse), ())

    def __getitem__(self, index: Any) -> Tensor:
        result, shares = indexing.get(self, index)
        if not shares:
            return _as(result)
        return self._view(result, lambda view: indexing.set_(self, index, view), (index,))

    def __setitem__(self, index: Any, item: Any) -> None:
        """Assign functionally: this tensor becomes a new value; what was computed from the old one is unaffected."""
        if isinstance(item, Tensor) and item._base is self and item._key and item._key[0] is index:
            self.value  # noqa: B018  # the end of ``x[index] += y``, which changed the view: it is written back at this line
            return
        self._become(_as(indexing.set_(self, index, as_tensor(item, like=self))))

    def _updated(self, new: Tensor) -> Tensor:
        if new.shape != self.shape:
            raise ShapeError(f"a tensor {self.type} cannot become {new.type} in place", hint="write x = x + y, not x += y")
        if not np.can_cast(new.dtype, self.dtype, "same_kind"):
            raise DTypeError(f"a tensor {self.type} cannot become {new.type} in place", hint="write x = x + y, not x += y")
        self._become(new if new.dtype == self.dtype else new.astype(self.dtype))
        return self

    def _become(self, new: Tensor) -> None:
        """Take a new value, for everybody who holds this tensor and for what it is a view of."""
        self._check_assignable()
        self._store(new)
        base, above = self, self._base
        while above is not None and base._back is not None:
            if above._stateful:
                above._store(_as(base._back(base)))
            else:
                above._pending = base  # written back when it is read: often it never is
                above._version += 1
            base._base_version = above._version
            base, above = above, above._base

    @property
    def _stateful(self) -> bool:
        """Whether others read the array or a gradient is collected here."""
        inner = self._value
        return isinstance(inner, ConcreteValue) and (inner.variable is not None or (inner.tracked and inner.owner is not None))

    def _check_assignable(self) -> None:
        if self._stateful and self._value.tracked and grad_enabled():
            what = "a parameter" if self._value.variable is not None else "a leaf that requires a gradient"
            hint = "work on a copy: y = x * 1; to change it for good: x.assign(value), or inside irconv.no_grad()"
            raise TraceError(f"assignment into {what}", hint=hint)
        if self._base is not None:
            if self._back is None:
                what = "change of a reshaped index or transpose: whether that is a copy depends on the order in memory"
                raise TraceError(f"in-place {what}", hint="write x = x + y, not x += y")
            self._base._check_assignable()

    def _store(self, new: Tensor) -> None:
        collects = self._stateful and self._value.tracked
        if self._stateful and self._value.variable is not None:
            self.assign(new)
        else:
            self.value = new.value
            if collects:
                self.requires_grad_()
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


def as_tensor(value: Any, like: Tensor | None = None) -> Tensor:
    """``value`` as a tensor: a tensor as it is, a Python number or array as a constant; cast to ``like``'s element type."""
    if isinstance(value, Tensor):
        result = value
    elif is_number(value) and like is not None:
        return Tensor(ConcreteValue(np.asarray(value, like.dtype)))
    else:
        result = Tensor(ConcreteValue(as_array(value)))
    return result if like is None or result.dtype == like.dtype else result.astype(like.dtype)


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
        if not is_number(value):
            own = isinstance(value, (Tensor, np.ndarray, np.generic))  # others name their types in their own way
            found = as_dtype(value.dtype if own else as_array(value).dtype)
            strong = found if strong is None else promote(strong, found)
    target = with_numbers(strong, values)
    return [v.astype(target) if isinstance(v, Tensor) else Tensor(ConcreteValue(_as_type(v, target))) for v in values]


def _as_type(value: Any, target: DType) -> np.ndarray:
    return number_as(value, target) if is_number(value) else as_array(value).astype(target.numpy, copy=False)


def apply(constructor: Callable[..., Value], *values: Any) -> Tensor:
    """Call an op constructor on values promoted to one element type."""
    if not all(is_numeric(v) for v in values):
        return NotImplemented  # Python's protocol for operators
    return _as(constructor(*common(*values)))


def apply_float(constructor: Callable[..., Value], *values: Any) -> Tensor:
    """As :func:`apply`, with integers taken as float32."""
    if not all(is_numeric(v) for v in values):
        return NotImplemented  # Python's protocol for operators
    return _as(constructor(*(floating(v) for v in common(*values))))


def floating(value: Any) -> Tensor:
    """``value`` as a tensor of floats: integers and bools become float32."""
    result = as_tensor(value)
    return result if result.type.dtype.is_float else result.astype(F32)
