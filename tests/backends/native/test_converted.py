"""Kernels between copies: float16 computed in float32 and rounded once, and generators that want row-major values."""

from __future__ import annotations

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn
from irconv.backends.native.backend import NativeBackend
from irconv.backends.native.base import NATIVE, NativeRequest
from irconv.backends.native.converted import with_copies
from irconv.backends.native.library import library
from irconv.backends.native.runtime import Pool
from irconv.errors import IrconvError
from irconv.ops.scan import cumsum
from irconv.ops.scatter import scatter
from tests.backends.handwritten import compiler_or_skip
from tests.backends.native.elements import RUNNABLE, Case, one_op
from tests.backends.native.machines import TESTED


@pytest.fixture(autouse=True)
def _with_compiler():
    compiler_or_skip()


def halves(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float16)


def coded(program: irconv.Compiled) -> bool:
    """Whether all of a program is generated code."""
    exe = program.executable
    return exe.sources.keys() == {kernel.name for kernel in exe.kernels if not kernel.is_view}


def network(x, w, v):
    y = F.max_pool2d(F.conv2d(x, w, padding=1).relu() + 1, 2)
    return F.conv2d(y, v, groups=2).mean((2, 3))


@pytest.mark.parametrize("machine", RUNNABLE)
def test_a_float16_network_is_that_of_float32_rounded(machine: str) -> None:
    """Within two roundings of what is stored between kernels."""
    given = [halves((3, 4, 10, 9)), halves((18, 4, 3, 3), 1) / 8, halves((6, 9, 3, 3), 2) / 8]
    program = irconv.compile(network, backend=NativeBackend(machine=TESTED[machine]))
    found = program(*(x.astype(np.float16) for x in given))
    assert found.dtype == np.float16
    assert coded(program)
    wanted = irconv.compile(network, backend="numpy")(*(x.astype(np.float64) for x in given))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=4e-3 * np.abs(wanted).max())


def test_sums_are_rounded_once() -> None:
    """2048 and 1 more is 2048 in float16, a thousand times over."""
    x = np.ones((1, 3000), np.float16)
    program = irconv.compile(lambda x: cumsum(x, 1), backend="native")
    np.testing.assert_array_equal(program(x)[0], np.arange(1, 3001).astype(np.float16))
    assert coded(program)


def test_threads_do_not_matter_and_batches_share_code() -> None:
    w, v = halves((18, 4, 3, 3), 1), halves((6, 9, 3, 3), 2)
    results, before = [], None
    for pool in (Pool(1), Pool(3)):
        program = irconv.compile(network, backend=NativeBackend(pool=pool))
        results.append([program(halves((batch, 4, 10, 9)), w, v).tobytes() for batch in (4, 1, 33)])
        assert before in (None, library().compilations)
        before = library().compilations
    assert results[0] == results[1]


def test_other_batches_compile_nothing() -> None:
    w, v = halves((17, 4, 3, 3), 1), halves((6, 17, 3, 3), 2)
    program = irconv.compile(lambda x, w, v: F.conv2d(F.conv2d(x, w).relu(), v).sum((2, 3)), backend="native")
    program(halves((4, 4, 9, 9)), w, v)
    before = library().compilations
    for batch in (1, 2, 7):
        program(halves((batch, 4, 9, 9)), w, v)
    assert library().compilations == before


def test_values_in_another_order_are_copied() -> None:
    """Channels last, transposed, backwards, and repeated."""
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 3)).astype(np.float32)
    for given in (
        np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        np.ascontiguousarray(x.T).T[:, ::-1],
        np.broadcast_to(x[:, :1], x.shape),
    ):
        case = Case(lambda v: [cumsum(v, 1)], [given])
        assert case.made is None
        request = NativeRequest(case.graph, case.kernel, case.strides, case.machine, threads=2)
        case.made = with_copies(NATIVE["cumsum"], request)
        (first,), (second,) = case.run(), case.run(backwards=True)
        np.testing.assert_allclose(first, np.cumsum(given, 1), rtol=1e-5)
        assert first.tobytes() == second.tobytes()


def test_nothing_to_copy() -> None:
    """float32 in the order that the generator wants: its answer stands."""
    case = one_op("negative", None, [np.ones(3, np.float32)])
    request = NativeRequest(case.graph, case.kernel, case.strides, case.machine)
    assert with_copies(lambda _: None, request) is None


def test_an_index_out_of_range_is_still_refused() -> None:
    program = irconv.compile(lambda x, at, to: scatter(x, at, to, 0, "add"), backend="native")
    x, to = halves((4,)), halves((2,), 1)
    with pytest.raises(IrconvError, match="index 4 is out of range for axis 0 of size 4"):
        program(x, np.array([0, 4]), to)
    wanted = x.astype(np.float32)
    np.add.at(wanted, [3, 3], to.astype(np.float32))
    np.testing.assert_array_equal(program(x, np.array([3, -1]), to), wanted.astype(np.float16))
    assert coded(program)


def test_a_training_step_in_float16_is_all_code() -> None:
    irconv.random.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)).to("float16")
    optimizer = irconv.optim.SGD(model.parameters(), lr=0.0)
    step = irconv.compile_step(model, lambda y, t: ((y - t) ** 2).mean(), optimizer, backend="native")
    x, target = halves((4, 3, 8, 8)), halves((4, 8, 4, 4), 1)
    found = float(step(x, target))
    assert coded(step.compiled)
    twin = irconv.compile_step(model, lambda y, t: ((y - t) ** 2).mean(), optimizer, backend="numpy")
    assert found == pytest.approx(float(twin(x, target)), rel=5e-3)
