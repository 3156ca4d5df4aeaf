"""Running op constructors on arrays, with gradients, through a graph and the reference interpreter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from irconv.builder import Builder
from irconv.graph import Graph
from irconv.interpret import evaluate
from irconv.op import Value
from irconv.passes.differentiate import differentiate
from irconv.types import type_of


def apply(function: Callable[..., Value], *arrays: np.ndarray) -> np.ndarray:
    """The value of ``function`` of these arrays; its type must be what the type rules promised."""
    builder = Builder(Graph())
    inputs = [builder.input(f"x{i}", type_of(array)) for i, array in enumerate(arrays)]
    result = builder.adopt(function(*inputs))
    values = evaluate(builder.graph, {value.id: array for value, array in zip(inputs, arrays, strict=True)})
    assert type_of(values[result.id]) == result.type
    return values[result.id]


def gradients(function: Callable[..., Value], d: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
    """The gradients of sum(d * function(*arrays)) by every floating-point array."""
    builder = Builder(Graph())
    inputs = [builder.input(f"x{i}", type_of(array)) for i, array in enumerate(arrays)]
    seed = builder.input("d", type_of(d))
    result = builder.adopt(function(*inputs))
    wanted = [value.id for value in inputs if value.type.dtype.is_float]
    found = differentiate(builder.graph, result.id, wanted, seed.id)
    leaves = {value.id: array for value, array in zip([*inputs, seed], [*arrays, d], strict=True)}
    values = evaluate(builder.graph, leaves)
    return [values[found[i]] for i in wanted]
