"""In which tiles, blocks and tasks a contraction is computed by the direct algorithm.

Everything here follows from shapes and the machine: never from the batch or the number of threads, so that the same source
serves every batch and the same bits come out on any number of threads.

A *tile* is ``pixels`` x ``vectors`` accumulators, held in registers while the sum runs.  A *block* is the columns of a tile; its
packed weights, the *panel*, are read by one tile of pixels after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from irconv.backends.codegen.machine import Machine
from irconv.backends.native.kernels.contraction import Contraction

MACS = 1_750_000
"""Products in a task, about: 25 us on one core."""

REUSE = 98
"""Pixels for which a panel that comes from memory is used in a task at the least, where there are so many."""

MANY = 16
"""So many tasks are shared out evenly enough, whatever their number."""

THREADS = (2, 4)
"""Threads that few tasks should keep busy."""

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

PENALTY = {1: 1.3, 2: 1.0, 3: 0.97, 4: 1.02}
"""What a tile of so many vectors takes for each product, measured: broadcasts are shared by few multiplications, or one
accumulator too many for the registers."""

UNEVEN = 1.04
"""What tiles take that do not end where rows end: their pixels are looked at one by one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a contraction is cut.

    lanes:     of a vector.
    pixels, vectors: of a tile.
    single:    whether tiles of one pixel have code of their own.
    blocks:    of columns, per group.
    task_blocks, chunk: blocks and pixels of one task.
    pixels_outer: a tile's blocks one after the other; else a block's tiles (its panel then stays in cache).
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
        return f"direct {self.pixels}x{self.vectors}, tasks {self.chunk}x{self.task_blocks}, {order}"


@dataclass(frozen=True, slots=True)
class Wish:
    """Where a plan is to differ from what the cost model likes.

    tile:  (pixels, vectors) of a tile.
    outer: whether the pixels are the outer loop of a task.
    share: products of a task, as a multiple of ``MACS``.
    """

    tile: tuple[int, int] | None = None
    outer: bool | None = None
    share: float = 1.0


def plans(c: Contraction, machine: Machine) -> list[Plan]:
    """Plans of the direct algorithm that may be the fastest, the cost model's first.

    Besides that one: the best tile with each number of vectors, the other order of loops, and tasks of other sizes.
    """
    tiles = _tiles(c, machine.lanes(c.dtype.bytes), machine)
    usual = make_plan(c, machine)
    by_vectors = {tile[1]: tile for _, *tile in reversed(tiles)}
    wishes = [Wish((pixels, vectors)) for vectors, (pixels, _) in by_vectors.items()]
    wishes += [Wish(outer=not usual.pixels_outer), Wish(share=0.5), Wish(share=2.0)]
    return list(dict.fromkeys([usual, *(make_plan(c, machine, wish) for wish in wishes)]))


def make_plan(c: Contraction, machine: Machine, wish: Wish = Wish()) -> Plan:
    """The plan of the direct algorithm that the cost model likes best, but for what is wished."""
    lanes = machine.lanes(c.dtype.bytes)
    pixels, vectors = wish.tile or _best_tile(c, lanes, machine, wish)
    copied = _is_copied(c)
    blocks, panel = _blocks(c, lanes * vectors)
    task_blocks, chunk, outer = _cut(c, blocks, panel, pixels, machine, wish)
    single = c.places == 1 and pixels > 1
    planar = copied and c.x_channel != 1 and c.x_strides[-1] == 1 and c.channels <= FEW
    prefetched = blocks * panel * c.dtype.bytes > NEAR
    table = c.has_residues or not (copied or c.is_inside)
    return Plan(lanes, pixels, vectors, single, blocks, task_blocks, chunk, outer, copied, planar, prefetched, table)


