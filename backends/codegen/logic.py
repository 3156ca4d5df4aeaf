"""Comparisons, logic and choice as expressions."""

from __future__ import annotations

from collections.abc import Callable

from irconv.backends.codegen.form import Expression, compare, select
from irconv.backends.codegen.rules import Application, Rule, is_truth


def _and(a: Application) -> Expression:
    return a.x & a.y


def _or(a: Application) -> Expression:
    return a.x | a.y


def _xor(a: Application) -> Expression:
    return a.x ^ a.y


def _not(a: Application) -> Expression:
    return ~a.x


def _comparison(sign: str, of_truth: Callable[[Application], Expression]) -> Callable[[Application], Expression]:
    """Numbers are compared; truth values are combined, for masks are not ordered as they are."""
    return lambda a: of_truth(a) if is_truth(a) else compare(sign, a.x, a.y)


def _where(a: Application) -> Expression:
    condition, yes, no = a.operands
    return select(condition, yes, no)


LOGIC: dict[str, Rule] = {
    "equal": Rule(_comparison("==", lambda a: ~(a.x ^ a.y))),
    "not_equal": Rule(_comparison("!=", _xor)),
    "less": Rule(_comparison("<", lambda a: ~a.x & a.y)),
    "less_equal": Rule(_comparison("<=", lambda a: ~a.x | a.y)),
    "greater": Rule(_comparison(">", lambda a: a.x & ~a.y)),
    "greater_equal": Rule(_comparison(">=", lambda a: a.x | ~a.y)),
    "logical_and": Rule(_and),
    "logical_or": Rule(_or),
    "logical_xor": Rule(_xor),
    "logical_not": Rule(_not),
    "where": Rule(_where),
}
"""Rules by op."""
