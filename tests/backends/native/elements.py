"""Runs native kernels of single ops and elementwise groups on arrays as they lie: any strides, machine and order of tasks."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import irconv.backends.native.kernels
import irconv.ops  # noqa: F401  registers the ops
from irconv.backends.codegen.machine import Machine, this_machine
from irconv.backends.native.base import NATIVE, NativeKernel, NativeRequest
from irconv.backends.native.library import Unit, library
from irconv.builder import Builder, GraphValue
from irconv.graph import Graph
from irconv.kernel import Kernel, Uses, make_kernel
from irconv.op import NO_ATTRIBUTES, OPS
from irconv.strides import row_major
from irconv.types import type_of
from tests.backends.native.machines import TESTED

X86 = ("avx512", "avx2", "sse2")
HERE = this_machine().name
RUNNABLE = (*X86[X86.index(HERE) :], "generic") if HERE in X86 else tuple(dict.fromkeys((HERE, "generic")))
"""The machines whose code this processor can run, the widest first."""

WIDEST = RUNNABLE[0]
THREADS = 2
"""Of which kernels run on the last one, whose scratch is not the first."""

MARGIN = 64
"""Elements around an output that must stay as they are."""


class Case:
    """A kernel over values of which the inputs are given: ``build(*inputs)`` makes the outputs.

    orders: for outputs, axes from slowest to fastest; None: row-major.
    """

    def __init__(
        self,
        build: Callable[..., Sequence[GraphValue]],
        arrays: Sequence[np.ndarray],
        machine: str | Machine = WIDEST,
        order: Sequence[int] | None = None,
    ):
        self.arrays = [np.asarray(a) for a in arrays]
        self.machine = TESTED[machine] if isinstance(machine, str) else machine
        self.graph = Graph()
        builder = Builder(self.graph)
        inputs = [builder.input(f"x{i}", type_of(a)) for i, a in enumerate(self.arrays)]
        results = list(build(*inputs))
        for i, value in enumerate(results):
            self.graph.set_output(f"y{i}", value.id)
        self.results = [value.id for value in results]
        leaves = {v.id for v in inputs}
        nodes = [n.id for n in self.graph if not n.is_leaf and n.id not in leaves]
        self.kernel: Kernel = make_kernel(Uses(self.graph), nodes, "elementwise" if len(nodes) > 1 else None)
        self.order = order
        strides = {v.id: element_strides(a) for v, a in zip(inputs, self.arrays, strict=True)}
        for node in self.graph:
            shape = node.type.shape
            strides.setdefault(node.id, stored_strides(shape, order if order and len(order) == len(shape) else None))
        self.strides = strides
        self.inputs = {v.id: a for v, a in zip(inputs, self.arrays, strict=True)}
        request = NativeRequest(self.graph, self.kernel, strides, self.machine, threads=THREADS)
        self.made: NativeKernel | None = NATIVE[self.kernel.kind](request)

    @property
    def unit(self) -> Unit:
        """What is compiled."""
        assert self.made is not None
        return Unit(self.made.source, self.machine.flags, self.kernel.name)

    def run(self, backwards: bool = False, in_place: Sequence[tuple[int, int]] = ()) -> list[np.ndarray]:
        """The values built, task by task, the last one first if ``backwards``; what lies around them is checked.

        in_place: pairs (position among the kernel's outputs, position among its operands).
        """
        assert self.made is not None
        ids = self.kernel.inputs if len(self.kernel.nodes) > 1 else self.graph[self.kernel.nodes[0]].operands
        values = [self.inputs[i] if i in self.inputs else self.graph[i].attributes.value for i in ids]
        guarded = [self._output(i) for i in self.kernel.outputs]
        outputs = [array for array, _ in guarded]
        for output, slot in in_place:
            outputs[output][...] = values[slot]
            values[slot] = outputs[output]
        scratch = [np.full(t.shape, 77, t.dtype.numpy) for t in self.made.scratch]
        code = library().load(self.unit)
        arrays = [*outputs, *values, *scratch]
        pointers = (ctypes.c_void_p * len(arrays))(*(a.__array_interface__["data"][0] for a in arrays))
        sizes = (ctypes.c_int64 * max(1, len(self.made.sizes)))(*self.made.sizes)
        for phase in self.made.phases:
            tasks = reversed(range(phase.tasks)) if backwards else range(phase.tasks)
            for task in tasks:
                code[phase.function](pointers, sizes, ctypes.c_int64(task), ctypes.c_int64(task + 1), ctypes.c_int64(THREADS - 1))
        for array, memory in guarded:
            inside = array.size * array.itemsize
            edge = MARGIN * array.itemsize
            assert (memory[:edge] == 0xA5).all() and (memory[edge + inside :] == 0xA5).all(), "written beyond an output"
        return [outputs[self.kernel.outputs.index(i)].copy() for i in self.results]

    def _output(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        type_ = self.graph[i].type
        item = type_.dtype.bytes
        memory = np.full((type_.size + 2 * MARGIN) * item, 0xA5, np.uint8)
        inner = memory[MARGIN * item : (MARGIN + type_.size) * item].view(type_.dtype.numpy)
        strides = [s * item for s in self.strides[i]]
        return np.lib.stride_tricks.as_strided(inner, type_.shape, strides), memory


def one_op(
    op: str, attributes: Any, arrays: Sequence[np.ndarray], machine: str | Machine = WIDEST, order: Sequence[int] | None = None
) -> Case:
    """The kernel of a single op."""

    def build(*inputs: GraphValue) -> list[GraphValue]:
        return [inputs[0].builder.emit(OPS[op], attributes if attributes is not None else NO_ATTRIBUTES, inputs)]

    return Case(build, arrays, machine, order)


def element_strides(array: np.ndarray) -> tuple[int, ...]:
    """Strides in elements; NumPy gives axes of 0 or 1 elements any."""
    if array.flags.c_contiguous:
        return row_major(array.shape)
    return tuple(s // array.itemsize for s in array.strides)


def stored_strides(shape: Sequence[int], order: Sequence[int] | None) -> tuple[int, ...]:
    """Strides of a value whose axes are stored in this order, slowest first."""
    if order is None:
        return row_major(shape)
    strides, step = [0] * len(shape), 1
    for axis in reversed(order):
        strides[axis], step = step, step * shape[axis]
    return tuple(strides)


def reference(op: str, attributes: Any, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """What the op's reference computes."""
    with np.errstate(all="ignore"):
        return np.asarray(OPS[op].reference(attributes, *arrays))
