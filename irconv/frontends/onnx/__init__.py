"""ONNX files in and out: :func:`load_model` makes a module of one, :func:`export` makes one of a graph.

The ``onnx`` package reads and writes the files (``pip install 'irconv[onnx]'``); it is imported when the first file is.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from irconv.errors import ModelError
from irconv.graph import Graph

if TYPE_CHECKING:
    from onnx import ModelProto

    from irconv.frontends.onnx.model import OnnxModel

__all__ = ["export", "load_model"]


def load_model(source: str | os.PathLike[str] | bytes) -> OnnxModel:
    """The model in an ONNX file (or in its bytes), as a module in evaluation mode.

    Raises ModelError for a file that cannot be read or is damaged, and for one that uses operators that are not supported: all
    of them are listed.
    """
    model: OnnxModel = _module("model").OnnxModel(source)
    return model


def export(graph: Graph, path: str | os.PathLike[str] | None = None, opset: int | None = None) -> ModelProto:
    """The graph, forward or training step, as an ONNX model, written to ``path`` if one is given.

    opset: version of ONNX's operators to use; see :func:`irconv.frontends.onnx.exporter.export` for this and the names.
    """
    exporter = _module("exporter")
    model: ModelProto = exporter.export(graph, path, exporter.DEFAULT_OPSET if opset is None else opset)
    return model


def _module(name: str) -> Any:
    """A module of this package, all of which need the ``onnx`` package."""
    try:
        return importlib.import_module(f"irconv.frontends.onnx.{name}")
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("onnx", "google"):
            raise
        raise ModelError("ONNX files need the onnx package", hint="pip install 'irconv[onnx]'") from None
