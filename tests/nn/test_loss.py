"""Losses against PyTorch, over their parameters."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn
from irconv.errors import AttributeValueError, IrconvError, ShapeError
from tests.nn.against_torch import array, check, torch

T = torch.nn.functional
REDUCTIONS = ["none", "mean", "sum"]


def classes(*shape: int, count: int = 5) -> np.ndarray:
    return np.random.default_rng(3).integers(0, count, shape)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(4, 5), (5,), (3, 5, 2, 4)])
def test_cross_entropy_of_classes(reduction: str, smoothing: float, weighted: bool, shape: tuple[int, ...]) -> None:
    target = classes(*(shape[:1] + shape[2:] if len(shape) > 1 else ()))
    settings = {"reduction": reduction, "label_smoothing": smoothing}
    arrays = [array(*shape), target] + ([np.linspace(0.5, 2, 5)] if weighted else [])
    check(lambda *v: F.cross_entropy(*v, **settings), lambda *v: T.cross_entropy(*detached(v), **settings), *arrays)


def detached(values: tuple) -> tuple:
    """PyTorch's class weights take no gradient."""
    return (*values[:2], *(v.detach() for v in values[2:]))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_ignored_targets_count_for_nothing(reduction: str, weighted: bool) -> None:
    target = np.array([0, 2, -100, 4, 2, 1])
    x = array(6, 5)
    x[2] = np.inf  # even where the logits are not finite
    w = [np.linspace(0.5, 2, 5)] if weighted else []
    finite = array(6, 5)
    for smoothing in (0.0, 0.2):
        settings = {"reduction": reduction, "ignore_index": 2, "label_smoothing": smoothing}
        shifted = np.where(target == -100, 2, target)
        check(
            lambda *v, s=settings: F.cross_entropy(*v, **s),
            lambda *v, s=settings: T.cross_entropy(*detached(v), **s),
            finite,
            shifted,
            *w,
        )
    ours = F.cross_entropy(x, target, *w, reduction=reduction).numpy()
    keep = target != -100
    wanted = T.cross_entropy(
        torch.tensor(x[keep]), torch.tensor(target[keep]), *map(torch.tensor, w), reduction=reduction
    ).numpy()
    np.testing.assert_allclose(ours[keep] if reduction == "none" else ours, wanted, rtol=1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(4, 5), (5,), (3, 5, 2)])
def test_cross_entropy_of_probabilities(
    reduction: str, smoothing: float, weighted: bool, shape: tuple[int, ...]
) -> None:
    axis = 0 if len(shape) == 1 else 1
    p = array(*shape, seed=4, low=0.1, high=1.0)
    p /= p.sum(axis, keepdims=True)
    settings = {"reduction": reduction, "label_smoothing": smoothing}
    arrays = [array(*shape), p] + ([np.linspace(0.5, 2, 5)] if weighted else [])
    check(lambda *v: F.cross_entropy(*v, **settings), lambda *v: T.cross_entropy(*detached(v), **settings), *arrays)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(4, 5), (5,), (3, 5, 2)])
def test_nll_loss(reduction: str, weighted: bool, shape: tuple[int, ...]) -> None:
    target = classes(*(shape[:1] + shape[2:] if len(shape) > 1 else ()))
    arrays = [array(*shape), target] + ([np.linspace(0.5, 2, 5)] if weighted else [])
    settings = {"reduction": reduction, "ignore_index": 1}
    check(lambda *v: F.nll_loss(*v, **settings), lambda *v: T.nll_loss(*detached(v), **settings), *arrays)


NUMERIC = [
    ("mse_loss", {}),
    ("l1_loss", {}),
    ("smooth_l1_loss", {}),
    ("smooth_l1_loss", {"beta": 0.3}),
    ("smooth_l1_loss", {"beta": 0.0}),
    ("huber_loss", {}),
    ("huber_loss", {"delta": 0.4}),
    ("kl_div", {}),
    ("kl_div", {"log_target": True}),
]


@pytest.mark.filterwarnings("ignore:reduction")
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("name", "settings"), NUMERIC)
def test_numeric_losses(name: str, settings: dict[str, object], reduction: str) -> None:
    y = array(3, 4, seed=1, low=0.0 if name == "kl_div" else -2.0)
    both = {**settings, "reduction": reduction}
    check(lambda *v: getattr(F, name)(*v, **both), lambda *v: getattr(T, name)(*v, **both), array(3, 4), y)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "huber_loss"])
def test_weighted_losses(name: str, reduction: str) -> None:
    w = array(3, 4, seed=5, low=0.1)
    check(
        lambda *v: getattr(F, name)(*v, weight=w, reduction=reduction),
        lambda *v: getattr(T, name)(*v, weight=torch.tensor(w), reduction=reduction),
        array(3, 4),
        array(3, 4, seed=1),
    )
    with pytest.raises(ShapeError, match="weights|broadcast"):
        getattr(F, name)(array(3, 4), array(3, 4), weight=np.ones(3))


