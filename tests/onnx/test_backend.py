"""ONNX's backend test suite: node tests, models exported by PyTorch, simple models and real ones."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx", reason="needs the onnx package: pip install 'irconv[onnx]'")

from tests.onnx.suite import backend_cases

globals().update(backend_cases(__name__))
