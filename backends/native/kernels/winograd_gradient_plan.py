"""When a weight gradient is made by Winograd's algorithm, and in which blocks.

A tile of 4x4 gradients d takes 36 products for each pair of channels instead of 144.  What that costs: the transforms of both
operands, repeated for every block of the other's channels, and sums of 36 numbers for each pair of channels instead of 9.
"""

from __future__ import annotations

from dataclasses import dataclass

from irconv.backends.codegen.machine import Machine
from irconv.backends.native.kernels.weight_gradient_plan import SPLIT_BYTES, Problem
from irconv.backends.native.kernels.winograd_plan import odd_lines
from irconv.types import F32

OUTPUTS, INPUTS = 4, 6
"""Of a tile, along each axis: gradients d, and inputs x that meet them under a 3x3 window."""

PRODUCTS = INPUTS**2

RANGE = 64
"""Input channels of a task: with 64 output channels its sums take 590 KB of a core's second-level cache."""

NEAR_BYTES = 512 * 1024
"""Transformed operands of a chunk of tiles: they share that cache with the sums."""

MOST_TILES = 64

FEWEST_CHANNELS = 16

X_STEPS, D_STEPS = 400, 300
"""What transforming a vector takes, as multiplications and additions of vectors: as many again for reading and writing."""

SUM_STEPS, USUAL_BATCH = 350, 4
"""The same for clearing a vector of sums and turning it into gradients, which is done once for so many images."""

GAIN = 1.6
"""The estimate has to be better by this much: its caches and borders cost more than those of the plain algorithm."""

TASK_STEPS = 130_000
"""Multiplications of vectors in a task, at the least: about 50 us."""

MOST_TASKS = 32


@dataclass(frozen=True, slots=True)
class GradientPlan:
    """How the channels and tiles of a gradient are cut.

    lanes:    of a vector.   vectors: of output channels in a tile of accumulators; ``blocks`` of them cover all.
    rows:     of a tile of accumulators: input channels, broadcast.
    channels: input channels of a range (the last may have fewer); ``ranges`` of them.
    down, along: tiles of an image;  ``chunk``: tiles whose transforms are held at once.
    """

    lanes: int
    vectors: int
    blocks: int
    rows: int
    channels: int
    ranges: int
    down: int
    along: int
    chunk: int

    @property
    def width(self) -> int:
        """Output channels of a block."""
        return self.vectors * self.lanes

    @property
    def padded(self) -> int:
        """Input channels of a range in whole tiles of accumulators."""
        return -(-self.channels // self.rows) * self.rows

    @property
    def x_width(self) -> int:
        """The same in whole vectors: what a transformed tile takes."""
        return -(-self.padded // self.lanes) * self.lanes

    @property
    def tiles(self) -> int:
        """Of an image."""
        return self.down * self.along

    @property
    def steps(self) -> tuple[int, int, int]:
        """Elements from one product to the next: of transformed x, transformed d, and sums."""
        return odd_lines(self.chunk * self.x_width), odd_lines(self.chunk * self.width), odd_lines(self.padded * self.width)

    @property
    def parts(self) -> tuple[int, int, int, int]:
        """Elements of what a worker holds: transformed x, transformed d, sums, and a copied tile."""
        x, d, sums = self.steps
        return PRODUCTS * x, PRODUCTS * d, PRODUCTS * sums, PRODUCTS * max(self.x_width, self.width)


def best_gradient_plan(p: Problem, machine: Machine) -> GradientPlan | None:
    """The plan, or None where the algorithm does not apply or takes as long as the plain one; whatever the batch."""
    if not _suits(p):
        return None
    plan = make_gradient_plan(p, machine)
    direct = p.counts[0] * p.counts[1] * p.taps * p.depth * -(-p.rows // plan.lanes)
    once = plan.blocks * plan.ranges * plan.padded * plan.vectors * SUM_STEPS
    return plan if (_steps(plan) + once / USUAL_BATCH) * GAIN < direct else None


def _suits(p: Problem) -> bool:
    plain = p.dtype is F32 and p.groups == 1 and p.kernel == (3, 3) and p.stride == p.dilation == (1, 1)
    return plain and p.d_strides[1] == p.x_strides[1] == 1 and min(p.rows, p.depth) >= FEWEST_CHANNELS


def make_gradient_plan(p: Problem, machine: Machine) -> GradientPlan:
    """The plan for a problem that the algorithm applies to."""
    lanes = machine.lanes(p.dtype.bytes)
    most = 4 if machine.registers >= 32 else 2
    needed = -(-p.rows // lanes)
    blocks = -(-needed // most)
    vectors = -(-needed // blocks)
    ranges = -(-p.depth // RANGE)
    channels = -(-p.depth // ranges)
    tall = max(1, (machine.registers - 1 - vectors) // vectors)
    rows = -(-channels // -(-channels // tall))
    chunk = NEAR_BYTES // (PRODUCTS * p.dtype.bytes * (channels + vectors * lanes))
    return GradientPlan(
        lanes=lanes,
        vectors=vectors,
        blocks=blocks,
        rows=rows,
        channels=channels,
        ranges=ranges,
        down=-(-p.counts[0] // OUTPUTS),
        along=-(-p.counts[1] // OUTPUTS),
        chunk=max(8, min(MOST_TILES, chunk)),
    )


def _steps(plan: GradientPlan) -> int:
    """Multiplications and additions of vectors that an image takes."""
    tasks = plan.blocks * plan.ranges
    products = PRODUCTS * plan.padded * plan.vectors
    return plan.tiles * tasks * (products + X_STEPS * plan.x_width // plan.lanes + D_STEPS * plan.vectors)


@dataclass(frozen=True, slots=True)
class GradientCut:
    """What a batch size changes: chunks of tiles, splits of the chunks that are summed apart, tasks that add these up."""

    chunks: int
    splits: int
    sums: int


def cut_gradient(p: Problem, plan: GradientPlan) -> GradientCut:
    """Tasks enough to keep several threads busy, from the shapes alone."""
    tasks = plan.blocks * plan.ranges
    chunks = -(-p.batch * plan.tiles // plan.chunk)
    size = p.taps * p.depth * plan.blocks * plan.width
    wanted = min(MOST_TASKS, -(-p.batch * _steps(plan) // TASK_STEPS))
    splits = max(1, min(-(-wanted // tasks), chunks, SPLIT_BYTES // (size * p.dtype.bytes)))
    return GradientCut(chunks, splits, max(1, min(plan.blocks * plan.vectors, -(-size * splits // (32 * 1024)))))
