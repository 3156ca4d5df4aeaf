"""Kernels that only move elements: copies between layouts, concatenation, embedding (padding: :mod:`.padding`).

Each is cut into *parts*, copies of a region of an operand to a region of the result, or constants written to one, that
do not touch each other.  The tasks of all parts follow one another in one phase.  A part takes one of three forms:

- rows that are contiguous on both sides (or repeat one element) are moved by vectors;
- where the source is contiguous along another axis than the target (NCHW to NHWC and back), square tiles as large as a
  vector is long are read, turned in registers and written;
- all else goes element by element.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from irconv.backends.codegen.body import FIRST, LAST, Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import Expression, Literal, Pointer, Type, call, literal
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, native, native_kernel
from irconv.backends.native.kernels.element_loops import ElementLoops, Fetch, Sizes, Value
from irconv.backends.native.kernels.element_space import TASK_BYTES, Extent, Space, Term, plan_space
from irconv.strides import Strides, row_major
from irconv.types import F32, F64, U8, U16, U32, U64, DType

FUNCTION, OVER = "movement", "movement_over"
UNSIGNED = {1: U8, 2: U16, 4: U32, 8: U64}
MOST_PARTS = 32
"""Kernels of more parts are left to the array backend."""

TILE_ROWS = 64
"""Elements of a strip of tiles along the target's contiguous axis: what is written stays in the first-level cache."""


@dataclass(frozen=True)
class Region:
    """Elements of a buffer: offset of the first, and strides; ``buffer`` is the number of an operand, -1 for the result."""

    buffer: int
    strides: Strides
    offset: int = 0


@dataclass(frozen=True)
class Part:
    """``target = source`` over ``shape``; the source may be a number."""

    shape: tuple[int, ...]
    target: Region
    source: Region | float


def stored_dtype(dtype: DType) -> DType:
    """The type as which elements are moved: floats as they are, all else as unsigned numbers of the same size."""
    return dtype if dtype in (F32, F64) else UNSIGNED[dtype.bytes]


# --- ops -----------------------------------------------------------------------------------------------------------------


@native("copy", "stop_gradient", "relayout", "transpose", "broadcast", "slice", "flip", "reshape")
def _whole(request: NativeRequest) -> NativeKernel | None:
    """The result read off the operand; view ops come here where something must be copied."""
    node = request.graph[request.kernel.nodes[0]]
    x = request.graph[node.operands[0]].type
    out, strides = request.strides[node.id], request.strides[node.operands[0]]
    shape, a = node.type.shape, node.attributes
    match node.op.name:
        case "transpose":
            source = Region(0, tuple(strides[axis] for axis in a.axes))
        case "broadcast":
            source = Region(0, _broadcast(x.shape, strides, shape))
        case "slice":
            source = Region(0, tuple(s * step for s, step in zip(strides, a.step, strict=True)), offset_of(strides, a.start))
        case "flip":
            ends = [n - 1 if axis in a.axes and n else 0 for axis, n in enumerate(x.shape)]
            source = Region(0, tuple(-s if axis in a.axes else s for axis, s in enumerate(strides)), offset_of(strides, ends))
        case "reshape":
            return _reshape(request, x.shape, strides, shape, out)
        case _:
            source = Region(0, strides)
    return movement(request, [Part(shape, Region(-1, out), source)])


def _reshape(
    request: NativeRequest, source: tuple[int, ...], strides: Strides, shape: tuple[int, ...], out: Strides
) -> NativeKernel | None:
    """Elements in row-major order of both shapes: where the result is row-major it is written in the operand's shape.

    A result in another order is not expected (None).
    """
    if all(n == 1 or s == expected for n, s, expected in zip(shape, out, row_major(shape), strict=True)):
        return movement(request, [Part(source, Region(-1, row_major(source)), Region(0, strides))])
    if all(n == 1 or s == expected for n, s, expected in zip(source, strides, row_major(source), strict=True)):
        return movement(request, [Part(shape, Region(-1, out), Region(0, row_major(shape)))])
    return None


@native("concat")
def _concat(request: NativeRequest) -> NativeKernel | None:
    node = request.graph[request.kernel.nodes[0]]
    axis, out = node.attributes.axis, request.strides[node.id]
    parts, start = [], 0
    for at, operand in enumerate(request.graph.operands(node)):
        parts.append(
            Part(operand.type.shape, Region(-1, out, start * out[axis]), Region(at, request.strides[operand.id]))
        )
        start += operand.type.shape[axis]
    return movement(request, parts)


