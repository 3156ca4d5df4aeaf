"""Gradients: define-by-run ``backward()``, and ``grad``, ``vjp`` and ``differentiate`` as functions.

All of them assemble or trace an ordinary graph and run :func:`irconv.passes.differentiate.differentiate` on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from irconv import structure
from irconv.concrete import ConcreteValue, as_array, current_tracer, grad_enabled, grad_mode
from irconv.errors import GradientError
from irconv.graph import Graph, Provenance
from irconv.interpret import evaluate
from irconv.op import NO_ATTRIBUTES, OPS, Fusion, Value
from irconv.ops.custom import attach_gradient
from irconv.passes.differentiate import differentiate as append_gradients
from irconv.places import Location
from irconv.tensor import ABOVE, EAGER, Tensor, as_tensor, concrete
from irconv.tracing import TensorBuilder, Tracer, is_array

# --- define by run ---------------------------------------------------------------------------------------------------------


def graph_of(tensor: Tensor) -> Graph:
    """The graph that computed a tracked concrete tensor; leaves that require a gradient are its parameters."""
    graph, ids = _assemble(tensor)
    graph.set_output("", ids[id(tensor.value)])
    return graph


def _assemble(tensor: Tensor) -> tuple[Graph, dict[int, int]]:
    """Graph, and node ids by the identity of each concrete value met."""
    graph = Graph("recorded")
    ids: dict[int, int] = {}
    for value in _in_order(tensor.value):
        producer = value.producer
        if producer is not None:
            place = Provenance(producer.location)
            operands = [ids[id(v)] for v in producer.operands]
            ids[id(value)] = graph.add(producer.op, producer.attributes, operands, provenance=place).id
        elif value.tracked:
            ids[id(value)] = graph.add_input("leaf", value.type).id
        else:
            constant = OPS["constant"]
            ids[id(value)] = graph.add(constant, constant.attributes(np.array(value.array))).id
    return graph, ids


def _in_order(root: ConcreteValue) -> list[ConcreteValue]:
    """The values a value was computed from and itself, operands first."""
    order: list[ConcreteValue] = []
    seen: set[int] = set()
    stack: list[tuple[ConcreteValue, bool]] = [(root, False)]
    while stack:
        value, done = stack.pop()
        if done:
            order.append(value)
        elif id(value) not in seen:
            seen.add(id(value))
            stack.append((value, True))
            if value.producer is not None:
                stack.extend((operand, False) for operand in reversed(value.producer.operands))
    return order


def backward(tensor: Tensor, gradient: Any = None) -> None:
    """Accumulate into ``leaf.grad`` the gradient of ``tensor`` by each leaf that requires one (``Tensor.backward``)."""
    if tensor.is_traced:
        raise GradientError(
            "backward() of a traced tensor", hint="use irconv.grad or irconv.differentiate on the program"
        )
    if not tensor.requires_grad:
        raise GradientError(
            "backward() of a tensor that no gradient flows through",
            hint="make the inputs with requires_grad=True, outside of no_grad()",
        )
    graph, ids = _assemble(tensor)
    values = {i: v for v in _in_order(tensor.value) if (i := ids[id(v)]) is not None}
    leaves = [v for v in values.values() if v.tracked and v.producer is None]
    data = {ids[id(v)]: v.array for v in values.values()}
    seed = None
    if gradient is not None:
        seed_array = as_array(as_tensor(gradient, like=tensor).numpy())
        if seed_array.shape != tensor.shape:
            raise GradientError(
                f"the gradient has shape {list(seed_array.shape)}, the tensor {list(tensor.shape)}"
            )
        seed = graph.add_input("gradient", tensor.type).id
        data[seed] = seed_array
    found = append_gradients(graph, ids[id(tensor.value)], [ids[id(v)] for v in leaves], seed)
    _refuse_stale(graph, ids, values.values())
    results = evaluate(graph, data, found.values())
    for leaf in leaves:
        _accumulate(leaf, results[found[ids[id(leaf)]]])


def _refuse_stale(graph: Graph, ids: dict[int, int], recorded: Iterable[ConcreteValue]) -> None:
    """GradientError if the backward part of ``graph`` reads a parameter or buffer that was written after the forward read it.

    recorded: the values of the forward part, operands first; ids: their nodes.
    """
    known = set(ids.values())
    stale: dict[int, Location | None] = {}
    for value in recorded:
        producer = value.producer
        if producer is None:
            continue
        for operand, version in zip(producer.operands, producer.versions, strict=True):
            if operand.variable is not None and operand.variable.version != version:
                stale[ids[id(operand)]] = producer.location
            if ids[id(operand)] in stale and producer.op.fusion is Fusion.VIEW:
                stale[ids[id(value)]] = producer.location  # shares the array
    for node_id, place in stale.items():
        if any(user.id not in known for user, _ in graph.users(node_id)):
            raise GradientError(
                f"the gradient needs a parameter or buffer of type {graph[node_id].type} as it was when the forward ran, "
                "and it has been written since",
                location=place,
                hint="run the forward again after optimizer.step(), assign() or load_state_dict()",
            )


def _accumulate(leaf: ConcreteValue, gradient: np.ndarray) -> None:
    owner = leaf.owner() if leaf.owner is not None else None
    if owner is not None:
        total = gradient if owner.grad is None else owner.grad.value.array + gradient
        owner.grad = Tensor(ConcreteValue(np.array(total)))


ABOVE.backward = backward


# --- gradients as functions ----------------------------------------------------------------------------------------------------


def differentiate(graph: Graph, wrt: Sequence[str] | None = None, output: str | None = None) -> Graph:
    """The joint graph: forward and backward.

    wrt: names of inputs or states; by default all parameters that are trained, or without any all floating-point inputs.
    output: path of the output to differentiate (the only one by default).  If it is not a scalar, the gradient to start
    from becomes an input ``d_<output>``.
    The gradient of ``x`` is an output ``d_x`` beside the graph's own outputs (``d_x_1`` if there is one of that name).
    """
    joint = graph.copy()
    joint.name = f"{graph.name}_joint"
    target = joint[_chosen_output(graph, output)]
    leaves = [joint[name] for name in wrt] if wrt is not None else _default_wrt(joint)
    if not leaves:
        raise GradientError(f"graph {graph.name!r} has neither parameters nor floating-point inputs to differentiate by")
    seed = None
    if target.type.size != 1:
        seed = joint.add_input(f"d_{target.name}", target.type).id
    found = append_gradients(joint, target.id, [leaf.id for leaf in leaves], seed)
    for leaf in leaves:
        joint.set_output(_free_path(joint, f"d_{leaf.name}"), found[leaf.id])
    return joint


def _free_path(graph: Graph, path: str) -> str:
    """``path``, or with the first free suffix if an output has that name (the gradient of a gradient by the same leaf)."""
    candidates = (path, *(f"{path}_{i}" for i in range(1, len(graph.outputs) + 1)))
    return next(candidate for candidate in candidates if candidate not in graph.outputs)


def _chosen_output(graph: Graph, output: str | None) -> int:
    if output is None and len(graph.outputs) == 1:
        return next(iter(graph.outputs.values()))
    if output is None or output not in graph.outputs:
        raise GradientError(
            f"graph {graph.name!r} has outputs {', '.join(map(repr, graph.outputs))}", hint="say which one: output='...'"
        )
    return graph.outputs[output]


def _default_wrt(graph: Graph) -> list[Any]:
    trained = [graph[i] for i in graph.states if graph[i].attributes.role == "param"]
    return trained or [graph[i] for i in graph.inputs if graph[i].type.dtype.is_float]


def value_and_grad(function: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., tuple[Any, Any]]:
    """A function returning (value, gradient) of a scalar-valued function, by its arguments number ``argnums``.

    The gradient is one tensor for an integer ``argnums``, a tuple for a sequence.  It works on concrete tensors and inside a
    trace, so gradients of gradients are obtained by applying it again.
    """
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def both(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        missing = [n for n in numbers if not 0 <= n < len(args)]
        if missing:
            raise GradientError(f"argument {missing[0]} was asked for, {len(args)} were given")
        value, pull = _pullback(function, args, kwargs, numbers)
        gradients = pull(None)
        return value, gradients[0] if isinstance(argnums, int) else gradients

    return both


def grad(function: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The gradient of a scalar-valued function, as a function of the same arguments (see :func:`value_and_grad`)."""
    both = value_and_grad(function, argnums)

    def gradient(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    return gradient


def vjp(function: Callable[..., Any], *args: Any) -> tuple[Any, Callable[[Any], tuple[Tensor, ...]]]:
    """``function(*args)``, and the pullback: output gradient -> gradient by each argument (vector-Jacobian product)."""
    return _pullback(function, args, {}, tuple(range(len(args))))


Pull = Callable[[Any], tuple[Tensor, ...]]


def _pullback(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], numbers: tuple[int, ...]
) -> tuple[Any, Pull]:
    if current_tracer() is not None:
        return _pullback_in_trace(current_tracer(), function, args, kwargs, numbers)
    return _pullback_of_data(function, args, kwargs, numbers)


