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
from irconv.errors import DTypeError, IrconvError, ModelError, ShapeError
from irconv.frontends.onnx import load_model
from irconv.nn.module import Buffer, Parameter
from tests.counting import assert_near_linear
from tests.onnx.building import F, f32, info, load, model, stored


def small_network() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["image", "conv.weight", "conv.bias"], ["features"], name="/conv/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["features", "bn.weight", "bn.bias", "bn.mean", "bn.var"], ["normal"], name="/bn"),
        helper.make_node("Relu", ["normal"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"], name="/pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="/flatten"),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["scores"], name="/fc/Gemm", transB=1),
    ]
    tensors = {
        "conv.weight": f32(4, 3, 3, 3), "conv.bias": f32(4), "bn.weight": f32(4), "bn.bias": f32(4), "bn.mean": f32(4),
        "bn.var": f32(4) ** 2 + 1, "fc.weight": f32(5, 4), "fc.bias": f32(5),
    }  # fmt: skip
    return model(nodes, [info("image", "batch", 3, 8, 8)], ["scores"], stored(**tensors))


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


def refused(proto: onnx.ModelProto | bytes, *words: str) -> ModelError:
    data = proto if isinstance(proto, bytes) else proto.SerializeToString()
    with pytest.raises(ModelError) as caught:
        load_model(data)
    for word in words:
        assert word in str(caught.value)
    return caught.value


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


# --- values that do not fit --------------------------------------------------------------------------------------------------------


def test_stored_data_that_do_not_fill_their_shape() -> None:
    tensor = stored(w=f32(4))[0]
    tensor.dims[0] = 5
    refused(model([helper.make_node("Add", ["x", "w"], ["y"])], [info("x", 5)], ["y"], [tensor]), "20 bytes, has 16")


@pytest.mark.parametrize("dims", [[-1], [2**40, 2**40], [2**62]])
def test_absurd_sizes_of_stored_tensors(dims: list[int]) -> None:
    tensor = TensorProto(name="w", data_type=F, dims=dims)
    refused(model([helper.make_node("Add", ["x", "w"], ["y"])], [info("x", 5)], ["y"], [tensor]), "'w'")


def test_element_types_that_are_not_supported() -> None:
    tensor = helper.make_tensor("w", TensorProto.COMPLEX64, [2], [1.0, 2.0])
    refused(model([helper.make_node("Add", ["x", "w"], ["y"])], [info("x", 2)], ["y"], [tensor]), "COMPLEX64", "f32")
    text = helper.make_tensor("w", TensorProto.STRING, [1], [b"a"])
    refused(model([helper.make_node("Add", ["x", "w"], ["y"])], [info("x", 2)], ["y"], [text]), "STRING")


@pytest.mark.parametrize("further", [False, True])
@pytest.mark.parametrize(
    ("node", "shape"),
    [
        (helper.make_node("ConstantOfShape", ["shape"], ["y"]), [2**20, 2**20]),
        (helper.make_node("ConstantOfShape", ["shape"], ["y"]), [-3]),
        (helper.make_node("Expand", ["one", "shape"], ["y"]), [2**30, 2**15]),
        (helper.make_node("Tile", ["one", "shape"], ["y"]), [2**45]),
        (helper.make_node("Range", ["zero", "huge", "step"], ["y"]), []),
        (helper.make_node("Reshape", ["one", "shape"], ["y"]), [-1, -1]),
    ],
)
def test_absurd_sizes_of_computed_tensors(node: onnx.NodeProto, shape: list[int], further: bool) -> None:
    more = [helper.make_node("Neg", ["y"], ["z"])] if further else []
    tensors = stored(
        shape=np.array(shape, np.int64), one=np.ones(1, np.float32), zero=np.float64(0), huge=np.float64(1e15), step=np.float64(1)
    )
    with pytest.raises(IrconvError):
        irconv.compile(load(model([node, *more], [], ["z" if further else "y"], tensors)))()


def test_errors_of_nodes_say_which_and_what_it_got() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="/block/conv")]
    net = load(model(nodes, [info("x", "n", "c", 8, 8)], ["y"], stored(w=f32(4, 3, 3, 3))))
    with pytest.raises(ModelError) as caught:
        irconv.trace(net, irconv.TensorSpec((1, 2, 8, 8)))
    for word in ("'/block/conv' (Conv)", "takes 3 input channels", "x: f32[1,2,8,8]", "model:1"):
        assert word in str(caught.value)


