"""build_library as a function: what cannot be built, names that do no harm, the same library from any backend."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn, optim, random, serialize
from irconv.backends.codegen.machine import MACHINES
from irconv.backends.native.backend import NativeBackend
from irconv.backends.native.standalone.names import distinct, identifier
from irconv.builder import Builder
from irconv.errors import AttributeValueError, BackendError, ModelError
from irconv.graph import Graph
from irconv.ops.elementwise import add
from irconv.passes.accumulation import COUNT
from irconv.types import tensor_type
from tests.backends.handwritten import compiler_or_skip
from tests.standalone_programs import batch, run


@pytest.fixture(autouse=True)
def _with_compiler():
    compiler_or_skip()



def test_what_cannot_be_built():
    model = nn.Linear(3, 2)
    with pytest.raises(ModelError, match="nothing has been compiled"):
        irconv.build_library(irconv.compile(model), "made")
    compiled = irconv.compile(model, irconv.TensorSpec((1, 3)), backend="numpy")
    with pytest.raises(AttributeValueError, match="threads"):
        irconv.build_library(compiled, "made", threads=0)
    with pytest.raises(BackendError, match="no machine 'z80'"):
        irconv.build_library(compiled, "made", machine="z80")


class Normed(nn.Module):
    """Batch norm, whose statistics are new at every call, and dropout, which draws at every call."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.conv(x)).relu().mean((2, 3))))


def accumulating(backend):
    """The step with updates after every third batch, the model and the optimiser; two batches have been seen."""
    random.manual_seed(5)
    model = Normed()
    optimizer = optim.AdamW(model.parameters(), lr=0.05)
    x, target = batch((4, 3, 7, 5)), np.array([0, 3, 2, 1])
    step = irconv.compile_step(model, F.cross_entropy, optimizer, x, target, accumulate=3, clip_norm=0.5, backend=backend)
    for _ in range(2):
        step(x, target)
    return step, model, optimizer


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_a_step_that_accumulates_gradients(steps, tmp_path):
    here = NativeBackend(machine=MACHINES["generic"])
    step, _, _ = accumulating(here)
    irconv.build_library(step, tmp_path, name="net")
    x, target = batch((4, 3, 7, 5)), np.array([0, 3, 2, 1])
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "t.npy", target)
    files = tmp_path / "x.npy", tmp_path / "t.npy"
    printed = run(tmp_path / "net_main", "-n", steps, "-s", tmp_path / "saved.safetensors", *files)
    step, model, optimizer = accumulating(here)
    losses = [float(step(x, target)) for _ in range(steps)]
    assert [line.split()[-1] for line in printed.splitlines()[:steps]] == [f"{loss:.9g}" for loss in losses]
    saved = serialize.load(tmp_path / "saved.safetensors")
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(saved[name], array, err_msg=name)
    assert int(saved[COUNT]) == (2 + steps) % 3
    assert int(saved["step"]) == int(optimizer.state_dict()["step"]) == (2 + steps) // 3


def test_a_step_compiled_for_numpy_or_for_native_is_the_same_library(tmp_path):
    model = nn.Linear(3, 2)
    for backend in ("numpy", "native"):
        compiled = irconv.compile(model, irconv.TensorSpec((4, 3)), backend=backend)
        made = irconv.build_library(compiled, tmp_path / backend, machine="avx2", compile=False)
        assert made.built == ()
        assert made.name == "linear"
    texts = [{p.name: p.read_bytes() for p in (tmp_path / b).rglob("*") if p.is_file()} for b in ("numpy", "native")]
    assert texts[0] == texts[1]


HOSTILE = ('*/ #error "x', "int", "a b\n#error c", "linux", "Ünicode", "", "9", "x" * 300, "A_B", "a-b", "\\", "stdin", "m_t")


def test_names_of_a_model_do_no_harm(tmp_path):
    graph = Graph(HOSTILE[0])
    builder = Builder(graph)
    inputs = [builder.input(name or "x", tensor_type("f32", (2,))) for name in HOSTILE]
    total = inputs[0]
    for each in inputs[1:]:
        total = add(total, each)
    for name in HOSTILE:
        graph.set_output(name, add(total, builder.constant(np.float32(len(name)))).id)
    made = irconv.build_library(irconv.compile(graph, backend="numpy"), tmp_path, name='evil*/"\n#error')
    assert made.name == "evil_error"
    command = [made.built[2]]
    for i in range(len(HOSTILE)):
        np.save(tmp_path / f"{i}.npy", np.full(2, i, np.float32))
        command += [tmp_path / f"{i}.npy", "-o", tmp_path / f"{i}.out.npy"]
    run(*command)
    for i, name in enumerate(HOSTILE):
        np.testing.assert_array_equal(np.load(tmp_path / f"{i}.out.npy"), sum(range(len(HOSTILE))) + len(name))


def test_identifiers():
    assert [identifier(text, "x") for text in ("Conv 2d", "int", "", "7", "a__b", "größe", "size_t")] == [
        "conv_2d", "int_", "x", "x_7", "a_b", "gr_e", "size_t_",
    ]  # fmt: skip
    assert distinct(["a", "b", "a", "a"], ["b"]) == ["a", "b_2", "a_2", "a_3"]


def test_the_example_runs(tmp_path):
    example = Path(__file__).parents[1] / "examples/standalone.py"
    done = subprocess.run([sys.executable, example, "--output", tmp_path], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "after 10 steps, largest difference of a weight from Python" in done.stdout
    assert (tmp_path / "training/trained.safetensors").exists()
