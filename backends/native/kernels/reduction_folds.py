"""What elements are folded into, by reduction: the accumulator's type, what it starts from, one step, and the result.

Floating-point accumulators are at least float32.  Sums and products of integers are taken modulo 2^64, which is what wrapping in
their own type comes to.  NaN wins in max and min.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import Expression, Literal, Type, call, compare, convert, select, splat
from irconv.backends.native.kernels.reduction_loops import paired
from irconv.graph import Graph, Node
from irconv.types import F16, F32, U64, DType

REDUCTIONS = ("sum", "mean", "max", "min", "prod")


@dataclass(frozen=True)
class Fold:
    """One reduction: ``name`` of elements of ``source``, which gives one of ``result``."""

    name: str
    source: DType
    result: DType

    @property
    def dtype(self) -> DType:
        """Of the accumulator."""
        if self.source.is_float or self.name in ("max", "min"):
            return F32 if self.source is F16 else self.source
        return U64

    @property
    def nothing(self) -> int | float | bool:
        """What folding starts from."""
        match self.name:
            case "prod":
                return 1
            case "max":
                return self.dtype.lowest
            case "min":
                return self.dtype.highest
        return 0

    def start(self, lanes: int) -> Expression:
        return Literal(self.nothing, Type(self.dtype, lanes))

    def taken(self, value: Expression) -> Expression:
        """An element as the accumulator's type."""
        return convert(value, self.dtype)

    def merge(self, first: Expression, second: Expression) -> Expression:
        """Two accumulators as one; both must be cheap to repeat."""
        match self.name:
            case "prod":
                return first * second
            case "max" | "min":
                greater = second > first if self.name == "max" else second < first
                if not self.dtype.is_float:
                    return select(greater, second, first)
                if first.type.lanes > 1:
                    return select(greater | compare("!=", second, second), second, first)
                # without a branch that depends on the order: the second if either is NaN, so a first that is stays
                better = call("larger" if self.name == "max" else "smaller", first, second)
                return select(compare("==", first, first), better, first)
        return first + second

    def together(self, body: Body, lanes: Sequence[Expression]) -> Expression:
        """A few scalars merged in pairs, without branches that depend on their order."""
        if self.name not in ("max", "min") or not self.dtype.is_float:
            return paired(body, self.merge, lanes)
        best = paired(body, lambda a, b: call("larger" if self.name == "max" else "smaller", a, b), lanes)
        odd = paired(body, lambda a, b: a | b, [compare("!=", lane, lane) for lane in lanes])
        return body.let("best", select(odd, Literal(math.nan, best.type), best))

    def finish(self, value: Expression, count: Expression) -> Expression:
        """The result of ``count`` elements."""
        if self.name == "mean":
            value = value / splat(convert(count, self.dtype), value.type.lanes)
        return convert(value, self.result)


def fold_of(graph: Graph, node: Node) -> Fold:
    """The fold of a reduction node."""
    return Fold(node.op.name, graph[node.operands[0]].type.dtype, node.type.dtype)
