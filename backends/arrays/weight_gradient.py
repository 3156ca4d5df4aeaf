"""The weight gradient of convolution: the window matrix is made block by block and never stored.

windows [channels taps, positions] times d [positions, out], summed over samples and turned at the end (a quarter faster than the
product the other way round where there are few output channels).  The work is cut by input channels, so that every piece of the
gradient is summed by one thread in a fixed order, whatever the number of threads.  For each piece, samples (or bands of a large
sample) follow one another: windows into a temporary that stays in cache, one product, one addition.  Measured on one AVX-512
core: 100 GFLOP/s with 64 channels, 140 with 512.

At stride 1 in two dimensions, if planes are not small, copying the windows along the rows is enough: see
:mod:`irconv.backends.arrays.weight_gradient_rows`.
"""

from __future__ import annotations

import math
from typing import Any

from irconv.backends.arrays.base import Array, ArrayKernel, FusedRequest, Scratch, fused, spans
from irconv.backends.arrays.columns import Piece, bands, fill, pieces, plane_elements
from irconv.backends.arrays.geometry import Geometry
from irconv.backends.arrays.weight_gradient_rows import rows_gradient, suits_rows
from irconv.backends.arrays.work import copy_turned, run_pieces
from irconv.ops.window import Ints, window_counts
from irconv.types import DType

POSITIONS = 1568
"""Positions multiplied at once: enough that adding the product costs little beside making it."""

WINDOW_BYTES = 512 * 1024
"""A window matrix this large hides the cost of the calls that fill it; samples with less than half are taken together."""

LARGEST_BYTES = 2 * 1024 * 1024
"""Largest window matrix of a block."""

CUTS, WIDTH = 8, 128
"""Into how many pieces the channels are cut at most, and how many rows of the window matrix a piece has at least.

Both are fixed, so that the result does not depend on the number of threads."""


