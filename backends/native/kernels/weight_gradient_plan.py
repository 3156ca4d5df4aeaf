"""How a weight gradient is cut: register tiles, blocks, and chunks of positions that stay in cache.

The gradient is a matrix per group, summed over positions p of d (sample and place) for each tap t::

    dW[o, i, t] = sum over p of d[p, o] * x[p * stride + t * dilation - padding, i]

One side's channels run along *vectors* (usually d's), the other's are *rows*, broadcast one by one; a tile of rows times
vectors stays in registers while positions pass.  Positions come in *chunks*, a few image rows or a few small images, of
which the vectors' side fits the first-level cache; every tile passes over a chunk before the next chunk is begun.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from irconv.backends.codegen.machine import Machine
from irconv.ops.window import Ints
from irconv.strides import Strides
from irconv.types import DType

CHUNK_BYTES = 16 * 1024
"""Of the vectors' side of a chunk: half of a first-level cache, so that the rows and the sums pass through the rest."""

FEW_ACCUMULATORS = 16
"""With fewer, a tile waits for the latency of its additions; rows are then taken from several taps at once."""

TASK_PRODUCTS, BYTE_PRODUCTS = 4_000_000, 8
"""Multiplications of a task, unused lanes included: about 50 us of one core; and how many take as long as to read a byte."""

MOST_TASKS, MOST_SPLITS = 32, 32
EVEN = 4
"""The number of tasks is a multiple of so many, so that few threads have as much to do: gradients of three and five tasks took up
to 1.5 times as long on two threads."""

SPLIT_BYTES = 3 * 1024 * 1024
"""Partial sums of all splits together are at most this large: they are written and read once more."""

SUM_ELEMENTS = 32 * 1024
"""Elements of partial sums that a task adds up."""


@dataclass(frozen=True)
class Problem:
    """A weight gradient.

    rows, depth: output and input channels of a group.
    d_strides, x_strides: element strides [batch, channels, *spatial].
    out_strides: of the gradient seen as [groups, rows, depth, *kernel].
    """

    dtype: DType
    batch: int
    groups: int
    rows: int
    depth: int
    size: Ints
    counts: Ints
    kernel: Ints
    stride: Ints
    before: Ints
    dilation: Ints
    d_strides: Strides
    x_strides: Strides
    out_strides: Strides

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def is_pointwise(self) -> bool:
        """Whether position p of d meets position p of x and no other."""
        plain = self.taps == 1 and set(self.stride) == {1} and not any(self.before)
        return plain and self.counts == self.size


@dataclass(frozen=True)
class Plan:
    """How to cut a :class:`Problem`; nothing here depends on its batch.

    along_rows:  vectors run along d's channels; else along x's.
    lanes, vectors: of a tile; ``blocks`` tiles side by side cover the channels (of a group) on the vectors' side.
    run:         broadcast rows of one outer tap: the channels, or those of all taps along the last axis.
    stack:       outer taps of the second last axis in one tile (1: none); more only if a tile holds whole runs.
    tiles:       tiles side by side that cover a run, of even sizes.
    outer:       what is left of the taps as loops.
    pads_x:      x of a chunk is copied to a temporary with zeros around it, channels last.
    packs_d, packs_x: the vectors' side of a chunk is copied, so that a position's vectors lie together and full.
    samples, span: of a chunk: so many samples of ``span`` places along the first spatial axis.
    """

    along_rows: bool
    lanes: int
    vectors: int
    blocks: int
    run: int
    stack: int
    tiles: int
    outer: Ints
    pads_x: bool
    packs_d: bool
    packs_x: bool
    samples: int
    span: int

    @property
    def width(self) -> int:
        """Elements of a tile's row."""
        return self.lanes * self.vectors

    @property
    def name(self) -> str:
        """What tells it from other plans of the same problem."""
        side = "outputs" if self.along_rows else "inputs"
        return f"{self.vectors} vectors along {side}, chunks of {self.samples}x{self.span}"


def flattened(problem: Problem) -> Problem:
    """A pointwise problem with its spatial axes as one, where the strides of d and x allow."""
    p = problem
    if not p.is_pointwise or len(p.size) == 1:
        return p
    for strides in (p.d_strides, p.x_strides):
        for axis in range(2, len(strides) - 1):
            if strides[axis] != strides[axis + 1] * p.size[axis - 1]:
                return p
    area = (math.prod(p.size),)
    d, x, out = ((*s[:keep], s[-1]) for s, keep in ((p.d_strides, 2), (p.x_strides, 2), (p.out_strides, 3)))
    return Problem(
        p.dtype, p.batch, p.groups, p.rows, p.depth, area, area, (1,), (1,), (0,), (1,), d, x, out
    )  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """Where a plan is to differ from the usual one.

    along_rows, vectors: as in :class:`Plan`.
    share: bytes of a chunk, as a multiple of ``CHUNK_BYTES``.
    """

    along_rows: bool | None = None
    vectors: int | None = None
    share: float = 1.0


def plans(p: Problem, machine: Machine) -> list[Plan]:
    """Plans that may be the fastest, the usual one first.

    The others have vectors along the other side, more or fewer of them in a tile, or chunks of other sizes.
    """
    usual = make_plan(p, machine)
    most = min(_largest(machine.registers), usual.blocks * usual.vectors)
    wishes = [Wish(), Wish(along_rows=not usual.along_rows)]
    wishes += [Wish(vectors=v) for v in (usual.vectors - 1, usual.vectors + 1) if 1 <= v <= most]
    wishes += [Wish(share=0.5), Wish(share=2.0), Wish(share=4.0)]
    return list(dict.fromkeys(make_plan(p, machine, wish) for wish in wishes))


