"""Training steps: forward, backward and update of a model as one executable.

:func:`compile_step` traces ``loss(model(x), target)`` in training mode, appends the gradients of the loss by the
parameters that are trained, lets the optimiser record its update, and compiles the lot.  The new parameters, optimiser
state and batch-norm statistics are updates of the graph: a call leaves them in the model's own arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from irconv import structure
from irconv.backends.base import Backend, Executable
from irconv.compile import TRAINING, Compiled, Options, build
from irconv.concrete import ConcreteValue
from irconv.errors import AttributeValueError, GradientError, TraceError
from irconv.graph import Graph
from irconv.ops.shape import broadcast
from irconv.optim.clipping import clip_norm
from irconv.passes.base import Pass
from irconv.passes.differentiate import differentiate
from irconv.places import is_library
from irconv.state import Variable
from irconv.tensor import Tensor
from irconv.tracing import DeclaresInputs, Scope, Tracer, bind_names, leaf_type, named_scope, program_name, record
from irconv.types import TensorSpec

OPTIMIZER = "optimizer"
"""Scope of the nodes that an optimiser records."""


class Optimizer(Protocol):
    """What a training step asks of an optimiser (see :mod:`irconv.optim`)."""

    parameters: Any

    def bind(self, names: dict[int, str]) -> None: ...

    def apply(self, parameters: list[Any], gradients: list[Tensor]) -> None: ...


@dataclass(frozen=True)
class Accumulation:
    """What a step that accumulates gradients has besides its own program.

    update:  updates the parameters from the totals, and starts these over.
    batches: after how many.
    waiting: how many have been added up since the last update.
    """

    update: Executable
    batches: int
    waiting: int


class Step:
    """A compiled training step.  ``step(x, target)`` trains on one batch and returns the loss it had before the update.

    If the loss function returns ``(loss, extra)``, so does the step: anything may be reported along (accuracy, say).
    ``graph``, ``stages``, ``kernels``, ``memory`` and ``profile`` are those of the executable for the last batch's types.
    """

    def __init__(self, step: Compiled, apply: Compiled | None, accumulate: int):
        self.compiled = step
        self._apply = apply
        self._accumulate = accumulate
        self._waiting = 0

    def __call__(self, *batch: Any) -> Any:
        result = self.compiled(*batch)
        if self._apply is not None:
            self._waiting += 1
            if self._waiting == self._accumulate:
                self.flush()
        loss = result["loss"][()]
        return (loss, result["extra"]) if "extra" in result else loss

    def flush(self) -> None:
        """Apply gradients that have been accumulated and not applied yet (the last batches of an epoch)."""
        if self._apply is not None and self._waiting:
            self._waiting = 0
            self._apply()

    @property
    def accumulation(self) -> Accumulation | None:
        """How gradients of several batches become an update; None where every batch makes one."""
        return None if self._apply is None else Accumulation(self._apply.specialise(), self._accumulate, self._waiting)

    @property
    def graph(self) -> Graph:
        """The graph after all passes."""
        return self.compiled.graph

    @property
    def stages(self) -> Any:
        """The joint graph as traced and after each pass."""
        return self.compiled.stages

    @property
    def kernels(self) -> Any:
        """The kernels in execution order."""
        return self.compiled.kernels

    @property
    def memory(self) -> Any:
        """The memory plan."""
        return self.compiled.memory

    @property
    def backend(self) -> str:
        """Name of the backend that runs it."""
        return self.compiled.backend

    def profile(self, *batch: Any) -> Any:
        """Time each kernel on a batch; parameters and states are left as they were."""
        return self.compiled.profile(*batch)


@dataclass(frozen=True)
class _Recipe:
    """What a training step is made of."""

    model: Any
    loss: Callable[..., Any]
    optimizer: Optimizer
    clip_norm: float | None
    accumulators: dict[int, Tensor]  # by id of the parameter; empty unless gradients are accumulated
    accumulate: int


def compile_step(
    model: Any,
    loss: Callable[..., Any],
    optimizer: Any,
    *specs: Any,
    backend: str | Backend = "auto",
    passes: tuple[Pass, ...] | None = None,
    check: bool = False,
    precision: str = "fast",
    tune: bool = False,
    clip_norm: float | None = None,
    accumulate: int = 1,
    check_finite: bool = True,
) -> Step:
    """A training step: one call is forward, backward and update of ``loss(model(*inputs), target)``.

    specs:        ``TensorSpec`` or example arrays; the last is the target's, the ones before are the model's inputs.
    loss:         returns a scalar, or ``(scalar, extra)`` with tensors to report along, nested as you like.
    clip_norm:    scale gradients down to this global 2-norm.
    accumulate:   add up the mean gradient of this many batches before each update.
    precision:    "fast", or "strict" for algorithms with plain rounding only.
    tune:         choose kernels by measurement, remembered on disk (see :func:`irconv.compile`).
    check_finite: a loss that is NaN or infinite raises NumericsError and leaves every parameter and state as it was.

    The model is traced in training mode whatever its flag says; if the model as a whole is in training mode, submodules that
    were put in evaluation mode stay there.  Only parameters that the optimiser was given are trained, frozen ones
    (``requires_grad_(False)``) receive no gradient.  Freezing, thawing and changing modes later on are followed by the next call.
    """
    if accumulate < 1:
        raise AttributeValueError(f"accumulate must be 1 or more, got {accumulate}")
    if clip_norm is not None and not clip_norm > 0:
        raise AttributeValueError(f"clip_norm must be positive, got {clip_norm}")
    if isinstance(optimizer, type) or not hasattr(optimizer, "apply"):
        raise AttributeValueError(
            f"{optimizer!r} is not an optimiser", hint="give one made for the parameters: optim.Adam(model.parameters())"
        )
    options = Options(backend, passes, check, precision, tune)
    guards = ("loss",) if check_finite else ()
    _bind_names(model, optimizer)
    accumulators = _accumulators(optimizer) if accumulate > 1 else {}
    recipe = _Recipe(model, loss, optimizer, clip_norm, accumulators, accumulate)

    def make(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Executable:
        return build(trace_step(recipe, args), options, TRAINING, guards)

    def make_apply(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Executable:
        return build(_trace_apply(recipe), options, TRAINING)

    modules = list(model.modules()) if hasattr(model, "modules") else []

    def setting() -> Any:
        return tuple([p.requires_grad for p in optimizer.parameters]), tuple([m.own_training for m in modules])

    step = Compiled(make, _Batch(model) if isinstance(model, DeclaresInputs) else None, setting)
    if specs:
        step.specialise(*specs)
    return Step(step, Compiled(make_apply, setting=setting) if accumulate > 1 else None, accumulate)


class _Batch(DeclaresInputs):
    """The arguments of a step whose model declares its inputs: these, and the target."""

    def __init__(self, model: DeclaresInputs):
        self._model = model

    @property
    def input_names(self) -> tuple[str, ...]:
        return (*self._model.input_names, "target")

    def specs(self) -> tuple[TensorSpec, ...] | None:
        return None

    def arrange(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The inputs as the model wants them, those that shapes depend on by value, and the target as it is."""
        return args if len(args) < 2 else (*self._model.arrange(args[:-1], kwargs), args[-1])


