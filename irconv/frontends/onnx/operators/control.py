"""Choices and loops, resolved while the model is imported."""

from __future__ import annotations

import numpy as np

from irconv.errors import ModelError
from irconv.frontends.onnx.operators.common import constant, number
from irconv.frontends.onnx.registry import Call, operator
from irconv.ops.concat import stack
from irconv.tensor import Tensor
from irconv.types import BOOL, I64

MAX_TRIPS = 100_000
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
    return tuple(stack_all(parts) for parts in zip(*collected, strict=True))


def stack_all(parts: tuple[Tensor, ...]) -> Tensor:
    """Tensors along a new first axis."""
    result = stack(parts, 0)
    assert isinstance(result, Tensor)
    return result
