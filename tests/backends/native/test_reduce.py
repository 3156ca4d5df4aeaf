"""Native reductions against NumPy in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.backends.codegen.machine import MACHINES
from irconv.backends.native.kernels.reduction_space import Space, SpaceAxis, widened
from irconv.op import OPS, emit
from irconv.ops.elementwise import add, cast, exp, greater, multiply, square, where
from irconv.ops.reduce import argmax, argmin, reduce_max, reduce_mean, reduce_min, reduce_prod, reduce_sum
from tests.backends.executing import check, expected
from tests.backends.native.reducing import CHANNELS_LAST, ROW_MAJOR, Case, channels_last
from tests.samples.table import all_samples

FOLDS = {
    "sum": (reduce_sum, np.sum),
    "mean": (reduce_mean, np.mean),
    "max": (reduce_max, np.max),
    "min": (reduce_min, np.min),
    "prod": (reduce_prod, np.prod),
}
SHAPE = (3, 17, 5, 7)
AXES = [(0, 2, 3), (2, 3), (1,), (0, 1, 2, 3), (0,), (3,), (1, 2), (0, 2)]


def numbers(shape, seed=0, dtype="f4", low=-1.0):
    return np.random.default_rng(seed).uniform(low, 1.0, shape).astype(dtype)


def close(actual, wanted, terms=1.0, eps=6e-8):
    """Within a few roundings of ``terms``, the sum of the absolute values that went in."""
    np.testing.assert_allclose(actual.astype("f8"), wanted, rtol=8 * eps, atol=8 * eps * float(np.max(terms, initial=0)))


# --- one reduction ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", ["avx512", "avx2", "sse2", "generic"])
@pytest.mark.parametrize("axes", AXES)
def test_sum_and_max_on_every_machine(machine, axes) -> None:
    x = numbers(SHAPE)
    for array in (x, channels_last(x)):
        for name in ("sum", "max"):
            fold, oracle = FOLDS[name]
            for keepdims in (False, True):
                (y,) = Case(lambda v, f=fold, k=keepdims: [f(v, axes, k)], [array], machine=machine).run()
                close(y, oracle(x.astype("f8"), axis=axes, keepdims=keepdims), np.abs(x).sum(axes))


@pytest.mark.parametrize("name", FOLDS)
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i4", "i1", "u1", "i8", "?"])
def test_element_types(name, dtype) -> None:
    if name == "mean" and np.dtype(dtype).kind != "f":
        return
    x = numbers((4, 6, 5), 1, "f8", 0.5)
    x = x.astype(dtype) if np.dtype(dtype).kind == "f" else (x * 251 - 70).astype("i8").astype(dtype)
    fold, oracle = FOLDS[name]
    for axes in ((0,), (2,), (0, 2)):
        case = Case(lambda v, a=axes: [fold(v, a)], [x], machine="avx2")
        (y,) = case.run()
        if np.dtype(dtype).kind == "f":
            eps = {"f2": 1e-3, "f4": 6e-8, "f8": 1.2e-16}[dtype]
            close(y, oracle(x.astype("f8"), axis=axes), np.abs(x.astype("f8")).sum(axes), eps)
        else:
            own = {} if name in ("max", "min") else {"dtype": np.int64 if dtype == "?" else x.dtype}
            np.testing.assert_array_equal(y, oracle(x, axis=axes, **own))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_shape_axes_and_strides(data) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, len(shape) - 1)))))
    order = data.draw(st.permutations(range(len(shape))))
    stored = numbers([shape[a] * 2 for a in order], data.draw(st.integers(0, 99)))
    view = stored.transpose(np.argsort(order))
    steps = [data.draw(st.sampled_from([1, 2, -1])) for _ in shape]
    view = view[tuple(slice(None, None, s) for s in steps)][tuple(slice(0, n) for n in shape)]
    if data.draw(st.booleans()):
        view = np.broadcast_to(view[:1], shape)
    machine = data.draw(st.sampled_from(["avx512", "generic"]))
    case = Case(lambda v: [reduce_sum(v, axes), reduce_max(v, axes)], [view], "reductions", machine=machine)
    total, largest = case.run()
    close(total, view.astype("f8").sum(axes), np.abs(view).sum(axes))
    np.testing.assert_array_equal(largest, view.max(axes))


def test_nothing_to_fold_and_no_results() -> None:
    empty = np.zeros((0, 5, 3), "f4")
    for axes, wanted in (((0,), (5, 3)), ((1,), (0, 3)), ((0, 1, 2), ())):
        total, product = Case(lambda v, a=axes: [reduce_sum(v, a), reduce_prod(v, a)], [empty], "reductions").run()
        np.testing.assert_array_equal(total, np.zeros(wanted, "f4"))
        np.testing.assert_array_equal(product, np.ones(wanted, "f4"))


@pytest.mark.parametrize("axis", [0, 1])
def test_nan_wins_and_infinities_count(axis) -> None:
    x = numbers((37, 41), 2)
    for i in range(37):
        x[i, i] = [np.nan, np.inf, -np.inf, 0.0, -0.0][i % 5]
    x[5:10] = -np.inf
    for name in ("max", "min", "sum", "mean"):
        fold, oracle = FOLDS[name]
        for machine in ("avx512", "sse2"):
            (y,) = Case(lambda v, f=fold: [f(v, axis)], [x], machine=machine).run()
            with np.errstate(invalid="ignore"):
                wanted = oracle(x.astype("f8"), axis=axis)
            np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)


# --- large ones: chunks and tasks ------------------------------------------------------------------------------------------


LARGE = [
    ((6, 40, 30, 31), (0, 2, 3), CHANNELS_LAST),
    ((6, 40, 30, 31), (0, 2, 3), ROW_MAJOR),
    ((6, 40, 30, 31), (2, 3), CHANNELS_LAST),
    ((6, 40, 30, 31), (0, 1, 2, 3), ROW_MAJOR),
    ((3, 1100, 70), (0, 2), CHANNELS_LAST),
    ((20011, 13), (1,), ROW_MAJOR),
]


@pytest.mark.parametrize(("shape", "axes", "order"), LARGE)
def test_tasks_in_any_order_and_number_give_the_same_bits(shape, axes, order) -> None:
    x = numbers(shape, 3)
    array = channels_last(x) if order == CHANNELS_LAST else x
    case = Case(lambda v: [reduce_sum(v, axes), reduce_mean(square(v), axes)], [array], "reductions", order)
    assert case.made.phases[0].tasks > 1
    runs = [case.run(how) for how in ("threads", "backwards", "threads")]
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    close(runs[0][0], x.astype("f8").sum(axes), np.abs(x).sum(axes))
    close(runs[0][1], np.square(x.astype("f8")).mean(axes), np.square(x).mean(axes))


FEW = [(64, 6, 28, 28), (3, 6, 7, 11), (1, 5, 1, 13), (7, 1, 3, 3), (2, 130, 4, 4), (2, 300, 3, 3)]


@pytest.mark.parametrize("shape", FEW)
@pytest.mark.parametrize("machine", ["avx512", "sse2"])
def test_few_columns(shape, machine) -> None:
    """Rows seen as one wide row: results of each column are merged in the end, in the same order whatever the tasks."""
    x, factor = numbers(shape, 4), numbers((*shape[1:2], 1, 1), 5)
    axes = (0, 2, 3)
    x[0, -1, 0, 0] = np.nan

    def build(x, factor):
        repeated = multiply(x, factor)  # a factor for each column: rows cannot be seen as one
        return [reduce_sum(x, axes), reduce_mean(x, axes), reduce_max(x, axes), reduce_min(x, axes)], [
            reduce_sum(repeated, axes), reduce_max(repeated, axes)
        ]  # fmt: skip

    array = channels_last(x)
    case = Case(lambda x: build(x, x)[0], [array], "reductions", machine=machine)
    runs = [case.run(how) for how in ("threads", "backwards", "one")]
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    wide, terms = x.astype("f8"), np.nan_to_num(np.abs(x)).sum(axes)
    close(runs[0][0], wide.sum(axes), terms)
    close(runs[0][1], wide.mean(axes), terms / (x.size / shape[1]))
    np.testing.assert_array_equal(runs[0][2], x.max(axes))
    np.testing.assert_array_equal(runs[0][3], x.min(axes))
    total, largest = Case(lambda x, f: build(x, f)[1], [array, factor], "reductions", machine=machine).run()
    close(total, (wide * factor).sum(axes), terms)
    np.testing.assert_array_equal(largest, (x * factor).max(axes))


def test_which_spaces_are_widened() -> None:
    rows, columns = SpaceAxis(48, True, (6, 0, 0)), SpaceAxis(6, False, (1, 0, 1))
    space = Space((), (), rows, columns)
    wide, copies = widened(space, [0, 1])  # the third is a result
    assert (wide.rows.extent, wide.columns, copies) == (1, SpaceAxis(288, False, (1, 0, 1)), 48)
    assert wide.rows.strides == (288, 0, 0)
    assert widened(space, [0, 1, 2]) == (space, 1)  # repeated from row to row
    spread = replace(space, rows=SpaceAxis(48, True, (12, 0, 0)))
    assert widened(spread, [0, 1]) == (spread, 1)
    prime = replace(space, rows=SpaceAxis(7919, True, (6, 0, 0)))
    assert widened(prime, [0])[1] == 1
    outer = replace(space, outer=(SpaceAxis(3, False, (288, 0, 6)),))
    assert widened(outer, [0]) == (outer, 1)


def test_error_does_not_grow_with_the_number_of_elements() -> None:
    for count in (2**12, 2**22):
        x = np.full((count,), 0.1, "f4")
        (y,) = Case(lambda v: [reduce_sum(v)], [x]).run()
        assert abs(float(y) / (count * float(x[0])) - 1) < 1e-5


def test_source_does_not_depend_on_sizes() -> None:
    def sources(axes, shapes):
        return {Case(lambda v: [reduce_sum(v, axes)], [channels_last(numbers(s))]).made.source for s in shapes}

    for axes in ((0, 2, 3), (2, 3), (1,)):
        assert len(sources(axes, [(n, c, 5, 6) for n in (1, 2, 64) for c in (17, 64)])) == 1


# --- elementwise work ahead ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [ROW_MAJOR, CHANNELS_LAST])
@pytest.mark.parametrize("axes", [(0, 2, 3), (2, 3), (1,), (3,)])
def test_elementwise_reduce_with_broadcasting(axes, order) -> None:
    x, y = numbers(SHAPE, 4), numbers((17, 1, 1), 5)
    arrays = [channels_last(x) if order == CHANNELS_LAST else x, y]
    for machine in ("avx512", "avx2", "generic"):
        case = Case(
            lambda a, b: [reduce_sum(multiply(add(a, b), 0.5), axes)], arrays, "elementwise_reduce", order, machine
        )
        (total,) = case.run()
        parts = (x.astype("f8") + y) * 0.5
        close(total, parts.sum(axes), np.abs(parts).sum(axes))


def test_counting_truths_and_integers() -> None:
    x = numbers((33, 20), 6)
    (count,) = Case(lambda v: [reduce_sum(cast(greater(v, 0.25), "f32"), 0)], [x], "elementwise_reduce").run()
    np.testing.assert_array_equal(count, (x > 0.25).sum(0))
    ids = np.arange(660).reshape(33, 20)
    (count,) = Case(lambda v: [reduce_sum(cast(greater(v, 99), "i64"), 1)], [ids], "elementwise_reduce").run()
    np.testing.assert_array_equal(count, (ids > 99).sum(1))


@pytest.mark.parametrize("order", [ROW_MAJOR, CHANNELS_LAST])
@pytest.mark.parametrize("shape", [(2, 17, 5, 7), (5, 64, 20, 20), (1, 3, 1, 1)])
def test_siblings_with_a_stored_value(shape, order) -> None:
    """Batch norm's backward behind a ReLU: the masked gradient is stored, and summed with and without a factor."""
    y, d, x = (numbers(shape, seed) for seed in (7, 8, 9))

    def build(y, d, x):
        masked = where(greater(y, 0.0), d, 0.0)
        return [masked, reduce_sum(masked, (0, 2, 3)), reduce_sum(multiply(masked, x), (0, 2, 3)), reduce_max(x, (0, 2, 3))]

    arrays = [channels_last(a) if order == CHANNELS_LAST else a for a in (y, d, x)]
    wanted = np.where(y > 0, d, 0).astype("f8")
    for machine in MACHINES:
        if machine == "neon":
            continue
        case = Case(build, arrays, "reductions", order, machine)
        for in_place in (False, True):
            masked, total, product, largest = case.run(in_place=in_place)
            np.testing.assert_array_equal(masked, wanted)
            close(total, wanted.sum((0, 2, 3)), np.abs(wanted).sum((0, 2, 3)))
            close(product, (wanted * x).sum((0, 2, 3)), np.abs(wanted * x).sum((0, 2, 3)))
            np.testing.assert_array_equal(largest, x.max((0, 2, 3)))
    assert case.made.in_place


