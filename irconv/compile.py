"""The driver: source -> graph -> passes -> kernels -> backend -> executable.

:func:`compile` takes a module, a function, a graph or an IR file.  (:func:`irconv.training.compile_step` makes training
steps.)  A compiled program specialises to the types of its inputs and keeps a bounded number of specialisations, so that a
batch of another size just works.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from irconv import structure
from irconv.backends import find_backend
from irconv.backends.base import MISSED, Backend, BoundCall, Executable, PlainCall
from irconv.errors import AttributeValueError, DTypeError, ModelError, ShapeError
from irconv.frontends import onnx
from irconv.graph import Graph
from irconv.kernel import Program
from irconv.passes.base import Pass, Pipeline, Stage
from irconv.passes.check import Checker
from irconv.passes.cse import CommonSubexpressions
from irconv.passes.dce import DeadCode
from irconv.passes.fold_batch_norm import FoldBatchNorm
from irconv.passes.fold_constants import FoldConstants
from irconv.passes.fuse import fuse
from irconv.passes.layout import ChannelsLast
from irconv.passes.linear_sums import LinearSums
from irconv.passes.materialise import Materialise
from irconv.passes.plan_memory import plan_memory
from irconv.passes.recompute import Recompute
from irconv.passes.schedule import schedule
from irconv.passes.simplify import Simplify
from irconv.passes.transposed_products import TransposedProducts
from irconv.target import Target
from irconv.text import load
from irconv.tracing import DeclaresInputs, arranged, leaf_type, trace

SPECIALISATIONS = 16
"""How many sets of input types a compiled program keeps code for; the least recently used goes first."""

INFERENCE: tuple[Pass, ...] = (
    Simplify(differentiated=True),
    FoldConstants(),
    CommonSubexpressions(),
    DeadCode(),
    FoldBatchNorm(),
    Simplify(differentiated=True),
    DeadCode(),
    Materialise(),
)
"""Passes of :func:`compile`."""

TRAINING: tuple[Pass, ...] = (
    Simplify(differentiated=True),
    FoldConstants(),
    CommonSubexpressions(),
    TransposedProducts(),
    Simplify(differentiated=True),
    LinearSums(),
    DeadCode(),
    Materialise(),
)
"""Passes of training steps and other graphs that write states."""


@dataclass(frozen=True)
class Options:
    """How to compile.

    backend: "auto", "numpy", "native", "cupy", or a Backend.
    passes:  graph passes to run; None for the usual ones.
    check:   checking mode: run the reference after every pass and compare (slow).
    precision: "fast", or "strict" for algorithms with plain rounding only (no Winograd convolution, no sums by linearity).
    tune:    choose kernels by measurement (see :func:`compile`).
    """

    backend: str | Backend = "auto"
    passes: Sequence[Pass] | None = None
    check: bool = False
    precision: str = "fast"
    tune: bool = False

    def __post_init__(self) -> None:
        if self.precision not in ("fast", "strict"):
            raise AttributeValueError(f"precision {self.precision!r} is neither 'fast' nor 'strict'")

    def for_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Options:
        """With "auto" decided: cupy when an argument lives on a GPU."""
        on_gpu = any(is_on_gpu(leaf) for _, leaf in structure.leaves((args, kwargs)))
        return replace(self, backend="cupy") if on_gpu and self.backend == "auto" else self


def is_on_gpu(leaf: Any) -> bool:
    """Whether an array lives on a GPU."""
    return hasattr(leaf, "__cuda_array_interface__")


def storage_passes(target: Target) -> list[Pass]:
    """Passes that say how values are stored, for kernels that care."""
    return [ChannelsLast(), Recompute()] if "channels-last" in target.layouts else []


def build(graph: Graph, options: Options, passes: Sequence[Pass], guards: Sequence[str] = ()) -> Executable:
    """Run the passes on ``graph`` (left as it is), cut it into kernels, schedule and plan them, and hand them to the backend.

    guards: paths of outputs to be found finite before any state is written.
    """
    backend = find_backend(options.backend, options.precision == "strict", options.tune)
    target = backend.target()
    first = Stage("trace", graph, 0.0, True)
    checker = Checker() if options.check else None
    if options.precision == "strict":
        passes = [pass_ for pass_ in passes if not isinstance(pass_, LinearSums)]
    chosen = [*(passes if options.passes is None else options.passes), *storage_passes(target)]
    stages = [first, *Pipeline(chosen).run(graph, checker=checker)]
    return backend.build(plan(stages, target, guards))


def plan(stages: Sequence[Stage], target: Target, guards: Sequence[str] = ()) -> Program:
    """Cut the graph of the last stage into kernels, schedule them, and place their values in memory."""
    final = stages[-1].graph
    partition = fuse(final, target)
    order = schedule(final, partition.kernels, [final.outputs[path] for path in guards])
    return Program(final, order, plan_memory(final, order, target), tuple(stages), partition.reasons)


class Compiled:
    """A program compiled for the types it was given, and for others as they come.

    Call it as the program itself: same arguments, nested the same way; arrays come back in the program's structure (lists
    become tuples).  ``out=`` takes arrays of the results' structure to write into, and then nothing is allocated.

    ``graph``, ``stages``, ``kernels``, ``memory`` and ``profile(...)`` are those of the specialisation made last.
    """

    def __init__(
        self,
        make: Callable[[tuple[Any, ...], dict[str, Any]], Executable],
        program: Any = None,
        setting: Callable[[], Any] | None = None,
    ):
        self._make = make
        self._program = program  # what says how arguments are to be arranged
        self._setting = setting  # what else the code depends on, now
        self._declares = isinstance(program, DeclaresInputs)
        self._known: OrderedDict[Any, Executable] = OrderedDict()
        self._plain: dict[Any, tuple[Any, Executable]] = {}  # calls with arrays alone -> key and code, in a fraction of the time
        self._lock = threading.Lock()
        self.executable: Executable | None = None
        self._latest: tuple[PlainCall, Any] | None = None  # of that executable, where the call was plain; and the setting then

    def specialise(self, /, *args: Any, **kwargs: Any) -> Executable:
        """The executable for these arguments (specs or arrays), compiled now if it is not known."""
        return self._executable(*arranged(self._program, args, kwargs))

    def _executable(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Executable:
        """The executable for arguments that have been arranged."""
        key = (_key(args, kwargs), self._setting() if self._setting else None)
        with self._lock:
            found = self._known.get(key)
            if found is None:
                found = self._known[key] = self._make(args, kwargs)
                while len(self._known) > SPECIALISATIONS:
                    self._known.popitem(last=False)
                    self._plain = {plain: known for plain, known in self._plain.items() if known[0] in self._known}
            else:
                self._known.move_to_end(key)
            self.executable = found
            self._latest = None
        return found

    def __call__(self, /, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        latest = self._latest
        if latest is not None and not kwargs and (self._setting is None or self._setting() == latest[1]):
            results = latest[0](args, out)
            if results is not MISSED:
                return results
        if self._declares:
            args, kwargs = arranged(self._program, args, kwargs)  # arrays of the latest types would stay as they are
        plain = None if kwargs else _plain_key(args)
        if plain is None:
            return self._executable(args, kwargs)(*_arrays(args, kwargs), out=out)
        return self._plain_executable(plain, args)(*args, out=out)

    def _plain_executable(self, plain: Any, args: tuple[Any, ...]) -> Executable:
        """The executable for NumPy arrays that are not nested: the same as :meth:`_executable` finds."""
        setting = None if self._setting is None else self._setting()
        plain = (plain, setting)
        with self._lock:
            known = self._plain.get(plain)
            if known is not None:
                if known[1] is not self.executable:
                    self._known.move_to_end(known[0])
                    self.executable = known[1]
                quick = known[1].plain_call
                self._latest = None if quick is None else (quick, setting)
                return known[1]
        found = self._executable(args, {})
        key = (_key(args, {}), setting)
        with self._lock:
            if self._known.get(key) is found:
                self._plain[plain] = (key, found)
        return found

    def bind(self, /, *args: Any, out: Any = None, **kwargs: Any) -> BoundCall:
        """A call with all its arrays: ``call = exe.bind(x, out=y)``, then ``call()`` reads ``x`` as it is now and writes ``y``.

        Arrays are checked here, once, and ``call()`` takes next to no time beside the kernels.  It returns the results, always
        in the same arrays: ``out``, or new ones if that is None.  Changes of the model's parameters are seen; static arguments,
        and arrays that shapes depend on, stay what they are here.  The call has working memory of its own.
        Calls of it from several threads take turns; give each thread a bound call of its own, for its own results.
        Raises ShapeError or DTypeError for arrays that cannot be read or written where they are.
        """
        given = {id(leaf) for _, leaf in structure.leaves((args, kwargs))}
        args, kwargs = arranged(self._program, args, kwargs)
        arrays = _arrays(args, kwargs)
        call = self._executable(args, kwargs).bind(*arrays, out=out)
        if not given.issuperset(map(id, arrays)):
            raise DTypeError(
                "an input is converted before it is read, so that changes of it would not be seen",
                hint="bind arrays of the types that the program computes with",
            )
        return call

    def _made(self) -> Executable:
        if self.executable is None:
            raise ModelError("nothing has been compiled yet", hint="call it, or specialise() it, first")
        return self.executable

    @property
    def graph(self) -> Graph:
        """The graph after all passes."""
        return self._made().graph

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The graph as traced and after each pass."""
        return self._made().stages

    @property
    def kernels(self) -> Any:
        """The kernels in execution order."""
        return self._made().kernels

    @property
    def memory(self) -> Any:
        """The memory plan."""
        return self._made().memory

    @property
    def backend(self) -> str:
        """Name of the backend that runs it."""
        return self._made().backend

    def profile(self, /, *args: Any, **kwargs: Any) -> Any:
        """Time each kernel on these arguments (see :meth:`irconv.backends.base.Executable.profile`)."""
        args, kwargs = arranged(self._program, args, kwargs)
        return self._executable(args, kwargs).profile(*_arrays(args, kwargs))


