"""From kernels of a graph to generated C, and to array kernels where there is none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irconv.backends.arrays.base import FUSED, Array, ArrayKernel, FusedRequest, Parallel, ViewKernel
from irconv.backends.arrays.lower import Lowering, operand_ids
from irconv.backends.arrays.sequence import one_by_one
from irconv.backends.codegen.machine import Machine
from irconv.backends.native.base import NATIVE, Candidate, NativeKernel, NativeRequest, Prepared, first, named
from irconv.backends.native.compiler import find_compiler, knows_float16
from irconv.backends.native.converted import with_copies
from irconv.backends.native.stepwise import step_by_step
from irconv.backends.native.tuning import Tuner
from irconv.errors import BackendError
from irconv.graph import Graph
from irconv.kernel import Kernel
from irconv.types import F16, TensorType


class NativeLowering(Lowering):
    """Native kernels for one graph at a time, each described once; the array kernel where a generator has none.

    ``threads`` of the pool that will run them; ``parallel`` splits the work of array kernels; ``tuner`` measures the candidates
    of a kernel, without one the cost model chooses.
    """

    alone: bool = False
    """Whether array kernels cannot be used, so that slow code is better than none."""

    def __init__(
        self,
        machine: Machine,
        threads: int,
        parallel: Parallel | None = None,
        strict: bool = False,
        tuner: Tuner | None = None,
    ):
        super().__init__(np, parallel, strict)
        self.tuner = tuner
        self.machine = machine
        self.threads = threads

    def _make(self, graph: Graph, kernel: Kernel) -> ArrayKernel | ViewKernel:
        native = None if kernel.is_view else self._native(graph, kernel)
        if native is not None:
            return native
        if len(kernel.nodes) > 1 and kernel.kind not in FUSED:
            made: ArrayKernel | ViewKernel = one_by_one(
                FusedRequest(np, graph, kernel, self._contiguous, self.parallel, self.strict)
            )
        else:
            made = super()._make(graph, kernel)
        if isinstance(made, ViewKernel):
            return made
        return _stored(made, [graph[value].type for value in kernel.outputs])

    def _native(self, graph: Graph, kernel: Kernel) -> NativeKernel | None:
        generator = NATIVE.get(kernel.kind)
        if generator is None or not self._has_types(graph, kernel):
            return None
        strides = {i: self._values[i][0] for node in kernel.nodes for i in (node, *graph[node].operands)}
        request = NativeRequest(graph, kernel, strides, self.machine, self.threads, self.strict, self._choose, self.alone)
        made = generator(request) or with_copies(generator, request)
        if made is None and self._runs_step_by_step(graph, kernel):
            made = step_by_step(request)
        if made is None:
            return None
        _check_positions(graph, kernel, made)
        return named(made, kernel.name, self.machine)

    def _has_types(self, graph: Graph, kernel: Kernel) -> bool:
        """Whether the compiler has the types that a kernel is about; without array kernels it will have to say so itself."""
        values = {i for node in kernel.nodes for i in (node, *graph[node].operands)}
        if self.alone or all(graph[i].type.dtype is not F16 for i in values):
            return True
        return knows_float16(find_compiler(), self.machine.flags)

    def _runs_step_by_step(self, graph: Graph, kernel: Kernel) -> bool:
        """Whether a fused kernel without a generator is made of its ops' own: array kernels of its kind may be faster."""
        halves = any(graph[i].type.dtype is F16 for i in kernel.nodes)
        return len(kernel.nodes) > 1 and (self.alone or halves or kernel.kind not in FUSED)

    def _choose(self, request: NativeRequest, candidates: Sequence[Candidate]) -> NativeKernel | None:
        if self.tuner is None:
            return first(request, candidates)
        graph = request.graph
        stays = frozenset(i for i in request.kernel.inputs if self._stays(graph, self._leaf(graph, i)))
        return self.tuner.choose(request, candidates, stays)

    def workspace(self, graph: Graph, kernel: Kernel) -> tuple[int, ...]:
        """Bytes of each temporary in the arena: none for those that are kept from call to call."""
        sizes = super().workspace(graph, kernel)
        first = len(kernel.outputs) + len(operand_ids(graph, kernel))
        kept = {prepared.scratch - first for prepared, _ in self.kept(graph, kernel)}
        return tuple(0 if position in kept else size for position, size in enumerate(sizes))

    def kept(self, graph: Graph, kernel: Kernel) -> list[tuple[Prepared, int]]:
        """What a kernel prepares once and keeps, each with the leaf that it is made from.

        That leaf is a constant, or a state that the program does not write, under whatever name.
        """
        made = self.lower(graph, kernel)
        if not isinstance(made, NativeKernel) or not made.prepared:
            return []
        values = (*kernel.outputs, *operand_ids(graph, kernel))
        leaves = [(prepared, self._leaf(graph, values[prepared.operand])) for prepared in made.prepared]
        return [(prepared, leaf) for prepared, leaf in leaves if self._stays(graph, leaf)]

    def _leaf(self, graph: Graph, value: int) -> int:
        """The value that this one is a view of, or itself."""
        while self._values[value][1]:
            value = graph[value].operands[0]
        return value

    def _stays(self, graph: Graph, leaf: int) -> bool:
        node = graph[leaf]
        if node.op.name == "constant":
            return True
        if leaf not in graph.states or leaf in graph.updates:
            return False
        variable = graph.state.get(node.name)
        return variable is not None and all(graph.state.get(graph[other].name) is not variable for other in graph.updates)


def _stored(kernel: ArrayKernel, outputs: Sequence[TensorType]) -> ArrayKernel:
    """An array kernel whose outputs are stored as their layouts say: it writes row-major ones, which are copied."""
    turned = [position for position, type_ in enumerate(outputs) if type_.layout is not None]
    if not turned:
        return kernel
    def run(*arrays: Array) -> None:
        given, temporaries = list(arrays[: len(arrays) - len(turned)]), arrays[len(arrays) - len(turned) :]
        for position, temporary in zip(turned, temporaries, strict=True):
            given[position] = temporary
        kernel.run(*given)
        for position, temporary in zip(turned, temporaries, strict=True):
            np.copyto(arrays[position], temporary)

    pairs = tuple(pair for pair in kernel.in_place if pair[0] not in turned)
    return ArrayKernel(run, (*kernel.scratch, *(outputs[position].logical for position in turned)), pairs)


def _check_positions(graph: Graph, kernel: Kernel, made: NativeKernel) -> None:
    """Raise BackendError where a generator says that it prepares something that is no temporary, or from no operand."""
    outputs, first = len(kernel.outputs), len(kernel.outputs) + len(operand_ids(graph, kernel))
    for prepared in made.prepared:
        is_operand = outputs <= prepared.operand < first
        is_scratch = first <= prepared.scratch < first + len(made.scratch)
        if not (is_operand and is_scratch and prepared.phase < len(made.phases)):
            raise BackendError(f"the kernel of @{kernel.name} ({kernel.kind}) has wrong positions: {prepared}")
