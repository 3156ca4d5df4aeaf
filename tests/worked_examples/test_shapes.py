"""Shapes: what each layer makes of its input, and that the values are those of the definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import irconv
import irconv.nn.functional as F
from irconv import TensorSpec, nn
from irconv.cost import graph_cost
from irconv.errors import AttributeValueError
from tests.differences import central_differences
from tests.ops import window_oracles as oracle
from tests.worked_examples.ways import backward, check, check_gradients, check_shape, f32, f64, normal, shape_of

# --- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "shrink"), [(3, 2), (5, 4)])
def test_plain_convolution_shrinks_by_its_kernel_less_one(kernel: int, shrink: int) -> None:
    check_shape(nn.Conv2d(1, 2, kernel), (1, 1, 12, 9), (1, 2, 12 - shrink, 9 - shrink))


def test_stride_2_with_padding_1_halves() -> None:
    check_shape(nn.Conv2d(3, 16, 3, stride=2, padding=1), (1, 3, 64, 64), (1, 16, 32, 32))
    check_shape(nn.Conv2d(3, 16, 3, stride=2, padding=1), (3, 64, 64), (16, 32, 32))


@pytest.mark.parametrize(("kernel", "length"), [(3, 62), (5, 60)])
def test_conv1d(kernel: int, length: int) -> None:
    conv = nn.Conv1d(2, 16, kernel)
    assert conv.weight.shape == (16, 2, kernel) and conv.bias.shape == (16,)
    check_shape(conv, (1, 2, 64), (1, 16, length))


def test_conv2d_with_a_kernel_of_two_sizes() -> None:
    conv = nn.Conv2d(20, 16, (3, 5))
    assert conv.weight.shape == (16, 20, 3, 5)
    check_shape(conv, (1, 20, 64, 128), (1, 16, 62, 124))
    check_shape(nn.Conv2d(20, 16, (3, 5), 1, (1, 2)), (1, 20, 64, 128), (1, 16, 64, 128))


@pytest.mark.parametrize(
    ("kernel", "padding", "stride", "size"),
    [(3, 1, 1, (8, 8)), ((5, 3), (2, 1), 1, (8, 8)), (3, 1, 2, (4, 4)), ((3, 5), (0, 1), (3, 4), (2, 2))],
)
def test_kernel_padding_and_stride_on_8x8(kernel, padding, stride, size) -> None:
    check_shape(nn.Conv2d(1, 1, kernel, padding=padding, stride=stride), (1, 1, 8, 8), (1, 1, *size))


def test_formula_of_the_size() -> None:
    for n, k, p, s in itertools.product((7, 8, 12), (1, 2, 3, 5), (0, 1, 2, 3, 4), (1, 2, 3, 4)):
        total = [(p // 2, p - p // 2)]
        found = shape_of(lambda x, w, s=s, total=total: F.conv1d(x, w, stride=s, padding=total), (1, 1, n), (1, 1, k))[2]
        assert found == (n - k + p + s) // s
        if p == k - 1:
            assert found == (n + s - 1) // s
            if n % s == 0:
                assert found == n // s


def test_many_layers() -> None:
    check_shape(nn.Sequential(*(nn.Conv2d(1, 1, 5, bias=False) for _ in range(55))), (1, 1, 224, 224), (1, 1, 4, 4))
    check_shape(nn.Sequential(*(nn.Conv2d(1, 1, 3, 2, 1) for _ in range(5))), (1, 1, 224, 224), (1, 1, 7, 7))


# --- padding by name ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (2, 1), (3, 1), (4, 1), (3, 2), (2, 3), (5, 2)])
def test_same_keeps_the_size_and_valid_pads_nothing(kernel: int, dilation: int) -> None:
    same = nn.Conv2d(1, 1, kernel, padding="same", dilation=dilation)
    check_shape(same, (1, 1, 9, 10), (1, 1, 9, 10))
    reach = dilation * (kernel - 1)
    valid = nn.Conv2d(1, 1, kernel, padding="valid", dilation=dilation)
    check_shape(valid, (1, 1, 9, 10), (1, 1, 9 - reach, 10 - reach))
    if kernel % 2:
        by_number = nn.Conv2d(1, 1, kernel, padding=reach // 2, dilation=dilation)
        by_number.load_state_dict(same.state_dict())
        x = normal(1, 1, 9, 10, dtype=np.float32)
        check(by_number, x, expected=same(irconv.tensor(x)).numpy(), rtol=1e-5, atol=1e-6)


def test_even_kernels_put_the_odd_element_after_or_before() -> None:
    x, ones = f32([[[1, 2, 3, 4, 5]]]), np.ones((1, 1, 2), np.float32)
    check(lambda x: F.conv1d(x, ones, padding="same"), x, expected=[[[3, 5, 7, 9, 5]]])
    check(lambda x: F.conv1d(x, ones, padding="same_upper"), x, expected=[[[3, 5, 7, 9, 5]]])
    check(lambda x: F.conv1d(x, ones, padding="same_lower"), x, expected=[[[1, 3, 5, 7, 9]]])
    with pytest.raises(AttributeValueError, match="same"):
        F.conv1d(irconv.tensor(x), irconv.tensor(ones), stride=2, padding="same")


# --- without a batch ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_unbatched_input_gives_unbatched_output(rank: int) -> None:
    conv, transposed, pool = (
        (nn.Conv1d, nn.ConvTranspose1d, nn.MaxPool1d),
        (nn.Conv2d, nn.ConvTranspose2d, nn.AvgPool2d),
        (nn.Conv3d, nn.ConvTranspose3d, nn.MaxPool3d),
    )[rank - 1]
    x = normal(2, *(5, 6, 7)[:rank], dtype=np.float32)
    for layer in (conv(2, 3, 3), transposed(2, 3, 3), pool(2)):
        batched = layer(irconv.tensor(x[None])).numpy()
        check(layer, x, expected=batched[0], rtol=1e-5, atol=1e-6)


# --- strides larger than the kernel --------------------------------------------------------------------------------------


def test_pixels_between_windows_have_gradient_exactly_zero() -> None:
    x, w = normal(1, 1, 8, 9), normal(1, 1, 2, 2)
    check_shape(nn.Conv2d(1, 1, 2, stride=3), (1, 1, 8, 9), (1, 1, 3, 3))
    by_x = np.zeros((1, 1, 8, 9))
    for i, j in itertools.product(range(0, 7, 3), range(0, 8, 3)):
        by_x[..., i : i + 2, j : j + 2] = w[0, 0]
    by_w = [[[[x[0, 0, i::3, j::3][:3, :3].sum() for j in (0, 1)] for i in (0, 1)]]]
    check_gradients(lambda x, w: F.conv2d(x, w, stride=3).sum(), x, w, expected=[by_x, by_w], rtol=1e-12, atol=1e-15)
    by_x = backward(lambda x: F.conv2d(x, w, stride=3).sum(), x)[0][0, 0]
    assert (by_x[2::3] == 0).all() and (by_x[:, 2::3] == 0).all()


# --- transposed convolution ------------------------------------------------------------------------------------------------


def test_transposed_convolution_inverts_the_shape() -> None:
    for n, k, s, p, d in itertools.product((5, 6, 9, 10), (1, 2, 3), (1, 2, 3), (0, 1), (1, 2)):
        if n + 2 * p < d * (k - 1) + 1 or p > d * (k - 1):
            continue
        conv, transposed = nn.Conv1d(1, 1, k, s, p, d), nn.ConvTranspose1d(1, 1, k, s, p, dilation=d)
        small = shape_of(conv, (1, 1, n))[2]
        lost = (n + 2 * p - d * (k - 1) - 1) % s
        back = shape_of(transposed, (1, 1, small))[2]
        assert back == n - lost
        if lost < max(s, d):
            exact = nn.ConvTranspose1d(1, 1, k, s, p, lost, dilation=d)
            assert shape_of(exact, (1, 1, small))[2] == n


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_output_padding_tells_apart_the_inputs_that_share_an_output_size(stride: int) -> None:
    conv = nn.Conv1d(1, 1, 3, stride, 1)
    sizes = {shape_of(conv, (1, 1, n))[2] for n in range(1 + 4 * stride, 1 + 5 * stride)}
    assert len(sizes) == 1
    back = [shape_of(nn.ConvTranspose1d(1, 1, 3, stride, 1, extra), (1, 1, *sizes))[2] for extra in range(stride)]
    assert back == list(range(1 + 4 * stride, 1 + 5 * stride))


FIGURES = {
    "3x3 on 5x5": (5, 3, 1, 0, 1, 3),
    "padding (1,1)": (5, 3, 1, 1, 1, 5),
    "padding 2, kernel 4": (5, 4, 1, 2, 1, 6),
    "full padding": (5, 3, 1, 2, 1, 7),
    "stride (2,2)": (5, 3, 2, 0, 1, 2),
    "stride 2, padding 1": (5, 3, 2, 1, 1, 3),
    "stride 2, padding 1, odd": (6, 3, 2, 1, 1, 3),
    "dilation 2": (7, 3, 1, 0, 2, 3),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_convolution_arithmetic(name: str) -> None:
    n, k, s, p, d, size = FIGURES[name]
    x, w = normal(1, 1, n, n), normal(1, 1, k, k)
    expected = oracle.conv(x, w, (s, s), ((p, p),) * 2, (d, d), 1)
    assert expected.shape[2:] == (size, size)
    check(lambda x, w: F.conv2d(x, w, None, s, p, d), x, w, expected=expected, rtol=1e-12, atol=1e-12)

    y, extra = normal(1, 1, size, size, seed=1), (n + 2 * p - d * (k - 1) - 1) % s
    expected = oracle.conv_transpose(y, w, (s, s), (p, p), (d, d), 1, (n, n))
    check(lambda y, w: F.conv_transpose2d(y, w, None, s, p, extra, 1, d), y, w, expected=expected, rtol=1e-12, atol=1e-12)


# --- dilation --------------------------------------------------------------------------------------------------------------


def test_dilated_kernel_acts_as_one_with_zeros_between() -> None:
    x, w, spread = normal(1, 1, 9), f64([[[1, 2, 3]]]), f64([[[1, 0, 2, 0, 3]]])
    expected = F.conv1d(irconv.tensor(x), irconv.tensor(spread)).numpy()
    check(lambda x, w: F.conv1d(x, w, dilation=2), x, w, expected=expected, rtol=1e-12, atol=1e-12)
    d = normal(*expected.shape, seed=1)
    by_x, by_spread = backward(lambda x, w: (F.conv1d(x, w) * d).sum(), x, spread)
    check_gradients(
        lambda x, w: (F.conv1d(x, w, dilation=2) * d).sum(), x, w, expected=[by_x, by_spread[..., ::2]], rtol=1e-12, atol=1e-12
    )


def test_dilated_kernel_stores_no_zeros() -> None:
    conv = nn.Conv2d(1, 1, 3, dilation=100, bias=False)
    assert conv.weight.size == 9
    graph = irconv.trace(conv, TensorSpec((1, 1, 201, 201)))
    cost = graph_cost(graph)
    assert (cost.parameter_bytes, cost.constant_bytes, cost.activation_bytes) == (36, 0, 4)
    exe = irconv.compile(conv, TensorSpec((1, 1, 201, 201)), backend="numpy")
    assert exe.memory.arena_bytes < 1000  # spread out, the kernel alone would take 161,604 bytes


# --- groups ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_split_convolve_and_concatenate(groups: int) -> None:
    x, conv = normal(2, 4, 6, 7, dtype=np.float32), nn.Conv2d(4, 8, 3, groups=groups)
    assert conv.weight.shape == (8, 4 // groups, 3, 3)
    weight, bias = conv.weight.numpy(), conv.bias.numpy()
    parts = zip(np.split(x, groups, 1), np.split(weight, groups), np.split(bias, groups), strict=True)
    expected = np.concatenate([F.conv2d(*map(irconv.tensor, part)).numpy() for part in parts], 1)
    check(conv, x, expected=expected, rtol=1e-5, atol=1e-5)

    whole, grouped = (
        graph_cost(irconv.trace(nn.Conv2d(4, 8, 3, groups=g, bias=False), TensorSpec(x.shape))) for g in (1, groups)
    )
    assert grouped.parameters * groups == whole.parameters and grouped.flops * groups == whole.flops


def test_groups_must_divide_both_counts() -> None:
    for channels in ((3, 4), (4, 3)):
        with pytest.raises(AttributeValueError, match="group"):
            nn.Conv2d(*channels, 3, groups=2)


def test_depthwise_with_a_multiplier() -> None:
    x, conv = normal(1, 3, 6, 6, dtype=np.float32), nn.Conv2d(3, 6, 3, groups=3, bias=False)
    assert conv.weight.shape == (6, 1, 3, 3)
    w = conv.weight.numpy()
    expected = np.concatenate([oracle.conv(x[:, o // 2, None], w[o, None], (1, 1), ((0, 0),) * 2, (1, 1), 1) for o in range(6)], 1)
    check(conv, x, expected=expected, rtol=1e-5, atol=1e-5)


# --- padding modes -----------------------------------------------------------------------------------------------------------

NUMPY_MODES = {
    "constant": {"mode": "constant"},
    "one": {"mode": "constant", "constant_values": 1},
    "reflect": {"mode": "reflect"},
    "replicate": {"mode": "edge"},
    "circular": {"mode": "wrap"},
    "mean": {"mode": "mean"},
}


@pytest.mark.parametrize("mode", NUMPY_MODES)
def test_padding_modes(mode: str) -> None:
    def pad(x):
        return F.pad(x, (1, 2, 3, 0), "constant", 1.0) if mode == "one" else F.pad(x, (1, 2, 3, 0), mode)

    x = normal(1, 2, 4, 3)
    widths = ((0, 0), (0, 0), (3, 0), (1, 2))
    check(pad, x, expected=np.pad(x, widths, **NUMPY_MODES[mode]), rtol=1e-14, atol=1e-15)
    d = normal(1, 2, 7, 6, seed=1)
    expected = central_differences(lambda x: float((np.pad(x, widths, **NUMPY_MODES[mode]) * d).sum()), [x], 0)
    check_gradients(lambda x: (pad(x) * d).sum(), x, expected=[expected], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular", "mean"])
def test_padding_modes_of_a_convolution(mode: str) -> None:
    x, conv = normal(1, 2, 5, 6), nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode=mode).double()
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (2, 2)), **NUMPY_MODES["constant" if mode == "zeros" else mode])
    weight, bias = conv.weight.numpy(), conv.bias.numpy()

    def plain(x):
        return oracle.conv(x, weight, (1, 1), ((0, 0),) * 2, (1, 1), 1) + bias[:, None, None]

    check(conv, x, expected=plain(padded), rtol=1e-12, atol=1e-12)
    d = normal(1, 3, 5, 8, seed=1)
    expected = central_differences(lambda x: float((conv(irconv.tensor(x)).numpy() * d).sum()), [x], 0)
    check_gradients(lambda x: (conv(x) * d).sum(), x, expected=[expected], rtol=1e-6, atol=1e-8)


# --- other ranks and layouts ---------------------------------------------------------------------------------------------------


def test_conv3d_whose_kernel_is_as_deep_as_the_input_is_conv2d_over_channels() -> None:
    x, w = normal(2, 3, 4, 5, 6), normal(2, 3, 4, 3, 3)  # three channels, depth 4
    expected = F.conv2d(irconv.tensor(x.reshape(2, 12, 5, 6)), irconv.tensor(w.reshape(2, 12, 3, 3))).numpy()
    check(F.conv3d, x, w, expected=expected[:, :, None], rtol=1e-12, atol=1e-12)
    # a shallower kernel moves along the depth, which no Conv2d over channels does
    assert shape_of(F.conv3d, (2, 3, 4, 5, 6), (2, 3, 2, 3, 3)) == (2, 2, 3, 3, 4)


def test_nchw_and_nhwc_agree() -> None:
    x, w = normal(2, 6, 5, 3), normal(3, 2, 3, 4)  # [N,H,W,C] and [kh,kw,C,O]
    expected = np.zeros((2, 4, 4, 4))
    for i, j in np.ndindex(3, 2):
        expected += np.einsum("nhwc,co->nhwo", x[:, i : i + 4, j : j + 4], w[i, j])

    def nhwc(x, w):
        y = F.conv2d(np.transpose(x, (0, 3, 1, 2)), np.transpose(w, (3, 2, 0, 1)))
        return np.transpose(y, (0, 2, 3, 1))

    check(nhwc, x, w, expected=expected, rtol=1e-12, atol=1e-12)
    d = normal(2, 4, 4, 4, seed=1)
    by_x, by_w = backward(lambda x, w: (F.conv2d(x, w) * d.transpose(0, 3, 1, 2)).sum(), x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1))
    expected = [by_x.transpose(0, 2, 3, 1), by_w.transpose(2, 3, 1, 0)]
    check_gradients(lambda x, w: (nhwc(x, w) * d).sum(), x, w, expected=expected, rtol=1e-12, atol=1e-12)
    assert_allclose(nhwc(irconv.tensor(x[:, ::-1]), irconv.tensor(w[::-1])).numpy()[:, ::-1], nhwc(irconv.tensor(x), irconv.tensor(w)).numpy())
    assert_array_equal(np.transpose(irconv.tensor(x), (0, 3, 1, 2)).numpy(), x.transpose(0, 3, 1, 2))
