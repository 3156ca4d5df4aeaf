"""Recurrent layers, unrolled: one set of operations for each step in time.

The products with the input are taken for all steps at once.  W [directions, gates x hidden, input] and R [directions, gates x
hidden, hidden] hold the gates one below the other; B [directions, 2 x gates x hidden] adds to both products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import irconv.nn.functional as F
from irconv.errors import ModelError
from irconv.frontends.onnx.operators.common import tensor_of
from irconv.frontends.onnx.registry import Call, operator
from irconv.op import Value
from irconv.ops import elementwise as e
from irconv.ops.concat import split, stack
from irconv.ops.contract import matmul
from irconv.ops.shape import expand_dims, narrow, reshape, squeeze, transpose, zeros
from irconv.tensor import Tensor
from irconv.tracing import composite

MAX_STEPS = 10_000
"""No longer sequence is unrolled."""

Function = Callable[[Value], Value]
States = tuple[Value, ...]
"""What goes from step to step: the hidden state, and the cell state of an LSTM."""

# --- activations ------------------------------------------------------------------------------------------------------------

_PLAIN: dict[str, Function] = {
    "Relu": e.relu,
    "Tanh": e.tanh,
    "Sigmoid": e.sigmoid,
    "Softsign": F.softsign,
    "Softplus": lambda x: F.softplus(x, threshold=80.0),
}

_BY_ALPHA: dict[str, tuple[float, Callable[[Value, float], Value]]] = {
    "LeakyRelu": (0.01, F.leaky_relu),
    "ThresholdedRelu": (1.0, lambda x, alpha: e.where(e.greater_equal(x, alpha), x, 0)),
    "Elu": (1.0, F.elu),
}

_BY_BOTH: dict[str, tuple[float, float, Callable[[Value, float, float], Value]]] = {
    "Affine": (1.0, 0.0, lambda x, alpha, beta: e.add(e.multiply(x, alpha), beta)),
    "ScaledTanh": (1.0, 1.0, lambda x, alpha, beta: e.multiply(e.tanh(e.multiply(x, beta)), alpha)),
    "HardSigmoid": (0.2, 0.5, lambda x, alpha, beta: e.clip(e.add(e.multiply(x, alpha), beta), 0, 1)),
}


def _activations(call: Call, defaults: Sequence[str], directions: int) -> list[list[Function]]:
    """The activations of each direction, each with the next alpha and beta if it takes any.

    The inputs of the gates are clipped; that of an LSTM's third activation, the cell state, is not (as in onnxruntime).
    """
    names = call.attributes.strings("activations", None) or tuple(defaults) * directions
    if len(names) != len(defaults) * directions:
        raise ModelError(f"{len(names)} activations given, {len(defaults) * directions} needed")
    alphas, betas = (iter(call.attributes.floats(f"activation_{which}", ())) for which in ("alpha", "beta"))
    limit = call.attributes.float("clip", None)
    functions = [_activation(name, alphas, betas) for name in names]
    clipped = [f if i % len(defaults) == 2 else _clipped(f, limit) for i, f in enumerate(functions)]
    return [clipped[i : i + len(defaults)] for i in range(0, len(clipped), len(defaults))]


def _activation(name: str, alphas: Iterator[float], betas: Iterator[float]) -> Function:
    if name in _PLAIN:
        return _PLAIN[name]
    if name in _BY_ALPHA:
        alpha, by_alpha = _BY_ALPHA[name]
        chosen = next(alphas, alpha)
        return lambda x: by_alpha(x, chosen)
    if name in _BY_BOTH:
        alpha, beta, by_both = _BY_BOTH[name]
        pair = next(alphas, alpha), next(betas, beta)
        return lambda x: by_both(x, *pair)
    raise ModelError(f"activation {name!r} is not one of {', '.join([*_PLAIN, *_BY_ALPHA, *_BY_BOTH])}")


def _clipped(function: Function, limit: float | None) -> Function:
    if limit is None or limit <= 0:
        return function
    return lambda x: function(e.clip(x, -limit, limit))


# --- one direction ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Weights:
    """One direction's: r [hidden, gates hidden], the bias of the product with it, and an LSTM's peepholes [3 hidden]."""

    r: Value
    bias: Value | None
    peepholes: Value | None = None


Cell = Callable[[Value, States, Weights, list[Function]], States]
"""``cell(product of the step's input, states, weights, activations)``: the states after the step."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A recurrent layer: x [time, batch, input], weights, states [directions, batch, hidden] and lengths [batch] or None."""

    call: Call
    x: Value
    w: Value
    r: Value
    b: Value | None
    p: Value | None
    lengths: Value | None
    states: tuple[Value, ...]
    batch_first: bool


def _layer(
    call: Call,
    gates: int,
    inputs: tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None],
    states: Sequence[Tensor | None],
    p: Tensor | None = None,
) -> Layer:
    """The checked inputs of a node, with time first; ``inputs`` are X, W, R, B and the lengths."""
    x, w, r, b, lengths = inputs
    batch_first = call.attributes.flag("layout")
    directions = 2 if _direction(call) == "bidirectional" else 1
    if x.ndim != 3 or w.ndim != 3 or r.ndim != 3:
        raise ModelError(f"needs X, W and R of rank 3, got {list(x.shape)}, {list(w.shape)} and {list(r.shape)}")
    hidden = r.shape[2]
    expected = (directions, gates * hidden)
    if w.shape != (*expected, x.shape[2]) or r.shape[:2] != expected or call.attributes.int("hidden_size", hidden) != hidden:
        raise ModelError(
            f"W {list(w.shape)} and R {list(r.shape)} do not fit {directions} directions of {gates} gates for X {list(x.shape)}"
        )
    if b is not None and b.shape != (directions, 2 * gates * hidden):
        raise ModelError(f"B must have shape {[directions, 2 * gates * hidden]}, got {list(b.shape)}")
    if not 1 <= x.shape[1 if batch_first else 0] <= MAX_STEPS:
        raise ModelError(f"a sequence of {x.shape[1 if batch_first else 0]} steps cannot be unrolled: 1 to {MAX_STEPS} can")
    steps = transpose(x, (1, 0, 2)) if batch_first else x
    batch = steps.shape[1]
    first = tuple(_state(state, (directions, batch, hidden), steps, batch_first) for state in states)
    if lengths is not None and lengths.shape != (batch,):
        raise ModelError(f"sequence_lens must have shape {[batch]}, got {list(lengths.shape)}")
    if p is not None and p.shape != (directions, 3 * hidden):
        raise ModelError(f"P must have shape {[directions, 3 * hidden]}, got {list(p.shape)}")
    return Layer(call, steps, w, r, b, p, lengths, first, batch_first)


