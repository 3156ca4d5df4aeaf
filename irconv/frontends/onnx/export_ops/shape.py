"""Shape ops and padding in ONNX."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irconv.frontends.onnx.export_ops.elementwise import choose
from irconv.frontends.onnx.export_ops.writer import Writer, lowering
from irconv.graph import Node
from irconv.ops.pad import source_indices
from irconv.types import F16, F32, F64, I16, I32, I64, U16, DType, TensorType

END = np.iinfo(np.int64).min
"""A bound that lies before the first element."""


@lowering("reshape")
def _reshape(w: Writer, node: Node, x: str) -> str:
    return w.reshape(x, node.attributes.shape)


@lowering("transpose")
def _transpose(w: Writer, node: Node, x: str) -> str:
    return w.transpose(x, node.attributes.axes)


@lowering("broadcast")
def _broadcast(w: Writer, node: Node, x: str) -> str:
    return w.expand(x, node.attributes.shape)


@lowering("concat")
def _concat(w: Writer, node: Node, *operands: str) -> str:
    return w.op("Concat", *operands, axis=node.attributes.axis)


@lowering("flip")
def _flip(w: Writer, node: Node, x: str) -> str:
    axes = node.attributes.axes
    count = len(axes)
    return w.slice(x, [-1] * count, [END] * count, [-1] * count, axes)


@lowering("slice")
def _slice(w: Writer, node: Node, x: str) -> str:
    a = node.attributes
    shape = w.graph[node.operands[0]].type.shape
    cut = [axis for axis, n in enumerate(shape) if (a.start[axis], a.stop[axis], a.step[axis]) != (0, n, 1)]
    start, stop, step = ([bound[axis] for axis in cut] for bound in (a.start, a.stop, a.step))
    return w.slice(x, start, stop, step, cut) if cut else x


# --- writing to a part ---------------------------------------------------------------------------------------------------


def embedded(
    w: Writer, x: str, type_: TensorType, start: Sequence[int], step: Sequence[int], shape: Sequence[int]
) -> str:
    """Zeros of ``shape`` with x, of ``type_``, at the positions start + i * step."""
    count = list(type_.shape)
    if any(s > 1 and n > 1 for s, n in zip(step, count, strict=True)):
        # each element becomes the first of ``step``: pad an axis of size 1 behind it, and merge the two
        pairs = [size for n in count for size in (n, 1)]
        behind = [amount for s in step for amount in (0, s - 1)]
        x = padded(w, w.reshape(x, pairs), type_.dtype, [0] * len(pairs), behind)
        count = [n * s for n, s in zip(count, step, strict=True)]
        x = w.reshape(x, count)
    return placed(w, x, type_.dtype, count, start, shape)


def placed(
    w: Writer, x: str, dtype: DType, size: Sequence[int], start: Sequence[int], shape: Sequence[int], value: float = 0
) -> str:
    """A tensor of ``shape`` holding x, of shape ``size``, from ``start`` on; ``value`` elsewhere.

    Starts may be negative, and what lies outside of the result is cut off.
    """
    first = [max(0, -s) for s in start]
    last = [max(f, min(n, m - s)) for f, n, m, s in zip(first, size, shape, start, strict=True)]
    cut = [axis for axis, n in enumerate(size) if (first[axis], last[axis]) != (0, n)]
    if cut:
        x = w.slice(x, [first[axis] for axis in cut], [last[axis] for axis in cut], [1] * len(cut), cut)
    if any(a == b for a, b in zip(first, last, strict=True)):
        return w.filled(TensorType(dtype, tuple(shape)), value)
    before = [max(0, s) for s in start]
    behind = [m - b - (stop - f) for m, b, f, stop in zip(shape, before, first, last, strict=True)]
    return padded(w, x, dtype, before, behind, value) if any(before) or any(behind) else x


def padded(
    w: Writer,
    x: str,
    dtype: DType,
    before: Sequence[int],
    behind: Sequence[int],
    value: float = 0,
    mode: str = "constant",
) -> str:
    """ONNX's Pad, which runtimes lack for 16-bit integers."""
    wide = I32 if dtype in (I16, U16) else dtype
    x = w.carried(x, dtype, wide)
    filler = [w.constant(value, wide)] if mode == "constant" else []
    return w.back(w.op("Pad", x, w.ints([*before, *behind]), *filler, mode=mode), dtype, wide)


@lowering("embed")
def _embed(w: Writer, node: Node, d: str) -> str:
    a, type_ = node.attributes, w.graph[node.operands[0]].type
    if type_.size == 0:
        return w.filled(node.type, 0)
    return embedded(w, d, type_, a.start, a.step, a.shape)


