"""In which tiles, blocks and tasks a contraction is computed by the direct algorithm.

Everything here follows from shapes and the machine: never from the batch or the number of threads, so that the same source
serves every batch and the same bits come out on any number of threads.

A *tile* is ``pixels`` x ``vectors`` accumulators, held in registers while the sum runs.  A *block* is the columns of a tile; its
packed weights, the *panel*, are read by one tile of pixels after the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from irconv.backends.codegen.machine import Machine
from irconv.backends.native.kernels.contraction import Contraction, linear
from irconv.backends.native.kernels.shares import THREADS, Grid

MACS = 1_750_000
"""Products in a task, about: 25 us on one core."""

REUSE = 98
"""Pixels for which a panel that comes from memory is used in a task at the least, where there are so many."""

MANY = 16
"""So many tasks are shared out evenly enough, whatever their number."""

SPLIT = 12
"""Tasks may be so many times smaller, where they are few: 2 us."""

FEW_TILES = 64
"""So few tiles make it worth while to spare the first one of each thread the wait for its weights."""

AGAIN = 4
"""Weights that are so many times as large as an image are not all read by every task, but an image is: threads would have to
bring the same weights from memory, each for itself."""

STREAM = 3
"""Tiles for which a panel is used in a task at the least, so that the next one is fetched meanwhile."""

CLOSE = 1.08
"""Tiles that take so much more than the best may be better, where their tasks can be shared out more evenly."""

TABLE = 1 << 14
"""The most pointers that a tile may need."""

CROWDED = 1.2
"""What tiles take whose panel fills more than a third of the second-level cache."""

NOMINAL = 256
"""Channels to plan for where their number is not known before run time."""

NEAR = 48 * 1024
"""Bytes that stay in the first-level cache."""

FEW = 4
"""So many channels are few."""

PENALTY = {1: 1.3, 2: 1.0, 3: 0.975, 4: 0.965}
"""What a tile of so many vectors takes for each product, measured: broadcasts are shared by few multiplications."""

TIGHT = 1.02
"""The same for tiles with so many accumulators that no register is left for a broadcast."""

UNEVEN = 1.04
"""What tiles take that do not end where rows end: their pixels are looked at one by one."""

SOMEWHAT_UNEVEN = 1.015
"""The same where there are many channels, so that a pixel is looked at for many products."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a contraction is cut.

    lanes:     of a vector.
    pixels, vectors: of a tile.
    single:    whether tiles of one pixel have code of their own.
    blocks:    of columns, per group.
    task_blocks, chunk: blocks and pixels of one task.
    pixels_outer: a tile's blocks one after the other; else a block's tiles (its panel then stays in cache).
    by_pixels: neighbouring tasks have the same pixels where they can; else the same blocks.
    copied:    the input is copied first with its padding, channels last,
    planar:    or channel by channel as it is; the sum then runs over channels first, over taps in them.
    prefetched: weights are fetched ahead: those of a block do not stay in the first-level cache.
    table:     taps may fall outside: each tile has a table of pointers, some to a row of zeros.
    """

    lanes: int
    pixels: int
    vectors: int
    single: bool
    blocks: int
    task_blocks: int
    chunk: int
    pixels_outer: bool
    by_pixels: bool
    copied: bool
    planar: bool
    prefetched: bool
    table: bool

    @property
    def width(self) -> int:
        """Columns of a block."""
        return self.lanes * self.vectors

    @property
    def name(self) -> str:
        """What tells it from other plans of the same contraction."""
        order = "pixels outside" if self.pixels_outer else "blocks outside"
        near = " of some pixels" if self.by_pixels else ""
        return f"direct {self.pixels}x{self.vectors}, tasks {self.chunk}x{self.task_blocks}, {order}{near}"


@dataclass(frozen=True, slots=True)
class Cut:
    """The part of a plan that says what a task is."""

    task_blocks: int
    chunk: int
    pixels_outer: bool
    by_pixels: bool


@dataclass(frozen=True, slots=True)
class Wish:
    """Where a plan is to differ from what the cost model likes.

    tile:  (pixels, vectors) of a tile.
    outer: whether the pixels are the outer loop of a task.
    share: products of a task, as a multiple of ``MACS``.
    coarse: whether tasks are to be large: something is done once for each.
    """

    tile: tuple[int, int] | None = None
    outer: bool | None = None
    share: float = 1.0
    coarse: bool = False


@lru_cache(maxsize=1024)  # networks have many layers of one shape
def plans(c: Contraction, machine: Machine, coarse: bool = False) -> tuple[Plan, ...]:
    """Plans of the direct algorithm that may be the fastest, the cost model's first.

    Besides that one: the best tile with each number of vectors, the other order of loops, and tasks of other sizes.

    coarse: whether tasks are to be large.
    """
    tiles = _tiles(c, machine.lanes(c.dtype.bytes), machine)
    usual = make_plan(c, machine, Wish(coarse=coarse))
    by_vectors = {tile[1]: tile for _, *tile in reversed(tiles)}
    wishes = [Wish((pixels, vectors)) for vectors, (pixels, _) in by_vectors.items()]
    tile = (usual.pixels, usual.vectors)
    wishes += [Wish(tile, outer=not usual.pixels_outer), Wish(tile, share=0.5), Wish(tile, share=2.0)]
    return tuple(dict.fromkeys([usual, *(make_plan(c, machine, replace(wish, coarse=coarse)) for wish in wishes)]))


def make_plan(c: Contraction, machine: Machine, wish: Wish = Wish()) -> Plan:
    """The plan of the direct algorithm that the cost model likes best, but for what is wished."""
    lanes = machine.lanes(c.dtype.bytes)
    pixels, vectors = wish.tile or _best_tile(c, lanes, machine, wish)
    copied = _is_copied(c)
    blocks, panel = _blocks(c, lanes * vectors)
    cut = _cut(c, blocks, panel, pixels, machine, wish)
    single = c.places == 1 and pixels > 1
    planar = copied and c.x_channel != 1 and c.x_strides[-1] == 1 and c.channels <= FEW
    prefetched = blocks * panel * c.dtype.bytes > NEAR
    table = c.has_residues or not (copied or c.is_inside)
    held = (cut.task_blocks, cut.chunk, cut.pixels_outer, cut.by_pixels)
    return Plan(lanes, pixels, vectors, single, blocks, *held, copied, planar, prefetched, table)


def _blocks(c: Contraction, width: int) -> tuple[int, int]:
    """Blocks of so many columns, and elements of a panel."""
    return -(-c.columns // width), c.taps * (NOMINAL if c.long else c.channels) * width


def _best_tile(c: Contraction, lanes: int, machine: Machine, wish: Wish) -> tuple[int, int]:
    """Pixels and vectors of the tile that takes the least, waiting for the last tasks included."""
    tiles = _tiles(c, lanes, machine)

    def cost(tile: tuple[float, int, int]) -> float:
        work, pixels, vectors = tile
        blocks, panel = _blocks(c, lanes * vectors)
        cut = _cut(c, blocks, panel, pixels, machine, wish)
        if c.places == 1:  # rows of a matrix, of which there may be any number
            return work
        grid = Grid(-(-c.places // pixels), blocks, c.group_count, panel * pixels, cut.by_pixels)
        return work * grid.idle(cut.chunk // pixels, cut.task_blocks)

    least = tiles[0][0]
    return min((tile for tile in tiles if tile[0] <= CLOSE * least), key=cost)[1:]


def _tiles(c: Contraction, lanes: int, machine: Machine) -> list[tuple[float, int, int]]:
    """Cost, pixels and vectors of tiles, the best first.

    Good is little padding of the last block and the last tile, and many accumulators for each load.
    """
    total = -(-c.columns // lanes)
    most = 4 if machine.registers >= 32 else 3
    found: list[tuple[float, int, int]] = []
    for vectors in range(most, 0, -1):
        room = min(10 if vectors == 1 else 14, (machine.registers - vectors - 1) // vectors)
        limit = max(room, machine.registers // vectors - 1) if vectors == 4 and c.channels > FEW else room
        for pixels in range(limit, max(1, limit // 2), -1):
            penalty = 1.0 if vectors == 4 and c.places == 1 else PENALTY[vectors]
            columns = -(-total // vectors) * vectors * penalty
            panel = c.taps * (NOMINAL if c.long else c.channels) * vectors * lanes * c.dtype.bytes
            crowded = CROWDED if 3 * panel > machine.cache_bytes else 1.0
            cost = columns * _pixel_cost(c, pixels, vectors, room) * _latency(pixels * vectors) * crowded
            found.append((round(cost, 9), pixels, vectors))
    return sorted(found, key=lambda each: each[0])


def _pixel_cost(c: Contraction, pixels: int, vectors: int, limit: int) -> float:
    """What a pixel takes in tiles of so many: pixels of the last tile that are not there, smaller tiles, uneven ones."""
    cost = 1 + 0.05 * vectors * (1 - pixels / limit) if pixels <= limit else TIGHT
    if c.places > 1:
        cost *= -(-c.places // pixels) * pixels / c.places
        row = c.axes[-1].only.count
        if row % pixels and pixels % row and not _is_linear(c):
            cost *= UNEVEN if c.channels < 64 or c.has_residues else SOMEWHAT_UNEVEN
    return cost


def _is_linear(c: Contraction) -> bool:
    """Whether the pixels follow each other at one distance, rows or not."""
    steps = [c.x_strides[0], *(s * a.step for s, a in zip(c.x_strides[1:], c.axes, strict=True))]
    return c.taps == 1 and c.is_inside and linear([a.only.count for a in c.axes], steps) is not None


def _latency(accumulators: int) -> float:
    """What a product takes where there are few accumulators: each waits for its last sum."""
    return 1 + 0.04 * max(0, 12 - accumulators)


def _is_copied(c: Contraction) -> bool:
    """Whether to copy the input: where channels lie far apart, or are so few that loops over taps would cost much."""
    if c.has_residues or (c.taps == 1 and c.is_inside):
        return False
    if c.is_inside:
        return c.x_channel != 1 and c.channels <= FEW
    return c.x_channel != 1 or c.channels <= FEW


def _cut(
    c: Contraction, blocks: int, panel: int, pixels: int, machine: Machine, wish: Wish
) -> Cut:
    """How the work is cut into tasks."""
    weights, products = blocks * panel, round(MACS * wish.share)
    coarse = wish.coarse or c.has_residues
    tiles = -(-c.places // pixels)
    near = 2 * weights * c.dtype.bytes <= machine.cache_bytes
    shared = coarse or c.places == 1 or weights <= AGAIN * c.places * c.channels
    fits = near and shared if wish.outer is None else wish.outer
    apart = fits and not coarse and wish.outer is None and blocks > 1 and _is_apart(c, tiles, weights)
    if fits:
        task_blocks, most, least = blocks, -(-products // (weights * pixels)), 1
    else:
        task_blocks = max(1, min(blocks, 65536 // panel))
        most = max(STREAM, -(-max(REUSE, products // (task_blocks * panel)) // pixels))
        least = min(most, max(STREAM, -(-tiles // 2)))
    if apart:
        most, least = max(most, 2 * STREAM + 1), STREAM
    if coarse:
        least = -(-most // 2)
    fewest = blocks if fits and not apart else -(-task_blocks // 2) if coarse else 1
    grid = Grid(tiles, blocks, c.group_count, panel * pixels, apart)
    share, task_blocks = grid.cut(range(least, 1 + most), range(fewest, 1 + task_blocks), products // SPLIT)
    if c.places == 1 and not fits:  # each weight is read for few rows: memory gives small tasks as much
        task_blocks = even_share(blocks, max(1, min(blocks, 65536 // panel)), c.group_count)
    return Cut(task_blocks, share * pixels, fits and not apart, apart)


def _is_apart(c: Contraction, tiles: int, weights: int) -> bool:
    """Whether each thread takes some pixels and reads all weights for them, block by block.

    So each panel can be fetched while the one before it is in use.  Where tiles are many that is not worth while, for only the
    first waits; nor where all weights stay in the first-level cache.
    """
    return c.taps == 1 and 1 < tiles <= FEW_TILES and weights * c.dtype.bytes > NEAR


def _wait(tasks: int, size: int) -> int:
    """The sizes of the tasks that the busiest thread does, for two and for four threads."""
    return sum(-(-tasks // threads) * size for threads in THREADS)


def even_share(total: int, most: int, others: int = 1, fixed: int = 0) -> int:
    """How many of ``total`` a task takes, at most ``most``: as many as leave few threads idle at the end.

    Each share is ``others`` tasks, and each task takes as long as ``fixed`` more.
    """
    if -(-total // most) * others >= MANY:
        return most
    return min(range(most, 0, -1), key=lambda n: _wait(-(-total // n) * others, n + fixed))
