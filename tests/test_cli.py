"""The command line: what it prints, where it writes, and how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import irconv
from tests.command_line import Command

MODELS = """
    import irconv
    import irconv.nn.functional as F
    from irconv import nn

    def scaled(x):
        y = x * 2
        return {"double": y, "largest": y.max()}

    def convolved(x, w):
        return F.conv2d(x, w).relu()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3, padding=1)
            self.norm = nn.BatchNorm2d(2)
            self.head = nn.Linear(2 * 4 * 4, 3)

        def forward(self, x):
            y = self.norm(self.conv(x)).relu()
            return self.head(y.flatten(1))

    net = Net()

    def make_net(classes=3):
        return Net()

    class Needy(nn.Module):
        def __init__(self, size):
            super().__init__()

    def branches(x):
        if x.sum() > 0:
            return x
        return -x

    def broken(x):
        y = x + 1
        return y.no_such_method()

    number = 5
    """


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models.py").write_text(textwrap.dedent(MODELS))
    monkeypatch.chdir(tmp_path)
    return tmp_path


_irconv = Command()
call, output, fails = _irconv.call, _irconv.output, _irconv.fails

# --- show ------------------------------------------------------------------------------------------------------------------


def test_show_prints_a_graph_that_parses(folder):
    text = output("show", "models.py:scaled", "--input", "2x3:f64")
    graph = irconv.parse(text)
    assert str(graph).strip() == text.strip()
    assert [str(graph[i].type) for i in graph.inputs] == ["f64[2,3]"]
    assert list(graph.outputs) == ["double", "largest"]
    assert "models.py:7" in text


@pytest.mark.parametrize("name", ["net", "Net", "make_net"])
def test_modules_classes_and_factories_are_models(folder, name):
    assert "param %conv.weight: f32[2,1,3,3]" in output("show", f"models.py:{name}", "--input", "1x1x4x4")


def test_inputs_by_name_scalars_and_commas(folder):
    text = output("show", "models.py:convolved", "--input", "w=2,1,3,3", "--input", "x=1x1x5x5")
    assert "%x: f32[1,1,5,5]" in text
    assert "%w: f32[2,1,3,3]" in text
    assert "%x: i64[]" in output("show", "models.py:scaled", "--input", "scalar:i64")


def test_show_backward(folder):
    text = output("show", "models.py:net", "--input", "2x1x4x4", "--backward")
    assert "d_conv.weight = %d_conv.weight" in text
    assert "backward of %conv" in text


def test_stages_are_listed_chosen_and_all_printed(folder):
    model = ("models.py:net", "--input", "1x1x4x4")
    listed = output("show", *model, "--stage", "list")
    for name in ("trace", "simplify", "dce", "kernels"):
        assert name in listed
    everything = output("show", *model, "--backward", "--stage", "all")
    assert everything.startswith("# 0 trace")
    assert "# 1 simplify" in everything
    assert "kernel @" in everything
    assert output("show", *model, "--stage", "trace") == output("show", *model)
    assert output("show", *model, "--stage", "0") == output("show", *model)
    assert "kernel @" in output("show", *model, "--stage", "kernels")
    assert "there is no stage 'fuse_everything'" in fails("show", *model, "--stage", "fuse_everything")


def test_show_prints_generated_code_under_its_ir(folder):
    model = ("models.py:net", "--input", "1x1x4x4", "--backend", "native")
    code = output("show", *model, "--stage", "source")
    assert code.startswith("// kernel @")
    assert "models.py:" in code
    assert "(void *const *buffers, const int64_t *sizes" in code
    assert "int64_t worker" not in output("show", *model, "--stage", "all")
    assert "text, not dot" in fails("show", *model, "--stage", "source", "--format", "dot", status=2)
    assert "there is no stage 'source'" in fails("show", *model[:3], "--backend", "numpy", "--stage", "source")


def test_formats_are_read_by_networkx(folder, tmp_path):
    model = ("models.py:net", "--input", "1x1x4x4")
    graph = irconv.parse(output("show", *model))
    data = json.loads(output("show", *model, "--format", "json"))
    assert len(nx.node_link_graph(data, edges="edges")) == len(graph)
    (tmp_path / "net.graphml").write_text(output("show", *model, "--format", "graphml"))
    assert len(nx.read_graphml(tmp_path / "net.graphml")) == len(graph)
    assert output("show", *model, "--format", "dot").startswith("digraph")
    stages = json.loads(output("show", *model, "--stage", "all", "--format", "json"))
    assert stages[0]["stage"] == "trace"
    assert "choose one stage" in fails("show", *model, "--stage", "all", "--format", "dot", status=2)
    assert "text or dot only" in fails("show", *model, "--stage", "kernels", "--format", "json", status=2)


def test_summary_counts(folder):
    text = output("show", "models.py:net", "--input", "1x1x4x4", "--summary")
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    # 2*9 weights and 2 biases; 2 channels of 4x4 by 9 taps; behind them FLOPs and bytes
    assert lines["conv"][-5:-3] == ["20", "288"]
    assert lines["head"][-5:-3] == ["99", "96"]
    assert lines["parameters"][1] == "123"
    assert "stands alone" in fails(
        "show", "models.py:net", "--input", "1x1x4x4", "--summary", "--stage", "all", status=2
    )


# --- run -------------------------------------------------------------------------------------------------------------------


def test_run_reads_and_writes_arrays(folder):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save("x.npy", x)
    text = output("run", "models.py:scaled", "--input", "x.npy", "--output", "y.npz", "--backend", "numpy")
    with np.load("y.npz") as results:
        np.testing.assert_array_equal(results["double"], 2 * x)
        assert results["largest"] == 10
    assert "double" in text
    assert "numpy:" in text
    output("run", "models.py:scaled", "--input", "x=x.npy", "--output", "a.npy", "--output", "b", "--repeat", "2")
    np.testing.assert_array_equal(np.load("a.npy"), 2 * x)
    assert np.load("b") == 10
    assert "2 results" in fails("run", "models.py:scaled", "--input", "x.npy", "--output", "y.npy", status=2)


def test_run_takes_several_inputs_from_one_file(folder):
    generator = np.random.default_rng(0)
    x, w = generator.standard_normal((1, 1, 5, 5)), generator.standard_normal((2, 1, 3, 3))
    np.savez("inputs.npz", w=w, x=x)
    output("run", "models.py:convolved", "--input", "inputs.npz", "--output", "y.npy")
    assert np.load("y.npy").shape == (1, 2, 3, 3)
    assert np.load("y.npy").dtype == np.float64


def test_run_an_ir_file_with_weights(folder):
    np.save("x.npy", np.ones((1, 1, 4, 4), np.float32))
    np.savez("data.npz", x=np.ones((4, 1, 4, 4), np.float32), y=np.array([0, 1, 2, 0]))
    output("opt", "models.py:net", "--input", "1x1x4x4", "--output", "net.ir")
    once = ("--epochs", "1", "--batch", "4", "--held-out", "0")
    output("train", "models.py:net", "--data", "data.npz", *once, "--output", "w.safetensors")
    output("run", "models.py:net", "--input", "x.npy", "--weights", "w.safetensors", "--output", "a.npy")
    output("run", "net.ir", "--input", "x.npy", "--weights", "w.safetensors", "--output", "b.npy")
    output("run", "net.ir", "--input", "x.npy", "--output", "c.npy")
    np.testing.assert_allclose(np.load("a.npy"), np.load("b.npy"), rtol=1e-4, atol=1e-5)
    assert not np.allclose(np.load("a.npy"), np.load("c.npy"), rtol=1e-4)
    assert "which has none" in fails("run", "models.py:scaled", "--input", "x.npy", "--weights", "w.safetensors")
    assert "inputs are fixed" in fails("show", "net.ir", "--input", "1x1x4x4", status=2)


# --- opt -------------------------------------------------------------------------------------------------------------------


PASSES = "simplify,cse,dce,fold_batch_norm"


def test_opt_tells_what_each_pass_did(folder):
    text = output("opt", "models.py:net", "--input", "1x1x4x4", "--passes", PASSES, "--check", "--diff")
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert rows["fold_batch_norm"][2] == "yes"
    assert rows["cse"][2] in ("yes", "no")
    assert "--- before" in text
    assert "the numbers are the same after every pass" in text


def test_opt_writes_a_graph(folder):
    output("opt", "models.py:net", "--input", "1x1x4x4", "--backward", "--output", "net.ir")
    assert output("show", "net.ir").startswith("irconv")
    assert "d_conv.weight" in Path("net.ir").read_text()


def test_opt_lists_passes_and_refuses_unknown_ones(folder):
    assert "fold_batch_norm" in output("opt", "--list")
    assert "there is no pass 'shrink'" in fails("opt", "models.py:net", "--input", "1x1x4x4", "--passes", "shrink")
    assert "cannot write" in fails("opt", "models.py:net", "--input", "1x1x4x4", "--output", "no/such/folder/net.ir")


def test_results_of_any_name_are_written(folder):
    Path("named.py").write_text("def f(x):\n    return {'file': x, 'args': x * 2}\n")
    np.save("x.npy", np.ones(2, np.float32))
    output("run", "named.py:f", "--input", "x.npy", "--output", "out.npz")
    with np.load("out.npz") as found:
        assert found["args"].tolist() == [2, 2] and sorted(found) == ["args", "file"]


# --- train -----------------------------------------------------------------------------------------------------------------


def test_training_learns_and_its_weights_load(folder):
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 200)
    x = generator.normal(0, 0.1, (200, 1, 4, 4)) + y[:, None, None, None] * np.linspace(-1, 1, 16).reshape(1, 1, 4, 4)
    np.savez("data.npz", x=x.astype(np.float32), y=y)
    command = ("train", "models.py:net", "--data", "data.npz", "--batch", "20")
    text = output(*command, "--epochs", "5", "--lr", "0.02", "--output", "w.npz")
    losses = [float(line.split("loss")[1]) for line in text.splitlines() if line.startswith("epoch")]
    assert len(losses) == 5
    assert losses[-1] < 0.7 * losses[0]
    assert "20 rows held out" in text
    again = output(*command, "--epochs", "1", "--weights", "w.npz", "--lr", "1e-5", "--seed", "1")
    assert float(again.splitlines()[0].split("loss")[1]) < 0.8 * losses[0]


def test_training_data_that_does_not_fit(folder):
    np.save("one.npy", np.ones(3))
    np.savez("uneven.npz", x=np.ones((3, 1, 4, 4)), y=np.ones(4))
    np.savez("untargeted.npz", x=np.ones((3, 1, 4, 4)), labels=np.ones(3))
    assert "holds one array" in fails("train", "models.py:net", "--data", "one.npy")
    assert "x [3, 1, 4, 4], y [4]" in fails("train", "models.py:net", "--data", "uneven.npz")
    assert "needs the target 'y'" in fails("train", "models.py:net", "--data", "untargeted.npz")
    assert "no parameters" in fails("train", "models.py:scaled", "--data", "uneven.npz")
    assert "Missing option '--data'" in fails("train", "models.py:net", status=2)


def test_where_weights_go_is_checked_before_training(folder):
    np.savez("data.npz", x=np.ones((20, 1, 4, 4), np.float32), y=np.zeros(20, np.int64))
    for file, message in (("w.pt", "neither .npz nor"), ("missing/w.npz", "cannot write 'missing/w.npz'")):
        text = fails("train", "models.py:net", "--data", "data.npz", "--output", file)
        assert message in text and "epoch" not in text


# --- doctor ----------------------------------------------------------------------------------------------------------------


def test_doctor_reports_every_part():
    text = output("doctor")
    for part in ("numpy", "BLAS", "threads", "C compiler", "GPU", "cupy", "backend numpy"):
        assert part in text
    assert [line.split()[:3] for line in text.splitlines() if line.startswith("backend numpy")] == [
        ["backend", "numpy", "yes"]
    ]


# --- errors ----------------------------------------------------------------------------------------------------------------

WRONG_MODELS = {
    "models.py": "give models.py:NAME with one of scaled, convolved, Net, net, make_net",
    "models.py:nett": "models.py has no 'nett'",
    "models.py:number": "number is a int, not a model",
    "models.py:Needy": "Needy() failed: TypeError",
    "missing.py:net": "there is no file missing.py",
    "model.onnx": "there is no file model.onnx",
    "model.txt:net": "neither a Python, nor an IR, nor an ONNX file",
    "models.py:branches": "truth value",
    "models.py:broken": "no_such_method",
}


@pytest.mark.parametrize("model", WRONG_MODELS)
def test_models_that_cannot_be_used(folder, model):
    text = fails("show", model, "--input", "1x1x4x4")
    assert text.startswith("error: ")
    assert WRONG_MODELS[model] in text


@pytest.mark.parametrize(("name", "code"), [("branches", "if x.sum() > 0:"), ("broken", "return y.no_such_method()")])
def test_errors_in_traced_code_name_its_line(folder, name, code):
    line = [text.strip() for text in Path("models.py").read_text().splitlines()].index(code) + 1
    assert f"models.py:{line}" in fails("show", f"models.py:{name}", "--input", "1x1x4x4")


@pytest.mark.parametrize(
    ("code", "message", "line"),
    [
        ("x = 1\nimport no_such_package\n", "No module named 'no_such_package'", 2),
        ("def f(x:\n    pass\n", "SyntaxError", 1),
        ("\n\nraise SystemExit(3)\n", "SystemExit: 3", 3),
        ("import json\njson.loads('{')\n", "JSONDecodeError", 2),
    ],
)
def test_files_that_cannot_be_imported(folder, code, message, line):
    Path("bad.py").write_text(code)
    text = fails("show", "bad.py:net", "--input", "1")
    assert message in text
    assert f"bad.py:{line}" in text


def test_a_file_that_is_no_text_at_all(folder):
    Path("bad.py").write_bytes(b"\0\xff\0")
    assert "bad.py cannot be imported" in fails("show", "bad.py:net")
    Path("bad.ir").write_bytes(b"\0\xff\0")
    assert "bad.ir" in fails("show", "bad.ir")
    Path("bad.ir").write_text("irconv 1\ngraph g(%x: f32[2]) {\n  return %y\n}\n")
    assert "bad.ir:3" in fails("show", "bad.ir")


def test_array_files_that_cannot_be_read(folder):
    Path("bad.npy").write_bytes(b"\x93NUMPY nonsense")
    Path("bad.npz").write_bytes(b"PK\x03\x04 nonsense")
    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    for file in ("bad.npy", "bad.npz", "objects.npy", "missing.npy"):
        message = fails("run", "models.py:scaled", "--input", file)
        assert file in message and "allow_pickle" not in message


def test_inputs_that_do_not_fit(folder):
    assert "--input 1x3x224x224" in fails("show", "models.py:net")
    assert "3xx4" in fails("show", "models.py:net", "--input", "3xx4", status=2)
    assert "f31" in fails("show", "models.py:net", "--input", "1x1x4x4:f31", status=2)
    assert "2^48" in fails("show", "models.py:net", "--input", "9999999x9999999x9999999", status=2)
    stages = ("show", "models.py:net", "--input", "1x1x4x4", "--stage", "all")
    assert "there is no backend 'abacus'" in fails(*stages, "--backend", "abacus")
    fails("show", "models.py:net", "--no-such-option", status=2)
    fails("no-such-command", status=2)


def test_tracebacks_on_request(folder):
    result = call("--traceback", "show", "models.py:nett")
    assert isinstance(result.exception, irconv.IrconvError)


# --- the installed script --------------------------------------------------------------------------------------------------


def test_the_command_itself(folder):
    script = Path(sys.executable).with_name("irconv")
    command = [str(script)] if script.exists() else [sys.executable, "-c", "from irconv.cli import main; main()"]
    shown = subprocess.run(
        [*command, "show", "models.py:net", "--input", "1x1x4x4", "--summary"], capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    assert "\x1b" not in shown.stdout
    assert "│" not in shown.stdout
    failed = subprocess.run([*command, "show", "models.py:branches", "--input", "1"], capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert failed.stderr.startswith("error: ")
    assert "Traceback" not in failed.stderr
