"""Tracing: names, places, scopes, composites, signature, state; the same program gives the same text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import irconv
import irconv.nn.functional as F
from irconv import TensorSpec, nn, optim
from irconv.errors import TraceError
from irconv.graph import Graph, Node
from irconv.interpret import evaluate
from irconv.verify import verify

X = TensorSpec((2, 3, 8, 8))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x):
        h = self.conv(x)
        h = self.bn(h)
        return np.maximum(h, 0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, bias=False)
        self.layers = nn.Sequential(Block(4, 4), Block(4, 6))
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(6 * 9, 5)

    def forward(self, x):
        h = self.conv1(x)
        h = self.layers(h)
        features = self.pool(h).flatten(1)
        scores = self.fc(self.drop(features))
        return scores * 2


def line_of(function, text: str) -> str:
    """The place of the line of a function of this file that contains ``text``."""
    lines = Path(__file__).read_text().splitlines()
    first = function.__code__.co_firstlineno
    offset = next(k for k, line in enumerate(lines[first:]) if text in line)
    return f"test_tracing.py:{first + offset + 1}"


def by_op(graph: Graph, op: str) -> list[Node]:
    return [node for node in graph if node.op.name == op]


# --- names and places ----------------------------------------------------------------------------------------------------


def test_values_are_named_after_modules_and_variables() -> None:
    graph = irconv.trace(Net(), X)
    assert graph.name == "net"
    assert [graph[i].name for i in graph.inputs] == ["x"]
    assert graph["conv1"].op.name == "conv" and graph["layers.0.conv"].op.name == "add"  # the bias comes last
    assert graph["layers.0.conv.conv"].op.name == "conv"
    assert graph["pool"].op.name == "max_pool" and graph["features"].op.name == "reshape"
    assert graph["fc"].op.name == "add" and graph["layers.1.maximum"].op.name == "maximum"
    assert [graph[i].name for i in graph.states] == [
        "conv1.weight", "layers.0.conv.weight", "layers.0.conv.bias", "layers.0.bn.running_mean", "layers.0.bn.running_var",
        "layers.0.bn.weight", "layers.0.bn.bias", "layers.1.conv.weight", "layers.1.conv.bias", "layers.1.bn.running_mean",
        "layers.1.bn.running_var", "layers.1.bn.weight", "layers.1.bn.bias", "fc.weight", "fc.bias",
    ]  # fmt: skip
    assert not any(node.name.split("_")[0] in ("primals", "tangents", "tmp") for node in graph)


def test_names_in_functions_are_those_of_variables() -> None:
    def f(x, w):
        h = x @ w
        for _ in range(2):
            h = np.tanh(h)
        y: object = h.sum()
        return y

    graph = irconv.trace(f, TensorSpec((2, 3)), TensorSpec((3, 4)))
    assert [node.name for node in graph] == ["x", "w", "h", "h_1", "h_2", "y"]
    assert graph.name == "f"
    assert irconv.trace(f, TensorSpec((2, 3), name="left"), TensorSpec((3, 4)), name="product")["left"].op.name == "input"


def test_names_in_a_program_with_hundreds_of_variables() -> None:
    lines = ["def f(x):", *(f"    n{k} = {k}" for k in range(300)), "    left = x.exp()", "    right = left + n299", "    return right"]
    space: dict = {}
    exec("\n".join(lines), space)
    graph = irconv.trace(space["f"], TensorSpec((2,)))
    assert [node.name for node in graph] == ["x", "left", "constant", "right"]


def test_every_node_knows_the_users_line() -> None:
    graph = irconv.trace(Net(), X)
    for node in graph:
        if node.id not in {*graph.inputs, *graph.states}:
            assert node.provenance.location is not None and node.provenance.location.file.endswith("test_tracing.py"), node
    assert str(graph["conv1"].provenance.location).endswith(line_of(Net.forward, "self.conv1(x)"))
    assert str(graph["layers.0.conv"].provenance.location).endswith(line_of(Block.forward, "self.conv(x)"))
    assert str(graph["layers.1.maximum"].provenance.location).endswith(line_of(Block.forward, "np.maximum"))
    assert str(graph["pool"].provenance.location).endswith(line_of(Net.forward, "self.pool(h)"))


def test_backward_values_name_their_origin() -> None:
    graph = irconv.trace(lambda x: Net()(x).sum(), X)
    joint = irconv.differentiate(graph)
    assert {f"d_{graph[i].name}" for i in graph.states if graph[i].attributes.role == "param"} <= set(joint.outputs)
    added = [node for node in joint if not graph.has_name(node.name)]
    assert added and all(node.name.startswith("d_") and node.provenance.origin for node in added)
    (by_input,) = by_op(joint, "max_pool")
    (backward,) = by_op(joint, "window_scatter")
    assert backward.provenance.origin == by_input.name and backward.provenance.location == by_input.provenance.location


def test_scopes_and_composites() -> None:
    graph = irconv.trace(Net(), X, training=True)
    assert graph["layers.1.conv.conv"].provenance.scope == "layers.1.conv"
    assert graph["layers.1.maximum"].provenance.scope == "layers.1"
    assert graph["features"].provenance.scope == ""
    kinds = {str(node.provenance.composite) for node in graph if node.provenance.composite is not None}
    assert {"batch_norm layers.0.bn", "batch_norm layers.1.bn", "dropout drop"} <= kinds
    for node in graph:
        if node.provenance.scope == "layers.0.bn" and "num_batches_tracked" not in node.name and node.op.name != "constant":
            if any("num_batches" in operand.name for operand in graph.operands(node)):
                continue
            assert str(node.provenance.composite) == "batch_norm layers.0.bn", node


def test_composites_of_functions_are_counted() -> None:
    graph = irconv.trace(lambda x: F.softmax(F.softmax(x, 1), 1), TensorSpec((2, 3)))
    assert {str(node.provenance.composite) for node in by_op(graph, "exp")} == {"softmax softmax", "softmax softmax#1"}


# --- determinism ---------------------------------------------------------------------------------------------------------

PRINTS = """
import sys
sys.path.insert(0, sys.argv[1])
import irconv
from irconv import optim
import irconv.nn.functional as F
from tests.test_tracing import Net, X
irconv.random.manual_seed(3)
model = Net()
print(irconv.trace(model, X))
step = irconv.compile_step(model, F.mse_loss, optim.Adam(model.parameters()), X, irconv.TensorSpec((2, 5)), backend="numpy")
for stage in step.stages:
    print(stage.graph)
