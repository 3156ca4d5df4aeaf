"""Kernels that move elements, against NumPy: every op and type, all layouts, tails of tiles, machines, orders of tasks."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irconv.backends.codegen.machine import MACHINES
from irconv.backends.native.library import library
from irconv.op import OPS
from irconv.ops.concat import concat
from irconv.ops.layout import RelayoutAttributes
from irconv.ops.pad import pad
from irconv.types import Layout
from tests.backends.native.elements import RUNNABLE, WIDEST, Case, one_op, reference
from tests.samples import Sample
from tests.samples.table import all_samples

MOVED = (
    "copy", "stop_gradient", "relayout", "concat", "embed", "slice_update", "pad", "reshape", "transpose", "slice", "flip", "broadcast",
)  # fmt: skip
COMPUTED = "pad:mean"
"""Samples whose padding is computed: they are in test_padding.py."""

QUICK = replace(MACHINES[WIDEST], flags=(*MACHINES[WIDEST].flags, "-O0"))
SAMPLES = [s for s in all_samples() if s.op in MOVED and not s.id.startswith(COMPUTED)]


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    made = {s.id: one_op(s.op, s.attributes, s.operands, QUICK) for s in SAMPLES}
    library().prepare(case.unit for case in made.values() if case.made is not None)
    return made


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.id)
def test_samples(sample: Sample, cases: dict[str, Case]) -> None:
    case = cases[sample.id]
    assert case.made is not None
    wanted = reference(sample.op, sample.attributes, sample.operands)
    for backwards in (False, True):
        (actual,) = case.run(backwards)
        assert actual.dtype == wanted.dtype
        np.testing.assert_array_equal(actual, wanted)


def stored(x: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """The same elements, with the axes stored in this order."""
    return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))


def numbered(*shape: int, dtype=np.float32) -> np.ndarray:
    """Elements that tell each other apart, as far as the type goes."""
    return (np.arange(int(np.prod(shape))) % 251).reshape(shape).astype(dtype)


def relayout(order: tuple[int, ...]):
    attributes = RelayoutAttributes(Layout(tuple((axis, 0) for axis in order)))
    return lambda x: [x.builder.emit(OPS["relayout"], attributes, (x,))]


FIRST, LAST = (0, 1, 2, 3), (0, 2, 3, 1)


@pytest.mark.parametrize("machine", RUNNABLE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32, np.int8])
def test_channels_last_and_back(dtype, machine: str) -> None:
    """Whole tiles and parts of them; a batch changes sizes alone."""
    for source, target in ((FIRST, LAST), (LAST, FIRST)):
        sources = set()
        for shape in ((1, 3, 9, 11), (2, 17, 7, 7), (5, 64, 8, 8), (1, 33, 40, 41), (1, 2, 1, 2), (0, 16, 4, 4)):
            x = numbered(*shape, dtype=dtype)
            case = Case(relayout(target), [stored(x, source)], machine, target)
            for backwards in (False, True):
                (actual,) = case.run(backwards)
                np.testing.assert_array_equal(actual, x)
            if shape[1] in (17, 64):
                sources.add(case.made.source)
        assert len(sources) == 1


def test_one_channel_and_one_pixel_are_runs() -> None:
    for shape in ((3, 1, 6, 7), (3, 20, 1, 1)):
        x = numbered(*shape)
        (actual,) = Case(relayout(LAST), [stored(x, FIRST)], WIDEST, LAST).run()
        np.testing.assert_array_equal(actual, x)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_order_to_any_order(data) -> None:
    """Copies of transposed, cut, turned and stretched views."""
    rank = data.draw(st.integers(1, 4))
    shape = tuple(data.draw(st.lists(st.sampled_from([1, 2, 5, 16, 19]), min_size=rank, max_size=rank)))
    source = tuple(data.draw(st.permutations(range(rank))))
    target = tuple(data.draw(st.permutations(range(rank))))
    steps = data.draw(st.lists(st.sampled_from([1, 1, 2, -1, 0]), min_size=rank, max_size=rank))
    whole = stored(numbered(*(2 * n for n in shape)), source)
    index = tuple(
        slice(None, n) if s == 1 else slice(None, None, 2) if s == 2 else slice(n - 1, None, -1) if s == -1 else slice(0, 1)
        for n, s in zip(shape, steps, strict=True)
    )
    x = np.broadcast_to(whole[index], shape)
    case = Case(relayout(target), [x], QUICK, target)
    for backwards in (False, True):
        (actual,) = case.run(backwards)
        np.testing.assert_array_equal(actual, x)


@pytest.mark.parametrize("order", [FIRST, LAST], ids=["channels first", "channels last"])
def test_concat_in_layouts(order: tuple[int, ...]) -> None:
    """Along every axis, one operand stored otherwise, one that comes twice."""
    a, b = numbered(2, 17, 5, 6), numbered(2, 17, 5, 6) + 1000
    for axis in range(4):
        values = [stored(a, order), stored(b, FIRST)]
        case = Case(lambda x, y, at=axis: [concat([x, y, x], at)], values, WIDEST, order)
        for backwards in (False, True):
            (actual,) = case.run(backwards)
            np.testing.assert_array_equal(actual, np.concatenate([a, b, a], axis))


PADDING = ((0, 0), (2, 1), (3, 0), (1, 4))


@pytest.mark.parametrize("order", [FIRST, LAST], ids=["channels first", "channels last"])
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
def test_padding_in_layouts(mode: str, order: tuple[int, ...]) -> None:
    x = numbered(2, 18, 6, 9)
    options = {"constant_values": -3.5} if mode == "constant" else {}
    case = Case(lambda v: [pad(v, PADDING, mode, -3.5)], [stored(x, order)], QUICK, order)
    if case.made is None:  # more parts than are worth one function
        assert mode in ("reflect", "wrap")
        return
    for backwards in (False, True):
        (actual,) = case.run(backwards)
        np.testing.assert_array_equal(actual, np.pad(x, PADDING, mode, **options))


def test_cropping_and_padding_at_once() -> None:
    x = numbered(2, 3, 8, 9)
    for padding in (((0, 0), (0, 0), (-2, 3), (1, -4)), ((0, 0), (0, 0), (-9, 9), (0, 0)), ((1, 0), (0, -3), (0, 0), (0, 0))):
        (actual,) = Case(lambda v, p=padding: [pad(v, p, "constant", 7.0)], [x], QUICK).run()
        cut = x[tuple(slice(max(0, -a), max(max(0, -a), n - max(0, -b))) for n, (a, b) in zip(x.shape, padding, strict=True))]
        wanted = np.full([n + a + b for n, (a, b) in zip(x.shape, padding, strict=True)], 7, np.float32)
        inside = tuple(slice(max(0, a), max(0, a) + n) for n, (a, _) in zip(cut.shape, padding, strict=True))
        if cut.size:
            wanted[inside] = cut
        np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int64, np.bool_])
def test_constants_of_every_type(dtype) -> None:
    x = np.ones((2, 5), dtype)
    value = True if dtype is np.bool_ else 3
    (actual,) = Case(lambda v: [pad(v, ((1, 1), (0, 70)), "constant", value)], [x], QUICK).run()
    np.testing.assert_array_equal(actual, np.pad(x, ((1, 1), (0, 70)), constant_values=value))


def test_large_copies_are_cut_into_tasks() -> None:
    for source, target in itertools.product((FIRST, LAST), repeat=2):
        x = numbered(3, 130, 33, 31)
        case = Case(relayout(target), [stored(x, source)], WIDEST, target)
        assert case.made.phases[0].tasks > 4
        for backwards in (False, True):
            (actual,) = case.run(backwards)
            np.testing.assert_array_equal(actual, x)
