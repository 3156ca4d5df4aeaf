"""Native weight gradients of convolution against sums written out, and PyTorch's."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import irconv
from irconv import nn, optim
from irconv.backends.codegen import machine as machines
from irconv.backends.native.base import Candidate, Chooser, NativeKernel, NativeRequest, first
from irconv.backends.native.kernels import weight_gradient_taps_plan
from irconv.builder import GraphValue
from irconv.graph import Graph
from irconv.kernel import Kernel
from irconv.ops.contract import im2col, matmul
from irconv.ops.shape import reshape, transpose
from irconv.ops.window import window_counts
from irconv.types import tensor_type
from tests.backends.native.pooling import CHANNELS_LAST, ROW_MAJOR, graph_of, make, run

KIND = "conv_weight_gradient"
MACHINES = ("avx512", "avx2", "sse2", "generic")


@dataclass(frozen=True)
class Shape:
    """A convolution of x [batch, channels, *size] to ``out`` channels."""

    batch: int
    channels: int
    size: tuple[int, ...]
    out: int
    kernel: tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: int | tuple[tuple[int, int], ...] = 0
    dilation: int | tuple[int, ...] = 1
    groups: int = 1
    dtype: str = "f32"

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        return ((self.padding,) * 2,) * len(self.size) if isinstance(self.padding, int) else self.padding

    @property
    def strides(self) -> tuple[int, ...]:
        return (self.stride,) * len(self.size) if isinstance(self.stride, int) else self.stride

    @property
    def dilations(self) -> tuple[int, ...]:
        return (self.dilation,) * len(self.size) if isinstance(self.dilation, int) else self.dilation

    @property
    def counts(self) -> tuple[int, ...]:
        return window_counts(self.size, self.kernel, self.strides, self.pads, self.dilations)

    @property
    def weight(self) -> tuple[int, ...]:
        return (self.out, self.channels // self.groups, *self.kernel)


def build(s: Shape) -> tuple[Graph, Kernel]:
    """What the gradient of conv gives for its weight."""
    rank = len(s.size)

    def gradient(x: GraphValue, d: GraphValue) -> list[GraphValue]:
        columns = im2col(x, s.kernel, s.strides, s.pads, s.dilations, s.groups)
        turned = transpose(d, (1, 0, *range(2, rank + 2)))
        left = reshape(turned, (s.groups, s.out // s.groups, s.batch * math.prod(s.counts)))
        return [reshape(matmul(left, columns), s.weight)]

    types = [tensor_type(s.dtype, (s.batch, c, *n)) for c, n in ((s.channels, s.size), (s.out, s.counts))]
    return graph_of(gradient, types, [KIND])


def operands(s: Shape) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(s.channels + s.out)
    numpy_type = np.float64 if s.dtype == "f64" else np.float32
    x, d = (rng.normal(size=(s.batch, c, *n)) for c, n in ((s.channels, s.size), (s.out, s.counts)))
    return x.astype(numpy_type), d.astype(numpy_type)


def summed(s: Shape, x: np.ndarray, d: np.ndarray) -> np.ndarray:
    """The definition, tap by tap and place by place, in float64."""
    result = np.zeros((s.groups, s.out // s.groups, s.channels // s.groups, *s.kernel))
    rows, depth = (s.batch, s.groups, s.out // s.groups), (s.batch, s.groups, s.channels // s.groups)
    for tap in itertools.product(*map(range, s.kernel)):
        for place in itertools.product(*map(range, s.counts)):
            zipped = zip(place, tap, s.strides, s.dilations, s.pads, strict=True)
            at = tuple(p * stride + t * dilation - before for p, t, stride, dilation, (before, _) in zipped)
            if all(0 <= a < n for a, n in zip(at, s.size, strict=True)):
                seen = x[(..., *at)].astype(np.float64).reshape(depth)
                wanted = d[(..., *place)].astype(np.float64).reshape(rows)
                result[(..., *tap)] += np.einsum("ngo,ngi->goi", wanted, seen)
    return result.reshape(s.weight)


def computed(
    s: Shape,
    x: np.ndarray,
    d: np.ndarray,
    machine: str = "avx512",
    orders: str = "ll",
    backwards: bool = False,
    choose: Chooser = first,
) -> np.ndarray:
    """The kernel's result; ``orders``: of x and d, l(ast) or r(ow-major)."""
    graph, kernel = build(s)
    stored = {i: CHANNELS_LAST if order == "l" else ROW_MAJOR for i, order in zip(kernel.inputs, orders, strict=True)}
    by_name = {graph[i].name: v for i, v in zip(graph.inputs, (x, d), strict=True)}
    values = [by_name[graph[i].name] for i in kernel.inputs]
    made = make(graph, kernel, stored, ROW_MAJOR, machine, choose=choose)
    assert made is not None
    return run(made, graph, kernel, values, stored, ROW_MAJOR, machine, backwards)[0]


