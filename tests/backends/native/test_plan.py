"""How the direct algorithm cuts contractions into tasks: evenly where they are few, each tile of each block once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irconv.backends.codegen.machine import MACHINES
from irconv.backends.native.kernels.contraction import Contraction, forward_axis
from irconv.backends.native.kernels.plan import MACS, Plan, Wish, make_plan, plans
from irconv.backends.native.kernels.shares import Grid
from irconv.types import F32

MACHINE = MACHINES["avx512"]


def pointwise(size: int, channels: int, columns: int) -> Contraction:
    """A 1x1 convolution of images stored channels last."""
    axis = forward_axis(size, size, 1, 1, 1, 0)
    strides = (size * size * channels, size * channels, channels)
    return Contraction("conv", F32, 1, (axis, axis), channels, columns, strides, 1, (0, 0), 1, channels, (0, 2, 3), 1)


def sizes(c: Contraction, plan: Plan) -> list[int]:
    """Tiles times blocks of each task, in the order of the tasks."""
    tiles = -(-c.places // plan.pixels)
    blocks = [min(plan.task_blocks, plan.blocks - first) for first in range(0, plan.blocks, plan.task_blocks)]
    chunks = [
        min(tiles, (start + plan.chunk) // plan.pixels) - start // plan.pixels for start in range(0, c.places, plan.chunk)
    ]
    found = [n * b for n in chunks for b in blocks] if plan.by_pixels else [n * b for b in blocks for n in chunks]
    assert sum(found) == tiles * plan.blocks
    return found


LAYERS = [(14, 64, 384), (14, 384, 64), (14, 96, 576), (14, 576, 96), (7, 160, 960), (7, 960, 160), (7, 320, 1280), (28, 32, 192)]


@pytest.mark.parametrize("size, channels, columns", LAYERS)
def test_two_threads_have_as_much_to_do(size: int, channels: int, columns: int) -> None:
    c = pointwise(size, channels, columns)
    tasks = sizes(c, make_plan(c, MACHINE))
    first = sum(tasks[: len(tasks) // 2])
    assert max(first, sum(tasks) - first) <= 0.53 * sum(tasks)


@given(st.integers(1, 60), st.integers(1, 500), st.integers(1, 700), st.booleans(), st.booleans())
def test_tasks_cover_each_tile_of_each_block_once(
    size: int, channels: int, columns: int, coarse: bool, outer: bool
) -> None:
    c = pointwise(size, channels, columns)
    for plan in (make_plan(c, MACHINE, Wish(coarse=coarse)), make_plan(c, MACHINE, Wish(outer=outer, coarse=coarse))):
        assert plan.chunk % plan.pixels == 0 and 1 <= plan.task_blocks <= plan.blocks
        assert (plan.blocks - 1) * plan.width < columns <= plan.blocks * plan.width
        sizes(c, plan)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4), st.integers(1, 45), st.integers(1, 40), st.booleans())
def test_what_comes_before_a_task(tiles: int, blocks: int, groups: int, share: int, cut: int, by_pixels: bool) -> None:
    """The sums of tasks by formula, against tasks counted one by one."""
    grid = Grid(tiles, blocks, groups, 1, by_pixels)
    widths = [min(cut, blocks - block) for block in range(0, blocks, cut)]
    lengths = [min(share, tiles - tile) for tile in range(0, tiles, share)]
    image = [n * b for n in lengths for b in widths] if by_pixels else [n * b for b in widths for n in lengths]
    each = image * groups
    assert [grid.before(task, share, cut) for task in range(len(each) + 1)] == [sum(each[:task]) for task in range(len(each) + 1)]
    assert sum(each) == tiles * blocks * groups


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(1, 40))
def test_no_cut_leaves_threads_waiting_longer_than_the_largest(tiles: int, blocks: int, most: int, most_blocks: int) -> None:
    grid = Grid(tiles, blocks, 1, 50_000, False)
    most_blocks = min(most_blocks, blocks)
    share, cut = grid.cut(range(1, 1 + most), range(1, 1 + most_blocks), 1)
    assert 1 <= share <= most and 1 <= cut <= most_blocks
    assert 1 <= grid.idle(share, cut) <= grid.idle(most, most_blocks)


def test_what_threads_share_is_the_smaller_part() -> None:
    """Tasks are some of the columns for all pixels where weights are much larger than the image, else some of the pixels."""
    by_columns, by_pixels = make_plan(pointwise(7, 160, 960), MACHINE), make_plan(pointwise(14, 576, 96), MACHINE)
    assert by_columns.chunk >= 49 and by_columns.task_blocks < by_columns.blocks
    assert by_pixels.chunk < 196 and by_pixels.task_blocks == by_pixels.blocks
    assert by_pixels.by_pixels and not by_pixels.pixels_outer  # each panel is fetched while the one before it is in use


def test_coarse_tasks_stay_large() -> None:
    """What is done once for each task (sums of a batch norm) is done for many products, or for a whole image."""
    for size, channels, columns in LAYERS:
        c = pointwise(size, channels, columns)
        plan = make_plan(c, MACHINE, Wish(coarse=True))
        products = plan.chunk * channels * min(columns, plan.task_blocks * plan.width)
        assert plan.chunk >= c.places or products >= MACS // 4
        assert not plan.by_pixels
        assert plans(c, MACHINE, coarse=True)[0] == plan
