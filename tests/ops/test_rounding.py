"""Rounding to narrow formats against ml_dtypes, an independent implementation of them, and against the list of their values."""

from __future__ import annotations

import numpy as np
import pytest

import irconv
from irconv.errors import AttributeValueError, DTypeError
from irconv.ops.elementwise import FLOAT_FORMATS, round_to

ml_dtypes = pytest.importorskip("ml_dtypes")

THEIRS = {
    "bf16": "bfloat16",
    "f8e4m3fn": "float8_e4m3fn",
    "f8e4m3fnuz": "float8_e4m3fnuz",
    "f8e5m2": "float8_e5m2",
    "f8e5m2fnuz": "float8_e5m2fnuz",
    "f4e2m1": "float4_e2m1fn",
}


def numbers(dtype: str) -> np.ndarray:
    """Numbers of all magnitudes, every border between two values of a format, and what lies next to it."""
    generator = np.random.default_rng(3)
    spread = generator.normal(size=20_000) * 2.0 ** generator.integers(-150, 127, 20_000)
    near = generator.normal(size=20_000) * 2.0 ** generator.integers(-20, 18, 20_000)
    borders = [(v[1:] + v[:-1]) / 2 for v in (values(name) for name in THEIRS)]
    exact = np.concatenate([spread, near, *borders, *map(np.negative, borders)]).astype(dtype)
    return np.concatenate([exact, np.nextafter(exact, np.inf), np.nextafter(exact, -np.inf), [0, -0.0, np.inf, -np.inf]]).astype(dtype)


def values(name: str) -> np.ndarray:
    """All finite values of a format that are not negative, in order, and the one that would come next."""
    kind = np.dtype(getattr(ml_dtypes, THEIRS[name]))
    every = np.arange(2**7 if kind.itemsize == 1 else 2**15, dtype=f"u{kind.itemsize}")
    if name == "f4e2m1":
        every = every[:8]
    with np.errstate(invalid="ignore"):
        found = every.view(kind).astype(np.float64)
    found = found[np.isfinite(found)]
    return np.append(found, 2 * found[-1] - found[-2])


@pytest.mark.parametrize("backend", ["reference", "numpy"])
@pytest.mark.parametrize("name", sorted(THEIRS))
def test_what_is_rounded_is_what_another_library_rounds_to(name: str, backend: str) -> None:
    kind = getattr(ml_dtypes, THEIRS[name])
    x = numbers("float32")
    if backend == "reference":
        found = round_to(irconv.tensor(x), name).numpy()
    else:
        found = irconv.compile(lambda x: round_to(x, name), backend="numpy")(x)
    with np.errstate(all="ignore"):
        wanted = x.astype(kind).astype(np.float32)
    np.testing.assert_array_equal(found, wanted)
    zeros = (wanted == 0) & (x == x)
    np.testing.assert_array_equal(np.signbit(found[zeros]), np.signbit(wanted[zeros]))


@pytest.mark.parametrize("backend", ["reference", "numpy"])
@pytest.mark.parametrize("saturate", [False, True])
@pytest.mark.parametrize("name", sorted(THEIRS))
def test_the_nearest_value_is_taken_once(name: str, saturate: bool, backend: str) -> None:
    """In float64, straight from the list of values: rounding to float32 on the way would show next to the borders."""
    x, known = np.abs(numbers("float64")), values(name)
    if backend == "reference":
        found = round_to(irconv.tensor(x), name, saturate).numpy()
    else:
        found = irconv.compile(lambda x: round_to(x, name, saturate), backend="numpy")(x)
    above = np.searchsorted(known, x).clip(1, len(known) - 1)
    low, high = known[above - 1], known[above]
    with np.errstate(invalid="ignore"):
        up = (x - low > high - x) | ((x - low == high - x) & (above % 2 == 0))
    place = np.where(up, above, above - 1)
    beyond = known[-2] if saturate else FLOAT_FORMATS[name].overflow
    wanted = np.where((place == len(known) - 1) | (x > known[-1]), beyond, known[place])
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", sorted(THEIRS))
def test_not_a_number(name: str) -> None:
    found = round_to(irconv.tensor([np.nan], "f32"), name).numpy()
    compiled = irconv.compile(lambda x: round_to(x, name), backend="numpy")(np.array([np.nan], np.float32))
    wanted = [np.nan] if FLOAT_FORMATS[name].has_nan else [0]
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(compiled, wanted)


def test_the_gradient_passes_as_through_a_cast() -> None:
    x = irconv.tensor([0.3, 1.7, 500.0], "f32", requires_grad=True)
    (round_to(x, "f8e4m3fn") * irconv.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), [1, 2, 3])


def test_bad_input() -> None:
    with pytest.raises(AttributeValueError, match="f8e4m3fn"):
        round_to(irconv.tensor([1.0]), "f8")
    with pytest.raises(DTypeError, match="cast first"):
        round_to(irconv.tensor([1], "i32"), "bf16")
