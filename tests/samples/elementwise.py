"""Samples of the elementwise ops."""

from __future__ import annotations

import numpy as np

from irconv.ops.elementwise import FLOAT_FORMATS, CastAttributes, ClipAttributes, RoundToAttributes
from irconv.types import BOOL, F16, F32, F64, I32, U8
from tests.samples import Sample, numbers

SPECIAL = np.array([-np.inf, -1.5, -0.0, 0.0, 0.5, 2.5, np.inf, np.nan])
INTEGERS = np.array([[-7, -1, 0], [1, 2, 120]], np.int32)
POSITIVE = numbers(2, 3, low=0.3, high=4.0)
TRUTH = np.array([True, True, False, False]), np.array([True, False, True, False])


def _unary() -> list[Sample]:
    """Float64 for the gradient, special values, float16 and an empty and a 0-d tensor."""
    x = numbers(2, 3)
    domains = dict.fromkeys(("negative", "absolute", "sign", "exp", "expm1", "square", "tanh", "sigmoid", "erf"), x)
    domains |= dict.fromkeys(("sin", "cos", "relu", "copy", "floor", "ceil", "round", "stop_gradient"), x)
    domains |= dict.fromkeys(("log", "sqrt", "rsqrt"), POSITIVE) | {"log1p": numbers(2, 3, low=-0.7, high=3.0)}
    domains |= dict.fromkeys(("atan", "sinh", "cosh", "asinh"), x)
    domains |= dict.fromkeys(("asin", "acos", "atanh"), numbers(2, 3, low=-0.9, high=0.8))
    domains |= {"acosh": numbers(2, 3, low=1.2, high=4.0), "tan": numbers(2, 3, low=-1.4, high=1.4)}
    without = ("sign", "floor", "ceil", "round", "stop_gradient")
    rows = []
    for name, x in domains.items():
        rows += [
            Sample(name, (x,), gradient=name not in without),
            Sample(name, (SPECIAL,), about="special values", gradient=False),
            Sample(name, (SPECIAL.astype(np.float32),), about="special values, float32", gradient=False),
            Sample(name, (x.astype(np.float16),), about="float16", gradient=False),
            Sample(name, (np.zeros((0, 3)),), about="empty", gradient=False),
            Sample(name, (np.array(0.7),), about="scalar", gradient=name not in (*without, "acosh")),
            Sample(name, (numbers(3, 4, low=0.1)[::-1, ::2].T,), about="strided", gradient=False),
        ]
    return rows


def _binary() -> list[Sample]:
    x, y = numbers(2, 3), numbers(2, 3, low=-1.9, high=2.2, seed=5)
    row, column = numbers(3, low=0.5, seed=1), numbers(2, 1, low=0.5, high=3.0, seed=2)
    domains = dict.fromkeys(("add", "subtract", "multiply", "minimum", "maximum"), (x, y))
    domains |= {"divide": (x, numbers(2, 3, low=0.5)), "remainder": (x, numbers(2, 3, low=0.6, high=0.9, seed=3))}
    domains |= {"power": (POSITIVE, y), "floor_divide": (x, numbers(2, 3, low=0.6, high=0.9, seed=3))}
    rows = []
    for name, operands in domains.items():
        smooth = name != "floor_divide"
        rows += [
            Sample(name, operands, gradient=smooth),
            Sample(name, (column, row), about="both broadcast", gradient=smooth),
            Sample(name, (row, np.array(1.3)), about="scalar", gradient=smooth),
            Sample(name, (SPECIAL[:, None], SPECIAL), about="special values", gradient=False),
            Sample(name, tuple(a.astype(np.float16) for a in operands), about="float16", gradient=False),
            Sample(name, tuple(a.astype(np.float32) for a in operands), about="float32", gradient=False),
            Sample(name, (np.zeros((0, 3)), row), about="empty", gradient=False),
        ]
    for name in ("add", "subtract", "multiply", "floor_divide", "remainder", "minimum", "maximum"):
        other = np.array([3, -2, 5], np.int32)
        rows.append(Sample(name, (INTEGERS, other), about="integers", gradient=False))
        rows.append(Sample(name, (np.array([250, 3], np.uint8), np.array([9, 200], np.uint8)), about="u8 wraps", gradient=False))
    rows += [
        Sample("floor_divide", (INTEGERS, np.array([0, -1, 0], np.int32)), about="integers by zero", gradient=False),
        Sample("remainder", (INTEGERS, np.array([0, -1, 0], np.int32)), about="integers by zero", gradient=False),
        Sample("power", (INTEGERS, np.array([3, 0, 2], np.int32)), about="integers", gradient=False),
        Sample("power", (np.array([-1.5, 0.0, -2.0]), np.array([2.0, 3.0, 0.0])), about="square of negatives", wrt=(0,)),
        Sample("power", (numbers(3), np.array(2.0)), about="scalar exponent", wrt=(0,)),
        Sample("maximum", (np.array([1.0, 2.0]), np.array([1.0, 2.0])), about="equals", gradient=False),
        Sample("minimum", (np.array([True, False]), np.array([True, True])), about="bool", gradient=False),
    ]
    return rows


