"""Fused array kernels on NumPy against the reference interpreter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import irconv.ops  # noqa: F401  registers the ops
from irconv.backends.arrays import FUSED, FusedRequest
from irconv.backends.arrays.base import Serial
from irconv.backends.numpy.parallel import Pool
from irconv.builder import Builder, GraphValue
from irconv.graph import Graph
from irconv.interpret import evaluate
from irconv.kernel import Kernel
from irconv.ops.contract import im2col, matmul
from irconv.ops.conv import conv, conv_transpose
from irconv.ops.elementwise import add, cast, equal, exp, greater, multiply, relu, sigmoid, square, subtract, where
from irconv.ops.pool import max_pool, min_pool
from irconv.ops.pool_taps import argmax_pool, argmin_pool
from irconv.ops.reduce import reduce_max, reduce_mean, reduce_min, reduce_prod, reduce_sum
from irconv.ops.shape import reshape, transpose
from irconv.passes.fuse import fuse
from irconv.target import Target
from irconv.types import TensorSpec
from tests.backends.executing import check, garbage

PARALLEL = (None, Serial(256), Serial(4096), Pool(2))
Build = Callable[..., list[GraphValue]]


def run_kind(
    kind: str, build: Build, *specs: tuple, dtype: str = "f32", count: int = 1, low: float = -2.0
) -> list[Kernel]:
    """Build a graph, fuse it for ``kind`` alone, run every kernel of that kind and compare its outputs with the reference."""
    graph = Graph()
    builder = Builder(graph)
    inputs = [builder.input(f"x{i}", TensorSpec(shape, dtype).type) for i, shape in enumerate(specs)]
    for i, value in enumerate(build(*inputs)):
        graph.set_output(f"y{i}", value.id)
    rng = np.random.default_rng(7)
    arrays = {i: rng.uniform(low, 2.0, graph[i].type.shape).astype(graph[i].type.dtype.numpy) for i in graph.inputs}
    values = evaluate(graph, arrays)
    kernels = [k for k in fuse(graph, Target("test", frozenset({kind}))).kernels if k.kind == kind]
    assert len(kernels) == count
    for kernel in kernels:
        for parallel in PARALLEL:
            check_kernel(graph, kernel, values, parallel)
    return kernels


def check_kernel(graph: Graph, kernel: Kernel, values: dict, parallel, scale: float = 1.0) -> None:
    made = FUSED[kernel.kind](FusedRequest(np, graph, kernel, None, parallel))
    outputs = [garbage(graph[i].type, np.nan) for i in kernel.outputs]
    scratch = [garbage(t, np.nan) for t in made.scratch]
    with np.errstate(all="ignore"):
        made.run(*outputs, *(values[i] for i in kernel.inputs), *scratch)
    for i, out in zip(kernel.outputs, outputs, strict=True):
        check(out, values[i], scale)


# --- elementwise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16"])
def test_elementwise_chain_with_broadcasting_and_several_results(dtype: str) -> None:
    def build(x, y, b):
        first = add(multiply(x, y), b)
        second = sigmoid(first)
        return [second, subtract(second, square(first)), greater(second, 0.5)]

    run_kind("elementwise", build, (5, 3, 8, 7), (5, 3, 8, 7), (3, 1, 1), dtype=dtype)


def test_elementwise_where_and_diamonds() -> None:
    def build(x, d):
        y = relu(x)
        return [where(greater(y, 0), d, 0), add(y, multiply(y, y)), cast(equal(y, x), "i32")]

    run_kind("elementwise", build, (40, 50), (40, 50))


def test_elementwise_in_place_pairs_are_safe() -> None:
    graph = Graph()
    builder = Builder(graph)
    x, y = (builder.input(n, TensorSpec((30, 40)).type) for n in "xy")
    a = exp(x)
    b = add(a, y)
    c = multiply(b, x)
    for name, value in (("b", b), ("c", c)):
        graph.set_output(name, value.id)
    rng = np.random.default_rng(3)
    arrays = {i: rng.normal(size=(30, 40)).astype(np.float32) for i in graph.inputs}
    values = evaluate(graph, arrays)
    (kernel,) = [k for k in fuse(graph, Target("t", frozenset({"elementwise"}))).kernels if k.kind == "elementwise"]
    made = FUSED["elementwise"](FusedRequest(np, graph, kernel, None, Serial(256)))
    assert made.in_place
    for out, read in made.in_place:
        operands = [np.array(values[i]) for i in kernel.inputs]
        outputs = [garbage(graph[i].type, np.nan) for i in kernel.outputs]
        outputs[out] = operands[read]
        made.run(*outputs, *operands, *(garbage(t, np.nan) for t in made.scratch))
        for i, result in zip(kernel.outputs, outputs, strict=True):
            check(result, values[i])


# --- reductions ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16"])
@pytest.mark.parametrize("fold", [reduce_sum, reduce_mean, reduce_max, reduce_min, reduce_prod])
@pytest.mark.parametrize("axes", [(0, 2, 3), (1,), (0,), (3,), None, (2, 3), (0, 1)])
def test_elementwise_reduce(fold, axes, dtype: str) -> None:
    low = 0.9 if fold is reduce_prod else -2.0
    for keepdims in (False, True):
        run_kind(
            "elementwise_reduce",
            lambda x, y, keep=keepdims: [fold(multiply(add(x, y), 0.5), axes, keep)],
            (4, 3, 6, 7),
            (3, 1, 1),
            dtype=dtype,
            low=low,
        )


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16"])
@pytest.mark.parametrize("axes", [(0, 2, 3), (1, 2, 3), (1,), (0,)])
def test_mean_variance(axes, dtype: str) -> None:
    def build(x):
        mean = reduce_mean(x, axes, True)
        centred = subtract(x, mean)
        return [reduce_mean(square(centred), axes, True), mean]

    def with_centred(x):
        mean = reduce_mean(x, axes, True)
        centred = subtract(x, mean)
        return [reduce_mean(square(centred), axes, True), mean, centred]

    run_kind("mean_variance", build, (4, 6, 5, 7), dtype=dtype)
    run_kind("mean_variance", with_centred, (4, 6, 5, 7), dtype=dtype)
    run_kind("mean_variance", lambda x: build(x)[:1], (4, 6, 5, 7), dtype=dtype)


def test_variance_is_two_pass() -> None:
    graph = Graph()
    builder = Builder(graph)
    x = builder.input("x", TensorSpec((16, 4, 20, 20)).type)
    mean = reduce_mean(x, (0, 2, 3), True)
    variance = reduce_mean(square(subtract(x, mean)), (0, 2, 3), True)
    graph.set_output("v", variance.id)
    data = np.random.default_rng(0).normal(1e4, 1.0, (16, 4, 20, 20)).astype(np.float32)
    (kernel,) = [k for k in fuse(graph, Target("t", frozenset({"mean_variance"}))).kernels if k.kind == "mean_variance"]
    exact = data.astype(np.float64).var(axis=(0, 2, 3), keepdims=True)
    for parallel in PARALLEL:
        made = FUSED["mean_variance"](FusedRequest(np, graph, kernel, None, parallel))
        out = np.empty((1, 4, 1, 1), np.float32)
        made.run(out, data, *(garbage(t, np.nan) for t in made.scratch))
        np.testing.assert_allclose(out, exact, rtol=1e-4)


# --- contractions ----------------------------------------------------------------------------------------------------------

CONVS = [
    dict(x=(3, 4, 9, 8), w=(6, 4, 3, 3), stride=1, padding=1),
    dict(x=(1, 4, 30, 31), w=(6, 4, 3, 3), stride=2, padding=1),
    dict(x=(2, 8, 7, 7), w=(40, 8, 1, 1), stride=1, padding=0),
    dict(x=(1, 8, 6, 6), w=(64, 8, 3, 3), stride=1, padding=1),
    dict(x=(2, 6, 12, 11), w=(6, 1, 3, 3), stride=2, padding=1, groups=6),
    dict(x=(2, 6, 12, 11), w=(12, 1, 3, 3), stride=1, padding=1, groups=6),
    dict(x=(2, 6, 10), w=(8, 3, 3), stride=1, padding=2, dilation=2, groups=2),
    dict(x=(2, 3, 5, 6, 7), w=(4, 3, 2, 3, 3), stride=1, padding=1),
]


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16"])
@pytest.mark.parametrize("case", CONVS, ids=lambda c: f"{c['x']}-{c['w']}")
def test_conv_epilogue(case: dict, dtype: str) -> None:
    keywords = {k: v for k, v in case.items() if k not in "xw"}
    rank = len(case["x"]) - 2

    def build(x, w, b):
        y = add(conv(x, w, **keywords), reshape(b, (-1, *(1,) * rank)))
        return [relu(y)]

    run_kind("conv_epilogue", build, case["x"], case["w"], (case["w"][0],), dtype=dtype)
    # the product is read twice, and the result has another type
    run_kind(
        "conv_epilogue",
        lambda x, w: [multiply(square(y := conv(x, w, **keywords)), y)],
        case["x"],
        case["w"],
        dtype=dtype,
    )
    run_kind("conv_epilogue", lambda x, w: [greater(conv(x, w, **keywords), 0)], case["x"], case["w"], dtype="f64")


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16"])
@pytest.mark.parametrize(
    "keywords", [dict(stride=2), dict(stride=1, padding=1), dict(stride=(2, 1), padding=1, dilation=2)]
)
def test_conv_transpose_epilogue(keywords: dict, dtype: str) -> None:
    def build(x, w, r):
        return [relu(add(conv_transpose(x, w, **keywords), r))]

    shape = evaluate_shape(lambda x, w: conv_transpose(x, w, **keywords), (2, 4, 6, 5), (4, 3, 2, 2))
    run_kind("conv_transpose_epilogue", build, (2, 4, 6, 5), (4, 3, 2, 2), shape, dtype=dtype)


def evaluate_shape(build: Callable[..., GraphValue], *shapes: tuple[int, ...]) -> tuple[int, ...]:
    builder = Builder(Graph())
    return build(*(builder.input(f"x{i}", TensorSpec(s).type) for i, s in enumerate(shapes))).shape


@pytest.mark.parametrize(
    "shapes",
    [((9, 20), (20, 7), (7,)), ((1, 300), (300, 900), (900,)), ((700, 30), (30, 50), (50,)), ((3, 5, 6), (6, 4), (4,))],
)
@pytest.mark.parametrize("dtype", ["f64", "f32", "f16"])
def test_matmul_epilogue(shapes, dtype: str) -> None:
    run_kind("matmul_epilogue", lambda x, w, b: [relu(add(matmul(x, w), b))], *shapes, dtype=dtype)


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16"])
@pytest.mark.parametrize(
    "case",
    [*CONVS, dict(x=(5, 20, 14, 14), w=(8, 20, 3, 3), padding=1), dict(x=(3, 1, 40, 60), w=(2, 1, 5, 5))],
    ids=lambda c: f"{c['x']}-{c['w']}",
)
def test_conv_weight_gradient(case: dict, dtype: str) -> None:
    keywords = {k: v for k, v in case.items() if k not in "xw"}
    groups, w = keywords.get("groups", 1), case["w"]
    shape = evaluate_shape(lambda x, w: conv(x, w, **keywords), case["x"], w)

    def build(x, d):
        rows = transpose(d, (1, 0, *range(2, d.rank)))
        left = reshape(rows, (groups, w[0] // groups, d.type.size // w[0]))
        return [reshape(matmul(left, im2col(x, w[2:], **keywords)), w)]

    run_kind("conv_weight_gradient", build, case["x"], shape, dtype=dtype)

    def arranged(x, left):
        return [matmul(left, im2col(x, w[2:], **keywords))]

    positions = int(np.prod(shape)) // w[0]
    run_kind("conv_weight_gradient", arranged, case["x"], (groups, w[0] // groups, positions), dtype=dtype)


def test_weight_gradient_of_an_empty_batch_is_zero() -> None:
    run_kind(
        "conv_weight_gradient",
        lambda x, d: [matmul(reshape(transpose(d, (1, 0, 2, 3)), (1, 4, 0)), im2col(x, (3, 3)))],
        (0, 2, 6, 6),
        (0, 4, 4, 4),
    )


# --- pooling -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool, arg", [(max_pool, argmax_pool), (min_pool, argmin_pool)])
@pytest.mark.parametrize(
    "window",
    [dict(kernel=2), dict(kernel=3, stride=2, padding=1), dict(kernel=(2, 3), stride=1, dilation=2, ceil_mode=True)],
)
@pytest.mark.parametrize("dtype", ["f64", "f32", "f16", "i32"])
def test_pool_indices(pool, arg, window: dict, dtype: str) -> None:
    run_kind("pool_indices", lambda x: [pool(x, **window), arg(x, **window)], (3, 2, 9, 8), dtype=dtype)


def test_pool_indices_with_ties_infinities_and_nan() -> None:
    graph = Graph()
    builder = Builder(graph)
    x = builder.input("x", TensorSpec((2, 3, 8, 8)).type)
    window = dict(kernel=3, stride=2, padding=1)
    graph.set_output("y", max_pool(x, **window).id)
    graph.set_output("i", argmax_pool(x, **window).id)
    rng = np.random.default_rng(1)
    data = rng.integers(-1, 2, (2, 3, 8, 8)).astype(np.float32)
    data[0, 0] = -np.inf
    data[0, 1, 2:5, 3:6] = np.nan
    data[1, 1, rng.random((8, 8)) < 0.2] = np.nan
    values = evaluate(graph, {graph.inputs[0]: data})
    (kernel,) = fuse(graph, Target("t", frozenset({"pool_indices"}))).kernels
    for parallel in PARALLEL:
        check_kernel(graph, kernel, values, parallel)


def test_every_fused_kind_is_tested() -> None:
    tested = {
        "elementwise",
        "elementwise_reduce",
        "mean_variance",
        "conv_epilogue",
        "conv_transpose_epilogue",
        "matmul_epilogue",
        "conv_weight_gradient",
        "pool_indices",
        "reductions",
    }
    assert set(FUSED) == tested
