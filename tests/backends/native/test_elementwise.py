"""Elementwise kernels against the ops' references: every op and type, all kinds of strides, machines, orders of tasks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irconv.backends.codegen.expressions import RULES
from irconv.backends.codegen.machine import MACHINES
from irconv.backends.native.kernels.element_space import TASK_BYTES
from irconv.backends.native.library import library
from irconv.ops import elementwise as e
from irconv.types import BOOL, F32
from tests.backends.executing import check
from tests.backends.native.elements import RUNNABLE, WIDEST, Case, one_op, reference
from tests.samples import Sample
from tests.samples.table import all_samples

QUICK = replace(MACHINES[WIDEST], flags=(*MACHINES[WIDEST].flags, "-O0"))
"""A machine for which the compiler does not optimise: hundreds of small units."""

NO_CODE = {"power:integers"}
"""Samples that the array kernel runs: signed integers to a power that is not known may be an error."""

SAMPLES = [s for s in all_samples() if s.op in RULES]


def single(sample: Sample) -> tuple[np.ndarray, ...]:
    """The operands with float32 for float64."""
    return tuple(np.asarray(a, np.float32) if np.asarray(a).dtype == np.float64 else np.asarray(a) for a in sample.operands)


@pytest.fixture(scope="module")
def cases() -> dict[tuple[str, bool], Case]:
    """All samples' kernels, compiled side by side."""
    made = {}
    for sample in SAMPLES:
        made[sample.id, False] = one_op(sample.op, sample.attributes, sample.operands, QUICK)
        if any(np.asarray(a).dtype == np.float64 for a in sample.operands):
            made[sample.id, True] = one_op(sample.op, sample.attributes, single(sample), QUICK)
    library().prepare(case.unit for case in made.values() if case.made is not None)
    return made


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.id)
def test_samples(sample: Sample, cases: dict[tuple[str, bool], Case]) -> None:
    for narrowed in (False, True):
        case = cases.get((sample.id, narrowed))
        if case is None:
            continue
        assert (case.made is None) == (sample.id in NO_CODE)
        if case.made is None:
            continue
        operands = single(sample) if narrowed else sample.operands
        wanted = reference(sample.op, sample.attributes, operands)
        (actual,) = case.run()
        check(actual, wanted)
        (again,) = case.run(backwards=True)
        assert actual.tobytes() == again.tobytes()
        if wanted.dtype.kind == "f" and sample.op not in ("relu", "clip", "minimum", "maximum"):  # zeros there are equals
            number = ~np.isnan(wanted)
            np.testing.assert_array_equal(np.signbit(actual)[number], np.signbit(wanted)[number])


def many(x, y, c):
    """One kernel of many ops, with values that do not leave it, numbers and a truth value."""
    z = e.relu(e.add(e.multiply(x, y), 0.5))
    chosen = e.where(e.logical_and(e.greater(z, 1.0), c), e.tanh(z), e.minimum(x, e.negative(y)))
    kept = e.logical_not(e.less_equal(chosen, 0.25))
    quotient = e.divide(e.exp(e.clip(x, -2.0, 2.0)), e.sqrt(e.add(e.square(y), 1.0)))
    return [chosen, kept, e.cast(e.logical_or(kept, c), F32), quotient]


def many_reference(x, y, c):
    x, y = x.astype(np.float64), y.astype(np.float64)
    z = np.maximum(x * y + 0.5, 0)
    chosen = np.where((z > 1) & c, np.tanh(z), np.minimum(x, -y))
    kept = ~(chosen <= 0.25)
    return [chosen, kept, (kept | c).astype(np.float32), np.exp(np.clip(x, -2, 2)) / np.sqrt(y * y + 1)]


def close(actual: np.ndarray, wanted: np.ndarray) -> None:
    assert actual.shape == wanted.shape
    if actual.dtype == bool:
        np.testing.assert_array_equal(actual, wanted)
    else:
        np.testing.assert_allclose(actual, wanted, 1e-5 if actual.dtype == np.float32 else 1e-13, 1e-6)


def grid(*shape: int, dtype=np.float32, seed: int = 0) -> np.ndarray:
    """Numbers in eighths: sums and products are exact, so that comparisons are not in doubt."""
    return (np.random.default_rng(seed).integers(-24, 24, shape) / 8).astype(dtype)


