"""Runs one native contraction by its phases: any storage order, machine, and order of tasks."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

import irconv.backends.native.kernels
import irconv.ops  # noqa: F401  registers the ops
from irconv.backends.arrays.lower import operand_ids
from irconv.backends.codegen.machine import Machine
from irconv.backends.native.base import NATIVE, NativeKernel, NativeRequest
from irconv.backends.native.runtime import function_address, run_phases
from irconv.builder import Builder, GraphValue
from irconv.graph import Graph
from irconv.kernel import Kernel
from irconv.passes.fuse import fuse
from irconv.target import Target
from irconv.types import TensorType, tensor_type
from tests.backends.native.machines import TESTED

Build = Callable[..., GraphValue]
Order = Sequence[int]
PHASE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3)
KINDS = frozenset({"conv_epilogue", "conv_transpose_epilogue", "matmul_epilogue"})


def channels_last(rank: int) -> Order:
    """The axes from slowest to fastest."""
    return (0, *range(2, rank), 1) if rank > 2 else tuple(range(rank))


@dataclass
class Case:
    """A graph whose last kernel is under test."""

    graph: Graph
    kernel: Kernel
    inputs: tuple[int, ...]

    @property
    def result(self) -> int:
        return self.kernel.outputs[0]


def case(build: Build, *shapes: Sequence[int], dtype: str = "f32") -> Case:
    """The graph of ``build`` over inputs of these shapes; its contraction is the kernel."""
    graph = Graph()
    builder = Builder(graph)
    inputs = [builder.input(f"x{i}", tensor_type(dtype, tuple(shape))) for i, shape in enumerate(shapes)]
    graph.set_output("y", build(*inputs).id)
    kernels = [k for k in fuse(graph, Target("test", KINDS)).kernels if k.kind in NATIVE]
    (kernel,) = [k for k in kernels if any(graph[i].op.name in ("conv", "conv_transpose", "matmul") for i in k.nodes)]
    return Case(graph, kernel, tuple(v.id for v in inputs))


def arranged(array: np.ndarray, order: Order) -> np.ndarray:
    """The same elements stored in this order of axes."""
    return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))


def garbage(t: TensorType, order: Order | None = None) -> np.ndarray:
    """A buffer as a kernel finds it."""
    filler = np.nan if t.dtype.is_float else 1
    array = np.full(t.shape, filler, t.dtype.numpy)
    return array if order is None else arranged(array, order)


def element_strides(array: np.ndarray) -> tuple[int, ...]:
    return tuple(s // array.itemsize for s in array.strides)


def generate(
    c: Case, values: Sequence[np.ndarray], out: np.ndarray, machine: str | Machine = "avx512", strict: bool = True
) -> NativeKernel | None:
    """The kernel for operands and result stored as these arrays are; ``strict``: by the direct algorithm."""
    strides = dict(zip(c.inputs, map(element_strides, values), strict=True))
    strides |= {i: element_strides(out) for i in c.kernel.nodes}
    for i in operand_ids(c.graph, c.kernel):
        if c.graph[i].op.name == "constant":
            strides[i] = element_strides(np.empty(c.graph[i].type.shape))
    found = TESTED[machine] if isinstance(machine, str) else machine
    return NATIVE[c.kernel.kind](NativeRequest(c.graph, c.kernel, strides, found, 2, strict))


def arrays_of(c: Case, made: NativeKernel, values: Sequence[np.ndarray], out: np.ndarray) -> list[np.ndarray]:
    """All buffers of a call."""
    by_id = dict(zip(c.inputs, values, strict=True))
    for i in operand_ids(c.graph, c.kernel):
        if c.graph[i].op.name == "constant":
            by_id[i] = np.ascontiguousarray(c.graph[i].attributes.value)
    return [out, *(by_id[i] for i in operand_ids(c.graph, c.kernel)), *(garbage(t) for t in made.scratch)]


def run_tasks(
    c: Case, made: NativeKernel, values: Sequence[np.ndarray], out: np.ndarray, step: int, backwards: bool
) -> np.ndarray:
    """One call on this thread, ``step`` tasks at a time, the last first if ``backwards``."""
    arrays = arrays_of(c, made, values, out)
    buffers = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
    sizes = (ctypes.c_int64 * max(1, len(made.sizes)))(*made.sizes)
    for phase in made.phases:
        function = PHASE(function_address(made.unit, phase.function))
        starts = range(0, phase.tasks, step)
        for first in reversed(starts) if backwards else starts:
            function(buffers, sizes, first, min(first + step, phase.tasks), 0)
    return out


def run(c: Case, made: NativeKernel, values: Sequence[np.ndarray], out: np.ndarray) -> np.ndarray:
    """One call, all phases."""
    phases = [(p.function, p.tasks) for p in made.phases]
    run_phases(made.unit, phases, made.sizes, arrays_of(c, made, values, out))
    return out
