"""A model from an ONNX file as a module: traced, compiled, differentiated, trained and saved like any other."""

from __future__ import annotations

import fnmatch
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from irconv.concrete import as_array
from irconv.errors import ModelError, ShapeError
from irconv.frontends.onnx import operators
from irconv.frontends.onnx.graphs import OnnxGraph, Port, listed
from irconv.frontends.onnx.importer import (
    Run,
    buffer_names,
    check_attributes,
    factor_names,
    static_names,
    stored_tensor,
    unsupported,
    weight_names,
)
from irconv.frontends.onnx.narrow import carried_array, marked, narrowed
from irconv.frontends.onnx.reader import OnnxFile, read_model
from irconv.frontends.onnx.registry import OnnxValue, TensorList
from irconv.nn.module import Buffer, Module, Parameter
from irconv.tensor import Tensor, as_tensor
from irconv.tracing import DeclaresInputs, Fixed, leaf_type
from irconv.types import TensorSpec, TensorType

__all__ = ["OnnxModel", "operators"]


class OnnxModel(Module, DeclaresInputs):
    """The network of an ONNX file.

    Stored weights are parameters, running statistics buffers, under the names that they have in the file; what else is stored is
    constant.  Call it with its inputs in order or by name; it returns its outputs in the file's order, one alone or a tuple.
    The model starts in evaluation mode.  In training mode batch norm and dropout train, whatever mode the file was exported in.

    Element types narrower than irconv's (bfloat16, 8- and 4-bit floats, 4- and 2-bit integers) come in and go out as float32,
    int8 or uint8, and hold what they would if they were stored narrow.

    Inputs that shapes depend on (``fixed_inputs``: sizes, axes, counts) must be given as arrays; a program compiled from the
    model is specialised for their values.

    source: path or bytes.  Raises ModelError as :func:`irconv.frontends.onnx.load_model`.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes):
        file = read_model(source)
        missing = unsupported(file.graph)
        if missing:
            raise ModelError(
                f"{file.label} uses {len(missing)} operators that are not supported:\n  " + "\n  ".join(missing),
                hint="export the model with simpler operators",
            )
        check_attributes(file.graph)
        self._file: OnnxFile = file
        self._graph: OnnxGraph = file.graph
        self._parts: dict[str, Tensor] = states(file.graph)
        self._constants = {n: stored_tensor(file.graph, n) for n in file.graph.tensors if n not in self._parts}
        self._prepare()
        self.own_training = False

    def _prepare(self) -> None:
        static = static_names(self._graph)
        self.fixed_inputs: tuple[str, ...] = tuple(p.name for p in self._graph.inputs if p.name in static)

    @property
    def __name__(self) -> str:
        """What graphs are called after."""
        return Path(self._file.label).stem or "model"

    def own_parts(self) -> list[tuple[str, Any]]:
        """(name, parameter or buffer) as the file names them."""
        return list(self._parts.items())

    # --- signature -----------------------------------------------------------------------------------------------------

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The inputs as the file declares them: name, element type, dimensions."""
        return self._graph.inputs

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(port.name for port in self._graph.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return self._graph.outputs

    def specs(self) -> tuple[TensorSpec, ...] | None:
        """Specs of all inputs, where the file fixes their shapes; None where it leaves a dimension open."""
        found = []
        for port in self._graph.inputs:
            sizes = [n for n in port.dims or () if isinstance(n, int)]
            known = port.dims is not None and len(sizes) == len(port.dims) and port.dtype is not None
            if not known or port.sequence or port.name in self.fixed_inputs:
                return None
            found.append(TensorSpec(tuple(sizes), port.dtype, port.name))
        return tuple(found)

    def arrange(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The inputs in order, those that shapes depend on as static values; the specs of the file if there are none.

        Raises ModelError for inputs that are missing or unknown, ShapeError for types that the file does not allow.
        """
        names = self.input_names
        if not args and not kwargs and names:
            known = self.specs()
            if known is None:
                raise ModelError(
                    f"{self._file.label} leaves the shapes of its inputs open: {'; '.join(map(str, self.inputs))}",
                    hint="say what they look like",
                )
            return known
        if len(args) > len(names):
            raise ModelError(f"the model takes {len(names)} inputs ({', '.join(names)}), got {len(args)}")
        given = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in names or name in given:
                wrong = "given twice" if name in given else f"not one of {', '.join(names)}"
                raise ModelError(f"input {name!r} is {wrong}")
            given[name] = value
        missing = [name for name in names if name not in given]
        if missing:
            raise ModelError(f"the model takes {len(names)} inputs; not given: {', '.join(missing)}")
        return tuple(self._checked(port, given[port.name]) for port in self.inputs)

    def _checked(self, port: Port, value: Any) -> Any:
        if isinstance(value, Fixed):
            return value
        if port.sequence:
            if not isinstance(value, (list, tuple)) or port.name in self.fixed_inputs:
                raise ModelError(f"input {port} takes a list of arrays, and shapes may not depend on their values")
            return tuple(self._checked(replace(port, sequence=False), each) for each in value)
        value = carried_array(value, port.format)
        type_ = leaf_type(value)
        if type_ is None:
            value = as_array(value)
            type_ = leaf_type(value)
        assert type_ is not None
        check_port(port, type_)
        if port.name not in self.fixed_inputs:
            return value
        if isinstance(value, TensorSpec) or (isinstance(value, Tensor) and value.is_traced):
            raise ModelError(f"shapes depend on the input {port}: give its value as an array")
        return Fixed(as_array(value))

    # --- running -------------------------------------------------------------------------------------------------------

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The outputs: one tensor, or a tuple in the file's order."""
        arranged = self.arrange(inputs, named)
        formats = self._graph.formats
        parts = {name: marked(part, formats[name]) if name in formats else part for name, part in self._parts.items()}
        values: dict[str, OnnxValue] = {**self._constants, **parts}
        for port, value in zip(self.inputs, arranged, strict=True):
            values[port.name] = onnx_value(value, port)
        found = Run(self._file.reader, self.training).main(self._graph, values)
        results = tuple(each.items if isinstance(each, TensorList) else each for each in found)
        return results[0] if len(results) == 1 else results

    # --- changing it -----------------------------------------------------------------------------------------------------

    def freeze(self, *patterns: str) -> Self:
        """Freeze the parameters whose names match one of the patterns ("layer1.*"), all of them without any.

        Raises ModelError for a pattern that matches none.
        """
        names = [name for name, _ in self.named_parameters()]
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise ModelError(f"no parameter is called {pattern!r}", hint=f"there are {listed(names)}")
        for name, parameter in self.named_parameters():
            if not patterns or any(fnmatch.fnmatchcase(name, p) for p in patterns):
                parameter.requires_grad_(False)
        return self

    def until(self, *tensors: str) -> OnnxModel:
        """The same network, its weights shared, up to the named tensors, which are its outputs: a body for another head.

        ``nn.Sequential(model.until("features"), nn.Flatten(), nn.Linear(512, 10))``.  Raises ModelError for unknown names.
        """
        makers = {name for node in self._graph.nodes for name in node.outputs if name}
        unknown = [name for name in tensors if name not in makers]
        if unknown or not tensors:
            raise ModelError(f"no tensor is called {', '.join(map(repr, unknown))}", hint=f"there are {listed(makers)}")
        cut = self._file.reader.cut(self._graph, tensors)
        model = OnnxModel.__new__(OnnxModel)
        model._file = replace(self._file, graph=cut)
        model._graph = cut
        model._parts = {n: part for n, part in self._parts.items() if n in cut.tensors}
        model._constants = {n: value for n, value in self._constants.items() if n in cut.tensors}
        model._prepare()
        model.own_training = self.own_training
        return model

    def extra_repr(self) -> str:
        outputs = ", ".join(self.output_names)
        return f"{self._file.label}: ({'; '.join(map(str, self.inputs))}) -> {outputs}, {len(self._graph.nodes)} nodes"


def states(graph: OnnxGraph) -> dict[str, Tensor]:
    """The stored tensors that are parameters or buffers.

    Parameters are floats that a layer uses as weights, and what arithmetic adds or multiplies with, unless it is a single number.
    """
    buffers = buffer_names(graph)
    weights = weight_names(graph) - buffers
    weights |= {name for name in factor_names(graph) & set(graph.tensors) - buffers if graph.tensors[name].size > 1}
    parts: dict[str, Tensor] = {}
    for name, array in graph.tensors.items():
        if array.dtype.kind != "f":
            continue
        if name in weights:
            parts[name] = Parameter(array)
        elif name in buffers:
            parts[name] = Buffer(array)
    return parts


def onnx_value(value: Any, port: Port) -> OnnxValue:
    """An argument as the importer takes it: what is given for a narrow type is rounded to it."""
    if isinstance(value, tuple):
        return TensorList(tuple(_narrow(as_tensor(each), port) for each in value))
    return _narrow(as_tensor(value.array if isinstance(value, Fixed) else value), port)


def _narrow(x: Tensor, port: Port) -> Tensor:
    return x if port.format is None else narrowed(x, port.format)


def check_port(port: Port, type_: TensorType) -> None:
    """ShapeError for an input whose type the file does not allow."""
    dims = port.dims
    fits = dims is None or (
        len(dims) == type_.rank and all(not isinstance(d, int) or d == n for d, n in zip(dims, type_.shape, strict=True))
    )
    if not fits or port.dtype not in (None, type_.dtype):
        raise ShapeError(f"the model's input {port} cannot take {type_}")
