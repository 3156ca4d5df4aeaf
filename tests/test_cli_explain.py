"""``irconv explain`` and ``irconv show --stage kernels``: the partition, its bytes, and a reason for every edge."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import networkx as nx
import pytest

import irconv
import irconv.backends.native.kernels
from irconv.backends.arrays import FUSED
from irconv.backends.native.base import NATIVE
from irconv.inspect.explain import explain, kernels_dot
from irconv.kernel import print_kernels
from irconv.op import OPS
from irconv.passes.kinds import KINDS
from tests.command_line import Command

MODELS = """
    from irconv import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3, padding=1)
            self.pool = nn.MaxPool2d(2)
            self.head = nn.Linear(2 * 2 * 2, 3)

        def forward(self, x):
            y = self.pool(self.conv(x).relu())
            return self.head(y.flatten(1))

    def net():
        return Net()

    def chain(x):
        return ((x * 2).exp() + 1).sum()
    """


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models.py").write_text(textwrap.dedent(MODELS))
    monkeypatch.chdir(tmp_path)
    return tmp_path


_irconv = Command()
output, fails = _irconv.output, _irconv.fails


def program(function, *shapes):
    compiled = irconv.compile(function, *(irconv.TensorSpec(shape) for shape in shapes), backend="numpy")
    return compiled.executable.program


def test_bytes_are_those_of_the_borders():
    # 10 x 10 floats: without fusion exp(x * 2) reads x and the number 2, writes and reads t, writes the result
    explained = explain(program(lambda x: (x * 2).exp() + x, (10, 10)))
    # multiply: x, 2, t; exp: t, u; add: u, x, result
    assert explained.bytes_before == 4 + 400 * (2 + 2 + 3)
    # one kernel: x, 2 and the result
    assert explained.bytes_after == 4 + 400 * 2
    assert (explained.ops, explained.kernels, explained.edges) == (3, 1, ())
    assert [(row.kind, row.kernels, row.ops, row.bytes) for row in explained.kinds] == [("elementwise", 1, 3, 804)]


def test_every_edge_between_kernels_has_a_reason():
    model = irconv.nn.Sequential(irconv.nn.Conv2d(1, 2, 3), irconv.nn.ReLU(), irconv.nn.MaxPool2d(2), irconv.nn.Flatten())
    partition = program(model, (2, 1, 8, 8))
    graph = partition.graph
    home = {i: kernel.name for kernel in partition.schedule.kernels for i in kernel.nodes}
    crossing = {
        (graph[operand].name, node.name)
        for node in graph
        if node.id in home
        for operand in node.operands
        if operand in home and home[operand] != home[node.id]
    }
    edges = explain(partition).edges
    assert {(edge.value, edge.user) for edge in edges} == crossing
    assert all(len(edge.reason) > 10 for edge in edges)
    assert [edge.bytes for edge in edges] == sorted((edge.bytes for edge in edges), reverse=True)
    pooled = next(edge for edge in edges if edge.bytes)
    assert pooled.bytes == 4 * 2 * 2 * 6 * 6


def test_every_kind_of_fused_kernel_is_described():
    assert set(KINDS) == set(FUSED) | (set(NATIVE) - set(OPS))
    assert [row.what for row in explain(program(lambda x: (x.exp() * x).sum().sqrt(), (3, 3))).kinds] == [
        "a reduction and the elementwise work that only it reads",
        "one op",
    ]


def test_explain_prints_table_kinds_and_reasons_with_lines(folder):
    text = output("explain", "models.py:net", "--input", "2x1x4x4", "--backend", "numpy")
    rows = {line.split("  ")[0]: line.split() for line in text.splitlines() if line}
    before, after = (int(rows[name][-2].replace(",", "")) for name in ("one op a kernel", "fused"))
    assert 0 < after < before
    assert rows["fused"][-1] == f"{after / before:.0%}"
    assert KINDS["matmul_epilogue"] in text
    assert re.search(r"@\S+ -> @\S+: %relu -> %pool\S*, 256 B  # models.py:12\n    \S+", text)


def test_explain_a_training_step_and_a_backward_pass(folder):
    model = ("models.py:net", "--input", "2x1x4x4", "--backend", "numpy")
    step = output("explain", *model, "--train", "--top", "2")
    assert re.search(r"# \d+ edges between kernels", step) and re.search(r"# and \d+ more", step)
    assert "conv_weight_gradient" in step
    assert "%d_" in output("explain", *model, "--backward")
    assert "d_x" in output("explain", "models.py:chain", "--input", "3", "--backward")


def test_wrong_command_lines(folder):
    assert "leave --backward out" in fails("explain", "models.py:net", "--input", "2x1x4x4", "--train", "--backward", status=2)
    assert "there is no backend 'abacus'" in fails("explain", "models.py:net", "--input", "2x1x4x4", "--backend", "abacus")
    assert "--input 1x3x224x224" in fails("explain", "models.py:net")
    assert "no parameters to train" in fails("explain", "models.py:chain", "--input", "3", "--train")


def test_the_partition_is_drawn(folder):
    model = ("models.py:net", "--input", "2x1x4x4", "--backend", "numpy", "--stage", "kernels")
    assert "kernel @" in output("show", *model)
    dot = output("show", *model, "--format", "dot")
    assert dot.startswith("digraph") and dot.rstrip().endswith("}")
    assert dot.count("{") == dot.count("}")


def test_the_drawing_holds_every_kernel_node_and_edge():
    partition = program(lambda x: (x * 2).exp().sum(), (4, 4))
    dot = kernels_dot(partition)
    graph = partition.graph
    assert dot.count("subgraph") == len(partition.schedule.kernels)
    assert {int(i) for i in re.findall(r"n(\d+) \[label", dot)} == set(graph.order())
    edges = {(int(a), int(b)) for a, b in re.findall(r"n(\d+) -> n(\d+)", dot)}
    assert edges == {(operand, node.id) for node in graph for operand in node.operands}
    assert nx.is_directed_acyclic_graph(nx.DiGraph(edges))
    assert print_kernels(partition).count("kernel @") == len(partition.schedule.kernels)
