"""Choices and loops, resolved while the model is imported."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irconv.errors import ModelError
from irconv.frontends.onnx.operators.common import constant, integers, number, tensor_of
from irconv.frontends.onnx.registry import Call, operator
from irconv.ops.concat import stack
from irconv.ops.pad import pad
from irconv.ops.shape import normalize_axis
from irconv.tensor import Tensor
from irconv.types import BOOL, I64

MAX_TRIPS = 10_000
"""How often a loop may be unrolled."""


@operator("If", static=(0,))
def if_(call: Call, condition: np.ndarray) -> tuple[Tensor, ...]:
    """The results of one of two subgraphs, chosen by a condition that is known at import."""
    return call.run("then_branch" if number(condition, "the condition") else "else_branch")


@operator("Loop", static=(0, 1))
def loop(
    call: Call, trips: np.ndarray | None = None, condition: np.ndarray | None = None, *carried: Tensor
) -> tuple[Tensor, ...]:
    """A subgraph run again and again, unrolled: how often must be known at import.

    Its results: the values carried from one run to the next, and those of each run stacked.
    """
    limit = None if trips is None else int(number(trips, "the trip count"))
    going = condition is None or bool(number(condition, "the condition"))
    values = list(carried)
    collected: list[tuple[Tensor, ...]] = []
    count = 0
    while going and (limit is None or count < limit):
        if count == MAX_TRIPS:
            raise ModelError(f"the loop runs more than {MAX_TRIPS} times")
        again, *results = call.run("body", constant(count, I64), constant(True, BOOL), *values)
        if len(results) < len(values):
            raise ModelError(f"the loop carries {len(values)} values, its body gives {len(results)}")
        if again.is_traced:
            raise ModelError("the loop's condition depends on data that are known only when the model runs")
        going = bool(again.numpy().reshape(-1)[0])
        values = results[: len(values)]
        collected.append(tuple(results[len(values) :]))
        count += 1
    return (*values, *_stacked(call, len(values), collected))


def _stacked(call: Call, carried: int, collected: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What each run gave, along a new first axis."""
    if not collected:
        if len(call.node.outputs) > carried:
            raise ModelError("a loop that never runs has no results to stack")
        return ()
    return tuple(stacked(parts, 0) for parts in zip(*collected, strict=True))


def stacked(parts: Sequence[Tensor], axis: int) -> Tensor:
    """Tensors side by side along a new axis."""
    return tensor_of(stack(parts, axis))


# --- scan --------------------------------------------------------------------------------------------------------------------


@operator("Scan", since=9)
def scan(call: Call, *inputs: Tensor) -> tuple[Tensor, ...]:
    """A subgraph run on each entry of some inputs along an axis, unrolled; others are carried from run to run.

    Its results: the carried values, and those of each run stacked along an axis.
    """
    a = call.attributes
    count = a.int("num_scan_inputs")
    if not 1 <= count <= len(inputs):
        raise ModelError(f"{count} of {len(inputs)} inputs are to be scanned")
    states, scanned = inputs[: len(inputs) - count], inputs[len(inputs) - count :]
    results = len(call.node.outputs) - len(states)
    axes = [normalize_axis(n, x.ndim) for n, x in zip(a.ints("scan_input_axes", (0,) * count), scanned, strict=True)]
    backward = a.ints("scan_input_directions", (0,) * count)
    values, collected = scan_entries(call, states, scanned, axes, backward)
    output_axes, output_backward = (a.ints(f"scan_output_{kind}", (0,) * results) for kind in ("axes", "directions"))
    outputs = []
    for parts, axis, reverse in zip(zip(*collected, strict=True), output_axes, output_backward, strict=True):
        outputs.append(stacked(parts[::-1] if reverse else parts, axis))
    return (*values, *outputs)


def scan_entries(
    call: Call, states: Sequence[Tensor], scanned: Sequence[Tensor], axes: Sequence[int], backward: Sequence[int]
) -> tuple[list[Tensor], list[tuple[Tensor, ...]]]:
    """The carried values at the end, and the other results of each run of the body."""
    lengths = {x.shape[axis] for x, axis in zip(scanned, axes, strict=True)}
    if len(lengths) != 1 or 0 in lengths:
        raise ModelError(f"the scanned axes have {sorted(lengths)} entries, they need the same number and at least one")
    (length,) = lengths
    if length > MAX_TRIPS:
        raise ModelError(f"the scan runs {length} times, more than {MAX_TRIPS}")
    values = list(states)
    collected = []
    for i in range(length):
        entries = []
        for x, axis, reverse in zip(scanned, axes, backward, strict=True):
            place = length - 1 - i if reverse else i
            entries.append(x[(*(slice(None),) * axis, place)])
        results = call.run("body", *values, *entries)
        if len(results) < len(values):
            raise ModelError(f"the scan carries {len(values)} values, its body gives {len(results)}")
        values = list(results[: len(values)])
        collected.append(tuple(results[len(values) :]))
    return values, collected


@operator("Scan", since=8, static=(0,))
def scan_batch(call: Call, lengths: np.ndarray | None = None, *inputs: Tensor) -> tuple[Tensor, ...]:
    """As later, for every sample of a batch by itself: axis 0 of all inputs is the batch, axis 1 of scanned ones runs.

    lengths: how many entries each sample has; what its results have beyond them is 0.
    """
    count = call.attributes.int("num_scan_inputs")
    if not 1 <= count <= len(inputs) or min(x.ndim for x in inputs) < 1 or min(x.ndim for x in inputs[-count:]) < 2:
        raise ModelError(f"{count} of {len(inputs)} inputs are to be scanned, behind an axis for the batch")
    backward = call.attributes.ints("directions", (0,) * count)
    batch, longest = inputs[-1].shape[:2]
    wanted = (longest,) * batch if lengths is None else integers(lengths, "the sequence lengths") or ()
    if len(wanted) != batch or not batch or not all(1 <= n <= longest for n in wanted):
        raise ModelError(f"sequence lengths {list(wanted)} of {batch} samples with room for {longest} entries")
    samples = []
    for sample, length in enumerate(wanted):
        of_sample = [x[sample] for x in inputs]
        states, scanned = of_sample[: len(inputs) - count], of_sample[len(inputs) - count :]
        values, collected = scan_entries(call, states, [x[:length] for x in scanned], [0] * count, backward)
        columns = [stacked(parts, 0) for parts in zip(*collected, strict=True)]
        room = longest - length
        samples.append((*values, *(tensor_of(pad(x, [(0, room), *[(0, 0)] * (x.ndim - 1)])) for x in columns)))
    return tuple(stacked(parts, 0) for parts in zip(*samples, strict=True))