def _blocks(c: Contraction, width: int) -> tuple[int, int]:
    """Blocks of so many columns, and elements of a panel."""
    return -(-c.columns // width), c.taps * (NOMINAL if c.long else c.channels) * width


def _best_tile(c: Contraction, lanes: int, machine: Machine, wish: Wish) -> tuple[int, int]:
    """Pixels and vectors of the tile that takes the least, waiting for the last tasks included."""
    tiles = _tiles(c, lanes, machine)

    def cost(tile: tuple[float, int, int]) -> float:
        work, pixels, vectors = tile
        blocks, panel = _blocks(c, lanes * vectors)
        task_blocks, chunk, _ = _cut(c, blocks, panel, pixels, machine, wish)
        return work * _idle(-(-c.places // chunk) * -(-blocks // task_blocks) * c.group_count)

    least = tiles[0][0]
    return min((tile for tile in tiles if tile[0] <= CLOSE * least), key=cost)[1:]


def _idle(tasks: int) -> float:
    """What few tasks take together, as a multiple of what they would take if they could be shared out evenly."""
    if tasks >= MANY or tasks < 2:
        return 1.0
    return sum(-(-tasks // threads) * threads / tasks for threads in THREADS) / len(THREADS)


def _tiles(c: Contraction, lanes: int, machine: Machine) -> list[tuple[float, int, int]]:
    """Cost, pixels and vectors of tiles, the best first.

    Good is little padding of the last block and the last tile, and many accumulators for each load.
    """
    total = -(-c.columns // lanes)
    most = 4 if machine.registers >= 32 else 3
    found: list[tuple[float, int, int]] = []
    for vectors in range(most, 0, -1):
        limit = machine.registers // vectors - 1 if vectors == 4 else (machine.registers - vectors - 1) // vectors
        limit = min(10 if vectors == 1 else 14, limit)
        for pixels in range(limit, max(1, limit // 2), -1):
            columns = -(-total // vectors) * vectors * PENALTY[vectors]
            panel = c.taps * (NOMINAL if c.long else c.channels) * vectors * lanes * c.dtype.bytes
            crowded = CROWDED if 3 * panel > machine.cache_bytes else 1.0
            cost = columns * _pixel_cost(c, pixels, limit) * _latency(pixels * vectors) * crowded
            found.append((round(cost, 9), pixels, vectors))
    return sorted(found, key=lambda each: each[0])


def _pixel_cost(c: Contraction, pixels: int, limit: int) -> float:
    """What a pixel takes in tiles of so many: pixels of the last tile that are not there, smaller tiles, uneven ones."""
    cost = 1 + 0.08 * (1 - pixels / limit)
    if c.places > 1:
        cost *= -(-c.places // pixels) * pixels / c.places
        row = c.axes[-1].only.count
        if row % pixels and pixels % row:
            cost *= UNEVEN
    return cost


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
) -> tuple[int, int, bool]:
    """Blocks and pixels of a task, and whether pixels are the outer loop in it."""
    weights, products = blocks * panel, round(MACS * wish.share)
    fits = weights * c.dtype.bytes <= machine.cache_bytes // 2 if wish.outer is None else wish.outer
    task_blocks = blocks
    if fits:
        chunk = products // weights
        while task_blocks > 1 and c.places * weights > 8 * MACS and -(-c.places // max(chunk, pixels)) < 8:
            task_blocks = -(-task_blocks // 2)
            chunk = products // (task_blocks * panel)
    else:
        task_blocks = max(1, min(blocks, 65536 // panel))
        chunk = max(REUSE, products // (task_blocks * panel))
    chunk = -(-max(1, chunk) // pixels) * pixels
    if c.places > 1 and chunk < c.places:
        others = c.group_count * -(-blocks // task_blocks)
        chunk = _even_chunk(c.places, pixels, -(-c.places // chunk), others)
    if not fits:
        task_blocks = even_share(blocks, task_blocks, c.group_count * -(-c.places // chunk))
    return task_blocks, chunk, fits


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


def _even_chunk(places: int, pixels: int, count: int, others: int) -> int:
    """Pixels of a chunk, whole tiles, where at least ``count`` are to make up an image; each is ``others`` tasks.

    Where tasks are few, some chunks more may leave fewer threads idle at the end: 3 tasks take two threads as long as 4.
    """

    def size(number: int) -> int:
        share = -(-places // number)
        return -(-share // pixels) * pixels

    if count * others >= MANY:
        return size(count)
    sizes = [size(number) for number in range(max(2, count - 1), 2 * count + 1)]
    return min(sizes, key=lambda chunk: _wait(-(-places // chunk) * others, chunk))
