"""irconv: a compiler for convolutional networks.

Trace a model into a graph, read it, differentiate it, compile it and run it::

    graph = irconv.trace(model, irconv.TensorSpec((1, 3, 224, 224)))
    print(graph)
    joint = irconv.differentiate(graph)
    y = irconv.compile(model, irconv.TensorSpec((1, 3, 224, 224)))(x)
    step = irconv.compile_step(model, loss, optimizer, x_spec, target_spec)
"""

import importlib as _importlib
from typing import Any as _Any

from irconv import _checkout as _checkout
from irconv import numpy_protocol as _numpy_protocol
from irconv.autograd import Function, differentiate, grad, value_and_grad, vjp
from irconv.compile import Compiled, compile
from irconv.concrete import no_grad
from irconv.creation import arange, full, ones, zeros
from irconv.errors import IrconvError
from irconv.errors import ModelError as _ModelError
from irconv.graph import Graph
from irconv.parser import parse
from irconv.tensor import Tensor, concatenate, stack, tensor, where
from irconv.text import load, save
from irconv.tracing import trace
from irconv.training import Step, compile_step
from irconv.types import TensorSpec

__version__ = "0.1.0"

__all__ = [
    "Compiled",
    "Function",
    "Graph",
    "IrconvError",
    "Step",
    "Tensor",
    "TensorSpec",
    "arange",
    "compile",
    "compile_step",
    "concatenate",
    "differentiate",
    "full",
    "grad",
    "load",
    "no_grad",
    "ones",
    "parse",
    "save",
    "stack",
    "tensor",
    "trace",
    "value_and_grad",
    "vjp",
    "where",
    "zeros",
]


def __getattr__(name: str) -> _Any:
    """``from_torch`` and ``build_library``, found when asked for: nobody else waits for PyTorch or for generators of code."""
    if name == "build_library":
        return _importlib.import_module("irconv.standalone").build_library
    if name != "from_torch":
        raise AttributeError(f"module 'irconv' has no attribute {name!r}")
    try:
        return _importlib.import_module("irconv.frontends.torch").from_torch
    except ImportError as error:
        if (error.name or "").split(".")[0] != "torch":
            raise
        raise _ModelError("from_torch needs PyTorch", hint="pip install 'irconv[torch]'") from None
