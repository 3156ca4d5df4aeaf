"""When Winograd's algorithm pays: cycles and seconds of its plans, and of the direct algorithm.

The products, the transforms, and the transformed weights on their way from behind the cache: those are fetched while others are
multiplied, so that the longer of the two counts.
"""

from __future__ import annotations

from irconv.backends.codegen.machine import Machine
from irconv.backends.native.kernels.contraction import Contraction
from irconv.backends.native.kernels.winograd_plan import (
    WinogradPlan,
    cut,
    cut_phases,
    plan_winograd,
    suits,
    turn_cycles,
)

CLOCK = 2.9e9
"""Cycles per second; only the ratio to the direct algorithm matters."""

FAR_BYTES, MEMORY_BYTES = 7.0, 2.75
"""Bytes per cycle that a core reads from behind its second-level cache, and from memory when the others read too."""

VECTOR_CYCLES = {4: (290, 200), 2: (95, 70)}
"""To transform one tile of one vector of input channels, and of output channels with its epilogue."""

JUMPS = 1.5
"""Far weights take so much longer chunk by chunk: a thread then jumps from product to product among them."""

PHASE_BYTES = 6.5
"""Bytes per cycle with which a core writes or reads the products' operands and results where they go through memory."""

WRITE_RATE, PACK_RATE, READ_RATE = 12e9, 8e9, 12e9
"""Bytes per second: transformed and packed weights written, and weights read for the first time.

In a network they come from memory, the caches having been filled by other layers since."""

ONE, SEVERAL = 1, 8
"""Images for which the choice is made: when the weights stay as they are (inference), and in training.

It cannot depend on the batch itself, for the code would then change with it."""

MOST_PHASED = 64 * 1024 * 1024
"""Bytes that transformed inputs and products of all tiles may take at the most."""


def is_phased(plan: WinogradPlan, batch: int) -> bool:
    """Whether inputs, products and results are phases over all tiles, the weights being read once.

    A run-time matter: where weights are far, the code has both ways.
    """
    if not plan.is_far or not batch:
        return False
    tiles = cut_phases(plan, batch).padded
    if plan.products * tiles * (plan.channels + plan.blocks * plan.width) * 4 > MOST_PHASED:
        return False
    return phased_cycles(plan, batch, MEMORY_BYTES) < chunked_cycles(plan, batch, MEMORY_BYTES)


def phased_cycles(plan: WinogradPlan, batch: int, first: float) -> float:
    """Cycles of one core, phase by phase; ``first``: bytes of weights per cycle when they are read for the first time."""
    turns = cut_phases(plan, batch).padded // plan.pixels
    bytes_more = plan.products * plan.lanes * 4 / PHASE_BYTES
    into, out = (cycles + bytes_more for cycles in VECTOR_CYCLES[plan.outputs])
    return _products_cycles(plan, turns, first) + batch * plan.tiles * (_inner(plan) * into + _total(plan) * out)


def chunked_cycles(plan: WinogradPlan, batch: int, first: float) -> float:
    """The same, chunk by chunk."""
    shares = cut(plan, batch)
    turns = shares.chunk // plan.pixels
    again = _products_cycles(plan, turns, FAR_BYTES / JUMPS)
    products = _products_cycles(plan, turns, first / JUMPS) + max(0, shares.chunks - 1) * again
    into, out = VECTOR_CYCLES[plan.outputs]
    return products + batch * plan.tiles * (_inner(plan) * min(2, shares.parts) * into + _total(plan) * out)


def _products_cycles(plan: WinogradPlan, turns: int, rate: float) -> float:
    """All products of so many groups of tiles; far weights come in meanwhile, near ones before."""
    multiplied = turns * turn_cycles(plan.pixels, plan.vectors, plan.channels, plan.lanes * 4)
    fetched = plan.width * 4 / rate
    together = max(multiplied, fetched) if plan.is_far else multiplied
    return plan.products * plan.blocks * plan.channels * together


def _inner(plan: WinogradPlan) -> int:
    """Vectors of input channels."""
    return -(-plan.channels // plan.lanes)


def _total(plan: WinogradPlan) -> int:
    """Vectors of output channels."""
    return -(-plan.columns // plan.lanes)


def winograd_seconds(plan: WinogradPlan, batch: int, prepares: bool) -> float:
    """About how long one core would take.  ``prepares``: the weights are transformed in every call."""
    first = FAR_BYTES if prepares else MEMORY_BYTES
    cycles = chunked_cycles(plan, batch, first)
    if is_phased(plan, batch):
        cycles = min(cycles, phased_cycles(plan, batch, first))
    weights = plan.weight_elements * 4
    once = (weights / WRITE_RATE if prepares else 0.0) + (0.0 if plan.is_far else weights / READ_RATE)
    return cycles / CLOCK + once


def direct_seconds(c: Contraction, machine: Machine, batch: int, prepares: bool) -> float:
    """About how long one core takes for the convolution as it stands."""
    lanes = machine.lanes(c.dtype.bytes)
    run = batch * c.places * c.taps * c.channels * -(-c.columns // lanes) / 2
    weights = c.taps * c.channels * c.columns * c.dtype.bytes
    return run / CLOCK + weights / READ_RATE + (weights / PACK_RATE if prepares else 0.0)


def winograd_plans(c: Contraction, machine: Machine) -> list[WinogradPlan]:
    """Every plan that there is for a contraction: none where the algorithm does not apply."""
    if not suits(c) or 0 in (c.channels, c.columns, *(axis.only.count for axis in c.axes)):
        return []
    return [plan_winograd(c, machine, outputs) for outputs in (4, 2)]


def best_plan(c: Contraction, machine: Machine, prepares: bool) -> WinogradPlan | None:
    """The plan that is fastest by estimate; None where the direct algorithm is."""
    plans = winograd_plans(c, machine)
    if not plans:
        return None
    batch = SEVERAL if prepares else ONE
    costs = [winograd_seconds(plan, batch, prepares) for plan in plans]
    best = min(range(len(plans)), key=costs.__getitem__)
    return plans[best] if costs[best] < MARGIN * direct_seconds(c, machine, batch, prepares) else None


MARGIN = 0.9
"""Winograd's algorithm has to be so much faster: it rounds more."""
