"""What a backend can do, as data that the passes read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from irconv.graph import Graph
from irconv.kernel import Kernel


def _no_workspace(graph: Graph, kernel: Kernel) -> tuple[int, ...]:
    return ()


def _nothing_in_place(graph: Graph, kernel: Kernel) -> tuple[tuple[int, int], ...]:
    return ()


@dataclass(frozen=True)
class Target:
    """A machine as fusion, scheduling and memory planning see it.

    name:             of the backend.
    kinds:            fused kernels it has code for ("elementwise", "conv_epilogue", ...); others are not formed.
    block_bytes:      what stays in a core's cache while a block of work is done.
    vector_width:     float32 lanes of a vector register.
    layouts:          how its kernels like activations stored ("channels-last"); row-major is always among them.
    max_nodes:        the most ops that one kernel may hold; of a kernel of many updates, each of them.
    workspace:        (graph, kernel) -> bytes of each temporary the kernel needs while it runs.
    writes_in_place:  (graph, kernel) -> (output id, input id) pairs whose buffers may be one when the input is not needed
                      afterwards; several may be used together, as long as no value occurs twice.
    """

    name: str
    kinds: frozenset[str] = frozenset()
    block_bytes: int = 256 * 1024
    vector_width: int = 8
    layouts: tuple[str, ...] = ("row-major",)
    max_nodes: int = 64
    workspace: Callable[[Graph, Kernel], tuple[int, ...]] = _no_workspace
    writes_in_place: Callable[[Graph, Kernel], tuple[tuple[int, int], ...]] = _nothing_in_place
