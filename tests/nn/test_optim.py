"""Optimisers, schedules and clipping: PyTorch's numbers, define-by-run and compiled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn, optim
from irconv.errors import AttributeValueError, NumericsError, StateError

torch = pytest.importorskip("torch")

RULES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}),
    ("Adam", {}),
    ("Adam", {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.05, "amsgrad": True}),
    ("AdamW", {"lr": 0.03}),
    ("AdamW", {"lr": 0.03, "weight_decay": 0.3, "amsgrad": True}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.02, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.05}),
    ("RMSprop", {"momentum": 0.9}),
    ("RMSprop", {"centered": True, "momentum": 0.5}),
]
START = np.random.default_rng(0).normal(size=(4, 3))
PULL = np.random.default_rng(1).normal(size=(10, 4, 3))


def loss_of(p: Any, pull: Any) -> Any:
    """A loss whose gradient changes from step to step."""
    return ((p * p) * 0.5 + p * pull + (p * p) * (p * p) * 0.1).sum()


def torch_path(name: str, settings: dict[str, Any], dtype: Any) -> list[np.ndarray]:
    p = torch.tensor(START, dtype=dtype, requires_grad=True)
    optimizer = getattr(torch.optim, name)([p], **settings)
    path = []
    for pull in PULL:
        optimizer.zero_grad()
        loss_of(p, torch.tensor(pull, dtype=dtype)).backward()
        optimizer.step()
        path.append(p.detach().numpy().copy())
    return path


@pytest.mark.parametrize(("name", "settings"), RULES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ten_steps_are_torchs(name: str, settings: dict[str, Any], dtype: str) -> None:
    p = nn.Parameter(START.astype(dtype))
    optimizer = getattr(optim, name)([p], **settings)
    wanted = torch_path(name, settings, getattr(torch, dtype))
    tolerance = 1e-11 if dtype == "float64" else 3e-6
    for pull, expected in zip(PULL, wanted, strict=True):
        optimizer.zero_grad()
        loss_of(p, pull.astype(dtype)).backward()
        optimizer.step()
        np.testing.assert_allclose(p.numpy(), expected, rtol=tolerance, atol=tolerance)


class Pulled(nn.Module):
    def __init__(self) -> None:
        self.p = nn.Parameter(START.astype(np.float32))

    def forward(self, pull: irconv.Tensor) -> irconv.Tensor:
        return loss_of(self.p, pull)


@pytest.mark.parametrize(("name", "settings"), RULES)
def test_compiled_steps_are_eager_steps(name: str, settings: dict[str, Any]) -> None:
    eager, compiled = Pulled(), Pulled()
    first = getattr(optim, name)(eager.parameters(), **settings)
    second = getattr(optim, name)(compiled.parameters(), **settings)
    step = irconv.compile_step(compiled, lambda y, _: y, second, backend="numpy")
    for pull in PULL.astype(np.float32):
        first.zero_grad()
        eager(irconv.tensor(pull)).backward()
        first.step()
        step(pull, np.zeros(1, np.float32))
        np.testing.assert_allclose(compiled.p.numpy(), eager.p.numpy(), rtol=2e-6, atol=1e-6)
    found, wanted = second.state_dict(), {k.replace("parameter0", "p"): v for k, v in first.state_dict().items()}
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-6, err_msg=key)


def test_state_in_the_ir_is_named_after_parameters() -> None:
    model = Pulled()
    optimizer = optim.Adam(model.parameters(), weight_decay=0.1)
    step = irconv.compile_step(
        model, lambda y, _: y, optimizer, PULL[0].astype(np.float32), np.zeros(1, np.float32), backend="numpy"
    )
    graph = step.stages[0].graph
    assert {graph[s].name for s in graph.states} == {
        "p",
        "lr",
        "step",
        "beta1",
        "beta2",
        "weight_decay",
        "p.mean",
        "p.square",
    }
    assert {graph[s].name for s in graph.updates} == {"p", "step", "p.mean", "p.square"}


def test_settings_are_read_when_a_compiled_step_runs() -> None:
    model = Pulled()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    step = irconv.compile_step(model, lambda y, _: y, optimizer, backend="numpy")
    before = model.p.numpy().copy()
    optimizer.lr = 0.0
    step(PULL[0].astype(np.float32), np.zeros(1, np.float32))
    np.testing.assert_array_equal(model.p.numpy(), before)
    optimizer.lr = 0.1
    assert optimizer.lr == 0.1
    step(PULL[0].astype(np.float32), np.zeros(1, np.float32))
    assert not np.array_equal(model.p.numpy(), before)


def test_groups_have_settings_of_their_own() -> None:
    a, b = nn.Parameter(np.ones(2)), nn.Parameter(np.ones(2))
    x, y = (torch.tensor(np.ones(2), requires_grad=True) for _ in range(2))
    ours = optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=0.1, momentum=0.9)
    theirs = torch.optim.SGD([{"params": [x]}, {"params": [y], "lr": 0.5}], lr=0.1, momentum=0.9)
    for _ in range(3):
        ours.zero_grad()
        theirs.zero_grad()
        ((a * b) ** 2).sum().backward()
        ((x * y) ** 2).sum().backward()
        ours.step()
        theirs.step()
    np.testing.assert_allclose(a.numpy(), x.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(b.numpy(), y.detach().numpy(), rtol=1e-12)
    assert {"lr", "group1.lr", "parameter0.momentum", "parameter1.momentum"} <= ours.state_dict().keys()
    ours.groups[1]["lr"] = 0.25
    assert ours.groups[1]["lr"] == 0.25
    ours.lr = 0.2
    assert [g["lr"] for g in ours.groups] == [0.2, 0.2]


def test_parameters_without_gradient_are_left_alone() -> None:
    a, b = nn.Parameter(np.ones(2)), nn.Parameter(np.ones(2))
    optimizer = optim.Adam([a, b], weight_decay=0.5)
    (a * 2).sum().backward()
    optimizer.step()
    assert b.tolist() == [1, 1]
    assert "parameter1.mean" not in optimizer.state_dict()
    a.requires_grad_(False)
    before = a.numpy().copy()
    optimizer.step()
    np.testing.assert_array_equal(a.numpy(), before)


def test_state_round_trip_continues_with_the_same_bits() -> None:
    def steps(p: nn.Parameter, optimizer: optim.Optimizer, pulls: np.ndarray) -> None:
        for pull in pulls:
            optimizer.zero_grad()
            loss_of(p, pull).backward()
            optimizer.step()

    for name, settings in RULES:
        p = nn.Parameter(START)
        optimizer = getattr(optim, name)([p], **settings)
        steps(p, optimizer, PULL[:5])
        optimizer.lr = 0.07
        state, value = optimizer.state_dict(), p.numpy().copy()
        steps(p, optimizer, PULL[5:])
        q = nn.Parameter(value)
        other = getattr(optim, name)([q], **settings)
        other.load_state_dict(state)
        assert other.lr == 0.07
        steps(q, other, PULL[5:])
        np.testing.assert_array_equal(q.numpy(), p.numpy())


def test_wrong_state_is_refused_and_changes_nothing() -> None:
    p = nn.Parameter(START)
    optimizer = optim.SGD([p], lr=0.1, momentum=0.9)
    state = optimizer.state_dict()
    with pytest.raises(StateError, match=r"surplus \(1\): parameter0.square"):
        optimizer.load_state_dict({**state, "parameter0.square": START})
    with pytest.raises(StateError, match=r"parameter0.momentum: needs f64\[4,3\], got f64\[2\]"):
        optimizer.load_state_dict({**state, "lr": np.float64(7), "parameter0.momentum": np.zeros(2)})
    with pytest.raises(StateError, match=r"missing \(1\): lr"):
        optimizer.load_state_dict({"step": np.int64(0)})
    assert optimizer.lr == 0.1


def test_bad_settings_are_refused_with_numbers() -> None:
    p = nn.Parameter(START)
    with pytest.raises(AttributeValueError, match=r"lr must be a number of at least 0, got -0\.1"):
        optim.SGD([p], lr=-0.1)
    with pytest.raises(AttributeValueError, match="lr must be a number of at least 0, got nan"):
        optim.SGD([p], lr=math.nan)
    with pytest.raises(AttributeValueError, match="Nesterov momentum needs a momentum"):
        optim.SGD([p], nesterov=True)
    with pytest.raises(AttributeValueError, match="beta2 must be at least 0 and below 1, got 1"):
        optim.Adam([p], betas=(0.9, 1))
    with pytest.raises(AttributeValueError, match="an optimiser needs at least one parameter"):
        optim.SGD([])
    with pytest.raises(AttributeValueError, match="an optimiser trains parameters, got a ndarray"):
        optim.SGD([START])
    with pytest.raises(AttributeValueError, match="given to the optimiser twice"):
        optim.SGD([p, p])
    with pytest.raises(AttributeValueError, match="eps cannot be set per group"):
        optim.Adam([{"params": p, "eps": 1.0}])
    with pytest.raises(AttributeValueError, match="'momentum' is not a setting of this optimiser; it has lr"):
        optim.SGD([p]).groups[0]["momentum"] = 0.9


# --- schedules ---------------------------------------------------------------------------------------------------------

SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("StepLR", {"step_size": 3}),
    ("StepLR", {"step_size": 2, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [2, 5, 5], "gamma": 0.3}),
    ("ConstantLR", {"factor": 0.5, "total_iters": 4}),
    ("LinearLR", {"start_factor": 0.2, "end_factor": 0.9, "total_iters": 6}),
    ("ExponentialLR", {"gamma": 0.8}),
    ("CosineAnnealingLR", {"T_max": 7, "eta_min": 0.01}),
    ("LambdaLR", {"lr_lambda": lambda epoch: 1 / (1 + epoch)}),
]


@pytest.mark.parametrize(("name", "settings"), SCHEDULES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_schedules_are_torchs(name: str, settings: dict[str, Any]) -> None:
    ours = optim.SGD([{"params": nn.Parameter(START)}, {"params": nn.Parameter(START), "lr": 0.2}], lr=0.1)
    theirs = torch.optim.SGD([{"params": torch.zeros(1)}, {"params": torch.zeros(1), "lr": 0.2}], lr=0.1)
    mine, other = getattr(optim, name)(ours, **settings), getattr(torch.optim.lr_scheduler, name)(theirs, **settings)
    for epoch in range(14):
        np.testing.assert_allclose(
            mine.get_last_lr(), [g["lr"] for g in theirs.param_groups], rtol=1e-10, err_msg=str(epoch)
        )
        mine.step()
        theirs.step()
        other.step()


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_cycle_is_torchs(strategy: str) -> None:
    ours, theirs = optim.SGD(nn.Parameter(START), lr=0.1), torch.optim.SGD([torch.zeros(1)], lr=0.1)
    mine = optim.OneCycleLR(ours, 0.5, 20, anneal_strategy=strategy)
    other = torch.optim.lr_scheduler.OneCycleLR(theirs, 0.5, 20, anneal_strategy=strategy, cycle_momentum=False)
    for _ in range(19):
        np.testing.assert_allclose(ours.lr, theirs.param_groups[0]["lr"], rtol=1e-10)
        mine.step()
        theirs.step()
        other.step()
    with pytest.raises(AttributeValueError, match="step 20 of a schedule of 20 steps"):
        mine.step()


@pytest.mark.parametrize(
    "settings", [{}, {"mode": "max", "threshold_mode": "abs"}, {"patience": 1, "cooldown": 2, "min_lr": 0.02}]
)
def test_plateau_is_torchs(settings: dict[str, Any]) -> None:
    ours, theirs = optim.SGD(nn.Parameter(START), lr=0.1), torch.optim.SGD([torch.zeros(1)], lr=0.1)
    both = {"patience": 2, "factor": 0.5, **settings}
    mine, other = optim.ReduceLROnPlateau(ours, **both), torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **both)
    for metric in np.random.default_rng(0).uniform(0.5, 1, 40).cumsum() % 1.7:
        mine.step(metric)
        other.step(metric)
        assert ours.lr == pytest.approx(theirs.param_groups[0]["lr"])


def test_schedule_state_round_trip() -> None:
    optimizer = optim.SGD(nn.Parameter(START), lr=0.1)
    schedule = optim.StepLR(optimizer, 2)
    for _ in range(5):
        schedule.step()
    again = optim.SGD(nn.Parameter(START), lr=0.3)
    other = optim.StepLR(again, 2)
    other.load_state_dict(schedule.state_dict())
    assert again.lr == optimizer.lr
    with pytest.raises(StateError, match="is not the state of a schedule"):
        other.load_state_dict({"epoch": 1})


# --- clipping ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clipping_by_norm_is_torchs(norm_type: float, max_norm: float) -> None:
    ours = [nn.Parameter(START), nn.Parameter(PULL[0])]
    theirs = [torch.tensor(p.numpy().copy(), requires_grad=True) for p in ours]
    for group in (ours, theirs):
        ((group[0] * group[1]) * group[0]).sum().backward()
    norm = optim.clip_grad_norm_(ours, max_norm, norm_type)
    wanted = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert norm.item() == pytest.approx(wanted.item())
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-6)


def test_clipping_by_value_and_without_gradients() -> None:
    p, idle = nn.Parameter(START), nn.Parameter(START)
    assert optim.clip_grad_norm_([p], 1.0).item() == 0
    (p * 3).sum().backward()
    optim.clip_grad_value_([p, idle], 0.5)
    assert (p.grad.numpy() == 0.5).all()
    p.grad = irconv.tensor(np.full(START.shape, np.inf))
    with pytest.raises(NumericsError, match="norm of the gradients is inf"):
        optim.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    with pytest.raises(AttributeValueError, match="must be positive"):
        optim.clip_grad_norm_(p, 0)


def test_clipping_traces() -> None:
    def program(x: irconv.Tensor) -> irconv.Tensor:
        return optim.clip_norm([x], 1.0)[0][0]

    graph = irconv.trace(program, irconv.TensorSpec((3,)))
    assert "clip" in {node.op.name for node in graph}


def test_a_small_network_learns_the_same_as_in_torch() -> None:
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
        torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(64, 3),
    ).double()  # fmt: skip
    ours, compiled = (
        nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3)
        ).double()
        for _ in range(2)
    )
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(6, 1, 8, 8)), rng.integers(0, 3, 6)
    mine, other = (
        optim.SGD(ours.parameters(), lr=0.1, momentum=0.9),
        torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9),
    )
    compiled.load_state_dict(ours.state_dict())
    step = irconv.compile_step(
        compiled, F.cross_entropy, optim.SGD(compiled.parameters(), lr=0.1, momentum=0.9), backend="numpy"
    )
    for _ in range(10):
        mine.zero_grad()
        other.zero_grad()
        loss, wanted = (
            F.cross_entropy(ours(x), t),
            torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(t)),
        )
        loss.backward()
        wanted.backward()
        mine.step()
        other.step()
        np.testing.assert_allclose(loss.item(), wanted.item(), rtol=1e-9)
        np.testing.assert_allclose(step(x, t), wanted.item(), rtol=1e-9)
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], value.numpy(), rtol=1e-7, atol=1e-10, err_msg=name)
        np.testing.assert_allclose(compiled.state_dict()[name], value.numpy(), rtol=1e-7, atol=1e-10, err_msg=name)
