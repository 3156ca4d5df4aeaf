"""Exported graphs compute in onnxruntime what they compute here: every op sample, every example model, training steps."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import MODELS

import irconv
from irconv import nn, optim, random
from irconv.builder import Builder
from irconv.errors import AttributeValueError, ModelError
from irconv.graph import Graph
from irconv.interpret import evaluate
from irconv.op import OPS
from irconv.ops.elementwise import add, multiply
from irconv.types import tensor_type
from tests.example_graphs import sample_graph, small_network
from tests.samples import Sample
from tests.samples.table import all_samples

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx.reference import ReferenceEvaluator  # noqa: E402

from irconv.frontends.onnx import export, exporter  # noqa: E402
from irconv.frontends.onnx.export_ops import LOWERINGS  # noqa: E402

ort.set_default_logger_severity(4)
SAMPLES = all_samples()
TOLERANCE = {"float16": 2e-3, "float32": 3e-5, "float64": 1e-9}


def session(model: Any) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(model: Any, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What onnxruntime computes, by name of output."""
    made = session(model)
    known = {i.name for i in made.get_inputs()}
    names = [o.name for o in made.get_outputs()]
    return dict(zip(names, made.run(names, {n: np.asarray(v) for n, v in feeds.items() if n in known}), strict=True))


def assert_same(found: np.ndarray, wanted: np.ndarray, tolerance: float | None = None) -> None:
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(found, wanted)
    else:
        close = TOLERANCE[str(wanted.dtype)] if tolerance is None else tolerance
        np.testing.assert_allclose(found, wanted, rtol=close, atol=close)


# --- ops -----------------------------------------------------------------------------------------------------------------

COMPARING = ("max", "min", "argmax", "argmin", "max_pool", "min_pool", "argmax_pool", "argmin_pool", "top_k")
"""Ops for which ONNX leaves open what wins beside NaN, and runtimes differ."""

WITHOUT_DOUBLE = (
    *("acos", "acosh", "asin", "asinh", "atan", "atanh", "cosh", "sinh", "tan", "erf"),
    *("conv", "conv_transpose", "avg_pool"),
)
"""Ops that onnxruntime's CPU provider does not have (or not in general) in float64: ONNX's reference runs those rows."""


def reference(sample: Sample, operands: tuple[np.ndarray, ...]) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(OPS[sample.op].reference(sample.attributes, *operands))


def unordered(sample: Sample) -> bool:
    x = sample.operands[0]
    return sample.op in COMPARING and x.dtype.kind == "f" and bool(np.isnan(x).any())


def test_every_op_can_be_exported() -> None:
    assert set(LOWERINGS) == {name for name, op in OPS.items() if op.operands}


@pytest.mark.parametrize("sample", [s for s in SAMPLES if not unordered(s)], ids=lambda s: s.id)
def test_an_exported_op_computes_the_same(sample: Sample) -> None:
    model = export(sample_graph(sample))
    feeds = {f"x{k}": operand for k, operand in enumerate(sample.operands)}
    try:
        (found,) = run(model, feeds).values()
    except Exception as error:
        if (
            "NOT_IMPLEMENTED" not in str(error)
            or sample.op not in WITHOUT_DOUBLE
            or sample.operands[0].dtype != np.float64
        ):
            raise
        if sample.op == "conv_transpose" and sample.attributes.groups > 1:
            pytest.skip("ONNX's reference does not run transposed convolutions with groups")
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = np.asarray(ReferenceEvaluator(model).run(None, feeds)[0])
    # ONNX's reference of erf is good to seven digits
    assert_same(
        found, reference(sample, sample.operands), 1e-6 if sample.op == "erf" and found.dtype == np.float64 else None
    )


@pytest.mark.parametrize("op", WITHOUT_DOUBLE)
def test_what_has_no_double_computes_the_same_in_single(op: str) -> None:
    for sample in (s for s in SAMPLES if s.op == op and s.operands[0].dtype == np.float64):
        operands = tuple(a.astype(np.float32) for a in sample.operands)
        single = Sample(sample.op, operands, sample.attributes, sample.about)
        (found,) = run(export(sample_graph(single)), {f"x{k}": a for k, a in enumerate(operands)}).values()
        assert_same(found, reference(single, operands))


