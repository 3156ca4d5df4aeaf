"""Learning-rate schedules: ``schedule.step()`` after each epoch (or update) sets the optimiser's learning rates.

A learning rate is a state that compiled training steps read when they run, so they follow without being compiled again.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from irconv.errors import AttributeValueError, StateError
from irconv.optim.base import Optimizer


class Schedule:
    """Base of schedules that are functions of the epoch: a subclass writes ``rate(base, epoch)``.

    epoch: how many times ``step()`` has been called.  base_lrs: the groups' learning rates when the schedule was made.
    """

    def __init__(self, optimizer: Optimizer):
        self.optimizer = optimizer
        self.base_lrs = [group["lr"] for group in optimizer.groups]
        self.epoch = 0
        self._set()

    def rate(self, base: float, epoch: int) -> float:
        """The learning rate at an epoch of a group that started with ``base``."""
        raise NotImplementedError

    def step(self) -> None:
        """Go on to the next epoch."""
        self.epoch += 1
        self._set()

    def _set(self) -> None:
        for group, base in zip(self.optimizer.groups, self.base_lrs, strict=True):
            group["lr"] = self.rate(base, self.epoch)

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.groups]

    def state_dict(self) -> dict[str, Any]:
        """The epoch and the first learning rates."""
        return {"epoch": self.epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that was saved."""
        if set(state) != {"epoch", "base_lrs"} or len(state["base_lrs"]) != len(self.base_lrs):
            raise StateError(f"{sorted(state)} is not the state of a schedule of {len(self.base_lrs)} groups")
        self.epoch, self.base_lrs = int(state["epoch"]), [float(lr) for lr in state["base_lrs"]]
        self._set()


class LambdaLR(Schedule):
    """base times ``lr_lambda(epoch)``; one function, or one for each group."""

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]]):
        groups = len(optimizer.groups)
        self.lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lambdas) != groups:
            raise AttributeValueError(f"{len(self.lambdas)} functions for {groups} groups of parameters")
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        return base * self.lambdas[0](epoch)

    def _set(self) -> None:
        for group, base, factor in zip(self.optimizer.groups, self.base_lrs, self.lambdas, strict=True):
            group["lr"] = base * factor(self.epoch)


class StepLR(Schedule):
    """base times gamma to the number of times that ``step_size`` epochs have passed."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1):
        if step_size < 1:
            raise AttributeValueError(f"step_size must be at least 1, got {step_size}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        return float(base * self.gamma ** (epoch // self.step_size))


class MultiStepLR(Schedule):
    """base times gamma to the number of ``milestones`` that have been reached."""

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1):
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        return float(base * self.gamma ** bisect_right(self.milestones, epoch))


class ConstantLR(Schedule):
    """base times ``factor`` until ``total_iters`` epochs have passed, then base."""

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5):
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        return base * self.factor if epoch < self.total_iters else base


class LinearLR(Schedule):
    """base times a factor that goes from ``start_factor`` to ``end_factor`` over ``total_iters`` epochs."""

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5
    ):
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise AttributeValueError(f"factors must be above 0 and at most 1, got {start_factor} and {end_factor}")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        done = min(epoch, self.total_iters) / self.total_iters if self.total_iters else 1.0
        return base * (self.start_factor + (self.end_factor - self.start_factor) * done)


class ExponentialLR(Schedule):
    """base times gamma to the epoch."""

    def __init__(self, optimizer: Optimizer, gamma: float):
        self.gamma = gamma
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        return float(base * self.gamma**epoch)


class CosineAnnealingLR(Schedule):
    """From base down to ``eta_min`` along half a cosine over ``T_max`` epochs, then up again."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0):  # noqa: N803 (PyTorch's name)
        if T_max < 1:
            raise AttributeValueError(f"T_max must be at least 1, got {T_max}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * epoch / self.T_max)) / 2


class OneCycleLR(Schedule):
    """Up from max_lr / div_factor to max_lr over the first ``pct_start`` of the steps, then down to that over final_div_factor.

    Call ``step()`` after each update, ``total_steps`` - 1 times in all.  anneal_strategy: 'cos' or 'linear'.  Momentum stays.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float,
        total_steps: int,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ):
        if total_steps < 1 or not 0 <= pct_start <= 1:
            raise AttributeValueError(
                f"total_steps must be positive and pct_start in [0, 1], got {total_steps} and {pct_start}"
            )
        if anneal_strategy not in ("cos", "linear"):
            raise AttributeValueError(f"anneal_strategy {anneal_strategy!r} is neither 'cos' nor 'linear'")
        self.max_lr, self.total_steps, self.anneal_strategy = max_lr, total_steps, anneal_strategy
        self.first, self.last = max_lr / div_factor, max_lr / div_factor / final_div_factor
        self.peak = float(pct_start * total_steps) - 1
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        if epoch >= self.total_steps:
            raise AttributeValueError(f"step {epoch} of a schedule of {self.total_steps} steps")
        if epoch <= self.peak:
            return self._between(self.first, self.max_lr, epoch / self.peak if self.peak else 1.0)
        return self._between(self.max_lr, self.last, (epoch - self.peak) / (self.total_steps - 1 - self.peak))

    def _between(self, start: float, end: float, done: float) -> float:
        if self.anneal_strategy == "linear":
            return start + (end - start) * done
        return end + (start - end) / 2 * (1 + math.cos(math.pi * done))


class ReduceLROnPlateau:
    """Multiply the learning rates by ``factor`` when a metric has not improved for more than ``patience`` epochs.

    mode: 'min' or 'max', which way is better; threshold: by how much it must be better, 'rel'atively or 'abs'olutely; cooldown:
    epochs to wait after a reduction; min_lr: no rate goes below.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ):
        if not 0 < factor < 1:
            raise AttributeValueError(f"factor must be between 0 and 1, got {factor}")
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise AttributeValueError(f"mode {mode!r} must be min or max, threshold_mode {threshold_mode!r} rel or abs")
        self.optimizer, self.mode, self.factor, self.patience = optimizer, mode, factor, patience
        self.threshold, self.threshold_mode, self.cooldown = threshold, threshold_mode, cooldown
        self.min_lr, self.eps = min_lr, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.bad_epochs = 0
        self.waiting = 0

    def step(self, metrics: float) -> None:
        """Take note of the metric after an epoch."""
        value = float(metrics)
        if self._is_better(value):
            self.best, self.bad_epochs = value, 0
        else:
            self.bad_epochs += 1
        if self.waiting:
            self.waiting -= 1
            self.bad_epochs = 0
        if self.bad_epochs > self.patience:
            self.waiting, self.bad_epochs = self.cooldown, 0
            for group in self.optimizer.groups:
                new = max(group["lr"] * self.factor, self.min_lr)
                if group["lr"] - new > self.eps:
                    group["lr"] = new

    def _is_better(self, value: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        if self.threshold_mode == "rel":
            margin = self.threshold * self.best * sign if math.isfinite(self.best) else 0.0
        else:
            margin = self.threshold
        return sign * value < sign * self.best - margin

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.groups]

    def state_dict(self) -> dict[str, Any]:
        """The best metric, and how many epochs have been bad or are waited for."""
        return {"best": self.best, "bad_epochs": self.bad_epochs, "waiting": self.waiting}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that was saved."""
        if set(state) != {"best", "bad_epochs", "waiting"}:
            raise StateError(f"{sorted(state)} is not the state of ReduceLROnPlateau")
        self.best, self.bad_epochs, self.waiting = float(state["best"]), int(state["bad_epochs"]), int(state["waiting"])
