"""Convolutions of few output channels, whose vectors run along pixels, against PyTorch in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.backends.codegen.machine import MACHINES
from irconv.backends.native.base import Candidate, NativeKernel, NativeRequest
from irconv.backends.native.kernels import narrow_plan as planning
from irconv.backends.native.kernels.contract import describe_conv, describe_conv_transpose
from irconv.backends.native.kernels.narrow import narrow_candidates
from irconv.backends.native.runtime import run_phases
from irconv.errors import IrconvError
from irconv.ops.conv import conv, conv_transpose
from irconv.ops.elementwise import add, greater, multiply, relu
from tests.backends.native.contracting import (
    Case,
    arranged,
    arrays_of,
    case,
    channels_last,
    element_strides,
    garbage,
    run_tasks,
)
from tests.backends.native.machines import TESTED
from tests.backends.native.test_contract import HERE, conv_wanted, near, numbers, transposed_wanted

BEST = HERE[0]


@dataclass
class Made:
    """A kernel of the way under test with its arrays."""

    c: Case
    kernel: NativeKernel
    values: list[np.ndarray]
    out: np.ndarray

    def run(self) -> np.ndarray:
        phases = [(p.function, p.tasks) for p in self.kernel.phases]
        run_phases(self.kernel.unit, phases, self.kernel.sizes, arrays_of(self.c, self.kernel, self.values, self.out))
        return self.out


def candidates(c: Case, values, out, machine=BEST, threads=2) -> tuple[list[Candidate], list[Candidate]]:
    """What the generator offers: what it prefers, and what may be tried."""
    strides = dict(zip(c.inputs, map(element_strides, values), strict=True))
    strides |= {i: element_strides(out) for i in c.kernel.nodes}
    request = NativeRequest(c.graph, c.kernel, strides, TESTED[machine], threads, True)
    (node,) = (c.graph[i] for i in c.kernel.nodes if c.graph[i].op.name in ("conv", "conv_transpose"))
    describe = describe_conv if node.op.name == "conv" else describe_conv_transpose
    return narrow_candidates(request, node, describe(request, node))


def make(build: Callable, values, machine=BEST, last=True, out_last=True, dtype="f32", threads=2) -> Made | None:
    """The kernel for operands of these values; None where it is not offered."""
    c = case(build, *(v.shape for v in values), dtype=dtype)
    rank = values[0].ndim
    values = [arranged(values[0], channels_last(rank)) if last else values[0], *values[1:]]
    out = garbage(c.graph[c.result].type, channels_last(rank) if out_last else None)
    preferred, tried = candidates(c, values, out, machine, threads)
    for candidate in (*preferred, *tried):
        made = candidate.make()
        assert made is not None
        return Made(c, made, values, out)
    return None


def columns_for(machine: str) -> int:
    """As many output channels as half a vector has lanes."""
    return MACHINES[machine].lanes(4) // 2


CONVS = [
    # x, columns at most, kernel, padding, dilation
    ((2, 1, 28, 28), 6, (5, 5), (2, 2), 1),
    ((2, 17, 9, 7), 3, (3, 3), (1, 1), 1),
    ((1, 5, 13, 37), 8, (1, 3), (0, 1), 1),  # rows of several vectors, the last cut off
    ((3, 3, 7, 70), 1, (3, 2), (2, 0), 2),  # one column, several tiles in a row
    ((1, 16, 5, 16), 2, (2, 9), (0, 8), 1),  # more taps than are written out
]


@pytest.mark.parametrize("machine", HERE)
@pytest.mark.parametrize("x, columns, kernel, padding, dilation", CONVS)
def test_conv(x, columns, kernel, padding, dilation, machine) -> None:
    columns = min(columns, columns_for(machine))
    x, w = numbers(1, x), numbers(2, (columns, x[1], *kernel))
    made = make(lambda x, w: conv(x, w, 1, padding, dilation), [x, w], machine)
    assert made is not None
    near(made.run(), conv_wanted(x, w, 1, padding, dilation, 1), w[0].size)


@pytest.mark.parametrize("last, out_last", [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_storage_order(number, last, out_last) -> None:
    x, columns, kernel, padding, dilation = CONVS[number]
    x, w = numbers(1, x), numbers(2, (min(columns, columns_for(BEST)), x[1], *kernel))
    made = make(lambda x, w: conv(x, w, 1, padding, dilation), [x, w], last=last, out_last=out_last)
    assert made is not None
    near(made.run(), conv_wanted(x, w, 1, padding, dilation, 1), w[0].size)


@pytest.mark.parametrize("machine", HERE)
def test_input_gradient(machine) -> None:
    d, w = numbers(1, (3, 16, 10, 10)), numbers(2, (16, columns_for(machine), 5, 5))
    made = make(lambda d, w: conv_transpose(d, w, 1, 0), [d, w], machine)
    assert made is not None
    near(made.run(), transposed_wanted(d, w, 1, 0, 0, 1, 1), 16 * 25)


def test_signal_and_rows_at_a_stride() -> None:
    x, w = numbers(1, (2, 5, 100)), numbers(2, (2, 5, 7))
    made = make(lambda x, w: conv(x, w, 1, 3), [x, w])
    assert made is not None
    near(made.run(), conv_wanted(x, w, 1, 3, 1, 1), 35)
    x, w = numbers(1, (2, 5, 11, 20)), numbers(2, (2, 5, 3, 3))
    made = make(lambda x, w: conv(x, w, (2, 1), 1), [x, w])
    assert made is not None
    near(made.run(), conv_wanted(x, w, (2, 1), 1, 1, 1), 45)


def test_float64() -> None:
    columns = MACHINES[BEST].lanes(8) // 2
    x, w = numbers(1, (2, 17, 9, 10), "f64"), numbers(2, (columns, 17, 3, 3), "f64")
    made = make(lambda x, w: conv(x, w, 1, 1), [x, w], dtype="f64")
    assert made is not None
    near(made.run(), conv_wanted(x, w, 1, 1, 1, 1), 153, "f64")


def test_weight_that_is_a_view() -> None:
    x, w = numbers(1, (2, 6, 8, 18)), numbers(2, (3, 3, 6, 2))
    view = w.transpose(3, 2, 0, 1)[:, :, ::-1]
    made = make(lambda x, w: conv(x, w, 1, 1), [x, view])
    assert made is not None
    near(made.run(), conv_wanted(x, np.ascontiguousarray(view), 1, 1, 1, 1), 54)


@pytest.mark.parametrize("out_last", [True, False])
@pytest.mark.parametrize("machine", HERE)
def test_epilogue(machine, out_last) -> None:
    """Bias, scale, a residual of every storage order, activation."""
    columns = columns_for(machine)
    x, w = numbers(1, (2, 4, 6, 18)), numbers(2, (columns, 4, 3, 3))
    b, r = numbers(3, (columns, 1, 1)), numbers(4, (2, columns, 6, 18))
    build = lambda x, w, b, r: relu(add(multiply(add(conv(x, w, 1, 1), b), b), r))  # noqa: E731
    for residual in (r, arranged(r, channels_last(4))):
        made = make(build, [x, w, b, residual], machine, True, out_last)
        assert made is not None
        near(made.run(), np.maximum((conv_wanted(x, w, 1, 1, 1, 1) + b) * b + r, 0), 36)


def test_truth_values() -> None:
    x, w, b = numbers(1, (2, 4, 6, 18)), numbers(2, (3, 4, 3, 3)), numbers(3, (3, 1, 1))
    made = make(lambda x, w, b: greater(conv(x, w, 1, 1), b), [x, w, b])
    assert made is not None
    assert (made.run() == (conv_wanted(x, w, 1, 1, 1, 1) > b)).mean() > 0.99


def test_odd_numbers_stay_where_they_are() -> None:
    """Infinity and NaN reach the outputs whose windows they lie in, and no lane or row beyond."""
    x, w = numbers(1, (2, 3, 9, 20)), np.abs(numbers(2, (2, 3, 3, 3))) + 1
    x[0, 1, 4, 7], x[1, 2, 0, 19] = np.nan, np.inf
    made = make(lambda x, w: conv(x, w, 1, 1), [x, w])
    assert made is not None
    found = made.run()
    wanted = np.zeros(found.shape, bool)
    wanted[0, :, 3:6, 6:9], wanted[1, :, 0:2, 18:20] = True, True
    np.testing.assert_array_equal(~np.isfinite(found), wanted)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_geometry(data) -> None:
    """Shapes and parameters nobody would think of, both ways; batch 0 and 1x1 images among them."""
    draw = lambda *bounds: data.draw(st.integers(*bounds))  # noqa: E731
    channels, columns = draw(1, 20), draw(1, columns_for(BEST))
    size, kernel = (draw(1, 9), draw(1, 40)), (draw(1, 4), draw(1, 4))
    dilation, padding = ([draw(low, 3) for _ in range(2)] for low in (1, 0))
    transposed, step = data.draw(st.booleans()), draw(1, 3)
    stride = (1, 1) if transposed else (step, 1)
    x, seed = numbers(draw(0, 99), (draw(0, 3), channels, *size)), draw(0, 99)
    last, out_last = data.draw(st.booleans()), data.draw(st.booleans())
    if transposed:
        w = numbers(seed, (channels, columns, *kernel))
        build = lambda x, w: conv_transpose(x, w, stride, padding, dilation)  # noqa: E731
    else:
        w = numbers(seed, (columns, channels, *kernel))
        build = lambda x, w: conv(x, w, stride, padding, dilation)  # noqa: E731
    try:
        made = make(build, [x, w], last=last, out_last=out_last)
    except IrconvError:
        return  # no window fits
    if made is None or 0 in made.out.shape[1:]:
        return
    if transposed:
        wanted = transposed_wanted(x, w, stride, padding, 0, dilation, 1)
    else:
        wanted = conv_wanted(x, w, stride, padding, dilation, 1)
    near(made.run(), wanted.reshape(made.out.shape), channels * 16)


# --- tasks and batches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("few", [True, False])
def test_bits_do_not_depend_on_how_tasks_are_run(few, monkeypatch) -> None:
    """Whole images per task, or bands of rows of one image."""
    monkeypatch.setattr(planning, "MACS", 70_000 if few else 9_000)
    x, w = numbers(1, (5, 6, 14, 21)), numbers(2, (2, 6, 3, 3))
    made = make(lambda x, w: conv(x, w, 1, 1), [x, w])
    assert made is not None
    tasks = made.kernel.phases[-1].tasks
    assert tasks == 3 if few else tasks > 5
    first = made.run().copy()
    near(first, conv_wanted(x, w, 1, 1, 1, 1), 54)
    for step, backwards in ((1, True), (3, False), (tasks, False)):
        made.out[:] = np.nan
        np.testing.assert_array_equal(run_tasks(made.c, made.kernel, made.values, made.out, step, backwards), first)


def test_batches_and_threads_share_the_source() -> None:
    def source(batch: int, threads: int) -> str:
        x, w = numbers(1, (batch, 3, 28, 28)), numbers(2, (6, 3, 5, 5))
        made = make(lambda x, w: conv(x, w, 1, 2), [x, w], threads=threads)
        assert made is not None
        return made.kernel.source

    assert len({source(batch, threads) for batch, threads in ((2, 1), (3, 2), (64, 8))}) == 1


def test_planes_of_a_thread_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(planning, "OWN", 20_000)
    x, w = numbers(1, (1, 16, 30, 20)), numbers(2, (2, 16, 3, 3))
    made = make(lambda x, w: conv(x, w, 1, 1), [x, w])
    assert made is not None
    assert 4 * made.kernel.scratch[1].shape[1] <= 20_000
    near(made.run(), conv_wanted(x, w, 1, 1, 1, 1), 144)
    monkeypatch.setattr(planning, "OWN", 100)
    assert make(lambda x, w: conv(x, w, 1, 1), [x, w]) is None


# --- where it is used ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "x, w, stride, groups",
    [
        ((1, 8, 9, 20), (9, 8, 3, 3), 1, 1),  # more than half a vector of columns
        ((1, 8, 9, 20), (4, 8, 3, 3), 2, 1),  # neighbouring pixels do not read neighbours
        ((1, 8, 9, 20), (4, 4, 3, 3), 1, 2),
        ((1, 8, 9, 1), (4, 8, 3, 1), 1, 1),  # one pixel in a row
        ((1, 8, 5, 5, 20), (4, 8, 1, 1, 3), 1, 1),
    ],
)
def test_other_contractions_are_left_to_other_ways(x, w, stride, groups) -> None:
    values = [numbers(1, x), numbers(2, w)]
    c = case(lambda x, w: conv(x, w, stride, 0, 1, groups), x, w)
    out = garbage(c.graph[c.result].type)
    assert candidates(c, values, out, "avx512") == ([], [])


def test_what_is_preferred() -> None:
    """Many taps for each element laid out, and full rows, make it pay; a 1x1 head may be tried."""

    def offered(x: tuple[int, ...], w: tuple[int, ...]) -> tuple[int, int]:
        c = case(lambda x, w: conv(x, w, 1, w.type.shape[-1] // 2), x, w)
        values = [arranged(numbers(1, x), channels_last(4)), numbers(2, w)]
        found = candidates(c, values, garbage(c.graph[c.result].type, channels_last(4)), "avx512")
        return len(found[0]), len(found[1])

    assert offered((1, 1, 28, 28), (6, 1, 5, 5)) == (1, 0)
    assert offered((1, 32, 64, 64), (3, 32, 3, 3)) == (1, 0)
    assert offered((1, 64, 64, 64), (2, 64, 1, 1)) == (0, 1)
    assert offered((1, 64, 4, 4), (8, 64, 3, 3)) == (0, 0)