def _bind_names(model: Any, optimizer: Any) -> None:
    """Tell the optimiser what the model calls its parameters: its own state is named after them."""
    optimizer.bind(_names(model))


def _names(model: Any) -> dict[int, str]:
    """Paths by id of the parameters; none where the model is a plain function."""
    return {id(p): path for path, p in model.named_parameters()} if hasattr(model, "named_parameters") else {}


def _accumulators(optimizer: Any) -> dict[int, Tensor]:
    made = {}
    for parameter in optimizer.parameters:
        zeros = np.zeros(parameter.shape, parameter.dtype)
        made[id(parameter)] = Tensor(ConcreteValue(zeros, variable=Variable(zeros)))
    return made


def trace_step(recipe: _Recipe, args: tuple[Any, ...]) -> Graph:
    """The joint graph of one training step for a batch of these types."""
    if len(args) < 2:
        raise TraceError(
            f"a training step takes the model's inputs and the target, got {len(args)} argument(s)"
        )
    tracer = Tracer(f"{program_name(recipe.model)}_step", training=True)
    inputs, target = _symbols(tracer, recipe.model, args)
    prediction = record(tracer, recipe.model, *inputs)
    library = is_library(getattr(recipe.loss, "__code__", None) or type(recipe.loss).__call__.__code__)
    with tracer.in_scope(Scope("loss", library)):
        result = record(tracer, recipe.loss, prediction, target)
    loss, extra = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    if not isinstance(loss, Tensor) or loss.size != 1:
        shown = loss.type if isinstance(loss, Tensor) else type(loss).__name__
        raise GradientError(f"the loss must be a scalar tensor, got {shown}", hint="reduce it with mean or sum")
    parameters, gradients = _gradients(tracer, recipe, loss)
    if recipe.accumulators:
        _record_accumulation(tracer, recipe, parameters, gradients)
    else:
        _record_update(tracer, recipe, parameters, gradients)
    return _named_updates(tracer.finish({"loss": loss} if extra is None else {"loss": loss, "extra": extra}))


