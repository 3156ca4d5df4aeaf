"""The update rules: SGD, Adam, AdamW, RMSprop, with PyTorch's numbers.

Scalars are computed in float64 and rounded once to the parameter's type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irconv.errors import AttributeValueError
from irconv.nn.module import Parameter
from irconv.op import Value
from irconv.ops import elementwise as e
from irconv.optim.base import Group, Optimizer, check_below_one
from irconv.tensor import Tensor

Chosen = Sequence[tuple[Parameter, Tensor]]


class _Scalars:
    """Run-time scalars rounded to a parameter's type, each made once."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, Any], Tensor] = {}
        self._kept: list[Tensor] = []

    def __call__(self, scalar: Tensor, like: Tensor) -> Tensor:
        key = (id(scalar), like.dtype)
        if key not in self._made:
            self._made[key] = scalar.astype(like.dtype)
            self._kept.append(scalar)  # keeps its id its own
        return self._made[key]


def _decayed(parameter: Parameter, gradient: Tensor, decay: Tensor | None) -> Tensor:
    return gradient if decay is None else gradient + parameter * decay


class SGD(Optimizer):
    """Stochastic gradient descent.

        g = gradient + weight_decay p
        m = momentum m + (1 - dampening) g        (g in the first update)
        p = p - lr m                              (Nesterov: p - lr (g + momentum m); without momentum: p - lr g)

    Settings read at run time: lr, momentum, weight_decay.  Momentum or weight decay of 0 at construction leave that part out.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        if nesterov and (momentum <= 0 or dampening != 0):
            raise AttributeValueError("Nesterov momentum needs a momentum and no dampening")
        self.dampening, self.nesterov = dampening, nesterov
        self.slots = ("momentum",) if momentum else ()
        optional = {"momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, lr=lr, **{name: value for name, value in optional.items() if value})

    def update(self, group: Group, chosen: Chosen) -> None:
        scalar, settings = _Scalars(), group.settings
        share = None
        if self.slots and self.dampening:
            first = (self.counted(group) == 1).astype("f64")
            share = 1 - self.dampening * (1 - first)
        for p, gradient in chosen:
            decay = scalar(settings["weight_decay"], p) if "weight_decay" in settings else None
            g = _decayed(p, gradient, decay)
            if self.slots:
                momentum, buffer = scalar(settings["momentum"], p), self.state_of(p, "momentum")
                moving = buffer * momentum + (g if share is None else g * scalar(share, p))
                buffer.assign(moving)
                g = g + moving * momentum if self.nesterov else moving
            p.assign(p - g * scalar(settings["lr"], p))


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015).

        g = gradient + weight_decay p
        m = beta1 m + (1 - beta1) g               v = beta2 v + (1 - beta2) g^2
        p = p - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)

    ``amsgrad`` takes the largest v so far.  Settings read at run time: lr, beta1, beta2, weight_decay (if not 0 at construction).
    """

    decoupled = False

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ):
        check_below_one(beta1=betas[0], beta2=betas[1])
        if eps < 0:
            raise AttributeValueError(f"eps must be at least 0, got {eps}")
        self.eps, self.amsgrad = eps, amsgrad
        self.slots = ("mean", "square", "largest") if amsgrad else ("mean", "square")
        optional = {"weight_decay": weight_decay} if weight_decay else {}
        super().__init__(params, lr=lr, beta1=betas[0], beta2=betas[1], **optional)

    def update(self, group: Group, chosen: Chosen) -> None:
        scalar, settings = _Scalars(), group.settings
        count = self.counted(group)
        lr, beta1, beta2 = settings["lr"], settings["beta1"], settings["beta2"]
        rest1, rest2 = 1 - beta1, 1 - beta2
        rate = lr / (1 - beta1**count)
        root = (1 - beta2**count).sqrt()
        kept = None
        if "weight_decay" in settings and self.decoupled:
            kept = 1 - lr * settings["weight_decay"]
        for p, gradient in chosen:
            decay = scalar(settings["weight_decay"], p) if "weight_decay" in settings and not self.decoupled else None
            g = _decayed(p, gradient, decay)
            mean, square = self.state_of(p, "mean"), self.state_of(p, "square")
            new_mean = mean * scalar(beta1, p) + g * scalar(rest1, p)
            new_square = square * scalar(beta2, p) + g**2 * scalar(rest2, p)
            mean.assign(new_mean)
            square.assign(new_square)
            if self.amsgrad:
                largest = self.state_of(p, "largest")
                new_square = _tensor(e.maximum(largest, new_square))
                largest.assign(new_square)
            divisor = new_square.sqrt() / scalar(root, p) + self.eps
            before = p if kept is None else p * scalar(kept, p)
            p.assign(before - new_mean / divisor * scalar(rate, p))


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): p is first multiplied by 1 - lr weight_decay."""

    decoupled = True

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
    ):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad)


class RMSprop(Optimizer):
    """RMSprop (Hinton 2012).

        g = gradient + weight_decay p             v = alpha v + (1 - alpha) g^2
        u = g / (sqrt(v) + eps)                   (centered: v less the square of g's moving mean)
        p = p - lr u                              (with momentum: m = momentum m + u, p = p - lr m)

    Settings read at run time: lr, alpha, momentum, weight_decay (the last two if not 0 at construction).
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ):
        if eps < 0:
            raise AttributeValueError(f"eps must be at least 0, got {eps}")
        self.eps, self.centered = eps, centered
        slots = {"square": True, "mean": centered, "momentum": bool(momentum)}
        self.slots = tuple(name for name, wanted in slots.items() if wanted)
        optional = {"momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, lr=lr, alpha=alpha, **{name: value for name, value in optional.items() if value})

    def update(self, group: Group, chosen: Chosen) -> None:
        scalar, settings = _Scalars(), group.settings
        rest = 1 - settings["alpha"]
        for p, gradient in chosen:
            decay = scalar(settings["weight_decay"], p) if "weight_decay" in settings else None
            g = _decayed(p, gradient, decay)
            alpha, other = scalar(settings["alpha"], p), scalar(rest, p)
            square = self.state_of(p, "square")
            spread = square * alpha + g**2 * other
            square.assign(spread)
            if self.centered:
                mean = self.state_of(p, "mean")
                new_mean = mean * alpha + g * other
                mean.assign(new_mean)
                spread = spread - new_mean**2
            change = g / (spread.sqrt() + self.eps)
            if "momentum" in settings:
                buffer = self.state_of(p, "momentum")
                change = buffer * scalar(settings["momentum"], p) + change
                buffer.assign(change)
            p.assign(p - change * scalar(settings["lr"], p))


def _tensor(value: Value) -> Tensor:
    assert isinstance(value, Tensor)
    return value
