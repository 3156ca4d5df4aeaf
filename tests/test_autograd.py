"""Define-by-run gradients, gradients as functions, and custom differentiable functions."""

from __future__ import annotations

import numpy as np
import pytest

import irconv
from irconv import TensorSpec, nn
from irconv.autograd import graph_of
from irconv.errors import DTypeError, GradientError, StateError, TraceError
from irconv.interpret import evaluate
from tests.differences import central_differences


def leaf(data, dtype="float64"):
    return irconv.tensor(np.asarray(data, dtype), requires_grad=True)


def test_lecture_example_and_the_recorded_graph() -> None:
    x = irconv.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    a = (3 * (x - 2) ** 2).mean()
    assert a.item() == 4.5
    a.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[-1.5, 0.0], [1.5, 3.0]])
    ops, current = [], a
    while current.op is not None:
        ops.append(current.op)
        current = next(o for o in current.operands if o.requires_grad)
    assert ops == ["mean", "multiply", "square", "subtract"]
    assert current is x
    assert [n.op.name for n in graph_of(a) if not n.is_leaf] == ["subtract", "square", "multiply", "mean"]


def test_data_dependent_control_flow() -> None:
    x = irconv.tensor([0.6, -0.8, 1.0], requires_grad=True)
    y = x * 2
    doublings = 0
    while np.sqrt((y * y).sum().item()) < 1000:
        y = y * 2
        doublings += 1
    y.backward([0.1, 1, 0.0001])
    assert doublings == 9
    np.testing.assert_allclose(x.grad.numpy(), [102.4, 1024, 0.1024], rtol=1e-6)


@pytest.mark.parametrize("tracked", [(True, True), (True, False), (False, True)])
def test_dot_product_of_two_leaves(tracked: tuple[bool, bool]) -> None:
    w = irconv.tensor([1.0, 2.0, 3.0], requires_grad=tracked[0])
    x = irconv.tensor([4.0, 5.0, 6.0], requires_grad=tracked[1])
    for _ in range(2):
        (w @ x).backward()
    assert (w.grad.tolist() == [8, 10, 12]) if tracked[0] else (w.grad is None)
    assert (x.grad.tolist() == [2, 4, 6]) if tracked[1] else (x.grad is None)


def test_untracked_tensors_say_so_on_backward() -> None:
    w, x = irconv.tensor([1.0]), irconv.tensor([2.0])
    with pytest.raises(GradientError, match="no gradient flows through") as caught:
        (w * x).sum().backward()
    assert "requires_grad=True" in str(caught.value) and "test_autograd.py" in str(caught.value)
    tracked = leaf([1.0])
    with irconv.no_grad():
        y = (tracked * 2).sum()
    assert not y.requires_grad
    with pytest.raises(GradientError):
        y.backward()
    assert not (tracked * 2).detach().requires_grad


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x.sum(), [1, 1, 1, 1]),
        (lambda x: x.mean(), [0.25] * 4),
        (lambda x: x.max(), [0, 1, 0, 0]),
        (lambda x: x.min(), [1, 0, 0, 0]),
        (lambda x: (x + x).sum(), [2, 2, 2, 2]),
        (lambda x: (x[:2] * 3).sum() + x[2:].sum(), [3, 3, 1, 1]),
        (lambda x: irconv.where(x > 2, x, 0).sum(), [0, 1, 0, 1]),
    ],
)
def test_gradients_of_reductions(function, expected: list[float]) -> None:
    x = leaf([1.0, 5.0, 2.0, 5.0])
    function(x).backward()
    np.testing.assert_array_equal(x.grad.numpy(), expected)


def test_gradient_by_sample_of_a_vector() -> None:
    x = leaf([1.0, 2.0])
    with pytest.raises(GradientError, match="scalar"):
        (x * 2).backward()
    with pytest.raises(GradientError, match=r"shape \[3\]"):
        (x * 2).backward([1.0, 1.0, 1.0])


def test_leaves_only_collect() -> None:
    x = leaf([1.0])
    y = x * 2
    with pytest.raises(StateError, match="only be set on a leaf"):
        y.requires_grad_(False)
    with pytest.raises(DTypeError, match="floating-point"):
        irconv.tensor([1]).requires_grad_()
    with pytest.raises(TraceError, match="leaf that requires a gradient"):
        x[0] = 2.0


class Cube(irconv.Function):
    """x^3 with the derivative written out."""

    @staticmethod
    def forward(context, x):
        context.save(x)
        return x * x * x

    @staticmethod
    def backward(context, d):
        (x,) = context.saved
        return 3 * x * x * d


class Add(irconv.Function):
    @staticmethod
    def forward(context, x, y):
        return x + y

    @staticmethod
    def backward(context, d):
        return d, d


