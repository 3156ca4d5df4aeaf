"""ONNX files in: :func:`load_model` makes a module of one.

The ``onnx`` package reads the files (``pip install 'irconv[onnx]'``); it is imported when the first file is.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from irconv.errors import ModelError

if TYPE_CHECKING:
    from irconv.frontends.onnx.model import OnnxModel

__all__ = ["load_model"]


def load_model(source: str | os.PathLike[str] | bytes) -> OnnxModel:
    """The model in an ONNX file (or in its bytes), as a module in evaluation mode.

    Raises ModelError for a file that cannot be read or is damaged, and for one that uses operators that are not supported: all
    of them are listed.
    """
    model: OnnxModel = _module("model").OnnxModel(source)
    return model


def _module(name: str) -> Any:
    """A module of this package, all of which need the ``onnx`` package."""
    try:
        return importlib.import_module(f"irconv.frontends.onnx.{name}")
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("onnx", "google"):
            raise
        raise ModelError("ONNX files need the onnx package", hint="pip install 'irconv[onnx]'") from None