@pytest.mark.parametrize("machine", RUNNABLE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_machine(machine: str, dtype) -> None:
    """Whole vectors and tails, one source for all lengths."""
    sources = set()
    for n in (0, 1, 7, 17, 64, 131, TASK_BYTES // 2 + 5):
        x, y, c = grid(n, dtype=dtype), grid(n, dtype=dtype, seed=1), grid(n, seed=2) > 0

        def build(x, y, c):
            return many(x, y, c) if dtype == np.float32 else [e.tanh(e.add(x, y)), e.where(c, x, y)]

        case = Case(build, [x, y, c], machine)
        wanted = many_reference(x, y, c) if dtype == np.float32 else [np.tanh(x + y), np.where(c, x, y)]
        results = case.run()
        for actual, right in zip(results, wanted, strict=True):
            close(actual, right)
        for actual, again in zip(results, case.run(backwards=True), strict=True):
            assert actual.tobytes() == again.tobytes()
        sources.add(case.made.source)
    assert len(sources) == 1


@st.composite
def operands(draw):
    """A shape, an order of storage for the result, and operands that broadcast, lie in any order, backwards or apart."""
    rank = draw(st.integers(0, 4))
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 5, 17, 33]), min_size=rank, max_size=rank)))
    order = tuple(draw(st.permutations(range(rank))))
    arrays = []
    for number in range(3):
        kept = draw(st.integers(0, rank))
        own = [1 if draw(st.integers(0, 3)) == 0 else n for n in shape[rank - kept :]]
        array = grid(*[2 * n for n in own], seed=number)
        if draw(st.booleans()):
            array = array.transpose(np.argsort(draw(st.permutations(range(kept))))) if kept else array
            array = grid(*[2 * n for n in own], seed=number).T.copy().T if kept else array
        step = draw(st.sampled_from([1, 2, -1]))
        index = tuple(slice(None, n) if step == 1 else slice(None, None, 2) if step == 2 else slice(n - 1, None, -1) for n in own)
        arrays.append(array[index])
    full = grid(*shape, seed=9)
    return full, arrays, order


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(operands(), st.booleans())
def test_broadcast_operands_of_any_strides(drawn, scalar: bool) -> None:
    full, (x, y, c), order = drawn
    machine = replace(MACHINES["generic"], vector_bytes=4) if scalar else QUICK
    c = c > 0

    def build(full, x, y, c):
        value = e.add(e.multiply(full, x), y)
        return [value, e.where(c, value, full)]

    case = Case(build, [full, x, y, c], replace(machine, flags=(*machine.flags, "-O0")), order)
    value = full * x + y
    for actual, again, wanted in zip(case.run(), case.run(backwards=True), [value, np.where(c, value, full)], strict=True):
        np.testing.assert_array_equal(actual, wanted)
        assert actual.tobytes() == again.tobytes()


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("channels", [1, 3, 17, 64])
def test_bias_along_channels(channels: int) -> None:
    """Channels last and first; a batch changes sizes alone."""
    for order, store in (((0, 2, 3, 1), channels_last), (None, np.ascontiguousarray)):
        sources = set()
        for batch in (1, 2, 9):
            x, bias = grid(batch, channels, 7, 5), grid(1, channels, 1, 1, seed=3)
            case = Case(lambda x, b: [e.relu(e.add(x, b))], [store(x), bias], WIDEST, order)
            (actual,) = case.run()
            np.testing.assert_array_equal(actual, np.maximum(x + bias, 0))
            sources.add(case.made.source)
        assert len(sources) == 1


def test_many_tasks_of_rows() -> None:
    """Long rows are cut, short ones put together."""
    for shape in ((3, 70_001), (40_003, 5), (2, 300, 3, 90)):
        x, row = grid(*shape), grid(shape[-1], seed=1)
        case = Case(lambda x, r: [e.subtract(x, r)], [x, row])
        assert sum(phase.tasks for phase in case.made.phases) > 1
        for backwards in (False, True):
            (actual,) = case.run(backwards)
            np.testing.assert_array_equal(actual, x - row)


def momentum(p, g, v, rate):
    moved = e.add(e.multiply(v, 0.9), g)
    return [e.subtract(p, e.multiply(moved, rate)), moved]


def test_parameters_of_all_shapes_share_a_unit_and_are_updated_in_place() -> None:
    sources = set()
    for shape in ((), (1,), (64,), (17, 3, 3, 3), (200, 300)):
        p, g, v = (grid(*shape, seed=s) for s in range(3))
        case = Case(momentum, [p, g, v, np.float32(0.125)])
        wanted = p - (np.float32(0.9) * v + g) * np.float32(0.125), np.float32(0.9) * v + g
        old = list(case.inputs)  # of p, g, v and the rate
        kernel = case.kernel
        pairs = [
            (kernel.outputs.index(new), kernel.inputs.index(state))
            for new, state in zip(case.results, (old[0], old[2]), strict=True)
        ]
        assert set(pairs) <= set(case.made.in_place)
        for given_pairs in ((), pairs):
            for actual, right in zip(case.run(in_place=given_pairs), wanted, strict=True):
                np.testing.assert_allclose(actual, right, 1e-6, 1e-6)
        if shape:
            sources.add(case.made.source)
    assert len(sources) == 1


def test_an_operand_that_comes_twice() -> None:
    x = grid(37)
    (actual,) = Case(lambda x: [e.multiply(x, x)], [x]).run()
    np.testing.assert_array_equal(actual, x * x)


