"""Winograd's algorithm against sums in float64, on every machine, in every cut, with its rounding bounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import Pointer, load
from irconv.backends.codegen.machine import MACHINES
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, native_kernel
from irconv.backends.native.kernels import winograd as winograd_module
from irconv.backends.native.kernels import winograd_plan
from irconv.backends.native.kernels.contract import describe_conv, describe_conv_transpose
from irconv.backends.native.kernels.contraction import Contraction
from irconv.backends.native.kernels.winograd import winograd_candidates, winograd_kernel
from irconv.backends.native.kernels.winograd_cost import best_plan, is_phased
from irconv.backends.native.kernels.winograd_plan import WinogradPlan, plan_winograd
from irconv.backends.native.kernels.winograd_transforms import input_transform, output_transform, weight_transform
from irconv.graph import Graph, Node
from irconv.kernel import Kernel
from irconv.ops.conv import conv, conv_transpose
from irconv.ops.elementwise import add, multiply, relu
from irconv.types import F64, tensor_type
from tests.backends.native.machines import TESTED
from tests.backends.native.pooling import CHANNELS_LAST, ROW_MAJOR, Build, graph_of, run, strides_of

KINDS = ("conv_epilogue", "conv_transpose_epilogue")
PADDINGS = ((1, 1), (0, 0), (2, 2), (0, 2), (-1, 1))


@dataclass
class Case:
    """A graph whose one kernel is a 3x3 convolution or a transposed one."""

    graph: Graph
    kernel: Kernel
    node: Node

    @property
    def orders(self) -> dict[int, str]:
        """Weights are row-major, everything else channels last."""
        return {self.node.operands[1]: ROW_MAJOR}

    def request(self, machine: str, strict: bool = False) -> NativeRequest:
        graph = self.graph
        ids = {i for node in self.kernel.nodes for i in (node, *graph[node].operands)}
        strides = {i: strides_of(graph[i].type.shape, self.orders.get(i, CHANNELS_LAST)) for i in ids}
        return NativeRequest(graph, self.kernel, strides, TESTED[machine], 2, strict)

    def contraction(self, machine: str) -> Contraction:
        describe = describe_conv if self.node.op.name == "conv" else describe_conv_transpose
        return describe(self.request(machine), self.node)

    def made(self, machine: str, outputs: int, plan: WinogradPlan | None = None) -> NativeKernel:
        c = self.contraction(machine)
        plan = plan or plan_winograd(c, MACHINES[machine], outputs)
        found = winograd_kernel(self.request(machine), self.node, c, plan)
        assert found is not None
        return found


def case(build: Build, *shapes: tuple[int, ...], dtype: str = "f32") -> Case:
    graph, kernel = graph_of(build, [tensor_type(dtype, shape) for shape in shapes], KINDS)
    node = next(graph[i] for i in kernel.nodes if graph[i].op.name in ("conv", "conv_transpose"))
    return Case(graph, kernel, node)


def convolution(
    batch: int, channels: int, columns: int, size: tuple[int, int], padding: tuple = ((1, 1), (1, 1))
) -> Case:
    return case(lambda x, w: [conv(x, w, 1, padding)], (batch, channels, *size), (columns, channels, 3, 3))


def numbers(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def values_of(one: Case) -> list[np.ndarray]:
    return [numbers(one.graph[i].type.shape, seed) for seed, i in enumerate(one.kernel.inputs)]


def summed(one: Case, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The convolution in float64, tap by tap."""
    x, w = x.astype(np.float64), w.astype(np.float64)
    a, result = one.node.attributes, one.node.type.shape
    if one.node.op.name == "conv":
        before = [pair[0] for pair in a.padding]
    else:
        x_w = w.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
        w, before = x_w, [2 - before for before in a.padding]
    total = np.zeros(result)
    big = np.zeros((*x.shape[:2], result[2] + 40, result[3] + 40))
    top, left = 10 + before[0], 10 + before[1]
    height, width = min(x.shape[2], big.shape[2] - top), min(x.shape[3], big.shape[3] - left)
    big[:, :, top : top + height, left : left + width] = x[:, :, :height, :width]
    for i in range(3):
        for j in range(3):
            seen = big[:, :, 10 + i : 10 + i + result[2], 10 + j : 10 + j + result[3]]
            total += np.einsum("nchw,oc->nohw", seen, w[:, :, i, j])
    return total


