"""Reading ONNX files: from bytes to a model whose structure has been checked.  A file is untrusted."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto

from irconv.errors import IrconvError, ModelError
from irconv.frontends.onnx.graphs import GraphReader, OnnxGraph, function_key, operator_sets

MAX_BYTES = 2**31 - 1
"""No protobuf message may be larger; weights beyond it are stored as external data."""

NEWEST_OPSET: int = onnx.defs.onnx_opset_version()
"""The newest version of ONNX's own operator set that the installed ``onnx`` knows."""


@dataclass(frozen=True, slots=True, eq=False)
class OnnxFile:
    """A model file that has been read.

    label: the file as it should be shown; reader: kept for functions that are opened later.
    """

    label: str
    graph: OnnxGraph
    reader: GraphReader
    producer: str


def read_model(source: str | os.PathLike[str] | bytes, label: str | None = None) -> OnnxFile:
    """Read a model from a path or from bytes.

    Raises ModelError for a file that cannot be read, is truncated or not an ONNX model, has cycles, names that nothing computes,
    stored tensors that do not fill their shapes, or external data outside of its own folder.
    """
    if isinstance(source, bytes):
        data, folder, shown = source, None, label or "model"
    else:
        path = Path(source)
        data, folder, shown = _contents(path), path.parent, label or str(path)
    model = _parsed(data, shown)
    functions = {function_key(f): f for f in model.functions}
    reader = GraphReader(shown, folder, functions)
    try:
        graph = reader.main(model)
    except IrconvError:
        raise
    except Exception as error:  # protobuf's own complaints about text that is not UTF-8, and the like
        raise ModelError(f"{shown} is damaged: {type(error).__name__}: {error}") from error
    return OnnxFile(shown, graph, reader, f"{model.producer_name} {model.producer_version}".strip())


def _contents(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ModelError(f"{path} has {size} bytes, more than an ONNX file can have")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None


def _parsed(data: bytes, shown: str) -> ModelProto:
    model = ModelProto()
    if len(data) > MAX_BYTES:
        raise ModelError(f"{shown} has {len(data)} bytes, more than an ONNX file can have")
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise ModelError(f"{shown} is truncated or not an ONNX file") from None
    _check_text(model, shown)
    if not model.HasField("graph") or not model.graph.output:
        raise ModelError(f"{shown} is not an ONNX model: it has no graph with outputs")
    version = operator_sets(model.opset_import).get("", 1)
    if version > NEWEST_OPSET:
        raise ModelError(
            f"{shown} uses version {version} of ONNX's operators, the installed onnx knows {NEWEST_OPSET}",
            hint="pip install --upgrade onnx",
        )
    return model


def _check_text(message: Any, shown: str) -> None:
    """ModelError for names that are not UTF-8: protobuf hands them over as bytes."""
    for part in message.DESCRIPTOR.fields:
        if part.type not in (part.TYPE_STRING, part.TYPE_MESSAGE):
            continue
        found = getattr(message, part.name)
        if isinstance(found, (str, bytes)) or not hasattr(found, "__len__"):
            found = (found,) if part.type == part.TYPE_STRING or message.HasField(part.name) else ()
        for each in found:
            if isinstance(each, bytes):
                raise ModelError(f"{shown} is damaged: {part.full_name} is not text: {each[:40]!r}")
            if not isinstance(each, str):
                _check_text(each, shown)
