"""Native weight gradients by Winograd's algorithm against sums written out, for odd shapes, machines, tasks and batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.backends.codegen.machine import MACHINES
from irconv.backends.native.base import NativeKernel, NativeRequest
from irconv.backends.native.kernels.weight_gradient import names_of_inputs, problem_of
from irconv.backends.native.kernels.weight_gradient_plan import Problem
from irconv.backends.native.kernels.winograd_gradient import winograd_gradient
from irconv.backends.native.kernels.winograd_gradient_plan import (
    GradientPlan,
    best_gradient_plan,
    cut_gradient,
    make_gradient_plan,
)
from irconv.backends.native.runtime import thread_count
from irconv.graph import Graph
from irconv.kernel import Kernel
from tests.backends.native.machines import TESTED
from tests.backends.native.pooling import CHANNELS_LAST, ROW_MAJOR, make, run, strides_of
from tests.backends.native.test_weight_gradient import Shape, build, operands, summed

ERROR = 1e-5
"""Of the largest sum of |d| |x|: what the module promises."""

SHAPES = {
    "whole tiles, one block": Shape(2, 16, (8, 8), 16, (3, 3), padding=1),
    "channels and tiles cut short": Shape(3, 19, (9, 7), 33, (3, 3), padding=1),
    "two ranges, two blocks, cut short": Shape(2, 80, (6, 13), 70, (3, 3), padding=1),
    "many chunks and splits": Shape(3, 48, (24, 28), 64, (3, 3), padding=1),
    "no padding": Shape(1, 20, (7, 7), 18, (3, 3)),
    "cropped and wide": Shape(2, 17, (6, 6), 18, (3, 3), padding=((-1, 2), (4, -1))),
    "one pixel": Shape(5, 17, (1, 1), 16, (3, 3), padding=1),
    "one row": Shape(2, 16, (1, 11), 16, (3, 3), padding=1),
    "no samples": Shape(0, 16, (5, 5), 16, (3, 3), padding=1),
}


def request_for(s: Shape, machine: str, order: str = CHANNELS_LAST, strict: bool = False) -> NativeRequest:
    graph, kernel = build(s)
    ids = {i for node in kernel.nodes for i in (node, *graph[node].operands)}
    orders = dict.fromkeys(kernel.inputs, order)
    strides = {i: strides_of(graph[i].type.shape, orders.get(i, ROW_MAJOR)) for i in ids}
    return NativeRequest(graph, kernel, strides, TESTED[machine], max(2, thread_count()), strict)


def problem(request: NativeRequest) -> tuple[Problem, int, int]:
    found = problem_of(request)
    assert found is not None
    return found


def kernel_of(s: Shape, machine: str) -> tuple[Graph, Kernel, NativeKernel]:
    """The kernel by this algorithm, whether it pays or not."""
    request = request_for(s, machine)
    p, d, x = problem(request)
    plan = make_gradient_plan(p, request.machine)
    return request.graph, request.kernel, winograd_gradient(request, p, plan, names_of_inputs(request, d, x), d, x)


def computed(s: Shape, x: np.ndarray, d: np.ndarray, machine: str, backwards: bool = False) -> np.ndarray:
    graph, kernel, made = kernel_of(s, machine)
    stored = dict.fromkeys(kernel.inputs, CHANNELS_LAST)
    by_name = {graph[i].name: v for i, v in zip(graph.inputs, (x, d), strict=True)}
    values = [by_name[graph[i].name] for i in kernel.inputs]
    return run(made, graph, kernel, values, stored, ROW_MAJOR, machine, backwards)[0]


def check(s: Shape, x: np.ndarray, d: np.ndarray, found: np.ndarray) -> None:
    scale = float(summed(s, abs(x), abs(d)).max(initial=1e-30))
    np.testing.assert_allclose(found, summed(s, x, d), rtol=0, atol=ERROR * scale)


@pytest.mark.parametrize("machine", ["avx512", "avx2", "sse2", "generic"])
@pytest.mark.parametrize("name", SHAPES)
def test_every_machine_computes_the_definition(name, machine):
    if machine == "sse2" and name not in ("channels and tiles cut short", "one pixel"):
        pytest.skip("its code is that of generic with other widths")
    s = SHAPES[name]
    x, d = operands(s)
    check(s, x, d, computed(s, x, d, machine))


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 3), st.integers(16, 40), st.integers(16, 40), st.tuples(st.integers(1, 11), st.integers(1, 11)),
    st.tuples(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), st.tuples(st.integers(-1, 3), st.integers(-1, 3))),
)  # fmt: skip
def test_any_size_and_padding(batch, channels, out, size, padding):
    if any(n + before + after < 3 for n, (before, after) in zip(size, padding, strict=True)):
        return
    s = Shape(batch, channels, size, out, (3, 3), padding=padding)
    x, d = operands(s)
    check(s, x, d, computed(s, x, d, "avx512"))


def test_tasks_in_any_order_give_the_same_bits():
    s = SHAPES["many chunks and splits"]
    assert cut_gradient(problem(request_for(s, "avx512"))[0], plan_of(s)).splits > 1
    x, d = operands(s)
    np.testing.assert_array_equal(computed(s, x, d, "avx512"), computed(s, x, d, "avx512", backwards=True))


def plan_of(s: Shape) -> GradientPlan:
    return make_gradient_plan(problem(request_for(s, "avx512"))[0], MACHINES["avx512"])


def test_the_source_does_not_know_the_batch():
    sources = {kernel_of(Shape(batch, 32, (12, 12), 32, (3, 3), padding=1), "avx512")[2].source for batch in (0, 1, 3, 64)}
    assert len(sources) == 1


def test_after_a_relu_the_error_is_no_larger():
    s = Shape(2, 64, (28, 28), 64, (3, 3), padding=1)
    x, d = operands(s)
    x = np.maximum(x, 0)
    check(s, x, d, computed(s, x, d, "avx512"))


def test_infinity_and_nan_stay_in_the_channels_that_hold_them():
    s = Shape(1, 16, (8, 8), 16, (3, 3), padding=1)
    x, d = operands(s)
    x[0, 3, 4, 4], d[0, 5, 2, 2] = np.nan, np.inf
    found, hit = computed(s, x, d, "avx512"), np.zeros((16, 16), bool)
    hit[:, 3] = hit[5] = True
    assert np.isfinite(found[~hit]).all()
    assert not np.isfinite(found[:, 3]).any() and not np.isfinite(found[5]).any()


def uses_winograd(s: Shape, order: str = CHANNELS_LAST, strict: bool = False) -> bool:
    request = request_for(s, "avx512", order, strict)
    stored = dict.fromkeys(request.kernel.inputs, order)
    made = make(request.graph, request.kernel, stored, ROW_MAJOR, "avx512", strict)
    return made is not None and "winograd" in made.phases[0].function


def test_where_it_is_chosen():
    usual = Shape(2, 64, (28, 28), 64, (3, 3), padding=1)
    assert uses_winograd(usual)
    assert not uses_winograd(usual, strict=True)
    assert not uses_winograd(usual, ROW_MAJOR)
    others = [
        Shape(2, 3, (28, 28), 64, (3, 3), padding=1),
        Shape(2, 64, (28, 28), 64, (3, 3), 2, 1),
        Shape(2, 64, (28, 28), 64, (3, 3), padding=2, dilation=2),
        Shape(2, 64, (28, 28), 64, (5, 5), padding=2),
        Shape(2, 64, (28, 28), 64, (3, 3), padding=1, groups=2),
        Shape(2, 64, (28, 28), 64, (3, 3), padding=1, dtype="f64"),
        Shape(2, 64, (1, 28), 64, (3, 3), padding=1),  # three quarters of each tile would be empty
    ]
    assert not any(uses_winograd(s) for s in others)


def test_the_estimate_leaves_few_pixels_to_the_plain_algorithm():
    p = problem(request_for(Shape(8, 64, (2, 2), 64, (3, 3), padding=1), "avx512"))[0]
    assert best_gradient_plan(p, MACHINES["avx512"]) is None
