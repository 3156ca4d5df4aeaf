"""Compiled training steps: the same numbers as backward and step, and what they promise around them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import irconv
import irconv.nn.functional as F
from irconv import TensorSpec, nn, optim
from irconv.errors import AttributeValueError, GradientError, NumericsError, TraceError
from irconv.serialize import load_checkpoint, save_checkpoint


class Net(nn.Module):
    """A convolution, batch norm, pooling and a linear head.

    No bias before the batch norm: its gradient is nothing but rounding, which Adam would blow up to full steps.
    """

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(4 * 9, 3)

    def forward(self, x):
        x = F.max_pool2d(self.bn(self.conv(x)).relu(), 2)
        return self.fc(self.drop(x.flatten(1)))


def net(dropout: float = 0.0, seed: int = 0) -> Net:
    irconv.random.manual_seed(seed)
    return Net(dropout)


def batch(size: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(size, 2, 6, 6)).astype(np.float32), generator.integers(0, 3, size)


def compiled(model: nn.Module, optimizer, loss=F.cross_entropy, **options) -> irconv.Step:
    return irconv.compile_step(model, loss, optimizer, *batch(), backend="numpy", **options)


def everything(model: nn.Module, optimizer) -> dict[str, np.ndarray]:
    """Parameters, buffers and optimiser state."""
    return {**model.state_dict(), **{f"optimizer {name}": array for name, array in optimizer.state_dict().items()}}


def assert_same_bits(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes(), name


# --- the same numbers as define-by-run ---------------------------------------------------------------------------------

OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ten_steps_equal_backward_and_step(name: str) -> None:
    eager, model = net(), net()
    assert_same_bits(eager.state_dict(), model.state_dict())
    by_hand, optimizer = (OPTIMIZERS[name](m.parameters()) for m in (eager, model))
    step = compiled(model, optimizer)
    for seed in range(10):
        x, target = batch(seed=seed)
        by_hand.zero_grad()
        loss = F.cross_entropy(eager(irconv.tensor(x)), irconv.tensor(target))
        loss.backward()
        by_hand.step()
        assert_allclose(step(x, target), loss.item(), rtol=1e-5, atol=1e-5)
    found = model.state_dict()
    for path, array in eager.state_dict().items():
        assert_allclose(found[path], array, rtol=1e-5, atol=1e-5, err_msg=path)


def test_the_loss_is_that_before_the_update_and_falls() -> None:
    model = net()
    x, target = batch()
    step = compiled(model, optim.SGD(model.parameters(), lr=0.1))
    first = F.cross_entropy(model(irconv.tensor(x)), irconv.tensor(target)).item()
    losses = [float(step(x, target)) for _ in range(10)]
    assert losses[0] == pytest.approx(first, rel=1e-5) and losses[-1] < 0.5 * losses[0]


# --- dropout -----------------------------------------------------------------------------------------------------------


def dropped(seed: int, steps: int = 4) -> tuple[list[float], dict[str, np.ndarray]]:
    model = net(dropout=0.5)
    step = compiled(model, optim.SGD(model.parameters(), lr=0.05))
    irconv.random.manual_seed(seed)
    return [float(step(*batch())) for _ in range(steps)], model.state_dict()


def test_dropout_is_reproducible() -> None:
    (losses, state), (again, state_again), (others, _) = dropped(1), dropped(1), dropped(2)
    assert losses == again and losses != others
    assert_same_bits(state, state_again)


def test_every_step_drops_others() -> None:
    model = net(dropout=0.5)
    step = compiled(model, optim.SGD([model.fc.bias], lr=0.0))
    assert len({float(step(*batch())) for _ in range(5)}) == 5
    evaluation = irconv.compile(model, batch()[0], backend="numpy")
    assert_array_equal(evaluation(batch()[0]), evaluation(batch()[0]))


# --- batches -----------------------------------------------------------------------------------------------------------


def test_a_batch_of_another_size() -> None:
    eager, model = net(), net()
    by_hand, optimizer = (optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (eager, model))
    step = compiled(model, optimizer)
    for size in (4, 7, 2, 4):
        x, target = batch(size, seed=size)
        by_hand.zero_grad()
        F.cross_entropy(eager(irconv.tensor(x)), irconv.tensor(target)).backward()
        by_hand.step()
        step(x, target)
    for path, array in eager.state_dict().items():
        assert_allclose(model.state_dict()[path], array, rtol=1e-5, atol=1e-5, err_msg=path)


def test_several_inputs_and_nested_ones() -> None:
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(np.float32([1, 2]))

        def forward(self, x, extra):
            return x * self.scale + extra["first"] - extra["second"][0]

    model = Two()
    ones, twos = np.ones((3, 2), np.float32), np.full((3, 2), 2, np.float32)
    extra = {"first": ones, "second": (twos,)}
    step = irconv.compile_step(model, F.mse_loss, optim.SGD(model.parameters(), lr=0.3), ones, extra, twos, backend="numpy")
    first = step(ones, extra, twos)
    assert first == 2.5  # the mean of (1 - 1 - 2)^2 and (2 - 1 - 2)^2
    assert_allclose(model.scale.numpy(), np.array([1, 2]) + 0.3 * np.array([2, 1]), rtol=1e-6)


def test_extra_outputs() -> None:
    def loss(scores, target):
        right = (scores.argmax(axis=1) == target).astype("float32").mean()
        return F.cross_entropy(scores, target), {"accuracy": right, "scores": scores}

    model = net()
    x, target = batch()
    expected = model(irconv.tensor(x)).numpy()
    model = net()
    step = compiled(model, optim.SGD(model.parameters(), lr=0.1), loss)
    value, extra = step(x, target)
    assert_allclose(extra["scores"], expected, rtol=1e-4, atol=1e-5)
    assert extra["accuracy"] == (expected.argmax(1) == target).mean()
    assert value == pytest.approx(F.cross_entropy(irconv.tensor(expected), irconv.tensor(target)).item(), rel=1e-5)


# --- gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0.1, 1000.0])
def test_clip_norm(limit: float) -> None:
    model, x, target = net(), *batch()
    before = model.state_dict()
    F.cross_entropy(model(irconv.tensor(x)), irconv.tensor(target)).backward()
    gradients = {path: p.grad.numpy() for path, p in model.named_parameters()}
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients.values()))
    model.load_state_dict(before)
    step = compiled(model, optim.SGD(model.parameters(), lr=1.0), clip_norm=limit)
    step(x, target)
    scale = min(1.0, limit / norm)
    assert (scale < 1) == (limit < 1)
    for path, gradient in gradients.items():
        moved = before[path] - model.state_dict()[path]
        assert_allclose(moved, scale * gradient, rtol=1e-3, atol=1e-6, err_msg=path)
    with pytest.raises(AttributeValueError, match="clip_norm"):
        compiled(model, optim.SGD(model.parameters()), clip_norm=0)


class Plain(nn.Module):
    """Without batch norm, whose statistics are those of each part."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.fc = nn.Linear(4 * 16, 3)

    def forward(self, x):
        return self.fc(self.conv(x).relu().flatten(1))


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_accumulating_two_batches_equals_one_of_double_size(name: str, clip: float | None) -> None:
    states = []
    for accumulate in (1, 2):
        irconv.random.manual_seed(0)
        model = Plain()
        step = compiled(model, OPTIMIZERS[name](model.parameters()), clip_norm=clip, accumulate=accumulate)
        for seed in range(3):
            x, target = batch(8, seed)
            before = model.state_dict()
            for part_x, part_target in zip(np.split(x, accumulate), np.split(target, accumulate), strict=True):
                assert_same_bits(model.state_dict(), before)  # nothing moves before the last part
                step(part_x, part_target)
            assert not np.array_equal(model.state_dict()["fc.weight"], before["fc.weight"])
        states.append(model.state_dict())
    for path, array in states[0].items():
        assert_allclose(states[1][path], array, rtol=1e-4, atol=1e-5, err_msg=path)