def _pullback_in_trace(
    tracer: Tracer, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], numbers: tuple[int, ...]
) -> tuple[Any, Pull]:
    # copies set the arguments apart from other uses of the same values, which do not count
    own = [_differentiable(a, i) if i in numbers else a for i, a in enumerate(args)]
    ids = {}
    for i in numbers:
        value = tracer.adopt(own[i])
        own[i] = tracer.wrap(tracer.graph.add(OPS["copy"], NO_ATTRIBUTES, [value.id], provenance=tracer.provenance))
        ids[i] = tracer.adopt(own[i]).id
    result = function(*own, **kwargs)
    output = tracer.adopt(_single(result))

    def pull(gradient: Any) -> tuple[Tensor, ...]:
        seed = None if gradient is None else tracer.adopt(as_tensor(gradient, like=_single(result))).id
        found = append_gradients(tracer.graph, output.id, [ids[i] for i in numbers], seed)
        return tuple(tracer.wrap(tracer.graph[found[ids[i]]]) for i in numbers)

    return result, pull


def _pullback_of_data(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], numbers: tuple[int, ...]
) -> tuple[Any, Pull]:
    outside = grad_enabled()
    own, named = structure.map_leaves(lambda path, leaf: as_tensor(leaf) if is_array(leaf) else leaf, (args, kwargs))
    own = [_set_apart(_differentiable(a, i), i) if i in numbers else a for i, a in enumerate(own)]
    apart = [own[i].value for i in numbers]
    with grad_mode(True):
        result = _single(function(*own, **named))
    order = _in_order(concrete(result))
    hidden = {id(v) for v in apart}
    # whether somebody else wants gradients through this one
    watched = outside and any(v.tracked and v.producer is None and id(v) not in hidden for v in order)

    def pull(gradient: Any) -> tuple[Tensor, ...]:
        graph, ids = _assemble(result)
        tensors = {ids[id(v)]: Tensor(v) for v in order}
        seed = None
        if gradient is not None:
            given = _matching(gradient, result)
            seed = graph.add_input("gradient", given.type).id
            tensors[seed] = given
        found = append_gradients(graph, ids[id(result.value)], [ids[id(v)] for v in apart if id(v) in ids], seed)
        _refuse_stale(graph, ids, order)
        if watched or (outside and seed is not None and tensors[seed].requires_grad):
            made = _replay(graph, tensors, found.values())
        else:
            arrays = evaluate(graph, {i: t.value.array for i, t in tensors.items()}, found.values())
            made = {i: _plain(arrays[i]) for i in found.values()}
        return tuple(made[found[ids[id(v)]]] if id(v) in ids else _plain(np.zeros_like(v.array)) for v in apart)

    return result if watched else _plain(concrete(result).array), pull