def check(one: Case, machine: str, outputs: int, backwards: bool = False, plan: WinogradPlan | None = None) -> np.ndarray:
    """Run and compare, with an error of 1e-5 (tiles of 4) or 1e-6 (of 2) of the largest sum of magnitudes."""
    made, values = one.made(machine, outputs, plan), values_of(one)
    (out,) = run(made, one.graph, one.kernel, values, one.orders, CHANNELS_LAST, machine, backwards)
    bound = {4: 1e-5, 2: 1e-6}[outputs] * float(np.max(summed(one, *map(np.abs, values)), initial=1.0))
    np.testing.assert_allclose(out, summed(one, *values), rtol=0, atol=bound)
    return out


# --- the linear maps -----------------------------------------------------------------------------------------------------


def applied(transform: Callable, inputs: int, outputs: int) -> np.ndarray:
    """The matrix of a transform, from compiled code in float64."""
    body = Body()
    source, target = Pointer("source", F64), Pointer("target", F64)
    with body.tasks():
        values = [body.let("t", load(source, i)) for i in range(inputs)]
        for i, value in enumerate(transform(body, values)):
            body.store(target, i, value)
    function = body.function("transform", [("target", F64, True), ("source", F64, False)])
    made = native_kernel(print_c([function]), (Phase("transform", 1),), machine=MACHINES["generic"])
    columns = []
    for unit in np.eye(inputs):
        out = np.empty(outputs)
        made.run(out, unit)
        columns.append(out)
    return np.array(columns).T


@pytest.mark.parametrize("m", [4, 2])
def test_transforms_make_a_correlation(m: int) -> None:
    b, a = applied(input_transform, m + 2, m + 2), applied(output_transform, m + 2, m)
    g = applied(lambda body, v: weight_transform(body, v, m + 2), 3, m + 2)
    for position in range(m + 2):
        for tap in range(3):
            result = a @ (g[:, tap] * b[:, position])
            wanted = np.array([float(position == i + tap) for i in range(m)])
            np.testing.assert_allclose(result, wanted, atol=1e-14)


# --- whole kernels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [4, 2])
@pytest.mark.parametrize("machine", ["avx512", "avx2", "sse2", "generic"])
def test_every_machine(machine: str, outputs: int) -> None:
    check(convolution(2, 19, 37, (9, 10)), machine, outputs)


@pytest.mark.parametrize(
    "channels, columns, size",
    [(1, 1, (1, 1)), (17, 17, (7, 11)), (3, 64, (13, 6)), (64, 5, (4, 4)), (33, 48, (5, 3)), (16, 80, (8, 8))],
)
def test_odd_sizes(channels: int, columns: int, size: tuple[int, int]) -> None:
    for outputs in (4, 2):
        check(convolution(1, channels, columns, size), "avx512", outputs)


