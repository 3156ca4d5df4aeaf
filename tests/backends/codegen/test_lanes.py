"""Lanes of vectors in other orders, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import Pointer, load
from irconv.backends.codegen.lanes import every, interleave, shuffle
from irconv.backends.codegen.machine import MACHINES
from irconv.backends.native.library import Unit
from irconv.backends.native.runtime import run_phases
from irconv.errors import BackendError
from irconv.types import F32, F64
from tests.backends.native.elements import RUNNABLE


@pytest.mark.parametrize("machine", RUNNABLE)
@pytest.mark.parametrize("dtype", [F32, F64])
def test_interleave(dtype, machine) -> None:
    lanes, body, most = MACHINES[machine].lanes(dtype.bytes), Body(), 8
    x, out = Pointer("x", dtype), Pointer("out", dtype)
    place = 0
    with body.tasks():
        for count in range(1, most + 1):
            for vector in interleave(body, [load(x, k * lanes, lanes) for k in range(count)]):
                body.store(out, place, vector)
                place += lanes
    function = body.function("spread", [("out", dtype, True), ("x", dtype, False)])
    values, found = np.arange(most * lanes, dtype=dtype.numpy), np.empty(place, dtype.numpy)
    run_phases(Unit(print_c([function]), MACHINES[machine].flags, "lanes"), [("spread", 1)], (), [found, values])
    rows = values.reshape(most, lanes)
    wanted = [rows[:count].T.ravel() for count in range(1, most + 1)]
    np.testing.assert_array_equal(found, np.concatenate(wanted))


def test_orders_that_do_not_fit_are_refused() -> None:
    x = load(Pointer("x", F32), 0, 4)
    with pytest.raises(BackendError, match="order of 3"):
        shuffle(x, x, range(3))
    with pytest.raises(BackendError, match="f64"):
        shuffle(x, load(Pointer("y", F64), 0, 4), range(4))


@pytest.mark.parametrize("machine", RUNNABLE)
@pytest.mark.parametrize("dtype", [F32, F64])
def test_every(dtype, machine) -> None:
    """Every so many lanes of several vectors; behind the last the vector is filled up with it."""
    lanes, body, most = MACHINES[machine].lanes(dtype.bytes), Body(), 4
    x, out = Pointer("x", dtype), Pointer("out", dtype)
    values, wanted = np.arange(most * lanes, dtype=dtype.numpy), []
    with body.tasks():
        vectors = [load(x, k * lanes, lanes) for k in range(most)]
        for start, step in ((0, 1), (1, 1), (0, 2), (1, 2), (2, 3), (5, 1), (3, 4)):
            for count in (1, lanes // 2, lanes):
                if start + (count - 1) * step < most * lanes:
                    body.store(out, len(wanted) * lanes, every(body, vectors, start, step, count))
                    wanted.append(values[start + np.minimum(np.arange(lanes), count - 1) * step])
    function = body.function("every", [("out", dtype, True), ("x", dtype, False)])
    found = np.empty(len(wanted) * lanes, dtype.numpy)
    run_phases(Unit(print_c([function]), MACHINES[machine].flags, "lanes"), [("every", 1)], (), [found, values])
    np.testing.assert_array_equal(found, np.concatenate(wanted))
