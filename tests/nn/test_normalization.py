"""Normalisation against PyTorch: values, gradients, running statistics, and the traps."""

from __future__ import annotations

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn
from irconv.errors import AttributeValueError, ShapeError
from irconv.interpret import evaluate
from tests.nn.against_torch import array, check, parameters_of, torch

T = torch.nn.functional
SHAPES = {"1d": [(4, 3), (4, 3, 5)], "2d": [(4, 3, 5, 2)], "3d": [(2, 3, 2, 3, 2)]}


def pair(kind: str, *args: object, **settings: object) -> tuple[nn.Module, torch.nn.Module]:
    """Our layer and PyTorch's in float64, with the same, not trivial, parameters and statistics."""
    theirs = getattr(torch.nn, kind)(*args, **settings, dtype=torch.float64)
    ours = getattr(nn, kind)(*args, **settings, dtype="f64")
    state = {
        name: np.abs(array(*value.shape, seed=len(name))) + 0.1 if value.dtype.is_floating_point else np.asarray(value)
        for name, value in theirs.state_dict().items()
    }
    theirs.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    ours.load_state_dict(state)
    return ours, theirs


def same_state(ours: nn.Module, theirs: torch.nn.Module) -> None:
    wanted = parameters_of(theirs)
    found = ours.state_dict()
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-10, err_msg=name)


@pytest.mark.parametrize("rank", ["1d", "2d", "3d"])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
def test_batch_norm(rank: str, affine: bool, momentum: float | None) -> None:
    for shape in SHAPES[rank]:
        ours, theirs = pair(f"BatchNorm{rank}", 3, momentum=momentum, affine=affine, eps=1e-3)
        for step in range(3):
            check_one_step(ours, theirs, array(*shape, seed=step))
        ours.eval()
        theirs.eval()
        check(ours, theirs, array(*shape, seed=9))
        same_state(ours, theirs)


def check_one_step(ours: nn.Module, theirs: torch.nn.Module, data: np.ndarray) -> None:
    """One training step: result, gradients of the input and the parameters, statistics."""
    x, t = irconv.tensor(data, requires_grad=True), torch.tensor(data, requires_grad=True)
    y, expected = ours(x), theirs(t)
    np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), rtol=1e-9, atol=1e-12)
    seed = array(*data.shape, seed=5)
    y.backward(seed)
    expected.backward(torch.tensor(seed))
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-8, atol=1e-12)
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), rtol=1e-8, atol=1e-10, err_msg=name)
    ours.zero_grad()
    theirs.zero_grad()
    same_state(ours, theirs)


def test_batch_norm_without_statistics_uses_the_batchs_in_evaluation() -> None:
    ours, theirs = pair("BatchNorm2d", 3, track_running_stats=False)
    check(ours.eval(), theirs.eval(), array(4, 3, 5, 2))


def test_batch_norm_traced_in_training_updates_statistics() -> None:
    layer = nn.BatchNorm2d(3, momentum=None)
    twin = nn.BatchNorm2d(3, momentum=None)
    x = array(4, 3, 5, 2).astype(np.float32)
    expected = twin(x)
    graph = irconv.trace(layer, x, training=True)
    assert {graph[s].name for s in graph.updates} == {"running_mean", "running_var", "num_batches_tracked"}
    values = evaluate(graph, {graph.inputs[0]: x})
    np.testing.assert_array_equal(values[next(iter(graph.outputs.values()))], expected.numpy())
    for state, new in graph.updates.items():
        np.testing.assert_array_equal(values[new], getattr(twin, graph[state].name).numpy())
    assert not layer.num_batches_tracked.item()
    assert {str(n.provenance.composite) for n in graph if n.op.name == "rsqrt"} == {"batch_norm batch_norm"}


def test_evaluation_trace_reads_statistics_in_the_order_that_folding_knows() -> None:
    graph = irconv.trace(nn.BatchNorm2d(3), irconv.TensorSpec((2, 3, 4, 4)))
    ops = [node.op.name for node in graph if node.operands and node.op.name not in ("reshape",)]
    assert ops == ["subtract", "add", "rsqrt", "multiply", "multiply", "add"]


def test_one_value_per_channel_is_an_error_in_training_only() -> None:
    layer = nn.BatchNorm1d(3)
    with pytest.raises(ShapeError, match=r"more than one value per channel, got shape \[1, 3\]"):
        layer(irconv.ones((1, 3)))
    layer.eval()(irconv.ones((1, 3)))
    with pytest.raises(ShapeError, match="more than one value per channel and sample"):
        nn.InstanceNorm2d(3)(irconv.ones((2, 3, 1, 1)))


