"""Native pooling kernels, forward and backward, against the ops' references, PyTorch and loops."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.backends.arrays.lower import operand_ids
from irconv.errors import ShapeError
from irconv.interpret import evaluate
from irconv.ops.pool import avg_pool, avg_pool_adjoint, max_pool, min_pool
from irconv.ops.pool_taps import (
    argmax_pool,
    argmin_pool,
    pool_attributes,
    pool_counts,
    tap_dtype,
    window_gather,
    window_scatter,
)
from irconv.types import tensor_type
from tests.backends.native.pooling import CHANNELS_LAST, ROW_MAJOR, Build, graph_of, make, run

MACHINES = ("avx512", "avx2", "sse2", "generic")
ORDERS = (CHANNELS_LAST, ROW_MAJOR)


def check(
    build: Build,
    values: list[np.ndarray],
    machine: str = "avx2",
    default: str = CHANNELS_LAST,
    swapped: bool = False,
    backwards: bool = False,
    kind: str | None = None,
) -> list[np.ndarray]:
    """Compare with the reference; extrema and tap numbers exactly.  ``swapped``: outputs in the other storage order."""
    graph, kernel = graph_of(build, [tensor_type(v.dtype, v.shape) for v in values], [kind] if kind else ())
    assert kind is None or kernel.kind == kind
    other = ROW_MAJOR if default == CHANNELS_LAST else CHANNELS_LAST
    orders = dict.fromkeys(kernel.outputs, other) if swapped else {}
    made = make(graph, kernel, orders, default, machine)
    assert made is not None
    with np.errstate(all="ignore"):
        wanted = evaluate(graph, dict(zip(graph.inputs, values, strict=True)))
    outputs = run(made, graph, kernel, [wanted[i] for i in operand_ids(graph, kernel)], orders, default, machine, backwards)
    for i, out in zip(kernel.outputs, outputs, strict=True):
        exact = out.dtype.kind != "f" or ("avg" not in kernel.kind and kernel.kind != "window_scatter")
        bound = 0.0 if exact else 1e-12 if out.dtype == np.float64 else 2e-6
        finite = np.abs(wanted[i][np.isfinite(wanted[i])].astype(np.float64))
        np.testing.assert_allclose(out, wanted[i], rtol=bound, atol=bound * np.max(finite, initial=0.0))
    return outputs


def numbers(shape: tuple[int, ...], dtype: str = "f32", seed: int = 0) -> np.ndarray:
    """Few different numbers, so that many are equal."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(tensor_type(dtype, ()).dtype.numpy)


def scatter_case(size: tuple[int, ...], window: dict[str, Any], lead: tuple[int, int]) -> tuple[Build, list[np.ndarray]]:
    """A window_scatter with random taps, of those that lie in the padding too."""
    a = attributes(size, window)
    counts = pool_counts(a, size)
    taps = np.random.default_rng(3).integers(0, int(np.prod(a.kernel)), (*lead, *counts)).astype(tap_dtype(a.kernel).numpy)
    return lambda d, t: [window_scatter(d, t, size, **window)], [numbers((*lead, *counts)), taps]


def attributes(size: tuple[int, ...], window: dict[str, Any]) -> Any:
    full = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False} | window
    return pool_attributes(size, **full)