@pytest.mark.parametrize("opset", [18, 19, 23])
def test_other_opsets(opset: int) -> None:
    rows = {sample.op: sample for sample in SAMPLES if sample.operands[0].dtype == np.float32}
    rows |= {
        sample.op: sample for sample in SAMPLES if sample.op in ("max", "sum", "pad", "random_bits", "scatter_add")
    }
    for sample in (s for s in rows.values() if not unordered(s)):
        model = export(sample_graph(sample), opset=opset)
        assert model.opset_import[0].version == opset
        (found,) = run(model, {f"x{k}": operand for k, operand in enumerate(sample.operands)}).values()
        assert_same(found, reference(sample, sample.operands))


# --- the file ------------------------------------------------------------------------------------------------------------


def test_names_places_and_states() -> None:
    graph = small_network()
    model = export(graph)
    nodes = {node.name: node for node in model.graph.node}
    assert nodes["conv1"].doc_string == "model.py:12"
    noted = {entry.key: entry.value for entry in nodes["d_conv1"].metadata_props}
    assert noted == {"irconv.op": "clip", "irconv.scope": "conv1", "irconv.origin": "conv1"}
    assert {tensor.name for tensor in model.graph.initializer} >= {
        "conv1.weight",
        "bn.running_mean",
        "optimizer.lr",
        "blur",
    }
    assert [i.name for i in model.graph.input] == ["x", "conv1.weight", "bn.running_mean", "optimizer.lr", "blur"]
    assert [o.name for o in model.graph.output] == ["bn", "loss", "large", "new_bn.running_mean"]
    properties = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert properties["irconv.outputs"] == {"": "bn", "loss": "loss", "aux.0": "large"}
    assert properties["irconv.updates"] == {"bn.running_mean": "new_bn.running_mean"}
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    values = evaluate(graph, {graph.inputs[0]: x})
    for (_, name), i in zip(properties["irconv.outputs"].items(), graph.outputs.values(), strict=True):
        assert_same(run(model, {"x": x})[name], values[i])


def test_outputs_that_are_inputs_states_constants_or_twice() -> None:
    graph = Graph("odd")
    builder = Builder(graph)
    x = builder.input("x", tensor_type("f32", (2,)))
    number = builder.constant(np.float32(3))
    y = multiply(x, x)
    for path, value in (("first", x), ("number", number), ("0", y), ("1", y), ("multiply", x)):
        graph.set_output(path, value.id)
    found = run(export(graph), {"x": np.array([1, 2], np.float32)})
    assert {name: value.tolist() for name, value in found.items()} == {
        "first": [1, 2],
        "number": 3,
        "multiply": [1, 4],
        "multiply_1": [1, 4],
        "multiply_2": [1, 2],
    }


def test_names_that_would_collide() -> None:
    graph = Graph("names")
    builder = Builder(graph)
    x = builder.input("y/constant", tensor_type("i8", (2,)))
    with builder.at(builder.provenance, "y/Cast"):
        first = add(x, x)
    with builder.at(builder.provenance, "y"):
        second = add(first, 3)
    graph.set_output("", second.id)
    assert run(export(graph), {"y/constant": np.array([1, 100], np.int8)})["y"].tolist() == [5, -53]


def test_a_state_without_a_value_is_an_input() -> None:
    graph = small_network().copy()
    graph.state.clear()
    model = export(graph)
    assert not {"conv1.weight", "bn.running_mean"} & {tensor.name for tensor in model.graph.initializer}
    assert {"conv1.weight", "bn.running_mean"} <= {i.name for i in model.graph.input}


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Conv2d(1, 64, 3), nn.ReLU())
    x = np.random.default_rng(0).standard_normal((1, 1, 6, 6)).astype(np.float32)
    wanted = model(irconv.tensor(x)).numpy()
    graph = irconv.trace(model, x)
    export(graph, tmp_path / "small.onnx")
    monkeypatch.setattr(exporter, "LARGEST", 100)
    export(graph, tmp_path / "large.onnx")
    assert (tmp_path / "large.onnx.data").stat().st_size >= 64 * 9 * 4
    for name in ("small.onnx", "large.onnx"):
        (found,) = run(tmp_path / name, {"x": x}).values()
        assert_same(found, wanted)
    with pytest.raises(ModelError, match="2 GB"):
        export(graph)
    with pytest.raises(ModelError, match="cannot be written"):
        export(graph, tmp_path / "missing" / "model.onnx")


