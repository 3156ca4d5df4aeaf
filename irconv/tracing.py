"""Tracing: running a module or function on Tensors that record a graph.

:class:`TensorBuilder` is a graph builder whose values are Tensors; :class:`Tracer` also knows where the program stands:
the user's line, the module whose forward is running, the composite layer it belongs to, and which parameters and buffers
it meets.  :func:`trace` runs a program under a tracer and returns the graph.
"""

from __future__ import annotations

import hashlib
import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import numpy as np

from irconv import structure
from irconv.builder import Builder, GraphValue
from irconv.concrete import ConcreteValue, as_array, current_tracer, recording, take_room
from irconv.errors import TraceError
from irconv.graph import Composite, Graph, Node, Provenance
from irconv.op import OpDef, Value
from irconv.places import Location, is_library, location_of, stored_name, user_call, user_frame, user_location
from irconv.state import Variable
from irconv.tensor import Tensor
from irconv.types import TensorSpec, TensorType, type_of

UNROLLED = 5000
"""A user line that records more nodes than this is warned about, once."""


class TensorBuilder(Builder):
    """Appends nodes to a graph and hands them back as Tensors, so that programs written with Tensors can run on it."""

    priority = 2

    def __init__(self, graph: Graph):
        super().__init__(graph)
        self.leaves: dict[int, tuple[ConcreteValue, GraphValue]] = {}

    def wrap(self, node: Node) -> Tensor:  # type: ignore[override]  # a Tensor stands for the GraphValue it holds
        return Tensor(GraphValue(self, node))

    def adopt(self, value: Value) -> GraphValue:
        """The graph value behind a tensor; data becomes a constant, a parameter or buffer a state."""
        inner: Any = value
        if isinstance(value, Tensor):
            value.check_fresh()
            inner = value.value
        if isinstance(inner, GraphValue):
            if inner.builder.graph is not self.graph:
                raise TraceError(
                    "a tensor of another trace was used",
                    hint="return it from the traced function instead of keeping it in a variable",
                )
            return inner
        known = self.leaves.get(id(inner))
        if known is None:
            # the concrete value is kept beside its leaf, so that its id stays its own
            known = self.leaves[id(inner)] = (inner, GraphValue(self, self.leaf(inner)))
        return known[1]

    def leaf(self, inner: ConcreteValue) -> Node:
        """A new leaf for a concrete value."""
        take_room(inner.type)
        return self.constant_node(inner.array)


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """A module whose forward is running.

    In a library module every node is named after its path; in a user's, after the variable that takes the result.
    ``placed`` is for programs that are not Python: where its nodes come from, and what they are called.
    """

    path: str
    library: bool
    placed: tuple[Location, str] | None = None