"""


def test_the_same_program_gives_the_same_text() -> None:
    for training in (False, True):
        texts = {str(irconv.trace(Net(), X, training=training)) for _ in range(3)}
        assert len(texts) == 1
    joints = {str(irconv.differentiate(irconv.trace(lambda x: Net()(x).sum(), X))) for _ in range(2)}
    assert len(joints) == 1


def test_the_same_text_in_every_process() -> None:
    root = Path(__file__).parents[1]
    texts = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run(
            [sys.executable, "-c", PRINTS, str(root)], capture_output=True, text=True, env=environment, check=False
        )
        assert run.returncode == 0, run.stderr
        texts.add(run.stdout)
    assert len(texts) == 1 and len(texts.pop()) > 10_000


# --- signature -----------------------------------------------------------------------------------------------------------


def nested(batch, *rest, scale):
    images, (left, right) = batch["images"], batch["pair"]
    return {"total": images + left * scale, "parts": (right, {"rest": rest[0] - 1})}, images * 2


def test_nested_inputs_and_outputs() -> None:
    spec = TensorSpec((2,))
    batch = {"images": spec, "pair": (TensorSpec((2,), "f64"), TensorSpec((1,), "i32"))}
    graph = irconv.trace(nested, batch, TensorSpec((3,)), scale=2)
    assert [graph[i].name for i in graph.inputs] == ["batch.images", "batch.pair.0", "batch.pair.1", "rest.0"]
    assert list(graph.outputs) == ["0.total", "0.parts.0", "0.parts.1.rest", "1"]
    arrays = {"images": np.float32([1, 2]), "pair": (np.float64([3, 4]), np.int32([5]))}
    rest = np.float32([1, 2, 3])
    exe = irconv.compile(nested, backend="numpy")
    outputs, doubled = exe(arrays, rest, scale=2)
    assert outputs["total"].tolist() == [7, 10] and outputs["total"].dtype == np.float64
    assert outputs["parts"][0].tolist() == [5] and outputs["parts"][1]["rest"].tolist() == [0, 1, 2] and doubled.tolist() == [2, 4]
    again, _ = exe(arrays, rest, scale=3)  # another static value: compiled again
    assert again["total"].tolist() == [10, 14]


def test_static_arguments_stay_as_they_are() -> None:
    def f(x, times, mode="sum", flag=True, nothing=None):
        y = x * times if flag else x
        return getattr(y, mode)() if nothing is None else y

    graph = irconv.trace(f, TensorSpec((3,)), 4, mode="mean")
    assert [graph[i].name for i in graph.inputs] == ["x"] and [node.op.name for node in by_op(graph, "mean")] == ["mean"]
    x = np.float32([1, 2, 3])
    exe = irconv.compile(f, backend="numpy")
    assert exe(x, 4) == 24 and exe(x, 4, mode="mean") == 8 and exe(x, 4, flag=False) == 6
    assert exe(x, 4, nothing=1).tolist() == [4, 8, 12]
    with pytest.raises(TraceError, match="argument"):
        irconv.trace(f, TensorSpec((3,)))


def test_one_array_given_twice_is_two_inputs() -> None:
    spec = TensorSpec((2,))
    graph = irconv.trace(lambda first, second: first - second, spec, spec)
    assert [graph[i].name for i in graph.inputs] == ["first", "second"]
    values = evaluate(graph, {graph.inputs[0]: np.float32([5, 5]), graph.inputs[1]: np.float32([1, 2])})
    assert values[graph.outputs[""]].tolist() == [4, 3]


def test_outputs_that_are_inputs_states_or_constants() -> None:
    weight = irconv.tensor([1.0, 2.0], requires_grad=True)

    def f(x):
        return x, weight, np.float32(3), x

    x = np.float32([4, 5])
    results = irconv.compile(f, backend="numpy")(x)
    assert [np.asarray(r).tolist() for r in results] == [[4, 5], [1, 2], 3, [4, 5]]
    for wrong in (lambda x: None, lambda x: (x, "text"), lambda x: ()):
        with pytest.raises(TraceError):
            irconv.trace(wrong, x)


def test_an_output_without_a_name_beside_others() -> None:
    joint = irconv.differentiate(irconv.trace(lambda x: (x * x).sum(), TensorSpec((2,))))
    exe = irconv.compile(joint, backend="numpy")
    x = np.float32([3, 4])
    results = exe(x)
    assert results[""] == 25 and results["d_x"].tolist() == [6, 8]
    kept = {name: np.zeros_like(array) for name, array in results.items()}
    exe(x, out=kept)
    assert kept[""] == 25 and kept["d_x"].tolist() == [6, 8]


# --- modes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [True, False])
def test_tracing_and_compiling_leave_the_mode_alone(mode: bool) -> None:
    model = Net().train(mode)
    model.layers[0].train(not mode)
    before = {path: module.own_training for path, module in model.named_modules()}
    irconv.trace(model, X)
    irconv.trace(model, X, training=True)
    irconv.compile(model, X, backend="numpy")
    irconv.compile_step(model, F.mse_loss, optim.SGD(model.parameters()), X, TensorSpec((2, 5)), backend="numpy")
    assert {path: module.own_training for path, module in model.named_modules()} == before


def test_the_trace_says_the_mode() -> None:
    model = Net()
    assert model.own_training
    evaluation, training = irconv.trace(model, X), irconv.trace(model, X, training=True)
    assert by_op(training, "random_bits") and not by_op(evaluation, "random_bits")
    assert not by_op(irconv.trace(model.eval(), X), "random_bits")
    assert by_op(irconv.trace(model.eval(), X, training=True), "random_bits")


def test_submodules_put_in_evaluation_mode_stay_there_in_a_training_trace() -> None:
    model = Net()
    model.layers[0].bn.eval()
    graph = irconv.trace(model, X, training=True)
    assert {graph[s].name.rsplit(".", 1)[0] for s in graph.updates if "running" in graph[s].name} == {"layers.1.bn"}


# --- state ---------------------------------------------------------------------------------------------------------------


def test_roles_of_states() -> None:
    model = Net()
    model.conv1.requires_grad_(False)
    graph = irconv.trace(model, X)
    roles = {graph[i].name: graph[i].attributes.role for i in graph.states}
    assert roles["conv1.weight"] == "frozen" and roles["fc.weight"] == "param" and roles["layers.0.bn.running_var"] == "buffer"
    assert graph.state["fc.weight"] is model.fc.weight.variable


def test_buffers_updates_are_recorded() -> None:
    model = Net()
    assert irconv.trace(model, X).updates == {}
    graph = irconv.trace(model, X, training=True)
    verify(graph)
    updated = {graph[s].name for s in graph.updates}
    statistics = {f"layers.{k}.bn.{name}" for k in (0, 1) for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert updated == statistics | {"random.step"}
    before = model.state_dict()
    x = np.random.default_rng(0).normal(size=X.shape).astype(np.float32)
    values = evaluate(graph, {graph.inputs[0]: x})
    for path, array in model.state_dict().items():
        assert_array_equal(array, before[path])  # a trace changes nothing, and neither does the interpreter
    model.drop.eval()
    model(irconv.tensor(x))
    for state, new in graph.updates.items():
        if graph[state].name != "random.step":
            assert_allclose(values[new], model.state_dict()[graph[state].name], rtol=1e-6, err_msg=graph[state].name)


class Tied(nn.Module):
    """One weight under two names: an encoder and its transposed decoder."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(4, 3, bias=False)
        self.decode = nn.Linear(4, 3, bias=False)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.encode(x) @ self.decode.weight


