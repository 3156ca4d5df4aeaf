"""The operators that can be imported: one handler per ONNX operator (and per range of versions where its meaning changed).

A handler is a function ``handler(call, *inputs) -> Tensor or tuple of Tensors``, written with irconv's own op constructors, so
that it records a graph or computes at once::

    @operator("Gemm", weights=(1, 2))
    def gemm(call: Call, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor: ...

An optional input that a node leaves out is None.  Inputs named in ``static`` come as NumPy arrays: they must be known while the
model is imported, because shapes depend on them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from irconv.errors import ModelError
from irconv.frontends.onnx.attributes import Attributes
from irconv.frontends.onnx.graphs import Node
from irconv.tensor import Tensor


@dataclass(frozen=True, slots=True)
class TensorList:
    """A sequence of tensors, a value of its own kind in ONNX."""

    items: tuple[Tensor, ...]


OnnxValue = Tensor | TensorList
Results = OnnxValue | tuple[OnnxValue | None, ...]
Handler = Callable[..., Results]


@dataclass(frozen=True, slots=True)
class Call:
    """One node being imported: what its handler may ask besides the inputs.

    training: whether the model runs in training mode.
    run:      runs one of the node's subgraphs, by the name of the attribute that holds it, on the subgraph's inputs.
    """

    node: Node
    training: bool
    run: Callable[..., tuple[Any, ...]]

    @property
    def attributes(self) -> Attributes:
        """The node's attributes."""
        return self.node.attributes

    @property
    def opset(self) -> int:
        """Version of the operator set that the node belongs to."""
        return self.node.opset

    def wants(self, output: int) -> bool:
        """Whether the node names this output."""
        return output < len(self.node.outputs) and self.node.outputs[output] != ""


@dataclass(frozen=True, slots=True)
class Operator:
    """One handler with what importing must know of it.

    since:   the first version of the operator set that it is for.
    static:  inputs that must be known at import.
    weights: inputs that are trained where the file stores them; buffers: those that are kept with the model and not trained.
    least, most: how many inputs it takes; most is None for any number.
    shape_only:  its result depends on the shapes of its inputs alone.
    """

    name: str
    since: int
    handler: Handler
    static: tuple[int, ...]
    weights: tuple[int, ...]
    buffers: tuple[int, ...]
    least: int
    most: int | None
    shape_only: bool


_OPERATORS: dict[tuple[str, str], list[Operator]] = {}


def operator(
    name: str,
    *,
    since: int = 1,
    domain: str = "",
    static: tuple[int, ...] = (),
    weights: tuple[int, ...] = (),
    buffers: tuple[int, ...] = (),
    shape_only: bool = False,
) -> Callable[[Handler], Handler]:
    """Register a handler for an operator from version ``since`` of its operator set on (see :class:`Operator`)."""

    def enter(handler: Handler) -> Handler:
        least, most = _arity(handler)
        versions = _OPERATORS.setdefault((domain, name), [])
        if any(known.since == since for known in versions):
            raise ModelError(f"operator {name!r} since {since} is registered twice")
        versions.append(Operator(name, since, handler, static, weights, buffers, least, most, shape_only))
        versions.sort(key=lambda known: known.since)
        return handler

    return enter


def _arity(handler: Handler) -> tuple[int, int | None]:
    """How many inputs a handler takes, read off its signature."""
    parameters: list[Any] = list(inspect.signature(handler).parameters.values())[1:]
    least = sum(p.default is p.empty and p.kind is not p.VAR_POSITIONAL for p in parameters)
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return least, None if variadic else len(parameters)


def find_operator(node: Node) -> Operator | None:
    """The handler's entry for a node's operator and version; None if there is none."""
    found = None
    for candidate in _OPERATORS.get((node.domain, node.operator), ()):
        if candidate.since <= node.opset:
            found = candidate
    return found


def operators() -> list[str]:
    """Names of all registered operators of the default domain."""
    return sorted(name for domain, name in _OPERATORS if domain == "")
