"""Means, and sums of squares of the distances from them, merged piece by piece (Chan, Golub and LeVeque 1979).

::

    n = n1 + n2,   d = m2 - m1,   m = m1 + d n2 / n,   M = M1 + M2 + d^2 n1 n2 / n

All of it is done for x - s, with some first element as the shift s: the means of pieces are small numbers then, their
differences d are exact enough, and a mean that is large beside the spread costs no accuracy, as with two passes over everything.
"""

from __future__ import annotations

from dataclasses import dataclass

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import Expression, Literal, Type, Variable, compare, convert, select, splat
from irconv.types import DType

Part = tuple[Expression, Expression]
"""The mean of some elements (of what is left when the shift is taken away) and the squares of their distances from it."""


@dataclass(frozen=True)
class Moments:
    """Writes the arithmetic for elements of one type."""

    dtype: DType

    def number(self, count: Expression) -> Expression:
        return convert(count, self.dtype)

    def zero(self, lanes: int = 1) -> Literal:
        return Literal(0.0, Type(self.dtype, lanes))

    def shift(self, body: Body, value: Expression) -> Expression:
        """What is taken away from every element before it is added: the first one, 0 if that is no finite number."""
        value = body.let("first_element", value)
        return body.let("shift", select(compare("==", value - value, 0), value, self.zero(value.type.lanes)))

    def square(self, body: Body, value: Expression, centre: Expression | None) -> Expression:
        """The value, or the square of its distance from ``centre``."""
        if centre is None:
            return body.let("value", value)
        apart = body.let("apart", value - centre)
        return body.let("square", apart * apart)

    def weights(self, body: Body, seen: Variable, count: Expression) -> tuple[Expression, Expression]:
        """n2 / n and n1 n2 / n, once ``count`` more elements have been seen."""
        share = body.let("share", self.number(count) / self.number(seen + count))
        weight = body.let("weight", self.number(seen) * share)
        body.assign(seen, seen + count)
        return share, weight

    def merged(self, body: Body, first: Part, second: Part, weights: tuple[Expression, Expression]) -> Part:
        """Mean and squares of two parts together."""
        lanes = first[0].type.lanes
        share, weight = (splat(w, lanes) for w in weights)
        apart = body.let("apart", second[0] - first[0])
        mean = body.let("mean", first[0] + apart * share)
        # an infinite mean stays what it is, though the difference of two is not a number
        mean = select(compare("==", mean, mean), mean, first[0] + second[0])
        return mean, first[1] + (second[1] + apart * apart * weight)
