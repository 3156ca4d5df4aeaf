"""Importing ONNX models: names, roles, shapes and values, and files that are damaged or hostile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the onnx package: pip install 'irconv[onnx]'")

import onnx
from onnx import TensorProto, helper, numpy_helper

import irconv
from irconv import nn, optim
from irconv.errors import IrconvError, ModelError
from irconv.frontends.onnx import load_model
from irconv.nn.module import Buffer, Parameter
from tests.counting import assert_near_linear
from tests.onnx.building import f32, info, load, model, refused, small_network, stored

# --- what a model becomes ----------------------------------------------------------------------------------------------------


def test_stored_weights_are_parameters_and_statistics_buffers_under_their_names() -> None:
    net = load(small_network())
    assert [n for n, _ in net.named_parameters()] == [
        "conv.weight", "conv.bias", "bn.weight", "bn.bias", "fc.weight", "fc.bias",
    ]  # fmt: skip
    assert [n for n, _ in net.named_buffers()] == ["bn.mean", "bn.var"]
    assert net.input_names == ("image",)
    assert net.output_names == ("scores",)


def test_values_are_named_as_in_the_file_and_say_which_node_they_come_from() -> None:
    graph = irconv.trace(load(small_network()), irconv.TensorSpec((2, 3, 8, 8)))
    for name, scope in (("features", "/conv/Conv"), ("normal", "/bn"), ("active", "active"), ("scores", "/fc/Gemm")):
        assert graph[name].provenance.scope == scope
    assert graph["image"].op.name == "input"
    assert str(graph["features"].provenance.location) == "model:1"
    assert graph["normal"].provenance.composite.kind == "batch_norm"
    assert irconv.parse(str(graph)).order() == graph.order()


def test_lines_that_pytorch_notes_in_the_file_become_locations() -> None:
    proto = small_network()
    note = proto.graph.node[0].metadata_props.add()
    note.key = "pkg.torch.onnx.stack_trace"
    note.value = 'File "net.py", line 12, in forward\n  y = self.body(x)\nFile "body.py", line 7, in forward\n  return conv(x)\nFile "site-packages/torch/conv.py", line 9, in forward'
    graph = irconv.trace(load(proto), irconv.TensorSpec((1, 3, 8, 8)))
    assert str(graph["features"].provenance.location) == "body.py:7"


def test_single_numbers_stay_constants_scales_are_trained() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "epsilon"], ["y"]),
    ]
    net = load(model(nodes, [info("x", 2, 3)], ["y"], stored(scale=f32(3), epsilon=np.float32(1e-5))))
    assert [n for n, _ in net.named_parameters()] == ["scale"]


def test_weights_that_are_transposed_or_stored_as_constant_nodes_are_parameters() -> None:
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(f32(5, 3))),
        helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "wt"], ["y"]),
    ]
    net = load(model(nodes, [info("x", 2, 3)], ["y"]))
    assert [n for n, _ in net.named_parameters()] == ["w"]


def test_equal_tensors_that_the_exporter_stored_once_are_trained_apart() -> None:
    nodes = [
        helper.make_node("Identity", ["first"], ["second"]),
        helper.make_node("MatMul", ["x", "first"], ["h"]),
        helper.make_node("MatMul", ["h", "second"], ["y"]),
    ]
    net = load(model(nodes, [info("x", 2, 3)], ["y"], stored(first=f32(3, 3))))
    assert sorted(n for n, _ in net.named_parameters()) == ["first", "second"]


def test_runs_traces_and_compiles_to_the_same_numbers() -> None:
    net = load(small_network())
    x = f32(2, 3, 8, 8)
    eager = net(irconv.tensor(x)).numpy()
    compiled = irconv.compile(net, irconv.TensorSpec((2, 3, 8, 8)), backend="numpy")
    np.testing.assert_allclose(compiled(x), eager, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(compiled(image=x), eager, rtol=1e-5, atol=1e-6)
    assert compiled(f32(5, 3, 8, 8)).shape == (5, 5)  # another batch specialises


def test_from_a_path(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(small_network(), path)
    compiled = irconv.compile(str(path), irconv.TensorSpec((1, 3, 8, 8)))
    assert compiled(f32(1, 3, 8, 8)).shape == (1, 5)
    assert compiled.graph.name == "net"


def test_a_file_that_fixes_its_shapes_compiles_at_once() -> None:
    net = load(model([helper.make_node("Relu", ["x"], ["y"])], [info("x", 2, 3)], ["y"]))
    assert irconv.compile(net).graph.name == "model"


def test_several_outputs_come_in_the_order_of_the_file() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["x"], ["b"])]
    net = load(model(nodes, [info("x", 2)], ["b", "a", "x"]))
    x = np.array([1, -2], np.float32)
    b, a, same = irconv.compile(net)(x)
    np.testing.assert_array_equal((b, a, same), (-x, np.maximum(x, 0), x))


def test_shape_arithmetic_leaves_no_trace() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        helper.make_node("Unsqueeze", ["batch", "axes"], ["batch1"]),
        helper.make_node("Concat", ["batch1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    tensors = stored(zero=np.int64(0), axes=np.array([0]), rest=np.array([-1]))
    net = load(model(nodes, [info("x", "n", 3, 4)], ["y"], tensors))
    graph = irconv.trace(net, irconv.TensorSpec((2, 3, 4)))
    assert [node.op.name for node in graph] == ["input", "reshape"]


def test_inputs_that_determine_shapes_specialise_by_value() -> None:
    net = load(
        model(
            [helper.make_node("Reshape", ["x", "shape"], ["y"])], [info("x", 6), info("shape", 2, dtype=TensorProto.INT64)], ["y"]
        )
    )
    assert net.fixed_inputs == ("shape",)
    compiled = irconv.compile(net)
    x = f32(6)
    assert compiled(x, np.array([2, 3])).shape == (2, 3)
    assert compiled(x, np.array([3, 2])).shape == (3, 2)
    with pytest.raises(ModelError, match="give its value"):
        irconv.trace(net, irconv.TensorSpec((6,)), irconv.TensorSpec((2,), "i64"))


def test_a_condition_that_is_known_chooses_a_branch_that_sees_the_values_around_it() -> None:
    def branch(operator: str) -> onnx.GraphProto:
        return helper.make_graph([helper.make_node(operator, ["x"], ["r"])], operator, [], [info("r", 2)])

    node = helper.make_node("If", ["condition"], ["y"], then_branch=branch("Relu"), else_branch=branch("Neg"))
    net = load(model([node], [info("x", 2), info("condition", dtype=TensorProto.BOOL)], ["y"]))
    compiled = irconv.compile(net)
    x = np.array([1, -2], np.float32)
    np.testing.assert_array_equal(compiled(x, np.array(True)), [1, 0])
    np.testing.assert_array_equal(compiled(x, np.array(False)), [-1, 2])


def test_functions_of_the_model_are_opened() -> None:
    body = [
        helper.make_node("LeakyRelu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "m"], ["c"]),
    ]
    attribute = body[0].attribute.add()
    attribute.name, attribute.ref_attr_name, attribute.type = "alpha", "slope", onnx.AttributeProto.FLOAT
    function = helper.make_function("local", "Block", ["a", "m"], ["c"], body, [helper.make_opsetid("", 17)], ["slope"])
    node = helper.make_node("Block", ["x", "w"], ["y"], domain="local", slope=0.5)
    proto = model([node], [info("x", 1, 2)], ["y"], stored(w=np.eye(2, dtype=np.float32)), functions=[function])
    proto.opset_import.append(helper.make_opsetid("local", 1))
    net = load(proto)
    assert [n for n, _ in net.named_parameters()] == ["w"]
    np.testing.assert_array_equal(net(np.array([[-2, 3]], np.float32)).numpy(), [[-1, 3]])


# --- training it -------------------------------------------------------------------------------------------------------------


def test_a_frozen_body_with_a_new_head_trains() -> None:
    net = load(small_network())
    net.freeze()
    body = net.until("pooled")
    assert body.output_names == ("pooled",)
    head = nn.Sequential(body, nn.Flatten(), nn.Linear(4, 2))
    before = {name: np.array(p.numpy()) for name, p in head.named_parameters()}
    optimizer = optim.SGD(head.parameters(), lr=0.1)
    step = irconv.compile_step(head, nn.CrossEntropyLoss(), optimizer)
    x, target = f32(8, 3, 8, 8), np.arange(8) % 2
    losses = [float(step(x, target)) for _ in range(5)]
    assert losses[-1] < losses[0]
    changed = [name for name, p in head.named_parameters() if not np.array_equal(p.numpy(), before[name])]
    assert changed == ["2.weight", "2.bias"]


def test_freezing_by_pattern() -> None:
    net = load(small_network()).freeze("conv.*", "bn.*")
    assert [n for n, p in net.named_parameters() if not p.frozen] == ["fc.weight", "fc.bias"]
    with pytest.raises(ModelError, match="no parameter"):
        net.freeze("nothing.*")


def test_training_moves_the_running_statistics() -> None:
    net = load(small_network())
    mean = np.array(dict(net.named_buffers())["bn.mean"].numpy())
    step = irconv.compile_step(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), lr=0.01))
    step(f32(4, 3, 8, 8), np.arange(4))
    assert not np.array_equal(dict(net.named_buffers())["bn.mean"].numpy(), mean)


def test_state_is_saved_under_the_names_of_the_file() -> None:
    net, other = load(small_network()), load(small_network())
    other.load_state_dict(net.state_dict())
    x = f32(1, 3, 8, 8)
    np.testing.assert_array_equal(net(x).numpy(), other(x).numpy())


# --- files that cannot be imported ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"hello, world", b"\x00" * 100, bytes(range(256)), b"\x89PNG\r\n\x1a\n"])
def test_not_onnx(data: bytes) -> None:
    refused(data, "ONNX")


def test_truncated_anywhere() -> None:
    data = small_network().SerializeToString()
    for end in range(1, len(data) - 1, 7):
        with pytest.raises(IrconvError):
            load_model(data[:end])(np.zeros((1, 3, 8, 8), np.float32))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(tmp_path)


def test_cycle() -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"], name="first"), helper.make_node("Relu", ["a"], ["b"], name="second")]
    refused(model(nodes, [info("x", 2)], ["b"]), "need their own results", "first", "second")


def test_nodes_in_any_order() -> None:
    nodes = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Neg", ["x"], ["a"])]
    np.testing.assert_array_equal(load(model(nodes, [info("x", 2)], ["b"]))(np.array([-1, 1], np.float32)).numpy(), [1, 0])


def test_all_unknown_operators_are_listed_at_once() -> None:
    nodes = [
        helper.make_node("Frobnicate", ["x"], ["a"], name="one"),
        helper.make_node("Frobnicate", ["a"], ["b"], name="two"),
        helper.make_node("Relu", ["b"], ["c"], name="fine"),
        helper.make_node("Fuse", ["c"], ["d"], name="three", domain="com.vendor"),
    ]
    proto = model(nodes, [info("x", 2)], ["d"])
    proto.opset_import.append(helper.make_opsetid("com.vendor", 1))
    error = refused(proto, "2 operators", "Frobnicate (version 17) x 2: one, two", "com.vendor.Fuse (version 1) x 1: three")
    assert "fine" not in str(error)


def test_unknown_operators_that_no_output_needs_do_not_matter() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Frobnicate", ["x"], ["unused"])]
    assert load(model(nodes, [info("x", 2)], ["y"])).output_names == ("y",)


def test_missing_tensors_are_listed() -> None:
    nodes = [helper.make_node("Conv", ["x", "w", "bias"], ["y"])]
    refused(model(nodes, [info("x", 1, 1, 4, 4)], ["y"]), "missing tensors", "bias, w")


def test_an_output_that_nothing_computes() -> None:
    refused(model([helper.make_node("Relu", ["x"], ["y"])], [info("x", 2)], ["z"]), "missing tensors", "z")


def test_a_name_that_is_computed_twice() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["y"])]
    refused(model(nodes, [info("x", 2)], ["y"]), "already the name")


def test_operator_set_that_is_newer_than_the_installed_onnx() -> None:
    refused(model([helper.make_node("Relu", ["x"], ["y"])], [info("x", 2)], ["y"], opset=9999), "9999", "upgrade")


def test_function_that_calls_itself() -> None:
    function = helper.make_function(
        "local", "F", ["a"], ["b"], [helper.make_node("F", ["a"], ["b"], domain="local")], [helper.make_opsetid("local", 1)]
    )
    node = helper.make_node("F", ["x"], ["y"], domain="local")
    proto = model([node], [info("x", 2)], ["y"], functions=[function])
    proto.opset_import.append(helper.make_opsetid("local", 1))
    refused(proto, "calls itself")


def test_functions_that_grow_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irconv.frontends.onnx.graphs.MAX_NODES", 5000)
    functions = []
    for level in range(40):
        inner = f"F{level + 1}" if level < 39 else "Relu"
        domain = "local" if level < 39 else ""
        body = [helper.make_node(inner, ["a"], ["m"], domain=domain), helper.make_node(inner, ["m"], ["b"], domain=domain)]
        functions.append(
            helper.make_function(
                "local", f"F{level}", ["a"], ["b"], body, [helper.make_opsetid("local", 1), helper.make_opsetid("", 17)]
            )
        )
    proto = model([helper.make_node("F0", ["x"], ["y"], domain="local")], [info("x", 2)], ["y"], functions=functions)
    proto.opset_import.append(helper.make_opsetid("local", 1))
    refused(proto, "nodes")


# --- time ---------------------------------------------------------------------------------------------------------------------------------


def test_importing_takes_near_linear_time() -> None:
    def importing(layers: int) -> Callable[[], Any]:
        nodes, tensors, value = [], {}, "x"
        for i in range(layers):
            tensors |= {f"w{i}": f32(4, 4, 3, 3), f"v{i}": np.ones(4, np.float32)} | {f"{k}{i}": f32(4) for k in "sbm"}
            nodes += [
                helper.make_node("Conv", [value, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]),
                helper.make_node("BatchNormalization", [f"c{i}", f"s{i}", f"b{i}", f"m{i}", f"v{i}"], [f"n{i}"]),
                helper.make_node("Relu", [f"n{i}"], [f"r{i}"]),
            ]
            value = f"r{i}"
        data = model(nodes, [info("x", 1, 4, 8, 8)], [value], stored(**tensors)).SerializeToString()
        return lambda: irconv.trace(load_model(data), irconv.TensorSpec((1, 4, 8, 8)))

    assert len(importing(50)().inputs) == 1
    assert_near_linear(importing, 10, 80)


def test_parts_are_what_modules_hold() -> None:
    kinds = {type(part) for _, part in load(small_network()).own_parts()}
    assert kinds == {Parameter, Buffer}
