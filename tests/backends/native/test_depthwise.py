"""Native depthwise convolution, its transpose and what follows them, against sums written out and PyTorch's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.builder import GraphValue
from irconv.graph import Graph
from irconv.kernel import Kernel
from irconv.ops.conv import conv, conv_transpose
from irconv.ops.elementwise import add, clip, multiply, sigmoid
from irconv.ops.window import window_counts
from irconv.types import tensor_type
from tests.backends.native.pooling import CHANNELS_LAST, ROW_MAJOR, graph_of, make, run

KINDS = ("conv_epilogue", "conv_transpose_epilogue")
Epilogue = Callable[[GraphValue, GraphValue, GraphValue], GraphValue]


@dataclass(frozen=True)
class Shape:
    """A convolution of [batch, channels, *size], every channel by itself.  ``back``: its transpose, which gives that."""

    batch: int
    channels: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int = 1
    padding: int | tuple[tuple[int, int], ...] = 0
    dilation: int = 1
    dtype: str = "f32"
    back: bool = False

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        return ((self.padding,) * 2,) * len(self.size) if isinstance(self.padding, int) else self.padding

    @property
    def counts(self) -> tuple[int, ...]:
        rank = len(self.size)
        return window_counts(self.size, self.kernel, (self.stride,) * rank, self.pads, (self.dilation,) * rank)

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of the operand and of the result."""
        shapes = (self.batch, self.channels, *self.size), (self.batch, self.channels, *self.counts)
        return shapes[::-1] if self.back else shapes

    def op(self, x: GraphValue, w: GraphValue) -> GraphValue:
        if not self.back:
            return conv(x, w, self.stride, self.pads, self.dilation, self.channels)
        before = tuple(before for before, _ in self.pads)
        rank = len(self.size)
        steps, gaps = (self.stride,) * rank, (self.dilation,) * rank
        pairs = tuple((b, 0) for b in before)
        return conv_transpose(x, w, steps, pairs, gaps, self.channels, output_size=self.size)


