"""Elementwise kernels: each op is a :class:`irconv.backends.arrays.blocks.Step`, run by itself or in a fused chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from irconv.backends.arrays.base import Array, ArrayKernel, Request, Scratch, kernel
from irconv.backends.arrays.blocks import Stage, Step, cut, program, shared_pairs
from irconv.backends.arrays.erf import erf_step
from irconv.backends.arrays.rounding import round_to_step
from irconv.errors import DTypeError
from irconv.ops.elementwise import clip_bounds
from irconv.types import F16, F32, U8, U16, U32, U64, TensorType

# --- steps -----------------------------------------------------------------------------------------------------------------

UFUNCS = {
    "negative": "negative",
    "absolute": "absolute",
    "sign": "sign",
    "exp": "exp",
    "expm1": "expm1",
    "log": "log",
    "log1p": "log1p",
    "sqrt": "sqrt",
    "square": "square",
    "tanh": "tanh",
    "sin": "sin",
    "cos": "cos",
    "tan": "tan",
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "sinh": "sinh",
    "cosh": "cosh",
    "asinh": "arcsinh",
    "acosh": "arccosh",
    "atanh": "arctanh",
    "floor": "floor",
    "ceil": "ceil",
    "round": "rint",
    "logical_not": "logical_not",
    "add": "add",
    "subtract": "subtract",
    "multiply": "multiply",
    "divide": "divide",
    "floor_divide": "floor_divide",
    "remainder": "remainder",
    "equal": "equal",
    "not_equal": "not_equal",
    "less": "less",
    "less_equal": "less_equal",
    "greater": "greater",
    "greater_equal": "greater_equal",
    "logical_and": "logical_and",
    "logical_or": "logical_or",
    "logical_xor": "logical_xor",
    "bitwise_and": "bitwise_and",
    "bitwise_or": "bitwise_or",
    "bitwise_xor": "bitwise_xor",
    "bitwise_not": "invert",
    "shift_left": "left_shift",
    "shift_right": "right_shift",
}
"""Ops that are one function of the array module, by its name there."""

WIDE = frozenset(
    {"exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "tanh", "sigmoid", "erf"}
    | {"sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh"}
)
"""Ops that work on float16 in float32 and round once."""


def step_of(name: str, xp: Any, attributes: Any, operands: tuple[TensorType, ...], result: TensorType) -> Step:
    """The step that computes an elementwise op on operands of these types."""
    if name in WIDE and operands[0].dtype is F16:
        return _widened(xp, step_of(name, xp, attributes, (TensorType(F32, operands[0].shape),), result))
    if name in UFUNCS:
        slots = tuple(range(len(operands))) if result.dtype is operands[0].dtype else ()
        return Step(getattr(xp, UFUNCS[name]), in_place=slots)
    return _SPECIAL[name](xp, attributes, operands)


def _widened(xp: Any, step: Step) -> Step:
    """A step on float32 applied to float16."""

    def apply(x: Array, out: Array, source: Array, *temporaries: Array) -> None:
        xp.copyto(source, x)
        step.apply(source, temporaries[0], *temporaries[1:])
        xp.copyto(out, temporaries[0], casting="same_kind")

    return Step(apply, (F32, F32, *step.temporaries), (0,))


def _rsqrt(xp: Any, attributes: Any, operands: tuple[TensorType, ...]) -> Step:
    one = xp.ones((), operands[0].dtype.numpy)

    def apply(x: Array, out: Array) -> None:
        xp.sqrt(x, out)
        xp.divide(one, out, out)

    return Step(apply, in_place=(0,))


def _sigmoid(xp: Any, attributes: Any, operands: tuple[TensorType, ...]) -> Step:
    """1 / (1 + exp(-x)): within 4 units in the last place; results below the smallest normal number may become 0."""
    one = xp.ones((), operands[0].dtype.numpy)

    def apply(x: Array, out: Array) -> None:
        xp.negative(x, out)
        xp.exp(out, out)
        xp.add(out, one, out)
        xp.divide(one, out, out)

    return Step(apply, in_place=(0,))


def _relu(xp: Any, attributes: Any, operands: tuple[TensorType, ...]) -> Step:
    dtype = operands[0].dtype
    return _clipped(*(xp.asarray(dtype.numpy.type(bound)) for bound in (0, dtype.highest)))


def _minimum(xp: Any, attributes: Any, operands: tuple[TensorType, ...]) -> Step:
    return Step(lambda x, y, out: xp.minimum(x, y, out=out), in_place=(0, 1))


def _maximum(xp: Any, attributes: Any, operands: tuple[TensorType, ...]) -> Step:
    return Step(lambda x, y, out: xp.maximum(x, y, out=out), in_place=(0, 1))


def _copy(xp: Any, attributes: Any, operands: tuple[TensorType, ...]) -> Step:
    return Step(lambda x, out: xp.copyto(out, x), in_place=(0,))


def _cast(xp: Any, attributes: Any, operands: tuple[TensorType, ...]) -> Step:
    return Step(lambda x, out: xp.copyto(out, x, casting="unsafe"))


def _clip(xp: Any, attributes: Any, operands: tuple[TensorType, ...]) -> Step:
    low, high = (xp.asarray(bound) for bound in clip_bounds(attributes, operands[0].dtype))
    return _clipped(low, high)


def _clipped(low: Array, high: Array) -> Step:
    """min(max(x, low), high) in one pass, NaN kept; a zero at a bound of zero keeps its own sign.

    In cache 0.11 ns for a float32; NumPy's maximum alone takes 0.19.
    """
    return Step(lambda x, out: x.clip(low, high, out=out), in_place=(0,))


def _power(xp: Any, attributes: Any, operands: tuple[TensorType, ...]) -> Step:
    if operands[0].dtype.kind != "int":
        return Step(xp.power, in_place=(0, 1))

    def apply(x: Array, y: Array, out: Array) -> None:
        if y.size and int(y.min()) < 0:
            raise DTypeError("an integer to a negative power is not an integer", hint="cast to float first")
        xp.power(x, y, out)

    return Step(apply, in_place=(0, 1))


BITS = {1: U8, 2: U16, 4: U32, 8: U64}
"""The unsigned integers that hold the bits of an element, by its size in bytes."""


def _where(xp: Any, attributes: Any, operands: tuple[TensorType, ...]) -> Step:
    """Selection by integer arithmetic on the bits, (x * c) | (y * not c): ten times faster than a masked copy in NumPy."""
    bits = BITS[operands[1].dtype.bytes]
    one = xp.ones((), bits.numpy)

    def apply(condition: Array, x: Array, y: Array, out: Array, mask: Array, chosen: Array) -> None:
        xp.copyto(mask, condition)
        xp.multiply(x.view(bits.numpy), mask, chosen)
        xp.bitwise_xor(mask, one, mask)
        xp.multiply(y.view(bits.numpy), mask, mask)
        xp.bitwise_or(chosen, mask, out.view(bits.numpy))

    return Step(apply, (bits, bits), (1, 2))


def where_or_zero(xp: Any, operands: tuple[TensorType, ...]) -> Step:
    """``where`` whose third operand is known to be zero, as in the gradient of relu."""
    bits = BITS[operands[1].dtype.bytes]

    def apply(condition: Array, x: Array, y: Array, out: Array, mask: Array) -> None:
        xp.copyto(mask, condition)
        xp.multiply(x.view(bits.numpy), mask, out.view(bits.numpy))

    return Step(apply, (bits,), (1,))


_SPECIAL: dict[str, Callable[[Any, Any, tuple[TensorType, ...]], Step]] = {
    "rsqrt": _rsqrt,
    "sigmoid": _sigmoid,
    "erf": erf_step,
    "relu": _relu,
    "minimum": _minimum,
    "maximum": _maximum,
    "copy": _copy,
    "stop_gradient": _copy,
    "attach_gradient": _copy,
    "cast": _cast,
    "clip": _clip,
    "power": _power,
    "where": _where,
    "round_to": round_to_step,
}

# --- kernels ---------------------------------------------------------------------------------------------------------------


def _elementwise(name: str) -> Callable[[Request], ArrayKernel]:
    def make(request: Request) -> ArrayKernel:
        step = step_of(name, request.xp, request.attributes, request.operands, request.result)
        count = len(request.operands)
        stages = [Stage(step, tuple(range(count)), count)]
        dtypes = [*(t.dtype for t in request.operands), request.result.dtype]
        shapes = [t.shape for t in request.operands]
        blocks = cut(request.result.shape, request.result.dtype.bytes, request.parallel)
        scratch = Scratch()
        made = program(blocks, stages, [count], shapes, dtypes, request.parallel, scratch)
        pairs = shared_pairs(stages, [count], shapes, request.result.shape, dtypes)
        return ArrayKernel(made.run, tuple(scratch.types), pairs)

    return make


for _name in (*UFUNCS, *_SPECIAL):
    if _name != "attach_gradient":  # its other operands need not broadcast: see custom.py
        kernel(_name)(_elementwise(_name))
