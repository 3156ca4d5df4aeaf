"""Batch-norm folding, for inference: what scales and shifts the channels of a convolution goes into its parameters.

With running statistics, batch norm is affine in each channel, and so is the bias before it:

    y = (conv(x, w) + b - mean) * (gamma / sqrt(var + eps)) + beta = conv(x, w * scale) + shift
    scale = gamma / sqrt(var + eps),  shift = (b - mean) * scale + beta

The same holds for conv_transpose and matmul, and for any chain of additions, subtractions, multiplications and
divisions by values that hold one number per channel (or one for all) and depend on states and constants alone; all of
the chain is folded.  The results agree up to rounding.

The folded weight and bias are new frozen states, ``conv1.weight.folded`` and ``conv1.bias.folded``.  The variables
behind them are derived: they remember how they are computed (:class:`Recipe`, a small graph) and are rebuilt when a
parameter or statistic that they come from has changed.

Refused, with a note where a batch norm is concerned: a state on the way that this graph updates, or that has no
variable; a value on the way that something else reads too, or that is an output; an operand that is not one number per
channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from irconv.builder import Builder
from irconv.graph import Graph, Node
from irconv.interpret import evaluate
from irconv.op import Value
from irconv.ops.elementwise import add, divide, multiply, negative, subtract
from irconv.ops.shape import broadcast, reshape
from irconv.passes.base import Note, Pass, register_pass
from irconv.passes.rewrite import remove_unread
from irconv.state import DerivedVariable, Variable

CHANNEL_AXIS = {"conv": 1, "conv_transpose": 1, "matmul": -1}
"""The ops that a scale can be folded into, and the axis of their result that holds the channels."""

AFFINE = ("add", "subtract", "multiply", "divide")


@register_pass
@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Fold per-channel scales and shifts into the convolutions and products before them."""

    name: ClassVar[str] = "fold_batch_norm"

    def run(self, graph: Graph, notes: list[Note] | None = None) -> bool:
        fixed = _Fixed(graph)
        keep = graph.wanted()
        changed = False
        for node_id in graph.order():
            if node_id not in graph:
                continue  # part of what was folded before
            node = graph[node_id]
            if node.op.name not in CHANNEL_AXIS or not node.type.dtype.is_float:
                continue
            chain = _affine_chain(graph, node, fixed, keep)
            if chain.scales:
                folded = _fold(graph, chain)
                fixed.inherit(folded, chain.last.id)
                if chain.last.id in keep:
                    keep.discard(chain.last.id)
                    keep.add(folded)
                remove_unread(graph, chain.last.id, keep)
                changed = True
            if chain.refusal and notes is not None:
                notes.append(Note(self.name, node.name, chain.refusal))
        return changed


# --- what is fixed while the graph runs -------------------------------------------------------------------------------


class _Fixed:
    """Which values depend on constants and bound, never updated states alone; and why others do not."""

    def __init__(self, graph: Graph):
        self.reasons: dict[int, str] = {}
        for node in graph:
            reason = self._reason(graph, node)
            if reason:
                self.reasons[node.id] = reason

    def _reason(self, graph: Graph, node: Node) -> str | None:
        if node.op.name == "state":
            if node.id in graph.updates:
                return f"%{node.name} is updated by this graph"
            return None if node.name in graph.state else f"%{node.name} has no variable behind it"
        if node.op.name == "input":
            return f"%{node.name} is an input"
        return next((self.reasons[i] for i in node.operands if i in self.reasons), None)

    def why_not(self, node_id: int) -> str | None:
        """None for a fixed value."""
        return self.reasons.get(node_id)

    def inherit(self, new_id: int, old_id: int) -> None:
        """What holds for the old value holds for the one that replaces it."""
        if old_id in self.reasons:
            self.reasons[new_id] = self.reasons[old_id]


# --- the chain of affine ops ------------------------------------------------------------------------------------------