@pytest.mark.parametrize("outputs", [4, 2])
@pytest.mark.parametrize("batch, padding", [(1, (1, 1)), (3, (0, 2))])
def test_both_ways_where_weights_are_far(
    monkeypatch: pytest.MonkeyPatch, outputs: int, batch: int, padding: tuple[int, int]
) -> None:
    one = convolution(batch, 200, 260, (9, 7), (padding, padding))
    plan = plan_winograd(one.contraction("avx512"), MACHINES["avx512"], outputs)
    assert plan.is_far
    results, sources = [], set()
    for phased in (False, True):
        monkeypatch.setattr(winograd_module, "is_phased", lambda *_, phased=phased: phased)
        made = one.made("avx512", outputs)
        sources.add(made.source)
        tasks = {phase.function: phase.tasks for phase in made.phases}
        assert (tasks["conv_winograd"] > 0) != phased and (tasks["conv_winograd_products"] >= plan.products) == phased
        for backwards in (False, True):
            results.append(check(one, "avx512", outputs, backwards))
    # one source, and the same sums in the same order whatever way and order of tasks
    assert len(sources) == 1
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_the_way_follows_from_the_batch() -> None:
    machine = MACHINES["avx512"]
    near = plan_winograd(convolution(1, 32, 32, (16, 16)).contraction("avx512"), machine, 4)
    far = plan_winograd(convolution(1, 256, 256, (56, 56)).contraction("avx512"), machine, 4)
    assert not near.is_far and not is_phased(near, 1)
    assert far.is_far and is_phased(far, 1)
    # inputs and products of so many images would take more memory than they may
    assert not is_phased(far, 64)
    assert convolution(64, 256, 256, (56, 56)).made("avx512", 4).scratch[3].bytes == 4


@pytest.mark.parametrize("outputs", [4, 2])
def test_tasks_in_any_order_give_the_same_bits(outputs: int) -> None:
    one = convolution(3, 40, 160, (30, 26))
    made = one.made("avx512", outputs)
    assert max(phase.tasks for phase in made.phases[1:]) > 3
    forward = check(one, "avx512", outputs)
    np.testing.assert_array_equal(check(one, "avx512", outputs, backwards=True), forward)
    # every image by itself is the same too: no tile depends on another
    single = convolution(1, 40, 160, (30, 26))
    values = values_of(one)
    alone = single.made("avx512", outputs)
    (out,) = run(alone, single.graph, single.kernel, [values[0][1:2], values[1]], single.orders, CHANNELS_LAST, "avx512")
    np.testing.assert_array_equal(out[0], forward[1])


def test_parts_of_the_output_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd_plan, "TASK_PRODUCTS", 1000)
    monkeypatch.setattr(winograd_module, "is_phased", lambda *_: False)
    one = convolution(1, 24, 150, (17, 15))
    made = one.made("avx2", 4)
    parts = made.sizes[2]
    tasks = {phase.function: phase.tasks for phase in made.phases}
    assert parts > 2 and tasks["conv_winograd"] % parts == 0
    forward = check(one, "avx2", 4)
    np.testing.assert_array_equal(check(one, "avx2", 4, backwards=True), forward)


@pytest.mark.parametrize("outputs", [4, 2])
@pytest.mark.parametrize("channels", [40, 300])
def test_any_batch_from_one_source(channels: int, outputs: int) -> None:
    made = [convolution(batch, channels, channels, (9, 9)).made("avx512", outputs) for batch in (0, 1, 7, 64)]
    assert len({one.source for one in made}) == 1
    empty = convolution(0, channels, channels, (9, 9))
    (out,) = run(made[0], empty.graph, empty.kernel, values_of(empty), empty.orders, CHANNELS_LAST, "avx512")
    assert out.shape == (0, channels, 9, 9)


@pytest.mark.parametrize("outputs", [4, 2])
def test_transposed_convolution_is_the_input_gradient(outputs: int) -> None:
    d, w = numbers((2, 20, 8, 9), 0), numbers((20, 24, 3, 3), 1)
    for before in (1, 0, 2):
        size = (8 + 2 - 2 * before, 9 + 2 - 2 * before)
        one = case(lambda x, v, b=before, s=size: [conv_transpose(x, v, 1, b, output_size=s)], d.shape, w.shape)
        out = check(one, "avx512", outputs)
        source = torch.zeros(2, 24, *size, dtype=torch.float64, requires_grad=True)
        torch.nn.functional.conv2d(source, torch.from_numpy(w).double(), padding=before).backward(torch.from_numpy(d).double())
        assert source.grad is not None
        np.testing.assert_allclose(out, source.grad.numpy(), rtol=0, atol=5e-4)