def _named_updates(graph: Graph) -> Graph:
    """Call what the optimiser computed for ``%p`` ``%new_p``."""
    for state, value in graph.updates.items():
        if graph[value].provenance.scope == OPTIMIZER:
            graph.rename(value, f"new_{graph[state].name}")
    return graph


def _symbols(tracer: Tracer, model: Any, args: tuple[Any, ...]) -> tuple[list[Any], Any]:
    def symbol(path: str, leaf: Any) -> Any:
        type_ = leaf_type(leaf)
        return leaf if type_ is None else tracer.input_tensor(path, type_)

    named = bind_names(model, args[:-1], {})
    inputs: list[Any] = []
    for name, tree in named.items():
        made = structure.map_leaves(symbol, tree, name)
        # the values of a *args parameter are arguments of their own
        inputs.extend(made if isinstance(tree, tuple) and not _same(tree, args) else [made])
    return inputs, structure.map_leaves(symbol, args[-1], "target")


def _same(tree: Any, args: tuple[Any, ...]) -> bool:
    return any(tree is a for a in args)


def _gradients(tracer: Tracer, recipe: _Recipe, loss: Tensor) -> tuple[list[Any], list[Tensor]]:
    """The parameters that the loss depends on and the optimiser trains, and their gradients."""
    graph = tracer.graph
    loss_id = tracer.adopt(loss).id
    upstream = graph.ancestors([loss_id])
    by_variable = {id(p.value.variable): p for p in recipe.optimizer.parameters if p.requires_grad}
    trained = {}
    for state in graph.states:
        parameter = by_variable.get(id(graph.state[graph[state].name]))
        if parameter is not None and state in upstream:
            trained[state] = parameter
    if not trained:
        raise GradientError(
            "the loss depends on no parameter that the optimiser trains",
            hint="give the optimiser model.parameters(), and leave requires_grad on for those to train",
        )
    found = differentiate(graph, loss_id, list(trained))
    return list(trained.values()), [tracer.wrap(graph[found[state]]) for state in trained]


def _record_update(tracer: Tracer, recipe: _Recipe, parameters: list[Any], gradients: list[Tensor]) -> None:
    names = _names(recipe.model)
    for key, total in recipe.accumulators.items():
        tracer.declare(total.value.variable, f"{names.get(key, 'parameter')}.accumulated", "state")

    def update() -> None:
        from_loss = gradients
        if recipe.clip_norm is not None:
            with named_scope("clip_norm"):
                from_loss, _ = clip_norm(gradients, recipe.clip_norm)
        with named_scope(OPTIMIZER):
            recipe.optimizer.apply(parameters, from_loss)

    record(tracer, update)


def _record_accumulation(tracer: Tracer, recipe: _Recipe, parameters: list[Any], gradients: list[Tensor]) -> None:
    def add() -> None:
        with named_scope("accumulate"):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                total = recipe.accumulators[id(parameter)]
                total.assign(total + gradient / recipe.accumulate)

    record(tracer, add)


def _trace_apply(recipe: _Recipe) -> Graph:
    """The update from accumulated gradients, which starts over at zero."""
    tracer = Tracer("apply_gradients", training=True)
    if hasattr(recipe.model, "named_parameters"):
        tracer.adopt_module(recipe.model)
    parameters = [p for p in recipe.optimizer.parameters if p.requires_grad]
    totals = [recipe.accumulators[id(p)] for p in parameters]

    norm = record(tracer, lambda: sum((t.astype("float32") ** 2).sum() for t in totals))
    _record_update(tracer, recipe, parameters, totals)

    def start_over() -> None:
        for total in totals:
            zero = Tensor(ConcreteValue(np.zeros((), total.dtype)))
            total.assign(broadcast(tracer.wrap(tracer.adopt(zero).node), total.shape))

    record(tracer, start_over)
    return _named_updates(tracer.finish({"squared_norm": norm}))
