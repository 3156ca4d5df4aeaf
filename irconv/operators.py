"""Python's operators and NumPy's methods on tensors: each calls the op constructor of its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

from irconv.op import Value
from irconv.ops import elementwise, index, reduce, shape
from irconv.ops.contract import matmul


def bit_and(x: Value, y: Value) -> Value:
    """``x & y``: of the bits of integers, or of bools."""
    return elementwise.bitwise_and(x, y) if x.type.dtype.is_integer else elementwise.logical_and(x, y)


def bit_or(x: Value, y: Value) -> Value:
    """``x | y``: of the bits of integers, or of bools."""
    return elementwise.bitwise_or(x, y) if x.type.dtype.is_integer else elementwise.logical_or(x, y)


def bit_xor(x: Value, y: Value) -> Value:
    """``x ^ y``: of the bits of integers, or of bools."""
    return elementwise.bitwise_xor(x, y) if x.type.dtype.is_integer else elementwise.logical_xor(x, y)


def invert(x: Value) -> Value:
    """``~x``: of the bits of integers, or of bools."""
    return elementwise.bitwise_not(x) if x.type.dtype.is_integer else elementwise.logical_not(x)


class Operators(Value):
    """What a tensor can do, in terms of a few hooks that :class:`irconv.tensor.Tensor` fills in."""

    __slots__ = ()

    def _apply(self, constructor: Callable[..., Value], *values: Any) -> Self:
        """Call a constructor on values promoted to one element type."""
        raise NotImplementedError

    def _apply_float(self, constructor: Callable[..., Value], *values: Any) -> Self:
        """As :meth:`_apply`, with integers taken as float32."""
        raise NotImplementedError

    def _of(self, value: Value) -> Self:
        """A constructor's result as a tensor."""
        raise NotImplementedError

    def _reshaped(self, value: Value) -> Self:
        """A reshaped self."""
        raise NotImplementedError

    def _transposed(self, order: Sequence[int]) -> Self:
        """Self with its axes in another order."""
        raise NotImplementedError

    def _updated(self, new: Self) -> Self:
        """Self, which becomes ``new`` for everybody who holds it, and keeps its shape and element type."""
        raise NotImplementedError

    def _floating(self) -> Self:
        """Self, integers as float32."""
        raise NotImplementedError

    def _lift(self, value: Any) -> Self:
        """An array or list as a tensor."""
        raise NotImplementedError

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.type.rank

    # --- arithmetic --------------------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Self:
        return self._apply(elementwise.add, self, other)

    def __radd__(self, other: Any) -> Self:
        return self._apply(elementwise.add, other, self)

    def __sub__(self, other: Any) -> Self:
        return self._apply(elementwise.subtract, self, other)

    def __rsub__(self, other: Any) -> Self:
        return self._apply(elementwise.subtract, other, self)

    def __mul__(self, other: Any) -> Self:
        return self._apply(elementwise.multiply, self, other)

    def __rmul__(self, other: Any) -> Self:
        return self._apply(elementwise.multiply, other, self)

    def __truediv__(self, other: Any) -> Self:
        return self._apply_float(elementwise.divide, self, other)

    def __rtruediv__(self, other: Any) -> Self:
        return self._apply_float(elementwise.divide, other, self)

    def __floordiv__(self, other: Any) -> Self:
        return self._apply(elementwise.floor_divide, self, other)

    def __rfloordiv__(self, other: Any) -> Self:
        return self._apply(elementwise.floor_divide, other, self)

    def __mod__(self, other: Any) -> Self:
        return self._apply(elementwise.remainder, self, other)

    def __rmod__(self, other: Any) -> Self:
        return self._apply(elementwise.remainder, other, self)

    def __pow__(self, other: Any) -> Self:
        if isinstance(other, (int, float)) and other == 2:
            return self._of(elementwise.square(self))
        return self._apply(elementwise.power, self, other)

    def __rpow__(self, other: Any) -> Self:
        return self._apply(elementwise.power, other, self)

    def __matmul__(self, other: Any) -> Self:
        return self._apply(matmul, self, other)

    def __rmatmul__(self, other: Any) -> Self:
        return self._apply(matmul, other, self)

    # --- in place: the tensor changes for everybody who holds it, as in NumPy ------------------------------------------------

    def __iadd__(self, other: Any) -> Self:
        return self._updated(self + other)

    def __isub__(self, other: Any) -> Self:
        return self._updated(self - other)

    def __imul__(self, other: Any) -> Self:
        return self._updated(self * other)

    def __itruediv__(self, other: Any) -> Self:
        return self._updated(self / other)

    def __ifloordiv__(self, other: Any) -> Self:
        return self._updated(self // other)

    def __imod__(self, other: Any) -> Self:
        return self._updated(self % other)

    def __ipow__(self, other: Any) -> Self:
        return self._updated(self ** other)

    def __imatmul__(self, other: Any) -> Self:
        return self._updated(self @ other)

    def __iand__(self, other: Any) -> Self:
        return self._updated(self & other)

    def __ior__(self, other: Any) -> Self:
        return self._updated(self | other)

    def __ixor__(self, other: Any) -> Self:
        return self._updated(self ^ other)

    def __ilshift__(self, other: Any) -> Self:
        return self._updated(self << other)

    def __irshift__(self, other: Any) -> Self:
        return self._updated(self >> other)

    def __neg__(self) -> Self:
        return self._of(elementwise.negative(self))

    def __pos__(self) -> Self:
        return self

    def __abs__(self) -> Self:
        return self._of(elementwise.absolute(self))

    def __invert__(self) -> Self:
        return self._of(invert(self))

    def __and__(self, other: Any) -> Self:
        return self._apply(bit_and, self, other)

    __rand__ = __and__

    def __or__(self, other: Any) -> Self:
        return self._apply(bit_or, self, other)

    __ror__ = __or__

    def __xor__(self, other: Any) -> Self:
        return self._apply(bit_xor, self, other)

    __rxor__ = __xor__

    def __lshift__(self, other: Any) -> Self:
        return self._apply(elementwise.shift_left, self, other)

    def __rlshift__(self, other: Any) -> Self:
        return self._apply(elementwise.shift_left, other, self)

    def __rshift__(self, other: Any) -> Self:
        return self._apply(elementwise.shift_right, self, other)

    def __rrshift__(self, other: Any) -> Self:
        return self._apply(elementwise.shift_right, other, self)

    def __eq__(self, other: Any) -> Self:  # type: ignore[override]  # elementwise, as NumPy
        return self._apply(elementwise.equal, self, other)

    def __ne__(self, other: Any) -> Self:  # type: ignore[override]  # elementwise, as NumPy
        return self._apply(elementwise.not_equal, self, other)

    def __lt__(self, other: Any) -> Self:
        return self._apply(elementwise.less, self, other)

    def __le__(self, other: Any) -> Self:
        return self._apply(elementwise.less_equal, self, other)

    def __gt__(self, other: Any) -> Self:
        return self._apply(elementwise.greater, self, other)

    def __ge__(self, other: Any) -> Self:
        return self._apply(elementwise.greater_equal, self, other)

    __hash__ = object.__hash__

    # --- methods with NumPy's names ------------------------------------------------------------------------------------------

    def astype(self, dtype: Any) -> Self:
        return self._of(elementwise.cast(self, dtype))

    def sum(self, axis: Any = None, keepdims: bool = False) -> Self:
        return self._of(reduce.reduce_sum(self, axis, keepdims))

    def mean(self, axis: Any = None, keepdims: bool = False) -> Self:
        return self._of(reduce.reduce_mean(self._floating(), axis, keepdims))

    def max(self, axis: Any = None, keepdims: bool = False) -> Self:
        return self._of(reduce.reduce_max(self, axis, keepdims))

    def min(self, axis: Any = None, keepdims: bool = False) -> Self:
        return self._of(reduce.reduce_min(self, axis, keepdims))

    def prod(self, axis: Any = None, keepdims: bool = False) -> Self:
        return self._of(reduce.reduce_prod(self, axis, keepdims))

    def var(self, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> Self:
        return self._of(reduce.variance(self._floating(), axis, keepdims, ddof))

    def std(self, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> Self:
        return self._of(elementwise.sqrt(self.var(axis, keepdims, ddof)))

    def argmax(self, axis: Any = None, keepdims: bool = False) -> Self:
        return self._of(reduce.argmax(self, axis, keepdims))

    def argmin(self, axis: Any = None, keepdims: bool = False) -> Self:
        return self._of(reduce.argmin(self, axis, keepdims))

    def clip(self, min: float | None = None, max: float | None = None) -> Self:
        return self._of(elementwise.clip(self, min, max))

    def exp(self) -> Self:
        return self._of(elementwise.exp(self._floating()))

    def log(self) -> Self:
        return self._of(elementwise.log(self._floating()))

    def sqrt(self) -> Self:
        return self._of(elementwise.sqrt(self._floating()))

    def tanh(self) -> Self:
        return self._of(elementwise.tanh(self._floating()))

    def sigmoid(self) -> Self:
        return self._of(elementwise.sigmoid(self._floating()))

    def relu(self) -> Self:
        return self._of(elementwise.relu(self))

    def abs(self) -> Self:
        return self._of(elementwise.absolute(self))

    def round(self) -> Self:
        return self._of(elementwise.round_(self))

    def copy(self) -> Self:
        return self._of(elementwise.copy(self))

    def reshape(self, *dims: Any) -> Self:
        return self._reshaped(shape.reshape(self, _sequence(dims)))

    def transpose(self, *axes: Any) -> Self:
        order = _sequence(axes)
        return self._transposed(order if order and order[0] is not None else range(self.ndim)[::-1])

    def swapaxes(self, first: int, second: int) -> Self:
        order = list(range(self.ndim))
        one, other = (shape.normalize_axis(axis, self.ndim) for axis in (first, second))
        order[one], order[other] = other, one
        return self._transposed(order)

    def flatten(self, start_axis: int = 0, end_axis: int = -1) -> Self:
        return self._reshaped(shape.flatten(self, start_axis, end_axis))

    def ravel(self) -> Self:
        return self.flatten()

    def squeeze(self, axis: Any = None) -> Self:
        return self._reshaped(shape.squeeze(self, axis))

    def take(self, indices: Any, axis: int | None = None) -> Self:
        x = self.ravel() if axis is None else self
        return self._of(index.take(x, self._lift(indices), axis or 0))


def _sequence(items: tuple[Any, ...]) -> tuple[Any, ...]:
    """``f(2, 3)`` and ``f((2, 3))`` alike."""
    if len(items) == 1 and isinstance(items[0], (tuple, list)):
        return tuple(items[0])
    return items
