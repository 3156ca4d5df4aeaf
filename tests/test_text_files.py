"""The text form: states bound by name, files saved and loaded, and files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from irconv.errors import IrconvError, ModelError, ParseError, StateError
from irconv.graph import Graph
from irconv.op import OPS, OpDef
from irconv.state import Variable
from irconv.text import large_constants, load, parse, save
from irconv.types import TensorType
from irconv.verify import verify
from tests.example_graphs import small_network

# --- states and files ------------------------------------------------------------------------------------------------------


def test_states_are_bound_by_name() -> None:
    graph = small_network()
    back = parse(str(graph), large_constants(graph), {**graph.state, "other": Variable(np.zeros(2))})
    assert back.state["conv1.weight"] is graph.state["conv1.weight"]
    assert back.state.keys() == graph.state.keys()
    assert not parse(str(graph), large_constants(graph)).state
    with pytest.raises(StateError, match=r"%conv1.weight is f32\[3\], but the variable given for it is f32\[4\]"):
        parse(str(graph), large_constants(graph), {"conv1.weight": Variable(np.zeros(4, np.float32))})


def test_save_and_load(tmp_path: Path) -> None:
    graph = small_network()
    graph.state["optimizer.lr"].array[...] = 0.25
    save(graph, tmp_path / "small.ir")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.ir", "small.ir.safetensors"]
    back = load(tmp_path / "small.ir")
    verify(back)
    assert str(back) == str(graph) == (tmp_path / "small.ir").read_text()
    assert back.state.keys() == graph.state.keys()
    for name, variable in graph.state.items():
        np.testing.assert_array_equal(back.state[name].array, variable.array)
    back.state["conv1.weight"].assign([1, 2, 3])


def test_states_that_share_a_variable_share_one_again(tmp_path: Path) -> None:
    graph = Graph("tied")
    shared = Variable(np.arange(3.0))
    for name in ("encoder.weight", "decoder.weight"):
        graph.add_state(name, shared.type, "param", shared)
    save(graph, tmp_path / "tied.ir")
    back = load(tmp_path / "tied.ir")
    assert back.state["encoder.weight"] is back.state["decoder.weight"]


def test_no_arrays_no_second_file(tmp_path: Path) -> None:
    path = tmp_path / "f.ir"
    save(small_network(), path)
    save(parse("irconv 1\ngraph f(%x: f32[]) {\n return %x\n}"), path)
    assert [p.name for p in tmp_path.iterdir()] == ["f.ir"]
    assert load(path).name == "f"


def test_a_failed_save_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small.ir"
    save(small_network(), path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(tensors, filename, metadata) -> None:
        Path(filename).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(ModelError, match="no space left on device"):
        save(small_network(), path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "small.ir"
    with pytest.raises(ModelError, match="cannot read"):
        load(path)
    with pytest.raises(ModelError, match="cannot write"):
        save(small_network(), tmp_path / "no folder" / "small.ir")
    save(small_network(), path)
    beside = tmp_path / "small.ir.safetensors"
    arrays = beside.read_bytes()
    for damaged in (arrays[: len(arrays) // 2], b"", b"\xff" * 100, arrays[:8] + b"[" + arrays[9:]):
        beside.write_bytes(damaged)
        with pytest.raises(ModelError, match="cannot read"):
            load(path)
    beside.unlink()
    with pytest.raises(ParseError, match="was not given") as caught:
        load(path)
    assert caught.value.location is not None
    assert caught.value.location.file == str(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="cannot read"):
        load(path)
    path.write_text("irconv 1\ngraph")
    with pytest.raises(ParseError):
        load(path)


def test_arrays_of_other_types_than_the_text_says(tmp_path: Path) -> None:
    path = tmp_path / "small.ir"
    save(small_network(), path)
    path.write_text(path.read_text().replace("param %conv1.weight: f32[3]", "param %conv1.weight: f32[1,3]"))
    with pytest.raises(StateError, match="%conv1"):
        load(path)


def test_a_type_rule_that_fails_is_an_error_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def infer(attributes, x: TensorType) -> TensorType:
        return TensorType(x.dtype, (1 // x.size,))

    relu = OPS["relu"]
    broken = OpDef("relu", ("x",), infer, relu.reference, relu.gradient, relu.fusion)
    monkeypatch.setitem(OPS, "relu", broken)
    with pytest.raises(IrconvError, match="relu does not work"):
        parse("irconv 1\ngraph f(%x: f32[0]) {\n  %y = relu(%x) : f32[0]\n  return\n}\n")
