"""Arithmetic ops as expressions: sums, products, quotients, bounds, rounding to integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from irconv.backends.codegen.form import Expression, arithmetic, call, compare, convert, select
from irconv.backends.codegen.rules import Application, Rule, is_truth, wrapping
from irconv.ops.elementwise import clip_bounds
from irconv.types import DType


def _plain(sign: str) -> Callable[[Application], Expression]:
    def make(a: Application) -> Expression:
        if a.dtype.is_float:
            return arithmetic(sign, a.x, a.y)
        return wrapping(sign, a.x, a.y)

    return make


def _negative(a: Application) -> Expression:
    return -a.x if a.dtype.is_float else wrapping("-", a.number(0), a.x)


def _absolute(a: Application) -> Expression:
    if a.dtype.is_float:
        return call("absolute", a.x)
    if a.dtype.kind == "uint":
        return a.x
    return select(a.x < 0, wrapping("-", a.number(0), a.x), a.x)


def _sign(a: Application) -> Expression:
    """The sign of a zero is lost, NaN stays."""
    if not a.dtype.is_float:
        return select(a.x > 0, a.number(1), select(a.x < 0, a.number(-1), a.number(0)) if a.dtype.kind == "int" else a.number(0))
    unordered = select(compare("==", a.x, 0), a.number(0), a.x)
    return select(a.x > 0, a.number(1), select(a.x < 0, a.number(-1), unordered))


def _square(a: Application) -> Expression:
    return a.x * a.x if a.dtype.is_float else wrapping("*", a.x, a.x)


def _copy(a: Application) -> Expression:
    return a.x


def _relu(a: Application) -> Expression:
    """One instruction: the second operand of ``larger`` stays where it is NaN."""
    if a.dtype.is_float:
        return call("larger", a.number(0), a.x)
    return a.x if a.dtype.kind == "uint" else select(a.x > 0, a.x, a.number(0))


def _clip(a: Application) -> Expression:
    low, high = (a.number(bound.item()) for bound in clip_bounds(a.attributes, a.stored))
    if a.dtype.is_float:
        return call("smaller", high, call("larger", low, a.x))
    above = a.body.let("above", select(a.x > low, a.x, low))
    return select(above < high, above, high)


def _extremum(function: str, sign: str, of_truth: str) -> Callable[[Application], Expression]:
    def make(a: Application) -> Expression:
        if is_truth(a):
            return arithmetic(of_truth, a.x, a.y)
        if not a.dtype.is_float:
            return select(compare(sign, a.x, a.y), a.x, a.y)
        if a.numbers[0] is not None and a.numbers[0] == a.numbers[0]:
            return call(function, a.x, a.y)
        if a.numbers[1] is not None and a.numbers[1] == a.numbers[1]:
            return call(function, a.y, a.x)
        return select(compare("!=", a.x, a.x), a.x, call(function, a.x, a.y))

    return make


def _power_of_two(operands: tuple[DType, ...], result: DType, numbers: tuple[Any, ...]) -> bool:
    """Whether integers are divided by a known power of two: then bits are shifted."""
    divisor = numbers[1]
    return result.is_integer and divisor is not None and divisor > 0 and divisor & (divisor - 1) == 0


def _quotient(a: Application) -> Expression:
    if _power_of_two(a.dtypes, a.dtype, a.numbers):
        return convert(a.x >> (a.numbers[1].bit_length() - 1), a.dtype)
    return call("floor_divide", a.x, a.y)


def _remainder(a: Application) -> Expression:
    if _power_of_two(a.dtypes, a.dtype, a.numbers):
        return arithmetic("&", a.x, a.number(a.numbers[1] - 1))
    return call("remainder", a.x, a.y)


def _shift_left(a: Application) -> Expression:
    """0 where the shift is as wide as the type or wider."""
    fits, amount = _shift_amount(a)
    return select(fits, wrapping("<<", a.x, amount), a.number(0))


def _shift_right(a: Application) -> Expression:
    """The sign in all bits where the shift is as wide as the type or wider."""
    fits, amount = _shift_amount(a)
    beyond = a.number(0) if a.dtype.kind == "uint" else select(a.x < 0, a.number(-1), a.number(0))
    return select(fits, convert(a.x >> amount, a.dtype), beyond)


def _shift_amount(a: Application) -> tuple[Expression, Expression]:
    """Whether the second operand is a shift at all, and one that C allows."""
    bits = 8 * a.dtype.bytes
    inside = (a.y >= 0) & (a.y < bits) if a.dtype.kind == "int" else a.y < bits
    fits = a.body.let("fits", inside)
    return fits, a.body.let("amount", select(fits, a.y, a.number(0)))


def _bits(sign: str) -> Callable[[Application], Expression]:
    return lambda a: arithmetic(sign, a.x, a.y)


def _not(a: Application) -> Expression:
    """All bits turned round, by an exclusive or: ``~`` of a small number would be a wider one."""
    return arithmetic("^", a.x, a.number(-1 if a.dtype.kind == "int" else a.dtype.highest))


def _called(function: str) -> Callable[[Application], Expression]:
    return lambda a: call(function, a.x)


def whole_numbers(exponent: Any) -> bool:
    """Whether a constant is a small whole exponent, for which powers are products."""
    return exponent in (-2, -1, 0, 1, 2, 3, 4)


def _power_vectors(operands: tuple[DType, ...], result: DType, numbers: tuple[Any, ...]) -> bool:
    exponent = numbers[1]
    if not result.is_float:
        return exponent in (0, 1, 2, 3, 4)
    return whole_numbers(exponent) or exponent in (0.5, -0.5, 1.5)


def _power_scalars(operands: tuple[DType, ...], result: DType, numbers: tuple[Any, ...]) -> bool:
    """A negative power of integers is an error, which code cannot raise: only known exponents and unsigned ones."""
    return result.kind != "int" or (numbers[1] is not None and numbers[1] >= 0)


def _power(a: Application) -> Expression:
    exponent = a.numbers[1]
    if whole_numbers(exponent) and (a.dtype.is_float or exponent >= 0):
        return _product(a, int(exponent))
    if a.dtype.is_float and exponent in (0.5, -0.5, 1.5):
        # unlike the root, the power of -inf is inf and that of -0 is 0
        infinite = compare("==", a.x, float("-inf"))
        root = a.body.let("root", select(infinite, a.number(float("inf")), call("sqrt", a.x + 0.0)))
        return root if exponent == 0.5 else a.number(1) / root if exponent == -0.5 else _cubed(a, root)
    return call("power", a.x, a.y)


def _cubed(a: Application, root: Expression) -> Expression:
    """x^1.5 = |x| sqrt(x)."""
    return call("absolute", a.x) * root


def _product(a: Application, exponent: int) -> Expression:
    """x^exponent by multiplication."""
    times = _plain_product if a.dtype.is_float else _wrapped_product
    if exponent == 0:
        return a.number(1)
    if exponent < 0:
        power = a.x if exponent == -1 else a.x * a.x
        return a.number(1) / power
    result = a.x
    if exponent in (2, 3):
        result = times(a.x, a.x)
    if exponent == 4:
        square = a.body.let("square", times(a.x, a.x))
        result = times(square, square)
    return times(result, a.x) if exponent == 3 else result


def _plain_product(x: Expression, y: Expression) -> Expression:
    return x * y


def _wrapped_product(x: Expression, y: Expression) -> Expression:
    return wrapping("*", x, y)


ARITHMETIC: dict[str, Rule] = {
    "negative": Rule(_negative),
    "absolute": Rule(_absolute),
    "sign": Rule(_sign),
    "square": Rule(_square),
    "floor": Rule(_called("floor")),
    "ceil": Rule(_called("ceil")),
    "round": Rule(_called("round")),
    "relu": Rule(_relu),
    "copy": Rule(_copy),
    "stop_gradient": Rule(_copy),
    "attach_gradient": Rule(_copy),
    "clip": Rule(_clip),
    "add": Rule(_plain("+")),
    "subtract": Rule(_plain("-")),
    "multiply": Rule(_plain("*")),
    "divide": Rule(_plain("/")),
    "floor_divide": Rule(_quotient, vectors=_power_of_two),
    "remainder": Rule(_remainder, vectors=_power_of_two),
    "minimum": Rule(_extremum("smaller", "<", "&")),
    "maximum": Rule(_extremum("larger", ">", "|")),
    "bitwise_and": Rule(_bits("&")),
    "bitwise_or": Rule(_bits("|")),
    "bitwise_xor": Rule(_bits("^")),
    "bitwise_not": Rule(_not),
    "shift_left": Rule(_shift_left),
    "shift_right": Rule(_shift_right),
    "power": Rule(_power, _power_vectors, _power_scalars),
}
"""Rules by op."""