def make_plan(p: Problem, machine: Machine, wish: Wish = Wish()) -> Plan:
    """The usual plan for a problem on a machine, but for what is wished."""
    lanes = machine.lanes(p.dtype.bytes)
    along_rows = wish.along_rows
    if along_rows is None:
        along_rows = _cost(p.rows, p.depth * p.taps, lanes) <= 1.1 * _cost(p.depth, p.rows * p.taps, lanes)
    across, channels = (p.rows, p.depth) if along_rows else (p.depth, p.rows)
    vectors = wish.vectors or _vectors(-(-across // lanes), machine.registers)
    blocks = -(-across // (lanes * vectors))
    most = _most_rows(vectors, machine.registers)
    pads_x = along_rows and p.taps > 1 and min(channels, most) * vectors < FEW_ACCUMULATORS
    run, outer = channels, p.kernel
    if pads_x and p.dilation[-1] == 1:
        run, outer = channels * p.kernel[-1], (*p.kernel[:-1], 1)
    stack = 1
    if pads_x and len(outer) > 1 and outer[-1] == 1:
        stack = max((k for k in range(1, outer[-2] + 1) if outer[-2] % k == 0 and k * run <= most), default=1)
        outer = (*outer[:-2], outer[-2] // stack, outer[-1])
    dense = across == lanes * vectors and p.groups == 1
    strides = p.d_strides if along_rows else p.x_strides
    packs = not (dense and strides[1] == 1)
    positions = max(1, round(CHUNK_BYTES * wish.share) // (lanes * vectors * p.dtype.bytes))
    samples, span = chunk(p.counts, positions)
    return Plan(
        along_rows=along_rows,
        lanes=lanes,
        vectors=vectors,
        blocks=blocks,
        run=run,
        stack=stack,
        tiles=-(-run // most),
        outer=outer,
        pads_x=pads_x,
        packs_d=packs and along_rows,
        packs_x=packs and not along_rows,
        samples=samples,
        span=span,
    )


def _cost(across: int, rows: int, lanes: int) -> int:
    """Vector multiplications per position."""
    return -(-across // lanes) * rows


def _largest(registers: int) -> int:
    """Vectors of a tile at the most."""
    return 6 if registers >= 32 else 3


def _vectors(needed: int, registers: int) -> int:
    """Vectors of a tile: all of them, else the number that wastes least of the last block, then the one nearest to four."""
    largest, liked = _largest(registers), 4 if registers >= 32 else 2
    if needed <= largest:
        return max(1, needed)
    return min(range(1, largest + 1), key=lambda v: (-(-needed // v) * v, abs(v - liked), v))


def _most_rows(vectors: int, registers: int) -> int:
    """Rows of a tile whose accumulators, one broadcast value and the vectors fit the registers."""
    return max(1, (registers - 1 - vectors) // vectors)


def chunk(counts: Ints, positions: int) -> tuple[int, int]:
    """(samples, places along the first spatial axis) of a chunk with about so many positions."""
    area, row = math.prod(counts), math.prod(counts[1:])
    if area <= positions:
        return positions // area, counts[0]
    pieces = -(-counts[0] // max(1, positions // row))
    return 1, -(-counts[0] // pieces)


@dataclass(frozen=True)
class Cut:
    """How much of the work there is and how it is shared out: what a batch size changes.

    chunks: of all samples;  splits: pieces of the chunks, summed apart;  ranges: pieces of a run's tiles.
    sums:   tasks that add the splits up.
    """

    chunks: int
    splits: int
    ranges: int
    sums: int


def make_cut(p: Problem, plan: Plan) -> Cut:
    """Tasks enough to keep several threads busy, from the shapes alone."""
    chunks = -(-p.batch // plan.samples) * -(-p.counts[0] // plan.span)
    blocks = p.groups * plan.blocks
    size = blocks * plan.width * elements_of_row(p, plan)
    places, inputs = p.batch * math.prod(p.counts), p.batch * math.prod(p.size)
    read = p.groups * (places * p.rows + inputs * p.depth) * p.dtype.bytes
    wanted = wanted_tasks(places * size, read)
    splits = max(1, min(most_splits(size * p.dtype.bytes, chunks), -(-wanted // blocks)))
    ranges = max(1, min(plan.tiles, -(-wanted // (blocks * splits))))
    return Cut(chunks, splits, ranges, max(1, min(blocks * plan.vectors, -(-size * splits // SUM_ELEMENTS))))


def wanted_tasks(products: int, read: int) -> int:
    """How many tasks there should be for so many multiplications and bytes that are read."""
    wanted = min(MOST_TASKS, -(-(products + read * BYTE_PRODUCTS) // TASK_PRODUCTS))
    return -(-wanted // EVEN) * EVEN if wanted > 1 else wanted


def most_splits(size: int, chunks: int) -> int:
    """Splits at the most, each with partial sums of ``size`` bytes."""
    return max(1, min(MOST_SPLITS, SPLIT_BYTES // size, chunks))


def elements_of_row(p: Problem, plan: Plan) -> int:
    """Rows of a group's gradient as it is summed: channels of the broadcast side times taps."""
    return (p.depth if plan.along_rows else p.rows) * p.taps
