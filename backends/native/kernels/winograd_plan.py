"""When Winograd's algorithm pays, and in which tiles, blocks and tasks.

A tile of m x m outputs (m = 4 or 2) takes (m + 2)^2 products for each pair of channels instead of 9 m^2: a quarter, or 4/9.  What
it costs: the transforms, and transformed weights that are 36/9 or 16/9 as large and are read once for every chunk of tiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from irconv.backends.codegen.machine import Machine
from irconv.backends.native.kernels.contraction import Contraction
from irconv.types import F32

TASKS = 8
"""Tasks there should be at the least, if there is work for so many."""

TASK_PRODUCTS = 1_000_000
"""Multiplications of a task at the least: 15 us."""


LINE = 16
"""Elements of a cache line."""


def _odd_lines(elements: int) -> int:
    """At least so many elements, an odd number of cache lines: (m + 2)^2 such steps apart, no two fall on one place in a cache."""
    return (-(-elements // LINE) | 1) * LINE


@dataclass(frozen=True, slots=True)
class WinogradPlan:
    """How a convolution is cut.

    outputs: m, of a tile along each axis.   lanes: of a vector.
    down, along: tiles of an image.
    pixels, vectors: tiles and vectors of channels that are multiplied at once, in registers.
    blocks:  of output channels, ``width`` each.
    usual, most: tiles in a chunk, for one image and for many: their transformed inputs stay in the second-level cache.
    """

    outputs: int
    lanes: int
    down: int
    along: int
    channels: int
    columns: int
    pixels: int
    vectors: int
    blocks: int
    usual: int
    most: int

    @property
    def inputs(self) -> int:
        """Of a tile along each axis, and products."""
        return self.outputs + 2

    @property
    def products(self) -> int:
        return self.inputs**2

    @property
    def width(self) -> int:
        return self.vectors * self.lanes

    @property
    def tiles(self) -> int:
        """Of an image."""
        return self.down * self.along

    @property
    def weight_elements(self) -> int:
        """Transformed weights: [block][product][channel][width]."""
        return self.blocks * self.products * self.channels * self.width

    @property
    def input_step(self) -> int:
        """Elements from one product's transformed inputs to the next one's."""
        return _odd_lines(self.most * self.channels)

    @property
    def output_step(self) -> int:
        """The same for the results of the products."""
        return _odd_lines(self.most * self.width)

    @property
    def parts(self) -> tuple[int, int, int]:
        """Elements of a worker's transformed inputs, products and copied tile, whole cache lines each."""
        copied = -(-self.products * self.channels // LINE) * LINE
        return self.products * self.input_step, self.products * self.output_step, copied


@dataclass(frozen=True, slots=True)
class Cut:
    """How the tiles of all images are shared out: ``chunk`` tiles and one of ``parts`` of the blocks for each task.

    Tasks of one chunk are neighbours: a thread that does several of them transforms the inputs once.
    """

    chunk: int
    chunks: int
    parts: int

    @property
    def tasks(self) -> int:
        return self.chunks * self.parts


def suits(c: Contraction) -> bool:
    """Whether this is a 3x3 convolution (or transposed one) at stride 1, without dilation and groups, channels last."""
    if c.dtype is not F32 or c.groups or c.outer or c.long or c.x_channel != 1 or len(c.axes) != 2:
        return False
    return all(
        len(axis.residues) == 1 and axis.only.taps == 3 and (axis.step, axis.out_step, abs(axis.tap_shift)) == (1, 1, 1)
        for axis in c.axes
    )


def plan_winograd(c: Contraction, machine: Machine, outputs: int) -> WinogradPlan:
    """The plan of F(m x m, 3x3) with m ``outputs``."""
    lanes = machine.lanes(c.dtype.bytes)
    total = -(-c.columns // lanes)
    down, along = (-(-axis.only.count // outputs) for axis in c.axes)
    products = (outputs + 2) ** 2
    is_far = products * c.channels * total * lanes * c.dtype.bytes > machine.cache_bytes // 2
    tiles = down * along
    usual = _even_chunk(tiles, FAR_TILES if is_far else NEAR_TILES)
    pixels, vectors = _accumulators(usual, c.channels, total, is_far, machine)
    blocks = -(-total // vectors)
    fitting = machine.cache_bytes // 2 // (products * c.dtype.bytes * (c.channels + vectors * lanes))
    most = max(usual, min(fitting, MOST_TILES) if is_far else usual)
    most = -(-most // pixels) * pixels
    return WinogradPlan(outputs, lanes, down, along, c.channels, c.columns, pixels, vectors, blocks, usual, most)


def _even_chunk(tiles: int, most: int) -> int:
    """Tiles of a chunk where an image has so many: all of them, or an even number of chunks."""
    chunks = -(-tiles // most)
    return -(-tiles // (chunks + chunks % 2)) if chunks > 1 else tiles


NEAR_TILES, FAR_TILES, MOST_TILES = 16, 32, 112
"""Tiles of a chunk, about: where the weights stay in cache, where they come from behind it, and with many images."""

NEAR_BYTES, FAR_BYTES = 40, 9
"""Bytes per cycle that a core reads from its second-level cache, and from behind it."""


def _accumulators(rows: int, channels: int, total: int, is_far: bool, machine: Machine) -> tuple[int, int]:
    """Tiles and vectors that are multiplied at once.

    Of all that fit in the registers those that take the fewest cycles for ``rows`` tiles: weights should not come in faster than
    they can be used, so the further away they are, the more tiles share a vector of them.
    """
    spare = 0 if machine.registers >= 32 else 1
    found: list[tuple[float, int, int]] = []
    for vectors in range(min(4, total), 0, -1):
        for pixels in range(1, min(rows, (machine.registers - spare) // vectors - 1, MOST_PIXELS) + 1):
            passes = -(-rows // pixels)
            line = vectors * machine.vector_bytes
            run = max(pixels * vectors / 2, (pixels + vectors) / 2, 4.0)
            first = max(run, line / (FAR_BYTES if is_far else NEAR_BYTES))
            again = run if channels * line <= 24 * 1024 else max(run, line / NEAR_BYTES)
            cycles = (first + (passes - 1) * again) * -(-total // vectors)
            found.append((cycles, -vectors, pixels))
    _, vectors, pixels = min(found)
    return pixels, -vectors


MOST_PIXELS = 20
"""Accumulators of one vector of columns at the most: then broadcasts, not multiplications, are what takes time."""


def cut(plan: WinogradPlan, batch: int) -> Cut:
    """Chunks and parts for a batch: a run-time matter, the code is the same for all."""
    tiles = batch * plan.tiles
    if not tiles:
        return Cut(plan.pixels, 0, 1)
    work = tiles * plan.products * plan.channels * plan.columns
    wanted = max(1, min(TASKS, work // TASK_PRODUCTS))
    chunks = -(-tiles // plan.most)
    if chunks < wanted:
        chunks = min(-(-tiles // plan.usual), wanted)
    if chunks > 1:
        chunks += chunks % 2
    each = -(--(-tiles // chunks) // plan.pixels) * plan.pixels
    chunks = -(-tiles // each)
    # parts of the output channels read fewer weights, but each thread transforms the inputs of all
    parts = min(plan.blocks, -(-wanted // chunks))
    return Cut(each, chunks, -(-plan.blocks // -(-plan.blocks // parts)))


# --- what it takes ---------------------------------------------------------------------------------------------------------

DIRECT_RATE = 58e9
"""Multiplications per second of one core in the direct algorithm, by a vector of 16 lanes."""

PRODUCT_RATE = 55e9
"""The same in the products of transformed tiles."""

VECTOR_SECONDS = {4: (34e-9, 26e-9), 2: (14e-9, 9e-9)}
"""To transform one tile of one vector of input channels, and of output channels with its epilogue."""

NEAR_RATE, FAR_RATE = 40e9, 9e9
"""Bytes of weights per second that a core reads from its own cache, and from behind it."""


def winograd_seconds(plan: WinogradPlan, machine: Machine, batch: int, prepares: bool) -> float:
    """About how long one core would take.  ``prepares``: the weights are transformed in every call."""
    shares = cut(plan, batch)
    scale = 16 / plan.lanes
    rows = shares.chunks * shares.chunk
    products = rows * plan.products * plan.channels * plan.blocks * plan.width
    tiles = batch * plan.tiles
    into, out = VECTOR_SECONDS[plan.outputs]
    vectors = -(-plan.channels // plan.lanes) * shares.parts * into + -(-plan.columns // plan.lanes) * out
    read = plan.weight_elements * 4
    again = shares.chunks * read / (NEAR_RATE if read < machine.cache_bytes // 2 else FAR_RATE)
    # reading overlaps with multiplying: what takes longer counts, with a part of the other
    run = products * scale / PRODUCT_RATE
    once = read / FAR_RATE * 1.5 if prepares else 0.0
    return max(run, again) + 0.25 * min(run, again) + tiles * vectors + once


def direct_seconds(c: Contraction, machine: Machine) -> float:
    """About how long one core takes for the convolution as it stands."""
    lanes = machine.lanes(c.dtype.bytes)
    products = c.batch * c.places * c.taps * c.channels * -(-c.columns // lanes) * lanes
    read = c.taps * c.channels * c.columns * 4 / FAR_RATE
    run = products * (16 / lanes) / DIRECT_RATE
    return max(run, read) + 0.25 * min(run, read)


def best_plan(c: Contraction, machine: Machine, prepares: bool) -> WinogradPlan | None:
    """The plan that is fastest by estimate; None where the direct algorithm is."""
    if not suits(c) or math.prod(axis.only.count for axis in c.axes) == 0:
        return None
    plans = [plan_winograd(c, machine, outputs) for outputs in (4, 2)]
    costs = [winograd_seconds(plan, machine, max(1, c.batch), prepares) for plan in plans]
    best = min(range(len(plans)), key=costs.__getitem__)
    return plans[best] if costs[best] < 0.95 * direct_seconds(c, machine) else None
