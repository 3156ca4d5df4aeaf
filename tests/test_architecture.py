"""The shape of the code base: imports run one way, everything is registered, `import irconv` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import irconv
import irconv.backends
import irconv.passes
from irconv.backends.arrays import KERNELS
from irconv.op import OPS

ROOTS = {
    name: Path(module.__path__[0])
    for name, module in (("irconv", irconv), ("irconv.passes", irconv.passes), ("irconv.backends", irconv.backends))
}

# what each group of modules may import from irconv, besides its own group and the groups listed
CORE = {"_checkout", "places", "errors", "types", "op", "state", "graph", "builder", "ops", "syntax", "tokens", "text", "parser", "verify", "strides",
        "batches", "cost", "receptive_field", "kernel", "target", "interpret", "structure", "locks"}  # fmt: skip
LAYERS = [CORE, {"passes"}, {"backends"}, {"concrete", "creation", "promotion", "operators", "indexing", "tensor", "numpy_protocol", "numpy_shapes", "tracing", "autograd", "random", "nn", "optim", "serialize", "data", "frontends"},
          {"compile", "training", "standalone", "inspect", "loading", "bench", "cli", "__init__", "__main__"}]  # fmt: skip
ALLOWED = {0: {0}, 1: {0, 1}, 2: {0, 2}, 3: {0, 1, 3}, 4: {0, 1, 2, 3, 4}}


def modules() -> dict[str, Path]:
    """Every module of the package by dotted name."""
    found = {}
    for prefix, root in ROOTS.items():
        for path in root.rglob("*.py"):
            relative = path.relative_to(root)
            if prefix == "irconv" and relative.parts[0] in ("passes", "backends"):
                continue  # an ordinary install keeps them inside
            parts = [prefix, *relative.with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def layer(module: str) -> int:
    parts = module.split(".")
    head = parts[1] if len(parts) > 1 else "__init__"
    return next((i for i, names in enumerate(LAYERS) if head in names), -1)


def imported(path: Path) -> list[tuple[str, ast.stmt]]:
    """Modules of irconv that a file imports, wherever in the file."""
    found = []
    names = modules()
    for statement in ast.walk(ast.parse(path.read_text())):
        if isinstance(statement, ast.Import):
            found += [(alias.name, statement) for alias in statement.names if alias.name.split(".")[0] == "irconv"]
        elif isinstance(statement, ast.ImportFrom) and (statement.module or "").split(".")[0] == "irconv":
            for alias in statement.names:
                full = f"{statement.module}.{alias.name}"
                found.append((full if full in names else statement.module, statement))
    return found


def test_every_module_has_its_layer() -> None:
    assert [name for name in modules() if layer(name) < 0] == []


def test_imports_run_one_way() -> None:
    wrong = []
    for name, path in modules().items():
        for target, _ in imported(path):
            if target != "irconv" and layer(target) not in ALLOWED[layer(name)]:
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_no_import_hides_inside_a_function() -> None:
    hidden = []
    for name, path in modules().items():
        tree = ast.parse(path.read_text())
        for function in ast.walk(tree):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for statement in ast.walk(function):
                    if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("irconv"):
                        hidden.append(f"{name}:{statement.lineno}")
    assert hidden == []


def test_module_imports_have_no_cycle() -> None:
    import networkx as nx

    graph = nx.DiGraph()
    for name, path in modules().items():
        graph.add_edges_from((name, target) for target, _ in imported(path) if target != name and target not in ROOTS)
    cycles = [c for c in nx.strongly_connected_components(graph) if len(c) > 1]
    assert cycles == []


def test_every_op_has_an_array_kernel() -> None:
    computed = {name for name, op in OPS.items() if op.operands}
    assert computed - set(KERNELS) == set()


def test_files_stay_readable() -> None:
    long = {name: count for name, path in modules().items() if (count := len(path.read_text().splitlines())) > 500}
    assert long == {}


LIGHT = """
import sys, time
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("click", "rich", "safetensors", "scipy", "matplotlib", "torch", "onnx", "cupy", "hypothesis"):
            raise ImportError(name + " is refused by the test")
sys.meta_path.insert(0, Refuse())
import irconv, numpy as np
exe = irconv.compile(lambda x: np.maximum(x, 0) * 2, irconv.TensorSpec((2, 2)), backend="numpy")
assert exe(np.full((2, 2), 3, np.float32)).tolist() == [[6, 6], [6, 6]]
print(sorted(m for m in sys.modules if m.split(".")[0] in ("click", "rich", "safetensors", "cupy", "matplotlib", "scipy")))
"""


def test_import_and_compile_need_numpy_and_networkx_alone(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name",
    [
        "trace",
        "differentiate",
        "grad",
        "vjp",
        "compile",
        "compile_step",
        "tensor",
        "parse",
        "TensorSpec",
        "Function",
        "no_grad",
        "load",
        "save",
    ],
)
def test_the_face_has_its_names(name: str) -> None:
    assert callable(getattr(irconv, name))
