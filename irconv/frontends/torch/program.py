"""Programs: what ``torch.fx`` and ``torch.export`` record, as a list of steps on irconv tensors."""

from __future__ import annotations

import builtins
import inspect
import math
import operator
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx

import irconv.nn.functional as F
from irconv.concrete import ConcreteValue, current_tracer
from irconv.errors import IrconvError, ModelError
from irconv.frontends.torch.layers import is_known
from irconv.frontends.torch.sharing import shared_variable
from irconv.frontends.torch.table import ATEN, TENSOR
from irconv.nn.module import Buffer, Module, joined
from irconv.places import Location
from irconv.tensor import Tensor
from irconv.tracing import Scope

IN_PLACE = frozenset(("iadd", "isub", "imul", "itruediv", "ifloordiv", "imatmul", "ipow", "setitem"))
"""Operators that write into their first operand."""

NOT_IN_PLACE = frozenset(("and_", "or_", "requires_grad_", "detach_", "is_", "not_"))
"""Names with an underscore at the end that write nowhere."""

MEANINGLESS = frozenset(
    ("memory_format", "layout", "device", "pin_memory", "requires_grad", "non_blocking", "_stacklevel")
)
"""Keywords about memory, devices and the like."""

VIEWS = frozenset(
    (
        *("view", "reshape", "view_as", "reshape_as", "permute", "transpose", "swapaxes", "swapdims", "t", "movedim"),
        *("flatten", "unflatten", "ravel", "squeeze", "unsqueeze", "expand", "expand_as", "broadcast_to"),
        *("chunk", "split", "split_with_sizes", "unbind", "narrow", "slice", "select", "getitem"),
        *(
            "contiguous",
            "detach",
            "cpu",
            "to",
            "type",
            "type_as",
            "float",
            "double",
            "half",
            "long",
            "int",
            "bool",
            "alias",
            "dropout",
        ),
    )
)
"""Functions whose result may share memory with their first operand."""


_TORCH = os.path.dirname(torch.__file__) + os.sep


@dataclass(frozen=True)
class Ref:
    """Stands for the result of an earlier step."""

    name: str


@dataclass
class Step:
    """One recorded operation.

    kind:      'input', 'part' (a parameter, buffer or constant), 'module', 'function' or 'output'.
    target:    name of the input, dotted path of the part or module, name of the function.
    path:      path of the module whose forward recorded it.
    passes:    whether it is a module that may hand its input on as it is.
    written:   the step into whose result it writes, or None.
    writes:    all steps whose result that is: the step itself, and those that wrote into it before.
    conflicts: other steps that may share memory with it and are read later, so that they would show what was written.
    """

    name: str
    kind: str
    target: str
    function: Callable[..., Any] | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    path: str
    location: Location | None
    passes: bool = False
    written: str | None = None
    writes: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()


@dataclass
class Program:
    """The steps of one module in one mode.

    constants: tensors that its code made.
    assigned:  buffers that its code replaced (``self.count = self.count + 1``), with the step whose result they became.
    """

    steps: list[Step]
    constants: dict[str, Tensor] = field(default_factory=dict)
    assigned: dict[str, str] = field(default_factory=dict)

    def run(self, root: Module, inputs: Mapping[str, Any]) -> Any:
        """What the program computes with the layers, parameters and buffers of ``root``."""
        parts = dict(root.named_state())
        layers = dict(root.named_modules(remove_duplicate=False))
        values: dict[str, Any] = {}
        for step in self.steps:
            if step.kind == "input":
                values[step.name] = inputs[step.target]
            elif step.kind == "part":
                values[step.name] = parts[step.target] if step.target in parts else self.constants[step.target]
            elif step.kind == "output":
                for path, name in self.assigned.items():
                    if values[name] is not parts[path]:
                        parts[path].assign(values[name])
                return filled(step.args[0], values)
            else:
                function = step.function or layers[step.target].forward
                values[step.name] = result = _result(step, function, values)
                if step.written is not None and isinstance(values[step.written], Tensor):
                    _write(step, result, values)
        raise AssertionError("a recorded program ends in an output")