@fused("conv_weight_gradient")
def _weight_gradient(request: FusedRequest) -> ArrayKernel:
    xp, graph, kernel, parallel = request.xp, request.graph, request.kernel, request.parallel
    by_op = {graph[i].op.name: graph[i] for i in kernel.nodes}
    product, columns = by_op["matmul"], by_op["im2col"]
    a, x_type = columns.attributes, graph[columns.operands[0]].type
    batch, channels, size = x_type.shape[0], x_type.shape[1], x_type.shape[2:]
    counts = window_counts(size, a.kernel, a.stride, a.padding, a.dilation)
    area, taps, per_group = math.prod(counts), math.prod(a.kernel), channels // a.groups
    rows = product.type.shape[1]
    chain = _left_chain(graph, kernel, product.operands[0])
    source = chain[0].operands[0] if chain else product.operands[0]
    by_sample = _is_by_sample(graph, chain, source, (batch, a.groups * rows, *counts))
    g = Geometry(batch, channels, size, a.groups * rows, a.kernel, counts, a.stride, a.padding, a.dilation, a.groups)
    if by_sample and suits_rows(g):
        return _by_rows(request, g, source, columns.operands[0], product.type.dtype)
    work = product.type.dtype.accumulator
    cuts = _cuts(a.groups, per_group, taps)
    widest = max(math.prod(part.stop - part.start for part in cut) for cut in cuts) * taps
    plan = _plan(size, counts, batch, a, widest * work.bytes)
    most = max((piece.columns for piece in plan), default=1)
    threads = parallel.threads if parallel else 1
    scratch = Scratch()
    window_at = scratch.add(work, threads, widest * most)
    together = max((piece.samples for piece in plan), default=0)
    padded_at = scratch.add(work, threads, widest // taps * together * plane_elements(piece.band for piece in plan))
    part_at, total_at = scratch.add(work, threads, rows * widest), scratch.add(work, threads, rows * widest)
    # d is read where it is, unless samples are taken together or it lies in another order
    plain = (
        by_sample and work is graph[source].type.dtype and (request.contiguous is None or source in request.contiguous)
    )
    in_place = plain and all(piece.samples == 1 for piece in plan)
    left_at = scratch.add(work, a.groups, rows, 0 if in_place else batch * area)
    d_at, x_at = (1 + kernel.inputs.index(i) for i in (source, columns.operands[0]))
    rest = 1 + len(kernel.inputs)
    starts = _starts(plan)
    single_row = math.prod(counts[1:])

    def left_of(i: int, d: Array, left: Array) -> Array:
        """d for one block of positions: [groups, rows, positions]."""
        piece = plan[i]
        if in_place:
            shaped = d[piece.first].reshape(a.groups, rows, area)
            return shaped[:, :, piece.band.start * single_row : piece.band.stop * single_row]
        return left[:, :, starts[i] : starts[i] + piece.columns]

    def run(*arrays: Array) -> None:
        out, d, x, buffers = arrays[0], arrays[d_at], arrays[x_at], arrays[rest:]
        left = buffers[left_at]
        if not in_place:
            _arrange(xp, left, d, chain, by_sample, plan, starts, (batch, a.groups, rows, *counts))
        gradient = out.reshape(a.groups, rows, per_group * taps)

        def task(cut: int, worker: int) -> None:
            groups, chosen = cuts[cut]
            count, taken = groups.stop - groups.start, chosen.stop - chosen.start
            shape = (count, taken * taps, rows)
            part = buffers[part_at][worker, : math.prod(shape)].reshape(shape)
            total = buffers[total_at][worker, : math.prod(shape)].reshape(shape)
            # either all channels of some groups or some channels of the only group: one range
            first = groups.start * per_group + chosen.start
            if not plan:
                total.fill(0)
            for i, piece in enumerate(plan):
                block = buffers[window_at][worker, : count * taken * taps * piece.columns]
                shaped = block.reshape(count * taken, taps, piece.samples, *piece.band.counts)
                chosen_x = x[piece.first : piece.last, first : first + count * taken]
                fill(xp, shaped, chosen_x, piece.band, spare=buffers[padded_at][worker])
                windows = block.reshape(count, taken * taps, piece.columns)
                right = left_of(i, d, left)[groups].swapaxes(1, 2)
                xp.matmul(windows, right, out=part if i else total)
                if i:
                    xp.add(total, part, total)
            target = gradient[groups, :, chosen.start * taps : chosen.stop * taps]
            copy_turned(xp, target, total)

        if out.size:
            run_pieces(parallel, task, len(cuts))

    return ArrayKernel(run, tuple(scratch.types))


def _by_rows(request: FusedRequest, g: Geometry, d: int, x: int, dtype: DType) -> ArrayKernel:
    """The kernel that copies windows along the rows only; ``d`` and ``x`` are values of the graph."""
    inputs, scratch = request.kernel.inputs, Scratch()
    inner = rows_gradient(request.xp, g, dtype, request.parallel, scratch)
    d_at, x_at, rest = 1 + inputs.index(d), 1 + inputs.index(x), 1 + len(inputs)
    weight_shape = (g.out_channels, g.channels, *g.kernel)

    def run(*arrays: Array) -> None:
        inner(arrays[0].reshape(weight_shape), arrays[d_at], arrays[x_at], arrays[rest:])

    return ArrayKernel(run, tuple(scratch.types))


def _left_chain(graph: Any, kernel: Any, value: int) -> list[Any]:
    """The views of this kernel that lead to the left operand of the product, in order."""
    members, found = set(kernel.nodes), []
    while value in members:
        found.append(graph[value])
        value = graph[value].operands[0]
    return found[::-1]


def _is_by_sample(graph: Any, chain: list[Any], source: int, shape: tuple[int, ...]) -> bool:
    """Whether the views bring d [N, out, *positions] to [groups, out / groups, N positions]."""
    if [node.op.name for node in chain] != ["transpose", "reshape"] or graph[source].type.shape != shape:
        return False
    return bool(chain[0].attributes.axes == (1, 0, *range(2, len(shape))))


def _cuts(groups: int, per_group: int, taps: int) -> list[tuple[slice, slice]]:
    """(groups, channels of each): the channels of the only group are cut, or several groups are shared out."""
    if groups > 1:
        return [(slice(*cut), slice(0, per_group)) for cut in spans(groups, -(-groups // CUTS))]
    count = max(1, min(CUTS, per_group, max(2, per_group * taps // WIDTH)))
    return [(slice(0, 1), slice(*cut)) for cut in spans(per_group, -(-per_group // count))]


def _plan(size: Ints, counts: Ints, batch: int, a: Any, row_bytes: int) -> tuple[Piece, ...]:
    """Blocks of positions: bands of large samples, groups of small ones (only these need a copy of d)."""
    positions = max(1, min(max(POSITIONS, WINDOW_BYTES // row_bytes), LARGEST_BYTES // row_bytes))
    area = math.prod(counts)
    rows = max(1, positions // math.prod(counts[1:])) if area > positions else counts[0]
    cut = bands(size, counts, a.kernel, a.stride, a.padding, a.dilation, rows)
    return pieces(batch, cut, max(1, positions // area) if area * row_bytes < WINDOW_BYTES // 2 else 1)


def _starts(plan: tuple[Piece, ...]) -> list[int]:
    """Where each block of positions starts in d arranged block after block."""
    starts, position = [], 0
    for piece in plan:
        starts.append(position)
        position += piece.columns
    return starts


def _arrange(
    xp: Any, left: Array, d: Array, chain: list[Any], by_sample: bool, plan: Any, starts: Any, shape: tuple[int, ...]
) -> None:
    """Copy d into ``left`` [groups, rows, positions], block of positions after block."""
    batch, groups, rows, *counts = shape
    if by_sample:
        seen = d.reshape(shape)
    else:
        for view in chain:
            d = d.transpose(view.attributes.axes) if view.op.name == "transpose" else d.reshape(view.type.shape)
        seen = d.reshape(groups, rows, batch, *counts).transpose(2, 0, 1, *range(3, 3 + len(counts)))
    order = (1, 2, 0, *range(3, 3 + len(counts)))
    for piece, start in zip(plan, starts, strict=True):
        target = left[:, :, start : start + piece.columns].reshape(groups, rows, piece.samples, *piece.band.counts)
        block = seen[piece.first : piece.last, :, :, piece.band.start : piece.band.stop]
        xp.copyto(target, block.transpose(order))
