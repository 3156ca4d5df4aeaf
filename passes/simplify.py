"""Algebra that makes graphs smaller without changing a bit of what they compute.

No rule reassociates or reorders floating-point arithmetic, and zeros keep their sign; only the sign of a NaN may change.
c stands for a constant.

Neutral and absorbing numbers
    x + 0 = x           integers; floats only for -0.0, since -0.0 + 0.0 is 0.0
    x - 0 = x           integers; floats only for 0.0, since -0.0 - (-0.0) is 0.0
    x * 1 = x / 1 = x ^ 1 = x
    x // 1 = x, x * 0 = 0, x - x = 0        integers only: NaN, infinities and -0.0 make them wrong for floats
    x and true = x, x and false = false, x or false = x, x or true = true
    where(true, x, y) = x, where(false, x, y) = y, where(c, x, x) = x
Signs
    --x = x, x * -1 = -x, x + (-y) = x - y, x - (-y) = x + y, (-x)(-y) = xy
    |-x| = |x|, (-x)^2 = |x|^2 = x^2, x * x = x^2
    not not x = x, not (x == y) = (x != y), not (x != y) = (x == y), where(not c, x, y) = where(c, y, x)
Doing it twice
    f(f(x)) = f(x) for relu, absolute, sign, clip with the same bounds; any two of floor, ceil and round
    max(x, x) = min(x, x) = (x and x) = (x or x) = x; clip without bounds
Merging constants
    (x c1) c2 = x (c1 c2)   integers; floats where c1 is a power of two, |c1| >= 1, |c2| >= 1 and c1 c2 is finite
    (x + c1) + c2 = x + (c1 + c2)   integers
    x / c = x (1/c)         where c is a power of two whose reciprocal is a number of the type
Casts
    cast to the same type; cast(cast(x, a), b) = cast(x, b) where a holds all values of x's type (and no float too large
    for an integer b can arise)
Shapes
    reshape, transpose, broadcast, slice, embed, flip, pad, concat that do nothing
    reshape of reshape, broadcast of broadcast, transpose of transpose, flip of flip, slice of slice, constant pad of
    constant pad become one
    slice of concat = slice of the one part that holds it; slice of pad = slice, inside the unpadded elements
    slice(embed(x)) = x at the same positions; concat of all slices of x in order = x
    conv(pad(x)) and im2col(pad(x)), zeros on spatial axes: the op pads itself
    f(broadcast(x), y) = f(x, y) for elementwise f where y keeps the shape, else broadcast(f(x, y))
One element
    max, min, prod over axes of size 1 (or over none) = reshape; sum and mean of floats = reshape + 0.0
    max_pool, min_pool, avg_pool with one tap, stride 1 and no padding = x
The way back through a max pool
    where(r > c, window_scatter(d, argmax_pool(r)), 0) = window_scatter(where(max_pool(r) > c, d, 0), argmax_pool(r))
Copies
    copy(x) = x, unless the copy itself is an output or an update (it gives the value a buffer of its own)
Only with the option ``differentiated`` (they change what a later differentiation would give)
    stop_gradient(x) = x, attach_gradient(x, ...) = x, max(x, 0) = relu(x)
    where(x >= b, b, where(x <= a, a, x)) = clip(x, a, b), a <= b
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from irconv.graph import Graph
from irconv.passes.base import Note, Pass, register_pass
from irconv.passes.rewrite import apply_rules
from irconv.passes.simplify_arithmetic import ARITHMETIC, DIFFERENTIATED
from irconv.passes.simplify_pool import POOLS
from irconv.passes.simplify_shape import SHAPE


@register_pass
@dataclass(frozen=True)
class Simplify(Pass):
    """Apply rules of algebra that keep every bit, until none fits.

    differentiated: the graph will not be differentiated again, so ops that only matter to gradients may go.
    """

    name: ClassVar[str] = "simplify"
    differentiated: bool = False

    def run(self, graph: Graph, notes: list[Note] | None = None) -> bool:
        rules = [*ARITHMETIC, *SHAPE, *POOLS]
        if self.differentiated:
            rules += DIFFERENTIATED
        return apply_rules(graph, rules, notes)
