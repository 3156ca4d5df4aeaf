"""Samples of take, gather and their adjoints."""

from __future__ import annotations

import numpy as np

from irconv.ops.index import GatherAttributes, ScatterAddAttributes, TakeAdjointAttributes, TakeAttributes
from tests.samples import Sample, numbers

X = numbers(2, 3, 4)


def _indices(low: int, high: int, shape: tuple[int, ...], dtype: str = "int64") -> np.ndarray:
    return np.random.default_rng(3).integers(low, high, shape).astype(dtype)


def _takes() -> list[Sample]:
    table = _indices(-3, 3, (2, 2), "int32")
    return [
        Sample("take", (X, np.array([1, 0, 1])), TakeAttributes(0), about="first axis, repeated"),
        Sample("take", (X, table), TakeAttributes(1), about="negative, 2-D, i32"),
        Sample("take", (X, np.array(3, np.uint8)), TakeAttributes(2), about="scalar index, u8"),
        Sample("take", (X, np.zeros(0, np.int64)), TakeAttributes(1), about="no index"),
        Sample("take", (np.arange(5, dtype=np.int32), np.array([4, 4])), TakeAttributes(0), about="integers", gradient=False),
        Sample(
            "take_adjoint", (numbers(3, 3, 4), np.array([1, 0, 1])), TakeAdjointAttributes(0, 2), about="first axis, repeated"
        ),
        Sample("take_adjoint", (numbers(2, 2, 2, 4), table), TakeAdjointAttributes(1, 3), about="negative, 2-D"),
        Sample("take_adjoint", (numbers(2, 3), np.array(3, np.uint8)), TakeAdjointAttributes(2, 5), about="scalar index"),
        Sample("take_adjoint", (np.zeros((2, 0)), np.zeros(0, np.int64)), TakeAdjointAttributes(1, 3), about="no index"),
        Sample(
            "take_adjoint",
            (np.full((2100,), 1.0, np.float16), np.zeros(2100, np.int64)),
            TakeAdjointAttributes(0, 2),
            about="float16 sums in float32",
            gradient=False,
        ),
    ]


def _gathers() -> list[Sample]:
    long, short = _indices(-3, 3, (2, 5, 4)), _indices(0, 4, (2, 3, 1), "uint16")
    return [
        Sample("gather", (X, long), GatherAttributes(1), about="negative, longer"),
        Sample("gather", (X, short), GatherAttributes(2), about="shorter, u16"),
        Sample("gather", (X, _indices(0, 2, (1, 3, 4), "int32")), GatherAttributes(0), about="first axis, i32"),
        Sample(
            "gather", (np.arange(6).reshape(2, 3), np.array([[2], [-1]])), GatherAttributes(1), about="integers", gradient=False
        ),
        Sample("scatter_add", (numbers(2, 5, 4), long), ScatterAddAttributes(1, 3), about="negative, collisions"),
        Sample("scatter_add", (numbers(2, 3, 1), short), ScatterAddAttributes(2, 6), about="room left, u16"),
        Sample("scatter_add", (numbers(3, 2), _indices(0, 2, (3, 2))), ScatterAddAttributes(0, 2), about="first axis"),
        Sample("scatter_add", (np.zeros((0, 2)), np.zeros((0, 2), np.int64)), ScatterAddAttributes(1, 3), about="empty batch"),
        Sample(
            "scatter_add",
            (np.array([[5, 6, 7]]), np.array([[1, 1, 0]])),
            ScatterAddAttributes(1, 2),
            about="integers",
            gradient=False,
        ),
        Sample(
            "scatter_add",
            (np.full((1, 2100), 1.0, np.float16), np.zeros((1, 2100), np.int64)),
            ScatterAddAttributes(1, 1),
            about="float16 sums in float32",
            gradient=False,
        ),
    ]


SAMPLES = [*_takes(), *_gathers()]
