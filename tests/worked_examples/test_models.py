"""Models that must compile, run and train: each is traced, written as text and read back, checked, differentiated, compiled,
run and trained for a few steps, in a small version."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import irconv
import irconv.nn.functional as F
from irconv import TensorSpec, nn, optim
from irconv.compile import INFERENCE
from irconv.interpret import evaluate
from irconv.passes.fold_batch_norm import FoldBatchNorm
from irconv.text import large_constants
from irconv.verify import verify
from tests.worked_examples.ways import normal, run_graph

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))  # the examples are not part of the wheel
models = pytest.importorskip("models", reason="the folder of examples is not here")


def classifier() -> nn.Sequential:
    """Convolution, fully connected layers and ReLU, the smallest network that has them all."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 36, 32), nn.ReLU(), nn.Linear(32, 10)
    )


SMALL: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "conv_fc_relu": (classifier, ((2, 1, 12, 12),)),
    **{name: (example.small, example.small_inputs) for name, example in models.MODELS.items()},
}


@dataclass(frozen=True)
class Case:
    model: nn.Module
    inputs: tuple[np.ndarray, ...]
    graph: irconv.Graph  # in evaluation mode

    @property
    def target(self) -> np.ndarray:
        shape = self.graph[self.graph.outputs[""]].type.shape
        return normal(*shape, seed=1, dtype=self.inputs[0].dtype)


def traced(model: nn.Module, inputs: tuple[np.ndarray, ...]) -> irconv.Graph:
    return irconv.trace(model, *(TensorSpec(x.shape, x.dtype) for x in inputs))


@functools.cache
def case(name: str) -> Case:
    irconv.random.manual_seed(0)
    make, shapes = SMALL[name]
    # so deep a network multiplies rounding by thousands before it has learned anything
    model, dtype = (make().double(), np.float64) if name == "resnet152" else (make(), np.float32)
    inputs = tuple(normal(*shape, dtype=dtype) for shape in shapes)
    return Case(model, inputs, traced(model, inputs))


all_models = pytest.mark.parametrize("name", SMALL)


def test_every_kind_of_model_is_there() -> None:
    wanted = {
        "lenet", "conv_fc_relu", "vgg11", "googlenet", "resnet18", "resnet34", "resnet50", "resnet152", "mobilenet_v2", "unet",
        "segmenter", "sequence_net", "video_net", "rgbd", "flat_net",
    }  # fmt: skip
    assert wanted <= set(SMALL)
    assert SMALL["flat_net"][1] == ((2, 1, 20, 1000),)


@all_models
def test_text_is_exact(name: str) -> None:
    graph = case(name).graph
    verify(graph)
    again = irconv.parse(str(graph), large_constants(graph), graph.state)
    verify(again)
    assert str(again) == str(graph) == str(traced(case(name).model, case(name).inputs))


@all_models
def test_all_ways_agree(name: str) -> None:
    c = case(name)
    expected = run_graph(c.graph, *c.inputs)
    scale = np.abs(expected).max()
    assert np.isfinite(expected).all() and scale > 0
    exe = irconv.compile(c.model, *c.inputs, backend="numpy")
    assert_allclose(exe(*c.inputs), expected, atol=2e-5 * scale)
    by_run = c.model.eval()(*map(irconv.tensor, c.inputs)).numpy()
    c.model.train()
    assert_allclose(by_run, expected, atol=1e-6 * scale)


@pytest.mark.parametrize("name", ["lenet", "unet", "rgbd"])
def test_a_batch_of_another_size(name: str) -> None:
    c = case(name)
    exe = irconv.compile(c.model, *c.inputs, backend="numpy")
    expected = exe(*c.inputs)
    larger = exe(*(np.concatenate([x, x[::-1], x]) for x in c.inputs))
    assert_allclose(larger, np.concatenate([expected, expected[::-1], expected]), atol=2e-5 * np.abs(expected).max())


