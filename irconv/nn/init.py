"""Initialisers: each fills a parameter in place, with numbers from a generator, and returns it.

``fan_in`` is how many inputs one output sums over, ``fan_out`` how many outputs one input reaches; weights are
[out, in, *kernel].
"""

from __future__ import annotations

import math

import numpy as np

from irconv.concrete import recording
from irconv.errors import AttributeValueError, ShapeError
from irconv.random import Generator, default_generator
from irconv.tensor import Tensor

GAINS = {
    "linear": 1.0,
    "conv1d": 1.0,
    "conv2d": 1.0,
    "conv3d": 1.0,
    "sigmoid": 1.0,
    "tanh": 5.0 / 3,
    "relu": math.sqrt(2.0),
    "selu": 0.75,
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which an activation shrinks the standard deviation; ``param`` is leaky_relu's slope (0.01)."""
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in GAINS:
        raise _refused(f"no gain is known for {nonlinearity!r}; known are leaky_relu, {', '.join(GAINS)}")
    return GAINS[nonlinearity]


def fans(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight [out, in, *kernel]."""
    if tensor.ndim < 2:
        raise ShapeError(f"fan in and fan out need a weight of at least 2 axes, got shape {list(tensor.shape)}")
    taps = math.prod(tensor.shape[2:])
    return tensor.shape[1] * taps, tensor.shape[0] * taps


def _refused(message: str) -> AttributeValueError:
    return AttributeValueError(message)


def _fill(tensor: Tensor, values: np.ndarray) -> Tensor:
    with recording(None):  # at once, even while a program is traced
        tensor.assign(np.broadcast_to(values, tensor.shape))
    return tensor


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Evenly spread over [a, b)."""
    with recording(None):  # at once, even while a program is traced
        (generator or default_generator()).fill_uniform(tensor, a, b)
    return tensor


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with the given mean and standard deviation."""
    with recording(None):
        (generator or default_generator()).fill_normal(tensor, mean, std)
    return tensor


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    """Normal, with numbers outside [a, b] drawn again."""
    low, high = (a - mean) / std, (b - mean) / std
    if not low < high or max(low, -high) > 4:
        raise _refused(f"[{a}, {b}] lies too far from mean {mean} with deviation {std} to draw from")
    source = generator or default_generator()
    with recording(None):
        numbers = np.array(source.normal(tensor.shape, dtype=tensor.dtype).numpy())
        while (outside := (numbers < low) | (numbers > high)).any():
            numbers[outside] = source.normal((int(outside.sum()),), dtype=tensor.dtype).numpy()
    return _fill(tensor, numbers * std + mean)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """One value everywhere."""
    return _fill(tensor, np.asarray(val, tensor.dtype))


def zeros_(tensor: Tensor) -> Tensor:
    """Zeros."""
    return constant_(tensor, 0)


def ones_(tensor: Tensor) -> Tensor:
    """Ones."""
    return constant_(tensor, 1)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform in +-gain sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    bound = gain * math.sqrt(6.0 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with deviation gain sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(fans(tensor))), generator)


def _kaiming_deviation(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise _refused(f"mode {mode!r} is neither 'fan_in' nor 'fan_out'")
    return calculate_gain(nonlinearity, a) / math.sqrt(max(1, fans(tensor)[mode == "fan_out"]))


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Uniform in +-gain sqrt(3 / fan) (He et al. 2015); ``a`` is leaky_relu's slope."""
    bound = math.sqrt(3.0) * _kaiming_deviation(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Normal with deviation gain / sqrt(fan) (He et al. 2015); ``a`` is leaky_relu's slope."""
    return normal_(tensor, 0.0, _kaiming_deviation(tensor, a, mode, nonlinearity), generator)


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Rows (or columns, if there are fewer) that are orthonormal, times gain (Saxe et al. 2013)."""
    rows, columns = tensor.shape[0], fans(tensor)[0]
    with recording(None):
        square = (
            (generator or default_generator()).normal((max(rows, columns), min(rows, columns)), dtype="f64").numpy()
        )
    q, r = np.linalg.qr(square)
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)  # makes the distribution uniform
    return _fill(tensor, (gain * (q if rows >= columns else q.T)).reshape(tensor.shape).astype(tensor.dtype))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution that passes as many of its input channels on as it can."""
    if tensor.ndim < 3 or tensor.shape[0] % groups:
        raise ShapeError(
            f"dirac_ takes a weight [out, in, *kernel] with out divisible by {groups}, got {list(tensor.shape)}"
        )
    values = np.zeros(tensor.shape, tensor.dtype)
    middle = tuple(k // 2 for k in tensor.shape[2:])
    per_group = tensor.shape[0] // groups
    for group in range(groups):
        for channel in range(min(per_group, tensor.shape[1])):
            values[(group * per_group + channel, channel, *middle)] = 1
    return _fill(tensor, values)
