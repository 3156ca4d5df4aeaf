"""When Winograd's algorithm pays, and in which tiles, blocks and tasks.

A tile of m x m outputs (m = 4 or 2) takes (m + 2)^2 products for each pair of channels instead of 9 m^2: a quarter, or 4/9.  What
it costs: the transforms, and transformed weights that are 36/9 or 16/9 as large and are read once for every chunk of tiles.
"""

from __future__ import annotations

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


def odd_lines(elements: int) -> int:
    """At least so many elements, an odd number of cache lines: so many apart, neighbours do not meet in a cache."""
    return (-(-elements // LINE) | 1) * LINE


@dataclass(frozen=True, slots=True)
class WinogradPlan:
    """How a convolution is cut.

    outputs: m, of a tile along each axis.   lanes: of a vector.
    down, along: tiles of an image.
    pixels, vectors: tiles and vectors of channels that are multiplied at once, in registers.
    blocks:  of output channels, ``width`` each.
    is_far:  whether the transformed weights exceed a core's second-level cache.
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
    is_far: bool
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
    def is_phased(self) -> bool:
        """Whether inputs, products and results are phases over all tiles: reading the weights again would take longer."""
        per_image = self.products * self.tiles * (self.channels + self.blocks * self.width)
        return self.is_far and self.weight_elements > 2 * per_image

    @property
    def input_step(self) -> int:
        """Elements from one product's transformed inputs to the next one's."""
        return odd_lines(self.most * self.channels)

    @property
    def output_step(self) -> int:
        """The same for the results of the products."""
        return odd_lines(self.most * self.width)

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
    rows = max(usual, LEAST_ROWS) if is_far else usual
    pixels, vectors = _accumulators(rows, c.channels, total, is_far, machine)
    blocks = -(-total // vectors)
    fitting = machine.cache_bytes // 2 // (products * c.dtype.bytes * (c.channels + vectors * lanes))
    most = max(usual, min(fitting, MOST_TILES) if is_far else usual)
    most = -(-most // pixels) * pixels
    return WinogradPlan(outputs, lanes, down, along, c.channels, c.columns, pixels, vectors, blocks, is_far, usual, most)


def _even_chunk(tiles: int, most: int) -> int:
    """Tiles of a chunk where an image has so many: all of them, or an even number of chunks."""
    chunks = -(-tiles // most)
    return -(-tiles // (chunks + chunks % 2)) if chunks > 1 else tiles


NEAR_TILES, FAR_TILES, MOST_TILES = 16, 32, 112
"""Tiles of a chunk, about: where the weights stay in cache, where they come from behind it, and with many images."""

NEAR_BYTES, FAR_BYTES = 40, 9
"""Bytes per cycle that a core reads from its second-level cache, and from behind it."""


LEAST_ROWS = 16
"""Tiles for which the accumulators are chosen at the least where weights are far: with fewer, this is not the algorithm."""


def _accumulators(rows: int, channels: int, total: int, is_far: bool, machine: Machine) -> tuple[int, int]:
    """Tiles and vectors that are multiplied at once: of all that fit in the registers those that take the fewest cycles."""
    spare = 0 if machine.registers >= 32 else 1
    found: list[tuple[float, int, int]] = []
    for vectors in range(min(4, total), 0, -1):
        most = min(rows, (machine.registers - spare) // vectors - 1, MOST_PIXELS)
        for pixels in range(1, most + 1):
            cycles = product_cycles(rows, pixels, vectors, channels, total, is_far, machine)
            found.append((cycles, -vectors, pixels))
    _, vectors, pixels = min(found)
    return pixels, -vectors


def product_cycles(
    rows: int, pixels: int, vectors: int, channels: int, total: int, is_far: bool, machine: Machine
) -> float:
    """Cycles for ``rows`` tiles, one channel of one product and all ``total`` vectors of output channels.

    Weights should not come in faster than they can be used: the further away they are, the more tiles have to share a vector of
    them.  Measured with 256 channels at 14x14: tiles by vectors 4 x 4 takes 0.92 ms, 16 x 1 0.55 ms.
    """
    line = vectors * machine.vector_bytes
    run = max(pixels * vectors / 2, (pixels + vectors) / 2, 4.0)
    first = max(run, line / (FAR_BYTES if is_far else NEAR_BYTES))
    again = run if channels * line <= NEAREST else max(run, line / NEAR_BYTES)
    return (first + (-(-rows // pixels) - 1) * again) * -(-total // vectors)


NEAREST = 24 * 1024
"""Bytes of weights that stay in a first-level cache beside what else is there."""

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
        chunks = max(chunks, min(-(-tiles // plan.usual), wanted))
    if chunks > 1:
        chunks += chunks % 2
    share = -(-tiles // chunks)
    each = -(-share // plan.pixels) * plan.pixels
    chunks = -(-tiles // each)
    # parts of the output channels read fewer weights, but each thread transforms the inputs of all
    parts = min(plan.blocks, -(-wanted // chunks))
    return Cut(each, chunks, -(-plan.blocks // -(-plan.blocks // parts)))


@dataclass(frozen=True, slots=True)
class PhaseCut:
    """How phases over all tiles are shared out: ``chunk`` tiles to a task, each product in ``parts`` of the blocks.

    padded: tiles that are multiplied.
    """

    padded: int
    chunk: int
    parts: int


def cut_phases(plan: WinogradPlan, batch: int) -> PhaseCut:
    """The shares of a batch: a run-time matter, the code is the same for all."""
    padded = -(-batch * plan.tiles // plan.pixels) * plan.pixels
    vectors = -(-plan.channels // plan.lanes) + plan.blocks * plan.vectors
    chunk = max(1, TASK_VECTORS // vectors)
    work = padded * plan.channels * plan.blocks * plan.width
    return PhaseCut(padded, chunk, max(1, min(plan.blocks, work // TASK_PRODUCTS // 2)))


TASK_VECTORS = 128
"""Vectors of a tile that a task transforms, about: 10 us."""


# --- what it takes ---------------------------------------------------------------------------------------------------------

CLOCK = 2.9e9
"""Cycles per second; only the ratio to the direct algorithm matters."""

VECTOR_CYCLES = {4: (290, 200), 2: (95, 70)}
"""To transform one tile of one vector of input channels, and of output channels with its epilogue."""

WRITE_RATE, PACK_RATE, READ_RATE = 12e9, 8e9, 12e9
"""Bytes per second: transformed and packed weights written, and weights read for the first time.

In a network they come from memory, the caches having been filled by other layers since."""

ONE, SEVERAL = 1, 8
"""Images for which the choice is made: when the weights stay as they are (inference), and in training.

It cannot depend on the batch itself, for the code would then change with it."""


def winograd_seconds(plan: WinogradPlan, machine: Machine, batch: int, prepares: bool) -> float:
    """About how long one core would take.  ``prepares``: the weights are transformed in every call."""
    shares = Cut(cut_phases(plan, batch).padded, 1, 1) if plan.is_phased else cut(plan, batch)
    total = -(-plan.columns // plan.lanes)
    rows = min(shares.chunk, batch * plan.tiles)
    each = product_cycles(rows, plan.pixels, plan.vectors, plan.channels, total, plan.is_far, machine)
    run = shares.chunks * plan.products * plan.channels * each
    into, out = VECTOR_CYCLES[plan.outputs]
    vectors = -(-plan.channels // plan.lanes) * min(2, shares.parts) * into + total * out
    weights = plan.weight_elements * 4
    once = weights / READ_RATE + (weights / WRITE_RATE if prepares else 0.0)
    return (run + batch * plan.tiles * vectors) / CLOCK + once


def direct_seconds(c: Contraction, machine: Machine, batch: int, prepares: bool) -> float:
    """About how long one core takes for the convolution as it stands."""
    lanes = machine.lanes(c.dtype.bytes)
    run = batch * c.places * c.taps * c.channels * -(-c.columns // lanes) / 2
    weights = c.taps * c.channels * c.columns * c.dtype.bytes
    return run / CLOCK + weights / READ_RATE + (weights / PACK_RATE if prepares else 0.0)


def best_plan(c: Contraction, machine: Machine, prepares: bool) -> WinogradPlan | None:
    """The plan that is fastest by estimate; None where the direct algorithm is."""
    if not suits(c) or 0 in (c.channels, c.columns, *(axis.only.count for axis in c.axes)):
        return None
    batch = SEVERAL if prepares else ONE
    plans = [plan_winograd(c, machine, outputs) for outputs in (4, 2)]
    costs = [winograd_seconds(plan, machine, batch, prepares) for plan in plans]
    best = min(range(len(plans)), key=costs.__getitem__)
    return plans[best] if costs[best] < MARGIN * direct_seconds(c, machine, batch, prepares) else None


MARGIN = 0.9
"""Winograd's algorithm has to be so much faster: it rounds more."""
