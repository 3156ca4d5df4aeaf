"""The stored tensors of a graph while it is being read: initialisers, and constants, which are the same thing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from irconv.errors import ModelError
from irconv.frontends.onnx.attributes import Attributes
from irconv.frontends.onnx.formats import Format


@dataclass(slots=True)
class Stored:
    """The stored tensors of a graph being read, and the formats of those that have a narrow element type."""

    label: str
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    formats: dict[str, Format] = field(default_factory=dict)

    def enter(self, name: str, array: np.ndarray, form: Format | None) -> None:
        """Add a tensor.  Raises ModelError for a name that is missing or taken."""
        if not name or name in self.tensors:
            raise ModelError(f"{self.label}: stored tensor {name!r} {'appears twice' if name else 'has no name'}")
        self.tensors[name] = array
        if form is not None:
            self.formats[name] = form


def constant(a: Attributes, what: str) -> tuple[np.ndarray, Format | None]:
    """The array of a Constant node, and its narrow type.  Raises ModelError for strings and for a node without a value."""
    if "value" in a:
        return a.tensor("value"), a.tensor_format("value")
    if "sparse_value" in a:
        return a.sparse_tensor("sparse_value"), None
    if "value_float" in a:
        return np.asarray(a.float("value_float"), np.float32), None
    if "value_floats" in a:
        return np.asarray(a.floats("value_floats"), np.float32), None
    if "value_int" in a:
        return np.asarray(a.int("value_int"), np.int64), None
    if "value_ints" in a:
        return np.asarray(a.ints("value_ints"), np.int64), None
    raise ModelError(f"node {what} holds no numbers", hint="constants of strings are not supported")
