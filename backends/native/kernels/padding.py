"""Padding and its adjoint: runs of elements where they are only moved, tables of what is read where they are added up.

Padding with a constant is a copy with borders; the modes that repeat elements are a few runs along each axis, read forwards,
backwards or standing still.  With the mean, and with so much reflected or wrapped padding that the runs are many, every place
has its own list of elements and weights, as resizing has (see :mod:`irconv.backends.native.kernels.resize`).  So has every
element of the adjoint: the places that repeat it.
"""

from __future__ import annotations

from typing import Any

from irconv.backends.native.base import NativeKernel, NativeRequest, native
from irconv.backends.native.kernels.movement import MOST_PARTS, Part, Region, borders, movement, offset_of
from irconv.backends.native.kernels.resize import Tap, adjoint, linear_map
from irconv.backends.native.kernels.shifted_rows import shifted_rows
from irconv.ops.pad import source_indices
from irconv.strides import Strides


@native("pad")
def _pad(request: NativeRequest) -> NativeKernel | None:
    """None for the mean of integers, which is rounded, and of float16."""
    node = request.graph[request.kernel.nodes[0]]
    a, x = node.attributes, request.graph[node.operands[0]].type
    if a.mode == "constant":
        return _bordered(request)
    if a.mode == "mean":
        return _mapped(request, x.shape, a, False) if x.dtype.is_float else None
    parts = _repeated(a, x.shape, request.strides[node.operands[0]], request.strides[node.id])
    return movement(request, parts) if len(parts) <= MOST_PARTS else _mapped(request, x.shape, a, False)


@native("pad_adjoint")
def _pad_adjoint(request: NativeRequest) -> NativeKernel | None:
    """None for float16."""
    node = request.graph[request.kernel.nodes[0]]
    return _mapped(request, node.type.shape, node.attributes, True)


# --- padding as a table of what is read ----------------------------------------------------------------------------------


def _mapped(request: NativeRequest, shape: tuple[int, ...], a: Any, backwards: bool) -> NativeKernel | None:
    """Axes from the first padded one on, as tables; ``shape``: without the padding."""
    pairs = zip(shape, a.padding, strict=True)
    first = next((axis for axis, pair in enumerate(a.padding) if any(pair)), len(shape) - 1)
    if first < 0:
        return None
    axes = [_places(n, before, after, a.mode) for n, (before, after) in list(pairs)[first:]]
    if not backwards:
        return linear_map(request, axes, a.mode != "mean")
    axes = [adjoint(places, n) for places, n in zip(axes, shape[first:], strict=True)]
    return shifted_rows(request, axes, a.padding[-1][0]) or linear_map(request, axes, False)


def _places(n: int, before: int, after: int, mode: str) -> list[list[Tap]]:
    """What each place of a padded axis reads."""
    if mode != "mean":
        sources = source_indices(n, before, after, mode).tolist() if before or after else range(n)
        return [[(source, 1.0)] for source in sources]
    mean = [(i, 1 / n) for i in range(n)]
    return [mean] * before + [[(i, 1.0)] for i in range(n)] + [mean] * after


# --- padding as parts that are moved -------------------------------------------------------------------------------------


def _bordered(request: NativeRequest) -> NativeKernel | None:
    """Constants around what is kept of the operand: negative padding takes some of it away."""
    node = request.graph[request.kernel.nodes[0]]
    a, x = node.attributes, request.graph[node.operands[0]].type
    out, strides = request.strides[node.id], request.strides[node.operands[0]]
    taken, region = [], []
    for n, (before, _), size in zip(x.shape, a.padding, node.type.shape, strict=True):
        first, last = max(0, -before), max(0, -before, min(n, size - before))
        taken.append(first)
        region.append((max(0, first + before), max(0, last + before)))
    shape = tuple(high - low for low, high in region)
    source = Region(0, strides, offset_of(strides, taken))
    inside = Part(shape, Region(-1, out, offset_of(out, [low for low, _ in region])), source)
    value = a.value if x.dtype.is_float else int(a.value)
    return movement(request, [*borders(node.type.shape, region, out, value), inside])


def _repeated(a: Any, shape: tuple[int, ...], strides: Strides, out: Strides) -> list[Part]:
    """Padding that repeats elements: the runs of all axes combined, each a region read forwards, backwards or standing still."""
    runs = [_runs(n, before, after, a.mode) for n, (before, after) in zip(shape, a.padding, strict=True)]
    parts: list[tuple[tuple[int, ...], int, Strides, int]] = [((), 0, (), 0)]
    for axis, choices in enumerate(runs):
        parts = [
            ((*size, count), to + start * out[axis], (*steps, step * strides[axis]), source + first * strides[axis])
            for size, to, steps, source in parts
            for start, count, first, step in choices
        ]
    return [Part(size, Region(-1, out, to), Region(0, steps, source)) for size, to, steps, source in parts]


def _runs(n: int, before: int, after: int, mode: str) -> list[tuple[int, int, int, int]]:
    """A padded axis as runs of the operand's: (position, length, first element, step -1, 0 or 1)."""
    sources = source_indices(n, before, after, mode).tolist() if before or after else list(range(n))
    runs, start = [], 0
    while start < len(sources):
        end = start + 1
        step = sources[end] - sources[start] if end < len(sources) else 1
        step = step if step in (-1, 0, 1) else 1
        while end < len(sources) and sources[end] - sources[end - 1] == step:
            end += 1
        runs.append((start, end - start, sources[start], step))
        start = end
    return runs