def _state(state: Tensor | None, shape: tuple[int, ...], like: Value, batch_first: bool) -> Value:
    if state is None:
        return zeros(shape, like)
    moved = transpose(state, (1, 0, 2)) if batch_first and state.ndim == 3 else state
    if moved.shape != shape:
        raise ModelError(f"an initial state has shape {list(state.shape)}, not {list(shape)} (directions, batch, hidden)")
    return moved


def _direction(call: Call) -> str:
    return call.attributes.string("direction", "forward", choices=("forward", "reverse", "bidirectional"))


def _one(x: Value, place: int) -> Value:
    """Entry ``place`` of the first axis."""
    return squeeze(narrow(x, 0, place, place + 1), 0)


def _unrolled(layer: Layer, cell: Cell, defaults: Sequence[str]) -> tuple[Tensor | None, ...]:
    """All outputs of the node: every step's hidden state, then the last states."""
    kind = _direction(layer.call)
    order = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[kind]
    activations = _activations(layer.call, defaults, len(order))
    outputs, last = [], []
    for place, backwards in enumerate(order):
        steps, states = _scan(layer, cell, place, backwards, activations[place])
        outputs.append(steps)
        last.append(states)
    everything = stack(outputs, 1) if layer.call.wants(0) else None
    finals = [stack(values, 0) for values in zip(*last, strict=True)]
    if layer.batch_first:
        everything = None if everything is None else transpose(everything, (2, 0, 1, 3))
        finals = [transpose(value, (1, 0, 2)) for value in finals]
    return None if everything is None else tensor_of(everything), *map(tensor_of, finals)


def _scan(layer: Layer, cell: Cell, place: int, backwards: bool, activations: list[Function]) -> tuple[Value, States]:
    """One direction: the hidden states of all steps [time, batch, hidden], and the last states."""
    w, r = (transpose(_one(value, place), (1, 0)) for value in (layer.w, layer.r))
    bias_w, bias_r = split(_one(layer.b, place), 2, 0) if layer.b is not None else (None, None)
    weights = Weights(r, bias_r, None if layer.p is None else _one(layer.p, place))
    steps, batch, size = layer.x.shape
    products = matmul(reshape(layer.x, (steps * batch, size)), w)
    if bias_w is not None:
        products = e.add(products, bias_w)
    products = reshape(products, (steps, batch, -1))
    states: States = tuple(_one(state, place) for state in layer.states)
    hidden: list[Value] = []
    for t in reversed(range(steps)) if backwards else range(steps):
        new = cell(_one(products, t), states, weights, activations)
        shown = new[0]
        if layer.lengths is not None:
            # a sequence that has ended keeps its states and shows zeros
            runs = expand_dims(e.greater(layer.lengths, t), 1)
            shown = e.where(runs, new[0], 0)
            new = tuple(e.where(runs, after, before) for after, before in zip(new, states, strict=True))
        states = new
        hidden.append(shown)
    return stack(hidden[::-1] if backwards else hidden, 0), states


