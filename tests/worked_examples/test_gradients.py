"""Gradients: the lecture's numbers define-by-run, from the joint graph, and compiled; functions, custom rules, second derivatives."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import irconv
import irconv.nn.functional as F
from irconv import TensorSpec
from irconv.autograd import graph_of
from irconv.errors import GradientError, TraceError
from tests.differences import central_differences
from tests.worked_examples.ways import check, check_gradients, f32, f64, normal

# --- the recorded graph ------------------------------------------------------------------------------------------------


def scaled_square(x):
    a = (3 * (x - 2) ** 2).mean()
    return a


def test_mean_of_a_scaled_square() -> None:
    x = f32([[1, 2], [3, 4]])
    check(scaled_square, x, expected=np.float32(4.5))
    check_gradients(scaled_square, x, expected=[f32([[-1.5, 0], [1.5, 3]])])


def test_the_recorded_graph_leads_back_to_the_input() -> None:
    x = irconv.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    a = scaled_square(x)
    ops, current = [], a
    while current.op is not None:
        ops.append(current.op)
        current = next(operand for operand in current.operands if operand.requires_grad)
    assert ops == ["mean", "multiply", "square", "subtract"] and current is x
    for graph in (graph_of(a), irconv.trace(scaled_square, TensorSpec((2, 2)))):
        assert [node.op.name for node in graph if not node.is_leaf] == ops[::-1]


def test_data_dependent_control_flow() -> None:
    def doubled(x):
        y, times = x * 2, 0
        while np.sqrt((y * y).sum().item()) < 1000:
            y, times = y * 2, times + 1
        return y, times

    x = irconv.tensor([0.6, -0.8, 1.0], requires_grad=True)
    y, times = doubled(x)
    assert times == 9
    y.backward([0.1, 1, 0.0001])
    assert_allclose(x.grad.numpy(), [102.4, 1024, 0.1024], rtol=1e-6)
    with pytest.raises(TraceError, match="define|concrete"):  # a trace has no data to decide on, and says what to do
        irconv.trace(doubled, TensorSpec((3,)))


# --- what is tracked ---------------------------------------------------------------------------------------------------

W, X = f64([1, 2, 3]), f64([4, 5, 6])


def product(w, x):
    z = w @ x
    return z


def test_product_with_both_tracked() -> None:
    check(product, W, X, expected=np.float64(32))
    check_gradients(product, W, X, expected=[X, W])


@pytest.mark.parametrize(("of_w", "of_x"), [(True, True), (True, False), (False, True)])
def test_gradients_accumulate_in_what_is_tracked(of_w: bool, of_x: bool) -> None:
    w, x = irconv.tensor(W, requires_grad=of_w), irconv.tensor(X, requires_grad=of_x)
    for times in (1, 2, 3):
        product(w, x).backward()
        for leaf, tracked, gradient in ((w, of_w, X), (x, of_x, W)):
            if tracked:
                assert_array_equal(leaf.grad.numpy(), times * gradient)
            else:
                assert leaf.grad is None


def test_only_the_wanted_gradient_is_computed() -> None:
    assert_array_equal(irconv.grad(product, 0)(W, X).numpy(), X)
    assert_array_equal(irconv.grad(product, 1)(W, X).numpy(), W)
    joint = irconv.differentiate(irconv.trace(product, W, X), wrt=["w"])
    assert list(joint.outputs) == ["", "d_w"]


def test_nothing_tracked_is_a_clear_error() -> None:
    with pytest.raises(GradientError, match="no gradient flows through") as caught:
        product(irconv.tensor(W), irconv.tensor(X)).backward()
    assert "requires_grad=True" in str(caught.value) and "test_gradients.py" in str(caught.value)
    w = irconv.tensor(W, requires_grad=True)
    with irconv.no_grad():
        z = product(w, irconv.tensor(X))
    assert not z.requires_grad
    with pytest.raises(GradientError, match="no_grad"):
        z.backward()


# --- reductions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [
        ("sum", [1, 1, 1, 1, 1]),
        ("mean", [0.2, 0.2, 0.2, 0.2, 0.2]),
        ("max", [0, 1, 0, 0, 0]),
        ("min", [1, 0, 0, 0, 0]),
    ],
)
def test_gradients_of_reductions(reduce: str, expected: list) -> None:
    x = f64([1, 5, 2, 5, 1])
    check_gradients(lambda x: getattr(x, reduce)(), x, expected=[f64(expected)])
    rows = f64([[1, 5, 2, 5, 1]] * 2) + f64([[0], [7]])
    check_gradients(lambda x: getattr(x, reduce)(axis=1).sum(), rows, expected=[f64([expected] * 2)])


def test_extremum_by_index_or_by_mask() -> None:
    x, first = f64([1, 5, 2, 5, 1]), f64([0, 1, 0, 0, 0])
    check_gradients(lambda x: np.take(x, x.argmax()[None]).sum(), x, expected=[first])
    check_gradients(lambda x: (x * (np.arange(5) == x.argmax())).sum(), x, expected=[first])
    check_gradients(lambda x: irconv.where(x == x.max(), x, 0).sum() / 2, x, expected=[f64([0, 0.5, 0, 0.5, 0])])


# --- custom functions --------------------------------------------------------------------------------------------------


class Add(irconv.Function):
    """x + y: a gradient of 1 to each side."""

    @staticmethod
    def forward(context, x, y):
        return x + y

    @staticmethod
    def backward(context, d):
        return d, d


class Split(irconv.Function):
    """x twice: the gradients of the two are summed."""

    @staticmethod
    def forward(context, x):
        return x * 1, x * 1

    @staticmethod
    def backward(context, first, second):
        return first + second


class Max(irconv.Function):
    """The largest element: one-hot at the argmax, whose place is saved."""

    @staticmethod
    def forward(context, x):
        context.save(x.argmax())
        context.size = x.size
        return x.max()

    @staticmethod
    def backward(context, d):
        (place,) = context.saved
        return irconv.where(np.arange(context.size) == place, d, 0)


def test_custom_add() -> None:
    check(Add.apply, W, X, expected=W + X)
    check_gradients(lambda w, x: Add.apply(w, x).sum(), W, X, expected=[np.ones(3), np.ones(3)])


def test_custom_split() -> None:
    def program(x):
        first, second = Split.apply(x)
        return (2 * first + 5 * second).sum()

    check(Split.apply, X, expected=(X, X))
    check_gradients(program, X, expected=[f64([7, 7, 7])])
    check_gradients(lambda x: Split.apply(x)[1].sum(), X, expected=[np.ones(3)])  # the other half is not used


def test_custom_max() -> None:
    x = f64([1, 5, 2, 5, 1])
    check(Max.apply, x, expected=np.float64(5))
    check_gradients(Max.apply, x, expected=[f64([0, 1, 0, 0, 0])])
    check_gradients(lambda x: Max.apply(x * x) * 3, x, expected=[f64([0, 30, 0, 0, 0])])


# --- gradients as functions --------------------------------------------------------------------------------------------


def network(x, w, v):
    """Every kind of layer whose second derivative is worth a look."""
    y = F.conv2d(x, w, padding=1, stride=(1, 2))
    y = F.gelu(y) + np.tanh(y)
    y = F.max_pool2d(y, 2, 1) + F.avg_pool2d(y, 2, 1)
    y = F.conv_transpose2d(y, v, stride=2, output_padding=1)
    return (F.softplus(y) * F.sigmoid(y)).mean()


POINT = (normal(2, 2, 5, 6), normal(3, 2, 3, 3), normal(3, 2, 2, 3))


def test_gradient_as_a_function_is_what_backward_computes() -> None:
    gradients = irconv.grad(network, (0, 1, 2))(*POINT)
    check_gradients(network, *POINT, expected=[g.numpy() for g in gradients], rtol=1e-10, atol=1e-14)
    for slot, gradient in enumerate(gradients):
        expected = central_differences(lambda *a: network(*map(irconv.tensor, a)).item(), POINT, slot)
        assert_allclose(gradient.numpy(), expected, rtol=1e-6, atol=1e-9)


SECOND = {
    "conv": lambda x, w: (F.conv2d(x, w, stride=2, padding=1, dilation=(1, 2)) ** 3).sum(),
    "conv_transpose": lambda x, w: (F.conv_transpose2d(x, np.swapaxes(w, 0, 1), stride=2) ** 3).sum(),
    "max_pool": lambda x, w: (F.max_pool2d(F.conv2d(x, w), 2, 1) ** 2).sum(),
    "avg_pool": lambda x, w: (F.avg_pool2d(F.conv2d(x, w), 2, 1, 1) ** 3).sum(),
    "relu": lambda x, w: (F.relu(F.conv2d(x, w)) ** 2).sum(),
    "tanh": lambda x, w: np.tanh(F.conv2d(x, w)).sum(),
    "sigmoid": lambda x, w: F.sigmoid(F.conv2d(x, w)).sum(),
    "gelu": lambda x, w: F.gelu(F.conv2d(x, w)).sum(),
    "silu": lambda x, w: F.silu(F.conv2d(x, w)).sum(),
    "log_softmax": lambda x, w: (F.log_softmax(F.conv2d(x, w), 1) ** 2).sum(),
    "network": lambda x, w: network(x, w, POINT[2][:, :, :, :2]),
}


@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives_match_finite_differences(name: str) -> None:
    function = SECOND[name]
    x, w, u = normal(1, 2, 4, 5), normal(3, 2, 2, 3), normal(3, 2, 2, 3, seed=1)

    def along(x, w):
        """The derivative by w in the direction u."""
        return (irconv.grad(function, 1)(x, w) * u).sum()

    def outright(x, w):
        return along(irconv.tensor(x), irconv.tensor(w)).item()

    by_x, by_w = (central_differences(outright, [x, w], slot, 1e-5) for slot in (0, 1))
    check(lambda x, w: irconv.grad(along, (0, 1))(x, w), x, w, expected=(by_x, by_w), rtol=1e-5, atol=1e-6)


def test_the_joint_graph_can_be_differentiated_again() -> None:
    joint = irconv.differentiate(irconv.trace(lambda x: (x**3).sum(), TensorSpec((2,))))
    twice = irconv.differentiate(joint, wrt=["x"], output="d_x")
    result = irconv.compile(twice, backend="numpy")(f32([2, 3]), f32([1, 10]))
    assert_array_equal(result["d_x"], [12, 27])  # 3 x^2 stays, beside 6 x times what it is seeded with
    assert_array_equal(result["d_x_1"], [12, 180])