@dataclass
class _Chain:
    """A contraction and the affine ops on its result, up to the last that scales or shifts.

    slots:   of each affine op, the slot in which it reads the chain.
    refusal: why a batch norm is not, or not wholly, part of it.
    """

    nodes: list[Node]
    slots: list[int] = field(default_factory=list)
    refusal: str | None = None

    @property
    def last(self) -> Node:
        return self.nodes[-1]

    @property
    def scales(self) -> bool:
        """Whether there is something to fold: mere additions are a bias already."""
        return any(node.op.name in ("multiply", "divide") for node in self.nodes[1:])


def _affine_chain(graph: Graph, root: Node, fixed: _Fixed, keep: set[int]) -> _Chain:
    chain = _Chain([root])
    obstacle = fixed.why_not(root.operands[1])
    if obstacle is None and root.op.name == "matmul" and graph[root.operands[1]].type.rank != 2:
        obstacle = f"the right operand is {graph[root.operands[1]].type}, not one matrix"
    while obstacle is None:
        obstacle = _extend(graph, chain, fixed, keep)
    if any(_in_batch_norm(user) for user, _ in graph.users(chain.last.id)):
        chain.refusal = obstacle
    return chain


def _in_batch_norm(node: Node) -> bool:
    return node.provenance.composite is not None and node.provenance.composite.kind == "batch_norm"


def _extend(graph: Graph, chain: _Chain, fixed: _Fixed, keep: set[int]) -> str | None:
    """Take the only reader of the chain into it, or say why not."""
    root, last = chain.nodes[0], chain.last
    users = graph.users(last.id)
    if last.id in keep:
        return f"%{last.name} is an output or update itself"
    if len(users) != 1:
        return f"%{last.name} is read {len(users)} times"
    user, slot = users[0]
    if user.op.name not in AFFINE or (user.op.name == "divide" and slot == 1) or user.type != root.type:
        return f"%{user.name} is not affine in %{last.name}"
    other = graph[user.operands[1 - slot]]
    obstacle = fixed.why_not(other.id)
    if obstacle is not None:
        return obstacle
    if not _is_per_channel(other, root):
        return f"%{other.name} of type {other.type} is not one number per channel"
    chain.nodes.append(user)
    chain.slots.append(slot)
    return None


def _is_per_channel(other: Node, root: Node) -> bool:
    shape = (1,) * (root.type.rank - other.type.rank) + other.type.shape
    axis = CHANNEL_AXIS[root.op.name] % root.type.rank
    return all(n == 1 for i, n in enumerate(shape) if i != axis)


# --- folding ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How a derived variable is computed: one output of a small graph whose inputs are the source variables."""

    graph: Graph
    output: str

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        result = self.graph.outputs[self.output]
        return evaluate(self.graph, dict(zip(self.graph.inputs, arrays, strict=True)), [result])[result]


def _fold(graph: Graph, chain: _Chain) -> int:
    """Build the folded form and let everybody read it; returns its id."""
    root, last = chain.nodes[0], chain.last
    recipe, sources = _recipe(graph, chain)
    weight_name, bias_name = _folded_names(graph, root)
    weight = _derived_state(graph, weight_name, Recipe(recipe, "weight"), sources)
    for node in (root, last):
        graph.rename(node.id, f"{node.name}.replaced")  # the names are for what replaces them
    builder = Builder(graph)
    operands = (root.operands[0], weight.id)
    result = graph.add(root.op, root.attributes, operands, name=root.name, provenance=root.provenance).id
    if "bias" in recipe.outputs:
        bias = _derived_state(graph, bias_name, Recipe(recipe, "bias"), sources)
        row: Value = builder.wrap(bias)
        if root.op.name != "matmul":  # whose channels are the last axis
            with builder.at(last.provenance, f"{bias.name}.reshape"):
                row = reshape(row, (1, -1, *(1 for _ in range(2, root.type.rank))))
        with builder.at(last.provenance, last.name):
            result = builder.adopt(add(builder.value(result), row)).id
    else:
        result = graph.rename(result, last.name).id
    graph.replace(last.id, result)
    return result


def _derived_state(graph: Graph, name: str, recipe: Recipe, sources: Sequence[Variable]) -> Node:
    variable = DerivedVariable(sources, recipe)
    return graph.add_state(name, variable.type, "frozen", variable)


