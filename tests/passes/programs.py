"""Random graphs with every hazard a plan must respect, and a checker that replays a plan byte by byte."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from irconv.builder import Builder, GraphValue
from irconv.graph import Graph
from irconv.kernel import Program
from irconv.ops.elementwise import add, multiply, relu, subtract, tanh
from irconv.ops.reduce import reduce_mean, reduce_sum
from irconv.ops.shape import broadcast, flip, reshape, slice_, transpose
from irconv.passes.fuse import fuse
from irconv.passes.materialise import Materialise
from irconv.passes.plan_memory import plan_memory
from irconv.passes.schedule import schedule
from irconv.state import Variable
from irconv.strides import covers, value_strides
from irconv.target import Target
from irconv.types import tensor_type, type_of

KINDS = frozenset(
    {
        "elementwise",
        "conv_epilogue",
        "conv_transpose_epilogue",
        "matmul_epilogue",
        "pool_indices",
        "mean_variance",
        "conv_weight_gradient",
        "elementwise_reduce",
    }
)


def elementwise_in_place(graph, kernel):
    """Pairs for kernels of elementwise ops on one shape: the last op may write over any operand that only it reads."""
    last = graph[kernel.nodes[-1]]
    if last.op.fusion.value != "elementwise":
        return ()
    inner = [i for node in kernel.nodes[:-1] for i in graph[node].operands]
    return tuple((last.id, i) for i in kernel.inputs if i in last.operands and i not in inner and last.operands.count(i) == 1)


PLAIN = Target("plain", workspace=lambda graph, kernel: (24, 100) if "sum" in kernel.kind else ())
SHARING = Target("sharing", kinds=KINDS, writes_in_place=elementwise_in_place)


def state(builder: Builder, name: str, array: np.ndarray) -> GraphValue:
    """Append a state bound to a variable of its own."""
    return builder.wrap(builder.graph.add_state(name, type_of(array), "param", Variable(array)))


def compiled(graph: Graph, target: Target, guards=()) -> Program:
    """Through materialise, fusion, scheduling and planning."""
    Materialise().run(graph)
    ordered = schedule(graph, fuse(graph, target).kernels, guards)
    return Program(graph, ordered, plan_memory(graph, ordered, target))


# --- random graphs -------------------------------------------------------------------------------------------------------

_SHAPE = (3, 4)


@st.composite
def graphs(draw) -> Graph:
    """A few states and inputs of shape [3,4], random ops and views on them, outputs and updates of any kind."""
    graph = Graph("random")
    builder = Builder(graph)
    values = [builder.input(f"x{i}", tensor_type("f32", _SHAPE)) for i in range(draw(st.integers(1, 2)))]
    rng = np.random.default_rng(0)
    states = [
        state(builder, f"w{i}", rng.normal(size=_SHAPE).astype(np.float32)) for i in range(draw(st.integers(0, 3)))
    ]
    values += states
    for _ in range(draw(st.integers(1, 14))):
        values.append(_random_op(draw, values))
    for i in range(draw(st.integers(1, 3))):
        graph.set_output(f"y{i}", draw(st.sampled_from(values)).id)
    for each in states:
        if draw(st.booleans()):
            graph.set_update(each.id, draw(st.sampled_from(values)).id)
    return graph


def _random_op(draw, values):
    x, y = draw(st.sampled_from(values)), draw(st.sampled_from(values))
    match draw(st.integers(0, 10)):
        case 0:
            return relu(x)
        case 1:
            return tanh(multiply(x, 0.5))
        case 2:
            return add(x, y)
        case 3:
            return subtract(x, multiply(y, 0.5))
        case 4:
            return multiply(tanh(x), y)
        case 5:
            return flip(x, (draw(st.integers(0, 1)),))
        case 6:
            return reshape(transpose(x), _SHAPE)
        case 7:
            return reshape(reshape(x, (12,)), _SHAPE)
        case 8:
            return broadcast(slice_(x, (0, 0), (1, 4)), _SHAPE)
        case 9:
            return subtract(x, reduce_mean(y, (1,), keepdims=True))
        case _:
            return broadcast(reduce_sum(x, (0,), keepdims=True), _SHAPE)


# --- replaying a plan ------------------------------------------------------------------------------------------------------


def check_program(program: Program, target: Target) -> None:
    """Replay a program and assert that every read finds what was written last under that name.

    Memory is a map from places (arena ranges, states) to the value they hold.
    """
    graph, plan = program.graph, program.plan
    replay = _Replay(program, target)
    for kernel in program.schedule.kernels:
        if kernel.is_view:
            continue  # reads nothing itself
        for value in kernel.inputs:
            assert replay.intact(value), f"@{kernel.name} reads %{graph[value].name}, which was overwritten"
        replay.write(kernel)
    for value, state_id in plan.commits:
        assert replay.intact(value), f"commit of %{graph[value].name} comes too late"
        assert graph.updates[state_id] == value
    done = {**{s: v for v, s in plan.update_in_place.items()}, **{s: v for v, s in plan.commits}}
    assert done == graph.updates
    assert {path: v for v, path in plan.outputs.items()} == graph.outputs
    assert plan.peak_bytes <= plan.arena_bytes or plan.arena_bytes == 0


class _Replay:
    def __init__(self, program: Program, target: Target):
        self.graph = program.graph
        self.plan = program.plan
        self.target = target
        self.strides = value_strides(program.graph)
        self.arena: dict[int, tuple[int, int]] = {}  # value -> its range, while intact
        self.written_states: set[int] = set()
        self.made: set[int] = set()

    def root(self, value: int) -> int:
        return self.plan.aliases.get(value, value)

    def intact(self, value: int) -> bool:
        root = self.root(value)
        if self.graph[root].op.name == "state":
            return root not in self.written_states
        if self.graph[root].is_leaf:
            return True
        if root in self.plan.buffers:
            return root in self.arena
        return root in self.made  # an output, or a new value in its state

    def write(self, kernel) -> None:
        graph, plan = self.graph, self.plan
        allowed = set(self.target.writes_in_place(graph, kernel))
        roots = [self.root(v) for v in kernel.inputs]
        claimed = [(place.offset, place.offset + place.bytes, None) for place in plan.scratch.get(kernel.name, ())]
        assert len(claimed) == len(self.target.workspace(graph, kernel))
        for value in kernel.outputs:
            if value in plan.update_in_place:
                owner = plan.update_in_place[value]
                readers = [v for v in kernel.inputs if self.root(v) == owner]
                assert len(readers) < 2
                assert all((value, v) in allowed and self.shows_all(v, owner) for v in readers)
                self.written_states.add(owner)
            elif value not in plan.outputs:
                place = plan.buffers[value]
                claimed.append((place.offset, place.offset + place.bytes, value))
        for i, (low, high, value) in enumerate(claimed):
            assert high <= plan.arena_bytes
            for start, stop, _ in claimed[:i]:
                assert high <= start or stop <= low, f"two buffers of @{kernel.name} overlap"
            for other, (start, stop) in list(self.arena.items()):
                if low < stop and start < high:
                    self._check_shared(kernel, value, other, roots, allowed)
                    del self.arena[other]
        for low, high, value in claimed:
            if value is not None:
                self.arena[value] = (low, high)
        self.made.update(kernel.outputs)

    def _check_shared(self, kernel, value, other, roots, allowed) -> None:
        """A value that the kernel reads itself may be overwritten only through a pair that the target allows."""
        if other not in roots:
            return
        readers = [v for v in kernel.inputs if self.root(v) == other]
        assert len(readers) == 1, f"@{kernel.name} overwrites what it reads twice"
        (reader,) = readers
        assert (value, reader) in allowed, f"@{kernel.name} overwrites %{self.graph[reader].name} in place"
        assert self.shows_all(reader, other)

    def shows_all(self, view: int, root: int) -> bool:
        return covers(self.graph[view].type, self.strides[view][0], self.graph[root].type)
