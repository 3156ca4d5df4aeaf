"""From kernels of a graph to array kernels: the part of a target that is the same for NumPy and CuPy."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from irconv.backends.arrays.base import (
    FUSED,
    KERNELS,
    ArrayKernel,
    FusedRequest,
    Parallel,
    Request,
    Serial,
    Shared,
    ViewKernel,
)
from irconv.errors import BackendError
from irconv.graph import Graph
from irconv.kernel import Kernel, kernel_bytes, kernel_flops
from irconv.strides import Strides, is_contiguous, value_strides

SHARE, MOST_SHARES = 100e-6, 2
"""Kernels are cut so that a share takes about so many seconds, by estimate, and into no more than so many shares.  To start a
second thread and hear back from it takes 5 to 10 us, a further piece of the work about as long, and threads that make short
calls wait for each other's turn at the interpreter.  How a kernel is cut does not depend on the number of threads, and so
neither do the results.  Measured on one thread: two shares cost ResNet-18 and U-Net 4%, four 13%."""

BYTES_PER_SECOND, PRODUCTS_PER_SECOND, STEPS_PER_SECOND = 10e9, 60e9, 3e9
"""What the estimate goes by, for one core: memory, floating-point operations of matrix products, and all others."""

PRODUCTS = frozenset({"matmul", "conv", "conv_transpose"})


class Lowering:
    """Array kernels for the kernels of one graph at a time, each made once.  ``strict`` keeps to plain rounding."""

    def __init__(self, xp: Any, parallel: Parallel | None = None, strict: bool = False):
        self.xp = xp
        self.strict = strict
        self.parallel = parallel
        self._graph: Graph | None = None
        self._version = -1
        self._values: dict[int, tuple[Strides, bool]] = {}  # strides, and whether it can be a view
        self._contiguous: frozenset[int] = frozenset()
        self._made: dict[Kernel, ArrayKernel | ViewKernel] = {}

    def knows(self, graph: Graph) -> bool:
        """Whether kernels of this graph, as it is now, were made last."""
        return graph is self._graph and graph.version == self._version

    def lower(self, graph: Graph, kernel: Kernel) -> ArrayKernel | ViewKernel:
        """The code of a kernel.  Raises BackendError for an op or kind that has none."""
        if not self.knows(graph):
            self._graph, self._version, self._made = graph, graph.version, {}
            self._values = value_strides(graph)
            self._contiguous = frozenset(i for i, (s, _) in self._values.items() if is_contiguous(graph[i].type.shape, s))
        made = self._made.get(kernel)
        if made is None:
            made = self._made[kernel] = self._make(graph, kernel)
        return made

    def settings(self) -> AbstractContextManager[Any]:
        """What is to hold while the kernels of a call run."""
        return np.errstate(all="ignore") if self.parallel is None else self.parallel.settings()

    def _make(self, graph: Graph, kernel: Kernel) -> ArrayKernel | ViewKernel:
        parallel = self.parallel
        if parallel is not None:
            shares = min(MOST_SHARES, int(estimated_seconds(graph, kernel) / SHARE))
            parallel = Shared(parallel, shares) if shares > 1 else Serial(parallel.block_bytes)
        if len(kernel.nodes) > 1:
            fused = FUSED.get(kernel.kind)
            if fused is None:
                raise BackendError(f"there is no array kernel of kind {kernel.kind!r} for @{kernel.name}")
            return fused(FusedRequest(self.xp, graph, kernel, self._contiguous, parallel, self.strict))
        node = graph[kernel.nodes[0]]
        factory = KERNELS.get(node.op.name)
        if factory is None:
            raise BackendError(f"there is no array kernel for {node.op.name}", location=node.provenance.location)
        operands = tuple(operand.type for operand in graph.operands(node))
        # a reshape that the partition calls a view can be one, whatever the strides of its operand
        contiguous = kernel.is_view or not node.operands or node.operands[0] in self._contiguous
        return factory(Request(self.xp, node.attributes, operands, node.type, contiguous, parallel, self.strict))

    def workspace(self, graph: Graph, kernel: Kernel) -> tuple[int, ...]:
        """Bytes of each temporary (see :class:`irconv.target.Target`)."""
        made = self.lower(graph, kernel)
        return () if isinstance(made, ViewKernel) else tuple(type_.bytes for type_ in made.scratch)

    def writes_in_place(self, graph: Graph, kernel: Kernel) -> tuple[tuple[int, int], ...]:
        """(output id, input id) pairs that may share a buffer (see :class:`irconv.target.Target`)."""
        made = self.lower(graph, kernel)
        if isinstance(made, ViewKernel):
            return ()
        inputs = operand_ids(graph, kernel)
        return tuple((kernel.outputs[output], inputs[slot]) for output, slot in made.in_place)


def estimated_seconds(graph: Graph, kernel: Kernel) -> float:
    """About how long a kernel takes on one core."""
    products = any(graph[i].op.name in PRODUCTS and getattr(graph[i].attributes, "groups", 1) == 1 for i in kernel.nodes)
    per_second = PRODUCTS_PER_SECOND if products else STEPS_PER_SECOND
    return kernel_bytes(graph, kernel) / BYTES_PER_SECOND + kernel_flops(graph, kernel) / per_second


def operand_ids(graph: Graph, kernel: Kernel) -> tuple[int, ...]:
    """Arguments of the array kernel: the op's operands (one value may come twice), or a fused kernel's inputs."""
    return kernel.inputs if len(kernel.nodes) > 1 else graph[kernel.nodes[0]].operands
