"""Convolution and its transpose against loops, SciPy and PyTorch: values, gradients, and the corners that go wrong."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv.builder import Builder
from irconv.errors import AttributeValueError, DTypeError, ShapeError
from irconv.graph import Graph
from irconv.op import OPS, Work
from irconv.ops.conv import ConvAttributes, ConvTransposeAttributes, conv, conv_transpose
from irconv.ops.elementwise import add, square
from irconv.ops.reduce import reduce_sum
from irconv.passes.differentiate import differentiate
from irconv.types import tensor_type
from tests.ops import window_oracles as oracle
from tests.ops.evaluating import apply, gradients
from tests.ops.window_strategies import Window, random, windows
from tests.samples.conv import SAMPLES

TOLERANCE = {"float16": 3e-2, "float32": 1e-4, "float64": 1e-11, "int32": 0}
CONV = [s for s in SAMPLES if s.op == "conv"]
CONV_TRANSPOSE = [s for s in SAMPLES if s.op == "conv_transpose"]


def close(result, expected):
    tolerance = TOLERANCE[result.dtype.name]
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


def window_of(a: ConvAttributes) -> tuple:
    return a.stride, a.padding, a.dilation, a.groups


# --- loops -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", CONV, ids=lambda s: s.id)
def test_conv_is_the_loops(sample):
    a, (x, w) = sample.attributes, sample.operands
    result = apply(lambda x, w: conv(x, w, *window_of(a)), x, w)
    close(result, oracle.conv(x, w, *window_of(a)))
    if x.dtype == np.float64:
        d = random(result.shape)
        for found, expected in zip(
            gradients(lambda x, w: conv(x, w, *window_of(a)), d, x, w),
            oracle.conv_gradients(d, x, w, *window_of(a)),
            strict=True,
        ):
            close(found, expected)


@pytest.mark.parametrize("sample", CONV_TRANSPOSE, ids=lambda s: s.id)
def test_conv_transpose_is_the_loops(sample):
    a, (x, w) = sample.attributes, sample.operands
    size = a.output_size
    result = apply(lambda x, w: conv_transpose(x, w, *_before(a), output_size=size), x, w)
    close(result, oracle.conv_transpose(x, w, *_before(a), size))
    if x.dtype == np.float64:
        d = random(result.shape)
        for found, expected in zip(
            gradients(lambda x, w: conv_transpose(x, w, *_before(a), output_size=size), d, x, w),
            oracle.conv_transpose_gradients(d, x, w, *_before(a), size),
            strict=True,
        ):
            close(found, expected)


def _before(a: ConvTransposeAttributes) -> tuple:
    return a.stride, a.padding, a.dilation, a.groups


@settings(max_examples=60, deadline=None)
@given(windows(), st.integers(1, 2))
def test_conv_of_any_window(window: Window, out_per_group: int):
    x = random(window.shape)
    w = random((window.groups * out_per_group, window.per_group, *window.kernel), 1)
    parameters = (window.stride, window.padding, window.dilation, window.groups)
    result = apply(lambda x, w: conv(x, w, *parameters), x, w)
    close(result, oracle.conv(x, w, *parameters))
    d = random(result.shape, 2)
    by_x, by_w = gradients(lambda x, w: conv(x, w, *parameters), d, x, w)
    expected = oracle.conv_gradients(d, x, w, *parameters)
    close(by_x, expected[0])
    close(by_w, expected[1])


@settings(max_examples=60, deadline=None)
@given(windows(), st.integers(1, 2), st.lists(st.integers(1, 9), min_size=3, max_size=3))
def test_conv_transpose_of_any_window_and_output_size(window: Window, out_per_group: int, sizes: list[int]):
    x = random(window.shape)
    w = random((window.shape[1], out_per_group, *window.kernel), 1)
    size = tuple(sizes[: len(window.size)])
    before = tuple(before for before, _ in window.padding)
    parameters = (window.stride, before, window.dilation, window.groups)
    result = apply(lambda x, w: conv_transpose(x, w, *parameters, output_size=size), x, w)
    close(result, oracle.conv_transpose(x, w, *parameters, size))
    d = random(result.shape, 2)
    by_x, by_w = gradients(lambda x, w: conv_transpose(x, w, *parameters, output_size=size), d, x, w)
    expected = oracle.conv_transpose_gradients(d, x, w, *parameters, size)
    close(by_x, expected[0])
    close(by_w, expected[1])


# --- SciPy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "kernel"), [((9,), (4,)), ((6, 5), (2, 3)), ((4, 5, 3), (2, 3, 1))])
@pytest.mark.parametrize("mode", ["valid", "full"])
def test_conv_is_scipys_correlate(size, kernel, mode):
    x, w = random(size), random(kernel, 1)
    padding = tuple(k - 1 for k in kernel) if mode == "full" else 0
    result = apply(lambda x, w: conv(x, w, padding=padding), x[None, None], w[None, None])
    close(result[0, 0], scipy.signal.correlate(x, w, mode, "direct"))


def test_true_convolution_flips_the_kernel():
    x, w = np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 3])
    full = apply(lambda x, w: conv(x, w, padding=2), x[None, None], w[None, None, ::-1])
    np.testing.assert_array_equal(full[0, 0], [1, 4, 10, 16, 17, 12])
    np.testing.assert_array_equal(full[0, 0], scipy.signal.convolve(x, w))
    # the transposed convolution is the full true convolution
    spread = apply(conv_transpose, x[None, None], w[None, None])
    np.testing.assert_array_equal(spread, full)


def test_1d_gradients_are_a_flipped_correlation_and_a_product_with_the_windows():
    x, w, v = random((1, 1, 5)), random((1, 1, 3), 1), random((1, 1, 5), 2)
    by_x, by_w = gradients(lambda x, w: conv(x, w, padding=1), v, x, w)
    close(by_x[0, 0], scipy.signal.correlate(v[0, 0], w[0, 0, ::-1], "same"))
    padded = np.pad(x[0, 0], 1)
    close(by_w[0, 0], np.stack([padded[i : i + 3] for i in range(5)]).T @ v[0, 0])


# --- PyTorch ---------------------------------------------------------------------------------------------------------

STRIDES, PADDINGS, DILATIONS = (1, 2, (3, 1)), (0, 1, (2, 3)), (1, 2, (1, 3))


def _torch_gradients(function, d, *arrays):
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    result = function(*tensors)
    result.backward(torch.tensor(d))
    return result.detach().numpy(), [tensor.grad.numpy() for tensor in tensors]


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("dilation", DILATIONS)
@pytest.mark.parametrize("groups", [1, 2])
def test_conv_is_pytorchs(stride, padding, dilation, groups):
    functional = pytest.importorskip("torch.nn.functional")
    x, w = random((2, 4, 8, 9)), random((6, 4 // groups, 3, 2), 1)
    result = apply(lambda x, w: conv(x, w, stride, padding, dilation, groups), x, w)
    d = random(result.shape, 2)
    theirs = functools.partial(
        functional.conv2d, bias=None, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    expected, by = _torch_gradients(theirs, d, x, w)
    close(result, expected)
    found = gradients(lambda x, w: conv(x, w, stride, padding, dilation, groups), d, x, w)
    close(found[0], by[0])
    close(found[1], by[1])


def _extra_fits(stride, dilation, extra) -> bool:
    """Whether this output_padding is smaller than stride or dilation on both axes."""
    parameters = (np.broadcast_to(value, 2) for value in (stride, dilation, extra))
    return all(e < max(s, d) for s, d, e in zip(*parameters, strict=True))


TRANSPOSED = [row for row in itertools.product(STRIDES, DILATIONS, (0, 1, (2, 0))) if _extra_fits(*row)]


@pytest.mark.parametrize(("stride", "dilation", "extra"), TRANSPOSED)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("groups", [1, 2])
def test_conv_transpose_is_pytorchs(stride, padding, dilation, groups, extra):
    functional = pytest.importorskip("torch.nn.functional")
    x, w = random((2, 4, 4, 5)), random((4, 6 // groups, 3, 4), 1)

    def ours(x, w):
        return conv_transpose(x, w, stride, padding, dilation, groups, extra)

    def theirs(x, w):
        return functional.conv_transpose2d(x, w, None, stride, padding, extra, groups, dilation)

    result = apply(ours, x, w)
    d = random(result.shape, 2)
    expected, by = _torch_gradients(theirs, d, x, w)
    close(result, expected)
    for found, wanted in zip(gradients(ours, d, x, w), by, strict=True):
        close(found, wanted)


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_one_and_three_axes_are_pytorchs(rank, kernel):
    functional = pytest.importorskip("torch.nn.functional")
    x, w = random((2, 2, *[5] * rank)), random((2, 2, *[kernel] * rank), 1)
    for ours, theirs in (
        (conv, getattr(functional, f"conv{rank}d")),
        (conv_transpose, getattr(functional, f"conv_transpose{rank}d")),
    ):
        result = apply(lambda x, w, op=ours: op(x, w, 2, 1), x, w)
        d = random(result.shape, 2)
        expected, by = _torch_gradients(lambda x, w, op=theirs: op(x, w, None, 2, 1), d, x, w)
        close(result, expected)
        found = gradients(lambda x, w, op=ours: op(x, w, 2, 1), d, x, w)
        close(found[0], by[0])
        close(found[1], by[1])


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, (2, 5)])
@pytest.mark.parametrize("dilation", [1, 2, (3, 1)])
def test_same_padding_is_pytorchs_at_stride_1(kernel, dilation):
    torch = pytest.importorskip("torch")
    x, w = random((1, 2, 6, 7)), random((2, 2, *np.broadcast_to(kernel, 2)), 1)
    result = apply(lambda x, w: conv(x, w, padding="same", dilation=dilation), x, w)
    expected = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(w), padding="same", dilation=dilation)
    assert result.shape == x.shape
    close(result, expected.numpy())


@pytest.mark.parametrize("op", ["conv", "conv_transpose"])
def test_second_derivatives_are_pytorchs(op):
    """The gradient of sum(by_x^2 + by_w^2), by x, w and d."""
    torch = pytest.importorskip("torch")
    x, w = random((2, 4, 5, 4)), random((4, 2, 3, 2), 1)
    ours = {"conv": conv, "conv_transpose": conv_transpose}[op]
    theirs = {"conv": torch.nn.functional.conv2d, "conv_transpose": torch.nn.functional.conv_transpose2d}[op]
    d = random(apply(lambda x, w: ours(x, w, (2, 1), (1, 0), 1, 2), x, w).shape, 2)

    def penalty(x, w, d):
        graph = x.builder.graph
        result = ours(x, w, (2, 1), (1, 0), 1, 2)
        found = differentiate(graph, result.id, [x.id, w.id], d.id)
        by_x, by_w = (Builder(graph).value(found[i]) for i in (x.id, w.id))
        return add(reduce_sum(square(by_x)), reduce_sum(square(by_w)))

    tensors = [torch.tensor(array, requires_grad=True) for array in (x, w, d)]
    result = theirs(tensors[0], tensors[1], None, stride=(2, 1), padding=(1, 0), groups=2)
    first = torch.autograd.grad(result, tensors[:2], tensors[2], create_graph=True)
    total = (first[0] ** 2).sum() + (first[1] ** 2).sum()
    expected = torch.autograd.grad(total, tensors)
    for found, wanted in zip(gradients(penalty, np.ones(()), x, w, d), expected, strict=True):
        close(found, wanted.numpy())


# --- padding by name -------------------------------------------------------------------------------------------------


def test_same_upper_and_lower_choose_the_side_of_an_odd_position():
    x, w = np.arange(1.0, 6).reshape(1, 1, 5), np.ones((1, 1, 2))
    upper = apply(lambda x, w: conv(x, w, padding="same_upper"), x, w)
    lower = apply(lambda x, w: conv(x, w, padding="same_lower"), x, w)
    np.testing.assert_array_equal(upper[0, 0], [3, 5, 7, 9, 5])
    np.testing.assert_array_equal(lower[0, 0], [1, 3, 5, 7, 9])
    np.testing.assert_array_equal(apply(lambda x, w: conv(x, w, padding="same"), x, w), upper)
    assert apply(lambda x, w: conv(x, w, padding="valid"), x, w).shape == (1, 1, 4)


@pytest.mark.parametrize(("n", "k", "s", "d"), list(itertools.product((1, 4, 5, 7), (1, 2, 3), (1, 2, 3, 5), (1, 2))))
def test_same_padding_makes_ceil_of_size_over_stride(n, k, s, d):
    x, w = random((1, 1, n)), random((1, 1, k), 1)
    for mode in ("same_upper", "same_lower"):
        assert apply(lambda x, w, mode=mode: conv(x, w, s, mode, d), x, w).shape == (1, 1, -(-n // s))
        # and its transpose multiplies the size by the stride
        assert apply(lambda x, w, mode=mode: conv_transpose(x, w, s, mode, d), x, w).shape == (1, 1, n * s)


def test_transposed_same_padding_cuts_the_odd_position_where_it_says():
    x, w = np.array([[[1.0, 10]]]), np.array([[[1.0, 2, 3]]])
    full = apply(lambda x, w: conv_transpose(x, w, 2), x, w)
    np.testing.assert_array_equal(full[0, 0], [1, 2, 13, 20, 30])
    upper = apply(lambda x, w: conv_transpose(x, w, 2, "same_upper"), x, w)
    lower = apply(lambda x, w: conv_transpose(x, w, 2, "same_lower"), x, w)
    np.testing.assert_array_equal(upper[0, 0], full[0, 0, :-1])
    np.testing.assert_array_equal(lower[0, 0], full[0, 0, 1:])


# --- corners ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "k", "s", "p", "d"), list(itertools.product((5, 8), (1, 3), (1, 2, 3), (0, 1, 2), (1, 2)))
)
def test_conv_transpose_inverts_the_shape_of_conv(n, k, s, p, d):
    """The s input sizes that share an output size are told apart by output_padding."""
    w = np.ones((1, 1, k))
    y = apply(lambda x, w: conv(x, w, s, p, d), np.ones((1, 1, n)), w)
    tail = (n + 2 * p - d * (k - 1) - 1) % s
    back = apply(lambda y, w: conv_transpose(y, w, s, p, d, 1, tail), y, w)
    assert back.shape == (1, 1, n)


def test_pixels_that_no_window_reads_have_zero_gradient():
    x, w = random((1, 1, 11)), random((1, 1, 2), 1)
    by_x, _ = gradients(lambda x, w: conv(x, w, 4), np.ones((1, 1, 3)), x, w)
    assert (11 - 2) % 4 == 1
    np.testing.assert_array_equal(by_x[0, 0] == 0, [False, False, True, True] * 2 + [False, False, True])
    by_x, _ = gradients(lambda x, w: conv(x, w, 4), np.ones((1, 1, 2)), x[..., :9], w)
    assert (9 - 2) % 4 == 3  # a tail of three
    np.testing.assert_array_equal(by_x[0, 0, 6:], 0)


def test_gradient_of_padding_beyond_the_kernel_crops():
    """With more padding than the kernel spans, the transposed form's own padding would be negative."""
    x, w = random((1, 1, 3)), random((1, 1, 2), 1)
    d = random((1, 1, 12), 2)
    by_x, by_w = gradients(lambda x, w: conv(x, w, 1, 5), d, x, w)
    expected = oracle.conv_gradients(d, x, w, (1,), ((5, 5),), (1,), 1)
    close(by_x, expected[0])
    close(by_w, expected[1])


