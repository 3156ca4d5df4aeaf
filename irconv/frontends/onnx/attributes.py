"""Attributes of ONNX nodes, each read with the type its operator gives it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import AttributeProto

from irconv.errors import ModelError
from irconv.frontends.onnx.formats import FORMATS, Format
from irconv.frontends.onnx.tensors import sparse_array, tensor_array

_FIELDS: dict[int, str] = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings",
}


class Attributes:
    """The attributes of one node by name.  A default of None makes an attribute optional; without a default it is required.

    All readers raise ModelError for an attribute that is missing or has another type.
    """

    __slots__ = ("folder", "protos")

    def __init__(self, protos: Sequence[AttributeProto], folder: Path | None):
        self.folder = folder
        self.protos: dict[str, AttributeProto] = {}
        for proto in protos:
            if proto.name in self.protos:
                raise ModelError(f"attribute {proto.name!r} is given twice")
            self.protos[proto.name] = proto

    def __contains__(self, name: str) -> bool:
        return name in self.protos

    def _read(self, name: str, kind: int, default: Any) -> Any:
        proto = self.protos.get(name)
        if proto is None:
            if default is REQUIRED:
                raise ModelError(f"attribute {name!r} is missing")
            return default
        if proto.type != kind:
            names = AttributeProto.AttributeType
            found = names.Name(proto.type) if proto.type in names.values() else f"number {proto.type}"
            raise ModelError(f"attribute {name!r} must be of type {names.Name(kind)}, is {found}")
        return getattr(proto, _FIELDS[kind])

    def int(self, name: str, default: Any = ...) -> Any:
        """An integer."""
        return self._read(name, AttributeProto.INT, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """An integer that says yes or no."""
        return bool(self._read(name, AttributeProto.INT, default))

    def float(self, name: str, default: Any = ...) -> Any:
        """A float."""
        return self._read(name, AttributeProto.FLOAT, default)

    def string(self, name: str, default: Any = ..., choices: Sequence[str] = ()) -> Any:
        """A string, one of ``choices`` if there are any."""
        value = self._read(name, AttributeProto.STRING, default)
        if isinstance(value, bytes):
            value = _text(value, name)
        if choices and value is not None and value not in choices:
            raise ModelError(f"attribute {name!r} is {value!r}, not one of {', '.join(choices)}")
        return value

    def ints(self, name: str, default: Any = ...) -> Any:
        """A tuple of integers."""
        value = self._read(name, AttributeProto.INTS, default)
        return value if value is None else tuple(int(i) for i in value)

    def floats(self, name: str, default: Any = ...) -> Any:
        """A tuple of floats."""
        value = self._read(name, AttributeProto.FLOATS, default)
        return value if value is None else tuple(float(f) for f in value)

    def strings(self, name: str, default: Any = ...) -> Any:
        """A tuple of strings."""
        value = self._read(name, AttributeProto.STRINGS, default)
        return value if value is None else tuple(_text(s, name) if isinstance(s, bytes) else s for s in value)

    def tensor(self, name: str, default: Any = ...) -> Any:
        """An array."""
        value = self._read(name, AttributeProto.TENSOR, default)
        return value if value is None or isinstance(value, np.ndarray) else tensor_array(value, self.folder)

    def tensor_format(self, name: str) -> Format | None:
        """The narrow element type of a tensor; None for other types, and where the attribute is not given."""
        value = self._read(name, AttributeProto.TENSOR, None)
        return None if value is None else FORMATS.get(value.data_type)

    def sparse_tensor(self, name: str) -> np.ndarray:
        """An array that is stored sparsely."""
        return sparse_array(self._read(name, AttributeProto.SPARSE_TENSOR, REQUIRED), self.folder)


REQUIRED = ...
"""The default of an attribute that has none."""


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ModelError(f"attribute {name!r} is not text: {value[:40]!r}") from None