def _result(step: Step, function: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    args, kwargs = filled(step.args, values), filled(step.kwargs, values)
    try:
        return _placed(step, lambda: function(*args, **kwargs))
    except IrconvError as error:
        raise error.at(location=step.location, excerpt=f"{step.name} = {step.target}(...)") from None
    except TypeError as error:  # a form of the call that the function here does not have
        raise ModelError(f"{step.name} = {step.target}(...): {error}", location=step.location) from error


def _write(step: Step, result: Tensor, values: dict[str, Any]) -> None:
    """Let the values that a step writes into be its result from here on."""
    shared = [name for name in step.conflicts if isinstance(values.get(name), Tensor)]
    if shared:
        raise ModelError(
            f"{step.name} ({step.target}) writes into {step.written}, of which {', '.join(shared)} may be a view that is "
            "read later",
            hint="use the function that returns a new tensor (x = x + y, inplace=False)",
            location=step.location,
        )
    for name in step.writes:
        if isinstance(values[name], Buffer):
            values[name].assign(result)
        else:
            values[name] = result


def _placed(step: Step, action: Callable[[], Any]) -> Any:
    """Run one step; in a trace its nodes bear its name and come from its line."""
    tracer = current_tracer()
    if tracer is None:
        return action()
    path = step.target if step.kind == "module" else step.path
    name = step.target if step.kind == "module" else step.name
    if step.location is None:
        with tracer.in_scope(Scope(joined(tracer.scope, name), True)):
            return action()
    with tracer.placed(step.location, path, joined(tracer.scope, name)):
        return action()


def filled(tree: Any, values: Mapping[str, Any]) -> Any:
    """A structure of arguments with results in the place of references."""
    if isinstance(tree, Ref):
        return values[tree.name]
    if isinstance(tree, (tuple, list)):
        return type(tree)(filled(item, values) for item in tree)
    if isinstance(tree, dict):
        return {key: filled(item, values) for key, item in tree.items()}
    if isinstance(tree, slice):
        return slice(*(filled(bound, values) for bound in (tree.start, tree.stop, tree.step)))
    return tree


# --- reading a recorded graph ------------------------------------------------------------------------------------------------


def program_of(graph: fx.Graph, owner: Any, lifted: Mapping[str, str]) -> Program:
    """The program of a graph.

    owner:  the module that the graph's targets are looked up in.
    lifted: dotted paths of the parameters, buffers and constants that are inputs of the graph, by name of the node.

    Raises ModelError with all operations that are not supported, each with its count and the names of its nodes.
    """
    missing = unsupported(graph, owner)
    if missing:
        raise ModelError(
            f"{len(missing)} operations of this module are not supported:\n  " + "\n  ".join(missing),
            hint="write the model without them, or that part of it with irconv.nn",
        )
    program = Program([_step(node, owner, lifted) for node in graph.nodes])
    for step in program.steps:
        if step.kind == "part":
            found = _attribute(owner, step.target) if step.target not in lifted.values() else None
            if isinstance(found, torch.Tensor):
                program.constants[step.target] = constant(found, step.target)
    _find_conflicts(program.steps)
    return program


def constant(tensor: torch.Tensor, name: str) -> Tensor:
    """A tensor as a constant."""
    return Tensor(ConcreteValue(shared_variable(tensor.contiguous(), name).array))


def unsupported(graph: fx.Graph, owner: Any) -> list[str]:
    """What is not supported, a line each: what, how often, where."""
    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        if node.op == "call_module" and not is_known(owner.get_submodule(node.target)):
            found.setdefault(f"module {type(owner.get_submodule(node.target)).__name__}", []).append(str(node.target))
        elif node.op in ("call_function", "call_method") and _function(node) is None:
            found.setdefault(f"{'method' if node.op == 'call_method' else 'function'} {_title(node)}", []).append(
                node.name
            )
    counts = Counter({what: len(names) for what, names in found.items()})
    return [f"{what}: {count} ({_listed(found[what])})" for what, count in counts.most_common()]


def _listed(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")


def _title(node: fx.Node) -> str:
    target = node.target
    if isinstance(target, str):
        return target
    module = getattr(target, "__module__", "") or ""
    name = getattr(target, "__qualname__", None) or getattr(target, "__name__", str(target))
    return f"{module}.{name}" if module else str(name)


def _base_name(node: fx.Node) -> str:
    """What the function is called, without overload or module."""
    target: Any = node.target
    if isinstance(target, str):
        return target
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.rpartition("::")[2]
    return str(getattr(target, "__name__", target))


def _plain_name(node: fx.Node) -> tuple[str, bool]:
    """The name of what is computed, and whether it is written into the first operand."""
    name = _base_name(node)
    if name.endswith("_") and not name.endswith("__") and name not in NOT_IN_PLACE:
        return name[:-1], True
    return name, name in IN_PLACE


def _function(node: fx.Node) -> Callable[..., Any] | None:
    """The function on irconv tensors; None if there is none."""
    target: Any = node.target
    name, _ = _plain_name(node)
    from_functional = getattr(torch.nn.functional, _base_name(node), None) is target
    if from_functional and hasattr(F, name):
        return getattr(F, name)
    if not from_functional and name in ATEN:
        return ATEN[name]
    if name in TENSOR:
        return TENSOR[name]
    if hasattr(F, name):
        return getattr(F, name)
    plain = getattr(target, "__module__", None) in ("math", "_operator", "builtins")
    if plain and (
        target in vars(math).values() or target in vars(operator).values() or target in vars(builtins).values()
    ):
        return target
    return None


def _step(node: fx.Node, owner: Any, lifted: Mapping[str, str]) -> Step:
    kinds = {"placeholder": "input", "get_attr": "part", "call_module": "module", "output": "output"}
    kind = kinds.get(node.op, "function")
    target = str(node.target) if kind != "function" else _plain_name(node)[0]
    if node.op == "placeholder" and node.name in lifted:
        kind, target = "part", lifted[node.name]
    function = _function(node) if kind == "function" else None
    args, kwargs = _arguments(node.args), _arguments(node.kwargs)
    step = Step(node.name, kind, target, function, args, kwargs, _path(node), _location(node))
    if kind == "module":
        layer = owner.get_submodule(target)
        step.passes = type(layer).__name__.startswith(("Dropout", "Flatten", "Unflatten", "Identity"))
        step.written = _first(args) if getattr(layer, "inplace", False) else None
    elif kind == "function":
        step.written = _first(args) if _plain_name(node)[1] or _asks_in_place(node) else None
    return step


def _first(args: tuple[Any, ...]) -> str | None:
    return args[0].name if args and isinstance(args[0], Ref) else None


def _asks_in_place(node: fx.Node) -> bool:
    """Whether a function of torch.nn.functional was called with inplace=True."""
    function = getattr(F, _base_name(node), None)
    names = list(inspect.signature(function).parameters) if function is not None else []
    if "inplace" not in names:
        return False
    place = names.index("inplace")
    return bool(node.kwargs.get("inplace", node.args[place] if place < len(node.args) else False))


def _arguments(tree: Any) -> Any:
    """Arguments without PyTorch's own objects."""
    if isinstance(tree, fx.Node):
        return Ref(tree.name)
    if isinstance(tree, (tuple, list)):
        items = [_arguments(item) for item in tree]
        return items if isinstance(tree, list) else tuple(items)
    if isinstance(tree, Mapping):
        return {
            str(key): _arguments(item)
            for key, item in tree.items()
            if key not in MEANINGLESS and (key, item) != ("out", None)
        }
    if isinstance(tree, slice):
        return slice(*(_arguments(bound) for bound in (tree.start, tree.stop, tree.step)))
    if isinstance(tree, torch.dtype):
        return np.dtype(str(tree).removeprefix("torch."))
    if isinstance(tree, torch.Tensor):
        return constant(tree, "a constant")
    if isinstance(tree, (torch.device, torch.memory_format, torch.layout)):
        return None
    return tree


def _path(node: fx.Node) -> str:
    """Path of the module whose forward recorded the node."""
    stack = node.meta.get("nn_module_stack") or {}
    innermost = next(reversed(stack.values()), ("", None))[0] if stack else ""
    return re.sub(r"@\d+", "", str(innermost)).removeprefix("L['self'].").removeprefix("L['self']")


def _location(node: fx.Node) -> Location | None:
    """The innermost line of the model's code, which is not PyTorch's."""
    found = re.findall(r'File "([^"]+)", line (\d+)', node.stack_trace or "")
    lines = [(file, line) for file, line in found if not file.startswith(_TORCH)]
    return Location(lines[-1][0], int(lines[-1][1])) if lines else None


def _attribute(owner: Any, path: str) -> Any:
    for name in path.split("."):
        owner = getattr(owner, name, None)
    return owner


class _Groups:
    """Names that belong together."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def leader(self, name: str) -> str:
        """One name for all of a group."""
        while name in self._above:
            name = self._above[name]
        return name

    def join(self, first: str, second: str) -> None:
        """Make one group of two."""
        a, b = self.leader(first), self.leader(second)
        if a != b:
            self._above[a] = b


def _find_conflicts(steps: list[Step]) -> None:
    """For each step that writes in place, whose result that is, and what may be a view of it and is read behind it."""
    last_read: dict[str, int] = {}
    sharing, same = _Groups(), _Groups()
    for number, step in enumerate(steps):
        last_read.update(dict.fromkeys(references((step.args, step.kwargs)), number))
        first = step.written or _first(step.args)
        if first is not None and (step.written or step.target in VIEWS or step.passes):
            sharing.join(step.name, first)
    for number, step in enumerate(steps):
        if step.written is None:
            continue
        earlier = [other.name for other in steps[:number]]
        step.writes = tuple(name for name in earlier if same.leader(name) == same.leader(step.written))
        group = sharing.leader(step.written)
        others = [s.name for s in steps if s.name not in (*step.writes, step.name) and sharing.leader(s.name) == group]
        step.conflicts = tuple(name for name in others if name in earlier and last_read.get(name, -1) > number)
        same.join(step.name, step.written)


def references(tree: Any) -> Iterable[str]:
    """Names of the steps that arguments refer to."""
    if isinstance(tree, Ref):
        yield tree.name
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from references(item)
    elif isinstance(tree, dict):
        yield from references(list(tree.values()))
    elif isinstance(tree, slice):
        yield from references((tree.start, tree.stop, tree.step))