def test_output_padding_shows_what_was_cut_not_zeros():
    x, w = np.array([[[1.0, 1]]]), np.array([[[1.0, 2, 4]]])
    np.testing.assert_array_equal(apply(lambda x, w: conv_transpose(x, w, 2, 1), x, w)[0, 0], [2, 5, 2])
    extended = apply(lambda x, w: conv_transpose(x, w, 2, 1, 1, 1, 1), x, w)
    np.testing.assert_array_equal(extended[0, 0], [2, 5, 2, 4])
    # dilation allows it at stride 1
    assert apply(lambda x, w: conv_transpose(x, w, 1, 0, 2, 1, 1), x, w).shape == (1, 1, 7)


def test_dilated_kernel_acts_as_one_with_zeros():
    x, w = random((1, 1, 9)), np.array([[[1.0, 2, 3]]])
    spread = np.array([[[1.0, 0, 2, 0, 3]]])
    close(apply(lambda x, w: conv(x, w, dilation=2), x, w), apply(conv, x, spread))


@pytest.mark.parametrize("op", [conv, conv_transpose])
def test_groups_are_separate_convolutions(op):
    x, w = random((2, 6, 5, 5)), random((6, 2, 3, 3), 1)
    result = apply(lambda x, w: op(x, w, groups=3), x, w)
    parts = [apply(op, x[:, 2 * g : 2 * g + 2], w[2 * g : 2 * g + 2]) for g in range(3)]
    close(result, np.concatenate(parts, 1))


