"""PyTorch modules run by irconv: real networks equal in float64, shared memory, modes, names, and what is refused."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import irconv
from irconv import nn, optim, structure
from irconv.errors import ModelError, TraceError

torch = pytest.importorskip("torch")

import torch.nn.functional as tF  # noqa: E402

from irconv.frontends.torch import from_torch  # noqa: E402
from tests.torch_networks import NETWORKS, BasicBlock, ResNet, UNet, agree, array, made  # noqa: E402

tnn = torch.nn

# --- networks ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_agree_forward_and_backward(name: str) -> None:
    make, shape = NETWORKS[name]
    theirs = made(make)
    if name == "mobilenet_v2":
        theirs.classifier[0].p = 0.0  # which elements dropout takes is PyTorch's affair
    for mode in (False, True):
        theirs.train(mode)
        ours = from_torch(copy.deepcopy(theirs))
        assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
        assert {n for n, _ in ours.named_buffers()} == {n for n, _ in theirs.named_buffers()}
        x = array(*shape)
        reference = torch.tensor(x, requires_grad=True)
        wanted = theirs(reference)
        labels = [label for label, _ in theirs.named_parameters()]
        joint = irconv.differentiate(irconv.trace(ours, x, training=mode), ["x", *labels])
        seed = array(*wanted.shape, seed=1)
        found = irconv.compile(joint, backend="numpy")(x, seed)
        wanted.backward(torch.tensor(seed))
        gradients = dict(zip(joint.outputs, structure.leaves(found), strict=True))
        agree(gradients[""][1], wanted)
        agree(gradients["d_x"][1], reference.grad, 1e-8)
        for label, other in theirs.named_parameters():
            agree(gradients[f"d_{label}"][1], other.grad, 1e-8)
        for label, buffer in ours.named_buffers():
            if label.endswith(("mean", "var")):
                agree(buffer.numpy(), dict(theirs.named_buffers())[label])
        theirs.zero_grad()


def test_define_by_run_gradients_agree() -> None:
    theirs = made(UNet)
    ours = from_torch(copy.deepcopy(theirs))
    x = array(1, 3, 17, 16)
    wanted, found = theirs(torch.tensor(x)).square().sum(), (ours(x) ** 2).sum()
    agree(found.numpy(), wanted)
    wanted.backward()
    found.backward()
    for (label, parameter), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert parameter.grad is not None, label
        agree(parameter.grad.numpy(), other.grad, 1e-8)
    for (_, buffer), other in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        agree(buffer.numpy(), other)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_compile_with_their_names(name: str) -> None:
    make, shape = NETWORKS[name]
    theirs = made(make).float().eval()
    ours = irconv.from_torch(theirs)
    x = array(*shape).astype(np.float32)
    agree(irconv.compile(ours, x)(x), theirs(torch.tensor(x)), 1e-4)
    graph = irconv.trace(ours, x)
    assert [graph[i].name for i in graph.inputs] == ["x"]
    names = {node.name for node in graph}
    assert {n for n, _ in theirs.named_parameters()} <= names
    layers = {
        n
        for n, m in theirs.named_modules()
        if type(m).__name__ in ("Conv2d", "BatchNorm2d", "Linear", "ConvTranspose2d")
    }
    assert layers <= names
    lines = {node.provenance.location.file for node in graph if node.provenance.location}
    assert all(file.endswith("torch_networks.py") for file in lines)


# --- sharing and training ------------------------------------------------------------------------------------------------------


def test_memory_is_shared_both_ways() -> None:
    theirs = made(UNet).eval()
    ours = from_torch(theirs)
    for label, part in ours.named_state():
        other = theirs.state_dict()[label]
        assert np.shares_memory(part.value.variable.array, other.numpy()), label
    exe = irconv.compile(ours, irconv.TensorSpec((1, 3, 16, 16), "f64"))
    x = array(1, 3, 16, 16)
    before = exe(x)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(1.1)  # batch norm was folded into the weights: the change must be seen
    after = exe(x)
    assert np.abs(after - before).max() > 1e-3
    agree(after, theirs(torch.tensor(x)))
    ours.head.bias.assign(np.array([3.0, 4.0]))
    assert theirs.head.bias.tolist() == [3.0, 4.0]


@pytest.mark.parametrize("folded", [False, True])
def test_what_pytorch_writes_is_seen_after_any_number_of_calls(folded: bool) -> None:
    theirs = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)) if folded else torch.nn.Conv2d(2, 3, 3)
    theirs.eval()
    x = array(2, 2, 6, 6).astype(np.float32)
    exe = irconv.compile(from_torch(theirs), x)
    call = exe.bind(x)
    for _ in range(3):
        with torch.no_grad():
            next(theirs.parameters()).mul_(-1.5)
        for _ in range(4):
            agree(exe(x), theirs(torch.tensor(x)), 1e-5)
            agree(call(), theirs(torch.tensor(x)), 1e-5)


def test_training_here_trains_there() -> None:
    theirs = made(lambda: ResNet(BasicBlock, (1, 1, 1, 1)))
    twin = copy.deepcopy(theirs)
    ours = from_torch(theirs)
    x, target = array(4, 3, 32, 32), np.array([1, 2, 3, 4])
    step = irconv.compile_step(ours, nn.functional.cross_entropy, optim.SGD(ours.parameters(), lr=0.1, momentum=0.9))
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        loss = tF.cross_entropy(twin(torch.tensor(x)), torch.tensor(target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        np.testing.assert_allclose(step(x, target), loss.item(), rtol=1e-7)
    for label, value in twin.state_dict().items():
        agree(theirs.state_dict()[label].numpy(), value, 1e-6)


def test_tied_weights_stay_tied_and_frozen_ones_frozen() -> None:
    theirs = tnn.Sequential(tnn.Linear(3, 3), tnn.ReLU(), tnn.Linear(3, 3))
    theirs[2].weight = theirs[0].weight
    theirs[0].bias.requires_grad_(False)
    ours = from_torch(theirs)
    assert ours.get_submodule("2").weight is ours.get_submodule("0").weight
    assert ours.get_submodule("0").bias.frozen


def test_a_head_is_replaced() -> None:
    theirs = made(lambda: ResNet(BasicBlock, (1, 1, 1, 1))).float().eval()
    ours = from_torch(theirs)
    ours.fc = nn.Linear(64, 3)
    assert ours(array(1, 3, 32, 32).astype(np.float32)).shape == (1, 3)


class Modes(tnn.Module):
    def __init__(self):
        super().__init__()
        self.bn = tnn.BatchNorm1d(4)
        self.register_buffer("scale", torch.tensor(2.0, dtype=torch.float64))

    def forward(self, x):
        x = self.bn(x) * self.scale
        if self.training:
            return x + 1
        return tF.dropout(x, 0.5, self.training)


def test_modes_are_respected() -> None:
    theirs = made(Modes)
    ours = from_torch(theirs)
    x = array(3, 4)
    for mode in (True, False, True):
        twin = copy.deepcopy(theirs).train(mode)
        ours.train(mode)
        agree(ours(x), twin(torch.tensor(x)))
    assert theirs.training
    assert not from_torch(theirs.eval()).own_training
    assert irconv.trace(ours, x).updates == {}
    assert irconv.trace(ours, x, training=True).updates != {}


class Dropping(tnn.Module):
    """Functional dropout, a counter, and a feature kept for later."""

    def __init__(self, in_place: bool):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))
        self.in_place = in_place

    def forward(self, x):
        if self.in_place:
            self.calls.add_(1)
            self.kept = x * self.calls
            return tF.dropout(self.kept, 0.5, self.training)
        self.calls = self.calls + 1
        return tF.dropout(x * self.calls, 0.5, self.training)


@pytest.mark.parametrize("in_place", [True, False])
def test_functional_modes_and_buffers_written_in_place(in_place: bool) -> None:
    theirs = tnn.Sequential(Dropping(in_place)).eval()
    x = np.ones((8, 50))
    ours = from_torch(theirs)
    assert theirs[0].calls.item() == 0
    assert not hasattr(theirs[0], "kept")
    assert not theirs[0].training
    np.testing.assert_array_equal(ours(x).numpy(), x)
    assert theirs[0].calls.item() == 1
    dropped = ours.train()(x).numpy()
    assert set(np.unique(dropped)) == {0.0, 4.0}
    assert irconv.compile(ours, x)(x).tolist() == (3 * x).tolist()
    assert theirs[0].calls.item() == 3


@pytest.mark.parametrize("make", [lambda: tnn.Conv2d(2, 3, 3), lambda: tnn.BatchNorm2d(2), lambda: tnn.ReLU()])
def test_a_layer_alone(make: Callable[[], Any]) -> None:
    theirs = made(make)
    twin, ours = copy.deepcopy(theirs), from_torch(theirs)
    x = array(2, 2, 5, 5)
    agree(ours(x), twin(torch.tensor(x)))
    for label, value in twin.state_dict().items():
        agree(theirs.state_dict()[label].numpy(), value)


def test_layers_that_were_put_in_evaluation_mode_stay_there() -> None:
    theirs = tnn.Sequential(tnn.BatchNorm1d(4), tnn.Linear(4, 4), tnn.BatchNorm1d(4)).double()
    theirs[0].eval()
    twin, ours = copy.deepcopy(theirs), from_torch(theirs)
    agree(ours(array(3, 4)), twin(torch.tensor(array(3, 4))))
    agree(theirs[2].running_mean.numpy(), twin[2].running_mean)
    assert theirs[0].running_mean.tolist() == [0, 0, 0, 0]


# --- what is refused ----------------------------------------------------------------------------------------------------------


def test_unsupported_operations_are_listed_at_once() -> None:
    class Odd(tnn.Module):
        def __init__(self):
            super().__init__()
            self.attention = tnn.MultiheadAttention(4, 2)
            self.bag = tnn.EmbeddingBag(3, 4)

        def forward(self, x):
            y, _ = self.attention(x, x, x)
            y = torch.linalg.svd(y)[0] + torch.fft.fft(x).real + torch.fft.fft(y).real
            return self.bag(y.bernoulli())

    with pytest.raises(ModelError) as caught:
        from_torch(Odd())
    message = str(caught.value)
    assert "5 operations of this module are not supported" in message
    assert "_fft.fft_fft: 2 (fft_fft, fft_fft_1)" in message
    for line in (
        "module MultiheadAttention: 1 (attention)",
        "module EmbeddingBag: 1 (bag)",
        "method bernoulli: 1 (bernoulli)",
    ):
        assert line in message


def test_writing_through_a_view_is_refused() -> None:
    class Sneaky(tnn.Module):
        def forward(self, x):
            y = x * 2
            view = y.view(-1)
            y.add_(1)
            return view

    with pytest.raises(ModelError, match="add_? ?.*writes into mul, of which view may be a view"):
        from_torch(Sneaky())(array(2, 3))


def test_parameters_that_cannot_be_shared() -> None:
    with pytest.raises(ModelError, match="'weight' is not contiguous"):
        from_torch(tnn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last))
    with pytest.raises(ModelError, match="bfloat16"):
        from_torch(tnn.Linear(3, 4).bfloat16())
    with pytest.raises(ModelError, match="takes a torch.nn.Module"):
        from_torch("model")
    with pytest.raises(TraceError, match="forward"):
        from_torch(UNet())(1, 2, 3)


def test_torch_is_imported_only_when_asked_for() -> None:
    code = "import sys, irconv; assert 'torch' not in sys.modules; irconv.from_torch; assert 'torch' in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert not hasattr(irconv, "from_nowhere")


def test_importing_leaves_the_module_as_it_was() -> None:
    theirs = made(Modes).eval()
    theirs.bn.train()
    before = {k: v.clone() for k, v in theirs.state_dict().items()}
    names = set(vars(theirs))
    from_torch(theirs)
    assert set(vars(theirs)) == names
    assert (theirs.training, theirs.bn.training) == (False, True)
    assert all(torch.equal(v, before[k]) for k, v in theirs.state_dict().items())
