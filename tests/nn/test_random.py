"""Generators and dropout: streams, steps, statistics, define-by-run and traced."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn, random
from irconv.errors import AttributeValueError, ShapeError, StateError, TraceError
from irconv.interpret import evaluate


def run(graph: Any, *inputs: np.ndarray) -> tuple[list[np.ndarray], None]:
    """Outputs, with the updates written as an executable would."""
    values = evaluate(graph, dict(zip(graph.inputs, inputs, strict=True)))
    for state, new in graph.updates.items():
        graph.state[graph[state].name].assign(values[new])
    return [values[i] for i in graph.outputs.values()], None


def test_the_seed_decides() -> None:
    first, second, other = random.Generator(5), random.Generator(5), random.Generator(6)
    np.testing.assert_array_equal(first.normal((3, 4)).numpy(), second.normal((3, 4)).numpy())
    assert not np.array_equal(first.uniform(9).numpy(), other.uniform(9).numpy())
    assert not np.array_equal(first.uniform(9).numpy(), first.uniform(9).numpy())
    wide = random.Generator(2**40 + 5)
    assert not np.array_equal(wide.bits(8).numpy(), random.Generator(5).bits(8).numpy())


def test_distributions() -> None:
    source = random.Generator(1)
    u = source.uniform((200, 200), -1.0, 3.0).numpy()
    assert -1 <= u.min() < -0.99
    assert 2.99 < u.max() < 3
    assert u.mean() == pytest.approx(1, abs=0.03)
    n = source.normal((200, 200), 2.0, 0.5, dtype="f64").numpy()
    assert n.mean() == pytest.approx(2, abs=0.01)
    assert n.std() == pytest.approx(0.5, rel=0.01)
    b = source.bernoulli((200, 200), 0.3).numpy()
    assert b.dtype == np.bool_
    assert b.mean() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("piece", [64, random.PIECE])
@pytest.mark.parametrize("dtype", ["f16", "f32", "f64"])
@pytest.mark.parametrize("shape", [(0, 3), (), (63,), (3, 43), (131_073,)], ids=str)
def test_filled_in_pieces_with_the_numbers_of_a_whole_draw(shape, dtype, piece, monkeypatch) -> None:
    monkeypatch.setattr(random, "PIECE", piece)
    whole, pieces = random.Generator(7), random.Generator(7)
    tensor = nn.Parameter(np.full(shape, 9, random.uniform((), dtype=dtype).dtype))
    before = tensor.value.variable.version
    for low, high in ((-2.0, 0.5), (0.0, 1.0)):
        pieces.fill_uniform(tensor, low, high)
        np.testing.assert_array_equal(tensor.numpy(), whole.uniform(shape, low, high, dtype).numpy())
        pieces.fill_normal(tensor, low, high)
        np.testing.assert_array_equal(tensor.numpy(), whole.normal(shape, low, high, dtype).numpy())
    assert tensor.value.variable.version > before
    assert pieces.state_dict()["draws"] == whole.state_dict()["draws"]


def test_only_what_holds_an_array_is_filled() -> None:
    with pytest.raises(TraceError, match="only parameters and buffers"):
        random.Generator(7).fill_uniform(irconv.tensor(np.zeros(3, np.float32)))


def test_a_large_weight_takes_little_beside_itself() -> None:
    tensor = nn.Parameter(np.zeros((1000, 4000), np.float32))
    tracemalloc.start()
    nn.init.kaiming_uniform_(tensor)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < tensor.type.bytes / 2


def test_state_can_be_saved() -> None:
    source = random.Generator(3)
    source.uniform(4)
    state = source.state_dict()
    wanted = source.uniform(4).numpy()
    other = random.Generator(99)
    other.load_state_dict(state)
    np.testing.assert_array_equal(other.uniform(4).numpy(), wanted)
    with pytest.raises(StateError, match="key, step, draws"):
        other.load_state_dict({"key": state["key"]})
    with pytest.raises(StateError, match="the key of a random generator"):
        other.load_state_dict({**state, "key": np.zeros(3, np.uint32)})
    source.manual_seed(3)
    assert source.state_dict()["draws"] == 0


class Twice(nn.Module):
    def __init__(self) -> None:
        self.first = nn.Dropout(0.5)
        self.second = nn.Dropout(0.5)

    def forward(self, x: irconv.Tensor) -> tuple[irconv.Tensor, ...]:
        return self.first(x), self.second(x), self.first(x)


def test_traced_dropouts_have_streams_of_their_own_and_share_one_step() -> None:
    graph = irconv.trace(Twice(), irconv.TensorSpec((64,)), training=True)
    draws = [node for node in graph if node.op.name == "random_bits"]
    assert len({node.attributes.stream for node in draws}) == 3
    assert {graph[i].name for node in draws for i in node.operands} == {"random.key", "random.step"}
    assert [graph[s].name for s in graph.updates] == ["random.step"]
    again = irconv.trace(Twice(), irconv.TensorSpec((64,)), training=True)
    assert str(again) == str(graph)


def test_every_run_of_a_traced_step_draws_anew_and_repeats_from_the_same_state() -> None:
    random.manual_seed(11)
    graph = irconv.trace(Twice(), irconv.TensorSpec((256,)), training=True)
    x = np.ones(256, np.float32)
    first, _ = run(graph, x)
    second, _ = run(graph, x)
    assert random.default_generator().step.item() == 2
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[2])
    assert not np.array_equal(first[0], second[0])
    random.manual_seed(11)
    again, _ = run(graph, x)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_evaluation_trace_does_not_move_the_step() -> None:
    graph = irconv.trace(lambda x: F.dropout(x, 0.5), irconv.TensorSpec((8,)))
    assert not graph.updates


def test_two_generators_in_one_trace() -> None:
    one, two = random.Generator(1), random.Generator(2)

    def program(x: irconv.Tensor) -> irconv.Tensor:
        return F.dropout(x, 0.5, generator=one) + F.dropout(x, 0.5, generator=two)

    graph = irconv.trace(program, irconv.TensorSpec((8,)), training=True)
    assert [graph[s].name for s in graph.updates] == ["random.step", "random1.step"]


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_keeps_the_mean(p: float) -> None:
    random.manual_seed(0)
    x = irconv.ones((200, 200)).requires_grad_()
    y = F.dropout(x, p)
    values = y.numpy()
    assert set(np.unique(values)) == {np.float32(0), np.float32(1 / (1 - p))}
    assert (values == 0).mean() == pytest.approx(p, abs=0.01)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), values)


def test_dropout_bounds_and_modes() -> None:
    x = irconv.tensor([[1.0, 2.0]])
    assert F.dropout(x, 0.0) is x
    assert F.dropout(x, 1.0).tolist() == [[0, 0]]
    assert F.dropout(x, 0.5, training=False) is x
    layer = nn.Dropout(0.5).eval()
    assert layer(x) is x
    for p in (-0.1, 1.1):
        with pytest.raises(AttributeValueError, match="is not between 0 and 1"):
            nn.Dropout(p)
        with pytest.raises(AttributeValueError, match="is not between 0 and 1"):
            F.dropout(x, p)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("batch", [(), (5,)])
def test_channel_dropout_drops_whole_channels(rank: int, batch: tuple[int, ...]) -> None:
    random.manual_seed(2)
    layer = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}[rank](0.5)
    y = layer(irconv.ones((*batch, 20, *(3, 2, 4)[:rank]))).numpy().reshape(*batch, 20, -1)
    assert ((y == y[..., :1]).all(-1)).all()
    assert 0 < (y == 0).mean() < 1
    with pytest.raises(ShapeError, match=f"dropout{rank}d takes"):
        layer(irconv.ones((3,)))


def test_bad_seeds_are_refused() -> None:
    for seed in (-1, 2**64, 1.5, "x"):
        with pytest.raises(AttributeValueError, match="is not an integer from 0 to"):
            random.Generator(seed)
    with pytest.raises(AttributeValueError, match=r"1\.5 is not a probability"):
        random.bernoulli(3, 1.5)
