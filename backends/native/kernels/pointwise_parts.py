"""Which nodes of the gradients of a pointwise convolution (:mod:`irconv.passes.pointwise_gradients`) belong to what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from irconv.backends.native.kernels.sums import KIND as SUMS
from irconv.graph import Graph
from irconv.kernel import Kernel, made_by


@dataclass(frozen=True)
class Parts:
    """The parts of a kernel.

    weight:     the weight gradient as a kernel of its own, from ``d`` and ``x``.
    input:      the input gradient with its epilogue and sums, ``conv`` among them; None where the kernel has none.
    ahead_of_d, ahead_of_x: ids of the elementwise ops that make d and x, in topological order; none for values from outside.
    """

    weight: Kernel
    d: int
    x: int
    input: Kernel | None
    conv: int | None
    ahead_of_d: tuple[int, ...]
    ahead_of_x: tuple[int, ...]


def parts_of(graph: Graph, kernel: Kernel) -> Parts:
    """Tell the nodes of a kernel apart."""
    nodes = kernel.nodes
    columns = next(i for i in nodes if graph[i].op.name == "im2col")
    product = next(i for i in nodes if graph[i].op.name == "matmul" and graph[i].operands[1] == columns)
    x = graph[columns].operands[0]
    d, views = graph[product].operands[0], []
    while d in nodes and graph[d].op.name in ("reshape", "transpose"):
        views.append(d)
        d = graph[d].operands[0]
    after = [i for i in nodes if graph[i].op.name == "reshape" and graph[i].operands[0] == product]
    weight = [i for i in nodes if i in (product, columns, *views, *after)]
    ahead_of_d, ahead_of_x = made_by(graph, nodes, d), made_by(graph, nodes, x)
    rest = [i for i in nodes if i not in (*weight, *ahead_of_d, *ahead_of_x)]
    conv = next((i for i in rest if graph[i].op.name == "conv_transpose"), None)
    return Parts(
        _part(graph, kernel, "conv_weight_gradient", weight),
        d,
        x,
        None if conv is None else _input_gradient(graph, kernel, rest),
        conv,
        ahead_of_d,
        ahead_of_x,
    )


def _input_gradient(graph: Graph, kernel: Kernel, nodes: Sequence[int]) -> Kernel:
    has_sums = any(graph[i].op.name == "sum" for i in nodes)
    return _part(graph, kernel, SUMS if has_sums else "conv_transpose_epilogue", nodes)


def _part(graph: Graph, kernel: Kernel, kind: str, nodes: Sequence[int]) -> Kernel:
    inputs = dict.fromkeys(i for node in nodes for i in graph[node].operands if i not in nodes)
    outputs = tuple(i for i in kernel.outputs if i in nodes)
    return Kernel(graph[nodes[-1]].name, kind, tuple(nodes), tuple(inputs), outputs)
