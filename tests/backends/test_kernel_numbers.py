"""Array kernels over wider grids: accuracy of special functions, windows by hypothesis, threads, memory."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from irconv.backends.arrays import KERNELS, Request
from irconv.backends.arrays.base import Serial
from irconv.backends.numpy.parallel import KernelSettings, Pool
from irconv.errors import ShapeError
from irconv.op import NO_ATTRIBUTES, OPS
from irconv.ops.contract import Im2colAttributes
from irconv.ops.conv import ConvAttributes, ConvTransposeAttributes
from irconv.ops.pool import AvgPoolAttributes
from irconv.ops.pool_taps import PoolAttributes, WindowScatterAttributes
from irconv.ops.reduce import ReduceAttributes
from irconv.ops.window import window_counts
from irconv.types import tensor_type
from tests.backends.executing import check, execute, expected, garbage

POOL = Pool(2)

# --- special functions -----------------------------------------------------------------------------------------------------


def units(actual: np.ndarray, exact: np.ndarray) -> float:
    """The largest error in units in the last place of the actual type."""
    spacing = np.spacing(np.abs(exact).astype(actual.dtype)).astype(np.float64)
    return float(np.max(np.abs(actual.astype(np.float64) - exact) / spacing))


def points(dtype: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    near = rng.uniform(-7, 7, 20000)
    small = rng.uniform(-1, 1, 2000) * 10.0 ** rng.integers(-30, 0, 2000)
    edges = [0.0, 0.46875, 4.0, 6.0, -0.46875, -4.0, -6.0, 30.0, -30.0]
    return np.concatenate([near, small, edges]).astype(dtype)


@pytest.mark.parametrize("dtype, bound", [("float64", 4), ("float32", 8)])
def test_erf_is_as_accurate_as_stated(dtype: str, bound: float) -> None:
    x = points(dtype)
    exact = np.array([math.erf(float(v)) for v in x])
    result = execute("erf", NO_ATTRIBUTES, [x])
    assert units(result, exact) <= bound
    ends = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], dtype)
    np.testing.assert_array_equal(execute("erf", NO_ATTRIBUTES, [ends]), np.array([1, -1, np.nan, 0, 0], dtype))


@pytest.mark.parametrize("dtype, range_", [("float64", 700.0), ("float32", 87.0)])
def test_sigmoid_is_as_accurate_as_stated(dtype: str, range_: float) -> None:
    x = np.random.default_rng(1).uniform(-range_, range_, 20000).astype(dtype)
    wide = x.astype(np.longdouble)
    exact = (1 / (1 + np.exp(-wide))).astype(np.float64)
    # exp itself is within 3 units
    assert units(execute("sigmoid", NO_ATTRIBUTES, [x]), exact) <= 5
    ends = np.array([np.inf, -np.inf, np.nan, 1e4, -1e4], dtype)
    np.testing.assert_array_equal(execute("sigmoid", NO_ATTRIBUTES, [ends]), np.array([1, 0, np.nan, 1, 0], dtype))


@pytest.mark.parametrize("name", ["tanh", "exp", "log1p", "expm1"])
def test_functions_of_the_array_module_are_accurate(name: str) -> None:
    x = np.random.default_rng(2).uniform(-0.99, 8, 20000).astype(np.float32)
    exact = getattr(np, name)(x.astype(np.float64))
    assert units(execute(name, NO_ATTRIBUTES, [x]), exact) <= 4


def test_where_takes_whole_numbers_and_keeps_nan_out() -> None:
    condition = np.array([True, False, True, False])
    x = np.array([1.0, np.nan, -0.0, np.inf], np.float32)
    y = np.array([np.nan, 2.0, np.inf, -3.0], np.float32)
    np.testing.assert_array_equal(
        execute("where", NO_ATTRIBUTES, [condition, x, y]), np.array([1, 2, -0.0, -3], np.float32)
    )


# --- windows -----------------------------------------------------------------------------------------------------------------


@st.composite
def windows(draw, groups: bool = False):
    rank = draw(st.integers(1, 3))
    axis = st.tuples(
        st.integers(1, 7),
        st.integers(1, 3),
        st.integers(1, 4),
        st.integers(-1, 3),
        st.integers(-1, 3),
        st.integers(1, 2),
    )
    axes = draw(st.lists(axis, min_size=rank, max_size=rank))
    size, kernel, stride, before, after, dilation = (tuple(a[i] for a in axes) for i in range(6))
    if any(n + b + a < d * (k - 1) + 1 for n, k, _, b, a, d in axes):
        before = after = tuple(d * (k - 1) for _, k, _, _, _, d in axes)
    return size, kernel, stride, tuple(zip(before, after, strict=True)), dilation, draw(st.sampled_from([1, 2, 4]))


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(int(np.prod(shape))).normal(size=shape).astype(np.float32)


def compare(op: str, attributes, operands) -> None:
    wanted = expected(op, attributes, operands)
    for parallel in (None, Serial(256), POOL):
        check(execute(op, attributes, operands, parallel), wanted, scale=4)


@settings(max_examples=150, deadline=None)
@given(windows(), st.integers(0, 3), st.sampled_from([1, 2, 3]))
def test_conv_against_the_reference(window, batch: int, out: int) -> None:
    size, kernel, stride, padding, dilation, groups = window
    x, w = numbers(batch, 4, *size), numbers(out * groups, 4 // groups, *kernel)
    attributes = ConvAttributes(stride, padding, dilation, groups)
    compare("conv", attributes, [x, w])
    compare("im2col", Im2colAttributes(kernel, stride, padding, dilation, groups), [x])


@settings(max_examples=150, deadline=None)
@given(windows(), st.integers(0, 3), st.sampled_from([1, 2, 3]), st.integers(0, 2))
def test_conv_transpose_against_the_reference(window, batch: int, out: int, extra: int) -> None:
    counts, kernel, stride, padding, dilation, groups = window
    rows = zip(counts, kernel, stride, dilation, padding, strict=True)
    before = tuple(b for b, _ in padding)
    size = tuple(max(1, (n - 1) * s + d * (k - 1) + 1 - b + extra - 1) for n, k, s, d, (b, _) in rows)
    x, w = numbers(batch, 4, *counts), numbers(4, out, *kernel)
    compare("conv_transpose", ConvTransposeAttributes(stride, before, dilation, groups, size), [x, w])


@settings(max_examples=150, deadline=None)
@given(windows(), st.booleans(), st.booleans(), st.sampled_from([None, 3]), st.sampled_from(["float32", "int32"]))
def test_pools_against_the_reference(window, ceil: bool, include: bool, divisor, dtype: str) -> None:
    size, kernel, stride, padding, dilation, _ = window
    x = np.random.default_rng(len(size)).integers(-3, 3, (2, 3, *size)).astype(dtype)
    if dtype == "float32":
        x[0, 0].flat[::3] = np.nan
        x[1] = np.where(x[1] < 0, -np.inf, x[1])
    a = PoolAttributes(kernel, stride, padding, dilation, ceil)
    try:
        counts = window_counts(size, kernel, stride, padding, dilation, ceil)
    except ShapeError:
        assume(False)
    for op in ("max_pool", "min_pool", "argmax_pool", "argmin_pool"):
        compare(op, a, [x])
    taps = np.random.default_rng(1).integers(0, np.prod(kernel), (2, 3, *counts)).astype(np.uint8)
    compare("window_gather", a, [x, taps])
    scatter = WindowScatterAttributes(kernel, stride, padding, dilation, ceil, size)
    compare("window_scatter", scatter, [numbers(2, 3, *counts), taps])
    compare(
        "avg_pool", AvgPoolAttributes(kernel, stride, padding, dilation, ceil, include, divisor), [numbers(2, 3, *size)]
    )


# --- threads -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "op, attributes, shapes",
    [
        ("sum", ReduceAttributes((0, 2, 3), False), [(9, 16, 40, 40)]),
        ("mean", ReduceAttributes((0,), False), [(3000, 100)]),
        ("sum", ReduceAttributes((0, 1), True), [(300, 1000)]),
    ],
)
def test_sums_do_not_depend_on_the_number_of_threads(op: str, attributes, shapes) -> None:
    operands = [numbers(*shape) for shape in shapes]
    results = []
    for threads in (1, 2, 3):
        made = Pool(threads)
        results.append(execute(op, attributes, operands, made).tobytes())
    assert len(set(results)) == 1


# --- memory ------------------------------------------------------------------------------------------------------------------


def ones(dtype: str, *shape: int) -> np.ndarray:
    return np.ones(shape, dtype)


MEMORY = [
    ("add", NO_ATTRIBUTES, lambda n: [ones("f4", n, 64), ones("f4", 64)]),
    ("sigmoid", NO_ATTRIBUTES, lambda n: [ones("f4", n, 64)]),
    ("where", NO_ATTRIBUTES, lambda n: [ones("?", n, 64), ones("f4", n, 64), ones("f4")]),
    ("sum", ReduceAttributes((0,), False), lambda n: [ones("f4", n, 64)]),
    ("matmul", NO_ATTRIBUTES, lambda n: [ones("f4", n, 64), ones("f4", 64, 32)]),
    (
        "conv",
        ConvAttributes((1, 1), ((1, 1), (1, 1)), (1, 1), 1),
        lambda n: [ones("f4", 1, 8, n, 32), ones("f4", 8, 8, 3, 3)],
    ),
    (
        "conv",
        ConvAttributes((1, 1), ((1, 1), (1, 1)), (1, 1), 8),
        lambda n: [ones("f4", 1, 8, n, 32), ones("f4", 8, 1, 3, 3)],
    ),
    (
        "conv",
        ConvAttributes((1, 1), ((0, 0), (0, 0)), (1, 1), 1),
        lambda n: [ones("f4", 1, 8, n, 32), ones("f4", 8, 8, 1, 1)],
    ),
    (
        "conv_transpose",
        ConvTransposeAttributes((1, 1), (1, 1), (1, 1), 1, (512, 32)),
        lambda n: [ones("f4", n // 512, 8, 512, 32), ones("f4", 8, 8, 3, 3)],
    ),
    ("max_pool", PoolAttributes((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), False), lambda n: [ones("f4", 1, 8, n, 32)]),
    (
        "argmax_pool",
        PoolAttributes((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), False),
        lambda n: [ones("f4", 1, 8, n, 32)],
    ),
]


@pytest.mark.parametrize("op, attributes, make", MEMORY, ids=[row[0] for row in MEMORY])
def test_a_call_allocates_nothing_that_grows_with_the_data(op: str, attributes, make) -> None:
    for parallel in (Serial(256 * 1024), POOL):
        for rows in (2048, 16384):
            operands = make(rows)
            types = tuple(tensor_type(x.dtype, x.shape) for x in operands)
            result = OPS[op].result_type(attributes, types)
            kernel = KERNELS[op](Request(np, attributes, types, result, True, parallel))
            out, *scratch = (garbage(t, 0) for t in (result, *kernel.scratch))
            with KernelSettings():
                kernel.run(out, *operands, *scratch)
                tracemalloc.start()
                kernel.run(out, *operands, *scratch)
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
            assert peak < 48 * 1024, f"{peak} bytes at {rows} rows"
