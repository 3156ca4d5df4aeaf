"""A fused kernel run node by node, against the reference interpreter."""

from __future__ import annotations

import numpy as np
import pytest

import irconv.backends.native.kernels  # enters the generators
import irconv.ops  # noqa: F401  registers the ops
from irconv.backends.arrays.base import ArrayKernel, FusedRequest
from irconv.backends.arrays.sequence import one_by_one
from irconv.backends.codegen.machine import MACHINES
from irconv.backends.native.base import NativeKernel
from irconv.backends.native.lowering import NativeLowering
from irconv.backends.numpy.parallel import Pool
from irconv.builder import Builder
from irconv.graph import Graph
from irconv.interpret import evaluate
from irconv.kernel import Kernel, Uses, make_kernel
from irconv.ops.elementwise import divide, exp, subtract
from irconv.ops.reduce import reduce_max, reduce_sum
from irconv.ops.shape import reshape
from irconv.types import TensorSpec
from tests.backends.executing import check, garbage


def softmax_graph(shape) -> tuple[Graph, Kernel]:
    graph = Graph()
    x = Builder(graph).input("x", TensorSpec(shape).type)
    e = exp(subtract(x, reduce_max(x, 1, True)))
    total = reshape(reduce_sum(e, 1), (shape[0], 1))
    for name, value in (("y", divide(e, total)), ("total", total)):
        graph.set_output(name, value.id)
    return graph, make_kernel(Uses(graph), [i for i in graph.order() if not graph[i].is_leaf], "row_softmax")


def check_kernel(graph: Graph, kernel: Kernel, made: ArrayKernel) -> None:
    (x,) = graph.inputs
    values = evaluate(graph, {x: np.random.default_rng(0).standard_normal(graph[x].type.shape).astype("f4")})
    outputs = [garbage(graph[i].type, np.nan) for i in kernel.outputs]
    made.run(*outputs, *(values[i] for i in kernel.inputs), *(garbage(t, np.nan) for t in made.scratch))
    for i, out in zip(kernel.outputs, outputs, strict=True):
        check(out, values[i])


def test_the_native_backend_runs_its_own_kernels_one_by_one() -> None:
    """Rows that are too long for the code of a fused kernel, of a kind that array backends have no code for."""
    graph, kernel = softmax_graph((2, 40000))
    made = NativeLowering(MACHINES["generic"], 2).lower(graph, kernel)
    assert isinstance(made, NativeKernel) and len(made.phases) > 1
    check_kernel(graph, kernel, made)


@pytest.mark.parametrize("parallel", [None, Pool(2)])
def test_softmax_with_reshapes_inside_and_among_the_results(parallel) -> None:
    graph, kernel = softmax_graph((6, 10))
    check_kernel(graph, kernel, one_by_one(FusedRequest(np, graph, kernel, None, parallel)))