WINDOWS: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((8, 10), {"kernel": 2}),
    ((9, 11), {"kernel": 2}),
    ((9, 11), {"kernel": 3, "stride": 2, "padding": 1}),
    ((9, 11), {"kernel": 3, "stride": 1, "padding": 1}),
    ((9, 11), {"kernel": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ((7, 7), {"kernel": 7}),
    ((9, 7), {"kernel": (2, 3), "stride": (3, 4), "padding": ((0, 1), (1, 0))}),
    ((9, 11), {"kernel": 2, "stride": 1, "dilation": 3, "padding": 2}),
    ((9, 11), {"kernel": 2, "stride": 2, "padding": ((-1, 0), (0, -2))}),
    ((5, 6), {"kernel": 3, "stride": 3, "padding": 1, "ceil_mode": True}),
    ((1, 1), {"kernel": 3, "stride": 2, "padding": 1}),
    ((13,), {"kernel": 4, "stride": 3, "padding": 1}),
    ((5, 4, 6), {"kernel": 2, "stride": 2}),
    ((5, 4, 6), {"kernel": 3, "stride": 2, "padding": 1}),
    ((12, 12), {"kernel": 5, "stride": 3, "padding": 4}),
]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", range(len(WINDOWS)))
def test_all_pools_over_many_windows(case: int, order: str) -> None:
    size, window = WINDOWS[case]
    lead = (2, 21) if order == CHANNELS_LAST else (2, 3)
    x = numbers((*lead, *size))
    check(lambda v: [max_pool(v, **window), argmax_pool(v, **window)], [x], default=order, kind="pool_indices")
    check(lambda v: [min_pool(v, **window)], [x], default=order)
    check(lambda v: [avg_pool(v, **window, count_include_pad=case % 2 == 0)], [x], default=order, backwards=True)
    check(*scatter_case(size, window, lead), default=order)
    d = numbers((*lead, *pool_counts(attributes(size, window), size)))
    check(lambda v: [avg_pool_adjoint(v, size, **window, count_include_pad=case % 2 == 1)], [d], default=order)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("machine", MACHINES)
def test_every_machine(machine: str, order: str) -> None:
    window = {"kernel": 3, "stride": 2, "padding": 1}
    x = numbers((2, 37, 9, 8))
    check(lambda v: [min_pool(v, **window), argmin_pool(v, **window)], [x], machine, order, kind="pool_indices")
    check(lambda v: [avg_pool(v, **window)], [x], machine, order, swapped=True)
    check(*scatter_case((9, 8), window, (2, 37)), machine, order, backwards=True)
    taps = np.random.default_rng(1).integers(0, 9, (2, 37, 5, 4)).astype(np.uint8)
    check(lambda v, t: [window_gather(v, t, **window)], [x, taps], machine, order)


@pytest.mark.parametrize("channels", [4, 5, 6, 7, 10, 12, 20, 24])
@pytest.mark.parametrize("machine", MACHINES)
def test_rows_in_which_vectors_run_on_from_window_to_window(machine: str, channels: int) -> None:
    """Channels that do not fill vectors: groups of windows, what is left of a row, positions beside and below the windows."""
    for size, window in (((8, 28), {"kernel": 2}), ((7, 23), {"kernel": (3, 2)}), ((5, 22), {"kernel": (1, 3)}), ((37,), {"kernel": 2})):
        check(*scatter_case(size, window, (3, channels)), machine)
        d = numbers((3, channels, *pool_counts(attributes(size, window), size)))
        check(lambda v, s=size, w=window: [avg_pool_adjoint(v, s, **w)], [d], machine, backwards=True)
    values = scatter_case((4, 12), {"kernel": 2}, (2, channels))
    check(values[0], [v.astype(np.float64) if v.dtype == np.float32 else v for v in values[1]], machine)


@pytest.mark.parametrize("dtype", ["f64", "i32", "i64", "u8", "i8", "u64"])
def test_other_element_types(dtype: str) -> None:
    x = numbers((1, 9, 7, 6), dtype)
    check(lambda v: [max_pool(v, 3, 2, 1), argmax_pool(v, 3, 2, 1)], [x], kind="pool_indices")
    check(lambda v: [argmin_pool(v, 2)], [x], default=ROW_MAJOR)
    if dtype == "f64":
        check(lambda v: [avg_pool(v, 3, 2, 1)], [x])
        check(lambda v: [avg_pool_adjoint(v, (14, 12), 3, 2, 1)], [x])


@pytest.mark.parametrize("dtype", ["u8", "i32", "i64", "u64"])
def test_tap_numbers_of_every_type_name_taps_or_none(dtype: str) -> None:
    taps = np.random.default_rng(2).integers(0, 12, (2, 9, 4, 4)).astype(tensor_type(dtype, ()).dtype.numpy)
    if taps.itemsize == 8:
        taps[taps == 3] += np.array(2**32).astype(taps.dtype)  # no tap either, whatever its low half says
    for order in ORDERS:
        check(lambda d, t: [window_scatter(d, t, (8, 8), 3, 2, 1)], [numbers((2, 9, 4, 4)), taps], default=order)
        check(lambda x, t: [window_gather(x, t, 3, 2, 1)], [numbers((2, 9, 8, 8)), taps], default=order)


def test_half_precision_is_left_to_the_array_kernels() -> None:
    graph, kernel = graph_of(lambda x: [max_pool(x, 2)], [tensor_type("f16", (1, 8, 4, 4))])
    assert make(graph, kernel, {}, CHANNELS_LAST, "avx2") is None


@pytest.mark.parametrize("order", ORDERS)
def test_first_of_equals_first_nan_and_infinities(order: str) -> None:
    x = numbers((2, 18, 8, 8))
    x[0, ::3, 1::3, ::2] = np.nan
    x[0, 1::4, :4] = -np.inf
    x[1, :, 4:, 4:] = np.inf
    for window in ({"kernel": 2}, {"kernel": 3, "stride": 1, "padding": 1}):
        check(lambda v, w=window: [max_pool(v, **w), argmax_pool(v, **w)], [x], default=order, kind="pool_indices")
        check(lambda v, w=window: [min_pool(v, **w), argmin_pool(v, **w)], [x], default=order, kind="pool_indices")
        check(lambda v, w=window: [max_pool(v, **w)], [x], default=order)
        check(lambda v, w=window: [avg_pool(v, **w)], [x], default=order)


def test_values_that_are_not_chosen_do_not_spoil_a_sum() -> None:
    build, (d, taps) = scatter_case((9, 9), {"kernel": 3, "stride": 2, "padding": 1}, (1, 20))
    d[:, :, 2, 2] = np.nan
    d[:, :, 1, 1] = np.inf
    check(build, [d, taps])


@pytest.mark.parametrize("kernel, stride, padding", [(2, 2, 0), (3, 2, 1), (3, 1, 1)])
def test_against_pytorch(kernel: int, stride: int, padding: int) -> None:
    x = np.random.default_rng(5).normal(size=(2, 33, 11, 12)).astype(np.float32)
    source = torch.from_numpy(x).requires_grad_()
    wanted = torch.nn.functional.max_pool2d(source, kernel, stride, padding)
    d = np.random.default_rng(6).normal(size=tuple(wanted.shape)).astype(np.float32)
    wanted.backward(torch.from_numpy(d))
    best, taps = check(
        lambda v: [max_pool(v, kernel, stride, padding), argmax_pool(v, kernel, stride, padding)], [x], "avx512", kind="pool_indices"
    )
    np.testing.assert_array_equal(best, wanted.detach().numpy())
    (dx,) = check(lambda v, t: [window_scatter(v, t, (11, 12), kernel, stride, padding)], [d, taps], "avx512")
    assert source.grad is not None
    np.testing.assert_allclose(dx, source.grad.numpy(), rtol=1e-6, atol=1e-6)


def test_scatter_against_loops() -> None:
    build, (d, taps) = scatter_case((7, 9), {"kernel": 3, "stride": 2, "padding": 1}, (2, 19))
    wanted = np.zeros((2, 19, 7, 9))
    for n, c, i, j in itertools.product(*map(range, d.shape)):
        row, column = 2 * i - 1 + int(taps[n, c, i, j]) // 3, 2 * j - 1 + int(taps[n, c, i, j]) % 3
        if 0 <= row < 7 and 0 <= column < 9:
            wanted[n, c, row, column] += d[n, c, i, j]
    (out,) = check(build, [d, taps])
    np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize(
    "build",
    [
        lambda x: [max_pool(x, 3, 2, 1), argmax_pool(x, 3, 2, 1)],
        lambda x: [avg_pool(x, 16)],
        lambda x: [avg_pool_adjoint(x, (33, 31), 3, 2, 1)],
    ],
)
@pytest.mark.parametrize("order", ORDERS)
def test_any_batch_from_one_source(build: Build, order: str) -> None:
    sources = set()
    for batch in (0, 1, 5):
        graph, kernel = graph_of(build, [tensor_type("f32", (batch, 40, 17, 16))], ["pool_indices"])
        made = make(graph, kernel, {}, order, "avx2")
        assert made is not None
        sources.add(made.source)
    assert len(sources) == 1
    (out, *_) = check(build, [numbers((0, 40, 17, 16))], default=order, kind=kernel.kind)
    assert out.size == 0


@pytest.mark.parametrize("order", ORDERS)
def test_tasks_in_any_order_and_channels_in_parts(order: str) -> None:
    x = numbers((3, 104, 64, 40))
    for backwards in (False, True):
        check(lambda v: [max_pool(v, 3, 2, 1)], [x], "avx512", order, backwards=backwards)
        check(lambda v: [avg_pool(v, (64, 40))], [x], "avx512", order, backwards=backwards)
    graph, kernel = graph_of(lambda v: [avg_pool(v, (64, 40))], [tensor_type("f32", x.shape)])
    made = make(graph, kernel, {}, order, "avx512")
    assert made is not None and made.phases[0].tasks > 3


window_parameters = st.fixed_dictionaries(
    {
        "kernel": st.tuples(st.integers(1, 4), st.integers(1, 4)),
        "stride": st.tuples(st.integers(1, 4), st.integers(1, 4)),
        "padding": st.tuples(*[st.tuples(st.integers(-1, 2), st.integers(-1, 2))] * 2),
        "dilation": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "ceil_mode": st.booleans(),
    }
)


@settings(max_examples=12, deadline=None)
@given(
    window=window_parameters,
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    lead=st.tuples(st.integers(1, 2), st.integers(1, 20)),
    order=st.sampled_from(ORDERS),
    swapped=st.booleans(),
)
def test_any_window(window: dict, size: tuple[int, int], lead: tuple[int, int], order: str, swapped: bool) -> None:
    try:
        counts = pool_counts(attributes(size, window), size)
    except ShapeError:
        return
    x = numbers((*lead, *size))
    build = lambda v: [max_pool(v, **window), argmax_pool(v, **window)]  # noqa: E731
    check(build, [x], default=order, swapped=swapped, kind="pool_indices")
    check(lambda v: [avg_pool(v, **window, count_include_pad=False)], [x], default=order, swapped=swapped)
    check(*scatter_case(size, window, lead), default=order, swapped=swapped)
    check(lambda v: [avg_pool_adjoint(v, size, **window)], [numbers((*lead, *counts))], default=order, swapped=swapped)


def test_one_value_as_both_operands() -> None:
    x = np.random.default_rng(4).integers(0, 5, (2, 3, 6, 6)).astype(np.int32)
    check(lambda v: [window_gather(v, v, 1)], [x], default=ROW_MAJOR)