@all_models
def test_differentiated(name: str) -> None:
    c = case(name)
    joint = irconv.differentiate(irconv.trace(lambda *inputs: F.mse_loss(c.model(*inputs), c.target), *c.inputs))
    verify(joint)
    assert str(irconv.parse(str(joint), large_constants(joint))) == str(joint)
    for path, parameter in c.model.named_parameters():
        assert joint[joint.outputs[f"d_{path}"]].type.shape == parameter.shape


@all_models
def test_trained(name: str) -> None:
    """The compiled step writes what the recorded one says, and the loss goes down."""
    c = case(name)
    before = c.model.state_dict()
    optimizer = optim.SGD(c.model.parameters(), lr=0.005, momentum=0.5)
    step = irconv.compile_step(c.model, F.mse_loss, optimizer, *c.inputs, c.target, backend="numpy")
    verify(step.graph)
    recorded = step.stages[0].graph
    wanted = [recorded.outputs["loss"], *recorded.updates.values()]
    values = evaluate(recorded, dict(zip(recorded.inputs, (*c.inputs, c.target), strict=True)), wanted)
    try:
        losses = [float(step(*c.inputs, c.target))]
        after = c.model.state_dict()
        losses += [float(step(*c.inputs, c.target)) for _ in range(2)]
    finally:
        c.model.load_state_dict(before)
    assert_allclose(losses[0], values[recorded.outputs["loss"]], rtol=1e-4)
    changes = {recorded[state].name: values[new] - before[recorded[state].name] for state, new in recorded.updates.items()
               if recorded[state].name in before}
    assert {path for path, _ in c.model.named_parameters()} <= set(changes)
    largest = max(np.abs(changes[path]).max() for path, _ in c.model.named_parameters())
    for path, change in changes.items():
        assert_allclose(after[path] - before[path], change, rtol=1e-2, atol=1e-3 * largest, err_msg=path)
    assert np.isfinite(losses).all()
    if not any(isinstance(module, nn.Dropout) for module in c.model.modules()):
        assert losses[-1] < losses[0]


# --- folding batch norm --------------------------------------------------------------------------------------------------


class ConvNorm(nn.Module):
    """Convolutions with a bias, each before a batch norm whose statistics are those of some data."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.up, self.bn2 = nn.ConvTranspose2d(8, 6, 2, stride=2), nn.BatchNorm2d(6)
        self.head = nn.Conv2d(6, 4, 3, groups=2)
        self.bn3 = nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.up(x)).relu()
        return self.bn3(self.head(x))


@pytest.mark.parametrize("name", ["conv_norm", "resnet18", "mobilenet_v2"])
def test_folding_batch_norm_changes_nothing_but_rounding_and_absorbs_the_bias(name: str) -> None:
    if name == "conv_norm":
        model, x = ConvNorm(), normal(2, 3, 9, 10, dtype=np.float32)
    else:
        make, shapes = SMALL[name]
        model, x = make(), normal(*shapes[0], dtype=np.float32)
    with irconv.no_grad():
        for seed in range(3):
            model(irconv.tensor(normal(*x.shape, seed=seed, dtype=np.float32) * 2 + 1))
    plain = tuple(p for p in INFERENCE if not isinstance(p, FoldBatchNorm))
    folded, unfolded = (irconv.compile(model, x, backend="numpy", passes=passes) for passes in (None, plain))
    expected = unfolded(x)
    assert_allclose(folded(x), expected, atol=1e-4 * np.abs(expected).max())
    ops = [node.op.name for node in folded.graph]
    assert "rsqrt" not in ops and "rsqrt" in [node.op.name for node in unfolded.graph]
    convolutions = sum(op.startswith("conv") for op in ops)
    assert ops.count("subtract") == ops.count("multiply") == 0
    if name == "conv_norm":
        assert convolutions == 3 and ops.count("add") == 3  # one bias each
        # the folded weights follow the parameters and statistics they come from
        model(irconv.tensor(x * 3))
        again = unfolded(x)
        assert not np.allclose(again, expected)
        assert_allclose(folded(x), again, atol=1e-4 * np.abs(again).max())
    assert_array_equal(folded(x), folded(x))