def test_tied_weights_are_one_state() -> None:
    model, x = Tied(), np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    graph = irconv.trace(model, x)
    verify(graph)
    assert [graph[i].name for i in graph.states] == ["encode.weight"]
    assert [path for path, _ in model.named_parameters()] == ["encode.weight"]
    assert set(model.state_dict()) == {"encode.weight", "decode.weight"}

    def error(y, target):
        return ((y - target) ** 2).sum()

    error(model(irconv.tensor(x)), irconv.tensor(x)).backward()
    w = model.encode.weight.numpy().copy()
    residual = 2 * (x @ w.T @ w - x)
    expected = w @ (x.T @ residual + residual.T @ x)
    assert_allclose(model.encode.weight.grad.numpy(), expected, rtol=1e-4, atol=1e-5)
    step = irconv.compile_step(model, error, optim.SGD(model.parameters(), lr=0.01), x, x, backend="numpy")
    assert [step.graph[s].name for s in step.graph.updates if step.graph[s].attributes.role == "param"] == ["encode.weight"]
    step(x, x)
    assert_allclose(model.decode.weight.numpy(), w - 0.01 * expected, rtol=1e-4, atol=1e-5)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        for _ in range(2):
            x = self.drop(self.bn(self.conv(x)))
        return x


def test_a_module_called_twice() -> None:
    graph = irconv.trace(Twice(), X, training=True)
    verify(graph)
    assert [node.name for node in by_op(graph, "conv")] == ["conv.conv", "conv_1.conv"]
    assert [graph[i].name for i in graph.states if graph[i].attributes.role == "param"] == ["conv.weight", "conv.bias", "bn.weight", "bn.bias"]
    instances = {str(n.provenance.composite) for n in graph if n.provenance.composite and n.provenance.composite.kind == "batch_norm"}
    assert instances == {"batch_norm bn", "batch_norm bn#1"}
    streams = [node.attributes.stream for node in by_op(graph, "random_bits")]
    assert len(set(streams)) == 2  # two masks
    model, x = Twice(), np.random.default_rng(0).normal(size=X.shape).astype(np.float32)
    model.drop.eval()
    exe = irconv.compile(irconv.trace(model, X, training=True), backend="numpy")
    again = Twice()
    again.load_state_dict(model.state_dict())
    again.drop.eval()
    expected = again(irconv.tensor(x)).numpy()
    assert_allclose(exe(x), expected, rtol=1e-4, atol=1e-5)  # the second call moves on from what the first left
    assert model.bn.num_batches_tracked.item() == again.bn.num_batches_tracked.item() == 2
    assert_allclose(model.bn.running_var.numpy(), again.bn.running_var.numpy(), rtol=1e-5)


