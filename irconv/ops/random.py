"""Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, 2011).

A random number is a function of key, step, stream and its place, with nothing to update between them: the same four give the
same bits on every backend and with any number of threads.  The key seeds the whole model, the step counts calls, the stream tells
one random node from another:

    subkey   = first two words of philox(key, (stream[0], stream[1], 0, 0))
    block b  = philox(subkey, (b mod 2^32, b div 2^32, step mod 2^32, step div 2^32))        four words
    bits[i]  = word i mod 4 of block i div 4                                                 i: row-major place in the result
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv.errors import AttributeValueError, DTypeError, ShapeError
from irconv.op import Fusion, NoGradient, OpDef, Value, emit, no_work, register
from irconv.ops.elementwise import Operand, cast, cos, floor_divide, less, log, multiply, sqrt, subtract
from irconv.ops.shape import int_tuple, narrow, squeeze
from irconv.types import F32, U32, U64, TensorType, as_dtype, tensor_type

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
"""The golden ratio and sqrt(3) - 1: what each round adds to the key."""

CHUNK = 2**14
"""How many blocks are made at a time, so that the rounds stay in cache."""

_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)


def philox(key: np.ndarray, counter: np.ndarray) -> np.ndarray:
    """Philox4x32-10: ``key`` of 2 and ``counter`` of 4 32-bit words in the last axis give 4 words; leading axes broadcast."""
    k0, k1 = (np.asarray(key, np.uint64)[..., i] for i in range(2))
    c0, c1, c2, c3 = (np.asarray(counter, np.uint64)[..., i] for i in range(4))
    for _ in range(ROUNDS):
        first, second = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (second >> _WORD) ^ c1 ^ k0, second & _LOW, (first >> _WORD) ^ c3 ^ k1, first & _LOW
        k0, k1 = (k0 + np.uint64(WEYL[0])) & _LOW, (k1 + np.uint64(WEYL[1])) & _LOW
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3), axis=-1).astype(np.uint32)


def philox_bits(key: np.ndarray, step: int, stream: tuple[int, int], count: int, first: int = 0) -> np.ndarray:
    """``count`` words of one stream at one step from word ``first`` on, as the top of the module says."""
    subkey = philox(key, np.array([*stream, 0, 0], np.uint64))[:2]
    begin, skipped = divmod(first, 4)
    words = np.empty((-(-(skipped + count) // 4), 4), np.uint32)
    for start in range(0, len(words), CHUNK):
        blocks = np.arange(begin + start, begin + min(start + CHUNK, len(words)), dtype=np.uint64)
        counter = np.empty((len(blocks), 4), np.uint64)
        counter[:, 0], counter[:, 1] = blocks & _LOW, blocks >> _WORD
        counter[:, 2], counter[:, 3] = step & 0xFFFFFFFF, step >> 32
        words[start : start + len(blocks)] = philox(subkey, counter)
    return words.reshape(-1)[skipped : skipped + count]


# --- random_bits -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RandomBitsAttributes:
    """stream: two 32-bit numbers that no other random node of the model has; shape: of the result."""

    stream: tuple[int, int]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.stream) != 2 or any(not 0 <= word < 2**32 for word in self.stream):
            raise AttributeValueError(f"stream {self.stream} is not a pair of integers from 0 to 2^32 - 1")


def random_bits(key: Value, step: Value, stream: tuple[int, int], shape: Any) -> Value:
    """Uniform 32-bit words, u32[shape], from key u32[2] and step u64[] (see the top of the module)."""
    attributes = RandomBitsAttributes((int(stream[0]), int(stream[1])), int_tuple(shape, "shape"))
    return emit(RANDOM_BITS, attributes, key, step)


def _random_bits_type(attributes: RandomBitsAttributes, key: TensorType, step: TensorType) -> TensorType:
    if key.dtype is not U32 or step.dtype is not U64:
        raise DTypeError(f"random bits need a u32 key and a u64 step, got {key.dtype} and {step.dtype}")
    if key.shape != (2,) or step.shape != ():
        raise ShapeError(f"random bits need a key of shape [2] and a scalar step, got {list(key.shape)} and {list(step.shape)}")
    return tensor_type(U32, attributes.shape)


def _random_bits_reference(attributes: RandomBitsAttributes, key: np.ndarray, step: np.ndarray) -> np.ndarray:
    return philox_bits(key, int(step), attributes.stream, math.prod(attributes.shape)).reshape(attributes.shape)


RANDOM_BITS = register(
    OpDef(
        "random_bits",
        ("key", "step"),
        infer=_random_bits_type,
        reference=_random_bits_reference,
        gradient=NoGradient("random bits depend on no differentiable value"),
        fusion=Fusion.RANDOM,
        attributes=RandomBitsAttributes,
        cost=no_work,
    )
)

# --- distributions ---------------------------------------------------------------------------------------------------------


UNIFORM_BITS = {"f16": 11, "f32": 24, "f64": 32}
"""How many leading bits of a word a uniform number of each type uses: as many as fit its significand exactly."""


def random_uniform(bits: Value, dtype: Any = F32) -> Value:
    """Numbers evenly spread over [0, 1), one for each u32 word: its leading bits (``UNIFORM_BITS``) as a binary fraction."""
    target = as_dtype(dtype)
    if not target.is_float:
        raise DTypeError(f"uniform random numbers are floating-point, not {target}")
    used = UNIFORM_BITS[target.name]
    leading = floor_divide(bits, 2 ** (32 - used)) if used < 32 else bits
    return multiply(cast(leading, target), 2.0**-used)


def random_normal(bits: Value, dtype: Any = F32) -> Value:
    """Normal numbers of mean 0 and deviation 1 from u32[2,*shape], by Box and Muller: sqrt(-2 log(1 - u)) cos(2 pi v)."""
    if not bits.rank or bits.shape[0] != 2:
        raise ShapeError(f"normal random numbers need two words each, stacked in front: u32[2,...], got {bits.type}")
    u, v = (random_uniform(squeeze(narrow(bits, 0, i, i + 1), 0), dtype) for i in range(2))
    radius = sqrt(multiply(log(subtract(1.0, u)), -2.0))  # 1 - u is never 0
    return multiply(radius, cos(multiply(v, 2 * math.pi)))


def random_bernoulli(bits: Value, probability: Operand) -> Value:
    """True with the given probability (a number or an f32 value), for each u32 word: uniform < probability."""
    return less(random_uniform(bits, F32), probability)
