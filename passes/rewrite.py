"""Rewrite rules: pattern, check, rewrite; and the worklist that applies them.

A *pattern* describes a node and its operands and names what it captures::

    op("add", Capture("x"), Constant("zero", is_zero))

A :class:`Rule` names a pattern; a ``check`` that answers None, or the reason why the rule does not apply to this
match; and a ``rewrite`` that builds the replacement with the ordinary op constructors.  :func:`apply_rules` runs rules
until none applies any more.  Only the neighbourhood of a change is looked at again, so the work is near-linear in the
graph.

What a rewrite builds takes over the location, scope, composite and origin of the node it replaces, and the name goes
to the replacement.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from irconv.builder import Builder
from irconv.errors import GraphError
from irconv.graph import Graph, Node
from irconv.op import OpDef, Value
from irconv.ops.shape import broadcast
from irconv.passes.base import Note
from irconv.types import TensorType

COMMUTATIVE = frozenset({"add", "multiply", "equal", "not_equal", "logical_and", "logical_or", "logical_xor"})
"""Ops whose operands may be exchanged without changing a bit (minimum and maximum may not: they order -0.0 and 0.0)."""

# --- patterns ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Capture:
    """Any value; a name used twice in a pattern must be the same value both times."""

    name: str


@dataclass(frozen=True)
class Constant:
    """A constant whose array satisfies ``where``."""

    name: str
    where: Callable[[np.ndarray], bool] = lambda array: True


@dataclass(frozen=True)
class OpPattern:
    """A node of one of the ops ``ops`` for which ``where`` holds and whose operands match (None: any operands).

    Operands of commutative ops match in either order.
    """

    ops: tuple[str, ...]
    operands: tuple[Pattern, ...] | None
    name: str = ""
    where: Callable[[Graph, Node], bool] = lambda graph, node: True


Pattern = Capture | Constant | OpPattern


def op(names: str | tuple[str, ...], *operands: Pattern, name: str = "") -> OpPattern:
    """The pattern of an op, or of any of several, with these operands; captured as ``name`` if one is given."""
    return OpPattern((names,) if isinstance(names, str) else names, operands, name)


def any_operands(
    names: str | tuple[str, ...], where: Callable[[Graph, Node], bool] = lambda graph, node: True, name: str = ""
) -> OpPattern:
    """The pattern of an op whatever its operands, if ``where`` holds."""
    return OpPattern((names,) if isinstance(names, str) else names, None, name, where)


@dataclass
class Match:
    """A place in the graph where a pattern fits: the root node and what the pattern captured, by name."""

    graph: Graph
    root: Node
    captured: dict[str, Node] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Node:
        return self.captured[name]

    def operands(self, name: str) -> tuple[Node, ...]:
        """The operands of a captured node."""
        return self.graph.operands(self.captured[name])

    def array(self, name: str) -> np.ndarray:
        """The value of a captured constant."""
        return np.asarray(self.captured[name].attributes.value)


def match(pattern: Pattern, graph: Graph, node: Node) -> Match | None:
    """Where ``pattern`` fits at ``node``, if it does."""
    captured = _match(pattern, graph, node, {})
    return None if captured is None else Match(graph, node, captured)


def _match(pattern: Pattern, graph: Graph, node: Node, captured: dict[str, Node]) -> dict[str, Node] | None:
    """``captured`` with what this pattern adds to it, or None."""
    if isinstance(pattern, Constant):
        fits = node.op.name == "constant" and pattern.where(node.attributes.value)
        return _capture(pattern.name, node, captured) if fits else None
    if isinstance(pattern, OpPattern) and not (node.op.name in pattern.ops and pattern.where(graph, node)):
        return None
    found = _capture(pattern.name, node, captured)
    if isinstance(pattern, Capture):
        return found
    if found is None or pattern.operands is None:
        return found
    operands = graph.operands(node)
    matched = _match_all(pattern.operands, graph, operands, found)
    if matched is None and node.op.name in COMMUTATIVE:
        matched = _match_all(pattern.operands, graph, operands[::-1], found)
    return matched


def _match_all(
    patterns: Sequence[Pattern], graph: Graph, nodes: Sequence[Node], captured: dict[str, Node]
) -> dict[str, Node] | None:
    if len(patterns) != len(nodes):
        return None
    for pattern, node in zip(patterns, nodes, strict=True):
        found = _match(pattern, graph, node, captured)
        if found is None:
            return None
        captured = found
    return captured


def _capture(name: str, node: Node, captured: dict[str, Node]) -> dict[str, Node] | None:
    if not name:
        return captured
    before = captured.get(name)
    if before is None:
        return {**captured, name: node}
    return captured if before.id == node.id else None


# --- rules ------------------------------------------------------------------------------------------------------------


def _always(found: Match) -> None:
    return None


Check = Callable[[Match], str | None]
"""None where a rule applies, otherwise why not, with the numbers."""


@dataclass(frozen=True)
class Rule:
    """``pattern -> rewrite``, where ``check`` has no objection.

    check:   None, or why the rule does not apply here, with its numbers.
    rewrite: builds the replacement of the root, a value of the same type that does not read the root.
    """

    name: str
    pattern: OpPattern
    rewrite: Rewrite
    check: Check = _always


class Rewriter(Builder):
    """A builder that remembers what it made."""

    def __init__(self, graph: Graph):
        super().__init__(graph)
        self.made: list[int] = []

    def append(self, op: OpDef, attributes: object, ids: Sequence[int]) -> Node:
        node = super().append(op, attributes, ids)
        self.made.append(node.id)
        return node

    def constant_node(self, array: object) -> Node:
        node = super().constant_node(array)
        self.made.append(node.id)
        return node

    def full(self, type_: TensorType, number: float) -> Value:
        """A tensor of one number: a scalar constant, broadcast."""
        return broadcast(self.constant(np.asarray(number, type_.dtype.numpy)), type_.shape)


Rewrite = Callable[[Rewriter, Match], Value]
"""Builds the replacement of a match."""

# --- the worklist -----------------------------------------------------------------------------------------------------


def apply_rules(graph: Graph, rules: Iterable[Rule], notes: list[Note] | None = None) -> bool:
    """Apply rules to ``graph`` until none fits, and say whether any did.

    Values that a rewrite leaves without readers are removed.  Raises GraphError when rules undo each other.
    """
    return _Worklist(graph, rules, notes).run()


def remove_unread(graph: Graph, node_id: int, keep: set[int]) -> list[int]:
    """Remove a value if nothing reads it and it is not in ``keep``, then its operands likewise.

    Returns the ids of surviving operands of removed nodes.
    """
    survivors: list[int] = []
    stack = [node_id]
    while stack:
        current = stack.pop()
        if current not in graph:
            continue
        if graph.use_count(current) or current in keep:
            survivors.append(current)
            continue
        operands = graph[current].operands
        graph.remove(current)
        stack.extend(operands)
    return survivors


class _Worklist:
    """One run of the rewriting driver."""

    def __init__(self, graph: Graph, rules: Iterable[Rule], notes: list[Note] | None):
        self.graph = graph
        self.rules: dict[str, list[Rule]] = {}
        for rule in rules:
            for name in rule.pattern.ops:
                self.rules.setdefault(name, []).append(rule)
        self.notes = notes
        self.refused: dict[tuple[str, int], str] = {}
        self.keep = graph.wanted()
        self.queue = deque(graph.order())
        self.queued = set(self.queue)

    def run(self) -> bool:
        # far more than any set of rules that only ever shrinks or moves things one way can use
        remaining = 1000 + 100 * len(self.graph)
        changed = False
        while self.queue:
            node_id = self.queue.popleft()
            self.queued.discard(node_id)
            if node_id not in self.graph or not (self.graph.use_count(node_id) or node_id in self.keep):
                continue  # gone, or dead code
            applied = self._visit(self.graph[node_id])
            if applied is not None:
                changed = True
                remaining -= 1
                if not remaining:
                    raise GraphError(f"rewrite rules undo each other; the last one was {applied!r}")
        if self.notes is not None:
            self.notes.extend(
                Note(rule, self.graph[node_id].name, reason)
                for (rule, node_id), reason in self.refused.items()
                if node_id in self.graph
            )
        return changed

    def _visit(self, node: Node) -> str | None:
        """Apply the first rule that fits, and return its name."""
        for rule in self.rules.get(node.op.name, ()):
            found = match(rule.pattern, self.graph, node)
            if found is None:
                continue
            reason = rule.check(found)
            if reason is not None:
                self.refused[rule.name, node.id] = reason
                continue
            self._apply(rule, found)
            return rule.name
        return None

    def _apply(self, rule: Rule, found: Match) -> None:
        graph, old = self.graph, found.root
        rewriter = Rewriter(graph)
        graph.rename(old.id, f"{old.name}.replaced")  # the name is for the replacement
        with rewriter.at(old.provenance, old.name):
            new = rewriter.adopt(rule.rewrite(rewriter, found))
        readers = [user.id for user, _ in graph.users(old.id)]
        graph.replace(old.id, new.id)
        if old.id in self.keep:
            self.keep.discard(old.id)
            self.keep.add(new.id)
        survivors = remove_unread(graph, old.id, self.keep)
        for node_id in (*rewriter.made, new.id, *readers, *survivors):
            if node_id in graph and node_id not in self.queued:
                self.queued.add(node_id)
                self.queue.append(node_id)