def test_opsets_that_are_refused() -> None:
    for opset in (17, 1000):
        with pytest.raises(AttributeValueError, match=f"opset {opset} is not between 18 and"):
            export(small_network(), opset=opset)


# --- networks --------------------------------------------------------------------------------------------------------------


def example(name: str) -> tuple[nn.Module, list[np.ndarray]]:
    """A small version of an example model, always the same, and inputs for it."""
    random.default_generator().manual_seed(0)
    generator = np.random.default_rng(0)
    shapes = MODELS[name].small_inputs
    return MODELS[name].small(), [generator.standard_normal(shape).astype(np.float32) for shape in shapes]


def named(graph: Graph, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {graph[i].name: array for i, array in zip(graph.inputs, arrays, strict=True)}


@pytest.mark.parametrize("name", MODELS)
def test_example_models_forward(name: str) -> None:
    model, inputs = example(name)
    graph = irconv.trace(model, *inputs)
    values = evaluate(graph, dict(zip(graph.inputs, inputs, strict=True)))
    found = run(export(graph), named(graph, inputs))
    assert len(found) == len(graph.outputs)
    for result, i in zip(found.values(), graph.outputs.values(), strict=True):
        np.testing.assert_allclose(result, values[i], rtol=0, atol=1e-5 * np.abs(values[i]).max())


def mean_square(y: Any, target: irconv.Tensor) -> irconv.Tensor:
    return (((y[0] if isinstance(y, tuple) else y) - target) ** 2).mean()


def training_step(name: str, dtype: str) -> tuple[Any, list[np.ndarray]]:
    """A training step of an example, and a batch for it."""
    model, inputs = example(name)
    y = irconv.trace(model, *inputs)
    shape = y[next(iter(y.outputs.values()))].type.shape
    target = np.random.default_rng(1).standard_normal(shape)
    model.to(dtype)
    optimizer = optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, weight_decay=1e-4)
    batch = [a.astype(irconv.types.as_dtype(dtype).numpy) for a in (*inputs, target)]
    return irconv.compile_step(model, mean_square, optimizer, *batch, backend="numpy"), batch


DEEP = ("resnet50", "mobilenet_v2")
"""Networks in which one element that rounds to the other side of a ReLU's 0 shows in the gradients of all layers before it."""

TRAINED = [pytest.param(name, marks=[pytest.mark.slow] * (name == "resnet50")) for name in MODELS if name != "resnet152"]
"""The blocks of ResNet-152 are those of ResNet-50, more often."""


@pytest.mark.parametrize("name", TRAINED)
def test_example_models_one_training_step(name: str) -> None:
    """New parameters, momenta and statistics are as close to those in float64 as our own in float32 are, or to 1e-5.

    Deep networks on tiny batches magnify rounding, so that all tensors are judged together.
    """
    step, batch = training_step(name, "f32")
    graph = step.stages[0].graph
    found = run(export(graph), named(graph, batch))
    np.testing.assert_allclose(found["loss"], step(*batch), rtol=1e-3)
    exact_step, exact_batch = training_step(name, "f64")
    exact_step(*exact_batch)
    exact_states = exact_step.stages[0].graph.state
    errors = []
    for label in (graph[state].name for state in graph.updates):
        truth = exact_states[label].array
        scale = max(np.abs(truth).max(), 1e-3)
        errors.append(
            [np.abs(result - truth).max() / scale for result in (found[f"new_{label}"], graph.state[label].array)]
        )
    assert errors
    theirs, ours = np.mean(errors, axis=0)
    assert theirs <= max(1e-5 + 3 * ours, 0.03 if name in DEEP else 0)