def test_wrong_inputs() -> None:
    net = load(small_network())
    with pytest.raises(ShapeError, match=r"image: f32\[batch,3,8,8\] cannot take f32\[1,4,8,8\]"):
        irconv.trace(net, irconv.TensorSpec((1, 4, 8, 8)))
    with pytest.raises((ShapeError, DTypeError), match="f64"):
        net(np.zeros((1, 3, 8, 8)))
    with pytest.raises(ModelError, match="takes 1 inputs"):
        net(f32(1, 3, 8, 8), f32(1))
    with pytest.raises(ModelError, match="'picture'"):
        net(picture=f32(1, 3, 8, 8))
    with pytest.raises(ModelError, match=r"image: f32\[batch,3,8,8\]"):
        net()


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (helper.make_node("Conv", ["x"], ["y"]), "at least 2 inputs"),
        (helper.make_node("Relu", ["x", "x"], ["y"]), "at most 1"),
        (helper.make_node("Relu", ["x"], ["y", "z"]), "2 outputs"),
        (helper.make_node("Concat", ["x"], ["y"]), "'axis' is missing"),
        (helper.make_node("Concat", ["x"], ["y"], axis=1.5), "must be of type INT"),
        (helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[0, 2]), "kernel"),
        (helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], auto_pad="SOME"), "SOME"),
        (helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], pads=[1]), "padding [1]"),
        (helper.make_node("Softmax", ["x"], ["y"], axis=7), "axis 7"),
        (helper.make_node("Transpose", ["x"], ["y"], perm=[0, 0, 1, 2]), "twice"),
        (helper.make_node("Cast", ["x"], ["y"], to=99), "number 99"),
    ],
)
def test_malformed_nodes(node: onnx.NodeProto, words: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(model([node], [info("x", 1, 1, 4, 4)], ["y"]))(np.zeros((1, 1, 4, 4), np.float32))
    assert words in str(caught.value)


# --- names ---------------------------------------------------------------------------------------------------------------------------

HOSTILE = [
    '"; system("rm -rf /"); //',
    "../../etc/passwd",
    "a\nb",
    "%x",
    "forward",
    "__class__",
    "self",
    "out",
    "training",
    "名前",
    "*/",
    "\\",
    " ",
    "x = 1",
    "own_training",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(name: str) -> None:
    nodes = [
        helper.make_node("MatMul", [f"{name}i", name], [f"{name}m"], name=name),
        helper.make_node("Add", [f"{name}m", f"{name}b"], [f"{name}y"], name=name),
    ]
    net = load(model(nodes, [info(f"{name}i", 2, 3)], [f"{name}y"], stored(**{name: f32(3, 3), f"{name}b": f32(3)})))
    compiled = irconv.compile(net)
    x = f32(2, 3)
    np.testing.assert_allclose(compiled(x), net(**{f"{name}i": x}).numpy(), rtol=1e-5)
    graph = irconv.trace(net)
    assert str(irconv.parse(str(graph))) == str(graph)
    assert {n for n, _ in net.named_parameters()} == {name, f"{name}b"}


@pytest.mark.parametrize("text", ['a"b', "line\nbreak", "*/ x", "%y", "", "é:7", ":", "file:99999999999999999999", "file:-1", "f.py:٣"])
def test_hostile_notes(text: str) -> None:
    node = helper.make_node("Relu", ["x"], ["y"], doc_string=text)
    for key in ("irconv.op", "irconv.scope", "irconv.origin", "pkg.torch.onnx.stack_trace"):
        entry = node.metadata_props.add()
        entry.key, entry.value = key, text or "relu"
    graph = irconv.trace(load(model([node], [info("x", 2)], ["y"])))
    assert str(irconv.parse(str(graph))) == str(graph)


# --- external data ----------------------------------------------------------------------------------------------------------------------


def external(location: str, offset: int | None = None, length: int | None = None) -> onnx.ModelProto:
    tensor = TensorProto(name="w", data_type=F, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            entry = tensor.external_data.add()
            entry.key, entry.value = key, str(value)
    return model([helper.make_node("Add", ["x", "w"], ["y"])], [info("x", 2)], ["y"], [tensor])


def saved(folder: Path, proto: onnx.ModelProto) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w.bin").write_bytes(np.array([9, 1, 2], "<f4").tobytes())
    net = load_model(saved(tmp_path, external("weights/w.bin", offset=4, length=8)))
    np.testing.assert_array_equal(net(np.zeros(2, np.float32)).numpy(), [1, 2])


@pytest.mark.parametrize(
    "location",
    [
        "../secret",
        "/etc/hostname",
        "a/../../secret",
        "",
        "C:\\secret",
        "..\\secret",
        "link",
        "folder",
        "missing",
        "a\0b",
        "linked/w.bin",
    ],
)
def test_external_data_stay_in_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 8)
    inside = tmp_path / "inside"
    (inside / "folder").mkdir(parents=True)
    (inside / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "w.bin").write_bytes(b"\0" * 8)
    (inside / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError):
        load_model(saved(inside, external(location)))


@pytest.mark.parametrize(("offset", "length"), [(4, 8), (0, 4), (-4, 8), (2**62, 8), (0, 2**62), ("x", 8)])
def test_external_data_that_do_not_fit(tmp_path: Path, offset: Any, length: Any) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 8)
    with pytest.raises(ModelError):
        load_model(saved(tmp_path, external("w.bin", offset, length)))


def test_external_data_of_a_model_without_a_folder() -> None:
    refused(external("w.bin"), "path")


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