def _folded_names(graph: Graph, root: Node) -> tuple[str, str]:
    """Names for the folded weight and bias, after the first state that the weight comes from."""
    upstream = map(graph.__getitem__, sorted(graph.ancestors([root.operands[1]])))
    weight = next((node.name for node in upstream if node.op.name == "state"), f"{root.name}.weight")
    return f"{weight}.folded", f"{weight.removesuffix('.weight')}.bias.folded"


def _recipe(graph: Graph, chain: _Chain) -> tuple[Graph, list[Variable]]:
    """The graph of the outputs "weight" and (if anything is added) "bias", and the variables behind its inputs."""
    root = chain.nodes[0]
    others = [node.operands[1 - slot] for node, slot in zip(chain.nodes[1:], chain.slots, strict=True)]
    recipe = Graph(f"{chain.last.name}.folded")
    copies, sources = _copy_fixed(graph, recipe, [root.operands[1], *others])
    builder = Builder(recipe)
    weight = builder.value(copies[root.operands[1]])
    scale: Value = builder.constant(np.ones((), root.type.dtype.numpy))
    shift: Value | None = None
    for node, slot, other in zip(chain.nodes[1:], chain.slots, others, strict=True):
        scale, shift = _compose(node.op.name, slot, scale, shift, builder.value(copies[other]))
    channels = root.type.shape[CHANNEL_AXIS[root.op.name]]
    factors = _per_channel_of_weight(root, weight, _row(scale, channels))
    recipe.set_output("weight", builder.adopt(multiply(weight, factors)).id)
    if shift is not None:
        recipe.set_output("bias", builder.adopt(_row(shift, channels)).id)
    return recipe, sources


def _copy_fixed(graph: Graph, recipe: Graph, wanted: Sequence[int]) -> tuple[dict[int, int], list[Variable]]:
    """Copy what the wanted values are computed from, states becoming inputs."""
    copies: dict[int, int] = {}
    sources: list[Variable] = []
    stack = list(reversed(wanted))
    while stack:
        node = graph[stack[-1]]
        missing = [i for i in node.operands if i not in copies]
        if missing:
            stack.extend(missing)
            continue
        stack.pop()
        if node.id in copies:
            continue
        if node.op.name == "state":
            copies[node.id] = recipe.add_input(node.name, node.type).id
            sources.append(graph.state[node.name])
        else:
            operands = [copies[i] for i in node.operands]
            copy = recipe.add(node.op, node.attributes, operands, name=node.name, provenance=node.provenance)
            copies[node.id] = copy.id
    return copies, sources


def _compose(op: str, slot: int, scale: Value, shift: Value | None, other: Value) -> tuple[Value, Value | None]:
    """The scale and shift of an affine op applied to ``scale * x + shift``."""
    if op == "add":
        return scale, other if shift is None else add(shift, other)
    if op == "subtract" and slot == 0:
        return scale, negative(other) if shift is None else subtract(shift, other)
    if op == "subtract":
        return negative(scale), other if shift is None else subtract(other, shift)
    apply = multiply if op == "multiply" else divide
    return apply(scale, other), None if shift is None else apply(shift, other)


def _row(value: Value, channels: int) -> Value:
    """One number per channel as a vector, from any shape that holds one per channel or a single one."""
    if value.type.size == channels:
        return reshape(value, (channels,))
    return broadcast(reshape(value, ()), (channels,))


def _per_channel_of_weight(root: Node, weight: Value, row: Value) -> Value:
    """One number per result channel in the shape that scales the weight."""
    if root.op.name == "matmul":
        return row
    taps = (1,) * (weight.rank - 2)
    if root.op.name == "conv":
        return reshape(row, (-1, 1, *taps))
    # the weight is [in, out / groups, *kernel]: a row of input channels belongs to the outputs of its group
    channels, per_group = weight.shape[:2]
    groups = root.attributes.groups
    spread = broadcast(reshape(row, (groups, 1, per_group)), (groups, channels // groups, per_group))
    return reshape(spread, (channels, per_group, *taps))
