"""In which tiles, blocks and tasks Winograd's algorithm computes; what that costs is in :mod:`.winograd_cost`.

A tile of m x m outputs (m = 4 or 2) takes (m + 2)^2 products for each pair of channels instead of 9 m^2: a quarter, or 4/9.  What
it costs: the transforms, and transformed weights that are 36/9 or 16/9 as large.  Weights that exceed the second-level cache
are fetched ahead while others are multiplied; they are read once for every chunk of tiles, or only once where the
transformed inputs and results of all tiles go through memory instead.
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
    def name(self) -> str:
        """What tells it from other plans of the same convolution."""
        return f"winograd F({self.outputs}x{self.outputs}) {self.pixels}x{self.vectors}"

    @property
    def panel(self) -> int:
        """Transformed weights of a block and a product: [channel][width]."""
        return self.channels * self.width

    @property
    def panel_step(self) -> int:
        """Elements from one product's panels, one of each block, to the next one's."""
        return odd_lines(self.blocks * self.panel)

    @property
    def weight_elements(self) -> int:
        """All transformed weights: [product][block][channel][width]."""
        return self.products * self.panel_step

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
    pixels, vectors = _accumulators(max(tiles, LEAST_ROWS) if is_far else usual, c.channels, total, machine)
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

LEAST_ROWS = 16
"""Tiles for which the accumulators are chosen at the least where weights are far: with fewer, this is not the algorithm."""


def _accumulators(rows: int, channels: int, total: int, machine: Machine) -> tuple[int, int]:
    """Tiles and vectors that are multiplied at once: of all that fit in the registers those that take the fewest cycles."""
    spare = 0 if machine.registers >= 32 else 1
    found: list[tuple[float, int, int]] = []
    for vectors in range(min(4, total), 0, -1):
        most = min(rows, (machine.registers - spare) // vectors - 1, MOST_PIXELS)
        for pixels in range(1, most + 1):
            turns = -(-rows // pixels) * -(-total // vectors)
            found.append((turns * turn_cycles(pixels, vectors, channels, machine.vector_bytes), -vectors, pixels))
    _, vectors, pixels = min(found)
    return pixels, -vectors


def turn_cycles(pixels: int, vectors: int, channels: int, vector_bytes: int) -> float:
    """Cycles for one channel of ``pixels`` tiles by ``vectors`` of output channels.

    Multiplications, loads or waiting for sums, whatever takes longest; loads get in the way of multiplications a little.
    """
    line = vectors * vector_bytes
    loads = pixels + 2 * vectors
    run = max(pixels * vectors / 2, loads / 2, 4.0) + loads * IN_THE_WAY
    return run if channels * line <= NEAREST else max(run, line / NEAR_BYTES)


IN_THE_WAY = 0.05
"""Cycles that a load adds where multiplications are what takes time."""

NEAR_BYTES = 24
"""Bytes per cycle that a core reads from its second-level cache while it multiplies."""


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