def summed(s: Shape, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The definition, tap by tap and place by place, in float64."""
    x, w = x.astype(np.float64), w.astype(np.float64)
    result = np.zeros(s.shapes[1])
    for tap in itertools.product(*map(range, s.kernel)):
        for place in itertools.product(*map(range, s.counts)):
            zipped = zip(place, tap, s.pads, strict=True)
            at = tuple(p * s.stride + t * s.dilation - before for p, t, (before, _) in zipped)
            if all(0 <= a < n for a, n in zip(at, s.size, strict=True)):
                source, target = (place, at) if s.back else (at, place)
                result[(..., *target)] += x[(..., *source)] * w[(slice(None), 0, *tap)]
    return result


def build(s: Shape, epilogue: Epilogue | None = None) -> tuple[Graph, Kernel]:
    types = [tensor_type(s.dtype, shape) for shape in (s.shapes[0], (s.channels, 1, *s.kernel))]
    if epilogue is None:
        return graph_of(lambda x, w: [s.op(x, w)], types, KINDS)
    types += [tensor_type(s.dtype, (s.channels, *(1,) * len(s.size))), tensor_type(s.dtype, s.shapes[1])]
    return graph_of(lambda x, w, scale, other: [epilogue(s.op(x, w), scale, other)], types, KINDS)


def operands(s: Shape) -> list[np.ndarray]:
    rng = np.random.default_rng(s.channels)
    shapes = s.shapes[0], (s.channels, 1, *s.kernel), (s.channels, *(1,) * len(s.size)), s.shapes[1]
    return [rng.normal(size=shape).astype(np.float64 if s.dtype == "f64" else np.float32) for shape in shapes]


def computed(
    s: Shape,
    values: list[np.ndarray],
    machine: str = "avx512",
    orders: str = "ll",
    epilogue: Epilogue | None = None,
    backwards: bool = False,
) -> np.ndarray:
    """``orders``: of x (and what is added to the result) and of the result, l(ast) or r(ow-major)."""
    graph, kernel = build(s, epilogue)
    read, written = (CHANNELS_LAST if order == "l" else ROW_MAJOR for order in orders)
    ids = list(graph.inputs)
    stored = {ids[0]: read, ids[1]: ROW_MAJOR} | dict.fromkeys(ids[2:], read) | dict.fromkeys(kernel.nodes, written)
    by_id = dict(zip(ids, values, strict=False))
    made = make(graph, kernel, stored, ROW_MAJOR, machine)
    assert made is not None
    return run(made, graph, kernel, [by_id[i] for i in kernel.inputs], stored, ROW_MAJOR, machine, backwards)[0]


def check(actual: np.ndarray, wanted: np.ndarray) -> None:
    bound = 64 * np.finfo(actual.dtype).eps
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=bound * max(1.0, float(np.abs(wanted).max(initial=0))))


SHAPES = {
    "3x3": Shape(2, 19, (9, 31), (3, 3), padding=1),
    "3x3, whole vectors": Shape(2, 32, (6, 17), (3, 3), padding=1),
    "few channels": Shape(2, 3, (7, 9), (3, 3), padding=1),
    "stride 2": Shape(2, 17, (9, 34), (3, 3), 2, 1),
    "stride beyond the kernel": Shape(1, 20, (11, 12), (2, 2), 3),
    "stride beyond the kernel, padded": Shape(1, 20, (10, 11), (2, 1), 3, 1),
    "dilated": Shape(1, 18, (11, 23), (3, 3), 1, 2, 2),
    "stride and dilation": Shape(1, 18, (13, 21), (3, 3), 2, 3, 3),
    "5x5 on one pixel": Shape(3, 17, (1, 1), (5, 5), padding=2),
    "padding beyond the kernel": Shape(1, 16, (4, 5), (2, 3), 1, ((3, 0), (0, 4))),
    "cropped": Shape(1, 16, (8, 9), (3, 2), 1, ((-1, 1), (0, -2))),
    "1x1": Shape(2, 21, (4, 5), (1, 1)),
    "1-D": Shape(2, 17, (60,), (7,), 1, 3),
    "3-D": Shape(2, 18, (4, 5, 6), (3, 2, 3), 1, 1),
    "float64": Shape(2, 11, (6, 18), (3, 3), 1, 1, dtype="f64"),
}


@pytest.mark.parametrize("back", [False, True], ids=["forward", "transposed"])
@pytest.mark.parametrize("name", SHAPES)
def test_every_channel_is_summed_by_itself(name: str, back: bool) -> None:
    s = replace(SHAPES[name], back=back)
    values = operands(s)
    check(computed(s, values), summed(s, *values[:2]))


@pytest.mark.parametrize("machine", ["avx2", "sse2", "generic"])
@pytest.mark.parametrize("name", ["3x3", "stride 2", "float64"])
def test_on_other_machines(name: str, machine: str) -> None:
    for back in (False, True):
        s = replace(SHAPES[name], back=back)
        values = operands(s)
        check(computed(s, values, machine), summed(s, *values[:2]))


@pytest.mark.parametrize("orders", ["lr", "rl"])
def test_one_side_may_be_row_major(orders: str) -> None:
    for name in ("3x3", "few channels"):
        s = SHAPES[name]
        values = operands(s)
        check(computed(s, values, orders=orders), summed(s, *values[:2]))


def relu6_of_scaled(y: GraphValue, scale: GraphValue, other: GraphValue) -> GraphValue:
    return clip(add(multiply(y, scale), other), 0.0, 6.0)


def swish(y: GraphValue, scale: GraphValue, other: GraphValue) -> GraphValue:
    y = add(multiply(y, scale), other)
    return multiply(y, sigmoid(y))


@pytest.mark.parametrize("name", ["3x3", "few channels", "1-D", "stride 2"])
@pytest.mark.parametrize("back", [False, True], ids=["forward", "transposed"])
def test_epilogues(name: str, back: bool) -> None:
    s = replace(SHAPES[name], back=back)
    x, w, scale, other = operands(s)
    before = summed(s, x, w) * scale + other
    for orders in ("ll", "lr"):
        check(computed(s, [x, w, scale, other], orders=orders, epilogue=relu6_of_scaled), np.clip(before, 0, 6))
    check(computed(s, [x, w, scale, other], epilogue=swish), before / (1 + np.exp(-before)))


LARGE = {
    "3x3": Shape(3, 72, (56, 57), (3, 3), padding=1),
    "5x5, stride 2": Shape(4, 96, (45, 44), (5, 5), 2, 2),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_layers_are_torchs_and_do_not_depend_on_the_order_of_tasks(name: str) -> None:
    s = LARGE[name]
    x, w, *_ = operands(s)
    doubles = [torch.from_numpy(v.astype(np.float64)) for v in (x, w)]
    wanted = torch.nn.functional.conv2d(*doubles, None, s.stride, s.padding, s.dilation, s.channels).numpy()
    forwards = computed(s, [x, w])
    check(forwards, wanted)
    np.testing.assert_array_equal(computed(s, [x, w], backwards=True), forwards)


def test_the_source_does_not_depend_on_the_batch() -> None:
    for back in (False, True):
        sources = set()
        for batch in (0, 1, 5):
            s = replace(SHAPES["stride 2"], batch=batch, back=back)
            values = operands(s)
            check(computed(s, values), summed(s, *values[:2]))
            made = make(*build(s), {}, CHANNELS_LAST, "avx512")
            assert made is not None
            sources.add(made.source)
        assert len(sources) == 1


@st.composite
def layers(draw: st.DrawFn) -> Shape:
    """Any depthwise convolution of a few pixels."""
    rank = draw(st.integers(1, 3))
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    pads = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(rank))
    size = tuple(dilation * (k - 1) + 1 + draw(st.integers(0, 20)) for k in kernel)
    return Shape(draw(st.integers(0, 2)), draw(st.integers(2, 40)), size, kernel, stride, pads, dilation, back=draw(st.booleans()))


@settings(max_examples=15, deadline=None)
@given(layers(), st.booleans())
def test_any_layer(s: Shape, backwards: bool) -> None:
    values = operands(s)
    check(computed(s, values, backwards=backwards), summed(s, *values[:2]))


def test_infinities_and_nan_stay_in_their_channel() -> None:
    s = SHAPES["3x3"]
    values = operands(s)
    values[0][0, 5] = np.inf
    values[0][1, 18, 4, 4] = np.nan
    with np.errstate(invalid="ignore"):
        found, wanted = computed(s, values), summed(s, *values[:2])
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(wanted))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))


def test_row_major_throughout_is_left_to_the_array_kernel() -> None:
    assert make(*build(SHAPES["3x3"]), {}, ROW_MAJOR, "avx512") is None


@pytest.mark.parametrize("back", [False, True], ids=["forward", "transposed"])
def test_several_outputs_for_each_channel_have_a_kernel(back: bool) -> None:
    rng = np.random.default_rng(5)
    x, w = rng.normal(size=(2, 6, 7, 9)).astype(np.float32), rng.normal(size=(12, 1, 3, 3)).astype(np.float32)
    if back:
        w = w.reshape(6, 2, 3, 3)
    op, torchs = (conv_transpose, torch.conv_transpose2d) if back else (conv, torch.conv2d)
    types = [tensor_type("f32", v.shape) for v in (x, w)]
    graph, kernel = graph_of(lambda x, w: [op(x, w, 1, 1, 1, 6)], types)
    a, b = (torch.from_numpy(v.astype(np.float64)) for v in (x, w))
    wanted = (torchs(a, b, None, 1, 1, 0, 6) if back else torchs(a, b, None, 1, 1, 1, 6)).numpy()
    orders = {graph.inputs[0]: CHANNELS_LAST} | dict.fromkeys(kernel.nodes, CHANNELS_LAST)
    made = make(graph, kernel, orders, ROW_MAJOR, "avx512")
    assert made is not None
    check(run(made, graph, kernel, [x, w], orders, ROW_MAJOR, "avx512")[0], wanted)