def _recurrent(state: Value, weights: Weights) -> Value:
    """The product with the hidden state, its bias added."""
    product = matmul(state, weights.r)
    return product if weights.bias is None else e.add(product, weights.bias)


# --- RNN ------------------------------------------------------------------------------------------------------------------------


def _rnn_cell(product: Value, states: States, weights: Weights, activations: list[Function]) -> States:
    return (activations[0](e.add(product, _recurrent(states[0], weights))),)


@operator("RNN", weights=(1, 2, 3))
def rnn(
    call: Call,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """H = f(X W + H R + biases)."""
    with composite("rnn"):
        return _unrolled(_layer(call, 1, (x, w, r, b, sequence_lens), (initial_h,)), _rnn_cell, ("Tanh",))


# --- GRU ------------------------------------------------------------------------------------------------------------------------


def _gru_cell(linear_before_reset: bool) -> Cell:
    def cell(product: Value, states: States, weights: Weights, activations: list[Function]) -> States:
        f, g = activations
        (h,) = states
        size = h.shape[-1]
        if linear_before_reset:
            recurrent = _recurrent(h, weights)
            gates = f(e.add(narrow(product, 1, 0, 2 * size), narrow(recurrent, 1, 0, 2 * size)))
            z, reset = split(gates, 2, 1)
            fresh = e.multiply(reset, narrow(recurrent, 1, 2 * size, 3 * size))
        else:
            upper = _part(weights, 0, 2 * size)
            z, reset = split(f(e.add(narrow(product, 1, 0, 2 * size), _recurrent(h, upper))), 2, 1)
            fresh = _recurrent(e.multiply(reset, h), _part(weights, 2 * size, 3 * size))
        new = g(e.add(narrow(product, 1, 2 * size, 3 * size), fresh))
        return (e.add(e.multiply(e.subtract(1, z), new), e.multiply(z, h)),)

    return cell


def _part(weights: Weights, start: int, stop: int) -> Weights:
    """The recurrent weights of some of the gates."""
    bias = None if weights.bias is None else narrow(weights.bias, 0, start, stop)
    return Weights(narrow(weights.r, 1, start, stop), bias)


@operator("GRU", weights=(1, 2, 3))
def gru(
    call: Call,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """z, r = f(...); H = (1 - z) g(X W + (r H) R + biases) + z H; with linear_before_reset r (H R + bias) instead."""
    cell = _gru_cell(call.attributes.flag("linear_before_reset"))
    with composite("gru"):
        return _unrolled(_layer(call, 3, (x, w, r, b, sequence_lens), (initial_h,)), cell, ("Sigmoid", "Tanh"))


# --- LSTM -----------------------------------------------------------------------------------------------------------------------


def _lstm_cell(coupled: bool) -> Cell:
    def cell(product: Value, states: States, weights: Weights, activations: list[Function]) -> States:
        f, g, h = activations
        hidden, memory = states
        i, o, forget, c = split(e.add(product, _recurrent(hidden, weights)), 4, 1)
        # peepholes let the input, output and forget gates see the cell state
        seen = split(weights.peepholes, 3, 0) if weights.peepholes is not None else (None,) * 3
        i = f(_seeing(i, memory, seen[0]))
        kept = e.subtract(1, i) if coupled else f(_seeing(forget, memory, seen[2]))
        memory = e.add(e.multiply(kept, memory), e.multiply(i, g(c)))
        o = f(_seeing(o, memory, seen[1]))
        return e.multiply(o, h(memory)), memory

    return cell


def _seeing(gate: Value, memory: Value, peephole: Value | None) -> Value:
    return gate if peephole is None else e.add(gate, e.multiply(memory, peephole))


@operator("LSTM", weights=(1, 2, 3, 7))
def lstm(
    call: Call,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    p: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """i, o, f = f(...); C = f C + i g(...); H = o h(C)."""
    with composite("lstm"):
        layer = _layer(call, 4, (x, w, r, b, sequence_lens), (initial_h, initial_c), p)
        return _unrolled(layer, _lstm_cell(call.attributes.flag("input_forget")), ("Sigmoid", "Tanh", "Tanh"))
