"""Convolution kernels at sizes where their plans differ: bands, groups of samples, shared rows, Winograd tiles."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.backends.arrays import KERNELS, Request, conv, winograd
from irconv.backends.arrays.base import Scratch, Serial
from irconv.backends.arrays.geometry import conv_geometry
from irconv.backends.numpy.parallel import Pool
from irconv.op import OPS, NoAttributes
from irconv.ops.conv import ConvAttributes, ConvTransposeAttributes
from irconv.types import F32, F64, type_of
from tests.backends.executing import check, execute, expected, garbage

POOL = Pool(2)
POOLS = (Pool(1), POOL, Pool(5))


def numbers(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(int(np.prod(shape))).normal(size=shape).astype(dtype)


def attributes(stride=1, padding=1, dilation=1, groups=1, rank=2) -> ConvAttributes:
    return ConvAttributes((stride,) * rank, ((padding, padding),) * rank, (dilation,) * rank, groups)


PLANS = {
    "bands of rows": ((1, 40, 90, 70), (24, 40, 3, 3), attributes()),
    "bands, first layer": ((2, 3, 120, 100), (16, 3, 7, 7), attributes(2, 3)),
    "one large sample of five": ((5, 32, 40, 40), (16, 32, 3, 3), attributes(2)),
    "groups of samples": ((33, 16, 9, 9), (20, 16, 3, 3), attributes()),
    "shared rows, one sample": ((1, 64, 7, 7), (96, 64, 3, 3), attributes()),
    "shared rows, several samples": ((3, 64, 5, 5), (96, 64, 3, 3), attributes()),
    "1x1": ((3, 24, 33, 31), (40, 24, 1, 1), attributes(1, 0)),
    "1x1, one small sample": ((1, 96, 7, 7), (128, 96, 1, 1), attributes(1, 0)),
    "1x1, stride 2": ((2, 24, 33, 31), (40, 24, 1, 1), attributes(2, 0)),
    "grouped": ((2, 24, 40, 40), (32, 6, 3, 3), attributes(groups=4)),
    "depthwise": ((2, 40, 60, 50), (40, 1, 3, 3), attributes(groups=40)),
    "depthwise, stride 2, multiplier 2": ((3, 40, 31, 30), (80, 1, 5, 5), attributes(2, 2, groups=40)),
    "depthwise, many small samples": ((20, 64, 7, 7), (64, 1, 3, 3), attributes(groups=64)),
    "depthwise, dilated": ((2, 16, 30, 30), (16, 1, 3, 3), attributes(2, 2, 3, 16)),
    "1-D": ((4, 20, 3000), (16, 20, 5), attributes(rank=1)),
    "3-D": ((2, 6, 16, 20, 24), (8, 6, 3, 3, 3), attributes(rank=3)),
}


@pytest.mark.parametrize("name", PLANS)
def test_conv_plans(name: str) -> None:
    x_shape, w_shape, a = PLANS[name]
    operands = [numbers(*x_shape), numbers(*w_shape)]
    wanted = expected("conv", a, [x.astype(np.float64) for x in operands]).astype(np.float32)
    for parallel in (None, Serial(64 * 1024), POOL):
        check(execute("conv", a, operands, parallel), wanted)
        check(execute("conv", a, operands, parallel, strict=True), wanted)
    view = [np.flip(x[..., ::-1].copy(), -1) for x in operands]
    check(execute("conv", a, view, POOL, contiguous=False), wanted)


@pytest.mark.parametrize("name", [name for name in PLANS if "shared" not in name])
def test_input_gradients(name: str) -> None:
    x_shape, w_shape, a = PLANS[name]
    operands = [numbers(*x_shape), numbers(*w_shape)]
    d = numbers(*expected("conv", a, operands).shape)
    back = ConvTransposeAttributes(a.stride, tuple(b for b, _ in a.padding), a.dilation, a.groups, x_shape[2:])
    wanted = expected("conv_transpose", back, [d.astype(np.float64), operands[1].astype(np.float64)]).astype(np.float32)
    for parallel in (None, Serial(64 * 1024), POOL):
        check(execute("conv_transpose", back, [d, operands[1]], parallel), wanted)


@pytest.mark.parametrize("sizes", [((2, 16, 14, 14), 2), ((3, 33, 9, 12), 2), ((2, 5, 30, 30), 3)])
def test_windows_that_do_not_overlap_are_copied(sizes) -> None:
    shape, k = sizes
    w = numbers(shape[1], 7, k, k)
    for size in (
        tuple(k * n for n in shape[2:]),
        tuple(k * n + k - 1 for n in shape[2:]),
        tuple(k * n - 1 for n in shape[2:]),
    ):
        a = ConvTransposeAttributes((k, k), (0, 0), (1, 1), 1, size)
        x = numbers(*shape)
        wanted = expected("conv_transpose", a, [x.astype(np.float64), w.astype(np.float64)]).astype(np.float32)
        for parallel in (None, POOL):
            check(execute("conv_transpose", a, [x, w], parallel), wanted)


# --- Winograd ------------------------------------------------------------------------------------------------------------------

TILED = [
    ((1, 64, 56, 56), 64, 1),
    ((3, 130, 14, 13), 128, 1),
    ((2, 19, 23, 17), 33, 1),
    ((2, 8, 6, 5), 8, 0),
    ((2, 8, 1, 1), 8, 1),
    ((1, 3, 130, 2), 4, 2),
    ((5, 16, 11, 30), 9, -1),
]


@pytest.mark.parametrize("shape, out, padding", TILED)
def test_winograd_error_is_bounded(shape, out: int, padding: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """|error| <= 1e-5 max(|x| * |w|): the bound that the module states; a plain product stays below a tenth of it."""
    monkeypatch.setattr(conv, "suits", lambda g, dtype, parallel: parallel is not None)
    monkeypatch.setattr(conv, "can_stack", lambda g, dtype: False)
    a = attributes(padding=padding)
    x, w = numbers(*shape), numbers(out, shape[1], 3, 3)
    exact = expected("conv", a, [x.astype(np.float64), w.astype(np.float64)])
    scale = expected("conv", a, [np.abs(x).astype(np.float64), np.abs(w).astype(np.float64)]).max()
    for parallel in (Serial(64 * 1024), POOL):
        tiled = execute("conv", a, [x, w], parallel)
        assert np.abs(tiled - exact).max() <= 1e-5 * scale
        plain = execute("conv", a, [x, w], parallel, strict=True)
        assert np.abs(plain - exact).max() <= 1e-6 * scale
    back = ConvTransposeAttributes((1, 1), (padding, padding), (1, 1), 1, shape[2:])
    d = numbers(*exact.shape)
    monkeypatch.setattr("irconv.backends.arrays.conv_transpose._turning_pays", lambda request: True)
    wanted = expected("conv_transpose", back, [d.astype(np.float64), w.astype(np.float64)])
    scale = expected("conv_transpose", back, [np.abs(d).astype(np.float64), np.abs(w).astype(np.float64)]).max()
    assert np.abs(execute("conv_transpose", back, [d, w], POOL) - wanted).max() <= 1e-5 * scale


def test_winograd_is_chosen_for_wide_float32_layers_only() -> None:
    def chosen(channels: int, size: int, dtype=F32, parallel=POOL, **changes) -> bool:
        a = attributes(**changes)
        x, w = type_of(numbers(4, channels, size, size)), type_of(numbers(channels, channels // a.groups, 3, 3))
        g = conv_geometry(a, x, w, OPS["conv"].result_type(a, (x, w)))
        return winograd.suits(g, dtype, parallel)

    assert chosen(128, 28)
    assert not chosen(4, 28)
    assert not chosen(128, 28, dtype=F64)
    assert not chosen(128, 28, parallel=None)
    assert not chosen(128, 28, stride=2)
    assert not chosen(128, 28, groups=2)
    assert not chosen(128, 28, dilation=2)


def test_a_strict_request_takes_the_plain_product(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("strict requests keep to plain rounding")

    monkeypatch.setattr(conv, "winograd_work", refuse)
    monkeypatch.setattr(conv, "can_stack", lambda g, dtype: False)
    x, w = type_of(numbers(4, 128, 28, 28)), type_of(numbers(128, 128, 3, 3))
    a = attributes()
    KERNELS["conv"](Request(np, a, (x, w), OPS["conv"].result_type(a, (x, w)), True, POOL, strict=True))
    with pytest.raises(AssertionError, match="plain rounding"):
        KERNELS["conv"](Request(np, a, (x, w), OPS["conv"].result_type(a, (x, w)), True, POOL))


# --- stacked rows --------------------------------------------------------------------------------------------------------------

STACKED = {
    "bands of rows": ((1, 16, 70, 40), (24, 16, 3, 3), attributes()),
    "groups of samples": ((33, 6, 14, 14), (16, 6, 5, 5), attributes(padding=0)),
    "even kernel, dilated": ((3, 7, 20, 23), (5, 7, 4, 2), attributes(dilation=3)),
    "stride along the rows alone": ((2, 7, 20, 23), (5, 7, 3, 3), ConvAttributes((1, 2), ((1, 2), (0, 3)), (2, 1), 1)),
    "cropped": ((2, 7, 20, 23), (5, 7, 3, 3), ConvAttributes((1, 1), ((-2, -1), (1, -3)), (1, 1), 1)),
    "more padding than input": ((2, 3, 2, 3), (4, 3, 3, 3), attributes(padding=5)),
    "3-D": ((2, 6, 9, 10, 11), (8, 6, 3, 2, 3), attributes(rank=3)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", STACKED)
def test_stacked_rows(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv, "stacked_seconds", lambda g, rows, reach: 0.0)
    monkeypatch.setattr(conv, "product_work", None)
    x_shape, w_shape, a = STACKED[name]
    operands = [numbers(*x_shape, dtype=dtype), numbers(*w_shape, dtype=dtype)]
    wanted = expected("conv", a, [x.astype(np.float64) for x in operands]).astype(dtype)
    for parallel in (Serial(64 * 1024), POOL, Pool(5)):
        check(execute("conv", a, operands, parallel), wanted)
    view = [np.flip(x[..., ::-1].copy(), -1) for x in operands]
    check(execute("conv", a, view, POOL, contiguous=False), wanted)


def test_rows_are_stacked_for_few_output_channels_only() -> None:
    def chosen(channels: int, size: int, **changes) -> bool:
        a = attributes(**changes)
        x, w = type_of(numbers(1, channels, size, size)), type_of(numbers(channels, channels // a.groups, 3, 3))
        request = Request(np, a, (x, w), OPS["conv"].result_type(a, (x, w)), True, POOL)
        work = conv.conv_request_work(request, Scratch())
        return "stacked" in work.piece.__qualname__

    assert chosen(32, 128)
    assert not chosen(512, 7)
    assert not chosen(32, 128, stride=2)
    assert not chosen(32, 128, groups=2)


# --- bits ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bands of rows", "groups of samples", "depthwise"])
def test_the_same_bits_from_run_to_run(name: str) -> None:
    x_shape, w_shape, a = PLANS[name]
    operands = [numbers(*x_shape), numbers(*w_shape)]
    types = tuple(map(type_of, operands))
    result = OPS["conv"].result_type(a, types)
    kernel = KERNELS["conv"](Request(np, a, types, result, True, POOL))
    seen = set()
    for fill in (np.nan, 0.0, 1e30):
        out, *scratch = (garbage(t, fill) for t in (result, *kernel.scratch))
        kernel.run(out, *operands, *scratch)
        seen.add(out.tobytes())
    assert len(seen) == 1


@pytest.mark.parametrize("name", PLANS)
def test_the_same_bits_for_any_number_of_threads(name: str) -> None:
    x_shape, w_shape, a = PLANS[name]
    operands = [numbers(*x_shape), numbers(*w_shape)]
    assert len({execute("conv", a, operands, pool).tobytes() for pool in POOLS}) == 1


@pytest.mark.parametrize(("rows", "columns"), [(1, 900), (900, 1), (70, 333), (333, 70)])
def test_matrix_products_have_the_same_bits_for_any_number_of_threads(rows: int, columns: int) -> None:
    operands = [numbers(rows, 700), numbers(700, columns)]
    assert len({execute("matmul", NoAttributes(), operands, pool).tobytes() for pool in POOLS}) == 1
