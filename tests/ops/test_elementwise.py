"""Elementwise ops against math, SciPy and PyTorch, and their semantics at kinks, NaN and integer limits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from irconv.errors import AttributeValueError, DTypeError, ShapeError
from irconv.ops import elementwise as e
from tests.ops.evaluating import apply, gradients

X = np.array([-2.3, -0.4, 0.2, 0.9, 1.7])
ONES = np.ones(5)
SCALAR_FUNCTIONS = [
    (e.exp, math.exp, X),
    (e.expm1, math.expm1, X),
    (e.log, math.log, np.abs(X)),
    (e.log1p, math.log1p, np.abs(X)),
    (e.sqrt, math.sqrt, np.abs(X)),
    (e.rsqrt, lambda v: 1 / math.sqrt(v), np.abs(X)),
    (e.tanh, math.tanh, X),
    (e.sigmoid, lambda v: 1 / (1 + math.exp(-v)), X),
    (e.erf, math.erf, X),
    (e.sin, math.sin, X),
    (e.cos, math.cos, X),
    (e.floor, math.floor, X),
    (e.ceil, math.ceil, X),
    (e.round_, round, np.array([-1.5, -0.5, 0.5, 1.5, 2.4])),
    (e.sign, lambda v: math.copysign(1, v), X),
    (e.square, lambda v: v * v, X),
    (e.absolute, abs, X),
    (e.negative, lambda v: -v, X),
    (e.relu, lambda v: max(v, 0.0), X),
]


@pytest.mark.parametrize(("op", "oracle", "x"), SCALAR_FUNCTIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_values_are_those_of_the_math_module(op, oracle, x):
    np.testing.assert_allclose(apply(op, x), [oracle(v) for v in x], rtol=1e-14)


def test_power_remainder_and_division_follow_python():
    x, y = np.array([-7.5, 7.5, -1.0, 3.0]), np.array([2.0, -2.0, 3.0, 0.7])
    np.testing.assert_allclose(apply(e.remainder, x, y), [a % b for a, b in zip(x, y, strict=True)])
    np.testing.assert_allclose(apply(e.floor_divide, x, y), [a // b for a, b in zip(x, y, strict=True)])
    np.testing.assert_allclose(apply(e.power, np.abs(x), y), [abs(a) ** b for a, b in zip(x, y, strict=True)])


def test_equals_share_the_gradient_of_maximum_and_minimum():
    x, y = np.array([1.0, 2.0, 3.0]), np.array([1.0, 5.0, -1.0])
    for op, by_x in ((e.maximum, [0.5, 0, 1]), (e.minimum, [0.5, 1, 0])):
        dx, dy = gradients(op, np.ones(3), x, y)
        np.testing.assert_array_equal(dx, by_x)
        np.testing.assert_array_equal(dy, 1 - dx)


def test_nan_wins_in_maximum_and_takes_the_gradient():
    x, y = np.array([np.nan, 1.0]), np.array([2.0, np.nan])
    assert np.isnan(apply(e.maximum, x, y)).all()
    assert np.isnan(apply(e.minimum, x, y)).all()
    dx, dy = gradients(e.maximum, np.ones(2), x, y)
    np.testing.assert_array_equal((dx, dy), ([1, 0], [0, 1]))


def test_relu_has_derivative_zero_at_zero_and_keeps_nan():
    x = np.array([-1.0, 0.0, -0.0, 2.0, np.nan])
    np.testing.assert_array_equal(apply(e.relu, x), [0, 0, 0, 2, np.nan])
    np.testing.assert_array_equal(gradients(e.relu, np.ones(5), x)[0][:4], [0, 0, 0, 1])


def test_absolute_has_derivative_zero_at_zero():
    np.testing.assert_array_equal(gradients(e.absolute, np.ones(3), np.array([-2.0, 0.0, 2.0]))[0], [-1, 0, 1])


def test_clip_passes_the_gradient_at_its_bounds():
    x = np.array([-1.5, -1.0, 0.0, 2.0, 2.5, np.nan])
    np.testing.assert_array_equal(apply(lambda v: e.clip(v, -1, 2), x), [-1, -1, 0, 2, 2, np.nan])
    np.testing.assert_array_equal(gradients(lambda v: e.clip(v, -1, 2), np.ones(6), x)[0][:5], [0, 1, 1, 1, 0])


def test_clip_of_integers_keeps_inside_fractional_bounds():
    x = np.arange(-4, 5)
    np.testing.assert_array_equal(apply(lambda v: e.clip(v, -1.5, 2.5), x), np.clip(x, -1, 2))
    np.testing.assert_array_equal(apply(lambda v: e.clip(v, None, 2), x), np.minimum(x, 2))


def test_where_gives_no_gradient_to_the_side_not_taken():
    x = np.array([-1.0, 4.0])

    def safe_sqrt(v):
        return e.where(e.greater(v, 0), e.sqrt(e.where(e.greater(v, 0), v, 1)), 0)

    np.testing.assert_array_equal(gradients(safe_sqrt, np.ones(2), x)[0], [0, 0.25])
    chosen, other = gradients(lambda a, b: e.where(e.greater(a, 0), a, b), np.ones(2), x, np.full(2, np.nan))
    np.testing.assert_array_equal((chosen, other), ([0, 1], [1, 0]))


def test_power_gradients_at_zero():
    base, exponent = np.array([0.0, 0.0, 2.0]), np.array([0.0, 2.0, 3.0])
    by_base, by_exponent = gradients(e.power, np.ones(3), base, exponent)
    np.testing.assert_allclose(by_base, [0, 0, 12])
    np.testing.assert_allclose(by_exponent, [0, 0, 8 * math.log(2)])


def test_sigmoid_and_tanh_do_not_overflow():
    x = np.array([-1e4, 1e4, -np.inf, np.inf])
    np.testing.assert_array_equal(apply(e.sigmoid, x), [0, 1, 0, 1])
    np.testing.assert_array_equal(apply(e.sigmoid, x.astype(np.float32)), [0, 1, 0, 1])
    np.testing.assert_array_equal(apply(e.tanh, x), [-1, 1, -1, 1])


def test_float16_functions_round_once():
    x = np.linspace(0.01, 4, 200).astype(np.float16)
    for op, oracle in ((e.exp, np.exp), (e.log, np.log), (e.rsqrt, lambda v: 1 / np.sqrt(v)), (e.tanh, np.tanh)):
        np.testing.assert_array_equal(apply(op, x), oracle(x.astype(np.float64)).astype(np.float16))


def test_stop_gradient_and_comparisons_pass_nothing_back():
    x = np.array([0.5, 2.0])
    np.testing.assert_array_equal(gradients(lambda v: e.multiply(v, e.stop_gradient(v)), np.ones(2), x)[0], x)
    np.testing.assert_array_equal(gradients(lambda v: e.multiply(v, e.floor(v)), np.ones(2), x)[0], [0, 2])


def test_casts_round_trip_their_gradient():
    x = np.array([0.5, 2.25])
    (d,) = gradients(lambda v: e.cast(e.cast(v, "f32"), "f64"), np.array([1.0, 3.0]), x)
    np.testing.assert_array_equal(d, [1, 3])
    np.testing.assert_array_equal(apply(lambda v: e.cast(v, "i32"), np.array([-1.9, 1.9])), [-1, 1])
    np.testing.assert_array_equal(apply(lambda v: e.cast(v, "bool"), np.array([0.0, 0.1, np.nan])), [False, True, True])


def test_python_numbers_take_the_element_type_of_the_tensor():
    assert apply(lambda v: e.add(2.5, v), ONES.astype(np.float16)).dtype == np.float16
    assert apply(lambda v: e.subtract(1, v), np.arange(3)).dtype == np.int64


@pytest.mark.parametrize("op", [e.add, e.multiply, e.divide, e.maximum])
def test_broadcast_operands_get_summed_gradients(op):
    torch = pytest.importorskip("torch")
    x, y = np.linspace(-1, 1, 6).reshape(2, 1, 3) + 0.05, np.linspace(0.3, 2, 4).reshape(4, 1)
    d = np.random.default_rng(0).normal(size=(2, 4, 3))
    tx, ty = (torch.tensor(a, requires_grad=True) for a in (x, y))
    getattr(torch, op.__name__)(tx, ty).backward(torch.tensor(d))
    for found, expected in zip(gradients(op, d, x, y), (tx.grad, ty.grad), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("build", "arrays", "error", "message"),
    [
        (e.add, (np.zeros(2), np.zeros(2, np.float32)), DTypeError, "different element types: f64, f32"),
        (e.add, (np.zeros(2), np.zeros(3)), ShapeError, r"\[2\] and \[3\] do not broadcast"),
        (e.add, (np.zeros(2, bool), np.zeros(2, bool)), DTypeError, "needs numbers, got bool"),
        (e.exp, (np.arange(3),), DTypeError, "needs floating-point elements, got i64"),
        (e.divide, (np.arange(3), np.arange(3)), DTypeError, "needs floating-point elements"),
        (e.logical_not, (np.zeros(2),), DTypeError, "needs bool operands, got f64"),
        (e.where, (np.zeros(2), np.zeros(2), np.zeros(2)), DTypeError, "the condition of where is bool, got f64"),
        (lambda v: e.clip(v, 2, 1), (np.zeros(2),), AttributeValueError, "not in order: 2.0 > 1.0"),
        (lambda v: e.cast(v, "complex64"), (np.zeros(2),), DTypeError, "not an element type"),
        (lambda v: e.add(1, 2), (np.zeros(2),), DTypeError, "two plain numbers"),
        (e.power, (np.array([2]), np.array([-1])), DTypeError, "an integer to a negative power"),
    ],
)
def test_bad_input_is_explained(build, arrays, error, message):
    with pytest.raises(error, match=message):
        apply(build, *arrays)