@native("embed")
def _embed(request: NativeRequest) -> NativeKernel | None:
    """Zeros, with the operand's elements at the positions that a slice takes; with steps, the zeros between them come first."""
    node = request.graph[request.kernel.nodes[0]]
    a, x = node.attributes, request.graph[node.operands[0]].type
    out, strides = request.strides[node.id], request.strides[node.operands[0]]
    if any(step != 1 and n > 1 for step, n in zip(a.step, x.shape, strict=True)):
        inside = Part(x.shape, _sliced(out, a), Region(0, strides))
        return movement(request, [Part(node.type.shape, Region(-1, out), 0.0)], [inside])
    region = [(start, start + n) for start, n in zip(a.start, x.shape, strict=True)]
    inside = Part(x.shape, Region(-1, out, offset_of(out, a.start)), Region(0, strides))
    return movement(request, [*borders(node.type.shape, region, out, 0), inside])


@native("slice_update")
def _slice_update(request: NativeRequest) -> NativeKernel | None:
    """The first operand, and over it the second at the positions that a slice takes."""
    node = request.graph[request.kernel.nodes[0]]
    _, v = request.graph.operands(node)
    out, (x_strides, v_strides) = request.strides[node.id], (request.strides[i] for i in node.operands)
    whole = Part(node.type.shape, Region(-1, out), Region(0, x_strides))
    return movement(request, [whole], [Part(v.type.shape, _sliced(out, node.attributes), Region(1, v_strides))])


def _sliced(out: Strides, a: Any) -> Region:
    """Where a slice of the result lies."""
    return Region(-1, tuple(s * step for s, step in zip(out, a.step, strict=True)), offset_of(out, a.start))


def borders(shape: Sequence[int], region: Sequence[tuple[int, int]], out: Strides, value: float) -> list[Part]:
    """Constants around a region: along each axis what lies before and behind it, inside the region along earlier axes."""
    parts: list[Part] = []
    low, extents = [0] * len(shape), list(shape)
    for axis, (start, stop) in enumerate(region):
        for first, last in ((0, start), (stop, shape[axis])):
            if first < last:
                at, size = [*low[:axis], first, *low[axis + 1 :]], (*extents[:axis], last - first, *extents[axis + 1 :])
                parts.append(Part(size, Region(-1, out, offset_of(out, at)), value))
        low[axis], extents[axis] = start, stop - start
    return parts


def _broadcast(shape: Sequence[int], strides: Strides, to: Sequence[int]) -> Strides:
    added = len(to) - len(shape)
    return (0,) * added + tuple(s if n == m else 0 for n, s, m in zip(shape, strides, to[added:], strict=True))


def offset_of(strides: Strides, index: Sequence[int]) -> int:
    return sum(s * i for s, i in zip(strides, index, strict=True))


# --- code ----------------------------------------------------------------------------------------------------------------


def movement(request: NativeRequest, parts: Sequence[Part], over: Sequence[Part] = ()) -> NativeKernel | None:
    """One function for all parts, each with its own range of tasks; a second one for parts written over the first."""
    graph = request.graph
    node = graph[request.kernel.nodes[0]]
    if len(parts) + len(over) > MOST_PARTS:
        return None
    sizes = Sizes()
    steps = [(name, _body(request, each, sizes)) for name, each in ((FUNCTION, parts), (OVER, over)) if each]
    dtype = stored_dtype(node.type.dtype)
    buffers = [("out", dtype, True)]
    buffers += [(f"in{at}", stored_dtype(graph[i].type.dtype), False) for at, i in enumerate(node.operands)]
    twice = {f"in{at}" for at, i in enumerate(node.operands) if node.operands.count(i) > 1}
    functions = [body.function(name, buffers, sizes.names, twice) for name, (body, _) in steps]
    return native_kernel(print_c(functions), tuple(Phase(name, tasks) for name, (_, tasks) in steps), tuple(sizes.values))


