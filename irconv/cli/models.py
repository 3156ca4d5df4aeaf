"""What ``--input`` stands for, and a MODEL's graph for such inputs (see :mod:`irconv.loading` for MODEL itself)."""

from __future__ import annotations

import os
import re
from typing import Any

import click
import numpy as np

from irconv.errors import IrconvError
from irconv.graph import Graph
from irconv.loading import KINDS, InputSpecs, import_file, load_model, read_file, users_code
from irconv.tracing import arranged, trace
from irconv.types import TensorSpec, as_dtype

__all__ = [
    "KINDS",
    "InputSpecs",
    "import_file",
    "load_model",
    "parse_spec",
    "parse_specs",
    "read_arrays",
    "read_file",
    "trace_model",
    "users_code",
]

_SPEC = re.compile(r"(?:(?P<name>[^=]+)=)?(?P<shape>scalar|\d+(?:[x,]\d+)*)(?::(?P<dtype>\w+))?")


def parse_spec(given: str) -> tuple[str | None, TensorSpec]:
    """``[NAME=]1x3x224x224[:f32]`` (``scalar`` for no axes) as (name, spec).  A wrong one is a usage error."""
    matched = _SPEC.fullmatch(given)
    if matched is None:
        raise click.BadParameter(f"{given!r} is not a shape; write [NAME=]1x3x224x224[:f32], or scalar[:i64]")
    shape = () if matched["shape"] == "scalar" else tuple(int(n) for n in re.split("[x,]", matched["shape"]))
    try:
        spec = TensorSpec(shape, as_dtype(matched["dtype"] or "f32"))
        spec.type  # noqa: B018  # checks the shape
    except IrconvError as error:
        raise click.BadParameter(f"{given!r}: {error.message}") from None
    return matched["name"], spec


def parse_specs(given: tuple[str, ...]) -> InputSpecs:
    """All ``--input`` options: shapes, or ``.npy`` files for inputs whose values shapes depend on."""
    files = read_arrays(tuple(each for each in given if each.endswith((".npy", ".npz"))))
    pairs = [parse_spec(each) for each in given if not each.endswith((".npy", ".npz"))]
    named: dict[str, Any] = {name: s for name, s in pairs if name is not None} | (files.named or {})
    return InputSpecs((*(s for name, s in pairs if name is None), *files.positional), named)


def trace_model(model: str, inputs: InputSpecs, training: bool = False) -> Graph:
    """The graph of MODEL for inputs of these types; the types of an ``.ir`` file stand in the file."""
    source = load_model(model)
    if isinstance(source, Graph):
        if inputs.any:
            raise click.UsageError(f"{model} is a graph whose inputs are fixed; leave --input out")
        return source
    with users_code(f"{model} cannot be traced"):
        try:
            args, kwargs = arranged(source, inputs.positional, inputs.named or {})
            return trace(source, *args, training=training, **kwargs)
        except IrconvError as error:
            if not inputs.any:
                error.hint = "say what the inputs look like: --input 1x3x224x224[:f32]"
            raise


def read_arrays(given: tuple[str, ...]) -> InputSpecs:
    """The arrays of ``--input [NAME=]FILE``: ``.npy`` files by position or name, those of an ``.npz`` by their names."""
    positional: list[np.ndarray] = []
    named: dict[str, np.ndarray] = {}
    for each in given:
        name, _, file = each.rpartition("=") if not os.path.exists(each) else ("", "", each)
        loaded = read_file(file)
        if isinstance(loaded, dict):
            named |= loaded
        elif name:
            named[name] = loaded
        else:
            positional.append(loaded)
    return InputSpecs(tuple(positional), named)
