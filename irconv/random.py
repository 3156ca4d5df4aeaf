"""Random numbers with a seed: the same bits on every backend, in every run, with any number of threads.

A :class:`Generator` holds a key and a step.  Inside a traced program each random draw gets a stream of its own, from the path
of the module it is made in and the number of the draw there, so a traced training step draws other numbers at every step and
for every layer, and the same ones when it is run again from the same state.  The generator of :func:`default_generator`
serves dropout and initialisation unless another is named.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from irconv.concrete import ConcreteValue, as_array, current_tracer
from irconv.errors import AttributeValueError, StateError, TraceError
from irconv.ops.random import philox_bits, random_bernoulli, random_bits, random_normal, random_uniform
from irconv.state import Variable
from irconv.tensor import Tensor
from irconv.types import F32

EAGER_STREAM = 0xEA6E12
"""First word of the stream of draws outside of any trace; their count is the second."""

PIECE = 2**16
"""Numbers that arrays are filled with at a time: the temporaries stay in a cache, and are small beside a large weight."""

_STATES = ("key", "step", "draws")


class Generator:
    """A source of random numbers.

    key:   two 32-bit words made from the seed.
    step:  how many times traced training steps have drawn; each run of one adds 1.
    draws: how many draws have been made outside of traces.
    """

    def __init__(self, seed: int = 0):
        self.key = _state(_key(seed))
        self.step = _state(np.zeros((), np.uint64))
        self.draws = _state(np.zeros((), np.uint64))

    def manual_seed(self, seed: int) -> Generator:
        """Start again from a seed; returns itself.  Compiled programs that draw from this generator follow."""
        self.load_state_dict({"key": _key(seed), "step": np.uint64(0), "draws": np.uint64(0)})
        return self

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of key, step and draws."""
        return {name: np.array(getattr(self, name).numpy()) for name in _STATES}

    def checked_state(self, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The arrays of a saved state, found to fit; StateError otherwise."""
        if set(state) != set(_STATES):
            raise StateError(f"the state of a random generator is {', '.join(_STATES)}, got {', '.join(sorted(state))}")
        arrays = {name: as_array(state[name]) for name in _STATES}
        for name, array in arrays.items():
            own = getattr(self, name)
            if array.shape != own.shape or array.dtype != own.dtype:
                raise StateError(
                    f"the {name} of a random generator is {own.type}, got {array.dtype}{list(array.shape)}"
                )
        return arrays

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that was saved.  StateError, with nothing changed, if it does not fit."""
        for name, array in self.checked_state(state).items():
            getattr(self, name).value.variable.assign(array)

    def bits(self, shape: Any) -> Tensor:
        """Uniform 32-bit words, u32[shape]."""
        dims = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        tracer = current_tracer()
        if tracer is None:
            count, stream = self._draw()
            step = Tensor(ConcreteValue(np.asarray(count, np.uint64)))
            return _tensor(random_bits(self.key, step, stream, dims))
        path = tracer.scope
        call = tracer.calls[path] = tracer.calls.get(path, 0) + 1
        return _tensor(random_bits(self.key, self._traced_step(tracer), (zlib.crc32(path.encode()), call), dims))

    def _draw(self) -> tuple[int, tuple[int, int]]:
        """The step and the stream of one more draw outside of traces."""
        count = self.draws.value.variable
        with count.lock:
            draw = int(count.array)
            count.assign(np.uint64(draw + 1))
        return draw >> 32, (EAGER_STREAM, draw & 0xFFFFFFFF)  # beyond 2^32 draws the count goes on in the step

    def _traced_step(self, tracer: Any) -> Tensor:
        """The step as the trace found it: read once, and in a training trace counted once."""
        known = tracer.generators.get(id(self))
        if known is None:
            name = "random" if not tracer.generators else f"random{len(tracer.generators)}"
            tracer.declare(self.key.value.variable, f"{name}.key", "state")
            tracer.declare(self.step.value.variable, f"{name}.step", "state")
            before = tracer.wrap(tracer.adopt(self.step).node)
            known = tracer.generators[id(self)] = (self, before)
            if tracer.training:
                self.step.assign(before + 1)
        step: Tensor = known[1]
        return step

    def uniform(self, shape: Any, low: float = 0.0, high: float = 1.0, dtype: Any = F32) -> Tensor:
        """Numbers evenly spread over [low, high)."""
        return _spread(_tensor(random_uniform(self.bits(shape), dtype)), low, high)

    def normal(self, shape: Any, mean: float = 0.0, std: float = 1.0, dtype: Any = F32) -> Tensor:
        """Normal numbers of the given mean and standard deviation."""
        dims = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        return _moved(_tensor(random_normal(self.bits((2, *dims)), dtype)), mean, std)

    def bernoulli(self, shape: Any, probability: float) -> Tensor:
        """True with the given probability, bool[shape]."""
        if not 0 <= probability <= 1:
            raise AttributeValueError(f"{probability} is not a probability", hint="give a number from 0 to 1")
        return _tensor(random_bernoulli(self.bits(shape), float(probability)))

    def fill_uniform(self, tensor: Tensor, low: float = 0.0, high: float = 1.0) -> None:
        """Give a parameter or buffer the numbers of :meth:`uniform`, outside of traces, a piece at a time."""
        self._fill(tensor, 1, lambda bits: _spread(_tensor(random_uniform(bits, tensor.dtype)), low, high))

    def fill_normal(self, tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> None:
        """Give a parameter or buffer the numbers of :meth:`normal`, outside of traces, a piece at a time."""
        self._fill(tensor, 2, lambda bits: _moved(_tensor(random_normal(bits, tensor.dtype)), mean, std))

    def _fill(self, tensor: Tensor, rows: int, numbers_of: Callable[[Tensor], Tensor]) -> None:
        """Numbers made of ``rows`` words each, which lie as in the draw of a whole array u32[rows, *shape]."""
        variable = tensor.value.variable if isinstance(tensor.value, ConcreteValue) else None
        if variable is None:
            raise TraceError("only parameters and buffers can be filled", hint="draw a tensor: generator.uniform(shape)")
        step, stream = self._draw()
        key = self.key.numpy()
        with variable.lock:
            in_place = isinstance(variable.array, np.ndarray)  # always contiguous; others are on a device
            made = variable.array if in_place else np.empty(tensor.shape, tensor.dtype)
            flat = made.reshape(-1)
            for start in range(0, flat.size, PIECE):
                count = min(PIECE, flat.size - start)
                words = [philox_bits(key, step, stream, count, row * flat.size + start) for row in range(rows)]
                flat[start : start + count] = numbers_of(Tensor(ConcreteValue(np.stack(words)))).numpy().reshape(-1)
            if in_place:
                variable.touch()
            else:
                variable.assign(made)


def _spread(numbers: Tensor, low: float, high: float) -> Tensor:
    """Numbers of [0, 1) over [low, high)."""
    return numbers if (low, high) == (0.0, 1.0) else numbers * (high - low) + low


def _moved(numbers: Tensor, mean: float, std: float) -> Tensor:
    """Normal numbers of mean 0 and deviation 1 with others."""
    return numbers if (mean, std) == (0.0, 1.0) else numbers * std + mean


def _state(array: np.ndarray) -> Tensor:
    variable = Variable(np.array(array))
    return Tensor(ConcreteValue(variable.array, variable=variable))


def _key(seed: int) -> np.ndarray:
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        raise AttributeValueError(f"seed {seed!r} is not an integer from 0 to 2^64 - 1")
    return np.array([int(seed) & 0xFFFFFFFF, int(seed) >> 32], np.uint32)


def _tensor(value: Any) -> Tensor:
    assert isinstance(value, Tensor)
    return value


_DEFAULT = Generator(0)


def default_generator() -> Generator:
    """The generator that dropout, initialisation and the functions below draw from."""
    return _DEFAULT


def manual_seed(seed: int) -> Generator:
    """Start the default generator again from a seed; returns it."""
    return _DEFAULT.manual_seed(seed)


def uniform(shape: Any, low: float = 0.0, high: float = 1.0, dtype: Any = F32) -> Tensor:
    """Numbers evenly spread over [low, high), from the default generator."""
    return _DEFAULT.uniform(shape, low, high, dtype)


def normal(shape: Any, mean: float = 0.0, std: float = 1.0, dtype: Any = F32) -> Tensor:
    """Normal numbers of the given mean and standard deviation, from the default generator."""
    return _DEFAULT.normal(shape, mean, std, dtype)


def bernoulli(shape: Any, probability: float) -> Tensor:
    """True with the given probability, from the default generator."""
    return _DEFAULT.bernoulli(shape, probability)
