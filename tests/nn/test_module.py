"""Modules: naming, state dicts, modes, sharing, showing."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import irconv
from irconv import nn, optim
from irconv.errors import AttributeValueError, ModelError, StateError


class Block(nn.Module):
    def __init__(self, channels: int = 4):
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.kernel = nn.Buffer(np.ones((2, 2), np.float32))

    def forward(self, x: irconv.Tensor) -> irconv.Tensor:
        return x + self.norm(self.conv(x)).relu()


class Net(nn.Module):
    def __init__(self) -> None:
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4 * 36, 3))
        self.scale = nn.Parameter(np.ones(1, np.float32))

    def forward(self, x: irconv.Tensor) -> irconv.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x) * self.scale


NAMES = [
    "scale", "stem.weight", "stem.bias",
    "blocks.0.kernel", "blocks.0.conv.weight", "blocks.0.norm.weight", "blocks.0.norm.bias",
    "blocks.0.norm.running_mean", "blocks.0.norm.running_var", "blocks.0.norm.num_batches_tracked",
    "blocks.1.kernel", "blocks.1.conv.weight", "blocks.1.norm.weight", "blocks.1.norm.bias",
    "blocks.1.norm.running_mean", "blocks.1.norm.running_var", "blocks.1.norm.num_batches_tracked",
    "head.2.weight", "head.2.bias",
]  # fmt: skip


def test_state_is_named_after_attributes() -> None:
    net = Net()
    assert list(net.state_dict()) == NAMES
    assert [name for name, _ in net.named_buffers()] == [
        n for n in NAMES if "running" in n or "batches" in n or "kernel" in n
    ]
    assert len(list(net.parameters())) == len(NAMES) - 8
    assert [name for name, _ in net.named_modules()][:4] == ["", "stem", "blocks", "blocks.0"]
    assert net.get_submodule("blocks.1.norm") is net.blocks[1].norm
    with pytest.raises(ModelError, match=r"no submodule 'blocks\.2'"):
        net.get_submodule("blocks.2")


def test_state_dict_round_trip_is_exact_and_copies() -> None:
    first, second = Net(), Net()
    state = first.state_dict()
    result = second.load_state_dict(state)
    assert result == ([], [])
    x = irconv.tensor(np.random.default_rng(0).normal(size=(2, 1, 6, 6)).astype(np.float32))
    np.testing.assert_array_equal(first.eval()(x).numpy(), second.eval()(x).numpy())
    state["scale"][:] = 7
    assert second.scale.item() == 1
    versions = [p.variable.version for p in second.parameters()]
    second.load_state_dict(first.state_dict())
    assert all(p.variable.version > v for p, v in zip(second.parameters(), versions, strict=True))


def test_load_state_dict_lists_everything_that_does_not_fit_and_changes_nothing() -> None:
    net = Net()
    before = net.state_dict()
    state = {name: value + 1 for name, value in before.items()}
    del state["stem.bias"], state["head.2.weight"]
    state["extra"] = np.zeros(3)
    state["scale"] = np.zeros((2, 2))
    state["blocks.0.norm.num_batches_tracked"] = np.float32(3.5)
    with pytest.raises(StateError) as caught:
        net.load_state_dict(state)
    message = str(caught.value)
    assert "missing (2): stem.bias, head.2.weight" in message
    assert "surplus (1): extra" in message
    assert "scale: needs f32[1], got f64[2,2]" in message
    assert "num_batches_tracked: needs i64[], got f32[]" in message
    with pytest.raises(StateError, match="scale: needs"):
        net.load_state_dict(state, strict=False)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_load_state_dict_not_strict_returns_what_is_left_out() -> None:
    net = Net()
    state = {"scale": np.full(1, 3.0), "extra": np.zeros(3)}
    missing, surplus = net.load_state_dict(state, strict=False)
    assert missing == [n for n in NAMES if n != "scale"]
    assert surplus == ["extra"]
    assert net.scale.item() == 3


def test_modes() -> None:
    net = Net()
    assert net.training
    net.blocks[0].eval()
    assert not net.blocks[0].norm.training
    assert net.blocks[1].norm.training
    assert not any(m.training for m in net.eval().modules())
    assert all(m.training for m in net.train().modules())
    net.training = False
    assert not net.training


def test_tracing_says_the_mode_and_changes_no_flag() -> None:
    net = Net()
    spec = irconv.TensorSpec((2, 1, 6, 6))
    evaluation = irconv.trace(net, spec)
    assert not evaluation.updates
    assert "random_bits" not in {n.op.name for n in evaluation}
    training = irconv.trace(net, spec, training=True)
    assert {training[s].name for s in training.updates} >= {"blocks.0.norm.running_mean", "random.step"}
    assert net.training
    net.eval()
    again = irconv.trace(net, spec, training=True)
    assert str(again) == str(training)  # a model that is in evaluation mode as a whole trains all the same
    net.train()
    net.blocks[0].eval()
    partly = irconv.trace(net, spec, training=True)
    assert {partly[s].name for s in partly.updates if "running_mean" in partly[s].name} == {
        "blocks.1.norm.running_mean"
    }


def test_traced_nodes_are_named_after_modules_and_traced_equals_eager() -> None:
    from irconv.interpret import evaluate

    net = Net().eval()
    x = np.random.default_rng(0).normal(size=(2, 1, 6, 6)).astype(np.float32)
    graph = irconv.trace(net, x)
    assert graph.has_name("blocks.0.conv")
    assert graph["blocks.1.norm"].provenance.scope == "blocks.1.norm"
    values = evaluate(graph, {graph.inputs[0]: x})
    np.testing.assert_array_equal(values[next(iter(graph.outputs.values()))], net(irconv.tensor(x)).numpy())


def test_shared_modules_are_one() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            self.first = nn.Linear(3, 3)
            self.second = self.first
            self.third = nn.Linear(3, 3)
            self.third.weight = self.first.weight

        def forward(self, x: irconv.Tensor) -> irconv.Tensor:
            return self.third(self.second(self.first(x)))

    net = Tied()
    assert [name for name, _ in net.named_parameters()] == ["first.weight", "first.bias", "third.bias"]
    assert list(net.state_dict()) == [
        "first.weight",
        "first.bias",
        "second.weight",
        "second.bias",
        "third.weight",
        "third.bias",
    ]
    graph = irconv.trace(net, irconv.TensorSpec((1, 3)))
    assert {graph[s].name for s in graph.states} == {"first.weight", "first.bias", "third.bias"}
    twin = copy.deepcopy(net)
    assert twin.second is twin.first
    assert twin.third.weight is twin.first.weight
    assert twin.first.weight is not net.first.weight
    np.testing.assert_array_equal(twin.first.weight.numpy(), net.first.weight.numpy())


def test_a_module_that_contains_itself_is_refused_when_saved() -> None:
    block = Block()
    block.inner = block
    assert len(list(block.named_parameters())) == 3
    with pytest.raises(ModelError, match="contains itself"):
        block.state_dict()


def test_freezing() -> None:
    net = Net()
    net.stem.requires_grad_(False)
    assert net.stem.weight.frozen
    assert not net.scale.frozen
    x = irconv.tensor(np.ones((2, 1, 6, 6), np.float32))
    net(x).sum().backward()
    assert net.stem.weight.grad is None
    assert net.scale.grad is not None
    graph = irconv.trace(net, irconv.TensorSpec((2, 1, 6, 6)))
    assert graph["stem.weight"].attributes.role == "frozen"
    assert graph["scale"].attributes.role == "param"
    assert graph["blocks.0.norm.running_mean"].attributes.role == "buffer"
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_apply_and_conversion() -> None:
    net = Net()
    seen = []
    net.apply(lambda m: seen.append(type(m).__name__))
    assert seen[0] == "Conv2d"
    assert seen[-1] == "Net"
    net.double()
    assert {p.dtype for p in net.parameters()} == {np.dtype(np.float64)}
    assert net.blocks[0].norm.num_batches_tracked.dtype == np.int64
    assert net.scale.requires_grad
    with pytest.raises(AttributeValueError, match="cannot be converted to i32"):
        net.to("i32")


def test_containers() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
    assert len(net) == 3
    assert isinstance(net[:2], nn.Sequential)
    assert net[-1].out_features == 4
    net[1] = nn.Tanh()
    assert isinstance(net[1], nn.Tanh)
    net.append(nn.Identity())
    assert [name for name, _ in net.named_children()] == ["0", "1", "2", "3"]
    named = nn.Sequential({"a": nn.Linear(2, 3), "b": nn.ReLU()})
    assert list(named.state_dict()) == ["a.weight", "a.bias"]
    table = nn.ModuleDict({"x": nn.ReLU(), "y": nn.Linear(1, 1)})
    assert "x" in table
    assert list(table) == ["x", "y"]
    del table["x"]
    assert len(table) == 1
    with pytest.raises(AttributeValueError, match="'keys' cannot name a module"):
        table["keys"] = nn.ReLU()
    with pytest.raises(AttributeValueError, match="needs a module, got a int"):
        nn.Sequential(nn.ReLU(), 3)
    with pytest.raises(AttributeValueError, match=r"'a\.b' cannot name a submodule"):
        nn.Sequential({"a.b": nn.ReLU()})


def test_repr_is_a_tree() -> None:
    assert repr(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.ReLU()))) == (
        "Sequential(\n"
        "  (0): Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))\n"
        "  (1): Sequential(\n"
        "    (0): ReLU()\n"
        "  )\n"
        ")"
    )


def test_a_module_without_forward_says_so() -> None:
    with pytest.raises(ModelError, match="ModuleList has no forward method"):
        nn.ModuleList([])(1)


def test_register() -> None:
    net = nn.Module()
    net.register_parameter("weight", nn.Parameter(np.ones(2)))
    net.register_parameter("bias", None)
    net.register_buffer("mean", np.zeros(2))
    assert list(net.state_dict()) == ["weight", "mean"]
    assert net.bias is None


def test_a_buffer_is_not_lost_to_what_is_computed_from_it() -> None:
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = nn.Buffer(np.zeros((), "i8"))
            self.weight = nn.Parameter(np.ones(2, "f4"))

        def forward(self, x):
            self.calls += 1
            return x * self.weight

    model = Counting()
    model(irconv.tensor([1.0, 2.0]))
    step = irconv.compile_step(model, lambda y, t: (y * t).sum(), optim.SGD(model.parameters(), lr=0.1))
    step(np.ones(2, "f4"), np.ones(2, "f4"))
    assert isinstance(model.calls, nn.Buffer) and model.calls.item() == 2
    with pytest.raises(StateError, match="buffer 'calls' of Counting would be replaced"):
        model.calls = model.calls + 1
    with pytest.raises(StateError, match="parameter 'weight'"):
        model.weight = model.weight * 2
    model.weight = nn.Parameter(np.zeros(2, "f4"))
    model.calls = None
