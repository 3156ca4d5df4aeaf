"""ONNX's backend test suite: node tests, models exported by PyTorch, simple models and real ones."""

from __future__ import annotations

import os
import tempfile
import unittest
import warnings

import pytest

pytest.importorskip("onnx", reason="needs the onnx package: pip install 'irconv[onnx]'")

# the runner keeps copies of its models here
os.environ.setdefault("ONNX_HOME", os.path.join(tempfile.gettempdir(), f"irconv-onnx-{os.getuid()}"))

from onnx.backend.test import BackendTest

from tests.onnx.suite import IrconvBackend, left_out

with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # the suite's data overflow and divide by zero on purpose
    SUITE = BackendTest(IrconvBackend, __name__)


def _cases() -> dict[str, type[unittest.TestCase]]:
    cases = SUITE.test_cases
    for case in cases.values():
        for name in [n for n in vars(case) if n.startswith("test_")]:
            if name.endswith("_cuda"):
                delattr(case, name)
            elif reason := left_out(name):
                setattr(case, name, unittest.skip(reason)(getattr(case, name)))
    return cases


globals().update(_cases())
