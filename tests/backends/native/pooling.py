"""Runs one native kernel by its phases: any storage order, machine, and order of tasks."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import numpy as np

import irconv.backends.native.kernels
import irconv.ops  # noqa: F401  registers the ops
from irconv.backends.arrays.lower import operand_ids
from irconv.backends.codegen.machine import Machine
from irconv.backends.native.base import NATIVE, Chooser, NativeKernel, NativeRequest, first
from irconv.backends.native.library import Unit, library
from irconv.backends.native.runtime import run_phases
from irconv.backends.numpy.parallel import thread_count
from irconv.builder import Builder, GraphValue
from irconv.graph import Graph
from irconv.kernel import Kernel
from irconv.passes.fuse import fuse
from irconv.target import Target
from irconv.types import TensorType
from tests.backends.native.machines import TESTED

Build = Callable[..., list[GraphValue]]
ROW_MAJOR, CHANNELS_LAST = "row-major", "channels-last"


def graph_of(build: Build, types: Sequence[TensorType], kinds: Sequence[str] = ()) -> tuple[Graph, Kernel]:
    """A graph of what ``build`` makes of inputs, and its last kernel."""
    graph = Graph()
    builder = Builder(graph)
    inputs = [builder.input(f"x{i}", t) for i, t in enumerate(types)]
    for i, value in enumerate(build(*inputs)):
        graph.set_output(f"y{i}", value.id)
    return graph, fuse(graph, Target("test", frozenset(kinds))).kernels[-1]


def strides_of(shape: Sequence[int], order: str) -> tuple[int, ...]:
    """Element strides in a storage order."""
    axes = list(range(len(shape)))
    if order == CHANNELS_LAST and len(shape) > 2:
        axes = [0, *range(2, len(shape)), 1]
    strides, step = [0] * len(shape), 1
    for axis in reversed(axes):
        strides[axis], step = step, step * shape[axis]
    return tuple(strides)


def stored(array: np.ndarray, order: str) -> np.ndarray:
    """The same elements in a storage order."""
    result = empty(array.shape, array.dtype, order)
    result[...] = array
    return result


def empty(shape: Sequence[int], dtype: np.dtype, order: str) -> np.ndarray:
    """An array full of what gives itself away if it stays."""
    size = int(np.prod(shape))
    memory = np.full(max(1, size), np.nan if dtype.kind == "f" else 77 if dtype.kind != "b" else True, dtype)
    strides = [s * dtype.itemsize for s in strides_of(shape, order)]
    return np.lib.stride_tricks.as_strided(memory, shape, strides)


def make(
    graph: Graph,
    kernel: Kernel,
    orders: dict[int, str],
    default: str,
    machine: str | Machine,
    strict: bool = False,
    choose: Chooser = first,
) -> NativeKernel | None:
    """The native kernel for values stored in these orders."""
    ids = {i for node in kernel.nodes for i in (node, *graph[node].operands)}
    strides = {i: strides_of(graph[i].type.shape, orders.get(i, default)) for i in ids}
    found = TESTED[machine] if isinstance(machine, str) else machine
    threads = max(2, thread_count())  # the pool's; a single task below runs as the second
    return NATIVE[kernel.kind](NativeRequest(graph, kernel, strides, found, threads, strict, choose))


def run(
    made: NativeKernel,
    graph: Graph,
    kernel: Kernel,
    values: Sequence[np.ndarray],
    orders: dict[int, str],
    default: str,
    machine: str | Machine,
    backwards: bool = False,
) -> list[np.ndarray]:
    """The outputs for these inputs; ``backwards``: task by task, the last one first."""
    found = TESTED[machine] if isinstance(machine, str) else machine
    outputs = [empty(graph[i].type.shape, graph[i].type.dtype.numpy, orders.get(i, default)) for i in kernel.outputs]
    inputs = [stored(v, orders.get(i, default)) for i, v in zip(operand_ids(graph, kernel), values, strict=True)]
    scratch = [empty(t.shape, t.dtype.numpy, ROW_MAJOR) for t in made.scratch]
    unit = Unit(made.source, found.flags, kernel.name)
    arrays = [*outputs, *inputs, *scratch]
    for phase in made.phases:
        if backwards:
            run_backwards(unit, phase.function, phase.tasks, made.sizes, arrays)
        else:
            run_phases(unit, [(phase.function, phase.tasks)], made.sizes, arrays)
    return outputs


def run_backwards(unit: Unit, function: str, tasks: int, sizes: Sequence[int], arrays: Sequence[np.ndarray]) -> None:
    """Call the function once for each task, the last one first."""
    code = library().load(unit)[function]
    integer = ctypes.c_int64
    pointers = (ctypes.c_void_p * len(arrays))(*(a.__array_interface__["data"][0] for a in arrays))
    bounds = (integer * max(1, len(sizes)))(*sizes)
    for task in reversed(range(tasks)):
        code(pointers, bounds, integer(task), integer(task + 1), integer(1))