def test_truth_values_alone() -> None:
    a, b = grid(5, 67) > 0, grid(67, seed=4) > 0
    for machine in RUNNABLE:
        case = Case(lambda a, b: [e.logical_xor(a, e.logical_not(b)), e.equal(a, b), e.less(a, b)], [a, b], machine)
        for actual, wanted in zip(case.run(), (a ^ ~b, a == b, a < b), strict=True):
            assert actual.dtype == BOOL.numpy
            np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_integers_wrap(dtype) -> None:
    """At the ends of the type, where C leaves signed overflow undefined; shifts and divisions by any number."""
    info = np.iinfo(dtype)
    edge = np.array([info.min, info.min + 1, info.max, info.max - 1, 0, 1, 2, 77], dtype)
    x, y = (a.ravel() for a in np.meshgrid(edge, edge))

    def build(x, y):
        return [
            *(f(x, y) for f in (e.add, e.subtract, e.multiply, e.minimum, e.floor_divide, e.remainder)),
            *(f(x) for f in (e.negative, e.absolute, e.square, e.sign, e.bitwise_not)),
            e.power(x, 3), e.floor_divide(x, 8), e.remainder(x, 8), e.shift_left(x, 3), e.shift_right(x, 3), e.less(x, y),
        ]  # fmt: skip

    with np.errstate(all="ignore"):
        eight, three = dtype(8), dtype(3)
        wanted = [
            x + y, x - y, x * y, np.minimum(x, y), x // y, x % y,
            -x, np.abs(x), x * x, np.sign(x), ~x,
            x * x * x, x // eight, x % eight, x << three, x >> three, x < y,
        ]  # fmt: skip
    for actual, right in zip(Case(build, [x, y], QUICK).run(), wanted, strict=True):
        np.testing.assert_array_equal(actual, right)


def test_casts_to_integers_are_defined() -> None:
    """Out of range and NaN: what x86 gives, on every machine; inside, towards zero."""
    x = np.array([0.9, -0.9, 1.5, -2.5, 100.0, 2.0**31 - 128, -(2.0**31), 3e9, 1e20, -1e20, np.inf, -np.inf, np.nan], np.float32)
    inside = np.abs(x) < 2.0**31
    for machine in RUNNABLE:
        (actual,) = Case(lambda x: [e.cast(x, "int32")], [x], machine).run()
        np.testing.assert_array_equal(actual[inside], np.trunc(x[inside]).astype(np.int32))
        np.testing.assert_array_equal(actual[~inside], np.int32(-(2**31)))
    (wide,) = Case(lambda x: [e.cast(x, "uint64")], [np.array([0.5, 3.7, 2.0**63, 2.0**64 - 2048])], QUICK).run()
    np.testing.assert_array_equal(wide, np.array([0, 3, 2**63, 2**64 - 2048], np.uint64))


def test_numbers_that_a_batch_changes_stay_out_of_the_source() -> None:
    """1 / n is read at run time; 0, 1 and exponents are part of the formula."""

    def build(n: int, exponent: float):
        return lambda x: [e.where(e.greater(x, 0), e.power(e.multiply(x, 1 / n), exponent), 0)]

    x = grid(40)
    sources = {}
    for n, exponent in ((3, 2.0), (7, 2.0), (7, 3.0)):
        case = Case(build(n, exponent), [x])
        np.testing.assert_allclose(case.run()[0], np.where(x > 0, (x * np.float32(1 / n)) ** exponent, 0), 1e-6)
        sources[n, exponent] = case.made.source
    assert sources[3, 2.0] == sources[7, 2.0] != sources[7, 3.0]


@pytest.mark.parametrize("machine", RUNNABLE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_operands_that_lie_across(machine: str, dtype) -> None:
    """A gradient that comes transposed, two of them, a bias beside: whole tiles, parts, several strips; one source."""
    sources = set()
    for n, m in ((1, 40), (16, 64), (17, 65), (37, 3), (530, 300)):
        x, row = grid(n, m, dtype=dtype), grid(m, dtype=dtype, seed=3)
        across, other = (grid(m, n, dtype=dtype, seed=s).T for s in (1, 2))
        case = Case(lambda x, a, b, r: [e.subtract(e.multiply(x, a), e.add(b, r))], [x, across, other, row], machine)
        for backwards in (False, True):
            np.testing.assert_array_equal(case.run(backwards)[0], x * across - (other + row))
        if n > 1:
            sources.add(case.made.source)
    assert len(sources) == 1


@pytest.mark.parametrize("order", [None, (0, 2, 3, 1)], ids=["channels first", "channels last"])
def test_operands_of_both_layouts(order) -> None:
    for shape in ((2, 17, 5, 7), (1, 64, 12, 11), (3, 3, 4, 4)):
        x, y = grid(*shape), grid(*shape, seed=1)
        (actual,) = Case(lambda x, y: [e.add(x, y)], [x, channels_last(y)], WIDEST, order).run()
        np.testing.assert_array_equal(actual, x + y)
