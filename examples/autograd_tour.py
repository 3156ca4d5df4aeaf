"""Gradients, from one recorded expression to second derivatives of a convolution network.

Run it: python examples/autograd_tour.py
"""

from __future__ import annotations

import numpy as np

import irconv
import irconv.nn.functional as F


def recorded_expression() -> irconv.Tensor:
    """a = mean(3 (x - 2)^2): what was computed is remembered, and leads back to x."""
    x = irconv.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    a = (3 * (x - 2) ** 2).mean()
    chain, at = [], a
    while at.op is not None:
        chain.append(at.op)
        at = at.operands[0] if at.operands[0].requires_grad else at.operands[1]
    print(f"a = {a.item()}, computed by {' <- '.join(chain)} <- x: {at is x}")
    a.backward()
    print(f"gradient by x:\n{x.grad.numpy()}")
    return x.grad


def control_flow() -> irconv.Tensor:
    """Python decides, looking at values: the recorded graph has as many doublings as were run."""
    x = irconv.tensor([0.6, -0.8, 1.0], requires_grad=True)
    y, doublings = x * 2, 0
    while (y**2).sum().sqrt() < 1000:
        y, doublings = y * 2, doublings + 1
    y.backward(irconv.tensor([0.1, 1.0, 0.0001]))
    print(f"doubled {doublings} more times; gradient from (0.1, 1, 0.0001): {x.grad.numpy()}")
    return x.grad


def accumulation() -> tuple[irconv.Tensor, irconv.Tensor]:
    """z = w @ x: each factor's gradient is the other; calling backward again adds to it."""
    w = irconv.tensor([1.0, 2.0, 3.0], requires_grad=True)
    x = irconv.tensor([4.0, 5.0, 6.0], requires_grad=True)
    (w @ x).backward()
    (w @ x).backward()
    print(f"after two calls: w.grad = {w.grad.numpy()}, x.grad = {x.grad.numpy()}")
    with irconv.no_grad():
        print(f"under no_grad nothing is remembered: requires_grad is {(w @ x).requires_grad}")
    return w.grad, x.grad


class Largest(irconv.Function):
    """The largest element, with a backward of its own: the gradient goes to where it stood."""

    @staticmethod
    def forward(context, x):
        context.save(irconv.arange(x.size) == x.argmax())
        return x.max()

    @staticmethod
    def backward(context, d):
        (is_largest,) = context.saved
        return irconv.where(is_largest, d, 0.0)


def custom_function() -> irconv.Tensor:
    x = irconv.tensor([3.0, 9.0, 4.0], requires_grad=True)
    Largest.apply(x).backward()
    print(f"a function with its own backward: {x.grad.numpy()}")
    return x.grad


def second_derivative() -> float:
    """The second derivative of a small network along a direction, against a difference of gradients."""
    generator = np.random.default_rng(0)
    image, direction = generator.standard_normal((2, 1, 1, 6, 6))
    kernel = irconv.tensor(generator.standard_normal((2, 1, 3, 3)))

    def network(x):
        return F.avg_pool2d(F.conv2d(x, kernel, padding=1).tanh(), 2).sum()

    gradient = irconv.grad(network)

    def slope(x):
        return (gradient(x) * direction).sum()

    exact = irconv.grad(slope)(irconv.tensor(image)).numpy()
    small = 1e-6
    ahead, behind = (gradient(irconv.tensor(image + s * small * direction)).numpy() for s in (1, -1))
    error = float(np.abs(exact - (ahead - behind) / (2 * small)).max())
    print(f"second derivative of conv, tanh and pooling: differs from a finite difference by {error:.1e}")
    return error


def backward_graph() -> irconv.Graph:
    """The same, as a graph to read: forward and backward together."""

    def loss(x, weight):
        y = F.conv2d(x, weight, stride=2)
        z = y.relu()
        return z.mean()

    graph = irconv.trace(loss, irconv.TensorSpec((1, 1, 8, 8)), irconv.TensorSpec((2, 1, 3, 3)))
    joint = irconv.differentiate(graph, wrt=["weight"])
    print(joint)
    return joint


def main() -> None:
    for part in (recorded_expression, control_flow, accumulation, custom_function, second_derivative, backward_graph):
        print(f"--- {part.__name__.replace('_', ' ')} ---")
        part()


if __name__ == "__main__":
    main()
