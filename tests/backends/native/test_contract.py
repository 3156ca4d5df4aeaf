"""Native convolution, transposed convolution and matrix product against PyTorch and NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.backends.native.runtime import run_phases
from irconv.builder import GraphValue
from irconv.errors import IrconvError
from irconv.ops.contract import matmul
from irconv.ops.conv import conv, conv_transpose
from irconv.ops.elementwise import add, cast, exp, greater, multiply, relu, sigmoid, subtract
from tests.backends.native.contracting import (
    Case,
    arranged,
    arrays_of,
    case,
    channels_last,
    garbage,
    generate,
    run,
    run_tasks,
)

torch = pytest.importorskip("torch", reason="the oracle")
MACHINES = ("avx512", "avx2", "sse2", "generic")
BOUND = {"f32": 2e-6, "f64": 1e-14}
FLOATS = {"f32": np.float32, "f64": np.float64}


def supported(machine: str) -> bool:
    """Whether this processor runs code for the machine."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            flags = next((line.split() for line in file if line.startswith("flags")), [])
    except OSError:
        flags = []
    need = {"avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"}, "avx2": {"avx2", "fma"}, "sse2": {"sse2"}}
    return need.get(machine, set()) <= set(flags)


HERE = tuple(m for m in MACHINES if supported(m))
BEST = HERE[0]


def numbers(seed: int, shape: tuple[int, ...], dtype: str = "f32") -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(FLOATS[dtype])


def near(actual: np.ndarray, wanted: np.ndarray, depth: int, dtype: str = "f32") -> None:
    """Within what sums of ``depth`` products of standard normal numbers lose."""
    assert actual.shape == wanted.shape
    bound = BOUND[dtype] * max(4.0, depth**0.5) * 4
    np.testing.assert_allclose(actual.astype(np.float64), wanted, rtol=bound, atol=bound)


def conv_wanted(x, w, stride, padding, dilation, groups):
    function = {3: torch.nn.functional.conv1d, 4: torch.nn.functional.conv2d, 5: torch.nn.functional.conv3d}[x.ndim]
    result = function(torch.tensor(x).double(), torch.tensor(w).double(), None, stride, padding, dilation, groups)
    return result.numpy()


def transposed_wanted(x, w, stride, padding, extra, dilation, groups):
    f = torch.nn.functional
    function = {3: f.conv_transpose1d, 4: f.conv_transpose2d, 5: f.conv_transpose3d}[x.ndim]
    x, w = torch.tensor(x).double(), torch.tensor(w).double()
    return function(x, w, None, stride, padding, extra, groups, dilation).numpy()


def result_of(c: Case, values, machine=BEST, last=True, out_last=True):
    """What the kernel gives for a first operand and a result stored channels last, or row-major."""
    rank = values[0].ndim
    values = [arranged(values[0], channels_last(rank)) if last else values[0], *values[1:]]
    out = garbage(c.graph[c.result].type, channels_last(rank) if out_last else None)
    made = generate(c, values, out, machine)
    assert made is not None
    return run(c, made, values, out)


# --- convolution -----------------------------------------------------------------------------------------------------------

CONVS = [
    # x, w, stride, padding, dilation, groups
    ((2, 17, 7, 9), (19, 17, 3, 3), 1, 1, 1, 1),  # nothing is a multiple of a vector
    ((1, 1, 28, 28), (6, 1, 5, 5), 1, 2, 1, 1),  # one channel
    ((3, 3, 13, 11), (70, 3, 7, 7), 2, 3, 1, 1),  # the first layer of a network
    ((2, 130, 7, 7), (130, 130, 3, 3), 1, 1, 1, 1),  # tiles that go on in the next image
    ((2, 40, 9, 8), (96, 40, 1, 1), 2, 0, 1, 1),  # a strided 1x1
    ((2, 24, 1, 1), (33, 24, 1, 1), 1, 0, 1, 1),  # one pixel
    ((1, 24, 1, 1), (33, 24, 3, 3), 1, 1, 1, 1),  # one pixel, most taps outside
    ((2, 8, 9, 9), (12, 2, 3, 3), 1, 2, 2, 4),  # groups and dilation
    ((1, 4, 11, 13), (5, 4, 2, 3), 5, 0, 1, 1),  # a stride larger than the kernel
    ((2, 3, 13, 11), (33, 3, 3, 3), 2, 1, 1, 1),  # a first layer short enough to be written out
    ((2, 600, 7, 7), (160, 600, 1, 1), 1, 0, 1, 1),  # tasks of some blocks for some pixels, neighbours for the same pixels
]


