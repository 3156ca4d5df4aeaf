"""ONNX files with values that do not fit, hostile names, and data kept outside of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the onnx package: pip install 'irconv[onnx]'")

import onnx
from onnx import TensorProto, helper

import irconv
from irconv.errors import DTypeError, IrconvError, ModelError, ShapeError
from irconv.frontends.onnx import load_model
from tests.onnx.building import F, f32, info, load, model, refused, small_network, stored

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
