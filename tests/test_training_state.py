"""Training steps and state: losses that are not finite, settings read at run time, modes, checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import irconv
import irconv.nn.functional as F
from irconv import nn, optim
from irconv.errors import AttributeValueError, NumericsError
from irconv.serialize import load_checkpoint, save_checkpoint
from tests.training_nets import OPTIMIZERS, Plain, assert_same_bits, batch, compiled, everything, net

# --- numbers that are not finite -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["momentum", "adam"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_changes_nothing(name: str, bad: float) -> None:
    model = net(dropout=0.3)
    optimizer = OPTIMIZERS[name](model.parameters())
    step = compiled(model, optimizer)
    x, target = batch()
    step(x, target)
    before, random = everything(model, optimizer), irconv.random.default_generator().state_dict()
    broken = x.copy()
    broken[0, 0, 0, 0] = bad
    with pytest.raises(NumericsError, match="not finite"):
        step(broken, target)
    assert_same_bits(everything(model, optimizer), before)
    assert_same_bits(irconv.random.default_generator().state_dict(), random)
    assert np.isfinite(step(x, target))
    unchecked = compiled(model, optimizer, check_finite=False)
    assert not np.isfinite(unchecked(broken, target))


def test_a_loss_that_is_not_finite_does_not_count_for_accumulation() -> None:
    irconv.random.manual_seed(0)
    model = Plain()
    step = compiled(model, optim.SGD(model.parameters(), lr=0.1), accumulate=2)
    x, target = batch()
    step(x, target)
    before = model.state_dict()
    with pytest.raises(NumericsError):
        step(np.full_like(x, np.nan), target)
    assert_same_bits(model.state_dict(), before)
    step(x, target)
    assert np.isfinite(model.state_dict()["fc.weight"]).all()
    assert not np.array_equal(model.state_dict()["fc.weight"], before["fc.weight"])


# --- settings and state at run time --------------------------------------------------------------------------------------


def test_the_learning_rate_is_read_at_run_time() -> None:
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    step = compiled(model, optimizer)
    executable = step.compiled.executable
    x, target = batch()
    moved = []
    for lr in (0.1, 0.2, 0.0):
        before = model.state_dict()
        optimizer.lr = lr
        F.cross_entropy(model(irconv.tensor(x)), irconv.tensor(target)).backward()
        gradient = model.fc.weight.grad.numpy()
        optimizer.zero_grad()
        step(x, target)
        moved.append(before["fc.weight"] - model.state_dict()["fc.weight"])
        assert_allclose(moved[-1], lr * gradient, rtol=1e-3, atol=1e-6)
    assert step.compiled.executable is executable


def test_training_and_evaluation_side_by_side() -> None:
    model = net(dropout=0.5)
    x, target = batch()
    evaluation = irconv.compile(model, x, backend="numpy")
    step = compiled(model, optim.SGD(model.parameters(), lr=0.1))
    for _ in range(3):
        step(x, target)
        expected = model.eval()(irconv.tensor(x)).numpy()
        assert_allclose(evaluation(x), expected, rtol=1e-4, atol=1e-5)
        model.train()
    assert model.training and model.bn.num_batches_tracked.item() == 3


@pytest.mark.parametrize(("whole", "norm", "counted"), [(True, True, 1), (True, False, 0), (False, False, 1)])
def test_modes_in_a_training_step(whole: bool, norm: bool, counted: int) -> None:
    """Submodules put in evaluation mode stay there, unless the whole model is."""
    model = net().train(whole)
    model.bn.train(norm)
    compiled(model, optim.SGD(model.parameters(), lr=0.1))(*batch())
    assert model.bn.num_batches_tracked.item() == counted
    assert (model.own_training, model.bn.own_training) == (whole, norm)


def test_profiling_changes_nothing() -> None:
    model = net(dropout=0.5)
    optimizer = optim.Adam(model.parameters())
    step = compiled(model, optimizer)
    step(*batch())
    before, random = everything(model, optimizer), irconv.random.default_generator().state_dict()
    assert len(step.profile(*batch())) > 5
    assert_same_bits(everything(model, optimizer), before)
    assert_same_bits(irconv.random.default_generator().state_dict(), random)


def test_loaded_weights_are_seen_by_executables() -> None:
    model, other, x = net(), net(seed=5), batch()[0]
    evaluation = irconv.compile(model, x, backend="numpy")
    step = compiled(model, optim.SGD(model.parameters(), lr=0.1))
    before = evaluation(x)
    model.load_state_dict(other.state_dict())
    assert not np.allclose(evaluation(x), before)
    assert_allclose(evaluation(x), other.eval()(irconv.tensor(x)).numpy(), rtol=1e-4, atol=1e-5)
    again = compiled(other, optim.SGD(other.parameters(), lr=0.1))
    assert step(*batch()) == again(*batch())
    assert_same_bits(model.state_dict(), other.state_dict())


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_resuming_from_a_checkpoint_gives_the_same_bits(name: str, suffix: str, tmp_path) -> None:
    path = tmp_path / f"run.{suffix}"
    generator = irconv.random.default_generator()

    def run(model, optimizer, seeds) -> list[float]:
        step = compiled(model, optimizer)
        return [float(step(*batch(seed=seed))) for seed in seeds]

    model = net(dropout=0.5)
    optimizer = OPTIMIZERS[name](model.parameters())
    run(model, optimizer, range(3))
    save_checkpoint(path, model, optimizer, generator, epoch=3)
    losses = run(model, optimizer, range(3, 7))
    expected = everything(model, optimizer)

    resumed = net(dropout=0.5, seed=99)
    another = OPTIMIZERS[name](resumed.parameters())
    extra = load_checkpoint(path, resumed, another, generator)
    assert extra == {"epoch": 3}
    assert run(resumed, another, range(3, 7)) == losses
    assert_same_bits(everything(resumed, another), expected)


def test_thawing_and_modes_are_followed() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    step = irconv.compile_step(model, F.mse_loss, optim.SGD(model.parameters(), lr=0.1))
    x, y = np.random.default_rng(0).standard_normal((8, 3)).astype("f4"), np.ones((8, 2), "f4")

    def changed() -> list[bool]:
        before = model.state_dict()
        step(x, y)
        after = model.state_dict()
        return [not np.array_equal(before[name], after[name]) for name in ("0.weight", "1.running_mean", "2.weight")]

    assert changed() == [False, True, True]
    model[0].requires_grad_(True)
    model[1].eval()
    assert changed() == [True, False, True]
    model[1].train()
    model[2].requires_grad_(False)
    assert changed() == [True, True, False]


def test_settings_are_checked_when_they_are_assigned() -> None:
    optimizer = optim.SGD([nn.Parameter(np.ones(2, "f4"))], lr=0.1)
    for value in (-1, float("nan")):
        with pytest.raises(AttributeValueError, match="lr must be a number of at least 0"):
            optimizer.lr = value
    assert optimizer.lr == 0.1


def test_a_function_with_parameters_of_its_own_is_trained() -> None:
    weight = nn.Parameter(np.zeros((3, 1), "f4"))
    for accumulate in (1, 2):
        step = irconv.compile_step(
            lambda x: x @ weight, F.mse_loss, optim.Adam([weight], lr=0.1), accumulate=accumulate
        )
        losses = [step(np.eye(3, dtype="f4"), np.ones((3, 1), "f4")) for _ in range(10)]
        assert losses[-1] < losses[0]


def test_what_is_no_optimizer() -> None:
    with pytest.raises(AttributeValueError, match=r"SGD.* is not an optimiser"):
        irconv.compile_step(nn.Linear(2, 2), F.mse_loss, optim.SGD)