def test_lanes_past_the_end_do_not_count() -> None:
    """exp(0) is 1: what is loaded as nothing must not be added."""
    for count in (1, 5, 16, 17, 63, 64, 65, 130):
        x = numbers((3, count), count)
        for machine in ("avx512", "sse2"):
            total, largest = Case(
                lambda v: [reduce_sum(exp(v), 1), reduce_max(v, 1)], [x - 5], "reductions", machine=machine
            ).run()
            np.testing.assert_allclose(total, np.exp((x - 5).astype("f8")).sum(1), rtol=2e-6)
            np.testing.assert_array_equal(largest, (x - 5).max(1))


def test_neon_source_is_written() -> None:
    x = channels_last(numbers(SHAPE))
    source = Case(lambda v: [reduce_sum(v, (0, 2, 3))], [x], machine="neon").made.source
    assert "f32x4" in source and "__builtin_ia32" not in source.replace("#if", "").split("#else")[-1]


# --- positions -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i4", "?"])
@pytest.mark.parametrize("axes", [(1,), (0,), (2, 3), (1, 3), (0, 1, 2, 3)])
def test_positions(dtype, axes) -> None:
    x = np.round(numbers((3, 5, 4, 6), 10) * 4).astype(dtype)
    if np.dtype(dtype).kind == "f":
        x[1, 2, 3, 4] = x[1, 3, 0, 0] = np.nan
    kept = [a for a in range(4) if a not in axes]
    rows = x.transpose(*kept, *axes).reshape(*(x.shape[a] for a in kept), -1)
    for array in (x, channels_last(x)):
        for op, oracle in ((argmax, np.argmax), (argmin, np.argmin)):
            case = Case(lambda v, f=op: [f(v, axes)], [array], machine="avx2")
            (found,) = case.run()
            np.testing.assert_array_equal(found, oracle(rows, axis=-1))
            assert found.dtype == np.int64 and math.prod(found.shape) == math.prod(x.shape[a] for a in kept)


# --- every sample ----------------------------------------------------------------------------------------------------------

SAMPLES = [s for s in all_samples() if s.op in (*FOLDS, "argmax", "argmin")]


@pytest.mark.parametrize("dtype", [None, "f4"])
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.id)
def test_samples(sample, dtype) -> None:
    """What the op's reference gives, for the sample's own element types and for smaller floats."""
    operands = [x.astype(dtype) if dtype and x.dtype.kind == "f" else x for x in map(np.asarray, sample.operands)]
    op = OPS[sample.op]
    (found,) = Case(lambda *values: [emit(op, sample.attributes, *values)], operands, machine="avx2").run()
    check(found, expected(sample.op, sample.attributes, operands), 4.0)
