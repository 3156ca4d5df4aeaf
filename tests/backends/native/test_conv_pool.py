"""Convolutions with the pool behind them as one kernel, against PyTorch in float64 and against the two kernels by themselves."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.backends.arrays.lower import operand_ids
from irconv.backends.native.base import NATIVE, Candidate, NativeKernel, NativeRequest
from irconv.backends.native.kernels import narrow_plan, plan
from irconv.backends.native.runtime import function_address, run_phases
from irconv.builder import Builder
from irconv.errors import IrconvError
from irconv.graph import Graph
from irconv.kernel import Kernel
from irconv.ops.conv import conv
from irconv.ops.elementwise import add, relu
from irconv.ops.pool import avg_pool, max_pool, min_pool
from irconv.ops.pool_taps import argmax_pool, argmin_pool
from irconv.passes.fuse import fuse
from irconv.target import Target
from irconv.types import F32, U8, tensor_type
from tests.backends.native.contracting import PHASE, arranged, channels_last, element_strides, garbage
from tests.backends.native.machines import TESTED
from tests.backends.native.test_contract import HERE

BEST = HERE[0]
POOLS = {"max": (max_pool, argmax_pool), "min": (min_pool, argmin_pool), "avg": (avg_pool, None)}


@dataclass(frozen=True)
class Layer:
    """A convolution with bias, residual (if ``residual``) and ReLU, pooled; shapes of x and w, windows of ``kernel``."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    kernel: Any = 2
    stride: int = 1
    padding: int = 0
    pool: str = "max"
    taps: bool = False
    residual: bool = False
    dtype: str = "f32"
    last: bool = True  # whether results are stored channels last

    def values(self, whole: bool) -> list[np.ndarray]:
        """Operands; ``whole``: small whole numbers, so that no sum is rounded and many are equal."""
        generator = np.random.default_rng(sum(self.x) + sum(self.w))
        size = [(n + 2 * self.padding - k) // self.stride + 1 for n, k in zip(self.x[2:], self.w[2:], strict=True)]
        shapes = [self.x, self.w, (self.w[0], *([1] * len(size)))]
        shapes += [(self.x[0], self.w[0], *size)] if self.residual else []
        dtype = tensor_type(self.dtype, ()).dtype.numpy
        if whole:
            return [generator.integers(-2, 3, shape).astype(dtype) for shape in shapes]
        return [generator.standard_normal(shape).astype(dtype) for shape in shapes]

    def build(self, x: Any, w: Any, b: Any, *residual: Any) -> list[Any]:
        y = add(conv(x, w, self.stride, self.padding), b)
        r = relu(add(y, residual[0]) if residual else y)
        pooled, taps = POOLS[self.pool]
        return [pooled(r, self.kernel), *([taps(r, self.kernel)] if self.taps and taps else [])]


@dataclass
class Made:
    """A kernel with its arrays."""

    graph: Graph
    kernel: Kernel
    code: NativeKernel
    outputs: list[np.ndarray]
    arrays: list[np.ndarray]

    def run(self) -> list[np.ndarray]:
        phases = [(phase.function, phase.tasks) for phase in self.code.phases]
        run_phases(self.code.unit, phases, self.code.sizes, self.arrays)
        return self.outputs

    def run_tasks(self, step: int, backwards: bool) -> list[np.ndarray]:
        """On this thread, ``step`` tasks at a time, the last first if ``backwards``."""
        buffers = (ctypes.c_void_p * len(self.arrays))(*(a.ctypes.data for a in self.arrays))
        sizes = (ctypes.c_int64 * max(1, len(self.code.sizes)))(*self.code.sizes)
        for phase in self.code.phases:
            function = PHASE(function_address(self.code.unit, phase.function))
            starts = range(0, phase.tasks, step)
            for first in reversed(starts) if backwards else starts:
                function(buffers, sizes, first, min(first + step, phase.tasks), 1)
        return self.outputs


def graph_of(layer: Layer, shapes: Sequence[Sequence[int]]) -> Graph:
    graph = Graph()
    builder = Builder(graph)
    inputs = [builder.input(f"x{i}", tensor_type(layer.dtype, tuple(shape))) for i, shape in enumerate(shapes)]
    for i, value in enumerate(layer.build(*inputs)):
        graph.set_output(f"y{i}", value.id)
    return graph


def make(
    layer: Layer, values: Sequence[np.ndarray], machine: str = BEST, candidate: int = 0, strict: bool = True, threads: int = 2
) -> Made | None:
    """The kernel of a layer: candidate number so much of what the generator has; None where it has fewer."""
    graph = graph_of(layer, [value.shape for value in values])
    (kernel,) = fuse(graph, Target("test", frozenset({"conv_pool"}))).kernels
    assert kernel.kind == "conv_pool"
    order = channels_last(len(layer.x))
    stored = dict(zip(graph.inputs, values, strict=True))
    stored = {i: arranged(value, order) if value.ndim == len(order) and n != 1 else value for n, (i, value) in enumerate(stored.items())}
    outputs = [garbage(graph[i].type, order if layer.last else None) for i in kernel.outputs]
    strides = {i: element_strides(value) for i, value in stored.items()}
    strides |= {i: element_strides(garbage(graph[i].type, order)) for i in kernel.nodes}
    strides |= {i: element_strides(out) for i, out in zip(kernel.outputs, outputs, strict=True)}

    def choose(request: NativeRequest, candidates: Sequence[Candidate]) -> NativeKernel | None:
        return candidates[candidate].make() if candidate < len(candidates) else None

    request = NativeRequest(graph, kernel, strides, TESTED[machine], threads, strict, choose)
    code = NATIVE["conv_pool"](request)
    if code is None:
        return None
    inputs = [stored[i] for i in operand_ids(graph, kernel)]
    return Made(graph, kernel, code, outputs, [*outputs, *inputs, *(garbage(t) for t in code.scratch)])


def wanted(layer: Layer, values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The same by PyTorch in float64, and the first winner of each window by NumPy."""
    x, w, b, *residual = (torch.from_numpy(value.astype(np.float64)) for value in values)
    rank = x.ndim - 2
    functions = torch.nn.functional
    y = getattr(functions, f"conv{rank}d")(x, w, None, layer.stride, layer.padding) + b
    y = functions.relu(y + residual[0] if residual else y).numpy()
    kernel = (layer.kernel,) * rank if isinstance(layer.kernel, int) else layer.kernel
    counts = [n // k for n, k in zip(y.shape[2:], kernel, strict=True)]
    taps = []
    for tap in itertools.product(*map(range, kernel)):
        places = tuple(slice(t, t + n * k, k) for t, n, k in zip(tap, counts, kernel, strict=True))
        taps.append(y[(slice(None), slice(None), *places)])
    found = np.stack(taps)
    value = {"max": found.max, "min": found.min, "avg": found.mean}[layer.pool](0)
    if not layer.taps:
        return [value]
    return [value, found.argmax(0) if layer.pool == "max" else found.argmin(0)]


LAYERS = {
    "pixels in lanes": Layer((3, 1, 28, 28), (4, 1, 5, 5), padding=2),
    "pixels in lanes, odd": Layer((2, 2, 15, 37), (3, 2, 3, 3), padding=1, residual=True),
    "pixels in lanes, wide windows": Layer((2, 2, 9, 50), (3, 2, 3, 3), kernel=(1, 4)),
    "pixels in lanes, high windows": Layer((2, 2, 13, 20), (2, 2, 3, 3), kernel=(3, 1), padding=1),
    "windows across tiles": Layer((2, 2, 9, 70), (4, 2, 3, 3), kernel=3),
    "signal": Layer((2, 3, 40), (3, 3, 5)),
    "whole images": Layer((9, 6, 14, 14), (16, 6, 5, 5)),
    "rows": Layer((2, 16, 50, 50), (24, 16, 3, 3), padding=1),
    "no even rows": Layer((2, 16, 53, 51), (24, 16, 3, 3), padding=1),
    "stride, residual": Layer((2, 9, 29, 31), (21, 9, 3, 3), stride=2, padding=1, residual=True),
    "blocks": Layer((1, 64, 12, 12), (160, 64, 3, 3), padding=1),
    "one channel": Layer((2, 3, 23, 24), (1, 3, 3, 3), padding=1),
    "volume": Layer((1, 5, 6, 7, 8), (17, 5, 3, 3, 3), padding=1),
    "empty batch": Layer((0, 6, 14, 14), (16, 6, 5, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("machine", HERE)
def test_whole_numbers_give_the_very_values_and_taps(name: str, pool: str, machine: str) -> None:
    """No sum is rounded: extrema, and first winners among many equal ones, are exact."""
    layer = replace(LAYERS[name], pool=pool, taps=pool != "avg")
    values = layer.values(True)
    made = make(layer, values, machine)
    assert made is not None
    for found, expected in zip(made.run(), wanted(layer, values), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6 if pool == "avg" else 0)


@pytest.mark.parametrize("name", ["pixels in lanes", "pixels in lanes, odd", "whole images", "rows", "blocks"])
def test_every_candidate(name: str) -> None:
    layer = replace(LAYERS[name], taps=True)
    values = layer.values(False)
    value, taps = wanted(layer, values)
    tried = 0
    for number in itertools.count():
        made = make(layer, values, candidate=number, strict=False)
        if made is None:
            break
        found, winners = made.run()
        np.testing.assert_allclose(found, value, rtol=2e-5, atol=2e-5 * value.max())
        assert (winners == taps).mean() > 0.99  # all but what rounding decides
        tried += 1
    assert tried > 2


WINOGRAD = [
    Layer((2, 32, 28, 28), (32, 32, 3, 3), padding=1),
    Layer((1, 40, 13, 15), (37, 40, 3, 3), padding=1, residual=True),
    Layer((1, 32, 27, 27), (32, 32, 3, 3), padding=1, kernel=3),
    Layer((1, 32, 16, 16), (48, 32, 3, 3), padding=1, kernel=(4, 2)),
    Layer((1, 512, 8, 8), (512, 512, 3, 3), padding=1),
]


@pytest.mark.parametrize("machine", HERE)
@pytest.mark.parametrize("layer", WINOGRAD)
def test_winograd(layer: Layer, machine: str) -> None:
    """All its plans, with windows that fill its tiles, and with those that do not."""
    layer = replace(layer, taps=True)
    values = layer.values(False)
    value, taps = wanted(layer, values)
    plans = 0
    for number in itertools.count():
        made = make(layer, values, machine, number, strict=False)
        if made is None:
            break
        if not any("winograd" in phase.function for phase in made.code.phases):
            continue
        found, winners = made.run()
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-4 * value.max())
        assert (winners == taps).mean() > 0.99
        plans += 1
    assert plans > 0


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("name", ["pixels in lanes, odd", "whole images", "blocks"])
def test_storage_orders_of_the_result(name: str, last: bool) -> None:
    layer = replace(LAYERS[name], taps=True, last=last)
    values = layer.values(True)
    made = make(layer, values)
    assert made is not None
    for found, expected in zip(made.run(), wanted(layer, values), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["pixels in lanes", "rows", "stride, residual"])
def test_float64(name: str) -> None:
    layer = replace(LAYERS[name], dtype="f64", taps=True)
    values = layer.values(False)
    made = make(layer, values)
    assert made is not None
    value, taps = wanted(layer, values)
    found, winners = made.run()
    np.testing.assert_allclose(found, value, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(winners, taps)


def test_averages_divide_by_what_they_are_told() -> None:
    layer = Layer((2, 2, 12, 20), (3, 2, 3, 3), pool="avg")
    values = layer.values(True)
    graph = Graph()
    builder = Builder(graph)
    x, w, _ = (builder.input(f"x{i}", tensor_type("f32", v.shape)) for i, v in enumerate(values))
    graph.set_output("y", avg_pool(conv(x, w), 2, divisor_override=3).id)
    (kernel,) = fuse(graph, Target("test", frozenset({"conv_pool"}))).kernels
    out = garbage(graph[kernel.outputs[0]].type)
    strides = {i: element_strides(garbage(graph[i].type)) for i in graph.order()}
    code = NATIVE["conv_pool"](NativeRequest(graph, kernel, strides, TESTED[BEST], 2, True))
    assert code is not None
    arrays = [out, *values[:2], *(garbage(t) for t in code.scratch)]
    run_phases(code.unit, [(phase.function, phase.tasks) for phase in code.phases], code.sizes, arrays)
    y = torch.nn.functional.conv2d(*(torch.from_numpy(v.astype(np.float64)) for v in values[:2]))
    np.testing.assert_allclose(out, 4 / 3 * torch.nn.functional.avg_pool2d(y, 2).numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", ["pixels in lanes", "whole images", "rows", "blocks"])
def test_nan_wins_and_reaches_no_other_window(name: str) -> None:
    layer = replace(LAYERS[name], taps=True)
    values = [np.abs(value) + 1 for value in layer.values(True)]
    values[0][-1, 0, 7, 8] = np.nan
    made = make(layer, values)
    assert made is not None
    found, winners = made.run()
    first = replace(layer, taps=False)
    affected = np.isnan(wanted(first, values)[0])
    np.testing.assert_array_equal(np.isnan(found), affected)
    assert affected.any() and not affected.all()
    y = torch.nn.functional.conv2d(*(torch.from_numpy(v.astype(np.float64)) for v in values[:2]), padding=layer.padding).numpy()
    rows, columns = (n // 2 * 2 for n in y.shape[2:])
    windows = [y[:, :, i:rows:2, j:columns:2] for i in (0, 1) for j in (0, 1)]
    nan_taps = np.isnan(np.stack(windows)).argmax(0)
    np.testing.assert_array_equal(winners[affected], nan_taps[affected])


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_geometry(data: st.DataObject) -> None:
    draw = lambda *bounds: data.draw(st.integers(*bounds))  # noqa: E731
    size, kernel = (draw(1, 20), draw(1, 40)), (draw(1, 4), draw(1, 4))
    pool = data.draw(st.sampled_from(sorted(POOLS)))
    layer = Layer(
        (draw(0, 3), draw(1, 20), *size),
        (draw(1, 40), 0, *kernel),
        (draw(1, 3), draw(1, 3)),
        draw(1, 2),
        draw(0, 2),
        pool,
        pool != "avg",
        data.draw(st.booleans()),
        "f32",
        data.draw(st.booleans()),
    )
    layer = replace(layer, w=(layer.w[0], layer.x[1], *kernel))
    if layer.kernel == (1, 1):
        return
    try:
        values = layer.values(True)
        made = make(layer, values, candidate=draw(0, 3))
    except (IrconvError, ValueError):
        return  # no window fits
    if made is not None:
        for found, expected in zip(made.run(), wanted(layer, values), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-6 if pool == "avg" else 0)


# --- tasks, batches, threads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pixels in lanes", "whole images", "rows", "blocks"])
def test_bits_do_not_depend_on_how_tasks_are_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MACS", 200_000)
    monkeypatch.setattr(narrow_plan, "MACS", 20_000)
    layer = replace(LAYERS[name], taps=True)
    values = layer.values(False)
    made = make(layer, values)
    assert made is not None and made.code.phases[-1].tasks > 1
    first = [found.copy() for found in made.run()]
    for step, backwards in ((1, True), (3, False), (1000, False)):
        for output in made.outputs:
            output[:] = 77
        for found, expected in zip(made.run_tasks(step, backwards), first, strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["pixels in lanes", "whole images", "rows", "blocks", "one channel"])
def test_batches_and_threads_share_the_source(name: str) -> None:
    def source(batch: int, threads: int) -> str:
        layer = LAYERS[name]
        layer = replace(layer, x=(batch, *layer.x[1:]), taps=True)
        made = make(layer, layer.values(True), threads=threads)
        assert made is not None
        return made.code.source

    assert len({source(batch, threads) for batch, threads in ((1, 1), (2, 1), (3, 2), (17, 8))}) == 1


def test_what_is_pooled_is_stored_for_a_thread_at_a_time() -> None:
    """The whole result between the two is nowhere in memory, whatever the batch."""
    for name, batch in (("pixels in lanes", 64), ("whole images", 64), ("rows", 64)):
        layer = LAYERS[name]
        layer = replace(layer, x=(batch, *layer.x[1:]))
        graph = graph_of(layer, [value.shape for value in layer.values(True)])
        (kernel,) = fuse(graph, Target("test", frozenset({"conv_pool"}))).kernels
        whole = max(graph[i].type.bytes for i in kernel.nodes)
        made = make(layer, layer.values(True))
        assert made is not None
        copied = graph[graph.inputs[0]].type.bytes * 2  # an input may be copied with its padding
        assert sum(t.bytes for t in made.code.scratch) < max(whole // 4, copied)


def test_result_types_of_taps() -> None:
    layer = replace(LAYERS["pixels in lanes"], taps=True)
    made = make(layer, layer.values(True))
    assert made is not None
    assert [made.graph[i].type.dtype for i in made.kernel.outputs] == [F32, U8]