def _comparisons() -> list[Sample]:
    rows = []
    for name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"):
        rows += [
            Sample(name, (SPECIAL[:, None], SPECIAL), about="special values", gradient=False),
            Sample(name, (INTEGERS, np.array([1, 2, 0], np.int32)), about="integers", gradient=False),
            Sample(name, (TRUTH[0], TRUTH[1]), about="bool", gradient=False),
            Sample(
                name, (np.array([2**63, 1], np.uint64), np.array([2**63 - 1, 1], np.uint64)), about="large u64", gradient=False
            ),
        ]
    for name in ("logical_and", "logical_or", "logical_xor"):
        rows.append(Sample(name, TRUTH, gradient=False))
        rows.append(Sample(name, (TRUTH[0][:, None], TRUTH[1]), about="broadcast", gradient=False))
    return [*rows, Sample("logical_not", (TRUTH[0],), gradient=False)]


def _casts() -> list[Sample]:
    x = numbers(2, 3, low=-3.0, high=3.0)
    return [
        Sample("cast", (x,), CastAttributes(F64), about="same type"),
        *(Sample("cast", (x,), CastAttributes(dtype), about=f"to {dtype}", gradient=False) for dtype in (F32, F16, I32, BOOL)),
        Sample("cast", (x.astype(np.float16),), CastAttributes(F32), about="f16 to f32", gradient=False),
        Sample("cast", (np.array([1e6, -1e6, 1e-8]),), CastAttributes(F16), about="beyond float16", gradient=False),
        Sample("cast", (INTEGERS,), CastAttributes(U8), about="i32 to u8 wraps", gradient=False),
        Sample("cast", (np.array([True, False]),), CastAttributes(F64), about="bool to f64", gradient=False),
        Sample("cast", (np.array([2**40 + 1, -3], np.int64),), CastAttributes(F32), about="i64 to f32 rounds", gradient=False),
    ]


def _clips() -> list[Sample]:
    x = numbers(3, 4)
    return [
        Sample("clip", (x,), ClipAttributes(-0.9, 0.8), about="both"),
        Sample("clip", (x,), ClipAttributes(0.1, np.inf), about="lower"),
        Sample("clip", (x,), ClipAttributes(-np.inf, 0.1), about="upper"),
        Sample("clip", (x,), ClipAttributes(0.5, 0.5), about="to one value"),
        Sample("clip", (SPECIAL,), ClipAttributes(-1.0, 2.0), about="special values", gradient=False),
        Sample("clip", (x.astype(np.float16),), ClipAttributes(-1.0, 1e9), about="float16", gradient=False),
        Sample("clip", (INTEGERS,), ClipAttributes(-1.5, 2.5), about="integers", gradient=False),
        Sample("clip", (np.array([0, 200], np.uint8),), ClipAttributes(-5.0, 1e6), about="u8", gradient=False),
    ]


def _wheres() -> list[Sample]:
    condition = np.array([[True, False, True], [False, False, True]])
    x, y = numbers(2, 3), numbers(2, 3, seed=7)
    return [
        Sample("where", (condition, x, y)),
        Sample("where", (condition[:, :1], x[0], np.array(2.0)), about="all broadcast"),
        Sample("where", (condition, np.full((2, 3), np.nan), y), about="NaN on one side", gradient=False),
        Sample("where", (condition, INTEGERS, INTEGERS * 2), about="integers", gradient=False),
        Sample("where", (condition, condition, ~condition), about="bool", gradient=False),
        Sample("where", (condition, x.astype(np.float16), y.astype(np.float16)), about="float16", gradient=False),
    ]


def _bits() -> list[Sample]:
    x, y = np.array([[5, -7, 0], [127, -128, 64]], np.int8), np.array([3, -1, 85], np.int8)
    amounts = np.array([0, 3, 7], np.int8)
    rows = [Sample("bitwise_not", (x,)), Sample("bitwise_not", (np.array([0, 1, 2**63], np.uint64),), about="u64")]
    for name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
        rows += [
            Sample(name, (x, y), about="i8, broadcast"),
            Sample(name, (np.array(2**63 + 5, np.uint64), np.array([2**63, 4], np.uint64)), about="u64"),
        ]
    for name in ("shift_left", "shift_right"):
        rows += [
            Sample(name, (x, amounts), about="i8, broadcast"),
            Sample(name, (np.array([2**63 + 5, 3], np.uint64), np.array([63, 1], np.uint64)), about="u64"),
        ]
    return rows


def _roundings() -> list[Sample]:
    """Ties, subnormal numbers, what overflows, and numbers next to a border; the last is a format that all of ONNX knows."""
    powers = 2.0 ** np.arange(-140, 129, 4)
    mantissas = np.array([1.0, 1.0625, 1.125, 1.1875, 1.25, 1.375, 1.5, 1.75, 1.875, 1.9921875, 1.99609375, 1.9999])
    with np.errstate(over="ignore"):
        x = np.concatenate([(powers[:, None] * mantissas).ravel(), [460, 464, 470, 240, 248, 61439, 61441, 5, 7]]).astype(np.float32)
    rows = []
    for name in sorted(FLOAT_FORMATS, reverse=True):
        for saturate in (False, True) if name != "bf16" else (True, False):
            given = {"attributes": RoundToAttributes(name, saturate), "gradient": False}
            about = f"{name}{', saturating' if saturate else ''}"
            rows += [
                Sample("round_to", (SPECIAL,), **given, about=f"{about}, special values"),
                Sample("round_to", (-x[::-1].astype(np.float64) * 1.03,), **given, about=f"{about}, float64"),
                Sample("round_to", (x,), **given, about=about),
            ]
    narrow = RoundToAttributes("f8e5m2", True)
    return [Sample("round_to", (np.zeros((0, 3), np.float32),), narrow, about="empty", gradient=False), *rows]


SAMPLES = [*_unary(), *_binary(), *_comparisons(), *_casts(), *_clips(), *_wheres(), *_bits(), *_roundings()]
