"""matmul, im2col and col2im against NumPy, loops and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from irconv.builder import Builder
from irconv.errors import AttributeValueError, DTypeError, ShapeError
from irconv.graph import Graph
from irconv.op import OPS, Work
from irconv.ops.contract import Im2colAttributes, col2im, im2col, matmul
from irconv.types import tensor_type, type_of
from tests.ops import window_oracles as oracle
from tests.ops.evaluating import apply, gradients
from tests.ops.window_strategies import Window, random, windows
from tests.samples.contract import COL2IM, IM2COL


def tolerance(dtype: np.dtype) -> float:
    return {"float16": 2e-2, "float32": 1e-5}.get(dtype.name, 1e-12)


# --- matmul ----------------------------------------------------------------------------------------------------------

MATMULS = [
    ((3, 4), (4, 2)),
    ((5,), (5,)),
    ((3,), (3, 2)),
    ((2, 3), (3,)),
    ((3,), (2, 3, 4)),
    ((2, 4, 3), (3,)),
    ((2, 3, 4), (4, 5)),
    ((3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (5, 4, 2)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
    ((0, 2, 3), (3, 2)),
    ((2, 0, 3), (2, 3, 1)),
]


@pytest.mark.parametrize(("left", "right"), MATMULS)
def test_matmul_is_numpys(left, right):
    x, y = random(left), random(right, 1)
    result = apply(matmul, x, y)
    assert result.shape == np.matmul(x, y).shape
    np.testing.assert_allclose(result, np.matmul(x, y), rtol=1e-12)


@pytest.mark.parametrize(("left", "right"), MATMULS)
def test_matmul_gradient_is_the_adjoint(left, right):
    """The gradient of a bilinear map: <d, f(dx, y)> = <by_x, dx> for every dx, and likewise for y."""
    x, y = random(left), random(right, 1)
    d = random(np.matmul(x, y).shape, 2)
    by_x, by_y = gradients(matmul, d, x, y)
    dx, dy = random(left, 3), random(right, 4)
    assert (by_x.shape, by_y.shape) == (x.shape, y.shape)
    np.testing.assert_allclose((by_x * dx).sum(), (d * np.matmul(dx, y)).sum(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose((by_y * dy).sum(), (d * np.matmul(x, dy)).sum(), rtol=1e-10, atol=1e-12)


def test_matmul_accumulates_float16_in_float32():
    ones = np.ones((1, 4096), np.float16)
    assert apply(matmul, ones, ones.T) == 4096  # in float16 the sum would stop at 2048


def test_matmul_of_strided_operands():
    x, y = random((4, 6))[::-1, ::2], random((5, 3)).T
    np.testing.assert_allclose(apply(matmul, x, y), x @ y, rtol=1e-12)


@pytest.mark.parametrize(
    ("left", "right", "error", "words"),
    [
        (np.ones((2, 3)), np.ones((4, 2)), ShapeError, ["[2, 3]", "[4, 2]", "3 columns", "4 rows"]),
        (np.ones((2, 2, 3)), np.ones((3, 3, 2)), ShapeError, ["[2]", "[3]", "do not broadcast"]),
        (np.ones(3), np.ones(4), ShapeError, ["3 columns", "4 rows"]),
        (np.ones(()), np.ones(4), ShapeError, ["scalar", "x * y"]),
        (np.ones((2, 2)), np.ones((2, 2), np.float32), DTypeError, ["f64, f32"]),
        (np.ones((2, 2), bool), np.ones((2, 2), bool), DTypeError, ["bool"]),
    ],
)
def test_matmul_refuses(left, right, error, words):
    with pytest.raises(error) as caught:
        apply(matmul, left, right)
    assert all(word in str(caught.value) for word in words)


def test_matmul_operands_of_the_op_are_matrices():
    op = OPS["matmul"]
    with pytest.raises(ShapeError, match="ranks 1 and 2"):
        op.result_type(op.attributes(), [tensor_type("f32", (3,)), tensor_type("f32", (3, 2))])


def test_matmul_counts_multiply_adds():
    op = OPS["matmul"]
    operands = (tensor_type("f32", (7, 3, 4)), tensor_type("f32", (4, 5)))
    work = op.cost(op.attributes(), operands, op.result_type(op.attributes(), operands))
    assert work == Work(macs=7 * 3 * 4 * 5, flops=2 * 7 * 3 * 4 * 5)


# --- im2col, col2im --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", IM2COL, ids=lambda s: s.id)
def test_im2col_is_the_loops(sample):
    a, (x,) = sample.attributes, sample.operands
    result = OPS["im2col"].reference(a, x)
    assert result.dtype == x.dtype
    np.testing.assert_array_equal(result, oracle.im2col(x, a.kernel, a.stride, a.padding, a.dilation, a.groups))


@pytest.mark.parametrize("sample", COL2IM, ids=lambda s: s.id)
def test_col2im_is_the_loops(sample):
    a, (columns,) = sample.attributes, sample.operands
    result = OPS["col2im"].reference(a, columns)
    expected = oracle.col2im(
        columns, a.batch, a.channels, a.size, a.kernel, a.stride, a.padding, a.dilation, a.groups
    )
    assert result.dtype == columns.dtype
    np.testing.assert_allclose(result, expected, rtol=tolerance(result.dtype), atol=tolerance(result.dtype))


@settings(max_examples=60, deadline=None)
@given(windows())
def test_im2col_and_col2im_are_adjoint(window: Window):
    parameters = (window.kernel, window.stride, window.padding, window.dilation, window.groups)
    x = random(window.shape)
    columns = apply(lambda v: im2col(v, *parameters), x)
    np.testing.assert_array_equal(columns, oracle.im2col(x, *parameters))
    d = random(columns.shape, 1)
    (by_x,) = gradients(lambda v: im2col(v, *parameters), d, x)
    folded = apply(lambda v: col2im(v, window.batch, window.shape[1], window.size, *parameters), d)
    np.testing.assert_allclose((columns * d).sum(), (x * folded).sum(), rtol=1e-9, atol=1e-10)
    np.testing.assert_array_equal(by_x, folded)
    (by_d,) = gradients(lambda v: col2im(v, window.batch, window.shape[1], window.size, *parameters), x, d)
    np.testing.assert_array_equal(by_d, columns)


def test_im2col_of_a_line_is_the_band_of_shifted_copies():
    x = np.arange(1.0, 6).reshape(1, 1, 5)
    expected = [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 0]]
    np.testing.assert_array_equal(apply(lambda v: im2col(v, 3, padding=1), x), [expected])


def test_im2col_orders_columns_by_channel_then_tap():
    x = np.arange(2.0 * 2 * 2).reshape(1, 2, 2, 2)
    np.testing.assert_array_equal(apply(lambda v: im2col(v, 2), x), [[[0, 1, 2, 3, 4, 5, 6, 7]]])
    np.testing.assert_array_equal(apply(lambda v: im2col(v, 2, groups=2), x), [[[0, 1, 2, 3]], [[4, 5, 6, 7]]])


@pytest.mark.parametrize("stride", [1, (2, 3)])
@pytest.mark.parametrize("padding", [0, (1, 2)])
@pytest.mark.parametrize("dilation", [1, (1, 2)])
def test_im2col_transposed_is_pytorchs_unfold(stride, padding, dilation):
    torch = pytest.importorskip("torch")
    x = random((1, 2, 6, 7))
    unfolded = torch.nn.functional.unfold(torch.tensor(x), (3, 2), dilation, padding, stride).numpy()
    columns = apply(lambda v: im2col(v, (3, 2), stride, padding, dilation), x)
    np.testing.assert_array_equal(columns[0].T, unfolded[0])
    folded = torch.nn.functional.fold(torch.tensor(unfolded), (6, 7), (3, 2), dilation, padding, stride).numpy()
    result = apply(lambda v: col2im(v, 1, 2, (6, 7), (3, 2), stride, padding, dilation), columns)
    np.testing.assert_allclose(result, folded, rtol=1e-12)


def test_col2im_accumulates_float16_in_float32():
    columns = np.ones((1, 3000, 3000), np.float16)
    result = apply(lambda v: col2im(v, 1, 1, (5999,), 3000), columns)
    assert result[0, 0, 2999] == 3000  # in float16 the sum would stop at 2048


def test_windows_of_any_strides_and_of_an_empty_batch():
    x = random((4, 2, 6, 6))[::-1, :, ::-2, 1:5]
    assert x.strides[0] < 0
    assert not x.flags.c_contiguous
    parameters = ((2, 2), (1, 1), ((0, 0), (1, 0)), (1, 1), 1)
    np.testing.assert_array_equal(apply(lambda v: im2col(v, *parameters), x), oracle.im2col(x, *parameters))
    assert apply(lambda v: im2col(v, 2), np.ones((0, 3, 4, 4))).shape == (1, 0, 12)
    assert apply(lambda v: col2im(v, 0, 3, (4, 4), 2), np.ones((1, 0, 12))).shape == (0, 3, 4, 4)


def im2col_of(shape, *arguments, **named):
    return lambda: apply(lambda v: im2col(v, *arguments, **named), np.ones(shape))


def col2im_of(shape, *arguments, **named):
    return lambda: apply(lambda v: col2im(v, *arguments, **named), np.ones(shape))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (im2col_of((2, 3), 2), ShapeError, ["[batch, channels, *spatial]", "[2, 3]"]),
        (im2col_of((1, 1, 3), 4), ShapeError, ["axis 0", "3 elements", "spans 4"]),
        (im2col_of((1, 1, 5), 3, dilation=3), ShapeError, ["spans 7", "3 taps", "dilation 3"]),
        (im2col_of((1, 1, 5), 1, padding=((-3, -2),)), ShapeError, ["padding -3 before and -2 after"]),
        (im2col_of((1, 1, 0), 1, padding=2), ShapeError, ["no elements"]),
        (im2col_of((1, 0, 5), 1), ShapeError, ["at least one", "input channels"]),
        (im2col_of((1, 3, 5), 1, groups=2), AttributeValueError, ["groups=2", "3 input channels"]),
        (im2col_of((1, 3, 5), 1, groups=0), AttributeValueError, ["groups", "got 0"]),
        (im2col_of((1, 3, 5), 1, groups=1.5), AttributeValueError, ["groups must be an integer", "1.5"]),
        (im2col_of((1, 1, 5), 0), AttributeValueError, ["kernel must be at least 1", "[0]"]),
        (im2col_of((1, 1, 5), 1, stride=0), AttributeValueError, ["stride must be at least 1"]),
        (im2col_of((1, 1, 5), 1, stride=-1), AttributeValueError, ["stride must be at least 1", "[-1]"]),
        (im2col_of((1, 1, 5), 1, dilation=0), AttributeValueError, ["dilation must be at least 1"]),
        (im2col_of((1, 1, 5, 5), (1, 1, 1)), AttributeValueError, ["kernel has 3 values", "2 spatial axes"]),
        (im2col_of((1, 1, 5, 5), 2.0), AttributeValueError, ["kernel must be an integer", "2.0"]),
        (im2col_of((1, 1, 5), "3"), AttributeValueError, ["kernel must be an integer", "'3'"]),
        (im2col_of((1, 1, 5), 1, padding="full"), AttributeValueError, ["'full'", "valid, same"]),
        (im2col_of((1, 1, 5, 5), 1, padding=((1, 1),)), AttributeValueError, ["padding", "2 spatial axes"]),
        (im2col_of((1, 1, 5), 1, padding=((1, 2, 3),)), AttributeValueError, ["(before, after)"]),
        (im2col_of((1, 1, 5), 1, padding=2**40), AttributeValueError, ["2^31"]),
        (im2col_of((1, 1, 5), 1, padding=1.5), AttributeValueError, ["padding must be an integer", "1.5"]),
        (col2im_of((1, 4, 2), 1, 1, (4,), 2), ShapeError, ["[1, 1, 4]", "[1, 3, 2]", "[1, 4, 2]"]),
        (col2im_of((1, 4, 2), -1, 1, (4,), 2), AttributeValueError, ["batch", "-1"]),
        (col2im_of((1, 4, 2), 1, 1, (0,), 2), AttributeValueError, ["size must be at least 1"]),
        (col2im_of((1, 4, 2), 1, "2", (4,), 2), AttributeValueError, ["channels must be an integer"]),
    ],
)
def test_windows_refuse(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_col2im_refuses_bool():
    with pytest.raises(DTypeError, match="bool"):
        apply(lambda v: col2im(v, 1, 1, (4,), 2), np.ones((1, 3, 2), bool))


def test_window_parameters_agree_on_their_number_of_axes():
    with pytest.raises(AttributeValueError, match="kernel 2, stride 1"):
        Im2colAttributes((1, 1), (1,), ((0, 0),), (1,), 1)
    op = OPS["im2col"]
    with pytest.raises(ShapeError, match="1 spatial axes, the input 2"):
        op.result_type(Im2colAttributes((1,), (1,), ((0, 0),), (1,), 1), [tensor_type("f32", (1, 1, 4, 4))])


def test_numpy_integers_become_python_integers():
    builder = Builder(Graph())
    x = builder.input("x", type_of(np.ones((1, 2, 4))))
    result = im2col(x, np.int64(2), np.array([1]), np.array([[1, 0]]), np.uint8(1), np.int32(2))
    node = builder.graph[result.id]
    assert node.attributes == Im2colAttributes((2,), (1,), ((1, 0),), (1,), 2)
    assert type(node.attributes.groups) is int
    assert type(node.attributes.padding[0][0]) is int