def _differentiable(argument: Any, number: int) -> Tensor:
    if isinstance(argument, (dict, list, tuple)):
        raise GradientError(
            f"argument {number} is a {type(argument).__name__}; gradients are by tensors",
            hint="give each tensor as an argument of its own, and name them with argnums",
        )
    return as_tensor(argument)


def _set_apart(x: Tensor, number: int) -> Tensor:
    """A tensor of the same value that other uses of ``x`` do not count for; gradients by ``x`` still flow through it."""
    if not x.type.dtype.is_float:
        raise GradientError(f"argument {number} is {x.type}; only floating-point values have gradients")
    if x.requires_grad and grad_enabled():
        return x.copy()
    return Tensor(ConcreteValue(concrete(x).array, tracked=True))


def _replay(graph: Graph, tensors: dict[int, Tensor], wanted: Iterable[int]) -> dict[int, Tensor]:
    """Tensors by node id, computed from those given, each remembering how: for gradients of gradients."""
    made = dict(tensors)
    needed = graph.ancestors(wanted)
    for node in graph:
        if node.id in needed and node.id not in made:
            if node.op.name == "constant":
                made[node.id] = _plain(node.attributes.value)
            else:
                made[node.id] = EAGER.emit(node.op, node.attributes, [made[i] for i in node.operands])
    return made


