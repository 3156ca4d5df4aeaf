"""Elementwise parts of fused kernels, read off the graph as stages of :mod:`irconv.backends.arrays.blocks`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from irconv.backends.arrays.blocks import Stage
from irconv.backends.arrays.elementwise import step_of, where_or_zero
from irconv.types import DType


@dataclass(frozen=True)
class Chain:
    """Elementwise nodes as numbered values: first the inputs, then one for each stage.

    numbers: value number of every node id; inputs: the ids read from outside, in order.
    """

    stages: tuple[Stage, ...]
    inputs: tuple[int, ...]
    numbers: dict[int, int]
    dtypes: tuple[DType, ...]
    shapes: tuple[tuple[int, ...], ...]


def chain_of(xp: Any, graph: Any, nodes: Sequence[int], first: Sequence[int] = ()) -> Chain:
    """The chain of elementwise node ids; ``first`` are inputs to be numbered before all others."""
    members = set(nodes)
    reads = {i: _sources(graph[i]) for i in nodes}
    inputs = tuple(dict.fromkeys([*first, *(s for i in nodes for s in reads[i] if s not in members)]))
    numbers = {node: number for number, node in enumerate((*inputs, *nodes))}
    stages = []
    for i in nodes:
        node = graph[i]
        types = tuple(graph[s].type for s in reads[i])
        if node.op.name == "where" and _is_zero(graph[node.operands[2]]):
            step = where_or_zero(xp, types)
        else:
            step = step_of(node.op.name, xp, node.attributes, types, node.type)
        stages.append(Stage(step, tuple(numbers[s] for s in reads[i]), numbers[i]))
    known = [graph[i].type for i in (*inputs, *nodes)]
    return Chain(
        tuple(stages), inputs, numbers, tuple(t.dtype for t in known), tuple(t.shape for t in known[: len(inputs)])
    )


def _is_zero(node: Any) -> bool:
    return node.op.name == "constant" and not node.attributes.value.any()


def _sources(node: Any) -> tuple[int, ...]:
    """The operands that an elementwise op reads: attach_gradient looks at the first alone."""
    return node.operands[:1] if node.op.name == "attach_gradient" else node.operands
