"""How much of ONNX's backend test suite passes, operator by operator: ``python -m tests.onnx.conformance`` writes CONFORMANCE.md."""

from __future__ import annotations

import sys
import unittest
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx.backend.test.loader import load_model_tests

from tests.onnx.suite import backend_cases

TABLE = Path(__file__).parent / "CONFORMANCE.md"

MODELS = {
    "OnnxBackendRealModelTest": "real models (light: weights are made up)",
    "OnnxBackendSimpleModelTest": "simple models",
    "OnnxBackendPyTorchConvertedModelTest": "modules converted by PyTorch",
    "OnnxBackendPyTorchOperatorModelTest": "operators exported by PyTorch",
}


@dataclass
class Row:
    """Tests of one operator, or of one kind of models."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return self.passed + len(self.failed) + sum(self.skipped.values())


def operators_of_tests() -> dict[str, str]:
    """The operator that each node test is about; the tests of a function's body are about the function."""
    found: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        tests = load_model_tests(kind="node")
    for test in tests:
        operators = [node.op_type for node in test.model.graph.node]
        if "_expanded" not in test.name:
            found[test.name] = next((o for o in operators if o not in ("Constant", "Identity")), operators[0])
    for test in tests:
        if "_expanded" in test.name:
            about = test.name.split("_expanded")[0]
            found[test.name] = found.get(about, test.model.graph.node[0].op_type)
    return found


class Recorder(unittest.TestResult):
    """Puts each outcome into its row."""

    def __init__(self, operators: dict[str, str]):
        super().__init__()
        self.operators = operators
        self.nodes: dict[str, Row] = defaultdict(Row)
        self.models: dict[str, Row] = defaultdict(Row)

    def row(self, test: unittest.TestCase) -> Row:
        """The row that a test counts in."""
        case = type(test).__name__
        if case in MODELS:
            return self.models[MODELS[case]]
        name = test.id().rsplit(".", 1)[1].removesuffix("_cpu")
        return self.nodes[self.operators[name]]

    def addSuccess(self, test):  # noqa: N802  # unittest's names
        self.row(test).passed += 1

    def addFailure(self, test, err):  # noqa: N802
        self.row(test).failed.append(test.id().rsplit(".", 1)[1])

    def addError(self, test, err):  # noqa: N802
        self.row(test).failed.append(test.id().rsplit(".", 1)[1])

    def addSkip(self, test, reason):  # noqa: N802
        self.row(test).skipped[reason] += 1


def run() -> Recorder:
    """Run the suite."""
    recorder = Recorder(operators_of_tests())
    for case in backend_cases(__name__).values():
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(recorder)
    return recorder


def table(recorder: Recorder) -> str:
    """The results as Markdown."""
    rows = [*recorder.nodes.values(), *recorder.models.values()]
    passed, total = sum(row.passed for row in rows), sum(row.total for row in rows)
    failed, skipped = sum(len(row.failed) for row in rows), sum(sum(row.skipped.values()) for row in rows)
    lines = [
        "# ONNX conformance",
        "",
        f"Of {total} tests of the backend test suite of onnx {onnx.__version__}, {passed} pass, {failed} fail, {skipped} are left out.",
        "Written by `python -m tests.onnx.conformance`.",
        "",
        "| operator | passed | total | left out, why |",
        "|---|---:|---:|---|",
    ]
    lines += [line(f"`{name}`", row) for name, row in sorted(recorder.nodes.items())]
    lines += ["", "| models | passed | total | left out, why |", "|---|---:|---:|---|"]
    lines += [line(name, row) for name, row in recorder.models.items()]
    return "\n".join(lines) + "\n"


def line(name: str, row: Row) -> str:
    """One row of a table."""
    notes = [f"{count}: {reason}" for reason, count in sorted(row.skipped.items())]
    notes += [f"fails: {', '.join(row.failed)}"] if row.failed else []
    return f"| {name} | {row.passed} | {row.total} | {'; '.join(notes)} |"


def main() -> int:
    """Write the table; exit status 1 if a test failed."""
    recorder = run()
    TABLE.write_text(table(recorder))
    failed = [name for row in (*recorder.nodes.values(), *recorder.models.values()) for name in row.failed]
    sys.stdout.write(f"{TABLE}: {len(failed)} failed\n" + "".join(f"  {name}\n" for name in failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