def test_kl_div_by_batch() -> None:
    check(
        lambda *v: F.kl_div(*v, reduction="batchmean"),
        lambda *v: T.kl_div(*v, reduction="batchmean"),
        array(3, 4),
        array(3, 4, low=0.0),
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy(reduction: str, weighted: bool) -> None:
    x, y = array(3, 4, low=0.01, high=0.99), array(3, 4, seed=2, low=0.0, high=1.0)
    w = [array(4, seed=3, low=0.2)] if weighted else []
    check(
        lambda *v: F.binary_cross_entropy(*v, reduction=reduction),
        lambda *v: T.binary_cross_entropy(*detached(v), reduction=reduction),
        x, y, *w, gradient=False,
    )  # fmt: skip
    check(lambda v: F.binary_cross_entropy(v, y), lambda v: T.binary_cross_entropy(v, torch.tensor(y)), x)


def test_binary_cross_entropy_keeps_logarithms_above_minus_100() -> None:
    x, y = np.array([0.0, 1.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0, 1.0])
    assert F.binary_cross_entropy(x, y, reduction="none").tolist() == [100, 100, 0, 0]
    t = irconv.tensor(x, requires_grad=True)
    F.binary_cross_entropy(t, y).backward()
    assert np.isfinite(t.grad.numpy()).all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("weighted", "positive"), list(itertools.product([False, True], repeat=2)))
def test_binary_cross_entropy_with_logits(reduction: str, weighted: bool, positive: bool) -> None:
    x = np.concatenate([array(3, 4) * 5, [[0.0, 100.0, -100.0, 800.0]]])
    y = array(4, 4, seed=2, low=0.0, high=1.0)
    w = array(4, seed=3, low=0.2) if weighted else None
    p = array(4, seed=4, low=0.2) if positive else None
    mine = {"weight": w, "pos_weight": p, "reduction": reduction}
    other = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in mine.items()}
    check(
        lambda v: F.binary_cross_entropy_with_logits(v, y, **mine),
        lambda v: T.binary_cross_entropy_with_logits(v, torch.tensor(y), **other),
        x,
    )


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("CrossEntropyLoss", {"label_smoothing": 0.1}),
        ("NLLLoss", {"reduction": "sum"}),
        ("MSELoss", {}),
        ("L1Loss", {"reduction": "sum"}),
        ("SmoothL1Loss", {"beta": 0.5}),
        ("HuberLoss", {"delta": 0.5}),
        ("BCEWithLogitsLoss", {}),
        ("KLDivLoss", {"reduction": "batchmean"}),
    ],
)
def test_layers(name: str, settings: dict[str, object]) -> None:
    target = classes(3) if name in ("CrossEntropyLoss", "NLLLoss") else array(3, 5, seed=1, low=0.0, high=1.0)
    check(getattr(nn, name)(**settings), getattr(torch.nn, name)(**settings), array(3, 5), target)


def test_class_weights_are_buffers() -> None:
    w = np.linspace(0.5, 2, 5)
    ours, theirs = nn.CrossEntropyLoss(w), torch.nn.CrossEntropyLoss(torch.tensor(w))
    assert list(ours.state_dict()) == list(theirs.state_dict()) == ["weight"]
    check(ours, theirs, array(3, 5), classes(3))
    check(
        nn.BCELoss(), torch.nn.BCELoss(), array(3, 5, low=0.1, high=0.9), array(3, 5, low=0.0, high=1.0), gradient=False
    )


def test_bad_targets_are_refused_with_numbers() -> None:
    x = array(4, 5)
    for wrong in (-1, 5, -7):
        with pytest.raises(IrconvError, match=r"out of range|outside"):
            F.cross_entropy(x, np.array([0, 1, wrong, 2]))
    with pytest.raises(ShapeError, match=r"the target must have shape \[4\], got \[5\]"):
        F.cross_entropy(x, classes(5))
    with pytest.raises(ShapeError, match=r"probabilities need the input's shape \[4, 5\], got \[4\]"):
        F.cross_entropy(x, np.zeros(4))
    with pytest.raises(AttributeValueError, match="class indices are integers, got a target of f64"):
        F.nll_loss(x, np.zeros(4))
    with pytest.raises(ShapeError, match=r"one weight for each of 5 classes, got shape \[4\]"):
        F.cross_entropy(x, classes(4), np.ones(4))
    with pytest.raises(AttributeValueError, match="reduction 'average' is not one of none, mean, sum"):
        F.mse_loss(x, x, reduction="average")
    with pytest.raises(ShapeError, match=r"the input has shape \[4, 5\], the target \[4\]"):
        F.mse_loss(x, np.zeros(4))
    with pytest.raises(AttributeValueError, match="label_smoothing 2 is not between 0 and 1"):
        F.cross_entropy(x, classes(4), label_smoothing=2)
    with pytest.raises(AttributeValueError, match=r"probabilities from -?\d"):
        F.binary_cross_entropy(x, np.zeros((4, 5)))
