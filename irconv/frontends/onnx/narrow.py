"""Computing with narrow element types: what an operator gives is rounded as it would be if it were stored narrow.

A tensor of a narrow type is a :class:`NarrowTensor`: its elements are values of the format, held in the format's carrier, and it
remembers the format for as long as operators hand it on.  Stored weights are not rounded again: once trained, they are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from onnx import defs

from irconv.errors import ModelError
from irconv.frontends.onnx.formats import FORMATS, LEAST_POWER, Format
from irconv.frontends.onnx.tensors import element_type
from irconv.op import Value
from irconv.ops import elementwise as e
from irconv.ops.index import take
from irconv.ops.reduce import reduce_sum
from irconv.ops.shape import expand_dims
from irconv.tensor import Tensor, as_tensor
from irconv.types import F32, F64, I32, I64, U8, U32, U64, DType

EXACT = frozenset(
    {"Abs", "Clip", "Compress", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity"}
    | {"Max", "MaxPool", "Min", "Neg", "OneHot", "ReduceMax", "ReduceMin", "Relu", "Reshape", "ReverseSequence", "Sign", "Slice"}
    | {"SpaceToDepth", "Split", "Squeeze", "Tile", "TopK", "Transpose", "Trilu", "Unique", "Unsqueeze", "Where"}
)
"""Operators whose results are elements of their operands, or values that every format has: nothing is to be rounded."""


class NarrowTensor(Tensor):
    """A tensor whose elements are values of a narrow format."""

    __slots__ = ("format",)

    def __init__(self, value: Any, form: Format):
        super().__init__(value)
        self.format = form


def format_of(value: Any) -> Format | None:
    """The narrow format of a value; None for other tensors, and for what is no tensor."""
    return value.format if isinstance(value, NarrowTensor) else None


def marked(x: Value, form: Format | None) -> Tensor:
    """x, whose elements are values of the format already, as a tensor of that format; of none as an ordinary one."""
    assert isinstance(x, Tensor)
    if format_of(x) is form:
        return x
    return Tensor(x.value) if form is None else NarrowTensor(x.value, form)


def narrowed(x: Value, form: Format, saturate: bool = False, rounding: str = "up") -> Tensor:
    """x of any element type converted to a format.

    saturate: whether what is too large for an 8-bit float becomes its largest value; rounding: of powers of two.
    Integers lose their higher bits.
    """
    if form.rounding is not None:
        x = e.round_to(_floating(x), form.rounding.name, saturate and form.bits == 8)
    elif form.carrier is F32:
        x = _power_of_two(e.cast(x, F64), saturate, rounding)
    else:
        return marked(_lowest_bits(x, form), form)
    return marked(e.cast(x, F32), form)


def _floating(x: Value) -> Value:
    """x as a float that holds its values: rounding twice would not round to the nearest."""
    wide = x.type.dtype in (F64, I32, I64, U32, U64)
    return e.cast(x, F64 if wide else F32)


def _lowest_bits(x: Value, form: Format) -> Value:
    """The lowest bits of an integer, with the sign that they have in the format; floats are rounded toward zero."""
    whole = e.cast(e.cast(x, I32) if x.type.dtype.is_float else x, form.carrier)
    if form.carrier is U8:
        return e.bitwise_and(whole, 2**form.bits - 1)
    return e.shift_right(e.shift_left(whole, 8 - form.bits), 8 - form.bits)


def _power_of_two(x: Value, saturate: bool, rounding: str) -> Value:
    """The power of two (of 2^-127 to 2^127) that x is rounded to: 'up', 'down', or 'nearest', from the middle on up.

    NaN for negative x, and, without saturation, for x beyond the powers.
    """
    powers = np.ldexp(1.0, np.arange(LEAST_POWER, 128))
    each = expand_dims(x, x.rank)
    passed = {
        "up": lambda: e.greater(each, as_tensor(powers[:-1])),
        "down": lambda: e.greater_equal(each, as_tensor(powers[1:])),
        "nearest": lambda: e.greater_equal(each, as_tensor(1.5 * powers[:-1])),
    }[rounding]()
    found = take(as_tensor(powers), reduce_sum(e.cast(passed, I64), -1))
    # what is one step beyond the largest power
    limit = powers[-1] * {"up": 1, "down": 2, "nearest": 1.5}[rounding]
    outside = e.less(x, 0) if saturate else e.logical_or(e.less(x, powers[0]), _beyond(x, limit, rounding))
    return e.where(e.logical_or(e.isnan(x), outside), np.nan, found)


def _beyond(x: Value, limit: float, rounding: str) -> Value:
    return e.greater(x, limit) if rounding == "up" else e.greater_equal(x, limit)


# --- types in files ----------------------------------------------------------------------------------------------------------


def carried_type(number: int, what: str) -> tuple[DType, Format | None]:
    """The element type that holds values of ONNX's type of this number, and the format if that is a narrow one."""
    form = FORMATS.get(number)
    return (element_type(number, what), None) if form is None else (form.carrier, form)


def carried_array(value: Any, form: Format | None) -> Any:
    """An array of the narrow type that ml_dtypes has for the format, in the format's carrier; anything else as it is."""
    if form is not None and isinstance(value, (np.ndarray, np.generic)) and value.dtype.name == form.theirs:
        return np.asarray(value).astype(form.carrier.numpy)
    return value


# --- results of operators ------------------------------------------------------------------------------------------------------


@cache
def _type_names(operator: str, opset: int, domain: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names that an operator's definition gives to the types of its inputs and of its outputs; the last may repeat."""
    try:
        schema = defs.get_schema(operator, opset, domain)
    except defs.SchemaError:
        return (), ()
    return tuple(port.type_str for port in schema.inputs), tuple(port.type_str for port in schema.outputs)


def results_as_stored(
    operator: str, opset: int, domain: str, inputs: Sequence[Any], results: Sequence[Any]
) -> Sequence[Any]:
    """An operator's results, rounded where its definition gives them the type of a narrow input."""
    forms = [format_of(x) for x in inputs]
    if not any(forms):
        return results
    taken, given = _type_names(operator, opset, domain)
    by_type = {_at(taken, i): form for i, form in enumerate(forms) if form is not None}
    return [_as_stored(result, by_type.get(_at(given, i)), operator in EXACT) for i, result in enumerate(results)]


def _at(names: tuple[str, ...], place: int) -> str | None:
    return names[min(place, len(names) - 1)] if names else None


def _as_stored(result: Any, form: Format | None, exact: bool) -> Any:
    if form is None or not isinstance(result, Tensor) or format_of(result) is form:
        return result
    if result.type.dtype is not form.carrier:
        raise ModelError(f"a result of type {form.name} is computed in {result.type.dtype}")
    return marked(result, form) if exact else narrowed(result, form)