@lowering("slice_update")
def _slice_update(w: Writer, node: Node, x: str, v: str) -> str:
    a, part = node.attributes, w.graph[node.operands[1]].type
    shape = node.type.shape
    if part.size == 0:
        return x
    written = ""
    for axis, n in enumerate(shape):
        if part.shape[axis] == n:
            continue
        row = np.zeros(n, bool)
        row[a.start[axis] :: a.step[axis]][: part.shape[axis]] = True
        row_name = w.constant(row.reshape(-1, *(1,) * (len(shape) - 1 - axis)))
        written = w.op("And", written, row_name) if written else row_name
    if not written:
        return v
    spread = embedded(w, v, part, a.start, a.step, shape)
    return choose(w, node.type.dtype, written, spread, x)


# --- padding -------------------------------------------------------------------------------------------------------------


@lowering("pad")
def _pad(w: Writer, node: Node, x: str) -> str:
    a, dtype = node.attributes, node.type.dtype
    size = w.graph[node.operands[0]].type.shape
    before, behind = [p[0] for p in a.padding], [p[1] for p in a.padding]
    if a.mode == "constant":
        if 0 in size:
            return w.filled(node.type, a.value)
        return placed(w, x, dtype, size, before, node.type.shape, a.value)
    reflects = a.mode == "reflect" and all(max(pair) < n for n, pair in zip(size, a.padding, strict=True))
    if a.mode == "edge" or reflects:
        return padded(w, x, dtype, before, behind, mode=a.mode)
    shape = list(size)
    for axis, pair in enumerate(a.padding):
        if not any(pair):
            continue
        if a.mode == "mean":
            x = _pad_mean(w, x, dtype, shape, axis, pair)
        else:
            x = w.op("Gather", x, w.ints(source_indices(shape[axis], pair[0], pair[1], a.mode)), axis=axis)
        shape[axis] += sum(pair)
    return x


def _pad_mean(w: Writer, x: str, dtype: DType, shape: list[int], axis: int, pair: tuple[int, int]) -> str:
    wide = dtype if dtype.is_float and dtype is not F16 else F32 if dtype is F16 else F64
    mean = w.reduce("ReduceMean", w.carried(x, dtype, wide), axes=[axis], keepdims=True)
    if not dtype.is_float:
        mean = w.op("Round", mean)
    mean = w.back(mean, dtype, wide)
    sides = [w.expand(mean, [*shape[:axis], n, *shape[axis + 1 :]]) if n else "" for n in pair]
    return w.op("Concat", *(part for part in (sides[0], x, sides[1]) if part), axis=axis)


@lowering("pad_adjoint")
def _pad_adjoint(w: Writer, node: Node, d: str) -> str:
    a, dtype = node.attributes, node.type.dtype
    wide = F32 if dtype is F16 else dtype
    d = w.carried(d, dtype, wide)
    shape = list(w.graph[node.operands[0]].type.shape)
    for axis, (before, behind) in enumerate(a.padding):
        if not before + behind:
            continue
        n = shape[axis] - before - behind
        if a.mode == "mean":
            d = _fold_mean(w, d, wide, axis, before, n, shape[axis])
        else:
            d = _fold(w, d, wide, shape, axis, source_indices(n, before, behind, a.mode))
        shape[axis] = n
    return w.back(d, dtype, wide)


def _fold(w: Writer, d: str, dtype: DType, shape: list[int], axis: int, sources: np.ndarray) -> str:
    """Every entry along an axis added to the one that it repeats."""
    folded = [*shape[:axis], int(sources.max()) + 1, *shape[axis + 1 :]]
    column = w.constant(sources.reshape(-1, *(1,) * (len(shape) - 1 - axis)), I64)
    zeros = w.filled(TensorType(dtype, tuple(folded)), 0)
    return w.op("ScatterElements", zeros, w.expand(column, shape), d, axis=axis, reduction="add")


def _fold_mean(w: Writer, d: str, dtype: DType, axis: int, before: int, n: int, size: int) -> str:
    inside = w.slice(d, [before], [before + n], [1], [axis])
    for start, stop in ((0, before), (before + n, size)):
        if start < stop:
            outside = w.slice(d, [start], [stop], [1], [axis])
            share = w.op("Div", w.reduce("ReduceSum", outside, [axis], keepdims=True), w.constant(n, dtype))
            inside = w.op("Add", inside, share)
    return inside
