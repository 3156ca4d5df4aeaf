"""Native im2col and col2im against the ops' references."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.builder import GraphValue
from irconv.op import OPS
from irconv.ops.contract import col2im, im2col
from irconv.types import tensor_type
from tests.backends.native.pooling import CHANNELS_LAST, ROW_MAJOR, graph_of, make, run

CASES = {
    "3x3": ((2, 6, 5, 7), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "groups, stride": ((3, 6, 9, 8), (2, 3), (2, 3), ((0, 1), (2, 0)), (1, 2), 3),
    "stride beyond the kernel": ((1, 2, 9), (2,), (4,), ((3, 3),), (1,), 1),
    "cropped, 3-D": ((2, 3, 4, 5, 4), (2, 2, 1), (1, 1, 2), ((0, 0), (-1, 1), (0, 0)), (1, 1, 1), 1),
    "many": ((2, 40, 20, 20), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 2),
    "no sample": ((0, 2, 4, 4), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 2),
}


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("name", CASES)
def test_they_are_their_references(name: str, dtype: str) -> None:
    shape, *window = CASES[name]
    x = np.random.default_rng(1).normal(size=shape).astype(tensor_type(dtype, ()).dtype.numpy)

    def forward(x: GraphValue) -> list[GraphValue]:
        return [im2col(x, *window)]

    graph, kernel = graph_of(forward, [tensor_type(dtype, shape)])
    columns = OPS["im2col"].reference(graph[kernel.nodes[0]].attributes, x)
    for order in (ROW_MAJOR, CHANNELS_LAST):
        orders = {graph.inputs[0]: order}
        made = make(graph, kernel, orders, ROW_MAJOR, "avx512")
        assert made is not None
        for backwards in (False, True):
            out = run(made, graph, kernel, [x], orders, ROW_MAJOR, "avx512", backwards)[0]
            np.testing.assert_array_equal(out, columns)

    def adjoint(c: GraphValue) -> list[GraphValue]:
        return [col2im(c, shape[0], shape[1], shape[2:], *window)]

    graph, kernel = graph_of(adjoint, [tensor_type(dtype, columns.shape)])
    image = OPS["col2im"].reference(graph[kernel.nodes[0]].attributes, columns)
    for order in (ROW_MAJOR, CHANNELS_LAST):
        orders = dict.fromkeys(kernel.nodes, order)
        made = make(graph, kernel, orders, ROW_MAJOR, "avx512")
        assert made is not None
        for backwards in (False, True):
            out = run(made, graph, kernel, [columns], orders, ROW_MAJOR, "avx512", backwards)[0]
            np.testing.assert_allclose(out, image, rtol=1e-6 if dtype == "f32" else 1e-14, atol=1e-6)


def test_the_source_does_not_depend_on_the_batch() -> None:
    sources = set()
    for batch in (0, 1, 3):
        graph, kernel = graph_of(lambda x: [im2col(x, 3, 1, 1, 1, 2)], [tensor_type("f32", (batch, 4, 5, 5))])
        made = make(graph, kernel, {}, ROW_MAJOR, "avx512")
        assert made is not None
        sources.add(made.source)
    assert len(sources) == 1
