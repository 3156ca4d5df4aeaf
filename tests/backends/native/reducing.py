"""Runs one native kernel on arrays of any strides, phase by phase, in the usual order or task by task from the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

import irconv.backends.native.kernels  # enters the generators
import irconv.ops  # noqa: F401  registers the ops
from irconv.backends.codegen.machine import Machine
from irconv.backends.native.base import NATIVE, NativeKernel, NativeRequest
from irconv.backends.native.library import Unit
from irconv.backends.native.runtime import run_phases
from irconv.builder import Builder, GraphValue
from irconv.graph import Graph
from irconv.kernel import Kernel, Uses, make_kernel
from irconv.types import type_of
from tests.backends.native.machines import TESTED
from tests.backends.native.pooling import CHANNELS_LAST, ROW_MAJOR, empty, run_backwards, strides_of

__all__ = ["CHANNELS_LAST", "ROW_MAJOR", "Case", "channels_last", "element_strides"]

Build = Callable[..., Sequence[GraphValue]]


def channels_last(array: np.ndarray) -> np.ndarray:
    """The same array with its axis 1 next to each other in memory."""
    out = empty(array.shape, array.dtype, CHANNELS_LAST)
    out[...] = array
    return out


def element_strides(array: np.ndarray) -> tuple[int, ...]:
    if not array.size:  # NumPy gives these strides of 0
        return strides_of(array.shape, ROW_MAJOR)
    return tuple(s // array.itemsize for s in array.strides)


class Case:
    """A graph whose computed nodes are one kernel of ``kind`` (None: of its single node), described for one machine.

    arrays: the inputs, whose strides the kernel is made for; order: that of its results.
    """

    def __init__(
        self,
        build: Build,
        arrays: Sequence[np.ndarray],
        kind: str | None = None,
        order: str = ROW_MAJOR,
        machine: str | Machine = "avx512",
    ):
        self.graph, self.arrays, self.order = Graph(), list(arrays), order
        builder = Builder(self.graph)
        inputs = [builder.input(f"x{i}", type_of(a)) for i, a in enumerate(arrays)]
        for i, value in enumerate(build(*inputs)):
            self.graph.set_output(f"y{i}", value.id)
        nodes = [i for i in self.graph.order() if not self.graph[i].is_leaf]
        self.kernel: Kernel = make_kernel(Uses(self.graph), nodes, kind)
        self.machine = TESTED[machine] if isinstance(machine, str) else machine
        given = {i: element_strides(a) for i, a in zip(self.graph.inputs, arrays, strict=True)}
        ids = {i for node in nodes for i in (node, *self.graph[node].operands)}
        strides = {i: given.get(i) or strides_of(self.graph[i].type.shape, order) for i in ids}
        generator = NATIVE[self.kernel.kind]
        made = generator(NativeRequest(self.graph, self.kernel, strides, self.machine, 2))
        assert made is not None, "there is no code for the case"
        self.made: NativeKernel = made

    def run(self, how: str = "threads", in_place: bool = False) -> list[np.ndarray]:
        """The outputs, in the order of the graph's.  ``how``: threads, backwards, or one (a call for all tasks at once)."""
        made, graph, kernel = self.made, self.graph, self.kernel
        outputs = [empty(graph[i].type.shape, graph[i].type.dtype.numpy, self.order) for i in kernel.outputs]
        position = {i: at for at, i in enumerate(graph.inputs)}
        inputs = [
            self.arrays[position[i]] if i in position else graph[i].attributes.value for i in kernel.inputs
        ]
        if in_place:
            used: set[int] = set()
            for out, read in made.in_place:
                if out not in used and read not in used:
                    used |= {out, read}
                    outputs[out][...] = inputs[read]
                    inputs[read] = outputs[out]
        scratch = [empty(t.shape, t.dtype.numpy, ROW_MAJOR) for t in made.scratch]
        unit = Unit(made.source, self.machine.flags, kernel.kind)
        arrays = [*outputs, *inputs, *scratch]
        for phase in made.phases:
            if how == "backwards":
                run_backwards(unit, phase.function, phase.tasks, made.sizes, arrays)
            else:
                run_phases(unit, [(phase.function, phase.tasks)], made.sizes, arrays)
        place = {i: at for at, i in enumerate(kernel.outputs)}
        return [outputs[place[i]] for i in graph.outputs.values()]
