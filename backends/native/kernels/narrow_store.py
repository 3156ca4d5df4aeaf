"""How results whose vectors run along pixels are stored: interleaved where channels lie last, and pooled on their way."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from irconv.backends.codegen.access import element_offset, vector_store
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import Expression, Pointer, literal
from irconv.backends.codegen.lanes import every, interleave
from irconv.backends.native.kernels.folds import narrowed
from irconv.backends.native.kernels.narrow_plan import Narrow
from irconv.backends.native.kernels.pooled import Pooled

Lines = Sequence[Sequence[Sequence[Expression]]]
"""Values of a tile: [row][vector][column]."""


def lies_dense(strides: Sequence[int], along: int, column: int, columns: int) -> bool:
    """Whether all columns of a pixel, then those of its neighbour along an axis, follow each other."""
    return 1 < columns == strides[along] and strides[column] == 1


def store_interleaved(
    body: Body, out: Pointer, values: Sequence[Expression], offset: Expression, pixels: int
) -> None:
    """Write the columns of ``pixels`` neighbours, a vector for each column, as they lie in memory."""
    lanes = values[0].type.lanes
    start = body.let("start", offset)
    left = pixels * len(values)
    for number, vector in enumerate(interleave(body, values)):
        if left > 0:
            body.store(out, start + number * lanes, narrowed(vector, out.dtype), literal(left) if left < lanes else None)
        left -= lanes


def takes_windows(plan: Narrow, pooled: Pooled) -> bool:
    """Whether no window lies in two tiles."""
    high, wide = pooled.over(2)
    width = plan.vectors * plan.lanes
    return plan.rows % high == 0 and (width % wide == 0 or plan.line_axis.only.count <= width)


def store_windows(
    body: Body, pooled: Pooled, lines: Lines, start: tuple[Expression, Expression, Expression], count: int, axes: int
) -> None:
    """Fold and write a row of windows, from rows of ``count`` pixels.

    start: image, row of windows, first pixel;  axes: how many spatial axes there are.
    """
    lanes, columns = lines[0][0][0].type.lanes, len(lines[0][0])
    image, row, pixel = start
    wide = pooled.over(2)[1]
    for first in range(0, count // wide, lanes):
        there = min(lanes, count // wide - first)
        results = []
        for k in range(columns):
            vectors = [[vector[k] for vector in line] for line in lines]
            taps = itertools.product(vectors, range(wide))
            read = [body.let("tap", every(body, line, first * wide + tap, wide, there)) for line, tap in taps]
            results.append([body.let("pooled", value) for value in pooled.folded(body, read)])
        window = body.let("window", pixel // wide + first)
        spatial = [row, window][2 - axes :]
        for place, values in zip(pooled.outputs, zip(*results, strict=True), strict=True):
            _store(body, place.pointer, place.strides, values, [image, literal(0), *spatial], there)


def _store(
    body: Body, out: Pointer, strides: Sequence[int], values: Sequence[Expression], index: list[Expression], there: int
) -> None:
    """Write ``there`` windows of all columns from the logical index on."""
    along = len(index) - 1
    if lies_dense(strides, along, 1, len(values)):
        store_interleaved(body, out, values, element_offset(strides, index), there)
        return
    for k, value in enumerate(values):
        index[1] = literal(k)
        count = None if there == value.type.lanes else there
        vector_store(body, out, strides, index, along, narrowed(value, out.dtype), count)