@pytest.mark.parametrize("name", ["lenet", "resnet50", "unet", "video_net"])
def test_a_training_step_in_double_precision(name: str) -> None:
    """Run by ONNX's reference, since onnxruntime has no convolutions in float64: no rounding can hide a mistake."""
    step, batch = training_step(name, "f64")
    graph = step.stages[0].graph
    model = export(graph)
    results = ReferenceEvaluator(model).run(None, named(graph, batch))
    found = dict(zip([o.name for o in model.graph.output], results, strict=True))
    np.testing.assert_allclose(found["loss"], step(*batch), rtol=1e-11)
    for label in (graph[state].name for state in graph.updates):
        own = graph.state[label].array
        np.testing.assert_allclose(
            found[f"new_{label}"], own, rtol=0, atol=1e-9 * max(1e-3, np.abs(own).max()), err_msg=label
        )


def test_steps_fed_back_are_training_with_dropout_and_statistics() -> None:
    """Three exported steps, states fed back, against three compiled ones: batch norm, dropout's random bits, Adam, accuracy."""
    random.default_generator().manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64, 5),
    )
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)

    def loss(y: irconv.Tensor, t: irconv.Tensor) -> Any:
        return nn.functional.cross_entropy(y, t), (y.argmax(1) == t).astype("f32").mean()

    generator = np.random.default_rng(0)
    batches = [
        (generator.standard_normal((8, 1, 8, 8)).astype(np.float32), generator.integers(0, 5, 8)) for _ in range(3)
    ]
    step = irconv.compile_step(model, loss, optimizer, *batches[0])
    graph = step.stages[0].graph
    made = session(export(graph))
    fed: dict[str, np.ndarray] = {}
    for batch in batches:
        names = [o.name for o in made.get_outputs()]
        found = dict(zip(names, made.run(names, named(graph, list(batch)) | fed), strict=True))
        fed = {name: found[f"new_{name}"] for name in (graph[s].name for s in graph.updates)}
        value, accuracy = step(*batch)
        np.testing.assert_allclose(found["loss"], value, rtol=1e-5)
        np.testing.assert_allclose(found["extra"], accuracy)
    for name, array in fed.items():
        np.testing.assert_allclose(array, graph.state[name].array, rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_backward_graph_alone() -> None:
    model, inputs = example("lenet")
    graph = irconv.differentiate(irconv.trace(lambda x: model(x).sum(), *inputs))
    values = evaluate(graph, dict(zip(graph.inputs, inputs, strict=True)))
    found = run(export(graph), named(graph, inputs))
    for result, i in zip(found.values(), graph.outputs.values(), strict=True):
        np.testing.assert_allclose(result, values[i], rtol=1e-4, atol=1e-5 * max(1, np.abs(values[i]).max()))


def test_an_exported_model_imports_again(tmp_path: Path) -> None:
    """Meaning and names survive the way out and back."""
    from irconv.frontends.onnx import load_model

    model, inputs = example("unet")
    graph = irconv.trace(model, *inputs)
    export(graph, tmp_path / "unet.onnx")
    again = load_model(tmp_path / "unet.onnx")
    np.testing.assert_allclose(
        again(*map(irconv.tensor, inputs)).numpy(), model.eval()(*map(irconv.tensor, inputs)).numpy(), atol=1e-5
    )
    places = {node.name: (node.provenance.location, node.provenance.scope) for node in graph}
    back = {node.name: (node.provenance.location, node.provenance.scope) for node in irconv.trace(again, *inputs)}
    convolutions = [node.name for node in graph if node.op.name == "conv"]
    assert convolutions
    assert {name: back[name] for name in convolutions} == {name: places[name] for name in convolutions}
    assert dict(again.named_parameters()).keys() >= {
        name for name, _ in model.named_parameters() if name.endswith(".weight")
    }
    second = export(irconv.trace(again, *inputs))
    (first_output,), (second_output,) = (
        run(export(graph), named(graph, inputs)).values(),
        run(second, named(graph, inputs)).values(),
    )
    np.testing.assert_allclose(second_output, first_output, rtol=1e-5, atol=1e-5)
    assert {o.name for o in second.graph.output} == {o.name for o in export(graph).graph.output}
