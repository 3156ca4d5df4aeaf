"""Several reductions at once on NumPy, against the reference interpreter."""

from __future__ import annotations

import numpy as np
import pytest

import irconv.ops  # noqa: F401  registers the ops
from irconv.backends.numpy.parallel import Pool
from irconv.builder import Builder
from irconv.graph import Graph
from irconv.interpret import evaluate
from irconv.kernel import Uses, make_kernel
from irconv.ops.elementwise import greater, multiply, square, where
from irconv.ops.reduce import reduce_max, reduce_mean, reduce_sum
from irconv.types import TensorSpec
from tests.backends.test_fused_kernels import PARALLEL, check_kernel


def check_reductions(build, *shapes, dtype="f32") -> None:
    graph = Graph()
    builder = Builder(graph)
    inputs = [builder.input(f"x{i}", TensorSpec(s, dtype).type) for i, s in enumerate(shapes)]
    for i, value in enumerate(build(*inputs)):
        graph.set_output(f"y{i}", value.id)
    rng = np.random.default_rng(3)
    arrays = {i: rng.uniform(-1, 1, graph[i].type.shape).astype(graph[i].type.dtype.numpy) for i in graph.inputs}
    kernel = make_kernel(Uses(graph), [i for i in graph.order() if not graph[i].is_leaf], "reductions")
    for parallel in (*PARALLEL, Pool(3)):
        check_kernel(graph, kernel, evaluate(graph, arrays), parallel, 4.0)


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16"])
@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (4, 8, 40, 40), (2, 3, 1, 1), (0, 3, 2, 2)])
def test_batch_norm_backward_with_its_mask(shape, dtype) -> None:
    def build(y, d, x):
        masked = where(greater(y, 0.0), d, 0.0)
        axes = (0, 2, 3)
        return [masked, reduce_sum(masked, axes), reduce_sum(multiply(masked, x), axes, True), reduce_sum(x, axes)]

    check_reductions(build, shape, shape, shape, dtype=dtype)


@pytest.mark.parametrize("axes", [(0,), (1, 2, 3), (2, 3), None])
def test_different_reductions_of_an_input_and_of_a_product(axes) -> None:
    def build(x, s):
        product = multiply(x, s)
        return [reduce_max(x, axes), reduce_mean(product, axes, True), reduce_sum(square(x), axes), reduce_max(product, axes)]

    check_reductions(build, (4, 8, 30, 31), (8, 1, 1))