def _body(request: NativeRequest, parts: Sequence[Part], sizes: Sizes) -> tuple[Body, int]:
    """The code of some parts, and how many tasks they have."""
    dtype = stored_dtype(request.graph[request.kernel.nodes[0]].type.dtype)
    body, start = Body(), 0
    for part in parts:
        space = _space(part, dtype.bytes)
        if len(parts) == 1:
            _write(body, sizes, request, part, space, dtype, FIRST, LAST)
        else:
            begin, count = sizes.add("begin", start), sizes.add("tasks", space.tasks)
            first = body.let("from", call("smaller", call("larger", FIRST - begin, literal(0)), count))
            last = body.let("to", call("smaller", call("larger", LAST - begin, literal(0)), count))
            with body.when(first < last):
                _write(body, sizes, request, part, space, dtype, first, last)
        start += space.tasks
    return body, start


def _space(part: Part, element_bytes: int) -> Space:
    extents = [Extent(part.shape, part.target.strides, True)]
    if isinstance(part.source, Region):
        extents.append(Extent(part.shape, part.source.strides, True))
    space = plan_space(part.shape, extents, element_bytes)
    return _turned(space, element_bytes) or space


def _turned(space: Space, element_bytes: int) -> Space | None:
    """The space with the source's contiguous axis in the middle, for tiles; None where tiles are no help."""
    if len(space.terms) < 2 or space.is_flat:
        return None
    target, source = space.terms
    if target.inner != 1 or source.inner is not None:
        return None
    axes = [axis for axis, (n, s) in enumerate(zip(space.extents, source.strides, strict=True)) if s == 1 and n > 1]
    if not axes:
        return None
    order = [axis for axis in range(len(space.extents) - 1) if axis != axes[0]] + [axes[0], len(space.extents) - 1]
    extents = tuple(space.extents[axis] for axis in order)
    terms = tuple(replace(t, strides=tuple(t.strides[axis] for axis in order)) for t in space.terms)
    total = math.prod(extents)
    target_elements = TASK_BYTES // element_bytes
    if total <= 2 * target_elements:
        target_elements = max(1, total)
    piece = min(extents[-1], TILE_ROWS)
    rows = min(extents[-2], max(TILE_ROWS, target_elements // piece))
    rows = -(-rows // TILE_ROWS) * TILE_ROWS if rows < extents[-2] else rows
    return Space(extents, terms, piece, rows, max(1, target_elements // (piece * rows)))


def _write(
    body: Body,
    sizes: Sizes,
    request: NativeRequest,
    part: Part,
    space: Space,
    dtype: DType,
    first: Expression,
    last: Expression,
) -> None:
    lanes = request.machine.lanes(dtype.bytes)
    target = Value(0, Pointer("out", dtype), space.terms[0], part.target.offset)
    if not isinstance(part.source, Region):
        _loops(body, sizes, space, target, None, lanes, _bits(part.source, request, dtype), first, last).write()
        return
    source = Value(1, Pointer(f"in{part.source.buffer}", dtype), space.terms[1], part.source.offset)
    turned = _is_turned(space)
    if turned and (lanes > 16 or dtype.bytes not in (4, 8)):
        lanes = 1
    loops = _loops(body, sizes, space, target, source, lanes, None, first, last)
    (loops.write_transposed if turned else loops.write)()


def _is_turned(space: Space) -> bool:
    target, source = space.terms
    return not space.is_flat and target.inner == 1 and source.inner is None and _middle(source) == 1


def _middle(term: Term) -> int:
    return term.strides[-2]


def _bits(value: float, request: NativeRequest, dtype: DType) -> Literal:
    """A constant as the element type it is moved as."""
    own = request.graph[request.kernel.nodes[0]].type.dtype
    bits = own.numpy.type(value).view(dtype.numpy) if own is not dtype else value
    return Literal(bits if isinstance(bits, int | float) else bits.item(), Type(dtype))


def _loops(
    body: Body,
    sizes: Sizes,
    space: Space,
    target: Value,
    source: Value | None,
    lanes: int,
    value: Literal | None,
    first: Expression,
    last: Expression,
) -> ElementLoops:
    def compute(body: Body, known: dict[int, Expression], fetch: Fetch) -> None:
        if value is not None:
            known[0] = Literal(value.value, Type(value.type.dtype, lanes))
        else:
            known[0] = body.let("moved", known[1] if 1 in known else fetch(1))

    inputs = () if source is None else (source,)
    return ElementLoops(body, sizes, space, (target,), inputs, lanes, 1, compute, first, last)