def test_flush_applies_what_has_been_accumulated() -> None:
    irconv.random.manual_seed(0)
    model = Plain()
    step = compiled(model, optim.SGD(model.parameters(), lr=0.1), accumulate=4)
    before = model.state_dict()
    step(*batch())
    assert_same_bits(model.state_dict(), before)
    step.flush()
    after = model.state_dict()
    assert not np.array_equal(after["fc.weight"], before["fc.weight"])
    step.flush()  # nothing is waiting
    assert_same_bits(model.state_dict(), after)
    with pytest.raises(AttributeValueError, match="accumulate"):
        compiled(model, optim.SGD(model.parameters()), accumulate=0)


@pytest.mark.parametrize("frozen", ["conv.weight", "bn.bias"])
@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_frozen_parameters_are_not_touched(frozen: str, name: str) -> None:
    model = net()
    parameters = dict(model.named_parameters())
    parameters[frozen].requires_grad_(False)
    before = model.state_dict()
    optimizer = OPTIMIZERS[name](model.parameters())
    step = compiled(model, optimizer)
    for _ in range(3):
        step(*batch())
    after = model.state_dict()
    assert after[frozen].tobytes() == before[frozen].tobytes()
    changed = {path for path in parameters if not np.array_equal(after[path], before[path])}
    assert changed == set(parameters) - {frozen}
    assert not any(state.startswith(frozen) for state in optimizer.state_dict())


def test_only_what_the_optimizer_was_given_is_trained() -> None:
    model = net()
    before = model.state_dict()
    step = compiled(model, optim.SGD(model.fc.parameters(), lr=0.1))
    step(*batch())
    after = model.state_dict()
    assert {p for p, _ in model.named_parameters() if not np.array_equal(after[p], before[p])} == {"fc.weight", "fc.bias"}
    assert not any(node.op.name == "conv_transpose" for node in step.graph)  # no gradient goes further back than it must
    with pytest.raises(GradientError, match="no parameter"):
        model.requires_grad_(False)
        compiled(model, optim.SGD(model.parameters(), lr=0.1))


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


# --- mistakes ------------------------------------------------------------------------------------------------------------


def test_mistakes_are_named() -> None:
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    x, target = batch()
    with pytest.raises(GradientError, match="scalar"):
        compiled(model, optimizer, lambda y, t: y)
    with pytest.raises(GradientError, match="scalar"):
        compiled(model, optimizer, lambda y, t: 3.0)
    with pytest.raises(TraceError, match="target"):
        irconv.compile_step(model, F.cross_entropy, optimizer, x, backend="numpy")
    with pytest.raises(irconv.IrconvError):
        irconv.compile_step(model, F.cross_entropy, optimizer, TensorSpec((4, 5, 6, 6)), target, backend="numpy")


def test_functions_and_modules_as_losses() -> None:
    model, other = net(), net()
    by_function = compiled(model, optim.SGD(model.parameters(), lr=0.1))
    by_module = compiled(other, optim.SGD(other.parameters(), lr=0.1), nn.CrossEntropyLoss())
    for _ in range(2):
        assert by_function(*batch()) == by_module(*batch())
    assert_same_bits(model.state_dict(), other.state_dict())