class Tracer(TensorBuilder):
    """Records one program.  ``training`` is what modules see as their mode, whatever their own flag says."""

    def __init__(self, name: str, training: bool = False):
        super().__init__(Graph(name))
        self.training = training
        self.respect_modes = False  # whether submodules that were put in evaluation mode stay there while training
        self._scopes = [Scope("", False)]
        self._composite: Composite | None = None
        self._paths: dict[int, str] = {}
        self._modules: list[Any] = []  # keeps ids in _paths valid
        self._states: dict[int, tuple[str, str]] = {}
        self._updates: dict[int, GraphValue] = {}
        self._leaf_of: dict[int, Node] = {}  # by id of the variable, which the graph keeps
        self._caller = user_frame()  # outside of the program: its variables do not name the program's values
        self._frame: FrameType | None = None
        self._called: FrameType | None = None
        self._last_scope: Scope | None = None
        self._lines: dict[Location | None, int] = {}
        self.calls: dict[str, int] = {}  # random draws so far by scope path
        self.generators: dict[int, tuple[Any, Tensor]] = {}

    # --- recording -------------------------------------------------------------------------------------------------------

    def emit(self, op: OpDef, attributes: Any, operands: Sequence[Value]) -> Tensor:  # type: ignore[override]
        scope = self._scopes[-1]
        if scope.placed is not None:
            place, self.name = scope.placed
            self.provenance = Provenance(place, scope.path, self._composite)
            return self.wrap(self.append(op, attributes, [self.adopt(operand).id for operand in operands]))
        frame, called = user_call()
        location = location_of(frame)
        self._count(location)
        if scope.library:
            name, same = scope.path, frame is self._frame and scope is self._last_scope
        else:
            variable = stored_name(frame) if frame is not None and frame is not self._caller else None
            name = _join(scope.path, variable) if variable else ""
            same = called is self._called  # what one call of the library records belongs together
        if not same:
            self._named = None
        self._frame, self._called, self._last_scope = frame, called, scope
        self.provenance = Provenance(location, scope.path, self._composite)
        self.name = name or None
        ids = [self.adopt(operand).id for operand in operands]
        if not name:
            with self.unnamed(_join(scope.path, op.name)):
                return self.wrap(self.append(op, attributes, ids))
        return self.wrap(self.append(op, attributes, ids))

    def constant(self, array: Any) -> Tensor:  # type: ignore[override]  # as wrap
        """A constant, placed where the program stands: it is made before the op that takes it."""
        scope = self._scopes[-1]
        location = user_location() if scope.placed is None else scope.placed[0]
        self.provenance = Provenance(location, scope.path, self._composite)
        return self.wrap(self.constant_node(array))

    @contextmanager
    def unnamed(self, name: str) -> Iterator[None]:
        """A node of its own: named ``name``, not the head of a group."""
        self.name, self._named = name, None
        yield
        self.name, self._named = None, None

    def _count(self, location: Location | None) -> None:
        count = self._lines[location] = self._lines.get(location, 0) + 1
        if count == UNROLLED + 1:
            warnings.warn(
                f"{location}: this line has recorded more than {UNROLLED} nodes; a Python loop over elements unrolls into "
                "one node per operation (whole-array operations keep the graph small)",
                stacklevel=2,
            )

    # --- states ------------------------------------------------------------------------------------------------------------

    def leaf(self, inner: ConcreteValue) -> Node:
        """A state for what has a variable or collects a gradient, a constant for other data."""
        if inner.tracked and inner.variable is None:
            inner.variable = Variable(inner.array)
        if inner.variable is None:
            return super().leaf(inner)
        name, role = self._states.get(id(inner.variable), ("parameter" if inner.tracked else "state", "state"))
        if role == "param" or inner.tracked:
            role = "param" if inner.tracked else "frozen"
        node = self.graph.add_state(name, inner.type, role, inner.variable)
        self._leaf_of.setdefault(id(inner.variable), node)
        return node

    def declare(self, variable: Variable, name: str, role: str) -> None:
        """Say what a variable is called and what it is (param, buffer or state) should the program use it."""
        self._states.setdefault(id(variable), (name, role))

    def assign(self, target: Tensor, value: Tensor) -> None:
        """Record an update; the program sees the new value from here on."""
        leaf = self._original(target.value)
        new = self.adopt(value)
        if new.type != leaf.type:
            raise TraceError(f"a state of type {leaf.type} cannot take a value of type {new.type}")
        self._updates[leaf.id] = new
        self.leaves[id(target.value)] = (target.value, new)

    def _original(self, inner: ConcreteValue) -> GraphValue:
        current = self.adopt(Tensor(inner))
        leaf = self._leaf_of.get(id(inner.variable))
        return current if leaf is None else GraphValue(self, leaf)

    # --- where the program stands --------------------------------------------------------------------------------------------

    @contextmanager
    def entering(self, module: Any) -> Iterator[None]:
        """While the block runs, nodes belong to ``module``."""
        path = self._paths.get(id(module))
        if path is None:
            path = self.adopt_module(module)
        code = getattr(type(module).forward, "__code__", None)
        with self.in_scope(Scope(path, bool(path) and code is not None and is_library(code))):
            yield

    @contextmanager
    def in_scope(self, scope: Scope) -> Iterator[None]:
        """While the block runs, nodes belong to ``scope``."""
        self._scopes.append(scope)
        try:
            yield
        finally:
            self._scopes.pop()

    @contextmanager
    def placed(self, location: Location, path: str, name: str) -> Iterator[None]:
        """While the block runs, nodes come from ``location``, are in ``path`` below the running module and called ``name``."""
        self.name = self._named = None
        with self.in_scope(Scope(_join(self.scope, path), True, (location, name))):
            yield
        self.name = self._named = None

    def adopt_module(self, root: Any) -> str:
        """Enter the paths and state names of a module tree that was not met before."""
        prefix = "" if not self._modules else f"{type(root).__name__.lower()}{len(self._modules)}"
        self._modules.append(root)
        for path, module in root.named_modules():
            self._paths.setdefault(id(module), _join(prefix, path))
        for path, parameter in root.named_parameters():
            self.declare(parameter.value.variable, _join(prefix, path), "param")
        for path, buffer in root.named_buffers():
            self.declare(buffer.value.variable, _join(prefix, path), "buffer")
        if len(self._modules) == 1:
            self.respect_modes = self.training and root.own_training
        return self._paths[id(root)]

    @property
    def scope(self) -> str:
        """Path of the module whose forward is running; "" outside of any."""
        return self._scopes[-1].path

    @contextmanager
    def composite(self, kind: str) -> Iterator[None]:
        """Nodes emitted inside the block belong to one layer-level function; the outermost such block counts."""
        before = self._composite
        if before is None:
            path = self.scope
            count = self.calls.get(f"{kind} {path}", 0)
            self.calls[f"{kind} {path}"] = count + 1
            instance = path or kind
            self._composite = Composite(kind, f"{instance}#{count}" if count else instance)
        try:
            yield
        finally:
            self._composite = before

    # --- signature -----------------------------------------------------------------------------------------------------------

    def input_tensor(self, name: str, type_: TensorType) -> Tensor:
        """A new input."""
        return self.wrap(self.graph.add_input(name, type_))

    def finish(self, result: Any) -> Graph:
        """Set outputs and updates, and return the graph."""
        for path, leaf in structure.leaves(result):
            if not isinstance(leaf, (Tensor, np.ndarray, np.generic)):
                raise TraceError(
                    f"the traced program returned a {type(leaf).__name__}{f' at {path!r}' if path else ''}, not a tensor",
                    hint="return tensors, or tuples and dicts of tensors",
                )
            value = leaf if isinstance(leaf, Tensor) else Tensor(ConcreteValue(as_array(leaf)))
            self.graph.set_output(path, self.adopt(value).id)
        if not self.graph.outputs:
            raise TraceError("the traced program returned no tensors")
        for state, new in self._updates.items():
            self.graph.set_update(state, new.id)
        self._frame = self._called = self._caller = None
        return self.graph


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


