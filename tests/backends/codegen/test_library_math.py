"""Functions of generated C against NumPy in a wider type: dense samples, special values, every kind of vector."""

from __future__ import annotations

import ctypes
import math
from functools import cache

import numpy as np
import pytest

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import INDEX, Pointer, Variable, call, load
from irconv.backends.codegen.machine import MACHINES
from irconv.backends.native.library import Unit, library
from irconv.types import F32, F64, DType
from tests.backends.native.elements import RUNNABLE

_erf = np.frompyfunc(math.erf, 1, 1)
REFERENCES = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": lambda x: _erf(x.astype(np.float64)).astype(x.dtype),
    "sin": np.sin,
    "cos": np.cos,
}
EXACT = {"floor": np.floor, "ceil": np.ceil, "round": np.rint, "sqrt": np.sqrt, "absolute": np.abs}
NAMES = (*REFERENCES, *EXACT)

BOUNDS = {
    F32: {"exp": 1.2, "expm1": 2, "log": 1, "log1p": 2, "tanh": 2, "sigmoid": 3, "erf": 2, "sin": 3, "cos": 3},
    F64: {"exp": 1, "expm1": 2, "log": 1, "log1p": 2, "tanh": 2, "sigmoid": 3, "erf": 2, "sin": 3, "cos": 3},
}
"""Units in the last place, as the library's docstring states them."""

WIDER = {F32: np.float64, F64: np.longdouble}
VARIANTS = [
    (dtype, machine, lanes)
    for machine in RUNNABLE
    for dtype in (F32, F64)
    for lanes in ((1, MACHINES[machine].lanes(dtype.bytes)) if machine == "generic" else (MACHINES[machine].lanes(dtype.bytes),))
]
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 1e-39, -1e-39, 1.0, -1.0, 0.5, 2.5, -2.5, 3e38, -3e38, 1e30]