def test_tracked_tensors_of_a_closure_are_parameters_and_others_constants() -> None:
    w = irconv.tensor([1.0, 2.0], requires_grad=True)
    fixed = irconv.tensor([10.0, 20.0])

    def f(x):
        return (x * w + fixed).sum()

    graph = irconv.trace(f, TensorSpec((2,)))
    (state,) = graph.states
    assert graph[state].attributes.role == "param" and [n.attributes.value.tolist() for n in by_op(graph, "constant")] == [[10, 20]]
    joint = irconv.differentiate(graph)
    assert list(joint.outputs) == ["", f"d_{graph[state].name}"]
    exe = irconv.compile(f, TensorSpec((2,)), backend="numpy")
    assert exe(np.float32([1, 1])) == 33
    assert f(irconv.tensor([1.0, 1.0])).item() == 33


def test_modules_made_while_tracing_are_named_too() -> None:
    first, second = nn.Linear(3, 4), nn.Linear(4, 2)
    graph = irconv.trace(lambda x: second(first(x)), TensorSpec((1, 3)))
    assert [graph[i].name for i in graph.states] == ["weight", "bias", "linear1.weight", "linear1.bias"]


def test_constants_are_placed_with_the_op_that_takes_them() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.GELU())
    graph = irconv.trace(lambda x: model(x) + 1, TensorSpec((1, 2)))
    placed = {}
    for node in graph:
        if node.op.name == "constant":
            ((user, _),) = graph.users(node.id)
            placed[node.id] = (node.provenance, user.provenance)
    assert len(placed) == 4 and all(own == users for own, users in placed.values())


def test_norms_without_running_statistics_compute_none() -> None:
    for layer in (nn.InstanceNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False)):
        graph = irconv.trace(layer, TensorSpec((2, 2, 3, 3)), training=True)
        assert graph.ancestors(graph.outputs.values()) >= {node.id for node in graph}


@pytest.mark.parametrize("given", [(1, 2), [[1.0, 2.0]]])
def test_a_module_without_any_array_is_told_about_specs(given) -> None:
    with pytest.raises(TraceError, match="none of the arguments of Linear") as caught:
        irconv.trace(nn.Linear(2, 2), given)
    assert "TensorSpec" in str(caught.value)