def test_an_empty_batch_leaves_statistics_and_counts() -> None:
    layer = nn.BatchNorm2d(3)
    before = layer.state_dict()
    y = layer(irconv.zeros((0, 3, 4, 4)))
    y.sum().backward()
    after = layer.state_dict()
    assert int(after["num_batches_tracked"]) == 1
    for name in ("running_mean", "running_var"):
        np.testing.assert_array_equal(after[name], before[name])
    assert not layer.weight.grad.numpy().any()


def test_variance_is_accurate_far_from_zero() -> None:
    x = np.random.default_rng(0).normal(1e4, 1, (64, 2, 8, 8)).astype(np.float32)
    layer = nn.BatchNorm2d(2, momentum=1.0)
    y = layer(x).numpy().astype(np.float64)
    np.testing.assert_allclose(layer.running_var.numpy(), x.astype(np.float64).var((0, 2, 3), ddof=1), rtol=1e-4)
    np.testing.assert_allclose(y.std((0, 2, 3)), 1, rtol=1e-3)


def test_float16_is_normalised_in_float32() -> None:
    x = np.random.default_rng(0).normal(0, 300, (8, 2, 16, 16)).astype(np.float16)  # squares overflow float16
    y = nn.BatchNorm2d(2).half()(irconv.tensor(x))
    assert y.dtype == np.float16
    np.testing.assert_allclose(y.numpy().astype(np.float64).std((0, 2, 3)), 1, rtol=1e-2)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("track", [True, False])
def test_instance_norm(rank: int, track: bool) -> None:
    shape = (4, 3, *(5, 2, 3)[:rank])
    ours, theirs = pair(f"InstanceNorm{rank}d", 3, affine=True, track_running_stats=track)
    check_one_step(ours, theirs, array(*shape))
    check(ours.eval(), theirs.eval(), array(*shape, seed=3))
    check(ours, theirs, array(*shape[1:], seed=3))
    same_state(ours, theirs)


@pytest.mark.parametrize("shape", [(5,), (4, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm(shape: tuple[int, ...], bias: bool) -> None:
    check_one_step(*pair("LayerNorm", shape, bias=bias), array(2, 3, 4, 5))
    check(lambda v: F.layer_norm(v, shape), lambda v: T.layer_norm(v, shape), array(2, 4, 5))


def test_norms_can_do_without_bias() -> None:
    check_one_step(*pair("BatchNorm2d", 3, bias=False), array(2, 3, 4, 3))
    check_one_step(*pair("GroupNorm", 2, 6, bias=False), array(2, 6, 4, 3))


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm(groups: int) -> None:
    check_one_step(*pair("GroupNorm", groups, 6), array(2, 6, 4, 3))
    check(lambda v: F.group_norm(v, groups), lambda v: T.group_norm(v, groups), array(2, 6, 5))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(2, 6, 4), (2, 6, 3, 4)])
def test_local_response_norm(size: int, shape: tuple[int, ...]) -> None:
    settings = (size, 0.1, 0.6, 2.0)
    check(lambda v: F.local_response_norm(v, *settings), lambda v: T.local_response_norm(v, *settings), array(*shape))
    check(nn.LocalResponseNorm(size), torch.nn.LocalResponseNorm(size), array(*shape))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, float("inf")])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_normalize(p: float, dim: int) -> None:
    check(lambda v: F.normalize(v, p, dim), lambda v: T.normalize(v, p, dim), array(3, 4, 5))


def test_normalize_has_a_gradient_at_zero() -> None:
    x = irconv.zeros((2, 3)).requires_grad_()
    F.normalize(x).sum().backward()
    assert np.isfinite(x.grad.numpy()).all()


def test_bad_settings_are_refused_with_numbers() -> None:
    with pytest.raises(ShapeError, match="BatchNorm2d takes an input of 4 axes, got shape"):
        nn.BatchNorm2d(3)(irconv.zeros((2, 3)))
    with pytest.raises(ShapeError, match=r"running_mean has shape \[3\], the input 4 channels"):
        nn.BatchNorm2d(3)(irconv.zeros((2, 4, 5, 5)))
    with pytest.raises(AttributeValueError, match="num_groups=4 does not divide num_channels=6"):
        nn.GroupNorm(4, 6)
    with pytest.raises(ShapeError, match=r"layer_norm over \[5\]: the input has shape \[2, 4\]"):
        nn.LayerNorm(5)(irconv.zeros((2, 4)))
    with pytest.raises(AttributeValueError, match="needs running_mean and running_var"):
        F.batch_norm(irconv.zeros((2, 4)), None, None)
    with pytest.raises(ShapeError, match=r"InstanceNorm1d\(3\) got 4 channels"):
        nn.InstanceNorm1d(3)(irconv.zeros((2, 4, 5)))


@pytest.mark.parametrize("momentum", ["a", -0.1, 2])
def test_momentum_is_checked(momentum: object) -> None:
    with pytest.raises(AttributeValueError, match="momentum is a number from 0 to 1 or None"):
        nn.BatchNorm2d(3, momentum=momentum)
