"""Weights on disk, for models and graphs alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from irconv import serialize
from irconv.errors import ModelError, StateError
from irconv.graph import Graph
from irconv.nn.module import Module


def load_weights(source: Any, file: str) -> None:
    """Put the arrays of a .safetensors or .npz file into a module, or into the states of a graph, by their names."""
    arrays = serialize.load(file)
    if isinstance(source, Module):
        source.load_state_dict(arrays)
    elif isinstance(source, Graph):
        _load_graph(source, arrays)
    else:
        raise ModelError(
            "weights were given for a function, which has none", hint="name a module, or leave --weights out"
        )


def _load_graph(graph: Graph, arrays: Mapping[str, np.ndarray]) -> None:
    names = [graph[i].name for i in graph.states]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise StateError(f"the file lacks {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}")
    for name in names:
        graph.state[name].assign(arrays[name])
