"""What becomes of the result of a convolution whose windows are pooled before it is stored.

The windows lie side by side, so that a tile of results which is a whole number of windows high and wide holds all they need.
Taps are folded in the order in which a pool by itself does it, and give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import Expression, Pointer, literal
from irconv.backends.native.base import NativeRequest
from irconv.backends.native.kernels.folds import Fold, fold_all
from irconv.backends.native.kernels.places import Place
from irconv.backends.native.kernels.pool import pool_fold
from irconv.ops.window import Ints


@dataclass(frozen=True)
class Pooled:
    """Windows of ``kernel`` elements along the spatial axes, side by side from the first element on.

    fold:    what they are folded into;  ``divisor``: of averages.
    outputs: where the results go, in the order of the fold.
    """

    fold: Fold
    kernel: Ints
    divisor: int
    outputs: tuple[Place, ...]

    @property
    def pointers(self) -> list[Pointer]:
        return [place.pointer for place in self.outputs]

    def over(self, axes: int) -> Ints:
        """The extents of a window along so many axes, 1 along those in front that it does not have."""
        return (1,) * (axes - len(self.kernel)) + self.kernel

    def folded(self, body: Body, values: Sequence[Expression]) -> list[Expression]:
        """What is stored for windows (one, or several in lanes), given the values of their taps in row-major order."""
        state = fold_all(body, self.fold, values, _nothing_else)
        return list(self.fold.results(state, literal(self.divisor) if self.fold.divides else None))


def make_pooled(request: NativeRequest) -> Pooled:
    """The windows of a kernel of pools."""
    graph, kernel = request.graph, request.kernel
    a = graph[kernel.nodes[0]].attributes
    outputs = tuple(Place.of(request, i, f"out{at}") for at, i in enumerate(kernel.outputs))
    divisor = getattr(a, "divisor_override", None) or math.prod(a.kernel)
    return Pooled(pool_fold(graph, kernel), tuple(a.kernel), divisor, outputs)


def _nothing_else(position: int) -> Expression:
    raise NotImplementedError("these folds read the input alone")
