"""Philox4x32-10 against the known answers of Random123, and the distributions built on it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from irconv.errors import AttributeValueError, DTypeError, ShapeError
from irconv.ops.random import philox, random_bernoulli, random_bits, random_normal, random_uniform
from tests.ops.evaluating import apply

KEY = np.array([1, 2], np.uint32)
STEP = np.array(5, np.uint64)
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], np.uint32)


def bits(shape, stream=(3, 4), key=KEY, step=STEP) -> np.ndarray:
    return apply(lambda k, s: random_bits(k, s, stream, shape), key, step)


def drawn(build, shape) -> np.ndarray:
    return apply(lambda k, s: build(random_bits(k, s, (3, 4), shape)), KEY, STEP)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter, key, expected):
    np.testing.assert_array_equal(philox(words(key), words(counter)), words(expected))


def philox_in_python(key: list[int], counter: list[int]) -> list[int]:
    """The definition with Python's integers."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def test_bits_are_the_documented_function_of_key_step_stream_and_place():
    step = 2**33 + 7
    subkey = philox_in_python([1, 2], [3, 4, 0, 0])[:2]
    expected = [word for block in range(3) for word in philox_in_python(subkey, [block, 0, 7, 2])]
    np.testing.assert_array_equal(bits((2, 5), step=np.array(step, np.uint64)).ravel(), expected[:10])


def test_key_step_and_stream_each_change_every_word():
    base = bits((64,))
    others = [bits((64,), stream=(3, 5)), bits((64,), stream=(4, 4)), bits((64,), step=STEP + np.uint64(1))]
    others.append(bits((64,), key=np.array([1, 3], np.uint32)))
    for other in others:
        assert np.count_nonzero(base == other) == 0


def test_a_longer_draw_starts_with_the_shorter_one():
    np.testing.assert_array_equal(bits((7,)), bits((31,))[:7])
    assert bits(()).shape == ()
    assert bits((0, 3)).shape == (0, 3)


@pytest.mark.parametrize(("dtype", "used"), [("f16", 11), ("f32", 24), ("f64", 32)])
def test_uniform_numbers_are_the_leading_bits_and_lie_below_one(dtype, used):
    found = drawn(lambda b: random_uniform(b, dtype), (50000,))
    np.testing.assert_array_equal(found.astype(np.float64), (bits((50000,)) >> (32 - used)) * 2.0**-used)
    assert found.min() >= 0
    assert found.max() < 1
    top = apply(lambda b: random_uniform(b, dtype), np.array([2**32 - 1], np.uint32))
    assert top[0] < 1


def test_uniform_numbers_fill_their_bins_evenly():
    counts = np.bincount((drawn(random_uniform, (100000,)) * 50).astype(int), minlength=50)
    chi_squared = ((counts - 2000) ** 2 / 2000).sum()
    assert 20 < chi_squared < 90  # 49 degrees of freedom; beyond these bounds with probability 5e-4


def test_normal_numbers_have_the_moments_of_the_normal_distribution():
    x = drawn(random_normal, (2, 100000)).astype(np.float64)
    assert x.shape == (100000,)
    assert np.isfinite(x).all()
    assert abs(x.mean()) < 0.015
    assert abs(x.std() - 1) < 0.01
    assert abs((x**4).mean() - 3) < 0.15
    assert abs((x < -1).mean() - 0.5 * math.erfc(1 / math.sqrt(2))) < 0.005


def test_normal_numbers_of_extreme_words_are_finite():
    extreme = np.array([[0, 2**32 - 1, 0, 2**32 - 1], [0, 0, 2**32 - 1, 2**32 - 1]], np.uint32)
    for dtype in ("f16", "f32", "f64"):
        assert np.isfinite(apply(lambda b, dtype=dtype: random_normal(b, dtype), extreme)).all()


def test_bernoulli():
    assert abs(drawn(lambda b: random_bernoulli(b, 0.3), (100000,)).mean() - 0.3) < 0.006
    assert drawn(lambda b: random_bernoulli(b, 1.0), (1000,)).all()
    assert not drawn(lambda b: random_bernoulli(b, 0.0), (1000,)).any()


@pytest.mark.parametrize(
    ("build", "key", "step", "error", "message"),
    [
        (lambda k, s: random_bits(k, s, (0, 2**32), (2,)), KEY, STEP, AttributeValueError, "not a pair of integers from 0"),
        (lambda k, s: random_bits(k, s, (0, 0), (-1,)), KEY, STEP, ShapeError, "negative dimension"),
        (lambda k, s: random_bits(k, s, (0, 0), (2,)), KEY, np.array(5), DTypeError, "u32 key and a u64 step, got u32 and i64"),
        (lambda k, s: random_bits(k, s, (0, 0), (2,)), KEY[:1], STEP, ShapeError, r"a key of shape \[2\]"),
        (lambda k, s: random_normal(random_bits(k, s, (0, 0), (3,))), KEY, STEP, ShapeError, r"u32\[2,...\], got u32\[3\]"),
        (lambda k, s: random_uniform(random_bits(k, s, (0, 0), (3,)), "i32"), KEY, STEP, DTypeError, "not i32"),
    ],
)
def test_bad_input_is_explained(build, key, step, error, message):
    with pytest.raises(error, match=message):
        apply(build, key, step)