def _plain_key(args: tuple[Any, ...]) -> Any:
    """Types of arguments that are all NumPy arrays; None where one is something else."""
    parts: list[Any] = []
    for array in args:
        if type(array) is not np.ndarray:
            return None
        parts += (array.dtype, array.shape)
    return tuple(parts)


def _key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What code depends on: the types of the arrays and the static values among the arguments, with their places."""
    parts = []
    for path, leaf in structure.leaves((args, kwargs)):
        type_ = leaf_type(leaf)
        parts.append((path, is_on_gpu(leaf), type_ if type_ is not None else (type(leaf), repr(leaf))))
    return tuple(parts)


def _arrays(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    return [leaf for _, leaf in structure.leaves((args, kwargs)) if leaf_type(leaf) is not None]


def compile(
    source: Any,
    *specs: Any,
    backend: str | Backend = "auto",
    passes: Sequence[Pass] | None = None,
    check: bool = False,
    precision: str = "fast",
    tune: bool = False,
    **named_specs: Any,
) -> Compiled:
    """Compile a program for inference.

    source: a module (traced in evaluation mode; its own flag stays), a function of tensors, a Graph, or the path of an IR or
            ONNX file.
    specs:  ``TensorSpec`` or arrays for the arguments; without any, a program is compiled at its first call, an ONNX file
            that says what its inputs look like at once.
    backend, passes, check, precision: see :class:`Options`.
    tune:   measure several ways to compute each convolution and matrix product on this machine and take the fastest (the native
            backend; others have no choice).  This takes a few seconds for each distinct one, once: what was found is
            remembered beside the compiled kernels.  The record is read with ``tune=True`` only, so that results never
            depend on a file otherwise.  With it, the same record gives the same bits.

    Parameters and buffers stay shared with the module: training it changes what the executable computes.
    Raises TraceError, ShapeError and their kin with the user's line; ModelError for a source that cannot be read.
    """
    options = Options(backend, passes, check, precision, tune)
    if isinstance(source, (str, os.PathLike)):
        source = _read(Path(source))
    if isinstance(source, Graph):
        compiled = Compiled(_GraphSource(source, options))
        compiled.specialise(*(source[i].type for i in source.inputs))
        return compiled
    if not callable(source):
        raise ModelError(
            f"cannot compile a {type(source).__name__}", hint="give a module, a function, a graph or the path of an IR file"
        )

    def make(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Executable:
        return build(trace(source, *args, **kwargs), options.for_arguments(args, kwargs), INFERENCE)

    compiled = Compiled(make, source)
    ready = isinstance(source, DeclaresInputs) and source.specs() is not None
    if specs or named_specs or ready:
        compiled.specialise(*specs, **named_specs)
    return compiled


def _read(path: Path) -> Any:
    """The model of an ONNX file, the graph of an IR file."""
    return onnx.load_model(path) if path.suffix == ".onnx" else load(path)


@dataclass(frozen=True)
class _GraphSource:
    """Compiles a graph for its own input types and refuses others: a graph cannot be traced again."""

    graph: Graph
    options: Options

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Executable:
        graph = self.graph
        given = [t for _, leaf in structure.leaves((args, kwargs)) if (t := leaf_type(leaf)) is not None]
        wanted = [graph[i] for i in graph.inputs]
        if len(given) != len(wanted):
            raise ShapeError(f"graph {graph.name!r} takes {len(wanted)} inputs, got {len(given)}")
        for node, type_ in zip(wanted, given, strict=True):
            if replace(node.type, layout=None) != type_:
                raise ShapeError(
                    f"input %{node.name} is {node.type}, got {type_}",
                    hint="a graph is fixed to its types; compile the module or function to have it specialised",
                )
        return build(graph, self.options, INFERENCE if not graph.updates else TRAINING)