class Split(irconv.Function):
    """Two copies of x: their gradients are summed."""

    @staticmethod
    def forward(context, x, scale):
        context.scale = scale
        return x * 1, x * scale

    @staticmethod
    def backward(context, first, second):
        return first + context.scale * second


class Max(irconv.Function):
    @staticmethod
    def forward(context, x):
        context.save(x)
        return x.max()

    @staticmethod
    def backward(context, d):
        (x,) = context.saved
        positions = irconv.arange(x.size)
        return irconv.where(positions == x.argmax(), d, 0.0)


def test_custom_functions_define_by_run() -> None:
    x, y = leaf([1.0, 3.0, 2.0]), leaf([5.0, 5.0, 5.0])
    Add.apply(x, y).sum().backward()
    assert x.grad.tolist() == [1, 1, 1] and y.grad.tolist() == [1, 1, 1]
    x.grad = None
    a, b = Split.apply(x, 4.0)
    (a + b).sum().backward()
    assert x.grad.tolist() == [5, 5, 5]
    x.grad = None
    Max.apply(x).backward()
    assert x.grad.tolist() == [0, 1, 0]


def test_custom_functions_trace_and_differentiate_twice() -> None:
    second = irconv.grad(lambda x: irconv.grad(lambda x: Cube.apply(x).sum())(x).sum())
    np.testing.assert_allclose(second(np.array([1.0, 3.0])).numpy(), [6.0, 18.0])
    graph = irconv.trace(irconv.grad(lambda x: Cube.apply(x).sum()), TensorSpec((2,)))
    result = evaluate(graph, {graph.inputs[0]: np.array([1.0, 2.0], np.float32)})[graph.outputs[""]]
    np.testing.assert_allclose(result, [3.0, 12.0])


def test_a_custom_backward_with_the_wrong_number_of_gradients_is_an_error() -> None:
    class Wrong(irconv.Function):
        @staticmethod
        def forward(context, x, y):
            return x * y

        @staticmethod
        def backward(context, d):
            return d

    with pytest.raises(GradientError, match=r"Wrong.backward returned 1 gradients for 2"):
        Wrong.apply(leaf([1.0]), leaf([1.0])).sum().backward()


def test_custom_functions_lose_their_rule_in_text() -> None:
    graph = irconv.trace(lambda x: Cube.apply(x).sum(), TensorSpec((2,)))
    again = irconv.parse(str(graph))
    with pytest.raises(GradientError, match="Cube"):
        irconv.differentiate(again)


def test_grad_equals_backward_and_central_differences() -> None:
    def f(x, y):
        return (np.tanh(x @ y) * x.sum()).mean()

    generator = np.random.default_rng(0)
    arrays = [generator.normal(size=(2, 3)), generator.normal(size=(3, 2))]
    by_function = irconv.grad(f, argnums=(0, 1))(*arrays)
    x, y = leaf(arrays[0]), leaf(arrays[1])
    f(x, y).backward()
    for slot, (g, t) in enumerate(zip(by_function, (x, y), strict=True)):
        np.testing.assert_allclose(g.numpy(), t.grad.numpy(), rtol=1e-12)
        expected = central_differences(lambda a, b: f(irconv.tensor(a), irconv.tensor(b)).item(), arrays, slot)
        np.testing.assert_allclose(g.numpy(), expected, rtol=1e-6, atol=1e-9)


