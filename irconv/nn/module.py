"""Module: a piece of a network with its parameters, buffers and submodules, named by the attributes that hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from irconv.concrete import ConcreteValue, as_array, current_tracer
from irconv.errors import AttributeValueError, ModelError, StateError
from irconv.state import Variable
from irconv.tensor import Tensor
from irconv.types import as_dtype


class Parameter(Tensor):
    """A tensor that training changes, held by a module.

    ``Parameter(array)`` copies the array, which must hold floats to be trained.
    ``frozen`` parameters (``requires_grad_(False)``) receive no gradient and no update.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True):
        super().__init__(stateful(data))
        self.requires_grad_(requires_grad)

    @property
    def variable(self) -> Variable:
        """The array behind the parameter, with its version."""
        return variable_of(self)

    @property
    def frozen(self) -> bool:
        return not self.requires_grad

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        return memo.setdefault(id(self), Parameter(snapshot(self), self.requires_grad))


class Buffer(Tensor):
    """A tensor that a module keeps and saves but that is not trained: running statistics, fixed kernels, counters."""

    __slots__ = ()

    def __init__(self, data: Any):
        super().__init__(stateful(data))

    @property
    def variable(self) -> Variable:
        """The array behind the buffer, with its version."""
        return variable_of(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Buffer:
        return memo.setdefault(id(self), Buffer(snapshot(self)))


def stateful(data: Any) -> ConcreteValue:
    """A value with a variable of its own, holding a copy of ``data``."""
    variable = Variable(np.array(as_array(data)))
    return ConcreteValue(variable.array, variable=variable)


def variable_of(tensor: Tensor) -> Variable:
    """The variable behind a parameter, buffer or other state."""
    variable: Variable | None = getattr(tensor.value, "variable", None)
    if variable is None:
        raise StateError("this tensor is not a parameter, a buffer or a state")
    return variable


def snapshot(tensor: Tensor) -> np.ndarray:
    """A copy of a state's array, on the host."""
    variable = variable_of(tensor)
    with variable.lock:
        array: Any = variable.array
        return array.get() if hasattr(array, "__cuda_array_interface__") else np.array(array)


class Mismatch(NamedTuple):
    """What ``load_state_dict(strict=False)`` left out: names without an array, arrays without a name."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base of layers and models.

    Assign parameters, buffers and submodules to attributes in ``__init__`` and write ``forward``; the attribute's name becomes
    the name of the part ("conv1.weight").  Lists of modules belong in :class:`ModuleList`.  A part that is used in several
    places is one part: it is trained once, and saved under each of its names.
    """

    own_training = True
    """The module's own mode, as ``train()`` and ``eval()`` set it.  While a program is traced, the trace says the mode."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes."""
        raise ModelError(f"{type(self).__name__} has no forward method", hint="define forward(self, x)")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tracer = current_tracer()
        if tracer is None:
            return self.forward(*args, **kwargs)
        with tracer.entering(self):
            return self.forward(*args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        """Hold a part or anything else.  A parameter or buffer is not replaced by what was computed from it: StateError."""
        held = vars(self).get(name)
        if isinstance(held, (Parameter, Buffer)) and isinstance(value, Tensor) and not isinstance(value, (Parameter, Buffer)):
            kind = type(held).__name__.lower()
            raise StateError(
                f"{kind} {name!r} of {type(self).__name__} would be replaced by a plain tensor",
                hint=f"self.{name}.assign(value) changes it, self.{name} = nn.{type(held).__name__}(value) replaces it",
            )
        super().__setattr__(name, value)

    # --- mode ----------------------------------------------------------------------------------------------------------

    @property
    def training(self) -> bool:
        """Whether the module is in training mode: the trace's mode while a program is traced, its own otherwise."""
        tracer = current_tracer()
        if tracer is None:
            return self.own_training
        return bool(tracer.training and (self.own_training or not tracer.respect_modes))

    @training.setter
    def training(self, mode: bool) -> None:
        self.own_training = bool(mode)

    def train(self, mode: bool = True) -> Self:
        """Put this module and all below into training mode (or, with False, into evaluation mode)."""
        for module in self.modules():
            module.own_training = bool(mode)
        return self

    def eval(self) -> Self:
        """Put this module and all below into evaluation mode."""
        return self.train(False)

    # --- parts ---------------------------------------------------------------------------------------------------------

    def own_parts(self) -> list[tuple[str, Any]]:
        """(name, object) of what the module holds itself: parameters, buffers and submodules among other things."""
        return list(vars(self).items())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(attribute, module) of the modules directly below."""
        for name, part in self.own_parts():
            if isinstance(part, Module):
                yield name, part

    def children(self) -> Iterator[Module]:
        """The modules directly below."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """(dotted path, module) of this module ("") and all below; a shared one once, unless ``remove_duplicate`` is off."""
        yield from _walk(self, prefix, set() if remove_duplicate else None, ())

    def modules(self) -> Iterator[Module]:
        """This module and all below, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """(dotted path, parameter); a shared one once, under its first path, unless ``remove_duplicate`` is off."""
        return self._named_states(Parameter, prefix, remove_duplicate)

    def parameters(self) -> Iterator[Parameter]:
        """All parameters, each once."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Buffer]]:
        """(dotted path, buffer), as :meth:`named_parameters`."""
        return self._named_states(Buffer, prefix, remove_duplicate)

    def buffers(self) -> Iterator[Buffer]:
        """All buffers, each once."""
        return (buffer for _, buffer in self.named_buffers())

    def _named_states(self, kind: type[Any], prefix: str, remove_duplicate: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix, remove_duplicate):
            for name, part in module.own_parts():
                if isinstance(part, kind) and not (remove_duplicate and id(part) in seen):
                    seen.add(id(part))
                    yield joined(path, name), part

    def get_submodule(self, path: str) -> Module:
        """The module at a dotted path; ModelError if there is none."""
        found = dict(self.named_modules(remove_duplicate=False)).get(path)
        if found is None:
            raise ModelError(f"{type(self).__name__} has no submodule {path!r}")
        return found

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Hold a parameter under a name, as assigning it to an attribute does."""
        setattr(self, name, parameter)

    def register_buffer(self, name: str, tensor: Any) -> None:
        """Hold a buffer under a name; arrays and plain tensors are copied into one."""
        setattr(self, name, tensor if tensor is None or isinstance(tensor, Buffer) else Buffer(tensor))

    def add_module(self, name: str, module: Module | None) -> None:
        """Hold a submodule under a name, as assigning it to an attribute does."""
        if not name or "." in name:
            raise AttributeValueError(f"{name!r} cannot name a submodule", hint="use a name without dots")
        setattr(self, name, module)

    # --- changing all of them --------------------------------------------------------------------------------------------

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Call ``function`` with every module below, then with this one (to initialise weights, say)."""
        for module in self.children():
            module.apply(function)
        function(self)
        return self

    def requires_grad_(self, wanted: bool = True) -> Self:
        """Train all parameters below, or freeze them."""
        for parameter in self.parameters():
            parameter.requires_grad_(wanted)
        return self

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, dtype: Any) -> Self:
        """Convert floating-point parameters and buffers to another floating-point type.

        They get new arrays: do it before an optimiser or an executable is made from the module.
        """
        target = as_dtype(dtype)
        if not target.is_float:
            raise AttributeValueError(f"a module cannot be converted to {target}", hint="use a float type")
        for part in [*self.parameters(), *self.buffers()]:
            if part.type.dtype.is_float and part.type.dtype is not target:
                trained = part.requires_grad
                part.value = stateful(snapshot(part).astype(target.numpy))
                part.requires_grad_(trained)
        return self

    def double(self) -> Self:
        """Convert to float64."""
        return self.to("f64")

    def float(self) -> Self:
        """Convert to float32."""
        return self.to("f32")

    def half(self) -> Self:
        """Convert to float16."""
        return self.to("f16")

    # --- saving and loading ------------------------------------------------------------------------------------------------

    def named_state(self) -> Iterator[tuple[str, Tensor]]:
        """(dotted path, parameter or buffer) of everything ``state_dict`` holds, under each of its names."""
        for path, module in self.named_modules(remove_duplicate=False):
            for kind in (Parameter, Buffer):
                for name, part in module.own_parts():
                    if isinstance(part, kind):
                        yield joined(path, name), part

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and buffers by dotted path.  :mod:`irconv.serialize` writes them to a file."""
        return {path: snapshot(part) for path, part in self.named_state()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> Mismatch:
        """Copy arrays into the parameters and buffers they name.

        Raises StateError listing all names that are missing, surplus, or of another shape or kind of type, before anything is
        changed.  With ``strict`` off, missing and surplus names are returned instead.
        """
        own = dict(self.named_state())
        missing = [name for name in own if name not in state]
        surplus = [name for name in state if name not in own]
        arrays = {name: as_array(state[name]) for name in own if name in state}
        wrong = [problem for name, array in arrays.items() if (problem := misfit(name, array, own[name]))]
        if wrong or (strict and (missing or surplus)):
            raise mismatch_error(f"the state does not fit {type(self).__name__}", missing, surplus, wrong, strict)
        for name, array in arrays.items():
            variable_of(own[name]).assign(array)
        return Mismatch(missing, surplus)

    # --- showing -----------------------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """A layer's own settings, for ``repr``."""
        return ""

    def __repr__(self) -> str:
        children = [f"({name}): " + repr(module).replace("\n", "\n  ") for name, module in self.named_children()]
        inner = self.extra_repr()
        if not children:
            return f"{type(self).__name__}({inner})"
        lines = [inner, *children] if inner else children
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


def joined(path: str, name: str) -> str:
    """A dotted path with one more name."""
    return f"{path}.{name}" if path else name


def misfit(name: str, array: np.ndarray, tensor: Tensor) -> str | None:
    """In words, why ``array`` cannot be copied into a state; None if it can."""
    if array.shape == tensor.shape and np.can_cast(array.dtype, tensor.dtype, "same_kind"):
        return None
    return f"{name}: needs {tensor.type}, got {as_dtype(array.dtype)}[{','.join(map(str, array.shape))}]"


def mismatch_error(
    what: str, missing: list[str], surplus: list[str], wrong: list[str], strict: bool = True
) -> StateError:
    """One error that lists everything that does not fit."""
    lines = [f"{what}:"]
    if strict:
        lines += [f"  missing ({len(missing)}): {', '.join(missing)}"] if missing else []
        lines += [f"  surplus ({len(surplus)}): {', '.join(surplus)}"] if surplus else []
    lines += [f"  {problem}" for problem in wrong]
    hint = "strict=False leaves missing and surplus names alone" if strict and not wrong else None
    return StateError("\n".join(lines), hint=hint)


def _walk(module: Module, path: str, seen: set[int] | None, above: tuple[int, ...]) -> Iterator[tuple[str, Module]]:
    if id(module) in above:
        if seen is not None:
            return
        raise ModelError(f"module {path!r} contains itself")
    if seen is not None:
        if id(module) in seen:
            return
        seen.add(id(module))
    yield path, module
    for name, child in module.named_children():
        yield from _walk(child, joined(path, name), seen, (*above, id(module)))