@contextmanager
def composite(kind: str) -> Iterator[None]:
    """Mark what is traced inside the block as one layer-level function (batch_norm, softmax, ...)."""
    tracer = current_tracer()
    if tracer is None:
        yield
    else:
        with tracer.composite(kind):
            yield


# --- running a program under a tracer -----------------------------------------------------------------------------------------


def is_array(leaf: Any) -> bool:
    """Whether an argument is data, as against a static Python value."""
    return isinstance(leaf, (np.ndarray, np.generic, Tensor)) or any(
        hasattr(leaf, name) for name in ("__array__", "__dlpack__", "__cuda_array_interface__")
    )


def leaf_type(leaf: Any) -> TensorType | None:
    """Type of an argument: of a spec, of an array or tensor; None for a static Python value."""
    if isinstance(leaf, TensorSpec):
        return leaf.type
    if isinstance(leaf, TensorType):
        return leaf
    if isinstance(leaf, Tensor):
        return replace(leaf.type, layout=None)
    if isinstance(leaf, (np.ndarray, np.generic)) or hasattr(leaf, "__cuda_array_interface__"):
        return type_of(leaf)
    return type_of(as_array(leaf)) if is_array(leaf) else None


@dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    """An array argument that a program needs by value, because shapes depend on it: a static value, not an input."""

    array: np.ndarray

    def __repr__(self) -> str:
        # what code that was compiled for the value is found by
        digest = hashlib.sha256(np.ascontiguousarray(self.array).tobytes()).hexdigest()
        return f"{self.array.dtype}{list(self.array.shape)}:{digest}"


