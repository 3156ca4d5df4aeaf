"""PyTorch modules as irconv modules: recorded by ``torch.fx``, or where that fails by ``torch.export``."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.utils import _pytree

from irconv import structure
from irconv.errors import ModelError, TraceError
from irconv.frontends.torch.layers import converted, fill, is_known
from irconv.frontends.torch.program import Program, program_of
from irconv.frontends.torch.sharing import Sharing
from irconv.nn.module import Module, joined
from irconv.tensor import as_tensor
from irconv.tracing import DeclaresInputs


class TorchModule(Module, DeclaresInputs):
    """A PyTorch module, run by irconv: the same names, and parameters and buffers in the same memory.

    Layers are irconv's own and can be replaced (``model.fc = nn.Linear(512, 10)``).  Training and evaluation mode are those of
    the PyTorch module to begin with.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        programs: dict[bool, Program],
        results: Callable[[Any], Any],
        names: tuple[str, ...],
    ):
        fill(self, module, Sharing(), "")
        self._title = type(module).__name__
        self._programs = programs
        self._results = results
        self._names = names
        self._signature = inspect.signature(module.forward)

    @property
    def __name__(self) -> str:  # what graphs are called after
        return self._title

    def __deepcopy__(self, memo: dict[int, Any]) -> TorchModule:
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        shared = ("_programs", "_results", "_signature", "_names")
        vars(made).update({k: v if k in shared else copy.deepcopy(v, memo) for k, v in vars(self).items()})
        return made

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return self._names

    def specs(self) -> None:
        """PyTorch does not say what inputs look like."""
        return

    def arrange(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """The inputs in order.  Raises TraceError for arguments that PyTorch's forward does not take."""
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TraceError(f"{self._title}.forward: {error}") from None
        bound.apply_defaults()
        given = tuple(bound.arguments.values())
        if len(given) == len(self._names):
            return given
        leaves = tuple(leaf for _, leaf in structure.leaves(given) if leaf is not None)
        if len(leaves) != len(self._names):
            raise TraceError(f"{self._title} was recorded with {len(self._names)} inputs, got {len(leaves)}")
        return leaves

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes, in the structure that PyTorch's forward returns."""
        values = zip(self._names, self.arrange(args, kwargs), strict=True)
        inputs = {name: as_tensor(v) if hasattr(v, "__array__") else v for name, v in values}
        return self._results(self._programs[self.training].run(self, inputs))

    def extra_repr(self) -> str:
        return f"from {self._title}"


def from_torch(module: torch.nn.Module, *example_inputs: Any) -> Module:
    """An irconv module that computes what a PyTorch module computes, in the same memory.

    Parameters and buffers are shared, not copied: training on either side changes both, until one of them is given new memory
    (``to``, ``double``, ``half``).  Names are those of the PyTorch module, and so is the mode, layer by layer.

    The module's code is recorded symbolically by ``torch.fx``; where that cannot be (control flow that depends on sizes, say),
    ``torch.export`` records it for ``example_inputs`` (tensors or arrays), whose shapes are then fixed.

    One of PyTorch's own layers becomes irconv's layer, any other module a :class:`TorchModule`.

    Raises ModelError for operations that are not supported, all of them listed with their counts and nodes, and for parameters
    that cannot be shared.
    """
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"from_torch takes a torch.nn.Module, got a {type(module).__name__}")
    if is_known(module):
        return converted(module, Sharing())
    try:
        programs = {mode: _symbolic(module, mode) for mode in (False, True)}
    except ModelError:
        raise
    except Exception as error:  # whatever the module's code raises when it meets a symbol
        if not example_inputs:
            raise ModelError(
                f"{type(module).__name__} cannot be recorded symbolically: {error}",
                hint="give example inputs, so that torch.export can record it: from_torch(module, x)",
            ) from error
        return _exported(module, example_inputs)
    names = tuple(step.target for step in programs[False].steps if step.kind == "input")
    return TorchModule(module, programs, _as_it_is, names)


def _as_it_is(result: Any) -> Any:
    return result


_HELD = ("_parameters", "_buffers", "_modules")


@contextmanager
def _in_mode(module: torch.nn.Module, mode: bool) -> Iterator[None]:
    """Record the module in a mode: in training mode, layers that were put in evaluation mode stay there.

    Afterwards every module has the attributes that it had: the mode, and none of what code that ran on symbols has left.
    """
    before = [(part, dict(vars(part)), [dict(vars(part)[name]) for name in _HELD]) for part in module.modules()]
    trained = module.training
    for part, _, _ in before:
        part.training = mode and (part.training or not trained)
    try:
        yield
    finally:
        for part, attributes, held in before:
            vars(part).clear()
            vars(part).update(attributes)
            for name, contents in zip(_HELD, held, strict=True):
                vars(part)[name].clear()
                vars(part)[name].update(contents)


def _symbolic(module: torch.nn.Module, mode: bool) -> Program:
    tracer = fx.Tracer()
    tracer.record_stack_traces = True
    tracer.proxy_buffer_attributes = True  # what code does with buffers is recorded, not done
    with _in_mode(module, mode):
        graph = tracer.trace(module)
        named = [(joined(path, name), b) for path, part in module.named_modules() for name, b in part._buffers.items()]
        program = program_of(graph, module, {})
        program.assigned = {path: b.node.name for path, b in named if isinstance(b, fx.Proxy)}
        return program


def _exported(module: torch.nn.Module, example_inputs: tuple[Any, ...]) -> TorchModule:
    tensors = tuple(torch.as_tensor(np.asarray(x)) if not isinstance(x, torch.Tensor) else x for x in example_inputs)
    programs = {}
    names: tuple[str, ...] = ()
    for mode in (False, True):
        with _in_mode(module, mode):
            try:
                exported = torch.export.export(module, tensors)
            except Exception as error:
                raise ModelError(
                    f"{type(module).__name__} can be recorded neither by torch.fx nor by torch.export: {error}"
                ) from error
        signature = exported.graph_signature
        constants = signature.inputs_to_lifted_tensor_constants
        lifted = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **constants}
        program = program_of(exported.graph, exported.graph_module, lifted)
        for name in constants.values():
            program.constants[name] = as_tensor(exported.constants[name].detach().numpy())
        _use_results(program, list(signature.user_outputs))
        programs[mode] = program
        names = tuple(map(str, signature.user_inputs))
    spec = exported.call_spec.out_spec
    return TorchModule(module, programs, lambda flat: _pytree.tree_unflatten(list(flat), spec), names)


def _use_results(program: Program, names: list[Any]) -> None:
    """Leave the new values of buffers out of the outputs: the layers have written them."""
    output = program.steps[-1]
    kept = [ref for ref in output.args[0] if not hasattr(ref, "name") or ref.name in names]
    output.args = (tuple(kept),)