def check(actual: np.ndarray, wanted: np.ndarray, terms: int) -> None:
    """Within what sums of so many products round to."""
    bound = np.finfo(actual.dtype).eps * 4 * math.sqrt(max(1, terms)) * max(1.0, float(np.abs(wanted).max(initial=0)))
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=bound)


SHAPES = {
    "3x3": Shape(3, 19, (9, 7), 33, (3, 3), padding=1),
    "many channels, one tile short": Shape(2, 13, (5, 6), 80, (3, 3), padding=1),
    "wide enough for two blocks": Shape(1, 8, (4, 5), 130, (3, 3), padding=1),
    "stride 2": Shape(2, 12, (9, 10), 17, (3, 3), 2, 1),
    "stride beyond the kernel": Shape(2, 17, (11, 12), 5, (2, 2), 3),
    "dilated": Shape(2, 16, (11, 9), 16, (3, 2), 1, 2, 2),
    "padding beyond the kernel": Shape(1, 9, (4, 3), 16, (2, 3), 2, ((5, 1), (0, 4))),
    "cropped": Shape(2, 9, (8, 9), 16, (2, 3), 1, ((-1, 2), (1, -2))),
    "one pixel": Shape(5, 17, (1, 1), 7, (3, 3), padding=1),
    "one channel to one": Shape(2, 1, (6, 5), 1, (3, 3), padding=1),
    "first layer": Shape(2, 3, (13, 15), 20, (7, 7), 2, 3),
    "first layer, few outputs": Shape(3, 1, (12, 12), 6, (5, 5), padding=2),
    "first layer, dilated": Shape(2, 2, (12, 12), 6, (3, 3), padding=2, dilation=2),
    "few outputs: vectors along x": Shape(2, 37, (6, 7), 3, (3, 3), 2, 1),
    "few outputs, dense x": Shape(2, 32, (6, 7), 2, (3, 3), padding=1),
    "1x1": Shape(3, 21, (6, 7), 35, (1, 1)),
    "1x1, stride 2": Shape(3, 21, (6, 7), 16, (1, 1), 2),
    "1x1, padded": Shape(1, 4, (3, 3), 16, (1, 1), 1, 1),
    "groups": Shape(2, 24, (5, 6), 36, (3, 3), padding=1, groups=4),
    "groups of one to four": Shape(2, 6, (5, 6), 24, (3, 3), padding=1, groups=6),
    "depthwise": Shape(2, 35, (6, 19), 35, (3, 3), padding=1, groups=35),
    "depthwise, stride 2": Shape(2, 32, (9, 8), 32, (3, 3), 2, 1, groups=32),
    "depthwise, few channels, dilated": Shape(1, 5, (9, 13), 5, (2, 5), 1, ((3, 0), (4, 2)), 2, groups=5),
    "depthwise, 1-D": Shape(2, 20, (50,), 20, (7,), 1, 3, groups=20),
    "depthwise, 3-D": Shape(1, 17, (3, 4, 5), 17, (3, 2, 3), 1, 1, groups=17),
    "depthwise, one pixel, float64": Shape(3, 9, (1, 1), 9, (3, 3), 1, 1, groups=9, dtype="f64"),
    "1-D": Shape(3, 10, (37,), 18, (4,), 2, 3),
    "1-D, one channel": Shape(2, 1, (300,), 4, (9,), 1, 4),
    "3-D": Shape(2, 5, (4, 5, 6), 18, (3, 2, 3), 1, 1),
    "3-D, one channel": Shape(2, 1, (4, 5, 6), 5, (3, 2, 3), 1, 1),
    "float64": Shape(2, 19, (6, 7), 21, (3, 3), 1, 1, dtype="f64"),
    "float64, first layer": Shape(2, 3, (9, 8), 10, (3, 3), 2, 1, dtype="f64"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_it_is_the_sum_over_samples_and_places(name: str) -> None:
    s = SHAPES[name]
    x, d = operands(s)
    wanted = summed(s, x, d)
    for orders in ("ll", "rr"):
        check(computed(s, x, d, orders=orders), wanted, s.batch * math.prod(s.counts))


@pytest.mark.parametrize("machine", MACHINES[1:])
@pytest.mark.parametrize("name", ["3x3", "first layer", "few outputs: vectors along x", "groups", "depthwise", "float64"])
def test_on_other_machines(name: str, machine: str) -> None:
    s = SHAPES[name]
    x, d = operands(s)
    check(computed(s, x, d, machine), summed(s, x, d), s.batch * math.prod(s.counts))


LARGE = {
    "bands of rows": Shape(2, 40, (40, 44), 48, (3, 3), padding=1),
    "several samples at once": Shape(70, 48, (7, 7), 64, (3, 3), padding=1),
    "first layer": Shape(3, 3, (90, 80), 32, (7, 7), 2, 3),
    "1x1": Shape(4, 70, (28, 28), 100, (1, 1)),
    "depthwise": Shape(3, 72, (45, 50), 72, (3, 3), padding=1, groups=72),
    "few outputs": Shape(2, 96, (56, 50), 4, (3, 3), 1, 1),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_sums_are_torchs_and_do_not_depend_on_the_order_of_tasks(name: str) -> None:
    s = LARGE[name]
    x, d = operands(s)
    wanted = torch.ops.aten.convolution_backward(
        torch.from_numpy(d.astype(np.float64)),
        torch.from_numpy(x.astype(np.float64)),
        torch.empty(s.weight, dtype=torch.float64),
        None,
        list(s.strides),
        [before for before, _ in s.pads],
        list(s.dilations),
        False,
        [0, 0],
        s.groups,
        [False, True, False],
    )[1].numpy()
    forwards = computed(s, x, d)
    check(forwards, wanted, s.batch * math.prod(s.counts))
    np.testing.assert_array_equal(computed(s, x, d, backwards=True), forwards)
    check(computed(s, x, d, orders="rl"), wanted, s.batch * math.prod(s.counts))


@pytest.mark.parametrize("name", ["3x3", "first layer", "few outputs: vectors along x", "depthwise"])
def test_the_source_does_not_depend_on_the_batch(name: str) -> None:
    sources = set()
    for batch in (0, 1, 7):
        s = replace(SHAPES[name], batch=batch)
        x, d = operands(s)
        check(computed(s, x, d), summed(s, x, d), s.batch * math.prod(s.counts))
        graph, kernel = build(s)
        made = make(graph, kernel, {}, CHANNELS_LAST, "avx512")
        assert made is not None
        sources.add(made.source)
    assert len(sources) == 1


TAPS = {
    "one channel": Shape(3, 1, (28, 28), 6, (5, 5), padding=2),
    "four channels": Shape(2, 4, (9, 12), 6, (3, 5), padding=1),
    "rows at a stride, dilated": Shape(2, 3, (13, 11), 6, (3, 4), (2, 1), 2, (2, 1)),
    "padding beyond the taps": Shape(2, 2, (8, 7), 5, (3, 4), 1, ((1, 2), (6, 9))),
    "cropped": Shape(2, 3, (9, 14), 6, (2, 5), 1, ((-1, 2), (-2, -1))),
    "lines of two places": Shape(3, 1, (6, 6), 3, (3, 5)),
    "several chunks of a sample": Shape(2, 1, (70, 90), 3, (3, 7), padding=2),
    "signal": Shape(3, 2, (60,), 4, (7,), 1, 3),
    "float64": Shape(2, 2, (9, 10), 3, (5, 5), padding=2, dtype="f64"),
}


def by_taps(request: NativeRequest, candidates: Sequence[Candidate]) -> NativeKernel | None:
    """Takes the way that has taps in its lanes."""
    (candidate,) = (c for c in candidates if c.name.startswith("taps of a line"))
    return candidate.make()


@pytest.mark.parametrize("name", TAPS)
def test_few_outputs_with_taps_in_lanes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_gradient_taps_plan, "WORTH_A_TRY", 10)
    s = TAPS[name]
    x, d = operands(s)
    wanted = summed(s, x, d)
    for orders in ("ll", "rl", "lr", "rr"):
        found = computed(s, x, d, orders=orders, choose=by_taps)
        check(found, wanted, s.batch * math.prod(s.counts))
        np.testing.assert_array_equal(computed(s, x, d, orders=orders, backwards=True, choose=by_taps), found)


@pytest.mark.parametrize("machine", MACHINES[1:])
def test_taps_in_lanes_on_other_machines(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_gradient_taps_plan, "WORTH_A_TRY", 10)
    for name in ("four channels", "several chunks of a sample", "float64"):
        s = TAPS[name]
        lanes = machines.MACHINES[machine].lanes(8 if s.dtype == "f64" else 4)
        s = replace(s, out=min(s.out, lanes - 1), channels=min(s.channels, lanes - 1))
        x, d = operands(s)
        check(computed(s, x, d, machine, choose=by_taps), summed(s, x, d), s.batch * math.prod(s.counts))


def test_the_source_with_taps_in_lanes_does_not_depend_on_the_batch() -> None:
    sources = set()
    for batch in (0, 1, 7):
        s = replace(TAPS["one channel"], batch=batch)
        x, d = operands(s)
        check(computed(s, x, d, choose=by_taps), summed(s, x, d), s.batch * math.prod(s.counts))
        graph, kernel = build(s)
        made = make(graph, kernel, {}, CHANNELS_LAST, "avx512", choose=by_taps)
        assert made is not None
        sources.add(made.source)
    assert len(sources) == 1


def test_when_taps_come_into_lanes() -> None:
    """They are preferred where outputs by themselves leave lanes empty, and nowhere else."""

    def names(s: Shape) -> list[str]:
        found: list[str] = []

        def choose(request: NativeRequest, candidates: Sequence[Candidate]) -> NativeKernel | None:
            found.extend(c.name.split(",")[0] for c in candidates)
            return first(request, candidates)

        make(*build(s), {}, CHANNELS_LAST, "avx512", True, choose)
        return found

    assert names(TAPS["one channel"])[0] == "taps of a line in lanes"
    assert names(Shape(2, 1, (28, 28), 8, (3, 3), padding=1))[-1] == "taps of a line in lanes"  # may be tried
    others = [replace(TAPS["one channel"], **change) for change in ({"out": 16}, {"stride": 2}, {"dilation": 2}, {"channels": 40})]
    assert not any("taps of a line in lanes" in names(s) for s in others)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Any convolution of a few pixels."""
    rank, groups = draw(st.integers(1, 3)), draw(st.sampled_from((1, 1, 2, 5)))
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    pads = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(rank))
    size = tuple(dilation * (k - 1) + 1 + draw(st.integers(0, 5)) for k in kernel)
    channels, out = (groups * draw(st.integers(1, 40)) for _ in range(2))
    return Shape(draw(st.integers(0, 3)), channels, size, out, kernel, stride, pads, dilation, groups)


@settings(max_examples=15, deadline=None)
@given(shapes(), st.sampled_from(("ll", "rl", "lr")), st.booleans())
def test_any_convolution(s: Shape, orders: str, backwards: bool) -> None:
    x, d = operands(s)
    check(computed(s, x, d, orders=orders, backwards=backwards), summed(s, x, d), s.batch * math.prod(s.counts))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("s", [(8, 9, 3, 1, 1), (5, 6, 1, 1, 0), (2, 7, 5, 2, 2), (1, 1, 3, 1, 1)])
def test_depthwise_along_a_line(s: tuple[int, int, int, int, int], batch: int) -> None:
    """Of one sample there is nothing to reshape before the product: the kernel is found all the same."""
    channels, size, kernel, stride, padding = s
    shape = Shape(batch, channels, (size,), channels, (kernel,), stride, padding, groups=channels)
    x, d = operands(shape)
    layer = nn.Conv1d(channels, channels, kernel, stride, padding, groups=channels, bias=False)
    before = layer.weight.numpy().copy()
    step = irconv.compile_step(layer, lambda y, d: (y * d).sum(), optim.SGD(layer.parameters(), lr=1.0), x, d, backend="native")
    step(x, d)
    np.testing.assert_allclose(before - layer.weight.numpy(), summed(shape, x, d), rtol=1e-5, atol=1e-5)
    exe = step.compiled.executable
    assert exe.sources.keys() == {kernel.name for kernel in exe.kernels if not kernel.is_view}


def test_an_operand_may_come_twice() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 6, 5, 4)).astype(np.float32)

    def gradient(x: GraphValue) -> list[GraphValue]:
        left = reshape(transpose(x, (1, 0, 2, 3)), (1, 6, 40))
        return [reshape(matmul(left, im2col(x, (3, 3), 1, 1, 1, 1)), (6, 6, 3, 3))]

    graph, kernel = graph_of(gradient, [tensor_type("f32", x.shape)], [KIND])
    made = make(graph, kernel, {}, ROW_MAJOR, "avx512")
    assert made is not None
    s = Shape(2, 6, (5, 4), 6, (3, 3), padding=1)
    check(run(made, graph, kernel, [x], {}, ROW_MAJOR, "avx512")[0], summed(s, x, x), 40)


def test_other_element_types_and_arrangements_are_left_to_the_array_kernel() -> None:
    graph, kernel = build(replace(SHAPES["3x3"], dtype="f16"))
    assert make(graph, kernel, {}, ROW_MAJOR, "avx512") is None

    def gradient(x: GraphValue, d: GraphValue) -> list[GraphValue]:
        return [matmul(reshape(d, (1, 6, 40)), im2col(x, (3, 3), (1, 1), ((1, 1),) * 2, (1, 1), 1))]

    types = [tensor_type("f32", (2, 6, 5, 4)), tensor_type("f32", (6, 2, 5, 4))]
    graph, kernel = graph_of(gradient, types, [KIND])
    assert make(graph, kernel, {}, ROW_MAJOR, "avx512") is None


def test_not_a_number_reaches_exactly_what_it_should() -> None:
    s = Shape(1, 3, (4, 4), 17, (3, 3), padding=1)
    x, d = operands(s)
    d[0, 16, 0, 0] = np.nan
    found = np.isnan(computed(s, x, d))
    # the window of the first place sees padding at five of its taps; those sums may or may not hold NaN
    assert found[16, :, 1:, 1:].all() and not found[:16].any()
