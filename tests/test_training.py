"""Compiled training steps: the same numbers as backward and step."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import irconv
import irconv.nn.functional as F
from irconv import TensorSpec, nn, optim
from irconv.errors import AttributeValueError, GradientError, TraceError
from tests.training_nets import OPTIMIZERS, Plain, assert_same_bits, batch, compiled, net

# --- the same numbers as define-by-run ---------------------------------------------------------------------------------

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


def test_eager_and_compiled_steps_share_the_optimizers_state() -> None:
    eager, mixed = net(), net()
    by_hand, shared = (optim.Adam(m.parameters(), lr=0.01) for m in (eager, mixed))
    step = compiled(mixed, shared)
    for seed in range(6):
        x, target = batch(seed=seed)
        for model, optimizer in ((eager, by_hand), (mixed, shared)):
            if model is mixed and seed % 2:
                step(x, target)
            else:
                optimizer.zero_grad()
                F.cross_entropy(model(irconv.tensor(x)), irconv.tensor(target)).backward()
                optimizer.step()
    for path, array in eager.state_dict().items():
        assert_allclose(mixed.state_dict()[path], array, rtol=1e-5, atol=1e-6, err_msg=path)


def test_in_checking_mode_every_pass_agrees_with_the_reference() -> None:
    model = net(dropout=0.5)
    assert np.isfinite(compiled(model, optim.Adam(model.parameters()), check=True)(*batch()))


def test_float64_and_float16() -> None:
    x, target = batch()
    for dtype, tolerance in (("f64", 1e-12), ("f16", 2e-2)):
        irconv.random.manual_seed(0)
        eager = Plain().to(dtype)
        model = Plain().to(dtype)
        model.load_state_dict(eager.state_dict())
        x = x.astype(model.fc.weight.dtype)
        by_hand, optimizer = (optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (eager, model))
        step = irconv.compile_step(model, F.cross_entropy, optimizer, x, target, backend="numpy")
        for _ in range(3):
            by_hand.zero_grad()
            F.cross_entropy(eager(irconv.tensor(x)), irconv.tensor(target)).backward()
            by_hand.step()
            step(x, target)
        for path, array in eager.state_dict().items():
            assert_allclose(model.state_dict()[path], array, rtol=tolerance, atol=tolerance, err_msg=path)


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


def test_parameters_without_a_gradient_are_left_alone() -> None:
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.used(x)

    model, x = Unused(), np.ones((2, 3), np.float32)
    before = model.state_dict()
    optimizer = optim.SGD(model.parameters(), lr=0.1, weight_decay=0.5, momentum=0.9)
    step = irconv.compile_step(model, F.mse_loss, optimizer, x, x, backend="numpy")
    step(x, x)
    after = model.state_dict()
    assert {path for path in after if not np.array_equal(after[path], before[path])} == {"used.weight", "used.bias"}


def test_groups_have_settings_of_their_own() -> None:
    eager, model = net(), net()
    by_hand, optimizer = (
        optim.SGD([{"params": m.fc.parameters()}, {"params": [m.conv.weight], "lr": 0.5}], lr=0.1, momentum=0.9) for m in (eager, model)
    )
    step = compiled(model, optimizer)
    assert {"lr", "momentum", "group1.lr", "group1.momentum", "fc.weight.momentum"} <= {step.graph[i].name for i in step.graph.states}
    for seed in range(3):
        x, target = batch(seed=seed)
        by_hand.zero_grad()
        F.cross_entropy(eager(irconv.tensor(x)), irconv.tensor(target)).backward()
        by_hand.step()
        step(x, target)
    for path, array in eager.state_dict().items():
        assert_allclose(model.state_dict()[path], array, rtol=1e-5, atol=1e-5, err_msg=path)


def test_a_gradient_inside_the_loss() -> None:
    """The penalty on the gradient by the input is differentiated by the parameters, compiled as define-by-run."""

    class Penalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Plain()

        def forward(self, x):
            slope = irconv.grad(lambda z: F.softplus(self.inner(z)).sum())(x)
            return self.inner(x), (slope**2).sum()

    def loss(result, target):
        scores, penalty = result
        return F.cross_entropy(scores, target) + 0.1 * penalty

    irconv.random.manual_seed(0)
    eager, (x, target) = Penalised(), batch()
    irconv.random.manual_seed(0)
    model = Penalised()
    step = compiled(model, optim.SGD(model.parameters(), lr=0.1), loss)
    by_hand = optim.SGD(eager.parameters(), lr=0.1)
    for _ in range(2):
        by_hand.zero_grad()
        value = loss(eager(irconv.tensor(x)), irconv.tensor(target))
        value.backward()
        by_hand.step()
        assert_allclose(step(x, target), value.item(), rtol=1e-5)
    for path, array in eager.state_dict().items():
        assert_allclose(model.state_dict()[path], array, rtol=1e-5, atol=1e-5, err_msg=path)


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