@cache
def compiled(dtype: DType, machine: str, lanes: int):
    """All functions in one unit, each as ``f(name, array)``; the array's length is a multiple of the lanes."""
    functions = []
    for name in NAMES:
        body = Body()
        with body.loop("i", 0, Variable("n", INDEX), lanes) as i:
            body.store(Pointer("y", dtype), i, call(name, load(Pointer("x", dtype), i, lanes)))
        functions.append(body.function(f"all_{name}", [("y", dtype, True), ("x", dtype, False)], ["n"]))
    code = library().load(Unit(print_c(functions), MACHINES[machine].flags, "library"))

    def run(name: str, x: np.ndarray) -> np.ndarray:
        padded = np.resize(x, -(-x.size // 16) * 16)
        y = np.empty_like(padded)
        buffers, sizes = (ctypes.c_void_p * 2)(y.ctypes.data, padded.ctypes.data), (ctypes.c_int64 * 1)(padded.size)
        code[f"all_{name}"](buffers, sizes, ctypes.c_int64(0), ctypes.c_int64(1), ctypes.c_int64(0))
        return y[: x.size]

    return run


def samples(name: str, dtype: DType) -> np.ndarray:
    """Arguments all over the domain, most of them where the function changes."""
    rng = np.random.default_rng(len(name))
    single = dtype is F32
    both = rng.choice([-1.0, 1.0], 20_000)
    tiny = np.exp(rng.uniform(-80 if single else -600, 0, 20_000)) * both
    match name:
        case "exp" | "sigmoid":
            x = rng.uniform(-87, 88.7, 200_000) if single else rng.uniform(-700, 709, 100_000)
        case "expm1":
            x = np.concatenate([rng.uniform(-18, 88, 50_000), rng.uniform(-1, 1, 150_000), tiny])
        case "log":
            x = np.concatenate([np.exp(rng.uniform(-100, 88, 100_000)), rng.uniform(0.5, 2, 150_000)])
        case "log1p":
            x = np.concatenate([np.exp(rng.uniform(-80, 88, 50_000)), rng.uniform(-0.999, 1, 150_000), tiny * 0.99])
        case "sin" | "cos":
            limit = 9_999 if single else 999_999
            x = np.concatenate([rng.uniform(-limit, limit, 100_000), rng.uniform(-7, 7, 100_000), 3 * limit * both, tiny])
        case _:
            x = np.concatenate([rng.uniform(-10, 10, 50_000), rng.uniform(-1.2, 1.2, 150_000), tiny])
    return x.astype(dtype.numpy)


def errors_in_ulp(actual: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Distances in units in the last place that the wanted number has in the actual one's type."""
    unit = np.spacing(np.abs(wanted).astype(actual.dtype))
    return np.abs(actual.astype(wanted.dtype) - wanted) / unit.astype(wanted.dtype)


@pytest.mark.parametrize(("dtype", "machine", "lanes"), VARIANTS, ids=str)
@pytest.mark.parametrize("name", REFERENCES)
def test_errors_stay_in_their_bounds(name: str, dtype: DType, machine: str, lanes: int) -> None:
    x = samples(name, dtype)
    with np.errstate(all="ignore"):
        wanted = REFERENCES[name](x.astype(WIDER[dtype]))
    actual = compiled(dtype, machine, lanes)(name, x)
    assert np.isfinite(actual).all()
    assert errors_in_ulp(actual, wanted).max() <= BOUNDS[dtype][name]


@pytest.mark.parametrize(("dtype", "machine", "lanes"), VARIANTS, ids=str)
def test_special_values(dtype: DType, machine: str, lanes: int) -> None:
    """NaN, infinities, signed zeros and subnormal numbers."""
    x = np.array(SPECIAL, dtype.numpy)
    for name in NAMES:
        actual = compiled(dtype, machine, lanes)(name, x)
        with np.errstate(all="ignore"):
            wanted = {**REFERENCES, **EXACT}[name](x.astype(np.float64)).astype(dtype.numpy)
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(wanted), name)
        number = ~np.isnan(wanted)
        np.testing.assert_array_equal(np.signbit(actual)[number], np.signbit(wanted)[number], name)
        np.testing.assert_allclose(actual[number], wanted[number], 4 * np.finfo(dtype.numpy).eps, 2 * np.finfo(dtype.numpy).smallest_subnormal)


@pytest.mark.parametrize(("dtype", "machine", "lanes"), VARIANTS, ids=str)
def test_rounding_and_roots_are_exact(dtype: DType, machine: str, lanes: int) -> None:
    rng = np.random.default_rng(0)
    halves = np.arange(-40, 40) / 4
    x = np.concatenate([halves, rng.standard_normal(1000) * 10.0 ** rng.integers(-5, 18, 1000)]).astype(dtype.numpy)
    for name, reference in EXACT.items():
        with np.errstate(invalid="ignore"):
            wanted = reference(x)
        actual = compiled(dtype, machine, lanes)(name, x)
        np.testing.assert_array_equal(actual, wanted, name)
        np.testing.assert_array_equal(np.signbit(actual)[~np.isnan(wanted)], np.signbit(wanted)[~np.isnan(wanted)], name)


def test_subnormal_results_of_exp() -> None:
    """Halfway down to nothing, a result is as exact as the format allows."""
    x = np.linspace(-104, -87.4, 5000, dtype=np.float32)
    for machine in RUNNABLE:
        actual = compiled(F32, machine, MACHINES[machine].lanes(4))("exp", x)
        assert np.abs(actual - np.exp(x.astype(np.float64))).max() <= 1.2 * 2.0**-149


def test_vectors_and_scalars_agree_on_one_machine() -> None:
    """One text: the same operations in the same order, where nothing is fused."""
    for dtype in (F32, F64):
        scalar, vector = (compiled(dtype, "generic", lanes) for lanes in (1, MACHINES["generic"].lanes(dtype.bytes)))
        for name in ("exp", "log", "tanh", "erf", "expm1", "log1p", "sigmoid"):
            x = samples(name, dtype)[:5000]
            np.testing.assert_array_equal(scalar(name, x), vector(name, x), name)
