"""Reductions: partial results block by block, then of those, in an order that does not depend on the number of threads.

Each block is folded by the array module while it is in cache, into its place in a small table; the table is folded at the end.
Floats accumulate at least in float32.

On a CPU, BLAS sums: rows times a vector of ones, or one row by the other where products are to be summed.  Measured on rows
of 3136 floats: 0.06 ns an element instead of 0.19, and 0.09 instead of 0.36 for the sum of products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from irconv.backends.arrays.base import Array, ArrayKernel, Parallel, Request, Scratch, kernel, scratch
from irconv.backends.arrays.blocks import Blocks, Index, Stage, Step, cut, program
from irconv.types import F32, F64, DType, TensorType

FOLDS = {"sum": "sum", "mean": "sum", "prod": "prod", "max": "amax", "min": "amin"}
"""The array module's function for each reduction; the mean is a sum, divided at the end."""


LONG_ROWS, LONG_PRODUCTS = 16, 128
"""Rows of which BLAS is faster at the sum, or at the sum of products."""


@dataclass(frozen=True)
class Fold:
    """How a reduction is done by block.

    step:    folds a block into its place in the table.
    paired:  folds the products of two blocks of the same shape; None where multiplying first is as fast.
    indices: that place, for each block.
    table:   type of the table: the operand with folded axes of one element per block.
    finish:  ``finish(out, table)``.
    """

    step: Step
    paired: Step | None
    indices: tuple[Index, ...]
    table: TensorType
    finish: Callable[[Array, Array], None]


def fold_by_block(
    xp: Any,
    name: str,
    axes: Sequence[int],
    source: tuple[int, ...],
    blocks: Blocks,
    result: TensorType,
    parallel: Parallel | None,
) -> Fold:
    """The reduction ``name`` over ``axes`` of a value of shape ``source``, cut into ``blocks``."""
    fold, work = getattr(xp, FOLDS[name]), result.dtype.accumulator
    depth = len(blocks.indices[0]) - 1 if blocks.indices and blocks.indices[0] else 0
    local = tuple(axis - depth for axis in axes if axis >= depth)
    typed = {} if name in ("max", "min") else {"dtype": work.numpy}
    shape = [1 if axis in axes and axis >= depth else n for axis, n in enumerate(source)]
    indices = blocks.indices
    if len(blocks.indices) > 1 and depth in axes:
        pieces = sorted({index[-1].start for index in blocks.indices if isinstance(index[-1], slice)})
        shape[depth] = len(pieces)
        number = {start: i for i, start in enumerate(pieces)}
        indices = tuple((*index[:-1], _one(number[_start(index)])) for index in blocks.indices)
    count = math.prod(source[axis] for axis in axes) if name == "mean" else 1
    left = tuple(axis for axis in axes if shape[axis] != 1)

    def apply(value: Array, out: Array) -> None:
        fold(value, axis=local, out=out, keepdims=True, **typed)

    step, paired = Step(apply), None
    if name in ("sum", "mean") and parallel is not None and work in (F32, F64):
        row = _row_axes(source[depth:], local)
        longest = max((math.prod(shape[len(shape) - row :]) for shape in blocks.shapes), default=0)
        if longest >= LONG_ROWS:
            step = _blas_sum(xp, work, row, local, longest, apply)
        if longest >= LONG_PRODUCTS:
            paired = _blas_products(xp, work, row, local)

    def finish(out: Array, table: Array) -> None:
        total = table
        if left:
            kept = tuple(1 if axis in axes else n for axis, n in enumerate(table.shape))
            # a fold may not write what it reads; only the small result of float16 needs an array of its own
            space = {"out": out.reshape(kept)} if out.dtype == table.dtype else {}
            total = fold(table, axis=left, keepdims=True, **space, **typed)
        if count > 1:
            xp.divide(total, count, total)
        target = out.reshape(total.shape)
        if not left or target.dtype != total.dtype:
            xp.copyto(target, total, casting="same_kind")

    return Fold(step, paired, indices, TensorType(work, tuple(shape)), finish)


def _row_axes(shape: Sequence[int], axes: Sequence[int]) -> int:
    """How many of the last axes are all folded."""
    count = 0
    while count < len(shape) and len(shape) - 1 - count in axes:
        count += 1
    return count