def _matching(gradient: Any, output: Tensor) -> Tensor:
    given = as_tensor(gradient, like=output)
    if given.shape != output.shape:
        raise GradientError(f"the gradient has shape {list(given.shape)}, the output {list(output.shape)}")
    return given


def _plain(array: np.ndarray) -> Tensor:
    return Tensor(ConcreteValue(np.array(array)))


def _single(result: Any) -> Tensor:
    if not isinstance(result, Tensor):
        raise GradientError(
            f"the function returned a {type(result).__name__}; its gradient needs one tensor"
        )
    return result


# --- custom differentiable functions ------------------------------------------------------------


class Context:
    """What a custom function's forward leaves for its backward: tensors through ``save``, anything else as attributes."""

    def __init__(self) -> None:
        self.saved: tuple[Tensor, ...] = ()

    def save(self, *tensors: Tensor) -> None:
        """Keep tensors (arguments, results or intermediates of forward) for backward, which finds them in ``saved``."""
        self.saved = tensors


class Function:
    """A differentiable function with its own backward.

    Subclass it and call :meth:`apply`::

        class Cube(irconv.Function):
            @staticmethod
            def forward(context, x):
                context.save(x)
                return x * x * x

            @staticmethod
            def backward(context, d):
                (x,) = context.saved
                return 3 * x * x * d

    ``forward(context, *arguments)`` returns a tensor or a tuple of tensors; ``backward(context, *gradients)`` takes one
    gradient per result and returns one (or None) per tensor argument.  It must be linear in the gradients, as every
    derivative is.  Both are ordinary tensor code, so they trace, compile and can be differentiated again.
    """

    @staticmethod
    def forward(context: Context, *arguments: Any) -> Any:
        raise NotImplementedError

    @staticmethod
    def backward(context: Context, *gradients: Tensor) -> Any:
        raise NotImplementedError

    @classmethod
    def apply(cls, *arguments: Any) -> Any:
        """Run the function on tensors and other values."""
        inputs = [a for a in arguments if isinstance(a, Tensor)]
        if not inputs:
            raise GradientError(f"{cls.__name__}.apply needs at least one tensor")
        context = Context()
        # attach_gradient cuts the gradient of what forward computes; saved intermediates keep theirs for second derivatives
        result = cls.forward(context, *arguments)
        outputs = result if isinstance(result, tuple) else (result,)
        strange = [type(y).__name__ for y in outputs if not isinstance(y, Tensor)]
        if strange:
            raise GradientError(
                f"{cls.__name__}.forward returned a {strange[0]}", hint="return a tensor or a tuple of tensors"
            )
        attached = tuple(
            attach_gradient(y, inputs, context.saved, cls.__name__, _rule(cls, context, outputs, k, len(inputs)))
            for k, y in enumerate(outputs)
        )
        return attached if isinstance(result, tuple) else attached[0]


def _rule(function: type[Function], context: Context, outputs: tuple[Tensor, ...], which: int, inputs: int) -> Any:
    """The gradient rule of output number ``which``: backward with zeros for the other outputs' gradients (it is linear)."""
    types = [y.type for y in outputs]

    def rule(saved: Sequence[Value], d: Value) -> Sequence[Value | None]:
        home = d.builder
        builder = TensorBuilder(home.graph)
        builder.provenance = home.provenance
        inner = Context()
        inner.__dict__.update(context.__dict__)
        inner.saved = tuple(builder.wrap(home.adopt(s).node) for s in saved)
        gradients = [
            builder.wrap(home.adopt(d).node) if k == which else Tensor(ConcreteValue(np.zeros(t.shape, t.dtype.numpy)))
            for k, t in enumerate(types)
        ]
        found = function.backward(inner, *gradients)
        found = found if isinstance(found, tuple) else (found,)
        if len(found) != inputs:
            raise GradientError(
                f"{function.__name__}.backward returned {len(found)} gradients for {inputs} tensor arguments",
                hint="return one gradient, or None, for each tensor given to apply",
            )
        return [None if g is None else home.value(builder.adopt(as_tensor(g)).id) for g in found]

    return rule

