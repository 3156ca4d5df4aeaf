"""The command line on ONNX files: every verb takes one for a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the onnx package: pip install 'irconv[onnx]'")

import onnx
from click.testing import CliRunner, Result
from onnx import TensorProto, helper

from irconv.cli import main
from tests.onnx.building import f32, info, model, stored


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network, one whose shapes depend on an input, one with unknown operators, and arrays."""
    made = tmp_path_factory.mktemp("files")
    nodes = [
        helper.make_node("Conv", ["image", "conv.weight"], ["features"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc.weight"], ["scores"], name="fc", transB=1),
    ]
    weights = stored(**{"conv.weight": f32(4, 3, 3, 3) * 0.3, "fc.weight": f32(2, 4)})
    onnx.save(model(nodes, [info("image", "n", 3, 8, 8)], ["scores"], weights, ir_version=8), made / "net.onnx")
    shaped = model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])], [info("x", 6), info("shape", 2, dtype=TensorProto.INT64)], ["y"]
    )
    onnx.save(shaped, made / "shaped.onnx")
    unknown = [helper.make_node("Frobnicate", ["x"], ["y"], name="one"), helper.make_node("Frobnicate", ["y"], ["z"], name="two")]
    onnx.save(model(unknown, [info("x", 6)], ["z"]), made / "unknown.onnx")
    images = f32(40, 3, 8, 8)
    labels = np.arange(40) % 2
    images[labels == 1] += 1
    np.save(made / "image.npy", images[:2])
    np.save(made / "x.npy", f32(6))
    np.save(made / "shape.npy", np.array([2, 3]))
    np.savez(made / "data.npz", image=images, y=labels)
    return made


def invoke(folder: Path, *args: str) -> Result:
    return CliRunner().invoke(main, [str(folder / a) if (folder / a).exists() else a for a in args])


def done(folder: Path, *args: str) -> str:
    result = invoke(folder, *args)
    assert result.exit_code == 0, result.output
    return result.output


def test_show(folder: Path) -> None:
    text = done(folder, "show", "net.onnx", "--input", "1x3x8x8")
    assert "%features = conv(%image, %conv.weight)" in text
    assert "d_conv.weight" in done(folder, "show", "net.onnx", "--input", "1x3x8x8", "--backward")
    assert "kernel @" in done(folder, "show", "net.onnx", "--input", "1x3x8x8", "--stage", "all")


def test_summary_by_layer(folder: Path) -> None:
    lines = done(folder, "show", "net.onnx", "--input", "1x3x8x8", "--summary").splitlines()
    (conv,) = (line.split() for line in lines if line.startswith("conv "))
    # 4 filters of 3x3x3 on 8x8 places
    assert conv[2:5] == ["f32[1,4,8,8]", "108", "6.91"]
    assert any(line.split()[:2] == ["parameters", "116"] for line in lines)


def test_opt(folder: Path) -> None:
    text = done(folder, "opt", "net.onnx", "--input", "1x3x8x8", "--passes", "simplify,cse,dce", "--check")
    assert "the same after every pass" in text


def test_run(folder: Path, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    done(folder, "run", "net.onnx", "--input", f"image={folder / 'image.npy'}", "--output", str(tmp_path / "scores.npy"))
    (wanted,) = ort.InferenceSession(str(folder / "net.onnx")).run(None, {"image": np.load(folder / "image.npy")})
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), wanted, rtol=1e-5, atol=1e-6)


def test_run_with_an_input_that_determines_shapes(folder: Path, tmp_path: Path) -> None:
    given = [f"{name}={folder / name}.npy" for name in ("x", "shape")]
    done(folder, "run", "shaped.onnx", "--input", given[0], "--input", given[1], "--output", str(tmp_path / "y.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.load(folder / "x.npy").reshape(2, 3))


def test_train_and_run_what_was_trained(folder: Path, tmp_path: Path) -> None:
    weights = str(tmp_path / "trained.npz")
    text = done(folder, "train", "net.onnx", "--data", "data.npz", "--epochs", "30", "--lr", "0.05", "--output", weights)
    losses = [float(line.split("loss ")[1].split()[0].rstrip(",")) for line in text.splitlines() if line.startswith("epoch")]
    assert losses[-1] < 0.7 * losses[0]
    with np.load(weights) as trained:
        assert set(trained) == {"conv.weight", "fc.weight"}
    done(folder, "run", "net.onnx", "--weights", weights, "--input", "image.npy", "--output", str(tmp_path / "a.npy"))
    done(folder, "run", "net.onnx", "--input", "image.npy", "--output", str(tmp_path / "b.npy"))
    assert not np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))


@pytest.mark.parametrize("verb", ["show", "opt", "run"])
def test_unsupported_operators_are_listed(folder: Path, verb: str) -> None:
    result = invoke(folder, verb, "unknown.onnx", *(["--input", "x.npy"] if verb == "run" else ["--input", "6"]))
    assert result.exit_code == 1
    assert "Frobnicate (version 17) x 2: one, two" in result.output
    assert "Traceback" not in result.output