def _blas_sum(
    xp: Any, work: DType, row: int, axes: tuple[int, ...], longest: int, otherwise: Callable[[Array, Array], None]
) -> Step:
    """Sum over the last ``row`` axes by BLAS, then over the other ``axes``."""
    ones = xp.ones(longest, work.numpy)

    def apply(value: Array, out: Array, *spare: Array) -> None:
        if value.dtype != ones.dtype or not value.flags.c_contiguous:
            otherwise(value, out)
            return
        kept = value.shape[: value.ndim - row]
        length = math.prod(value.shape[value.ndim - row :])
        rows, sums = value.reshape(-1, length), _row_sums(out, spare, kept)
        xp.matmul(rows, ones[:length], out=sums)
        _fold_rows(xp, out, spare, kept, axes)

    return Step(apply, (work,) if len(axes) > row else ())


def _blas_products(xp: Any, work: DType, row: int, axes: tuple[int, ...]) -> Step:
    """The sums of the products of two values over the last ``row`` axes by BLAS, then over the other ``axes``."""

    def apply(x: Array, y: Array, out: Array, *spare: Array) -> None:
        kept = x.shape[: x.ndim - row]
        length = math.prod(x.shape[x.ndim - row :])
        sums = _row_sums(out, spare, kept)
        xp.matmul(x.reshape(-1, 1, length), y.reshape(-1, length, 1), out=sums.reshape(-1, 1, 1))
        _fold_rows(xp, out, spare, kept, axes)

    return Step(apply, (work,) if len(axes) > row else ())


def _row_sums(out: Array, spare: tuple[Array, ...], kept: tuple[int, ...]) -> Array:
    """Where the sums of the rows go: straight into the table (always contiguous) if no other axis is folded."""
    return spare[0].reshape(-1)[: math.prod(kept)] if spare else out.reshape(-1)


def _fold_rows(xp: Any, out: Array, spare: tuple[Array, ...], kept: tuple[int, ...], axes: tuple[int, ...]) -> None:
    """Add up the sums of the rows over those of the axes ``kept`` that are folded too."""
    if spare:
        outer = tuple(axis for axis in axes if axis < len(kept))
        shape = tuple(1 if axis in outer else n for axis, n in enumerate(kept))
        xp.sum(_row_sums(out, spare, kept).reshape(kept), axis=outer, keepdims=True, out=out.reshape(shape))


def _start(index: Index) -> int:
    part = index[-1]
    return part.start if isinstance(part, slice) else part


def _one(position: int) -> slice:
    return slice(position, position + 1)


def _fold(name: str) -> Callable[[Request], ArrayKernel]:
    """A factory for sum, mean, prod, max and min."""

    def make(request: Request) -> ArrayKernel:
        xp, a, source, result = request.xp, request.attributes, request.operands[0], request.result
        blocks = cut(source.shape, source.dtype.bytes, request.parallel, fixed=True)
        temporaries = Scratch()
        fold = fold_by_block(xp, name, a.axes, source.shape, blocks, result, request.parallel)
        table = temporaries.add(fold.table.dtype, *fold.table.shape)
        dtypes: list[DType] = [source.dtype, fold.table.dtype]
        stages = [Stage(fold.step, (0,), 1)]
        made = program(
            blocks, stages, [1], [source.shape], dtypes, request.parallel, temporaries, stores=[fold.indices]
        )

        def run(out: Array, x: Array, *buffers: Array) -> None:
            if out.size:
                made.run(buffers[table], x, *buffers)
                fold.finish(out, buffers[table])

        return ArrayKernel(run, tuple(temporaries.types))

    return make


def _position(name: str) -> Callable[[Request], ArrayKernel]:
    """A factory for argmax and argmin: the folded axes are brought to the end, in a copy unless they stand there already."""

    def make(request: Request) -> ArrayKernel:
        xp, axes, source = request.xp, request.attributes.axes, request.operands[0]
        find = getattr(xp, name)
        kept = [axis for axis in range(source.rank) if axis not in axes]
        order = (*kept, *axes)
        moved = tuple(source.shape[axis] for axis in order)
        rows = tuple(source.shape[axis] for axis in kept)
        count = math.prod(source.shape[axis] for axis in axes)
        in_order = order == tuple(range(source.rank)) and request.contiguous
        copy: tuple[TensorType, ...] = () if in_order else (scratch(source.dtype, *moved),)

        def run(out: Array, x: Array, *temporary: Array) -> None:
            if not out.size:
                return
            if temporary:
                xp.copyto(temporary[0], x.transpose(order))
                x = temporary[0]
            find(x.reshape(*rows, count), axis=-1, out=out.reshape(rows))

        return ArrayKernel(run, copy)

    return make


for _name in FOLDS:
    kernel(_name)(_fold(_name))
for _name in ("argmax", "argmin"):
    kernel(_name)(_position(_name))