@pytest.mark.parametrize("machine", HERE)
@pytest.mark.parametrize("x, w, stride, padding, dilation, groups", CONVS)
def test_conv(x, w, stride, padding, dilation, groups, machine) -> None:
    x, w = numbers(1, x), numbers(2, w)
    c = case(lambda x, w: conv(x, w, stride, padding, dilation, groups), x.shape, w.shape)
    wanted = conv_wanted(x, w, stride, padding, dilation, groups)
    near(result_of(c, [x, w], machine), wanted, w[0].size)


@pytest.mark.parametrize("last, out_last", [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("shapes", [0, 2, 3, 4, 7])
def test_conv_of_any_storage_order(shapes, last, out_last) -> None:
    x, w, stride, padding, dilation, groups = CONVS[shapes]
    x, w = numbers(1, x), numbers(2, w)
    c = case(lambda x, w: conv(x, w, stride, padding, dilation, groups), x.shape, w.shape)
    wanted = conv_wanted(x, w, stride, padding, dilation, groups)
    near(result_of(c, [x, w], last=last, out_last=out_last), wanted, w[0].size)


@pytest.mark.parametrize("x, w", [((2, 5, 19), (21, 5, 3)), ((1, 6, 5, 4, 6), (18, 6, 3, 2, 3))])
@pytest.mark.parametrize("op", ["conv", "conv_transpose"])
def test_other_ranks(op, x, w) -> None:
    x = numbers(1, x)
    if op == "conv":
        w = numbers(2, w)
        c = case(lambda x, w: conv(x, w, 1, 1), x.shape, w.shape)
        wanted = conv_wanted(x, w, 1, 1, 1, 1)
    else:
        w = numbers(2, (w[1], w[0], *w[2:]))
        c = case(lambda x, w: conv_transpose(x, w, 2, 1), x.shape, w.shape)
        wanted = transposed_wanted(x, w, 2, 1, 0, 1, 1)
    near(result_of(c, [x, w]), wanted, 200)


def test_float64() -> None:
    x, w = numbers(1, (2, 17, 7, 9), "f64"), numbers(2, (19, 17, 3, 3), "f64")
    c = case(lambda x, w: conv(x, w, 1, 1), x.shape, w.shape, dtype="f64")
    near(result_of(c, [x, w]), conv_wanted(x, w, 1, 1, 1, 1), 153, "f64")


@pytest.mark.parametrize("pads", [((0, 1), (2, 0)), ((-1, 1), (1, -2)), ((4, 4), (0, 5))])
def test_uneven_and_negative_padding(pads) -> None:
    x, w = numbers(1, (2, 20, 8, 9)), numbers(2, (40, 20, 3, 3))
    c = case(lambda x, w: conv(x, w, 1, pads), x.shape, w.shape)
    (top, bottom), (left, right) = pads
    padded = torch.nn.functional.pad(torch.tensor(x), (left, right, top, bottom)).numpy()
    near(result_of(c, [x, w]), conv_wanted(padded, w, 1, 0, 1, 1), 180)


def test_weight_that_is_a_view() -> None:
    x, w = numbers(1, (2, 20, 8, 9)), numbers(2, (3, 3, 20, 40))
    view = w.transpose(3, 2, 0, 1)[:, :, ::-1]
    c = case(lambda x, w: conv(x, w, 1, 1), x.shape, view.shape)
    near(result_of(c, [x, view]), conv_wanted(x, np.ascontiguousarray(view), 1, 1, 1, 1), 180)


# --- transposed convolution ------------------------------------------------------------------------------------------------

TRANSPOSED = [
    # x, w, stride, padding, output padding, dilation, groups
    ((2, 17, 7, 9), (17, 19, 3, 3), 1, 1, 0, 1, 1),
    ((2, 17, 6, 6), (17, 19, 3, 3), 2, 1, 1, 1, 1),
    ((2, 17, 7, 9), (17, 19, 2, 2), 2, 0, 0, 1, 1),  # each output has one tap
    ((2, 17, 7, 9), (17, 19, 1, 1), 2, 0, 1, 1, 1),  # most outputs have none
    ((1, 16, 5, 3), (16, 9, 5, 5), 4, 2, 3, 6, 2),  # dilation and stride have a common factor
    ((3, 4, 1, 1), (4, 40, 4, 4), 1, 0, 0, 1, 1),
]


@pytest.mark.parametrize("machine", HERE)
@pytest.mark.parametrize("x, w, stride, padding, extra, dilation, groups", TRANSPOSED)
def test_conv_transpose(x, w, stride, padding, extra, dilation, groups, machine) -> None:
    x, w = numbers(1, x), numbers(2, w)
    c = case(lambda x, w: conv_transpose(x, w, stride, padding, dilation, groups, extra), x.shape, w.shape)
    wanted = transposed_wanted(x, w, stride, padding, extra, dilation, groups)
    near(result_of(c, [x, w], machine), wanted, w.shape[0] * 9)


@pytest.mark.parametrize("last, out_last", [(False, False), (True, False)])
def test_conv_transpose_of_any_storage_order(last, out_last) -> None:
    x, w = numbers(1, (2, 17, 6, 6)), numbers(2, (17, 19, 3, 3))
    c = case(lambda x, w, b: relu(add(conv_transpose(x, w, 2, 1), b)), x.shape, w.shape, (19, 1, 1))
    b = numbers(3, (19, 1, 1))
    wanted = np.maximum(transposed_wanted(x, w, 2, 1, 0, 1, 1) + b, 0)
    near(result_of(c, [x, w, b], last=last, out_last=out_last), wanted, 160)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_geometry(data) -> None:
    """Shapes and parameters nobody would think of, both ways."""
    draw = lambda *bounds: data.draw(st.integers(*bounds))  # noqa: E731
    groups = draw(1, 2)
    channels, columns = (groups * draw(2, 20) for _ in range(2))
    size, kernel = ([draw(1, 9) for _ in range(2)], [draw(1, 4) for _ in range(2)])
    stride, dilation, padding = ([draw(low, 3) for _ in range(2)] for low in (1, 1, 0))
    x, seed = numbers(draw(0, 99), (draw(0, 3), channels, *size)), draw(0, 99)
    last, out_last = data.draw(st.booleans()), data.draw(st.booleans())
    transposed = data.draw(st.booleans())
    if transposed:
        w = numbers(seed, (channels, columns // groups, *kernel))
        build = lambda x, w: conv_transpose(x, w, stride, padding, dilation, groups)  # noqa: E731
    else:
        w = numbers(seed, (columns, channels // groups, *kernel))
        build = lambda x, w: conv(x, w, stride, padding, dilation, groups)  # noqa: E731
    try:
        c = case(build, x.shape, w.shape)
    except IrconvError:
        return  # no window fits
    if c.graph[c.result].type.size == 0:
        return
    if transposed:
        wanted = transposed_wanted(x, w, stride, padding, 0, dilation, groups)
    else:
        wanted = conv_wanted(x, w, stride, padding, dilation, groups)
    near(result_of(c, [x, w], last=last, out_last=out_last), wanted, channels * 16)


# --- matrix product --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize(
    "x, y",
    [
        ((5, 17), (17, 33)),
        ((1, 400), (400, 120)),
        ((64, 37), (37, 133)),
        ((4, 5, 17), (17, 33)),
        ((4, 5, 17), (4, 17, 33)),
        ((4, 1, 5, 17), (3, 17, 33)),
        ((5, 17), (3, 17, 33)),
        ((2, 3, 5, 17), (1, 1, 17, 33)),
        ((3, 5, 1), (3, 1, 7)),
    ],
)
def test_matmul(x, y, turned) -> None:
    values = [numbers(1, x), numbers(2, y)]
    c = case(matmul, x, y)
    values = [
        np.ascontiguousarray(v.swapaxes(-1, -2)).swapaxes(-1, -2) if t else v
        for v, t in zip(values, turned, strict=True)
    ]
    out = garbage(c.graph[c.result].type)
    made = generate(c, values, out, BEST)
    wanted = np.matmul(values[0].astype(np.float64), values[1])
    near(run(c, made, values, out), wanted, x[-1])


@pytest.mark.parametrize("machine", HERE)
def test_linear_layer(machine) -> None:
    x, w, b = numbers(1, (9, 50)), numbers(2, (50, 35)), numbers(3, (35,))
    c = case(lambda x, w, b: relu(add(matmul(x, w), b)), x.shape, w.shape, b.shape)
    near(result_of(c, [x, w, b], machine), np.maximum(x.astype(np.float64) @ w + b, 0), 50)


# --- epilogues -------------------------------------------------------------------------------------------------------------


def batch_norm_residual(x: GraphValue, w, scale, shift, residual):
    return relu(add(add(multiply(conv(x, w, 1, 1), scale), shift), residual))


@pytest.mark.parametrize("out_last", [True, False])
@pytest.mark.parametrize("channels", [32, 40, 70])
def test_scale_shift_residual(channels, out_last) -> None:
    x, w, r = numbers(1, (2, 8, 7, 8)), numbers(2, (channels, 8, 3, 3)), numbers(5, (2, channels, 7, 8))
    scale, shift = numbers(3, (channels, 1, 1)), numbers(4, (1, channels, 1, 1))
    c = case(batch_norm_residual, *(v.shape for v in (x, w, scale, shift, r)))
    if out_last:
        r = arranged(r, channels_last(4))
    wanted = np.maximum(conv_wanted(x, w, 1, 1, 1, 1) * scale + shift + r, 0)
    near(result_of(c, [x, w, scale, shift, r], out_last=out_last), wanted, 72)


def test_long_epilogues_and_operands_that_repeat_along_rows() -> None:
    x, w, b = numbers(1, (2, 8, 7, 8)), numbers(2, (40, 8, 3, 3)), numbers(3, (7, 1))
    c = case(lambda x, w, b: sigmoid(subtract(exp(multiply(conv(x, w, 1, 1), 0.01)), b)), x.shape, w.shape, b.shape)
    inner = np.exp(0.01 * conv_wanted(x, w, 1, 1, 1, 1)) - b
    near(result_of(c, [x, w, b]), 1 / (1 + np.exp(-inner)), 72)


def test_the_input_as_residual() -> None:
    x, w = numbers(1, (2, 20, 7, 8)), numbers(2, (20, 20, 3, 3))
    c = case(lambda x, w: add(conv(x, w, 1, 1), x), x.shape, w.shape)
    near(result_of(c, [x, w]), conv_wanted(x, w, 1, 1, 1, 1) + x, 180)


def test_truth_values_as_a_result() -> None:
    x, w = numbers(1, (2, 8, 7, 8)), numbers(2, (40, 8, 3, 3))
    c = case(lambda x, w: greater(conv(x, w, 1, 1), 0), x.shape, w.shape)
    exact = conv_wanted(x, w, 1, 1, 1, 1)
    found = result_of(c, [x, w])
    assert found.dtype == np.bool_
    clear = np.abs(exact) > 1e-4
    np.testing.assert_array_equal(found[clear], (exact > 0)[clear])


def test_not_a_number_and_infinity_come_through() -> None:
    x, w, b = numbers(1, (1, 8, 9, 8)), numbers(2, (40, 8, 3, 3)), numbers(3, (40, 1, 1))
    x[0, 3, 2, 2], x[0, 5, 7, 7] = np.nan, np.inf
    c = case(lambda x, w, b: relu(add(conv(x, w, 1, 1), b)), x.shape, w.shape, b.shape)
    plain = conv_wanted(x, w, 1, 1, 1, 1) + b
    wanted = np.where(np.isnan(plain), plain, np.maximum(plain, 0))
    found = result_of(c, [x, w, b])
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    np.testing.assert_array_equal(np.isinf(found), np.isinf(wanted))
    assert np.isnan(found).sum() >= 9 * 40 and np.isinf(found).any()


# --- what the executable relies on -----------------------------------------------------------------------------------------


def varied_batch(batch: int):
    """Cases whose batch may change."""
    w, f, t = numbers(2, (40, 20, 3, 3)), numbers(3, (50, 35)), numbers(4, (20, 40, 3, 3))
    x = numbers(1, (batch, 20, 9, 8))
    return [
        (case(lambda x, w: relu(conv(x, w, 1, 1)), x.shape, w.shape), [x, w]),
        (case(lambda x, w: conv_transpose(x, w, 2, 1), x.shape, t.shape), [x, t]),
        (case(matmul, (batch, 50), f.shape), [numbers(5, (batch, 50)), f]),
        (case(matmul, (batch, 6, 50), (batch, 50, 35)), [numbers(6, (batch, 6, 50)), numbers(7, (batch, 50, 35))]),
        # the gradient of a linear layer's weight: the sum runs over the batch
        (case(matmul, (50, batch), (batch, 35)), [numbers(8, (batch, 50)).T, numbers(9, (batch, 35))]),
    ]


@pytest.mark.parametrize("number", range(5))
def test_the_batch_is_not_in_the_source(number) -> None:
    sources = set()
    for batch in (1, 2, 64):
        c, values = varied_batch(batch)[number]
        made = generate(c, values, garbage(c.graph[c.result].type), BEST)
        sources.add(made.source)
    assert len(sources) == 1


@pytest.mark.parametrize("number", range(5))
def test_any_order_of_tasks_gives_the_same_bits(number) -> None:
    c, values = varied_batch(40)[number]
    out = garbage(c.graph[c.result].type)
    made = generate(c, values, out, BEST)
    first = run(c, made, values, out)
    for step, backwards in ((1, True), (3, False), (1000, False)):
        again = run_tasks(c, made, values, garbage(c.graph[c.result].type), step, backwards)
        np.testing.assert_array_equal(again, first)


def test_any_order_of_tasks_for_the_same_pixels() -> None:
    """Neighbouring tasks are blocks of the same pixels here."""
    x, w = numbers(1, (3, 600, 7, 7)), numbers(2, (160, 600, 1, 1))
    c = case(lambda x, w: conv(x, w), x.shape, w.shape)
    values, out = [arranged(x, channels_last(4)), w], garbage(c.graph[c.result].type, channels_last(4))
    made = generate(c, values, out, BEST)
    assert made is not None and made.phases[-1].tasks >= 4
    first = run(c, made, values, out)
    near(first, conv_wanted(x, w, 1, 0, 1, 1), 600)
    for step, backwards in ((1, True), (3, False), (1000, False)):
        again = run_tasks(c, made, values, garbage(c.graph[c.result].type, channels_last(4)), step, backwards)
        np.testing.assert_array_equal(again, first)


def test_an_empty_batch_runs() -> None:
    c, values = varied_batch(0)[0]
    out = garbage(c.graph[c.result].type)
    made = generate(c, values, out, BEST)
    assert run(c, made, values, out).shape == (0, 40, 9, 8)


def test_prepared_weight_is_kept() -> None:
    """A second call without the phase that packs gives the same for another input."""
    c, values = varied_batch(2)[0]
    out = garbage(c.graph[c.result].type)
    made = generate(c, values, out, BEST)
    (prepared,) = made.prepared
    arrays = arrays_of(c, made, values, out)
    assert arrays[prepared.operand] is values[1] and prepared.scratch == 1 + len(values)
    rest = [p for number, p in enumerate(made.phases) if number != prepared.phase]
    assert len(rest) == len(made.phases) - 1
    run_phases(made.unit, [(p.function, p.tasks) for p in made.phases], made.sizes, arrays)
    arrays[1][...] = numbers(77, values[0].shape)
    run_phases(made.unit, [(p.function, p.tasks) for p in rest], made.sizes, arrays)
    near(out, np.maximum(conv_wanted(arrays[1], values[1], 1, 1, 1, 1), 0), 180)


def test_what_there_is_no_code_for() -> None:
    def none(build, *shapes, dtype="f32"):
        c = case(build, *shapes, dtype=dtype)
        values = [np.zeros(s, c.graph[i].type.dtype.numpy) for s, i in zip(shapes, c.inputs, strict=True)]
        return generate(c, values, garbage(c.graph[c.result].type), BEST) is None

    assert none(lambda x, w: conv(x, w, 1, 1, 1, 8), (1, 8, 5, 5), (8, 1, 3, 3))  # depthwise has its own
    assert none(lambda x, w: conv(x, w), (1, 8, 5, 5), (8, 8, 3, 3), dtype="f16")
    assert none(lambda x, w: cast(conv(x, w), "f64"), (1, 8, 5, 5), (8, 8, 3, 3))  # two sizes of elements


@pytest.mark.parametrize("shape", [(2, 64, 28, 28), (1, 64, 28, 28)])
def test_tiles_depend_on_shapes_alone(shape) -> None:
    """The plan is the same for all batches and has work for several threads."""
    x, w = numbers(1, shape), numbers(2, (64, 64, 3, 3))
    c = case(lambda x, w: conv(x, w, 1, 1), x.shape, w.shape)
    made = generate(c, [x, w], garbage(c.graph[c.result].type), "avx512")
    assert made.phases[-1].tasks >= 8 * shape[0]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("machine", HERE)
@pytest.mark.parametrize("places", [(1, 2, 3), (2, 1, 4), (3, 2, 2), (3, 4), (2, 1), (5,)])
@pytest.mark.parametrize("taps", [1, 3])
def test_copied_inputs_of_short_axes(places, taps, machine, dtype) -> None:
    """Two channels, loops that a compiler unrolls: conditional copies of pairs are what GCC 12 gets wrong."""
    generator = np.random.default_rng(len(places))
    x = generator.integers(-9, 10, (3, 2, *places)).astype(dtype)
    w = generator.integers(-9, 10, (16, 2, *[taps] * len(places))).astype(dtype)
    c = case(lambda x, w: conv(x, w, 1, 1), x.shape, w.shape, dtype="f32" if dtype == "f4" else "f64")
    order = channels_last(x.ndim)
    values, out = [arranged(x, order), w], garbage(c.graph[c.result].type, order)
    made = generate(c, values, out, machine)
    np.testing.assert_array_equal(run(c, made, values, out), conv_wanted(x, w, 1, 1, 1, 1))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("machine", HERE)
def test_copied_inputs_of_few_channels(channels, machine) -> None:
    """Rows longer than a vector, padded: whole numbers, so that nothing is rounded."""
    generator = np.random.default_rng(channels)
    x = generator.integers(-9, 10, (2, channels, 15, 37)).astype(np.float32)
    w = generator.integers(-9, 10, (32, channels, 3, 3)).astype(np.float32)
    c = case(lambda x, w: conv(x, w, 1, 1), x.shape, w.shape)
    values, out = [arranged(x, channels_last(4)), w], garbage(c.graph[c.result].type, channels_last(4))
    made = generate(c, values, out, machine)
    assert made is not None and any(phase.function == "conv_copy" for phase in made.phases)
    np.testing.assert_array_equal(run(c, made, values, out), conv_wanted(x, w, 1, 1, 1, 1))