class DeclaresInputs(ABC):
    """A program whose inputs are declared, as against read off a Python signature: one that comes out of a file."""

    @property
    @abstractmethod
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order; any text."""

    @abstractmethod
    def specs(self) -> tuple[TensorSpec, ...] | None:
        """Specs of all inputs, where the program knows them."""

    @abstractmethod
    def arrange(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Arguments in the order of the inputs, those that shapes depend on as :class:`Fixed`.

        Given in that order and in the types that they have afterwards, they are left as they are.
        """


def arranged(program: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments as the program wants them."""
    return (program.arrange(args, kwargs), {}) if isinstance(program, DeclaresInputs) else (args, kwargs)


def bind_names(program: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by parameter name, in call order; ``*args`` become ``args.0`` and so on."""
    if isinstance(program, DeclaresInputs):
        declared = program.input_names
        if len(args) != len(declared):
            raise TraceError(f"the model takes {len(declared)} inputs ({', '.join(declared)}), got {len(args)}")
        return dict(zip(declared, args, strict=True))
    function = getattr(program, "forward", program)
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except ValueError:  # a builtin without a signature
        return {f"x{i}": a for i, a in enumerate(args)} | kwargs
    except TypeError as error:
        name = getattr(function, "__qualname__", str(function))
        raise TraceError(f"{name}: {error}", hint="give one spec or array for each argument of the program") from None
    return dict(bound.arguments)


def program_name(program: Any) -> str:
    """What to call the graph of a program."""
    name = getattr(program, "__name__", type(program).__name__)
    return "function" if name == "<lambda>" else name.lower()


def symbolic_arguments(
    tracer: Tracer, program: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with every spec and array replaced by an input of the tracer's graph."""
    names: dict[int, list[str]] = {}
    for root, tree in bind_names(program, args, kwargs).items():
        for path, leaf in structure.leaves(tree, root):
            names.setdefault(id(leaf), []).append(path)

    def replace_leaf(path: str, leaf: Any) -> Any:
        type_ = leaf_type(leaf)
        if type_ is None:
            return leaf
        known = names.get(id(leaf))
        name = leaf.name if isinstance(leaf, TensorSpec) and leaf.name else (known.pop(0) if known else path or "x")
        return tracer.input_tensor(name, type_)

    new_args = tuple(structure.map_leaves(replace_leaf, a) for a in args)
    new_kwargs = {k: structure.map_leaves(replace_leaf, v, k) for k, v in kwargs.items()}
    given = [leaf for _, leaf in structure.leaves((args, kwargs)) if not isinstance(leaf, Fixed)]
    if given and not tracer.graph.inputs and hasattr(program, "named_parameters"):
        raise TraceError(
            f"none of the arguments of {type(program).__name__} is an array or a spec",
            hint="give irconv.TensorSpec((1, 3, 224, 224)), or an array (numpy.asarray of a list), for each input",
        )
    return new_args, new_kwargs


def record(tracer: Tracer, program: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run ``program`` while ``tracer`` records, and return what it returns."""
    try:
        with recording(tracer):
            return program(*args, **kwargs)
    except ValueError as error:
        # NumPy wraps what a traced tensor says when it is stored in a plain array
        if isinstance(error.__cause__, TraceError):
            raise error.__cause__ from None
        raise


@contextmanager
def named_scope(path: str) -> Iterator[None]:
    """Values traced inside the block are named after ``path`` (for library code that is not a module)."""
    tracer = current_tracer()
    if tracer is None:
        yield
    else:
        with tracer.in_scope(Scope(path, True)):
            yield


def trace(program: Callable[..., Any], *args: Any, training: bool = False, name: str | None = None, **kwargs: Any) -> Graph:
    """The graph of ``program(*args, **kwargs)``.

    program: a module, or a function of tensors.  Specs (``irconv.TensorSpec``), arrays and tensors among the arguments,
    nested in tuples and dicts if you like, become inputs; other Python values stay as they are.
    training: the mode that modules see; their own flags do not change.

    Raises TraceError, with the user's line, for Python that cannot be recorded.
    """
    if not callable(program):
        raise TraceError(f"cannot trace a {type(program).__name__}", hint="give a module or a function")
    tracer = Tracer(name or program_name(program), training)
    args, kwargs = arranged(program, args, kwargs)
    new_args, new_kwargs = symbolic_arguments(tracer, program, args, kwargs)
    return tracer.finish(record(tracer, program, *new_args, **new_kwargs))
