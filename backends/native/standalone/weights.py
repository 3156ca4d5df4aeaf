"""States and large constants as one safetensors file, which the library reads back byte by byte.

The format: the length of the header (8 bytes), the header (JSON: name -> type, shape, place), the arrays without gaps.  The
library knows the header by its length and hash, so that it needs no parser, and the names stay out of the code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from irconv.backends.native.standalone.blueprint import Tensor
from irconv.types import type_of

TYPES = {"f16": "F16", "f32": "F32", "f64": "F64", "i8": "I8", "i16": "I16", "i32": "I32", "i64": "I64",
         "u8": "U8", "u16": "U16", "u32": "U32", "u64": "U64", "bool": "BOOL"}  # fmt: skip
"""What safetensors calls the element types."""


@dataclass(frozen=True)
class WeightsFile:
    """The file: its header, and the tensors in its order, each with its position after the header."""

    header: bytes
    tensors: tuple[tuple[Tensor, int], ...]
    data_bytes: int

    @property
    def content(self) -> bytes:
        """All of it."""
        parts = [len(self.header).to_bytes(8, "little"), self.header]
        return b"".join([*parts, *(tensor.array.tobytes() for tensor, _ in self.tensors)])

    @property
    def hash(self) -> int:
        """FNV-1a of the header, 64 bits."""
        found = 14695981039346656037
        for byte in self.header:
            found = (found ^ byte) * 1099511628211 % 2**64
        return found


def weights_file(tensors: Sequence[Tensor]) -> WeightsFile:
    """Arrays with large elements first: then all are aligned, as the format's readers expect."""
    ordered = sorted(tensors, key=lambda tensor: (-tensor.array.itemsize, tensor.name))
    described: dict[str, object] = {}
    placed = []
    position = 0
    for tensor in ordered:
        end = position + tensor.array.nbytes
        type_ = type_of(tensor.array)
        described[tensor.name] = {"dtype": TYPES[type_.dtype.name], "shape": list(type_.shape), "data_offsets": [position, end]}
        placed.append((tensor, position))
        position = end
    header = json.dumps(described, separators=(",", ":")).encode()
    return WeightsFile(header + b" " * (-len(header) % 8), tuple(placed), position)
