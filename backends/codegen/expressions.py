"""Elementwise ops as expressions: from those of the operands to that of the result.

Scalar mode (one lane) has every element type: float16 is computed in float32 and rounded after each op, integers wrap, and
what C leaves undefined is defined as NumPy has it.  Vector mode has values of one element size (float32 with 32-bit
integers, float64 with 64-bit ones, ...) and truth values as masks.

The ops are entered by family: :mod:`irconv.backends.codegen.arithmetic`, ``logic``, ``casts`` and ``functions``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from irconv.backends.codegen.access import as_mask
from irconv.backends.codegen.arithmetic import ARITHMETIC
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.casts import CASTS
from irconv.backends.codegen.form import Expression, Literal, Type, convert, splat
from irconv.backends.codegen.functions import FUNCTIONS
from irconv.backends.codegen.logic import LOGIC
from irconv.backends.codegen.rules import Application, Rule
from irconv.graph import Graph, Node
from irconv.types import BOOL, F16, F32, DType

RULES: dict[str, Rule] = {**ARITHMETIC, **LOGIC, **CASTS, **FUNCTIONS}
"""The rule of each op by name."""

EXACT = frozenset({"copy", "stop_gradient", "attach_gradient", "where", "cast"})
"""Ops that take float16 as it is: they move values, or say themselves how they round."""


BY_NUMBER = frozenset({"power", "floor_divide", "remainder"})
"""Ops whose code depends on what their second operand is, if that is known."""

FORMULA_NUMBERS = (0, 1, -1, math.inf, -math.inf)
"""Constants that are written out wherever they occur (True and False are 1 and 0)."""


def operands_read(node: Node) -> tuple[int, ...]:
    """The ids of the operands that an elementwise op reads: attach_gradient looks at the first alone."""
    return node.operands[:1] if node.op.name == "attach_gradient" else node.operands


def values_read(graph: Graph, nodes: Sequence[int]) -> tuple[int, ...]:
    """Ids of the values from outside that :func:`evaluate` asks for, each once."""
    members = set(nodes)
    return tuple(
        dict.fromkeys(
            i
            for node in nodes
            for position, i in enumerate(operands_read(graph[node]))
            if i not in members and written_number(graph, graph[node], position) is None
        )
    )


def written_number(graph: Graph, node: Node, position: int) -> Any:
    """The number that stands in the code for an operand, None if it is read at run time as other values are.

    Only numbers that are part of a formula are written: others (1 / n, a learning rate) would make a source of their own
    for every batch and layer.
    """
    number = constant_number(graph[node.operands[position]])
    by_number = position == 1 and node.op.name in BY_NUMBER
    return number if by_number or number in FORMULA_NUMBERS else None


def constant_number(node: Node) -> Any:
    """The number that a constant of one element is, as Python has it; None for anything else."""
    if node.op.name != "constant" or node.type.size != 1:
        return None
    return node.attributes.value.reshape(()).item()


def element_bytes(graph: Graph, nodes: Sequence[int]) -> int | None:
    """The size that all values other than truth values have; 0: only truth values; None: several sizes."""
    ids = {*nodes, *(i for node in nodes for i in operands_read(graph[node]))}
    sizes = {graph[i].type.dtype.bytes for i in ids if graph[i].type.dtype is not BOOL}
    return None if len(sizes) > 1 else sizes.pop() if sizes else 0


def can_evaluate(graph: Graph, nodes: Sequence[int], lanes: int) -> bool:
    """Whether :func:`evaluate` has code for all these nodes on so many lanes."""
    if lanes > 1 and (element_bytes(graph, nodes) is None or any(graph[i].type.dtype is F16 for i in _touched(graph, nodes))):
        return False
    return all(_has_rule(graph, graph[i], lanes) for i in nodes)


def _touched(graph: Graph, nodes: Sequence[int]) -> set[int]:
    return {*nodes, *(i for node in nodes for i in operands_read(graph[node]))}


def _has_rule(graph: Graph, node: Node, lanes: int) -> bool:
    rule = RULES.get(node.op.name)
    if rule is None:
        return False
    types = tuple(graph[i].type.dtype for i in operands_read(node))
    numbers = tuple(constant_number(graph[i]) for i in operands_read(node))
    return rule.applies(types, node.type.dtype, numbers, lanes)


def evaluate(
    body: Body,
    graph: Graph,
    nodes: Sequence[int],
    known: dict[int, Expression],
    operand: Callable[[int], Expression],
    lanes: int,
) -> None:
    """Compute elementwise nodes into ``known``: locals of ``body`` by the ids of the nodes.

    nodes:   ids in topological order, for which :func:`can_evaluate` holds.
    known:   values that are there already (a contraction's result, say); what is computed or fetched is added.
    operand: the expression of a value from outside, asked for once: a vector of ``lanes``, or a scalar, which is spread.
             Truth values may come as bytes or as masks of the right size.
    lanes:   1 for scalars.

    In vector mode truth values in ``known`` are masks: store them through :func:`irconv.backends.codegen.access.as_stored`.
    """
    size = element_bytes(graph, nodes) or 1
    for i in nodes:
        node = graph[i]
        reads = operands_read(node)
        values = []
        for position, source in enumerate(reads):
            number = None if source in known else written_number(graph, node, position)
            if number is not None:
                values.append(_written(number, graph[source], lanes, size))
                continue
            if source not in known:
                known[source] = _fetched(body, graph[source], operand, lanes, size)
            values.append(known[source])
        known[i] = body.let(node.op.name, _applied(body, graph, node, values, lanes))


def _fetched(body: Body, node: Node, operand: Callable[[int], Expression], lanes: int, size: int) -> Expression:
    """A value from outside, in every lane if it is a scalar, as a mask if it holds truth values."""
    fetched = splat(operand(node.id), lanes)
    if node.type.dtype is BOOL:
        fetched = as_mask(fetched, size)
    return body.let("value", fetched)


def _written(number: Any, node: Node, lanes: int, size: int) -> Expression:
    written = Literal(number, Type(node.type.dtype, lanes))
    return as_mask(written, size) if node.type.dtype is BOOL else written


def _applied(body: Body, graph: Graph, node: Node, operands: list[Expression], lanes: int) -> Expression:
    """One op's rule; of float16 in float32, rounded afterwards."""
    dtypes = [graph[i].type.dtype for i in operands_read(node)]
    stored, result = dtypes[0], node.type.dtype
    numbers = tuple(constant_number(graph[i]) for i in operands_read(node))
    wide = F16 in (*dtypes, result) and node.op.name not in EXACT
    if wide:
        operands = [convert(x, F32) if d is F16 else x for x, d in zip(operands, dtypes, strict=True)]
        dtypes = [_widened(d) for d in dtypes]
    value = RULES[node.op.name].make(
        Application(
            body,
            node.attributes,
            tuple(operands),
            tuple(dtypes),
            _widened(result) if wide else result,
            numbers,
            stored,
            lanes,
        )
    )
    return convert(value, F16) if wide and result is F16 else value


def _widened(dtype: DType) -> DType:
    return F32 if dtype is F16 else dtype