def test_value_and_grad_vjp_and_nested_inputs() -> None:
    value, gradient = irconv.value_and_grad(lambda x: (x**2).sum())(np.array([1.0, 2.0]))
    assert value.item() == 5 and gradient.tolist() == [2, 4]
    value, pullback = irconv.vjp(lambda a, b: a * b, np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    assert value.tolist() == [3, 8]
    da, db = pullback(np.array([1.0, 10.0]))
    assert da.tolist() == [3, 40] and db.tolist() == [1, 20]
    with pytest.raises(GradientError, match="argument 3 was asked for"):
        irconv.grad(lambda x: x.sum(), argnums=3)(np.ones(2))


def test_grad_counts_only_the_argument() -> None:
    """Inside a trace, other uses of the same value do not count as the argument."""

    def outer(x):
        return irconv.grad(lambda y: (x * y).sum())(x)

    graph = irconv.trace(outer, TensorSpec((2,)))
    x = np.array([3.0, 4.0], np.float32)
    np.testing.assert_array_equal(evaluate(graph, {graph.inputs[0]: x})[graph.outputs[""]], x)


def test_differentiate_names_and_signature() -> None:
    graph = irconv.trace(lambda x, w: {"y": x @ w, "loss": (x @ w).sum()}, TensorSpec((2, 3)), TensorSpec((3, 4)))
    joint = irconv.differentiate(graph, wrt=["w"], output="loss")
    assert list(joint.outputs) == ["y", "loss", "d_w"]
    vector = irconv.differentiate(graph, wrt=["x"], output="y")
    assert [vector[i].name for i in vector.inputs][-1].startswith("d_")
    with pytest.raises(GradientError, match="say which"):
        irconv.differentiate(graph)
    with pytest.raises(GradientError, match="only floating-point"):
        irconv.differentiate(irconv.trace(lambda i: i.astype("float32").sum(), TensorSpec((2,), "int64")), wrt=["i"])


# --- gradients as functions of concrete tensors run define-by-run ---------------------------------------------------------------


def test_gradients_of_gradients_reach_what_the_function_closes_over() -> None:
    """A gradient penalty: the gradient by x depends on w, and its own gradient must find that."""
    w, x = leaf([2.0, 3.0]), leaf([0.5, 1.5])
    penalty = (irconv.grad(lambda x: (w * x**3).sum())(x) ** 2).sum()
    assert penalty.requires_grad
    penalty.backward()
    np.testing.assert_allclose(w.grad.numpy(), 18 * w.numpy() * x.numpy() ** 4)
    np.testing.assert_allclose(x.grad.numpy(), 36 * w.numpy() ** 2 * x.numpy() ** 3)


def test_gradients_are_plain_where_nothing_is_tracked() -> None:
    value, gradient = irconv.value_and_grad(lambda x: (x**2).sum())(irconv.tensor([1.0, 2.0]))
    assert not value.requires_grad and not gradient.requires_grad
    w = leaf([1.0, 2.0])
    with irconv.no_grad():
        gradient = irconv.grad(lambda x: (w * x).sum())(w)
    assert gradient.tolist() == [1, 2] and not gradient.requires_grad and w.grad is None
    _, pullback = irconv.vjp(lambda x: x * 2, np.ones(2))
    (pulled,) = pullback(w * 3)
    pulled.sum().backward()
    assert w.grad.tolist() == [6, 6]


def test_gradient_of_a_function_with_data_dependent_control_flow() -> None:
    def doubled(x):
        y = x * 2
        while (y * y).sum().item() < 100:
            y = y * 2
        return y.sum()

    assert irconv.grad(doubled)(np.array([1.0, 2.0])).tolist() == [8, 8]
    assert irconv.grad(doubled)(np.array([10.0, 2.0])).tolist() == [2, 2]


def test_gradient_of_a_module_sees_its_own_mode() -> None:
    norm = nn.BatchNorm1d(2, dtype="f64")
    x, v = np.array([[1.0, 2.0], [3.0, 5.0], [2.0, 9.0]]), np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])

    def loss(x):
        return (norm(x) * v).sum()

    for mode, batches in ((True, 1), (False, 1)):
        norm.train(mode)
        by_function = irconv.grad(loss)(x)
        assert norm.num_batches_tracked.item() == batches
        norm.num_batches_tracked.assign(0)
        tracked = leaf(x)
        loss(tracked).backward()
        np.testing.assert_allclose(by_function.numpy(), tracked.grad.numpy(), rtol=1e-12, atol=1e-14)
        norm.num_batches_tracked.assign(1)


def test_arguments_without_influence_and_integer_arguments() -> None:
    first, second = irconv.grad(lambda x, y: (x * 2).sum(), (0, 1))(np.ones(2), np.ones(3))
    assert first.tolist() == [2, 2] and second.tolist() == [0, 0, 0]
    assert irconv.grad(lambda x: irconv.tensor(3.0))(np.ones(2)).tolist() == [0, 0]
    with pytest.raises(GradientError, match="only floating-point"):
        irconv.grad(lambda i: i.astype("f32").sum())(np.arange(3))


# --- parameters written between forward and backward ---------------------------------------------------------------------------


def test_backward_refuses_parameters_that_were_written_after_the_forward_read_them() -> None:
    layer, x = nn.Linear(2, 3), irconv.tensor([[1.0, 2.0]], requires_grad=True)
    loss = (layer(x) ** 2).sum()
    layer.weight.assign(layer.weight * 2)
    with pytest.raises(GradientError, match="written since") as caught:
        loss.backward()
    assert "test_autograd.py" in str(caught.value) and "forward again" in str(caught.value)
    layer.requires_grad_(False)
    loss = layer(x).sum()
    layer.bias.assign(layer.bias * 2)  # the gradient by x does not need the bias
    loss.backward()
    np.testing.assert_allclose(x.grad.numpy(), layer.weight.numpy().sum(0, keepdims=True))
    (layer(x) ** 2).sum().backward()


def test_a_custom_forward_that_returns_no_tensor_is_an_error() -> None:
    class Number(irconv.Function):
        @staticmethod
        def forward(context, x):
            return 3

    with pytest.raises(GradientError, match=r"Number\.forward returned a int"):
        Number.apply(irconv.tensor([1.0]))


def test_gradients_by_collections_are_refused() -> None:
    with pytest.raises(GradientError, match="argument 0 is a dict"):
        irconv.grad(lambda p: p["a"].sum())({"a": irconv.tensor([1.0])})
