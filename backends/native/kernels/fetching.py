"""Memory that the direct algorithm asks for before it is needed, so that sums do not wait for it."""

from __future__ import annotations

from dataclasses import dataclass

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import Expression, Pointer, Variable, compare, select
from irconv.backends.native.kernels.plan import Plan

AHEAD = 512
"""Elements from the weights in use to those that are fetched into the first-level cache."""

NEXT = 128
"""The same for a single pixel: weights are then read as fast as memory gives them, and being asked for early gets in its way.

25088 inputs, 4096 outputs on a 2-core AVX-512 virtual machine: 19.1 GB/s, a loop that only reads 18.2, and 17.6 with a distance
of 2048."""


@dataclass
class Following:
    """The panel after the one that is worked on, which is fetched into the second-level cache meanwhile.

    Each of a panel's tiles fetches its share, ``step`` elements for each of its rows: the first tile of the next panel would
    wait for memory otherwise, while the others find it in the cache.  2048 to 512 channels of 7 x 7 pixels, weights not in the
    cache, on a 2-core AVX-512 virtual machine: 860 us without, 578 with it; 520 where all weights are in the cache.
    """

    panel: Pointer
    at: Variable
    step: Expression


def following_panel(
    body: Body, plan: Plan, panel: Pointer, elements: Expression, start: Expression, stop: Expression
) -> Following:
    """The panel of so many elements after this one, to be fetched by the tiles of pixels from ``start`` to before ``stop``.

    A single tile has no time for it.
    """
    tiles = body.let("tiles", (stop - start + (plan.pixels - 1)) // plan.pixels)
    at = body.variable("following", elements)
    step = body.let("share", (tiles + (plan.width - 1)) // tiles)
    return Following(panel, at, body.let("step", select(compare(">", tiles, 1), step, 0)))


def fetch_weights(
    body: Body, plan: Plan, weights: Pointer, channel: Expression, pixels: int, following: Following | None
) -> None:
    """Fetch weights that a tile of so many pixels needs soon, and some of the next panel."""
    ahead = AHEAD if pixels > 1 else NEXT
    for v in range(plan.vectors):
        body.prefetch(weights, channel * plan.width + v * plan.lanes + ahead)
    if following is not None and pixels > 1:
        body.prefetch(following.panel, following.at, far=True)
        body.assign(following.at, following.at + following.step)