def test_1x1_is_a_matrix_product():
    x, w = random((2, 3, 4, 5)), random((6, 3, 1, 1), 1)
    close(apply(conv, x, w), np.einsum("oc,nchw->nohw", w[:, :, 0, 0], x))


def test_empty_batch_gives_zero_weight_gradients():
    for op in (conv, conv_transpose):
        x, w = np.ones((0, 2, 5)), random((2, 2, 3))
        result = apply(op, x, w)
        assert result.shape[0] == 0
        by_x, by_w = gradients(op, np.ones(result.shape), x, w)
        assert by_x.shape == x.shape
        np.testing.assert_array_equal(by_w, np.zeros(w.shape))


def test_any_strides_are_fine():
    base = random((6, 2, 9, 4))
    x, w = base[::-2, :, ::-1, ::2], random((2, 3, 2, 2), 1).transpose(1, 0, 3, 2)
    odd = np.lib.stride_tricks.as_strided(random((3, 2, 1, 6)), strides=(96, 48, 7, 8))  # stride 7 on an axis of size 1
    for op, weight in ((conv, w), (conv_transpose, w.swapaxes(0, 1))):
        close(apply(op, x, weight), apply(op, x.copy(), weight.copy()))
        close(apply(op, odd, weight[:, :, :1]), apply(op, odd.copy(), weight[:, :, :1].copy()))


