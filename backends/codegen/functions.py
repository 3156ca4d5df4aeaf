"""Functions of floating-point numbers as expressions: calls of the library, on vectors where it has its own code."""

from __future__ import annotations

from collections.abc import Callable

from irconv.backends.codegen.form import Expression, call
from irconv.backends.codegen.rules import Application, Rule, floats_only, never


def _called(function: str) -> Callable[[Application], Expression]:
    return lambda a: call(function, a.x)


def _rsqrt(a: Application) -> Expression:
    return a.number(1) / call("sqrt", a.x)


VECTORISED = ("exp", "expm1", "log", "log1p", "sqrt", "tanh", "sigmoid", "erf", "sin", "cos")
"""Functions with code of our own for vectors."""

SCALAR = ("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh")
"""Functions of the C library, one number at a time: rare in networks."""

FUNCTIONS: dict[str, Rule] = {
    **{name: Rule(_called(name), vectors=floats_only) for name in VECTORISED},
    **{name: Rule(_called(name), vectors=never) for name in SCALAR},
    "rsqrt": Rule(_rsqrt, vectors=floats_only),
}
"""Rules by op."""