@pytest.mark.parametrize("outputs", [4, 2])
def test_epilogue(outputs: int) -> None:
    def build(x, w, scale, shift, residual):
        return [relu(add(add(multiply(conv(x, w, 1, 1), scale), shift), residual))]

    one = case(build, (2, 18, 7, 9), (37, 18, 3, 3), (37, 1, 1), (1, 37, 1, 1), (2, 37, 7, 9))
    assert one.kernel.kind == "conv_epilogue"
    values = values_of(one)
    x, w, scale, shift, residual = values
    (out,) = run(one.made("avx512", outputs), one.graph, one.kernel, values, one.orders, CHANNELS_LAST, "avx512")
    wanted = np.maximum(summed(one, x, w) * scale + shift + residual, 0)
    np.testing.assert_allclose(out, wanted, rtol=0, atol=5e-4)


@settings(max_examples=10, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 40),
    columns=st.integers(1, 70),
    size=st.tuples(st.integers(3, 14), st.integers(3, 14)),
    padding=st.tuples(st.sampled_from(PADDINGS), st.sampled_from(PADDINGS)),
    outputs=st.sampled_from([2, 4]),
)
def test_any_shape(batch: int, channels: int, columns: int, size: tuple, padding: tuple, outputs: int) -> None:
    check(convolution(batch, channels, columns, size, padding), "avx512", outputs)


# --- rounding --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs, bound", [(4, 2e-5), (2, 2e-6)])
@pytest.mark.parametrize("channels", [16, 64, 256])
@pytest.mark.parametrize("data", ["normal", "after relu"])
def test_error_relative_to_the_largest_output(data: str, channels: int, outputs: int, bound: float) -> None:
    one = convolution(1, channels, 32, (16, 16))
    x, w = values_of(one)
    if data == "after relu":
        x = np.maximum(x, 0)
    (out,) = run(one.made("avx512", outputs), one.graph, one.kernel, [x, w], one.orders, CHANNELS_LAST, "avx512")
    wanted = summed(one, x, w)
    assert np.max(np.abs(out - wanted)) < bound * np.max(np.abs(wanted))


# --- where it is used ------------------------------------------------------------------------------------------------------


def test_refused_where_it_does_not_apply() -> None:
    machine = MACHINES["avx512"]
    shape = (1, 64, 56, 56)
    for build, weight in (
        (lambda x, w: [conv(x, w, 2, 1)], (64, 64, 3, 3)),
        (lambda x, w: [conv(x, w, 1, 2, 2)], (64, 64, 3, 3)),
        (lambda x, w: [conv(x, w, 1, 1, 1, 2)], (64, 32, 3, 3)),
        (lambda x, w: [conv(x, w, 1, 2)], (64, 64, 5, 5)),
        (lambda x, w: [conv_transpose(x, w, 2, 1)], (64, 64, 3, 3)),
    ):
        assert best_plan(case(build, shape, weight).contraction("avx512"), machine, False) is None
    double = case(lambda x, w: [conv(x, w, 1, 1)], shape, (64, 64, 3, 3), dtype="f64")
    assert best_plan(double.contraction("avx512"), machine, False) is None


def preferred(layer: Case, strict: bool = False) -> bool:
    """Whether by estimate this algorithm is the fastest for a layer."""
    candidates, _ = winograd_candidates(layer.request("avx512", strict), layer.node, layer.contraction("avx512"))
    return bool(candidates) and candidates[0].make() is not None


def test_strict_refuses_and_wide_layers_take_it() -> None:
    wide = convolution(1, 64, 64, (56, 56))
    assert preferred(wide)
    assert not preferred(wide, strict=True)
    # one pixel, or three channels: the transforms would cost more than they save
    tiny = convolution(1, 64, 64, (1, 1))
    assert not preferred(tiny)
    few = convolution(1, 3, 16, (56, 56))
    assert not preferred(few)