def test_float16_accumulates_in_float32():
    """Sums of 4096 ones: float16 alone stops at 2048.  Also in the weight gradient."""
    x, w = np.ones((1, 4096, 1), np.float16), np.ones((1, 4096, 1), np.float16)
    assert apply(conv, x, w).item() == 4096
    assert apply(conv_transpose, x, w.swapaxes(0, 1).copy().reshape(4096, 1, 1)).item() == 4096
    line = np.ones((1, 1, 4096), np.float16)
    _, by_w = gradients(conv, np.ones((1, 1, 4096), np.float16), line, np.ones((1, 1, 1), np.float16))
    assert by_w.item() == 4096


def test_sizes_beyond_32_bits_do_not_overflow():
    op = OPS["conv"]
    attributes = ConvAttributes((1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    operands = (tensor_type("f32", (8, 1, 2**20, 2**20)), tensor_type("f32", (2, 1, 3, 3)))
    result = op.result_type(attributes, operands)
    assert result.shape == (8, 2, 2**20 - 2, 2**20 - 2)
    assert op.cost(attributes, operands, result).macs == 9 * 16 * (2**20 - 2) ** 2
    with pytest.raises(ShapeError, match="2\\^48"):
        op.result_type(attributes, (tensor_type("f32", (128, 1, 2**20, 2**20)), tensor_type("f32", (32, 1, 3, 3))))


def test_multiply_adds_are_counted():
    """100 to 100 channels, 5x5, on 64x64 outputs: 1.024e9; groups divide them."""
    for groups in (1, 4):
        for name, size in (("conv", (68, 68)), ("conv_transpose", (64, 64))):
            op = OPS[name]
            operands = (tensor_type("f32", (1, 100, *size)), tensor_type("f32", (100, 100 // groups, 5, 5)))
            attributes = (
                ConvAttributes((1, 1), ((0, 0), (0, 0)), (1, 1), groups)
                if name == "conv"
                else ConvTransposeAttributes((1, 1), (0, 0), (1, 1), groups, (68, 68))
            )
            work = op.cost(attributes, operands, op.result_type(attributes, operands))
            assert work == Work(macs=1_024_000_000 // groups, flops=2_048_000_000 // groups)


def test_only_wanted_gradients_are_built():
    for wanted, op, absent in (("x", "conv_transpose", "im2col"), ("w", "im2col", "conv_transpose")):
        builder = Builder(Graph())
        values = {name: builder.input(name, tensor_type("f64", (2, 2, 4, 4))) for name in ("x", "w")}
        result = reduce_sum(conv(values["x"], values["w"]))
        differentiate(builder.graph, result.id, [values[wanted].id])
        names = [node.op.name for node in builder.graph]
        assert op in names
        assert absent not in names


# --- bad input -------------------------------------------------------------------------------------------------------


def using(op, x, w, *arguments, **named):
    return lambda: apply(lambda x, w: op(x, w, *arguments, **named), np.ones(x), np.ones(w))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (using(conv, (2, 3), (1, 3, 2)), ShapeError, ["[batch, channels, *spatial]", "[2, 3]"]),
        (using(conv, (1, 3, 5, 5), (1, 3, 2)), ShapeError, ["rank 4", "[1, 3, 5, 5]", "[1, 3, 2]"]),
        (using(conv, (1, 3, 5), (2, 4, 2)), ShapeError, ["takes 4 input channels", "has 3 in 1 groups", "[out, 3, *"]),
        (using(conv, (1, 4, 5), (2, 4, 2), groups=2), ShapeError, ["takes 4", "has 4 in 2 groups"]),
        (using(conv, (1, 3, 5), (2, 1, 2), groups=2), AttributeValueError, ["groups=2", "3 input channels"]),
        (using(conv, (1, 4, 5), (3, 2, 2), groups=2), AttributeValueError, ["groups=2", "3 output channels"]),
        (using(conv, (1, 4, 5), (4, 2, 2), groups=-1), AttributeValueError, ["groups must be at least 1", "-1"]),
        (using(conv, (1, 4, 5), (4, 4, 0)), ShapeError, ["[4, 4, 0]", "empty"]),
        (using(conv, (1, 0, 5), (4, 0, 2)), ShapeError, ["empty"]),
        (using(conv, (1, 1, 3, 9), (1, 1, 4, 4)), ShapeError, ["axis 0", "3 elements", "spans 4"]),
        (using(conv, (1, 1, 9, 3), (1, 1, 3, 3), dilation=(1, 2)), ShapeError, ["axis 1", "spans 5", "dilation 2"]),
        (using(conv, (1, 1, 5), (1, 1, 2), padding=-2), ShapeError, ["padding -2 before and -2 after"]),
        (using(conv, (1, 1, 5), (1, 1, 2), stride=0), AttributeValueError, ["stride must be at least 1"]),
        (using(conv, (1, 1, 5), (1, 1, 2), dilation=-1), AttributeValueError, ["dilation must be at least 1"]),
        (using(conv, (1, 1, 5), (1, 1, 2), stride=(1, 1)), AttributeValueError, ["stride has 2 values", "1 spatial"]),
        (using(conv, (1, 1, 5), (1, 1, 2), padding="SAME"), AttributeValueError, ["'SAME'", "same_lower"]),
        (using(conv, (1, 1, 5), (1, 1, 2), stride=2**31), AttributeValueError, ["2^31"]),
        (using(conv_transpose, (1, 3, 5), (2, 3, 2)), ShapeError, ["takes 2 input channels", "has 3", "[in, out"]),
        (using(conv_transpose, (1, 3, 5), (3, 3, 2), groups=2), AttributeValueError, ["groups=2", "3 input"]),
        (using(conv_transpose, (1, 3, 0), (3, 3, 2)), ShapeError, ["[1, 3, 0]", "no elements"]),
        (using(conv_transpose, (1, 1, 2), (1, 1, 2), padding=2), AttributeValueError, ["output_size", "[-1]"]),
        (using(conv_transpose, (1, 1, 2), (1, 1, 2), stride=0), AttributeValueError, ["stride must be at least 1"]),
        (
            using(conv_transpose, (1, 1, 2), (1, 1, 2), stride=2, output_padding=2),
            AttributeValueError,
            ["output_padding [2]", "stride [2]", "dilation [1]"],
        ),
        (using(conv_transpose, (1, 1, 2), (1, 1, 2), output_padding=-1), AttributeValueError, ["[-1]"]),
        (
            using(conv_transpose, (1, 1, 2), (1, 1, 2), stride=2, output_padding=1, output_size=3),
            AttributeValueError,
            ["exclude each other"],
        ),
        (using(conv_transpose, (1, 1, 2), (1, 1, 2), padding="same!"), AttributeValueError, ["'same!'"]),
        (using(conv_transpose, (1, 1, 2), (1, 1, 2), output_size=(2, 2)), AttributeValueError, ["output_size has 2"]),
    ],
)
def test_conv_refuses(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_conv_refuses_mixed_and_bool_elements():
    with pytest.raises(DTypeError, match="f32, f64"):
        apply(conv, np.ones((1, 1, 2), np.float32), np.ones((1, 1, 2)))
    with pytest.raises(DTypeError, match="bool"):
        apply(conv_transpose, np.ones((1, 1, 2), bool), np.ones((1, 1, 2), bool))


def test_attributes_of_another_rank_are_refused():
    two = ConvTransposeAttributes((1, 1), (0, 0), (1, 1), 1, (3, 3))
    with pytest.raises(ShapeError, match="2 spatial axes, the input 1"):
        OPS["conv_transpose"].result_type(two, [tensor_type("f32", (1, 1, 3)), tensor_type("f32", (1, 1, 3))])
